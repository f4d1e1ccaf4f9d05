//! The plan of `passwords set`: every Campaign server once, nothing secret, and the proofs behind it.

use crate::plan_fleet::*;
use controller::check::{Point, passwords};
use controller::plan::passwords::{CURRENT, NEW, NONE, SET, build, sets_passwords};
use controller::plan::{Phase, Plan, PlannedStep};
use inventory::{Host, Platform, SourceVersion};
use proto::{Action, Query};
use std::collections::BTreeSet;

fn planned(platforms: Vec<Platform>) -> Plan {
    let names: BTreeSet<String> = platforms.iter().map(|platform| platform.name.clone()).collect();
    let questions = |host: &Host| -> Vec<Query> {
        passwords::query(host, Point::Preflight).into_iter().chain(passwords::logon::query(host)).collect()
    };
    build(&fleet(platforms), &names, &questions).unwrap()
}

fn steps<'a>(plan: &'a Plan, name: &str) -> Vec<&'a PlannedStep> {
    plan.platforms.iter().flat_map(|platform| platform.steps()).filter(|step| step.name == name).collect()
}

#[test]
fn every_campaign_server_is_set_once_and_proven_once() {
    for platform in [standalone(), standard(), cloud_messaging(), power_booster(), power_cluster(), several_roles()] {
        let servers: Vec<String> = platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| host.name.clone()).collect();
        let plan = planned(vec![platform]);
        assert!(sets_passwords(&plan));
        for name in [SET, "prove.internal-password"] {
            let hosts: Vec<&String> = steps(&plan, name).iter().map(|step| &step.host).collect();
            assert_eq!(hosts, servers.iter().collect::<Vec<_>>(), "{name}");
        }
        let phases: Vec<Phase> = plan.platforms[0].phases.iter().map(|phase| phase.name).collect();
        assert_eq!(phases, [Phase::Passwords, Phase::Verify], "nothing is proven before all are set");
    }
}

#[test]
fn the_command_is_the_vendors_and_the_passwords_are_named_only() {
    let plan = planned(vec![standard()]);
    let set = steps(&plan, SET);
    let Action::Command(command) = &set[0].spec.action else { panic!() };
    assert_eq!(command.argv, ["/usr/local/neolane/nl6/bin/nlserver", "config", "-internalpassword"]);
    assert_eq!(command.profile.as_deref(), Some("/usr/local/neolane/nl6/env.sh"));
    let dialog = command.dialog.as_ref().unwrap();
    let ways: Vec<Vec<&str>> = dialog.ways.iter().map(|way| way.secrets.iter().map(String::as_str).collect()).collect();
    assert_eq!(ways, [[CURRENT, NEW, NEW], [NEW, NEW, NEW], [NONE, NEW, NEW]]);
    let named: BTreeSet<&str> = set[0].spec.action.secrets().collect();
    assert_eq!(named, BTreeSet::from([CURRENT, NEW, NONE]));
    let mut old = standard();
    old.hosts.iter_mut().for_each(|host| host.source.version = SourceVersion::V5_11);
    let plan = planned(vec![old]);
    let Action::Command(command) = &steps(&plan, SET)[0].spec.action else { panic!() };
    // The host says whether it was migrated since: the installation that is there is asked.
    let home = tempfile::tempdir().unwrap();
    let run = |argv: &[String]| {
        let argv: Vec<&str> = argv
            .iter()
            .map(|word| word.strip_prefix("/usr/local/neolane").map_or(word.as_str(), |_| home.path().to_str().unwrap()))
            .collect();
        let output = std::process::Command::new(argv[0]).args(&argv[1..]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for tree in ["nl5", "nl6"] {
        let bin = home.path().join(tree).join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(home.path().join(tree).join("env.sh"), format!("PROFILE={tree}; export PROFILE\n")).unwrap();
        std::fs::write(bin.join("nlserver"), format!("#!/bin/sh\necho \"{tree} $PROFILE $*\"\n")).unwrap();
        std::fs::set_permissions(bin.join("nlserver"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(run(&command.argv), format!("{tree} {tree} config -internalpassword\n"));
    }
}

#[test]
fn a_windows_server_is_a_persons() {
    let platform = with_windows();
    let windows: Vec<String> = platform.hosts.iter().filter(|host| host.is_windows()).map(|host| host.name.clone()).collect();
    assert!(!windows.is_empty());
    let plan = planned(vec![platform]);
    for host in windows {
        let step = steps(&plan, SET).into_iter().find(|step| step.host == host).unwrap();
        let Action::Gate { gate, commands, .. } = &step.spec.action else { panic!("{step:?}") };
        assert_eq!(*gate, format!("{}/windows.{SET}.{host}", plan.platforms[0].name));
        assert_eq!(commands, &["nlserver config -internalpassword"]);
        assert!(!steps(&plan, "prove.internal-password").iter().any(|step| step.host == host), "nobody can ask it");
    }
}

#[test]
fn a_plan_is_read_back_as_it_was_written() {
    let plan = planned(vec![standard(), with_windows()]);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
