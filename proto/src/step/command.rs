//! Programs that a step runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A program to run. Arguments are passed as they are; no shell reads them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments. A program without `/` is looked for in `PATH`.
    pub argv: Vec<String>,
    /// Added to the environment. Never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables that name a file with a secret in it (`PGPASSFILE`). The file lives in memory only; the value is
    /// the file's content, in which `{secret:NAME}` stands for a secret that the controller sends apart from the plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_files: BTreeMap<String, String>,
    /// A shell file that is sourced first if it exists (`nl6/env.sh`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Exit codes that mean success.
    #[serde(default = "default_ok", skip_serializing_if = "is_default_ok")]
    pub ok: Vec<i32>,
    /// Lines of output that mean failure whatever the exit code says (`>>>` and `PU-0007` of postupgrade, `Removing:` of yum).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_on: Vec<LineRule>,
    /// A log file that the program writes; the last path segment can be a pattern with `*`, the newest file counts. While the program
    /// itself is silent, the step's output gets a line about it now and then, which begins with [`LOG_MARK`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The command starts a service that outlives the step: its descendants do not count as the step still running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starts_service: bool,
    /// The program asks for passwords at its terminal: it gets a terminal of its own, on which they are typed as it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialog: Option<Dialog>,
}

/// What is typed into a program that asks at its terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialog {
    /// Ways to answer. The second is tried where the program ended by itself after the first, and refused; and so on.
    pub ways: Vec<Answers>,
    /// What the program says when it has done it. Without that, and one of the exit codes of success, it has not.
    pub says: String,
    /// How many seconds the program may take to ask, and to end after the last answer.
    pub patience_s: u64,
}

/// One way to answer a program's questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The names of the secrets that are typed, each when the program asks, in this order.
    pub secrets: Vec<String>,
    /// What it means that this way led to the end; empty where that is what was expected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub means: String,
}

fn default_ok() -> Vec<i32> {
    vec![0]
}

fn is_default_ok(ok: &Vec<i32>) -> bool {
    ok.as_slice() == [0]
}
/// A rule on one line of output. Of `starts_with` and `contains` at least one is not empty; where both are, both must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineRule {
    /// The line begins with this, after white space and a time of day (`11:57:51 > `) as nlserver puts before its lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub starts_with: String,
    /// The line has this somewhere in it, whatever it begins with (`PU-0007` of postupgrade).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contains: String,
    /// What such a line means, for the error text.
    pub means: String,
}

impl LineRule {
    /// Whether nothing is asked of a line. Such a rule would be about every line, so it is about none.
    pub fn is_empty(&self) -> bool {
        self.starts_with.trim().is_empty() && self.contains.trim().is_empty()
    }
}
