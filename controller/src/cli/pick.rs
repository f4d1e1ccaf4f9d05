//! Which run is meant where none is named, and which runs were undone by others.

use super::control;
use super::status::failure;
use super::{Context, Failure};
use crate::run::store::{RunDir, Store, StoreError};
use proto::event::{Event, Kind};
use std::collections::BTreeMap;

/// The exit code of a run that was turned away because another one holds its hosts.
const LOCKED: u8 = 4;

/// The run of that name. Without one: the newest that a controller drives now, else the newest.
///
/// # Errors
/// There is no such run, or the state directory cannot be read.
pub(super) fn shown(context: &Context, wanted: Option<&str>) -> Result<RunDir, Failure> {
    if wanted.is_none() {
        let runs = Store::new(&context.state_dir).runs().map_err(failure)?;
        if let Some(driven) = runs.into_iter().rev().find(|run| control::is_driven(&run.path)) {
            return Ok(driven);
        }
    }
    find(context, wanted)
}

/// The run of that name, or the newest. One that was turned away before it touched anything is passed over where there are others: what
/// matters then is the run before it.
///
/// # Errors
/// There is no such run, or the state directory cannot be read.
pub(super) fn find(context: &Context, wanted: Option<&str>) -> Result<RunDir, Failure> {
    let store = Store::new(&context.state_dir);
    if wanted.is_some() {
        return store.find(wanted).map_err(failure);
    }
    let runs = store.runs().map_err(failure)?;
    let meant = runs.iter().rev().find(|run| !run.events().is_ok_and(|events| was_turned_away(&events)));
    match meant {
        Some(run) => Ok(run.clone()),
        None => store.find(None).map_err(failure),
    }
}

/// Whether a run never began, or other runs kept it from touching anything.
fn was_turned_away(events: &[Event]) -> bool {
    let refused = events.iter().any(|event| matches!(event.kind, Kind::RunFinished { exit_code: LOCKED, .. }));
    let granted =
        |event: &Event| matches!(event.kind, Kind::StepGranted { .. }) && event.scope.phase.as_deref() != Some("preflight");
    events.is_empty() || (refused && !events.iter().any(granted))
}

/// What rollbacks have changed something of: run to platform to the newest such rollback.
///
/// # Errors
/// The state directory cannot be read. A run that cannot be read is left out.
pub(super) fn undone(context: &Context) -> Result<BTreeMap<String, BTreeMap<String, String>>, StoreError> {
    let mut undone: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for run in Store::new(&context.state_dir).runs()? {
        let events = run.events().unwrap_or_default();
        let of = events.iter().find_map(|event| match &event.kind {
            Kind::RunStarted { undoes, .. } => undoes.clone(),
            _ => None,
        });
        let Some(of) = of else { continue };
        let changes = |event: &&Event| match &event.kind {
            Kind::StepGranted { action, prove: false } => !matches!(action.as_str(), "verify" | "inspect"),
            Kind::GateConfirmed { .. } => true,
            _ => false,
        };
        let platforms = events.iter().filter(changes).filter_map(|event| event.scope.platform.clone());
        let platforms: BTreeMap<String, String> = platforms.map(|platform| (platform, run.id.clone())).collect();
        undone.entry(of).or_default().extend(platforms);
    }
    Ok(undone)
}
