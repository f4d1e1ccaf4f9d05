//! How events change where a run stands.

use super::again::Again;
use super::stage::{Executor, StepStatus, executor};
use super::state::{PlatformState, RunState};
use crate::plan::Phase;
use proto::StepId;
use proto::event::{Event, Kind, Outcome, RunOutcome};

/// The decision by which checks that are too old are made again.
pub(super) const RECHECK: &str = "recheck";

impl RunState {
    /// Takes an event in. Events about things that this plan does not have are ignored.
    pub fn apply(&mut self, event: &Event) {
        let scope = &event.scope;
        // Where output is kept is written down in front of the end that it comes with, and a write can be cut off between the two: an end
        // that is not here has to come again.
        let whole = !matches!(event.kind, Kind::StepOutput { .. });
        if let (Some(host), Some(seq), true) = (&scope.host, event.host_seq, whole) {
            let known = self.host_seqs.entry(host.clone()).or_default();
            *known = seq.max(*known);
            if event.kind == Kind::StepStarted {
                self.begun.insert(host.clone(), seq);
            }
        }
        match &event.kind {
            Kind::RunResumed { .. } => self.reopen(),
            // Whoever ends a run parts from its hosts first.
            Kind::RunFinished { .. } => self.attended.clear(),
            Kind::BackupKept { sha256, .. } => {
                self.kept.extend(scope.step.clone().map(|step| (StepId(step), sha256.clone())));
            }
            Kind::Decision { decision, about, reason, .. } => self.apply_decision(decision, about, reason),
            kind => {
                if let Some(host) = &scope.host {
                    self.apply_to_host(host, kind);
                }
            }
        }
        if let Some((platform, step)) = scope.step.as_ref().and_then(|id| self.find(&StepId(id.clone()))) {
            self.apply_to_step(platform, step, event);
        }
        let Some(platform) = scope.platform.as_ref().and_then(|name| self.names.get(name)) else { return };
        self.platforms[*platform].apply(event);
    }

    fn apply_to_host(&mut self, host: &str, kind: &Kind) {
        match kind {
            Kind::HostUnreachable { .. } => {
                self.away.insert(host.to_owned());
                self.unreachable.insert(host.to_owned());
            }
            Kind::HostLocked { .. } => {
                self.away.insert(host.to_owned());
                self.locked = true;
                self.attended.remove(host);
                self.of_host(host, |platform| {
                    platform.claiming.remove(host);
                    platform.claimed.remove(host);
                });
            }
            Kind::HostReattached => {
                self.away.remove(host);
                self.unreachable.remove(host);
            }
            Kind::HostClaimed { .. } => {
                self.away.remove(host);
                self.unreachable.remove(host);
                self.attended.insert(host.to_owned());
                self.of_host(host, |platform| {
                    platform.claiming.remove(host);
                    platform.claimed.insert(host.to_owned());
                    platform.held.insert(host.to_owned());
                });
            }
            _ => {}
        }
    }

    fn of_host(&mut self, host: &str, mut change: impl FnMut(&mut PlatformState)) {
        self.platforms.iter_mut().filter(|platform| platform.agents.contains(host)).for_each(&mut change);
    }

    /// The checks of a platform that was not touched are made again: it goes back to where they were judged.
    fn recheck(&mut self, name: &str) {
        let Some(&number) = self.names.get(name) else { return };
        let platform = &mut self.platforms[number];
        let Some(checks) = platform.stages.iter().position(|stage| stage.judged && stage.phase == Phase::Preflight) else { return };
        platform.at = platform.at.min(checks);
        platform.checked = None;
        platform.rechecks += 1;
        platform.again = Again::No;
        platform.findings.clear();
        for step in 0..self.platforms[number].steps.len() {
            let of_checks = self.platforms[number].steps[step].stage == checks;
            if of_checks && self.step(number, step).map(executor) == Some(Executor::Inspection) {
                self.set(number, step, StepStatus::Planned);
            }
        }
    }

    fn apply_decision(&mut self, decision: &str, about: &str, reason: &str) {
        match decision {
            RECHECK => self.recheck(about),
            "override" => drop(self.overridden.insert(about.to_owned(), reason.to_owned())),
            "abort" => self.aborted = true,
            _ => {}
        }
        let Some((platform, step)) = self.find(&StepId(about.to_owned())) else { return };
        let state = &mut self.platforms[platform];
        if !state.steps[step].status.is_bad() {
            return;
        }
        if state.end.is_some_and(|end| end != RunOutcome::Ok) {
            state.note_bad_end();
            state.end = None;
        }
        let at = &mut state.steps[step];
        // A tolerant stage that the platform left without this host: it has another chance in it.
        if at.stage < state.at {
            state.at = at.stage;
            let host = state.stages[at.stage].waves[at.wave].queues[at.queue].host.clone();
            state.dropped.remove(&host);
        }
        match decision {
            // Whoever skipped it before wants it carried out after all.
            "retry" => {
                at.skipped = false;
                self.set(platform, step, StepStatus::Planned);
            }
            "repeat" | "resume" => self.set(platform, step, StepStatus::Planned),
            "skip" => {
                at.skipped = true;
                self.set(platform, step, StepStatus::Planned);
            }
            // The operator answers for it: the barrier opens, and every report says so.
            "acceptance" => self.set(platform, step, StepStatus::Ended(Outcome::Skipped)),
            _ => {}
        }
    }

    fn apply_to_step(&mut self, platform: usize, step: usize, event: &Event) {
        let at = &mut self.platforms[platform].steps[step];
        match &event.kind {
            Kind::StepAlert { .. } => at.alerted = true,
            Kind::StepGranted { .. } => at.alerted = false,
            _ => {}
        }
        let status = match &event.kind {
            Kind::StepGranted { .. } => {
                at.attempt = event.scope.attempt.unwrap_or(at.attempt + 1);
                at.inherited = false;
                StepStatus::Granted
            }
            Kind::StepStarted => StepStatus::Running,
            Kind::GateWaiting { .. } => StepStatus::Gate,
            Kind::StepRevoked => StepStatus::Planned,
            Kind::StepFinished { outcome, .. } => {
                at.assumed = event.host_seq.is_none();
                StepStatus::Ended(*outcome)
            }
            _ => return,
        };
        self.set(platform, step, status);
    }

    /// Gives a step another status, and counts it for that.
    fn set(&mut self, platform: usize, step: usize, status: StepStatus) {
        let PlatformState { stages, steps, unsent, .. } = &mut self.platforms[platform];
        let at = &mut steps[step];
        let was = std::mem::replace(&mut at.status, status);
        if !status.is_open() {
            unsent.remove(&step);
        }
        if was == status {
            return;
        }
        let stage = &mut stages[at.stage];
        stage.recount(step, at, was);
        if was.is_open() == status.is_open() {
            return;
        }
        let host = &stage.waves[at.wave].queues[at.queue].host;
        let count = self.busy.entry(host.clone()).or_default();
        *count = (*count + usize::from(status.is_open())).saturating_sub(usize::from(was.is_open()));
        if *count == 0 {
            self.busy.remove(host);
        }
    }

    /// A controller took the run up again. What was known in memory alone is not known any more: where hosts are, whose their locks are,
    /// what was read from them, what people were asked. What hosts have is open until they say what became of it.
    fn reopen(&mut self) {
        self.away.clear();
        self.unreachable.clear();
        self.locked = false;
        // An abort is finished by whoever comes next.
        self.paused = self.aborted;
        for number in 0..self.platforms.len() {
            let platform = &mut self.platforms[number];
            platform.claimed.clear();
            platform.rechecks = 0;
            platform.note_bad_end();
            if platform.end == Some(RunOutcome::Ok) {
                continue;
            }
            // One that takes no part any more is over, however far it came.
            if !self.bounds.platforms.contains(&platform.name) {
                platform.end = Some(RunOutcome::Ok);
                continue;
            }
            platform.end = None;
            platform.asking = 0;
            platform.claiming.clear();
            platform.dropped.clear();
            platform.findings.clear();
            // Hosts that dropped out of a tolerant stage have another chance in it.
            if let Some(unfinished) = platform.stages[..platform.at].iter().position(|stage| stage.tolerant && stage.left() > 0) {
                platform.at = unfinished;
            }
            platform.look_again();
            let judged = platform.stages.get(platform.at).is_some_and(|stage| stage.judged);
            for step in 0..self.platforms[number].steps.len() {
                self.reopen_step(number, step, judged);
            }
        }
    }

    fn reopen_step(&mut self, platform: usize, step: usize, judged: bool) {
        let Some(who) = self.step(platform, step).map(executor) else { return };
        let state = &mut self.platforms[platform];
        let (current, at) = (state.at, &mut state.steps[step]);
        let status = match (who, at.status) {
            // What was read is evaluated in memory: it is read again until the barrier behind it is open.
            (Executor::Inspection, StepStatus::Ended(_)) if judged && at.stage == current => StepStatus::Planned,
            (Executor::Inspection, status) if status.is_open() => StepStatus::Planned,
            (Executor::Person, StepStatus::Gate) => StepStatus::Planned,
            (Executor::Agent, StepStatus::Ended(_)) if at.assumed && at.status.is_bad() => StepStatus::Granted,
            (_, status) => status,
        };
        if who == Executor::Agent && status.is_open() {
            at.inherited = true;
            state.unsent.insert(step);
        }
        self.set(platform, step, status);
    }

    /// A host whose lock was asked for could not be reached.
    pub fn not_claimed(&mut self, host: &str) {
        self.of_host(host, |platform| {
            platform.claiming.remove(host);
        });
    }

    /// A host's agent is being told what it was granted before.
    pub fn told(&mut self, platform: usize, steps: &[usize]) {
        self.platforms[platform].unsent.retain(|step| !steps.contains(step));
    }
}

impl PlatformState {
    /// Before it is taken up again.
    fn note_bad_end(&mut self) {
        self.was_bad |= self.end.is_some_and(|end| !matches!(end, RunOutcome::Ok | RunOutcome::Waiting));
    }

    fn apply(&mut self, event: &Event) {
        match &event.kind {
            Kind::StageStarted => {
                if let Some(stage) = self.stages.get_mut(self.at) {
                    stage.entered = true;
                }
            }
            // What was read from a step's output holds nothing up: how the step ended does.
            Kind::Finding { finding } if event.scope.step.is_none() => self.findings.push(finding.clone()),
            Kind::StageFinished => {
                let stage = self.stages.get(self.at);
                if let Some(stage) = stage.filter(|stage| stage.tolerant) {
                    self.dropped.extend(stage.hosts_left().cloned());
                }
                if stage.is_some_and(|stage| stage.judged && stage.phase == Phase::Preflight) {
                    self.checked = Some(event.time.clone());
                }
                self.at += 1;
            }
            Kind::ChecksRepeated { holding } => {
                self.again = if holding.is_empty() { Again::No } else { Again::Held(holding.clone()) };
            }
            Kind::GateConfirmed { .. } if self.end == Some(RunOutcome::Waiting) => self.end = None,
            Kind::PlatformFinished { outcome, .. } => {
                self.end = Some(*outcome);
                self.was_bad = false;
            }
            _ => {}
        }
    }
}
