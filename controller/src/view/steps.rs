//! How events about steps change a view: grants, attempts, results, alerts.

use super::model::*;
use super::record::{Alert, Attempt};
use super::text::sanitize;
use jiff::Timestamp;
use proto::{Event, Kind, Scope};

impl View {
    pub(super) fn step_at(&self, scope: &Scope) -> Option<usize> {
        self.index.steps.get(scope.step.as_ref()?).copied()
    }

    pub(super) fn step_mut(&mut self, scope: &Scope) -> Option<&mut StepView> {
        let at = self.step_at(scope)?;
        self.steps.get_mut(at)
    }

    pub(super) fn granted(&mut self, scope: &Scope, time: Option<Timestamp>, prove: bool) {
        let Some(at) = self.step_at(scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt.saturating_add(1)).max(1);
        if attempt < step.attempt || (attempt == step.attempt && step.state != StepState::Waiting) || is_over(step, attempt) {
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

    pub(super) fn revoked(&mut self, scope: &Scope) {
        let Some(at) = self.step_at(scope) else { return };
        if self.steps.get(at).is_some_and(|step| step.state == StepState::Granted) {
            self.change(at, |step| step.state = StepState::Waiting);
        }
    }

    pub(super) fn step_started(&mut self, scope: &Scope, time: Option<Timestamp>) {
        let Some(at) = self.step_at(scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt).max(1);
        let old =
            attempt < step.attempt || (attempt == step.attempt && !matches!(step.state, StepState::Waiting | StepState::Granted));
        if old || is_over(step, attempt) {
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

    pub(super) fn step_finished(&mut self, event: &Event, time: Option<Timestamp>) {
        let Kind::StepFinished { outcome, exit_code, duration_ms, message, died } = &event.kind else { return };
        let Some(at) = self.step_at(&event.scope) else { return };
        let Some(step) = self.steps.get_mut(at) else { return };
        let attempt = event.scope.attempt.unwrap_or(step.attempt).max(1);
        if attempt < step.attempt || is_over(step, attempt) {
            return;
        }
        if attempt > step.attempt {
            new_attempt(step, attempt);
        }
        step.ended = time;
        step.exit_code = *exit_code;
        step.duration_ms = *duration_ms;
        step.message = sanitize(message).into_owned();
        step.died = *died;
        // What a host says has its place in the host's own journal.
        step.assumed = !outcome.is_proof() && event.host_seq.is_none() && !matches!(step.action.as_str(), "inspect" | "gate");
        self.change(at, |step| step.state = StepState::Ended(*outcome));
    }

    pub(super) fn alerted(&mut self, scope: &Scope, time: Option<Timestamp>, message: &str, ask: bool) {
        let Some(step) = self.step_mut(scope) else { return };
        let attempt = scope.attempt.unwrap_or(step.attempt);
        step.alerts.push(Alert { time, attempt, message: sanitize(message).into_owned(), ask });
    }

    /// A step that did not end well is to be started again, or its probe alone: it counts as not begun until it is granted.
    pub(super) fn begin_again(&mut self, id: &str, decision: &str) {
        let Some(at) = self.index.steps.get(id).copied() else { return };
        let Some(step) = self.steps.get_mut(at).filter(|step| step.is_bad()) else { return };
        keep_attempt(step);
        match decision {
            "skip" => step.skipped = true,
            "retry" => step.skipped = false,
            _ => {}
        }
        self.change(at, |step| step.state = StepState::Waiting);
    }
}

/// Begins another attempt. The caller changes the state.
fn new_attempt(step: &mut StepView, attempt: u32) {
    if attempt > step.attempt {
        keep_attempt(step);
    }
    step.attempt = attempt;
    step.started = None;
    step.ended = None;
    step.duration_ms = 0;
    step.exit_code = None;
    step.message.clear();
    step.died = false;
    step.assumed = false;
}

/// Whether another attempt is to follow this one: nothing that is said about it now changes that.
fn is_over(step: &StepView, attempt: u32) -> bool {
    step.earlier.last().is_some_and(|known| known.number >= attempt)
}

/// Keeps what the newest attempt came to.
pub(super) fn keep_attempt(step: &mut StepView) {
    if step.attempt == 0 || is_over(step, step.attempt) {
        return;
    }
    step.earlier.push(Attempt {
        number: step.attempt,
        state: step.state,
        started: step.started,
        ended: step.ended,
        exit_code: step.exit_code,
        duration_ms: step.duration_ms,
        message: step.message.clone(),
        died: step.died,
    });
}
