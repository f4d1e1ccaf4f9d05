//! What the board shows: a pure function of the view, the last lines of output, the time and the terminal's size.

use crate::view::text::{clock, count, fit, last_line, pad, width};
use crate::view::{HostState, HostView, Paint, Progressed, StageView, StepView, Trouble, TroubleKind, View};
use jiff::{SignedDuration, Timestamp};
use proto::event::RunOutcome;
use proto::{Event, Kind};
use std::collections::HashMap;

/// At most so many active hosts of a stage are shown, however tall the terminal is.
const ACTIVE: usize = 8;
/// At most so many errors of a stage are shown.
const TROUBLES: usize = 6;
/// At most so many waiting gates and warnings are shown.
const GATES: usize = 4;
/// A step that has printed nothing for so many seconds is said to be silent.
const SILENT_S: i64 = 60;

/// The last line that each running step printed, and when.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    lines: HashMap<String, (String, Timestamp)>,
}

impl Outputs {
    pub(super) fn note(&mut self, step: &str, output: &str, now: Timestamp) {
        if let Some(line) = last_line(output) {
            self.lines.insert(step.to_owned(), (line, now));
        }
    }

    /// Drops the line of a step that is over.
    pub(super) fn forget(&mut self, event: &Event) {
        if let (Kind::StepFinished { .. }, Some(step)) = (&event.kind, &event.scope.step) {
            self.lines.remove(step);
        }
    }
}

/// Everything that the board is made from.
pub(super) struct Board<'a> {
    pub(super) view: &'a View,
    pub(super) outputs: &'a Outputs,
    pub(super) paint: Paint,
    pub(super) now: Timestamp,
}

/// What a stage would like to show below its bar.
struct Wish<'a> {
    stage: &'a StageView,
    troubles: Vec<Trouble>,
    active: Vec<(&'a HostView, &'a StepView)>,
    given: usize,
}

impl Wish<'_> {
    fn wanted(&self) -> usize {
        self.troubles.len().min(TROUBLES) + self.active.len().min(ACTIVE) + usize::from(self.hides())
    }

    fn hides(&self) -> bool {
        self.troubles.len() > TROUBLES || self.active.len() > ACTIVE
    }
}

impl Board<'_> {
    /// The lines of the board; fewer than `rows`, each narrower than `columns`.
    pub(super) fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let columns = columns.saturating_sub(1).max(1);
        // The cursor stands on the line below the board.
        let mut room = rows.saturating_sub(1).max(1);
        let mut lines = Vec::new();
        let foot = self.foot(columns);
        room -= 1;
        let gates: Vec<String> = self.alerts(columns).chain(self.gates(columns)).take(room.min(GATES)).collect();
        room -= gates.len();

        let mut wishes = self.wishes();
        let hidden = wishes.len().saturating_sub(room);
        if hidden > 0 {
            // One more line goes to the note that stages are hidden; those in trouble stay.
            wishes.sort_by_key(|wish| wish.troubles.is_empty());
            wishes.truncate(room.saturating_sub(1));
        }
        let more = usize::from(hidden > 0 && room > 0);
        self.share(&mut wishes, room.saturating_sub(more));
        let names =
            wishes.iter().filter_map(|wish| self.view.platforms.get(wish.stage.platform)).map(|platform| width(&platform.name));
        let name_width = names.max().unwrap_or(0).clamp(4, 14);
        let label_width = wishes.iter().map(|wish| width(&wish.stage.label)).max().unwrap_or(0).clamp(8, 20);
        for wish in &wishes {
            lines.push(self.bar(wish.stage, name_width, label_width, columns));
            self.details(wish, columns, &mut lines);
        }
        if more > 0 {
            let running = self.running().count() - wishes.len();
            lines.push(self.paint.dim(&fit(&format!("… and {} more running", count(running, "stage")), columns)));
        }
        lines.extend(gates);
        lines.push(foot);
        lines
    }

    fn running(&self) -> impl Iterator<Item = &StageView> {
        self.view.stages.iter().filter(|stage| stage.state == Progressed::Running)
    }

    fn wishes(&self) -> Vec<Wish<'_>> {
        let wish = |stage| {
            let mut active: Vec<(&HostView, &StepView)> = self.active(stage).collect();
            // The slowest first: it is what everybody waits for.
            active.sort_by_key(|(_, step)| step.started);
            Wish { stage, troubles: self.view.troubles(stage), active, given: 0 }
        };
        self.running().map(wish).collect()
    }

    fn active<'a>(&'a self, stage: &'a StageView) -> impl Iterator<Item = (&'a HostView, &'a StepView)> {
        let running = stage.hosts.iter().filter(|host| host.state == HostState::Running);
        running.filter_map(|host| Some((host, self.view.steps.get(host.current?)?)))
    }

    /// Gives the lines that are left to the stages, one by one, so that no stage takes them all.
    fn share(&self, wishes: &mut [Wish<'_>], room: usize) {
        let mut left = room.saturating_sub(wishes.len());
        loop {
            let before = left;
            for wish in wishes.iter_mut() {
                if left > 0 && wish.given < wish.wanted() {
                    wish.given += 1;
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
    }

    fn bar(&self, stage: &StageView, name_width: usize, label_width: usize, columns: usize) -> String {
        let paint = self.paint;
        let counts = stage.counts;
        let platform = self.view.platforms.get(stage.platform).map_or("", |platform| platform.name.as_str());
        let head = format!("{} {} ", pad(platform, name_width), pad(&stage.label, label_width));
        let done = format!("{}/{}", counts.done, counts.total());
        let parts = [(counts.running, "running"), (counts.failed, "failed"), (counts.unreachable, "away")];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let tail = format!(" {} {}", pad(&done, 7), parts.join(" · "));
        let elapsed = self.view.worked(stage.started, stage.ended.or(Some(self.now))).map_or_else(String::new, clock);
        let fixed = width(&head) + width(&tail) + width(&elapsed) + 1;
        let bar = columns.saturating_sub(fixed).min(24);
        if bar < 4 {
            return fit(&format!("{head}{} {} {elapsed}", done, parts.join(" · ")), columns).into_owned();
        }
        let gap = " ".repeat(columns - fixed - bar + 1);
        let filled = filled(counts.done, counts.total(), bar);
        let (full, rest) = ("━".repeat(filled), "─".repeat(bar - filled));
        let full = if counts.failed + counts.unreachable > 0 { paint.red(&full) } else { paint.green(&full) };
        format!("{}{full}{}{tail}{gap}{}", paint.bold(&head), paint.dim(&rest), paint.dim(&elapsed))
    }

    fn details(&self, wish: &Wish<'_>, columns: usize, lines: &mut Vec<String>) {
        let all = wish.troubles.len() + wish.active.len();
        // A single line is better spent on a host than on the number of those that are not shown.
        let shown = if wish.given > 1 && (wish.given < all || wish.hides()) { wish.given - 1 } else { wish.given };
        // Errors come first when room is short, but one line is kept for what still runs.
        let kept = usize::from(!wish.active.is_empty() && shown > 1);
        let troubles = wish.troubles.len().min(TROUBLES).min(shown - kept.min(shown));
        let active = wish.active.len().min(ACTIVE).min(shown - troubles);
        let hosts = wish.active.iter().take(active).map(|(host, _)| width(self.view.short(&host.name)));
        let host_width = hosts.max().unwrap_or(0).clamp(5, 24);
        let names = wish.active.iter().take(active).map(|(_, step)| width(&step.name));
        let name_width = names.max().unwrap_or(0).clamp(8, 24);
        for (host, step) in wish.active.iter().take(active) {
            lines.push(self.active_line(host, step, host_width, name_width, columns));
        }
        for trouble in wish.troubles.iter().take(troubles) {
            lines.push(self.paint.red(&fit(&format!("    ✗ {}", trouble_line(self.view, trouble)), columns)));
        }
        if wish.given > 1 && troubles + active < all {
            let hidden = [(wish.active.len() - active, "running"), (wish.troubles.len() - troubles, "other errors")];
            let hidden: Vec<String> = hidden.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} more {word}")).collect();
            lines.push(self.paint.dim(&fit(&format!("      … {}", hidden.join(", ")), columns)));
        }
    }

    fn active_line(&self, host: &HostView, step: &StepView, host_width: usize, name_width: usize, columns: usize) -> String {
        let since = step.started.map_or(SignedDuration::ZERO, |started| self.now.duration_since(started));
        let host = pad(self.view.short(&host.name), host_width);
        let head = format!("      {host}  {}  {:>7}  ", pad(&step.name, name_width), clock(since));
        let said = match self.outputs.lines.get(&step.id) {
            Some((line, at)) if self.now.duration_since(*at).as_secs() >= SILENT_S => {
                format!("(silent for {}) {line}", clock(self.now.duration_since(*at)))
            }
            Some((line, _)) => line.clone(),
            None => step.instance.clone().unwrap_or_default(),
        };
        let said = match self.view.estimate(step, self.now) {
            Some(estimate) if said.is_empty() => estimate,
            Some(estimate) => format!("{estimate} · {said}"),
            None => said,
        };
        let said = if step.attempt > 1 { format!("(attempt {}) {said}", step.attempt) } else { said };
        let head = fit(&head, columns);
        let said = fit(&said, columns.saturating_sub(width(&head))).into_owned();
        format!("{head}{}", self.paint.dim(&said)).trim_end().to_owned()
    }

    /// What watchdogs noticed about steps that still run; those that ask a person first.
    fn alerts(&self, columns: usize) -> impl Iterator<Item = String> {
        let mut alerts: Vec<(bool, String)> = Vec::new();
        let current = self.running().flat_map(|stage| &stage.hosts).filter_map(|host| host.current);
        for step in current.filter_map(|at| self.view.steps.get(at)) {
            if let Some(alert) = step.warnings().last() {
                let ask = if alert.ask { " (stop it? `caravan retry`)" } else { "" };
                let line = format!("! {} {}: {}{ask}", self.view.short(&step.host), step.name, alert.message);
                let line = fit(&line, columns).into_owned();
                alerts.push((alert.ask, if alert.ask { self.paint.red(&line) } else { self.paint.yellow(&line) }));
            }
        }
        alerts.sort_by_key(|(ask, _)| !ask);
        alerts.into_iter().map(|(_, line)| line)
    }

    fn gates(&self, columns: usize) -> impl Iterator<Item = String> {
        let line = move |gate: &crate::view::GateView| {
            let since = gate.since.map_or_else(String::new, |since| format!(" ({})", clock(self.now.duration_since(since))));
            self.paint.yellow(&fit(&format!("? {} waits for a person{since}: {}", gate.id, gate.ask), columns))
        };
        self.view.waiting_gates().map(line)
    }

    fn foot(&self, columns: usize) -> String {
        let run = &self.view.run;
        let selected = || self.view.platforms.iter().filter(|platform| platform.selected);
        let total = selected().count();
        let over =
            |outcome: Option<RunOutcome>| matches!(outcome, Some(RunOutcome::Ok | RunOutcome::Stopped | RunOutcome::Aborted));
        let over = selected().filter(|platform| over(platform.outcome)).count();
        let elapsed = self.view.worked(run.started, Some(self.now)).map_or_else(String::new, clock);
        let away = self.view.interruptions.iter().filter(|gone| gone.until.is_none()).count();
        let away = if away > 0 { format!(" · {} out of reach", count(away, "host")) } else { String::new() };
        let text = format!("{} {} · {over} of {} over{away} · {elapsed}", run.command, run.id, count(total, "platform"));
        self.paint.dim(&fit(&text, columns))
    }
}

/// How much of a bar is full: never all of it before everything is done.
fn filled(done: usize, total: usize, columns: usize) -> usize {
    match total {
        0 => 0,
        _ if done >= total => columns,
        _ => (done * columns / total).min(columns - 1),
    }
}

/// An error in one line: whom it hit, in what, and what was seen.
pub(super) fn trouble_line(view: &View, trouble: &Trouble) -> String {
    let hosts = match trouble.hosts.as_slice() {
        [] => String::new(),
        [one] => format!("{} ", view.short(one)),
        many => format!("{}: same error: ", count(many.len(), "host")),
    };
    match trouble.kind {
        TroubleKind::Unreachable => format!("{hosts}{}", trouble.message),
        TroubleKind::Step | TroubleKind::Finding => format!("{hosts}{}: {}", trouble.what, trouble.message),
    }
}
