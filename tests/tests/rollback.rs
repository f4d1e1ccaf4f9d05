//! The way back, end to end: what the hosts are afterwards is what they were before, to the byte.

use harness::Site;
use lab::{Event, Snapshot};

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

/// The id of the newest run.
fn newest(site: &Site) -> String {
    controller::run::store::Store::new(&site.state()).find(None).unwrap().id
}

#[track_caller]
fn assert_back(site: &Site, before: &Snapshot, what: &str) {
    site.assert_no_violations();
    assert_eq!(before.differences(&site.lab.snapshot().unwrap()), Vec::<String>::new(), "{what}");
}

/// Wherever a migration fails, its rollback brings everything back.
fn back_after(faults: &[&str]) {
    for fault in faults {
        let site = Site::new(&format!("{STANDARD}faults: {{ fail: [{fault}] }}"));
        let before = site.lab.snapshot().unwrap();
        site.migrate(&[]).expect(1);
        let run = newest(&site);
        site.caravan(&["rollback", &run, "--yes"]).expect(0);
        assert_back(&site, &before, fault);
    }
}

#[test]
fn a_failure_before_the_old_packages_are_gone() {
    back_after(&["{ host: emea-mkt1, step: dump, times: 1 }", "{ host: emea-mta1, step: remove, times: 1 }"]);
}

#[test]
fn a_failure_while_the_new_packages_come() {
    back_after(&["{ host: emea-mkt1, step: install, times: 1 }", "{ host: emea-trk2, step: install, times: 1 }"]);
}

#[test]
fn a_failure_of_the_postupgrade() {
    back_after(&["{ host: emea-mkt1, step: postupgrade.check, times: 1 }", "{ host: emea-mkt1, step: postupgrade }"]);
}

#[test]
fn a_failure_while_the_new_version_starts() {
    back_after(&["{ host: emea-trk1, step: apache, times: 1 }", "{ host: emea-mta1, step: 'module:mta@emea', times: 1 }"]);
}

#[test]
fn what_ran_before_a_database_is_restored_is_down() {
    let site = Site::of(lab::Spec::every_topology());
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    let run = newest(&site);
    let shown = site.caravan(&["rollback", &run]).expect(2);
    for expected in ["the postupgrade began", "services of v7 were started", "pg_restore", "no terminal"] {
        assert!(shown.stderr.contains(expected), "{expected}\n{}", shown.stderr);
    }
    let explained = site.caravan(&["rollback", &run, "--explain", "restore.database"]).expect(0);
    assert!(explained.stdout.contains("--single-transaction"), "{}", explained.stdout);
    site.caravan(&["rollback", &run, "--yes"]).expect(0);
    assert_back(&site, &before, "every topology");
    let again = site.caravan(&["rollback", &run, "--yes"]).expect(2);
    assert!(again.stderr.contains("was rolled back by run"), "{}", again.stderr);
    let of_itself = site.caravan(&["rollback", &newest(&site), "--yes"]).expect(2);
    assert!(of_itself.stderr.contains("is a rollback itself"), "{}", of_itself.stderr);
}

/// A host that cannot follow keeps nobody from running again; a resumed rollback takes it along.
#[test]
fn a_host_that_fails_on_the_way_back_keeps_nobody() {
    let site = Site::new(&format!("{STANDARD}faults: {{ fail: [{{ host: emea-trk2, step: remove, times: 2 }}] }}"));
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(1);
    let run = newest(&site);
    // The first failure was the migration's: it stopped there. The second is the rollback's own, of what the first left half-done.
    let records = site.records("emea");
    assert!(records.iter().any(|record| record.event == Event::PackageFailed && record.host == "emea-trk2"));
    site.caravan(&["rollback", &run, "--yes"]);
    let back = newest(&site);
    assert_ne!(back, run);
    site.caravan(&["resume", &back]);
    assert_back(&site, &before, "resumed");
}

#[test]
fn a_platform_goes_back_alone_and_what_is_left_is_cleaned_up() {
    let site = Site::new(
        "
platforms:
  - { name: emea, topology: standard, hosts: { marketing: 1, tracking: 1 } }
  - { name: solo, topology: standalone, hosts: { marketing: 1 }, also: { solo-mkt1: [mta, tracking] } }
",
    );
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    let run = newest(&site);
    let part = site.caravan(&["rollback", &run, "--yes", "--limit", "emea-mkt1"]).expect(2);
    assert!(part.stderr.contains("a platform goes back as a whole"), "{}", part.stderr);
    site.caravan(&["rollback", &run, "--yes", "--limit", "platform:emea"]).expect(0);
    site.assert_no_violations();
    let back = newest(&site);
    let after = site.lab.snapshot().unwrap();
    for host in ["emea-mkt1", "emea-trk1"] {
        assert_eq!(before.digest(host), after.digest(host), "{host}");
    }
    assert_ne!(before.digest("solo-mkt1"), after.digest("solo-mkt1"));

    let [emea, solo] = ["emea-mkt1", "solo-mkt1"].map(|host| site.lab.host(host).host);
    assert!(solo.backup().exists() && solo.host_state().join("agent").exists());
    site.caravan(&["cleanup", &run, "--yes"]).expect(0);
    assert!(solo.backup().exists(), "the trees are asked for on their own");
    assert!(!solo.host_state().exists(), "{:?}", std::fs::read_dir(solo.host_state()).map(|dir| dir.count()));
    assert!(emea.host_state().join("runs").join(&back).exists(), "another run is left there");
    assert!(!emea.host_state().join("runs").join(&run).exists());
    let cleaned = site.caravan(&["rollback", &run, "--yes", "--limit", "platform:solo"]).expect(2);
    assert!(cleaned.stderr.contains("was cleaned up"), "{}", cleaned.stderr);

    let removed = site.caravan(&["cleanup", &run, "--yes", "--remove-backups", "--format", "json"]).expect(0);
    assert!(!solo.backup().exists());
    let lines: Vec<serde_json::Value> = removed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_solo = lines.iter().find(|line| line["host"] == "solo-mkt1").unwrap();
    assert_eq!(of_solo["removed"][0], serde_json::json!(solo.backup()));

    let aside = emea.home().join(format!("nl6.v7-{back}"));
    assert!(aside.exists());
    site.lab.host("emea-trk1").down();
    let away = site.caravan(&["cleanup", &back, "--yes", "--remove-backups"]).expect(3);
    assert!(away.stderr.contains("Run it again"), "{}", away.stderr);
    site.lab.host("emea-trk1").up().unwrap();
    site.caravan(&["cleanup", &back, "--yes", "--remove-backups"]).expect(0);
    assert!(!aside.exists());
    for host in site.lab.layout().hosts() {
        assert!(!host.host_state().exists(), "{}", host.name);
    }
    assert_eq!(before.digest("emea-mkt1"), site.lab.snapshot().unwrap().digest("emea-mkt1"));
}

#[test]
fn what_is_not_over_is_not_cleaned_up() {
    let site = Site::new(&format!("{STANDARD}faults: {{ fail: [{{ host: emea-mkt1, step: install, times: 1 }}] }}"));
    site.migrate(&[]).expect(1);
    let refused = site.caravan(&["cleanup", &newest(&site), "--yes", "--remove-backups"]).expect(2);
    assert!(refused.stderr.contains("emea stopped half-way"), "{}", refused.stderr);
    let host = site.lab.host("emea-mkt1").host;
    assert!(host.backup().exists() && host.host_state().join("runs").exists());
}
