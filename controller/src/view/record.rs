//! What happened beside the steps, as a view keeps it: findings, gates, decisions, controllers, hosts out of reach.

use super::model::StepState;
use jiff::Timestamp;
use proto::event::{Conditions, Finding, Status};

/// An attempt at a step that is over, and that another one follows or is to follow.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// How it ended.
    pub state: StepState,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// How long it took, as the host measured it. Milliseconds.
    pub duration_ms: u64,
    /// What was expected and what was seen.
    pub message: String,
    /// It was ended from outside, rather than by itself.
    pub died: bool,
}

impl Attempt {
    /// One word for reports: how it ended.
    pub fn outcome(&self) -> &'static str {
        match self.state {
            StepState::Waiting => "revoked",
            StepState::Granted | StepState::Running => "not known",
            StepState::Ended(_) => self.state.as_str(),
        }
    }
}

/// What a watchdog noticed about a running step.
#[derive(Debug, Clone)]
pub struct Alert {
    /// When.
    pub time: Option<Timestamp>,
    /// Which attempt it was about.
    pub attempt: u32,
    /// What was noticed.
    pub message: String,
    /// A person is to decide whether the step is stopped.
    pub ask: bool,
}

/// The result of a check.
#[derive(Debug, Clone)]
pub struct FindingView {
    /// The phase it belongs to; empty when the journal does not say.
    pub phase: String,
    /// The stage that it was found in; empty when the journal does not say.
    pub stage: String,
    /// The step that it was read from, which holds its barrier up by itself; nothing where a check found it.
    pub step: Option<String>,
    /// When it came.
    pub time: Option<Timestamp>,
    /// The result. Its texts are made harmless for terminals.
    pub finding: Finding,
}

impl FindingView {
    /// Whether it holds a barrier up: failing or unknown, and not overridden.
    pub fn blocks(&self) -> bool {
        self.step.is_none() && self.finding.overridden.is_none() && matches!(self.finding.status, Status::Failure | Status::Unknown)
    }
}

/// A gate that waited or was confirmed.
#[derive(Debug, Clone)]
pub struct GateView {
    /// Its id.
    pub id: String,
    /// Its platform, in [`View::platforms`].
    pub platform: Option<usize>,
    /// What the person has to have done.
    pub ask: String,
    /// Since when it waits or waited.
    pub since: Option<Timestamp>,
    /// When, by whom and with which note it was confirmed.
    pub confirmed: Option<Confirmation>,
}

/// Who confirmed a gate.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// When.
    pub time: Option<Timestamp>,
    /// Who.
    pub operator: String,
    /// The note.
    pub note: String,
}

/// What a person decided, or what Caravan started again by itself (`repeat`, `resume`).
#[derive(Debug, Clone)]
pub struct DecisionView {
    /// When.
    pub time: Option<Timestamp>,
    /// `retry`, `skip`, `override`, `acceptance`, `takeover`, `pause`, `abort`, `repeat`, `resume`.
    pub decision: String,
    /// What it is about.
    pub about: String,
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// A time in which a host was out of reach, or held by another run.
#[derive(Debug, Clone)]
pub struct Interruption {
    /// The host.
    pub host: String,
    /// From when.
    pub from: Option<Timestamp>,
    /// Until when; `None` while it lasts.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// True when it can be reached, and another run holds it.
    pub locked: bool,
}

/// A step that acted before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// The step.
    pub step: String,
    /// When it began.
    pub time: Option<Timestamp>,
    /// What was not wholly proven then: a stage's label, with the wave where it was the step's own stage.
    pub before: String,
}

/// One life of a controller: from when it began or took the run up until it ended, or was cut off.
#[derive(Debug, Clone)]
pub struct Life {
    /// `migrate`, `resume`, ...
    pub command: String,
    /// Account and workstation.
    pub operator: String,
    /// Caravan's version.
    pub version: String,
    /// When it began.
    pub from: Option<Timestamp>,
    /// Its last event; `None` while no later one is known.
    pub until: Option<Timestamp>,
    /// It said itself that it ends (the run was over, paused or left), rather than being cut off.
    pub ended: bool,
    /// How many bytes of a torn last line it cut off the journal.
    pub cut_bytes: u64,
    /// It rebuilt plan and journal from the hosts.
    pub from_hosts: bool,
    /// When it may touch platforms.
    pub conditions: Conditions,
    /// When it was paused, and by whom: what runs may still end.
    pub paused: Option<(Option<Timestamp>, String)>,
}

/// A host's lock that a controller took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The host.
    pub host: String,
    /// When.
    pub time: Option<Timestamp>,
    /// The fencing token that the host gave.
    pub token: u64,
}

/// A file that counts as a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupView {
    /// Its platform.
    pub platform: Option<usize>,
    /// The host that made it.
    pub host: String,
    /// The file there.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// The copy that is kept elsewhere.
    pub kept: Option<KeptView>,
}

/// An encrypted copy of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptView {
    /// `workstation`, or the name of a host.
    pub to: String,
    /// The file; on the workstation relative to the run's directory.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// The public keys that it is encrypted to.
    pub encrypt_to: Vec<String>,
    /// Since when it is there.
    pub time: Option<Timestamp>,
}
