//! Whether a run is over, and what it left behind: read from its record alone.

use crate::cli::rollback::outcome;
use crate::plan::rollback::Done;
use crate::plan::{Phase, Plan, PlannedStep};
use inventory::{Fleet, Host};
use proto::event::{Event, Kind, RunOutcome};
use proto::{Action, StepId};
use std::collections::{BTreeMap, BTreeSet};

/// Whether nobody needs any more what a run left on its hosts: it ended well, it was aborted, or each platform that it touched is
/// migrated or rolled back. `back` are the platforms that a later run rolled back.
///
/// # Errors
/// It is not over: which platforms keep it open, and what to do.
pub(in crate::cli) fn run_is_over(events: &[Event], back: &BTreeSet<String>) -> Result<(), String> {
    if matches!(outcome(events), Some(RunOutcome::Ok | RunOutcome::Aborted)) {
        return Ok(());
    }
    let open: Vec<String> = touched(events).into_iter().filter(|platform| !back.contains(platform)).collect();
    let migrated = migrated(events);
    let open: Vec<&str> = open.iter().filter(|platform| !migrated.contains(*platform)).map(String::as_str).collect();
    if open.is_empty() && outcome(events).is_some() {
        return Ok(());
    }
    let open =
        if open.is_empty() { "it did not come to its end".to_owned() } else { format!("{} stopped half-way", open.join(", ")) };
    Err(format!("{open}. `resume`, `rollback` or `abort` it first"))
}

/// Platforms that ended well and stayed so.
pub(super) fn migrated(events: &[Event]) -> BTreeSet<String> {
    let mut last: BTreeMap<&String, RunOutcome> = BTreeMap::new();
    for event in events {
        if let (Kind::PlatformFinished { outcome, .. }, Some(platform)) = (&event.kind, &event.scope.platform) {
            last.insert(platform, *outcome);
        }
    }
    last.into_iter().filter(|(_, outcome)| *outcome == RunOutcome::Ok).map(|(platform, _)| platform.clone()).collect()
}

/// Platforms on which something outside preflight was granted, even if only to be proven.
fn touched(events: &[Event]) -> BTreeSet<String> {
    let mut touched = BTreeSet::new();
    for event in events {
        if matches!(event.kind, Kind::StepGranted { .. } | Kind::GateWaiting { .. })
            && event.scope.phase.as_deref() != Some("preflight")
        {
            touched.extend(event.scope.platform.clone());
        }
    }
    touched
}

/// What a run left on one host. All of it lies below Caravan's own directory there, but for the trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) host: String,
    /// Whether its agent is root's.
    pub(super) root: bool,
    /// Caravan's directory on the host.
    pub(super) host_state: String,
    /// Encrypted copies that may be left where keeping them came to no end. The archives and dumps themselves stay.
    pub(super) copies: Vec<String>,
    /// Trees that were kept to go back, and that nobody needs any more.
    pub(super) trees: Vec<String>,
}

/// What a run left behind on the hosts of its platforms, and what of it stays because somebody may still need it.
pub(super) struct Remains {
    pub(super) hosts: Vec<Left>,
    /// For people: trees that stay, and hosts that nobody knows any more.
    pub(super) notes: Vec<String>,
}

/// Everything that a run left behind, from its own plan and events. The inventory says how hosts are reached; where it does not know a
/// host any more, or names other directories by now, nothing is removed there. `back` are the platforms that a rollback brought back,
/// `begun` those on which one began.
pub(super) fn remains(
    fleet: &Fleet,
    plan: &Plan,
    events: &[Event],
    (back, begun): (&BTreeSet<String>, &BTreeSet<String>),
) -> Remains {
    let granted = Done::of(events).granted;
    let migrated = migrated(events);
    let mut found = Remains { hosts: Vec::new(), notes: Vec::new() };
    let taking_part: Vec<_> = plan.platforms.iter().filter(|platform| takes_part(events, &platform.name)).collect();
    for planned in taking_part {
        let hosts = fleet.platforms.iter().find(|platform| platform.name == planned.name).map(|platform| &platform.hosts);
        let mut steps: BTreeMap<&str, Vec<(Phase, &PlannedStep)>> = BTreeMap::new();
        for phase in &planned.phases {
            for step in phase.stages.iter().flat_map(|stage| &stage.steps) {
                steps.entry(&step.host).or_default().push((phase.name, step));
            }
        }
        let for_good = migrated.contains(&planned.name) && !begun.contains(&planned.name);
        let mut kept = 0;
        for (name, steps) in steps {
            let Some(host) = hosts.and_then(|hosts| hosts.iter().find(|host| host.name == name)) else {
                found.notes.push(format!("{name} is not in the inventory any more: what is on it stays"));
                continue;
            };
            if host.is_windows() {
                continue;
            }
            let trees = trees(host, &steps, &granted);
            kept += if for_good { 0 } else { trees.len() };
            found.hosts.push(Left {
                host: name.to_owned(),
                root: host.become_.method != inventory::BecomeMethod::None,
                host_state: host.host_state.clone(),
                copies: copies(&steps, &granted),
                trees: if for_good { trees } else { Vec::new() },
            });
        }
        if kept > 0 && !back.contains(&planned.name) {
            found.notes.push(format!(
                "{}: nl6.back stays, for it is not wholly migrated; once the old packages are gone, going back is work by hand",
                planned.name
            ));
        }
    }
    found
}

/// A run names its platforms when it starts.
fn takes_part(events: &[Event], platform: &str) -> bool {
    events.iter().any(|event| match &event.kind {
        Kind::RunStarted { platforms, .. } => platforms.iter().any(|name| name == platform),
        _ => event.scope.platform.as_deref() == Some(platform),
    })
}

/// What the steps that keep backups elsewhere encrypt them to, beside them, and remove when they are kept.
fn copies(steps: &[(Phase, &PlannedStep)], granted: &BTreeSet<StepId>) -> Vec<String> {
    let kept = steps.iter().filter(|(_, step)| granted.contains(&step.id)).filter_map(|(_, step)| match &step.spec.action {
        Action::Keep { source, .. } => Some(source),
        _ => None,
    });
    kept.flat_map(|source| [format!("{source}.age"), format!("{source}.age.part")]).collect()
}

/// The trees that steps of the run moved away beside the installation: `nl6.back` (from v5 `nl5.back`), and a rollback's `nl6.v7-RUN`.
fn trees(host: &Host, steps: &[(Phase, &PlannedStep)], granted: &BTreeSet<StepId>) -> Vec<String> {
    let moved = steps.iter().filter(|(_, step)| granted.contains(&step.id)).filter_map(|(_, step)| match &step.spec.action {
        Action::MoveTree { to, .. } => Some(to.clone()),
        _ => None,
    });
    let beside = |to: &String| {
        let name = to.strip_prefix(&format!("{}/", host.campaign.home));
        name.is_some_and(|name| !name.contains('/') && (name == "nl6.back" || name == "nl5.back" || name.starts_with("nl6.v7-")))
    };
    moved.filter(beside).collect()
}
