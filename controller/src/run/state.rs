//! Where a run stands: a pure fold over its events ([`RunState::apply`], in `fold`); what may happen next is a function of it
//! ([`RunState::decide`], in `next`). No I/O, no clock.
//!
//! This is where the order is kept (invariants 1 and 2): a stage is entered only when the barrier of the one before it was opened,
//! a barrier opens only when every step of the stage ended in proof, and one step that did not closes the platform for everything
//! that was not granted yet.

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
        !self.is_skipped(step) && (own || self.bounds.limit.as_ref().is_none_or(|limit| limit.contains(&step.host)))
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
        let idle = |p: &PlatformState| p.claiming.is_empty() && p.stages.iter().all(|stage| stage.open == 0);
        self.platforms.iter().all(|p| p.end.is_some() || (self.paused && idle(p)))
    }

    /// The run ends once it is at rest, and cannot be resumed.
    pub fn abort(&mut self) {
        self.paused = true;
        self.aborted = true;
    }

    /// Whether a person ended the run.
    pub fn was_aborted(&self) -> bool {
        self.aborted
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

    /// The digests of the copies that are kept off the hosts, by the step that made them.
    pub fn kept(&self) -> &BTreeMap<StepId, String> {
        &self.kept
    }

    /// Whether a copy that a step made is kept.
    pub fn is_kept(&self, id: &StepId) -> bool {
        self.kept.contains_key(id)
    }

    /// Whether an attempt at a host's own step is newer than anything that was granted.
    pub fn never_granted(&self, id: &StepId, host: &str, attempt: u32) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            attempt > step.attempt && self.on_host(platform, step, host)
        })
    }

    /// Whether a step's host said that it began.
    pub fn has_begun(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| self.platforms[platform].steps[index].status == StepStatus::Running)
    }

    /// Whether a step can have begun although its host has not said so: a controller before this one granted it.
    pub fn may_have_begun(&self, id: &StepId) -> bool {
        let step = |(platform, index): (usize, usize)| &self.platforms[platform].steps[index];
        self.find(id).map(step).is_some_and(|step| step.inherited || step.status == StepStatus::Running)
    }

    /// Whether a step's end is what a controller assumed of a host that stayed away.
    pub fn is_assumed(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            let of_agent = self.step(platform, index).is_some_and(|planned| executor(planned) == Executor::Agent);
            step.assumed && step.status.is_bad() && of_agent
        })
    }

    /// Whether a watchdog has spoken about the attempt at a step that runs.
    pub fn is_alerted(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| self.platforms[platform].steps[index].alerted)
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

    /// The newest event of a host that is in the journal; 0 when there is none.
    pub fn host_seq(&self, host: &str) -> u64 {
        self.host_seqs.get(host).copied().unwrap_or_default()
    }

    /// From behind which event a host's supervisor has to show again what happened, so that the output of the step that runs there can
    /// be told apart.
    pub fn replay_from(&self, host: &str) -> u64 {
        let begun = self.begun.get(host).filter(|_| self.busy.contains_key(host));
        begun.map_or(self.host_seq(host), |seq| seq.saturating_sub(1))
    }

    /// Whether a controller of this run ever had the lock of a host.
    pub fn was_held(&self, host: &str) -> bool {
        self.platforms.iter().any(|platform| platform.held.contains(host))
    }

    /// A step by its id's text.
    pub fn find_text(&self, id: &str) -> Option<&PlannedStep> {
        let (platform, index) = self.find(&StepId(id.to_owned()))?;
        self.step(platform, index)
    }

    /// Whether nothing more is granted.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Hosts of a platform that were not brought to its end, by name.
    pub fn failed_hosts(&self, platform: usize) -> Vec<String> {
        let state = &self.platforms[platform];
        let last = state.stages.get(state.at).filter(|stage| stage.tolerant);
        let here = last.into_iter().flat_map(|stage| stage.hosts_left());
        let failed: BTreeSet<&String> = state.dropped.iter().chain(here).collect();
        failed.into_iter().cloned().collect()
    }

    /// The newest attempt at a step that was granted; 0 when there is none.
    pub fn attempt(&self, id: &StepId) -> u32 {
        self.find(id).map_or(0, |(platform, step)| self.platforms[platform].steps[step].attempt)
    }

    /// How a step ended, if it did.
    pub fn ended(&self, id: &StepId) -> Option<Outcome> {
        let (platform, step) = self.find(id)?;
        match self.platforms[platform].steps[step].status {
            StepStatus::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Whether a step is granted and has not ended.
    pub fn is_open(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, step)| self.platforms[platform].steps[step].status.is_open())
    }

    /// Whether a platform is past its preflight, and not over well: then its hosts stay this run's.
    pub fn keeps_locks(&self, platform: usize) -> bool {
        let state = &self.platforms[platform];
        !self.aborted && state.end != Some(RunOutcome::Ok) && state.has_been_touched()
    }

    /// Hosts that a controller before this one took and that this one had no reason to take. A host that is away cannot be parted from,
    /// and one with open steps is not disturbed: they go on.
    pub fn left_attended(&self) -> Vec<String> {
        let claimed = |host: &String| self.platforms.iter().any(|platform| platform.claimed.contains(host));
        let takes_part = |p: &&PlatformState| self.bounds.platforms.contains(&p.name);
        let ours = |host: &String| self.platforms.iter().filter(takes_part).any(|platform| platform.agents.contains(host));
        let left = |host: &&String| ours(host) && !claimed(host) && !self.away.contains(*host) && !self.busy.contains_key(*host);
        self.attended.iter().filter(left).cloned().collect()
    }

    /// The platform of a host that agents work on.
    pub fn platform_of(&self, host: &str) -> Option<usize> {
        self.platforms.iter().position(|platform| platform.agents.contains(host))
    }

    /// The hosts of a platform whose locks this controller neither has nor asked for, and that can be reached as far as it knows.
    pub fn unclaimed(&self, platform: usize) -> impl Iterator<Item = &String> {
        let state = &self.platforms[platform];
        let known = |host: &&String| state.claimed.contains(*host) || state.claiming.contains(*host) || self.away.contains(*host);
        state.agents.iter().filter(move |host| !known(host))
    }

    /// The hosts of a platform that an agent has steps for.
    pub fn agent_hosts(&self, platform: usize) -> &BTreeSet<String> {
        &self.platforms[platform].agents
    }

    /// Whether a person decided that the step is not carried out.
    pub fn is_skipped(&self, step: &PlannedStep) -> bool {
        let decided = self.find(&step.id).is_some_and(|(platform, at)| self.platforms[platform].steps[at].skipped);
        decided || step.skip.is_some()
    }

    /// Gates that wait for a person, by platform and step.
    pub fn waiting_gates(&self) -> Vec<(usize, usize)> {
        let platforms = self.platforms.iter().enumerate();
        let of = |(number, platform): (usize, &PlatformState)| -> Vec<(usize, usize)> {
            let waiting = platform.steps.iter().enumerate().filter(|(_, at)| at.status == StepStatus::Gate);
            waiting.map(|(index, _)| (number, index)).collect()
        };
        platforms.flat_map(of).collect()
    }

    /// Phase and name of the stage that a step stands in.
    pub fn place(&self, step: &PlannedStep) -> (Phase, &str) {
        let at = self.find(&step.id).and_then(|(platform, index)| {
            let platform = &self.platforms[platform];
            platform.stages.get(platform.steps[index].stage)
        });
        at.map_or((Phase::Preflight, ""), |stage| (stage.phase, stage.name.as_str()))
    }

    /// Findings that were overridden so far, with their reasons.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overridden
    }

    /// Steps that failed and may be started again without asking: those that a resumed run retries.
    pub fn repeatable(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (number, platform) in self.platforms.iter().enumerate().filter(|(_, platform)| platform.end.is_none()) {
            for (index, at) in platform.steps.iter().enumerate() {
                let failed = at.status == StepStatus::Ended(Outcome::Failed);
                let planned = || self.step(number, index);
                if failed && planned().is_some_and(|step| step.spec.repeat == Repeat::Allowed || !self.acts(step)) {
                    found.push((number, index));
                }
            }
        }
        found
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
            let failed = |s: &StepState| s.status.is_bad() && (s.assumed || s.status == StepStatus::Ended(Outcome::Failed));
            p.findings.iter().any(finding_holds) || p.steps.iter().any(failed)
        });
        if self.aborted {
            (RunOutcome::Aborted, 1)
        } else if self.locked {
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
}
