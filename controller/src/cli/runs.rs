//! `runs`: the runs there were, oldest first.

use super::pick;
use super::status::{failure, pretty, print, read};
use super::{Context, Exit, Failure, Format};
use crate::report::{self, Listed, Record};
use crate::run::store::Store;
use serde_json::{Value, json};

/// What `runs` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunsArgs {}

/// Prints the runs there were.
///
/// # Errors
/// As [`page`], or standard output cannot be written (7).
pub async fn run(context: &Context, _args: &RunsArgs) -> Result<Exit, Failure> {
    print(&page(context)?)
}

/// What is printed. A single run that cannot be read is listed as such.
///
/// # Errors
/// The state directory cannot be read (7).
pub fn page(context: &Context) -> Result<String, Failure> {
    let mut listed = Vec::new();
    let mut undone = pick::undone(context).map_err(failure)?;
    for run in Store::new(&context.state_dir).runs().map_err(failure)? {
        listed.push(match read(&run) {
            Ok((view, record)) => {
                let undone = undone.remove(&run.id).unwrap_or_default();
                Listed::Run(Box::new(view), Box::new(Record { undone, ..record }))
            }
            Err(error) => Listed::Unreadable(run.id, error.message),
        });
    }
    match context.format {
        Format::Json => pretty(&json!({ "runs": listed.iter().map(value).collect::<Vec<_>>() })),
        Format::Text if listed.is_empty() => Ok(format!("No runs in {}.\n", context.state_dir.display())),
        Format::Text => Ok(report::runs(&listed, context.color.0)),
    }
}

fn value(run: &Listed) -> Value {
    match run {
        Listed::Unreadable(id, why) => json!({ "run": id, "error": why }),
        Listed::Run(view, record) => json!({
            "run": view.run.id,
            "command": view.run.command,
            "undoes": view.run.undoes,
            "undone": record.undone,
            "driven": record.driven == Some(true),
            "operator": view.run.operator,
            "started": view.run.started.map(|time| time.to_string()),
            "finished": view.run.ended.map(|time| time.to_string()),
            "outcome": view.run.outcome,
            "exit_code": view.run.exit_code,
            "platforms": view.platforms.iter().map(|platform| json!({ "name": platform.name, "outcome": platform.outcome })).collect::<Vec<_>>(),
        }),
    }
}
