//! The way back from single situations, and how it reads.

use crate::plan_fleet::*;
use controller::plan::rollback::{DatabaseBackup, Done, Forward, Rollback, build};
use controller::plan::{Plan, PlannedStep, PlatformPlan, explain, render};
use inventory::{Fleet, Override, Platform, SiteStep};
use proto::event::{Finding, Kind, Outcome, Scope, Status};
use proto::{Action, Event, Probe, StepId};
use std::collections::BTreeSet;

const RUN: &str = "2026-11-22-x7k";

/// The plan of a run, as its directory keeps it.
fn plan_of_run(fleet: &Fleet) -> Plan {
    serde_json::from_str(&serde_json::to_string(&plan(fleet).unwrap()).unwrap().replace("{run}", RUN)).unwrap()
}

fn steps(plan: &Plan) -> impl Iterator<Item = &PlannedStep> {
    plan.platforms.iter().flat_map(PlatformPlan::steps)
}

/// The run got as far as to the steps of this name, each of them included.
fn until(plan: &Plan, last: &str) -> Done {
    let end = steps(plan).enumerate().filter(|(_, step)| step.name == last).map(|(index, _)| index).max().unwrap();
    Done { granted: steps(plan).take(end + 1).map(|step| step.id.clone()).collect(), ..Done::default() }
}

fn back(platform: &Platform, last: &str) -> Rollback {
    let fleet = fleet(vec![platform.clone()]);
    let plan = plan_of_run(&fleet);
    build(&fleet, &Forward { run: RUN, plan: &plan, done: &until(&plan, last) }).unwrap()
}

fn text(rollback: &Rollback) -> String {
    let text = format!("{}{}", rollback.notes.render(false, 120), render(&rollback.plan, false, 120));
    text.replace(&rollback.plan.hash[..12], "HASH")
}

#[test]
fn a_rollback_reads_in_order() {
    insta::assert_snapshot!("rollback_standard", text(&back(&standard(), "verify.build")));
    insta::assert_snapshot!("rollback_before_postupgrade", text(&back(&standard(), "backup.archive")));
    insta::assert_snapshot!("rollback_windows", text(&back(&with_windows(), "start.service")));
    insta::assert_snapshot!("rollback_power_booster", text(&back(&power_booster(), "postupgrade")));
}

#[test]
fn a_step_of_the_way_back_is_explained() {
    let rollback = back(&standard(), "verify.build");
    for step in ["restore.database", "back.tree"] {
        insta::assert_snapshot!(format!("rollback_explain_{step}"), explain(&rollback.plan, step, false, 120).unwrap());
    }
}

fn names(rollback: &Rollback, host: &str) -> Vec<String> {
    steps(&rollback.plan).filter(|step| step.host == host).map(|step| step.name.clone()).collect()
}

#[test]
fn a_run_that_touched_nothing_has_no_way_back() {
    let fleet = fleet(vec![standard()]);
    let plan = plan_of_run(&fleet);
    let last = steps(&plan).filter(|step| step.id.0.contains("/preflight/")).last().unwrap().name.clone();
    let error = build(&fleet, &Forward { run: RUN, plan: &plan, done: &until(&plan, &last) }).unwrap_err().to_string();
    assert!(error.contains("run 2026-11-22-x7k touched nothing: there is nothing to roll back"), "{error}");
}

/// Only what is no more as the run found it is undone: the others go on working. What is stopped on the way back runs again after it,
/// also where the run had not come to that.
#[test]
fn a_run_that_stopped_while_it_stopped_things_starts_them_again() {
    let fleet = fleet(vec![standard()]);
    let plan = plan_of_run(&fleet);
    let granted = steps(&plan).filter(|step| step.name == "stop.web-server" && step.host == "trk01").map(|step| step.id.clone());
    let done = Done { granted: granted.collect(), ..Done::default() };
    let rollback = build(&fleet, &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
    assert!(steps(&rollback.plan).all(|step| step.host == "trk01"));
    let mut expected = vec!["stop.web-server", "stop.nlserver", "stop.old-service", "stop.processes"];
    expected.extend(["start.web-server", "back.start-service", "back.start-verify"]);
    expected.extend(["back.verify-build", "back.verify-modules", "back.verify-redirection"]);
    assert_eq!(names(&rollback, "trk01"), expected);
}

#[test]
fn an_inventory_that_says_something_else_by_now_is_refused() {
    let mut platform = standard();
    let then = fleet(vec![platform.clone()]);
    let plan = plan_of_run(&then);
    let done = until(&plan, "verify.build");
    platform.hosts[0].campaign.home = "/opt/neolane".into();
    platform.hosts.retain(|host| host.name != "trk02");
    let error = build(&fleet(vec![platform]), &Forward { run: RUN, plan: &plan, done: &done }).unwrap_err().to_string();
    let moved = "`emea/backup/trees/mkt1/backup.move-tree` was `renames /usr/local/neolane/nl6 to /usr/local/neolane/nl6.back; refused \
                 when /usr/local/neolane/nl6.back exists` and would be `renames /opt/neolane/nl6";
    for expected in
        [moved, "`emea/migrate/tracking/trk02/remove.packages` is a step that would not be planned now", "put the inventory back"]
    {
        assert!(error.contains(expected), "{expected}\n{error}");
    }
    let error = build(&fleet(vec![standalone()]), &Forward { run: RUN, plan: &plan, done: &done }).unwrap_err().to_string();
    assert!(error.contains("`emea` is no platform of the inventory"), "{error}");
}

/// The dump is where the run's own pg_dump was told to put it, whatever the inventory says by now; another kind of backup is restored by
/// a person.
#[test]
fn the_database_is_restored_from_what_the_run_made() {
    let mut platform = standard();
    let plan = plan_of_run(&fleet(vec![platform.clone()]));
    let done = until(&plan, "postupgrade");
    platform.instances[0].database.as_mut().unwrap().backup =
        inventory::Backup::On { on: "db1".into(), dir: "/elsewhere".into(), scratch: None };
    let rollback = build(&fleet(vec![platform]), &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
    let file = "/backup/2026-11-22-x7k/emea_prod.dump";
    let restore = steps(&rollback.plan).find(|step| step.name == "restore.database").unwrap();
    assert_eq!(restore.command.as_ref().unwrap().last().unwrap(), file);
    assert!(!serde_json::to_string(&rollback.plan).unwrap().contains("/elsewhere"));
    let backup = DatabaseBackup::Dump { host: "db1".into(), file: file.into() };
    assert_eq!(rollback.notes.platforms[0].one_way[0].backup, backup);

    let own = Override { command: Some(command(&["/opt/site/dump", "{instance}"])), ..Override::default() };
    let mut own_way = standard();
    own_way.overrides.insert("backup.database".into(), own);
    for (platform, proven) in [(own_way, true), (standard(), false)] {
        let fleet = fleet(vec![platform]);
        let plan = plan_of_run(&fleet);
        let backups = steps(&plan).filter(|step| !proven && step.name == "backup.database").map(|step| step.id.clone());
        let done = Done { accepted: backups.collect(), ..until(&plan, "postupgrade") };
        let rollback = build(&fleet, &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
        let restores: Vec<_> = steps(&rollback.plan).filter(|step| step.name.starts_with("restore")).collect();
        let is_gate =
            |step: &PlannedStep| matches!(&step.spec.action, Action::Gate { gate, .. } if gate == "emea/restore-by-dba.emea_prod");
        assert!(matches!(&restores[..], [step] if is_gate(step)));
        assert_eq!(rollback.notes.platforms[0].one_way[0].backup, DatabaseBackup::ByHand);
    }
}

/// A tree of which nobody knows that it is the one that was there is not put in place of another.
#[test]
fn a_tree_without_proof_goes_back_by_hand() {
    let fleet = fleet(vec![standard()]);
    let plan = plan_of_run(&fleet);
    let accepted = steps(&plan).filter(|step| step.name == "backup.move-tree" && step.host == "mta2").map(|step| step.id.clone());
    let done = Done { accepted: accepted.collect(), ..until(&plan, "verify.build") };
    let rollback = build(&fleet, &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
    let back = |host: &str| -> Vec<String> {
        names(&rollback, host).into_iter().filter(|name| name.starts_with("back.") && !name.contains("start")).collect()
    };
    assert_eq!(back("mta2"), ["back.by-hand", "back.verify-build", "back.verify-modules"]);
    assert!(back("mta1").contains(&"back.tree".to_owned()));
}

/// A database is restored under nobody: what the run left alone is stopped as well, and that is said.
#[test]
fn hosts_outside_the_limit_are_stopped_for_the_restore_of_a_database() {
    let fleet = fleet(vec![standard()]);
    let plan = plan_of_run(&fleet);
    let done = until(&plan, "postupgrade");
    let granted = done.granted.iter().filter(|id| !id.0.contains("/mta3/")).cloned().collect();
    let done = Done { granted, ..done };
    let rollback = build(&fleet, &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
    assert_eq!(names(&rollback, "mta3"), ["stop.nlserver", "stop.old-service", "stop.processes"]);
    assert_eq!(rollback.notes.platforms[0].stay_stopped, ["mta3"]);
    assert!(rollback.notes.render(false, 400).contains("mta3: stopped for the restore of the database, and not started again"));
}

#[test]
fn the_build_that_ran_is_asked_for_where_preflight_saw_it() {
    let fleet = fleet(vec![standard()]);
    let plan = plan_of_run(&fleet);
    let done = Done { latest: ["trk01".to_owned()].into(), ..until(&plan, "verify.build") };
    let rollback = build(&fleet, &Forward { run: RUN, plan: &plan, done: &done }).unwrap();
    let probe = |host: &str, name: &str| {
        let step = steps(&rollback.plan).find(|step| step.host == host && step.name == name).unwrap();
        match step.spec.probe.clone().unwrap() {
            Probe::Http { contains, .. } | Probe::Command { contains, .. } => contains,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(probe("trk01", "start.web-server"), ["status='OK'", "build='8989'"]);
    assert_eq!(probe("trk02", "start.web-server"), ["status='OK'"]);
    assert_eq!(probe("trk01", "back.verify"), ["build 8989"]);
    assert_eq!(probe("trk02", "back.verify"), ["build "]);
}

/// What the site does its own way on the way out, it does so on the way back; and the steps of the way back can be changed as well.
#[test]
fn overrides_hold_on_the_way_back() {
    let mut platform = standard();
    let own = |argv: &[&str]| Override { command: Some(command(argv)), ..Override::default() };
    platform.overrides = [
        ("stop.web-server".to_owned(), own(&["/opt/site/web", "stop"])),
        ("back.install-packages".to_owned(), own(&["/opt/site/old", "{source.version}"])),
        (
            "install.packages".to_owned(),
            Override {
                after: vec![SiteStep { name: "site.tell".into(), command: command(&["/opt/site/tell"]) }],
                ..Override::default()
            },
        ),
    ]
    .into();
    let forward = plan(&fleet(vec![platform.clone()])).unwrap();
    assert!(!forward.warnings.iter().any(|warning| warning.contains("changes nothing")), "{:?}", forward.warnings);
    let rollback = back(&platform, "verify.build");
    let command = |name: &str, host: &str| {
        steps(&rollback.plan).find(|step| step.name == name && step.host == host).and_then(|step| step.command.clone()).unwrap()
    };
    assert_eq!(command("stop.web-server", "trk01"), ["/opt/site/web", "stop"]);
    // Also where there are no files: the site has its own.
    assert_eq!(command("back.install-packages", "trk04"), ["/opt/site/old", "6.1"]);
    assert!(!names(&rollback, "trk04").contains(&"back.packages-by-hand".to_owned()));
    assert_eq!(rollback.notes.platforms[0].own_steps, ["site.tell"]);
}

fn event(seq: u64, phase: &str, step: &str, kind: Kind) -> Event {
    let scope = Scope { phase: Some(phase.into()), step: (!step.is_empty()).then(|| step.into()), ..Scope::default() };
    Event {
        v: 1,
        seq,
        time: String::new(),
        run: RUN.into(),
        scope,
        kind,
        host_time: None,
        boot_id: None,
        host_seq: None,
        prev: String::new(),
    }
}

#[test]
fn what_a_run_did_is_read_from_its_events() {
    let granted = |prove| Kind::StepGranted { action: "service".into(), prove };
    let finding = |check: &str, host: &str, status| Kind::Finding {
        finding: Finding {
            id: format!("{check}@{host}"),
            check: check.into(),
            when: None,
            platform: "p".into(),
            host: Some(host.into()),
            instance: None,
            status,
            message: String::new(),
            evidence: String::new(),
            remedy: String::new(),
            overridden: None,
        },
    };
    let failed =
        Kind::StepFinished { outcome: Outcome::Failed, exit_code: None, duration_ms: 0, message: String::new(), died: false };
    let accepted =
        Kind::Decision { decision: "acceptance".into(), about: "p/accepted".into(), operator: "o".into(), reason: "r".into() };
    let kinds = vec![
        ("preflight", "", finding("version", "latest", Status::Ok)),
        ("preflight", "", finding("version", "older", Status::Failure)),
        ("preflight", "", finding("space", "other", Status::Ok)),
        ("verify", "", finding("version", "migrated", Status::Ok)),
        ("stop", "p/failed", granted(false)),
        ("stop", "p/failed", failed),
        ("stop", "p/proven", granted(true)),
        ("stop", "p/never", granted(false)),
        ("stop", "p/never", Kind::StepRevoked),
        ("stop", "p/again", granted(false)),
        ("stop", "p/again", Kind::StepStarted),
        ("stop", "p/again", granted(false)),
        ("stop", "p/again", Kind::StepRevoked),
        ("stop", "p/gate", Kind::GateWaiting { gate: "p/g".into(), ask: String::new() }),
        ("stop", "", accepted),
    ];
    let events: Vec<Event> = (1..).zip(kinds).map(|(seq, (phase, step, kind))| event(seq, phase, step, kind)).collect();
    let done = Done::of(&events);
    let ids = |names: &[&str]| names.iter().map(|name| StepId(format!("p/{name}"))).collect::<BTreeSet<_>>();
    assert_eq!(done.granted, ids(&["failed", "again", "gate"]));
    assert_eq!(done.accepted, ids(&["accepted"]));
    assert_eq!(done.latest, ["latest".to_owned()].into());
}
