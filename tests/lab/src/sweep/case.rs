//! One case: a fresh fleet, a migration, one disturbance, and how it ended.

use super::fleets::{Migration, Tier};
use super::judge::{Done, done, judge};
use super::site::{Ended, Site};
use crate::point::Point;
use crate::victim::{When, notes};
use anyhow::Context as _;
use controller::run::store::Store;
use lab::Host;
use lab::agent::{Journals, bridge, stop_runner, supervisor};
use proto::event::Kind as EventKind;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a run may be resumed before that counts as wrong.
const RESUMES: u32 = 3;
/// How long what follows from a disturbance may take to begin. A connection that nothing comes through is given up after a minute.
const FOLLOWS: Duration = Duration::from_secs(100);

/// What is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The controller is killed at a moment of its journal, and `resume` goes on.
    Kill,
    /// The controller is killed, and its last write is torn: some lines of it are there, and the next in part.
    Torn,
    /// The supervisor of a host is killed while a step runs.
    Supervisor,
    /// The connection of a host is cut while a step runs. On realistic hosts its cable is pulled, its sessions end, and the cable is put
    /// back.
    Cut,
    /// The cable of a realistic host is pulled while a step runs, and put back when the controller has given the connection up.
    Silent,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Torn => "torn",
            Self::Supervisor => "supervisor",
            Self::Cut => "cut",
            Self::Silent => "silent",
        }
    }
}

/// What is done to one run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Case {
    pub(super) migration: Migration,
    pub(super) kind: Kind,
    pub(super) point: Point,
    pub(super) when: When,
    pub(super) tier: Tier,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { migration, kind, point, when, tier } = self;
        write!(f, "{migration} {}", kind.as_str())?;
        match kind {
            Kind::Kill => write!(f, " {} {point}", when.as_str())?,
            Kind::Torn => write!(f, " in the write of {point}")?,
            Kind::Supervisor | Kind::Cut | Kind::Silent => write!(f, " in {}", point.subject)?,
        }
        f.write_str(match tier {
            Tier::StandIns => "",
            Tier::OpenSsh => " (OpenSSH)",
            Tier::Real => " (realistic hosts)",
        })
    }
}

impl Case {
    /// The command that does just this again.
    pub(super) fn replay(&self) -> String {
        let Self { migration, kind, point, when, tier } = self;
        let when = if *kind == Kind::Kill { format!(" --when {}", when.as_str()) } else { String::new() };
        let tier = match tier {
            Tier::StandIns => "",
            Tier::OpenSsh => " --openssh",
            Tier::Real => " --real",
        };
        let (options, kind) = (migration.options(), kind.as_str());
        format!("cargo run --release -p lab -- sweep {options} --kind {kind} --at {point}{when}{tier}")
    }
}

/// How a case ended.
#[derive(Debug, Default)]
pub(super) struct Result {
    /// The moment came, and the disturbance was made.
    pub(super) hit: bool,
    /// What the write in which the controller died held: killing it at any of these is the same case.
    pub(super) covered: Vec<Point>,
    /// How often the run had to be resumed.
    pub(super) resumes: u32,
    /// What was not as it should be.
    pub(super) wrong: Vec<String>,
    /// Where everything of it was left, when something was wrong.
    pub(super) kept: Option<PathBuf>,
    pub(super) took: Duration,
}

/// What an undisturbed migration does.
#[derive(Debug)]
pub(super) struct Clean {
    /// The events, each once, with the number of the write that holds the first of its kind.
    pub(super) moments: Vec<(u64, Point)>,
    /// The steps that agents carried out.
    pub(super) steps: BTreeSet<String>,
    /// What the hosts recorded.
    pub(super) done: Done,
}

impl Clean {
    /// Migrates a fleet, and notes everything down.
    pub(super) fn record(migration: Migration, tier: Tier, standin: &Path) -> anyhow::Result<Self> {
        let site = Site::new(migration, tier, standin)?;
        let mode = ["victim".to_owned(), "--note".to_owned(), site.note().display().to_string()];
        let ended = site.wait(site.start(&mode, &site.migrate())?)?;
        let clean = Self {
            moments: moments(&site)?,
            steps: Journals::all(&site.fleet().layout()).into_keys().collect(),
            done: done(site.fleet())?,
        };
        let mut wrong = judge(&site, &clean.done)?;
        if ended != Ended::Code(0) {
            wrong.push(format!("it ended with {ended}"));
        }
        if !wrong.is_empty() {
            let kept = site.keep();
            anyhow::bail!("an undisturbed migration of {migration} is not well ({}): {}", kept.display(), wrong.join("; "));
        }
        Ok(clean)
    }
}

fn moments(site: &Site) -> anyhow::Result<Vec<(u64, Point)>> {
    let text = std::fs::read_to_string(site.note()).context("the victim noted nothing")?;
    let mut first: BTreeMap<Point, u64> = BTreeMap::new();
    notes(&text).for_each(|(write, point)| {
        first.entry(point).or_insert(write);
    });
    Ok(first.into_iter().map(|(point, write)| (write, point)).collect())
}

/// Plays a case.
pub(super) fn play(case: &Case, clean: &Clean, standin: &Path) -> anyhow::Result<Result> {
    let begun = Instant::now();
    let site = Site::new(case.migration, case.tier, standin)?;
    let mut result = Result::default();
    match case.kind {
        Kind::Kill | Kind::Torn => kill(case, &site, &mut result)?,
        Kind::Supervisor | Kind::Cut | Kind::Silent => disturb(case, &site, &mut result)?,
    }
    result.wrong.extend(judge(&site, &clean.done)?);
    if !result.wrong.is_empty() {
        result.kept = Some(site.keep());
    }
    result.took = begun.elapsed();
    Ok(result)
}

fn kill(case: &Case, site: &Site, result: &mut Result) -> anyhow::Result<()> {
    let note = site.note().display().to_string();
    let mode = ["victim", "--at", &case.point.to_string(), "--when", case.when.as_str(), "--note", &note].map(str::to_owned);
    let ended = site.wait(site.start(&mode, &site.migrate())?)?;
    match ended {
        Ended::Signal(signal) if signal == Signal::KILL.as_raw() => {
            result.hit = true;
            result.covered = notes(&std::fs::read_to_string(site.note())?).map(|(_, point)| point).collect();
            if case.kind == Kind::Torn {
                result.hit = tear(site, result.covered.len())?;
            }
            match never_began(site)? {
                true => begin_anew(site, result)?,
                false => go_on(site, result)?,
            }
        }
        // The moment did not come: not every step makes output every time.
        Ended::Code(0) => {}
        ended => result.wrong.push(format!("the controller that was to be killed ended with {ended}")),
    }
    Ok(())
}

/// Leaves the journal as a power loss in the middle of its last write may: without the last of its lines, or with the first alone, and
/// with half of the line that comes then. Whether there was something to tear.
fn tear(site: &Site, lines: usize) -> anyhow::Result<bool> {
    let path = Store::new(&site.state()).find(None)?.path.join("journal.jsonl");
    let bytes = std::fs::read(&path)?;
    let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let whole = if bytes.len() % 2 == 0 { 1 } else { lines.saturating_sub(1) };
    let Some(start) = (ends.len() + whole).checked_sub(lines + 1).and_then(|at| ends.get(at)).copied() else { return Ok(false) };
    let rest = ends.iter().find(|end| **end > start).map_or(0, |end| end - start);
    std::fs::File::options().write(true).open(&path)?.set_len((start + rest / 2) as u64)?;
    Ok(rest > 0)
}

/// Whether the controller died before the first line of its record was durable.
fn never_began(site: &Site) -> anyhow::Result<bool> {
    Ok(Store::new(&site.state()).find(None)?.events()?.is_empty())
}

/// A run that never began has done nothing and cannot be resumed, which `resume` has to say; a new one does the job.
fn begin_anew(site: &Site, result: &mut Result) -> anyhow::Result<()> {
    let layout = site.fleet().layout();
    let touched: Vec<&str> = layout.hosts().filter(|host| host.host_state().exists()).map(|host| host.name.as_str()).collect();
    if !touched.is_empty() || !done(site.fleet())?.is_empty() {
        result.wrong.push(format!("before the run began something was done already; Caravan was on: {}", touched.join(", ")));
    }
    let (resumed, migrated) = (site.caravan(&site.resume())?, site.caravan(&site.migrate())?);
    if resumed != Ended::Code(2) {
        result.wrong.push(format!("`resume` of a run that never began ended with {resumed}, not with exit code 2"));
    }
    if migrated != Ended::Code(0) {
        result.wrong.push(format!("the `migrate` after a run that never began ended with {migrated}"));
    }
    Ok(())
}

/// Resumes until the run has ended well.
fn go_on(site: &Site, result: &mut Result) -> anyhow::Result<()> {
    let mut ends = Vec::new();
    while result.resumes < RESUMES {
        result.resumes += 1;
        match site.caravan(&site.resume())? {
            Ended::Code(0) => return Ok(()),
            ended => ends.push(ended.to_string()),
        }
    }
    result.wrong.push(format!("`resume` did not bring it to its end: {}", ends.join(", ")));
    Ok(())
}

/// Disturbs a run on a host while a step runs there; the controller has to go on by itself.
fn disturb(case: &Case, site: &Site, result: &mut Result) -> anyhow::Result<()> {
    let child = site.start(&["caravan".into()], &site.migrate())?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let migration = scope.spawn(move || site.wait(child));
        result.hit = if inspects(&case.point.subject) {
            cut_inspection(case, site, &|| migration.is_finished())
        } else {
            strike(case, site, &|| migration.is_finished())
        };
        match migration.join() {
            Ok(Ok(Ended::Code(0))) => {}
            // Cut before it was asked anything, a host counts as not reached, and nothing was begun anywhere.
            Ok(Ok(Ended::Code(3))) if inspects(&case.point.subject) => go_on(site, result)?,
            Ok(Ok(ended)) => result.wrong.push(format!("the controller ended with {ended}")),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => anyhow::bail!("waiting for the controller panicked"),
        }
        Ok(())
    })
}

/// Steps that the bridge answers itself: no supervisor knows them.
pub(super) fn inspects(step: &str) -> bool {
    matches!(step, "facts" | "fingerprint.internal-password")
}

/// Brings the step's runner to a halt, strikes, waits for what follows from it, and lets the step go on.
fn strike(case: &Case, site: &Site, is_over: &dyn Fn() -> bool) -> bool {
    let mut journals = Journals::new(&site.fleet().layout());
    while !is_over() {
        let Some((host, pid)) = journals.begun(&case.point.subject) else {
            std::thread::sleep(Duration::from_micros(300));
            continue;
        };
        let Some(runner) = stop_runner(&host, pid) else { continue };
        let followed = match case.kind {
            Kind::Cut | Kind::Silent => cut(case, site, &host.name, is_over),
            _ => kill_supervisor(&host, is_over),
        };
        runner.signal(Signal::CONT);
        return followed;
    }
    false
}

/// Cuts a host's connections; whether the controller came back.
fn cut(case: &Case, site: &Site, host: &str, is_over: &dyn Fn() -> bool) -> bool {
    let severed = site.sever(host);
    let is_cut = match case.kind {
        Kind::Silent => {
            let given_up = severed.go_silent() && wait_for(is_over, || is_given_up(site, host));
            severed.mend() && given_up
        }
        _ => severed.cut(),
    };
    is_cut && wait_for(is_over, || severed.is_back())
}

/// Whether the controller has noted that it cannot reach a host.
fn is_given_up(site: &Site, host: &str) -> bool {
    let events = Store::new(&site.state()).find(None).and_then(|run| run.events()).unwrap_or_default();
    events.iter().any(|event| matches!(event.kind, EventKind::HostUnreachable { .. }) && event.scope.host.as_deref() == Some(host))
}

/// Kills a host's supervisor; whether another one took its place.
fn kill_supervisor(host: &Host, is_over: &dyn Fn() -> bool) -> bool {
    let Some(victim) = supervisor(host) else { return false };
    victim.signal(Signal::KILL) && wait_for(is_over, || supervisor(host).is_some_and(|next| next.pid != victim.pid))
}

fn wait_for(is_over: &dyn Fn() -> bool, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + FOLLOWS;
    while Instant::now() < until && !is_over() {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Cuts the connection of the host that is asked for its facts, once the agent is there.
fn cut_inspection(case: &Case, site: &Site, is_over: &dyn Fn() -> bool) -> bool {
    let (store, layout) = (Store::new(&site.state()), site.fleet().layout());
    let asked = || {
        let events = store.find(None).and_then(|run| run.events()).unwrap_or_default();
        let granted = events.into_iter().find(|event| {
            matches!(event.kind, EventKind::StepGranted { .. })
                && event.scope.step.as_deref().is_some_and(|id| id.ends_with(&case.point.subject))
        });
        granted.and_then(|event| event.scope.host)
    };
    let mut host = None;
    wait_for(is_over, || {
        host = host.take().or_else(asked);
        host.as_deref().and_then(|name| layout.host(name)).is_some_and(|(_, host)| bridge(host))
    });
    host.is_some_and(|host| cut(case, site, &host, is_over))
}
