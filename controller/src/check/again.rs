//! The checks that have to be well at any time ([`When::Always`]), for a platform in the middle of its migration: what is asked of its
//! hosts, and what the answers mean for what is still to come.
//!
//! [`When::Always`]: proto::event::When::Always

use super::finding::{Subject, clean};
use super::on_host;
use super::readings::{HostState, Readings};
use crate::plan::{Plan, PlannedStep};
use inventory::{Host, Platform};
use proto::event::{Finding, Status};
use proto::inspect::ReadError;
use proto::{Action, Query, StepId};
use std::collections::{BTreeMap, BTreeSet};

/// A file that the run sent to a host, or had it download.
#[derive(Debug, Clone)]
struct Sent {
    dest: String,
    sha256: String,
    /// The step that brought it.
    by: StepId,
    /// The steps that use it; none for what the way back needs.
    uses: BTreeSet<StepId>,
}

/// The files that the steps of a plan bring to its hosts, by host.
#[derive(Debug, Clone, Default)]
pub struct PackageFiles(BTreeMap<String, Vec<Sent>>);

impl PackageFiles {
    /// Those of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut files: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
        let steps = || plan.platforms.iter().flat_map(|platform| platform.steps());
        for step in steps() {
            let (Action::PushFile { sha256, dest, .. } | Action::Download { sha256, dest, .. }) = &step.spec.action else {
                continue;
            };
            let of_host = files.entry(step.host.clone()).or_default();
            let (dest, sha256, by) = (dest.clone(), sha256.clone(), step.id.clone());
            of_host.push(Sent { dest, sha256, by, uses: BTreeSet::new() });
        }
        for step in steps() {
            let used: Vec<&String> = match &step.spec.action {
                Action::InstallPackages { files, .. } => files.iter().collect(),
                Action::Command(command) => command.argv.iter().collect(),
                _ => continue,
            };
            for sent in files.get_mut(&step.host).into_iter().flatten().filter(|sent| used.contains(&&sent.dest)) {
                sent.uses.insert(step.id.clone());
            }
        }
        Self(files)
    }

    /// Files that are there by now and that something still needs.
    fn needed(&self, host: &str, left: &[&PlannedStep]) -> impl Iterator<Item = &Sent> {
        let is_left = move |id: &StepId| left.iter().any(|step| step.id == *id);
        let of_host = self.0.get(host).into_iter().flatten();
        of_host.filter(move |sent| !is_left(&sent.by) && (sent.uses.is_empty() || sent.uses.iter().any(is_left)))
    }
}

fn digest(sent: &Sent) -> Query {
    Query::File { path: sent.dest.clone() }
}

/// Hosts that something is still to be done on, and not by a person alone.
fn hosts<'a>(platform: &'a Platform, left: &[&PlannedStep]) -> impl Iterator<Item = &'a Host> {
    let acts = |step: &&&PlannedStep| !matches!(step.spec.action, Action::Gate { .. });
    let busy: BTreeSet<String> = left.iter().filter(acts).map(|step| step.host.clone()).collect();
    platform.hosts.iter().filter(move |host| !host.is_windows() && busy.contains(&host.name))
}

/// What is asked of the hosts of a platform of which these steps are not proven, by host.
pub fn queries_again(platform: &Platform, left: &[&PlannedStep], files: &PackageFiles) -> BTreeMap<String, Vec<Query>> {
    let of = |host: &Host| {
        let mut queries = on_host::queries_again(host, left);
        queries.extend(files.needed(&host.name, left).map(digest));
        (host.name.clone(), queries)
    };
    hosts(platform, left).map(of).collect()
}

/// The findings about a platform of which these steps are not proven. Pure, as [`super::evaluate`].
pub fn evaluate_again(
    platform: &Platform,
    states: &BTreeMap<String, HostState>,
    left: &[&PlannedStep],
    files: &PackageFiles,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in hosts(platform, left) {
        let state = states.get(&host.name);
        findings.extend(on_host::evaluate_again(platform, host, state, left));
        if let Some(reached) = state.and_then(HostState::reached) {
            let needed: Vec<&Sent> = files.needed(&host.name, left).collect();
            findings.extend(package_files(Subject::host(platform, host), &reached.readings, &needed));
        }
    }
    findings
}

/// Whether the files that the run brought are there as they were: they wait on the host from preflight on.
fn package_files(subject: Subject<'_>, readings: &Readings, needed: &[&Sent]) -> Option<Finding> {
    let check = "package-files";
    if needed.is_empty() {
        return None;
    }
    let mut problems = Vec::new();
    for sent in needed {
        match readings.file(&sent.dest).map(|facts| facts.sha256.as_deref()) {
            Ok(Some(seen)) if seen == sent.sha256 => {}
            Ok(Some(seen)) => problems.push(format!("{} has SHA-256 {}, expected {}", sent.dest, clean(seen), sent.sha256)),
            Ok(None) => {
                let slow = ReadError::Failed(format!("{} is too large to be read in time", sent.dest));
                return Some(subject.unread(check, &sent.dest, &slow));
            }
            Err(ReadError::Missing(_)) => problems.push(format!("{} does not exist", sent.dest)),
            Err(error) => return Some(subject.unread(check, &sent.dest, &error)),
        }
    }
    let names: Vec<&str> = needed.iter().map(|sent| sent.dest.rsplit('/').next().unwrap_or(&sent.dest)).collect();
    if problems.is_empty() {
        return Some(subject.ok(check, "the package files that were sent are there as they were", names.join(", ")));
    }
    let message = match problems.len() {
        1 => "a package file that was sent is gone or was changed".to_owned(),
        many => format!("{many} package files that were sent are gone or were changed"),
    };
    let remedy = "Put the file there again, as the inventory has it, readable for everybody.";
    Some(subject.finding(check, Status::Failure, message, problems.join("; "), remedy))
}
