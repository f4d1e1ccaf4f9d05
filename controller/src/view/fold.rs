//! How events change a view.

use super::model::*;
use super::record::*;
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
        self.alive(time, &event.kind);
        if self.run.id.is_empty() {
            self.run.id = sanitize(&event.run).into_owned();
        }
        let platform = event.scope.platform.as_ref().and_then(|name| self.index.platforms.get(name)).copied();
        if let Some(platform) = platform.and_then(|at| self.platforms.get_mut(at)) {
            platform.started = platform.started.or(time);
        }
        match &event.kind {
            kind @ Kind::RunStarted { .. } => self.begin(time, kind),
            kind @ Kind::RunResumed { .. } => self.resume(time, kind),
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
            Kind::StepFinished { .. } => self.step_finished(event, time),
            Kind::BackupMade { file, size, sha256 } => {
                let known = self.backup(platform, &event.scope, file);
                (known.size, known.sha256, known.made) = (*size, sanitize(sha256).into_owned(), time);
            }
            Kind::KeepBegun { .. } => {}
            kind @ Kind::BackupKept { .. } => self.backup_kept(platform, &event.scope, time, kind),
            Kind::StepAlert { message, ask } => self.alerted(&event.scope, time, message, *ask),
            Kind::Finding { finding } => self.found(&event.scope, time, finding),
            // What they found is in findings of their own, and what follows in the platform's end.
            Kind::ChecksRepeated { .. } => {}
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
            Kind::HostReattached => self.host_back(&event.scope, time),
            Kind::HostClaimed { token } => {
                if let Some(host) = &event.scope.host {
                    self.claims.push(Claimed { host: sanitize(host).into_owned(), time, token: *token });
                }
                self.host_back(&event.scope, time);
            }
            Kind::RunAlert { message } => self.alerts.push((time, sanitize(message).into_owned())),
            Kind::RunPaused { reason } => {
                self.pauses.push((time, sanitize(reason).into_owned()));
                self.leave(time);
            }
            Kind::Decision { decision, about, operator, reason } => {
                if decision == "recheck" {
                    self.recheck(about);
                }
                self.decided(time, decision, about, operator, reason);
            }
            Kind::PlatformFinished { outcome, message } => {
                if let Some(at) = platform {
                    self.platform_over(at, time, *outcome, message);
                }
            }
            Kind::RunFinished { outcome, exit_code } => {
                self.run.ended = time;
                self.run.outcome = Some(*outcome);
                self.run.exit_code = Some(*exit_code);
                self.leave(time);
                for at in 0..self.platforms.len() {
                    self.halt(at, time);
                }
            }
        }
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

    pub(super) fn stage_runs(&mut self, at: usize, time: Option<Timestamp>) {
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
                phase.ended = None;
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
        self.leave_behind(at);
    }

    /// A tolerant stage is over: the platform goes on without the hosts that did not end well in it.
    fn leave_behind(&mut self, at: usize) {
        let Some(stage) = self.stages.get(at).filter(|stage| stage.tolerant) else { return };
        let lost = stage.hosts.iter().filter(|host| host.state != HostState::Done).map(|host| host.name.clone());
        let (lost, platform) = (lost.collect::<Vec<_>>(), stage.platform);
        if let Some(platform) = self.platforms.get_mut(platform) {
            platform.dropped.extend(lost.iter().cloned());
        }
        lost.iter().for_each(|host| self.recount_host(host));
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

    /// A confirmed gate is done, whether or not its step's own end is told.
    fn gate_passed(&mut self, gate: &str, step: Option<&str>, time: Option<Timestamp>) {
        let named = step.and_then(|id| self.index.steps.get(id)).copied();
        let mut steps = self.index.gate_steps.get(gate).cloned().unwrap_or_default();
        steps.retain(|at| named.is_none_or(|named| named == *at));
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
        let view = FindingView { phase, stage: scope.stage.clone().unwrap_or_default(), step: scope.step.clone(), time, finding };
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

    /// A host's backup, by its file.
    fn backup(&mut self, platform: Option<usize>, scope: &Scope, file: &str) -> &mut BackupView {
        let (host, file) = (scope.host.clone().unwrap_or_default(), sanitize(file).into_owned());
        let at = self.backups.iter().position(|known| known.host == host && known.file == file).unwrap_or_else(|| {
            self.backups.push(BackupView { platform, host, file, size: 0, sha256: String::new(), made: None, kept: None });
            self.backups.len() - 1
        });
        &mut self.backups[at]
    }

    fn backup_kept(&mut self, platform: Option<usize>, scope: &Scope, time: Option<Timestamp>, kind: &Kind) {
        let Kind::BackupKept { source, plain_size, plain_sha256, to, file, size, sha256, encrypt_to, .. } = kind else { return };
        let clean = |text: &String| sanitize(text).into_owned();
        let known = self.backup(platform, scope, source);
        if known.sha256.is_empty() {
            (known.size, known.sha256) = (*plain_size, clean(plain_sha256));
        }
        let encrypt_to = encrypt_to.iter().map(clean).collect();
        known.kept = Some(KeptView { to: clean(to), file: clean(file), size: *size, sha256: clean(sha256), encrypt_to, time });
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

    pub(super) fn recount_host(&mut self, host: &str) {
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
                let step = self.index.steps.get(about).copied();
                if let Some(at) = step.filter(|at| self.steps.get(*at).is_some_and(StepView::is_bad)) {
                    self.change(at, |step| step.accepted = Some(view.reason.clone()));
                }
            }
            "pause" => {
                if let Some(life) = self.lives.last_mut() {
                    life.paused = Some((time, view.operator.clone()));
                }
            }
            "retry" | "skip" | "repeat" | "resume" => self.begin_again(about, decision),
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
