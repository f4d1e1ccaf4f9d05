//! Puts a run together again from what its hosts hold, for a controller that has nothing else. Pure.
//!
//! Each host has its own record of the steps that its agent was granted, and keeps lines of the controller ([`super::kept`]): its part of
//! the plan, and the controller's own events. A grant came with every such event that stood before it, so what follows a line in a
//! host's journal happened after it, and all hosts together have every event up to the last grant.
//!
//! A host is believed for itself alone: what it keeps is held against the inventory ([`Ground`]) and against what the other hosts of its
//! platform keep.

mod ground;

use super::journal::Draft;
use super::kept::{self, Part};
use super::merge::{Journal, merge};
use crate::plan::{Plan, PlannedFile, PlannedStep, PlatformPlan};
pub use ground::Ground;
use inventory::fold_names;
use proto::host::Record;
use std::collections::{BTreeMap, BTreeSet};

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
    /// A host speaks for others.
    #[error(
        "{host} keeps what is not its own to say: {seen}. A host is believed for itself alone. If the inventory was changed since, give the one that the run was started with (-i); else find out who is root on {host}"
    )]
    Foreign {
        /// The host.
        host: String,
        /// What it keeps.
        seen: String,
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
pub fn rebuild(run: &str, hosts: &BTreeMap<String, Vec<Record>>, ground: &Ground) -> Result<Rebuilt, RebuildError> {
    let mut journals = BTreeMap::new();
    for (host, records) in hosts {
        let journal = Journal::read(host, records)?;
        for part in &journal.parts {
            ground.check(host, part).map_err(|seen| RebuildError::Foreign { host: host.clone(), seen })?;
        }
        journals.insert(host.as_str(), journal);
    }
    let parts: Vec<&Part> = journals.values().flat_map(|journal| &journal.parts).collect();
    let first = *parts.first().ok_or(RebuildError::Nothing)?;
    let other: Vec<&&Part> = parts.iter().filter(|part| part.run != run).collect();
    if let Some(part) = other.first() {
        let hosts = fold(other.iter().map(|part| part.host.as_str()));
        return Err(RebuildError::Runs { run: run.to_owned(), other: part.run.clone(), hosts });
    }
    let mut notices = Vec::new();
    let (mut platforms, mut left_out) = (Vec::new(), Vec::new());
    // No host alone says which platforms there are: one could hide the others.
    for name in ground.in_order(parts.iter().flat_map(|part| &part.platforms)) {
        let parts: Vec<&Part> = parts.iter().filter(|part| part.platform.name == *name).copied().collect();
        match assemble(name, &parts, &journals, ground, &mut notices)? {
            Some(platform) => platforms.push(platform),
            None => left_out.push(name.to_owned()),
        }
    }
    if platforms.is_empty() {
        return Err(RebuildError::Nothing);
    }
    let files = files(&parts, ground, &mut notices);
    let plan = Plan { fleet: first.fleet.clone(), hash: first.hash.clone(), platforms, files, warnings: first.warnings.clone() };
    let drafts = merge(&plan, &journals, ground, &mut notices)?;
    Ok(Rebuilt { run: run.to_owned(), plan, left_out, drafts, notices })
}

/// The files that hosts may be sent: those alone that the inventory has, for a host must not name files of the workstation.
fn files(parts: &[&Part], ground: &Ground, notices: &mut Vec<String>) -> Vec<PlannedFile> {
    let mut files: BTreeMap<&str, &PlannedFile> = BTreeMap::new();
    let mut unknown: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (part, file) in parts.iter().flat_map(|part| part.files.iter().map(move |file| (part, file))) {
        match ground.has(file) {
            true => drop(files.entry(&file.sha256).or_insert(file)),
            false => drop(unknown.entry((&file.path, &file.sha256)).or_default().insert(&part.host)),
        }
    }
    notices.extend(unknown.into_iter().map(|((path, sha256), hosts)| {
        format!(
            "the inventory has no package file {path} with the SHA-256 {sha256}, which {} keeps as one of the plan: it is sent to no host",
            fold(hosts.into_iter())
        )
    }));
    files.into_values().cloned().collect()
}

/// Puts the plan of a platform together; nothing where nothing was begun on it.
fn assemble(
    name: &str,
    parts: &[&Part],
    journals: &BTreeMap<&str, Journal>,
    ground: &Ground,
    notices: &mut Vec<String>,
) -> Result<Option<PlatformPlan>, RebuildError> {
    let Some(first) = parts.first() else {
        notices.push(format!("platform {name}: no host keeps anything of it, so nothing was granted there; it is left out"));
        return Ok(None);
    };
    let disagree = |what: String, hosts: String| RebuildError::Disagree { platform: name.to_owned(), what, hosts };
    let frames = parts.iter().map(|part| ((&part.digest, &part.hosts, &part.counts, &part.platform), part.host.as_str()));
    let other = odd(frames);
    if !other.is_empty() {
        return Err(disagree("a plan".to_owned(), fold(other.into_iter())));
    }
    // Who was not heard may keep something else, also one of which the others say that it takes no part.
    let unheard: Vec<&str> =
        ground.agents(name).filter(|host| !journals.contains_key(host) && !first.hosts.iter().any(|known| known == host)).collect();
    if !unheard.is_empty() {
        return Err(RebuildError::Missing { platform: name.to_owned(), hosts: fold(unheard.into_iter()) });
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
    let steps = steps(parts).map_err(|(step, hosts)| disagree(format!("a step ({step})"), hosts))?;
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
        // One host that names another version must not keep the digest of the others from being looked at.
        if parts.iter().any(|part| part.version == env!("CARGO_PKG_VERSION")) {
            let hosts = fold(parts.iter().map(|part| part.host.as_str()));
            return Err(damaged(format!("SHA-256 {digest} instead of {}; the parts are those of {hosts}", first.digest)));
        }
        notices.push(format!(
            "platform {name}: its plan was made by Caravan {}, so it cannot be proven to be whole; its steps are all there",
            first.version
        ));
    }
    Ok(Some(platform))
}

/// The hosts that claim something else than most of them; all of them where nothing is claimed by most, none where they agree.
fn odd<'a, T: PartialEq>(claims: impl Iterator<Item = (T, &'a str)>) -> Vec<&'a str> {
    let mut claimed: Vec<(T, Vec<&str>)> = Vec::new();
    for (claim, host) in claims {
        match claimed.iter_mut().find(|(known, _)| *known == claim) {
            Some((_, hosts)) => hosts.push(host),
            None => claimed.push((claim, vec![host])),
        }
    }
    let most = claimed.iter().map(|(_, hosts)| hosts.len()).max().unwrap_or_default();
    let alone = claimed.iter().filter(|(_, hosts)| hosts.len() == most).count() == 1;
    let mut odd: Vec<&str> =
        claimed.into_iter().map(|(_, hosts)| hosts).filter(|hosts| !alone || hosts.len() < most).flatten().collect();
    odd.sort_unstable();
    odd.dedup();
    odd
}

/// The steps of all parts by their position. An error has a step that hosts tell otherwise, and these hosts.
fn steps<'a>(parts: &[&'a Part]) -> Result<BTreeMap<usize, &'a PlannedStep>, (String, String)> {
    let mut steps: BTreeMap<usize, Vec<(&PlannedStep, &str)>> = BTreeMap::new();
    let mut places: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (part, (at, step)) in parts.iter().flat_map(|part| part.steps.iter().map(move |step| (part, step))) {
        steps.entry(*at).or_default().push((step, &part.host));
        places.entry(&step.id.0).or_default().push((*at, &part.host));
    }
    let twice = places.into_iter().map(|(id, claims)| (id, odd(claims.into_iter())));
    let other = steps.values().filter_map(|claims| Some((claims.first()?.0.id.0.as_str(), odd(claims.iter().copied()))));
    if let Some((id, hosts)) = other.chain(twice).find(|(_, hosts)| !hosts.is_empty()) {
        return Err((id.to_owned(), fold(hosts.into_iter())));
    }
    Ok(steps.into_iter().filter_map(|(at, claims)| Some((at, claims.first()?.0))).collect())
}

/// Names of hosts for a text.
pub(super) fn fold<'a>(hosts: impl Iterator<Item = &'a str>) -> String {
    fold_names(&hosts.collect::<Vec<_>>())
}
