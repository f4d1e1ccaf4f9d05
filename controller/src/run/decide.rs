//! What people decide about steps of a run, as entries of its record: the same whether a controller drives the run or not.

use super::journal::Draft;
use super::options::Signal;
use super::stage::{Executor, executor};
use super::state::RunState;
use crate::plan::PlannedStep;
use proto::event::{Kind, Outcome, Scope};
use proto::{Action, StepId};

/// A decision that a person made.
pub(super) struct Decided<'a> {
    pub(super) decision: &'a str,
    pub(super) about: &'a str,
    pub(super) operator: &'a str,
    pub(super) reason: &'a str,
}

impl Decided<'_> {
    pub(super) fn draft(&self, scope: Scope) -> Draft {
        let kind = Kind::Decision {
            decision: self.decision.to_owned(),
            about: self.about.to_owned(),
            operator: self.operator.to_owned(),
            reason: self.reason.to_owned(),
        };
        Draft::new(scope, kind)
    }
}

/// The entries that a decision makes, if it can be made where the run stands.
///
/// # Errors
/// Why it cannot, for people.
pub fn draft(state: &RunState, what: &Signal) -> Result<Vec<Draft>, String> {
    match what {
        Signal::Detach => Ok(Vec::new()),
        // Whoever looks on sees it from here on, and not only when the last step has ended.
        Signal::Pause { .. } if state.is_paused() => Ok(Vec::new()),
        Signal::Pause { operator } => {
            let reason = "what has not begun is taken back, what runs may end";
            Ok(vec![Decided { decision: "pause", about: "run", operator, reason }.draft(Scope::default())])
        }
        Signal::Abort { operator, reason } => {
            Ok(vec![Decided { decision: "abort", about: "run", operator, reason }.draft(Scope::default())])
        }
        Signal::Retry { step, operator, reason } => {
            let planned = bad_step(state, step)?;
            Ok(vec![Decided { decision: "retry", about: step, operator, reason }.draft(scope(state, planned))])
        }
        Signal::Skip { step, operator, reason } => {
            let planned = bad_step(state, step)?;
            match executor(planned) {
                Executor::Agent => {
                    Ok(vec![Decided { decision: "skip", about: step, operator, reason }.draft(scope(state, planned))])
                }
                Executor::Person => Err(format!("{step} is a gate: it is confirmed (`--confirm`), not skipped")),
                Executor::Inspection => Err(format!("{step} reads what the checks need, and cannot be skipped")),
            }
        }
        Signal::Accept { step, operator, reason } => {
            let planned = bad_step(state, step)?;
            if !state.is_skipped(planned) {
                return Err(format!("{step} was not skipped: `skip` it first, its probe may show that all is well"));
            }
            Ok(vec![Decided { decision: "acceptance", about: step, operator, reason }.draft(scope(state, planned))])
        }
        Signal::Confirm { gate, note, operator } => {
            let planned = gate_of(state, gate).ok_or_else(|| format!("no gate `{gate}` waits"))?;
            Ok(confirmation(scope(state, planned), gate, note, operator))
        }
    }
}

/// The entries of a confirmed gate.
pub(super) fn confirmation(scope: Scope, gate: &str, note: &str, operator: &str) -> Vec<Draft> {
    let confirmed = Kind::GateConfirmed { gate: gate.to_owned(), note: note.to_owned(), operator: operator.to_owned() };
    let done = Kind::StepFinished { outcome: Outcome::Ok, exit_code: None, duration_ms: 0, message: String::new(), died: false };
    vec![Draft::new(scope.clone(), confirmed), Draft::new(scope, done)]
}

fn bad_step<'s>(state: &'s RunState, id: &str) -> Result<&'s PlannedStep, String> {
    let step = StepId(id.to_owned());
    let (platform, index) = state.find(&step).ok_or_else(|| format!("this run has no step `{id}`"))?;
    let planned = state.step(platform, index).ok_or_else(|| format!("this run has no step `{id}`"))?;
    match state.ended(&step) {
        // It may still run there, and what was granted behind it may not have arrived.
        Some(_) if state.is_assumed(&step) => {
            Err(format!("{} has not said yet what became of {id}: `resume` asks it first", planned.host))
        }
        Some(outcome) if !outcome.is_proof() => Ok(planned),
        Some(_) => Err(format!("{id} ended well: there is nothing to decide")),
        None if state.is_open(&step) => Err(format!("{id} has not ended yet")),
        None => Err(format!("{id} was not started yet: there is nothing to decide")),
    }
}

fn gate_of<'s>(state: &'s RunState, wanted: &str) -> Option<&'s PlannedStep> {
    let (platform, index) = state.waiting_gates().into_iter().find(|(platform, index)| {
        let action = state.step(*platform, *index).map(|step| &step.spec.action);
        matches!(action, Some(Action::Gate { gate, .. }) if gate == wanted)
    })?;
    state.step(platform, index)
}

fn scope(state: &RunState, step: &PlannedStep) -> Scope {
    let Some((platform, _)) = state.find(&step.id) else { return Scope::default() };
    let (phase, stage) = state.place(step);
    Scope {
        platform: Some(state.platform_name(platform).to_owned()),
        phase: Some(phase.as_str().to_owned()),
        stage: Some(stage.to_owned()),
        host: Some(step.host.clone()),
        instance: step.instance.clone(),
        step: Some(step.id.0.clone()),
        attempt: Some(state.attempt(&step.id).max(1)),
    }
}
