//! `attach RUN`: a run as it goes on, from another terminal. It only looks; leaving changes nothing.

use super::control::{self, Request};
use super::follow::{Follower, POLL, say_end};
use super::history;
use super::next::fleet;
use super::pick;
use super::screen::Screen;
use super::start::{internal, operator, pair};
use super::status::{self, StatusArgs, print};
use super::{Context, Exit, Failure, Format};
use crate::plan::{Plan, PlannedStep};
use crate::run::Observer;
use crate::run::engine::output_file;
use crate::run::store::RunDir;
use crate::view::text::{last_line, sanitize};
use crate::view::{StepState, View};
use proto::StepId;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// The newest line that a step printed is looked for in so many bytes at the end of its output.
const TAIL: u64 = 4096;

/// What `attach` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AttachArgs {
    /// The run: its id, or its unique beginning or end; the one that is driven now when left out, else the newest.
    pub run: Option<String>,
    /// Confirm a gate that waits, with a note for the record. Can be given several times.
    #[arg(long = "confirm", value_name = "GATE=NOTE", value_parser = pair)]
    pub confirm: Vec<(String, String)>,
}

/// Shows a run until its controller ends. Ends as the run did; with 5 when the controller left the run unfinished or there is none.
///
/// # Errors
/// There is no such run, or a gate cannot be confirmed (2); the record cannot be read (7).
pub async fn run(context: &Context, args: &AttachArgs) -> Result<Exit, Failure> {
    let dir = pick::shown(context, args.run.as_deref())?;
    for (gate, note) in &args.confirm {
        confirm(context, &dir, gate, note).await?;
    }
    let mut follower = Follower::new(dir.clone())?;
    let seen = follower.look()?;
    if !seen.driven {
        return undriven(context, &dir);
    }
    // Listened for before anything is shown: from then on Ctrl-C leaves, and nothing else.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| internal(&error))?;
    let mut view = View::new(&follower.plan);
    let mut screen = Screen::new(context, &follower.plan);
    screen.expect(history::read(context).expected_steps(&follower.plan));
    let mut outputs = Outputs::new(&follower.plan, &dir.path);
    seen.events.iter().for_each(|event| view.apply(event));
    match context.format {
        Format::Text => screen.catch_up(&seen.events),
        Format::Json => seen.events.iter().for_each(|event| screen.event(event)),
    }
    if context.verbosity >= 0 && context.format == Format::Text {
        screen.notice()(&format!("attached to run {}; Ctrl-C leaves, the run goes on without you", dir.id));
    }
    loop {
        outputs.show(&view, &mut screen);
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = interrupt.recv() => {
                screen.finish();
                if context.verbosity >= 0 {
                    say!("left; run {} goes on", dir.id);
                }
                return Ok(Exit::Ok);
            }
        }
        let seen = match follower.look() {
            Ok(seen) => seen,
            Err(failure) => {
                screen.finish();
                return Err(failure);
            }
        };
        for event in &seen.events {
            view.apply(event);
            screen.event(event);
        }
        if !seen.driven && seen.events.is_empty() {
            break;
        }
    }
    screen.finish();
    if context.format == Format::Text {
        say_end(context, &dir, &view);
    }
    Ok(ended(&view))
}

/// As the run ended; waiting where nobody drives it and it is not over.
fn ended(view: &View) -> Exit {
    view.run.exit_code.filter(|_| view.run.ended.is_some()).map_or(Exit::Waiting, Exit::from_code)
}

fn undriven(context: &Context, dir: &RunDir) -> Result<Exit, Failure> {
    print(&status::page(context, &StatusArgs { run: Some(dir.id.clone()) })?)?;
    let (view, _) = status::read(dir)?;
    if context.verbosity >= 0 {
        say!("No controller drives run {}: there is nothing to look on.", dir.id);
    }
    Ok(ended(&view))
}

async fn confirm(context: &Context, dir: &RunDir, gate: &str, note: &str) -> Result<(), Failure> {
    let request = Request::Confirm { gate: gate.to_owned(), note: note.to_owned(), operator: operator() };
    match control::ask(&dir.path, &request).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(why)) => Err(Failure::new(Exit::Usage, format!("error: {}", sanitize(&why)))),
        None => {
            let resume = fleet(context, &format!("resume {} --confirm {gate}=NOTE", dir.id));
            Err(Failure::new(Exit::Usage, format!("error: no controller drives run {}; confirm the gate with: {resume}", dir.id)))
        }
    }
}

/// The ends of what running steps print.
struct Outputs {
    /// The run's directory.
    dir: PathBuf,
    /// The steps by id, with their places in the plan.
    steps: HashMap<String, (usize, PlannedStep)>,
    /// How long each file was at the last look.
    lengths: HashMap<PathBuf, u64>,
}

impl Outputs {
    fn new(plan: &Plan, dir: &Path) -> Self {
        let steps = plan.platforms.iter().flat_map(|platform| platform.steps().enumerate());
        let steps = steps.map(|(index, step)| (step.id.0.clone(), (index, step.clone()))).collect();
        Self { dir: dir.to_owned(), steps, lengths: HashMap::new() }
    }

    fn show(&mut self, view: &View, screen: &mut Screen) {
        for step in view.steps.iter().filter(|step| step.state == StepState::Running) {
            let Some((index, planned)) = self.steps.get(&step.id) else { continue };
            let path = self.dir.join(output_file(planned, *index, step.attempt));
            let known = self.lengths.get(&path).copied().unwrap_or_default();
            // Nothing to show is no reason to stop looking on.
            let Ok(Some((length, text))) = tail(&path, known) else { continue };
            self.lengths.insert(path, length);
            screen.line(&step.host, &StepId(step.id.clone()), &text);
        }
    }
}

/// What the running steps of a run printed last, by id.
pub(super) fn last_lines(plan: &Plan, dir: &Path, view: &View) -> BTreeMap<String, String> {
    let planned = plan.platforms.iter().flat_map(|platform| platform.steps().enumerate());
    let running = |step: &PlannedStep| view.step(&step.id.0).filter(|known| known.state == StepState::Running);
    let said = planned.filter_map(|(index, step)| {
        let path = dir.join(output_file(step, index, running(step)?.attempt));
        let (_, text) = tail(&path, 0).ok()??;
        Some((step.id.0.clone(), last_line(&text)?))
    });
    said.collect()
}

/// The end of a file whose length is not the known one any more, with its length.
fn tail(path: &Path, known: u64) -> io::Result<Option<(u64, String)>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length == known {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(Some((length, String::from_utf8_lossy(&bytes).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_output_is_read_again_only_when_it_grew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0001.log");
        assert!(tail(&path, 0).is_err(), "nothing was printed yet");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(tail(&path, 0).unwrap(), Some((4, "one\n".to_owned())));
        assert_eq!(tail(&path, 4).unwrap(), None);
        // What is cut in the middle of a character is shown all the same.
        let long = format!("{}\nlast\n", "ü".repeat(5000));
        std::fs::write(&path, &long).unwrap();
        let (length, text) = tail(&path, 4).unwrap().unwrap();
        assert_eq!(length, long.len() as u64);
        assert!(text.ends_with("ü\nlast\n") && text.len() < 5000, "{}", text.len());
    }
}
