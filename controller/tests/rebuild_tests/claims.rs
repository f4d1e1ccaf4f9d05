//! One host on which somebody else is root: what it keeps of a run must harm neither the workstation nor other hosts.

use crate::plan_fleet::{self, add_scratch, keeping, power_booster, several_roles, standalone, standard, with_windows};
use crate::rebuild_tests::parts::{event, started, told, two};
use crate::rebuild_tests::world::{fleet, ground, plan, step};
use controller::plan::rollback::{self, Done, Forward};
use controller::plan::{Phase, Plan, PlannedFile, PlatformPlan, passwords};
use controller::run::kept::{self, Kept, Line, Part};
use controller::run::rebuild::{Ground, RebuildError, Rebuilt, rebuild};
use inventory::{Fleet, Host, Location};
use proto::event::{Kind, Outcome};
use proto::host::Record;
use proto::message::{Granted, Happened, HostEvent, Mode};
use proto::step::{Action, Command, KeepTo, StepId};
use proto::{Query, Scope};
use std::collections::BTreeMap;

type Hosts = BTreeMap<String, Vec<Record>>;

fn held(hosts: &Hosts) -> Result<Rebuilt, RebuildError> {
    rebuild("r1", hosts, &ground(&two()))
}

/// Changes the part that a host keeps.
fn lie(hosts: &mut Hosts, host: &str, change: impl FnOnce(&mut Part)) {
    let Record::Kept { lines } = &mut hosts.get_mut(host).unwrap()[1] else { panic!("kept lines") };
    let Kept::Part(mut part) = Kept::from_line(&lines[0]).unwrap() else { panic!("a part") };
    change(&mut part);
    lines[0] = Kept::Part(part).to_line().unwrap();
}

/// A run that one host alone invents: nobody else has heard of it.
fn invented(plan: &Plan, host: &str) -> Hosts {
    let mut hosts = told(plan);
    for (name, records) in &mut hosts {
        if name != host {
            records.clear();
        }
    }
    hosts
}

/// One platform of one host: nobody can contradict it.
fn lone() -> Plan {
    plan(&[(1, 1, 1, 1), (1, 2, 1, 1)])
}

/// The first step of a host that its agent carries out, made another one wherever the run has it.
fn with_action(host: &str, action: &Action) -> Hosts {
    let mut plan = lone();
    let steps = plan.platforms.iter_mut().flat_map(|p| &mut p.phases).flat_map(|p| &mut p.stages).flat_map(|s| &mut s.steps);
    for step in steps.filter(|step| step.host == host && step.action == "verify").take(1) {
        step.spec.action = action.clone();
    }
    invented(&plan, host)
}

#[track_caller]
fn refused(result: Result<Rebuilt, RebuildError>, host: &str, what: &str) {
    let error = result.unwrap_err();
    assert!(matches!(&error, RebuildError::Foreign { host: named, .. } if named == host), "{error}");
    assert!(error.to_string().contains(what), "{error}");
}

#[test]
fn a_host_gives_its_own_part_alone() {
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h1", |part| part.host = "p0-h2".into());
    refused(held(&hosts), "p0-h1", "the part of p0-h2");
    // That of another platform, under its own name.
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h1", |part| part.platform.name = "p1".into());
    refused(held(&hosts), "p0-h1", "a plan of platform p1, and the inventory has it in p0");
}

#[test]
fn no_host_invents_steps_of_another() {
    let action = || Action::Command(Command { argv: vec!["/bin/sh".into()], ..Command::default() });
    // A host that takes no part, one of another platform, and by way of what has no agent.
    for (foreign, queries) in [("p0-h1", false), ("p1-h0", false), ("p0-h1", true), ("p1-h0", true)] {
        let mut hosts = told(&two());
        for host in ["p0-h1", "p0-h2"] {
            hosts.insert(host.into(), Vec::new());
        }
        let action = if queries { Action::Inspect { queries: vec![Query::System] } } else { action() };
        lie(&mut hosts, "p0-h0", |part| {
            part.hosts = vec!["p0-h0".into()];
            part.steps.push((900, step("p0", Phase::Stop, "st0", foreign, 7, 0, action)));
        });
        refused(held(&hosts), "p0-h0", &format!("which runs on {foreign}"));
    }
    // In the frame that all steps are put into.
    let mut hosts = invented(&lone(), "p0-h0");
    let foreign = step("p0", Phase::Stop, "st0", "p1-h0", 7, 0, action());
    lie(&mut hosts, "p0-h0", |part| part.platform.phases[0].stages[0].steps.push(foreign));
    refused(rebuild("r1", &hosts, &ground(&lone())), "p0-h0", "that Caravan does not make");
    // Under the id of another platform's step.
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h0", |part| {
        let id = StepId("p1/stop/st0/p1-h0/w0-s0".into());
        part.steps[0].1.id = id.clone();
        part.steps[0].1.spec.id = id;
    });
    refused(held(&hosts), "p0-h0", "which is not of platform p0");
}

#[test]
fn a_lone_liar_is_a_disagreement_that_names_it() {
    type Change = (&'static str, fn(&mut Part));
    let changes: [Change; 5] = [
        ("digest", |part| part.digest = "0".repeat(64)),
        ("the order of phases", |part| part.platform.phases.reverse()),
        ("counts", |part| part.counts[0] += 1),
        ("who takes part", |part| part.hosts = vec![part.host.clone()]),
        ("a stage that goes on without hosts that fail", |part| part.platform.phases[1].stages[0].tolerant = true),
    ];
    for (what, change) in changes {
        // Also the one that is read first, and one that names another version.
        for host in ["p0-h0", "p0-h1", "p0-h2"] {
            let mut hosts = told(&two());
            lie(&mut hosts, host, |part| {
                part.version = "0.0.1".into();
                change(part);
            });
            let error = held(&hosts).unwrap_err();
            assert!(matches!(&error, RebuildError::Disagree { hosts, .. } if hosts == host), "{what}, {host}: {error}");
        }
        // Of two, nobody can say which.
        let mut hosts = told(&two());
        lie(&mut hosts, "p1-h0", change);
        let error = held(&hosts).unwrap_err();
        assert!(matches!(&error, RebuildError::Disagree { hosts, .. } if hosts == "p1-h[0-1]"), "{what}: {error}");
    }
}

#[test]
fn another_version_does_not_hide_changed_steps() {
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h0", |part| {
        part.version = "0.0.1".into();
        part.steps[0].1.title = "another".into();
    });
    let error = held(&hosts).unwrap_err();
    assert!(matches!(&error, RebuildError::Damaged { .. }) && error.to_string().contains("p0-h[0-2]"), "{error}");
    // What all hosts keep of a gate.
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h0", |part| part.steps.iter_mut().for_each(|(_, step)| step.explain = "another".into()));
    let error = held(&hosts).unwrap_err();
    assert!(matches!(&error, RebuildError::Disagree { hosts, .. } if hosts == "p0-h0"), "{error}");
    // All of them, so that no digest can be compared: the steps of others keep their places.
    let mut hosts = told(&two());
    for host in ["p0-h0", "p0-h1", "p0-h2"] {
        lie(&mut hosts, host, |part| part.version = "0.0.1".into());
    }
    assert_eq!(held(&hosts).unwrap().plan, two());
    let place = kept::parts("r1", &two()).unwrap().iter().find(|part| part.host == "p0-h1").unwrap().steps[0].0;
    lie(&mut hosts, "p0-h2", |part| part.steps[0].0 = place);
    let error = held(&hosts).unwrap_err();
    assert!(matches!(&error, RebuildError::Disagree { hosts, .. } if hosts == "p0-h[1-2]"), "{error}");
}

#[test]
fn no_host_hides_a_platform_or_a_host() {
    let mut hosts = told(&two());
    lie(&mut hosts, "p0-h0", |part| part.platforms = vec!["p0".into()]);
    assert_eq!(held(&hosts).unwrap().plan, two());
    // A host that was not heard may keep a plan that has it.
    let mut hosts = invented(&two(), "p0-h0");
    lie(&mut hosts, "p0-h0", |part| part.hosts = vec!["p0-h0".into()]);
    hosts.remove("p0-h2");
    let error = held(&hosts).unwrap_err();
    assert_eq!(error, RebuildError::Missing { platform: "p0".into(), hosts: "p0-h2".into() });
}

#[test]
fn the_run_is_the_one_that_was_asked_for() {
    for id in ["../../elsewhere", "r2"] {
        let mut hosts = told(&two());
        lie(&mut hosts, "p0-h0", |part| part.run = id.into());
        let error = held(&hosts).unwrap_err();
        assert!(matches!(&error, RebuildError::Runs { run, hosts, .. } if run == "r1" && hosts == "p0-h0"), "{error}");
        // All that there is.
        let mut hosts = invented(&lone(), "p0-h0");
        lie(&mut hosts, "p0-h0", |part| part.run = id.into());
        assert!(matches!(rebuild("r1", &hosts, &ground(&lone())), Err(RebuildError::Runs { .. })));
    }
}

#[test]
fn only_files_of_the_inventory_are_sent() {
    let fleet = fleet(&lone());
    let package = &fleet.platforms[0].hosts[0].target.packages[0];
    let Location::Path(path) = &package.location else { panic!("a file") };
    let file = |sha256: &str, path: &str| PlannedFile { sha256: sha256.into(), path: path.into(), size: 7 };
    let good = file(&package.sha256, path);
    let mut hosts = invented(&lone(), "p0-h0");
    lie(&mut hosts, "p0-h0", |part| {
        part.files = vec![file(&"a".repeat(64), "/etc/shadow"), file(&package.sha256, "/etc/shadow"), file(&"b".repeat(64), path)];
        part.files.push(good.clone());
    });
    let rebuilt = rebuild("r1", &hosts, &ground(&lone())).unwrap();
    assert_eq!(rebuilt.plan.files, [good]);
    let said = rebuilt.notices.iter().filter(|notice| notice.contains("which p0-h0 keeps")).count();
    assert_eq!(said, 3, "{:?}", rebuilt.notices);
}

/// What the inventory plans for `p0-h0` beyond the host itself.
fn given(action: Action, fleet: &Fleet) -> Ground {
    let mut plan = lone();
    plan.platforms[0].phases[0].stages[0].steps.push(step("p0", Phase::Backup, "st0", "p0-h0", 7, 0, action));
    Ground::of(fleet, &[plan], "r1").unwrap()
}

#[test]
fn a_host_is_given_the_secrets_that_the_inventory_gives_it() {
    let secret_files = BTreeMap::from([("PGPASSFILE".to_owned(), "{secret:database/other}".to_owned())]);
    let action = Action::Command(Command { argv: vec!["/bin/true".into()], secret_files, ..Command::default() });
    assert_eq!(action.secrets().collect::<Vec<_>>(), ["database/other"]);
    let hosts = with_action("p0-h0", &action);
    refused(rebuild("r1", &hosts, &ground(&lone())), "p0-h0", "is given the secret `database/other`");
    assert!(rebuild("r1", &hosts, &given(action, &fleet(&lone()))).is_ok());
}

#[test]
fn copies_go_where_the_inventory_keeps_them() {
    let keep = |dest: &str| Action::Keep {
        source: "/tmp/x".into(),
        name: "x.age".into(),
        to: KeepTo::Host { host: "p1-h0".into(), dest: dest.into() },
        encrypt_to: Vec::new(),
        limit: None,
    };
    let known = given(keep("/kept/{run}/p0-h0/x.age"), &fleet(&lone()));
    let result = rebuild("r1", &with_action("p0-h0", &keep("/etc/cron.d/x")), &known);
    refused(result, "p0-h0", "writes /etc/cron.d/x on p1-h0");
    assert!(rebuild("r1", &with_action("p0-h0", &keep("/kept/r1/p0-h0/x.age")), &known).is_ok());
}

#[test]
fn a_host_says_what_happened_to_its_own_steps_alone() {
    let plan = two();
    let victim = plan.platforms[0].steps().find(|step| step.host == "p0-h1" && step.action == "verify").unwrap();
    let other = plan.platforms[1].steps().find(|step| step.action == "verify").unwrap();
    let honest = held(&told(&plan)).unwrap();
    for step in [victim, other] {
        let mut hosts = told(&plan);
        let what = Happened::Finished {
            outcome: Outcome::Ok,
            exit_code: None,
            duration_ms: 1,
            message: String::new(),
            output_len: 0,
            died: false,
        };
        let ended = HostEvent { host_seq: 1, host_time_ms: 1, boot_id: "b".into(), step: step.id.clone(), attempt: 1, what };
        let granted = Granted { spec: step.spec.clone(), attempt: 9, mode: Mode::Act };
        let liar = hosts.get_mut("p0-h0").unwrap();
        liar.push(Record::Grant { steps: vec![granted], head: "f".repeat(64), token: 1 });
        liar.push(Record::Event(ended));
        let rebuilt = held(&hosts).unwrap();
        assert_eq!(rebuilt.drafts, honest.drafts, "{}", step.id);
        let [notice] = rebuilt.notices.as_slice() else { panic!("{:?}", rebuilt.notices) };
        assert!(notice.starts_with("p0-h0 says what happened to ") && notice.contains(&step.id.0), "{notice}");
    }
}

#[test]
fn what_no_controller_leaves_with_hosts_is_not_believed() {
    let plan = two();
    let honest = held(&told(&plan)).unwrap();
    let step = plan.platforms[0].steps().find(|step| step.host == "p0-h1" && step.action == "verify").unwrap().id.0.clone();
    let of_step = Scope { platform: Some("p0".into()), step: Some(step), attempt: Some(1), ..Scope::default() };
    let another = match started().kind {
        Kind::RunStarted { command, operator, version, plan, limit, platforms, limit_hosts, conditions, .. } => {
            let undoes = Some("another run".into());
            Kind::RunStarted { command, operator, version, plan, limit, platforms, limit_hosts, conditions, undoes }
        }
        _ => panic!("the first event"),
    };
    for (scope, kind) in [
        (of_step.clone(), Kind::StepGranted { action: "verify".into(), prove: false }),
        (of_step.clone(), Kind::StepOutput { file: "/etc/passwd".into(), offset: 0, length: 7 }),
        (Scope { host: Some("p0-h1".into()), ..Scope::default() }, Kind::HostClaimed { token: 7 }),
        (Scope::default(), another),
    ] {
        let line = Kept::Line(Box::new(Line { record: String::new(), event: event(50, scope, kind.clone()) })).to_line().unwrap();
        let mut hosts = told(&plan);
        hosts.get_mut("p0-h0").unwrap().push(Record::Kept { lines: vec![line] });
        let rebuilt = held(&hosts).unwrap();
        assert_eq!(rebuilt.drafts, honest.drafts, "{kind:?}");
        assert!(rebuilt.notices.len() == 1 && rebuilt.notices[0].starts_with("p0-h0 "), "{kind:?}: {:?}", rebuilt.notices);
    }
}

#[test]
fn a_host_keeps_no_decisions_about_another_platform() {
    let plan = two();
    let honest = held(&told(&plan)).unwrap();
    let step = plan.platforms[1].steps().find(|step| step.action == "verify").unwrap().id.0.clone();
    let decision = |decision: &str, about: &str| Kind::Decision {
        decision: decision.into(),
        about: about.into(),
        operator: "eva".into(),
        reason: "none".into(),
    };
    let of = |platform: &str| Scope { platform: Some(platform.into()), ..Scope::default() };
    for (scope, kind) in [
        (Scope { step: Some(step.clone()), attempt: Some(1), ..of("p1") }, decision("acceptance", &step)),
        (Scope::default(), decision("acceptance", &step)),
        (of("p0"), decision("skip", &step)),
        (Scope::default(), decision("override", "disk@p1-h0")),
        (of("p1"), Kind::StageFinished),
        (Scope { step: Some(step.clone()), attempt: Some(1), ..of("p0") }, Kind::GateWaiting { gate: "g".into(), ask: "a".into() }),
        (Scope { host: Some("p1-h1".into()), ..of("p0") }, Kind::StageFinished),
    ] {
        let line = Kept::Line(Box::new(Line { record: String::new(), event: event(50, scope, kind.clone()) })).to_line().unwrap();
        let mut hosts = told(&plan);
        hosts.get_mut("p0-h0").unwrap().push(Record::Kept { lines: vec![line] });
        let rebuilt = held(&hosts).unwrap();
        assert_eq!(rebuilt.drafts, honest.drafts, "{kind:?}");
        assert!(rebuilt.notices.len() == 1 && rebuilt.notices[0].starts_with("p0-h0 "), "{kind:?}: {:?}", rebuilt.notices);
    }
    assert!(matches!(started().kind, Kind::RunStarted { .. }));
}

/// Nothing that Caravan plans itself is taken for a lie: migrations, passwords, the way back.
#[test]
fn what_is_planned_on_the_inventory_is_believed() {
    let at_host = inventory::KeepAt::Host { name: "db1".into(), dir: "/kept".into() };
    let mut scratch = standard();
    add_scratch(&mut scratch.instances[0], None);
    let here = inventory::KeepAt::Workstation;
    for platform in
        [standalone(), keeping(at_host, standard()), keeping(here, scratch), power_booster(), with_windows(), several_roles()]
    {
        let fleet = plan_fleet::fleet(vec![platform]);
        let there = plan_fleet::plan(&fleet).unwrap();
        let questions = |host: &Host| -> Vec<Query> {
            let logon = controller::check::passwords::logon::query(host);
            controller::check::passwords::queries(host).into_iter().chain(logon).collect()
        };
        let passwords = passwords::build(&fleet, &fleet.platforms.iter().map(|p| p.name.clone()).collect(), &questions).unwrap();
        let known = Ground::of(&fleet, &[there.clone(), passwords.clone()], "r1").unwrap();
        let begun: Plan = serde_json::from_str(&serde_json::to_string(&there).unwrap().replace("{run}", "r1")).unwrap();
        let granted = begun.platforms.iter().flat_map(PlatformPlan::steps).map(|step| step.id.clone()).collect();
        let done = Done { granted, ..Done::default() };
        let back = rollback::build(&fleet, &Forward { run: "r0", plan: &begun, done: &done }).unwrap().plan;
        for plan in [begun, passwords, back] {
            let of_hosts = fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| !host.is_windows());
            let mut hosts: Hosts = of_hosts.map(|host| (host.name.clone(), Vec::new())).collect();
            for part in kept::parts("r1", &plan).unwrap() {
                let host = part.host.clone();
                let lines = vec![Kept::Part(Box::new(part)).to_line().unwrap()];
                hosts.get_mut(&host).unwrap().push(Record::Kept { lines });
            }
            let rebuilt = rebuild("r1", &hosts, &known).unwrap();
            assert_eq!((&rebuilt.plan, rebuilt.notices.len()), (&plan, 0), "{:?}", rebuilt.notices);
        }
    }
}
