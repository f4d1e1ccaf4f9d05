//! `report RUN`: the record for the change board.

use super::args::OutputFormat;
use super::status::{find, pretty, print, read};
use super::{Context, Exit, Failure};
use crate::report::{Record, json, markdown};
use crate::view::View;
use std::path::PathBuf;

/// What `report` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// The run: its id, or its unique beginning or end; the newest when left out.
    pub run: Option<String>,
    /// Where to write it; standard output when left out.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the record of a run.
///
/// # Errors
/// There is no such run, or the form is not there (2); the run cannot be read or the file not written (7).
pub async fn run(context: &Context, args: &ReportArgs, format: Option<OutputFormat>) -> Result<Exit, Failure> {
    let render: fn(&View, &Record) -> Result<String, Failure> = match format {
        None | Some(OutputFormat::Markdown) => |view, record| Ok(markdown(view, record)),
        Some(OutputFormat::Json) => |view, record| pretty(&json(view, record)),
        Some(OutputFormat::Text | OutputFormat::Html | OutputFormat::Junit) => {
            return Err(Failure::new(Exit::Usage, "error: this version writes reports with --format markdown or --format json"));
        }
    };
    let (view, record) = read(&find(context, args.run.as_deref())?)?;
    let text = render(&view, &record)?;
    match &args.output {
        None => print(&text),
        Some(path) => match std::fs::write(path, text) {
            Ok(()) => Ok(Exit::Ok),
            Err(error) => Err(Failure::new(Exit::Internal, format!("cannot write {}: {error}", path.display()))),
        },
    }
}
