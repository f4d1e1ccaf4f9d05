//! `caravan resume`: takes a run up where a controller left it.

use super::conditions::ConditionArgs;
use super::from_hosts;
use super::passwords;
use super::pick;
use super::site::Site;
use super::start::{self, Drive, RunArgs};
use super::status;
use super::{Context, Exit, Failure};
use crate::plan::Plan;
use crate::plan::passwords::sets_passwords;
use crate::run::journal::{self, Chain, Journal, JournalError};
use crate::run::rebuild::Rebuilt;
use crate::run::state::{Bounds, RunState};
use crate::run::store::{RunDir, Store};
use crate::view::text::sanitize;
use inventory::Fleet;
use proto::Action;
use proto::event::{Kind, RunOutcome};
use proto::message::Claim;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The run: its id, or the beginning or end of it [default: the newest].
    run: Option<String>,
    /// Put plan and record together from what the hosts hold: the workstation that drove the run is gone, or its record is damaged. Its
    /// hosts are still locked by it: --take-over says why they are taken.
    #[arg(long)]
    from_hosts: bool,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    with: RunArgs,
}

/// Runs `resume`.
///
/// # Errors
/// There is nothing to resume, another controller drives the run, its record was edited or damaged, or it cannot be kept.
pub async fn run(context: &Context, args: &ResumeArgs) -> Result<Exit, Failure> {
    let site = Site::open(context)?;
    let left = match args.from_hosts {
        true => Left::from_hosts(context, &site, args).await?,
        false => Left::open(context, pick::find(context, args.run.as_deref())?)?,
    };
    if let Some(done) = left.over(context)? {
        say!("{done}");
        return Ok(Exit::Ok);
    }
    start::check_ids(&left.plan, &site.fleet, &args.with)?;
    left.drive(context, &site, "resume", &args.with, &args.conditions, None).await
}

/// Ends a run for good: takes back what has not begun, waits for what runs, and releases the locks of its hosts.
///
/// # Errors
/// As [`run`].
pub(super) async fn abort(context: &Context, run: Option<&str>, reason: &str) -> Result<Exit, Failure> {
    let site = Site::open(context)?;
    let dir = Store::new(&context.state_dir).find(run).map_err(status::failure)?;
    let left = Left::open(context, dir)?;
    if let Some(done) = left.over(context)? {
        return Err(Failure::new(Exit::Usage, format!("error: {done}")));
    }
    match left.drive(context, &site, "abort", &RunArgs::default(), &ConditionArgs::default(), Some(reason.to_owned())).await? {
        Exit::Failed => Ok(Exit::Ok),
        other => Ok(other),
    }
}

/// A run as a controller left it. Its record is ours as long as this lives.
struct Left {
    dir: RunDir,
    plan: Plan,
    journal: Journal,
    chain: Chain,
    from_hosts: bool,
    /// With what the hosts were taken, where they were taken already.
    claim: Option<Claim>,
}

impl Left {
    fn open(context: &Context, dir: RunDir) -> Result<Self, Failure> {
        let plan = dir.plan().map_err(|e| start::internal(&e))?;
        let (journal, chain) = Journal::reopen(&dir.path.join("journal.jsonl"), &dir.id).map_err(|e| start::journal_failure(&e))?;
        if chain.torn > 0 && context.verbosity >= 0 {
            say!(
                "notice: the last {} bytes of the journal were a write that was cut off; they were removed, nothing was done for them",
                chain.torn
            );
        }
        Ok(Self { dir, plan, journal, chain, from_hosts: false, claim: None })
    }

    /// Puts a run together from its hosts. What this workstation has of it is set aside if it is damaged; a whole record is the better one.
    async fn from_hosts(context: &Context, site: &Site, args: &ResumeArgs) -> Result<Self, Failure> {
        let before = from_hosts::gather(&site.fleet, &site.hosts, args.run.as_deref()).await?;
        let store = Store::new(&context.state_dir);
        let mut damaged = None;
        let here = store.runs().map_err(|e| start::internal(&e))?.into_iter().find(|known| known.id == before.rebuilt.run);
        if let Some(here) = here {
            match Journal::reopen(&here.path.join("journal.jsonl"), &here.id) {
                Ok((_, chain)) if !chain.events.is_empty() => {
                    let text = format!("error: the record of run {} is here and whole; resume it without --from-hosts", here.id);
                    return Err(Failure::new(Exit::Usage, text));
                }
                Err(error @ JournalError::Held { .. }) => return Err(start::journal_failure(&error)),
                Err(error @ (JournalError::TooNew { .. } | JournalError::Read { .. } | JournalError::Write { .. })) => {
                    return Err(start::journal_failure(&error));
                }
                Ok(_) | Err(JournalError::Broken { .. } | JournalError::Line { .. }) => damaged = Some(here),
            }
        }
        let undoes = before.rebuilt.drafts.iter().find_map(|draft| match &draft.kind {
            Kind::RunStarted { undoes, .. } => undoes.clone(),
            _ => None,
        });
        let claim = start::claim(context, &args.with, undoes)?;
        let Rebuilt { run, plan, drafts, notices, .. } = from_hosts::take(&site.fleet, &site.hosts, before, &claim).await?;
        if let Some(here) = damaged {
            let aside = store.set_aside(&here).map_err(|e| start::internal(&e))?;
            say!("notice: what was here of run {run} cannot be used; it was set aside as {}", aside.display());
        }
        notices.iter().for_each(|notice| say!("notice: {}", sanitize(notice)));
        let adopted = store.adopt(&run, &plan).map_err(|e| start::internal(&e))?;
        let journal = Journal::create(&adopted.path().join("journal.jsonl"), &run).map_err(|e| start::journal_failure(&e))?;
        journal.append(drafts).await.map_err(|e| start::internal(&e))?;
        let chain = journal::read(&adopted.path().join("journal.jsonl")).map_err(|e| start::journal_failure(&e))?;
        let dir = adopted.keep().map_err(|e| start::internal(&e))?;
        for event in &chain.events {
            // The record says where copies were put; those of another workstation did not come along.
            if let Kind::BackupKept { source, to, file, .. } = &event.kind
                && to == "workstation"
                && !dir.path.join(file).exists()
            {
                let host = event.scope.host.as_deref().unwrap_or_default();
                say!(
                    "notice: the copy of {source} of {host} was kept on the workstation that began the run and is not here; take another one before the source is lost"
                );
            }
        }
        Ok(Self { dir, plan, journal, chain, from_hosts: true, claim: Some(claim) })
    }

    /// What there is to say when nothing is left to be done.
    fn over(&self, context: &Context) -> Result<Option<String>, Failure> {
        let place = format!("-i {} --state-dir {}", context.inventory.display(), context.state_dir.display());
        if self.chain.events.is_empty() {
            let text = format!(
                "error: run {} never began: its controller ended before the first line of its record was durable, so nothing was done. Start it again: caravan {place} migrate",
                self.dir.id
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        match self.chain.events.iter().rev().find_map(|event| match event.kind {
            Kind::RunFinished { outcome, .. } => Some(Some(outcome)),
            Kind::RunResumed { .. } => Some(None),
            _ => None,
        }) {
            Some(Some(RunOutcome::Ok)) => Ok(Some(format!("run {} finished well: there is nothing left to do", self.dir.id))),
            Some(Some(RunOutcome::Aborted)) => {
                let text = format!(
                    "error: run {} was aborted; it cannot be resumed. `rollback {}` undoes what it did",
                    self.dir.id, self.dir.id
                );
                Err(Failure::new(Exit::Usage, text))
            }
            _ => Ok(None),
        }
    }

    async fn drive(
        self,
        context: &Context,
        site: &Site,
        command: &'static str,
        args: &RunArgs,
        conditions: &ConditionArgs,
        abort: Option<String>,
    ) -> Result<Exit, Failure> {
        let Self { dir, plan, journal, chain, from_hosts, claim } = self;
        let fleet = &site.fleet;
        let mut bounds = Bounds::recorded(&chain.events, &plan, fleet.parallel.platforms, fleet.parallel.hosts);
        // What was proven of a platform that a rollback changed is not so any more: the others go on without it.
        let undone = pick::undone(context).map_err(|e| start::internal(&e))?.remove(&dir.id).unwrap_or_default();
        bounds.platforms.retain(|platform| !undone.contains_key(platform));
        if let (true, Some(rollback)) = (bounds.platforms.is_empty(), undone.values().max()) {
            let text = format!(
                "error: run {} is undone by its rollback {rollback}; what it had proven is not so any more. Resume {rollback} if it is not over, or start a new run",
                dir.id
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        bounds.conditions = conditions.over(std::mem::take(&mut bounds.conditions), &bounds.platforms)?;
        known_hosts(&plan, fleet, &bounds)?;
        same_host_state(&plan, fleet)?;
        let ends = abort.is_some();
        if sets_passwords(&plan) && !ends {
            passwords::ask_again(&plan, &site.secrets).await?;
        }
        let hosts = start::host_options(fleet, &plan, &bounds.platforms, &site.secrets, ends).await?;
        let mut state = RunState::new(Arc::new(plan.clone()), bounds.clone());
        chain.events.iter().for_each(|event| state.apply(event));
        let (limit_text, undoes) = chain.events.iter().find_map(started).unwrap_or_default();
        let overridden = state.overrides().clone();
        let left = Some((chain, from_hosts));
        let claim = claim.map_or_else(|| start::claim(context, args, undoes), Ok)?;
        let drive = Drive { command, dir, plan, journal, hosts, left, bounds, limit_text, overridden, claim, abort };
        start::drive(context, site, args, drive).await
    }
}

fn started(event: &proto::Event) -> Option<(Option<String>, Option<String>)> {
    match &event.kind {
        Kind::RunStarted { limit, undoes, .. } => Some((limit.clone(), undoes.clone())),
        _ => None,
    }
}

/// The supervisor of a run and the host's lock are in the directory that the run was started with. In another one nothing is known of
/// what the host was granted: it would be granted again.
fn same_host_state(plan: &Plan, fleet: &Fleet) -> Result<(), Failure> {
    let now: BTreeMap<&str, &str> =
        fleet.platforms.iter().flat_map(|p| &p.hosts).map(|host| (host.name.as_str(), host.host_state.as_str())).collect();
    let mut moved = BTreeSet::new();
    for step in plan.platforms.iter().flat_map(|platform| platform.steps()) {
        // These go into Caravan's directory on the host, and nowhere else.
        let (Action::PushFile { dest, .. } | Action::Download { dest, .. }) = &step.spec.action else { continue };
        match now.get(step.host.as_str()) {
            Some(state) if !Path::new(dest).starts_with(state) => moved.insert(format!(
                "error: {}: `host_state` is {state} in the inventory, and the run put {dest} there; give it the directory that it had",
                step.host
            )),
            _ => continue,
        };
    }
    let moved: Vec<String> = moved.into_iter().collect();
    if moved.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Usage, moved.join("\n"))) }
}

/// A run goes on with its own plan; the inventory only says how its hosts are reached.
fn known_hosts(plan: &Plan, fleet: &Fleet, bounds: &Bounds) -> Result<(), Failure> {
    let known: BTreeSet<&str> = fleet.platforms.iter().flat_map(|p| &p.hosts).map(|host| host.name.as_str()).collect();
    let selected = plan.platforms.iter().filter(|platform| bounds.platforms.contains(&platform.name));
    let missing: BTreeSet<&str> =
        selected.flat_map(|p| p.steps()).map(|step| step.host.as_str()).filter(|host| !known.contains(host)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.into_iter().collect::<Vec<_>>().join(", ");
    let text = format!(
        "error: the run's plan has hosts that the inventory does not know: {names}. Give the inventory that the run was started with (-i)"
    );
    Err(Failure::new(Exit::Usage, text))
}
