//! `caravan passwords`: the `internal` password, which must be the same on all tracking servers.

mod proof;
mod set;
mod typed;

pub use proof::{PasswordsCheckArgs, ProofBy, check};
pub use set::PasswordsSetArgs;
pub(crate) use set::{ask_again, set};
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
    /// Sets it on all Campaign servers of a platform, by the vendor's own command, and proves it.
    Set(PasswordsSetArgs),
}
