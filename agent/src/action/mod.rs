//! What a step does on the host. Each action says what it did as lines of the step's output, and ends with [`Done`] or [`Trouble`].

mod archive;
mod checksum;
mod command;
mod dialog;
mod download;
mod edit;
mod gzip;
mod keep;
mod log;
mod packages;
mod push;
mod replace;
mod secret_file;
mod stop;
mod tree;
mod unpack;

pub(crate) use archive::checksum_file as archive_checksum_file;
pub(crate) use edit::counterpart;
pub(crate) use replace::{Place, places};
pub(crate) use secret_file::{SecretFile, provide};
pub(crate) use tree::select;

use crate::runner::files::StepFiles;
use crate::runner::halt::Halt;
use crate::runner::note;
use proto::message::Made;
use proto::step::{Command, ServiceOp};
use proto::{Action, Secret};
use std::collections::BTreeMap;
use std::time::Duration;

/// What actions have at hand.
pub(crate) struct Context<'a> {
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    /// Says when the work has to end.
    pub(crate) halt: &'a Halt,
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
    /// Files that count as backups.
    pub(crate) made: Vec<Made>,
}

/// The action did not end well.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) cause: Cause,
}

/// Whose doing the end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It ended by itself.
    Itself,
    /// We ended it: a limit, or somebody's wish. It may or may not have taken effect.
    Halted,
    /// Somebody else ended it. It may or may not have taken effect.
    Killed,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self { message, exit_code: None, cause: Cause::Itself }
    }
}

pub(crate) type Result = std::result::Result<Done, Trouble>;

impl Context<'_> {
    /// A line of the step's output.
    pub(crate) fn note(&mut self, text: &str) {
        note(self.sink, text);
    }

    /// To be asked between two pieces of work.
    pub(crate) fn go_on(&self) -> std::result::Result<(), Trouble> {
        self.halt.ordered().map_or(Ok(()), |_| Err(self.halted()))
    }

    /// The work had to end.
    pub(crate) fn halted(&self) -> Trouble {
        let message = self.halt.ordered().unwrap_or("it was stopped").to_owned();
        Trouble { message, exit_code: None, cause: Cause::Halted }
    }

    /// Sleeps a moment, between two pieces of work.
    pub(crate) fn pause(&self, time: Duration) -> std::result::Result<(), Trouble> {
        std::thread::sleep(time);
        self.go_on()
    }
}

/// Carries an action out.
pub(crate) fn perform(action: &Action, context: &mut Context<'_>) -> Result {
    match action {
        Action::Command(command) => match &command.dialog {
            Some(dialog) => dialog::run(command, dialog, context),
            None => command::run(command, command::Descendants::of(command), context),
        },
        Action::Service { op, .. } => {
            let descendants = if *op == ServiceOp::Start { command::Descendants::Outlive } else { command::Descendants::Count };
            command::run(&plain(action), descendants, context)
        }
        Action::InstallPackages { .. } => packages::install(action, context),
        Action::RemovePackages { manager, names } => packages::remove(*manager, names, context),
        Action::StopProcesses { under, term_after_s, kill_after_s } => stop::run(under, *term_after_s, *kill_after_s, context),
        Action::MoveTree { from, to } => tree::move_tree(from, to, context),
        Action::CopyTree { from, to, include, required } => tree::copy_tree(from, to, include, required, context),
        Action::Archive { source, dest } => archive::run(source, dest, context),
        Action::Checksum { file } => checksum::run(file, context),
        // Where it goes is the controller's business.
        Action::Keep { source, name, encrypt_to, .. } => keep::run(source, name, encrypt_to, context),
        Action::Unpack { archive, sha256, dest } => unpack::run(archive, sha256, dest, context),
        Action::PushFile { sha256, size, dest, mode } => {
            push::run(&push::Wanted { sha256, size: *size, dest, mode: *mode }, context)
        }
        Action::Download { url, sha256, dest } => download::run(url, sha256, dest, context),
        Action::XmlEdit { file, edits } => edit::run(file, edits, context),
        Action::ReplaceText { files, from, to } => replace::run(files, from, to, context),
        Action::Verify => Ok(Done::default()),
        Action::Inspect { .. } => Err("reading facts is not a step of a run: the bridge answers Inspect itself".to_owned().into()),
        Action::Gate { .. } => Err("a gate waits for a person at the controller; no host can carry it out".to_owned().into()),
    }
}

fn plain(action: &Action) -> Command {
    Command { argv: action.argv().unwrap_or_default(), ok: vec![0], ..Command::default() }
}
