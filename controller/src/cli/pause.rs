//! `pause RUN` and `abort RUN`: what has not begun is taken back, what runs ends.

use super::control::{self, Request};
use super::follow::{Follower, runs_still, say_end};
use super::next::{fleet, here};
use super::pick::find;
use super::start::operator;
use super::status::{self, StatusArgs, print};
use super::{Context, Exit, Failure, Format};
use crate::run::store::{RunDir, Store};
use crate::view::View;
use crate::view::text::{count, sanitize};
use proto::event::RunOutcome;
use std::io::{IsTerminal, Write};

/// What `pause` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PauseArgs {
    /// The run: its id, or its unique beginning or end; the newest when left out.
    pub run: Option<String>,
}

/// What `abort` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AbortArgs {
    /// The run: its id, or its unique beginning or end.
    pub run: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Asks the controller that drives a run to pause it, and waits until it has come to rest. Without a controller it says how things
/// are: nothing is granted any more then.
///
/// # Errors
/// There is no such run (2), or its record cannot be read (7).
pub async fn pause(context: &Context, args: &PauseArgs) -> Result<Exit, Failure> {
    let dir = match &args.run {
        Some(run) => find(context, Some(run))?,
        None => driven(context)?,
    };
    let mut follower = Follower::new(dir.clone())?;
    match control::ask(&dir.path, &Request::Pause { operator: operator() }).await {
        Some(Ok(answer)) => notice(context, &format!("pausing {}: {answer}", dir.id)),
        Some(Err(why)) => notice(context, &format!("{}: {why}", dir.id)),
        None if control::is_driven(&dir.path) => return Err(unheard(context, &dir)),
        None => return undriven(context, &dir),
    }
    let view = follower.until_rest(context).await?;
    rest(context, &dir, &view)
}

/// Ends a run for good.
///
/// # Errors
/// There is no such run or nothing to end, nobody agreed (2), its record cannot be read or kept (7).
pub async fn abort(context: &Context, args: &AbortArgs) -> Result<Exit, Failure> {
    let dir = find(context, Some(&args.run))?;
    let (view, _) = status::read(&dir)?;
    if let Some(over) = over(&view) {
        return Err(Failure::new(Exit::Usage, format!("error: run {} {over}: there is nothing to abort", dir.id)));
    }
    if !args.yes {
        agree(&dir, &view)?;
    }
    let reason = args.reason.as_deref().map_or("no reason given", str::trim).to_owned();
    let mut follower = Follower::new(dir.clone())?;
    match control::ask(&dir.path, &Request::Abort { operator: operator(), reason: reason.clone() }).await {
        Some(Ok(answer)) => notice(context, &format!("aborting {}: {answer}", dir.id)),
        Some(Err(why)) => return Err(Failure::new(Exit::Failed, format!("error: {why}"))),
        None if control::is_driven(&dir.path) => return Err(unheard(context, &dir)),
        None => return super::resume::abort(context, Some(&dir.id), &reason).await,
    }
    let view = follower.until_rest(context).await?;
    rest(context, &dir, &view)?;
    match (view.run.outcome, view.run.exit_code.map(Exit::from_code)) {
        // The run failed; ending it did not.
        (Some(RunOutcome::Aborted), Some(Exit::Failed) | None) => Ok(Exit::Ok),
        (Some(RunOutcome::Aborted), Some(exit)) => Ok(exit),
        _ => Ok(Exit::Failed),
    }
}

/// The run that a controller drives now: without a name nothing else can be meant. The newest one where none is driven.
pub(super) fn driven(context: &Context) -> Result<RunDir, Failure> {
    let runs = Store::new(&context.state_dir).runs().map_err(status::failure)?;
    let driven: Vec<&RunDir> = runs.iter().filter(|run| control::is_driven(&run.path)).collect();
    match driven.as_slice() {
        [] => find(context, None),
        [run] => Ok((*run).clone()),
        several => {
            let names = several.iter().map(|run| run.id.as_str()).collect::<Vec<_>>().join(", ");
            Err(Failure::new(Exit::Usage, format!("error: several runs are driven now: {names}; say which one")))
        }
    }
}

fn notice(context: &Context, text: &str) {
    if context.verbosity >= 0 {
        say!("{}", sanitize(text));
    }
}

/// A controller that has the journal and does not listen: another version, or a file system without sockets.
fn unheard(context: &Context, dir: &RunDir) -> Failure {
    let text = format!(
        "error: a controller drives run {} and cannot be spoken to from here. Press Ctrl-C in its terminal; {} shows it",
        dir.id,
        here(context, &format!("attach {}", dir.id))
    );
    Failure::new(Exit::Locked, text)
}

/// Why there is nothing to halt; nothing where there is.
fn over(view: &View) -> Option<&'static str> {
    match view.run.outcome {
        Some(RunOutcome::Ok) => Some("finished well"),
        Some(RunOutcome::Aborted) => Some("was aborted"),
        _ => None,
    }
}

fn undriven(context: &Context, dir: &RunDir) -> Result<Exit, Failure> {
    let (view, _) = status::read(dir)?;
    if context.format == Format::Json {
        return print(&status::page(context, &StatusArgs { run: Some(dir.id.clone()) })?);
    }
    let mut text = match over(&view) {
        Some(over) => format!("Run {} {over}: there is nothing to pause.\n", dir.id),
        None => format!("No controller drives run {}: nothing is granted any more.\n", dir.id),
    };
    let open = view.steps.iter().filter(|step| step.is_open()).count();
    if over(&view).is_none() && open > 0 {
        let running = runs_still(&view);
        let what = if running.is_empty() { String::new() } else { format!(" ({running}, when it was last heard of)") };
        text.push_str(&format!("{} had been granted and may go on on the hosts{what}.\n", count(open, "step")));
    }
    if over(&view).is_none() {
        text.push_str(&format!("To go on: {}\n", fleet(context, &format!("resume {}", dir.id))));
    }
    print(&text)
}

/// Says how a run came to rest.
fn rest(context: &Context, dir: &RunDir, view: &View) -> Result<Exit, Failure> {
    if context.format == Format::Json {
        return print(&status::page(context, &StatusArgs { run: Some(dir.id.clone()) })?);
    }
    say_end(context, dir, view);
    Ok(Exit::Ok)
}

fn agree(dir: &RunDir, view: &View) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "error: there is no terminal to ask at; give --yes"));
    }
    say!("Abort run {} ({}, {}):", dir.id, view.run.command, count(view.platforms.len(), "platform"));
    say!("  what has not begun is taken back, what runs may end, and the hosts are free for other runs.");
    say!("  It cannot be resumed afterwards; what was done stays as it is until it is rolled back.");
    eprint!("Type yes: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Waiting, "Not aborted.")),
    }
}
