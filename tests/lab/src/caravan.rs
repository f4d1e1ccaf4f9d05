//! The product, as the lab runs it.

use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

/// What `lab caravan` is told.
#[derive(Args)]
pub(crate) struct CaravanArgs {
    /// Arguments of `caravan`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs Caravan itself: the same code as the `caravan` program.
pub(crate) fn run(args: CaravanArgs) -> ExitCode {
    ExitCode::from(controller::cli::main(std::iter::once("caravan".into()).chain(args.arguments)))
}

/// Caravan with an inventory and a place for its state.
#[derive(Debug)]
pub(crate) struct Caravan {
    /// The program and what stands before Caravan's own arguments.
    start: Vec<OsString>,
    inventory: PathBuf,
    state: PathBuf,
}

impl Caravan {
    /// The given program, or the one that this binary carries.
    pub(crate) fn new(program: Option<&Path>, inventory: PathBuf, state: PathBuf) -> std::io::Result<Self> {
        let start = match program {
            Some(program) => vec![program.as_os_str().to_owned()],
            None => vec![std::env::current_exe()?.into_os_string(), "caravan".into(), "--".into()],
        };
        Ok(Self { start, inventory, state })
    }

    fn command(&self, arguments: &[String]) -> Command {
        let mut parts = self.start.iter();
        let mut command = Command::new(parts.next().map_or("caravan".as_ref(), OsString::as_os_str));
        command.args(parts).arg("-i").arg(&self.inventory).arg("--state-dir").arg(&self.state).args(arguments);
        command
    }

    /// Runs a command before the eyes of whoever watches. Gives the exit code; -1 when a signal ended it.
    pub(crate) fn show(&self, arguments: &[String]) -> std::io::Result<i32> {
        Ok(self.command(arguments).stdin(Stdio::null()).status()?.code().unwrap_or(-1))
    }

    /// Runs a command and keeps what it prints.
    pub(crate) fn ask(&self, arguments: &[String]) -> std::io::Result<Output> {
        self.command(arguments).stdin(Stdio::null()).output()
    }
}
