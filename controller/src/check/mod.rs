//! The prerequisites: what has to be true before anything is touched, and what is proven again at the end (domain: prerequisites).
//!
//! Three parts that know nothing of each other's insides: [`queries`] says what to ask of a host, [`gather`] asks all hosts side by
//! side, and [`evaluate`] turns the answers into findings without any input or output of its own.

mod again;
pub mod banner;
mod compatibility;
mod database;
mod facts;
mod finding;
mod gather;
mod history;
mod layout;
mod moved;
mod on_host;
mod on_instance;
mod on_platform;
mod overrides;
pub mod passwords;
pub mod postupgrade;
mod queries;
mod readings;
mod tracking;
mod zones;

pub use again::{PackageFiles, evaluate_again, queries_again};
pub use database::passwords as database_passwords;
pub use facts::{Fact, Facts, HostFacts, facts_of};
pub use finding::catalogue;
pub(crate) use finding::fold;
pub use gather::{DatabasePasswords, Limits, gather, gather_facts, gather_passwords};
pub use history::{History, Migrated, POSTUPGRADE};
pub use moved::{Change, Ground, How, Moved, StepChange};
pub use overrides::{OverrideError, Verdict, apply_overrides, holds_up, overridable, verdict};
pub use queries::{planned_queries, queries};
pub use readings::{HostState, Reached, Readings, Unreached};

use crate::plan::Phase;
use inventory::Platform;
use proto::event::Finding;
use std::collections::BTreeMap;

/// When the prerequisites are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before anything is touched.
    Preflight,
    /// After the postupgrade and before anything is started: what v7 needs that the old version did not have.
    BeforeRestart,
    /// After the migration: what was installed, and the `internal` password again.
    Verify,
}

impl Point {
    /// When a phase looks.
    pub fn of(phase: Phase) -> Self {
        match phase {
            Phase::Preflight => Self::Preflight,
            Phase::Restart => Self::BeforeRestart,
            _ => Self::Verify,
        }
    }
}

/// Turns what is known of a platform's hosts into findings: one or more for each host, then those about instances and about the
/// platform as a whole, in inventory order. Pure: the same states give the same findings.
///
/// `history` is what earlier runs say; preflight looks at it.
///
/// A host that is not in `hosts` counts as not reached. A host that was not reached has one finding only, `reachable@HOST`.
pub fn evaluate(platform: &Platform, hosts: &BTreeMap<String, HostState>, when: Point, history: &History) -> Vec<Finding> {
    if when == Point::BeforeRestart {
        return zones::evaluate(platform, hosts);
    }
    let mut findings = Vec::new();
    for host in &platform.hosts {
        findings.extend(on_host::evaluate(platform, host, hosts.get(&host.name), when));
    }
    if when == Point::Preflight {
        for instance in &platform.instances {
            findings.extend(on_instance::evaluate(platform, instance, hosts));
            findings.extend(database::evaluate(platform, instance, hosts));
        }
    }
    findings.extend(on_platform::evaluate(platform, hosts, when));
    if when == Point::Preflight {
        findings.extend(history.rehearsed(platform));
    }
    findings
}
