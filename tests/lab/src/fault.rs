//! `lab fault`.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use lab::real::{RealHost, hosts_in};
use lab::{Layout, Order};
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
    /// Pulls the network cable. A stand-in host's connections are cut, and new ones refused.
    Cut,
    /// Kills the processes that serve its SSH connections. What they ran goes on.
    Drop,
    /// Stops every process; the kernel still acknowledges what arrives (realistic hosts only, as what follows).
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
    let Some(hosts) = hosts_in(&args.dir)? else { return on_stand_in(args) };
    let host = hosts.iter().find(|host| host.name == args.host);
    let host = host.with_context(|| unknown(&args.host, hosts.iter().map(|host| host.name.as_str())))?;
    anyhow::ensure!(host.is_up(), "{} does not run", host.name);
    apply(host, &args.fault)?;
    Ok(ExitCode::SUCCESS)
}

fn on_stand_in(args: &FaultArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::read(&args.dir)?;
    let host = layout.host(&args.host).map(|(_, host)| host);
    let host = host.with_context(|| unknown(&args.host, layout.hosts().map(|host| host.name.as_str())))?;
    let order = match args.fault {
        Fault::Cut => Order::Cut,
        Fault::Drop => Order::Drop,
        Fault::Heal => Order::Heal,
        _ => anyhow::bail!(
            "{} is a stand-in, without a network, processes and a disk of its own: it knows cut, drop and heal, the others are for \
             realistic hosts (`lab up --real`)",
            host.name
        ),
    };
    order.give(host)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown<'a>(name: &str, hosts: impl Iterator<Item = &'a str>) -> String {
    format!("the lab has no host {name}; there are: {}", hosts.collect::<Vec<_>>().join(", "))
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
