//! Disks that are full or cannot be written, on hosts and on the workstation: a clear error, nothing lost, nothing repeated.

use harness::mounts::{self, Mounted};
use harness::{Site, finish, until};
use lab::Event;
use std::fs;

const STANDARD: &str = "platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }]";

#[track_caller]
fn assert_once(site: &Site) {
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (1, 1));
    let hosts = site.lab.layout().hosts().count();
    assert_eq!([Event::PackageRemoved, Event::PackageInstalled, Event::TreeMoved].map(|event| site.count(event)), [hosts; 3]);
    site.assert_no_violations();
}

/// What is left of a site's mounts goes before its directory does.
struct Full {
    disk: Mounted,
    site: Site,
}

#[test]
fn a_hosts_disk_that_is_full_stops_it_and_it_goes_on_with_room() {
    if !mounts::inside("a_hosts_disk_that_is_full_stops_it_and_it_goes_on_with_room") {
        return;
    }
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: dump, seconds: 2 }}] }}"));
    let disk = Mounted::small(&site.host("emea-mkt1").host_state().join("runs"), 2048);
    let full = Full { disk, site };
    let mut run = full.site.begin(&["migrate", "--yes", "--patience", "5"]);
    full.site.wait_for(Event::ServiceStopped, &mut run);
    let dump = || lab::agent::programs(full.site.host("emea-mkt1"), "--format=custom");
    until("the dump", || !dump().is_empty());
    let filler = full.disk.fill();
    let stopped = finish(run);
    assert!(stopped.code == 1 || stopped.code == 3, "{stopped:?}");
    assert!(stopped.stderr.contains("emea-mkt1") && stopped.stderr.contains("No space left"), "{}", stopped.stderr);
    assert_eq!(full.site.count(Event::PackageRemoved), 0, "nothing after it was begun");

    fs::remove_file(filler).unwrap();
    full.site.caravan(&["resume"]).expect(0);
    assert_once(&full.site);
    assert_eq!(full.site.count(Event::DumpWritten), 1, "what was done before is not done again");
}

#[test]
fn a_hosts_disk_without_room_for_a_result_begins_nothing() {
    if !mounts::inside("a_hosts_disk_without_room_for_a_result_begins_nothing") {
        return;
    }
    let site = Site::new(STANDARD);
    let disk = Mounted::small(&site.host("emea-trk1").host_state().join("runs"), 64);
    let full = Full { disk, site };
    let before = full.site.lab.records().unwrap().len();
    let stopped = full.site.caravan(&["migrate", "--yes", "--patience", "5"]);
    assert!(stopped.code == 1 || stopped.code == 3, "{stopped:?}");
    assert!(stopped.stderr.contains("emea-trk1") && stopped.stderr.contains("No space left"), "{}", stopped.stderr);
    assert_eq!(full.site.lab.records().unwrap().len(), before, "nothing was touched anywhere");

    full.disk.resize(8192);
    full.site.caravan(&["resume"]).expect(0);
    assert_once(&full.site);
}

#[test]
fn a_full_disk_of_the_workstation_grants_nothing_more_and_resume_goes_on() {
    if !mounts::inside("a_full_disk_of_the_workstation_grants_nothing_more_and_resume_goes_on") {
        return;
    }
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: postupgrade, seconds: 2 }}] }}"));
    let disk = Mounted::small(&site.state(), 4096);
    let full = Full { disk, site };
    let mut run = full.site.begin(&["migrate", "--yes"]);
    full.site.wait_for(Event::PostupgradeBegan, &mut run);
    let filler = full.disk.fill();
    let stopped = finish(run).expect(7);
    assert!(stopped.stderr.contains("journal.jsonl") && stopped.stderr.contains("No space left"), "{}", stopped.stderr);
    until("the end of postupgrade", || full.site.count(Event::PostupgradeEnded) == 1);
    assert!(!full.site.records("emea").iter().any(|record| record.host == "emea-mta1" && record.event == Event::PackageInstalled));

    fs::remove_file(filler).unwrap();
    full.site.caravan(&["resume"]).expect(0);
    assert_once(&full.site);
}

#[test]
fn a_workstation_that_cannot_write_its_record_touches_nothing() {
    if !mounts::inside("a_workstation_that_cannot_write_its_record_touches_nothing") {
        return;
    }
    let site = Site::new(STANDARD);
    fs::create_dir_all(site.state()).unwrap();
    let disk = Mounted::read_only(&site.state());
    let full = Full { disk, site };
    let before = full.site.lab.records().unwrap().len();
    let refused = full.site.caravan(&["migrate", "--yes"]).expect(7);
    let state = full.site.state();
    assert!(refused.stderr.contains(state.to_str().unwrap()) && refused.stderr.contains("Read-only"), "{}", refused.stderr);
    assert_eq!(full.site.lab.records().unwrap().len(), before);

    let Full { disk, site } = full;
    drop(disk);
    site.caravan(&["migrate", "--yes"]).expect(0);
    assert_once(&site);
}

#[test]
fn a_host_that_cannot_be_written_is_named_before_anything_is_touched() {
    if !mounts::inside("a_host_that_cannot_be_written_is_named_before_anything_is_touched") {
        return;
    }
    let site = Site::new(STANDARD);
    let state = site.host("emea-mta1").host_state();
    fs::create_dir_all(&state).unwrap();
    let disk = Mounted::read_only(&state);
    let full = Full { disk, site };
    let before = full.site.lab.records().unwrap().len();
    let stopped = full.site.caravan(&["migrate", "--yes", "--patience", "5"]);
    assert!(stopped.code == 1 || stopped.code == 3, "{stopped:?}");
    assert!(stopped.stderr.contains("emea-mta1") && stopped.stderr.contains("can be written"), "{}", stopped.stderr);
    assert_eq!(full.site.lab.records().unwrap().len(), before, "nothing was touched anywhere");
}
