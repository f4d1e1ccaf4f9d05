//! The engine over simulated hosts with random failures: invariants 1 (order) and 2 (closed barrier), judged from the hosts' own
//! records and never from the engine's.

use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use controller::plan::{Phase, PhasePlan, Plan, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope};
use controller::run::journal::{Journal, Storage};
use controller::run::options::HostOptions;
use controller::run::state::Bounds;
use controller::run::{Command, Ended, Engine, Observer, Options};
use inventory::Topology;
use proptest::prelude::*;
use proto::event::{Conditions, Event, Finding, Kind, Outcome, RunOutcome, Status};
use proto::message::{Attempt, Granted, Happened, HostEvent, Mode};
use proto::step::{Action, Limits, Repeat, RunAs, StepId, StepSpec};
use proto::{FromAgent, ToAgent};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What happens when a simulated host carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ok,
    Failed,
    Unknown,
    /// The connection drops while it runs; it ends well.
    Cut,
    /// The connection drops while it runs; it fails.
    CutAndFailed,
    /// The connection drops before the host sees the grant that this step begins.
    Lost,
    /// It alerts without end.
    Flood,
}

/// One entry of what the hosts saw, in the order in which they saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Saw {
    Began(StepId),
    Ended(StepId, Outcome),
}

#[derive(Default)]
struct World {
    fates: HashMap<StepId, Fate>,
    unreachable: HashSet<String>,
    saw: Mutex<Vec<Saw>>,
    /// Grants that were lost once.
    lost: Mutex<HashSet<StepId>>,
    hosts: Mutex<HashMap<String, Arc<Mutex<SimHost>>>>,
}

#[derive(Default)]
struct SimHost {
    journal: Vec<HostEvent>,
    known: HashSet<Attempt>,
    revoked: HashSet<Attempt>,
    link: Option<mpsc::UnboundedSender<Incoming>>,
}

impl SimHost {
    fn tell(&mut self, message: FromAgent) {
        if let Some(link) = &self.link {
            let _ = link.send(Incoming::Message(message));
        }
    }

    fn happened(&mut self, at: &Attempt, what: Happened) {
        let event = HostEvent {
            host_seq: self.journal.len() as u64 + 1,
            host_time_ms: 0,
            boot_id: "boot".into(),
            step: at.step.clone(),
            attempt: at.attempt,
            what,
        };
        self.journal.push(event.clone());
        self.tell(FromAgent::Event(event));
    }
}

#[derive(Clone)]
struct SimHosts(Arc<World>);

impl Hosts for SimHosts {
    fn open(&self, host: &str, _root: bool) -> impl Future<Output = Result<Link, OpenError>> + Send {
        let (world, host) = (self.0.clone(), host.to_owned());
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if world.unreachable.contains(&host) {
                return Err(OpenError::Unreachable { host, seen: "no route".into(), next: "Mend it".into() });
            }
            let sim = world.hosts.lock().unwrap().entry(host).or_default().clone();
            let (to, mut orders) = mpsc::channel::<Outgoing>(16);
            let (tell, mut told) = mpsc::unbounded_channel();
            let (from_to, from) = mpsc::channel(16);
            sim.lock().unwrap().link = Some(tell);
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
                    match order {
                        ToAgent::Inspect { id, queries, .. } => {
                            sim.lock().unwrap().tell(FromAgent::Inspected {
                                id,
                                readings: queries.iter().map(|_| Ok(proto::Answer::Processes(Vec::new()))).collect(),
                            });
                        }
                        ToAgent::Attach { acked, .. } => {
                            let mut sim = sim.lock().unwrap();
                            let host_seq = sim.journal.len() as u64;
                            sim.tell(FromAgent::Attached { host_seq, open: Vec::new(), token: 1 });
                            let missed: Vec<_> = sim.journal.iter().filter(|e| e.host_seq > acked).cloned().collect();
                            missed.into_iter().for_each(|event| sim.tell(FromAgent::Event(event)));
                        }
                        ToAgent::Grant { steps, .. } => {
                            let first = steps.first().map(|g| g.spec.id.clone());
                            let lost = first.filter(|id| world.fates.get(id) == Some(&Fate::Lost));
                            if lost.is_some_and(|id| world.lost.lock().unwrap().insert(id)) {
                                if let Some(link) = sim.lock().unwrap().link.take() {
                                    let _ = link.send(Incoming::Closed { reason: "cut".into() });
                                }
                                return;
                            }
                            let mut known = sim.lock().unwrap();
                            let fresh: Vec<Granted> = steps.iter().filter(|g| known.known.insert(attempt(g))).cloned().collect();
                            let again: Vec<_> = steps.iter().map(attempt).filter(|at| known.revoked.contains(at)).collect();
                            known.tell(FromAgent::Revoked { steps: again });
                            drop(known);
                            tokio::spawn(carry_out(world.clone(), sim.clone(), fresh));
                        }
                        ToAgent::Finish { .. } => sim.lock().unwrap().tell(FromAgent::Finished),
                        _ => {}
                    }
                }
            });
            Ok(Link { agent: AgentHello::default(), to, from })
        }
    }
}

fn attempt(granted: &Granted) -> Attempt {
    Attempt { step: granted.spec.id.clone(), attempt: granted.attempt }
}

async fn carry_out(world: Arc<World>, sim: Arc<Mutex<SimHost>>, steps: Vec<Granted>) {
    let mut steps = steps.into_iter();
    while let Some(granted) = steps.next() {
        let id = granted.spec.id.clone();
        let fate = world.fates.get(&id).copied().unwrap_or(Fate::Ok);
        world.saw.lock().unwrap().push(Saw::Began(id.clone()));
        sim.lock().unwrap().happened(&attempt(&granted), Happened::Started { stream: 1 });
        if matches!(fate, Fate::Cut | Fate::CutAndFailed) {
            let mut sim = sim.lock().unwrap();
            if let Some(link) = sim.link.take() {
                let _ = link.send(Incoming::Closed { reason: "cut".into() });
            }
        }
        if fate == Fate::Flood {
            let alert = Happened::Alert { message: "é".repeat(20_000), ask: false };
            (0..3000).for_each(|_| sim.lock().unwrap().happened(&attempt(&granted), alert.clone()));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20 + id.0.len() as u64 * 7 % 50)).await;
        let outcome = match (fate, granted.mode) {
            (Fate::Failed | Fate::CutAndFailed, _) => Outcome::Failed,
            (Fate::Unknown, _) => Outcome::Unknown,
            (_, Mode::Act) => Outcome::Ok,
            (_, Mode::Prove) => Outcome::Failed,
        };
        world.saw.lock().unwrap().push(Saw::Ended(id.clone(), outcome));
        let finished =
            Happened::Finished { outcome, exit_code: None, duration_ms: 1, message: String::new(), output_len: 0, died: false };
        sim.lock().unwrap().happened(&attempt(&granted), finished);
        if !outcome.is_proof() {
            let rest: Vec<_> = steps.map(|g| attempt(&g)).collect();
            let mut sim = sim.lock().unwrap();
            sim.revoked.extend(rest.iter().cloned());
            return sim.tell(FromAgent::Revoked { steps: rest });
        }
    }
}

/// A journal in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Storage for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Seen(Vec<Event>);

impl Observer for Seen {
    fn event(&mut self, event: &Event) {
        self.0.push(event.clone());
    }
    fn line(&mut self, _: &str, _: &StepId, _: &str) {}
}

fn step(platform: &str, phase: Phase, stage: &str, host: &str, number: usize, wave: u32, action: Action) -> PlannedStep {
    // Names that do not sort in the order of the plan, as real ones do not.
    let id = StepId(format!("{platform}/{phase}/{stage}/{host}/{}{wave}-{number}", ['z', 'm', 'a'][number % 3]));
    PlannedStep {
        id: id.clone(),
        name: format!("s{wave}-{number}"),
        short: String::new(),
        title: String::new(),
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
            repeat: Repeat::Ask,
            limits: Limits::default(),
        },
    }
}

/// Platforms described by (stages per phase, hosts per stage, steps per host and wave, waves).
fn plan(platforms: &[(usize, usize, usize, usize)]) -> Plan {
    let platforms = platforms
        .iter()
        .enumerate()
        .map(|(p, &(stages, hosts, steps, waves))| {
            let name = format!("p{p}");
            let phases = [Phase::Preflight, Phase::Stop, Phase::Migrate, Phase::Restart]
                .into_iter()
                .map(|phase| {
                    let stage = |s: usize| {
                        let names: Vec<_> = (0..hosts).map(|h| format!("{name}-h{h}")).collect();
                        let mut planned = Vec::new();
                        for host in &names {
                            if phase == Phase::Preflight && s == 0 {
                                let queries = vec![proto::Query::System];
                                planned.push(step(&name, phase, "facts", host, 0, 0, Action::Inspect { queries }));
                                continue;
                            }
                            for wave in 0..waves {
                                for n in 0..steps {
                                    planned.push(step(&name, phase, &format!("st{s}"), host, n, wave as u32, Action::Verify));
                                }
                            }
                        }
                        let name = if phase == Phase::Preflight && s == 0 { "facts".to_owned() } else { format!("st{s}") };
                        StagePlan { name, roles: vec![], hosts: names, tolerant: false, steps: planned }
                    };
                    PhasePlan { name: phase, stages: (0..stages).map(stage).collect() }
                })
                .collect();
            PlatformPlan {
                name: name.clone(),
                topology: Topology::Standard,
                rehearsal: false,
                source: String::new(),
                target: String::new(),
                roles: Default::default(),
                phases,
            }
        })
        .collect();
    Plan { fleet: "sim".into(), hash: "0".repeat(64), platforms, files: vec![], warnings: vec![] }
}

struct Setup {
    plan: Plan,
    fates: HashMap<StepId, Fate>,
    unreachable: HashSet<String>,
    red: BTreeSet<String>,
    limit: Option<BTreeSet<String>>,
    parallel: (usize, usize),
    conditions: Conditions,
}

fn run(setup: &Setup) -> (Ended, Vec<Saw>, Vec<Event>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Arc::new(World { fates: setup.fates.clone(), unreachable: setup.unreachable.clone(), ..World::default() });
        let plan = Arc::new(setup.plan.clone());
        let red = setup.red.clone();
        let hosts = plan.platforms.iter().flat_map(|p| &p.phases[0].stages[0].hosts);
        let options = Options {
            command: "migrate".into(),
            run: "r".into(),
            claim: proto::message::Claim {
                seat: "seat".into(),
                controller: "c1".into(),
                operator: "test".into(),
                ..Default::default()
            },
            bounds: Bounds {
                platforms: plan.platforms.iter().map(|p| p.name.clone()).collect(),
                limit: setup.limit.clone(),
                parallel_platforms: setup.parallel.0,
                parallel_hosts: setup.parallel.1,
                conditions: setup.conditions.clone(),
            },
            limit_text: None,
            hosts: hosts
                .map(|h| {
                    let options =
                        HostOptions { host_state: "/s".into(), root: false, run_as: RunAs::Login, secrets: BTreeMap::new() };
                    (h.clone(), options)
                })
                .collect(),
            files: HashMap::new(),
            dir: "/nonexistent".into(),
            confirmed: BTreeMap::new(),
            accepted: BTreeMap::new(),
            abort: None,
            patience: Duration::from_secs(60),
            judge: Box::new(move |platform, _, _| {
                let finding = Finding {
                    id: format!("test@{platform}"),
                    check: "test".into(),
                    when: None,
                    platform: platform.into(),
                    host: None,
                    instance: None,
                    status: if red.contains(platform) { Status::Failure } else { Status::Ok },
                    message: String::new(),
                    evidence: String::new(),
                    remedy: String::new(),
                    overridden: None,
                };
                vec![finding]
            }),
            again: Box::new(|_, _| BTreeMap::new()),
            reader: Box::new(|_, _, _| Vec::new()),
            clock: controller::run::touch::Clock::default(),
            asker: None,
        };
        let mut seen = Seen::default();
        let journal = Journal::over(Memory::default(), "r");
        let engine = Engine::new(plan, Arc::new(SimHosts(world.clone())), options, journal, &mut seen).unwrap();
        let (_keep, signals) = mpsc::channel::<Command>(1);
        let ended = tokio::time::timeout(Duration::from_secs(24 * 3600), engine.run(signals)).await.expect("the run ends").unwrap();
        let saw = world.saw.lock().unwrap().clone();
        (ended, saw, seen.0)
    })
}

/// Every step of a stage with everything that must be proven before it begins: all steps of earlier stages and earlier waves that a
/// host carries out.
fn check_order(plan: &Plan, saw: &[Saw]) {
    // Steps of one host follow each other in the order of the plan, each only behind a proven one.
    for platform in &plan.platforms {
        for stage in platform.phases.iter().flat_map(|p| &p.stages) {
            for host in &stage.hosts {
                let planned: Vec<_> =
                    stage.steps.iter().filter(|s| s.host == *host && s.action != "inspect").map(|s| &s.id).collect();
                let begun: Vec<_> = saw.iter().filter_map(|s| if let Saw::Began(id) = s { Some(id) } else { None }).collect();
                let begun: Vec<_> = begun.into_iter().filter(|id| planned.contains(id)).collect();
                assert_eq!(begun, planned[..begun.len()], "{host} in {}", stage.name);
                for before in begun.iter().take(begun.len().saturating_sub(1)) {
                    let end = saw.iter().find_map(|s| if let Saw::Ended(id, o) = s { (id == *before).then_some(*o) } else { None });
                    assert!(end.is_some_and(Outcome::is_proof), "a step of {host} began behind {before}, which ended in {end:?}");
                }
            }
        }
    }
    let mut proven = HashSet::new();
    let mut began = HashSet::new();
    for entry in saw {
        match entry {
            Saw::Ended(id, outcome) => {
                if outcome.is_proof() {
                    proven.insert(id.clone());
                }
            }
            Saw::Began(id) => {
                assert!(began.insert(id.clone()), "{id} began twice");
                let platform = plan.platforms.iter().find(|p| id.0.starts_with(&format!("{}/", p.name))).unwrap();
                let stages: Vec<_> = platform.phases.iter().flat_map(|p| &p.stages).collect();
                let at = stages.iter().position(|s| s.steps.iter().any(|x| x.id == *id)).unwrap();
                let wave = stages[at].steps.iter().find(|x| x.id == *id).unwrap().wave;
                let earlier = stages[..at].iter().flat_map(|s| &s.steps);
                let earlier = earlier.chain(stages[at].steps.iter().filter(|x| x.wave < wave));
                for before in earlier.filter(|x| x.action != "inspect") {
                    assert!(proven.contains(&before.id), "{id} began before {} was proven", before.id);
                }
            }
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![30 => Just(Fate::Ok), 1 => Just(Fate::Failed), 1 => Just(Fate::Unknown), 2 => Just(Fate::Cut), 1 => Just(Fate::CutAndFailed), 2 => Just(Fate::Lost)]
}

fn setup() -> impl Strategy<Value = Setup> {
    let shapes = proptest::collection::vec((1usize..4, 1usize..4, 1usize..4, 1usize..3), 1..4);
    shapes.prop_flat_map(|shapes| {
        let plan = plan(&shapes);
        let ids: Vec<_> = all_steps(&plan).map(|s| s.id.clone()).collect();
        let hosts: BTreeSet<_> = all_steps(&plan).map(|s| s.host.clone()).collect();
        let hosts: Vec<_> = hosts.into_iter().collect();
        let names: Vec<_> = plan.platforms.iter().map(|p| p.name.clone()).collect();
        let fates = proptest::collection::vec(fate(), ids.len());
        let away = proptest::collection::vec(proptest::bool::weighted(0.04), hosts.len());
        let red = proptest::collection::vec(proptest::bool::weighted(0.1), names.len());
        (fates, away, red, 1usize..4, 1usize..6).prop_map(move |(fates, away, red, platforms, parallel)| Setup {
            plan: plan.clone(),
            fates: ids.iter().cloned().zip(fates).collect(),
            unreachable: hosts.iter().zip(away).filter(|(_, a)| *a).map(|(h, _)| h.clone()).collect(),
            red: names.iter().zip(red).filter(|(_, r)| *r).map(|(n, _)| n.clone()).collect(),
            limit: None,
            parallel: (platforms, parallel),
            conditions: Conditions::default(),
        })
    })
}

fn all_steps(plan: &Plan) -> impl Iterator<Item = &PlannedStep> {
    plan.platforms.iter().flat_map(|p| &p.phases).flat_map(|p| &p.stages).flat_map(|s| &s.steps)
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bad: BTreeMap<_, _> = self.fates.iter().filter(|(_, fate)| **fate != Fate::Ok).collect();
        write!(f, "fates {bad:?}, away {:?}, red {:?}, parallel {:?}", self.unreachable, self.red, self.parallel)
    }
}

#[test]
fn a_host_that_alerts_without_end_is_left() {
    let plan = plan(&[(1, 2, 1, 1)]);
    let flooded = all_steps(&plan).find(|step| step.spec.action == Action::Verify).unwrap().id.clone();
    let setup = Setup {
        plan,
        fates: [(flooded, Fate::Flood)].into(),
        unreachable: HashSet::new(),
        red: BTreeSet::new(),
        limit: None,
        parallel: (4, 8),
        conditions: Conditions::default(),
    };
    let (ended, _, events) = run(&setup);
    assert_eq!(ended.exit_code, 1);
    let texts = events.iter().filter_map(|event| match &event.kind {
        Kind::StepAlert { message, .. } => Some(message),
        _ => None,
    });
    let (mut count, mut longest) = (0, 0);
    texts.for_each(|text| (count, longest) = (count + 1, longest.max(text.len())));
    assert!((1..3000).contains(&count), "{count} alerts");
    assert!(longest < 17_000, "{longest}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_and_barriers_hold_under_random_failures(setup in setup()) {
        let (ended, saw, events) = run(&setup);
        check_order(&setup.plan, &saw);

        let ended_badly = |platform: &str| saw.iter().any(|s| matches!(s, Saw::Ended(id, o) if !o.is_proof() && id.0.starts_with(&format!("{platform}/"))));
        for platform in &setup.plan.platforms {
            let own: Vec<_> = all_steps(&setup.plan).filter(|s| s.id.0.starts_with(&format!("{}/", platform.name))).collect();
            let away = own.iter().any(|s| setup.unreachable.contains(&s.host));
            let red = setup.red.contains(&platform.name);
            let touched = saw.iter().any(|s| matches!(s, Saw::Began(id) if id.0.starts_with(&format!("{}/", platform.name)) && !id.0.contains("/preflight/")));
            // Nothing is touched while a finding holds the platform up or one of its hosts is away.
            prop_assert!(!(touched && (away || red)), "{} was touched", platform.name);
            // Platforms are independent: what is not hindered runs to its end.
            if !away && !red && !ended_badly(&platform.name) {
                let done = saw.iter().filter(|s| matches!(s, Saw::Ended(id, _) if id.0.starts_with(&format!("{}/", platform.name)))).count();
                prop_assert_eq!(done, own.iter().filter(|s| s.action != "inspect").count());
            }
        }

        // No platform is touched before all finished preflight.
        let first_touch = saw.iter().position(|s| matches!(s, Saw::Began(id) if !id.0.contains("/preflight/")));
        let last_preflight = saw.iter().rposition(|s| matches!(s, Saw::Began(id) if id.0.contains("/preflight/")));
        if let (Some(touch), Some(preflight)) = (first_touch, last_preflight) {
            prop_assert!(preflight < touch);
        }

        let ended_as = |wanted: Outcome| saw.iter().any(|s| matches!(s, Saw::Ended(_, o) if *o == wanted));
        let failed = !setup.red.is_empty() || ended_as(Outcome::Failed);
        let expected = match (failed, setup.unreachable.is_empty()) {
            (true, _) => 1,
            (false, false) => 3,
            // Nobody can tell what a step did: a person decides.
            (false, true) if ended_as(Outcome::Unknown) => 5,
            (false, true) => 0,
        };
        prop_assert_eq!(ended.exit_code, expected);
        let is_end = matches!(events.last().map(|e| &e.kind), Some(Kind::RunFinished { .. }));
        prop_assert!(is_end);
    }

    #[test]
    fn canaries_go_first_and_a_failure_budget_is_kept(mut setup in setup(), budget in 0u32..2) {
        let canary = setup.plan.platforms[0].name.clone();
        setup.conditions = Conditions { canaries: vec![canary.clone()], failures: Some(budget), ..Conditions::default() };
        let (ended, saw, events) = run(&setup);
        check_order(&setup.plan, &saw);
        let (mut through, mut bad) = (false, 0);
        for event in &events {
            let Some(platform) = &event.scope.platform else { continue };
            match &event.kind {
                Kind::PlatformFinished { outcome: RunOutcome::Ok, .. } => through |= *platform == canary,
                Kind::PlatformFinished { outcome: RunOutcome::Stopped, .. } => bad += 1,
                Kind::PhaseStarted if event.scope.phase.as_deref() != Some("preflight") => {
                    let first = event.scope.phase.as_deref() == Some("stop");
                    prop_assert!(!first || through || *platform == canary, "{} was touched ahead of the canary", platform);
                    prop_assert!(!first || bad <= budget, "{} was touched after {} platforms had ended badly", platform, bad);
                }
                _ => {}
            }
        }
        // Whoever waited in vain is over, untouched, and the run says that it did not do all.
        let over = events.iter().filter(|event| matches!(event.kind, Kind::PlatformFinished { .. })).count();
        prop_assert_eq!(over, setup.plan.platforms.len());
        prop_assert!(through || ended.exit_code != 0);
    }

    #[test]
    fn hosts_outside_the_limit_are_never_acted_on_and_never_counted_as_done(mut setup in setup(), left_out in 0usize..3) {
        setup.fates.clear();
        setup.unreachable.clear();
        setup.red.clear();
        let hosts: BTreeSet<_> = all_steps(&setup.plan).map(|s| s.host.clone()).collect();
        let outside: BTreeSet<_> = hosts.iter().take(left_out.min(hosts.len() - 1)).cloned().collect();
        setup.limit = Some(hosts.difference(&outside).cloned().collect());
        let (ended, saw, _) = run(&setup);
        check_order(&setup.plan, &saw);
        for entry in &saw {
            if let Saw::Ended(id, outcome) = entry {
                let is_outside = outside.iter().any(|host| id.0.contains(&format!("/{host}/")));
                prop_assert_eq!(*outcome == Outcome::Failed, is_outside);
            }
        }
        let narrowed = all_steps(&setup.plan).any(|s| outside.contains(&s.host) && s.action != "inspect");
        prop_assert_eq!(ended.exit_code, u8::from(narrowed));
    }
}
