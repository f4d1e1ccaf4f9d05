//! `caravan passwords`: the `internal` password, which must be the same on all tracking servers.

mod proof;
mod typed;

pub use proof::{PasswordsCheckArgs, ProofBy, check};
pub use typed::PasswordArg;

/// The `internal` password.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordsArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: PasswordsCommand,
}

/// What can be done with the `internal` password.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum PasswordsCommand {
    /// Proves whether it is set and identical across the tracking servers. Changes nothing; no value leaves its host.
    Check(PasswordsCheckArgs),
}
