//! Reading a run's journal while a controller writes it.

use super::control;
use super::next::next;
use super::status::failure;
use super::{Context, Exit, Failure};
use crate::plan::Plan;
use crate::report::{Record, summary};
use crate::run::journal;
use crate::run::store::{RunDir, StoreError};
use crate::view::text::count;
use crate::view::{StepState, View};
use proto::Event;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// How often the journal is looked at.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// A run that is watched.
pub(super) struct Follower {
    pub(super) dir: RunDir,
    pub(super) plan: Plan,
    path: PathBuf,
    /// The end of the last whole line that was read.
    offset: u64,
}

/// What a look at the journal came to.
pub(super) struct Seen {
    /// New events, in order.
    pub(super) events: Vec<Event>,
    /// Whether a controller drives the run.
    pub(super) driven: bool,
}

impl Follower {
    pub(super) fn new(dir: RunDir) -> Result<Self, Failure> {
        let plan = dir.plan().map_err(failure)?;
        let path = dir.path.join("journal.jsonl");
        Ok(Self { dir, plan, path, offset: 0 })
    }

    /// What was written since the last look. When no controller drives the run and there is nothing new, nothing more will come.
    ///
    /// A line that is not whole yet is left for the next look: it is being written, or the next controller cuts it off.
    pub(super) fn look(&mut self) -> Result<Seen, Failure> {
        // Asked first: what a controller wrote before it ended is then read below.
        let driven = control::is_driven(&self.dir.path);
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Internal, format!("error: the journal {} cannot be read: {error}", self.path.display()))
        };
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.offset)).map_err(cannot)?;
                file.read_to_end(&mut bytes).map_err(cannot)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        let events = journal::parse(&bytes, &self.path).map_err(|error| failure(StoreError::Journal(error)))?.events;
        self.offset += bytes.len() as u64;
        Ok(Seen { events, driven })
    }

    /// Waits until no controller drives the run any more; says on standard error what it still waits for.
    pub(super) async fn until_rest(&mut self, context: &Context) -> Result<View, Failure> {
        let mut view = View::new(&self.plan);
        view.run.id.clone_from(&self.dir.id);
        let mut said = String::new();
        loop {
            let seen = self.look()?;
            seen.events.iter().for_each(|event| view.apply(event));
            if !seen.driven && seen.events.is_empty() {
                return Ok(view);
            }
            let waits = runs_still(&view);
            if context.verbosity >= 0 && waits != said && !waits.is_empty() {
                eprintln!("{waits}");
            }
            said = waits;
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The steps that hosts still work on: `still runs: mkt1 postupgrade, trk[01-02] install.packages`; nothing when none does.
pub(super) fn runs_still(view: &View) -> String {
    let running: Vec<_> = view.steps.iter().filter(|step| step.state == StepState::Running).collect();
    let named: Vec<String> = running.iter().take(4).map(|step| format!("{} {}", view.short(&step.host), step.name)).collect();
    match running.len() {
        0 => String::new(),
        n if n > named.len() => format!("still running: {}, and {} more", named.join(", "), count(n - named.len(), "step")),
        _ => format!("still running: {}", named.join(", ")),
    }
}

/// Prints the end screen of a run on standard error.
pub(super) fn say_end(context: &Context, dir: &RunDir, view: &View) {
    if context.verbosity >= 0 {
        let record = Record { dir: dir.path.display().to_string(), ..Record::default() };
        eprintln!("{}", summary(view, &record, &next(context, view, false), context.color.1).trim_end());
    }
}
