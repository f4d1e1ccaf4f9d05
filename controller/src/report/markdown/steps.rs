//! Steps and times in the report: each attempt, what watchdogs noticed, what took long, and the timeline.

use super::{heading, md, table};
use crate::plan::Phase;
use crate::view::text::{date_time, duration, pad, time_of_day, width};
use crate::view::{Attempt, PlatformView, Progressed, StageView, StepState, StepView, View};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// How many columns the bars of the timeline take.
const TIMELINE: usize = 60;
/// How many of the longest steps are listed.
const LONGEST: usize = 5;

/// What watchdogs noticed, whatever became of the steps.
pub(super) fn alerts(out: &mut String, view: &View, platform: &PlatformView) {
    let steps = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage));
    let rows: Vec<Vec<String>> = steps
        .flat_map(|step| step.alerts.iter().map(move |alert| (step, alert)))
        .map(|(step, alert)| {
            let message = if alert.ask { format!("{} (a person was asked)", alert.message) } else { alert.message.clone() };
            let host = view.short(&step.host).to_owned();
            vec![date_time(alert.time), host, step.name.clone(), alert.attempt.to_string(), message]
        })
        .collect();
    if !rows.is_empty() {
        heading(out, 3, "What watchdogs noticed");
        table(out, &["When (UTC)", "Host", "Step", "Attempt", "What"], rows);
    }
}

pub(super) fn steps(out: &mut String, view: &View, platform: &PlatformView) {
    heading(out, 3, "Steps");
    let begun = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage).iter().map(move |step| (stage, step)));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (stage, step) in begun.filter(|(_, step)| step.attempt > 0 || step.settled()) {
        // A step that is to be started again has nothing to say beside its earlier attempts.
        let newest = step.earlier.last().is_none_or(|known| known.number < step.attempt);
        rows.extend(step.earlier.iter().map(|known| earlier(view, stage, step, known)));
        if newest {
            rows.push(attempt(view, stage, step));
        }
    }
    if rows.is_empty() {
        out.push_str("None was begun.\n");
        return;
    }
    table(out, &["Stage", "Host", "Step", "Attempt", "Outcome", "Began (UTC)", "Took", "Exit", "Message"], rows);
    out.push_str("\n◆ one-way: only a backup brings the state before it back.\n");
}

/// The newest attempt at a step.
fn attempt(view: &View, stage: &StageView, step: &StepView) -> Vec<String> {
    let mut outcome = step.state.as_str().to_owned();
    let notes = [
        (step.prove, " (proof only)"),
        (step.accepted.is_some(), " (accepted)"),
        (step.died, " (ended from outside)"),
        (step.assumed, " (assumed: its host stayed away)"),
    ];
    notes.iter().filter(|(applies, _)| *applies).for_each(|(_, note)| outcome.push_str(note));
    let code = step.exit_code.map_or_else(String::new, |code| code.to_string());
    let rest = [step.attempt.to_string(), outcome, date_time(step.started), took(step), code, step.message.clone()];
    whose(view, stage, step).into_iter().chain(rest).collect()
}

/// An attempt that another one followed.
fn earlier(view: &View, stage: &StageView, step: &StepView, known: &Attempt) -> Vec<String> {
    let outcome = format!("{}{}", known.outcome(), if known.died { " (ended from outside)" } else { "" });
    let code = known.exit_code.map_or_else(String::new, |code| code.to_string());
    let took = if matches!(known.state, StepState::Ended(_)) { millis(known.duration_ms) } else { "–".to_owned() };
    let rest = [known.number.to_string(), outcome, date_time(known.started), took, code, known.message.clone()];
    whose(view, stage, step).into_iter().chain(rest).collect()
}

fn whose(view: &View, stage: &StageView, step: &StepView) -> [String; 3] {
    let short = view.short(&step.host);
    let host = step.instance.as_ref().map_or_else(|| short.to_owned(), |instance| format!("{short}:{instance}"));
    let one_way = if step.reversibility == crate::plan::Reversibility::OneWay { " ◆" } else { "" };
    [stage.label.clone(), host, format!("{}{one_way}", step.name)]
}

fn millis(milliseconds: u64) -> String {
    duration(SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX)))
}

pub(super) fn took(step: &StepView) -> String {
    match step.state {
        StepState::Ended(_) => millis(step.duration_ms),
        _ => "–".to_owned(),
    }
}

pub(super) fn timings(out: &mut String, view: &View, platform: &PlatformView) {
    let mut steps: Vec<&StepView> = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage)).collect();
    steps.retain(|step| step.duration_ms > 0);
    steps.sort_by_key(|step| std::cmp::Reverse(step.duration_ms));
    if steps.is_empty() {
        return;
    }
    heading(out, 3, "Timings");
    let phases = platform.phases.iter().filter(|phase| phase.started.is_some());
    let phases: Vec<String> = phases.map(|phase| format!("{} {}", phase.name, view.took(phase.started, phase.ended))).collect();
    let _ = writeln!(out, "Phases: {}.\n\nLongest steps:\n", phases.join(" · "));
    for step in steps.iter().take(LONGEST) {
        let _ = writeln!(out, "- {} {} {}", took(step), md(view.short(&step.host)), md(&step.name));
    }
}

/// A bar for each stage that began, over the time of the run.
pub(super) fn timeline(out: &mut String, view: &View) {
    let (Some(start), Some(end)) = (view.run.started, view.run.ended.or(view.run.last)) else {
        out.push_str("Nothing was begun.\n");
        return;
    };
    let whole = end.duration_since(start).as_millis().max(1);
    let column = |time: Timestamp| {
        let at = time.duration_since(start).as_millis().clamp(0, whole) * TIMELINE as i128 / whole;
        usize::try_from(at).unwrap_or(0)
    };
    // Work stood still, as far as anybody knows, while no controller drove the run.
    let gaps: Vec<(usize, usize)> = view.gaps().map(|(left, back)| (column(left), column(back))).collect();
    let dotted = |mark: &str, from: usize, until: usize| -> String {
        (from..until).map(|at| if gaps.iter().any(|(left, back)| (*left..*back).contains(&at)) { "·" } else { mark }).collect()
    };
    let begun: Vec<&StageView> = view.stages.iter().filter(|stage| stage.started.is_some()).collect();
    let name = |stage: &StageView| view.platforms.get(stage.platform).map_or("", |platform| platform.name.as_str());
    let names = begun.iter().map(|stage| width(name(stage))).max().unwrap_or(0);
    let labels = begun.iter().map(|stage| width(&stage.label)).max().unwrap_or(0);
    out.push_str("```text\n");
    for stage in begun {
        let from = column(stage.started.unwrap_or(start));
        let until = column(stage.ended.unwrap_or(end)).max(from + 1);
        let mark = match (stage.state, stage.phase_name) {
            (Progressed::Stopped, _) => "✗",
            (_, Phase::Preflight | Phase::Verify) => "░",
            _ => "█",
        };
        let bar = format!("{}{}", " ".repeat(from), dotted(mark, from, until));
        let times = format!("{} {}", time_of_day(stage.started), view.took(stage.started, stage.ended));
        let _ = writeln!(out, "{} {} |{}| {times}", pad(name(stage), names), pad(&stage.label, labels), pad(&bar, TIMELINE + 1));
    }
    out.push_str("```\n");
    let _ = writeln!(out, "\nFrom {} to {} UTC.", date_time(Some(start)), date_time(Some(end)));
    for (left, back) in view.gaps() {
        let gone = duration(back.duration_since(left));
        let _ = writeln!(
            out,
            "No controller drove the run from {} to {} UTC ({gone}, dotted): not counted as work.",
            date_time(Some(left)),
            date_time(Some(back))
        );
    }
}
