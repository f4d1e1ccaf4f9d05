//! The facts that a saved plan rests on: a closed list, read from every host and compared before the plan is carried out.

use super::Point;
use super::banner::Banner;
use super::layout::{Layout, instance_of};
use super::readings::{Reached, Readings};
use inventory::Host;
use proto::inspect::{Query, ReadError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of each host, by its name.
pub type Facts = BTreeMap<String, HostFacts>;

/// What is known of one host. A fact that does not apply to it (the build of a database server) is left out.
pub type HostFacts = BTreeMap<Fact, String>;

/// The facts. The list is closed: what is not in it can change without a plan being refused, and preflight looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Distribution and major version.
    Os,
    /// Machine name as `uname -m` prints it.
    Arch,
    /// The Campaign packages that are installed, with their versions.
    Packages,
    /// Version and build that `nlserver pdump` says.
    Build,
    /// The host's roles, as the inventory gives them.
    Roles,
    /// The instances that are configured there.
    Instances,
    /// The database engine of each of them.
    Engine,
    /// Fingerprint of the SSH host key.
    HostKey,
}

impl Fact {
    /// Its name, as in the file and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Arch => "arch",
            Self::Packages => "packages",
            Self::Build => "build",
            Self::Roles => "roles",
            Self::Instances => "instances",
            Self::Engine => "engine",
            Self::HostKey => "host key",
        }
    }
}

/// What is asked of a host to know its facts, in one round trip. Nothing of a Windows host, which has no agent.
pub(super) fn questions(host: &Host) -> Vec<Query> {
    if host.is_windows() {
        return Vec::new();
    }
    let mut queries = vec![Query::System];
    if host.has_campaign() {
        let layout = Layout::new(host, Point::Preflight);
        queries.extend([layout.pdump(), layout.instance_list(), layout.connection("provider")]);
        queries.extend(layout.packages());
    }
    queries
}

/// The facts of a host: from the inventory alone where it was not asked (Windows), and from its answers otherwise.
pub fn facts_of(host: &Host, reached: Option<&Reached>) -> HostFacts {
    let roles: BTreeSet<&str> = host.roles.iter().map(|role| role.as_str()).collect();
    let mut facts = HostFacts::from([(Fact::Roles, join(roles))]);
    let Some(Reached { readings, agent, .. }) = reached else { return facts };
    let mut note = |fact: Fact, value: Result<String, ReadError>| {
        let value = value.unwrap_or_else(|error| unread(&error).to_owned());
        facts.insert(fact, one_line(&value));
    };
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    note(Fact::Os, readings.system().map(|system| known(&system.os)));
    note(Fact::Arch, readings.system().map(|system| known(&system.arch)));
    if !agent.host_key.is_empty() {
        note(Fact::HostKey, Ok(agent.host_key.clone()));
    }
    if host.has_campaign() {
        let layout = Layout::new(host, Point::Preflight);
        note(Fact::Packages, packages(&layout, readings));
        note(Fact::Build, build(&layout, readings));
        note(Fact::Instances, instances(&layout, readings));
        note(Fact::Engine, engines(&layout, readings));
    }
    facts
}

fn packages(layout: &Layout<'_>, readings: &Readings) -> Result<String, ReadError> {
    // Where the inventory does not say the OS both managers were asked, and one of them is not there.
    let answers = layout.packages();
    let mut answers: Vec<_> = answers.iter().map(|query| readings.packages(query)).collect();
    answers.sort_by_key(|answer| answer.as_ref().map_or(1, |packages| usize::from(packages.is_empty())));
    match answers.into_iter().next() {
        Some(packages) => Ok(join(packages?.iter().map(|(name, version)| format!("{name} {version}")).collect::<BTreeSet<_>>())),
        None => Err(ReadError::Failed("nothing was asked".to_owned())),
    }
}

fn build(layout: &Layout<'_>, readings: &Readings) -> Result<String, ReadError> {
    let (_, text) = readings.output(&layout.pdump())?;
    let banner = Banner::parse(text).ok_or_else(|| ReadError::Failed("`nlserver pdump` does not say the build".to_owned()))?;
    Ok(format!("{} ({})", banner.version, banner.build))
}

fn instances(layout: &Layout<'_>, readings: &Readings) -> Result<String, ReadError> {
    let files = none_where_missing(readings.xml(&layout.instance_list()))?;
    Ok(join(files.iter().filter_map(|value| instance_of(&value.file)).collect::<BTreeSet<_>>()))
}

fn engines(layout: &Layout<'_>, readings: &Readings) -> Result<String, ReadError> {
    let providers = none_where_missing(readings.xml(&layout.connection("provider")))?;
    let said = providers.iter().filter_map(|found| Some((instance_of(&found.file)?, found.value.as_deref()?)));
    Ok(join(said.map(|(instance, provider)| format!("{instance} {provider}")).collect::<BTreeSet<_>>()))
}

/// A host without any such file has none.
fn none_where_missing<T>(found: Result<&[T], ReadError>) -> Result<&[T], ReadError> {
    match found {
        Err(ReadError::Missing(_)) => Ok(&[]),
        found => found,
    }
}

/// Why a fact is not known. The host's own words are left out: they can hold what changes from one time to the next.
fn unread(error: &ReadError) -> &'static str {
    match error {
        ReadError::Missing(_) => "not there",
        ReadError::Denied(_) => "no permission to read it",
        ReadError::Failed(_) => "cannot be read",
    }
}

fn join<S: AsRef<str>>(parts: BTreeSet<S>) -> String {
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// What a host said, harmless for a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
