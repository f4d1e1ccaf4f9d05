//! The fold itself.

use crate::view_tests::fleet::{self, Faults};
use controller::plan::{Phase, Plan};
use controller::view::{HostState, Progressed, StepState, View};
use inventory::Topology;
use proptest::prelude::*;
use proto::event::RunOutcome;
use proto::{Event, Kind, Outcome, Scope};

fn emea() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 3, 12)])
}

/// What must hold for every view, whatever the events were.
pub(crate) fn consistent(view: &View) {
    for stage in &view.stages {
        assert_eq!(stage.counts.total(), stage.hosts.len(), "{}: each host counts once", stage.label);
        let states = [HostState::Waiting, HostState::Running, HostState::Done, HostState::Failed];
        for state in states.into_iter().chain([HostState::Unreachable, HostState::Dropped]) {
            let counts = stage.counts;
            let counted = match state {
                HostState::Waiting => counts.waiting,
                HostState::Running => counts.running,
                HostState::Done => counts.done,
                HostState::Failed => counts.failed,
                HostState::Unreachable => counts.unreachable,
                HostState::Dropped => counts.dropped,
            };
            assert_eq!(counted, stage.hosts.iter().filter(|host| host.state == state).count(), "{} {state:?}", stage.label);
        }
        let steps = view.steps_of(stage);
        for (slot, host) in stage.hosts.iter().enumerate() {
            let mine = || steps.iter().filter(|step| step.slot == slot);
            if host.total > 0 {
                assert_eq!(host.state == HostState::Done, mine().all(|step| step.settled()), "{} {}", stage.label, host.name);
            }
            assert_eq!(host.open, mine().filter(|step| step.is_open()).count());
            assert_eq!(host.failed + host.unknown, mine().filter(|step| step.is_bad()).count());
            if let Some(current) = host.current {
                assert_eq!(view.steps[current].state, StepState::Running);
            }
        }
        assert_eq!(stage.settled(), steps.iter().all(|step| step.settled()));
        for step in steps {
            let numbers: Vec<u32> = step.earlier.iter().map(|known| known.number).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{}: attempts {numbers:?} come one after the other", step.id);
            let last = numbers.last().copied().unwrap_or_default();
            assert!(last < step.attempt || (last == step.attempt && step.state == StepState::Waiting) || last == 0, "{}", step.id);
        }
    }
    for (left, back) in view.gaps() {
        assert!(view.worked(Some(left), Some(back)).unwrap().is_zero(), "nobody worked from {left} to {back}");
    }
}

#[test]
fn a_good_run_is_done_everywhere() {
    let plan = emea();
    let view = View::of(&plan, &fleet::run(&plan, &Faults::default()));
    consistent(&view);
    assert!(view.stages.iter().all(|stage| stage.state == Progressed::Done && stage.counts.done == stage.hosts.len()));
    assert!(view.steps.iter().all(|step| step.state == StepState::Ended(Outcome::Ok) && step.attempt == 1));
    assert_eq!(view.run.outcome, Some(RunOutcome::Ok));
    assert_eq!(view.platforms[0].outcome, Some(RunOutcome::Ok));
    assert_eq!(view.breaches, []);
    assert_eq!(view.short("trk04.emea.example.net"), "trk04");
}

#[test]
fn a_failed_step_stops_its_stage_and_nothing_later_begins() {
    let plan = emea();
    let view = View::of(&plan, &fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", "dpkg: broken")));
    consistent(&view);
    let stage = view.stages.iter().find(|stage| stage.label == "4.3 tracking").unwrap();
    assert_eq!((stage.state, stage.counts.done, stage.counts.failed), (Progressed::Stopped, 11, 1));
    let host = stage.hosts.iter().find(|host| host.state == HostState::Failed).unwrap();
    let step = &view.steps[host.worst.unwrap()];
    assert_eq!((step.name.as_str(), step.message.as_str(), step.exit_code), ("install.packages", "dpkg: broken", Some(1)));
    assert!(view.stages.iter().filter(|stage| stage.phase_name > Phase::Migrate).all(|stage| stage.state == Progressed::Waiting));
}

#[test]
fn an_unreachable_host_counts_as_such_until_it_is_back() {
    let plan = emea();
    let faults = Faults { away: vec![("mta2.emea.example.net".to_owned(), Phase::Stop)], ..Faults::default() };
    let mut view = View::of(&plan, &fleet::run(&plan, &faults));
    consistent(&view);
    let stop = |view: &View| view.stages[1].counts;
    assert_eq!((stop(&view).unreachable, stop(&view).done), (1, 15));
    assert!(view.is_away("mta2.emea.example.net"));
    let scope = Scope { host: Some("mta2.emea.example.net".to_owned()), ..Scope::default() };
    view.apply(&fleet::event(9000, 90_000, scope, Kind::HostReattached));
    consistent(&view);
    assert_eq!((stop(&view).unreachable, stop(&view).waiting), (0, 1));
    assert!(view.interruptions[0].until.is_some());
}

#[test]
fn a_retry_is_another_attempt_of_the_same_step() {
    let plan = emea();
    let mut view = View::of(&plan, &fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", "dpkg: broken")));
    let id = "emea/migrate/tracking/trk09.emea.example.net/install.packages";
    let scope = Scope { step: Some(id.to_owned()), attempt: Some(2), ..Scope::default() };
    view.apply(&fleet::event(9000, 8_000_000, scope.clone(), Kind::StepGranted { action: "verify".to_owned(), prove: false }));
    view.apply(&fleet::event(9001, 8_000_010, scope.clone(), Kind::StepStarted));
    consistent(&view);
    let stage = view.stages.iter().find(|stage| stage.label == "4.3 tracking").unwrap();
    assert_eq!((stage.state, stage.counts.running, stage.counts.failed), (Progressed::Running, 1, 0));
    let late = Scope { attempt: Some(1), ..scope };
    let failed =
        Kind::StepFinished { outcome: Outcome::Failed, exit_code: Some(1), duration_ms: 1, message: String::new(), died: false };
    view.apply(&fleet::event(9002, 8_000_020, late, failed));
    let step = view.step(id).unwrap();
    assert_eq!((step.state, step.attempt, step.earlier.len()), (StepState::Running, 2, 1), "an old attempt changes nothing");
    assert_eq!(step.earlier[0].message, "dpkg: broken");
}

#[test]
fn an_accepted_step_settles_its_host_and_keeps_its_outcome() {
    let plan = emea();
    let mut view = View::of(&plan, &fleet::run(&plan, &Faults::step("trk09.emea.example.net/restore.conf", "files differ")));
    let id = "emea/migrate/tracking/trk09.emea.example.net/restore.conf";
    let accept = Kind::Decision {
        decision: "acceptance".to_owned(),
        about: id.to_owned(),
        operator: "eva@ops7".to_owned(),
        reason: "compared by hand".to_owned(),
    };
    view.apply(&fleet::event(9000, 8_000_000, Scope::default(), accept));
    consistent(&view);
    let step = view.step(id).unwrap();
    assert_eq!((step.accepted.as_deref(), step.state), (Some("compared by hand"), StepState::Ended(Outcome::Failed)));
    let stage = &view.stages[step.stage];
    assert_eq!((stage.counts.done, stage.counts.failed, stage.hosts[step.slot].accepted), (12, 0, 1));
}

#[test]
fn a_step_before_its_time_is_seen() {
    let plan = emea();
    let events = fleet::run(&plan, &Faults::default());
    // A mail server's package goes in before the marketing server's postupgrade has ended; and a wave before the one ahead of it.
    for (early, before) in [
        ("emea/migrate/mta/mta1.emea.example.net/install.packages", "4.1 marketing"),
        ("emea/migrate/marketing/mkt1.emea.example.net:emea_prod/postupgrade", "4.1 marketing, wave 1"),
    ] {
        let started = |id: &str, event: &Event| event.kind == Kind::StepStarted && event.scope.step.as_deref() == Some(id);
        let mut moved = events.clone();
        let at = moved.iter().position(|event| started(early, event)).unwrap();
        let event = moved.remove(at);
        let first = moved.iter().position(|event| started("emea/migrate/marketing/mkt1.emea.example.net/install.packages", event));
        moved.insert(first.unwrap(), event);
        let view = View::of(&plan, &moved);
        consistent(&view);
        assert_eq!(view.breaches.len(), 1);
        assert_eq!((view.breaches[0].step.as_str(), view.breaches[0].before.as_str()), (early, before));
    }
}

#[test]
fn gates_wait_until_a_person_confirms() {
    let plan = fleet::plan(vec![fleet::platform("apac", Topology::CloudMessaging, 1, 1)]);
    let view = View::of(&plan, &fleet::run(&plan, &Faults::default()));
    consistent(&view);
    assert_eq!(view.waiting_gates().map(|gate| gate.id.as_str()).collect::<Vec<_>>(), ["apac/vendor-execution"]);
    assert_eq!(view.run.outcome, Some(RunOutcome::Waiting));
    let view = View::of(&plan, &fleet::run(&plan, &Faults { confirmed: true, ..Faults::default() }));
    consistent(&view);
    assert_eq!(view.waiting_gates().count(), 0);
    assert_eq!(view.gates[0].confirmed.as_ref().unwrap().note, "ticket 4711");
    assert_eq!((view.run.outcome, view.breaches.len()), (Some(RunOutcome::Ok), 0));
}

#[test]
fn overridden_findings_hold_nothing_up() {
    let plan = emea();
    let faults = Faults { findings: vec![fleet::red_password("emea")], ..Faults::default() };
    let mut view = View::of(&plan, &fleet::run(&plan, &faults));
    assert_eq!(view.findings.iter().filter(|finding| finding.blocks()).count(), 1);
    let kind = Kind::Decision {
        decision: "override".to_owned(),
        about: "passwords@emea".to_owned(),
        operator: "eva@ops7".to_owned(),
        reason: "set by hand".to_owned(),
    };
    view.apply(&fleet::event(9000, 90_000, Scope::default(), kind));
    assert_eq!(view.findings.iter().filter(|finding| finding.blocks()).count(), 0);
}

#[test]
fn a_large_fleet_is_folded_quickly() {
    let plan = fleet::plan(vec![fleet::platform("big", Topology::Standard, 100, 400)]);
    let events = fleet::run(&plan, &Faults::default());
    assert!(events.len() > 10_000);
    let begin = std::time::Instant::now();
    let view = View::of(&plan, &events);
    consistent(&view);
    // Generous: quadratic behaviour would take minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(20));
}

fn kind() -> impl Strategy<Value = Kind> {
    let outcome = prop_oneof![Just(Outcome::Ok), Just(Outcome::Skipped), Just(Outcome::Failed), Just(Outcome::Unknown)];
    let over = prop_oneof![Just(RunOutcome::Ok), Just(RunOutcome::Stopped), Just(RunOutcome::Waiting), Just(RunOutcome::Aborted)];
    prop_oneof![
        Just(Kind::PhaseStarted),
        Just(Kind::StageStarted),
        any::<bool>().prop_map(|prove| Kind::StepGranted { action: "verify".to_owned(), prove }),
        Just(Kind::StepRevoked),
        Just(Kind::StepStarted),
        (outcome, any::<Option<i32>>(), any::<u64>(), ".{0,8}").prop_map(|(outcome, exit_code, duration_ms, message)| {
            Kind::StepFinished { outcome, exit_code, duration_ms, message, died: duration_ms % 2 == 0 }
        }),
        Just(Kind::BarrierOpened),
        Just(Kind::StageFinished),
        Just(Kind::PhaseFinished),
        Just(Kind::GateWaiting { gate: "p/vendor-execution".to_owned(), ask: "x".to_owned() }),
        Just(Kind::GateConfirmed { gate: "p/vendor-execution".to_owned(), note: "n".to_owned(), operator: "o".to_owned() }),
        Just(Kind::HostUnreachable { reason: "r".to_owned() }),
        Just(Kind::HostReattached),
        Just(Kind::Finding { finding: fleet::red_password("p") }),
        ("(retry|skip|repeat|resume|override|acceptance|abort|takeover)", 0usize..40).prop_map(|(decision, at)| {
            let plan = small();
            let steps: Vec<_> = plan.platforms[0].phases.iter().flat_map(|p| &p.stages).flat_map(|s| &s.steps).collect();
            let about = steps[at % steps.len()].id.0.clone();
            Kind::Decision { decision, about, operator: "o".to_owned(), reason: "r".to_owned() }
        }),
        over.clone().prop_map(|outcome| Kind::PlatformFinished { outcome, message: String::new() }),
        over.prop_map(|outcome| Kind::RunFinished { outcome, exit_code: 1 }),
        Just(Kind::RunPaused { reason: "r".to_owned() }),
        fleet::resumed_kinds(),
        Just(Kind::HostLocked { reason: "r".to_owned() }),
        any::<u64>().prop_map(|token| Kind::HostClaimed { token }),
        any::<bool>().prop_map(|ask| Kind::StepAlert { message: "m".to_owned(), ask }),
    ]
}

fn small() -> Plan {
    let mut platform = fleet::platform("p", Topology::CloudMessaging, 1, 2);
    platform.phases.push(fleet::tolerant_phase("p", &["mkt1", "mta1", "trk01", "trk02"]));
    fleet::plan(vec![platform])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_a_real_runs_events_is_survived(order in Just((0..400usize).collect::<Vec<_>>()).prop_shuffle(), fails in any::<bool>()) {
        let plan = small();
        let faults = if fails { Faults::step("trk02.p.example.net/install.packages", "x") } else { Faults { confirmed: true, ..Faults::default() } };
        let events = fleet::run(&plan, &faults);
        let mut view = View::new(&plan);
        for at in order.into_iter().filter(|at| *at < events.len()) {
            view.apply(&events[at]);
        }
        consistent(&view);
    }

    #[test]
    fn any_events_are_survived(events in prop::collection::vec((kind(), 0usize..60, any::<Option<u32>>(), any::<bool>(), 0u8..8), 0..120)) {
        let plan = small();
        let steps: Vec<_> = plan.platforms[0].phases.iter().flat_map(|p| &p.stages).flat_map(|s| &s.steps).collect();
        let mut view = View::new(&plan);
        for (seq, (kind, at, attempt, short, missing)) in events.into_iter().enumerate() {
            let step = steps[at % steps.len()];
            let parts: Vec<&str> = step.id.0.split('/').collect();
            let keep = |bit: u8, text: &str| (missing & bit == 0).then(|| text.to_owned());
            let scope = Scope {
                platform: keep(1, parts[0]),
                phase: keep(2, parts[1]),
                stage: keep(4, parts[2]),
                host: Some(step.host.clone()),
                instance: step.instance.clone(),
                step: Some(step.id.0.clone()),
                attempt: attempt.map(|n| if short { n % 3 } else { n }),
            };
            let event = fleet::event(seq as u64, seq as i64 * 100, scope, kind);
            // Now and then the controller assumed it.
            let host_seq = event.host_seq.filter(|_| at % 3 > 0);
            view.apply(&Event { host_seq, ..event });
            consistent(&view);
        }
    }
}
