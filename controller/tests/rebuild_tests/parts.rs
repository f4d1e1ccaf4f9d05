//! What is missing, damaged or contradictory in what hosts keep.

use crate::rebuild_tests::world::{ground, plan};
use controller::plan::Plan;
use controller::run::kept::{self, Keeper, Kept, Line};
use controller::run::rebuild::{self, RebuildError, Rebuilt, records};
use proto::Scope;
use proto::event::{Event, Kind};
use proto::host::Record;
use proto::message::{Granted, Mode};
use std::collections::BTreeMap;

pub(super) fn event(seq: u64, scope: Scope, kind: Kind) -> Event {
    let time = format!("2026-07-01T20:00:{seq:02}.000Z");
    let prev = "0".repeat(64);
    Event { v: 1, seq, time, run: "r1".into(), scope, kind, host_time: None, boot_id: None, host_seq: None, prev }
}

pub(super) fn started() -> Event {
    let kind = Kind::RunStarted {
        command: "migrate".into(),
        operator: "eva".into(),
        version: "0.1.0".into(),
        plan: String::new(),
        limit: None,
        platforms: vec!["p0".into(), "p1".into()],
        limit_hosts: None,
        undoes: None,
        conditions: Default::default(),
    };
    event(1, Scope::default(), kind)
}

/// Hosts that were all told of the run, and granted their first steps.
pub(super) fn told(plan: &Plan) -> BTreeMap<String, Vec<Record>> {
    let mut keeper = Keeper::new("r1", plan).unwrap();
    keeper.note(&started()).unwrap();
    let mut hosts = BTreeMap::new();
    for platform in &plan.platforms {
        let stage = &platform.phases[0].stages[1];
        for host in &stage.hosts {
            let steps = stage.steps.iter().filter(|step| step.host == *host);
            let steps = steps.map(|step| Granted { spec: step.spec.clone(), attempt: 1, mode: Mode::Act }).collect();
            let kept = Record::Kept { lines: keeper.take(host) };
            let grant = Record::Grant { steps, head: "f".repeat(64), token: 1 };
            hosts.insert(host.clone(), vec![Record::Token { token: 1 }, kept, grant]);
        }
    }
    hosts
}

pub(super) fn two() -> Plan {
    plan(&[(1, 3, 2, 1), (1, 2, 1, 1)])
}

/// Puts the run together, on the fleet that its plan was made on.
fn rebuild(hosts: &BTreeMap<String, Vec<Record>>) -> Result<Rebuilt, RebuildError> {
    rebuild::rebuild("r1", hosts, &ground(&two()))
}

#[test]
fn the_plan_is_put_together_from_its_parts() {
    let rebuilt = rebuild(&told(&two())).unwrap();
    assert_eq!(rebuilt.plan, two());
    assert_eq!((rebuilt.run.as_str(), rebuilt.notices.len()), ("r1", 0));
    assert!(matches!(rebuilt.drafts[0].kind, Kind::RunStarted { .. }), "{:?}", rebuilt.drafts[0]);
    // It happened when it happened, not when it was put down again.
    assert!(rebuilt.drafts.iter().all(|draft| draft.time.as_ref() == Some(&started().time)));
    let count = |wanted: fn(&Kind) -> bool| rebuilt.drafts.iter().filter(|draft| wanted(&draft.kind)).count();
    assert_eq!(count(|kind| matches!(kind, Kind::HostClaimed { token: 1 })), 5);
    assert_eq!(count(|kind| matches!(kind, Kind::StepGranted { .. })), 3 * 2 + 2);
    assert_eq!(count(|kind| matches!(kind, Kind::RunStarted { .. })), 1);
}

#[test]
fn no_host_keeps_the_steps_of_another() {
    for part in kept::parts("r1", &two()).unwrap() {
        let foreign = part.steps.iter().filter(|(_, step)| step.host != part.host && step.action != "gate");
        assert_eq!(foreign.count(), 0, "{}", part.host);
        assert!(part.steps.iter().any(|(_, step)| step.action == "gate"), "{}", part.host);
    }
}

#[test]
fn a_host_that_did_not_answer_is_named() {
    let mut hosts = told(&two());
    hosts.remove("p0-h1");
    let error = rebuild(&hosts).unwrap_err();
    assert_eq!(error, RebuildError::Missing { platform: "p0".into(), hosts: "p0-h1".into() });
    // Its directory was removed: it answers, and has nothing.
    hosts.insert("p0-h1".into(), Vec::new());
    assert_eq!(rebuild(&hosts).unwrap_err(), error);
}

#[test]
fn a_platform_that_was_only_being_claimed_is_left_out() {
    let mut hosts = told(&two());
    hosts.get_mut("p1-h0").unwrap().truncate(2);
    hosts.insert("p1-h1".into(), Vec::new());
    let rebuilt = rebuild(&hosts).unwrap();
    assert_eq!(rebuilt.plan.platforms, two().platforms[..1]);
    assert_eq!(rebuilt.notices, ["platform p1: p1-h1 did not take part yet, so nothing was granted there; it is left out"]);
    assert!(rebuilt.drafts.iter().all(|draft| draft.scope.platform.as_deref() != Some("p1")));
    // As long as the other one was not heard, nobody can say so.
    hosts.remove("p1-h1");
    assert!(matches!(rebuild(&hosts), Err(RebuildError::Missing { .. })));
    // Nobody there was told of the run.
    hosts.insert("p1-h0".into(), Vec::new());
    hosts.insert("p1-h1".into(), Vec::new());
    let rebuilt = rebuild(&hosts).unwrap();
    assert_eq!(rebuilt.notices.len(), 1);
    hosts.values_mut().for_each(Vec::clear);
    assert_eq!(rebuild(&hosts).unwrap_err(), RebuildError::Nothing);
}

#[test]
fn edited_parts_are_found() {
    let (hosts, edit) = (told(&two()), |hosts: &mut BTreeMap<String, Vec<Record>>, from: &str, to: &str| {
        let Record::Kept { lines } = &mut hosts.get_mut("p0-h2").unwrap()[1] else { panic!("kept lines") };
        let edited = lines[0].replacen(from, to, 1);
        assert_ne!(edited, lines[0]);
        lines[0] = edited;
    });
    let mut edited = hosts.clone();
    edit(&mut edited, "\"title\":\"a title\"", "\"title\":\"another\"");
    assert!(matches!(rebuild(&edited), Err(RebuildError::Damaged { platform, .. }) if platform == "p0"));
    let mut edited = hosts.clone();
    edit(&mut edited, "v7.4.1 (9383)", "v7.4.1 (9384)");
    assert!(matches!(rebuild(&edited), Err(RebuildError::Disagree { hosts, .. }) if hosts == "p0-h2"));
    let mut edited = hosts.clone();
    edit(&mut edited, "\"digest\":\"", "\"digest\":\"0");
    assert!(matches!(rebuild(&edited), Err(RebuildError::Disagree { hosts, .. }) if hosts == "p0-h2"));
    let mut edited = hosts.clone();
    edit(&mut edited, "\"run\":\"r1\"", "\"run\":\"r2\"");
    assert!(matches!(rebuild(&edited), Err(RebuildError::Runs { hosts, .. }) if hosts == "p0-h2"));
    let mut edited = hosts.clone();
    edit(&mut edited, "\"kept\":\"part\"", "\"kept\":\"page\"");
    assert!(matches!(rebuild(&edited), Err(RebuildError::Kept { host, line: 1, .. }) if host == "p0-h2"));
}

#[test]
fn events_that_contradict_each_other_are_found() {
    let mut hosts = told(&two());
    let mut other = started();
    other.time = "2026-07-01T21:00:01.000Z".into();
    let line = Kept::Line(Box::new(Line { record: String::new(), event: other })).to_line().unwrap();
    hosts.get_mut("p1-h0").unwrap().push(Record::Kept { lines: vec![line] });
    assert!(matches!(rebuild(&hosts), Err(RebuildError::Disagree { hosts, .. }) if hosts == "p0-h0, p1-h0"));
}

#[test]
fn every_error_names_what_to_do() {
    let mut hosts = told(&two());
    hosts.remove("p0-h1");
    insta::assert_snapshot!(rebuild(&hosts).unwrap_err());
    insta::assert_snapshot!(RebuildError::Nothing);
}

#[test]
fn a_host_s_journal_is_read_up_to_where_it_was_cut_off() {
    let whole: Vec<u8> = told(&two())["p0-h0"].iter().flat_map(|record| proto::lines::write(record).unwrap()).collect();
    for end in (0..=whole.len()).step_by(11).chain([whole.len()]) {
        let bytes = &whole[..end];
        assert_eq!(records(bytes).unwrap().len(), bytes.iter().filter(|byte| **byte == b'\n').count());
    }
    // Also one that changed into something that can be read.
    let damaged = String::from_utf8(whole).unwrap().replacen("\"token\":1", "\"token\":7", 1);
    assert_eq!(records(damaged.as_bytes()), Err(1));
}
