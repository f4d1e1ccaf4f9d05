//! `status` and `runs`: where a run stands, and what runs there were.

use super::next::{questioned, undecided};
use super::{Next, Record, fared, gone, next_lines};
use crate::view::text::{clock, count, date_time, fold_hosts, pad, time_of_day, width};
use crate::view::{Paint, Progressed, StageView, StepState, StepView, View};
use jiff::Timestamp;
use proto::event::RunOutcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// At most so many running steps of a stage are shown.
const RUNNING: usize = 8;

/// Where a run stands. `next` are the commands that make sense now, `now` is the clock for what is still running.
pub fn status(view: &View, record: &Record, next: &[Next], now: Timestamp, color: bool) -> String {
    let paint = Paint::new(color);
    let mut text = String::new();
    let run = &view.run;
    let operator = view.lives.last().map_or(run.operator.as_str(), |life| life.operator.as_str());
    let title = format!("{} · {} · {} · by {operator}", run.id, what(view), state(view, record.driven));
    let _ = writeln!(text, "{}", paint.bold(&title));
    // Nothing is done in a run that nobody drives: its clock stands still.
    let until = run.ended.or(if record.driven == Some(false) { run.last } else { Some(now) });
    let last = run.last.map_or_else(String::new, |last| format!(" · last event {} ago", clock(now.duration_since(last))));
    let last = if run.ended.is_some() { String::new() } else { last };
    let _ = writeln!(text, "began {} UTC · {}{last}", date_time(run.started), view.took(run.started, until));
    let _ = writeln!(text, "{}", driven(view, record.driven));
    for (platform, rollback) in &record.undone {
        let line = format!("{platform} was undone by the rollback {rollback}: what was proven there is not so any more");
        let _ = writeln!(text, "{}", paint.yellow(&line));
    }
    if let Some(limit) = &run.limit {
        let _ = writeln!(text, "acts on {limit} only; other hosts are proven, not touched");
    }
    let labels = view.stages.iter().map(|stage| width(&stage.label)).max().unwrap_or(0);
    for platform in view.platforms.iter().filter(|platform| platform.selected) {
        let title = format!("{} · {} · {} -> {}", platform.name, platform.topology, platform.source, platform.target);
        let _ = writeln!(text, "\n{}", paint.bold(&title));
        for stage in view.stages_of(platform) {
            let _ = writeln!(text, "  {}", stage_line(view, stage, labels, until.unwrap_or(now), paint));
            for trouble in view.troubles(stage) {
                let hosts = fold_hosts(trouble.hosts.iter().map(|host| view.short(host)));
                let what = [hosts.as_str(), trouble.what.as_str(), trouble.message.as_str()];
                let what: Vec<&str> = what.into_iter().filter(|part| !part.is_empty()).collect();
                let _ = writeln!(text, "      {}", paint.red(&format!("✗ {}", what.join("  "))));
            }
            let running = view.steps_of(stage).iter().filter(|step| step.state == StepState::Running);
            for step in running.filter_map(|step| running_line(view, record, step, now)).take(RUNNING) {
                let _ = writeln!(text, "      {}", paint.dim(&step));
            }
            for step in view.steps_of(stage) {
                for alert in step.warnings() {
                    let line = format!("! {}  {}  {}", view.short(&step.host), step.name, alert.message);
                    let _ = writeln!(text, "      {}", if alert.ask { paint.red(&line) } else { paint.yellow(&line) });
                }
            }
        }
    }
    for known in view.interruptions.iter().filter(|known| known.until.is_none()) {
        let _ = writeln!(text, "{}", paint.red(&format!("✗ {} {} since {}", known.host, gone(known), time_of_day(known.from))));
    }
    persons(view, paint, &mut text);
    let left = run.ended.is_none() && view.lives.last().is_some_and(|life| life.ended);
    if let (true, Some((time, reason))) = (left, view.pauses.last()) {
        let _ = writeln!(text, "\npaused at {}: {reason}", time_of_day(*time));
    }
    if !next.is_empty() {
        text.push('\n');
        next_lines(next, paint, &mut text);
    }
    if !record.dir.is_empty() {
        let _ = writeln!(text, "\n{}", paint.dim(&format!("journal and output: {}", record.dir)));
    }
    text
}

/// How far a running step is, as far as that is known: an estimate from its time, and what it printed last.
fn running_line(view: &View, record: &Record, step: &StepView, now: Timestamp) -> Option<String> {
    let ran = step.started.map_or_else(String::new, |started| clock(now.duration_since(started)));
    let known = [view.estimate(step, now), record.said.get(&step.id).cloned()];
    let known = known.into_iter().flatten().collect::<Vec<_>>().join(" · ");
    (!known.is_empty()).then(|| format!("▸ {}  {}{}  {ran}  {known}", view.short(&step.host), step.name, step.nth()))
}

/// What waits for a person: gates, steps whose end nobody can tell or that must not start again unasked, questions of watchdogs.
fn persons(view: &View, paint: Paint, text: &mut String) {
    let gates = view.waiting_gates().map(|gate| format!("? {} waits for a person: {}", gate.id, gate.ask));
    let step = |step: &StepView, what: &str| format!("? {}{} {what}", step.id, step.nth());
    let steps = undecided(view).map(|known| step(known, &format!("waits for a person: {}", known.state.as_str())));
    let asked = questioned(view).map(|known| step(known, "still runs; a person decides whether it is stopped"));
    let lines: Vec<String> = gates.chain(steps).chain(asked).collect();
    if !lines.is_empty() {
        text.push('\n');
    }
    for line in lines {
        let _ = writeln!(text, "{}", paint.yellow(&line));
    }
}

/// Who drives the run, and since when.
fn driven(view: &View, driven: Option<bool>) -> String {
    let Some(life) = view.lives.last() else { return "nothing was done yet".to_owned() };
    let before = view.lives.len() - 1;
    let again = if before > 0 { format!(", after {} before it", count(before, "controller")) } else { String::new() };
    match driven {
        Some(true) => {
            let pausing = life.paused.as_ref().map_or_else(String::new, |(since, by)| {
                format!("; {by} paused it at {}: what runs may end, nothing more begins", time_of_day(*since))
            });
            format!("driven by {} since {} UTC{again}{pausing}", life.operator, date_time(life.from))
        }
        Some(false) => {
            let open = view.steps.iter().filter(|step| step.is_open()).count();
            let open = match open {
                0 => "no step was under way".to_owned(),
                n => format!("{} had been granted and may go on on the hosts", count(n, "step")),
            };
            if view.run.ended.is_some() {
                return format!("no controller drives it{again}");
            }
            if life.ended {
                return format!("no controller drives it: its operator left; {open}");
            }
            format!(
                "no controller drives it: the last one ended unexpectedly after {} UTC; {open}",
                date_time(life.until.or(life.from))
            )
        }
        None => format!("last driven by {} since {} UTC{again}", life.operator, date_time(life.from)),
    }
}

/// `migrate`, `rollback of 2026-11-22-q7`.
fn what(view: &View) -> String {
    match &view.run.undoes {
        Some(undone) => format!("{} of {undone}", view.run.command),
        None => view.run.command.clone(),
    }
}

fn stage_line(view: &View, stage: &StageView, labels: usize, now: Timestamp, paint: Paint) -> String {
    let sign = match stage.state {
        Progressed::Waiting => paint.dim("·"),
        Progressed::Running => paint.cyan("▸"),
        Progressed::Done if stage.tolerant && stage.counts.done < stage.counts.total() => paint.yellow("!"),
        Progressed::Done => paint.green("✓"),
        Progressed::Stopped => paint.red("✗"),
    };
    let total = count(stage.counts.total(), "host");
    let took = || view.took(stage.started, stage.ended.or(Some(now)));
    let rest = match stage.state {
        Progressed::Waiting => total,
        Progressed::Done if stage.tolerant && stage.counts.done < stage.counts.total() => {
            format!("{}, went on without; {}", fared(view, stage), took())
        }
        Progressed::Done => format!("{total}, {}", took()),
        Progressed::Running => {
            let counts = stage.counts;
            let parts = [(counts.running, "running"), (counts.failed, "failed"), (counts.unreachable, "out of reach")];
            let parts: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!(", {n} {word}")).collect();
            format!("{} of {total} done{parts}, for {}", counts.done, took())
        }
        Progressed::Stopped => format!("{}, after {}", fared(view, stage), took()),
    };
    format!("{sign} {}  {rest}", pad(&stage.label, labels))
}

/// A run's state in a word or two.
fn state(view: &View, driven: Option<bool>) -> &'static str {
    if view.lives.is_empty() {
        return "never began";
    }
    let left = || view.lives.last().is_some_and(|life| life.ended);
    match (view.run.outcome, driven) {
        (Some(RunOutcome::Ok), _) => "finished well",
        (Some(RunOutcome::Aborted), _) => "aborted",
        (Some(RunOutcome::Waiting), _) if view.waiting_gates().next().is_none() && undecided(view).next().is_none() => "paused",
        (Some(RunOutcome::Waiting), _) => "waits for a person",
        (Some(RunOutcome::Stopped), _) => "stopped",
        (None, Some(true)) if view.lives.last().is_some_and(|life| life.paused.is_some()) => "pausing",
        (None, Some(true)) => "running",
        (None, Some(false)) if left() => "left by its operator",
        (None, Some(false)) => "cut off",
        (None, None) => "not ended",
    }
}

/// One line of `runs`.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A run that can be read, and what is known beside it.
    Run(Box<View>, Box<Record>),
    /// A run that cannot: its id, and why.
    Unreadable(String, String),
}

/// The runs there were, in the given order.
pub fn runs(listed: &[Listed], color: bool) -> String {
    let paint = Paint::new(color);
    let mut rows: Vec<[String; 6]> = vec![["RUN", "BEGAN (UTC)", "COMMAND", "STATE", "TOOK", "PLATFORMS"].map(str::to_owned)];
    for run in listed {
        rows.push(match run {
            Listed::Run(view, record) => [
                view.run.id.clone(),
                date_time(view.run.started),
                what(view),
                match record.is_undone(view) {
                    true => "undone".to_owned(),
                    false => state(view, record.driven).to_owned(),
                },
                view.took(view.run.started, view.run.ended),
                platforms(view),
            ],
            Listed::Unreadable(id, why) => {
                [id.clone(), String::new(), String::new(), "unreadable".to_owned(), String::new(), why.clone()]
            }
        });
    }
    let mut widths = [0; 5];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    for (number, [id, began, command, state, took, platforms]) in rows.iter().enumerate() {
        let [a, b, c, d, e] = widths;
        let line =
            format!("{}  {}  {}  {}  {}  {platforms}", pad(id, a), pad(began, b), pad(command, c), pad(state, d), pad(took, e));
        let line = line.trim_end();
        let _ = writeln!(text, "{}", if number == 0 { paint.dim(line) } else { line.to_owned() });
    }
    text
}

/// `3 ok, 1 stopped`.
fn platforms(view: &View) -> String {
    let mut counts: BTreeMap<u8, (&str, usize)> = BTreeMap::new();
    for platform in view.platforms.iter().filter(|platform| platform.selected) {
        let (order, word) = match platform.outcome {
            Some(RunOutcome::Ok) => (0, "ok"),
            Some(RunOutcome::Stopped) => (1, "stopped"),
            Some(RunOutcome::Waiting) => (2, "waiting"),
            Some(RunOutcome::Aborted) => (3, "aborted"),
            None => (4, "not over"),
        };
        counts.entry(order).or_insert((word, 0)).1 += 1;
    }
    counts.values().map(|(word, number)| format!("{number} {word}")).collect::<Vec<_>>().join(", ")
}
