//! How events change a view.

use super::model::*;
use super::text::sanitize;
use jiff::Timestamp;
use proto::event::{Finding, RunOutcome};
use proto::{Event, Kind, Outcome, Scope};

impl View {
    /// Moves the view on by one event. Events that the plan knows nothing of change nothing but the counters of the run.
    pub fn apply(&mut self, event: &Event) {
        let time: Option<Timestamp> = event.time.parse().ok();
        self.run.events += 1;
        self.run.last = time.or(self.run.last);
        if self.run.id.is_empty() {
            self.run.id = sanitize(&event.run).into_owned();
        }
        let platform = event.scope.platform.as_ref().and_then(|name| self.index.platforms.get(name)).copied();
        if let Some(platform) = platform.and_then(|at| self.platforms.get_mut(at)) {
            platform.started = platform.started.or(time);
        }
        match &event.kind {
            Kind::RunStarted { command, operator, version, plan, limit, .. } => {
                self.begin(time, command, operator, version, plan, limit.as_ref());
            }
            Kind::PhaseStarted => self.with_phases(platform, &event.scope, |phase| {
                phase.state = Progressed::Running;
                phase.started = phase.started.or(time);
            }),
            Kind::StageStarted => {
                if let Some(at) = self.stage_of(platform, &event.scope) {
                    self.stage_runs(at, time);
                }
            }
            Kind::StepGranted { prove, .. } => self.granted(&event.scope, time, *prove),
            Kind::StepRevoked => self.revoked(&event.scope),
            Kind::StepStarted => self.step_started(&event.scope, time),
            Kind::StepOutput { file, .. } => {
                if let Some(step) = self.step_mut(&event.scope) {
                    step.output = Some(sanitize(file).into_owned());
                }
            }
            Kind::StepFinished { outcome, exit_code, duration_ms, message, .. } => {
                self.step_finished(&event.scope, time, *outcome, *exit_code, *duration_ms, message);
            }
            Kind::Finding { finding } => self.found(&event.scope, time, finding),
            Kind::BarrierOpened => self.barrier(platform, &event.scope, time),
            Kind::StageFinished => {
                if let Some(at) = self.stage_of(platform, &event.scope) {
                    self.stage_over(at, time);
                }
            }
            Kind::PhaseFinished => self.with_phases(platform, &event.scope, |phase| {
                phase.state = Progressed::Done;
                phase.ended = time;
            }),
            Kind::GateWaiting { gate, ask } => {
                let ask = sanitize(ask).into_owned();
                let gate = self.gate(gate, platform);
                gate.ask = ask;
                gate.since = gate.since.or(time);
                gate.confirmed = None;
            }
            Kind::GateConfirmed { gate, note, operator } => {
                let confirmation =
                    Confirmation { time, operator: sanitize(operator).into_owned(), note: sanitize(note).into_owned() };
                self.gate(gate, platform).confirmed = Some(confirmation);
                self.gate_passed(gate, event.scope.step.as_deref(), time);
            }
            Kind::HostUnreachable { reason } => self.host_away(&event.scope, time, reason, false),
            Kind::HostLocked { reason } => self.host_away(&event.scope, time, reason, true),
            // A controller that goes on knows no host as away or held.
            Kind::RunResumed { .. } => {
                self.run.ended = None;
                self.run.outcome = None;
                self.run.exit_code = None;
            }
            Kind::HostClaimed { .. } | Kind::StepAlert { .. } => {}
            Kind::HostReattached => self.host_back(&event.scope, time),
            Kind::RunPaused { reason } => self.pauses.push((time, sanitize(reason).into_owned())),
            Kind::Decision { decision, about, operator, reason } => self.decided(time, decision, about, operator, reason),
            Kind::PlatformFinished { outcome, message } => {
                if let Some(at) = platform {
                    self.platform_over(at, time, *outcome, message);
                }
            }
            Kind::RunFinished { outcome, exit_code } => {
                self.run.ended = time;
                self.run.outcome = Some(*outcome);
                self.run.exit_code = Some(*exit_code);
                for at in 0..self.platforms.len() {
                    self.halt(at, time);
                }
            }
        }
    }

    fn begin(&mut self, time: Option<Timestamp>, command: &str, operator: &str, version: &str, plan: &str, limit: Option<&String>) {
        self.run.command = sanitize(command).into_owned();
        self.run.operator = sanitize(operator).into_owned();
        self.run.version = sanitize(version).into_owned();
        self.run.plan = sanitize(plan).into_owned();
        self.run.limit = limit.map(|text| sanitize(text).into_owned());
        // A run that goes on keeps the time of its first start and loses its end.
        self.run.started = self.run.started.or(time);
        self.run.ended = None;
        self.run.outcome = None;
        self.run.exit_code = None;
    }

    fn step_at(&self, scope: &Scope) -> Option<usize> {
        self.index.steps.get(scope.step.as_ref()?).copied()
    }

    fn step_mut(&mut self, scope: &Scope) -> Option<&mut StepView> {
        let at = self.step_at(scope)?;
        self.steps.get_mut(at)
    }

    fn stage_of(&self, platform: Option<usize>, scope: &Scope) -> Option<usize> {
        let platform = self.platforms.get(platform?)?;
        let phase = platform.phases.iter().find(|phase| Some(phase.name.as_str()) == scope.phase.as_deref())?;
        phase
            .stages
            .clone()
            .find(|at| self.stages.get(*at).is_some_and(|stage| Some(stage.name.as_str()) == scope.stage.as_deref()))
    }

    /// Changes the named phase of a platform, or of every platform that is not over when the event names none.
    fn with_phases(&mut self, platform: Option<usize>, scope: &Scope, change: impl Fn(&mut PhaseView)) {
        if scope.platform.is_some() && platform.is_none() {
            return;
        }
        for (at, view) in self.platforms.iter_mut().enumerate() {
            if platform.map_or(view.outcome.is_some(), |wanted| wanted != at) {
                continue;
            }
            for phase in view.phases.iter_mut().filter(|phase| Some(phase.name.as_str()) == scope.phase.as_deref()) {
                change(phase);
            }
        }
    }

    fn stage_runs(&mut self, at: usize, time: Option<Timestamp>) {
        let Some(stage) = self.stages.get_mut(at) else { return };
        if stage.state == Progressed::Done {
            return;
        }
        stage.state = Progressed::Running;
        stage.started = stage.started.or(time);
        stage.ended = None;
        let (platform, phase) = (stage.platform, stage.phase);
        if let Some(platform) = self.platforms.get_mut(platform) {
            platform.outcome = None;
            platform.ended = None;
            if let Some(phase) = platform.phases.get_mut(phase).filter(|phase| phase.state != Progressed::Done) {
                phase.state = Progressed::Running;
                phase.started = phase.started.or(time);
            }
        }
        // A host that was out of reach before the stage began counts as such from here on.
        for slot in 0..self.stages.get(at).map_or(0, |stage| stage.hosts.len()) {
            self.recount(at, slot);
        }
    }

    fn stage_over(&mut self, at: usize, time: Option<Timestamp>) {
        let Some(stage) = self.stages.get_mut(at) else { return };
        stage.state = Progressed::Done;
        stage.ended = time;
        for slot in 0..stage.hosts.len() {
            self.recount(at, slot);
        }
    }

    fn barrier(&mut self, platform: Option<usize>, scope: &Scope, time: Option<Timestamp>) {
        if scope.stage.is_none() {
            if scope.platform.is_none() {
                self.preflight_barrier = time;
            }
            self.with_phases(platform, scope, |phase| phase.barrier = time);
        } else if let Some(stage) = self.stage_of(platform, scope).and_then(|at| self.stages.get_mut(at)) {
            stage.barrier = time;
        }
    }

    fn granted(&mut self, scope: &Scope, time: Option<Timestamp>, prove: bool) {
        let Some(at) = self.step_at(scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt.saturating_add(1)).max(1);
        if attempt < step.attempt || (attempt == step.attempt && step.state != StepState::Waiting) {
            return;
        }
        new_attempt(step, attempt);
        step.prove = prove;
        let stage = step.stage;
        self.change(at, |step| step.state = StepState::Granted);
        if self.stages.get(stage).is_some_and(|stage| stage.state != Progressed::Running) {
            self.stage_runs(stage, time);
        }
    }

    fn revoked(&mut self, scope: &Scope) {
        let Some(at) = self.step_at(scope) else { return };
        if self.steps.get(at).is_some_and(|step| step.state == StepState::Granted) {
            self.change(at, |step| step.state = StepState::Waiting);
        }
    }

    fn step_started(&mut self, scope: &Scope, time: Option<Timestamp>) {
        let Some(at) = self.step_at(scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt).max(1);
        let old =
            attempt < step.attempt || (attempt == step.attempt && !matches!(step.state, StepState::Waiting | StepState::Granted));
        if old {
            return;
        }
        if attempt > step.attempt {
            new_attempt(step, attempt);
        }
        step.started = time;
        let (stage, acts) = (step.stage, !step.prove);
        if acts {
            self.check_order(at, time);
        }
        self.change(at, |step| step.state = StepState::Running);
        if self.stages.get(stage).is_some_and(|stage| stage.state != Progressed::Running) {
            self.stage_runs(stage, time);
        }
    }

    fn step_finished(
        &mut self,
        scope: &Scope,
        time: Option<Timestamp>,
        outcome: Outcome,
        exit_code: Option<i32>,
        duration_ms: u64,
        message: &str,
    ) {
        let Some(at) = self.step_at(scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt).max(1);
        if attempt < step.attempt {
            return;
        }
        if attempt > step.attempt {
            new_attempt(step, attempt);
        }
        step.ended = time;
        step.exit_code = exit_code;
        step.duration_ms = duration_ms;
        step.message = sanitize(message).into_owned();
        self.change(at, |step| step.state = StepState::Ended(outcome));
    }

    /// A confirmed gate is done, whether or not its step's own end is told.
    fn gate_passed(&mut self, gate: &str, step: Option<&str>, time: Option<Timestamp>) {
        let steps = match step.and_then(|id| self.index.steps.get(id)) {
            Some(at) => vec![*at],
            None => self.index.gate_steps.get(gate).cloned().unwrap_or_default(),
        };
        for at in steps {
            if let Some(step) = self.steps.get_mut(at).filter(|step| !step.settled()) {
                step.attempt = step.attempt.max(1);
                step.ended = time;
                self.change(at, |step| step.state = StepState::Ended(Outcome::Ok));
            }
        }
    }

    fn found(&mut self, scope: &Scope, time: Option<Timestamp>, finding: &Finding) {
        let clean = |text: &String| sanitize(text).into_owned();
        let finding = Finding {
            message: clean(&finding.message),
            evidence: clean(&finding.evidence),
            remedy: clean(&finding.remedy),
            overridden: finding.overridden.as_ref().map(clean),
            ..finding.clone()
        };
        let phase = scope.phase.clone().unwrap_or_default();
        let key = (phase.clone(), finding.platform.clone(), finding.id.clone());
        let view = FindingView { phase, time, finding };
        match self.index.findings.get(&key).and_then(|at| self.findings.get_mut(*at)) {
            Some(known) => *known = view,
            None => {
                self.index.findings.insert(key, self.findings.len());
                self.findings.push(view);
            }
        }
    }

    fn gate(&mut self, id: &str, platform: Option<usize>) -> &mut GateView {
        let at = match self.index.gates.get(id) {
            Some(at) => *at,
            None => {
                let named = id.split('/').next().and_then(|name| self.index.platforms.get(name)).copied();
                let ask = self.gate_ask(id);
                self.index.gates.insert(id.to_owned(), self.gates.len());
                self.gates.push(GateView { id: id.to_owned(), platform: platform.or(named), ask, since: None, confirmed: None });
                self.gates.len() - 1
            }
        };
        &mut self.gates[at]
    }

    /// A gate that is confirmed in advance never waits; then the step's title says what it asked for.
    fn gate_ask(&self, id: &str) -> String {
        let step = self.index.gate_steps.get(id).and_then(|steps| steps.first()).and_then(|at| self.steps.get(*at));
        step.map(|step| step.title.clone()).unwrap_or_default()
    }

    fn host_away(&mut self, scope: &Scope, time: Option<Timestamp>, reason: &str, locked: bool) {
        let Some(host) = &scope.host else { return };
        let reason = sanitize(reason).into_owned();
        match self.index.away.get(host).and_then(|at| self.interruptions.get_mut(*at)) {
            Some(known) => (known.reason, known.locked) = (reason, locked),
            None => {
                self.index.away.insert(host.clone(), self.interruptions.len());
                self.interruptions.push(Interruption { host: host.clone(), from: time, until: None, reason, locked });
            }
        }
        self.recount_host(host);
    }

    fn host_back(&mut self, scope: &Scope, time: Option<Timestamp>) {
        let Some(host) = &scope.host else { return };
        if let Some(known) = self.index.away.remove(host).and_then(|at| self.interruptions.get_mut(at)) {
            known.until = time;
        }
        self.recount_host(host);
    }

    fn recount_host(&mut self, host: &str) {
        for (stage, slot) in self.index.hosts.get(host).cloned().unwrap_or_default() {
            self.recount(stage, slot);
        }
    }

    fn decided(&mut self, time: Option<Timestamp>, decision: &str, about: &str, operator: &str, reason: &str) {
        let clean = |text: &str| sanitize(text).into_owned();
        let view =
            DecisionView { time, decision: clean(decision), about: clean(about), operator: clean(operator), reason: clean(reason) };
        match decision {
            "override" => {
                for known in self.findings.iter_mut().filter(|known| known.finding.id == about) {
                    known.finding.overridden.get_or_insert_with(|| view.reason.clone());
                }
            }
            "acceptance" => {
                if let Some(at) = self.index.steps.get(about).copied() {
                    self.change(at, |step| step.accepted = Some(view.reason.clone()));
                }
            }
            _ => {}
        }
        self.decisions.push(view);
    }

    fn platform_over(&mut self, at: usize, time: Option<Timestamp>, outcome: RunOutcome, message: &str) {
        if let Some(platform) = self.platforms.get_mut(at) {
            platform.outcome = Some(outcome);
            platform.message = sanitize(message).into_owned();
            platform.ended = time;
        }
        self.halt(at, time);
    }

    /// Whatever still runs on a platform that is over has stopped.
    fn halt(&mut self, at: usize, time: Option<Timestamp>) {
        let Some(platform) = self.platforms.get_mut(at) else { return };
        for phase in platform.phases.iter_mut().filter(|phase| phase.state == Progressed::Running) {
            phase.state = Progressed::Stopped;
            phase.ended = time;
        }
        let range = platform.stages.clone();
        for stage in self.stages.get_mut(range).unwrap_or_default() {
            if stage.state == Progressed::Running {
                stage.state = Progressed::Stopped;
                stage.ended = time;
            }
        }
    }
}

/// Keeps what the last attempt came to and begins another. The caller changes the state.
fn new_attempt(step: &mut StepView, attempt: u32) {
    if step.attempt > 0 && step.state != StepState::Waiting && attempt > step.attempt {
        step.earlier.push(Attempt {
            number: step.attempt,
            state: step.state,
            started: step.started,
            ended: step.ended,
            exit_code: step.exit_code,
            message: std::mem::take(&mut step.message),
        });
    }
    step.attempt = attempt;
    step.started = None;
    step.ended = None;
    step.duration_ms = 0;
    step.exit_code = None;
    step.message.clear();
}
