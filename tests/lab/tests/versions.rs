//! What can go wrong with hosts that come from v5.11, v6.02 or an earlier build of v7: the stand-ins notice it.

use crate::common::{Bench, standard};
use lab::{Release, Role, Rule, Spec};
use std::fs;

fn from(version: &str, build: u32) -> Spec {
    let mut spec = standard();
    spec.platforms[0].source = Some(Release { version: version.into(), build });
    spec
}

fn backed_up(spec: Spec) -> Bench {
    let bench = Bench::new(spec);
    bench.stop_all();
    bench.back_up();
    assert_eq!(bench.explain(), "");
    bench
}

#[test]
fn v5_has_its_own_names() {
    let bench = Bench::new(from("5.11", 8000));
    let host = bench.host("demo-trk1");
    assert!(host.nl6().ends_with("nl5") && !host.home().join("nl6").exists());
    assert!(bench.ok("demo-trk1", "dpkg", &["-l"]).contains("nlthirdparty5"));
    assert!(bench.ok("demo-trk1", "nlserver", &["pdump"]).contains("Version 5.11 (build 8000)"));
    assert!(bench.ok("demo-trk1", "nlserver5", &["status"]).contains("running"));
    assert!(fs::read_to_string(host.home().join(".bashrc")).unwrap().contains("nl5/env.sh"));
    let link = fs::read_link(host.web_config().join("mods-available/nlsrv.conf")).unwrap();
    assert!(link.to_str().unwrap().contains("/nl5/conf/"), "{link:?}");
}

/// Before its first start a new installation beside v5 has no configuration, and that start is none that comes too early.
#[test]
fn the_first_start_makes_conf_and_var() {
    let bench = backed_up(from("5.11", 8000));
    bench.replace_packages("demo-mkt1");
    let nl6 = bench.host("demo-mkt1").home().join("nl6");
    assert!(nl6.join("bin/nlserver").exists() && !nl6.join("conf").exists() && !nl6.join("var").exists());
    bench.ok("demo-mkt1", "nlserver6", &["start"]);
    assert!(nl6.join("conf/serverConf.xml").exists() && nl6.join("var").exists());
    bench.ok("demo-mkt1", "nlserver6", &["stop"]);
    assert_eq!(bench.explain(), "");
    // Once an instance is there, it is an ordinary start.
    bench.restore("demo-mkt1");
    bench.ok("demo-mkt1", "nlserver6", &["start"]);
    assert!(bench.broken().contains(&Rule::StartedEarly), "{}", bench.explain());
}

#[test]
fn config_default_of_v5_is_noticed() {
    let bench = backed_up(from("5.11", 8000));
    bench.migrate_host("demo-mkt1");
    assert_eq!(bench.explain(), "");
    let host = bench.host("demo-mkt1");
    fs::copy(host.backup().join("conf/config-default.xml"), host.nl6().join("conf/config-default.xml")).unwrap();
    bench.ok("demo-mkt1", "nlserver", &["config", "-reload"]);
    assert_eq!(bench.broken(), [Rule::DefaultConfigOfV5]);
}

#[test]
fn modules_that_could_start_early_are_noticed() {
    for (version, build) in [("5.11", 8000), ("6.02", 8500)] {
        let bench = backed_up(from(version, build));
        bench.migrate_host("demo-mkt1");
        assert_eq!(bench.explain(), "");
        bench.set_modules("demo-mkt1", "_autoStart", "autoStart");
        bench.postupgrade(&bench.platform().instances[0]);
        assert_eq!(bench.broken(), [Rule::ModulesNotHeld], "{version}");
        assert!(bench.explain().contains("wfserver in "), "{}", bench.explain());
    }
}

#[test]
fn modules_that_never_come_back_are_noticed() {
    let bench = backed_up(from("6.02", 8500));
    bench.migrate_in_order();
    bench.ok("demo-trk1", "nlserver", &["start", "trackinglogd@default"]);
    assert_eq!(bench.broken(), [Rule::ModulesNotReleased]);
}

#[test]
fn a_web_server_that_leads_to_nl5_does_not_start_or_is_noticed() {
    let bench = backed_up(from("5.11", 8000));
    bench.migrate_in_order();
    for host in &bench.platform().hosts {
        bench.set_modules(&host.name, "_autoStart", "autoStart");
    }
    bench.lead("demo-trk1", "nl6/", "nl5/");
    let refused = bench.run("demo-trk1", "apache2", &["start"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Cannot load"), "{refused:?}");
    assert_eq!(bench.broken(), [Rule::LeadsToTheOther]);
    let text = bench.explain();
    for file in [".bashrc", "envvars", "nlsrv.load", "nlsrv.conf", "alias.conf"] {
        assert!(text.contains(file), "{file}: {text}");
    }
    assert!(bench.host("demo-trk1").is(Role::Tracking));
}

#[test]
fn postupgrade_from_v5_needs_its_time_zone() {
    let bench = backed_up(from("5.11", 8000));
    bench.migrate_host("demo-mkt1");
    let output = bench.run("demo-mkt1", "nlserver", &["config", "-postupgrade", "-instance:demo"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("-timezone:<zone> is missing"), "{output:?}");
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap().build, 8000);
    let check = bench.ok("demo-mkt1", "nlserver", &["config", "-postupgrade", "-instance:demo", "-check"]);
    assert!(check.contains("0 error(s)"), "{check}");
}

/// A build upgrade has another order: tracking first, and after it the application server.
#[test]
fn a_build_upgrade_in_the_order_of_a_migration_is_noticed() {
    let bench = backed_up(from("7.3.5", 9368));
    bench.migrate_host("demo-mkt1");
    assert!(bench.broken().contains(&Rule::MigratedEarly), "{}", bench.explain());
    let bench = backed_up(from("7.3.5", 9368));
    bench.migrate_in_order();
    bench.ok("demo-trk1", "nlserver", &["start", "trackinglogd@default"]);
    assert_eq!(bench.broken(), [Rule::RestartOrder]);
    assert!(bench.explain().contains("web@default of demo-mkt1 does not run"), "{}", bench.explain());
}

#[test]
fn sources_that_no_stand_in_knows_are_refused() {
    let error = |source: &str| {
        Spec::parse(&format!("platforms: [{{ name: a, topology: standalone, source: {source}, hosts: {{ marketing: [m] }} }}]"))
            .unwrap_err()
    };
    assert!(error("{ version: \"5.2\", build: 1 }").contains("the stand-ins know 5.11, 6.02, 6.1 and 7.X"));
    assert!(error("{ version: 7.4.1, build: 9383 }").contains("an upgrade leads to a later build"));
}
