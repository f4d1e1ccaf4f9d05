//! A backup counts once it was shown that it can be restored: with a scratch database, this is seen before anything is replaced.

use harness::Site;
use lab::Event;

fn site(faults: &str) -> Site {
    Site::new(&format!(
        "
platforms:
  - name: emea
    topology: standard
    hosts: {{ marketing: 1, mid-sourcing: 1, tracking: 1 }}
    scratch: true
faults: {faults}
"
    ))
}

/// Where the first record of an event stands among all of them.
fn first(site: &Site, event: Event, subject: Option<&str>) -> Option<usize> {
    let is = |record: &lab::Record| record.event == event && subject.is_none_or(|subject| record.subject == subject);
    site.records("emea").iter().position(is)
}

#[test]
fn every_dump_is_restored_into_its_scratch_database_before_anything_is_replaced() {
    let site = site("{}");
    let check = site.caravan(&["check", "--format", "json"]).expect(0).json();
    let findings = check["findings"].as_array().unwrap();
    let backup = findings.iter().find(|finding| finding["id"] == "backup@emea").unwrap();
    assert!(backup["evidence"].as_str().unwrap().contains("its restore tried on scratch.emea.lab"), "{backup:#}");
    let explained = site.caravan(&["plan", "--explain", "backup.database-restore"]).expect(0).stdout;
    assert!(explained.contains("emea_tried") && explained.contains("PGPASSFILE"), "{explained}");

    // A logon that would fail when everything is stopped is found before.
    let file = site.root().join("lab/scratch.pw");
    std::fs::write(&file, "wrong").unwrap();
    let held = site.migrate(&[]).expect(1);
    assert!(held.stderr.contains("the scratch database of emea cannot be logged on to from emea-mkt1"), "{}", held.stderr);
    assert_eq!(site.count(Event::ServiceStopped), 0);
    std::fs::write(&file, &site.lab.secrets().scratch_password).unwrap();

    site.migrate(&[]).expect(0);
    site.assert_no_violations();
    let replaced = first(&site, Event::TreeMoved, None).unwrap();
    for instance in ["emea", "emea_mid"] {
        let dumped = first(&site, Event::DumpWritten, Some(instance)).unwrap();
        let tried = first(&site, Event::DumpTried, Some(&format!("{instance}_tried"))).unwrap();
        assert!(dumped < tried && tried < replaced, "{instance}: {dumped}, {tried}, {replaced}");
    }
    assert_eq!((site.count(Event::DumpTried), site.count(Event::DumpRestored)), (2, 0), "no database in use was restored");
    let mut grep = std::process::Command::new("grep");
    grep.args(["-rlF", &site.lab.secrets().scratch_password]).arg(site.state());
    grep.args(site.lab.layout().hosts().map(lab::Host::host_state));
    let kept = grep.output().unwrap();
    assert_eq!((kept.status.code(), String::from_utf8_lossy(&kept.stdout)), (Some(1), "".into()), "files with the password");
}

/// What must not be there while the backup is not proven.
#[track_caller]
fn assert_nothing_replaced(site: &Site) {
    for event in [Event::PackageRemoved, Event::PackageInstalled, Event::TreeMoved, Event::PostupgradeBegan] {
        assert_eq!(site.count(event), 0, "{event:?}");
    }
}

#[test]
fn a_restore_that_fails_stops_the_platform_and_is_repeated() {
    let site = site("{ fail: [{ host: emea-mkt1, step: restore.scratch, times: 1 }] }");
    let failed = site.migrate(&[]).expect(1);
    assert!(failed.stderr.contains("backup.database-restore"), "{}", failed.stderr);
    assert_nothing_replaced(&site);
    site.caravan(&["resume"]).expect(0);
    assert_eq!(site.count(Event::DumpTried), 2);
    site.assert_no_violations();
}

#[test]
fn an_empty_restore_stops_the_platform_and_the_way_back_is_open() {
    let site = site("{ fail: [{ host: emea-mid1, step: restore.empty }] }");
    let before = site.lab.snapshot().unwrap();
    let failed = site.migrate(&[]).expect(1);
    assert!(failed.stderr.contains("backup.database-restored") && failed.stderr.contains("empty"), "{}", failed.stderr);
    assert_nothing_replaced(&site);
    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    site.caravan(&["rollback", &run, "--yes"]).expect(0);
    let after = site.lab.snapshot().unwrap();
    assert_eq!(before.differences(&after), Vec::<String>::new());
    site.assert_no_violations();
}
