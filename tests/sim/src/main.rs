//! Runs many histories, on all cores, and says which seed failed.

use clap::Parser;
use sim::{Plant, Setup, Swept};
use std::process::ExitCode;
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
    let began = Instant::now();
    let Swept { tally, violations } = sim::sweep(cli.seed, histories, threads, setup, cli.all);
    let seconds = began.elapsed().as_secs_f64();
    let rate = tally.histories as f64 / seconds;
    println!("{} histories in {seconds:.1} s ({rate:.0} a second on {threads} threads)", tally.histories);
    println!("{tally:?}");
    for (seed, why) in &violations {
        println!("seed {seed}: {why}");
    }
    match violations.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            println!("{} violations; the first again, told in full: --seed {seed} --trace", violations.len());
            ExitCode::FAILURE
        }
    }
}
