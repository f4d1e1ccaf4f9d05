//! Checks that are made again on platforms that are past their preflight, when a run is taken up again: of those that have to be well at
//! any time (design: invariant 9). What is asked and what the answers mean is said by [`Options::again`] and [`Options::judge`]; here is
//! when it is done and what follows.
//!
//! Before anything new is granted on such a platform, its hosts are read. While a finding holds it up, nothing new is granted there; what
//! runs goes on to its end.
//!
//! [`Options::again`]: super::options::Options::again
//! [`Options::judge`]: super::options::Options::judge

use super::engine::{Effect, Engine, Inspection, now_ms};
use super::journal::Draft;
use super::options::{HostReading, Occasion};
use super::state::{Decision, PlatformState, RunState};
use crate::hosts::Hosts;
use crate::plan::{Phase, PlannedStep};
use proto::event::{Kind, RunOutcome};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// How many findings a message names.
const NAMED: usize = 3;

/// Whether the checks of a platform are to be made again before anything new is granted on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Again {
    /// Not in this life of the run, or they were made and nothing holds the platform up.
    #[default]
    No,
    /// They are.
    Due,
    /// Hosts are being read (not journaled: it does not outlive its controller).
    Asked,
    /// These findings hold it up.
    Held(Vec<String>),
}

/// What is read for it on a platform.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Hosts that have not answered.
    pub(super) waiting: BTreeSet<String>,
    pub(super) readings: BTreeMap<String, HostReading>,
}

/// What the checks of a platform have to say about granting something now.
pub(super) enum Admission {
    /// Nothing.
    Granted,
    /// They are made first.
    Wait,
    /// They hold it up: why.
    Refused(String),
}

impl PlatformState {
    /// Its run was taken up again. Where preflight is still to be judged, everything is looked at anyway.
    pub(super) fn look_again(&mut self) {
        let judged = self.stages.iter().take(self.at).any(|stage| stage.judged && stage.phase == Phase::Preflight);
        self.again = if judged { Again::Due } else { Again::No };
    }

    /// Whether anything new may be granted, as far as these checks are concerned; they are begun where they are due.
    pub(super) fn admit(&mut self, platform: usize, decisions: &mut Vec<Decision>) -> Admission {
        match &self.again {
            Again::No => Admission::Granted,
            Again::Asked => Admission::Wait,
            Again::Due => {
                self.again = Again::Asked;
                decisions.push(Decision::LookAgain { platform });
                Admission::Wait
            }
            Again::Held(findings) => Admission::Refused(held(findings)),
        }
    }
}

fn held(findings: &[String]) -> String {
    let mut named = findings.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if findings.len() > NAMED {
        named.push_str(&format!(" and {} more", findings.len() - NAMED));
    }
    let (hold, it) = if findings.len() == 1 { ("holds", "it") } else { ("hold", "them") };
    format!(
        "nothing further was granted: {named} {hold} it up. Mend {it} and `caravan resume`, or set {it} aside with --override ID=REASON"
    )
}

impl RunState {
    /// The steps of a platform that are not proven, in the order of the plan.
    pub(super) fn left(&self, platform: usize) -> Vec<&PlannedStep> {
        let (Some(plan), Some(state)) = (self.plan.platforms.get(platform), self.platforms.get(platform)) else {
            return Vec::new();
        };
        plan.steps().zip(&state.steps).filter(|(_, at)| !at.status.is_proven()).map(|(step, _)| step).collect()
    }
}

impl<H: Hosts> Engine<'_, H> {
    /// Asks the hosts of a platform; where nothing is to be asked, nothing holds it up.
    pub(super) fn look_again(&mut self, platform: usize, drafts: &mut Vec<Draft>, effects: &mut Vec<Effect>) {
        let questions = (self.options.again)(self.state.platform_name(platform), &self.state.left(platform));
        let mut reading = Reading::default();
        for (host, queries) in questions.into_iter().filter(|(_, queries)| !queries.is_empty()) {
            self.next_inspection += 1;
            let inspection = Inspection {
                host: host.clone(),
                platform,
                steps: Vec::new(),
                queries: queries.clone(),
                began: Instant::now(),
                asked_ms: now_ms(),
                again: true,
            };
            self.inspections.insert(self.next_inspection, inspection);
            effects.push(Effect::Inspect { host: host.clone(), id: self.next_inspection, queries });
            reading.waiting.insert(host);
        }
        if reading.waiting.is_empty() {
            let scope = self.stage_scope(platform);
            return drafts.push(Draft::new(scope, Kind::ChecksRepeated { holding: Vec::new() }));
        }
        self.looking_again.insert(platform, reading);
    }

    /// What a host answered, or why it did not.
    pub(super) fn looked_again(&mut self, platform: usize, host: &str, reading: HostReading) {
        if let Some(looking) = self.looking_again.get_mut(&platform)
            && looking.waiting.remove(host)
        {
            looking.readings.insert(host.to_owned(), reading);
        }
    }

    /// Judges the platforms of which every host was heard.
    pub(super) fn judge_again(&mut self, drafts: &mut Vec<Draft>) {
        let heard: Vec<usize> =
            self.looking_again.iter().filter(|(_, looking)| looking.waiting.is_empty()).map(|(at, _)| *at).collect();
        for platform in heard {
            let Some(looking) = self.looking_again.remove(&platform) else { continue };
            let left = self.state.left(platform);
            let occasion = Occasion::Again { left: &left };
            let findings = (self.options.judge)(self.state.platform_name(platform), occasion, &looking.readings);
            let holding = self.found(platform, findings, drafts);
            drafts.push(Draft::new(self.stage_scope(platform), Kind::ChecksRepeated { holding }));
        }
    }
}

/// The end of a platform that these checks hold up.
pub(super) fn stopped(platform: usize, message: String) -> Decision {
    Decision::End { platform, outcome: RunOutcome::Stopped, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FileCheck, build_with};
    use crate::run::state::Bounds;
    use proto::Outcome;
    use proto::event::{Conditions, Event, Scope};
    use std::path::Path;
    use std::sync::Arc;

    const INVENTORY: &str = "version: 1
defaults:
  source: { version: 6.1, packages: [{ os: debian-11, path: old.deb, sha256: DIGEST }] }
  target: { version: 7.4.1, build: 9383, packages: [{ os: debian-11, path: new.deb, sha256: DIGEST }] }
platforms:
  - name: emea
    topology: standard
    instances: [emea]
    database: { engine: postgresql, server: db, name: c, user: c, backup: { by: dba } }
    hosts: [{ name: a, roles: [marketing], os: debian-11 }, { name: b, roles: [mta, tracking], os: debian-11 }]
";

    /// A run and its record: whoever takes it up folds it anew.
    struct Run {
        state: RunState,
        record: Vec<Event>,
    }

    impl std::ops::Deref for Run {
        type Target = RunState;
        fn deref(&self) -> &RunState {
            &self.state
        }
    }

    impl std::ops::DerefMut for Run {
        fn deref_mut(&mut self) -> &mut RunState {
            &mut self.state
        }
    }

    fn run() -> Run {
        Run { state: fresh(), record: Vec::new() }
    }

    fn fresh() -> RunState {
        let fleet = inventory::parse(&INVENTORY.replace("DIGEST", &"0".repeat(64)), "fleet.yaml", Path::new("")).unwrap().fleet;
        let plan = build_with(&fleet, &|_, _, _| vec![proto::Query::System], FileCheck::Optional).unwrap();
        let platforms = BTreeSet::from(["emea".to_owned()]);
        let bounds = Bounds { platforms, limit: None, parallel_platforms: 1, parallel_hosts: 9, conditions: Conditions::default() };
        RunState::new(Arc::new(plan), bounds)
    }

    fn tell(state: &mut Run, scope: Scope, kind: Kind) {
        let text = String::new;
        let (host_time, boot_id, host_seq) = (None, None, Some(1).filter(|_| matches!(kind, Kind::StepFinished { .. })));
        let event = Event { v: 1, seq: 0, time: text(), run: text(), scope, kind, host_time, boot_id, host_seq, prev: text() };
        state.apply(&event);
        state.record.push(event);
    }

    fn here() -> Scope {
        Scope { platform: Some("emea".to_owned()), ..Scope::default() }
    }

    fn of_step(state: &RunState, step: usize) -> Scope {
        let step = state.step(0, step).unwrap();
        Scope { step: Some(step.id.0.clone()), host: Some(step.host.clone()), attempt: Some(1), ..here() }
    }

    fn granted(state: &mut Run, steps: &[usize]) {
        for step in steps {
            let scope = of_step(state, *step);
            tell(state, scope, Kind::StepGranted { action: String::new(), prove: false });
        }
    }

    fn ended(state: &mut Run, steps: &[usize]) {
        for step in steps {
            let scope = of_step(state, *step);
            let (outcome, message) = (Outcome::Ok, String::new());
            tell(state, scope, Kind::StepFinished { outcome, exit_code: None, duration_ms: 1, message, died: false });
        }
    }

    /// Everything goes well, until something that `stop` knows is decided.
    fn until(state: &mut Run, stop: impl Fn(&RunState, &Decision) -> bool) -> Vec<Decision> {
        for _ in 0..10_000 {
            let decisions = state.decide();
            if decisions.is_empty() || decisions.iter().any(|decision| stop(state, decision)) {
                return decisions;
            }
            for decision in decisions {
                match decision {
                    Decision::Claim { hosts, .. } => hosts.into_iter().for_each(|host| {
                        let scope = Scope { host: Some(host), ..here() };
                        tell(state, scope, Kind::HostClaimed { token: 1 });
                    }),
                    Decision::Enter { .. } => tell(state, here(), Kind::StageStarted),
                    Decision::Judge { .. } | Decision::Open { .. } => tell(state, here(), Kind::StageFinished),
                    Decision::Grant { steps, .. } | Decision::Inspect { steps, .. } => {
                        granted(state, &steps);
                        ended(state, &steps);
                    }
                    Decision::Gate { step, .. } => ended(state, &[step]),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("it does not come to an end");
    }

    fn resumed(state: &mut Run) {
        state.state = fresh();
        let Run { state: folded, record } = state;
        record.iter().for_each(|event| folded.apply(event));
        let (command, operator, version) = (String::new(), String::new(), String::new());
        let conditions = Conditions::default();
        let kind = Kind::RunResumed { command, operator, version, cut_bytes: 0, from_hosts: false, conditions };
        tell(state, Scope::default(), kind);
    }

    fn looks_again(_: &RunState, decision: &Decision) -> bool {
        matches!(decision, Decision::LookAgain { .. })
    }

    fn in_migrate(state: &RunState, decision: &Decision) -> bool {
        matches!(decision, Decision::Grant { .. }) && state.stage(0).0 == Phase::Migrate
    }

    fn said(state: &mut Run, holding: &[&str]) {
        let holding = holding.iter().map(ToString::to_string).collect();
        tell(state, here(), Kind::ChecksRepeated { holding });
    }

    /// Nothing but the platform's end is decided; what is said about it.
    fn stops(state: &mut Run) -> String {
        match state.decide().as_slice() {
            [Decision::End { outcome: RunOutcome::Stopped, message, .. }] => message.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn before_its_preflight_is_judged_nothing_is_looked_at_twice() {
        let mut state = run();
        let inspects = |_: &RunState, decision: &Decision| matches!(decision, Decision::Inspect { .. });
        assert!(!until(&mut state, inspects).is_empty());
        resumed(&mut state);
        let next = until(&mut state, |state, decision| looks_again(state, decision) || inspects(state, decision));
        assert!(next.iter().all(|decision| !looks_again(&state, decision)), "{next:?}");
    }

    #[test]
    fn in_the_middle_nothing_new_is_granted_before_the_checks_were_made_again() {
        let mut state = run();
        let first = until(&mut state, in_migrate);
        assert!(first.iter().any(|decision| in_migrate(&state, decision)), "{first:?}");
        resumed(&mut state);
        let decided = until(&mut state, |state, decision| looks_again(state, decision) || in_migrate(state, decision));
        assert_eq!(decided, [Decision::LookAgain { platform: 0 }]);
        // Asked once; until the answer is there nothing happens.
        assert_eq!(state.decide(), []);
        said(&mut state, &["disk@a"]);
        let message = stops(&mut state);
        assert!(message.contains("disk@a holds it up") && message.contains("--override"), "{message}");
        tell(&mut state, here(), Kind::PlatformFinished { outcome: RunOutcome::Stopped, message });
        assert!(state.at_rest() && state.keeps_locks(0), "it stays this run's");

        resumed(&mut state);
        assert_eq!(until(&mut state, looks_again), [Decision::LookAgain { platform: 0 }]);
        said(&mut state, &[]);
        let next = state.decide();
        assert!(next.iter().any(|decision| in_migrate(&state, decision)), "{next:?}");
        let rest = until(&mut state, looks_again);
        assert!(rest.is_empty(), "once in a life: {rest:?}");
    }

    #[test]
    fn what_runs_goes_on_and_its_platform_ends_behind_it() {
        let mut state = run();
        let grant = until(&mut state, in_migrate);
        let Some(Decision::Grant { steps, host, .. }) =
            grant.into_iter().find(|decision| matches!(decision, Decision::Grant { .. }))
        else {
            panic!("something is granted")
        };
        granted(&mut state, &steps[..1]);
        resumed(&mut state);
        // The host is told again what it has; that is nothing new.
        let attached = until(&mut state, |_, decision| matches!(decision, Decision::Attach { .. }));
        let open = vec![steps[0]];
        assert_eq!(attached, [Decision::Attach { platform: 0, host, steps: open.clone() }]);
        state.told(0, &open);
        assert_eq!(state.decide(), [], "what is behind it on the same host waits for it anyway");
        ended(&mut state, &open);
        assert_eq!(state.decide(), [Decision::LookAgain { platform: 0 }]);
    }

    #[test]
    fn an_untouched_platform_is_looked_at_before_it_is_touched() {
        let mut state = run();
        let enters_stop =
            |state: &RunState, decision: &Decision| matches!(decision, Decision::Enter { .. }) && state.stage(0).0 == Phase::Stop;
        let first = until(&mut state, enters_stop);
        assert!(first.iter().any(|decision| enters_stop(&state, decision)), "{first:?}");
        resumed(&mut state);
        assert_eq!(state.decide(), [Decision::LookAgain { platform: 0 }]);
        said(&mut state, &["clock@b", "disk@a"]);
        let message = stops(&mut state);
        assert!(message.contains("clock@b, disk@a hold it up"), "{message}");
        assert!(!state.keeps_locks(0), "nothing was touched");
    }
}
