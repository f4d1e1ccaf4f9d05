//! Two controllers on one fleet: one works, the other is told so, and a takeover is final (invariant 6).

use harness::{Ran, Site, finish};
use lab::Event;
use proto::event::Kind;
use std::process::Stdio;

fn slow(what: &str, seconds: u32) -> Site {
    Site::new(&format!(
        "
platforms: [{{ name: emea, topology: standard, hosts: {{ marketing: 1, mta: 1, tracking: 2 }} }}]
faults: {{ slow: [{{ host: emea-mkt1, what: {what}, seconds: {seconds} }}] }}
"
    ))
}

fn elsewhere(site: &Site, args: &[&str]) -> std::process::Child {
    let mut command = site.command_at(&site.other_state(), args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caravan starts")
}

/// What is done once in a migration was done once.
#[track_caller]
fn assert_once(site: &Site) {
    assert_eq!(site.count(Event::ServiceStopped), site.lab.layout().hosts().count());
    assert_changed_once(site);
}

/// What changes a host was done once. A run that takes over from another one that had just stopped everything stops it again.
#[track_caller]
fn assert_changed_once(site: &Site) {
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (1, 1));
    let hosts = site.lab.layout().hosts().count();
    let once = [Event::PackageRemoved, Event::PackageInstalled, Event::TreeMoved];
    assert_eq!(once.map(|event| site.count(event)), [hosts; 3]);
    site.assert_no_violations();
}

#[test]
fn of_two_that_start_at_once_one_works_and_the_other_is_told_who_does() {
    let site = slow("stop", 1);
    let both = [site.begin(&["migrate", "--yes"]), elsewhere(&site, &["migrate", "--yes"])];
    let [one, other] = both.map(finish);
    let (works, told): (Ran, Ran) = if one.code == 0 { (one, other) } else { (other, one) };
    works.expect(0);
    let told = told.expect(4);
    assert!(told.stderr.contains("tester@") && told.stderr.contains("--take-over"), "{}", told.stderr);
    assert_once(&site);
}

#[test]
fn a_second_controller_of_the_same_run_is_told_that_there_is_one() {
    let site = slow("postupgrade", 3);
    let mut run = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    let second = site.caravan(&["resume"]).expect(4);
    assert!(!second.stderr.is_empty());
    finish(run).expect(0);
    assert_once(&site);
}

#[test]
fn after_a_takeover_the_first_controller_is_refused_everywhere() {
    let site = slow("stop", 3);
    let mut first = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::WebStopped, &mut first);
    site.elsewhere(&["migrate", "--yes"]).expect(4);
    let second = elsewhere(&site, &["migrate", "--yes", "--take-over", "the first operator cannot be reached"]);
    let first = finish(first).expect(4);
    assert!(first.stderr.contains("taken"), "{}", first.stderr);
    finish(second).expect(0);
    assert_changed_once(&site);

    // The takeover is in the record, with its reason, and the first one has no way back but another takeover.
    let store = controller::run::store::Store::new(&site.other_state());
    let events = store.find(None).unwrap().events().unwrap();
    let taken = events.iter().any(
        |event| matches!(&event.kind, Kind::Decision { decision, reason, .. } if decision == "takeover" && reason.contains("cannot be reached")),
    );
    assert!(taken, "the takeover is not in the record");
    let hosts = events.iter().filter(|event| matches!(event.kind, Kind::HostClaimed { token } if token >= 2)).count();
    assert_eq!(hosts, site.lab.layout().hosts().count(), "every host of the platform gave out a new token");
}

#[test]
fn a_run_is_put_together_elsewhere_while_its_controller_still_lives() {
    let site = slow("postupgrade", 4);
    let mut first = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut first);
    // Nobody's hosts are taken without a reason, and nothing of the run is left behind then.
    let told = site.elsewhere(&["resume", "--from-hosts"]).expect(4);
    assert!(told.stderr.contains("another workstation") && told.stderr.contains("--take-over"), "{}", told.stderr);
    let runs = site.elsewhere(&["runs", "--format", "json"]).expect(0);
    assert_eq!(runs.json()["runs"].as_array().map(Vec::len), Some(0), "{}", runs.stdout);
    // The hosts are taken before they are read: what is read is all there is, whatever the first one is about to grant.
    let second = elsewhere(&site, &["resume", "--from-hosts", "--take-over", "the first workstation hangs"]);
    let first = finish(first).expect(4);
    assert!(first.stderr.contains("another controller"), "{}", first.stderr);
    finish(second).expect(0);
    assert_once(&site);
}

#[test]
fn a_run_does_not_go_on_in_another_directory_of_its_hosts() {
    let site = slow("postupgrade", 3);
    let mut run = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    run.kill().unwrap();
    run.wait().unwrap();
    let inventory = std::fs::read_to_string(site.lab.inventory()).unwrap();
    let line = inventory.lines().find(|line| line.contains("host_state:")).unwrap();
    let moved = inventory.replace(line, &format!("{line}-2"));
    std::fs::write(site.lab.inventory(), &moved).unwrap();
    let told = site.caravan(&["resume"]).expect(2);
    assert!(told.stderr.contains("emea-mkt1: `host_state` is"), "{}", told.stderr);
    std::fs::write(site.lab.inventory(), &inventory).unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_once(&site);
}
