//! Journals that were cut off or damaged: nothing lost, nothing repeated, or a clear error (invariant 5).

use harness::Site;
use lab::Event;
use std::fs;
use std::path::PathBuf;

const STANDARD: &str = "platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }]";

/// A migration whose controller was killed once the packages of the marketing host were replaced.
fn killed() -> Site {
    let site = Site::new(STANDARD);
    let ran = site.victim("step_finished:install.packages", "after", &["migrate", "--yes"]);
    assert_eq!(ran.code, -1, "the controller was to be killed: {ran:?}");
    // What was granted goes on, and is over before a test looks.
    harness::until("the end of what was granted", || site.count(Event::ConfigReloaded) == 1);
    site
}

#[track_caller]
fn assert_once(site: &Site) {
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (1, 1));
    let hosts = site.lab.layout().hosts().count();
    assert_eq!([Event::PackageRemoved, Event::PackageInstalled, Event::TreeMoved].map(|event| site.count(event)), [hosts; 3]);
    site.assert_no_violations();
}

fn journal(site: &Site) -> PathBuf {
    site.run_dir().join("journal.jsonl")
}

#[test]
fn a_journal_whose_last_line_is_torn_goes_on_with_a_notice() {
    let site = killed();
    let bytes = fs::read(journal(&site)).unwrap();
    fs::write(journal(&site), &bytes[..bytes.len() - 40]).unwrap();
    let resumed = site.caravan(&["resume"]).expect(0);
    assert!(resumed.stderr.contains("cut off"), "{}", resumed.stderr);
    assert_once(&site);
}

#[test]
fn an_older_copy_of_a_journal_is_refused_and_put_together_from_the_hosts() {
    let site = killed();
    let text = fs::read_to_string(journal(&site)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Back to before anything was stopped: a disk that lost its last minutes, or a restored backup.
    let stop = lines.iter().position(|line| line.contains("/stop.web-server\"")).unwrap();
    fs::write(journal(&site), lines[..stop].join("\n") + "\n").unwrap();
    let records = site.lab.records().unwrap().len();
    let refused = site.caravan(&["resume"]).expect(7);
    assert!(refused.stderr.contains("never granted") && refused.stderr.contains("--from-hosts"), "{}", refused.stderr);
    assert_eq!(site.lab.records().unwrap().len(), records, "nothing was done");

    fs::rename(site.run_dir(), site.root().join("older-copy")).unwrap();
    site.caravan(&["resume", "--from-hosts"]).expect(0);
    assert_once(&site);
}

#[test]
fn a_flipped_byte_is_named_and_nothing_is_done() {
    let site = killed();
    let good = fs::read(journal(&site)).unwrap();
    let mut bad = good.clone();
    let at = good.len() / 2;
    bad[at] ^= 0x04;
    fs::write(journal(&site), &bad).unwrap();
    let records = site.lab.records().unwrap().len();
    let refused = site.caravan(&["resume"]).expect(7);
    let line = good[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let named = [line, line + 1].iter().any(|line| refused.stderr.contains(&format!("line {line}")));
    assert!(named, "line {line} is damaged: {}", refused.stderr);
    assert_eq!(site.lab.records().unwrap().len(), records, "nothing was done");

    fs::write(journal(&site), &good).unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_once(&site);
}

/// A host's journal of the run.
fn host_journal(site: &Site, host: &str) -> PathBuf {
    let run = site.run_dir();
    site.host(host).host_state().join("runs").join(run.file_name().unwrap()).join("journal.jsonl")
}

/// Ends the controller and the supervisor of a host in the middle of the run.
fn killed_with_supervisor(host: &str) -> Site {
    let site = killed();
    let supervisor = lab::agent::supervisor(site.host(host));
    if let Some(supervisor) = supervisor {
        supervisor.signal(rustix::process::Signal::KILL);
        harness::until("the end of the supervisor", || lab::agent::supervisor(site.host(host)).is_none());
    }
    site
}

#[test]
fn a_hosts_journal_whose_last_line_is_torn_goes_on() {
    let site = killed_with_supervisor("emea-mta1");
    let path = host_journal(&site, "emea-mta1");
    let mut bytes = fs::read(&path).unwrap();
    // As a crash in the middle of an append leaves it: a line that nobody was told of.
    bytes.extend_from_slice(b"{\"record\":\"event\",\"host_se");
    fs::write(&path, bytes).unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_once(&site);
}

#[test]
fn a_damaged_journal_of_a_host_is_named_with_the_host_and_nothing_is_repeated() {
    let site = killed_with_supervisor("emea-mta1");
    let path = host_journal(&site, "emea-mta1");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let first = good.iter().position(|byte| *byte == b'\n').unwrap();
    bad[first / 2] = b'\n';
    fs::write(&path, bad).unwrap();
    let stopped = site.caravan(&["resume", "--patience", "1"]);
    assert!(stopped.code == 1 || stopped.code == 3, "{stopped:?}");
    assert!(stopped.stderr.contains("emea-mta1") && stopped.stderr.contains("damaged"), "{}", stopped.stderr);
    assert!(!site.records("emea").iter().any(|record| record.host == "emea-mta1" && record.event == Event::PackageInstalled));

    fs::write(&path, good).unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_once(&site);
}

#[test]
fn a_controller_that_is_killed_again_and_again_ends_well() {
    let site = Site::new(STANDARD);
    let mut args = vec!["migrate", "--yes"];
    let points =
        ["phase_finished:preflight", "step_started:backup.move-tree", "step_granted:postupgrade", "barrier_opened:restart/mta"];
    for point in points {
        let ran = site.victim(point, "after", &args);
        assert_eq!(ran.code, -1, "{point}: {ran:?}");
        args = vec!["resume"];
    }
    site.caravan(&args).expect(0);
    assert_once(&site);
    let begun = site.events().iter().filter(|event| matches!(event.kind, proto::event::Kind::RunResumed { .. })).count();
    assert_eq!(begun, points.len());
}

#[test]
fn a_run_that_never_began_is_told_so() {
    let site = Site::new(STANDARD);
    site.victim("run_started", "before", &["migrate", "--yes"]);
    let told = site.caravan(&["resume"]).expect(2);
    assert!(told.stderr.contains("never began") && told.stderr.contains("migrate"), "{}", told.stderr);
    site.caravan(&["migrate", "--yes"]).expect(0);
    assert_once(&site);
}

#[test]
fn hosts_of_a_controller_that_was_killed_when_all_was_done_are_let_go_by_the_next_one() {
    let site = Site::new(STANDARD);
    site.victim("platform_finished", "after", &["migrate", "--yes"]);
    site.caravan(&["resume"]).expect(0);
    assert_once(&site);
    for host in site.lab.layout().hosts() {
        harness::until("the end of the supervisor", || lab::agent::supervisor(host).is_none());
        let lock: serde_json::Value = serde_json::from_slice(&fs::read(host.host_state().join("lock")).unwrap()).unwrap();
        assert!(lock.get("run").is_none(), "{} is locked: {lock}", host.name);
    }
}
