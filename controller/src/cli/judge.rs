//! What a run asks its hosts beside its steps, and what their answers mean: the checks, for an engine that knows nothing of them.

use crate::check::{self, HostState, Point, Reached, Readings};
use crate::run::options::{HostReading, Judge, Occasion, Questions};
use inventory::Fleet;
use std::collections::BTreeMap;

/// What is asked of a platform in its middle when its run is taken up again.
pub(super) fn again(fleet: &Fleet, files: check::PackageFiles) -> Box<Questions> {
    let fleet = fleet.clone();
    Box::new(move |name, left| {
        let platform = fleet.platforms.iter().find(|platform| platform.name == name);
        platform.map(|platform| check::queries_again(platform, left, &files)).unwrap_or_default()
    })
}

/// Evaluates what the hosts answered, with the operator's overrides. A run that sets passwords asks about them alone.
pub(super) fn judge(
    fleet: &Fleet,
    overrides: BTreeMap<String, String>,
    history: check::History,
    files: check::PackageFiles,
    sets_passwords: bool,
) -> Box<Judge> {
    let fleet = fleet.clone();
    Box::new(move |name, occasion, readings| {
        let Some(platform) = fleet.platforms.iter().find(|platform| platform.name == name) else { return Vec::new() };
        let states = readings.iter().map(|(host, reading)| (host.clone(), host_state(reading))).collect();
        let findings = match occasion {
            Occasion::Again { left } => check::evaluate_again(platform, &states, left, &files),
            Occasion::Phase(_) if sets_passwords => {
                check::passwords::findings(platform, &check::passwords::both(platform, &states, Point::Preflight))
            }
            Occasion::Phase(phase) => check::evaluate(platform, &states, Point::of(phase), &history),
        };
        let own: BTreeMap<_, _> = overrides
            .iter()
            .filter(|(id, _)| findings.iter().any(|f| f.id == **id))
            .map(|(id, why)| (id.clone(), why.clone()))
            .collect();
        check::apply_overrides(findings.clone(), &own).unwrap_or(findings)
    })
}

fn host_state(reading: &HostReading) -> HostState {
    match reading {
        HostReading::Away(error) => HostState::from_error(error),
        HostReading::Read(read) => match Readings::new(read.queries.clone(), read.readings.clone()) {
            Some(readings) => HostState::Reached(Box::new(Reached {
                readings,
                asked_ms: read.asked_ms,
                answered_ms: read.answered_ms,
                agent: read.agent.clone(),
            })),
            None => HostState::Unreachable {
                reason: "the agent answered another number of questions than was asked".to_owned(),
                kind: check::Unreached::Agent,
            },
        },
    }
}
