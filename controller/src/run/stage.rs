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

    pub(super) fn is_proven(self) -> bool {
        matches!(self, Self::Ended(outcome) if outcome.is_proof())
    }

    pub(super) fn is_bad(self) -> bool {
        matches!(self, Self::Ended(outcome) if !outcome.is_proof())
    }
}

#[derive(Debug)]
pub(super) struct StepState {
    pub(super) status: StepStatus,
    pub(super) attempt: u32,
    pub(super) stage: usize,
    pub(super) wave: usize,
    pub(super) queue: usize,
    /// Its end is what the controller assumed of a host that stayed away: the host itself may know better.
    pub(super) assumed: bool,
    /// A controller before this one granted it: it may have begun, whatever this one has sent and heard.
    pub(super) inherited: bool,
    /// A watchdog has spoken about the attempt that runs.
    pub(super) alerted: bool,
    /// A person decided that it is not carried out: only its probe counts.
    pub(super) skipped: bool,
}

/// The steps of one host in one wave.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) host: String,
    pub(super) steps: Vec<usize>,
    /// Positions of steps that are neither granted nor over.
    pub(super) planned: BTreeSet<usize>,
    /// Granted or at a gate, and not ended.
    pub(super) open: usize,
    /// Ended without proof.
    pub(super) bad: usize,
    /// Without proof.
    pub(super) left: usize,
}

impl Queue {
    fn can_go_on(&self) -> bool {
        self.open == 0 && self.bad == 0 && !self.planned.is_empty()
    }

    /// The steps from the first one on that is neither granted nor over.
    fn rest(&self) -> &[usize] {
        let next = self.planned.first().copied().unwrap_or(self.steps.len());
        self.steps.get(next..).unwrap_or_default()
    }
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
    /// A host that fails drops out, and the others go on ([`crate::plan::StagePlan::tolerant`]).
    pub(super) tolerant: bool,
    pub(super) entered: bool,
    /// The index of its first step: those of a stage are consecutive.
    pub(super) first_step: usize,
    pub(super) waves: Vec<Wave>,
    /// Granted, and not ended.
    pub(super) open: usize,
    /// Waiting for a person.
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
    /// Whether one more platform may be touched now.
    pub(super) fn has_place(&self) -> bool {
        self.preflight_over && self.platforms > 0
    }

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

/// What is granted where.
pub(super) struct Terms<'a> {
    pub(super) platform: usize,
    pub(super) plan: &'a Plan,
    pub(super) steps: &'a [StepState],
    /// Hosts that nothing is granted to: away, or dropped out.
    pub(super) without: &'a BTreeSet<String>,
    /// Every host of the platform is this controller's: agents may be granted steps.
    pub(super) claimed: bool,
}

impl Stage {
    pub(super) fn left(&self) -> usize {
        self.waves.iter().map(|wave| wave.left).sum()
    }

    /// Counts a step of this stage for what it is now and no longer for what it was. Answers the queue's host when it has become or
    /// ceased to be open.
    pub(super) fn recount(&mut self, step: usize, at: &StepState, was: StepStatus) {
        let now = at.status;
        let Some(wave) = self.waves.get_mut(at.wave) else { return };
        let Some(queue) = wave.queues.get_mut(at.queue) else { return };
        let change = |count: &mut usize, was: bool, now: bool| *count = (*count + usize::from(now)) - usize::from(was);
        let held = |status: StepStatus| status.is_open() || status == StepStatus::Gate;
        change(&mut self.open, was.is_open(), now.is_open());
        change(&mut self.gates, was == StepStatus::Gate, now == StepStatus::Gate);
        change(&mut self.bad, was.is_bad(), now.is_bad());
        change(&mut queue.open, held(was), held(now));
        change(&mut queue.bad, was.is_bad(), now.is_bad());
        change(&mut queue.left, !was.is_proven(), !now.is_proven());
        change(&mut wave.left, !was.is_proven(), !now.is_proven());
        let position = queue.steps.iter().position(|s| *s == step).unwrap_or_default();
        match now {
            StepStatus::Planned => queue.planned.insert(position),
            _ => queue.planned.remove(&position),
        };
        // Nothing more goes to a host after a step of it that did not end in proof.
        if queue.can_go_on() && !wave.ready.contains(&at.queue) {
            wave.ready.push_back(at.queue);
        }
    }

    /// The wave that is under way: the first one with something left. Of a tolerant stage, hosts that dropped out are not waited for.
    fn wave(&self, without: &BTreeSet<String>) -> Option<usize> {
        let waits = |queue: &Queue| queue.left > 0 && queue.bad == 0 && !without.contains(&queue.host);
        self.waves.iter().position(|wave| wave.left > 0 && (!self.tolerant || wave.queues.iter().any(waits)))
    }

    /// Grants what the current wave has ready.
    pub(super) fn grant(&mut self, terms: &Terms<'_>, room: &mut Room, decisions: &mut Vec<Decision>) {
        let planned = terms.plan.platforms[terms.platform].phases.iter().find(|phase| phase.name == self.phase);
        let Some(planned) = planned.and_then(|phase| phase.stages.iter().find(|stage| stage.name == self.name)) else { return };
        let (first, platform) = (self.first_step, terms.platform);
        let Some(wave) = self.wave(terms.without).and_then(|at| self.waves.get_mut(at)) else { return };
        for _ in 0..wave.ready.len() {
            let Some(number) = wave.ready.pop_front() else { return };
            let queue = &wave.queues[number];
            if !queue.can_go_on() {
                continue;
            }
            let rest = queue.rest();
            let who = executor(&planned.steps[rest[0] - first]);
            let must_wait = terms.without.contains(&queue.host)
                || (who != Executor::Person && room.hosts == 0)
                || (who == Executor::Agent && !terms.claimed);
            if must_wait {
                wave.ready.push_back(number);
                continue;
            }
            let alike = |step: &&usize| {
                executor(&planned.steps[**step - first]) == who && terms.steps[**step].status == StepStatus::Planned
            };
            let steps: Vec<usize> = rest.iter().take_while(alike).copied().collect();
            let host = queue.host.clone();
            decisions.push(match who {
                Executor::Agent => Decision::Grant { platform, host, steps },
                Executor::Inspection => Decision::Inspect { platform, host, steps },
                Executor::Person => Decision::Gate { platform, step: steps[0] },
            });
            room.hosts -= usize::from(who != Executor::Person);
        }
    }

    /// Whether the current wave has something for a host that is there; and whether some of it is for an agent.
    pub(super) fn has_ready(&self, plan: &Plan, platform: usize, without: &BTreeSet<String>) -> (bool, bool) {
        let planned = plan.platforms[platform].phases.iter().find(|phase| phase.name == self.phase);
        let planned = planned.and_then(|phase| phase.stages.iter().find(|stage| stage.name == self.name));
        let (Some(wave), Some(planned)) = (self.wave(without).and_then(|at| self.waves.get(at)), planned) else {
            return (false, false);
        };
        let ready = || wave.queues.iter().filter(|q| q.can_go_on() && !without.contains(&q.host));
        let for_agent = |queue: &Queue| {
            let first = queue.rest().first().and_then(|step| planned.steps.get(step - self.first_step));
            first.is_some_and(|step| executor(step) == Executor::Agent)
        };
        (ready().next().is_some(), ready().any(for_agent))
    }

    /// Whether steps remain for a host that is away.
    pub(super) fn is_waiting_for(&self, away: &BTreeSet<String>) -> bool {
        !away.is_empty()
            && self.waves.iter().flat_map(|w| &w.queues).any(|queue| !queue.planned.is_empty() && away.contains(&queue.host))
    }

    /// The hosts with a step that ended without proof.
    pub(super) fn hosts_failed(&self) -> impl Iterator<Item = &String> {
        self.waves.iter().flat_map(|wave| &wave.queues).filter(|queue| queue.bad > 0).map(|queue| &queue.host)
    }

    /// The hosts with a step that is not proven.
    pub(super) fn hosts_left(&self) -> impl Iterator<Item = &String> {
        self.waves.iter().flat_map(|wave| &wave.queues).filter(|queue| queue.left > 0).map(|queue| &queue.host)
    }

    pub(super) fn why_stopped(&self, steps: &[StepState], away: &BTreeSet<String>) -> String {
        let queues = || self.waves.iter().flat_map(|wave| &wave.queues);
        let hosts: BTreeSet<&str> = queues().map(|queue| queue.host.as_str()).collect();
        let hosts_with = |wanted: &dyn Fn(StepStatus) -> bool| -> BTreeSet<&str> {
            let has = |queue: &&Queue| queue.steps.iter().any(|step| wanted(steps[*step].status));
            queues().filter(has).map(|queue| queue.host.as_str()).collect()
        };
        let unknown = hosts_with(&|status| status == StepStatus::Ended(Outcome::Unknown));
        let failed = hosts_with(&|status| status == StepStatus::Ended(Outcome::Failed));
        let gone = hosts.iter().filter(|host| away.contains(**host)).count();
        let mut parts = Vec::new();
        if !failed.is_empty() {
            parts.push(format!("{} of {} hosts failed", failed.len(), hosts.len()));
        }
        if !unknown.is_empty() {
            parts.push(format!("on {} of {} hosts nobody can tell what a step did", unknown.len(), hosts.len()));
        }
        if gone > 0 {
            parts.push(format!("{gone} of {} hosts cannot be reached", hosts.len()));
        }
        format!("{} {}: {}", self.phase, self.name, parts.join(", "))
    }
}
