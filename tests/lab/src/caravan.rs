//! The product, as the lab runs it.

use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What `lab caravan` is told.
#[derive(Args)]
pub(crate) struct CaravanArgs {
    /// Arguments of `caravan`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs `caravan` in the place of this process.
pub(crate) fn run(args: CaravanArgs) -> ExitCode {
    let beside = std::env::current_exe().map(|own| own.with_file_name("caravan"));
    let program = beside.ok().filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("caravan"));
    let error = Command::new(&program).args(args.arguments).exec();
    eprintln!("lab: cannot run {}: {error}", program.display());
    ExitCode::from(7)
}
