//! `retry RUN STEP` and `skip RUN STEP`: a person decides on a failed or unknown step.

use super::control::{self, Request};
use super::next::fleet;
use super::pick::find;
use super::start::{internal, journal_failure, operator};
use super::{Context, Exit, Failure};
use crate::plan::Plan;
use crate::run::journal::{Journal, JournalError};
use crate::run::state::{Bounds, RunState};
use crate::run::store::RunDir;
use crate::run::{Signal, decide};
use crate::view::text::sanitize;
use crate::view::{StepState, StepView, View};
use proto::event::RunOutcome;
use std::sync::Arc;

/// Of steps that a word fits, so many are named.
const NAMED: usize = 8;
/// How often somebody else may have the journal while it is wanted for a moment.
const TRIES: usize = 3;

/// What `retry` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct RetryArgs {
    /// The run: its id, or its unique beginning or end.
    pub run: String,
    /// The step: its id, or the end of it that no other step has, with the host's whole or first name (`trk2/install.packages`).
    pub step: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What `skip` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct SkipArgs {
    /// The run: its id, or its unique beginning or end.
    pub run: String,
    /// The step: its id, or the end of it that no other step has, with the host's whole or first name (`trk2/install.packages`).
    pub step: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Has a failed or unknown step started again. A controller that drives the run does it at once, stopping the step first if it runs;
/// without one it is written down, and happens when the run is resumed.
///
/// # Errors
/// There is no such run or step, or nothing to decide about it (2); the record cannot be kept (7).
pub async fn retry(context: &Context, args: &RetryArgs) -> Result<Exit, Failure> {
    let reason = args.reason.as_deref().map_or("no reason given", str::trim).to_owned();
    let made = |step: String| Request::Retry { step, operator: operator(), reason: reason.clone() };
    decide(context, &args.run, &args.step, made, "will be started again").await
}

/// Has a failed or unknown step not carried out: its probe alone decides whether the effect is there.
///
/// # Errors
/// As [`retry`].
pub async fn skip(context: &Context, args: &SkipArgs) -> Result<Exit, Failure> {
    let reason = args.reason.trim().to_owned();
    if reason.is_empty() {
        return Err(Failure::new(Exit::Usage, "error: --reason wants a text: it goes into the record"));
    }
    let made = |step: String| Request::Skip { step, operator: operator(), reason: reason.clone() };
    decide(context, &args.run, &args.step, made, "will not be carried out; its probe says whether its effect is there").await
}

async fn decide(
    context: &Context,
    run: &str,
    step: &str,
    request: impl Fn(String) -> Request,
    follows: &str,
) -> Result<Exit, Failure> {
    let dir = find(context, Some(run))?;
    let plan = dir.plan().map_err(super::status::failure)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let view = View::of(&plan, &dir.events().map_err(super::status::failure)?);
        let id = resolve(&view, step)?.id.clone();
        decidable(&dir, &view, &id)?;
        if let Some(answer) = control::ask(&dir.path, &request(id.clone())).await {
            let answer = answer.map_err(refused)?;
            say(context, &format!("{id}: {answer}"));
            return Ok(Exit::Ok);
        }
        match record(&dir, &plan, &id, request(id.clone()).into()).await {
            Ok(()) => {
                say(context, &format!("{id} {follows}."));
                say(context, &format!("To go on: {}", fleet(context, &format!("resume {}", dir.id))));
                return Ok(Exit::Ok);
            }
            // A controller began between the two looks; or somebody else writes a decision down.
            Err(Written::Held(_)) if tries < TRIES => {}
            Err(Written::Held(failure) | Written::Not(failure)) => return Err(failure),
        }
    }
}

fn say(context: &Context, text: &str) {
    if context.verbosity >= 0 {
        say!("{}", sanitize(text));
    }
}

fn refused(why: String) -> Failure {
    Failure::new(Exit::Usage, format!("error: {}", sanitize(&why)))
}

/// Why a decision was not written down.
enum Written {
    /// Another process has the journal.
    Held(Failure),
    Not(Failure),
}

impl From<Failure> for Written {
    fn from(failure: Failure) -> Self {
        Self::Not(failure)
    }
}

/// Whether a person can decide on a step at all; what is in question about it is the run's own matter.
fn decidable(dir: &RunDir, view: &View, id: &str) -> Result<(), Failure> {
    match view.run.outcome {
        Some(RunOutcome::Aborted) => Err(refused(format!("run {} was aborted: no step of it is started any more", dir.id))),
        Some(RunOutcome::Ok) => Err(refused(format!("run {} finished well: there is nothing to decide", dir.id))),
        // It may still be at work: started again it would be there twice.
        _ if view.step(id).is_some_and(|step| step.assumed) => Err(refused(format!(
            "nobody has heard yet how {id} ended: its host stayed away. `resume {}` asks the host first",
            dir.id
        ))),
        _ => Ok(()),
    }
}

/// Writes a decision into the record of a run that no controller drives.
async fn record(dir: &RunDir, plan: &Plan, id: &str, what: Signal) -> Result<(), Written> {
    let (journal, chain) = Journal::reopen(&dir.path.join("journal.jsonl"), &dir.id).map_err(|error| {
        let failure = journal_failure(&error);
        if matches!(error, JournalError::Held { .. }) { Written::Held(failure) } else { Written::Not(failure) }
    })?;
    let view = View::of(plan, &chain.events);
    decidable(dir, &view, id)?;
    let mut state = RunState::new(Arc::new(plan.clone()), Bounds::recorded(&chain.events, plan, 1, 1));
    chain.events.iter().for_each(|event| state.apply(event));
    let drafts = decide::draft(&state, &what).map_err(refused)?;
    journal.append(drafts).await.map_err(|error| internal(&error))?;
    Ok(())
}

/// The step that a word names: by its id, or by the end of it. Of several that it fits, the only one that did not end well is meant.
fn resolve<'v>(view: &'v View, wanted: &str) -> Result<&'v StepView, Failure> {
    if let Some(step) = view.step(wanted) {
        return Ok(step);
    }
    let parts: Vec<&str> = wanted.split('/').collect();
    let fitting: Vec<&StepView> = view.steps.iter().filter(|step| fits(view, step, &parts)).collect();
    let open: Vec<&StepView> = fitting.iter().copied().filter(|step| step.state.is_bad()).collect();
    match (fitting.as_slice(), open.as_slice()) {
        ([step], _) | (_, [step]) => Ok(step),
        ([], _) => {
            let wait: Vec<&StepView> = view.steps.iter().filter(|step| step.state.is_bad()).collect();
            let hint = if wait.is_empty() {
                "no step of it failed or is unknown".to_owned()
            } else {
                format!("these failed or are unknown:\n{}", list(&wait))
            };
            Err(Failure::new(Exit::Usage, format!("error: run {} has no step `{wanted}`; {hint}", view.run.id)))
        }
        _ => {
            let several = if open.is_empty() { &fitting } else { &open };
            let text = format!("error: `{wanted}` could be any of these steps; give more of the id:\n{}", list(several));
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// Whether a step's id ends in these parts; a host counts by its first name too, and an instance can be left out.
fn fits(view: &View, step: &StepView, wanted: &[&str]) -> bool {
    let parts: Vec<&str> = step.id.split('/').collect();
    let Some(tail) = parts.len().checked_sub(wanted.len()).and_then(|from| parts.get(from..)) else { return false };
    tail.iter().zip(wanted).all(|(part, word)| {
        let host = part.split(':').next() == Some(step.host.as_str());
        let names = [step.host.as_str(), view.short(&step.host)];
        let with_instance = |name: &&str| step.instance.as_ref().is_some_and(|instance| *word == format!("{name}:{instance}"));
        part == word || (host && names.iter().any(|name| name == word || with_instance(name)))
    })
}

fn list(steps: &[&StepView]) -> String {
    let mut lines: Vec<String> = steps.iter().take(NAMED).map(|step| format!("  {}{}", step.id, standing(step))).collect();
    if steps.len() > NAMED {
        lines.push(format!("  … and {} more", steps.len() - NAMED));
    }
    lines.join("\n")
}

fn standing(step: &StepView) -> String {
    if step.state == StepState::Waiting { String::new() } else { format!(" ({})", step.state.as_str()) }
}
