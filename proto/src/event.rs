//! What happened in a run: one type of event for the journal, the progress display and every report.

use serde::{Deserialize, Serialize};

/// The version of the event schema, in every event as `v`.
pub const EVENT_VERSION: u32 = 1;

/// One event of a run; one line of `journal.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Schema version, [`EVENT_VERSION`].
    pub v: u32,
    /// Position in the journal, from 1.
    pub seq: u64,
    /// The controller's clock when the event was appended, RFC 3339 UTC.
    pub time: String,
    /// The run.
    pub run: String,
    /// What it is about.
    #[serde(flatten)]
    pub scope: Scope,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
    /// For events from a host: the host's own clock, RFC 3339 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_time: Option<String>,
    /// For events from a host: which boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// For events from a host: position in the host's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_seq: Option<u64>,
    /// SHA-256 of the line before this one (64 zeros for the first), lower-case hex: the chain that shows an edited line.
    pub prev: String,
}

/// What an event is about. Every field that applies is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Platform name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Phase name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Stage name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Instance name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Step id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, and its post-condition was seen.
    Ok,
    /// Not carried out in this run: the probe says that the effect is there, or the step does not apply to the host (the message
    /// then says what was seen).
    Skipped,
    /// It ended, and not well.
    Failed,
    /// Nobody can tell. Never counts as success.
    Unknown,
}

impl Outcome {
    /// Whether a barrier may count this as proof.
    pub fn is_proof(self) -> bool {
        matches!(self, Self::Ok | Self::Skipped)
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it must be.
    Ok,
    /// Worth a look; holds nothing up.
    Warning,
    /// Could not be found out. Holds things up like a failure.
    Unknown,
    /// Not as it must be.
    Failure,
}

/// When a check has to be well: what it holds up while it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Before anything of the platform is touched.
    BeforeTouch,
    /// Before the instance's postupgrade.
    BeforePostupgrade,
    /// Before anything is started again.
    BeforeRestart,
    /// From before anything is touched to the end: a run that is taken up again looks once more.
    Always,
}

impl When {
    /// Its name, as in events and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeTouch => "before-touch",
            Self::BeforePostupgrade => "before-postupgrade",
            Self::BeforeRestart => "before-restart",
            Self::Always => "always",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `CHECK@SCOPE`, for `--override`.
    pub id: String,
    /// The check's name.
    pub check: String,
    /// When the check has to be well; nothing of one that is only for the record (what a postupgrade said), and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// The platform.
    pub platform: String,
    /// The host, where the check is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The instance, where the check is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The result.
    pub status: Status,
    /// One line: what was found.
    pub message: String,
    /// What it was found from.
    pub evidence: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
    /// The reason given with `--override`, where it was overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<String>,
}

/// When platforms may be touched, as the operator asked for it. Part of the first event, so that whoever takes the run up again keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// The other platforms wait until these are through their `verify`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// No further platform is touched once more platforms than this ended badly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// `22:00-04:00`, in the workstation's time: a platform is touched only if it is expected to be through before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// How long a platform is expected to take, in seconds, where the operator says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_s: Option<u64>,
    /// How old, in seconds, a preflight may be when its platform is touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_s: Option<u64>,
}

impl Conditions {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// The first event of a run.
    RunStarted {
        /// `migrate`, `check`, `exec`, ...
        command: String,
        /// Who started it: account and workstation.
        operator: String,
        /// Caravan's version.
        version: String,
        /// The plan's hash.
        plan: String,
        /// The selector given with `--limit`, where one was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<String>,
        /// The platforms that take part.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        platforms: Vec<String>,
        /// The hosts that `limit` named when the run started: what a resumed run acts on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_hosts: Option<Vec<String>>,
        /// The run that this one rolls back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undoes: Option<String>,
        /// When platforms may be touched.
        #[serde(default, skip_serializing_if = "Conditions::is_empty")]
        conditions: Conditions,
    },
    /// A controller took the run up again. What it knew only in memory is asked for once more; what is open on hosts is attached to.
    RunResumed {
        /// The command: `resume`.
        command: String,
        /// Who: account and workstation.
        operator: String,
        /// Caravan's version.
        version: String,
        /// How many bytes of a torn last line were cut off the journal.
        #[serde(default, skip_serializing_if = "is_zero")]
        cut_bytes: u64,
        /// Plan and journal were rebuilt from the hosts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        from_hosts: bool,
        /// When platforms may be touched from here on.
        #[serde(default, skip_serializing_if = "Conditions::is_empty")]
        conditions: Conditions,
    },
    /// Something that concerns the run as a whole, and it goes on: the maintenance window is over.
    RunAlert {
        /// What it is and what a person can do.
        message: String,
    },
    /// A host's lock is this controller's.
    HostClaimed {
        /// The fencing token that the host gave.
        token: u64,
    },
    /// A phase of a platform began.
    PhaseStarted,
    /// A stage of a platform began: from here its steps are granted.
    StageStarted,
    /// A step was granted to its host: intent, durable before the grant is sent.
    StepGranted {
        /// The action's kind.
        action: String,
        /// True when only the probe runs (host outside `--limit`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        prove: bool,
    },
    /// A granted step was taken back before it began.
    StepRevoked,
    /// The host began the step.
    StepStarted,
    /// Output of a step arrived.
    StepOutput {
        /// The file it is kept in, relative to the run's directory.
        file: String,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A step ended.
    StepFinished {
        /// How.
        outcome: Outcome,
        /// The program's exit code, where there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// How long it took.
        duration_ms: u64,
        /// What was expected and what was seen; empty when all is well.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// The attempt was ended from outside (its process was killed, the machine went down), rather than by itself.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        died: bool,
    },
    /// A step made a file that counts as a backup. Its host says so.
    BackupMade {
        /// The file on the host.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// Its SHA-256, lower-case hex.
        sha256: String,
    },
    /// The controller began to fetch an encrypted copy of a file, or went on with it.
    KeepBegun {
        /// The copy's name.
        name: String,
        /// SHA-256 of the encrypted copy.
        sha256: String,
        /// Its size in bytes.
        size: u64,
        /// How many bytes of it are there from before, and are not sent again.
        offset: u64,
    },
    /// An encrypted copy of a file is where it is kept: whole, checked against size and digest, and durable.
    BackupKept {
        /// The file on its host that it is a copy of.
        source: String,
        /// Size of that file in bytes, as its host says.
        plain_size: u64,
        /// SHA-256 of that file, as its host says.
        plain_sha256: String,
        /// Where the copy is: `workstation`, or the name of a host.
        to: String,
        /// The copy: on the workstation relative to the run's directory.
        file: String,
        /// Size of the copy in bytes.
        size: u64,
        /// SHA-256 of the copy.
        sha256: String,
        /// The public keys that it is encrypted to.
        encrypt_to: Vec<String>,
        /// How many bytes came since the last [`Kind::KeepBegun`].
        received: u64,
    },
    /// A watchdog noticed something about a running step; the step goes on.
    StepAlert {
        /// What was noticed.
        message: String,
        /// A person is to decide whether it is stopped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ask: bool,
    },
    /// A check ended.
    Finding {
        /// Its result.
        finding: Finding,
    },
    /// The checks that have to be well at any time were made again on a platform that is past its preflight, because its run was taken
    /// up again. Nothing new is granted there before this says that nothing holds it up; what runs goes on.
    ChecksRepeated {
        /// The findings that hold the platform up, by id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holding: Vec<String>,
    },
    /// Every step of a stage (or of the whole preflight) ended well and was proven: the next stage may start.
    BarrierOpened,
    /// A stage is over, and its barrier is open.
    StageFinished,
    /// A phase of a platform is over, and its barrier is open.
    PhaseFinished,
    /// A gate waits for a person.
    GateWaiting {
        /// The gate's id.
        gate: String,
        /// What the person has to have done.
        ask: String,
    },
    /// A person confirmed a gate.
    GateConfirmed {
        /// The gate's id.
        gate: String,
        /// The person's note.
        note: String,
        /// Who.
        operator: String,
    },
    /// A host cannot be reached (or its connection dropped).
    HostUnreachable {
        /// Why.
        reason: String,
    },
    /// Another run holds a host: nothing was granted to it.
    HostLocked {
        /// Who holds it, since when.
        reason: String,
    },
    /// A host is back after its connection dropped.
    HostReattached,
    /// The run was paused: what had not begun was revoked.
    RunPaused {
        /// Why.
        reason: String,
    },
    /// A person decided something.
    Decision {
        /// `retry`, `skip`, `override`, `acceptance`, `takeover`, `abort`; `repeat` where Caravan itself starts a step again that was
        /// killed and provably did nothing, and `resume` where a resumed run starts a failed step again that may be repeated.
        decision: String,
        /// What it is about (a finding's id, a step's id).
        about: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// A platform is over.
    PlatformFinished {
        /// How.
        outcome: RunOutcome,
        /// One line for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// The last event of a run.
    RunFinished {
        /// How.
        outcome: RunOutcome,
        /// The exit code of the command.
        exit_code: u8,
    },
}

/// How a run, or a platform in it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything was done and proven.
    Ok,
    /// A step or check failed or is unknown, or a host was away: it stopped at a barrier.
    Stopped,
    /// It waits for a person.
    Waiting,
    /// A person ended it. It cannot be resumed.
    Aborted,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
