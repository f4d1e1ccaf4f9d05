//! The loop that ties decisions, journal and hosts together.
//!
//! One task owns [`RunState`] and is the only one that changes it. What hosts report is written to the journal, then applied, then
//! acknowledged; what may happen next is decided, written to the journal, then done. Reports that wait at the same time share one
//! write.

use super::host::{self, Order, Report, Settings};
use super::journal::{Draft, Journal, Origin};
use super::options::{Ended, EngineError, HostOptions, HostReading, Observer, Options, Read, Signal};
use super::state::{Decision, RunState};
use crate::hosts::{AgentHello, Hosts, OpenError};
use crate::plan::{Plan, PlannedStep};
use proto::event::{Finding, Kind, Outcome, RunOutcome, Scope, Status};
use proto::message::{Granted, Happened, HostEvent, Mode};
use proto::{Action, Query, Reading, RunAs, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Carries a plan out.
pub struct Engine<'o, H> {
    plan: Arc<Plan>,
    state: RunState,
    hosts: Arc<H>,
    options: Options,
    journal: Journal,
    observer: &'o mut dyn Observer,
    orders: HashMap<String, mpsc::UnboundedSender<Order>>,
    reports: mpsc::UnboundedReceiver<(String, Report)>,
    report_to: mpsc::UnboundedSender<(String, Report)>,
    answers: mpsc::UnboundedReceiver<(usize, usize, Option<String>)>,
    answer_to: mpsc::UnboundedSender<(usize, usize, Option<String>)>,
    readings: BTreeMap<usize, BTreeMap<String, HostReading>>,
    /// Inspections under way: id to platform, host, steps with the number of queries of each.
    inspections: HashMap<u32, Inspection>,
    next_inspection: u32,
    tasks: JoinSet<()>,
    head: String,
}

struct Inspection {
    host: String,
    platform: usize,
    steps: Vec<usize>,
    queries: Vec<Query>,
    began: Instant,
    asked_ms: u64,
}

/// What has to be done once the drafts of a batch are durable.
enum Effect {
    Grant { host: String, steps: Vec<Granted>, outputs: Vec<(StepId, PathBuf)> },
    Inspect { host: String, id: u32, queries: Vec<Query> },
    Ack { host: String, host_seq: u64 },
    Ask { platform: usize, step: usize, gate: String, ask: String },
}

impl<'o, H: Hosts> Engine<'o, H> {
    /// An engine for a run in which nothing happened yet.
    pub fn new(plan: Arc<Plan>, hosts: Arc<H>, options: Options, journal: Journal, observer: &'o mut dyn Observer) -> Self {
        let (report_to, reports) = mpsc::unbounded_channel();
        let (answer_to, answers) = mpsc::unbounded_channel();
        Self {
            state: RunState::new(plan.clone(), options.bounds.clone()),
            plan,
            hosts,
            options,
            journal,
            observer,
            orders: HashMap::new(),
            reports,
            report_to,
            answers,
            answer_to,
            readings: BTreeMap::new(),
            inspections: HashMap::new(),
            next_inspection: 0,
            tasks: JoinSet::new(),
            head: super::journal::GENESIS.to_owned(),
        }
    }

    /// Runs until every platform is over, or the operator pauses or detaches.
    ///
    /// # Errors
    /// The record cannot be kept: then nothing further is granted, and steps that run go on.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> Result<Ended, EngineError> {
        let started = Kind::RunStarted {
            command: self.options.command.clone(),
            operator: self.options.operator.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan: self.plan.hash.clone(),
            limit: self.options.limit_text.clone(),
            platforms: Vec::new(),
            limit_hosts: None,
            undoes: None,
        };
        self.commit(vec![Draft::new(Scope::default(), started)]).await?;
        let mut signals_open = true;
        loop {
            self.decide().await?;
            if self.state.at_rest() {
                break;
            }
            tokio::select! {
                Some(report) = self.reports.recv() => {
                    let mut batch = vec![report];
                    while let Ok(more) = self.reports.try_recv() {
                        batch.push(more);
                    }
                    self.take_reports(batch).await?;
                }
                Some((platform, step, note)) = self.answers.recv() => self.take_answer(platform, step, note).await?,
                signal = signals.recv(), if signals_open => match signal {
                    Some(Signal::Pause) => {
                        self.state.pause();
                        self.tell_busy_hosts();
                    }
                    Some(Signal::Detach) => return self.detach().await,
                    None => signals_open = false,
                },
            }
        }
        self.finish().await
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
        if self.state.was_paused() {
            let reason = "paused by the operator; what had not begun was revoked".to_owned();
            self.commit(vec![Draft::new(Scope::default(), Kind::RunPaused { reason })]).await?;
        }
        // The supervisors end with their run. One that does not answer ends by itself later.
        let mut waiting: BTreeSet<String> = self.orders.keys().cloned().collect();
        for orders in self.orders.values() {
            let _ = orders.send(Order::Finish);
        }
        let end = Instant::now() + Duration::from_secs(5);
        while !waiting.is_empty() {
            match tokio::time::timeout_at(end, self.reports.recv()).await {
                Ok(Some((host, Report::Finished | Report::Unreachable(_) | Report::GaveUp(_)))) => drop(waiting.remove(&host)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.orders.clear();
        self.tasks.shutdown().await;
        let (outcome, exit_code) = self.state.verdict();
        self.commit(vec![Draft::new(Scope::default(), Kind::RunFinished { outcome, exit_code })]).await?;
        Ok(Ended { outcome, exit_code })
    }

    /// Writes events durably, applies them and shows them.
    async fn commit(&mut self, drafts: Vec<Draft>) -> Result<(), EngineError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let written = self.journal.append(drafts).await?;
        self.head = written.head;
        for event in &written.events {
            self.state.apply(event);
            self.observer.event(event);
        }
        Ok(())
    }

    /// Decides and acts until nothing more may happen for now.
    async fn decide(&mut self) -> Result<(), EngineError> {
        loop {
            let decisions = self.state.decide();
            if decisions.is_empty() {
                return Ok(());
            }
            let (mut drafts, mut effects) = (Vec::new(), Vec::new());
            for decision in decisions {
                self.prepare(decision, &mut drafts, &mut effects);
            }
            self.commit(drafts).await?;
            effects.into_iter().for_each(|effect| self.act(effect));
        }
    }

    fn prepare(&mut self, decision: Decision, drafts: &mut Vec<Draft>, effects: &mut Vec<Effect>) {
        match decision {
            Decision::Enter { platform, phase_begins } => {
                let scope = self.stage_scope(platform);
                if phase_begins {
                    drafts.push(Draft::new(Scope { stage: None, ..scope.clone() }, Kind::PhaseStarted));
                }
                drafts.push(Draft::new(scope, Kind::StageStarted));
            }
            Decision::Grant { platform, host, steps } => {
                let (mut granted, mut outputs) = (Vec::new(), Vec::new());
                for index in steps {
                    let Some(step) = self.state.step(platform, index) else { continue };
                    let attempt = self.state.next_attempt(platform, index);
                    let acts = self.state.acts(step);
                    drafts.push(Draft::new(
                        self.step_scope(platform, step, attempt),
                        Kind::StepGranted { action: step.action.clone(), prove: !acts },
                    ));
                    outputs.push((step.id.clone(), self.options.dir.join(output_file(step, index))));
                    let mode = if acts { Mode::Act } else { Mode::Prove };
                    granted.push(Granted { spec: step.spec.clone(), attempt, mode });
                }
                effects.push(Effect::Grant { host, steps: granted, outputs });
            }
            Decision::Inspect { platform, host, steps } => {
                let mut queries = Vec::new();
                for index in &steps {
                    let Some(step) = self.state.step(platform, *index) else { continue };
                    if let Action::Inspect { queries: more } = &step.spec.action {
                        queries.extend(more.iter().cloned());
                    }
                    let attempt = self.state.next_attempt(platform, *index);
                    let kind = Kind::StepGranted { action: step.action.clone(), prove: false };
                    drafts.push(Draft::new(self.step_scope(platform, step, attempt), kind));
                }
                self.next_inspection += 1;
                let inspection = Inspection {
                    host: host.clone(),
                    platform,
                    steps,
                    queries: queries.clone(),
                    began: Instant::now(),
                    asked_ms: now_ms(),
                };
                self.inspections.insert(self.next_inspection, inspection);
                effects.push(Effect::Inspect { host, id: self.next_inspection, queries });
            }
            Decision::Gate { platform, step: index } => {
                let Some(step) = self.state.step(platform, index) else { return };
                let Action::Gate { gate, ask, .. } = &step.spec.action else { return };
                let (gate, ask) = (gate.clone(), ask.clone());
                let scope = self.step_scope(platform, step, self.state.next_attempt(platform, index));
                drafts.push(Draft::new(scope, Kind::GateWaiting { gate: gate.clone(), ask: ask.clone() }));
                match self.options.confirmed.get(&gate).cloned() {
                    Some(note) => drafts.extend(self.confirmation(platform, index, note)),
                    None if self.options.asker.is_some() => {
                        self.state.asking(platform, 1);
                        effects.push(Effect::Ask { platform, step: index, gate, ask });
                    }
                    None => {}
                }
            }
            Decision::Judge { platform } => self.judge(platform, drafts),
            Decision::Open { platform } => self.open_barrier(platform, drafts),
            Decision::End { platform, outcome, message } => {
                let scope = Scope { stage: None, phase: None, ..self.stage_scope(platform) };
                drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome, message }));
            }
        }
    }

    /// Findings and what follows from them are one batch: a barrier is never open beside findings that were lost.
    fn judge(&mut self, platform: usize, drafts: &mut Vec<Draft>) {
        let scope = self.stage_scope(platform);
        let (phase, _) = self.state.stage(platform);
        let readings = self.readings.remove(&platform).unwrap_or_default();
        let findings = (self.options.judge)(self.state.platform_name(platform), phase, &readings);
        let holds_up = |f: &&Finding| f.overridden.is_none() && matches!(f.status, Status::Failure | Status::Unknown);
        let held = findings.iter().filter(holds_up).count();
        for finding in findings {
            let scope = Scope { host: finding.host.clone(), instance: finding.instance.clone(), ..scope.clone() };
            if let Some(reason) = &finding.overridden {
                let (operator, about) = (self.options.operator.clone(), finding.id.clone());
                let decision = Kind::Decision { decision: "override".to_owned(), about, operator, reason: reason.clone() };
                drafts.push(Draft::new(scope.clone(), decision));
            }
            drafts.push(Draft::new(scope, Kind::Finding { finding }));
        }
        if held == 0 && self.state.proven(platform) {
            return self.open_barrier(platform, drafts);
        }
        if held == 0 && self.state.waits_for_a_person(platform) {
            let message = format!("{phase} waits for a person");
            let scope = Scope { stage: None, phase: None, ..scope };
            return drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome: RunOutcome::Waiting, message }));
        }
        let mut message = match held {
            0 => String::new(),
            1 => format!("{phase}: 1 finding holds it up"),
            n => format!("{phase}: {n} findings hold it up"),
        };
        if !self.state.proven(platform) {
            let why = self.state.why_stopped(platform);
            message = if message.is_empty() { why } else { format!("{message}; {why}") };
        }
        let scope = Scope { stage: None, phase: None, ..scope };
        drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome: RunOutcome::Stopped, message }));
    }

    fn open_barrier(&self, platform: usize, drafts: &mut Vec<Draft>) {
        let scope = self.stage_scope(platform);
        let (phase_ends, platform_ends) = self.state.ends(platform);
        drafts.push(Draft::new(scope.clone(), Kind::BarrierOpened));
        drafts.push(Draft::new(scope.clone(), Kind::StageFinished));
        let scope = Scope { stage: None, ..scope };
        if phase_ends {
            drafts.push(Draft::new(scope.clone(), Kind::PhaseFinished));
        }
        if platform_ends {
            let kind = Kind::PlatformFinished { outcome: RunOutcome::Ok, message: String::new() };
            drafts.push(Draft::new(Scope { phase: None, ..scope }, kind));
        }
    }

    fn confirmation(&self, platform: usize, index: usize, note: String) -> Vec<Draft> {
        let Some(step) = self.state.step(platform, index) else { return Vec::new() };
        let Action::Gate { gate, .. } = &step.spec.action else { return Vec::new() };
        let scope = self.step_scope(platform, step, self.state.next_attempt(platform, index));
        let confirmed = Kind::GateConfirmed { gate: gate.clone(), note, operator: self.options.operator.clone() };
        let done = Kind::StepFinished { outcome: Outcome::Ok, exit_code: None, duration_ms: 0, message: String::new(), died: false };
        vec![Draft::new(scope.clone(), confirmed), Draft::new(scope, done)]
    }

    async fn take_answer(&mut self, platform: usize, step: usize, note: Option<String>) -> Result<(), EngineError> {
        self.state.asking(platform, -1);
        match note {
            Some(note) => self.commit(self.confirmation(platform, step, note)).await,
            None => Ok(()),
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Grant { host, steps, outputs } => {
                let head = self.head.clone();
                self.order(&host, Order::Grant { steps, outputs, head });
            }
            Effect::Inspect { host, id, queries } => self.order(&host, Order::Inspect { id, queries }),
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
            let options = self.options.hosts.get(host).cloned().unwrap_or_else(|| HostOptions {
                host_state: "/var/lib/caravan".to_owned(),
                root: false,
                run_as: RunAs::Login,
                secrets: BTreeMap::new(),
            });
            let settings = Settings {
                host: host.to_owned(),
                run: self.options.run.clone(),
                host_state: options.host_state,
                root: options.root,
                run_as: options.run_as,
                secrets: options.secrets,
                files: Arc::new(self.options.files.clone()),
                patience: self.options.patience,
                claim: proto::message::Claim { controller: self.options.run.clone(), ..Default::default() },
            };
            self.tasks.spawn(host::run(self.hosts.clone(), settings, orders, self.report_to.clone()));
            self.orders.insert(host.to_owned(), to);
        }
        if let Some(orders) = self.orders.get(host) {
            let _ = orders.send(order);
        }
    }

    async fn take_reports(&mut self, batch: Vec<(String, Report)>) -> Result<(), EngineError> {
        let (mut drafts, mut effects) = (Vec::new(), Vec::new());
        for (host, report) in batch {
            match report {
                Report::Event(event) => self.take_event(host, event, &mut drafts, &mut effects),
                Report::Inspected { id, readings, agent } => self.take_readings(&host, id, readings, agent, &mut drafts),
                Report::Line { step, text } => self.observer.line(&host, &step, &text),
                Report::Revoked(steps) => {
                    for revoked in steps.iter().filter(|r| self.state.awaits(&r.step, &host, Some(r.attempt))) {
                        drafts.extend(self.draft_for(&revoked.step, Kind::StepRevoked));
                    }
                }
                Report::Unreachable(error) => self.take_unreachable(&host, error, &mut drafts),
                Report::Lost(reason) => drafts.push(Draft::new(host_scope(&host), Kind::HostUnreachable { reason })),
                Report::Reattached => drafts.push(Draft::new(host_scope(&host), Kind::HostReattached)),
                Report::GaveUp(reason) => {
                    let message = format!(
                        "the connection was lost and {reason}; what the step did is not known. Look at the host, then decide"
                    );
                    for step in self.open_steps(&host) {
                        let kind = Kind::StepFinished {
                            outcome: Outcome::Unknown,
                            exit_code: None,
                            duration_ms: 0,
                            message: message.clone(),
                            died: false,
                        };
                        drafts.extend(self.draft_for(&step, kind));
                    }
                }
                Report::Refused(reason) => {
                    for step in self.open_steps(&host) {
                        let kind = match self.state.has_begun(&step) {
                            false => Kind::StepRevoked,
                            true => Kind::StepFinished {
                                outcome: Outcome::Unknown,
                                exit_code: None,
                                duration_ms: 0,
                                message: format!("the host is no longer this run's: {reason}"),
                                died: false,
                            },
                        };
                        drafts.extend(self.draft_for(&step, kind));
                    }
                    drafts.push(Draft::new(host_scope(&host), Kind::HostLocked { reason }));
                }
                Report::Broken(error) => return Err(EngineError::Output { host, error }),
                Report::Finished => {}
            }
        }
        self.commit(drafts).await?;
        effects.into_iter().for_each(|effect| self.act(effect));
        Ok(())
    }

    fn take_event(&self, host: String, event: HostEvent, drafts: &mut Vec<Draft>, effects: &mut Vec<Effect>) {
        let origin = Origin { time_ms: event.host_time_ms, boot_id: event.boot_id, seq: event.host_seq };
        // A host speaks for its own open steps and for nothing else.
        if !self.state.awaits(&event.step, &host, Some(event.attempt)) {
            tracing::warn!("{host} reports on {}, which it was not granted or which is over; ignored", event.step);
            return;
        }
        let Some((platform, index)) = self.state.find(&event.step) else { return };
        let Some(step) = self.state.step(platform, index) else { return };
        let ack = Effect::Ack { host, host_seq: event.host_seq };
        let scope = self.step_scope(platform, step, event.attempt);
        let kinds = match event.what {
            Happened::Started { .. } => vec![Kind::StepStarted],
            Happened::Alert { message, ask } => vec![Kind::StepAlert { message, ask }],
            Happened::Finished { outcome, exit_code, duration_ms, message, output_len, died } => {
                let output = Kind::StepOutput { file: output_file(step, index), offset: 0, length: output_len };
                let finished = Kind::StepFinished { outcome, exit_code, duration_ms, message, died };
                // Only what ended is acknowledged: one acknowledgement covers everything before it.
                effects.push(ack);
                if output_len > 0 { vec![output, finished] } else { vec![finished] }
            }
        };
        drafts.extend(kinds.into_iter().map(|kind| Draft { scope: scope.clone(), kind, origin: Some(origin.clone()) }));
    }

    fn take_readings(&mut self, host: &str, id: u32, readings: Vec<Reading>, agent: AgentHello, drafts: &mut Vec<Draft>) {
        if self.inspections.get(&id).is_none_or(|inspection| inspection.host != host) {
            return;
        }
        let Some(inspection) = self.inspections.remove(&id) else { return };
        let answered = readings.len() == inspection.queries.len();
        let duration_ms = inspection.began.elapsed().as_millis() as u64;
        for index in &inspection.steps {
            let Some(step) = self.state.step(inspection.platform, *index) else { continue };
            let scope = self.step_scope(inspection.platform, step, self.state.next_attempt(inspection.platform, *index) - 1);
            let (outcome, message) = match answered {
                true => (Outcome::Ok, String::new()),
                false => (Outcome::Failed, "the agent answered another number of questions than was asked".to_owned()),
            };
            drafts.push(Draft::new(scope.clone(), Kind::StepStarted));
            drafts.push(Draft::new(scope, Kind::StepFinished { outcome, exit_code: None, duration_ms, message, died: false }));
        }
        let Inspection { platform, queries, asked_ms, .. } = inspection;
        let read = Read { queries, readings, asked_ms, answered_ms: now_ms(), agent };
        self.readings.entry(platform).or_default().insert(host.to_owned(), HostReading::Read(read));
    }

    fn take_unreachable(&mut self, host: &str, error: OpenError, drafts: &mut Vec<Draft>) {
        drafts.push(Draft::new(host_scope(host), Kind::HostUnreachable { reason: error.to_string() }));
        // Nothing was sent: what was meant for it was taken back before it began.
        for step in self.open_steps(host) {
            drafts.extend(self.draft_for(&step, Kind::StepRevoked));
        }
        let gone: Vec<u32> = self.inspections.iter().filter(|(_, i)| i.host == host).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(inspection) = self.inspections.remove(&id) {
                let readings = self.readings.entry(inspection.platform).or_default();
                readings.insert(host.to_owned(), HostReading::Away(error.clone()));
            }
        }
    }

    fn open_steps(&self, host: &str) -> Vec<StepId> {
        self.state.open_steps(host)
    }

    fn draft_for(&self, id: &StepId, kind: Kind) -> Option<Draft> {
        let (platform, index) = self.state.find(id)?;
        let step = self.state.step(platform, index)?;
        let attempt = self.state.next_attempt(platform, index).saturating_sub(1).max(1);
        Some(Draft::new(self.step_scope(platform, step, attempt), kind))
    }

    fn stage_scope(&self, platform: usize) -> Scope {
        let (phase, stage) = self.state.stage(platform);
        Scope {
            platform: Some(self.state.platform_name(platform).to_owned()),
            phase: Some(phase.as_str().to_owned()),
            stage: Some(stage.to_owned()),
            ..Scope::default()
        }
    }

    fn step_scope(&self, platform: usize, step: &PlannedStep, attempt: u32) -> Scope {
        Scope {
            host: Some(step.host.clone()),
            instance: step.instance.clone(),
            step: Some(step.id.0.clone()),
            attempt: Some(attempt),
            ..self.stage_scope(platform)
        }
    }
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

fn host_scope(host: &str) -> Scope {
    Scope { host: Some(host.to_owned()), ..Scope::default() }
}

/// Where a step's output is kept, relative to the run's directory. Host names are checked by the inventory to be plain names.
fn output_file(step: &PlannedStep, index: usize) -> String {
    format!("output/{}/{index:04}.log", step.host)
}
