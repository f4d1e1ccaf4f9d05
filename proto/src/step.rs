//! What an agent can be told to do.

mod action;
mod command;
mod manager;
mod probe;

pub use action::{Action, KeepTo, LOG_MARK, XmlChange, XmlEdit};
pub use command::{Answers, Command, Dialog, LineRule};
pub use manager::{PackageManager, ServiceManager, ServiceOp};
pub use probe::Probe;

use serde::{Deserialize, Serialize};
use std::fmt;

/// The identity of a step in a plan: `PLATFORM/PHASE/STAGE/HOST[:INSTANCE]/NAME`. Stable across resume and retry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl StepId {
    /// The step's name, the last part of the id (`postupgrade`, `install.packages`, ...).
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a step runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RunAs {
    /// The account that the SSH session logged in with (written `login`).
    Login,
    /// A named account of the host (`root`, `neolane`).
    User(String),
}

impl From<String> for RunAs {
    fn from(value: String) -> Self {
        if value == "login" { Self::Login } else { Self::User(value) }
    }
}

impl From<RunAs> for String {
    fn from(value: RunAs) -> Self {
        match value {
            RunAs::Login => "login".to_owned(),
            RunAs::User(name) => name,
        }
    }
}

/// Everything an agent needs to carry out one step. The controller resolves every variable before this is made: nothing in it
/// is looked up again on the host, so that what was planned is what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// Which step this is.
    pub id: StepId,
    /// One line for people.
    pub title: String,
    /// The account it runs as.
    pub run_as: RunAs,
    /// What it does.
    pub action: Action,
    /// The step applies only where this holds. Looked at before anything else, whatever the mode and the attempt. Where it does not
    /// hold there is nothing to do: the step ends as skipped with what was seen, and counts as proven. Where nobody can tell, the
    /// outcome is unknown and nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<Probe>,
    /// How to see whether its effect is there. Used as the post-condition right after the action, to decide an unknown outcome,
    /// and instead of the action for hosts outside `--limit`. Without a probe only the action's own result is known, and an
    /// unknown outcome waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whether the action may be started again after an attempt that is provably dead and whose effect is provably not there.
    #[serde(default)]
    pub repeat: Repeat,
    /// How long it may take and how long it may be silent.
    #[serde(default)]
    pub limits: Limits,
}

/// Whether an action may be started again after a dead, incomplete attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// A person decides.
    #[default]
    Ask,
    /// Yes: it starts from the same state, or the vendor documents that it resumes where it stopped (postupgrade).
    Allowed,
}

/// Time limits of a step. Seconds; zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The step must end within this many seconds.
    #[serde(default)]
    pub deadline_s: u64,
    /// The post-condition may take this many seconds to become true after the action (services that start slowly).
    #[serde(default)]
    pub settle_s: u64,
    /// The step may go without output, and without growth of the files that `watch` names, for this many seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub silence_s: u64,
    /// Log files whose growth counts as a sign of life; the last path segment can have `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<String>,
    /// What happens when a limit is reached.
    #[serde(default, skip_serializing_if = "OnLimit::is_stop")]
    pub then: OnLimit,
}

fn is_zero(seconds: &u64) -> bool {
    *seconds == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self { deadline_s: 3600, settle_s: 0, silence_s: 0, watch: Vec::new(), then: OnLimit::Stop }
    }
}

/// What happens to a step that reaches one of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// It is ended, and its probe decides.
    #[default]
    Stop,
    /// It goes on, and people are told.
    Tell,
    /// It goes on, and a person is asked whether it is to be stopped (`retry`, which probes first).
    Ask,
}

impl OnLimit {
    fn is_stop(&self) -> bool {
        *self == Self::Stop
    }
}
