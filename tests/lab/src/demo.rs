//! `lab demo`.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `lab demo` is told.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// The `caravan` program, instead of the one that is built in.
    #[arg(long, value_name = "PATH")]
    caravan: Option<PathBuf>,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{:?}", args.caravan)
}
