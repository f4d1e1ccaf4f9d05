//! The record of a run: the end screen, and reports for a change board. All are made from a [`View`] alone.

pub mod chain;
mod json;
mod markdown;
mod next;
mod status;
mod summary;

pub use chain::ChainCheck;
pub use json::json;
pub use markdown::markdown;
pub use next::{Typed, next, word};
pub use status::{Listed, runs, status};
pub use summary::summary;

use std::collections::BTreeMap;

use crate::view::{HostState, Interruption, Progressed, StageView, StepView, View};

/// What a report says beside the view.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The run's directory, to name output files by their whole path.
    pub dir: String,
    /// What a look at the journal's chain came to; `None` while a run is under way.
    pub chain: Option<ChainCheck>,
    /// Whether a controller drives the run at this moment; `None` where nobody looked.
    pub driven: Option<bool>,
    /// What running steps printed last, by id.
    pub said: BTreeMap<String, String>,
    /// Platforms of which a rollback changed something that the run had done, with the rollback.
    pub undone: BTreeMap<String, String>,
}

impl Record {
    /// Whether nothing of the run stands any more.
    pub fn is_undone(&self, view: &View) -> bool {
        let mut selected = view.platforms.iter().filter(|platform| platform.selected).peekable();
        selected.peek().is_some() && selected.all(|platform| self.undone.contains_key(&platform.name))
    }
}

/// A command to go on with, and when it is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// `When it is mended`.
    pub when: String,
    /// `caravan resume 2026-11-22-q7`.
    pub command: String,
}

/// Where a platform came to a halt: the first stage that began and is not over.
fn halted<'a>(view: &'a View, platform: &crate::view::PlatformView) -> Option<&'a StageView> {
    view.stages.get(platform.stages.clone())?.iter().find(|stage| matches!(stage.state, Progressed::Stopped | Progressed::Running))
}

/// Stages that the platform went on from although not every host ended well in them.
fn left_behind<'a>(view: &'a View, platform: &crate::view::PlatformView) -> impl Iterator<Item = &'a StageView> {
    let stages = view.stages.get(platform.stages.clone()).unwrap_or_default();
    stages.iter().filter(|stage| stage.tolerant && stage.state == Progressed::Done && stage.counts.done < stage.counts.total())
}

/// The first thing after a stage that was not started, when nothing at all was started after it.
fn untouched(view: &View, stage: &StageView) -> Option<String> {
    let platform = view.platforms.get(stage.platform)?;
    let stages = view.stages_of(platform);
    let at = stages.iter().position(|known| known.label == stage.label)?;
    let later = stages.get(at + 1..)?;
    let first = later.first()?;
    if later.iter().any(|later| later.state != Progressed::Waiting) {
        return None;
    }
    Some(if first.phase == stage.phase { first.label.clone() } else { first.phase_name.to_string() })
}

/// How the hosts of a stage fared, for a sentence: `1 of 12 hosts failed`, `2 of 16 hosts cannot be reached`.
fn fared(view: &View, stage: &StageView) -> String {
    let counts = stage.counts;
    let total = counts.total();
    let mut parts = Vec::new();
    if counts.failed > 0 {
        parts.push(format!("{} of {total} hosts failed", counts.failed));
    }
    let gone = |locked: bool| {
        let away = stage.hosts.iter().filter(|host| host.state == HostState::Unreachable);
        away.filter(|host| view.interruption(&host.name).is_some_and(|known| known.locked == locked)).count()
    };
    for (number, one, many) in
        [(gone(false), "cannot be reached", "cannot be reached"), (gone(true), "is held by another run", "are held by another run")]
    {
        if number > 0 {
            parts.push(format!("{number} of {total} hosts {}", if number == 1 { one } else { many }));
        }
    }
    let findings: usize = view.troubles(stage).iter().map(|trouble| trouble.findings.len()).sum();
    match findings {
        0 => {}
        1 => parts.push("1 check is red".to_owned()),
        many => parts.push(format!("{many} checks are red")),
    }
    if counts.dropped > 0 {
        parts.push(format!("{} of {total} hosts left behind before", counts.dropped));
    }
    if parts.is_empty() { format!("{} of {total} hosts done", counts.done) } else { parts.join(", ") }
}

/// How many steps of a platform were accepted without proof.
fn accepted<'a>(view: &'a View, platform: &crate::view::PlatformView) -> impl Iterator<Item = &'a StepView> {
    let stages = view.stages.get(platform.stages.clone()).unwrap_or_default();
    stages.iter().flat_map(|stage| view.steps_of(stage)).filter(|step| step.accepted.is_some() && step.settled())
}

/// The whole path of a step's output.
fn log(record: &Record, step: &StepView) -> Option<String> {
    let file = step.output.as_deref()?;
    Some(if record.dir.is_empty() { file.to_owned() } else { format!("{}/{file}", record.dir) })
}

/// `cannot be reached` or `is held by another run`.
fn gone(known: &Interruption) -> &'static str {
    if known.locked { "held by another run" } else { "out of reach" }
}

/// The commands that make sense now, one a line, aligned.
fn next_lines(next: &[Next], paint: crate::view::Paint, text: &mut String) {
    let width = next.iter().map(|next| next.when.chars().count() + 1).max().unwrap_or(0);
    for next in next {
        let when = format!("{}:", next.when);
        text.push_str(&format!("  {when:width$}   {}\n", paint.bold(&next.command)));
    }
}
