//! What a plan is. Its JSON form is a contract: `plan --format json` and `plan.json` of a run are the same.

use inventory::Role;
use proto::{Action, RunAs, StepId, StepSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Everything that will happen on a fleet, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The fleet's name.
    pub fleet: String,
    /// SHA-256 of the plan's content (canonical JSON of the resolved inventory without secrets, and all steps), lower-case hex.
    pub hash: String,
    /// The platforms, in inventory order.
    pub platforms: Vec<PlatformPlan>,
    /// Files of the workstation that steps push, by digest.
    #[serde(default)]
    pub files: Vec<PlannedFile>,
    /// What a person should know before starting.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A file that steps push to hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// SHA-256 of the content, as the inventory gives it.
    pub sha256: String,
    /// Where it is on the workstation, relative to the inventory's directory unless absolute.
    pub path: String,
    /// Its size in bytes when the plan was made.
    pub size: u64,
}

/// What will happen on one platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlatformPlan {
    /// Its name.
    pub name: String,
    /// Its topology.
    pub topology: inventory::Topology,
    /// A test platform, migrated to learn from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rehearsal: bool,
    /// What is installed now, for people: `v6.1 (8989)`.
    pub source: String,
    /// What will be installed, for people: `v7.4.1 (9383)`.
    pub target: String,
    /// How many hosts have each role, for people.
    #[serde(default)]
    pub roles: BTreeMap<Role, usize>,
    /// The phases, in order. A barrier stands between two of them.
    pub phases: Vec<PhasePlan>,
}

impl PlatformPlan {
    /// All its steps, in the order of phases and stages.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.phases.iter().flat_map(|phase| &phase.stages).flat_map(|stage| &stage.steps)
    }

    /// The name under which the old installation is kept: `nl6.back`, or `nl5.back` from v5.
    pub(crate) fn back_tree(&self) -> &str {
        let place = self.steps().find_map(|step| match &step.spec.action {
            Action::MoveTree { from, to } => [from, to].into_iter().find(|path| path.ends_with(".back")),
            _ => None,
        });
        place.and_then(|path| path.rsplit('/').next()).unwrap_or("nl6.back")
    }
}

/// Part of a platform's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhasePlan {
    /// Which phase.
    pub name: Phase,
    /// The stages, in order. A barrier stands between two of them.
    pub stages: Vec<StagePlan>,
}

/// The phases of a migration, in order, and the one of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Checks; writes only Caravan's own directories.
    Preflight,
    /// Everything is stopped and proven down.
    Stop,
    /// Database and installations are backed up.
    Backup,
    /// Old packages out, new ones in, configuration back, postupgrade.
    Migrate,
    /// Services start in the documented restart order.
    Restart,
    /// The result is proven.
    Verify,
    /// The way back: everything down, the databases restored, then the hosts in reverse. Only in the plan of a rollback.
    Rollback,
    /// The `internal` password is set. Only in the plan of `passwords set`.
    Passwords,
}

impl Phase {
    /// The phase's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Stop => "stop",
            Self::Backup => "backup",
            Self::Migrate => "migrate",
            Self::Restart => "restart",
            Self::Verify => "verify",
            Self::Rollback => "rollback",
            Self::Passwords => "passwords",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hosts that go together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Its name; unique in its phase.
    pub name: String,
    /// The roles it is about.
    pub roles: Vec<Role>,
    /// Its hosts, in inventory order.
    pub hosts: Vec<String>,
    /// A host that fails here drops out of this stage and the later ones, and the others go on without it: on the way back a host
    /// that cannot follow must not keep the others from running again. The run still ends as failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tolerant: bool,
    /// Its steps. Those of one host and one wave happen in this order; hosts work side by side.
    pub steps: Vec<PlannedStep>,
}

/// One thing done once in one scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// `PLATFORM/PHASE/STAGE/HOST[:INSTANCE]/NAME`.
    pub id: StepId,
    /// The stable name of the runbook step.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// A few words for the folded plan; empty where the step is left out there.
    #[serde(default)]
    pub short: String,
    /// What it is about.
    pub scope: StepScope,
    /// The host it runs on.
    pub host: String,
    /// The instance it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whom it runs as.
    pub run_as: RunAs,
    /// The action's kind (`command`, `service`, `gate`, ...).
    pub action: String,
    /// Program and arguments, where it runs a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Whether there is a way back.
    pub reversibility: Reversibility,
    /// The documented step it stands for.
    pub source: String,
    /// Steps of wave N of a stage start when all of wave N-1 of that stage are proven (postupgrade waits for the packages of every
    /// host of its stage). From 0.
    #[serde(default)]
    pub wave: u32,
    /// Why it is done and how its effect is seen, for `plan --explain`.
    #[serde(default)]
    pub explain: String,
    /// How it is undone, for people; empty where there is nothing to undo.
    #[serde(default)]
    pub undo: String,
    /// The reason for which the inventory leaves it out. Then only its probe runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
    /// Everything the agent needs.
    pub spec: StepSpec,
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepScope {
    /// One host.
    Host,
    /// One instance, on one host.
    Instance,
    /// The platform.
    Platform,
}

/// Whether there is a way back from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reversibility {
    /// It can be undone as it was.
    Reversible,
    /// Its effect can be made up for (a service stopped again).
    Compensable,
    /// Only a backup brings the state before it back.
    OneWay,
}
