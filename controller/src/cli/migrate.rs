//! `caravan migrate`: the whole job.

use super::conditions::ConditionArgs;
use super::saved;
use super::site::{Site, select, width};
use super::start::{self, Drive, RunArgs};
use super::{Context, Exit, Failure};
use crate::check;
use crate::plan::{self, Plan};
use crate::run::journal::Journal;
use crate::run::state::Bounds;
use crate::run::store::Store;
use crate::view::text::count;
use inventory::Fleet;
use proto::event::Conditions;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;

/// Arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// A plan that `caravan plan -o FILE` saved: it is carried out as it is, or refused (exit 6) with the list of differences when the
    /// inventory or a fact has moved since. Without it the plan is made now.
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Act on these hosts only (names, globs, `role:ROLE`, `platform:NAME`; `,` joins, `!` excludes). The others are still probed: the
    /// order holds over the whole platform.
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    with: RunArgs,
    /// Start without asking. Answers the start question and nothing else.
    #[arg(long)]
    yes: bool,
}

/// Runs `migrate`.
///
/// # Errors
/// Anything that keeps the run from starting, and a record that cannot be kept.
pub async fn run(context: &Context, args: &MigrateArgs) -> Result<Exit, Failure> {
    let site = Site::open(context)?;
    let fleet = &site.fleet;
    let limit = args.limit.as_deref().map(|text| select(fleet, Some(text))).transpose()?;
    let platforms = start::selected_platforms(fleet, limit.as_ref());
    let plan = match &args.plan {
        Some(path) => saved::open(path, &site, &platforms).await?,
        None => build_plan(fleet)?,
    };
    start::check_ids(&plan, fleet, &args.with)?;
    let conditions = args.conditions.over(Conditions::default(), &platforms)?;
    // Asked for before anything starts, so that nobody has to be awake for a prompt in the middle of the run.
    let hosts = start::host_options(fleet, &plan, &platforms, &site.secrets, false).await?;
    if !args.yes {
        ask_to_start(context, &plan, &platforms)?;
    }
    let (dir, plan) = Store::new(&context.state_dir).create(&plan).map_err(|e| start::internal(&e))?;
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id).map_err(|e| start::journal_failure(&e))?;
    let drive = Drive {
        command: "migrate",
        dir,
        plan,
        journal,
        left: None,
        hosts,
        bounds: Bounds {
            platforms,
            limit,
            parallel_platforms: fleet.parallel.platforms,
            parallel_hosts: fleet.parallel.hosts,
            conditions,
        },
        limit_text: args.limit.clone(),
        overridden: BTreeMap::new(),
        claim: start::claim(context, &args.with, None)?,
        abort: None,
    };
    start::drive(context, &site, &args.with, drive).await
}

/// The plan of a fleet.
pub(crate) fn build_plan(fleet: &Fleet) -> Result<Plan, Failure> {
    plan::build(fleet, &check::planned_queries).map_err(|errors| Failure::new(Exit::Usage, errors.to_string()))
}

fn ask_to_start(context: &Context, plan: &Plan, platforms: &BTreeSet<String>) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "error: there is no terminal to ask at; look at `caravan plan`, then give --yes"));
    }
    let shown = Plan {
        platforms: plan.platforms.iter().filter(|platform| platforms.contains(&platform.name)).cloned().collect(),
        ..plan.clone()
    };
    let expected = super::history::read(context).expected(&shown);
    say!("{}", plan::render_expecting(&shown, &expected, context.color.1, width()));
    let hosts: BTreeSet<&str> = start::steps(&shown).map(|step| step.host.as_str()).collect();
    start::ask(&format!("Migrate {} with {}? Type yes: ", count(shown.platforms.len(), "platform"), count(hosts.len(), "host")))
}
