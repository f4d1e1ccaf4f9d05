//! The main job, end to end, judged from what the stand-in hosts recorded themselves.

use harness::Site;
use lab::Event;
use proto::event::{Kind, Outcome};
use std::collections::BTreeMap;

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

fn two_platforms(faults: &str) -> Site {
    Site::new(&format!(
        "
platforms:
  - name: emea
    topology: standard
    hosts: {{ marketing: 1, mta: 1, tracking: 2 }}
  - name: apac
    topology: standard
    hosts: {{ marketing: 1, tracking: 2 }}
faults: {faults}
"
    ))
}

/// What a migration leaves on a host; whatever else the stand-ins record (a dump listed, facts read) is no change.
fn changes(site: &Site, platform: &str, since: usize) -> Vec<String> {
    let changing = |event: &Event| {
        !matches!(event, Event::ModuleStarted | Event::ServiceStarted | Event::WebStarted) && !matches!(event, Event::Violation(_))
    };
    let records = site.records(platform);
    records
        .into_iter()
        .skip(since)
        .filter(|r| changing(&r.event))
        .map(|r| format!("{} {:?} {}", r.host, r.event, r.subject))
        .collect()
}

#[test]
fn every_topology_migrates_in_the_mandated_order() {
    let site = Site::of(lab::Spec::every_topology());
    site.caravan(&["inventory", "check"]).expect(0);
    let check = site.caravan(&["check", "--format", "json"]).expect(0).json();
    assert!(check["findings"].as_array().is_some_and(|f| f.len() > 20), "{check:#}");
    let proof = site.caravan(&["passwords", "check", "--format", "json"]).expect(0).json();
    for platform in proof["platforms"].as_array().unwrap() {
        assert_eq!(platform["identical"], true, "{platform:#}");
        assert_eq!(platform["proof"], "stored-value");
    }

    site.migrate(&[]).expect(0);

    site.assert_no_violations();
    let mut postupgrades: BTreeMap<String, usize> = BTreeMap::new();
    for record in site.lab.records().unwrap() {
        if record.event == Event::PostupgradeEnded {
            *postupgrades.entry(record.subject).or_default() += 1;
        }
    }
    let instances: usize = site.lab.layout().platforms.iter().map(|platform| platform.instances.len()).sum();
    assert_eq!(postupgrades.len(), instances, "{postupgrades:?}");
    assert!(postupgrades.values().all(|times| *times == 1), "{postupgrades:?}");

    // A second start finds the target build and touches nothing.
    let before = site.lab.records().unwrap().len();
    let again = site.migrate(&[]).expect(1);
    assert!(again.stderr.contains("9383"), "{}", again.stderr);
    assert!(site.lab.records().unwrap().len() - before < 3 * site.lab.layout().hosts().count(), "something was changed");
    site.assert_no_violations();

    let runs = site.caravan(&["runs"]).expect(0);
    assert_eq!(runs.stdout.lines().filter(|line| line.contains("migrate")).count(), 2, "{}", runs.stdout);
    let status = site.caravan(&["status"]).expect(0);
    assert!(status.stdout.contains("preflight"), "{}", status.stdout);
}

#[test]
fn a_gate_that_nobody_confirmed_makes_its_platform_wait_and_the_others_finish() {
    let site = Site::new(
        "
platforms:
  - { name: cloud, topology: cloud-messaging, hosts: { marketing: 1, tracking: 1 } }
  - { name: solo, topology: standalone, hosts: { marketing: 1 }, also: { solo-mkt1: [mta, tracking] } }
",
    );
    let before = site.records("cloud").len();
    site.caravan(&["migrate", "--yes"]).expect(5);
    assert_eq!(changes(&site, "cloud", before), Vec::<String>::new());
    assert!(site.records("solo").iter().any(|r| r.event == Event::PostupgradeEnded));
    site.assert_no_violations();
    site.migrate(&["--limit", "platform:cloud"]).expect(0);
    assert!(site.records("cloud").iter().any(|r| r.event == Event::PostupgradeEnded));
    site.assert_no_violations();
}

#[test]
fn a_tracking_server_with_another_password_is_named_and_its_platform_is_not_touched() {
    let site = two_platforms("{ different_password: [emea-trk2] }");
    let before = site.records("emea").len();
    let proof = site.caravan(&["passwords", "check", "--format", "json"]).expect(1).json();
    let emea = &proof["platforms"][0];
    assert_eq!(emea["name"], "emea");
    assert_eq!(emea["identical"], serde_json::Value::Null, "stored values that differ prove nothing");
    assert_eq!(emea["proof"], serde_json::Value::Null);
    assert_eq!(emea["groups"].as_array().unwrap().len(), 2, "{emea:#}");
    let text = site.caravan(&["passwords", "check"]).expect(1);
    assert!(text.stdout.contains("trk2"), "{}", text.stdout);

    site.migrate(&[]).expect(1);
    assert_eq!(changes(&site, "emea", before), Vec::<String>::new());
    assert!(site.records("apac").iter().any(|r| r.event == Event::PostupgradeEnded), "the other platform goes on");
    site.assert_no_violations();
}

#[test]
fn an_empty_password_keeps_the_platform_untouched() {
    let site = two_platforms("{ empty_password: [emea-trk1] }");
    let before = site.records("emea").len();
    let proof = site.caravan(&["passwords", "check", "--format", "json"]).expect(1).json();
    assert_eq!(proof["platforms"][0]["unset"], serde_json::json!(["emea-trk1"]));
    site.migrate(&["--limit", "platform:emea"]).expect(1);
    assert_eq!(changes(&site, "emea", before), Vec::<String>::new());
}

#[test]
fn a_failing_marketing_host_stops_its_platform_and_no_other() {
    let site = two_platforms("{ fail: [{ host: emea-mkt1, step: postupgrade }] }");
    let run = site.migrate(&[]).expect(1);
    assert!(run.stderr.contains("postupgrade"), "{}", run.stderr);

    let packages = |host: &str| site.records("emea").iter().any(|r| r.host == host && r.event == Event::PackageInstalled);
    assert!(packages("emea-mkt1"));
    assert!(!packages("emea-mta1") && !packages("emea-trk1"), "nothing of mta or tracking may start");
    assert!(site.records("apac").iter().any(|r| r.event == Event::PostupgradeEnded));
    site.assert_no_violations();

    let report = site.caravan(&["report", "--format", "markdown"]).expect(0);
    assert!(report.stdout.contains("emea-mkt1") && report.stdout.contains("postupgrade"), "{}", report.stdout);
    let json = site.caravan(&["report", "--format", "json"]).expect(0).json();
    assert_eq!(json["v"], 1);

    // What the engine recorded agrees with what the hosts recorded.
    let failed: Vec<_> = site
        .events()
        .into_iter()
        .filter(|e| matches!(e.kind, Kind::StepFinished { outcome: Outcome::Failed, .. }))
        .filter_map(|e| e.scope.step)
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].starts_with("emea/migrate/marketing/emea-mkt1") && failed[0].contains("postupgrade"), "{failed:?}");
}

#[test]
fn an_unreachable_host_is_exit_3_and_keeps_the_barrier_closed() {
    let site = two_platforms("{ unreachable: [emea-mta1] }");
    let before = site.records("emea").len();
    site.caravan(&["check"]).expect(3);
    site.migrate(&[]).expect(3);
    assert_eq!(changes(&site, "emea", before), Vec::<String>::new());
    assert!(site.records("apac").iter().any(|r| r.event == Event::PostupgradeEnded));
    site.caravan(&["exec", "--", "true"]).expect(3);
}

#[test]
fn a_failing_check_comes_before_an_unreachable_host_in_the_exit_code() {
    let site = two_platforms("{ unreachable: [emea-mta1], different_password: [apac-trk1] }");
    site.caravan(&["check"]).expect(1);
    site.migrate(&[]).expect(1);
    site.caravan(&["exec", "--on", "emea-mta1,apac-trk1", "--", "false"]).expect(1);
}

#[test]
fn a_failing_finding_can_be_set_aside_by_name_and_is_recorded() {
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ different_password: [emea-trk2] }}"));
    let check = site.caravan(&["check", "--format", "json"]).expect(1).json();
    let failing: Vec<_> = check["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["status"] == "failure" || f["status"] == "unknown")
        .map(|f| f["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(!failing.is_empty());
    let overrides: Vec<String> = failing.iter().map(|id| format!("{id}=rotated tonight, see ticket 12")).collect();
    let mut args = vec!["check"];
    overrides.iter().for_each(|o| args.extend(["--override", o]));
    site.caravan(&args).expect(0);
    site.caravan(&["migrate", "--yes", "--override", "reachable@emea-trk2=no"]).expect(2);
    site.caravan(&["migrate", "--yes", "--override", "disk@nowhere=no"]).expect(2);
    site.caravan(&["migrate", "--yes", "--confirm", "emea/nothing=no"]).expect(2);
}

#[test]
fn a_connection_cut_in_the_middle_of_a_step_is_taken_up_again() {
    let site = Site::new(&format!(
        "{STANDARD}\nfaults: {{ cut: [{{ host: emea-mkt1, after: postupgrade }}], slow: [{{ host: emea-mkt1, what: postupgrade, seconds: 2 }}] }}"
    ));
    site.migrate(&[]).expect(0);
    site.assert_no_violations();
    let events = site.events();
    assert!(events.iter().any(|e| matches!(e.kind, Kind::HostReattached)), "the cut did not happen");
    let began = site.records("emea").iter().filter(|r| r.event == Event::PostupgradeBegan).count();
    assert_eq!(began, 1);
}

#[test]
fn limit_narrows_acting_and_never_proving() {
    let site = Site::new(STANDARD);
    let before = site.records("emea").len();
    // The platform's web servers are not stopped by anybody: the barrier of `stop` stays closed for the host inside the limit too.
    site.migrate(&["--limit", "emea-mkt1"]).expect(1);
    assert_eq!(changes(&site, "emea", before), Vec::<String>::new());
    site.migrate(&["--limit", "emea-mkt9"]).expect(2);
    site.assert_no_violations();
}

#[test]
fn ctrl_c_pauses_and_tells_what_to_do() {
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: postupgrade, seconds: 3 }}] }}"));
    let gates = site.gates();
    assert!(gates.is_empty());
    let mut run = site.start(&["migrate", "--yes"]);
    let began = || site.records("emea").iter().any(|r| r.event == Event::PostupgradeBegan);
    while !began() {
        assert!(run.try_wait().unwrap().is_none(), "it ended before postupgrade began");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let pid = rustix_pid(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5));
    let events = site.events();
    assert!(events.iter().any(|e| matches!(e.kind, Kind::RunPaused { .. })));
    // The running step ended; nothing after it began.
    assert!(site.records("emea").iter().any(|r| r.event == Event::PostupgradeEnded));
    assert!(!site.records("emea").iter().any(|r| r.host == "emea-mta1" && r.event == Event::PackageInstalled));
    site.assert_no_violations();
}

#[test]
fn a_second_run_on_a_host_that_is_held_is_told_so() {
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: stop, seconds: 8 }}] }}"));
    let mut first = site.start(&["migrate", "--yes"]);
    // The supervisors of the first run hold their hosts from the first package on.
    let held = || site.root().join("lab/hosts/emea-trk2/var/lib/caravan/lock").exists();
    while !held() {
        assert!(first.try_wait().unwrap().is_none(), "it ended before it held a host");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = site.caravan(&["migrate", "--yes"]).expect(4);
    assert!(second.stderr.contains("held") || second.stderr.contains("another run"), "{}", second.stderr);
    assert_eq!(first.wait().unwrap().code(), Some(0), "the first run goes on");
    site.assert_no_violations();
}

fn rustix_pid(child: &std::process::Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

#[test]
fn a_wrong_order_by_hand_is_refused_from_what_the_hosts_show() {
    let site = Site::new(
        "
platforms:
  - { name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 2 } }
faults: { fail: [{ host: emea-mta1, step: install }] }
",
    );
    let installed = |host: &str| site.records("emea").iter().any(|r| r.host == host && r.event == Event::PackageInstalled);
    let narrow = ["migrate", "--yes", "--limit", "role:tracking"];
    // Nothing was stopped yet, and a narrow run may not stop the others.
    let refused = site.caravan(&narrow).expect(1);
    assert!(refused.stderr.contains("stop"), "{}", refused.stderr);
    let run = site.run_dir();
    site.caravan(&["abort", run.file_name().unwrap().to_str().unwrap(), "--yes", "--reason", "the order was wrong"]).expect(0);
    // Marketing is migrated, mta is not.
    site.caravan(&["migrate", "--yes", "--override", "running@emea-mkt1=stopped by the run before"]).expect(1);
    assert!(installed("emea-mkt1") && !installed("emea-mta1"));
    // Another workstation has no record of any of it: the hosts' own state says no.
    let elsewhere = site.elsewhere(&[&narrow[..], &["--take-over", "tests"]].concat()).expect(1);
    assert!(elsewhere.stderr.contains("emea-mkt1"), "{}", elsewhere.stderr);
    assert!(!installed("emea-trk1") && !installed("emea-trk2"), "tracking comes after mta");
    site.assert_no_violations();
}

#[test]
fn windows_hosts_are_gates_at_their_places_and_a_confirmed_run_passes() {
    let site = Site::new("platforms:\n  - { name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }\n");
    let text = std::fs::read_to_string(site.lab.inventory()).unwrap();
    let windows =
        "  hosts:\n  - name: emea-win1\n    address: 127.0.0.1\n    os: windows\n    roles: [tracking]\n    web_server: iis\n";
    std::fs::write(site.lab.inventory(), text.replacen("  hosts:\n", windows, 1)).unwrap();

    let plan = site.caravan(&["plan", "--format", "json"]).expect(0).json();
    let mut gates = Vec::new();
    harness::for_each_step(&plan, |step| {
        if step["host"] == "emea-win1" {
            let commands = step["spec"]["action"]["gate"]["commands"].to_string();
            gates.push((step["id"].as_str().unwrap().to_owned(), commands));
        }
    });
    let at = |stage: &str, command: &str| {
        assert!(
            gates.iter().any(|(id, commands)| id.starts_with(&format!("emea/{stage}/emea-win1/")) && commands.contains(command)),
            "no gate with `{command}` in {stage}: {gates:#?}"
        );
    };
    at("stop/web-servers", "iisreset /stop");
    at("stop/nlserver", "net stop nlserver6");
    at("backup/trees", "Adobe Campaign v6.back");
    at("migrate/tracking", "cscript iis_neolane_setup.vbs");
    at("restart/tracking", "iisreset /start");
    at("restart/service", "net start nlserver6-v7");
    at("verify/verify", "nlserver monitor -missing");

    // Without a word from a person it waits, with the record kept.
    let waits = site.caravan(&["migrate", "--yes"]).expect(5);
    assert!(waits.stderr.contains("emea/windows.preflight.emea-win1"), "{}", waits.stderr);
    let confirmed = site.gates();
    let mut args = vec!["resume"];
    confirmed.iter().for_each(|gate| args.extend(["--confirm", gate]));
    site.caravan(&args).expect(0);
    site.assert_no_violations();
    let report = site.caravan(&["report"]).expect(0);
    assert!(report.stdout.matches("agreed in ticket 4711").count() >= confirmed.len(), "{}", report.stdout);
}
