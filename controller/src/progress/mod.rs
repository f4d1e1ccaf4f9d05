//! The live display of a run. Like every report it reads the [`View`] alone.
//!
//! On a terminal a board shows a bar for each running stage and a few lines for its slow and failing hosts, never more than the
//! terminal has rows; what is over scrolls up as plain lines. Elsewhere there are plain lines only.

mod board;
mod narrate;

use crate::plan::{Expected, Plan};
use crate::view::{Paint, View};
use board::{Board, Outputs};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use jiff::{SignedDuration, Timestamp};
use narrate::Narrator;
use proto::Event;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The board is drawn again at most this often.
const REDRAW: SignedDuration = SignedDuration::from_millis(100);
/// The board is drawn again at least this often, so that clocks run.
const TICK: Duration = Duration::from_millis(500);

/// How a run is displayed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether there may be colour on standard error.
    pub color: bool,
    /// -1: errors only; 0: normal; 1 and more: a line for each step that ended well, too.
    pub verbosity: i8,
    /// Whether standard error is a terminal.
    pub terminal: bool,
}

/// What is written to.
enum Target {
    Board { lines: MultiProgress, bar: ProgressBar, size: Box<dyn Fn() -> (usize, usize) + Send> },
    Lines(Box<dyn Write + Send>),
}

/// The live display of one run. Clones are the same display.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
    /// Ends the ticker when the last clone is gone.
    _ticker: Arc<Ticker>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    view: View,
    narrator: Narrator,
    outputs: Outputs,
    paint: Paint,
    target: Target,
    now: Box<dyn Fn() -> Timestamp + Send>,
    drawn: Option<Timestamp>,
    /// While a prompt has the terminal, lines wait here.
    suspended: Option<Vec<String>>,
    finished: bool,
}

struct Ticker(Arc<Shared>);

impl Drop for Ticker {
    fn drop(&mut self) {
        Progress::end(&mut lock(&self.0));
        self.0.wake.notify_all();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    // A panic elsewhere must not take the display of a running migration down.
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// The display of a run of this plan on standard error.
    pub fn new(plan: &Plan, options: Options) -> Self {
        let target = if options.terminal && options.verbosity >= 0 {
            Self::board(ProgressDrawTarget::stderr(), Box::new(stderr_size))
        } else {
            Target::Lines(Box::new(std::io::stderr()))
        };
        let ticks = matches!(target, Target::Board { .. });
        let progress = Self::build(plan, options, target, Box::new(Timestamp::now));
        if ticks {
            let shared = Arc::clone(&progress.shared);
            // Without the thread clocks stand still between events: no reason to fail.
            let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || tick(&shared));
        }
        progress
    }

    /// How long steps are expected to take.
    pub fn expect(&self, expected: Expected) {
        lock(&self.shared).view.expected = expected;
    }

    /// Takes in what happened before, without showing it.
    pub fn catch_up(&self, events: &[Event]) {
        let mut state = lock(&self.shared);
        events.iter().for_each(|event| state.view.apply(event));
    }

    /// The display on another terminal, with another clock: for tests.
    pub fn on_terminal<T: TermLike + Clone + Send + 'static>(
        plan: &Plan,
        options: Options,
        terminal: T,
        now: impl Fn() -> Timestamp + Send + 'static,
    ) -> Self {
        let measured = terminal.clone();
        let size = Box::new(move || (measured.width().into(), measured.height().into()));
        let target = Self::board(ProgressDrawTarget::term_like(Box::new(terminal)), size);
        Self::build(plan, options, target, Box::new(now))
    }

    /// Plain lines to another place than standard error.
    pub fn to_lines(plan: &Plan, options: Options, out: impl Write + Send + 'static) -> Self {
        Self::build(plan, options, Target::Lines(Box::new(out)), Box::new(Timestamp::now))
    }

    fn board(target: ProgressDrawTarget, size: Box<dyn Fn() -> (usize, usize) + Send>) -> Target {
        let lines = MultiProgress::with_draw_target(target);
        // One bar whose message is the whole board: it is drawn at once, never in halves.
        let bar = lines.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Target::Board { lines, bar, size }
    }

    fn build(plan: &Plan, options: Options, target: Target, now: Box<dyn Fn() -> Timestamp + Send>) -> Self {
        let paint = Paint::new(options.color);
        let board = matches!(target, Target::Board { .. });
        let state = State {
            view: View::new(plan),
            narrator: Narrator::new(board, options.verbosity, paint),
            outputs: Outputs::default(),
            paint,
            target,
            now,
            drawn: None,
            suspended: None,
            finished: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        Self { _ticker: Arc::new(Ticker(Arc::clone(&shared))), shared }
    }

    /// Shows an event.
    pub fn event(&self, event: &Event) {
        let mut state = lock(&self.shared);
        let state = &mut *state;
        state.view.apply(event);
        state.outputs.forget(event);
        let lines = state.narrator.tell(&state.view, event);
        state.print(lines);
        state.refresh(false);
    }

    /// Takes note of what a step (by its id) prints; the last line is shown beside the step while it runs.
    pub fn output(&self, step: &str, output: &str) {
        let mut state = lock(&self.shared);
        let now = (state.now)();
        let state = &mut *state;
        if matches!(state.target, Target::Board { .. }) {
            state.outputs.note(step, output, now);
            state.refresh(false);
        }
    }

    /// Prints a line above the board (or as it is, where there is none): for logs.
    pub fn println(&self, line: &str) {
        lock(&self.shared).print(vec![line.to_owned()]);
    }

    /// Draws the board now, however short ago it was drawn.
    pub fn refresh(&self) {
        lock(&self.shared).refresh(true);
    }

    /// Gives the terminal to `f`, for a prompt. Events that come meanwhile are kept and shown afterwards.
    pub fn suspend<R>(&self, f: impl FnOnce() -> R) -> R {
        {
            let mut state = lock(&self.shared);
            state.suspended.get_or_insert_default();
            if let Target::Board { lines, .. } = &state.target {
                let _ = lines.clear();
            }
        }
        // No lock is held here: a person may take an hour to answer, and the run goes on.
        let result = f();
        let mut state = lock(&self.shared);
        let kept = state.suspended.take().unwrap_or_default();
        state.print(kept);
        state.refresh(true);
        result
    }

    /// Takes the board away. What follows (the summary) has the terminal for itself.
    pub fn finish(&self) {
        Self::end(&mut lock(&self.shared));
        self.shared.wake.notify_all();
    }

    fn end(state: &mut State) {
        if !std::mem::replace(&mut state.finished, true) {
            let lines = state.narrator.rest(&state.view);
            state.print(lines);
            if let Target::Board { bar, .. } = &state.target {
                bar.finish_and_clear();
            }
        }
    }

    /// What is known of the run so far.
    pub fn view(&self) -> View {
        lock(&self.shared).view.clone()
    }
}

impl State {
    fn print(&mut self, lines: Vec<String>) {
        if let Some(kept) = &mut self.suspended {
            kept.extend(lines);
            return;
        }
        for line in lines {
            // Standard error can be closed or full; a migration goes on without its display.
            let _ = match &mut self.target {
                Target::Board { lines, .. } => lines.println(line),
                Target::Lines(out) => writeln!(out, "{line}"),
            };
        }
    }

    fn refresh(&mut self, force: bool) {
        let now = (self.now)();
        // A clock that was set back must not stop the display.
        let due = force || self.drawn.is_none_or(|drawn| now.duration_since(drawn).abs() >= REDRAW);
        let Target::Board { bar, size, .. } = &self.target else { return };
        if self.finished || self.suspended.is_some() || !due {
            return;
        }
        let (columns, rows) = (size)();
        let board = Board { view: &self.view, outputs: &self.outputs, paint: self.paint, now };
        bar.set_message(board.lines(columns, rows).join("\n"));
        self.drawn = Some(now);
    }
}

fn tick(shared: &Shared) {
    let mut state = lock(shared);
    while !state.finished {
        state = shared.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        state.refresh(true);
    }
}

/// Columns and rows of the terminal on standard error.
fn stderr_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
