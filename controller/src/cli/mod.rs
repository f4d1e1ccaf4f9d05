//! The command line: what was typed, what is done about it, which code comes out.

pub use crate::exit::{Exit, Failure};

pub mod args;
pub mod attach;
pub mod check;
mod claim;
pub mod cleanup;
mod conditions;
pub mod control;
pub mod decide;
pub mod exec;
mod follow;
pub mod from_hosts;
mod history;
pub mod hosts;
pub mod init;
pub mod inventory;
mod judge;
pub mod migrate;
mod next;
mod page;
pub mod passwords;
pub mod pause;
mod pick;
pub mod plan;
pub mod remote;
pub mod report;
pub mod resume;
pub mod rollback;
pub mod runs;
pub mod saved;
mod screen;
mod site;
pub mod start;
pub mod status;
mod sudoers;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use site::Site;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// What every command knows.
#[derive(Debug, Clone)]
pub struct Context {
    /// The inventory file.
    pub inventory: PathBuf,
    /// Where runs are kept.
    pub state_dir: PathBuf,
    /// How data is printed.
    pub format: Format,
    /// Whether terminal output may have colour: standard output, standard error.
    pub color: (bool, bool),
    /// -1 quiet, 0 normal, 1.. verbose.
    pub verbosity: i8,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the program: arguments in (the first is the program's name), exit code out.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Ok.code() };
        }
    };
    init_logs(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say!("error: the runtime cannot be started: {error}");
            return Exit::Internal.code();
        }
    };
    let result = runtime.block_on(dispatch(&cli));
    // A question that still waits at the terminal must not hold the end up.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.code(),
        Err(failure) => {
            say!("{}", failure.message);
            failure.exit.code()
        }
    }
}

async fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    // A report has forms of its own; everywhere else `--format` means text or JSON.
    if let Command::Report(args) = &cli.command {
        return report::run(&cli.context_of(None)?, args, cli.format).await;
    }
    let context = cli.context_of(cli.format)?;
    match &cli.command {
        Command::Init(args) => init::run(&context, args).await,
        Command::Inventory(args) => inventory::run(&context, args).await,
        Command::Plan(args) => plan::run(&context, args).await,
        Command::Check(args) => {
            let site = Site::open(&context)?;
            let selected = site.select(args.on.as_deref())?;
            let databases = check::database_passwords(&site.fleet, &selected, &site.secrets).await;
            print(check::check(&context, args, &site.fleet, &selected, &site.hosts, &databases).await?)
        }
        Command::Passwords(passwords::PasswordsArgs { command: passwords::PasswordsCommand::Check(args) }) => {
            let site = Site::open(&context)?;
            let selected = site.select(args.on.as_deref())?;
            print(passwords::check(&context, args, &site.fleet, &selected, &site.hosts).await?)
        }
        Command::Passwords(passwords::PasswordsArgs { command: passwords::PasswordsCommand::Set(args) }) => {
            print(passwords::set(&context, args).await?)
        }
        Command::Hosts(hosts::HostsArgs { command: hosts::HostsCommand::Trust(args) }) => {
            let site = Site::open(&context)?;
            let selected = site.select(args.on.as_deref())?;
            hosts::trust(&context, args, &site.fleet, &selected, &site.hosts, &mut std::io::stdout()).await
        }
        Command::Exec(args) => {
            let site = Site::open(&context)?;
            let selected = site.select(args.on.as_deref())?;
            exec::exec(&context, args, &site.fleet, &selected, &site.hosts, &mut std::io::stdout(), &mut std::io::stderr()).await
        }
        Command::Migrate(args) => migrate::run(&context, args).await,
        Command::Resume(args) => resume::run(&context, args).await,
        Command::Pause(args) => pause::pause(&context, args).await,
        Command::Abort(args) => pause::abort(&context, args).await,
        Command::Retry(args) => decide::retry(&context, args).await,
        Command::Skip(args) => decide::skip(&context, args).await,
        Command::Attach(args) => attach::run(&context, args).await,
        Command::Rollback(args) => rollback::run(&context, args).await,
        Command::Cleanup(args) => cleanup::run(&context, args).await,
        Command::Status(args) => status::run(&context, args).await,
        Command::Runs(args) => runs::run(&context, args).await,
        Command::Report(args) => report::run(&context, args, cli.format).await,
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "caravan", &mut std::io::stdout());
            Ok(Exit::Ok)
        }
        Command::Man => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.map_err(|error| Failure::new(Exit::Internal, format!("error: {error}")))?;
            print(check::Outcome { text: String::from_utf8_lossy(&page).into_owned(), exit: Exit::Ok })
        }
    }
}

/// Prints a command's data.
fn print(outcome: check::Outcome) -> Result<Exit, Failure> {
    let mut text = outcome.text;
    if text.is_empty() {
        return Ok(outcome.exit);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    // A reader that went away (`| head`) changes nothing about how the command ended.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("error: standard output: {error}")))
        }
        _ => Ok(outcome.exit),
    }
}

/// Logs go to standard error: warnings always, more with `-v`.
fn init_logs(cli: &Cli) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::prelude::*;
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // The SSH library's own chatter would drown ours.
    let targets = Targets::new().with_default(level).with_target("russh", LevelFilter::ERROR);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(cli.colored(&std::io::stderr()))
        .with_target(false)
        .without_time();
    // A second call in one process (the lab) keeps the first logger.
    let _ = tracing_subscriber::registry().with(targets).with(layer).try_init();
}
