//! Reads what earlier runs of this workstation say.

use super::{Context, status};
use crate::check::{History, Migrated, POSTUPGRADE};
use crate::plan::{Phase, Plan};
use crate::run::store::{RunDir, Store};
use crate::view::{PlatformView, StepState, View};
use inventory::Fleet;
use proto::Outcome;
use proto::event::RunOutcome;
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs that are looked at, the newest first: what is older says little about tonight.
const LOOKED_AT: usize = 100;

/// What earlier runs say. A record that cannot be read is named and not looked at.
pub(super) fn read(context: &Context) -> History {
    let mut history = History::default();
    let runs = match Store::new(&context.state_dir).runs() {
        Ok(runs) => runs,
        Err(error) => {
            history.unreadable.push(error.to_string());
            return history;
        }
    };
    for run in runs.iter().rev().take(LOOKED_AT).rev() {
        match (run.plan(), status::read(run)) {
            (Ok(plan), Ok((view, _))) => history.migrated.extend(migrated(run, &plan, &view)),
            _ => history.unreadable.push(run.id.clone()),
        }
    }
    history
}

/// As [`read`], for the checks of a fleet: with its rehearsal platforms.
pub(super) fn of(context: &Context, fleet: &Fleet) -> History {
    let rehearsals = fleet.platforms.iter().filter(|platform| platform.rehearsal).map(|platform| platform.name.clone()).collect();
    History { rehearsals, ..read(context) }
}

fn migrated(run: &RunDir, plan: &Plan, view: &View) -> Vec<Migrated> {
    let migrations = view.run.undoes.is_none();
    let well = view.platforms.iter().filter(|platform| migrations && platform.selected && platform.outcome == Some(RunOutcome::Ok));
    let done = |platform: &PlatformView| {
        Some(Migrated {
            run: run.id.clone(),
            platform: platform.name.clone(),
            rehearsal: plan.platforms.iter().any(|planned| planned.name == platform.name && planned.rehearsal),
            topology: platform.topology,
            source: platform.source.clone(),
            target: platform.target.clone(),
            took: took(platform)?,
            postupgrades: postupgrades(view, platform),
        })
    };
    well.filter_map(done).collect()
}

/// How long the postupgrades of a platform took that did something.
fn postupgrades(view: &View, platform: &PlatformView) -> BTreeMap<String, Duration> {
    let steps = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage));
    let done = steps.filter(|step| step.name == POSTUPGRADE && step.state == StepState::Ended(Outcome::Ok));
    done.filter_map(|step| Some((step.instance.clone()?, Duration::from_millis(step.duration_ms)))).collect()
}

/// From the beginning of `stop` to the end of `verify`.
fn took(platform: &PlatformView) -> Option<Duration> {
    let phase = |name: Phase| platform.phases.iter().find(|phase| phase.name == name);
    let (from, to) = (phase(Phase::Stop)?.started?, phase(Phase::Verify)?.ended?);
    Duration::try_from(to.duration_since(from)).ok()
}
