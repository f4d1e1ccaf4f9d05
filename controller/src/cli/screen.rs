//! What an operator sees of a run: the live display on standard error; with `--format json` the events themselves on standard output.

use super::{Context, Format};
use crate::plan::{Expected, Plan};
use crate::progress::{self, Progress};
use crate::run::Observer;
use crate::run::options::Asker;
use crate::view::View;
use crate::view::text::sanitize;
use proto::{Event, StepId};
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The screen of one run. What is shown is written by a thread of its own: a terminal that was stopped or a pipe that nobody reads
/// must not hold a migration up.
pub(super) struct Screen {
    progress: Progress,
    shown: Sender<Shown>,
    writer: JoinHandle<()>,
}

enum Shown {
    Event(Box<Event>),
    Line(StepId, String),
}

impl Screen {
    pub(super) fn new(context: &Context, plan: &Plan) -> Self {
        let json = context.format == Format::Json;
        let options =
            progress::Options { color: context.color.1, verbosity: context.verbosity, terminal: std::io::stderr().is_terminal() };
        let progress = Progress::new(plan, options);
        let (shown, queue) = channel();
        let display = progress.clone();
        let writer = std::thread::spawn(move || queue.into_iter().for_each(|shown| show(&display, json, &shown)));
        Self { progress, shown, writer }
    }

    /// How long steps are expected to take.
    pub(super) fn expect(&self, expected: Expected) {
        self.progress.expect(expected);
    }

    /// What happened before this display: it counts, and is not shown again.
    pub(super) fn catch_up(&self, events: &[Event]) {
        self.progress.catch_up(events);
    }

    /// Shows what is left and takes the display away; answers all that is known of the run.
    pub(super) fn finish(self) -> View {
        drop(self.shown);
        let _ = self.writer.join();
        self.progress.finish();
        self.progress.view()
    }

    /// Prints a line above the display.
    pub(super) fn notice(&self) -> impl Fn(&str) + Send + 'static {
        let progress = self.progress.clone();
        move |line| progress.println(line)
    }

    /// Asks a person at the terminal to confirm a gate; one question at a time.
    pub(super) fn asker(&self) -> Box<Asker> {
        let progress = self.progress.clone();
        let one_at_a_time = Arc::new(Mutex::new(()));
        Box::new(move |gate, ask| {
            let (progress, turn) = (progress.clone(), one_at_a_time.clone());
            Box::pin(async move {
                let asked = tokio::task::spawn_blocking(move || {
                    let _turn = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    progress.suspend(|| ask_gate(&gate, &ask))
                });
                asked.await.ok().flatten()
            })
        })
    }
}

/// The note of the person who confirms, or nothing.
fn ask_gate(gate: &str, ask: &str) -> Option<String> {
    say!("\n{} waits for a person:\n  {}", sanitize(gate), sanitize(ask));
    eprint!("Done? Type a note for the record (who, reference); an empty line leaves it waiting: ");
    let _ = std::io::stderr().flush();
    let mut note = String::new();
    std::io::stdin().read_line(&mut note).ok()?;
    let note = note.trim();
    (!note.is_empty()).then(|| note.to_owned())
}

fn show(progress: &Progress, json: bool, shown: &Shown) {
    match shown {
        Shown::Event(event) => {
            if json && let Ok(line) = serde_json::to_string(event) {
                // A reader that went away does not stop a migration.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            progress.event(event);
        }
        Shown::Line(step, text) => progress.output(&step.0, text),
    }
}

impl Observer for Screen {
    fn event(&mut self, event: &Event) {
        let _ = self.shown.send(Shown::Event(Box::new(event.clone())));
    }

    fn line(&mut self, _host: &str, step: &StepId, text: &str) {
        let _ = self.shown.send(Shown::Line(step.clone(), text.to_owned()));
    }
}
