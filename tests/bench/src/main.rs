//! Measures what Caravan costs beside what SSH itself costs: see the README beside this crate.
//!
//! Every measurement is a process of its own (this program again, with a hidden command), so that its CPU and memory can be told
//! apart from the bench's and from the server's.

mod agent;
mod cpu;
mod engine;
mod floor;
mod measure;
mod server;
mod site;
mod ssh;
mod table;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use measure::{Bench, Sample};
use site::Site;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures Caravan against the floor of what SSH itself costs.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many hosts.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100,200,500", value_parser = clap::value_parser!(u16).range(1..=5000))]
    hosts: Vec<u16>,
    /// How often each is measured; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_value = "w1,w2,w3")]
    workload: Vec<Workload>,
    /// Writes every measurement to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The account of the hosts that is logged in to (only root can choose one).
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The size of the embedded agent, and the memory of a live one.
    Agent,
    /// `caravan` itself.
    #[command(hide = true)]
    Caravan {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// A runbook of ten steps, or a push, by the engine.
    #[command(hide = true)]
    Engine {
        #[arg(long)]
        site: PathBuf,
        #[arg(long)]
        work: Workload,
    },
    /// The least that an SSH client has to do.
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        site: PathBuf,
        #[arg(long)]
        frames: usize,
        #[arg(long)]
        programs: bool,
    },
    /// `ssh HOST 'cat > f' < file`, or `scp`.
    #[command(hide = true)]
    Ssh {
        #[arg(long)]
        site: PathBuf,
        #[arg(long)]
        work: Workload,
        #[arg(long)]
        same_algorithms: bool,
    },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Workload {
    /// `exec -- true`.
    W1,
    /// Ten steps in three ordered groups.
    W2,
    /// A push of 1.5 MiB.
    W3,
    /// A push of 64 MiB, as large as the vendor's packages.
    W4,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::W1 => "w1",
            Self::W2 => "w2",
            Self::W3 => "w3",
            Self::W4 => "w4",
        })
    }
}

impl Workload {
    fn title(self) -> &'static str {
        match self {
            Self::W1 => "w1: exec -- true, agent warm",
            Self::W2 => "w2: ten steps in three ordered groups, agent warm",
            Self::W3 => "w3: push of 1.5 MiB that cannot be compressed, agent warm",
            Self::W4 => "w4: push of 64 MiB that cannot be compressed, agent warm",
        }
    }

    /// What is compared: Caravan first, then what it is held against.
    fn contenders(self) -> &'static [Contender] {
        match self {
            Self::W1 | Self::W2 => &[Contender::Caravan, Contender::Floor, Contender::FloorWithPrograms],
            Self::W3 => &[Contender::Caravan, Contender::SshCat, Contender::SshCatSame],
            Self::W4 => &[Contender::Caravan, Contender::Scp, Contender::ScpSame],
        }
    }
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contender {
    Caravan,
    /// The least that an SSH client has to do.
    Floor,
    /// The same, with the steps' programs run by a shell at the other end.
    FloorWithPrograms,
    /// OpenSSH's client as it comes.
    SshCat,
    /// OpenSSH's client with the algorithms that Caravan prefers.
    SshCatSame,
    /// `scp` as it comes.
    Scp,
    /// `scp` with the algorithms that Caravan prefers.
    ScpSame,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Caravan => "caravan",
            Self::Floor => "floor",
            Self::FloorWithPrograms => "floor with programs",
            Self::SshCat => "ssh cat",
            Self::SshCatSame => "ssh cat, our algorithms",
            Self::Scp => "scp",
            Self::ScpSame => "scp, our algorithms",
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Caravan { args }) => {
            let args = [OsString::from("caravan")].into_iter().chain(args.iter().cloned());
            Ok(ExitCode::from(controller::cli::main(args)))
        }
        Some(Command::Engine { site, work }) => engine::run(site, *work).map(ExitCode::from),
        Some(Command::Floor { site, frames, programs }) => floor::run(site, *frames, *programs).map(|()| ExitCode::SUCCESS),
        Some(Command::Ssh { site, work, same_algorithms }) => ssh::run(site, *work, *same_algorithms).map(|()| ExitCode::SUCCESS),
        Some(Command::Agent) => guarded(&cli, |_| agent::run(&cli)),
        None => guarded(&cli, run),
    }
}

/// Runs something that starts processes; whatever is left of them ends with it.
fn guarded(cli: &Cli, work: impl FnOnce(&Cli) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    if !server::installed() {
        bail!("nothing was measured");
    }
    cpu::adopt_orphans().context("cannot become the parent of orphans")?;
    cpu::clean_up_on_signals()?;
    let done = work(cli);
    let left = cpu::end_children();
    if left > 0 {
        eprintln!("warning: {left} processes were left over and were ended");
    }
    done.map(|()| ExitCode::SUCCESS)
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its figures mean nothing. Use `cargo run --release -p bench`");
    }
    let mut samples: Vec<Sample> = Vec::new();
    for hosts in &cli.hosts {
        let site = Site::new(usize::from(*hosts), cli.account.as_deref())?;
        for workload in &cli.workload {
            site.files().make_payload(*workload)?;
        }
        let bench = Bench::new(&site)?;
        bench.warm_up().context("warming the agents up")?;
        for workload in &cli.workload {
            let mut measured = Vec::new();
            for run in 0..cli.runs {
                // Whoever goes first finds other caches than who follows: they take turns.
                let mut order = workload.contenders().to_vec();
                let turn = usize::from(run) % order.len();
                order.rotate_left(turn);
                for contender in order {
                    eprintln!("{workload} {hosts} hosts, run {} of {}: {}", run + 1, cli.runs, contender.name());
                    measured.push(bench.measure(*workload, contender, run)?);
                }
            }
            print!("{}", table::render(*workload, usize::from(*hosts), &measured));
            samples.extend(measured);
        }
    }
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&samples)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
