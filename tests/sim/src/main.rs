//! Runs many histories, on all cores, and says which seed failed.

use clap::Parser;
use sim::{Plant, Setup, Tally};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Random histories of the engine over simulated hosts.
#[derive(Debug, Parser)]
#[command(name = "sim", max_term_width = 110)]
struct Cli {
    /// How many histories. Their seeds follow each other.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    histories: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Tells what happens in the history of the seed, and runs no other.
    #[arg(long)]
    trace: bool,
    /// Plants a bug, to see that it is found.
    #[arg(long, value_parser = plant, value_name = "BUG")]
    plant: Option<Plant>,
    /// Goes on after a failure.
    #[arg(long)]
    all: bool,
    /// On how many threads.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn plant(name: &str) -> Result<Plant, String> {
    let names = || Plant::ALL.map(|(name, _)| name).join(", ");
    Plant::ALL.iter().find(|(known, _)| *known == name).map(|(_, plant)| *plant).ok_or_else(|| format!("one of {}", names()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let setup = Setup { plant: cli.plant, trace: cli.trace };
    let histories = if cli.trace { 1 } else { cli.histories };
    let threads =
        cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).min(histories as usize);
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new((Tally::default(), Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= histories {
                        break;
                    }
                    let seed = cli.seed.wrapping_add(number);
                    match sim::run(seed, setup) {
                        Ok(one) => tally.add(one),
                        Err(why) => {
                            over.store(!cli.all, Ordering::Relaxed);
                            total.lock().unwrap_or_else(PoisonError::into_inner).1.push((seed, why));
                        }
                    }
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).0.add(tally);
            });
        }
    });
    let (tally, mut failures) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = began.elapsed().as_secs_f64();
    let rate = tally.histories as f64 / seconds;
    println!("{} histories in {seconds:.1} s ({rate:.0} a second on {threads} threads)", tally.histories);
    println!("{tally:?}");
    failures.sort();
    for (seed, why) in &failures {
        println!("seed {seed}: {why}");
    }
    match failures.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            println!("{} violations; the first again, told in full: --seed {seed} --trace", failures.len());
            ExitCode::FAILURE
        }
    }
}
