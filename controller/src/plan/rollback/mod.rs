//! The way back: what a rollback of a run does, planned from what the run did.
//!
//! [`build`] looks at the run's own plan and events, and at the inventory for how hosts are reached and what is on them. Where the two
//! say different things about a step that is to be undone, it refuses: a tree that is put back must be the one that was moved away.

mod done;
mod notes;
mod undone;

pub use done::Done;
pub use notes::{DatabaseBackup, OneWay, PlatformNotes, RollbackNotes};
pub(super) use undone::Undone;

use super::expand::Expansion;
use super::files::{FileCheck, Files};
use super::runbook::Runbook;
use super::{Plan, PlanError, PlanErrors, PlannedStep, PlatformPlan, hash, order, site};
use inventory::{Fleet, Platform};
use proto::Action;
use std::collections::{BTreeMap, BTreeSet};

/// A run that is to be undone.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// Its id.
    pub run: &'a str,
    /// Its own plan, with its id in place of `{run}`.
    pub plan: &'a Plan,
    /// What it did.
    pub done: &'a Done,
}

/// A rollback before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollback {
    /// What will happen. `{run}` is left for the rollback's own id.
    pub plan: Plan,
    /// What a person should know first.
    pub notes: RollbackNotes,
}

/// Steps whose names, files and directories the way back takes from the inventory: they have to be what they were. Where the site does
/// such a step with a command of its own, before or now, there is nothing to compare.
const SAME: &[&str] = &["backup.move-tree", "remove.packages", "install.packages"];

/// Plans the way back from a run.
///
/// Only platforms take part on which a step outside preflight was granted. A platform whose `postupgrade` was granted gets its
/// databases restored, and then all its hosts are stopped first; otherwise only the hosts that the run touched are.
///
/// # Errors
/// The run touched nothing, or the inventory does not fit the run any more: everything at once.
pub fn build(fleet: &Fleet, forward: &Forward<'_>) -> Result<Rollback, PlanErrors> {
    let mut errors = Vec::new();
    let mut taking_part = Vec::new();
    for planned in &forward.plan.platforms {
        let undone = Undone::new(forward, planned);
        if undone.is_untouched() {
            continue;
        }
        match fleet.platforms.iter().find(|platform| platform.name == planned.name) {
            Some(platform) => taking_part.push((platform, undone)),
            None => errors.push(moved(forward, &planned.name, "is no platform of the inventory".to_owned())),
        }
    }
    if taking_part.is_empty() && errors.is_empty() {
        return Err(PlanErrors(vec![PlanError::NothingToRollBack { run: forward.run.to_owned() }]));
    }
    let now = Fleet { platforms: taking_part.iter().map(|(platform, _)| (*platform).clone()).collect(), ..fleet.clone() };
    let now = super::build_with(&now, &|_, _, _| Vec::new(), FileCheck::Optional)?;
    let mut warnings = Vec::new();
    let mut platforms = Vec::new();
    for (platform, undone) in &taking_part {
        let planned_now = now.platforms.iter().find(|planned| planned.name == platform.name);
        platforms.extend(plan_platform(platform, undone, planned_now, forward, &mut errors, &mut warnings));
    }
    if !errors.is_empty() {
        return Err(PlanErrors(errors));
    }
    if platforms.is_empty() {
        return Err(PlanErrors(vec![PlanError::NothingToRollBack { run: forward.run.to_owned() }]));
    }
    let notes = RollbackNotes::of(forward, &platforms, &taking_part);
    let hash =
        hash::plan_hash(fleet, &platforms).map_err(|error| PlanErrors(vec![defect("the plan's hash", error.to_string())]))?;
    Ok(Rollback { plan: Plan { fleet: fleet.name.clone(), hash, platforms, files: Vec::new(), warnings }, notes })
}

fn plan_platform(
    platform: &Platform,
    undone: &Undone<'_>,
    now: Option<&PlatformPlan>,
    forward: &Forward<'_>,
    errors: &mut Vec<PlanError>,
    warnings: &mut Vec<String>,
) -> Option<PlatformPlan> {
    let version = platform.hosts.iter().find(|host| host.has_campaign())?.source.version;
    let runbook = match Runbook::back_to(version) {
        Ok(Some(runbook)) => runbook,
        Ok(None) => {
            errors.push(moved(forward, &platform.name, format!("is v{}, to which no runbook leads back", version.as_str())));
            return None;
        }
        Err(error) => {
            errors.push(defect("all", error.to_string()));
            return None;
        }
    };
    let before = errors.len();
    compare(undone, now?, &runbook, forward, errors);
    let sites = site::settle(platform, errors, warnings);
    let mut stages = |stages: Result<order::Stages, PlanError>| stages.map_err(|error| errors.push(error)).ok();
    let (migrate, restart) = (stages(order::migrate(platform)), stages(order::restart(platform)));
    let (migrate, restart) = (migrate?.reversed(), restart?);
    if errors.len() > before {
        return None;
    }
    let expansion = Expansion {
        platform,
        runbook: &runbook,
        sites: &sites,
        migrate: &migrate,
        restart: &restart,
        files: &Files::default(),
        queries: &BTreeMap::new(),
        undone: Some(undone),
    };
    let mut phases = expansion.phases(errors);
    phases.retain(|phase| !phase.stages.is_empty());
    let planned = now?;
    (!phases.is_empty()).then(|| PlatformPlan {
        name: platform.name.clone(),
        topology: platform.topology,
        rehearsal: planned.rehearsal,
        source: planned.target.clone(),
        target: planned.source.clone(),
        roles: planned.roles.clone(),
        phases,
    })
}

/// Finds what the inventory says otherwise by now: of the steps that are undone, each has to be there still, and those that name
/// directories, files and packages have to be the same.
fn compare(undone: &Undone<'_>, now: &PlatformPlan, runbook: &Runbook, forward: &Forward<'_>, errors: &mut Vec<PlanError>) {
    let names: BTreeSet<&str> = runbook.steps.iter().flat_map(|step| &step.undoes).map(String::as_str).collect();
    let now: BTreeMap<&str, &PlannedStep> = now.steps().map(|step| (step.id.0.as_str(), step)).collect();
    for was in undone.granted() {
        let pushed = was.name.starts_with("packages.push-old") || was.name.starts_with("packages.download-old");
        if !pushed && !names.contains(was.name.as_str()) {
            continue;
        }
        let seen = match now.get(was.id.0.as_str()) {
            None => "is a step that would not be planned now".to_owned(),
            Some(is) => {
                let same = pushed || SAME.contains(&was.name.as_str());
                if !same || was.action != is.action || essence(was) == essence(is) {
                    continue;
                }
                format!("was `{}` and would be `{}`", essence(was), essence(is))
            }
        };
        errors.push(moved(forward, &was.id.0, seen));
    }
}

/// What of an action the way back relies on.
fn essence(step: &PlannedStep) -> String {
    match &step.spec.action {
        Action::PushFile { sha256, dest, .. } | Action::Download { sha256, dest, .. } => format!("{sha256} as {dest}"),
        action => super::words::action(action).join("; "),
    }
}

fn moved(forward: &Forward<'_>, step: &str, seen: String) -> PlanError {
    PlanError::Moved { run: forward.run.to_owned(), step: step.to_owned(), seen }
}

fn defect(step: &str, problem: String) -> PlanError {
    PlanError::Runbook { step: step.to_owned(), problem }
}
