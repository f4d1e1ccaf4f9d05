//! `caravan plan`: what a migration would do, in order. Contacts nothing, resolves no secret.

use super::check::Outcome;
use super::inventory::load_fleet;
use super::site::width;
use super::{Context, Exit, Failure, Format};
use crate::check;
use crate::plan::{self, FileCheck};
use inventory::Fleet;

/// Shows the ordered plan of a migration, offline.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlanArgs {
    /// Explains one step in full: by its number (`4.1.5`), its name (`postupgrade`) or its id.
    #[arg(long, value_name = "STEP")]
    pub explain: Option<String>,
}

/// Runs `plan`.
///
/// # Errors
/// [`Exit::Usage`] for an inventory that cannot be used or planned, and for a step that the plan does not have.
pub async fn run(context: &Context, args: &PlanArgs) -> Result<Exit, Failure> {
    super::print(show(context, args, &load_fleet(context)?, width())?)
}

/// The plan of a fleet as text or JSON. A package file that is missing on the workstation is a warning here.
///
/// # Errors
/// [`Exit::Usage`] for a fleet that cannot be planned, and for a step that the plan does not have.
pub fn show(context: &Context, args: &PlanArgs, fleet: &Fleet, width: usize) -> Result<Outcome, Failure> {
    let plan =
        plan::build_with(fleet, &check::planned_queries, FileCheck::Optional).map_err(|errors| Failure::new(Exit::Usage, errors.to_string()))?;
    let unknown = |error: plan::UnknownStep| Failure::new(Exit::Usage, format!("error: {error}"));
    let color = context.color.0;
    let text = match (&args.explain, context.format) {
        (None, Format::Text) => plan::render(&plan, color, width),
        (Some(asked), Format::Text) => plan::explain(&plan, asked, color, width).map_err(unknown)?,
        (None, Format::Json) => json(&plan)?,
        (Some(asked), Format::Json) => json(&plan::select(&plan, asked).map_err(unknown)?)?,
    };
    Ok(Outcome { text, exit: Exit::Ok })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Internal, format!("error: the plan has no JSON form: {error}")))
}
