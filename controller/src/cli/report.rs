//! `report RUN`: the record for the change board.

use super::status::{find, pretty, print, read};
use super::{Context, Exit, Failure};
use crate::report::{json, markdown};
use std::path::PathBuf;

/// What `report` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// The run: its id, or its unique beginning or end
    pub run: String,
    /// The report's form
    #[arg(long, value_enum, default_value = "markdown")]
    pub format: ReportFormat,
    /// Where to write it; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// One static page
    Html,
    /// For people and tickets
    Markdown,
    /// For programs
    Json,
    /// For build servers
    Junit,
}

/// Writes the record of a run.
///
/// # Errors
/// There is no such run, or the form is not there yet (2); the run cannot be read or the file not written (7).
pub async fn run(context: &Context, args: &ReportArgs) -> Result<Exit, Failure> {
    let render: fn(&crate::view::View, &crate::report::Record) -> Result<String, Failure> = match args.format {
        ReportFormat::Markdown => |view, record| Ok(markdown(view, record)),
        ReportFormat::Json => |view, record| pretty(&json(view, record)),
        ReportFormat::Html | ReportFormat::Junit => {
            let message = "this version writes reports as `--format markdown` or `--format json` only";
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    let (view, record) = read(&find(context, Some(&args.run))?)?;
    let text = render(&view, &record)?;
    match &args.output {
        None => print(&text),
        Some(path) => match std::fs::write(path, text) {
            Ok(()) => Ok(Exit::Ok),
            Err(error) => Err(Failure::new(Exit::Internal, format!("cannot write {}: {error}", path.display()))),
        },
    }
}
