//! Runs that were cut off, halted or mended, and went on: the fold, and what is shown of them.

use crate::view_tests::fleet::{self, Faults};
use controller::plan::{Phase, Plan};
use controller::report::{self, Record, Typed};
use controller::view::{HostState, Progressed, StepState, View};
use inventory::Topology;
use proptest::prelude::*;
use proto::event::RunOutcome;
use proto::{Event, Kind, Outcome, Scope};

const HOUR: i64 = 3_600_000;
const TRK: &str = "emea/migrate/tracking/trk02.emea.example.net/install.packages";
const MKT: &str = "emea/migrate/marketing/mkt1.emea.example.net:emea_prod/postupgrade";

pub(crate) fn emea() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)])
}

/// A run whose events are written down one by one.
struct Tale {
    events: Vec<Event>,
    /// Milliseconds since the start.
    now: i64,
}

impl Tale {
    /// The events of a run up to the start of a step's attempt.
    fn until_start_of(plan: &Plan, step: &str) -> Self {
        let mut events = fleet::run(plan, &Faults { confirmed: true, ..Faults::default() });
        let started = |event: &Event| event.kind == Kind::StepStarted && event.scope.step.as_deref() == Some(step);
        events.truncate(events.iter().position(started).unwrap() + 1);
        Self::after(events)
    }

    fn after(events: Vec<Event>) -> Self {
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let now = events.last().map_or(0, |last| time(&last.time).duration_since(time(fleet::START)).as_millis() as i64);
        Self { events, now }
    }

    fn add(&mut self, after_ms: i64, scope: Scope, kind: Kind) -> &mut Self {
        self.now += after_ms;
        self.events.push(fleet::event(self.events.len() as u64 + 1, self.now, scope, kind));
        self
    }

    fn of_step(&mut self, after_ms: i64, step: &str, attempt: u32, kind: Kind) -> &mut Self {
        let parts: Vec<String> = step.split('/').map(str::to_owned).collect();
        let [platform, phase, stage, place, _] = parts.as_slice() else { panic!("{step}") };
        let (host, instance) = place.split_once(':').map_or((place.as_str(), None), |(host, i)| (host, Some(i.to_owned())));
        let scope = Scope {
            platform: Some(platform.clone()),
            phase: Some(phase.clone()),
            stage: Some(stage.clone()),
            host: Some(host.to_owned()),
            instance,
            step: Some(step.to_owned()),
            attempt: Some(attempt),
        };
        self.add(after_ms, scope, kind)
    }

    fn of_host(&mut self, after_ms: i64, host: &str, kind: Kind) -> &mut Self {
        self.add(after_ms, Scope { host: Some(host.to_owned()), ..Scope::default() }, kind)
    }

    /// The controller says what it assumes: the host said nothing.
    fn assume(&mut self, step: &str, attempt: u32) -> &mut Self {
        self.of_step(1, step, attempt, finished(Outcome::Unknown, "the connection was lost", false));
        self.events.last_mut().unwrap().host_seq = None;
        self
    }

    fn attempt(&mut self, step: &str, attempt: u32) -> &mut Self {
        self.of_step(10, step, attempt, granted()).of_step(10, step, attempt, Kind::StepStarted)
    }

    fn decide(&mut self, decision: &str, about: &str) -> &mut Self {
        let [decision, about, operator, reason] = [decision, about, "kim@ops2", "see ticket 4713"].map(str::to_owned);
        self.add(10, Scope::default(), Kind::Decision { decision, about, operator, reason })
    }

    fn resume(&mut self, after_ms: i64) -> &mut Self {
        self.add(after_ms, Scope::default(), fleet::resumed(17, false))
    }

    fn view(&self, plan: &Plan) -> View {
        let view = View::of(plan, &self.events);
        crate::view_tests::fold::consistent(&view);
        view
    }
}

fn granted() -> Kind {
    Kind::StepGranted { action: "verify".to_owned(), prove: false }
}

fn finished(outcome: Outcome, message: &str, died: bool) -> Kind {
    Kind::StepFinished { outcome, exit_code: None, duration_ms: 1000, message: message.to_owned(), died }
}

fn alert(message: &str, ask: bool) -> Kind {
    Kind::StepAlert { message: message.to_owned(), ask }
}

#[test]
fn what_was_only_assumed_is_open_again_and_what_a_host_said_is_not() {
    let plan = emea();
    let mut tale = Tale::until_start_of(&plan, TRK);
    tale.assume(TRK, 1);
    assert!(tale.view(&plan).step(TRK).unwrap().assumed);
    let view = tale.resume(HOUR).view(&plan);
    let step = view.step(TRK).unwrap();
    assert_eq!((step.state, step.attempt, step.earlier.len(), step.message.as_str()), (StepState::Granted, 1, 0, ""));
    let view = tale.of_step(10, TRK, 1, finished(Outcome::Ok, "", false)).view(&plan);
    assert_eq!(view.step(TRK).unwrap().state, StepState::Ended(Outcome::Ok));

    let mut tale = Tale::until_start_of(&plan, TRK);
    tale.of_step(10, TRK, 1, finished(Outcome::Unknown, "the probe cannot tell", false)).resume(HOUR);
    assert_eq!(tale.view(&plan).step(TRK).unwrap().state, StepState::Ended(Outcome::Unknown));

    // What a person answers for is not asked again.
    let mut tale = Tale::until_start_of(&plan, TRK);
    tale.assume(TRK, 1).decide("acceptance", TRK).resume(HOUR);
    let view = tale.view(&plan);
    assert!(view.step(TRK).unwrap().settled());
}

#[test]
fn a_run_that_goes_on_knows_no_host_as_away_or_held() {
    let plan = emea();
    let mut tale = Tale::until_start_of(&plan, TRK);
    tale.of_host(10, "trk01.emea.example.net", Kind::HostUnreachable { reason: "no route".to_owned() }).of_host(
        10,
        "mta1.emea.example.net",
        Kind::HostLocked { reason: "held by run x".to_owned() },
    );
    assert!(tale.view(&plan).is_away("trk01.emea.example.net"));
    let view = tale.resume(HOUR).of_host(5, "trk01.emea.example.net", Kind::HostClaimed { token: 3 }).view(&plan);
    assert!(!view.is_away("trk01.emea.example.net") && !view.is_away("mta1.emea.example.net"));
    assert!(view.interruptions.iter().all(|known| known.until.is_some()));
    assert_eq!((view.claims[0].host.as_str(), view.claims[0].token), ("trk01.emea.example.net", 3));
    let stages: usize = view.stages.iter().map(|stage| stage.counts.unreachable).sum();
    assert_eq!(stages, 0);
}

#[test]
fn a_decision_makes_a_step_planned_again_and_keeps_its_history() {
    let plan = emea();
    for decision in ["retry", "skip", "repeat", "resume"] {
        let mut tale = Tale::until_start_of(&plan, TRK);
        tale.of_step(500, TRK, 1, finished(Outcome::Failed, "killed", true)).decide(decision, TRK);
        let view = tale.view(&plan);
        let step = view.step(TRK).unwrap();
        assert_eq!((step.state, step.earlier.len(), step.nth().as_str()), (StepState::Waiting, 1, ""), "{decision}");
        assert!(step.earlier[0].died && step.earlier[0].duration_ms == 1000);
        // A late word on the old attempt changes nothing; the new one counts.
        tale.of_step(10, TRK, 1, finished(Outcome::Ok, "", false)).attempt(TRK, 2);
        let view = tale.of_step(500, TRK, 2, finished(Outcome::Ok, "", false)).view(&plan);
        let step = view.step(TRK).unwrap();
        assert_eq!((step.state, step.attempt, step.nth().as_str()), (StepState::Ended(Outcome::Ok), 2, " (attempt 2)"));
        assert_eq!(step.earlier.iter().map(|known| (known.number, known.outcome())).collect::<Vec<_>>(), [(1, "failed")]);
    }
    // There is nothing to decide about a step that ended well, or that a person accepted.
    let mut tale = Tale::until_start_of(&plan, TRK);
    tale.of_step(500, TRK, 1, finished(Outcome::Ok, "", false)).decide("retry", TRK).decide("acceptance", TRK);
    let view = tale.view(&plan);
    assert_eq!((view.step(TRK).unwrap().state, view.step(TRK).unwrap().accepted.is_some()), (StepState::Ended(Outcome::Ok), false));
    assert_eq!(view.decisions.len(), 2, "decisions are told whatever came of them");
}

#[test]
fn attempts_that_were_taken_back_are_told_as_such() {
    let plan = emea();
    let mut tale = Tale::until_start_of(&plan, TRK);
    let next = "emea/migrate/tracking/trk02.emea.example.net/restore.conf";
    tale.of_step(10, next, 1, Kind::StepRevoked).resume(HOUR).attempt(next, 2);
    let view = tale.view(&plan);
    let step = view.step(next).unwrap();
    assert_eq!((step.state, step.attempt, step.earlier[0].outcome()), (StepState::Running, 2, "revoked"));
}

#[test]
fn time_between_two_controllers_is_nobodys_work() {
    let plan = emea();
    let mut tale = Tale::until_start_of(&plan, TRK);
    let before = tale.view(&plan);
    let stage = |view: &View| view.stages.iter().position(|stage| stage.label == "4.3 tracking").unwrap();
    let at = stage(&before);
    let worked = |view: &View| view.worked(view.stages[at].started, view.run.last).unwrap().as_millis();
    let short = worked(&before);
    // A decision that is written down meanwhile does not count as a sign of life.
    tale.add(HOUR, Scope::default(), Kind::StepOutput { file: "x".to_owned(), offset: 0, length: 1 });
    let with_output = worked(&tale.view(&plan));
    assert_eq!(with_output, short + i128::from(HOUR));
    tale.now += HOUR;
    tale.decide("retry", "nothing");
    let view = tale.resume(HOUR).view(&plan);
    assert_eq!(worked(&view), with_output);
    assert_eq!(view.gaps().count(), 1);
    let (left, back) = view.gaps().next().unwrap();
    assert_eq!(back.duration_since(left).as_millis(), i128::from(2 * HOUR + 10));
    let lives: Vec<(&str, bool, u64)> =
        view.lives.iter().map(|life| (life.operator.as_str(), life.ended, life.cut_bytes)).collect();
    assert_eq!(lives, [("eva@ops7", false, 0), ("kim@ops2", false, 17)]);
}

#[test]
fn checks_that_were_not_judged_are_made_again() {
    let plan = emea();
    let faults = Faults { findings: vec![fleet::red_password("emea")], ..Faults::default() };
    let mut tale = Tale::after(fleet::run(&plan, &faults));
    assert_eq!(tale.view(&plan).findings.iter().filter(|known| known.blocks()).count(), 1);
    let view = tale.resume(HOUR).view(&plan);
    assert_eq!(view.findings.len(), 0, "nothing is known until they are asked again");
    assert_eq!((view.platforms[0].outcome, view.run.outcome), (None, None));
    assert!(view.steps.iter().filter(|step| step.action == "inspect").all(|step| step.state == StepState::Waiting));
    // Behind an open barrier they stay.
    let mut tale = Tale::until_start_of(&plan, TRK);
    let view = tale.resume(HOUR).view(&plan);
    assert_eq!(view.findings.len(), 1);
    assert!(view.steps.iter().filter(|step| step.action == "inspect").all(|step| step.state == StepState::Ended(Outcome::Ok)));
}

#[test]
fn a_stopped_platform_runs_again_where_it_stopped() {
    let plan = emea();
    let mut tale = Tale::after(fleet::run(&plan, &Faults::step("trk02.emea.example.net/install.packages", "dpkg: broken")));
    let view = tale.resume(HOUR).view(&plan);
    let running: Vec<&str> =
        view.stages.iter().filter(|stage| stage.state == Progressed::Running).map(|stage| stage.label.as_str()).collect();
    assert_eq!(running, ["4.3 tracking"]);
    assert_eq!((view.platforms[0].outcome, view.platforms[0].phases[3].state), (None, Progressed::Running));
    assert_eq!(view.step(TRK).unwrap().state, StepState::Ended(Outcome::Failed), "a person or the engine decides on it");
}

fn way_back() -> Plan {
    let mut platform = fleet::platform("emea", Topology::Standard, 1, 2);
    platform.phases = vec![fleet::tolerant_phase("emea", &["mkt1", "trk01", "trk02"])];
    fleet::plan(vec![platform])
}

/// A rollback in which trk02 fails in the first stage and the others end well.
fn a_host_left_behind(plan: &Plan) -> Tale {
    let mut tale = Tale { events: vec![], now: 0 };
    let [command, operator, version] = ["rollback", "eva@ops7", "0.1.0"].map(str::to_owned);
    let (platforms, undoes) = (vec!["emea".to_owned()], Some("2026-11-21-a1".to_owned()));
    let started = Kind::RunStarted {
        command,
        operator,
        version,
        plan: plan.hash.clone(),
        limit: None,
        platforms,
        limit_hosts: None,
        undoes,
        conditions: Default::default(),
    };
    tale.add(0, Scope::default(), started);
    let platform = Scope { platform: Some("emea".to_owned()), ..Scope::default() };
    let phase = Scope { phase: Some("rollback".to_owned()), ..platform.clone() };
    tale.add(1, phase.clone(), Kind::PhaseStarted);
    for stage in &plan.platforms[0].phases[0].stages {
        let scope = Scope { stage: Some(stage.name.clone()), ..phase.clone() };
        tale.add(1, scope.clone(), Kind::StageStarted);
        for step in &stage.steps {
            let lost = step.host.starts_with("trk02");
            if lost && (stage.name != "files" || step.name != "restore.tree") {
                continue;
            }
            tale.attempt(&step.id.0, 1);
            let (outcome, message) = if lost { (Outcome::Failed, "nl6.back is missing") } else { (Outcome::Ok, "") };
            tale.of_step(2000, &step.id.0, 1, finished(outcome, message, false));
        }
        tale.add(1, scope, Kind::StageFinished);
    }
    tale.add(1, phase, Kind::PhaseFinished);
    let message = "1 of 3 hosts did not come back".to_owned();
    tale.add(1, platform, Kind::PlatformFinished { outcome: RunOutcome::Stopped, message });
    tale.add(1, Scope::default(), Kind::RunFinished { outcome: RunOutcome::Stopped, exit_code: 1 });
    tale
}

#[test]
fn a_tolerant_stage_leaves_hosts_behind_and_breaks_no_order() {
    let plan = way_back();
    let view = a_host_left_behind(&plan).view(&plan);
    assert_eq!(view.breaches, []);
    let counts: Vec<_> = view.stages.iter().map(|stage| (stage.counts.done, stage.counts.failed, stage.counts.dropped)).collect();
    assert_eq!(counts, [(2, 1, 0), (2, 0, 1)]);
    assert_eq!(view.stages[1].hosts[2].state, HostState::Dropped);
    assert_eq!(view.platforms[0].dropped.iter().collect::<Vec<_>>(), ["trk02.emea.example.net"]);
    let summary = report::summary(&view, &Record::default(), &[], false);
    assert!(summary.contains("nl6.back is missing"), "{summary}");
    insta::assert_snapshot!(report::status(
        &view,
        &Record { driven: Some(false), ..Record::default() },
        &[],
        view.run.last.unwrap(),
        false
    ));
    insta::assert_snapshot!(report::markdown(&view, &Record::default()));
}

#[test]
fn a_host_that_was_left_behind_and_acts_is_seen() {
    let plan = way_back();
    let tale = a_host_left_behind(&plan);
    let ended = tale.events.iter().position(|event| event.kind == Kind::PhaseFinished).unwrap();
    let mut early = Tale::after(tale.events[..ended].to_vec());
    early.attempt("emea/rollback/services/trk02.emea.example.net/start.old", 1);
    let view = early.view(&plan);
    assert_eq!(view.breaches.len(), 1);
    assert_eq!(view.breaches[0].before, "1.1 files");
}

#[test]
fn hosts_left_behind_have_another_chance_when_the_run_goes_on() {
    let plan = way_back();
    let mut tale = a_host_left_behind(&plan);
    let first = "emea/rollback/files/trk02.emea.example.net/restore.tree";
    tale.resume(HOUR).decide("resume", first);
    let view = tale.view(&plan);
    assert_eq!((view.platforms[0].dropped.len(), view.stages[0].state), (0, Progressed::Running));
    for name in ["files/trk02.emea.example.net/restore.tree", "files/trk02.emea.example.net/install.old"] {
        let id = format!("emea/rollback/{name}");
        tale.attempt(&id, 2).of_step(1000, &id, 2, finished(Outcome::Ok, "", false));
    }
    let view = tale.view(&plan);
    assert_eq!((view.stages[0].counts.done, view.breaches.len()), (3, 0));
}

/// A run with all that can happen to it: cut off, taken up, a step killed and repeated, alerts, a skip, an acceptance.
pub(crate) fn eventful(plan: &Plan) -> Vec<Event> {
    eventful_tale(plan).events
}

fn eventful_tale(plan: &Plan) -> Tale {
    let mut tale = Tale::until_start_of(plan, MKT);
    tale.of_step(1_800_000, MKT, 1, alert("no output and no growth of its log files for 30 min", true))
        .resume(HOUR)
        .of_host(100, "mkt1.emea.example.net", Kind::HostClaimed { token: 2 })
        .of_step(200, MKT, 1, finished(Outcome::Failed, "ended by signal 9; the probe says that the effect is not there", true))
        .decide("repeat", MKT)
        .attempt(MKT, 2)
        .of_step(60_000, MKT, 2, alert("it runs for longer than 60 min", false));
    tale
}

#[test]
fn alerts_are_about_the_attempt_that_runs() {
    let plan = emea();
    let view = eventful_tale(&plan).view(&plan);
    let step = view.step(MKT).unwrap();
    let now: Vec<&str> = step.warnings().map(|alert| alert.message.as_str()).collect();
    assert_eq!(now, ["it runs for longer than 60 min"]);
    assert_eq!(step.alerts.len(), 2, "all stay in the record");
}

#[test]
fn the_status_and_report_of_a_run_that_went_on() {
    let plan = emea();
    let mut tale = eventful_tale(&plan);
    let view = tale.view(&plan);
    let now = view.run.last.unwrap().checked_add(jiff::SignedDuration::from_secs(8)).unwrap();
    let record = Record { driven: Some(true), ..Record::default() };
    insta::assert_snapshot!(report::status(&view, &record, &report::next(&view, true, &Typed::default()), now, false));
    let gone = Record { driven: Some(false), ..record };
    insta::assert_snapshot!(report::status(&view, &gone, &report::next(&view, false, &Typed::default()), now, false));
    tale.of_step(HOUR, MKT, 2, finished(Outcome::Unknown, "the probe cannot tell", false));
    insta::assert_snapshot!(report::markdown(&tale.view(&plan), &Record::default()));
    let json = report::json(&tale.view(&plan), &Record::default());
    let steps = &json["platforms"][0]["phases"][3]["stages"][0]["steps"];
    let step = steps.as_array().unwrap().iter().find(|step| step["id"] == MKT).unwrap();
    assert_eq!(
        (&step["attempt"], &step["earlier_attempts"][0]["died"], &step["alerts"][0]["ask"]),
        (&2.into(), &true.into(), &true.into())
    );
    assert_eq!((&json["controllers"][1]["cut_bytes"], &json["controllers"][0]["ended_by_itself"]), (&17.into(), &false.into()));
    assert_eq!(json["claims"][0]["token"], 2);
    let gap = json["worked_ms"].as_i64().unwrap();
    assert_eq!(
        gap,
        i64::try_from(tale.view(&plan).run.last.unwrap().duration_since(fleet::START.parse().unwrap()).as_millis()).unwrap() - HOUR
    );
}

#[test]
fn what_to_do_next_depends_on_what_waits() {
    let plan = emea();
    let typed = Typed { inventory: " -i 'my fleet.yaml'".to_owned(), state: " --state-dir runs".to_owned() };
    let commands = |tale: &Tale, driven| -> Vec<String> {
        report::next(&tale.view(&plan), driven, &typed).into_iter().map(|next| format!("{}: {}", next.when, next.command)).collect()
    };
    let mut tale = Tale::until_start_of(&plan, TRK);
    assert_eq!(
        commands(&tale, true),
        ["To look on: caravan --state-dir runs attach 2026-11-22-q7", "To halt it: caravan --state-dir runs pause 2026-11-22-q7",]
    );
    assert_eq!(
        commands(&tale, false),
        [
            "To go on: caravan -i 'my fleet.yaml' --state-dir runs resume 2026-11-22-q7",
            "To go back instead: caravan -i 'my fleet.yaml' --state-dir runs rollback 2026-11-22-q7",
            "The record: caravan --state-dir runs report 2026-11-22-q7",
        ]
    );
    tale.of_step(500, TRK, 1, finished(Outcome::Unknown, "the probe cannot tell", false));
    let waits = commands(&tale, false);
    assert_eq!(
        waits[..3],
        [
            format!("If it may start again: caravan --state-dir runs retry 2026-11-22-q7 {TRK}"),
            format!("If its effect is there: caravan --state-dir runs skip 2026-11-22-q7 {TRK} --reason REASON"),
            "Then: caravan -i 'my fleet.yaml' --state-dir runs resume 2026-11-22-q7".to_owned(),
        ]
    );
    // The probe of a step that was skipped has the first word.
    tale.decide("skip", TRK).attempt(TRK, 2).of_step(500, TRK, 2, finished(Outcome::Failed, "its effect is not there", false));
    let unproven = commands(&tale, false);
    assert_eq!(
        unproven[..2],
        [
            format!("If it is to act after all: caravan --state-dir runs retry 2026-11-22-q7 {TRK}"),
            format!(
                "If it counts all the same: caravan -i 'my fleet.yaml' --state-dir runs resume 2026-11-22-q7 --accept-unproven {TRK}=REASON"
            ),
        ]
    );
    tale.of_host(1, "mta1.emea.example.net", Kind::HostLocked { reason: "held by run x".to_owned() });
    assert!(commands(&tale, false).iter().any(|line| line.contains("--take-over REASON")));
    tale.decide("abort", "run").add(1, Scope::default(), Kind::RunFinished { outcome: RunOutcome::Aborted, exit_code: 0 });
    assert_eq!(
        commands(&tale, false),
        [
            "To go back instead: caravan -i 'my fleet.yaml' --state-dir runs rollback 2026-11-22-q7",
            "The record: caravan --state-dir runs report 2026-11-22-q7",
        ]
    );
    // What preflight found is mended or set aside, and a waiting gate is confirmed, with the same command.
    let red = Tale::after(fleet::run(&plan, &Faults { findings: vec![fleet::red_password("emea")], ..Faults::default() }));
    assert!(commands(&red, false)[0].starts_with("When it is mended: caravan -i"), "{:?}", commands(&red, false));
    assert!(!commands(&red, false).iter().any(|line| line.contains("rollback")), "nothing was touched");
}

#[test]
fn a_waiting_gate_is_confirmed_by_resume_or_from_another_terminal() {
    let plan = fleet::plan(vec![fleet::platform("apac", Topology::CloudMessaging, 1, 2)]);
    let view = View::of(&plan, &fleet::run(&plan, &Faults::default()));
    let command = |driven| report::next(&view, driven, &Typed::default()).remove(0).command;
    assert_eq!(command(false), "caravan resume 2026-11-22-q7 --confirm apac/vendor-execution=NOTE");
    assert_eq!(command(true), "caravan attach 2026-11-22-q7 --confirm apac/vendor-execution=NOTE");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    /// Wherever a controller dies behind preflight, and however long nobody comes: the run ends the same, in order, and as long.
    #[test]
    fn a_run_that_is_cut_off_anywhere_ends_the_same(cut in any::<prop::sample::Index>(), away in 1..100 * HOUR) {
        let plan = emea();
        let events = fleet::run(&plan, &Faults::default());
        let whole = View::of(&plan, &events);
        let stopped = events.iter().position(|event| event.scope.phase.as_deref() == Some(Phase::Stop.as_str())).unwrap();
        let cut = stopped + cut.index(events.len() - stopped - 1);
        let mut tale = Tale::after(events[..cut].to_vec());
        tale.resume(away);
        let gone = tale.now - Tale::after(events[..cut].to_vec()).now;
        for event in &events[cut..] {
            let before = Tale::after(vec![event.clone()]).now;
            let at = fleet::event(event.seq + 1, before + gone, event.scope.clone(), event.kind.clone());
            tale.events.push(at);
        }
        let view = tale.view(&plan);
        prop_assert_eq!(&view.breaches, &vec![]);
        prop_assert!(view.steps.iter().all(|step| step.state == StepState::Ended(Outcome::Ok) && step.earlier.is_empty()));
        prop_assert!(view.stages.iter().all(|stage| stage.state == Progressed::Done));
        prop_assert_eq!(view.worked(view.run.started, view.run.ended), whole.worked(whole.run.started, whole.run.ended));
        for (one, other) in view.stages.iter().zip(&whole.stages) {
            prop_assert_eq!(view.worked(one.started, one.ended), whole.worked(other.started, other.ended), "{}", one.label);
        }
    }
}
