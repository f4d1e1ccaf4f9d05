//! The runbooks are whole: every step, under every condition, becomes an action that agents know.

mod plan_fleet;

use controller::plan::runbook::{Family, Runbook, Template};
use controller::plan::{Phase, Reversibility};
use inventory::{Backup, InitSystem, Location, SourceVersion};
use plan_fleet::*;
use proto::Action;
use std::collections::BTreeSet;

fn runbook() -> Runbook {
    Runbook::for_source(SourceVersion::V6_1).unwrap().unwrap()
}

#[test]
fn only_v6_1_has_a_runbook() {
    assert!(Runbook::for_source(SourceVersion::V5_11).unwrap().is_none());
    assert!(Runbook::for_source(SourceVersion::V6_02).unwrap().is_none());
    assert_eq!(runbook().name, "v6.1-to-v7");
}

#[test]
fn a_runbook_of_another_shape_is_refused() {
    for (text, why) in [
        ("name: x\nsource_versions: []\nsteps: [{ name: a }]", "missing field"),
        ("name: x\nsource_versions: []\nsteps: []\nmore: 1", "unknown field"),
        ("[", "cannot be read"),
        (
            "name: x\nsource_versions: []\nsteps: [{ name: a, title: t, phase: stop, scope: host, run_as: root, action: verify, reversibility: reversible, source: s, explain: e }]",
            "either `stage` or `at`",
        ),
    ] {
        let error = Runbook::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Fleets that together meet every condition that a runbook can have.
fn every_condition() -> Vec<inventory::Platform> {
    let mut platforms =
        vec![standalone(), standard(), cloud_messaging(), power_booster(), power_cluster(), with_windows(), several_roles()];
    let mut bare = standard();
    bare.name = "bare".into();
    bare.instances[0].database.as_mut().unwrap().password = None;
    for host in &mut bare.hosts {
        host.init = Some(InitSystem::Sysv);
        host.source.packages[0].location = Location::Url("https://packages.example.net/nlserver6_8989_amd64.deb".into());
    }
    bare.hosts.push(windows(host("win-db", &[inventory::Role::Database])));
    platforms.push(bare);
    platforms
}

#[test]
fn every_step_of_the_runbook_is_planned_somewhere() {
    let runbook = runbook();
    let plan = plan(&fleet(every_condition())).unwrap();
    let planned: BTreeSet<(Phase, &str, &str)> = plan
        .platforms
        .iter()
        .flat_map(|platform| {
            platform.phases.iter().flat_map(|phase| {
                phase
                    .stages
                    .iter()
                    .flat_map(|stage| &stage.steps)
                    .map(|step| (phase.name, step.name.as_str(), step.explain.as_str()))
            })
        })
        .collect();
    for step in &runbook.steps {
        assert!(planned.contains(&(step.phase, step.name.as_str(), step.explain.as_str())), "{} is never planned", step.name);
    }
    let text = serde_json::to_string(&plan).unwrap();
    for rest in text.split('{').skip(1) {
        let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-')).collect();
        let closed = rest[word.len()..].starts_with('}');
        assert!(!closed || word.is_empty() || word == "run", "placeholder {{{word}}} was left");
    }
}

/// Steps that have no probe, and why that is right.
const WITHOUT_PROBE: &[(&str, &str)] = &[
    ("backup.database", "half a dump can look whole; backup.database-verify proves it"),
    ("conf.reload", "leaves nothing to look at"),
    ("conf.reload-tracking", "leaves nothing to look at"),
];

/// Steps whose probe looks at nothing, and why that is right.
const PROVEN_ELSEWHERE: &[(&str, &str)] = &[
    ("stop.nlserver", "stop.processes proves it"),
    ("postupgrade.check", "changes nothing"),
    ("start.service", "start.verify proves it, as the Campaign account"),
];

#[test]
fn what_changes_a_host_can_be_proven_and_has_a_way_back() {
    let plan = plan(&fleet(every_condition())).unwrap();
    for step in plan.platforms.iter().flat_map(controller::plan::PlatformPlan::steps) {
        let action = &step.spec.action;
        let excepted = WITHOUT_PROBE.iter().any(|(name, _)| *name == step.name);
        let asks = matches!(action, Action::Gate { .. } | Action::Inspect { .. });
        assert_eq!(step.spec.probe.is_none(), excepted || asks, "{}", step.id);
        let elsewhere = PROVEN_ELSEWHERE.iter().any(|(name, _)| *name == step.name);
        assert_eq!(step.spec.probe.as_ref().is_some_and(proto::Probe::is_empty), elsewhere, "{}", step.id);
        if !action.is_read_only() && step.name != "postupgrade.check" {
            assert!(!step.undo.is_empty(), "{} has no undo", step.id);
        }
        let upgrade = ["postupgrade", "windows.postupgrade"].contains(&step.name.as_str());
        assert_eq!(step.reversibility == Reversibility::OneWay, upgrade, "{}", step.id);
        assert!(!step.title.is_empty() && !step.source.is_empty() && !step.explain.is_empty(), "{}", step.id);
        assert_eq!(step.command, action.argv(), "{}", step.id);
        assert_eq!(step.action, action.kind(), "{}", step.id);
    }
}

#[test]
fn no_shell_reads_a_value() {
    for step in runbook().steps {
        let Some(argv) = step.action.pointer("/command/argv").and_then(|argv| argv.as_array()) else { continue };
        let program = argv[0].as_str().unwrap();
        if ["/bin/sh", "sh", "bash", "env", "su"].contains(&program) {
            assert_eq!(argv[1], "-c", "{}", step.name);
            assert!(!argv[2].as_str().unwrap().contains('{'), "{}: values go in as arguments", step.name);
        }
    }
}

#[test]
fn steps_of_one_name_exclude_each_other() {
    let steps = runbook().steps;
    let windows = |step: &Template| step.when.family.as_ref().is_some_and(|family| *family == [Family::Windows]);
    for (index, one) in steps.iter().enumerate() {
        for other in steps.iter().skip(index + 1).filter(|other| other.name == one.name && other.phase == one.phase) {
            let apart = windows(one) != windows(other)
                || one.when.init.is_some() && one.when.init != other.when.init
                || one.when.database_password.is_some() && one.when.database_password != other.when.database_password;
            assert!(apart, "{}", one.name);
        }
    }
}

#[test]
fn the_password_of_a_database_without_one_is_not_asked_for() {
    let mut platform = standalone();
    let database = platform.instances[0].database.as_mut().unwrap();
    database.password = None;
    database.backup = Backup::On { on: "solo".into(), dir: "/b".into() };
    let text = serde_json::to_string(&plan(&fleet(vec![platform])).unwrap()).unwrap();
    assert!(!text.contains("{secret:"));
}

/// `nlserver` and `env.sh` belong to the Campaign account: root never runs or sources what that account can write.
#[test]
fn root_runs_nothing_of_the_campaign_account() {
    let plan = plan(&fleet(every_condition())).unwrap();
    for step in plan.platforms.iter().flat_map(controller::plan::PlatformPlan::steps) {
        if step.spec.run_as == proto::RunAs::User("root".to_owned()) && !matches!(step.spec.action, Action::Inspect { .. }) {
            let text = serde_json::to_string(&[serde_json::json!(step.spec.action), serde_json::json!(step.spec.probe)]).unwrap();
            assert!(!text.contains("env.sh") && !text.contains("bin/nlserver"), "{}: {text}", step.id);
        }
    }
}

/// The configuration says which modules of an instance a server runs.
#[test]
fn modules_of_instances_start_only_where_the_configuration_says_so() {
    let plan = plan(&fleet(every_condition())).unwrap();
    let mut seen = 0;
    for step in plan.platforms.iter().flat_map(controller::plan::PlatformPlan::steps) {
        let module = step.name.strip_prefix("start.").filter(|_| step.instance.is_some());
        assert_eq!(step.spec.only_if.is_some(), module.is_some(), "{}", step.id);
        if let (Some(module), Some(proto::Probe::Xml { file, element, attribute, equals })) = (module, &step.spec.only_if) {
            seen += 1;
            assert!(file.ends_with(&format!("/conf/config-{}.xml", step.instance.as_deref().unwrap())), "{file}");
            assert_eq!((element.as_str(), attribute.as_str()), (format!("serverconf/{module}").as_str(), "autoStart"));
            assert_eq!(equals.as_deref(), Some("true"));
        }
    }
    assert!(seen > 0);
}
