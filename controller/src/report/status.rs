//! `status` and `runs`: where a run stands, and what runs there were.

use super::{Record, fared, gone};
use crate::view::text::{between, clock, count, date_time, fold_hosts, pad, time_of_day, width};
use crate::view::{Paint, Progressed, StageView, View};
use jiff::Timestamp;
use proto::event::RunOutcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where a run stands. `now` is the clock for what is still running.
pub fn status(view: &View, record: &Record, now: Timestamp, color: bool) -> String {
    let paint = Paint::new(color);
    let mut text = String::new();
    let run = &view.run;
    let _ = writeln!(text, "{}", paint.bold(&format!("{} · {} · {} · by {}", run.id, run.command, state(view), run.operator)));
    let until = run.ended.or(Some(now));
    let last = run.last.map_or_else(String::new, |last| format!(" · last event {} ago", clock(now.duration_since(last))));
    let last = if run.ended.is_some() { String::new() } else { last };
    let _ = writeln!(text, "began {} UTC · {}{last}", date_time(run.started), between(run.started, until));
    if let Some(limit) = &run.limit {
        let _ = writeln!(text, "acts on {limit} only; other hosts are proven, not touched");
    }
    let labels = view.stages.iter().map(|stage| width(&stage.label)).max().unwrap_or(0);
    for platform in &view.platforms {
        let title = format!("{} · {} · {} -> {}", platform.name, platform.topology, platform.source, platform.target);
        let _ = writeln!(text, "\n{}", paint.bold(&title));
        for stage in view.stages_of(platform) {
            let _ = writeln!(text, "  {}", stage_line(view, stage, labels, now, paint));
            for trouble in view.troubles(stage) {
                let hosts = fold_hosts(trouble.hosts.iter().map(|host| view.short(host)));
                let what = [hosts.as_str(), trouble.what.as_str(), trouble.message.as_str()];
                let what: Vec<&str> = what.into_iter().filter(|part| !part.is_empty()).collect();
                let _ = writeln!(text, "      {}", paint.red(&format!("✗ {}", what.join("  "))));
            }
        }
    }
    for gate in view.waiting_gates() {
        let _ = writeln!(text, "\n{}", paint.yellow(&format!("? {} waits for a person: {}", gate.id, gate.ask)));
    }
    for known in view.interruptions.iter().filter(|known| known.until.is_none()) {
        let _ = writeln!(text, "{}", paint.red(&format!("✗ {} {} since {}", known.host, gone(known), time_of_day(known.from))));
    }
    if let (false, Some((time, reason))) = (run.ended.is_some(), view.pauses.last()) {
        let _ = writeln!(text, "paused at {}: {reason}", time_of_day(*time));
    }
    if !record.dir.is_empty() {
        let _ = writeln!(text, "\n{}", paint.dim(&format!("journal and output: {}", record.dir)));
    }
    text
}

fn stage_line(view: &View, stage: &StageView, labels: usize, now: Timestamp, paint: Paint) -> String {
    let sign = match stage.state {
        Progressed::Waiting => paint.dim("·"),
        Progressed::Running => paint.cyan("▸"),
        Progressed::Done => paint.green("✓"),
        Progressed::Stopped => paint.red("✗"),
    };
    let total = count(stage.counts.total(), "host");
    let took = || between(stage.started, stage.ended.or(Some(now)));
    let rest = match stage.state {
        Progressed::Waiting => total,
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
fn state(view: &View) -> &'static str {
    match (view.run.outcome, view.run.ended.is_some()) {
        (Some(RunOutcome::Ok), _) => "finished well",
        (Some(RunOutcome::Stopped), _) => "stopped",
        (Some(RunOutcome::Waiting), _) => "waits for a person",
        (Some(RunOutcome::Aborted), _) => "aborted",
        (None, _) => "not ended",
    }
}

/// One line of `runs`.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A run that can be read.
    Run(Box<View>),
    /// A run that cannot: its id, and why.
    Unreadable(String, String),
}

/// The runs there were, in the given order.
pub fn runs(listed: &[Listed], color: bool) -> String {
    let paint = Paint::new(color);
    let mut rows: Vec<[String; 6]> = vec![["RUN", "BEGAN (UTC)", "COMMAND", "STATE", "TOOK", "PLATFORMS"].map(str::to_owned)];
    for run in listed {
        rows.push(match run {
            Listed::Run(view) => [
                view.run.id.clone(),
                date_time(view.run.started),
                view.run.command.clone(),
                state(view).to_owned(),
                between(view.run.started, view.run.ended),
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
    for platform in &view.platforms {
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
