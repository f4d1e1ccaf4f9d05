//! One history: a plan, a fleet, operators, and what goes wrong; then the judgement.

use crate::check::{Judge, fencing};
use crate::faults::Faults;
use crate::fleet;
use crate::plant::Plant;
use crate::records::{self, Witness};
use crate::rng::Rng;
use crate::seat::{Over, Seat};
use crate::storage::Paper;
use crate::truth::Truth;
use crate::watch::Watch;
use crate::world::World;
use controller::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How a history is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// A bug that is to be found.
    pub plant: Option<Plant>,
    /// Tells on standard output what happens.
    pub trace: bool,
}

/// What there was in one history, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Histories.
    pub histories: u64,
    /// Controllers that worked on a run.
    pub controllers: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Attempts that began on hosts.
    pub attempts: u64,
    /// Attempts of the second and later kind.
    pub repeated: u64,
    /// Tokens that hosts gave out.
    pub tokens: u64,
    /// Steps that people decided on.
    pub decisions: u64,
    /// Histories with two runs on one fleet.
    pub rivals: u64,
    /// Histories in which a host went from one run to another.
    pub takeovers: u64,
    /// Runs that were ended by a person.
    pub aborted: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.controllers += other.controllers;
        self.faults += other.faults;
        self.attempts += other.attempts;
        self.repeated += other.repeated;
        self.tokens += other.tokens;
        self.decisions += other.decisions;
        self.rivals += other.rivals;
        self.takeovers += other.takeovers;
        self.aborted += other.aborted;
    }
}

/// Runs the history of a seed and judges it.
///
/// # Errors
/// What must not have happened.
pub fn run(seed: u64, setup: Setup) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(history(seed, setup))
}

async fn history(seed: u64, Setup { plant, trace }: Setup) -> Result<Tally, String> {
    let rng = Rng::new(seed);
    let plan = Arc::new(fleet::plan(&mut rng.fork("plan")));
    let faults = Faults::draw(&mut rng.fork("faults"));
    let hosts: BTreeSet<&str> = plan.platforms.iter().flat_map(|p| p.steps()).map(|step| step.host.as_str()).collect();
    let world = World::new(&rng, faults.clone(), plant, trace, hosts.iter().copied());
    world.with(|w| w.net.trace(|| format!("seed {seed}: {faults:?}")));
    let mut chance = rng.fork("seats");
    let rival = chance.chance(faults.rival);
    let red = plan.platforms.iter().map(|platform| platform.name.clone()).filter(|_| chance.chance(faults.red));
    let red: BTreeMap<String, u32> = red.map(|name| (name, 2)).collect();
    let mut choice = rng.fork("canary");
    let canary = (plan.platforms.len() > 1 && choice.chance(3500)).then(|| {
        let at = choice.below(plan.platforms.len() as u64) as usize;
        plan.platforms[at].name.clone()
    });
    let seat = |name: &str, meek: bool| Seat {
        world: world.clone(),
        plan: plan.clone(),
        run: name.to_owned(),
        rng: rng.fork(name),
        limit: None,
        canary: canary.clone(),
        red: red.clone(),
        paper: Paper::default(),
        take_over: false,
        meek,
        lives: 0,
        decisions: 0,
        watch: Watch::new(world.clone(), name),
    };
    let (mut first, mut second) = (seat("a", false), seat("b", true));
    second.take_over = chance.chance(6000);
    let later = Duration::from_millis(chance.skewed(10, 600_000));
    let moving = tokio::spawn(world.clone().go_on());
    let (one, other) = tokio::join!(first.work(), async {
        if !rival {
            return Ok(None);
        }
        tokio::time::sleep(later).await;
        second.work().await.map(Some)
    });
    // What still runs somewhere comes to its end, whether anybody wants to know or not.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    moving.abort();
    let ends = [(&first, one.map(Some)), (&second, other)];
    judge(&world, &plan, ends)
}

fn judge(world: &World, plan: &Plan, ends: [(&Seat, Result<Option<Over>, String>); 2]) -> Result<Tally, String> {
    world.with(|w| {
        let truth = &w.net.truth;
        fencing(truth.iter())?;
        let mut tally = Tally { histories: 1, faults: w.net.luck.struck.into(), ..count(truth) };
        for (seat, over) in ends {
            let mut judge = Judge::new(&seat.run, plan, seat.limit.as_ref(), seat.canary.as_deref());
            judge.all(truth.iter())?;
            let Some(over) = over? else { continue };
            if over == Over::Done {
                judge.complete()?;
            }
            let chain = seat.paper.read()?;
            judge.beginnings(&chain)?;
            judge.looked_again(&chain)?;
            let witness = Witness::new(&chain);
            for (name, host) in &w.hosts {
                if let Some(disk) = host.disk.runs.get(&seat.run) {
                    witness.compare(name, disk, over == Over::Done)?;
                    let begun = records::begun(disk);
                    let unknown = truth.iter().find_map(|what| match what {
                        Truth::Began { host, run, at, .. } if *host == *name && *run == seat.run && !begun.contains(at) => Some(at),
                        _ => None,
                    });
                    if let Some(at) = unknown {
                        return Err(format!("{name} began attempt {} of {} and has no record of it", at.attempt, at.step));
                    }
                }
            }
            tally.controllers += u64::from(seat.lives);
            tally.decisions += u64::from(seat.decisions);
            tally.aborted += u64::from(over == Over::Aborted);
            tally.rivals += u64::from(seat.run == "b");
        }
        Ok(tally)
    })
}

fn count(truth: &[Truth]) -> Tally {
    let mut tally = Tally::default();
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for what in truth {
        match what {
            Truth::Began { at, .. } => {
                tally.attempts += 1;
                tally.repeated += u64::from(at.attempt > 1);
            }
            Truth::Locked { host, run, .. } => {
                tally.tokens += 1;
                if holders.insert(host, run).is_some_and(|before| before != run.as_str()) {
                    tally.takeovers = 1;
                }
            }
            Truth::Released { host } => {
                holders.remove(host.as_str());
            }
            _ => {}
        }
    }
    tally
}
