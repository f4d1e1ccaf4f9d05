//! What the controller and the agent say to each other. Sent as JSON in control frames ([`crate::frame`]): self-describing, so
//! that an older agent can still be talked to.
//!
//! One exec channel of one SSH connection carries all of it. On the host the *bridge* (the process that sshd started) answers
//! `Hello`, `Inspect` and `Exec` itself. From `Attach` on it passes everything about steps to the *supervisor* of the run, which
//! lives on when the bridge dies.

use crate::event::Outcome;
use crate::inspect::{Query, Reading};
use crate::secret::Secret;
use crate::step::{RunAs, StepId, StepSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From the controller to an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToAgent {
    /// The first message: which protocols the controller speaks.
    Hello {
        /// The newest one.
        protocol: u16,
        /// The oldest one.
        oldest: u16,
        /// The controller's version, for messages to people.
        version: String,
    },
    /// Secrets by name, for `{secret:NAME}` and for fingerprints. Kept in memory, never written, masked in output.
    Secrets {
        /// The values.
        values: BTreeMap<String, Secret>,
    },
    /// Reads facts. Answered by [`FromAgent::Inspected`] with the same id.
    Inspect {
        /// Chosen by the controller.
        id: u32,
        /// The questions.
        queries: Vec<Query>,
        /// Whom programs run as.
        run_as: RunAs,
    },
    /// Runs one ad-hoc command under the bridge, outside any run. Output comes as data frames with stream `id`, the end as
    /// [`FromAgent::Exited`]. Ends with the connection.
    Exec {
        /// Chosen by the controller.
        id: u32,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Takes the host's lock for a run, and starts the run's supervisor or connects to the one that is there. Answered by
    /// [`FromAgent::Attached`], [`FromAgent::Refused`] or [`FromAgent::Busy`].
    Attach {
        /// The run.
        run: String,
        /// Caravan's directory on the host.
        host_state: String,
        /// Who wants the lock.
        #[serde(flatten)]
        claim: Claim,
        /// Everything up to this `host_seq` is durable at the controller and is not sent again.
        acked: u64,
        /// For each step whose output the controller has in part: up to which offset.
        output: BTreeMap<StepId, u64>,
        /// Lines for the host to keep, see [`crate::host::Record::Kept`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keep: Vec<String>,
    },
    /// Grants steps, to be carried out one after the other, each only if the one before it ended well. A step whose attempt the host
    /// knows already is not started again; if it was revoked, [`FromAgent::Revoked`] says so again. So a controller that lost its
    /// connection repeats the grants that are open, and learns all it missed.
    Grant {
        /// The steps.
        steps: Vec<Granted>,
        /// The hash of the controller's journal line that holds this grant, as a witness.
        head: String,
        /// The fencing token that the host gave this controller ([`FromAgent::Attached`]).
        token: u64,
        /// Lines for the host to keep before anything of this grant begins, see [`crate::host::Record::Kept`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keep: Vec<String>,
    },
    /// Takes back steps that have not begun. Answered by [`FromAgent::Revoked`].
    Revoke,
    /// Ends the processes of a running step: SIGTERM, then SIGKILL. Its probe then says what became of it. Nothing happens where this
    /// attempt does not run.
    Stop {
        /// The step and its attempt.
        #[serde(flatten)]
        attempt: Attempt,
    },
    /// Everything up to this `host_seq` is durable at the controller.
    Ack {
        /// The last durable event.
        host_seq: u64,
    },
    /// Answers [`FromAgent::NeedFile`]: data frames with this stream number follow, then [`ToAgent::FileEnd`].
    FileBegin {
        /// The file's digest.
        sha256: String,
        /// The stream number of its data frames.
        stream: u32,
    },
    /// The end of a file.
    FileEnd {
        /// The stream that ends.
        stream: u32,
    },
    /// The file cannot be sent.
    FileRefused {
        /// The file's digest.
        sha256: String,
        /// Why.
        reason: String,
    },
    /// Fetches a piece of the file that a step offers ([`FromAgent::Offer`]). Answered by data frames with this stream number, which is
    /// one of [`crate::frame::is_fetched`].
    Fetch {
        /// The file's digest.
        sha256: String,
        /// The stream number of its data frames.
        stream: u32,
        /// Where the piece begins.
        offset: u64,
        /// How long it is; never more than [`crate::frame::FETCH_LIMIT`].
        length: u32,
    },
    /// The file that a step offers is kept: whole, checked and durable where it belongs.
    FileKept {
        /// The file's digest.
        sha256: String,
    },
    /// Stores a file on a host that keeps it for another one. Answered by [`FromAgent::StoreAt`]; then its bytes come as data frames
    /// with the stream `id`, in order. The bridge does this by itself, outside any run. At the end [`FromAgent::Stored`] follows, or
    /// [`FromAgent::NotStored`] at any time.
    Store {
        /// Chosen by the controller.
        id: u32,
        /// The file to be. Until it is whole and checked it has another name.
        dest: String,
        /// Its size in bytes.
        size: u64,
        /// Its SHA-256, lower-case hex.
        sha256: String,
    },
    /// The controller is done with this host for now: what has not begun is revoked, and the supervisor ends once nothing runs any more.
    Finish {
        /// The run is over on this host, and the host's lock is released. Otherwise the run keeps it: a platform that is half migrated
        /// is nobody else's.
        release: bool,
    },
}

/// Who wants a host's lock (invariant 6 of the design).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The state directory of a workstation, by a random id: it may go on with its own runs.
    pub seat: String,
    /// One life of a controller, by a random id: it keeps its token over reconnects.
    pub controller: String,
    /// Account and workstation, for people.
    pub operator: String,
    /// The host is to be taken from whoever holds it, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_over: Option<String>,
    /// The run whose lock this run may inherit on the same seat (a rollback follows the run that it undoes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<String>,
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The step.
    pub step: StepId,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// One granted step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// The step.
    pub spec: StepSpec,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Act, or only prove.
    pub mode: Mode,
}

/// Whether a step acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Carry it out, then prove its post-condition.
    Act,
    /// Only run the probe: the effect is there (`skipped`), or it is not (`failed`). For hosts outside `--limit`.
    Prove,
}

/// From an agent to the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromAgent {
    /// The answer to [`ToAgent::Hello`].
    Hello {
        /// The protocol that will be spoken.
        protocol: u16,
        /// The agent's version.
        version: String,
        /// `/proc/sys/kernel/random/boot_id`.
        boot_id: String,
        /// Effective user id.
        euid: u32,
        /// The account's name.
        user: String,
    },
    /// The protocols do not overlap. The agent ends.
    Incompatible {
        /// The newest protocol of the agent.
        protocol: u16,
        /// The oldest protocol of the agent.
        oldest: u16,
        /// The agent's version.
        version: String,
    },
    /// The answer to [`ToAgent::Inspect`].
    Inspected {
        /// The question's id.
        id: u32,
        /// One for each query, in order.
        readings: Vec<Reading>,
    },
    /// An ad-hoc command ended.
    Exited {
        /// The command's id.
        id: u32,
        /// Its exit code; `None` when it could not be started or a signal ended it.
        code: Option<i32>,
        /// What went wrong, where something did.
        message: String,
    },
    /// The host is this controller's, and the supervisor of the run is there.
    Attached {
        /// The newest event in the host's journal; those after `acked` follow.
        host_seq: u64,
        /// What was granted and has not ended.
        open: Vec<Attempt>,
        /// The fencing token that goes with every grant. Given out by the host; it only ever grows there.
        token: u64,
    },
    /// Attaching or granting was refused: another run or a newer token holds this host.
    Refused {
        /// Why, with owner, run and since where another run holds the host.
        reason: String,
    },
    /// The host is this controller's, but a step of the run that held it before still runs. That run starts nothing more; attach again
    /// in a while.
    Busy {
        /// What still runs.
        reason: String,
    },
    /// Something happened to a step.
    Event(HostEvent),
    /// These steps had not begun and will not.
    Revoked {
        /// The steps, with the attempts that will not be.
        steps: Vec<Attempt>,
    },
    /// A step needs a file's content from this offset on.
    NeedFile {
        /// The file's digest.
        sha256: String,
        /// Where to go on.
        offset: u64,
    },
    /// A step has a file for the controller, which does not change any more. Said once on each connection.
    Offer {
        /// The step and its attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// What is offered.
        #[serde(flatten)]
        file: Offered,
    },
    /// The answer to [`ToAgent::Store`]: so much of the file is there already.
    StoreAt {
        /// The id of the request.
        id: u32,
        /// Where to go on.
        offset: u64,
    },
    /// The file is there: whole, checked and durable.
    Stored {
        /// The id of the request.
        id: u32,
    },
    /// The file cannot be stored.
    NotStored {
        /// The id of the request.
        id: u32,
        /// Why.
        reason: String,
    },
    /// The answer to [`ToAgent::Finish`]: nothing runs, the supervisor ends.
    Finished,
    /// The agent cannot go on (its disk is full, its directory not writable). It ends.
    Fatal {
        /// What happened and what to do.
        message: String,
    },
}

/// An encrypted file that a step offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// SHA-256 of the encrypted file, lower-case hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of what is in it.
    pub plain_sha256: String,
    /// Size of what is in it, in bytes.
    pub plain_size: u64,
}

/// A file that a step made, and that counts as a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The file.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, lower-case hex.
    pub sha256: String,
}

/// An entry of a host's own journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostEvent {
    /// Position in the host's journal of this run, from 1.
    pub host_seq: u64,
    /// The host's clock, milliseconds since 1970 UTC.
    pub host_time_ms: u64,
    /// Which boot of the host this was.
    pub boot_id: String,
    /// The step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What happened.
    pub what: Happened,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It began. Durable on the host before the action starts.
    Started {
        /// The stream number of its output frames.
        stream: u32,
    },
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
        /// The program's exit code, where there was one.
        exit_code: Option<i32>,
        /// How long it took.
        duration_ms: u64,
        /// One or a few lines for people: what was expected, what was seen. Empty when all is well.
        message: String,
        /// How many bytes of output it made (after masking).
        output_len: u64,
        /// It was ended from outside (its process or its runner was killed, the machine went down) rather than by itself or by its
        /// limits. The outcome is what the probe found then: `failed` means that the effect is provably not there.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        died: bool,
    },
    /// It made a file that counts as a backup. Told together with its end, before it.
    Made(Made),
    /// A watchdog noticed something, and the step goes on ([`crate::step::OnLimit`]).
    Alert {
        /// What was noticed.
        message: String,
        /// A person is to decide whether it is stopped.
        ask: bool,
    },
}
