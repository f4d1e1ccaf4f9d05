//! `lab`: one binary for the lab and for all its stand-ins.

mod caravan;
mod demo;
mod doctor;
mod either;
mod fault;
mod point;
mod sweep;
mod up;
mod verdict;
mod victim;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A fleet of stand-in Campaign hosts behind real SSH servers, to try Caravan on.
#[derive(Parser)]
#[command(name = "lab", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds a fleet, starts it and keeps it until Ctrl-C.
    Up(up::UpArgs),
    /// Ends what an `up` that was killed has left running. The directory stays.
    Down(up::DownArgs),
    /// Says which tiers of the lab can run here, and what is missing.
    Doctor(doctor::DoctorArgs),
    /// Does something to a host of a realistic fleet, or takes it back.
    Fault(fault::FaultArgs),
    /// Shows the whole job on a fleet with one platform of every topology.
    Demo(demo::DemoArgs),
    /// Migrates small fleets and ends the controller, a supervisor or a connection at every moment in turn; each run has to go on and end
    /// well, by the hosts' own records.
    Sweep(sweep::SweepArgs),
    /// Runs `caravan` with these arguments.
    #[command(hide = true)]
    Caravan(caravan::CaravanArgs),
    /// Runs `caravan` and ends it at an exact moment.
    #[command(hide = true)]
    Victim(victim::VictimArgs),
}

fn main() -> ExitCode {
    // Before anything else: stand-ins are started many times and must be quick.
    if let Some(code) = lab::run_standin() {
        return code;
    }
    let done = match Cli::parse().command {
        Command::Up(args) => up::up(&args),
        Command::Down(args) => up::down(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Fault(args) => fault::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Caravan(args) => return caravan::run(args),
        Command::Victim(args) => return victim::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // A reader that has gone away is no reason to panic.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("lab: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
