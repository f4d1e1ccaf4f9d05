//! What a step does on the host. Each action says what it did as lines of the step's output, and ends with [`Done`] or [`Trouble`].

mod archive;
mod command;
mod download;
mod edit;
mod gzip;
mod push;
mod secret_file;
mod stop;
mod tree;

pub(crate) use archive::checksum_file as archive_checksum_file;
pub(crate) use edit::counterpart;
pub(crate) use secret_file::names as secret_names;
pub(crate) use tree::select;

use crate::runner::files::StepFiles;
use crate::runner::note;
use proto::step::{Command, ServiceOp};
use proto::{Action, Secret};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What actions have at hand.
pub(crate) struct Context<'a> {
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    /// When the step's time is up.
    pub(crate) deadline: Option<Instant>,
    /// The same as the plan gives it, for messages.
    pub(crate) deadline_s: u64,
    /// The step's files, where the runner itself acts.
    pub(crate) files: Option<&'a StepFiles>,
    /// Takes the step's output.
    pub(crate) sink: &'a mut dyn FnMut(&[u8]),
}

/// The action ended well.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) exit_code: Option<i32>,
    /// Something worth knowing; mostly empty.
    pub(crate) message: String,
}

/// The action did not end well.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    /// It was ended from outside, and may or may not have taken effect.
    pub(crate) cut_off: bool,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self { message, exit_code: None, cut_off: false }
    }
}

pub(crate) type Result = std::result::Result<Done, Trouble>;

impl Context<'_> {
    /// A line of the step's output.
    pub(crate) fn note(&mut self, text: &str) {
        note(self.sink, text);
    }

    /// To be asked between two pieces of work.
    pub(crate) fn in_time(&self) -> std::result::Result<(), Trouble> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(self.late()),
            _ => Ok(()),
        }
    }

    /// The step's time is up.
    pub(crate) fn late(&self) -> Trouble {
        let message = format!("it did not end within {} s and was stopped", self.deadline_s);
        Trouble { message, exit_code: None, cut_off: true }
    }

    /// Sleeps, but not beyond the deadline.
    pub(crate) fn pause(&self, time: Duration) -> std::result::Result<(), Trouble> {
        let left = self.deadline.map_or(time, |deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(time.min(left));
        self.in_time()
    }
}

/// Carries an action out.
pub(crate) fn perform(action: &Action, context: &mut Context<'_>) -> Result {
    match action {
        Action::Command(command) => command::run(command, command::Descendants::of(command), context),
        Action::Service { op, .. } => {
            let descendants = if *op == ServiceOp::Start { command::Descendants::Outlive } else { command::Descendants::Count };
            command::run(&plain(action), descendants, context)
        }
        // Maintainer scripts may restart services: those live on, but while the package manager itself runs, so does the step.
        Action::InstallPackages { .. } | Action::RemovePackages { .. } => {
            let mut command = plain(action);
            command.env.insert("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned());
            command::run(&command, command::Descendants::MayRemain, context)
        }
        Action::StopProcesses { under, term_after_s, kill_after_s } => stop::run(under, *term_after_s, *kill_after_s, context),
        Action::MoveTree { from, to } => tree::move_tree(from, to, context),
        Action::CopyTree { from, to, include, required } => tree::copy_tree(from, to, include, required, context),
        Action::Archive { source, dest } => archive::run(source, dest, context),
        Action::PushFile { sha256, size, dest, mode } => {
            push::run(&push::Wanted { sha256, size: *size, dest, mode: *mode }, context)
        }
        Action::Download { url, sha256, dest } => download::run(url, sha256, dest, context),
        Action::XmlEdit { file, edits } => edit::run(file, edits, context),
        Action::Verify => Ok(Done::default()),
        Action::Inspect { .. } => Err("reading facts is not a step of a run: the bridge answers Inspect itself".to_owned().into()),
        Action::Gate { .. } => Err("a gate waits for a person at the controller; no host can carry it out".to_owned().into()),
    }
}

fn plain(action: &Action) -> Command {
    Command { argv: action.argv().unwrap_or_default(), ok: vec![0], ..Command::default() }
}
