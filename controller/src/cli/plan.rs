//! `caravan plan`: what a migration would do, in order. Contacts nothing and resolves no secret, unless the plan is to be saved.

use super::check::Outcome;
use super::inventory::load_fleet;
use super::saved;
use super::site::{Site, width};
use super::{Context, Exit, Failure, Format};
use crate::check;
use crate::plan::Plan;
use crate::plan::{self, FileCheck};
use crate::view::text::count;
use inventory::Fleet;
use std::path::PathBuf;

/// Shows the ordered plan of a migration, offline; with -o it is saved with the facts that it rests on.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlanArgs {
    /// Explains one step in full: by its number (`4.1.5`), its name (`postupgrade`) or its id.
    #[arg(long, value_name = "STEP")]
    pub explain: Option<String>,
    /// Connects to every host, reads the facts that the plan rests on (OS, architecture, packages, build, instances, database engine,
    /// host key), and writes plan, facts and hash to a file: `migrate FILE` carries exactly this plan out, or refuses it (exit 6) when
    /// the inventory or a fact has moved.
    #[arg(short, long, value_name = "FILE", conflicts_with = "explain")]
    pub output: Option<PathBuf>,
}

/// Runs `plan`.
///
/// # Errors
/// [`Exit::Usage`] for an inventory that cannot be used or planned, and for a step that the plan does not have; as
/// [`saved::write`] where the plan is saved.
pub async fn run(context: &Context, args: &PlanArgs) -> Result<Exit, Failure> {
    let Some(path) = &args.output else { return super::print(show(context, args, &load_fleet(context)?, width())?) };
    let Site { fleet, hosts, .. } = Site::open(context)?;
    let plan = saved::write(path, &fleet, &hosts).await?;
    if context.verbosity >= 0 {
        let hosts = fleet.platforms.iter().map(|platform| platform.hosts.len()).sum();
        let (path, inventory) = (path.display(), context.inventory.display());
        say!(
            "{path} holds this plan and the facts of {}. To carry it out:  caravan -i {inventory} migrate {path}",
            count(hosts, "host")
        );
    }
    super::print(Outcome { text: whole(context, &plan, width())?, exit: Exit::Ok })
}

/// A whole plan as text or JSON.
fn whole(context: &Context, plan: &Plan, width: usize) -> Result<String, Failure> {
    match context.format {
        Format::Text => {
            let expected = super::history::read(context).expected(plan);
            Ok(plan::render_expecting(plan, &expected, context.color.0, width))
        }
        Format::Json => json(plan),
    }
}

/// The plan of a fleet as text or JSON. A package file that is missing on the workstation is a warning here.
///
/// # Errors
/// [`Exit::Usage`] for a fleet that cannot be planned, and for a step that the plan does not have.
pub fn show(context: &Context, args: &PlanArgs, fleet: &Fleet, width: usize) -> Result<Outcome, Failure> {
    let plan = plan::build_with(fleet, &check::planned_queries, FileCheck::Optional)
        .map_err(|errors| Failure::new(Exit::Usage, errors.to_string()))?;
    let unknown = |error: plan::UnknownStep| Failure::new(Exit::Usage, format!("error: {error}"));
    let color = context.color.0;
    let text = match (&args.explain, context.format) {
        (None, _) => whole(context, &plan, width)?,
        (Some(asked), Format::Text) => plan::explain(&plan, asked, color, width).map_err(unknown)?,
        (Some(asked), Format::Json) => json(&plan::select(&plan, asked).map_err(unknown)?)?,
    };
    Ok(Outcome { text, exit: Exit::Ok })
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Internal, format!("error: the plan has no JSON form: {error}")))
}
