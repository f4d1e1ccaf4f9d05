//! `lab doctor`.

use clap::{Args, ValueEnum};
use lab::real::{can_run, diagnose};
use std::io::Write;
use std::process::ExitCode;

/// What `lab doctor` is told.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// For people, or for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Exit code 0 when realistic hosts can run here.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let found = diagnose();
    let well = can_run(&found);
    let mut out = std::io::stdout();
    match args.format {
        Format::Json => {
            let value = serde_json::json!({ "loopback": true, "realistic": well, "found": found });
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        }
        Format::Text => {
            writeln!(out, "Stand-in hosts on loopback addresses (`lab up`): they run everywhere, for every account.")?;
            let text = if well { "they can run here" } else { "they cannot run here" };
            writeln!(out, "Realistic hosts (`lab up --real`): {text}.")?;
            for diagnosis in &found {
                writeln!(out, "  {diagnosis}")?;
            }
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
