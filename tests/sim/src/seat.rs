//! A workstation with its operator: starts controllers, loses them, starts others, decides on steps, until the run is over.

use crate::rng::Rng;
use crate::storage::{Paper, Pen};
use crate::truth::{Decision, Truth};
use crate::watch::{Bad, Watch};
use crate::world::{Way, World};
use controller::plan::{Plan, PlannedStep};
use controller::run::journal::{Chain, Journal};
use controller::run::options::{HostOptions, HostReading, Occasion};
use controller::run::state::{Bounds, RunState};
use controller::run::{Command, Ended, Engine, Options, Signal, decide};
use proto::event::Conditions;
use proto::event::{Finding, Kind, RunOutcome, Status};
use proto::message::Claim;
use proto::step::{Action, Probe};
use proto::{Query, RunAs, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// After this many controllers nothing goes wrong any more.
const CALM: u32 = 30;
/// After this many more the run must have come to its end.
const ENOUGH: u32 = 25;
/// No controller lives longer: it hangs.
const FOREVER: Duration = Duration::from_secs(3 * 24 * 3600);

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Everything was done and proven.
    Done,
    /// A person ended it.
    Aborted,
}

/// What ended the life of a controller.
enum End {
    Ended(Ended),
    /// It could not go on, and said why.
    Error(String),
    Died,
}

/// See the module.
pub(crate) struct Seat {
    pub(crate) world: World,
    pub(crate) plan: Arc<Plan>,
    pub(crate) run: String,
    pub(crate) rng: Rng,
    pub(crate) limit: Option<BTreeSet<String>>,
    /// The platform that the others wait for.
    pub(crate) canary: Option<String>,
    /// Platforms whose findings hold them up, for how many controllers.
    pub(crate) red: BTreeMap<String, u32>,
    pub(crate) paper: Paper,
    /// Somebody else's hosts are taken from them.
    pub(crate) take_over: bool,
    /// Gives way to others: ends its run when it is kept out.
    pub(crate) meek: bool,
    /// How many controllers there were.
    pub(crate) lives: u32,
    /// How many decisions were made.
    pub(crate) decisions: u32,
    /// Reads what controllers write down.
    pub(crate) watch: Watch,
}

impl Seat {
    /// Works until the run is over.
    ///
    /// # Errors
    /// It does not come to its end, or its journal cannot be read.
    pub(crate) async fn work(&mut self) -> Result<Over, String> {
        let (mut calm_at, mut kept_out, mut abort) = (CALM, 0, false);
        loop {
            if self.lives >= calm_at {
                calm_at = calm_at.min(self.lives);
                self.world.calm();
            }
            if self.lives >= calm_at + ENOUGH {
                return Err(format!("run {} does not come to its end: {} controllers worked on it", self.run, self.lives));
            }
            let chain = self.paper.read()?;
            let chain = self.decide_between(chain).await?;
            self.lives += 1;
            match self.live(&chain, abort).await? {
                End::Ended(Ended { outcome: RunOutcome::Ok, exit_code: 0 }) => return Ok(Over::Done),
                End::Ended(Ended { outcome: RunOutcome::Aborted, .. }) => return Ok(Over::Aborted),
                End::Ended(Ended { exit_code: 4, .. }) => {
                    kept_out += 1;
                    (self.take_over, abort) = (!self.meek && kept_out > 2, self.meek);
                }
                End::Ended(_) | End::Died => {}
                End::Error(error) => self.world.with(|w| w.net.trace(|| format!("the controller ends: {error}"))),
            }
            let pause = self.rng.skewed(100, 3_600_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn bounds(&mut self) -> Bounds {
        Bounds {
            platforms: self.plan.platforms.iter().map(|platform| platform.name.clone()).collect(),
            limit: self.limit.clone(),
            parallel_platforms: self.rng.between(1, 4) as usize,
            parallel_hosts: self.rng.between(1, 5) as usize,
            conditions: Conditions { canaries: self.canary.iter().cloned().collect(), ..Conditions::default() },
        }
    }

    fn pen(&self, life: u64, bell: &Arc<Notify>) -> Pen {
        Pen { paper: self.paper.clone(), world: self.world.clone(), life, bell: bell.clone(), dying: None, dead: false }
    }

    /// While no controller works, the operator looks at what failed and decides.
    async fn decide_between(&mut self, chain: Chain) -> Result<Chain, String> {
        if chain.events.is_empty() {
            return Ok(chain);
        }
        let mut state = RunState::new(self.plan.clone(), self.bounds());
        chain.events.iter().for_each(|event| state.apply(event));
        let life = self.world.with(|w| w.net.born(&self.run));
        let journal = Journal::continue_over(self.pen(life, &Arc::default()), &self.run, &chain);
        let plan = self.plan.clone();
        for step in plan.platforms.iter().flat_map(|platform| platform.steps()) {
            if state.ended(&step.id).is_none_or(|outcome| outcome.is_proof()) || !self.rng.chance(8500) {
                continue;
            }
            let what = self.decide(step, state.is_skipped(step));
            let Ok(drafts) = decide::draft(&state, &what) else { continue };
            let Ok(written) = journal.append(drafts).await else { break };
            written.events.iter().for_each(|event| state.apply(event));
        }
        drop(journal);
        // What is durable was decided, whether whoever wrote it lived to see that or not.
        let decided = self.paper.read()?;
        for event in decided.events.iter().skip(chain.events.len()) {
            let Kind::Decision { decision, about, .. } = &event.kind else { continue };
            let what = match decision.as_str() {
                "retry" => Decision::Retry,
                "acceptance" => Decision::Accept,
                _ => Decision::Skip,
            };
            self.decisions += 1;
            self.world.with(|w| w.net.saw(Truth::Decided { run: self.run.clone(), step: StepId(about.clone()), what }));
        }
        Ok(decided)
    }

    /// An operator who looks at the host first: what is done is not done again, what is not done is tried again, mostly.
    fn decide(&mut self, step: &PlannedStep, skipped: bool) -> Signal {
        let done = self.world.with(|w| w.hosts.get(&step.host).is_some_and(|host| host.disk.effects.contains(&step.id)));
        let can_be_seen = matches!(step.spec.probe, Some(Probe::Exists(_)));
        let (step, operator, reason) = (step.id.0.clone(), "op".to_owned(), "looked at it".to_owned());
        if skipped {
            return Signal::Accept { step, operator, reason };
        }
        if (done && !can_be_seen) || self.rng.chance(1500) {
            return Signal::Skip { step, operator, reason };
        }
        Signal::Retry { step, operator, reason }
    }

    async fn live(&mut self, chain: &Chain, abort: bool) -> Result<End, String> {
        let life = self.world.with(|w| w.net.born(&self.run));
        self.world.with(|w| w.net.trace(|| format!("controller {life} of run {} begins", self.run)));
        let bell = Arc::new(Notify::new());
        let hosts = Arc::new(Way { world: self.world.clone(), life });
        let options = self.options(life, abort);
        let bad = self.watch.sit_down(chain, options.confirmed.keys().cloned().collect());
        let pen = self.pen(life, &bell);
        let engine = if chain.events.is_empty() {
            Engine::new(self.plan.clone(), hosts, options, Journal::over(pen, &self.run), &mut self.watch)
        } else {
            let journal = Journal::continue_over(pen, &self.run, chain);
            Engine::resume(self.plan.clone(), hosts, options, (journal, chain), false, &mut self.watch)
        };
        let engine = engine.map_err(|error| error.to_string())?;
        let (commands, orders) = mpsc::channel(4);
        let sudden = self.world.with(|w| w.net.luck.strikes(|faults| faults.kill).then(|| w.net.luck.rng().skewed(1, 600_000)));
        let end = {
            let working = engine.run(orders);
            let person = sit(self.world.clone(), self.run.clone(), self.rng.fork(&format!("person {life}")), commands, bad);
            tokio::pin!(working, person);
            let sudden = async {
                match sudden {
                    Some(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = bell.notified() => End::Died,
                () = sudden => End::Died,
                ended = &mut working => match ended {
                    Ok(ended) => End::Ended(ended),
                    Err(error) => End::Error(error.to_string()),
                },
                () = &mut person => End::Died,
                () = tokio::time::sleep(FOREVER) => return Err(format!("controller {life} of run {} hangs", self.run)),
            }
        };
        self.world.with(|w| w.net.bury(life));
        if matches!(end, End::Died) && self.rng.chance(3000) {
            self.paper.power_loss(&self.world);
        }
        if let End::Ended(ended) = &end {
            self.world.with(|w| w.net.trace(|| format!("controller {life} of run {} ends: {ended:?}", self.run)));
        }
        Ok(end)
    }

    fn options(&mut self, life: u64, abort: bool) -> Options {
        let red = self.red.iter().filter(|(_, lives)| **lives >= self.lives).map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        // A disk that filled up meanwhile, which somebody clears before the next controller.
        let red_again = self.lives < CALM && self.rng.chance(1500);
        let steps = || self.plan.platforms.iter().flat_map(|platform| platform.steps());
        let gates: Vec<String> = steps().filter_map(|step| gate(step).cloned()).collect();
        let hosts = steps().map(|step| step.host.clone()).collect::<BTreeSet<_>>();
        let host = HostOptions { host_state: "/s".into(), root: false, run_as: RunAs::Login, secrets: BTreeMap::new() };
        let confirmed = gates.into_iter().filter(|_| self.rng.chance(6000)).map(|gate| (gate, "seen".to_owned())).collect();
        Options {
            command: if self.lives == 1 { "migrate" } else { "resume" }.into(),
            run: self.run.clone(),
            claim: Claim {
                seat: self.run.clone(),
                controller: format!("{}-{life}", self.run),
                operator: "op".into(),
                take_over: self.take_over.then(|| "wanted".to_owned()),
                succeeds: None,
            },
            bounds: self.bounds(),
            limit_text: None,
            hosts: hosts.into_iter().map(|name| (name, host.clone())).collect(),
            files: HashMap::new(),
            dir: "/nonexistent".into(),
            confirmed,
            accepted: BTreeMap::new(),
            patience: Duration::from_secs(self.rng.between(20, 300)),
            abort: abort.then(|| "kept out".to_owned()),
            again: Box::new(questions),
            judge: Box::new(move |platform, occasion, readings| {
                let red = match occasion {
                    Occasion::Phase(_) => red.contains(platform),
                    Occasion::Again { .. } => red_again,
                };
                findings(platform, red, readings)
            }),
            reader: Box::new(|_, _, _| Vec::new()),
            clock: controller::run::touch::Clock::default(),
            asker: None,
        }
    }
}

/// What hosts with something left to do are asked when a run is taken up again.
fn questions(_: &str, left: &[&PlannedStep]) -> BTreeMap<String, Vec<Query>> {
    left.iter().filter(|step| gate(step).is_none()).map(|step| (step.host.clone(), vec![Query::System])).collect()
}

fn gate(step: &PlannedStep) -> Option<&String> {
    match &step.spec.action {
        Action::Gate { gate, .. } => Some(gate),
        _ => None,
    }
}

fn findings(platform: &str, red: bool, readings: &BTreeMap<String, HostReading>) -> Vec<Finding> {
    let finding = |check: &str, host: Option<&String>, status| Finding {
        id: format!("{check}@{}", host.map_or(platform, |host| host)),
        check: check.into(),
        when: None,
        platform: platform.into(),
        host: host.cloned(),
        instance: None,
        status,
        message: String::new(),
        evidence: String::new(),
        remedy: String::new(),
        overridden: None,
    };
    let mut findings = vec![finding("platform", None, if red { Status::Failure } else { Status::Ok })];
    for (host, reading) in readings {
        let status = if matches!(reading, HostReading::Read(_)) { Status::Ok } else { Status::Unknown };
        findings.push(finding("host", Some(host), status));
    }
    findings
}

/// The operator at the keyboard while a controller works. Never comes back.
async fn sit(world: World, run: String, mut rng: Rng, commands: mpsc::Sender<Command>, bad: Bad) {
    while world.with(|w| w.net.luck.strikes(|faults| faults.signal)) {
        let wait = rng.skewed(10, 300_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let (operator, reason) = ("op".to_owned(), "wanted".to_owned());
        let seen = bad.lock().ok().and_then(|bad| bad.first().cloned());
        let signal = match (rng.below(20), seen) {
            (0, _) => Signal::Abort { operator, reason },
            (1..6, _) => Signal::Detach,
            (6..12, Some(step)) => {
                let what = Truth::Decided { run: run.clone(), step: StepId(step.clone()), what: Decision::Retry };
                world.with(|w| w.net.saw(what));
                Signal::Retry { step, operator, reason }
            }
            _ => Signal::Pause { operator },
        };
        world.with(|w| w.net.trace(|| format!("the operator of run {run} wants {signal:?}")));
        let _ = commands.send(signal.into()).await;
    }
    std::future::pending().await
}
