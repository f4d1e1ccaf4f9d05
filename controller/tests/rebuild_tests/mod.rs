//! Runs that are cut anywhere and put together from what their hosts hold: they stand where they stood, and go on to their end.

mod claims;
mod parts;
pub(crate) mod world;

use controller::plan::{Plan, PlatformPlan};
use controller::run::journal::{self, Chain, Draft, Journal, Storage};
use controller::run::options::HostOptions;
use controller::run::rebuild::{RebuildError, Rebuilt, rebuild};
use controller::run::state::{Bounds, RunState};
use controller::run::{Command, Ended, Engine, Observer, Options, Signal};
use proptest::prelude::*;
use proto::StepId;
use proto::event::{Event, Kind, Outcome, RunOutcome};
use proto::host::{Record, Standing, State};
use proto::message::Claim;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use world::{PATIENCE, SimHosts, Trouble, World, by_id, chance, ground, plan};

/// A journal in memory that takes so many writes: what comes after is the end of its controller.
#[derive(Clone)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    left: usize,
}

impl Storage for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Blind;

impl Observer for Blind {
    fn event(&mut self, _: &Event) {}
    fn line(&mut self, _: &str, _: &StepId, _: &str) {}
}

fn options(plan: &Plan, life: usize) -> Options {
    let steps = plan.platforms.iter().flat_map(PlatformPlan::steps);
    let option = || HostOptions { host_state: "/s".into(), root: false, run_as: proto::RunAs::Login, secrets: BTreeMap::new() };
    Options {
        command: if life == 0 { "migrate".into() } else { "resume".into() },
        run: "r1".into(),
        claim: Claim { seat: "seat".into(), controller: controller(life), operator: "eva".into(), ..Claim::default() },
        bounds: bounds(plan),
        limit_text: None,
        hosts: steps.map(|step| (step.host.clone(), option())).collect(),
        files: HashMap::new(),
        dir: "/nonexistent".into(),
        confirmed: plan.platforms.iter().map(|p| (format!("{}/by-hand", p.name), "done".into())).collect(),
        accepted: BTreeMap::new(),
        abort: None,
        patience: PATIENCE,
        judge: Box::new(|_, _, _| Vec::new()),
        again: Box::new(|_, _| BTreeMap::new()),
        reader: Box::new(|_, _, _| Vec::new()),
        clock: controller::run::touch::Clock::default(),
        asker: None,
    }
}

/// The name of a life of a controller.
fn controller(life: usize) -> String {
    format!("c{life}")
}

fn bounds(plan: &Plan) -> Bounds {
    let platforms = plan.platforms.iter().map(|platform| platform.name.clone()).collect();
    Bounds { platforms, limit: None, parallel_platforms: 4, parallel_hosts: 50, conditions: Default::default() }
}

fn folded(plan: &Plan, events: &[Event]) -> RunState {
    let mut state = RunState::new(Arc::new(plan.clone()), bounds(plan));
    events.iter().for_each(|event| state.apply(event));
    state
}

/// Writes drafts as a controller would that puts a journal together from them.
async fn written(drafts: Vec<Draft>) -> (Vec<u8>, Chain) {
    let memory = Memory { bytes: Arc::default(), left: 1 };
    let bytes = memory.bytes.clone();
    Journal::over(memory, "r1").append(drafts).await.unwrap();
    let bytes = bytes.lock().unwrap().clone();
    let chain = journal::parse(&bytes, Path::new("rebuilt")).unwrap();
    (bytes, chain)
}

/// What a person decides about steps that ended badly: some are started again, some are left out.
fn decisions(state: &RunState, plan: &Plan, seed: u64, life: usize) -> Vec<Command> {
    let bad =
        plan.platforms.iter().flat_map(PlatformPlan::steps).filter(|step| state.ended(&step.id).is_some_and(|o| !o.is_proof()));
    bad.take(8)
        .map(|step| {
            let (step, operator, reason) = (step.id.0.clone(), "eva".to_owned(), "looked at it".to_owned());
            let skip = chance(seed, ("skip", &step, life)) % 3 == 0;
            if skip { Signal::Skip { step, operator, reason } } else { Signal::Retry { step, operator, reason } }.into()
        })
        .collect()
}

/// A record that a controller goes on with: its bytes, what they say, and whether it was put together from the hosts.
type Left = (Vec<u8>, Chain, bool);

/// One life of a controller. With `left` it goes on with that. Its own record is what it had written when it ended or was killed.
async fn live(
    world: &Arc<World>,
    plan: &Plan,
    life: usize,
    left: Option<Left>,
    writes: usize,
    millis: u64,
) -> (Option<Ended>, Vec<u8>, Chain) {
    let new = || (Vec::new(), journal::parse(&[], Path::new("new")).unwrap(), false);
    let (bytes, chain, from_hosts) = left.clone().unwrap_or_else(new);
    let memory = Memory { bytes: Arc::new(Mutex::new(bytes)), left: writes };
    let bytes = memory.bytes.clone();
    let (say, commands) = mpsc::channel(8);
    for command in decisions(&folded(plan, &chain.events), plan, world.seed, life) {
        say.try_send(command).unwrap();
    }
    let (hosts, shared, mut blind) = (Arc::new(SimHosts(world.clone())), Arc::new(plan.clone()), Blind);
    let options = options(plan, life);
    let engine = match left {
        None => Engine::new(shared, hosts, options, Journal::over(memory, "r1"), &mut blind),
        Some(_) => {
            let journal = Journal::continue_over(memory, "r1", &chain);
            Engine::resume(shared, hosts, options, (journal, &chain), from_hosts, &mut blind)
        }
    };
    let run = engine.unwrap().run(commands);
    let ended = tokio::time::timeout(Duration::from_millis(millis), run).await.ok().and_then(Result::ok);
    drop(say);
    let bytes = bytes.lock().unwrap().clone();
    let chain = journal::parse(&bytes, Path::new("own")).unwrap();
    (ended, bytes, chain)
}

/// Where the controller's own record and the hosts' records together say that the run stands, against what was rebuilt.
fn compare(plan: &Plan, own: &Chain, hosts: &BTreeMap<String, Vec<Record>>, rebuilt: &Rebuilt, chain: &Chain) {
    assert_eq!(rebuilt.run, "r1");
    for platform in &rebuilt.plan.platforms {
        assert!(plan.platforms.contains(platform), "the plan is another one");
    }
    let (original, now) = (folded(plan, &own.events), folded(&rebuilt.plan, &chain.events));
    for step in rebuilt.plan.platforms.iter().flat_map(PlatformPlan::steps) {
        let id = &step.id;
        if matches!(step.action.as_str(), "inspect" | "gate") {
            // The controller's own: known as far as the last grant.
            if let Some(outcome) = now.ended(id) {
                assert_eq!(original.ended(id), Some(outcome), "{id}");
            }
            continue;
        }
        let mut state = State::default();
        hosts[&step.host].iter().for_each(|record| state.apply(record));
        let latest = original.attempt(id).max(now.attempt(id));
        match state.find(id, latest).and_then(|index| state.entry(index)).map(|entry| entry.standing) {
            // The last grant never reached its host, so nothing of it happened.
            None => assert!(!now.is_open(id) && now.attempt(id) < latest.max(1), "{id}: {latest}"),
            Some(Standing::Waiting) => assert!(now.is_open(id) && !now.has_begun(id), "{id}"),
            Some(Standing::Running) => assert!(now.has_begun(id), "{id}"),
            Some(Standing::Revoked) => assert!(!now.is_open(id) && now.ended(id).is_none(), "{id}"),
            Some(Standing::Ended(outcome)) => {
                let decided = own.events.iter().any(|event| {
                    event.scope.step.as_ref() == Some(&id.0)
                        && event.scope.attempt == Some(latest)
                        && matches!(event.kind, Kind::Decision { .. })
                });
                match now.ended(id) {
                    Some(ended) => assert_eq!(ended, outcome, "{id}"),
                    None => assert!(decided && !now.is_open(id), "{id} ended {outcome:?}"),
                }
            }
        }
        assert_eq!(now.attempt(id), state.find(id, latest).map_or(now.attempt(id), |_| latest), "{id}");
    }
    in_order(&rebuilt.plan, &chain.events);
}

/// No step is granted before every step of every earlier stage and wave ended in proof.
fn in_order(plan: &Plan, events: &[Event]) {
    let steps = by_id(plan);
    let mut proven: HashSet<&str> = HashSet::new();
    for event in events {
        let Some(id) = event.scope.step.as_deref() else { continue };
        match &event.kind {
            Kind::StepFinished { outcome, .. } if outcome.is_proof() => drop(proven.insert(id)),
            Kind::StepGranted { .. } => {
                let platform = plan.platforms.iter().find(|p| Some(&p.name) == event.scope.platform.as_ref()).unwrap();
                let earlier = platform.phases.iter().flat_map(|p| &p.stages).take_while(|s| s.steps.iter().all(|s| s.id.0 != id));
                let stage = platform.phases.iter().flat_map(|p| &p.stages).find(|stage| stage.steps.iter().any(|s| s.id.0 == id));
                let own = steps[id].wave;
                let waves = stage.into_iter().flat_map(|stage| &stage.steps).filter(|step| step.wave < own);
                for before in earlier.flat_map(|stage| &stage.steps).chain(waves) {
                    assert!(proven.contains(before.id.0.as_str()), "{id} was granted before {} was proven", before.id);
                }
            }
            _ => {}
        }
    }
    assert!(events.iter().filter_map(|event| event.scope.step.as_deref()).all(|id| steps.contains_key(id)));
}

/// Lives of controllers, each killed at some moment; each next one goes on with the record that was left, or with nothing but what the
/// hosts hold.
async fn history(
    seed: u64,
    shape: &[(usize, usize, usize, usize)],
    lives: usize,
    trouble: Trouble,
) -> (Arc<World>, Plan, Option<Ended>) {
    // The hosts that the inventory names, also of platforms that a controller leaves out.
    let fleet = plan(shape);
    let known = ground(&fleet);
    let mut current = fleet.clone();
    let mut world = World::new(seed, trouble);
    let mut left: Option<Left> = None;
    for life in 0.. {
        let last = life + 1 >= lives;
        let writes = if last { usize::MAX } else { 1 + chance(seed, ("writes", life)) as usize % 60 };
        let millis = if last { 24 * 3_600_000 } else { 1 + chance(seed, ("millis", life)) % 8_000 };
        let (ended, own_bytes, own) = live(&world, &current, life, left.clone(), writes, millis).await;
        if last {
            return (world, current, ended);
        }
        // Hosts go on for a while with nobody there.
        tokio::time::sleep(Duration::from_millis(chance(seed, ("pause", life)) % 200)).await;
        // The next controller sits where this one sat, or elsewhere: then it takes the hosts before it reads what they hold.
        let elsewhere = own.events.is_empty() || chance(seed, ("seat", life)) % 2 == 1;
        if elsewhere {
            world.take(&controller(life + 1));
        }
        let journals = world.journals(&fleet);
        let rebuilt = match rebuild("r1", &journals, &known) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                assert_eq!(error, RebuildError::Nothing);
                assert!(!journals.values().flatten().any(|record| matches!(record, Record::Grant { .. })));
                // Nobody knows of this run: the next one is another.
                (world, left) = (World::new(seed, trouble), None);
                continue;
            }
        };
        // A platform whose hosts were not all told of the run yet: nothing was granted there.
        for platform in current.platforms.iter().filter(|p| rebuilt.plan.platforms.iter().all(|known| known.name != p.name)) {
            assert!(platform.steps().all(|step| !journals[&step.host].iter().any(|r| matches!(r, Record::Grant { .. }))));
            assert!(rebuilt.notices.iter().any(|notice| notice.contains(&format!("platform {}", platform.name))));
        }
        let (bytes, chain) = written(rebuilt.drafts.clone()).await;
        compare(&current, &own, &journals, &rebuilt, &chain);
        left = match elsewhere {
            false => Some((own_bytes, own, false)),
            true => {
                current = rebuilt.plan;
                Some((bytes, chain, true))
            }
        };
    }
    unreachable!("the last life returns")
}

fn paused<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

fn shapes() -> impl Strategy<Value = Vec<(usize, usize, usize, usize)>> {
    proptest::collection::vec((1usize..3, 1usize..4, 1usize..4, 1usize..3), 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever went wrong and wherever the controllers were killed, the run stands where it stood.
    #[test]
    fn a_run_that_is_rebuilt_stands_where_it_stood(seed: u64, shape in shapes(), lives in 2usize..6) {
        let trouble = Trouble { failed: 4, unknown: 3, cut: 10, lost: 6, away: 60 };
        paused(history(seed, &shape, lives, trouble));
    }

    /// When nothing but controllers and connections fails, every step is carried out once, in order, and the run ends well.
    #[test]
    fn a_run_that_is_rebuilt_goes_on_to_its_end(seed: u64, shape in shapes(), lives in 2usize..6) {
        let trouble = Trouble { failed: 0, unknown: 0, cut: 6, lost: 6, away: 0 };
        let (world, plan, ended) = paused(history(seed, &shape, lives, trouble));
        let ended = ended.unwrap();
        prop_assert_eq!((ended.outcome, ended.exit_code), (RunOutcome::Ok, 0));
        let saw = world.saw.lock().unwrap();
        let mut began: HashSet<&StepId> = HashSet::new();
        for (step, _) in saw.iter().filter(|(_, end)| end.is_none()) {
            prop_assert!(began.insert(step), "{} began twice", step);
        }
        prop_assert!(saw.iter().all(|(_, end)| end.is_none_or(|outcome| outcome == Outcome::Ok)));
        let carried_out = plan.platforms.iter().flat_map(PlatformPlan::steps).filter(|step| step.action == "verify");
        prop_assert_eq!(carried_out.count(), began.len());
    }
}
