//! The loop that ties decisions, journal and hosts together.
//!
//! One task owns [`RunState`] and is the only one that changes it. What hosts report is written to the journal, then applied, then
//! acknowledged; what may happen next is decided, written to the journal, then done. Reports that wait at the same time share one
//! write.

use super::decide::{self, Decided};
use super::host::{self, Order, Report, Settings};
use super::journal::{Chain, Draft, Journal};
use super::kept::Keeper;
use super::options::{Command, Ended, EngineError, HostOptions, HostReading, Observer, Options, Signal};
use super::state::RunState;
use crate::hosts::Hosts;
use crate::plan::{Plan, PlannedStep};
use proto::event::{Kind, RunOutcome, Scope};
use proto::message::{Attempt, Granted};
use proto::{Query, RunAs, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long hosts may take to end their supervisors and to release their locks.
const PARTING: Duration = Duration::from_secs(10);

/// Where copies of backups are kept, relative to the run's directory: below it a directory for each host.
pub(super) const BACKUPS: &str = "backups";

/// How long at most until the clock is looked at again, where a window is given.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// What is said when the maintenance window ends in the middle of a platform. Nothing is left down by itself: a person decides.
const WINDOW_OVER: &str = "the maintenance window is over, and platforms are not through: the run goes on. `caravan pause` stops it behind what runs, and `caravan rollback` goes back";

/// Carries a plan out.
pub struct Engine<'o, H> {
    plan: Arc<Plan>,
    pub(super) state: RunState,
    hosts: Arc<H>,
    pub(super) options: Options,
    journal: Journal,
    pub(super) observer: &'o mut dyn Observer,
    orders: BTreeMap<String, mpsc::UnboundedSender<Order>>,
    reports: mpsc::UnboundedReceiver<(String, Report)>,
    report_to: mpsc::UnboundedSender<(String, Report)>,
    answers: mpsc::UnboundedReceiver<(usize, usize, Option<String>)>,
    answer_to: mpsc::UnboundedSender<(usize, usize, Option<String>)>,
    pub(super) readings: BTreeMap<usize, BTreeMap<String, HostReading>>,
    /// Inspections under way: id to platform, host, steps with the number of queries of each.
    pub(super) inspections: HashMap<u32, Inspection>,
    pub(super) next_inspection: u32,
    /// Platforms whose checks are being made again.
    pub(super) looking_again: BTreeMap<usize, super::again::Reading>,
    /// Running steps that a person wants started again: who, why.
    pub(super) retrying: BTreeMap<Attempt, (String, String)>,
    /// Who paused the run.
    paused_by: Option<String>,
    /// The end of the maintenance window that was open at the last look.
    window_end: Option<jiff::Timestamp>,
    /// What hosts are given to keep.
    keeper: Keeper,
    /// How the record goes on: nothing happened yet, or a controller before this one left it.
    pub(super) first: First,
    tasks: JoinSet<()>,
    head: String,
}

/// The first entry that this engine adds to the record.
pub(super) enum First {
    Started,
    Resumed { cut_bytes: u64, from_hosts: bool },
}

pub(super) struct Inspection {
    pub(super) host: String,
    pub(super) platform: usize,
    pub(super) steps: Vec<usize>,
    pub(super) queries: Vec<Query>,
    pub(super) began: Instant,
    pub(super) asked_ms: u64,
    /// It is of no planned step: checks are made again.
    pub(super) again: bool,
}

/// What has to be done once the drafts of a batch are durable.
pub(super) enum Effect {
    /// Nothing depends on it: it only saves the time of connecting when the host's turn comes.
    Open {
        host: String,
    },
    Claim {
        host: String,
    },
    Grant {
        host: String,
        steps: Vec<Granted>,
        outputs: Vec<(StepId, PathBuf)>,
    },
    Inspect {
        host: String,
        id: u32,
        queries: Vec<Query>,
    },
    Ack {
        host: String,
        host_seq: u64,
    },
    Kept {
        host: String,
        whose: Attempt,
        sha256: String,
    },
    Ask {
        platform: usize,
        step: usize,
        gate: String,
        ask: String,
    },
}

impl<'o, H: Hosts> Engine<'o, H> {
    /// An engine for a run in which nothing happened yet.
    ///
    /// # Errors
    /// The plan cannot be written down.
    pub fn new(
        plan: Arc<Plan>,
        hosts: Arc<H>,
        options: Options,
        journal: Journal,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        let (report_to, reports) = mpsc::unbounded_channel();
        let (answer_to, answers) = mpsc::unbounded_channel();
        Ok(Self {
            state: RunState::new(plan.clone(), options.bounds.clone()),
            keeper: Keeper::new(&options.run, &plan).map_err(EngineError::kept)?,
            plan,
            hosts,
            options,
            journal,
            observer,
            orders: BTreeMap::new(),
            reports,
            report_to,
            answers,
            answer_to,
            readings: BTreeMap::new(),
            inspections: HashMap::new(),
            next_inspection: 0,
            looking_again: BTreeMap::new(),
            retrying: BTreeMap::new(),
            paused_by: None,
            window_end: None,
            first: First::Started,
            tasks: JoinSet::new(),
            head: super::journal::GENESIS.to_owned(),
        })
    }

    /// An engine for a run that a controller before this one left. `chain` is what is in `journal`; with `from_hosts` it was rebuilt
    /// from the hosts. What was open is asked for where it was left, and failed steps that may be repeated are started again.
    ///
    /// # Errors
    /// The plan cannot be written down.
    pub fn resume(
        plan: Arc<Plan>,
        hosts: Arc<H>,
        options: Options,
        (journal, chain): (Journal, &Chain),
        from_hosts: bool,
        observer: &'o mut dyn Observer,
    ) -> Result<Self, EngineError> {
        let mut engine = Self::new(plan, hosts, options, journal, observer)?;
        for event in &chain.events {
            engine.state.apply(event);
            engine.keeper.note(event).map_err(EngineError::kept)?;
        }
        engine.head.clone_from(&chain.head);
        engine.first = First::Resumed { cut_bytes: chain.torn as u64, from_hosts };
        Ok(engine)
    }

    /// Runs until every platform is over, or the operator pauses, aborts or detaches.
    ///
    /// # Errors
    /// The record cannot be kept: then nothing further is granted, and steps that run go on.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<Ended, EngineError> {
        self.begin().await?;
        let mut commands_open = true;
        loop {
            let next = self.decide().await?;
            if self.state.at_rest() {
                break;
            }
            // The order of attention is fixed, so that a simulated history can be replayed. People come first: reports may never end.
            tokio::select! {
                biased;
                command = commands.recv(), if commands_open => match command {
                    Some(Command { what: Signal::Detach, .. }) => return self.detach().await,
                    Some(command) => self.command(command).await?,
                    None => commands_open = false,
                },
                Some((platform, step, note)) = self.answers.recv() => self.take_answer(platform, step, note).await?,
                Some(report) = self.reports.recv() => {
                    let mut batch = vec![report];
                    while let Ok(more) = self.reports.try_recv() {
                        batch.push(more);
                    }
                    self.take_reports(batch).await?;
                }
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
        self.finish().await
    }

    /// Tells the state what the clock says about platforms that are about to be touched, and people once the window is over. Answers when
    /// to look again.
    async fn look_at_the_clock(&mut self) -> Result<Option<Duration>, EngineError> {
        let (clock, now) = (&self.options.clock, jiff::Timestamp::now());
        let held = |(number, name, checked): (usize, &str, _)| Some((number, clock.hold(name, checked, now)?));
        let holds = self.state.untouched().into_iter().filter_map(held).collect();
        let window = clock.window(now);
        self.state.set_holds(holds);
        let Some((open_until, next)) = window else { return Ok(None) };
        if self.window_end.is_some_and(|end| now >= end) && self.state.any_touched() {
            self.commit(vec![Draft::new(Scope::default(), Kind::RunAlert { message: WINDOW_OVER.to_owned() })]).await?;
        }
        self.window_end = open_until;
        // A workstation that slept, or whose clock was set, is not late by more than this.
        Ok(Some(next.min(LOOK_AGAIN)))
    }

    async fn begin(&mut self) -> Result<(), EngineError> {
        let (command, operator) = (self.options.command.clone(), self.options.claim.operator.clone());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (cut_bytes, from_hosts) = match self.first {
            First::Started => {
                let bounds = &self.options.bounds;
                let started = Kind::RunStarted {
                    command,
                    operator,
                    version,
                    plan: self.plan.hash.clone(),
                    limit: self.options.limit_text.clone(),
                    platforms: bounds.platforms.iter().cloned().collect(),
                    limit_hosts: bounds.limit.as_ref().map(|hosts| hosts.iter().cloned().collect()),
                    undoes: self.options.claim.succeeds.clone(),
                    conditions: bounds.conditions.clone(),
                };
                let take_over = self.take_over();
                return self.commit([Draft::new(Scope::default(), started)].into_iter().chain(take_over).collect()).await;
            }
            First::Resumed { cut_bytes, from_hosts } => (cut_bytes, from_hosts),
        };
        let conditions = self.options.bounds.conditions.clone();
        let resumed = Kind::RunResumed { command, operator: operator.clone(), version, cut_bytes, from_hosts, conditions };
        let take_over = self.take_over();
        self.commit([Draft::new(Scope::default(), resumed)].into_iter().chain(take_over).collect()).await?;
        if let Some(reason) = self.options.abort.clone() {
            return self.abort(operator, reason).await;
        }
        if self.state.was_aborted() {
            return Ok(());
        }
        let reason = "the run was resumed; the runbook allows this step to be started again, and its probe is asked first";
        let again = self.state.repeatable().into_iter().filter_map(|(platform, index)| {
            let step = self.state.step(platform, index)?;
            let scope = self.step_scope(platform, step, self.state.attempt(&step.id));
            Some(Decided { decision: "resume", about: &step.id.0, operator: &operator, reason }.draft(scope))
        });
        let again = again.collect();
        self.commit(again).await?;
        // What the operator says about steps with this command counts as said now.
        for (step, reason) in self.options.accepted.clone() {
            let accept = Signal::Accept { step, operator: operator.clone(), reason };
            if let Err(why) = self.signal(accept).await? {
                tracing::warn!("--accept-unproven: {why}");
            }
        }
        Ok(())
    }

    fn take_over(&self) -> Option<Draft> {
        let Options { claim, run, .. } = &self.options;
        let reason = claim.take_over.as_ref()?;
        Some(Decided { decision: "takeover", about: run, operator: &claim.operator, reason }.draft(Scope::default()))
    }

    async fn command(&mut self, command: Command) -> Result<(), EngineError> {
        let answer = self.signal(command.what).await?;
        if let Some(reply) = command.reply {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// Does what a person wants; the inner result is the answer.
    async fn signal(&mut self, what: Signal) -> Result<Result<String, String>, EngineError> {
        match what {
            Signal::Pause { ref operator } => {
                self.commit(decide::draft(&self.state, &what).unwrap_or_default()).await?;
                self.paused_by.get_or_insert_with(|| operator.clone());
                self.state.pause();
                self.tell_busy_hosts();
                return Ok(Ok("what has not begun is taken back; what runs may end".to_owned()));
            }
            Signal::Abort { operator, reason } => {
                self.abort(operator, reason).await?;
                return Ok(Ok("what has not begun is taken back; the run ends when nothing runs any more".to_owned()));
            }
            _ => {}
        }
        if let Signal::Retry { step, operator, reason } = &what
            && self.state.has_begun(&StepId(step.clone()))
        {
            return Ok(self.stop_and_retry(step, operator, reason));
        }
        let (mut what, mut accepted) = (what, None);
        if let Signal::Accept { step, operator, reason } = &what
            && self.state.find_text(step).is_some_and(|planned| !self.state.is_skipped(planned))
        {
            // Its probe has the first word.
            accepted = Some((step.clone(), reason.clone()));
            what = Signal::Skip { step: step.clone(), operator: operator.clone(), reason: reason.clone() };
        }
        match decide::draft(&self.state, &what) {
            Ok(drafts) => {
                self.options.accepted.extend(accepted);
                self.commit(drafts).await?;
                Ok(Ok("recorded".to_owned()))
            }
            Err(why) => Ok(Err(why)),
        }
    }

    /// A step that runs and is to be started again is ended first. Only one that a watchdog has spoken about: a typing error must not
    /// end a step that is well.
    fn stop_and_retry(&mut self, step: &str, operator: &str, reason: &str) -> Result<String, String> {
        let id = StepId(step.to_owned());
        let orders = self.state.find_text(step).and_then(|planned| self.orders.get(&planned.host));
        let (true, Some(orders)) = (self.state.is_alerted(&id), orders) else {
            return Err(format!("{step} runs, and no watchdog has spoken about it: there is nothing to decide"));
        };
        let attempt = Attempt { attempt: self.state.attempt(&id), step: id.clone() };
        let _ = orders.send(Order::Stop(attempt.clone()));
        // For this attempt alone: how the next one ends is another question.
        self.retrying.insert(attempt, (operator.to_owned(), reason.to_owned()));
        Ok("it is being stopped; its probe then says whether it is started again".to_owned())
    }

    async fn abort(&mut self, operator: String, reason: String) -> Result<(), EngineError> {
        let drafts = decide::draft(&self.state, &Signal::Abort { operator, reason }).unwrap_or_default();
        self.commit(drafts).await?;
        self.state.abort();
        self.tell_busy_hosts();
        Ok(())
    }

    fn tell_busy_hosts(&self) {
        for host in self.state.busy_hosts() {
            if let Some(orders) = self.orders.get(host) {
                let _ = orders.send(Order::Revoke);
            }
        }
    }

    async fn detach(mut self) -> Result<Ended, EngineError> {
        let reason = "detached by the operator; granted steps go on".to_owned();
        self.commit(vec![Draft::new(Scope::default(), Kind::RunPaused { reason })]).await?;
        Ok(Ended { outcome: RunOutcome::Waiting, exit_code: 130 })
    }

    async fn finish(mut self) -> Result<Ended, EngineError> {
        if self.state.was_paused() && !self.state.was_aborted() {
            let by = self.paused_by.as_deref().unwrap_or("the operator");
            let reason = format!("paused by {by}; what had not begun was revoked");
            self.commit(vec![Draft::new(Scope::default(), Kind::RunPaused { reason })]).await?;
        }
        self.part().await;
        self.orders.clear();
        self.tasks.shutdown().await;
        let (outcome, exit_code) = self.state.verdict();
        self.commit(vec![Draft::new(Scope::default(), Kind::RunFinished { outcome, exit_code })]).await?;
        Ok(Ended { outcome, exit_code })
    }

    /// The supervisors end with their run. The hosts of a platform that is half migrated stay this run's; all others are let go.
    async fn part(&mut self) {
        // Nobody but the one who holds a host lets it go.
        for host in self.state.left_attended() {
            let keep = self.keeper.take(&host);
            self.order(&host, Order::Claim { keep });
        }
        let (mut waiting, mut released) = (BTreeSet::new(), BTreeSet::new());
        for (host, orders) in &self.orders {
            let release = self.state.platform_of(host).is_none_or(|platform| !self.state.keeps_locks(platform));
            if orders.send(Order::Finish { release }).is_ok() {
                waiting.insert(host.clone());
                released.extend(release.then(|| host.clone()));
            }
        }
        let end = Instant::now() + PARTING;
        while !waiting.is_empty() {
            match tokio::time::timeout_at(end, self.reports.recv()).await {
                Ok(Some((host, Report::Finished | Report::Unreachable(_) | Report::GaveUp(_) | Report::Refused(_)))) => {
                    waiting.remove(&host);
                }
                Ok(Some((host, Report::StillLocked(reason)))) => {
                    tracing::warn!("{host} stays locked by this run: {reason}; `--take-over REASON` takes it");
                    waiting.remove(&host);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for host in waiting.iter().filter(|host| released.contains(*host)) {
            tracing::warn!(
                "{host} did not say that this run's lock there is released; should it stay, `--take-over REASON` takes it"
            );
        }
    }

    /// Writes events durably, applies them and shows them.
    pub(super) async fn commit(&mut self, drafts: Vec<Draft>) -> Result<(), EngineError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let written = self.journal.append(drafts).await?;
        self.head = written.head;
        for event in &written.events {
            self.state.apply(event);
            self.keeper.note(event).map_err(EngineError::kept)?;
            self.observer.event(event);
        }
        Ok(())
    }

    /// Decides and acts until nothing more may happen for now.
    /// Decides and does what may happen now. Answers as [`Self::look_at_the_clock`].
    async fn decide(&mut self) -> Result<Option<Duration>, EngineError> {
        loop {
            let next = self.look_at_the_clock().await?;
            let decisions = self.state.decide();
            if decisions.is_empty() {
                return Ok(next);
            }
            let (mut drafts, mut effects) = (Vec::new(), Vec::new());
            for decision in decisions {
                self.prepare(decision, &mut drafts, &mut effects);
            }
            self.commit(drafts).await?;
            effects.into_iter().for_each(|effect| self.act(effect));
        }
    }

    async fn take_answer(&mut self, platform: usize, step: usize, note: Option<String>) -> Result<(), EngineError> {
        self.state.asking(platform, -1);
        match note {
            Some(note) => self.commit(self.confirmation(platform, step, &note)).await,
            None => Ok(()),
        }
    }

    pub(super) fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Open { host } => self.order(&host, Order::Open),
            Effect::Claim { host } => {
                let keep = self.keeper.take(&host);
                self.order(&host, Order::Claim { keep });
            }
            Effect::Grant { host, steps, outputs } => {
                if self.state.is_paused() {
                    // Only what runs already may go on.
                    self.order(&host, Order::Revoke);
                }
                let (head, keep) = (self.head.clone(), self.keeper.take(&host));
                self.order(&host, Order::Grant { steps, outputs, head, keep });
            }
            Effect::Inspect { host, id, queries } => self.order(&host, Order::Inspect { id, queries }),
            Effect::Kept { host, whose, sha256 } => self.order(&host, Order::Kept { whose, sha256 }),
            Effect::Ack { host, host_seq } => self.order(&host, Order::Ack { host_seq }),
            Effect::Ask { platform, step, gate, ask } => {
                let Some(asker) = &self.options.asker else { return };
                let (question, answers) = (asker(gate, ask), self.answer_to.clone());
                self.tasks.spawn(async move {
                    let _ = answers.send((platform, step, question.await));
                });
            }
        }
    }

    /// Passes an order to a host's task, which is started when the host is first needed.
    fn order(&mut self, host: &str, order: Order) {
        if !self.orders.contains_key(host) {
            let (to, orders) = mpsc::unbounded_channel();
            let settings = self.settings(host);
            self.tasks.spawn(host::run(self.hosts.clone(), settings, orders, self.report_to.clone()));
            self.orders.insert(host.to_owned(), to);
        }
        if let Some(orders) = self.orders.get(host) {
            let _ = orders.send(order);
        }
    }

    fn settings(&self, host: &str) -> Settings {
        let options = self.options.hosts.get(host).cloned().unwrap_or_else(|| HostOptions {
            host_state: "/var/lib/caravan".to_owned(),
            root: false,
            run_as: RunAs::Login,
            secrets: BTreeMap::new(),
        });
        Settings {
            host: host.to_owned(),
            run: self.options.run.clone(),
            host_state: options.host_state,
            root: options.root,
            run_as: options.run_as,
            secrets: options.secrets,
            files: Arc::new(self.options.files.clone()),
            backups: self.options.dir.join(BACKUPS),
            kept: self.state.kept().clone(),
            patience: self.options.patience,
            claim: self.options.claim.clone(),
            seen: self.state.host_seq(host),
            replay_from: self.state.replay_from(host),
            outputs: self.open_outputs(host),
            known: self.state.was_held(host),
        }
    }

    /// Where the output of a host's open steps goes.
    fn open_outputs(&self, host: &str) -> Vec<(StepId, PathBuf)> {
        let place = |id: StepId| {
            let (platform, index) = self.state.find(&id)?;
            let step = self.state.step(platform, index)?;
            let file = output_file(step, index, self.state.attempt(&id));
            Some((id, self.options.dir.join(file)))
        };
        self.state.open_steps(host).into_iter().filter_map(place).collect()
    }

    pub(super) fn open_steps(&self, host: &str) -> Vec<StepId> {
        self.state.open_steps(host)
    }

    pub(super) fn draft_for(&self, id: &StepId, kind: Kind) -> Option<Draft> {
        let (platform, index) = self.state.find(id)?;
        let step = self.state.step(platform, index)?;
        let attempt = self.state.attempt(id).max(1);
        Some(Draft::new(self.step_scope(platform, step, attempt), kind))
    }

    pub(super) fn stage_scope(&self, platform: usize) -> Scope {
        let (phase, stage) = self.state.stage(platform);
        Scope {
            platform: Some(self.state.platform_name(platform).to_owned()),
            phase: Some(phase.as_str().to_owned()),
            stage: Some(stage.to_owned()),
            ..Scope::default()
        }
    }

    pub(super) fn step_scope(&self, platform: usize, step: &PlannedStep, attempt: u32) -> Scope {
        let (phase, stage) = self.state.place(step);
        Scope {
            platform: Some(self.state.platform_name(platform).to_owned()),
            phase: Some(phase.as_str().to_owned()),
            stage: Some(stage.to_owned()),
            host: Some(step.host.clone()),
            instance: step.instance.clone(),
            step: Some(step.id.0.clone()),
            attempt: Some(attempt),
        }
    }
}

pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

pub(super) fn host_scope(host: &str) -> Scope {
    Scope { host: Some(host.to_owned()), ..Scope::default() }
}

/// Where what an attempt at a step prints is kept, relative to the run's directory: a later attempt leaves the file of the one before it
/// as it is. Host names are checked by the inventory to be plain names.
pub(crate) fn output_file(step: &PlannedStep, index: usize, attempt: u32) -> String {
    let again = if attempt > 1 { format!("-{attempt}") } else { String::new() };
    format!("output/{}/{index:04}{again}.log", step.host)
}
