//! What a host writes down about a run, in one form: lines of its journal, and what a runner is told.

use proto::StepId;
use proto::message::{Granted, HostEvent};
use serde::{Deserialize, Serialize};

/// One record.
///
/// All files have steps in this form only, with the tag inside as in [`proto::ToAgent`]: reading steps takes a lot of code, and
/// this way the agent has it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// Steps were granted, in one message.
    Grant {
        /// The steps.
        steps: Vec<Granted>,
        /// The controller's witness.
        head: String,
        /// The controller's token.
        token: u64,
    },
    /// Something happened to a step.
    Event(HostEvent),
    /// These steps had not begun and will not.
    Revoked {
        /// The steps.
        steps: Vec<StepId>,
    },
    /// A controller with this token attached.
    Token {
        /// The token.
        token: u64,
    },
    /// One step is to be carried out.
    Step(Box<Granted>),
}
