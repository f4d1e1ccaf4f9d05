//! What a view is made of.

use super::record::{Alert, Attempt, BackupView, Breach, Claimed, DecisionView, FindingView, GateView, Interruption, Life};
use crate::plan::{Expected, Phase, Reversibility};
use inventory::{Role, Topology};
use jiff::Timestamp;
use proto::Outcome;
use proto::event::RunOutcome;
use proto::step::Repeat;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Where a run stands. Made by [`View::new`], moved on by [`View::apply`].
#[derive(Debug, Clone)]
pub struct View {
    /// The fleet's name.
    pub fleet: String,
    /// The hash of the plan that the view was made from.
    pub plan_hash: String,
    /// The run itself.
    pub run: RunInfo,
    /// The platforms, in the plan's order.
    pub platforms: Vec<PlatformView>,
    /// All stages, platform by platform, in the order they must happen. [`PhaseView::stages`] points into it.
    pub stages: Vec<StageView>,
    /// All steps, stage by stage, in the plan's order. [`StageView::steps`] points into it.
    pub steps: Vec<StepView>,
    /// Results of checks, in the order in which they first came. A repeated check replaces its result of the same phase.
    pub findings: Vec<FindingView>,
    /// Gates that waited or were confirmed.
    pub gates: Vec<GateView>,
    /// What persons decided, and what Caravan itself started again.
    pub decisions: Vec<DecisionView>,
    /// When hosts were out of reach.
    pub interruptions: Vec<Interruption>,
    /// What concerned the run as a whole while it went on (the end of its maintenance window).
    pub alerts: Vec<(Option<Timestamp>, String)>,
    /// Files that count as backups, and where copies of them are kept, in the order in which they were made.
    pub backups: Vec<BackupView>,
    /// When and why the run was paused.
    pub pauses: Vec<(Option<Timestamp>, String)>,
    /// The controllers that drove the run, one after the other. Time between two of them counts as nobody's work.
    pub lives: Vec<Life>,
    /// Whose hosts' locks were taken, in the order of the journal.
    pub claims: Vec<Claimed>,
    /// Steps that acted although a stage or wave before theirs was not wholly proven. Always empty unless the order was broken.
    pub breaches: Vec<Breach>,
    /// When every selected platform was through its preflight, where the journal says so for the run as a whole.
    pub preflight_barrier: Option<Timestamp>,
    /// How long steps are expected to take, by id, and where that is known from. Other runs say it, and not this one's record.
    pub expected: Expected,
    pub(super) index: Index,
}

/// Ways to find things by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) platforms: HashMap<String, usize>,
    pub(super) steps: HashMap<String, usize>,
    /// Host name to its (stage, slot) pairs.
    pub(super) hosts: HashMap<String, Vec<(usize, usize)>>,
    /// Hosts out of reach right now, with their open entry in `interruptions`.
    pub(super) away: HashMap<String, usize>,
    pub(super) findings: HashMap<(String, String, String), usize>,
    pub(super) gates: HashMap<String, usize>,
    pub(super) gate_steps: HashMap<String, Vec<usize>>,
    /// Host name to the name that screens use.
    pub(super) short: HashMap<String, String>,
}

/// What is known of a run as a whole.
#[derive(Debug, Clone, Default)]
pub struct RunInfo {
    /// Its id; empty before the first event.
    pub id: String,
    /// `migrate`, `check`, ...
    pub command: String,
    /// Account and workstation.
    pub operator: String,
    /// Caravan's version.
    pub version: String,
    /// The plan's hash as the run recorded it when it began.
    pub plan: String,
    /// The selector given with `--limit`.
    pub limit: Option<String>,
    /// The run that this one rolls back.
    pub undoes: Option<String>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// The command's exit code.
    pub exit_code: Option<u8>,
    /// Time of the newest event.
    pub last: Option<Timestamp>,
    /// How many events were folded.
    pub events: u64,
}

/// How far a platform, phase or stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progressed {
    /// It has not begun.
    #[default]
    Waiting,
    /// It began and is not over.
    Running,
    /// It is over and its barrier is open.
    Done,
    /// It began, and the platform ended before its barrier opened.
    Stopped,
}

impl Progressed {
    /// One word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// One platform.
#[derive(Debug, Clone)]
pub struct PlatformView {
    /// Its name.
    pub name: String,
    /// Its topology.
    pub topology: Topology,
    /// What was installed before, for people.
    pub source: String,
    /// What shall be installed, for people.
    pub target: String,
    /// Its phases, in order.
    pub phases: Vec<PhaseView>,
    /// Its stages in [`View::stages`].
    pub stages: Range<usize>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// What was said about that.
    pub message: String,
    /// Whether it takes part in the run.
    pub selected: bool,
    /// Its first event.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Hosts that did not end well in a tolerant stage; it went on without them.
    pub dropped: BTreeSet<String>,
    /// The first of its stages that is not wholly proven.
    pub(super) frontier: usize,
}

/// One phase of a platform.
#[derive(Debug, Clone)]
pub struct PhaseView {
    /// Which.
    pub name: Phase,
    /// How far it is.
    pub state: Progressed,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the barrier behind it opened.
    pub barrier: Option<Timestamp>,
    /// Its stages in [`View::stages`].
    pub stages: Range<usize>,
}

/// One stage of a platform.
#[derive(Debug, Clone)]
pub struct StageView {
    /// Its platform in [`View::platforms`].
    pub platform: usize,
    /// Its phase in [`PlatformView::phases`].
    pub phase: usize,
    /// Its phase's name.
    pub phase_name: Phase,
    /// Its name.
    pub name: String,
    /// What screens call it: `4.3 tracking`, `2 stop`.
    pub label: String,
    /// The roles it is about.
    pub roles: Vec<Role>,
    /// Whether the platform goes on without hosts that do not end well in it.
    pub tolerant: bool,
    /// How far it is.
    pub state: Progressed,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the barrier behind it opened.
    pub barrier: Option<Timestamp>,
    /// Its hosts, in the plan's order.
    pub hosts: Vec<HostView>,
    /// Its steps in [`View::steps`].
    pub steps: Range<usize>,
    /// How many hosts are in which state. Each host counts once.
    pub counts: Counts,
    /// Steps of each wave that are not settled (proven, or accepted by a person).
    pub(super) open_waves: BTreeMap<u32, usize>,
}

impl StageView {
    /// Whether every step is proven, or was accepted by a person.
    pub fn settled(&self) -> bool {
        self.open_waves.values().all(|open| *open == 0)
    }
}

/// How many hosts of a stage are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nothing of them was begun.
    pub waiting: usize,
    /// Something of them was begun.
    pub running: usize,
    /// Everything of them is proven or accepted.
    pub done: usize,
    /// A step of them failed, or nobody can tell.
    pub failed: usize,
    /// They cannot be reached, or another run holds them.
    pub unreachable: usize,
    /// The platform went on without them, since they did not end well in an earlier stage.
    pub dropped: usize,
}

impl Counts {
    /// All hosts.
    pub fn total(&self) -> usize {
        self.waiting + self.running + self.done + self.failed + self.unreachable + self.dropped
    }

    pub(super) fn of(&mut self, state: HostState) -> &mut usize {
        match state {
            HostState::Waiting => &mut self.waiting,
            HostState::Running => &mut self.running,
            HostState::Done => &mut self.done,
            HostState::Failed => &mut self.failed,
            HostState::Unreachable => &mut self.unreachable,
            HostState::Dropped => &mut self.dropped,
        }
    }
}

/// How far a host is in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostState {
    /// Nothing was begun.
    #[default]
    Waiting,
    /// Something was begun, and it is not over.
    Running,
    /// Every step is proven or accepted.
    Done,
    /// A step failed, or nobody can tell how one ended.
    Failed,
    /// It cannot be reached (or another run holds it), and not everything is proven.
    Unreachable,
    /// It did not end well in an earlier, tolerant stage, and the platform went on without it.
    Dropped,
}

impl HostState {
    /// One word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Dropped => "left behind",
        }
    }
}

/// A host in a stage.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: HostState,
    /// How many steps it has in this stage.
    pub total: usize,
    /// Steps that are proven.
    pub proven: usize,
    /// Steps that a person accepted without proof.
    pub accepted: usize,
    /// Steps that failed.
    pub failed: usize,
    /// Steps of which nobody can tell how they ended.
    pub unknown: usize,
    /// Steps that were granted or began, and have not ended.
    pub open: usize,
    /// The step that it works on, in [`View::steps`].
    pub current: Option<usize>,
    /// The last step that did not end well, in [`View::steps`].
    pub worst: Option<usize>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepState {
    /// It was not granted, or the grant was revoked.
    #[default]
    Waiting,
    /// The host may begin it.
    Granted,
    /// The host began it.
    Running,
    /// It ended.
    Ended(Outcome),
}

impl StepState {
    /// One word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Granted => "granted",
            Self::Running => "running",
            Self::Ended(Outcome::Ok) => "ok",
            Self::Ended(Outcome::Skipped) => "skipped",
            Self::Ended(Outcome::Failed) => "failed",
            Self::Ended(Outcome::Unknown) => "unknown",
        }
    }

    /// Whether it ended, and not well.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Ended(Outcome::Failed | Outcome::Unknown))
    }
}

/// One step.
#[derive(Debug, Clone)]
pub struct StepView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// The host it runs on.
    pub host: String,
    /// The instance it is about.
    pub instance: Option<String>,
    /// The action's kind.
    pub action: String,
    /// Whether there is a way back.
    pub reversibility: Reversibility,
    /// The documented step it stands for.
    pub source: String,
    /// Its stage in [`View::stages`].
    pub stage: usize,
    /// Its host in [`StageView::hosts`].
    pub slot: usize,
    /// Its wave.
    pub wave: u32,
    /// How far it is.
    pub state: StepState,
    /// The attempt that `state` is about; 0 before the first.
    pub attempt: u32,
    /// True when only its probe was asked for.
    pub prove: bool,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How long it took, as the host measured it. Milliseconds.
    pub duration_ms: u64,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// What was expected and what was seen; control characters made harmless.
    pub message: String,
    /// It was ended from outside (its process was killed, the machine went down), rather than by itself.
    pub died: bool,
    /// Its end is what the controller assumed of a host that stayed away: the host itself may know better.
    pub assumed: bool,
    /// Attempts before this one, and this one too once it is to be started again.
    pub earlier: Vec<Attempt>,
    /// What watchdogs noticed, of all attempts.
    pub alerts: Vec<Alert>,
    /// The file of its output, relative to the run's directory.
    pub output: Option<String>,
    /// The reason for which a person accepted it without proof.
    pub accepted: Option<String>,
    /// A person decided that it is not carried out: its probe alone counts.
    pub skipped: bool,
    /// The reason for which the inventory leaves it out.
    pub skip: Option<String>,
    /// Whether a failed attempt may be followed by another one without asking.
    pub repeat: Repeat,
}

impl StepView {
    /// Whether a barrier may count it: proven, or accepted by a person.
    pub fn settled(&self) -> bool {
        match self.state {
            StepState::Granted | StepState::Running => false,
            StepState::Ended(outcome) if outcome.is_proof() => true,
            _ => self.accepted.is_some(),
        }
    }

    /// Whether its host has it: it was granted and has not ended.
    pub fn is_open(&self) -> bool {
        matches!(self.state, StepState::Granted | StepState::Running)
    }

    /// Whether it ended badly and nobody accepted that.
    pub fn is_bad(&self) -> bool {
        self.state.is_bad() && self.accepted.is_none()
    }

    /// ` (attempt 2)`, to go behind its name; nothing for the first.
    pub fn nth(&self) -> String {
        if self.attempt > 1 { format!(" (attempt {})", self.attempt) } else { String::new() }
    }

    /// What watchdogs noticed about the attempt that runs now; nothing once it is over.
    pub fn warnings(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|alert| self.state == StepState::Running && alert.attempt == self.attempt)
    }
}
