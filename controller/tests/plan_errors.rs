//! What keeps a fleet from being planned, and what is only said.

use crate::plan_fleet::*;
use inventory::{Engine, InstanceKind, Override, Role, SourceVersion, Topology};

fn errors(platform: inventory::Platform) -> String {
    plan(&fleet(vec![platform])).unwrap_err().to_string()
}

fn warnings(platform: inventory::Platform) -> Vec<String> {
    let mut warnings = plan(&fleet(vec![platform])).unwrap().warnings;
    assert!(warnings.pop().is_some_and(|last| last.starts_with("by hand: ")), "every plan says what it leaves to people");
    warnings.retain(|warning| !warning.starts_with("package file"));
    warnings
}

#[test]
fn all_errors_come_at_once() {
    let mut emea = standard();
    emea.hosts[1].os = Some("debian-10".into());
    emea.hosts[2].os = Some("debian-10".into());
    emea.hosts[4].os = Some("suse-12".into());
    emea.hosts[5].os = None;
    emea.overrides.insert("stop.nlservr".into(), Override::default());
    emea.overrides.insert("facts".into(), Override { command: Some(command(&["true"])), ..Override::default() });
    emea.restart_order = Some(vec![Role::Marketing, Role::Tracking, Role::Mta]);
    let mut old = standalone();
    old.hosts[0].source.version = SourceVersion::V5_11;
    let mut apac = power_booster();
    apac.name = "apac".into();
    apac.order = Some(vec![Role::Marketing, Role::Tracking, Role::PowerBooster]);
    apac.instances[1].app = "pb-mkt".into();
    apac.instances[0].database.as_mut().unwrap().engine = Engine::Oracle;
    apac.hosts[3].target.build = 9384;
    insta::assert_snapshot!("errors", plan(&fleet(vec![emea, old, apac])).unwrap_err().to_string());
}

#[test]
fn package_systems_stand_in_for_an_unknown_os_only_when_there_is_one() {
    let mut platform = standard();
    for host in &mut platform.hosts {
        host.os = None;
    }
    assert!(errors(platform.clone()).contains("packages for debian-11, rhel-8; add `os: debian-11`"));
    for host in &mut platform.hosts {
        host.target.packages.retain(|package| package.os == "rhel-8");
        host.init = None;
    }
    let warnings = warnings(platform.clone());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("mkt1, mta[1-3], trk[01-04]: the OS is not in the inventory; taken from the packages: rhel-8"));
    assert!(warnings[1].contains("assumed systemd from rhel-8"));
    for host in &mut platform.hosts {
        host.target.packages.clear();
    }
    assert!(errors(platform).contains("target.packages has no package"));
}

#[test]
fn the_init_system_follows_the_age_of_the_os() {
    for (os, init) in [("debian-7", "init scripts"), ("debian-8", "systemd"), ("rhel-6", "init scripts"), ("rhel-7", "systemd")] {
        let mut platform = standalone();
        platform.hosts[0].os = Some(os.into());
        platform.hosts[0].init = None;
        platform.hosts[0].target.packages[0].os = os.into();
        assert!(warnings(platform)[0].contains(&format!("assumed {init} from {os}")), "{os}");
    }
}

#[test]
fn another_engine_needs_the_dba_or_the_sites_own_commands() {
    let mut platform = standalone();
    platform.instances[0].database.as_mut().unwrap().engine = Engine::Oracle;
    assert!(errors(platform.clone()).contains("use `backup: { by: dba }`"));
    for step in ["backup.database", "backup.database-verify"] {
        platform.overrides.insert(step.into(), Override { command: Some(command(&["/opt/rman", step])), ..Override::default() });
    }
    assert!(warnings(platform).is_empty());
}

#[test]
fn an_instance_without_a_database_is_a_persons_to_back_up() {
    let mut platform = standalone();
    platform.instances[0].database = None;
    let plan = plan(&fleet(vec![platform])).unwrap();
    let gate = plan.platforms[0].steps().find(|step| step.name == "backup-by-dba").unwrap();
    assert!(matches!(&gate.spec.action, proto::Action::Gate { gate, ask, .. }
        if gate == "solo/backup-by-dba" && ask.contains("not named in the inventory")));
}

#[test]
fn a_backup_host_is_one_of_the_platform() {
    let mut platform = standalone();
    platform.instances[0].database.as_mut().unwrap().backup = on("elsewhere");
    assert!(errors(platform).contains("made on `elsewhere`, which is no host of the platform"));
}

#[test]
fn orders_name_every_role_once() {
    let with = |order: &[Role]| {
        let mut platform = standard();
        platform.order = Some(order.to_vec());
        errors(platform)
    };
    assert!(with(&[Role::Marketing, Role::Tracking]).contains("lacks mta"));
    assert!(with(&[Role::Marketing, Role::Mta, Role::Tracking, Role::Mta]).contains("names mta twice"));
    assert!(with(&[Role::Marketing, Role::Mta, Role::Tracking, Role::Database]).contains("names database"));
    assert!(with(&[Role::Mta, Role::Marketing, Role::Tracking]).contains("puts mta before marketing"));
}

#[test]
fn an_override_of_a_step_that_is_not_planned_is_said_aloud() {
    let mut platform = standard();
    platform.overrides.insert("vendor-execution-servers".into(), Override { skip: Some("none".into()), ..Override::default() });
    let warnings = warnings(platform);
    assert!(warnings.iter().any(|warning| warning.contains("has no such step")), "{warnings:?}");
}

#[test]
fn site_commands_with_unknown_placeholders_and_names_that_clash_are_errors() {
    let mut platform = standalone();
    let install = Override { command: Some(command(&["/opt/install", "{hots}"])), ..Override::default() };
    platform.overrides.insert("install.packages".into(), install);
    assert_eq!(errors(platform).matches("unknown placeholder `{hots}`").count(), 1);
    let mut platform = standalone();
    let twice = inventory::SiteStep { name: "restore.conf".into(), command: command(&["true"]) };
    platform.overrides.insert("install.packages".into(), Override { after: vec![twice], ..Override::default() });
    assert!(errors(platform).contains("two steps would have the id solo/migrate/machine/solo/restore.conf"));
}

#[test]
fn every_topology_of_a_platform_without_mail_or_tracking_servers_is_planned() {
    for topology in [Topology::Standard, Topology::CloudMessaging] {
        let hosts = vec![host("only", &[Role::Marketing])];
        let made =
            plan(&fleet(vec![platform("p", topology, hosts, vec![instance("i", InstanceKind::Marketing, "only", on("only"))])]))
                .unwrap();
        assert!(made.platforms[0].phases.iter().all(|phase| !phase.stages.is_empty()));
    }
}
