//! What a run needs besides its plan, and what comes out of it.

use super::journal::JournalError;
use super::state::Bounds;
use super::touch::Clock;
use crate::hosts::{AgentHello, OpenError};
use crate::plan::{Phase, PlannedStep};
use proto::event::{Finding, RunOutcome};
use proto::message::Claim;
use proto::{Event, Query, Reading, RunAs, Secret, StepId};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;

/// What was read from a host in this run. Kept in memory only.
#[derive(Debug, Clone)]
pub enum HostReading {
    /// It answered.
    Read(Read),
    /// It could not be reached.
    Away(OpenError),
}

/// What a host answered.
#[derive(Debug, Clone)]
pub struct Read {
    /// The questions.
    pub queries: Vec<Query>,
    /// The answers, in the same order.
    pub readings: Vec<Reading>,
    /// The controller's clock when it was asked, milliseconds since 1970 UTC.
    pub asked_ms: u64,
    /// The controller's clock when its answers were there.
    pub answered_ms: u64,
    /// Its agent.
    pub agent: AgentHello,
}

/// Why hosts were read.
#[derive(Debug, Clone, Copy)]
pub enum Occasion<'a> {
    /// A phase of the plan reads them.
    Phase(Phase),
    /// The run was taken up again, and the platform is past its preflight.
    Again {
        /// Its steps that are not proven.
        left: &'a [&'a PlannedStep],
    },
}

/// Evaluates what was read on a platform: platform name, why, readings by host.
pub type Judge = dyn Fn(&str, Occasion<'_>, &BTreeMap<String, HostReading>) -> Vec<Finding> + Send + Sync;

/// What the hosts of a platform are asked when a run is taken up again: platform name, its steps that are not proven.
pub type Questions = dyn Fn(&str, &[&PlannedStep]) -> BTreeMap<String, Vec<Query>> + Send + Sync;

/// Reads what a step that ended has printed, out of the file that it is kept in: platform name, step, file.
pub type Reader = dyn Fn(&str, &PlannedStep, &Path) -> Vec<Finding> + Send + Sync;

/// Asks a person to confirm a gate: gate id and what is asked. Answers the note, or nothing when the person declines.
pub type Asker = dyn Fn(String, String) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync;

/// Sees what happens, after it is durable.
pub trait Observer: Send {
    /// An event was appended.
    fn event(&mut self, event: &Event);
    /// A step printed a line (as the host sent it: not made harmless yet).
    fn line(&mut self, host: &str, step: &StepId, text: &str);
}

/// What a person wants of a run: from the keyboard, or from another terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Revoke what has not begun, wait for what runs, stop there.
    Pause {
        /// Who.
        operator: String,
    },
    /// Leave at once; granted steps go on.
    Detach,
    /// Pause, and end the run for good.
    Abort {
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Start a failed or unknown step again. One that runs is ended first.
    Retry {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Do not carry a failed or unknown step out: its probe alone decides.
    Skip {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Let a skipped step count although its probe does not show the effect.
    Accept {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Confirm a gate.
    Confirm {
        /// The gate's id.
        gate: String,
        /// The person's note.
        note: String,
        /// Who.
        operator: String,
    },
}

/// A [`Signal`] on its way to the engine.
#[derive(Debug)]
pub struct Command {
    /// What is wanted.
    pub what: Signal,
    /// Where the answer goes: what was done, or why it was not.
    pub reply: Option<oneshot::Sender<Result<String, String>>>,
}

impl From<Signal> for Command {
    fn from(what: Signal) -> Self {
        Self { what, reply: None }
    }
}

/// How a host is reached, as far as the engine has to know.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Caravan's directory on the host.
    pub host_state: String,
    /// Whether the agent has to be root.
    pub root: bool,
    /// Whom read-only programs run as.
    pub run_as: RunAs,
    /// Secrets that its steps need.
    pub secrets: BTreeMap<String, Secret>,
}

/// What a run needs besides its plan.
pub struct Options {
    /// The command, as recorded: `migrate`.
    pub command: String,
    /// The run's id.
    pub run: String,
    /// Who runs it, and from where: what its hosts' locks say.
    pub claim: Claim,
    /// What takes part and how much at once.
    pub bounds: Bounds,
    /// The text of `--limit`, for the record.
    pub limit_text: Option<String>,
    /// How each host is reached.
    pub hosts: BTreeMap<String, HostOptions>,
    /// Files of the workstation by digest.
    pub files: HashMap<String, PathBuf>,
    /// The run's directory, for output files.
    pub dir: PathBuf,
    /// Gates confirmed beforehand: gate id to note.
    pub confirmed: BTreeMap<String, String>,
    /// Skipped steps that may count without proof: step id to reason.
    pub accepted: BTreeMap<String, String>,
    /// How long a host may stay away while its steps are open.
    pub patience: Duration,
    /// What the clock has to say about touching platforms.
    pub clock: Clock,
    /// The run is only taken up to be ended for good, for this reason.
    pub abort: Option<String>,
    /// Evaluates readings.
    pub judge: Box<Judge>,
    /// What is asked when the run is taken up again.
    pub again: Box<Questions>,
    /// Reads what steps printed.
    pub reader: Box<Reader>,
    /// Asks at the terminal; without it gates that are not confirmed make the run wait.
    pub asker: Option<Box<Asker>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: RunOutcome,
    /// The exit code that goes with it.
    pub exit_code: u8,
}

/// Why the engine itself could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The record cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Plan or events have no form in which hosts could keep them.
    #[error("plan or record cannot be written down for the hosts: {error}")]
    Kept {
        /// What is wrong.
        error: String,
    },
    /// A host did things for the run that its record does not have.
    #[error(
        "{host} reports attempt {attempt} of {step}, which this record never granted: the record is an older copy, or lost its last lines. Nothing further was granted; steps that run go on. Move the run's directory away, then put the record together from the hosts: `caravan resume RUN --from-hosts`"
    )]
    Behind {
        /// The host.
        host: String,
        /// The step.
        step: String,
        /// The attempt.
        attempt: u32,
    },
    /// Output of a host cannot be kept.
    #[error("the record of {host} cannot be kept: {error}. Nothing further was granted; steps that run go on")]
    Output {
        /// The host.
        host: String,
        /// What the system said.
        error: String,
    },
}

impl EngineError {
    /// The run cannot be written down for its hosts.
    pub(super) fn kept(error: serde_json::Error) -> Self {
        Self::Kept { error: error.to_string() }
    }
}
