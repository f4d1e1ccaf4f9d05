//! What really happened on the hosts, as an observer sees it who stands beside all of them. The invariants are judged from this and from
//! the hosts' journals, never from what the engine believes.

use proto::StepId;
use proto::event::Outcome;
use proto::message::{Attempt, Mode};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    /// A host's lock was given to a controller.
    Locked { host: String, run: String, token: u64 },
    /// A host's lock was let go.
    Released { host: String },
    /// Facts were read from a host.
    Inspected { host: String, run: String },
    /// A controller wrote down that it grants an attempt.
    Granted { run: String, at: Attempt },
    /// A runner was started for an attempt. The token is that of the controller that granted it.
    Began { host: String, run: String, at: Attempt, token: u64, mode: Mode },
    /// The runner began to act. Not said where it only looked.
    Acted { host: String, run: String, at: Attempt },
    /// The runner is gone without a result.
    Died { host: String, run: String, at: Attempt },
    /// The attempt ended, as the host sees it.
    Ended { host: String, run: String, at: Attempt, outcome: Outcome },
    /// The host took the attempt back.
    Revoked { host: String, run: String, at: Attempt },
    /// A person decided about a step, or confirmed it (a gate).
    Decided { run: String, step: StepId, what: Decision },
    /// The controller lost a host for a while.
    Lost { run: String, host: String },
    /// The controller ended a platform's part in a run for now.
    Left { run: String, platform: String },
}

/// What a person decides about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Retry,
    Skip,
    Accept,
    Confirm,
}
