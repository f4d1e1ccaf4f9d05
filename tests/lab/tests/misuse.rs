//! Each rule is broken on purpose, and the stand-ins notice it.

use crate::common::{Bench, standard};
use lab::{Event, Failing, Role, Rule, Slow, seconds::Seconds};
use std::fs;
use std::time::Duration;

fn slow_postupgrade(milliseconds: u64) -> lab::Spec {
    let mut spec = standard();
    spec.faults.slow.push(Slow { host: "demo-mkt1".into(), what: "postupgrade".into(), seconds: Seconds(milliseconds) });
    spec
}

const POSTUPGRADE: &[&str] = &["config", "-postupgrade", "-instance:demo"];

/// A lab whose marketing server is ready for postupgrade.
fn ready(spec: lab::Spec) -> Bench {
    let bench = Bench::new(spec);
    bench.stop_all();
    bench.back_up();
    bench.migrate_host("demo-mkt1");
    assert_eq!(bench.explain(), "");
    bench
}

#[test]
fn postupgrade_that_overlaps_itself() {
    let bench = ready(slow_postupgrade(2000));
    let mut first = bench.command("demo-mkt1", "nlserver").args(POSTUPGRADE).stdout(std::process::Stdio::null()).spawn().unwrap();
    while !bench.lab.records().unwrap().iter().any(|record| record.event == Event::PostupgradeBegan) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = bench.run("demo-mkt1", "nlserver", POSTUPGRADE);
    assert!(!second.status.success());
    assert!(first.wait().unwrap().success(), "the first goes on undisturbed");
    assert_eq!(bench.broken(), [Rule::PostupgradeOverlaps]);
}

#[test]
fn postupgrade_that_was_completed_before() {
    let bench = ready(standard());
    let instance = bench.platform().instances[0].clone();
    bench.postupgrade(&instance);
    assert_eq!(bench.broken(), []);
    bench.postupgrade(&instance);
    assert_eq!(bench.broken(), [Rule::PostupgradeAgain]);
}

#[test]
fn a_killed_postupgrade_resumes_and_breaks_no_rule() {
    let bench = ready(slow_postupgrade(600));
    let mut first = bench.command("demo-mkt1", "nlserver").args(POSTUPGRADE).stdout(std::process::Stdio::null()).spawn().unwrap();
    while lab::database(bench.lab.layout(), "demo").unwrap().completed == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap().upgrades, 0);
    let output = bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    assert!(output.contains("Resuming after part 1") && !output.contains("(1/5)") && output.contains("(2/5)"), "{output}");
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap().upgrades, 1);
    assert_eq!(bench.explain(), "");
}

#[test]
fn postupgrade_while_something_runs() {
    let bench = Bench::standard();
    for host in ["demo-mkt1", "demo-mta1", "demo-trk1"] {
        bench.stop(host);
    }
    bench.ok("demo-trk2", "nlserver6", &["stop"]);
    bench.back_up();
    bench.migrate_host("demo-mkt1");
    bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    // Apache of trk2 still has the old library loaded, and its nl6 was moved under it.
    bench.ok("demo-trk2", "dpkg", &["-l"]);
    assert_eq!(bench.broken(), [Rule::PostupgradeWhileRunning, Rule::MovedWhileRunning]);
}

#[test]
fn postupgrade_on_another_host_and_too_early() {
    let bench = ready(standard());
    bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    bench.migrate_host("demo-mta1");
    bench.ok("demo-mta1", "nlserver", &["config", "-postupgrade", "-instance:demo", "-force"]);
    assert_eq!(bench.broken(), [Rule::PostupgradeElsewhere]);

    let bench = Bench::standard();
    bench.stop_all();
    bench.back_up();
    bench.replace_packages("demo-mkt1");
    let host = bench.host("demo-mkt1");
    // The configuration of the instance alone is back; customer.sh, password and the rest are not.
    fs::copy(host.backup().join("conf/config-demo.xml"), host.nl6().join("conf/config-demo.xml")).unwrap();
    bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    assert_eq!(bench.broken(), [Rule::PostupgradeEarly]);
}

#[test]
fn packages_changed_while_processes_run() {
    let bench = Bench::standard();
    bench.stop_all();
    bench.ok("demo-mkt1", "nlserver", &["start", "wfserver@demo"]);
    bench.back_up();
    bench.ok("demo-mkt1", "dpkg", &["--purge", "nlserver6", "nlthirdparty6"]);
    assert_eq!(bench.broken(), [Rule::MovedWhileRunning, Rule::PackagesWhileRunning]);
}

#[test]
fn packages_changed_before_the_backup() {
    let bench = Bench::standard();
    bench.stop_all();
    bench.ok("demo-mkt1", "dpkg", &["--purge", "nlserver6", "nlthirdparty6"]);
    assert_eq!(bench.broken(), [Rule::PackagesBeforeBackup]);
    let detail = bench.explain();
    assert!(detail.contains("nl6.back does not exist") && detail.contains("the database of demo was not dumped"), "{detail}");
}

#[test]
fn a_host_migrated_before_the_stages_ahead_of_it() {
    let bench = Bench::standard();
    bench.stop_all();
    bench.back_up();
    bench.replace_packages("demo-trk1");
    // Once for removing and once for installing.
    assert_eq!(bench.broken(), [Rule::MigratedEarly, Rule::MigratedEarly]);
    let detail = bench.explain();
    assert!(detail.contains("demo-mkt1 is not migrated, demo-mta1 is not migrated, demo is not upgraded"), "{detail}");

    let bench = ready(standard());
    bench.replace_packages("demo-mta1");
    assert!(bench.explain().contains("demo is not upgraded"), "migrated, but postupgrade is due first: {}", bench.explain());
}

#[test]
fn power_booster_platforms_begin_with_tracking() {
    let roles = [(Role::Marketing, 1), (Role::PowerBooster, 1), (Role::Tracking, 1)];
    let bench = Bench::new(lab::Spec::one("amer", lab::Topology::PowerBooster, &roles));
    bench.stop_all();
    bench.back_up();
    bench.replace_packages("amer-mkt1");
    assert_eq!(bench.broken(), [Rule::MigratedEarly, Rule::MigratedEarly]);
}

#[test]
fn something_started_while_the_platform_is_not_wholly_migrated() {
    let bench = ready(standard());
    bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    bench.ok("demo-mkt1", "nlserver", &["start", "web@default"]);
    assert_eq!(bench.broken()[0], Rule::StartedEarly);
    bench.ok("demo-mkt1", "nlserver6", &["start"]);
    assert!(bench.lab.violations().unwrap().iter().any(|violation| violation.record.subject == "nlserver6"));
    bench.ok("demo-mkt1", "nlserver6", &["stop"]);
    // The old tracking server still has its web server's script.
    let host = bench.host("demo-trk1");
    fs::rename(host.backup(), host.nl6()).unwrap();
    bench.ok("demo-trk1", "apache2", &["start"]);
    assert!(bench.lab.violations().unwrap().iter().any(|violation| violation.record.subject == "apache2"));
}

#[test]
fn starting_and_stopping_an_untouched_platform_is_fine() {
    let bench = Bench::standard();
    bench.stop_all();
    for host in ["demo-mkt1", "demo-trk1"] {
        bench.ok(host, "nlserver6", &["start"]);
    }
    bench.ok("demo-trk1", "apache2", &["start"]);
    assert_eq!(bench.explain(), "");
}

#[test]
fn the_restart_order() {
    let bench = ready(standard());
    bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    for host in ["demo-mta1", "demo-trk1", "demo-trk2"] {
        bench.migrate_host(host);
    }
    bench.ok("demo-mta1", "nlserver", &["start", "mta@demo"]);
    assert_eq!(bench.broken(), [Rule::RestartOrder]);
    bench.ok("demo-mkt1", "nlserver", &["start", "web@default"]);
    let last = bench.lab.violations().unwrap().pop().unwrap();
    assert_eq!(last.record.subject, "web@default");
    assert!(last.record.detail.contains("apache2 of demo-trk1 does not run") && !last.record.detail.contains("mta@demo"), "{last}");
}

#[test]
fn a_tracking_server_with_an_empty_or_another_password() {
    let mut spec = standard();
    spec.faults.different_password.push("demo-trk1".into());
    spec.faults.empty_password.push("demo-trk2".into());
    let bench = Bench::new(spec);
    for host in ["demo-trk1", "demo-trk2"] {
        bench.ok(host, "apache2", &["stop"]);
    }
    bench.ok("demo-trk1", "apache2", &["start"]);
    assert_eq!(bench.broken(), [], "an empty password is not another one");
    bench.ok("demo-trk2", "apache2", &["start"]);
    assert_eq!(bench.broken(), [Rule::TrackingPassword]);

    let mut spec = standard();
    spec.faults.different_password.push("demo-trk1".into());
    let bench = Bench::new(spec);
    bench.stop("demo-trk2");
    bench.ok("demo-trk2", "apache2", &["start"]);
    assert_eq!(bench.broken(), [Rule::TrackingPassword]);
    assert!(!bench.explain().contains(&bench.lab.secrets().internal_stored));
}

#[test]
fn faults_fail_as_often_as_they_say() {
    let mut spec = standard();
    spec.faults.fail.push(Failing { host: "demo-mkt1".into(), step: "postupgrade".into(), times: Some(1) });
    spec.faults.fail.push(Failing { host: "demo-mkt1".into(), step: "install".into(), times: Some(1) });
    let bench = Bench::new(spec);
    bench.stop_all();
    bench.back_up();
    bench.ok("demo-mkt1", "dpkg", &["--purge", "nlserver6", "nlthirdparty6"]);
    let failed = bench.run("demo-mkt1", "dpkg", &["-i", &bench.new_package()]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("dependency problems"));
    bench.ok("demo-mkt1", "dpkg", &["-i", &bench.new_package()]);
    bench.restore("demo-mkt1");
    let first = bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    assert!(first.lines().any(|line| line.contains(">>> PU-0005")) && first.contains("0 warning(s) and 1 error(s)"), "{first}");
    let second = bench.ok("demo-mkt1", "nlserver", POSTUPGRADE);
    assert!(second.contains("Resuming") && second.contains("and 0 error(s)"), "{second}");
    assert_eq!(bench.explain(), "");
}
