//! The way back, end to end: what the hosts are afterwards is what they were before, to the byte.

use controller::run::store::Store;
use harness::{Site, finish};
use lab::{Event, Snapshot};
use proto::event::Kind;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

/// The id of the newest run.
fn newest(site: &Site) -> String {
    Store::new(&site.state()).find(None).unwrap().id
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

/// Steps of a migration that fail, before they take effect and after it. All of them take long; `CARAVAN_ROLLBACK_STEPS=all` asks for
/// them, or a list of names joined by commas for these.
const SAMPLE: &str = "backup.move-tree,remove.packages,restore.conf,postupgrade,start.service";

#[test]
fn a_failure_at_any_step() {
    let asked = std::env::var("CARAVAN_ROLLBACK_STEPS").unwrap_or_else(|_| SAMPLE.to_owned());
    let names = step_names();
    let wanted: Vec<&String> = names.iter().filter(|name| asked == "all" || asked.split(',').any(|asked| asked == *name)).collect();
    assert!(asked == "all" || wanted.len() == asked.split(',').count(), "{asked}: not all of these are among {names:?}");
    for step in wanted {
        for change in ["command: ['false']", "after: [{ name: site.fails, command: ['false'] }]"] {
            let site = Site::new(SMALL);
            let before = site.lab.snapshot().unwrap();
            let inventory = std::fs::read_to_string(site.lab.inventory()).unwrap();
            let failing = format!("{inventory}  overrides:\n    {step}: {{ {change} }}\n");
            std::fs::write(site.lab.inventory(), failing).unwrap();
            site.migrate(&[]).expect(1);
            std::fs::write(site.lab.inventory(), inventory).unwrap();
            site.caravan(&["rollback", &newest(&site), "--yes"]).expect(0);
            assert_back(&site, &before, &format!("{step} with {change}"));
        }
    }
}

/// One server for the application, one for everything else.
const SMALL: &str = "
platforms:
  - { name: emea, topology: standard, hosts: { marketing: 1, tracking: 1 }, also: { emea-trk1: [mta] } }
";

/// The steps behind preflight that a site can replace, each name once.
fn step_names() -> Vec<String> {
    let site = Site::new(SMALL);
    let plan = site.caravan(&["plan", "--format", "json"]).expect(0).json();
    let mut names = Vec::new();
    harness::for_each_step(&plan, |step| {
        let (id, name) = (step["id"].as_str().unwrap(), step["name"].as_str().unwrap().to_owned());
        let replaceable = !["inspect", "gate"].contains(&step["action"].as_str().unwrap());
        if replaceable && !id.contains("/preflight/") && !names.contains(&name) {
            names.push(name);
        }
    });
    names
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
    let site = Site::new(&format!("{STANDARD}faults: {{ slow: [{{ host: emea-mkt1, what: restore, seconds: 3 }}] }}"));
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    let run = newest(&site);
    let late = site.lab.host("emea-trk2").host;
    let (old, aside) = (old_package(late), site.root().join("old-package"));

    // It was there when everything was looked at, and is gone when its host's turn comes.
    let stopped = site.count(Event::WebStopped);
    let mut rollback = site.begin(&["rollback", &run, "--yes"]);
    while site.count(Event::WebStopped) == stopped {
        assert!(rollback.try_wait().unwrap().is_none(), "it ended before anything was stopped");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::rename(&old, &aside).unwrap();
    finish(rollback).expect(1);
    let back = newest(&site);
    let then = site.lab.snapshot().unwrap();
    for host in ["emea-mkt1", "emea-mta1", "emea-trk1"] {
        assert_eq!(before.digest(host), then.digest(host), "{host}");
        assert!(lab::running(site.lab.host(host).host).unwrap().iter().all(|entry| entry.build == 8989), "{host}");
    }
    assert!(late.backup().exists() && lab::running(late).unwrap().is_empty(), "it stays as it was, and down");
    let again = site.caravan(&["rollback", &run, "--yes"]).expect(2);
    assert!(again.stderr.contains(&format!("caravan resume {back}")), "{}", again.stderr);

    std::fs::rename(&aside, &old).unwrap();
    site.caravan(&["resume", &back]).expect(0);
    assert_back(&site, &before, "resumed");
}

fn old_package(host: &lab::Host) -> PathBuf {
    let packages = files(&host.host_state().join("packages"));
    packages.into_iter().find(|path| path.to_string_lossy().contains("nlserver6-8989")).expect("the old package")
}

/// Without its old packages a host cannot go back: nothing is stopped for that, and no database restored.
#[test]
fn an_old_package_that_is_gone_is_found_before_anything_is_stopped() {
    let site = Site::new(STANDARD);
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    let run = newest(&site);
    let migrated = site.lab.snapshot().unwrap();
    let (old, aside) = (old_package(site.lab.host("emea-trk2").host), site.root().join("old-package"));
    std::fs::rename(&old, &aside).unwrap();
    let stops = || (site.count(Event::WebStopped), site.count(Event::ServiceStopped), site.count(Event::DumpRestored));
    let untouched = stops();
    let told = site.caravan(&["rollback", &run, "--yes"]).expect(1);
    assert!(told.stderr.contains("trk2") && told.stderr.contains("backup.packages-verify"), "{}", told.stderr);
    assert_eq!(stops(), untouched);
    for host in site.lab.layout().hosts() {
        assert_eq!(migrated.digest(&host.name), site.lab.snapshot().unwrap().digest(&host.name), "{}", host.name);
    }
    // With the package back, the rollback goes on.
    std::fs::rename(&aside, &old).unwrap();
    site.caravan(&["resume", &newest(&site)]).expect(0);
    assert_back(&site, &before, "with the package back");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Nothing goes back, and nothing starts, while a database is not restored; then the rollback goes on where it stopped.
#[test]
fn a_restore_that_fails_is_repeated_before_anything_else() {
    let site = Site::new(&format!("{STANDARD}faults: {{ fail: [{{ host: emea-mkt1, step: restore, times: 1 }}] }}"));
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    let run = newest(&site);
    site.caravan(&["rollback", &run, "--yes"]).expect(1);
    for host in site.lab.layout().hosts() {
        assert!(lab::running(host).unwrap().is_empty() && host.backup().exists(), "{}", host.name);
    }
    site.caravan(&["resume", &newest(&site)]).expect(0);
    assert_back(&site, &before, "restored at last");
    let records = site.records("emea");
    let restores: Vec<Event> = records
        .iter()
        .map(|record| record.event)
        .filter(|event| matches!(event, Event::DumpRestored | Event::RestoreFailed))
        .collect();
    assert_eq!(restores, [Event::RestoreFailed, Event::DumpRestored]);
}

/// kill -9 of the controller, at steps in which a host is neither the one nor the other.
#[test]
fn a_rollback_can_be_cut_anywhere() {
    for step in ["restore.database", "back.set-aside", "back.install-packages", "back.tree"] {
        let site = Site::new(STANDARD);
        let before = site.lab.snapshot().unwrap();
        site.migrate(&[]).expect(0);
        let run = newest(&site);
        let mut controller = site.start(&["rollback", &run, "--yes"]);
        let begun = |event: &proto::Event| {
            matches!(event.kind, Kind::StepGranted { .. }) && event.scope.step.as_ref().is_some_and(|id| id.ends_with(step))
        };
        // A journal that is being written may end in half a line.
        let events = || Store::new(&site.state()).find(None).ok().filter(|dir| dir.id != run)?.events().ok();
        while !events().is_some_and(|events| events.iter().any(begun)) {
            assert!(controller.try_wait().unwrap().is_none(), "{step}: it ended before it was cut");
            std::thread::sleep(Duration::from_millis(2));
        }
        controller.kill().unwrap();
        controller.wait().unwrap();
        site.caravan(&["resume", &newest(&site)]).expect(0);
        assert_back(&site, &before, step);
    }
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
    let lock = solo.host_state().join("lock");
    let free = std::fs::read(&lock).unwrap();
    std::fs::write(&lock, r#"{"run":"2026-11-23-abc","token":9}"#).unwrap();
    let locked = site.caravan(&["cleanup", &run, "--yes"]).expect(4);
    assert!(locked.stderr.contains("run 2026-11-23-abc holds this host"), "{}", locked.stderr);
    assert!(solo.host_state().join("runs").join(&run).exists());
    std::fs::write(&lock, free).unwrap();
    site.caravan(&["cleanup", &run, "--yes"]).expect(0);
    assert!(solo.backup().exists(), "the trees are asked for on their own");
    assert!(!solo.host_state().exists(), "{:?}", std::fs::read_dir(solo.host_state()).map(|dir| dir.count()));
    assert!(emea.host_state().join("runs").join(&back).exists(), "another run is left there");
    assert!(old_package(emea).exists(), "packages stay as long as a run may need them");
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

/// Platforms are independent: one that went back keeps no other from going on.
#[test]
fn one_platform_goes_back_and_the_other_goes_on() {
    let site = Site::new(
        "
platforms:
  - { name: emea, topology: standard, hosts: { marketing: 1, tracking: 1 }, also: { emea-trk1: [mta] } }
  - { name: apac, topology: standard, hosts: { marketing: 1, tracking: 1 }, also: { apac-trk1: [mta] } }
faults: { fail: [{ host: emea-mkt1, step: postupgrade, times: 1 }, { host: apac-mkt1, step: postupgrade, times: 1 }] }
",
    );
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(1);
    let run = newest(&site);
    site.caravan(&["rollback", &run, "--limit", "platform:emea", "--yes"]).expect(0);
    let status = site.caravan(&["status", &run]).expect(0).stdout;
    assert!(status.contains("emea was undone by the rollback") && status.contains(&format!("resume {run}")), "{status}");
    site.caravan(&["resume", &run]).expect(0);
    let now = site.lab.snapshot().unwrap();
    for host in ["emea-mkt1", "emea-trk1"] {
        assert_eq!(before.digest(host), now.digest(host), "{host}");
        assert!(lab::running(site.lab.host(host).host).unwrap().iter().all(|entry| entry.build == 8989), "{host}");
    }
    for host in ["apac-mkt1", "apac-trk1"] {
        assert!(lab::running(site.lab.host(host).host).unwrap().iter().all(|entry| entry.build == 9383), "{host}");
    }
    site.assert_no_violations();
}
