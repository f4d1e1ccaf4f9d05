//! What people do about a run while it goes on and after it stopped: pause, abort, retry, skip, attach, status.

use harness::{Site, finish, kill, until};
use lab::Event;
use proto::Kind;
use proto::event::RunOutcome;

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

fn slow_postupgrade() -> Site {
    Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: postupgrade, seconds: 3 }}] }}"))
}

fn outcome(site: &Site) -> Option<RunOutcome> {
    site.events().into_iter().rev().find_map(|event| match event.kind {
        Kind::RunFinished { outcome, .. } => Some(outcome),
        _ => None,
    })
}

#[test]
fn a_run_is_paused_from_another_terminal_and_goes_on() {
    let site = slow_postupgrade();
    let mut run = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    let attached = site.begin(&["attach"]);
    let status = site.caravan(&["status"]).expect(0);
    assert!(status.stdout.contains("driven by tester@") && status.stdout.contains(" pause "), "{}", status.stdout);
    let twice = site.caravan(&["resume"]).expect(4);
    assert!(twice.stderr.contains("caravan attach"), "{}", twice.stderr);

    let paused = site.caravan(&["pause"]).expect(0);
    assert!(
        paused.stderr.contains("still running: mkt1 postupgrade") || paused.stderr.contains("postupgrade"),
        "{}",
        paused.stderr
    );
    assert!(paused.stderr.contains(" resume "), "{}", paused.stderr);
    finish(run).expect(5);
    let attached = finish(attached).expect(5);
    assert!(attached.stderr.contains("attached to run") && attached.stderr.contains("run paused"), "{}", attached.stderr);
    let installed = |host: &str| site.records("emea").iter().any(|r| r.host == host && r.event == Event::PackageInstalled);
    assert!(installed("emea-mkt1") && !installed("emea-mta1"), "what runs ends, and nothing new begins");
    assert_eq!(site.count(Event::PostupgradeEnded), 1);
    let status = site.caravan(&["status"]).expect(0);
    assert!(status.stdout.contains("· paused ·") && status.stdout.contains(" resume "), "{}", status.stdout);
    let again = site.caravan(&["pause"]).expect(0);
    assert!(again.stdout.contains("No controller drives run"), "{}", again.stdout);

    site.caravan(&["resume"]).expect(0);
    assert_eq!(site.count(Event::PostupgradeEnded), 1);
    site.assert_no_violations();
    let report = site.caravan(&["report", "--format", "json"]).expect(0).json();
    assert_eq!(report["controllers"].as_array().unwrap().len(), 2, "{}", report["controllers"]);
    assert_eq!((&report["order"]["kept"], &report["outcome"]), (&true.into(), &"ok".into()));
}

#[test]
fn a_run_is_aborted_from_another_terminal_and_its_hosts_are_free() {
    let site = slow_postupgrade();
    let mut run = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    let aborted =
        site.caravan(&["abort", site.run_dir().file_name().unwrap().to_str().unwrap(), "--yes", "--reason", "wrong night"]);
    let aborted = aborted.expect(0);
    assert!(aborted.stderr.contains(" rollback ") && !aborted.stderr.contains(" resume "), "{}", aborted.stderr);
    finish(run);
    assert_eq!(outcome(&site), Some(RunOutcome::Aborted));
    assert_eq!(site.count(Event::PostupgradeEnded), 1, "what ran came to its end");
    let resumed = site.caravan(&["resume"]).expect(2);
    assert!(resumed.stderr.contains("was aborted"), "{}", resumed.stderr);
    let report = site.caravan(&["report"]).expect(0);
    assert!(report.stdout.contains("wrong night"), "{}", report.stdout);
    free(&site);
}

#[test]
fn a_run_whose_controller_is_gone_is_aborted_too() {
    let site = slow_postupgrade();
    let mut run = site.start(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    kill(run);
    let status = site.caravan(&["status"]).expect(0);
    assert!(status.stdout.contains("cut off") && status.stdout.contains("may go on on the hosts"), "{}", status.stdout);
    let looked = site.caravan(&["attach"]).expect(5);
    assert!(looked.stderr.contains("No controller drives run"), "{}", looked.stderr);
    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    site.caravan(&["abort", &run, "--yes", "--reason", "wrong night"]).expect(0);
    assert_eq!(outcome(&site), Some(RunOutcome::Aborted));
    assert_eq!(site.count(Event::PostupgradeEnded), 1, "it was waited for");
    free(&site);
}

/// Another run gets the hosts; it stops in preflight, since this one has moved things.
fn free(site: &Site) {
    let next = site.caravan(&["migrate", "--yes"]);
    assert_ne!(next.code, 4, "{}", next.stderr);
    site.assert_no_violations();
}

/// A step of the site fails on one host whenever it is asked.
#[test]
fn a_failed_step_is_retried_skipped_and_accepted() {
    let site = Site::new(STANDARD);
    site.override_steps(
        "stop.nlserver: { before: [{ name: site.agreed, command: [sh, -c, \"test $0 != emea-trk2\", \"{host}\"] }] }",
    );
    let stopped = site.caravan(&["migrate", "--yes"]).expect(1);
    let step = "emea/stop/nlserver/emea-trk2/site.agreed";
    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    for command in [format!("retry {run} {step}"), format!("skip {run} {step} --reason REASON"), format!("resume {run}")] {
        assert!(stopped.stderr.contains(&command), "{command}\n{}", stopped.stderr);
    }
    // Nobody may start it again unasked.
    site.caravan(&["resume"]).expect(1);
    let attempts = || -> Vec<bool> {
        let mine = |event: &proto::Event| event.scope.step.as_deref() == Some(step);
        let acts = |event: proto::Event| match event.kind {
            Kind::StepGranted { prove, .. } => Some(!prove),
            _ => None,
        };
        site.events().into_iter().filter(mine).filter_map(acts).collect()
    };
    assert_eq!(attempts(), [true]);

    let retried = site.caravan(&["retry", &run, "emea-trk2/site.agreed", "--reason", "try once more"]).expect(0);
    assert!(retried.stderr.contains(&format!("resume {run}")), "{}", retried.stderr);
    let again = site.caravan(&["resume"]).expect(1);
    assert!(again.stderr.contains("site.agreed (attempt 2)"), "{}", again.stderr);
    assert_eq!(attempts(), [true, true]);

    site.caravan(&["skip", &run, step, "--reason", "agreed on the phone"]).expect(0);
    let unproven = site.caravan(&["resume"]);
    assert!([1, 5].contains(&unproven.code), "a step that is skipped proves nothing: {}", unproven.stderr);
    // Whoever wants it carried out after all says so.
    site.caravan(&["retry", &run, step]).expect(0);
    site.caravan(&["resume"]).expect(1);
    site.caravan(&["skip", &run, step, "--reason", "agreed on the phone"]).expect(0);
    let accepted = format!("{step}=agreed on the phone, ticket 4711");
    site.caravan(&["resume", "--accept-unproven", &accepted]).expect(0);
    site.assert_no_violations();
    assert_eq!(attempts(), [true, true, false, true, false], "whether each attempt acted, or only its probe ran");
    let report = site.caravan(&["report"]).expect(0);
    for expected in ["WITHOUT PROOF", "try once more", "agreed on the phone, ticket 4711"] {
        assert!(report.stdout.contains(expected), "{expected}\n{}", report.stdout);
    }
    let json = site.caravan(&["report", "--format", "json"]).expect(0).json();
    let steps = json["platforms"][0]["phases"].as_array().unwrap().iter().flat_map(|phase| phase["stages"].as_array().unwrap());
    let own = steps.flat_map(|stage| stage["steps"].as_array().unwrap()).find(|known| known["id"] == step).unwrap();
    assert!(own["earlier_attempts"].as_array().unwrap().len() >= 2, "{own:#}");
}

/// While another platform is at work, a failed step of this one is started again.
#[test]
fn a_failed_step_is_retried_while_the_run_goes_on() {
    let site = Site::new(
        "
platforms:
  - { name: apac, topology: standard, hosts: { marketing: 1, tracking: 1 } }
  - { name: emea, topology: standard, hosts: { marketing: 1, tracking: 1 } }
faults: { slow: [{ host: apac-mkt1, what: postupgrade, seconds: 10 }] }
",
    );
    let mended = site.root().join("mended");
    site.override_steps(&format!(
        "stop.nlserver: {{ before: [{{ name: site.agreed, command: [sh, -c, \"test $0 != emea-trk1 || test -e {}\", \"{{host}}\"] }}] }}",
        mended.display()
    ));
    let mut run = site.begin(&["migrate", "--yes"]);
    let failed = |event: &proto::Event| matches!(event.kind, Kind::PlatformFinished { .. });
    site.wait_for(Event::PostupgradeBegan, &mut run);
    until("emea stops", || site.events().iter().any(failed));
    std::fs::write(&mended, "").unwrap();
    let id = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    let before = site.caravan(&["status"]).expect(0);
    assert!(before.stdout.contains("waits for a person: failed"), "{}", before.stdout);
    site.caravan(&["retry", &id, "site.agreed", "--reason", "mended"]).expect(0);
    finish(run).expect(0);
    site.assert_no_violations();
    assert_eq!(site.count(Event::PostupgradeEnded), 2);
}
