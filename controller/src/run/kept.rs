//! What hosts keep for their controller, so that a run can be taken over from the hosts alone: the plan, in parts, and the controller's
//! own decisions. Each is one line of JSON that the host stores before anything that relies on it, and never looks into
//! (`proto::host::Record::Kept`). [`Keeper`] says which lines a host is to be given next; [`super::rebuild`] puts a run together
//! from them again.

use super::journal::hex;
use super::stage::{Executor, executor};
use crate::plan::{Plan, PlannedFile, PlannedStep, PlatformPlan};
use proto::event::{Event, Kind, Status};
use proto::host::Record;
use proto::message::{Attempt, Granted};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// One line that a host keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kept", rename_all = "kebab-case")]
pub enum Kept {
    /// The plan, as far as this host holds it.
    Part(Box<Part>),
    /// An event of the controller's own.
    Line(Box<Line>),
}

/// What one host holds of a platform's plan. All hosts of the platform together hold all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The run.
    pub run: String,
    /// The host that keeps it.
    pub host: String,
    /// The version of Caravan that made it.
    pub version: String,
    /// The fleet's name.
    pub fleet: String,
    /// The plan's hash.
    pub hash: String,
    /// The files that steps of the plan push.
    pub files: Vec<PlannedFile>,
    /// The plan's warnings.
    pub warnings: Vec<String>,
    /// The names of all platforms of the plan, in order.
    pub platforms: Vec<String>,
    /// The platform's plan with its stages in order and without steps.
    pub platform: PlatformPlan,
    /// How many steps each stage has, in the order of phases and stages.
    pub counts: Vec<usize>,
    /// The platform's hosts that keep a part: those whose steps an agent carries out, by name.
    pub hosts: Vec<String>,
    /// SHA-256 of the platform's whole plan, see [`digest`].
    pub digest: String,
    /// The complete steps of this host, and those that no agent carries out (gates, steps of hosts without an agent), each with its
    /// position among all steps of the platform.
    pub steps: Vec<(usize, PlannedStep)>,
}

/// An event of the controller's own that later grants rely on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which record it is of: empty for the run's first one, and for one that was rebuilt from the hosts the digest of the event with
    /// which it went on. Positions count within one record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub record: String,
    /// The event, as it stands in the journal.
    pub event: Event,
}

impl Kept {
    /// The line, without a line break.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is none: damaged, or of another version.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

/// SHA-256, lower-case hex, of a platform's plan as JSON: whether parts were put together to what they were taken from.
///
/// # Errors
/// The plan has no JSON form.
pub fn digest(platform: &PlatformPlan) -> Result<String, serde_json::Error> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(platform)?)))
}

/// The plan in parts: host by host what it keeps of its platform's plan. Hosts without a step for an agent keep nothing.
///
/// # Errors
/// The plan has no JSON form.
pub fn parts(run: &str, plan: &Plan) -> Result<Vec<Part>, serde_json::Error> {
    let mut parts = Vec::new();
    for platform in &plan.platforms {
        let hosts = agent_hosts(platform);
        let digest = digest(platform)?;
        let counts = platform.phases.iter().flat_map(|phase| &phase.stages).map(|stage| stage.steps.len()).collect();
        let mut skeleton = platform.clone();
        skeleton.phases.iter_mut().flat_map(|phase| &mut phase.stages).for_each(|stage| stage.steps.clear());
        let part = Part {
            run: run.to_owned(),
            host: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fleet: plan.fleet.clone(),
            hash: plan.hash.clone(),
            files: plan.files.clone(),
            warnings: plan.warnings.clone(),
            platforms: plan.platforms.iter().map(|platform| platform.name.clone()).collect(),
            platform: skeleton,
            counts,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            digest,
            steps: Vec::new(),
        };
        for host in &hosts {
            let of_all = |step: &PlannedStep| executor(step) == Executor::Person || !hosts.contains(step.host.as_str());
            let steps = platform.steps().enumerate().filter(|(_, step)| step.host == **host || of_all(step));
            let steps = steps.map(|(position, step)| (position, step.clone())).collect();
            parts.push(Part { host: (*host).to_owned(), steps, ..part.clone() });
        }
    }
    Ok(parts)
}

/// The hosts of a platform whose steps an agent carries out.
fn agent_hosts(platform: &PlatformPlan) -> BTreeSet<&str> {
    platform.steps().filter(|step| executor(step) == Executor::Agent).map(|step| step.host.as_str()).collect()
}

/// What hosts have to be given to keep. Every event of the journal goes through [`Keeper::note`] once it is durable: those of earlier
/// lives of the run first, then the new ones. [`Keeper::take`] then has what a host was not given yet.
#[derive(Debug)]
pub struct Keeper {
    /// Host to its platform and its part of the plan.
    parts: BTreeMap<String, (String, String)>,
    /// The ids of steps that an agent carries out.
    of_agents: HashSet<String>,
    lines: Vec<Noted>,
    record: String,
    /// How many lines a host was given; none without its part.
    given: BTreeMap<String, usize>,
}

/// A line and for whom it is.
#[derive(Debug)]
struct Noted {
    platform: Option<String>,
    /// This host alone.
    host: Option<String>,
    text: String,
}

impl Keeper {
    /// A keeper for a run in which nothing happened yet.
    ///
    /// # Errors
    /// The plan has no JSON form.
    pub fn new(run: &str, plan: &Plan) -> Result<Self, serde_json::Error> {
        let mut lines = BTreeMap::new();
        for part in parts(run, plan)? {
            let (host, platform) = (part.host.clone(), part.platform.name.clone());
            lines.insert(host, (platform, Kept::Part(Box::new(part)).to_line()?));
        }
        let steps = plan.platforms.iter().flat_map(PlatformPlan::steps);
        let of_agents = steps.filter(|step| executor(step) == Executor::Agent).map(|step| step.id.0.clone()).collect();
        Ok(Self { parts: lines, of_agents, lines: Vec::new(), record: String::new(), given: BTreeMap::new() })
    }

    /// Takes in an event that is durable in the controller's journal.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn note(&mut self, event: &Event) -> Result<(), serde_json::Error> {
        if begins_a_record(&event.kind) {
            // What stands before it was read from the hosts: they hold it.
            self.record = hex(&Sha256::digest(serde_json::to_vec(event)?));
            self.lines.clear();
            self.given.clear();
        }
        if !is_kept(event, |step| self.of_agents.contains(step)) {
            return Ok(());
        }
        let host = match &event.kind {
            // Good findings hold nothing up: they are for the report, and one host is enough.
            Kind::Finding { finding } if finding.status == Status::Ok => event.scope.host.clone(),
            _ => None,
        };
        let line = Line { record: self.record.clone(), event: event.clone() };
        self.lines.push(Noted {
            platform: event.scope.platform.clone(),
            host: host.filter(|host| self.parts.contains_key(host)),
            text: Kept::Line(Box::new(line)).to_line()?,
        });
        Ok(())
    }

    /// The lines that a host was not given yet, its part of the plan first. They count as given from here on: whoever sends them sends
    /// them again until the host has them.
    pub fn take(&mut self, host: &str) -> Vec<String> {
        let Some((platform, part)) = self.parts.get(host) else { return Vec::new() };
        let before = self.given.insert(host.to_owned(), self.lines.len());
        let mine = |line: &&Noted| {
            line.platform.as_ref().is_none_or(|of| of == platform) && line.host.as_ref().is_none_or(|only| only == host)
        };
        let new = self.lines.iter().skip(before.unwrap_or(0)).filter(mine).map(|line| line.text.clone());
        before.is_none().then(|| part.clone()).into_iter().chain(new).collect()
    }

    /// A host may have lost what it was given, or never got it: it is given everything again.
    pub fn again(&mut self, host: &str) {
        self.given.remove(host);
    }
}

/// Whether an event is one that hosts keep. They have their own record of the steps that their agents carry out (`of_agent`); connections
/// that came and went, and locks that were taken, mean nothing to another controller.
pub(super) fn is_kept(event: &Event, of_agent: impl Fn(&str) -> bool) -> bool {
    match event.kind {
        _ if event.host_seq.is_some() => false,
        Kind::HostUnreachable { .. } | Kind::HostReattached | Kind::HostLocked { .. } | Kind::HostClaimed { .. } => false,
        Kind::StepOutput { .. } | Kind::KeepBegun { .. } => false,
        Kind::StepGranted { .. } | Kind::StepRevoked | Kind::StepStarted => !event.scope.step.as_deref().is_some_and(of_agent),
        _ => true,
    }
}

/// The record that a journal is, as [`Line::record`] names it.
pub fn record_of(events: &[Event]) -> String {
    let last = events.iter().rev().find(|event| begins_a_record(&event.kind));
    last.and_then(|event| serde_json::to_vec(event).ok()).map(|line| hex(&Sha256::digest(line))).unwrap_or_default()
}

/// The grants that a host got from the controller whose record is `own`: the hash of that controller's newest line when each was sent,
/// and what was granted. True beside them when the host got grants from another controller later.
pub fn grants(records: &[Record], own: &str) -> (Vec<(String, Vec<Attempt>)>, bool) {
    let (mut grants, mut current, mut was_own, mut left) = (Vec::new(), String::new(), false, false);
    for record in records {
        match record {
            Record::Kept { lines } => {
                let lines = lines.iter().rev().filter_map(|line| Kept::from_line(line).ok());
                let last = lines.filter_map(|kept| if let Kept::Line(line) = kept { Some(line.record) } else { None }).next();
                current = last.unwrap_or(current);
            }
            Record::Grant { steps, head, .. } if current == own => {
                was_own = true;
                let attempt = |granted: &Granted| Attempt { step: granted.spec.id.clone(), attempt: granted.attempt };
                grants.push((head.clone(), steps.iter().map(attempt).collect()));
            }
            Record::Grant { .. } => left |= was_own,
            _ => {}
        }
    }
    (grants, left)
}

/// Whether a journal that was rebuilt from the hosts goes on with this event.
fn begins_a_record(kind: &Kind) -> bool {
    matches!(kind, Kind::RunResumed { from_hosts: true, .. })
}
