//! When platforms may be touched: rehearsals, canaries, a failure budget, a maintenance window, the age of checks.

use harness::{Site, finish, kill, until};
use lab::{Event, Says};
use proto::Kind;
use std::time::Duration;

/// Two machines; the first is the test platform.
fn two(faults: &str) -> Site {
    let site = Site::new(&format!(
        "
platforms:
  - {{ name: dev, topology: standalone, hosts: {{ marketing: 1 }} }}
  - {{ name: prod, topology: standalone, hosts: {{ marketing: 1 }} }}
faults: {faults}
"
    ));
    let text = std::fs::read_to_string(site.lab.inventory()).unwrap();
    std::fs::write(site.lab.inventory(), text.replacen("- name: dev\n", "- name: dev\n  rehearsal: true\n", 1)).unwrap();
    site
}

fn upgraded(site: &Site, platform: &str) -> usize {
    site.records(platform).iter().filter(|record| record.event == Event::PostupgradeEnded).count()
}

/// Everything that a run may change is as it was.
fn untouched(site: &Site, platform: &str) -> bool {
    site.records(platform)
        .iter()
        .all(|record| !matches!(record.event, Event::ServiceStopped | Event::PackageInstalled | Event::DumpWritten))
}

#[test]
fn a_platform_waits_for_its_rehearsal_and_knows_then_how_long_it_takes() {
    let site = two("{}");
    let held = site.caravan(&["check", "--format", "json"]).expect(1).json();
    let rehearsal = held["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == "rehearsal@prod").unwrap();
    assert_eq!(rehearsal["status"], "failure", "{rehearsal:#}");
    assert!(rehearsal["message"].as_str().unwrap().contains("dev has not been migrated"), "{rehearsal:#}");

    // A window that is open now, in a time zone where it is about noon; nobody knows yet how long it takes.
    let zone = noon();
    let at_noon = |args: &[&str]| {
        let output = site.command(args).env("TZ", &zone).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = at_noon(&["migrate", "--yes", "--limit", "platform:dev", "--window", "08:00-16:00"]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("how long it takes is not known") && untouched(&site, "dev"), "{text}");
    let (code, text) = at_noon(&["resume", "--expect", "10h"]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("10 h 0 min (--expect)") && untouched(&site, "dev"), "{text}");
    let (code, text) = at_noon(&["resume", "--expect", "1m"]);
    assert_eq!((code, upgraded(&site, "dev")), (0, 1), "{text}");

    let plan = site.caravan(&["plan"]).expect(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plan.contains("· rehearsal") && plan.contains("expected ") && plan.contains("(rehearsal 20"), "{plan}");
    let (code, text) = at_noon(&["migrate", "--yes", "--limit", "platform:prod", "--window", "08:00-16:00"]);
    assert_eq!((code, upgraded(&site, "prod")), (0, 1), "{text}");
    site.assert_no_violations();
}

/// A time zone in which it is between 12 and 13 o'clock now, as POSIX writes it (hours west of Greenwich).
fn noon() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    format!("LAB{:+}", i64::try_from(now % 86_400 / 3600).unwrap() - 12)
}

/// Whichever way a site calls the check: an error of it is one, also where the line looks like a warning and the exit code is 0.
#[test]
fn an_error_of_the_check_stops_a_platform_before_its_postupgrade() {
    let checked = |line: &str| {
        let site = Site::new("platforms: [{ name: emea, topology: standalone, hosts: { marketing: 1 } }]");
        let inventory = std::fs::read_to_string(site.lab.inventory()).unwrap();
        let own = format!("{{ command: [/bin/sh, -c, 'echo \"{line}\"'] }}");
        std::fs::write(site.lab.inventory(), format!("{inventory}  overrides:\n    postupgrade.check: {own}\n")).unwrap();
        site
    };
    let site = checked("11:57:52 >>   PU-0007 The form is not what it was");
    let ran = site.migrate(&[]).expect(1);
    assert!(ran.stderr.contains("postupgrade would end with an error: 11:57:52 >>   PU-0007 The form"), "{}", ran.stderr);
    assert_eq!((site.count(Event::PackageInstalled), site.count(Event::PostupgradeBegan)), (1, 0));

    let site = checked("11:57:52 >>   JST-310040 obsolete");
    site.migrate(&[]).expect(0);
    assert_eq!(site.count(Event::PostupgradeEnded), 1);
}

#[test]
fn nobody_follows_a_canary_that_failed() {
    let site = two("{ fail: [{ host: dev-mkt1, step: postupgrade, times: 1 }] }");
    let reason = "rehearsal@prod=the canary is the rehearsal";
    let ran = site.caravan(&["migrate", "--yes", "--canary", "dev", "--override", reason]).expect(1);
    assert!(ran.stderr.contains("the canary dev did not end well: nothing was touched"), "{}", ran.stderr);
    assert!(untouched(&site, "prod") && upgraded(&site, "dev") == 0);
    site.caravan(&["resume"]).expect(0);
    assert_eq!((upgraded(&site, "dev"), upgraded(&site, "prod")), (1, 1));
    // The other one was touched only when the canary was through.
    let records = site.lab.records().unwrap();
    let first = records.iter().position(|r| r.platform == "prod" && r.event == Event::ServiceStopped).expect("it was stopped");
    let up = records.iter().rposition(|r| r.platform == "dev" && r.event == Event::ModuleStarted).expect("it was started");
    assert!(up < first, "prod was stopped before dev was up again");
    site.assert_no_violations();

    let wrong = site.caravan(&["migrate", "--yes", "--canary", "dve"]).expect(2);
    assert!(wrong.stderr.contains("dve takes no part in this run; its platforms are dev, prod"), "{}", wrong.stderr);
    let wrong = site.caravan(&["migrate", "--yes", "--window", "22-04"]).expect(2);
    assert!(wrong.stderr.contains("22:00-04:00"), "{}", wrong.stderr);
}

#[test]
fn a_failure_budget_keeps_the_rest_untouched() {
    let site = two("{ fail: [{ host: dev-mkt1, step: postupgrade }] }");
    let text = std::fs::read_to_string(site.lab.inventory()).unwrap();
    std::fs::write(site.lab.inventory(), text.replace("version: 1\n", "version: 1\nparallel: { platforms: 1 }\n")).unwrap();
    let args = ["migrate", "--yes", "--max-failures", "0", "--override", "rehearsal@prod=tonight"];
    let ran = site.caravan(&args).expect(1);
    assert!(ran.stderr.contains("dev ended badly, more than --max-failures allows"), "{}", ran.stderr);
    assert!(untouched(&site, "prod"));
    // Whoever takes the run up again does not forget it: dev has another chance, and prod waits for how it ends.
    let again = site.caravan(&["resume"]).expect(1);
    assert!(again.stderr.contains("dev ended badly, more than --max-failures allows"), "{}", again.stderr);
    assert!(untouched(&site, "prod"));
}

#[test]
fn platforms_that_were_held_up_together_do_not_wait_for_each_other() {
    let site = two("{ operators_without_password: [admin] }");
    site.caravan(&["migrate", "--yes", "--max-failures", "0"]).expect(1);
    assert!(untouched(&site, "dev") && untouched(&site, "prod"));
    let mended = ["operator-passwords@dev/dev=set by now", "operator-passwords@prod/prod=set by now", "rehearsal@prod=tonight"];
    let mut args = vec!["resume"];
    mended.iter().for_each(|reason| args.extend(["--override", reason]));
    site.caravan(&args).expect(0);
    assert_eq!((upgraded(&site, "dev"), upgraded(&site, "prod")), (1, 1));
}

#[test]
fn a_canary_that_was_rolled_back_is_none_any_more() {
    let site = two("{ fail: [{ host: dev-mkt1, step: postupgrade }] }");
    site.caravan(&["migrate", "--yes", "--canary", "dev", "--override", "rehearsal@prod=the canary is it"]).expect(1);
    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    site.caravan(&["rollback", &run, "--yes"]).expect(0);
    let refused = site.caravan(&["resume", &run]).expect(2);
    assert!(refused.stderr.contains("dev takes no part in this run any more"), "{}", refused.stderr);
    assert!(untouched(&site, "prod"));
}

#[test]
fn checks_that_are_old_are_made_again_before_anything_is_touched() {
    let site = Site::new("platforms:\n  - { name: cm, topology: cloud-messaging, hosts: { marketing: 1, mta: 1, tracking: 1 } }\n");
    let waits = site.caravan(&["migrate", "--yes", "--fresh", "8s"]).expect(5);
    assert!(waits.stderr.contains("vendor-execution-servers"), "{}", waits.stderr);
    std::thread::sleep(Duration::from_secs(9));
    let gates = site.gates();
    site.caravan(&["resume", "--confirm", &gates[0]]).expect(0);
    let events = site.events();
    let again: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Kind::Decision { decision, about, operator, reason } if decision == "recheck" => Some((about, operator, reason)),
            _ => None,
        })
        .collect();
    let [(about, operator, reason)] = again.as_slice() else { panic!("once: {again:?}") };
    assert_eq!((about.as_str(), operator.as_str()), ("cm", "caravan"));
    assert!(reason.ends_with("old, and --fresh is 8 s"), "{reason}");
    let read = events.iter().filter(|event| {
        matches!(event.kind, Kind::StepStarted) && event.scope.step.as_deref() == Some("cm/preflight/facts/cm-mkt1/facts")
    });
    assert_eq!(read.count(), 2, "the facts were read twice");
    assert_eq!(upgraded(&site, "cm"), 1);
    site.assert_no_violations();
    let report = site.caravan(&["report", "--format", "json"]).expect(0).json();
    assert_eq!((&report["order"]["kept"], &report["outcome"]), (&true.into(), &"ok".into()));
}

/// Whoever takes a run up again looks once more at what has to be well at any time, also on platforms that were touched: what is still to
/// come waits for it.
#[test]
fn what_has_to_be_well_at_any_time_is_looked_at_again_in_the_middle() {
    let site = Site::new(
        "
platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }]
faults: { fail: [{ host: emea-mta1, step: install, times: 1 }] }
",
    );
    site.migrate(&[]).expect(1);
    assert_eq!(site.count(Event::PackageInstalled), 1, "the marketing server is through");
    let sent = |host: &str, part: &str| {
        let find = |dir: &std::path::Path| -> Vec<std::path::PathBuf> {
            let mut found = Vec::new();
            let mut dirs = vec![dir.to_owned()];
            while let Some(dir) = dirs.pop() {
                for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                    if entry.is_dir() { dirs.push(entry) } else { found.push(entry) }
                }
            }
            found
        };
        let all = find(&site.host(host).host_state());
        all.iter()
            .find(|path| path.to_str().unwrap().contains(part) && path.extension().is_some_and(|e| e == "deb"))
            .cloned()
            .unwrap_or_else(|| panic!("{all:#?}"))
    };
    let (new, old) = (sent("emea-trk1", "v7"), sent("emea-mkt1", "8989"));
    let was = std::fs::read(&new).unwrap();
    std::fs::write(&new, "half a package").unwrap();
    let held = site.caravan(&["resume"]).expect(1);
    let said = "--override package-files@emea-trk1=REASON";
    assert!(held.stderr.contains(said) && held.stderr.contains("is gone or was changed"), "{}", held.stderr);
    assert_eq!(site.count(Event::PackageInstalled), 1, "nothing further was done");
    let status = site.caravan(&["status"]).expect(0);
    assert!(status.stdout.contains("package-files@emea-trk1"), "{}", status.stdout);

    // Mended is one way, and set aside with a reason the other one.
    std::fs::write(&new, was).unwrap();
    std::fs::remove_file(&old).unwrap();
    let held = site.caravan(&["resume"]).expect(1);
    assert!(held.stderr.contains("--override package-files@emea-mkt1=REASON"), "{}", held.stderr);
    site.caravan(&["resume", "--override", "package-files@emea-mkt1=the old package is on the share"]).expect(0);
    assert_eq!((site.count(Event::PackageInstalled), site.count(Event::PostupgradeEnded)), (3, 1));
    site.assert_no_violations();
    let report = site.caravan(&["report"]).expect(0).stdout;
    assert!(report.contains("| always | ") && report.contains("OVERRIDDEN: the old package is on the share"), "{report}");
    let repeated = site.events().into_iter().filter(|event| matches!(event.kind, Kind::ChecksRepeated { .. }));
    let repeated: Vec<_> =
        repeated.map(|event| if let Kind::ChecksRepeated { holding } = event.kind { holding } else { vec![] }).collect();
    assert_eq!(repeated, [vec!["package-files@emea-trk1".to_owned()], vec!["package-files@emea-mkt1".to_owned()], vec![]]);
}

/// What runs on a host goes on, whatever the checks say when the run is taken up again.
#[test]
fn what_runs_goes_on_while_a_check_holds_up_what_is_to_come() {
    let site = Site::new(
        "
platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }]
faults: { slow: [{ host: emea-mkt1, what: postupgrade, seconds: 8 }] }
",
    );
    let mut run = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    // It prints nothing for a while: its log says how far it is.
    let status = || site.caravan(&["status"]).expect(0).stdout;
    until("its log", || status().contains("[log] 2 lines, 0 warnings, 0 errors; "));
    kill(run);
    site.host("emea-trk1").say(Some(&Says { clock_ms: 3_600_000, ..Says::default() })).unwrap();
    let held = finish(site.begin(&["resume"])).expect(1);
    assert!(held.stderr.contains("--override clock@emea-trk1=REASON"), "{}", held.stderr);
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (1, 1), "it came to its end");
    assert_eq!(site.count(Event::PackageInstalled), 1, "and nothing was begun behind it");
    site.host("emea-trk1").say(None).unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PackageInstalled)), (1, 3));
    site.assert_no_violations();
}
