//! Simulated hosts that keep the journal that a real host keeps (`proto::host`), and a plan for them.

use crate::plan_fleet;
use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use controller::plan::{Phase, PhasePlan, Plan, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope};
use controller::run::rebuild::Ground;
use inventory::{Fleet, Role, Topology};
use proto::event::Outcome;
use proto::host::{Entry, Next, Record, Standing, State};
use proto::message::{Granted, Happened, HostEvent, Mode};
use proto::step::{Action, Limits, Repeat, RunAs, StepId, StepSpec};
use proto::{FromAgent, ToAgent};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How long a controller waits for a host that is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A number that follows from others and looks like chance.
pub(crate) fn chance(seed: u64, of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    hasher.finish()
}

/// How often things go wrong, in percent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    /// The connection drops while a step runs.
    pub(crate) cut: u64,
    /// The connection drops before the host sees a grant.
    pub(crate) lost: u64,
    /// A host whose connection dropped stays away for longer than a controller is patient.
    pub(crate) away: u64,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) trouble: Trouble,
    hosts: Mutex<BTreeMap<String, Arc<SimHost>>>,
    /// What began and ended on all hosts, in the order in which it did.
    pub(crate) saw: Mutex<Vec<(StepId, Option<Outcome>)>>,
}

#[derive(Default)]
struct SimHost {
    name: String,
    inner: Mutex<Inner>,
    work: Notify,
}

#[derive(Default)]
struct Inner {
    records: Vec<Record>,
    state: State,
    controller: Option<String>,
    link: Option<mpsc::UnboundedSender<Incoming>>,
    /// A controller attached on this connection: from then on it is told what happens.
    attached: bool,
    grants: u64,
    away_until: Option<Instant>,
}

impl Inner {
    fn record(&mut self, record: Record) {
        self.state.apply(&record);
        self.records.push(record);
    }

    /// The host is a controller's from here on, with a token that is newer than all before it.
    fn claim(&mut self, controller: String) {
        if self.controller.as_ref() != Some(&controller) {
            self.controller = Some(controller);
            let token = self.state.token() + 1;
            self.record(Record::Token { token });
        }
    }

    fn tell(&self, message: FromAgent) {
        if let Some(link) = &self.link {
            let _ = link.send(Incoming::Message(message));
        }
    }

    fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = link.send(Incoming::Closed { reason: "cut".into() });
        }
    }

    fn happened(&mut self, index: usize, what: Happened) -> HostEvent {
        let at = self.state.entry(index).map(Entry::attempt).unwrap();
        let host_seq = self.state.host_seq() + 1;
        let event = HostEvent { host_seq, host_time_ms: host_seq, boot_id: "b".into(), step: at.step, attempt: at.attempt, what };
        self.record(Record::Event(event.clone()));
        if self.attached {
            self.tell(FromAgent::Event(event.clone()));
        }
        event
    }

    fn revoke(&mut self, indexes: &[usize]) {
        if !indexes.is_empty() {
            let steps = self.state.attempts(indexes);
            self.record(Record::Revoked { steps: steps.clone() });
            if self.attached {
                self.tell(FromAgent::Revoked { steps });
            }
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, trouble: Trouble) -> Arc<Self> {
        Arc::new(Self { seed, trouble, hosts: Mutex::default(), saw: Mutex::default() })
    }

    /// The journals of all hosts.
    pub(crate) fn journals(&self, plan: &Plan) -> BTreeMap<String, Vec<Record>> {
        let mut journals: BTreeMap<String, Vec<Record>> =
            plan.platforms.iter().flat_map(PlatformPlan::steps).map(|step| (step.host.clone(), Vec::new())).collect();
        for (name, host) in self.hosts.lock().unwrap().iter() {
            journals.insert(name.clone(), host.inner.lock().unwrap().records.clone());
        }
        journals
    }

    /// A controller without a record takes every host that holds something of the run.
    pub(crate) fn take(&self, controller: &str) {
        for host in self.hosts.lock().unwrap().values() {
            let mut inner = host.inner.lock().unwrap();
            if !inner.records.is_empty() {
                inner.claim(controller.to_owned());
            }
        }
    }

    fn host(self: &Arc<Self>, name: &str) -> Arc<SimHost> {
        let mut hosts = self.hosts.lock().unwrap();
        if let Some(host) = hosts.get(name) {
            return host.clone();
        }
        let host = Arc::new(SimHost { name: name.to_owned(), ..SimHost::default() });
        hosts.insert(name.to_owned(), host.clone());
        tokio::spawn(work(self.clone(), host.clone()));
        host
    }
}

/// A host's supervisor: carries out what was granted, one step after the other, whoever is connected.
async fn work(world: Arc<World>, host: Arc<SimHost>) {
    loop {
        let next = host.inner.lock().unwrap().state.next();
        match next {
            Next::Wait => host.work.notified().await,
            Next::Revoke(indexes) => host.inner.lock().unwrap().revoke(&indexes),
            Next::Start(index) => {
                let (step, attempt, mode) = {
                    let mut inner = host.inner.lock().unwrap();
                    let event = inner.happened(index, Happened::Started { stream: State::stream(index) });
                    (event.step, event.attempt, inner.state.entry(index).unwrap().granted.mode)
                };
                world.saw.lock().unwrap().push((step.clone(), None));
                let draw = |what: &str| chance(world.seed, (what, &step.0, attempt)) % 100;
                if draw("cut") < world.trouble.cut {
                    let mut inner = host.inner.lock().unwrap();
                    inner.cut();
                    let away = (draw("away") < world.trouble.away).then(|| Instant::now() + PATIENCE * 2);
                    inner.away_until = away.or(inner.away_until);
                }
                tokio::time::sleep(Duration::from_millis(10 + draw("takes"))).await;
                let outcome = match (draw("outcome"), mode) {
                    (_, Mode::Prove) => Outcome::Skipped,
                    (n, _) if n < world.trouble.failed => Outcome::Failed,
                    (n, _) if n < world.trouble.failed + world.trouble.unknown => Outcome::Unknown,
                    _ => Outcome::Ok,
                };
                world.saw.lock().unwrap().push((step, Some(outcome)));
                let message = String::new();
                let end = Happened::Finished { outcome, exit_code: None, duration_ms: 1, message, output_len: 0, died: false };
                host.inner.lock().unwrap().happened(index, end);
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct SimHosts(pub(crate) Arc<World>);

impl Hosts for SimHosts {
    async fn open(&self, host: &str, _root: bool) -> Result<Link, OpenError> {
        let (world, host) = (self.0.clone(), self.0.host(host));
        tokio::time::sleep(Duration::from_millis(5)).await;
        if host.inner.lock().unwrap().away_until.is_some_and(|until| until > Instant::now()) {
            return Err(OpenError::Unreachable { host: host.name.clone(), seen: "no route".into(), next: "Wait".into() });
        }
        let (to, mut orders) = mpsc::channel::<Outgoing>(16);
        let (tell, mut told) = mpsc::unbounded_channel();
        let (from_to, from) = mpsc::channel(16);
        {
            let mut inner = host.inner.lock().unwrap();
            (inner.link, inner.attached) = (Some(tell), false);
        }
        tokio::spawn(async move {
            while let Some(incoming) = told.recv().await {
                let closed = matches!(incoming, Incoming::Closed { .. });
                if from_to.send(incoming).await.is_err() || closed {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(Outgoing::Message(order)) = orders.recv().await {
                tokio::time::sleep(Duration::from_millis(chance(world.seed, &host.name) % 4)).await;
                if !take(&world, &host, order) {
                    return;
                }
            }
        });
        Ok(Link { agent: AgentHello::default(), to, from })
    }
}

/// Takes a message; false when the connection is gone.
fn take(world: &World, host: &SimHost, order: ToAgent) -> bool {
    let mut inner = host.inner.lock().unwrap();
    match order {
        ToAgent::Inspect { id, queries, .. } => {
            let readings = queries.iter().map(|_| Ok(proto::Answer::Processes(Vec::new()))).collect();
            inner.tell(FromAgent::Inspected { id, readings });
        }
        ToAgent::Attach { claim, acked, keep, .. } => {
            inner.claim(claim.controller);
            inner.attached = true;
            if !keep.is_empty() {
                inner.record(Record::Kept { lines: keep });
            }
            let mut open = inner.state.standing(Standing::Running);
            open.extend(inner.state.standing(Standing::Waiting));
            let (host_seq, open, token) = (inner.state.host_seq(), inner.state.attempts(&open), inner.state.token());
            inner.tell(FromAgent::Attached { host_seq, open, token });
            let revoked = inner.state.standing(Standing::Revoked);
            inner.tell(FromAgent::Revoked { steps: inner.state.attempts(&revoked) });
            for event in inner.state.events().iter().filter(|event| event.host_seq > acked).cloned() {
                inner.tell(FromAgent::Event(event));
            }
        }
        ToAgent::Grant { steps, head, token, keep } => {
            inner.grants += 1;
            if chance(world.seed, ("lost", &host.name, inner.grants)) % 100 < world.trouble.lost {
                inner.cut();
                return false;
            }
            if token < inner.state.token() {
                inner.tell(FromAgent::Refused { reason: "a newer controller has taken this run over".into() });
                return true;
            }
            if !keep.is_empty() {
                inner.record(Record::Kept { lines: keep });
            }
            let known = |granted: &&Granted| inner.state.find(&granted.spec.id, granted.attempt);
            let known: Vec<usize> = steps.iter().filter_map(|granted| known(&granted)).collect();
            inner.record(Record::Grant { steps, head, token });
            for attempt in inner.state.attempts(&known) {
                let of = |event: &&HostEvent| event.step == attempt.step && event.attempt == attempt.attempt;
                inner.state.events().iter().filter(of).for_each(|event| inner.tell(FromAgent::Event(event.clone())));
            }
            let revoked: Vec<usize> =
                known.into_iter().filter(|index| inner.state.entry(*index).unwrap().standing == Standing::Revoked).collect();
            inner.tell(FromAgent::Revoked { steps: inner.state.attempts(&revoked) });
            host.work.notify_one();
        }
        ToAgent::Revoke => {
            let waiting = inner.state.standing(Standing::Waiting);
            inner.revoke(&waiting);
        }
        ToAgent::Finish { .. } => {
            let waiting = inner.state.standing(Standing::Waiting);
            inner.revoke(&waiting);
            inner.tell(FromAgent::Finished);
        }
        _ => {}
    }
    true
}

/// Everything about a step that a plan has to say, for a step about which nothing matters but its place.
pub(crate) fn step(platform: &str, phase: Phase, stage: &str, host: &str, number: usize, wave: u32, action: Action) -> PlannedStep {
    let id = StepId(format!("{platform}/{phase}/{stage}/{host}/w{wave}-s{number}"));
    let repeat = if number.is_multiple_of(2) { Repeat::Allowed } else { Repeat::Ask };
    PlannedStep {
        id: id.clone(),
        name: format!("w{wave}-s{number}"),
        short: String::new(),
        title: "a title".into(),
        scope: StepScope::Host,
        host: host.to_owned(),
        instance: None,
        run_as: RunAs::Login,
        action: action.kind().to_owned(),
        command: None,
        reversibility: Reversibility::Reversible,
        source: String::new(),
        wave,
        explain: String::new(),
        undo: String::new(),
        skip: None,
        spec: StepSpec {
            id,
            title: String::new(),
            run_as: RunAs::Login,
            action,
            only_if: None,
            probe: None,
            repeat,
            limits: Limits::default(),
        },
    }
}

/// Platforms described by (stages in a phase, hosts, steps for each host and wave, waves). Each has facts to read, and a gate on a host
/// that has no agent.
pub(crate) fn plan(platforms: &[(usize, usize, usize, usize)]) -> Plan {
    let planned = |(number, &(stages, hosts, steps, waves)): (usize, &(usize, usize, usize, usize))| {
        let name = format!("p{number}");
        let hosts: Vec<String> = (0..hosts).map(|host| format!("{name}-h{host}")).collect();
        let window = format!("{name}-win");
        let stage = |phase: Phase, stage: String| {
            let mut planned = Vec::new();
            for host in &hosts {
                match stage.as_str() {
                    "facts" => {
                        let queries = vec![proto::Query::System];
                        planned.push(step(&name, phase, &stage, host, 0, 0, Action::Inspect { queries }));
                    }
                    _ => {
                        let all = (0..waves).flat_map(|wave| (0..steps).map(move |number| (wave, number)));
                        planned.extend(all.map(|(wave, n)| step(&name, phase, &stage, host, n, wave as u32, Action::Verify)));
                    }
                }
            }
            let mut all = hosts.clone();
            if phase == Phase::Migrate && stage == "st0" {
                let gate = Action::Gate { gate: format!("{name}/by-hand"), ask: "do it".into(), commands: Vec::new() };
                planned.insert(0, step(&name, phase, &stage, &window, 0, 0, gate));
                all.push(window.clone());
            }
            StagePlan { name: stage, roles: vec![], hosts: all, tolerant: false, steps: planned }
        };
        let phases = [Phase::Preflight, Phase::Stop, Phase::Migrate, Phase::Restart].map(|phase| {
            let facts = (phase == Phase::Preflight).then(|| "facts".to_owned());
            let names = facts.into_iter().chain((0..stages).map(|stage| format!("st{stage}")));
            PhasePlan { name: phase, stages: names.map(|name| stage(phase, name)).collect() }
        });
        PlatformPlan {
            name: name.clone(),
            topology: Topology::Standard,
            rehearsal: false,
            source: "v6.1 (8989)".into(),
            target: "v7.4.1 (9383)".into(),
            roles: BTreeMap::new(),
            phases: phases.into(),
        }
    };
    let platforms = platforms.iter().enumerate().map(planned).collect();
    Plan { fleet: "sim".into(), hash: "0".repeat(64), platforms, files: vec![], warnings: vec!["beware".into()] }
}

/// Every step by its id.
pub(crate) fn by_id(plan: &Plan) -> HashMap<&str, &PlannedStep> {
    plan.platforms.iter().flat_map(PlatformPlan::steps).map(|step| (step.id.0.as_str(), step)).collect()
}

/// The fleet that such a plan is made on.
pub(crate) fn fleet(plan: &Plan) -> Fleet {
    let platform = |planned: &PlatformPlan| {
        let names: BTreeSet<&str> = planned.steps().map(|step| step.host.as_str()).collect();
        let host = |name: &&str| {
            let host = plan_fleet::host(name, &[Role::Mta]);
            if name.ends_with("-win") { plan_fleet::windows(host) } else { host }
        };
        plan_fleet::platform(&planned.name, planned.topology, names.iter().map(host).collect(), Vec::new())
    };
    plan_fleet::fleet(plan.platforms.iter().map(platform).collect())
}

/// What its inventory says.
pub(crate) fn ground(plan: &Plan) -> Ground {
    Ground::of(&fleet(plan), &[], "r1").unwrap()
}
