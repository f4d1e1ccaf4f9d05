//! The end screen: what happened, what did not, and the next command.

use super::{Next, Record, accepted, fared, halted, left_behind, log, next_lines, untouched};
use crate::view::text::{count, duration, fit, fold_hosts};
use crate::view::{Paint, PlatformView, Progressed, StageView, Trouble, TroubleKind, View};
use jiff::SignedDuration;
use proto::event::RunOutcome;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Messages longer than this are cut on screens; reports have them whole.
const MESSAGE: usize = 400;

/// The end screen of a run. `next` are the commands that make sense now; the caller knows which exist.
pub fn summary(view: &View, record: &Record, next: &[Next], color: bool) -> String {
    let paint = Paint::new(color);
    let mut text = String::new();
    for platform in view.platforms.iter().filter(|platform| platform.selected) {
        let _ = writeln!(text, "{}", headline(view, platform, paint));
        details(view, record, platform, paint, &mut text);
    }
    for breach in &view.breaches {
        let warning = format!("‼ {} began before {} was wholly proven", breach.step, breach.before);
        let _ = writeln!(text, "{}", paint.red(&warning));
    }
    if let Some(chain) = &record.chain {
        let damage = chain.damage.map(|damage| damage.to_string());
        for warning in damage.into_iter().chain(chain.hosts.accusation()) {
            let _ = writeln!(text, "{}", paint.red(&format!("‼ the journal: {warning}")));
        }
    }
    if !next.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    next_lines(next, paint, &mut text);
    text
}

/// What became of a platform, in a line.
fn headline(view: &View, platform: &PlatformView, paint: Paint) -> String {
    let name = paint.bold(&platform.name);
    let stage = halted(view, platform);
    match (platform.outcome, stage) {
        (Some(RunOutcome::Ok), _) => {
            let hosts: BTreeSet<&str> =
                view.stages_of(platform).iter().flat_map(|stage| &stage.hosts).map(|host| host.name.as_str()).collect();
            let steps: usize = view.stages_of(platform).iter().flat_map(|stage| &stage.hosts).map(|host| host.proven).sum();
            let accepted = accepted(view, platform).count();
            let accepted =
                if accepted > 0 { format!(", {} accepted without proof", count(accepted, "step")) } else { String::new() };
            let took = view.took(platform.started, platform.ended);
            format!(
                "{} {name} finished well after {took}: {}, {} proven{accepted}.",
                paint.green("✓"),
                count(hosts.len(), "host"),
                count(steps, "step")
            )
        }
        // It was not begun: why, is all there is to say.
        (Some(RunOutcome::Waiting), None) if !platform.message.is_empty() => {
            format!("{} {name} waits: {}", paint.yellow("?"), platform.message)
        }
        (Some(RunOutcome::Waiting), stage) => {
            let place = stage.map_or_else(String::new, |stage| format!(" in {}", stage.label));
            format!("{} {name} waits for a person{place}.{}", paint.yellow("?"), rest(view, stage))
        }
        (Some(RunOutcome::Stopped), Some(stage)) => {
            format!("{} {name} stopped in {}: {}.{}", paint.red("✗"), stage.label, fared(view, stage), rest(view, Some(stage)))
        }
        (Some(RunOutcome::Stopped), None) => format!("{} {name} stopped: {}", paint.red("✗"), platform.message),
        (Some(RunOutcome::Aborted), _) => format!("{} {name} was aborted.{}", paint.red("✗"), rest(view, stage)),
        (None, Some(stage)) => format!("{} {name} is in {}: {}.", paint.cyan("…"), stage.label, fared(view, stage)),
        (None, None) => match view.stages_of(platform).iter().rev().find(|stage| stage.state == Progressed::Done) {
            Some(last) => format!("{} {name} stands behind {}.", paint.cyan("…"), last.label),
            None => format!("{} {name} was not started.", paint.dim("·")),
        },
    }
}

fn rest(view: &View, stage: Option<&StageView>) -> String {
    let Some(stage) = stage else { return String::new() };
    match (stage.phase_name, untouched(view, stage)) {
        (crate::plan::Phase::Preflight, Some(_)) => " Nothing was touched.".to_owned(),
        (_, Some(next)) => format!(" Nothing of `{next}` was started."),
        (_, None) => String::new(),
    }
}

fn details(view: &View, record: &Record, platform: &PlatformView, paint: Paint, text: &mut String) {
    let before = text.len();
    let troubles = left_behind(view, platform).chain(halted(view, platform)).flat_map(|stage| view.troubles(stage));
    let names: Vec<(String, Trouble)> = troubles.map(|trouble| (who(view, &trouble), trouble)).collect();
    let width = names.iter().map(|(who, _)| who.chars().count()).max().unwrap_or(0);
    for (who, trouble) in &names {
        self::trouble(view, record, who, width, trouble, paint, text);
    }
    for gate in view
        .waiting_gates()
        .filter(|gate| gate.platform.and_then(|at| view.platforms.get(at)).is_some_and(|p| p.name == platform.name))
    {
        let _ = writeln!(text, "\n  {}  {}", paint.yellow(&gate.id), gate.ask);
    }
    if text.len() > before {
        text.push('\n');
    }
}

fn who(view: &View, trouble: &Trouble) -> String {
    match trouble.hosts.as_slice() {
        [] => String::new(),
        [one] => view.short(one).to_owned(),
        many => count(many.len(), "host"),
    }
}

fn trouble(view: &View, record: &Record, who: &str, width: usize, trouble: &Trouble, paint: Paint, text: &mut String) {
    let step = trouble.step.and_then(|at| view.steps.get(at));
    // A check that is about a whole platform names no host.
    let who = if width == 0 { String::new() } else { format!("{who:width$}  ") };
    let indent = " ".repeat(2 + who.chars().count());
    let what = match (trouble.kind, step) {
        (TroubleKind::Unreachable, _) => String::new(),
        (TroubleKind::Step, Some(step)) => {
            let took = duration(SignedDuration::from_millis(i64::try_from(step.duration_ms).unwrap_or(i64::MAX)));
            let how = step.exit_code.map_or_else(|| step.state.as_str().to_owned(), |code| format!("exit {code}"));
            let died = if step.died { ", ended from outside," } else { "" };
            format!("{}{}  {how}{died} after {took}   ", trouble.what, step.nth())
        }
        _ => format!("{}  ", trouble.what),
    };
    let _ = writeln!(text, "\n  {who}{}{}", paint.red(&what), fit(&trouble.message, MESSAGE));
    if trouble.hosts.len() > 1 {
        let _ = writeln!(text, "{indent}same error on {}", fold_hosts(trouble.hosts.iter().map(|host| view.short(host))));
    }
    for id in trouble.findings.iter().take(3) {
        let _ = writeln!(text, "{indent}{}", paint.dim(id));
    }
    if !trouble.remedy.is_empty() {
        let _ = writeln!(text, "{indent}to do: {}", trouble.remedy);
    }
    if let Some(log) = step.and_then(|step| log(record, step)) {
        let _ = writeln!(text, "{indent}{}", paint.dim(&format!("log: {log}")));
    }
}
