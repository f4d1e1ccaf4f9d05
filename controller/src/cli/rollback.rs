//! `caravan rollback RUN`: undoes what a run did, from the backups. A rollback is a run like any other: it can be paused, resumed,
//! aborted, and has a report.

use super::site::{Site, whole_platforms, width};
use super::start::{self, Drive, RunArgs};
use super::{Context, Exit, Failure, Format, check, cleanup, plan as plan_command};
use crate::plan::rollback::{self, Done, Forward, Rollback};
use crate::plan::{self, Phase, Plan};
use crate::run::journal::Journal;
use crate::run::state::Bounds;
use crate::run::store::{RunDir, Store};
use crate::view::text::count;
use inventory::Fleet;
use proto::Event;
use proto::event::{Kind, RunOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The run to undo: its id, or the beginning or end of it.
    run: String,
    /// Undo it on these platforms only (`platform:NAME`, joined by commas). A platform goes back as a whole.
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// Explains one step of what would happen: by its number (`1.4.1`), its name (`restore.database`) or its id. Starts nothing.
    #[arg(long, value_name = "STEP")]
    explain: Option<String>,
    #[command(flatten)]
    with: RunArgs,
    /// Start without asking. Answers the start question and nothing else.
    #[arg(long)]
    yes: bool,
}

/// Runs `rollback`.
///
/// # Errors
/// There is nothing to undo, the run cannot be undone from here, or the record of the rollback cannot be kept.
pub async fn run(context: &Context, args: &RollbackArgs) -> Result<Exit, Failure> {
    let store = Store::new(&context.state_dir);
    let forward = super::pick::find(context, Some(&args.run))?;
    let site = Site::open(context)?;
    let fleet = &site.fleet;
    let prepared = prepare(&store, &forward, fleet, args.limit.as_deref())?;
    if let Some(step) = &args.explain {
        return super::print(explain(context, &prepared.plan, step)?);
    }
    start::check_ids(&prepared.plan, fleet, &args.with)?;
    let platforms: BTreeSet<String> = prepared.plan.platforms.iter().map(|platform| platform.name.clone()).collect();
    let hosts = start::host_options(fleet, &prepared.plan, &platforms, &site.secrets, false).await?;
    ask_to_start(context, &prepared, args.yes)?;
    let (dir, plan) = store.create(&prepared.plan).map_err(|e| start::internal(&e))?;
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id).map_err(|e| start::journal_failure(&e))?;
    let drive = Drive {
        command: "rollback",
        dir,
        plan,
        journal,
        hosts,
        left: None,
        bounds: Bounds {
            platforms,
            limit: None,
            parallel_platforms: fleet.parallel.platforms,
            parallel_hosts: fleet.parallel.hosts,
            conditions: Default::default(),
        },
        limit_text: None,
        overridden: BTreeMap::new(),
        claim: start::claim(context, &args.with, Some(forward.id))?,
        abort: None,
    };
    start::drive(context, &site, &args.with, drive).await
}

/// What a rollback of a run would do: everything that can be found out without contacting anything.
fn prepare(store: &Store, forward: &RunDir, fleet: &Fleet, limit: Option<&str>) -> Result<Rollback, Failure> {
    let run = &forward.id;
    let usage = |text: String| Failure::new(Exit::Usage, format!("error: {text}"));
    let journal = forward.path.join("journal.jsonl");
    if Journal::is_driven(&journal) {
        let text = format!("error: run {run} is still driven by a controller of this workstation; pause or abort it first");
        return Err(Failure::new(Exit::Locked, text));
    }
    let mut plan = forward.plan().map_err(super::status::failure)?;
    let chain = forward.chain().map_err(super::status::failure)?;
    if let Some(line) = chain.broken_at {
        let text = format!(
            "error: line {line} of {} does not follow from the line before it: what run {run} did cannot be read from a record that was \
             changed",
            journal.display()
        );
        return Err(Failure::new(Exit::Internal, text));
    }
    if plan.platforms.iter().flat_map(|platform| &platform.phases).any(|phase| phase.name == Phase::Rollback) {
        return Err(usage(format!(
            "run {run} is a rollback itself; `resume` goes on with it, and what it put back is migrated by a new run"
        )));
    }
    if plan::passwords::sets_passwords(&plan) {
        return Err(usage(format!(
            "run {run} sets passwords, which no backup brings back: `caravan passwords set` sets the one before it again"
        )));
    }
    if cleanup::was_cleaned(forward)? {
        return Err(usage(format!("run {run} was cleaned up: what a rollback needs is gone from the hosts")));
    }
    let why = "a platform goes back as a whole, for its hosts share its databases";
    let selected = limit.map(|text| whole_platforms(fleet, text, ("--limit", why))).transpose()?;
    plan.platforms.retain(|platform| selected.as_ref().is_none_or(|selected| selected.contains(&platform.name)));
    let earlier = rollbacks_of(store, run)?;
    let back: BTreeSet<&String> =
        earlier.iter().filter(|earlier| earlier.outcome == Some(RunOutcome::Ok)).flat_map(|earlier| &earlier.platforms).collect();
    if selected.is_none() && plan.platforms.iter().any(|platform| !back.contains(&platform.name)) {
        // Those that are back already need nothing; the others are meant.
        plan.platforms.retain(|platform| !back.contains(&platform.name));
    }
    let done = Done::of(&chain.events);
    let prepared = rollback::build(fleet, &Forward { run, plan: &plan, done: &done })
        .map_err(|errors| Failure::new(Exit::Usage, errors.to_string()))?;
    for earlier in &earlier {
        let again = prepared.plan.platforms.iter().find(|platform| earlier.platforms.contains(&platform.name));
        match (again, earlier.outcome) {
            (None, _) | (_, Some(RunOutcome::Aborted)) => {}
            (Some(platform), Some(RunOutcome::Ok)) => {
                return Err(usage(format!("{} was rolled back by run {} already", platform.name, earlier.id)));
            }
            (Some(platform), _) => {
                return Err(usage(format!(
                    "the rollback of {} has begun as run {id}: `caravan resume {id}` goes on with it; to begin anew, abort it first",
                    platform.name,
                    id = earlier.id
                )));
            }
        }
    }
    Ok(prepared)
}

fn explain(context: &Context, plan: &Plan, step: &str) -> Result<check::Outcome, Failure> {
    let unknown = |error: plan::UnknownStep| Failure::new(Exit::Usage, format!("error: {error}"));
    let text = match context.format {
        Format::Text => plan::explain(plan, step, context.color.0, width()).map_err(unknown)?,
        Format::Json => plan_command::json(&plan::select(plan, step).map_err(unknown)?)?,
    };
    Ok(check::Outcome { text, exit: Exit::Ok })
}

/// Shows what cannot be had back and what will happen, and asks.
fn ask_to_start(context: &Context, rollback: &Rollback, yes: bool) -> Result<(), Failure> {
    let color = context.color.1;
    if !yes || context.verbosity >= 0 {
        say!("{}{}", rollback.notes.render(color, width()), plan::render(&rollback.plan, color, width()));
    }
    if yes {
        return Ok(());
    }
    let hosts: BTreeSet<&str> = start::steps(&rollback.plan).map(|step| step.host.as_str()).collect();
    let platforms = count(rollback.plan.platforms.len(), "platform");
    let lost: usize = rollback.notes.platforms.iter().map(|platform| platform.one_way.len()).sum();
    let lost = if lost > 0 { format!(" and replace {} by backups", count(lost, "database")) } else { String::new() };
    start::ask(&format!("Roll back {platforms} with {}{lost}? Type yes: ", count(hosts.len(), "host")))
}

/// A rollback of a run, as the state directory has it.
pub(super) struct Earlier {
    /// Its own id.
    pub(super) id: String,
    /// The platforms that it is about.
    platforms: BTreeSet<String>,
    /// Those of them that are back.
    pub(super) back: BTreeSet<String>,
    /// Those of them on which it began something.
    pub(super) begun: BTreeSet<String>,
    /// How it ended; nothing as long as it did not.
    pub(super) outcome: Option<RunOutcome>,
}

/// The rollbacks of a run, oldest first.
pub(super) fn rollbacks_of(store: &Store, run: &str) -> Result<Vec<Earlier>, Failure> {
    let mut found = Vec::new();
    for dir in store.runs().map_err(super::status::failure)? {
        let Some(Kind::RunStarted { undoes: Some(undoes), platforms, .. }) = first_event(&dir).map(|event| event.kind) else {
            continue;
        };
        if undoes != run {
            continue;
        }
        let events = dir.events().map_err(super::status::failure)?;
        let mut earlier = Earlier {
            id: dir.id,
            platforms: platforms.into_iter().collect(),
            back: BTreeSet::new(),
            begun: BTreeSet::new(),
            outcome: outcome(&events),
        };
        for event in &events {
            match (&event.kind, &event.scope.platform) {
                (Kind::PlatformFinished { outcome: RunOutcome::Ok, .. }, Some(platform)) => {
                    earlier.back.insert(platform.clone());
                }
                (Kind::StepGranted { .. }, Some(platform)) => {
                    earlier.begun.insert(platform.clone());
                }
                _ => {}
            }
        }
        found.push(earlier);
    }
    Ok(found)
}

/// How a run ended; nothing while it did not, or goes on.
pub(super) fn outcome(events: &[Event]) -> Option<RunOutcome> {
    events.iter().rev().find_map(|event| match event.kind {
        Kind::RunFinished { outcome, .. } => Some(Some(outcome)),
        Kind::RunStarted { .. } | Kind::RunResumed { .. } => Some(None),
        _ => None,
    })?
}

/// The first line of a run's record says what kind of run it is: the rest of a long one is not read for that.
fn first_event(dir: &RunDir) -> Option<Event> {
    let mut line = String::new();
    BufReader::new(std::fs::File::open(dir.path.join("journal.jsonl")).ok()?).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
