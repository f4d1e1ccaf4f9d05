//! `lab fault`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use lab::real::{RealHost, hosts_in};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `lab fault` is told.
#[derive(Args)]
pub(crate) struct FaultArgs {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
    #[command(subcommand)]
    fault: Fault,
}

#[derive(Subcommand)]
enum Fault {
    /// Pulls the network cable.
    Cut,
    /// Kills the processes that serve its SSH connections. What they ran goes on.
    Drop,
    /// Stops every process; the kernel still acknowledges what arrives.
    Freeze,
    /// Lets the processes go on.
    Thaw,
    /// Leaves no room on the host's disk, on which everything is but the Campaign installation.
    FullDisk,
    /// Loses this many of a hundred packets, in both directions.
    Loss {
        /// 0 to 100.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
    },
    /// Lets no more through than this, in both directions.
    Slow {
        /// As `tc` writes it: 256kbit.
        rate: String,
    },
    /// Takes every fault back.
    Heal,
}

pub(crate) fn run(args: &FaultArgs) -> anyhow::Result<ExitCode> {
    let hosts = hosts_in(&args.dir)?.with_context(|| format!("{} holds no realistic lab", args.dir.display()))?;
    let names = || hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    let host = hosts.iter().find(|host| host.name == args.host);
    let host = host.with_context(|| format!("the lab has no host {}; there are: {}", args.host, names()))?;
    anyhow::ensure!(host.is_up(), "{} does not run", host.name);
    apply(host, &args.fault)?;
    Ok(ExitCode::SUCCESS)
}

fn apply(host: &RealHost, fault: &Fault) -> std::io::Result<()> {
    match fault {
        Fault::Cut => host.cut(),
        Fault::Freeze => {
            host.freeze();
            Ok(())
        }
        Fault::Thaw => {
            host.thaw();
            Ok(())
        }
        Fault::Drop => {
            host.end_sessions();
            Ok(())
        }
        Fault::FullDisk => host.fill_disk(),
        Fault::Loss { percent } => host.lose(*percent),
        Fault::Slow { rate } => host.slow(rate),
        Fault::Heal => host.heal(),
    }
}
