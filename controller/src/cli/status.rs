//! `status [RUN]`: where a run stands.

use super::attach;
use super::control;
use super::history;
use super::next::{here, next};
use super::pick;
use super::{Context, Exit, Failure, Format};
use crate::check::POSTUPGRADE;
use crate::plan::Plan;
use crate::report::{self, Next, Record};
use crate::run::journal;
use crate::run::store::RunDir;
use crate::view::{StepState, View};
use jiff::Timestamp;
use proto::Event;
use serde_json::json;

/// What `status` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StatusArgs {
    /// The run: its id, or its unique beginning or end; the one that is driven now when left out, else the newest
    pub run: Option<String>,
}

/// Prints where a run stands.
///
/// # Errors
/// As [`page`], or standard output cannot be written (7).
pub async fn run(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    print(&page(context, args)?)
}

/// What is printed.
///
/// # Errors
/// There is no such run (2), or it cannot be read (7).
pub fn page(context: &Context, args: &StatusArgs) -> Result<String, Failure> {
    let found = pick::shown(context, args.run.as_deref())?;
    let (mut view, mut record) = read(&found)?;
    if let Ok(plan) = found.plan() {
        record.said = attach::last_lines(&plan, &found.path, &view);
        // Other runs are read where something depends on it.
        if view.steps.iter().any(|step| step.name == POSTUPGRADE && step.state == StepState::Running) {
            view.expected = history::read(context).expected_steps(&plan);
        }
    }
    let record = Record { undone: pick::undone(context).map_err(failure)?.remove(&found.id).unwrap_or_default(), ..record };
    let rollback = record.undone.values().max().filter(|_| record.is_undone(&view));
    let next = match rollback {
        Some(rollback) => vec![Next { when: "The rollback".to_owned(), command: here(context, &format!("status {rollback}")) }],
        None => next(context, &view, record.driven == Some(true)),
    };
    match context.format {
        Format::Text => Ok(report::status(&view, &record, &next, Timestamp::now(), context.color.0)),
        Format::Json => {
            let mut page = report::json(&view, &record);
            page["next"] = next.iter().map(|next| json!({ "when": next.when, "command": next.command })).collect();
            pretty(&page)
        }
    }
}

/// What a run's directory says.
pub(super) struct Recorded {
    pub(super) plan: Plan,
    /// The journal, as it is.
    pub(super) bytes: Vec<u8>,
    /// What it says.
    pub(super) events: Vec<Event>,
}

impl Recorded {
    pub(super) fn read(run: &RunDir) -> Result<Self, Failure> {
        let plan = run.plan().map_err(failure)?;
        let path = run.path.join("journal.jsonl");
        let bytes = std::fs::read(&path)
            .map_err(|error| Failure::new(Exit::Internal, format!("the journal {} cannot be read: {error}", path.display())))?;
        let chain = journal::parse(&bytes, &path).map_err(|error| failure(error.into()))?;
        Ok(Self { plan, bytes, events: chain.events })
    }

    pub(super) fn view(&self, run: &RunDir) -> View {
        let mut view = View::of(&self.plan, &self.events);
        // A run that was cut off before its first event has no other place that knows its name.
        view.run.id.clone_from(&run.id);
        view
    }
}

/// The view of a run and what is known beside it. No host is asked, and no other run is looked at.
pub(super) fn read(run: &RunDir) -> Result<(View, Record), Failure> {
    let driven = control::is_driven(&run.path);
    let recorded = Recorded::read(run)?;
    let mut check = report::chain::look(&recorded.bytes, &recorded.events);
    check.hosts.unasked = Some("only `caravan report` asks them".to_owned());
    let dir = run.path.display().to_string();
    let record = Record { dir, chain: Some(check), driven: Some(driven), ..Record::default() };
    Ok((recorded.view(run), record))
}

/// A wrong name is wrong usage; everything else is about the state directory.
pub(super) fn failure(error: crate::run::store::StoreError) -> Failure {
    use crate::run::store::StoreError;
    let exit = match error {
        StoreError::NoRuns(_) | StoreError::NoRun { .. } | StoreError::Ambiguous { .. } => Exit::Usage,
        _ => Exit::Internal,
    };
    Failure::new(exit, error.to_string())
}

/// JSON as it is printed.
pub(super) fn pretty(value: &serde_json::Value) -> Result<String, Failure> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Internal, format!("cannot print JSON: {error}")))?;
    Ok(text + "\n")
}

/// Prints data to standard output. That a reader went away (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<Exit, Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Ok),
    }
}
