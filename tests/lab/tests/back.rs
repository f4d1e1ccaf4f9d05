//! The way back: done in order by hand it breaks no rule and leaves nothing different; out of order, the stand-ins notice it.

use crate::common::{Bench, standard};
use lab::{Event, Failing, Role, Rule, Spec, Topology, redirect_build};
use std::fs;

/// A lab that was migrated and runs v7.
fn migrated(spec: Spec) -> Bench {
    let bench = Bench::new(spec);
    bench.stop_all();
    bench.back_up();
    bench.migrate_in_order();
    bench.restart_in_order();
    assert_eq!(bench.explain(), "");
    bench
}

fn whole(spec: Spec) {
    let bench = Bench::new(spec);
    let before = bench.lab.snapshot().unwrap();
    bench.stop_all();
    bench.back_up();
    bench.migrate_in_order();
    bench.restart_in_order();
    let migrated = bench.lab.snapshot().unwrap();
    for host in &bench.platform().hosts {
        assert_ne!(before.digest(&host.name), migrated.digest(&host.name), "{}", host.name);
    }
    let differences = before.differences(&migrated).join("\n");
    let kept = format!("beside nl6: {}.back was not there", bench.platform().source.tree());
    for expected in ["nl6/BUILD was", "the database of", "nlserver6-v7", &kept] {
        assert!(differences.contains(expected), "{differences}");
    }

    bench.stop_all();
    for instance in &bench.platform().instances {
        let output = bench.restore_database(instance);
        assert!(output.status.success(), "{output:?}");
    }
    for host in &bench.platform().hosts {
        bench.back(&host.name);
    }
    bench.start_all();
    assert_eq!(bench.explain(), "");
    let after = bench.lab.snapshot().unwrap();
    assert_eq!(before.differences(&after), Vec::<String>::new());
    let records = bench.lab.records().unwrap();
    for host in &bench.platform().hosts {
        assert_eq!(before.digest(&host.name), after.digest(&host.name));
        let put_back = records.iter().filter(|record| record.host == host.name && record.event == Event::TreePutBack);
        assert_eq!(put_back.count(), 1, "{}", host.name);
        let source = &host.source;
        let banner = bench.ok(&host.name, "nlserver", &["pdump"]);
        assert!(banner.contains(&source.version) && banner.contains(&format!("build {}", source.build)), "{banner}");
        if host.is(Role::Tracking) {
            assert_eq!(redirect_build(host).unwrap(), source.build.to_string());
        }
    }
}

#[test]
fn standard_goes_back() {
    whole(standard());
}

#[test]
fn a_power_cluster_on_rhel_goes_back() {
    let mut spec = Spec::one(
        "latam",
        Topology::PowerCluster,
        &[(Role::Marketing, 1), (Role::PowerCluster, 2), (Role::MidSourcing, 1), (Role::Tracking, 1)],
    );
    spec.platforms[0].os = Some("rhel-9".into());
    whole(spec);
}

/// A standard platform that comes from another version.
fn coming_from(version: &str, build: u32, os: &str) -> Spec {
    let mut spec = standard();
    spec.platforms[0].source = Some(lab::Release { version: version.into(), build });
    spec.platforms[0].os = Some(os.into());
    spec
}

#[test]
fn v5_goes_back() {
    whole(coming_from("5.11", 8000, "debian-12"));
}

#[test]
fn v5_on_rhel_goes_back() {
    whole(coming_from("5.11", 8000, "rhel-9"));
}

#[test]
fn v6_02_goes_back() {
    whole(coming_from("6.02", 8500, "debian-12"));
}

#[test]
fn a_build_upgrade_goes_back() {
    whole(coming_from("7.3.5", 9368, "debian-12"));
}

/// After the way back, a migration is a migration again.
#[test]
fn a_platform_that_went_back_can_be_migrated() {
    let bench = migrated(standard());
    bench.stop_all();
    bench.restore_database(&bench.platform().instances[0]);
    for host in &bench.platform().hosts {
        bench.back(&host.name);
    }
    bench.start_all();
    bench.stop_all();
    bench.back_up();
    bench.migrate_in_order();
    bench.restart_in_order();
    assert_eq!(bench.explain(), "");
}

#[test]
fn the_old_version_refuses_a_database_that_was_upgraded() {
    let bench = migrated(standard());
    bench.stop_all();
    bench.back("demo-mkt1");
    assert_eq!(bench.broken(), [Rule::BackBeforeRestore, Rule::BackBeforeRestore], "v7 out, old packages in");
    let output = bench.run("demo-mkt1", "nlserver", &["start", "wfserver@demo"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("The database of instance 'demo' belongs to a later build (9383)"));
    assert!(bench.ok("demo-mkt1", "nlserver", &["monitor", "-missing"]).contains("wfserver@demo"));
    let last = bench.lab.violations().unwrap().pop().unwrap();
    assert_eq!(last.rule, Rule::StartedBeforeBack);
    assert_eq!(last.record.detail, "the database of demo is not restored");
    assert!(bench.restore_database(&bench.platform().instances[0]).status.success());
    bench.ok("demo-mkt1", "nlserver", &["start", "wfserver@demo"]);
    assert!(!bench.ok("demo-mkt1", "nlserver", &["monitor", "-missing"]).contains("wfserver@demo"));
}

#[test]
fn a_database_restored_while_something_runs() {
    let bench = migrated(standard());
    for host in ["demo-mkt1", "demo-mta1", "demo-trk1"] {
        bench.stop(host);
    }
    bench.restore_database(&bench.platform().instances[0]);
    assert_eq!(bench.broken(), [Rule::RestoredWhileRunning]);
    assert!(bench.explain().contains("demo-trk2 runs apache2"), "{}", bench.explain());
}

#[test]
fn old_services_beside_new_ones() {
    let bench = migrated(standard());
    bench.stop_all();
    bench.restore_database(&bench.platform().instances[0]);
    bench.back("demo-mkt1");
    // A host that did not come along keeps nobody from it, as long as it is down.
    bench.ok("demo-mkt1", "nlserver6", &["start"]);
    assert_eq!(bench.explain(), "");
    bench.ok("demo-mta1", "nlserver6", &["start"]);
    assert_eq!(bench.broken()[0], Rule::StartedBeforeBack);
    assert!(bench.explain().contains("the old installation is not back"), "{}", bench.explain());
    bench.ok("demo-mkt1", "nlserver6", &["stop"]);
    bench.ok("demo-mkt1", "nlserver6", &["start"]);
    let last = bench.lab.violations().unwrap().pop().unwrap();
    assert!(last.record.detail.contains("demo-mta1 still runs"), "{last}");
}

#[test]
fn a_database_from_the_dump_of_another() {
    let mut spec = standard();
    spec.platforms[0].instances = 2;
    let bench = Bench::new(spec);
    bench.stop_all();
    bench.back_up();
    let host = bench.host("demo-mkt1");
    fs::copy(host.dir.join("backup/demo_2.dump"), host.dir.join("backup/demo.dump")).unwrap();
    fs::write(host.dir.join("pgpass"), format!("*:*:*:*:{}", bench.lab.secrets().database_password)).unwrap();
    bench.restore_database(&bench.platform().instances[0]);
    assert_eq!(bench.broken(), [Rule::RestoredFromAnother]);
}

#[test]
fn restores_fail_as_they_do() {
    let mut spec = standard();
    spec.faults.fail.push(Failing { host: "demo-mkt1".into(), step: "restore".into(), times: Some(1) });
    let bench = migrated(spec);
    bench.stop_all();
    let instance = bench.platform().instances[0].clone();
    let upgraded = lab::database(bench.lab.layout(), "demo").unwrap();
    let failed = bench.restore_database(&instance);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap(), upgraded, "one transaction: all or nothing");
    let file = bench.host("demo-mkt1").dir.join("backup/demo.dump");
    let file = file.to_str().unwrap();
    let error = |arguments: &[&str]| {
        let output = bench
            .command("demo-mkt1", "pg_restore")
            .args(arguments)
            .arg(file)
            .env("PGPASSFILE", bench.host("demo-mkt1").dir.join("pgpass"))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let known = ["--host=db.demo.lab", "--dbname=demo", "--username=neolane"];
    assert!(error(&known).contains("already exists"));
    assert!(error(&["--clean", "--host=db.demo.lab", "--dbname=demo", "--username=other"]).contains("no password supplied"));
    assert!(error(&["--clean", "--cleanly", known[0], known[1], known[2]]).contains("unrecognized option '--cleanly'"));
    assert!(bench.restore_database(&instance).status.success());
    let restored = lab::database(bench.lab.layout(), "demo").unwrap();
    assert_eq!((restored.build, restored.completed, restored.upgrades), (8989, 0, 0));
    fs::write(file, "no dump").unwrap();
    assert!(!bench.restore_database(&instance).status.success());
}

#[test]
fn rpm_installs_over_what_is_there_only_when_told_to() {
    let mut spec = standard();
    spec.platforms[0].os = Some("rhel-8".into());
    let bench = Bench::new(spec);
    bench.stop_all();
    let old = bench.package("nlserver6-8989");
    let refused = bench.run("demo-mkt1", "rpm", &["-Uvh", &old]);
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("nlserver6-6.1-8989.x86_64 is already installed")
    );
    bench.ok("demo-mkt1", "rpm", &["-Uvh", "--replacepkgs", &old]);
}

/// What changes in a tree is named, to the byte.
#[test]
fn differences_are_seen() {
    let bench = Bench::standard();
    let before = bench.lab.snapshot().unwrap();
    assert_eq!(before.differences(&bench.lab.snapshot().unwrap()), Vec::<String>::new());
    let nl6 = bench.host("demo-mkt1").nl6();
    fs::write(nl6.join("conf/config-demo.xml"), "x").unwrap();
    fs::remove_file(nl6.join("customer.sh")).unwrap();
    fs::write(nl6.join("var/new"), "").unwrap();
    bench.ok("demo-trk1", "apache2", &["stop"]);
    let differences = before.differences(&bench.lab.snapshot().unwrap()).join("\n");
    for expected in [
        "demo-mkt1 nl6/conf/config-demo.xml was file ",
        "demo-mkt1 nl6/customer.sh was file",
        "demo-mkt1 nl6/var/new was nothing, and is file",
        "demo-trk1 running: apache2 of build 8989 is missing",
        "demo-trk1 /r/test answered 8989, and answers nothing",
    ] {
        assert!(differences.contains(expected), "{expected}\n{differences}");
    }
}
