//! `caravan cleanup RUN`: removes what a run that is over left on its hosts.

mod host;
mod over;

use super::rollback::rollbacks_of;
use super::site::Site;
use super::start::{self, operator};
use super::{Context, Exit, Failure, Format};
use crate::run::journal::Journal;
use crate::run::store::{RunDir, Store, random_id};
use crate::view::text::count;
use host::{Ended, Order};
use over::{Left, Remains, remains, run_is_over};
use proto::message::Claim;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The record of what was removed, in the run's directory on the workstation: one JSON object a line, for each host and time.
const RECORD: &str = "cleanup.jsonl";

/// Arguments of `cleanup`.
#[derive(Debug, clap::Args)]
pub struct CleanupArgs {
    /// The run: its id, or the beginning or end of it.
    run: String,
    /// Remove agents, host journals and package files without asking. Answers that question and nothing else.
    #[arg(long)]
    yes: bool,
    /// Remove the trees that were kept to go back (nl6.back) as well, without asking: from then on there is no way back.
    #[arg(long)]
    remove_backups: bool,
}

/// One line of the record.
#[derive(Debug, Serialize)]
struct Line<'a> {
    v: u32,
    /// RFC 3339 UTC.
    time: String,
    operator: &'a str,
    host: &'a str,
    /// `removed`, `locked`, `failed`, `unreachable`.
    outcome: &'a str,
    removed: &'a [String],
    message: &'a str,
}

/// Runs `cleanup`.
///
/// # Errors
/// The run is not over, nobody said yes, or the record cannot be kept.
pub async fn run(context: &Context, args: &CleanupArgs) -> Result<Exit, Failure> {
    let store = Store::new(&context.state_dir);
    let dir = super::pick::find(context, Some(&args.run))?;
    if Journal::is_driven(&dir.path.join("journal.jsonl")) {
        let text = format!("error: run {} is driven by a controller of this workstation; it is not over", dir.id);
        return Err(Failure::new(Exit::Locked, text));
    }
    let plan = dir.plan().map_err(super::status::failure)?;
    let events = dir.events().map_err(super::status::failure)?;
    let rollbacks = rollbacks_of(&store, &dir.id)?;
    if let Some(open) = rollbacks.iter().find(|rollback| rollback.outcome.is_none()) {
        let text = format!("error: run {} is being rolled back by run {}, which is not over", dir.id, open.id);
        return Err(Failure::new(Exit::Usage, text));
    }
    // Where a rollback began, whatever became of it, nl6.back may be all that is left of the old version.
    let begun: BTreeSet<String> = rollbacks.iter().flat_map(|rollback| rollback.begun.iter().cloned()).collect();
    let back: BTreeSet<String> = rollbacks.into_iter().flat_map(|rollback| rollback.back).collect();
    run_is_over(&events, &back).map_err(|why| Failure::new(Exit::Usage, format!("error: run {} is not over: {why}", dir.id)))?;
    let site = Site::open(context)?;
    let remains = remains(&site.fleet, &plan, &events, (&back, &begun));
    let trees = confirm(context, args, &dir.id, &remains)?;
    let claim = Claim {
        seat: store.seat().map_err(|e| start::internal(&e))?,
        controller: random_id(),
        operator: operator(),
        take_over: None,
        succeeds: None,
    };
    let slots = Arc::new(Semaphore::new(site.fleet.parallel.hosts.max(1)));
    let mut working = JoinSet::new();
    for left in remains.hosts {
        let order = Order { run: dir.id.clone(), left, trees, claim: claim.clone() };
        let (hosts, slots) = (Arc::clone(&site.hosts), Arc::clone(&slots));
        working.spawn(async move {
            let _slot = slots.acquire().await;
            let done = host::clean(&*hosts, &order).await;
            (order.left.host, done)
        });
    }
    let mut results = BTreeMap::new();
    while let Some(done) = working.join_next().await {
        let (host, done) = done.map_err(|e| start::internal(&e))?;
        keep(&dir, &claim.operator, &host, &done, context)?;
        results.insert(host, done);
    }
    if context.format == Format::Text && context.verbosity >= 0 {
        summarize(&results);
    }
    Ok(overall(results.values().map(|(ended, _)| ended)))
}

/// Shows what will be removed and asks: once for what is Caravan's own, once for the trees. Answers whether the trees go as well.
fn confirm(context: &Context, args: &CleanupArgs, run: &str, remains: &Remains) -> Result<bool, Failure> {
    let shown = !args.yes || context.verbosity >= 0;
    if shown {
        eprint!("{}", listing(run, remains));
    }
    if !args.yes {
        say!("After this the run cannot be rolled back by Caravan, and `report` has no hosts to compare its record with.");
        start::ask(&format!("Remove this from {}? Type yes: ", count(remains.hosts.len(), "host")))?;
    }
    let with_trees: Vec<&str> = remains.hosts.iter().filter(|left| !left.trees.is_empty()).map(|left| left.host.as_str()).collect();
    if with_trees.is_empty() || args.remove_backups {
        return Ok(args.remove_backups);
    }
    let hosts = inventory::fold_names(&with_trees);
    if !std::io::stdin().is_terminal() {
        if shown {
            say!("The trees that were kept to go back stay on {hosts}: give --remove-backups to remove them as well.");
        }
        return Ok(false);
    }
    let question =
        format!("Remove the trees that were kept to go back from {hosts} as well? There is no way back then. Type yes: ");
    Ok(start::says_yes(&question))
}

/// What will be removed, a line for all hosts from which it is the same.
fn listing(run: &str, remains: &Remains) -> String {
    let mut groups: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
    for left in &remains.hosts {
        let Left { host, host_state, copies, trees, .. } = left;
        let mut lines = vec![
            format!("{host_state}/runs/{run}"),
            format!("{host_state} with the agent and the packages, unless another run is left there"),
        ];
        lines.extend(copies.iter().map(|copy| format!("{copy}, if it is still there")));
        lines.extend(trees.iter().map(|tree| format!("{tree} (asked for on its own)")));
        groups.entry(lines).or_default().push(host);
    }
    let mut text = String::new();
    for (lines, hosts) in groups {
        text.push_str(&format!("{}:\n", inventory::fold_names(&hosts)));
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    for note in &remains.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

/// Writes down what was done on a host, durably; with `--format json` it is printed as well.
fn keep(dir: &RunDir, operator: &str, host: &str, done: &(Ended, Vec<String>), context: &Context) -> Result<(), Failure> {
    let (ended, removed) = done;
    let (outcome, message) = match ended {
        Ended::Removed => ("removed", ""),
        Ended::Locked(message) => ("locked", message.as_str()),
        Ended::Failed(message) => ("failed", message.as_str()),
        Ended::Unreachable(message) => ("unreachable", message.as_str()),
    };
    let time = jiff::Timestamp::now().to_string();
    let line = Line { v: 1, time, operator, host, outcome, removed, message };
    let path = dir.path.join(RECORD);
    let cannot = |e: std::io::Error| start::internal(&format!("cannot write {}: {e}", path.display()));
    let mut text = serde_json::to_string(&line).map_err(|e| start::internal(&e))?;
    if context.format == Format::Json {
        // A reader that went away does not stop it half-way.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
    text.push('\n');
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)
}

/// Whether something of a run was removed from a host: then it cannot be rolled back any more.
pub(super) fn was_cleaned(dir: &RunDir) -> Result<bool, Failure> {
    let path = dir.path.join(RECORD);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        text => text.map_err(|error| start::internal(&format!("cannot read {}: {error}", path.display())))?,
    };
    let removed = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        line.get("removed").and_then(serde_json::Value::as_array).is_some_and(|removed| !removed.is_empty())
    };
    Ok(text.lines().any(removed))
}

/// One line for all hosts on which it went the same way: the bad ones first.
fn summarize(results: &BTreeMap<String, (Ended, Vec<String>)>) {
    let mut groups: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for (host, (ended, removed)) in results {
        let (well, text) = match ended {
            Ended::Removed if removed.is_empty() => (true, "nothing was left there".to_owned()),
            Ended::Removed => (true, format!("removed {}", removed.join(", "))),
            Ended::Locked(why) => (false, format!("not touched: {why}")),
            // The message begins with the host's own name, which would keep equal ones apart.
            Ended::Failed(why) | Ended::Unreachable(why) => {
                (false, why.strip_prefix(host.as_str()).unwrap_or(why).trim_start_matches([':', ' ']).to_owned())
            }
        };
        groups.entry((well, text)).or_default().push(host);
    }
    for ((well, text), hosts) in &groups {
        let mark = if *well { '✓' } else { '✗' };
        say!("{mark} {}  {text}", inventory::fold_names(hosts));
    }
    if results.values().any(|(ended, _)| *ended != Ended::Removed) {
        say!("Run it again for the hosts that are left: what is gone already is no error.");
    }
}

fn overall<'a>(results: impl Iterator<Item = &'a Ended>) -> Exit {
    // The order of the contract: a lock, then a failure, then a host that was not reached.
    let rank = |exit: &Exit| [Exit::Locked, Exit::Failed, Exit::Unreachable, Exit::Ok].iter().position(|other| other == exit);
    let exit = |ended: &Ended| match ended {
        Ended::Removed => Exit::Ok,
        Ended::Locked(_) => Exit::Locked,
        Ended::Failed(_) => Exit::Failed,
        Ended::Unreachable(_) => Exit::Unreachable,
    };
    results.map(exit).min_by_key(rank).unwrap_or(Exit::Ok)
}
