//! What a host may say of a run, for a controller that has nothing but what hosts say: it is held against the inventory, which is the
//! operator's own. Root on one host must not speak for another one through the workstation.

use crate::plan::{Plan, PlannedFile, PlannedStep, PlatformPlan};
use crate::run::kept::Part;
use crate::run::stage::{Executor, executor};
use inventory::{Fleet, Location};
use proto::event::{Event, Kind};
use proto::step::KeepTo;
use proto::{Action, Query, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the inventory says, as far as the word of a host is held against it.
#[derive(Debug, Default)]
pub struct Ground {
    /// The names of the platforms, in order.
    platforms: Vec<String>,
    hosts: BTreeMap<String, Home>,
    /// Digest and path of the workstation's files that may be sent to hosts.
    files: BTreeSet<(String, String)>,
    given: BTreeMap<String, Given>,
}

/// Where a host belongs.
#[derive(Debug)]
struct Home {
    platform: String,
    /// Whether an agent can be there.
    agent: bool,
}

/// What the inventory's plans have for a host beyond the host itself.
#[derive(Debug, Default)]
struct Given {
    secrets: BTreeSet<String>,
    queries: Vec<Query>,
    /// Where its copies are kept on other hosts.
    places: Vec<KeepTo>,
}

impl Ground {
    /// What a fleet says about a run. `plans` are all that can be planned on it, whichever of them the run is of.
    ///
    /// # Errors
    /// A plan has no JSON form.
    pub fn of(fleet: &Fleet, plans: &[Plan], run: &str) -> Result<Self, serde_json::Error> {
        let mut ground = Self::default();
        for platform in &fleet.platforms {
            ground.platforms.push(platform.name.clone());
            for host in &platform.hosts {
                let home = Home { platform: platform.name.clone(), agent: !host.is_windows() };
                ground.hosts.insert(host.name.clone(), home);
                for package in host.target.packages.iter().chain(&host.source.packages).chain(&host.target.client) {
                    if let Location::Path(path) = &package.location {
                        ground.files.insert((package.sha256.clone(), path.clone()));
                    }
                }
            }
        }
        for plan in plans {
            // As when a run begins.
            let plan: Plan = serde_json::from_str(&serde_json::to_string(plan)?.replace("{run}", run))?;
            for step in plan.platforms.into_iter().flat_map(|platform| platform.phases).flat_map(|phase| phase.stages) {
                for step in step.steps {
                    let given = ground.given.entry(step.host).or_default();
                    given.secrets.extend(step.spec.action.secrets().map(str::to_owned));
                    match step.spec.action {
                        Action::Inspect { queries } => given.queries.extend(queries),
                        Action::Keep { to, .. } => given.places.push(to),
                        _ => {}
                    }
                }
            }
        }
        Ok(ground)
    }

    /// The platform of a host.
    pub(in crate::run) fn home(&self, host: &str) -> Option<&str> {
        self.hosts.get(host).map(|home| home.platform.as_str())
    }

    /// The hosts of a platform on which an agent can be.
    pub(super) fn agents<'a>(&'a self, platform: &'a str) -> impl Iterator<Item = &'a str> {
        self.hosts.iter().filter(move |(_, home)| home.platform == platform && home.agent).map(|(name, _)| name.as_str())
    }

    /// Names of platforms, each once: those of the inventory in its order, then others.
    pub(super) fn in_order<'a>(&self, names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        let place = |name: &str| self.platforms.iter().position(|known| known == name).unwrap_or(usize::MAX);
        names.sort_by_key(|name| (place(name), *name));
        names.dedup();
        names
    }

    /// Whether the inventory has a file as one that hosts are sent.
    pub(super) fn has(&self, file: &PlannedFile) -> bool {
        self.files.contains(&(file.sha256.clone(), file.path.clone()))
    }

    /// Looks at a part of a plan that a host keeps.
    ///
    /// # Errors
    /// What in it is not the host's to say.
    pub(super) fn check(&self, host: &str, part: &Part) -> Result<(), String> {
        let platform = &part.platform;
        if part.host != host {
            return Err(format!("the part of {}", part.host));
        }
        if self.home(host) != Some(&platform.name) {
            let home = self.home(host).unwrap_or("no platform");
            return Err(format!("a plan of platform {}, and the inventory has it in {home}", platform.name));
        }
        if !part.hosts.contains(&part.host) || platform.steps().next().is_some() {
            return Err("a part that Caravan does not make".to_owned());
        }
        part.steps.iter().try_for_each(|(_, step)| self.check_step(part, platform, step))
    }

    fn check_step(&self, part: &Part, platform: &PlatformPlan, step: &PlannedStep) -> Result<(), String> {
        let (id, host) = (&step.id, step.host.as_str());
        if step.spec.id != *id || !id.0.strip_prefix(platform.name.as_str()).is_some_and(|rest| rest.starts_with('/')) {
            return Err(format!("step {id}, which is not of platform {}", platform.name));
        }
        let none = Given::default();
        let given = self.given.get(host).unwrap_or(&none);
        if host != part.host {
            let reads = |queries: &[Query]| queries.iter().all(|query| given.queries.contains(query));
            let for_all = self.home(host) == Some(&platform.name)
                && match (executor(step), &step.spec.action) {
                    (Executor::Person, _) => true,
                    // Only where no agent takes part.
                    (_, Action::Inspect { queries }) => !part.hosts.iter().any(|known| known == host) && reads(queries),
                    _ => false,
                };
            if !for_all {
                return Err(format!("step {id}, which runs on {host}"));
            }
        }
        if let Some(secret) = step.spec.action.secrets().find(|secret| !given.secrets.contains(*secret)) {
            return Err(format!("step {id}, which is given the secret `{secret}`: the inventory gives it to no step of {host}"));
        }
        match &step.spec.action {
            Action::Keep { to: to @ KeepTo::Host { host: keeper, dest }, .. } if !given.places.contains(to) => {
                Err(format!("step {id}, which writes {dest} on {keeper}: the inventory keeps no copy of {host} there"))
            }
            _ => Ok(()),
        }
    }

    /// Whether an event that a controller left with a host is about another platform than the host's. Such events are given to nobody.
    pub(in crate::run) fn is_of_others(&self, host: &str, event: &Event, platforms: &HashMap<&StepId, &str>) -> bool {
        let of_step = |id: &str| platforms.get(&StepId(id.to_owned())).copied();
        let scope = &event.scope;
        let about = match &event.kind {
            // These are about the run.
            Kind::Decision { decision, .. } if matches!(decision.as_str(), "pause" | "abort") => None,
            Kind::Decision { about, .. } => of_step(about).or_else(|| self.named(about)),
            _ => None,
        };
        let of_scope = scope.step.as_deref().and_then(of_step).or_else(|| self.home(scope.host.as_deref()?));
        let home = self.home(host);
        [scope.platform.as_deref(), of_scope, about].into_iter().flatten().any(|platform| Some(platform) != home)
    }

    /// The platform that a decision is about: of its name, or of a finding's id (`CHECK@HOST`, `CHECK@PLATFORM/INSTANCE`).
    fn named(&self, about: &str) -> Option<&str> {
        let scope = about.rsplit('@').next()?;
        let of_platform = || {
            let name = scope.split('/').next()?;
            self.platforms.iter().find(|known| *known == name).map(String::as_str)
        };
        self.home(scope).or_else(of_platform)
    }
}
