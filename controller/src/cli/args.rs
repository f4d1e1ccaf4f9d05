//! What can be typed.

use super::{Context, Exit, Failure, Format};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::LazyLock;

/// The inventory that is read when none is named.
pub(super) const INVENTORY: &str = "fleet.yaml";

/// With what identifies the agents: who builds them again can compare.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let agents = crate::ssh::AGENTS.iter();
    agents.fold(env!("CARGO_PKG_VERSION").to_owned(), |text, agent| {
        format!("{text}\nagent for {}: SHA-256 {}\n  made by {}", agent.system, agent.sha256, agent.made_by)
    })
});

/// Migrates whole fleets of Adobe Campaign Classic servers to v7 from one workstation.
///
/// Exit codes: 0 all well · 1 a step or check failed or is unknown · 2 wrong usage or inventory · 3 a host could not be reached or
/// authenticated · 4 another operator holds the lock · 5 waits for a person · 6 a saved plan was refused, since the fleet moved ·
/// 7 internal or state error · 130 detached.
#[derive(Debug, Parser)]
#[command(name = "caravan", version, long_version = LONG_VERSION.as_str(), max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// The inventory.
    #[arg(short, long, global = true, env = "CARAVAN_INVENTORY", value_name = "FILE", default_value = INVENTORY)]
    pub inventory: PathBuf,
    /// Where runs are kept [default: $XDG_STATE_HOME/caravan or ~/.local/state/caravan].
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How data is printed: text or json; `report`: markdown or json.
    #[arg(long, global = true, value_enum)]
    pub format: Option<OutputFormat>,
    /// Say more (-vv: much more).
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub color: Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Formats that some command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// A report for a change board (`report` alone).
    Markdown,
    /// A report as one page (`report` alone; not in this version).
    Html,
    /// A report for build servers (`report` alone; not in this version).
    Junit,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a commented inventory, ready to edit.
    Init(super::init::InitArgs),
    /// Validates, lists and describes the inventory, offline.
    Inventory(super::inventory::InventoryArgs),
    /// Shows the ordered plan of a migration, offline, or saves it with the facts it rests on.
    Plan(super::plan::PlanArgs),
    /// The host keys of the fleet.
    Hosts(super::hosts::HostsArgs),
    /// Looks at every prerequisite on every host, and changes nothing.
    Check(super::check::CheckArgs),
    /// The `internal` passwords of the servers.
    Passwords(super::passwords::PasswordsArgs),
    /// Runs one ad-hoc command on hosts.
    Exec(super::exec::ExecArgs),
    /// Migrates the fleet in the mandated order.
    Migrate(super::migrate::MigrateArgs),
    /// Takes a run up again after a crash, a mended failure or a pause.
    Resume(super::resume::ResumeArgs),
    /// Pauses a run: what has not begun is taken back, what runs may end.
    Pause(super::pause::PauseArgs),
    /// Ends a run for good: as `pause`, and its hosts are free for other runs.
    Abort(super::pause::AbortArgs),
    /// Has a failed or unknown step started again.
    Retry(super::decide::RetryArgs),
    /// Has a failed or unknown step not carried out: its probe alone decides.
    Skip(super::decide::SkipArgs),
    /// Shows a run as it goes on, from another terminal.
    Attach(super::attach::AttachArgs),
    /// Undoes what a run did, in reverse order, from the backups.
    Rollback(super::rollback::RollbackArgs),
    /// Removes what a run that is over left on its hosts; after that it cannot be rolled back by Caravan. After a second confirmation
    /// also the trees that were kept to go back.
    Cleanup(super::cleanup::CleanupArgs),
    /// Shows where a run stands.
    Status(super::status::StatusArgs),
    /// Lists the runs there were.
    Runs(super::runs::RunsArgs),
    /// Prints the record of a run, for the change board.
    Report(super::report::ReportArgs),
    /// Prints completions for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page.
    Man,
}

impl Cli {
    /// What every command knows, with the format it was given.
    ///
    /// # Errors
    /// There is no place for the state directory, or the format is one of a report.
    pub fn context_of(&self, format: Option<OutputFormat>) -> Result<Context, Failure> {
        let state_dir = match &self.state_dir {
            Some(dir) => dir.clone(),
            None => default_state_dir()?,
        };
        let format = match format {
            None | Some(OutputFormat::Text) => Format::Text,
            Some(OutputFormat::Json) => Format::Json,
            Some(OutputFormat::Markdown | OutputFormat::Html | OutputFormat::Junit) => {
                return Err(Failure::new(Exit::Usage, "error: that `--format` goes with `report` alone; here: text, json"));
            }
        };
        Ok(Context {
            inventory: self.inventory.clone(),
            state_dir,
            format,
            color: (self.colored(&std::io::stdout()), self.colored(&std::io::stderr())),
            verbosity: if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(i8::MAX) },
        })
    }

    /// Whether what goes to this stream is coloured.
    pub(super) fn colored(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

pub(super) fn default_state_dir() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(dir) = absolute("XDG_STATE_HOME") {
        return Ok(dir.join("caravan"));
    }
    absolute("HOME").map(|home| home.join(".local/state/caravan")).ok_or_else(|| {
        Failure::new(Exit::Internal, "error: neither XDG_STATE_HOME nor HOME says where runs can be kept; give --state-dir DIR")
    })
}
