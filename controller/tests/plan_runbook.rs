//! The runbooks are whole: every step, under every condition, becomes an action that agents know.

use crate::plan_fleet::*;
use controller::plan::rollback::{Done, Forward};
use controller::plan::runbook::{Family, Runbook, Template};
use controller::plan::{Phase, Plan, PlannedStep, PlatformPlan, Reversibility};
use inventory::{Backup, InitSystem, KeepAt, Location, SourceVersion};
use proto::{Action, StepId};
use std::collections::BTreeSet;

fn runbook() -> Runbook {
    Runbook::for_source(SourceVersion::V6_1).unwrap().unwrap()
}

fn way_back() -> Runbook {
    Runbook::back_to(SourceVersion::V6_1).unwrap().unwrap()
}

/// One runbook is for all versions, and one leads back to all of them.
#[test]
fn every_version_has_a_runbook() {
    for version in VERSIONS {
        let (there, back) = (Runbook::for_source(version).unwrap().unwrap(), Runbook::back_to(version).unwrap().unwrap());
        assert_eq!((there.name, back.name), ("to-v7".to_owned(), "rollback-from-v7".to_owned()));
    }
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
        (
            "name: x\nsource_versions: []\nsteps: [{ name: a, title: t, phase: rollback, stage: s, scope: host, run_as: root, action: verify, reversibility: reversible, source: s, explain: e }, { name: b, title: t, phase: rollback, stage: s, tolerant: true, scope: host, run_as: root, action: verify, reversibility: reversible, source: s, explain: e }]",
            "the same of `tolerant`",
        ),
    ] {
        let error = Runbook::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

const VERSIONS: [SourceVersion; 4] = [SourceVersion::V5_11, SourceVersion::V6_02, SourceVersion::V6_1, SourceVersion::V7];

/// Fleets that together meet every condition that a runbook can have.
fn every_condition() -> Vec<inventory::Platform> {
    let mut platforms =
        vec![standalone(), standard(), cloud_messaging(), power_booster(), power_cluster(), with_windows(), several_roles()];
    platforms[0] = keeping(KeepAt::Workstation, standalone());
    let mut bare = standard();
    bare.name = "bare".into();
    bare.instances[0].database.as_mut().unwrap().password = None;
    add_scratch(&mut bare.instances[0], None);
    for host in &mut bare.hosts {
        host.init = Some(InitSystem::Sysv);
        host.source.packages[0].location = Location::Url("https://packages.example.net/nlserver6_8989_amd64.deb".into());
    }
    bare.hosts.push(windows(host("win-db", &[inventory::Role::Database])));
    platforms.push(bare);
    let with_all_families = [with_windows(), platforms.last().cloned().unwrap(), standard()];
    for version in [SourceVersion::V5_11, SourceVersion::V6_02, SourceVersion::V7] {
        platforms.extend(with_all_families.iter().map(|platform| coming_from(version, platform.clone())));
    }
    for (index, location) in [
        Location::Path("setup-client-7.0.9383.exe".into()),
        Location::Url("https://packages.example.net/setup-client-7.0.9383.exe".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let mut with_client = with_client(location, standalone());
        with_client.name = format!("client{index}");
        platforms.push(with_client);
    }
    platforms
}

/// Whether a text is what a template's text became: the same but for its placeholders.
fn is_filled(template: &str, text: &str) -> bool {
    let mut rest = text;
    let mut pieces = template.split('{');
    let first = pieces.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    for piece in pieces {
        let Some((_, literal)) = piece.split_once('}') else { return false };
        match rest.find(literal) {
            Some(at) if !literal.is_empty() => rest = &rest[at + literal.len()..],
            Some(_) => return true,
            None => return false,
        }
    }
    rest.is_empty()
}

/// The ways back of the same fleets, from a run that got to its end, from one that only moved the trees, and from one that nobody can
/// vouch for.
fn ways_back() -> Vec<Plan> {
    let fleet = fleet(every_condition());
    let forward = plan(&fleet).unwrap();
    let steps = || forward.platforms.iter().flat_map(PlatformPlan::steps);
    let ids =
        |wanted: &dyn Fn(&&PlannedStep) -> bool| steps().filter(wanted).map(|step| step.id.clone()).collect::<BTreeSet<StepId>>();
    let archived = |step: &PlannedStep| match &step.spec.action {
        Action::Archive { dest, .. } => Some(((step.host.clone(), dest.clone()), "5".repeat(64))),
        _ => None,
    };
    let whole = Done { granted: ids(&|_| true), made: steps().filter_map(archived).collect(), ..Done::default() };
    let moved = Done { granted: ids(&|step| step.id.0.contains("/stop/") || step.id.0.contains("/backup/")), ..Done::default() };
    let accepted = Done { accepted: ids(&|step| step.id.0.contains("/backup/")), ..whole.clone() };
    let back = |done: &Done| {
        let forward = Forward { run: "2026-11-22-x7k", plan: &forward, done };
        controller::plan::rollback::build(&fleet, &forward).unwrap().plan
    };
    vec![back(&whole), back(&moved), back(&accepted)]
}

/// Every step of every plan that the runbooks give.
fn every_plan() -> Vec<Plan> {
    let mut plans = ways_back();
    plans.push(plan(&fleet(every_condition())).unwrap());
    plans
}

#[test]
fn every_step_of_the_way_back_is_planned_somewhere() {
    let plans = ways_back();
    let steps = || plans.iter().flat_map(|plan| &plan.platforms).flat_map(PlatformPlan::steps);
    for template in way_back().steps {
        let planned = steps().any(|step| step.name == template.name && is_filled(&template.explain, &step.explain));
        assert!(planned, "{} is never planned", template.name);
        assert_eq!(template.phase, Phase::Rollback, "{}", template.name);
    }
    // What is undone are steps that there are.
    let forward = runbook();
    for name in way_back().steps.iter().flat_map(|step| step.undoes.iter().chain(&step.when.unless)) {
        assert!(forward.names().contains(&name.as_str()), "there is no step {name} to undo");
    }
    assert!(forward.steps.iter().all(|step| step.undoes.is_empty() && step.when.unless.is_empty() && !step.tolerant));
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
        let is = |(phase, name, explain): &(Phase, &str, &str)| {
            *phase == step.phase && *name == step.name && is_filled(&step.explain, explain)
        };
        assert!(planned.iter().any(is), "{} is never planned", step.name);
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
    ("backup.database-restore", "backup.database-restored proves it"),
    ("backup.database-restored", "asks with a password, which probes are not given"),
    ("conf.reload", "leaves nothing to look at"),
    ("conf.reload-tracking", "leaves nothing to look at"),
    ("restore.database", "a database does not say which dump it came from"),
];

/// Steps whose probe looks at nothing, and why that is right.
const PROVEN_ELSEWHERE: &[(&str, &str)] = &[
    ("stop.nlserver", "stop.processes proves it"),
    ("postupgrade.check", "changes nothing"),
    ("install.first-stop", "install.first-down proves it"),
    ("start.service", "start.verify proves it, as the Campaign account"),
    ("stop.old-service", "stop.processes proves it"),
    ("back.daemon-reload", "back.start-service shows whether the old unit is known"),
    ("back.start-service", "back.start-verify proves it, as the Campaign account"),
];

/// What only a backup brings the state before back.
const ONE_WAY: &[&str] = &["postupgrade", "windows.postupgrade", "restore.database", "restore-by-dba"];

#[test]
fn what_changes_a_host_can_be_proven_and_has_a_way_back() {
    for step in every_plan().iter().flat_map(|plan| &plan.platforms).flat_map(PlatformPlan::steps) {
        let action = &step.spec.action;
        let excepted = WITHOUT_PROBE.iter().any(|(name, _)| *name == step.name);
        let asks = matches!(action, Action::Gate { .. } | Action::Inspect { .. });
        assert_eq!(step.spec.probe.is_none(), excepted || asks, "{}", step.id);
        let elsewhere = PROVEN_ELSEWHERE.iter().any(|(name, _)| *name == step.name);
        assert_eq!(step.spec.probe.as_ref().is_some_and(proto::Probe::is_empty), elsewhere, "{}", step.id);
        if !action.is_read_only() && step.name != "postupgrade.check" {
            assert!(!step.undo.is_empty(), "{} has no undo", step.id);
        }
        assert_eq!(step.reversibility == Reversibility::OneWay, ONE_WAY.contains(&step.name.as_str()), "{}", step.id);
        assert!(!step.title.is_empty() && !step.source.is_empty() && !step.explain.is_empty(), "{}", step.id);
        assert_eq!(step.command, action.argv(), "{}", step.id);
        assert_eq!(step.action, action.kind(), "{}", step.id);
    }
}

#[test]
fn no_shell_reads_a_value() {
    for step in runbook().steps.into_iter().chain(way_back().steps) {
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
    let steps: Vec<Template> = runbook().steps.into_iter().chain(way_back().steps).collect();
    let windows = |step: &Template| step.when.family.as_ref().is_some_and(|family| *family == [Family::Windows]);
    for (index, one) in steps.iter().enumerate() {
        for other in steps.iter().skip(index + 1).filter(|other| other.name == one.name && other.phase == one.phase) {
            let apart = windows(one) != windows(other)
                || one.when.source.as_ref().is_some_and(|versions| {
                    other.when.source.as_ref().is_some_and(|others| !others.iter().any(|version| versions.contains(version)))
                })
                || one.when.family.is_some() && other.when.family.is_some() && one.when.family != other.when.family
                || one.undoes.iter().any(|name| other.when.unless.contains(name))
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
    database.backup = Backup::On { on: "solo".into(), dir: "/b".into(), scratch: None };
    add_scratch(&mut platform.instances[0], None);
    let text = serde_json::to_string(&plan(&fleet(vec![platform])).unwrap()).unwrap();
    assert!(!text.contains("{secret:"));
}

/// `nlserver` and `env.sh` belong to the Campaign account: root never runs or sources what that account can write.
#[test]
fn root_runs_nothing_of_the_campaign_account() {
    for step in every_plan().iter().flat_map(|plan| &plan.platforms).flat_map(PlatformPlan::steps) {
        if step.spec.run_as == proto::RunAs::User("root".to_owned()) && !matches!(step.spec.action, Action::Inspect { .. }) {
            let text = serde_json::to_string(&[serde_json::json!(step.spec.action), serde_json::json!(step.spec.probe)]).unwrap();
            assert!(!text.contains("env.sh") && !text.contains("bin/nlserver"), "{}: {text}", step.id);
        }
    }
}

/// Steps that look at the host for the file that they are about.
const ON_WHAT_IS_THERE: &[&str] = &["conf.bashrc", "restore.conf", "conf.hold-modules", "conf.release-modules"];

/// The configuration says which modules of an instance a server runs.
#[test]
fn modules_of_instances_start_only_where_the_configuration_says_so() {
    let plan = plan(&fleet(every_condition())).unwrap();
    let mut seen = 0;
    for step in plan.platforms.iter().flat_map(PlatformPlan::steps) {
        let module = step.name.strip_prefix("start.").filter(|_| step.instance.is_some());
        if module.is_none() && ON_WHAT_IS_THERE.contains(&step.name.as_str()) {
            continue;
        }
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
