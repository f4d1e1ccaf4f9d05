//! Where a run stands: a pure fold over its events ([`RunState::apply`], in `fold`); what may happen next is a function of it
//! ([`RunState::decide`], in `next`). No I/O, no clock.
//!
//! This is where the order is kept (invariants 1 and 2): a stage is entered only when the barrier of the one before it was opened,
//! a barrier opens only when every step of the stage ended in proof, and one step that did not closes the platform for everything
//! that was not granted yet.

mod asked;

use super::again::Again;
use super::stage::{Executor, Queue, Stage, StepState, StepStatus, Wave, executor};
use super::touch::Hold;
use crate::plan::{Phase, Plan, PlannedStep};
use proto::event::{Conditions, Event, Finding, Kind, Outcome, RunOutcome, Status};
use proto::step::Repeat;
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
    /// When platforms may be touched.
    pub conditions: Conditions,
}

impl Bounds {
    /// What a run was started with, from the first of its events: a run that goes on acts where it acted before. How much may happen
    /// at once is not in the record.
    pub fn recorded(events: &[Event], plan: &Plan, parallel_platforms: usize, parallel_hosts: usize) -> Self {
        let started = events.iter().find_map(|event| match &event.kind {
            Kind::RunStarted { platforms, limit_hosts, .. } => Some((platforms, limit_hosts)),
            _ => None,
        });
        let (platforms, limit) = started.map(|(platforms, limit)| (platforms.clone(), limit.clone())).unwrap_or_default();
        let all = || plan.platforms.iter().map(|platform| platform.name.clone()).collect();
        let platforms = if platforms.is_empty() { all() } else { platforms.into_iter().collect() };
        // Whoever took the run up last had the last word.
        let conditions = events.iter().rev().find_map(|event| match &event.kind {
            Kind::RunStarted { conditions, .. } | Kind::RunResumed { conditions, .. } => Some(conditions.clone()),
            _ => None,
        });
        Self {
            platforms,
            limit: limit.map(|hosts| hosts.into_iter().collect()),
            parallel_platforms,
            parallel_hosts,
            conditions: conditions.unwrap_or_default(),
        }
    }
}

/// Something that may happen now. Decisions of one call are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Take the lock of hosts, and attach to the run's supervisor there.
    Claim {
        /// Platform index.
        platform: usize,
        /// The hosts.
        hosts: Vec<String>,
    },
    /// Tell a host's agent again what it was granted by a controller before this one: it says what became of it.
    Attach {
        /// Platform index.
        platform: usize,
        /// The host.
        host: String,
        /// Step indices, in order.
        steps: Vec<usize>,
    },
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
    /// Make the checks of an untouched platform again.
    Recheck {
        /// Platform index.
        platform: usize,
        /// Why.
        reason: String,
    },
    /// Make the checks that have to be well at any time again, before anything new is granted on a platform that is past its preflight.
    LookAgain {
        /// Platform index.
        platform: usize,
    },
    /// Go on from a tolerant stage without the hosts that failed in it.
    Pass {
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
pub(super) struct PlatformState {
    pub(super) name: String,
    pub(super) stages: Vec<Stage>,
    /// The stage whose barrier is closed.
    pub(super) at: usize,
    pub(super) steps: Vec<StepState>,
    pub(super) end: Option<RunOutcome>,
    pub(super) findings: Vec<Finding>,
    /// When its preflight was judged and nothing held it up, as the record has it.
    pub(super) checked: Option<String>,
    /// How often its checks were made again since a controller took the run up.
    pub(super) rechecks: u32,
    /// Whether checks are to be made again since a controller took the run up.
    pub(super) again: Again,
    /// It had ended badly when it was taken up again, and has not ended since.
    pub(super) was_bad: bool,
    /// Answers of people are awaited for this many gates (not journaled: a question does not outlive its terminal).
    pub(super) asking: usize,
    /// The hosts that have steps for an agent. Their locks are this run's before any of them is granted something.
    pub(super) agents: BTreeSet<String>,
    /// Those whose lock this controller has.
    pub(super) claimed: BTreeSet<String>,
    /// Those that were asked for it and have not answered (not journaled: it does not outlive its controller).
    pub(super) claiming: BTreeSet<String>,
    /// Those whose lock some controller of this run had.
    pub(super) held: BTreeSet<String>,
    /// Hosts that failed in a tolerant stage.
    pub(super) dropped: BTreeSet<String>,
    /// Open steps that this controller has not told their hosts of yet.
    pub(super) unsent: BTreeSet<usize>,
}

/// Where a run stands.
#[derive(Debug)]
pub struct RunState {
    pub(super) plan: Arc<Plan>,
    pub(super) bounds: Bounds,
    pub(super) platforms: Vec<PlatformState>,
    pub(super) names: HashMap<String, usize>,
    index: HashMap<StepId, (usize, usize)>,
    pub(super) away: BTreeSet<String>,
    pub(super) unreachable: BTreeSet<String>,
    pub(super) locked: bool,
    pub(super) paused: bool,
    pub(super) aborted: bool,
    /// Hosts with granted steps that have not ended, and how many.
    pub(super) busy: BTreeMap<String, usize>,
    /// Hosts that some controller of this run took and none has parted from: their locks are taken, and supervisors may wait there.
    pub(super) attended: BTreeSet<String>,
    /// The newest event of each host that is in the journal.
    pub(super) host_seqs: HashMap<String, u64>,
    /// The newest event of each host with which a step began.
    pub(super) begun: HashMap<String, u64>,
    /// Findings that were overridden, with the reason.
    pub(super) overridden: BTreeMap<String, String>,
    /// Digests of the copies that are kept off the hosts, by the step that made them.
    pub(super) kept: BTreeMap<StepId, String>,
    /// What the clock says about platforms that are about to be touched. Told before each decision, and in no record.
    pub(super) holds: BTreeMap<usize, Hold>,
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
                checked: None,
                rechecks: 0,
                again: Again::No,
                was_bad: false,
                asking: 0,
                agents: BTreeSet::new(),
                claimed: BTreeSet::new(),
                claiming: BTreeSet::new(),
                held: BTreeSet::new(),
                dropped: BTreeSet::new(),
                unsent: BTreeSet::new(),
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
                            let (host, steps) = (step.host.clone(), Vec::new());
                            wave.queues.push(Queue { host, steps, planned: BTreeSet::new(), open: 0, bad: 0, left: 0 });
                            wave.queues.len() - 1
                        });
                        let queued = &mut wave.queues[queue];
                        queued.planned.insert(queued.steps.len());
                        queued.steps.push(step_index);
                        queued.left += 1;
                        if executor(step) == Executor::Agent {
                            state.agents.insert(step.host.clone());
                        }
                        wave.left += 1;
                        index.insert(step.id.clone(), (number, step_index));
                        state.steps.push(StepState {
                            status: StepStatus::Planned,
                            attempt: 0,
                            stage: stage_index,
                            wave: wave_index,
                            queue,
                            assumed: false,
                            inherited: false,
                            alerted: false,
                            skipped: false,
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
                        tolerant: stage.tolerant,
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
            holds: BTreeMap::new(),
            locked: false,
            paused: false,
            aborted: false,
            busy: BTreeMap::new(),
            attended: BTreeSet::new(),
            host_seqs: HashMap::new(),
            begun: HashMap::new(),
            overridden: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}
