//! What may happen next. Pure: a fold over events ([`RunState::apply`]) and a function of it ([`RunState::next`]); no I/O, no clock.
//!
//! This is where the order is kept (invariants 1 and 2): a stage is entered only when the barrier of the one before it was opened,
//! a barrier opens only when every step of the stage ended in proof, and one step that did not closes the platform for everything
//! that was not granted yet.

use super::stage::{Executor, Queue, Room, Stage, StepState, StepStatus, Wave, executor};
use crate::plan::{Phase, Plan, PlannedStep};
use proto::event::{Event, Finding, Kind, RunOutcome, Status};
use proto::{Action, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What the operator asked for, as far as it decides what may happen.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Platforms that take part.
    pub platforms: BTreeSet<String>,
    /// Hosts that are acted on; all when `None`. The others are only probed.
    pub limit: Option<BTreeSet<String>>,
    /// How many platforms may be past preflight at once.
    pub parallel_platforms: usize,
    /// How many hosts may work at once.
    pub parallel_hosts: usize,
}

/// Something that may happen now. Decisions of one call are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Enter the platform's next stage.
    Enter {
        /// Platform index.
        platform: usize,
        /// True when the stage is the first of its phase.
        phase_begins: bool,
    },
    /// Grant steps to a host's agent.
    Grant {
        /// Platform index.
        platform: usize,
        /// The host.
        host: String,
        /// Step indices, in order.
        steps: Vec<usize>,
    },
    /// Read facts from a host.
    Inspect {
        /// Platform index.
        platform: usize,
        /// The host.
        host: String,
        /// Step indices, in order.
        steps: Vec<usize>,
    },
    /// Ask a person.
    Gate {
        /// Platform index.
        platform: usize,
        /// Step index.
        step: usize,
    },
    /// Evaluate what was read in the stage, and open its barrier if nothing holds it up.
    Judge {
        /// Platform index.
        platform: usize,
    },
    /// Open the barrier of the platform's stage: everything in it is proven.
    Open {
        /// Platform index.
        platform: usize,
    },
    /// The platform is over.
    End {
        /// Platform index.
        platform: usize,
        /// How.
        outcome: RunOutcome,
        /// One line for people.
        message: String,
    },
}

#[derive(Debug)]
struct PlatformState {
    name: String,
    stages: Vec<Stage>,
    /// The stage whose barrier is closed.
    at: usize,
    steps: Vec<StepState>,
    end: Option<RunOutcome>,
    findings: Vec<Finding>,
    /// Answers of people are awaited for this many gates (not journaled: a question does not outlive its terminal).
    asking: usize,
}

/// Where a run stands.
#[derive(Debug)]
pub struct RunState {
    plan: Arc<Plan>,
    bounds: Bounds,
    platforms: Vec<PlatformState>,
    names: HashMap<String, usize>,
    index: HashMap<StepId, (usize, usize)>,
    away: BTreeSet<String>,
    unreachable: BTreeSet<String>,
    locked: bool,
    paused: bool,
    busy: BTreeMap<String, usize>,
}

impl RunState {
    /// A run in which nothing happened yet.
    pub fn new(plan: Arc<Plan>, bounds: Bounds) -> Self {
        let mut index = HashMap::new();
        let mut names = HashMap::new();
        let mut platforms = Vec::new();
        for (number, platform) in plan.platforms.iter().enumerate() {
            names.insert(platform.name.clone(), number);
            let mut state = PlatformState {
                name: platform.name.clone(),
                stages: Vec::new(),
                at: 0,
                steps: Vec::new(),
                // A platform that takes no part is over before it begins; nothing is journaled for it.
                end: (!bounds.platforms.contains(&platform.name)).then_some(RunOutcome::Ok),
                findings: Vec::new(),
                asking: 0,
            };
            for phase in &platform.phases {
                for (position, stage) in phase.stages.iter().enumerate() {
                    let stage_index = state.stages.len();
                    let first_step = state.steps.len();
                    let mut waves: Vec<Wave> = Vec::new();
                    for step in &stage.steps {
                        let wave_index = step.wave as usize;
                        waves.resize_with(waves.len().max(wave_index + 1), Wave::default);
                        let wave = &mut waves[wave_index];
                        let step_index = state.steps.len();
                        let queue = wave.queues.iter().position(|queue| queue.host == step.host).unwrap_or_else(|| {
                            wave.ready.push_back(wave.queues.len());
                            wave.queues.push(Queue { host: step.host.clone(), steps: Vec::new(), next: 0, open: 0, bad: false });
                            wave.queues.len() - 1
                        });
                        wave.queues[queue].steps.push(step_index);
                        wave.left += 1;
                        index.insert(step.id.clone(), (number, step_index));
                        state.steps.push(StepState {
                            status: StepStatus::Planned,
                            attempt: 0,
                            stage: stage_index,
                            wave: wave_index,
                            queue,
                        });
                    }
                    // Facts and fingerprints mean nothing until they are evaluated.
                    let judged = stage.steps.iter().any(|step| executor(step) == Executor::Inspection);
                    state.stages.push(Stage {
                        phase: phase.name,
                        name: stage.name.clone(),
                        phase_begins: position == 0,
                        phase_ends: position + 1 == phase.stages.len(),
                        judged,
                        entered: false,
                        first_step,
                        waves,
                        open: 0,
                        gates: 0,
                        bad: 0,
                    });
                }
            }
            platforms.push(state);
        }
        Self {
            plan,
            bounds,
            platforms,
            names,
            index,
            away: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            locked: false,
            paused: false,
            busy: BTreeMap::new(),
        }
    }

    /// A planned step by its indices.
    pub fn step(&self, platform: usize, step: usize) -> Option<&PlannedStep> {
        let mut rest = step;
        for stage in self.plan.platforms.get(platform)?.phases.iter().flat_map(|phase| &phase.stages) {
            match stage.steps.get(rest) {
                Some(step) => return Some(step),
                None => rest -= stage.steps.len(),
            }
        }
        None
    }

    /// The indices of a step of this plan.
    pub fn find(&self, id: &StepId) -> Option<(usize, usize)> {
        self.index.get(id).copied()
    }

    /// Which attempt the next grant of a step is, from 1.
    pub fn next_attempt(&self, platform: usize, step: usize) -> u32 {
        self.platforms[platform].steps[step].attempt + 1
    }

    /// Phase and name of a platform's current stage.
    pub fn stage(&self, platform: usize) -> (Phase, &str) {
        let platform = &self.platforms[platform];
        let stage = &platform.stages[platform.at.min(platform.stages.len() - 1)];
        (stage.phase, &stage.name)
    }

    /// Whether opening the current stage's barrier ends its phase, and whether it ends the platform.
    pub fn ends(&self, platform: usize) -> (bool, bool) {
        let platform = &self.platforms[platform];
        (platform.stages[platform.at].phase_ends, platform.at + 1 == platform.stages.len())
    }

    /// The platform's name.
    pub fn platform_name(&self, platform: usize) -> &str {
        &self.platforms[platform].name
    }

    /// Whether a step acts, or is only probed because its host is outside `--limit` or the inventory leaves it out. Files in Caravan's
    /// own directories are pushed everywhere: they touch nothing.
    pub fn acts(&self, step: &PlannedStep) -> bool {
        let own = matches!(step.spec.action, Action::PushFile { .. } | Action::Download { .. });
        step.skip.is_none() && (own || self.bounds.limit.as_ref().is_none_or(|limit| limit.contains(&step.host)))
    }

    /// No new grants from now on (Ctrl-C). Not an event: it is recorded when the run has come to rest.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// A person is being asked (+1), or the question is over (-1).
    pub fn asking(&mut self, platform: usize, change: isize) {
        let asking = &mut self.platforms[platform].asking;
        *asking = asking.saturating_add_signed(change);
    }

    /// Whether every platform is over, or the run was paused and nothing is open any more.
    pub fn at_rest(&self) -> bool {
        self.platforms.iter().all(|p| p.end.is_some()) || (self.paused && self.busy.is_empty())
    }

    /// Whether the run was paused before its end.
    pub fn was_paused(&self) -> bool {
        self.paused && self.platforms.iter().any(|p| p.end.is_none())
    }

    /// Hosts that have granted steps which have not ended.
    pub fn busy_hosts(&self) -> impl Iterator<Item = &String> {
        self.busy.keys()
    }

    /// Whether something that a host says about a step can be so: it is the step's host, and the step was granted to it, in this attempt,
    /// and has not ended.
    pub fn awaits(&self, id: &StepId, host: &str, attempt: Option<u32>) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            step.status.is_open() && attempt.is_none_or(|n| n == step.attempt) && self.on_host(platform, step, host)
        })
    }

    /// Whether a step's host said that it began.
    pub fn has_begun(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| self.platforms[platform].steps[index].status == StepStatus::Running)
    }

    /// Granted steps of a host that have not ended.
    pub fn open_steps(&self, host: &str) -> Vec<StepId> {
        let open = |(platform, step): (usize, &StepState)| step.status.is_open() && self.on_host(platform, step, host);
        let mut found = Vec::new();
        for (id, (platform, step)) in &self.index {
            if open((*platform, &self.platforms[*platform].steps[*step])) {
                found.push((*platform, *step, id.clone()));
            }
        }
        found.sort();
        found.into_iter().map(|(_, _, id)| id).collect()
    }

    fn on_host(&self, platform: usize, step: &StepState, host: &str) -> bool {
        self.platforms[platform].stages[step.stage].waves[step.wave].queues[step.queue].host == host
    }

    /// How the run ended and its exit code (design: exit codes, the first that applies). Findings about a host that could not be reached
    /// are that host's matter (3), not failures of their own (1).
    pub fn verdict(&self) -> (RunOutcome, u8) {
        let selected = || self.platforms.iter().filter(|p| self.bounds.platforms.contains(&p.name));
        let finding_holds = |f: &Finding| {
            f.overridden.is_none()
                && matches!(f.status, Status::Failure | Status::Unknown)
                && match &f.host {
                    Some(host) => !self.unreachable.contains(host),
                    None => f.status == Status::Failure || !self.any_unreachable(&f.platform),
                }
        };
        let failed = selected().any(|p| {
            p.findings.iter().any(finding_holds)
                || p.steps.iter().any(|s| matches!(s.status, StepStatus::Ended(o) if !o.is_proof()))
        });
        if self.locked {
            (RunOutcome::Stopped, 4)
        } else if failed {
            (RunOutcome::Stopped, 1)
        } else if !self.unreachable.is_empty() {
            (RunOutcome::Stopped, 3)
        } else if self.was_paused() || selected().any(|p| p.end != Some(RunOutcome::Ok)) {
            (RunOutcome::Waiting, 5)
        } else {
            (RunOutcome::Ok, 0)
        }
    }

    fn any_unreachable(&self, platform: &str) -> bool {
        let hosts = self.plan.platforms.iter().filter(|p| p.name == platform).flat_map(|p| &p.phases);
        hosts.flat_map(|phase| &phase.stages).flat_map(|stage| &stage.hosts).any(|host| self.unreachable.contains(host))
    }

    /// Takes an event in. Events about things that this plan does not have are ignored.
    pub fn apply(&mut self, event: &Event) {
        let scope = &event.scope;
        if let (Some(host), kind) = (&scope.host, &event.kind) {
            match kind {
                Kind::HostUnreachable { .. } => {
                    self.away.insert(host.clone());
                    self.unreachable.insert(host.clone());
                }
                Kind::HostLocked { .. } => {
                    self.away.insert(host.clone());
                    self.locked = true;
                }
                Kind::HostReattached => {
                    self.away.remove(host);
                    self.unreachable.remove(host);
                }
                _ => {}
            }
        }
        if let Some((platform, step)) = scope.step.as_ref().and_then(|id| self.find(&StepId(id.clone()))) {
            self.apply_to_step(platform, step, event);
        }
        let Some(platform) = scope.platform.as_ref().and_then(|name| self.names.get(name)) else { return };
        let platform = &mut self.platforms[*platform];
        match &event.kind {
            Kind::StageStarted => {
                if let Some(stage) = platform.stages.get_mut(platform.at) {
                    stage.entered = true;
                }
            }
            Kind::Finding { finding } => platform.findings.push(finding.clone()),
            Kind::StageFinished => platform.at += 1,
            Kind::PlatformFinished { outcome, .. } => platform.end = Some(*outcome),
            _ => {}
        }
    }

    fn apply_to_step(&mut self, platform: usize, step: usize, event: &Event) {
        let state = &mut self.platforms[platform];
        let at = &mut state.steps[step];
        let stage = &mut state.stages[at.stage];
        let wave = &mut stage.waves[at.wave];
        let queue = &mut wave.queues[at.queue];
        let was = at.status;
        let status = match &event.kind {
            Kind::StepGranted { .. } => {
                at.attempt = event.scope.attempt.unwrap_or(at.attempt + 1);
                StepStatus::Granted
            }
            Kind::StepStarted => StepStatus::Running,
            Kind::GateWaiting { .. } => StepStatus::Gate,
            Kind::StepRevoked => StepStatus::Planned,
            Kind::StepFinished { outcome, .. } => StepStatus::Ended(*outcome),
            _ => return,
        };
        if was == status {
            return;
        }
        at.status = status;
        let position = queue.steps.iter().position(|s| *s == step).unwrap_or_default();
        match was {
            _ if was.is_open() && status.is_open() => return,
            StepStatus::Granted | StepStatus::Running => {
                stage.open -= 1;
                queue.open -= 1;
                if let Some(count) = self.busy.get_mut(&queue.host) {
                    *count -= 1;
                    if *count == 0 {
                        self.busy.remove(&queue.host);
                    }
                }
            }
            StepStatus::Gate => {
                stage.gates -= 1;
                queue.open -= 1;
            }
            StepStatus::Ended(outcome) => {
                wave.left += usize::from(outcome.is_proof());
                stage.bad -= usize::from(!outcome.is_proof());
            }
            StepStatus::Planned => {}
        }
        match status {
            StepStatus::Granted | StepStatus::Running => {
                stage.open += 1;
                queue.open += 1;
                queue.next = queue.next.max(position + 1);
                *self.busy.entry(queue.host.clone()).or_default() += 1;
            }
            StepStatus::Gate => {
                stage.gates += 1;
                queue.open += 1;
                queue.next = queue.next.max(position + 1);
            }
            StepStatus::Ended(outcome) => {
                wave.left -= usize::from(outcome.is_proof());
                stage.bad += usize::from(!outcome.is_proof());
                queue.bad |= !outcome.is_proof();
                queue.next = queue.next.max(position + 1);
            }
            StepStatus::Planned => queue.next = queue.next.min(position),
        }
        // Nothing more goes to a host after a step of it that did not end in proof.
        if queue.open == 0 && !queue.bad && queue.next < queue.steps.len() && !wave.ready.contains(&at.queue) {
            wave.ready.push_back(at.queue);
        }
    }

    /// What may happen now. Each decision has to be journaled, applied and carried out before the next call.
    pub fn decide(&mut self) -> Vec<Decision> {
        let mut room = Room {
            preflight_over: self.platforms.iter().all(|p| p.end.is_some() || !p.is_in_preflight()),
            platforms: self.bounds.parallel_platforms.saturating_sub(self.platforms.iter().filter(|p| p.is_touched()).count()),
            hosts: self.bounds.parallel_hosts.saturating_sub(self.busy.len()),
        };
        let mut decisions = Vec::new();
        for platform in 0..self.platforms.len() {
            let state = &self.platforms[platform];
            let Some(stage) = state.stages.get(state.at).filter(|_| state.end.is_none()) else { continue };
            if stage.entered {
                self.decide_in_stage(platform, &mut room, &mut decisions);
            } else if !self.paused && room.admits(state.is_about_to_be_touched()) {
                decisions.push(Decision::Enter { platform, phase_begins: stage.phase_begins });
            }
        }
        decisions
    }

    /// What may happen in a stage that was entered: grant what is ready; and once nothing is open any more, open its barrier or end the
    /// platform.
    fn decide_in_stage(&mut self, platform: usize, room: &mut Room, decisions: &mut Vec<Decision>) {
        let state = &mut self.platforms[platform];
        let stage = &mut state.stages[state.at];
        let away = stage.is_waiting_for(&self.away);
        // Hosts of a judged stage are read to the end even if one fails: the operator wants all findings at once.
        let closed = !stage.judged && (stage.bad > 0 || away);
        if !closed && !self.paused {
            let before = decisions.len();
            stage.grant(platform, &self.plan, &self.away, room, decisions);
            if decisions.len() > before {
                return;
            }
        }
        if stage.open > 0 || state.asking > 0 || (self.paused && stage.left() > 0) {
            return;
        }
        let starved = !closed && stage.has_ready(&self.away);
        let decision = if starved {
            return; // It waits for a place among the hosts that work at once.
        } else if stage.judged {
            Decision::Judge { platform }
        } else if stage.bad > 0 || away {
            Decision::End { platform, outcome: RunOutcome::Stopped, message: stage.why_stopped(&state.steps, &self.away) }
        } else if stage.gates > 0 {
            let message = format!("{} {} waits for a person", stage.phase, stage.name);
            Decision::End { platform, outcome: RunOutcome::Waiting, message }
        } else {
            Decision::Open { platform }
        };
        decisions.push(decision);
    }

    /// Whether every step of the current stage ended in proof. The engine asks again right before it opens a barrier.
    pub fn proven(&self, platform: usize) -> bool {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).is_some_and(|stage| stage.left() == 0 && stage.bad == 0 && stage.open == 0)
    }

    /// Whether gates are all that keeps the current stage from being proven.
    pub fn waits_for_a_person(&self, platform: usize) -> bool {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).is_some_and(|s| s.gates > 0 && s.bad == 0 && s.open == 0 && !s.is_waiting_for(&self.away))
    }

    /// Why the current stage cannot open, in one line for people.
    pub fn why_stopped(&self, platform: usize) -> String {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).map(|stage| stage.why_stopped(&platform.steps, &self.away)).unwrap_or_default()
    }
}

impl PlatformState {
    fn phase_at(&self, stage: usize) -> Option<Phase> {
        self.stages.get(stage).map(|stage| stage.phase)
    }

    fn is_in_preflight(&self) -> bool {
        self.phase_at(self.at) == Some(Phase::Preflight)
    }

    /// Whether the stage it has not entered yet is the first one after preflight.
    fn is_about_to_be_touched(&self) -> bool {
        !self.is_in_preflight() && self.at.checked_sub(1).is_none_or(|before| self.phase_at(before) == Some(Phase::Preflight))
    }

    /// Whether it left preflight and is not over.
    fn is_touched(&self) -> bool {
        let entered = self.stages.get(self.at).is_some_and(|stage| stage.entered);
        self.end.is_none() && !self.is_in_preflight() && (entered || !self.is_about_to_be_touched())
    }
}
