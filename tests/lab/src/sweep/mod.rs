//! `lab sweep`: migrates small fleets over and over, disturbs each migration at another place, and has the hosts' own records say
//! whether it ended as an undisturbed one does.

mod case;
mod fleets;
mod judge;
mod queue;
mod site;
mod table;

pub(crate) use case::Kind;

use crate::point::Point;
use crate::victim::When;
use anyhow::Context as _;
use case::{Case, Clean};
use clap::Args;
use fleets::{Migration, Source, Tier};
use lab::Topology;
use queue::Queue;
use site::Program;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What `lab sweep` is told.
#[derive(Args)]
pub(crate) struct SweepArgs {
    /// These topologies only.
    #[arg(long, value_name = "TOPOLOGY", value_parser = fleets::topology)]
    topology: Vec<Topology>,
    /// From these versions only. Without it and `--topology`: every topology from v6.1, and a standard platform from v5.11 and from v7.
    #[arg(long, value_enum, value_name = "VERSION")]
    source: Vec<Source>,
    /// These disturbances only.
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// This place only.
    #[arg(long, value_name = "KIND[:STEP]")]
    at: Option<Point>,
    /// This moment only (for `--kind kill`).
    #[arg(long, value_enum)]
    when: Option<When>,
    /// Real OpenSSH servers on all hosts; otherwise every second case of `--kind cut` has them, where OpenSSH is installed.
    #[arg(long)]
    openssh: bool,
    /// Realistic hosts, for root: a standard platform from v6.1 when nothing else is asked for.
    #[arg(long, conflicts_with = "openssh")]
    real: bool,
    /// So many cases, drawn by the seed: as many of each disturbance of each migration.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// What the sample is drawn by: any text, such as a commit's id.
    #[arg(long, value_name = "TEXT", default_value = "")]
    seed: String,
    /// Begin no case after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// So many cases at once; two for each processor when left out.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// How often a case is played until its moment comes: what shares a write is not the same in each run, and a step can be over before its
/// runner is brought to a halt.
const TRIES: u32 = 3;
/// How much of what is wrong with one run is shown: the first words say most.
const SHOWN: usize = 6;

/// Prints a line; a reader that has gone away is no reason to leave fleets behind.
macro_rules! line {
    ($($text:tt)*) => { drop(writeln!(std::io::stdout(), $($text)*)) };
}

pub(crate) fn run(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let program = Program::near(&standin()?)?;
    let standin = program.path();
    anyhow::ensure!(args.real || !args.kind.contains(&Kind::Silent), "`--kind silent` pulls a cable: only `--real` hosts have one");
    let tier = if args.real { Tier::Real } else { Tier::StandIns };
    let clean = record(&Migration::chosen(&args.topology, &args.source, tier), tier, &standin)?;
    let cases = choose(args, &clean);
    anyhow::ensure!(!cases.is_empty(), "nothing to do: no such migration comes to such a place");
    let jobs = args.jobs.unwrap_or_else(|| 2 * std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    line!(
        "{} places, {jobs} at once. An undisturbed one of each migration took {:.1} s in all.",
        cases.len(),
        begun.elapsed().as_secs_f32()
    );
    let deadline = args.within.map(|seconds| begun + Duration::from_secs(seconds));
    let queue = Mutex::new(Queue::new(cases, deadline));
    let table = Mutex::new(table::Table::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&queue, &table, &clean, &standin));
        }
    });
    let (queue, table) = (locked(queue), locked(table));
    line!("\n{table}");
    for case in table.missed() {
        line!("Its moment did not come in {TRIES} runs: {case}");
    }
    if queue.left() > 0 {
        line!("{} places were not begun within the time.", queue.left());
    }
    line!("{:.0} s in all.", begun.elapsed().as_secs_f32());
    for (case, wrong, kept) in table.wrong() {
        line!("\n✗ {case}");
        wrong.iter().take(SHOWN).for_each(|text| line!("    {text}"));
        if wrong.len() > SHOWN {
            line!("    ... and {} more that follow from it, most likely", wrong.len() - SHOWN);
        }
        if let Some(kept) = kept {
            line!("  its fleet: {}", kept.display());
        }
        line!("  again: {}", case.replay());
    }
    Ok(if table.wrong().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn locked<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes one case after the other until there is none.
fn work(queue: &Mutex<Queue>, table: &Mutex<table::Table>, clean: &BTreeMap<Migration, Clean>, standin: &Path) {
    loop {
        let Some(case) = held(queue).next() else { return };
        let Some(clean) = clean.get(&case.migration) else { return };
        let play = || {
            case::play(&case, clean, standin).unwrap_or_else(|error| {
                // The harness itself failed: that is no proof of anything, and counts as wrong.
                case::Result { wrong: vec![format!("it could not be played: {error:#}")], ..case::Result::default() }
            })
        };
        let mut result = play();
        for _ in 1..TRIES {
            if result.hit || !result.wrong.is_empty() {
                break;
            }
            result = play();
        }
        let mut queue = held(queue);
        queue.covered(&case, &result.covered);
        let (number, left) = (queue.taken(), queue.left());
        drop(queue);
        let word = match () {
            () if !result.wrong.is_empty() => "WRONG ",
            () if !result.hit => "missed",
            () => "ok    ",
        };
        let also = result.covered.len().saturating_sub(1);
        let also = if also > 0 { format!(", {also} more places in the same write") } else { String::new() };
        line!("{word} {number:4} (+{left:4})  {case}  {:.1} s{also}", result.took.as_secs_f32());
        held(table).enter(case, result);
    }
}

/// An undisturbed run of each migration.
fn record(migrations: &[Migration], tier: Tier, standin: &Path) -> anyhow::Result<BTreeMap<Migration, Clean>> {
    std::thread::scope(|scope| {
        let runs = migrations.iter().map(|migration| (*migration, scope.spawn(move || Clean::record(*migration, tier, standin))));
        let runs: Vec<_> = runs.collect();
        let ended = runs.into_iter().map(|(migration, run)| {
            let clean = run.join().unwrap_or_else(|_| Err(anyhow::anyhow!("an undisturbed migration panicked")));
            Ok((migration, clean?))
        });
        ended.collect()
    })
}

/// The cases that were asked for.
fn choose(args: &SweepArgs, clean: &BTreeMap<Migration, Clean>) -> Vec<Case> {
    // A connection that goes silent takes a minute, and a cable to pull.
    let wanted = |kind: Kind| args.kind.contains(&kind) || (args.kind.is_empty() && (args.real || kind != Kind::Silent));
    let mut cases = Vec::new();
    for (migration, clean) in clean {
        if wanted(Kind::Kill) {
            cases.extend(queue::kills(*migration, clean, args.when));
        }
        if wanted(Kind::Torn) {
            cases.extend(queue::torn(*migration, clean));
        }
        for kind in [Kind::Supervisor, Kind::Cut, Kind::Silent] {
            if wanted(kind) {
                cases.extend(queue::strikes(*migration, clean, kind));
            }
        }
    }
    cases.retain(|case| args.at.as_ref().is_none_or(|at| *at == case.point));
    let there = lab::openssh_is_installed();
    if !args.real && !there && cases.iter().any(|case| case.tier == Tier::OpenSsh) {
        line!("OpenSSH's server is not installed: only the lab's own servers are cut.");
    }
    for case in &mut cases {
        case.tier = match case.tier {
            _ if args.real => Tier::Real,
            _ if args.openssh => Tier::OpenSsh,
            // A replay is with the servers that it is told to have.
            Tier::OpenSsh if there && args.at.is_none() => Tier::OpenSsh,
            _ => Tier::StandIns,
        };
    }
    match args.sample {
        Some(count) => queue::sample(cases, count, &args.seed),
        None => cases,
    }
}

/// The program that stands in for everything of Campaign: a small one of its own, which cargo builds where it runs this one, and which
/// otherwise may lie beside it; else this one, which does the same and is ten times as large.
fn standin() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let Some(profile) = own.parent() else { return Ok(own) };
    let small = profile.join("standin");
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(if small.is_file() { small } else { own }) };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "lab", "--bin", "standin"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    anyhow::ensure!(build.status().context("cannot run cargo")?.success(), "the stand-ins do not build");
    Ok(small)
}
