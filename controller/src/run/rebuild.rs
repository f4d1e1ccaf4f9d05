//! Puts a run together again from what its hosts hold, for a controller that has nothing else. Pure.
//!
//! Each host has its own record of the steps that its agent was granted, and keeps lines of the controller ([`super::kept`]): its part of
//! the plan, and the controller's own events. A grant came with every such event that stood before it, so what follows a line in a
//! host's journal happened after it, and all hosts together have every event up to the last grant.

use super::journal::Draft;
use super::kept::{self, Part};
use super::merge::{Journal, merge};
use crate::plan::{Plan, PlatformPlan};
use inventory::fold_names;
use proto::host::Record;
use std::collections::BTreeMap;

/// A run as its hosts know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuilt {
    /// The run's id.
    pub run: String,
    /// Its plan, without platforms on which nothing was begun.
    pub plan: Plan,
    /// The names of those platforms.
    pub left_out: Vec<String>,
    /// What happened, in an order in which it can have happened: folded, they stand where the run stood.
    pub drafts: Vec<Draft>,
    /// What a person should know about it.
    pub notices: Vec<String>,
}

/// Why a run cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// Nobody holds anything.
    #[error("no host keeps a plan of this run: it was started by a Caravan that left none there, or nothing was begun")]
    Nothing,
    /// A kept line cannot be read.
    #[error(
        "{host}: line {line} of what it keeps cannot be understood: {error}. A newer Caravan may have written it; use that one"
    )]
    Kept {
        /// The host.
        host: String,
        /// Which of its kept lines, from 1.
        line: usize,
        /// What is wrong with it.
        error: String,
    },
    /// Hosts hold parts of different runs.
    #[error("{hosts} keep the plan of another run ({other}) than {run}. Name one run")]
    Runs {
        /// The run.
        run: String,
        /// The other one.
        other: String,
        /// Who holds the other one.
        hosts: String,
    },
    /// Parts are missing.
    #[error("platform {platform}: its plan is kept in parts, and {hosts} did not give theirs. Make them reachable, then try again")]
    Missing {
        /// The platform.
        platform: String,
        /// Whose parts are missing.
        hosts: String,
    },
    /// Hosts hold different things where they must hold the same.
    #[error(
        "platform {platform}: {hosts} keep {what} that differs from what its other hosts keep. Nothing can be told for sure; look at their journals"
    )]
    Disagree {
        /// The platform.
        platform: String,
        /// What differs.
        what: String,
        /// Who holds the other one.
        hosts: String,
    },
    /// The parts do not make the plan that they were taken from.
    #[error(
        "platform {platform}: the parts that its hosts keep do not make the plan they were taken from ({seen}). They were damaged or edited"
    )]
    Damaged {
        /// The platform.
        platform: String,
        /// What was seen.
        seen: String,
    },
}

/// Reads a host's journal. What a crash left behind its last whole line is left out: nobody was told of it.
///
/// # Errors
/// The number of a damaged line, from 1.
pub fn records(bytes: &[u8]) -> Result<Vec<Record>, usize> {
    proto::lines::read(bytes).map(|(records, _)| records).map_err(|damaged| damaged.line)
}

/// Puts a run together from the journals of its hosts. A host whose journal could not be read is left out of `hosts`; one that has none of
/// this run is there without records.
///
/// # Errors
/// Why it cannot be done; every text names the hosts and says what to do.
pub fn rebuild(hosts: &BTreeMap<String, Vec<Record>>) -> Result<Rebuilt, RebuildError> {
    let mut journals = BTreeMap::new();
    for (host, records) in hosts {
        journals.insert(host.as_str(), Journal::read(host, records)?);
    }
    let parts: Vec<&Part> = journals.values().flat_map(|journal| &journal.parts).collect();
    let first = *parts.first().ok_or(RebuildError::Nothing)?;
    let other: Vec<&&Part> = parts.iter().filter(|part| part.run != first.run).collect();
    if let Some(part) = other.first() {
        let hosts = fold(other.iter().map(|part| part.host.as_str()));
        return Err(RebuildError::Runs { run: first.run.clone(), other: part.run.clone(), hosts });
    }
    let mut notices = Vec::new();
    let (mut platforms, mut left_out) = (Vec::new(), Vec::new());
    for name in &first.platforms {
        let parts: Vec<&Part> = parts.iter().filter(|part| part.platform.name == *name).copied().collect();
        match assemble(name, &parts, &journals, &mut notices)? {
            Some(platform) => platforms.push(platform),
            None => left_out.push(name.clone()),
        }
    }
    if platforms.is_empty() {
        return Err(RebuildError::Nothing);
    }
    let plan = Plan {
        fleet: first.fleet.clone(),
        hash: first.hash.clone(),
        platforms,
        files: first.files.clone(),
        warnings: first.warnings.clone(),
    };
    let drafts = merge(&plan, &journals)?;
    Ok(Rebuilt { run: first.run.clone(), plan, left_out, drafts, notices })
}

/// Puts the plan of a platform together; nothing where nothing was begun on it.
fn assemble(
    name: &str,
    parts: &[&Part],
    journals: &BTreeMap<&str, Journal>,
    notices: &mut Vec<String>,
) -> Result<Option<PlatformPlan>, RebuildError> {
    let Some(first) = parts.first() else {
        notices.push(format!("platform {name}: no host keeps anything of it, so nothing was granted there; it is left out"));
        return Ok(None);
    };
    let other = parts.iter().filter(|part| part.digest != first.digest).map(|part| part.host.as_str());
    let other: Vec<&str> = other.collect();
    if !other.is_empty() {
        let what = "a plan".to_owned();
        return Err(RebuildError::Disagree { platform: name.to_owned(), what, hosts: fold(other.into_iter()) });
    }
    let missing: Vec<&str> =
        first.hosts.iter().map(String::as_str).filter(|host| parts.iter().all(|part| part.host != *host)).collect();
    if !missing.is_empty() {
        // Nothing is granted on a platform before all its hosts hold their part.
        let begun = first.hosts.iter().filter_map(|host| journals.get(host.as_str())).any(Journal::was_granted);
        if begun || missing.iter().any(|host| !journals.contains_key(host)) {
            return Err(RebuildError::Missing { platform: name.to_owned(), hosts: fold(missing.into_iter()) });
        }
        notices.push(format!(
            "platform {name}: {} did not take part yet, so nothing was granted there; it is left out",
            fold(missing.into_iter())
        ));
        return Ok(None);
    }
    let damaged = |seen: String| RebuildError::Damaged { platform: name.to_owned(), seen };
    let steps: BTreeMap<usize, _> = parts.iter().flat_map(|part| &part.steps).map(|(at, step)| (*at, step)).collect();
    let mut platform = first.platform.clone();
    let stages = platform.phases.iter_mut().flat_map(|phase| &mut phase.stages);
    let mut next = 0;
    for (stage, count) in stages.zip(&first.counts) {
        for at in next..next + count {
            let step = steps.get(&at).ok_or_else(|| damaged(format!("step number {} is missing", at + 1)))?;
            stage.steps.push((*step).clone());
        }
        next += count;
    }
    let digest = kept::digest(&platform).map_err(|error| damaged(error.to_string()))?;
    if digest != first.digest {
        if first.version == env!("CARGO_PKG_VERSION") {
            return Err(damaged(format!("SHA-256 {digest} instead of {}", first.digest)));
        }
        notices.push(format!(
            "platform {name}: its plan was made by Caravan {}, so it cannot be proven to be whole; its steps are all there",
            first.version
        ));
    }
    Ok(Some(platform))
}

/// Names of hosts for a text.
pub(super) fn fold<'a>(hosts: impl Iterator<Item = &'a str>) -> String {
    fold_names(&hosts.collect::<Vec<_>>())
}
