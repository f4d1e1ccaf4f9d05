//! What earlier runs say: whether a platform was rehearsed, and how long it takes.

use super::finding::{Subject, clean};
use crate::plan::{Expected, Plan};
use inventory::{Platform, Topology};
use proto::event::{Finding, Status};
use std::collections::BTreeMap;
use std::time::Duration;

/// The runbook's step whose time is learned from.
pub const POSTUPGRADE: &str = "postupgrade";

/// A platform that a run migrated to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The run.
    pub run: String,
    /// The platform.
    pub platform: String,
    /// Whether it was a rehearsal, as the plan of the run says.
    pub rehearsal: bool,
    /// Its topology.
    pub topology: Topology,
    /// What was installed before, for people: `v6.1 (8989)`.
    pub source: String,
    /// What was installed then, for people: `v7.4.1 (9383)`.
    pub target: String,
    /// From the beginning of `stop` to the end of `verify`.
    pub took: Duration,
    /// How long the postupgrade of each instance took.
    pub postupgrades: BTreeMap<String, Duration>,
}

/// The earlier runs that this workstation knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What went well, oldest first.
    pub migrated: Vec<Migrated>,
    /// Runs whose record cannot be read.
    pub unreadable: Vec<String>,
    /// Rehearsal platforms of the inventory, by name.
    pub rehearsals: Vec<String>,
}

/// The version in front of a build: `v6.1` of `v6.1 (8989)`.
fn version(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

impl History {
    /// How long each platform of a plan is expected to take, and where that is known from: its own last run to the same target, or else
    /// the last one of a platform that is like it.
    pub fn expected(&self, plan: &Plan) -> Expected {
        let expectation = |platform: &crate::plan::PlatformPlan| {
            let alike = |known: &&Migrated| {
                known.topology == platform.topology
                    && version(&known.source) == version(&platform.source)
                    && version(&known.target) == version(&platform.target)
            };
            let own = |known: &&Migrated| known.platform == platform.name && alike(known);
            let known = self.migrated.iter().rfind(own).or_else(|| self.migrated.iter().rfind(alike))?;
            let kind = if known.rehearsal { "rehearsal" } else { "run" };
            Some((platform.name.clone(), (known.took, format!("{kind} {}", known.run))))
        };
        plan.platforms.iter().filter_map(expectation).collect()
    }

    /// How long each postupgrade of a plan is expected to take, by the step's id: the instance's own last one, or else the longest of the last platform that
    /// is like it. It says nothing more about another database than that.
    pub fn expected_steps(&self, plan: &Plan) -> Expected {
        let mut expected = Expected::new();
        for platform in &plan.platforms {
            let alike = |known: &&Migrated| {
                known.topology == platform.topology
                    && version(&known.source) == version(&platform.source)
                    && version(&known.target) == version(&platform.target)
            };
            for step in platform.steps().filter(|step| step.name == POSTUPGRADE) {
                let Some(instance) = &step.instance else { continue };
                let own = |known: &Migrated| known.postupgrades.get(instance).filter(|_| known.platform == platform.name).copied();
                let found = self.migrated.iter().filter(alike).rev();
                let found = found.clone().find_map(|known| Some((own(known)?, known))).or_else(|| {
                    let mut found = found;
                    found.find_map(|known| Some((*known.postupgrades.values().max()?, known)))
                });
                if let Some((took, known)) = found {
                    let kind = if known.rehearsal { "rehearsal" } else { "run" };
                    expected.insert(step.id.0.clone(), (took, format!("{kind} {}", known.run)));
                }
            }
        }
        expected
    }

    /// Whether the migration of a platform was rehearsed (domain: prerequisite 6).
    pub(super) fn rehearsed(&self, platform: &Platform) -> Option<Finding> {
        let subject = Subject::platform(platform);
        let check = "rehearsal";
        let lead = platform.hosts.iter().find(|host| host.has_campaign())?;
        if platform.rehearsal {
            return Some(subject.ok(check, "it is the rehearsal", "`rehearsal: true` in the inventory"));
        }
        let (source, target) =
            (format!("v{}", lead.source.version.as_str()), format!("v{} ({})", lead.target.version, lead.target.build));
        let fits = |known: &&Migrated| known.rehearsal && version(&known.source) == source && known.target == target;
        if let Some(known) = self.migrated.iter().rfind(fits) {
            let seen = format!("run {}: {} migrated from {} to {}", known.run, known.platform, known.source, known.target);
            return Some(subject.ok(check, "rehearsed on a test platform", clean(&seen)));
        }
        let (status, message, seen, remedy) = match (self.rehearsals.as_slice(), self.unreadable.as_slice()) {
            ([], []) => (
                Status::Warning,
                format!("no rehearsal of {source} to {target} is on record here"),
                "the runs of this workstation; no platform of the inventory has `rehearsal: true`".to_owned(),
                "Rehearse it on a test platform (`rehearsal: true`). If that was done from another workstation, nothing more is needed.",
            ),
            ([], unreadable) => (
                Status::Unknown,
                "whether it was rehearsed is not known".to_owned(),
                format!("the records of {} cannot be read", unreadable.join(", ")),
                "Look at these runs (`caravan runs`), or override this with the place where it was rehearsed.",
            ),
            (rehearsals, _) => (
                Status::Failure,
                format!("it has not been rehearsed: {} has not been migrated from {source} to {target} yet", rehearsals.join(", ")),
                "the runs of this workstation".to_owned(),
                "Migrate the rehearsal platform first (`caravan migrate --limit platform:NAME`), or override this with the place where it was rehearsed.",
            ),
        };
        Some(subject.finding(check, status, message, seen, remedy))
    }
}
