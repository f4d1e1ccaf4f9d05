//! A stage while it runs: which of its steps are granted, which are proven, what is ready. The bookkeeping below
//! [`super::state::RunState`]; every change takes constant time, whatever the size of the fleet.

use super::state::Decision;
use crate::plan::{Phase, Plan, PlannedStep};
use proto::Action;
use proto::event::Outcome;
use std::collections::{BTreeSet, VecDeque};

/// Who carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Executor {
    Agent,
    Inspection,
    Person,
}

pub(super) fn executor(step: &PlannedStep) -> Executor {
    match step.spec.action {
        Action::Inspect { .. } => Executor::Inspection,
        Action::Gate { .. } => Executor::Person,
        _ => Executor::Agent,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepStatus {
    Planned,
    /// Granted; whether it began is not known yet.
    Granted,
    /// Its host said that it began.
    Running,
    /// Waits for a person.
    Gate,
    Ended(Outcome),
}

impl StepStatus {
    /// Whether its host has it.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Granted | Self::Running)
    }
}

#[derive(Debug)]
pub(super) struct StepState {
    pub(super) status: StepStatus,
    pub(super) attempt: u32,
    pub(super) stage: usize,
    pub(super) wave: usize,
    pub(super) queue: usize,
}

/// The steps of one host in one wave.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) host: String,
    pub(super) steps: Vec<usize>,
    /// Steps before this position were granted.
    pub(super) next: usize,
    /// Granted and not ended.
    pub(super) open: usize,
    /// A step ended without proof.
    pub(super) bad: bool,
}

#[derive(Debug, Default)]
pub(super) struct Wave {
    pub(super) queues: Vec<Queue>,
    /// Queues that may get something granted.
    pub(super) ready: VecDeque<usize>,
    /// Steps without proof.
    pub(super) left: usize,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) phase: Phase,
    pub(super) name: String,
    pub(super) phase_begins: bool,
    pub(super) phase_ends: bool,
    pub(super) judged: bool,
    pub(super) entered: bool,
    /// The index of its first step: those of a stage are consecutive.
    pub(super) first_step: usize,
    pub(super) waves: Vec<Wave>,
    /// Granted or waiting for a person, and not ended.
    pub(super) open: usize,
    pub(super) gates: usize,
    /// Ended without proof.
    pub(super) bad: usize,
}

/// How much more may happen at once.
pub(super) struct Room {
    pub(super) preflight_over: bool,
    pub(super) platforms: usize,
    pub(super) hosts: usize,
}

impl Room {
    /// Whether a platform may enter its next stage. All selected platforms finish preflight before any is touched.
    pub(super) fn admits(&mut self, about_to_be_touched: bool) -> bool {
        if !about_to_be_touched {
            return true;
        }
        let admitted = self.preflight_over && self.platforms > 0;
        self.platforms -= usize::from(admitted);
        admitted
    }
}

impl Stage {
    pub(super) fn left(&self) -> usize {
        self.waves.iter().map(|wave| wave.left).sum()
    }

    /// Grants what the current wave has ready.
    pub(super) fn grant(
        &mut self,
        platform: usize,
        plan: &Plan,
        away: &BTreeSet<String>,
        room: &mut Room,
        decisions: &mut Vec<Decision>,
    ) {
        let planned = plan.platforms[platform].phases.iter().find(|phase| phase.name == self.phase);
        let Some(planned) = planned.and_then(|phase| phase.stages.iter().find(|stage| stage.name == self.name)) else { return };
        let first = self.first_step;
        let Some(wave) = self.waves.iter_mut().find(|wave| wave.left > 0) else { return };
        for _ in 0..wave.ready.len() {
            let Some(number) = wave.ready.pop_front() else { return };
            let queue = &wave.queues[number];
            if queue.open > 0 || queue.bad || queue.next >= queue.steps.len() {
                continue;
            }
            let rest = &queue.steps[queue.next..];
            let who = executor(&planned.steps[rest[0] - first]);
            if away.contains(&queue.host) || (who != Executor::Person && room.hosts == 0) {
                wave.ready.push_back(number);
                continue;
            }
            let steps: Vec<usize> = rest.iter().copied().take_while(|step| executor(&planned.steps[step - first]) == who).collect();
            let host = queue.host.clone();
            decisions.push(match who {
                Executor::Agent => Decision::Grant { platform, host, steps },
                Executor::Inspection => Decision::Inspect { platform, host, steps },
                Executor::Person => Decision::Gate { platform, step: steps[0] },
            });
            room.hosts -= usize::from(who != Executor::Person);
        }
    }

    /// Whether the current wave has something to grant to a host that is there.
    pub(super) fn has_ready(&self, away: &BTreeSet<String>) -> bool {
        let wave = self.waves.iter().find(|wave| wave.left > 0);
        wave.is_some_and(|wave| {
            wave.queues.iter().any(|q| q.open == 0 && !q.bad && q.next < q.steps.len() && !away.contains(&q.host))
        })
    }

    /// Whether steps remain for a host that is away.
    pub(super) fn is_waiting_for(&self, away: &BTreeSet<String>) -> bool {
        !away.is_empty()
            && self.waves.iter().flat_map(|w| &w.queues).any(|queue| queue.next < queue.steps.len() && away.contains(&queue.host))
    }

    pub(super) fn why_stopped(&self, steps: &[StepState], away: &BTreeSet<String>) -> String {
        let queues = || self.waves.iter().flat_map(|wave| &wave.queues);
        let hosts: BTreeSet<&str> = queues().map(|queue| queue.host.as_str()).collect();
        let bad: BTreeSet<&str> = queues()
            .filter(|queue| queue.steps.iter().any(|s| matches!(steps[*s].status, StepStatus::Ended(o) if !o.is_proof())))
            .map(|queue| queue.host.as_str())
            .collect();
        let gone = hosts.iter().filter(|host| away.contains(**host)).count();
        let mut parts = Vec::new();
        if !bad.is_empty() {
            parts.push(format!("{} of {} hosts failed", bad.len(), hosts.len()));
        }
        if gone > 0 {
            parts.push(format!("{gone} of {} hosts cannot be reached", hosts.len()));
        }
        format!("{} {}: {}", self.phase, self.name, parts.join(", "))
    }
}
