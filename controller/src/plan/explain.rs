//! One step of a plan in full: what it does, why, how its effect is seen, how it is undone.

use super::fold;
use super::model::{Plan, PlannedStep, PlatformPlan, Reversibility};
use super::text::{Paint, columns, hang};
use super::words;
use proto::step::{OnLimit, Repeat};

/// Columns of the labels.
const LABEL: usize = 14;
/// Names that are similar enough to be meant.
const SIMILAR: f64 = 0.7;

/// Nothing in the plan goes by this number, name or id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan has no step or stage `{asked}`{}; `caravan plan --format json` lists all ids", .similar.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default())]
pub struct UnknownStep {
    /// What was asked for.
    pub asked: String,
    /// A step with a similar name.
    pub similar: Option<String>,
}

/// Steps of one kind in one stage, as the text of the plan numbers them.
struct Kind<'a> {
    /// `emea · 4.1.5 · migrate marketing · `.
    place: String,
    steps: Vec<&'a PlannedStep>,
}

/// The steps that go by a number, a name or an id, by stage.
fn find<'a>(plan: &'a Plan, asked: &str) -> Vec<Kind<'a>> {
    let mut found = Vec::new();
    for platform in &plan.platforms {
        for (phase_index, phase) in platform.phases.iter().enumerate() {
            for (stage_index, stage) in phase.stages.iter().enumerate() {
                let mut names: Vec<&str> = Vec::new();
                for step in &stage.steps {
                    if !names.contains(&step.name.as_str()) {
                        names.push(&step.name);
                    }
                }
                let of_stage = format!("{}.{}", phase_index + 1, stage_index + 1);
                for (index, name) in names.into_iter().enumerate() {
                    let number = format!("{of_stage}.{}", index + 1);
                    let all = [name, &number, &of_stage].contains(&asked);
                    let wanted = |step: &&PlannedStep| step.name == name && (all || asked == step.id.0);
                    let steps: Vec<&PlannedStep> = stage.steps.iter().filter(wanted).collect();
                    if !steps.is_empty() {
                        let place = format!("{} · {number} · {} {} · ", platform.name, phase.name, stage.name);
                        found.push(Kind { place, steps });
                    }
                }
            }
        }
    }
    found
}

/// The steps that [`explain`] is about.
///
/// # Errors
/// The plan has no such step.
pub fn select<'a>(plan: &'a Plan, asked: &str) -> Result<Vec<&'a PlannedStep>, UnknownStep> {
    let steps: Vec<&PlannedStep> = find(plan, asked).into_iter().flat_map(|kind| kind.steps).collect();
    if steps.is_empty() { Err(unknown(plan, asked)) } else { Ok(steps) }
}

/// Explains a step: by its id, by its name (on all hosts that have it), or by its number in the text of the plan (`4.1.5`: the fifth
/// kind of step of the first stage of the fourth phase). The number of a stage (`4.1`) lists its steps, a line each.
///
/// # Errors
/// The plan has no such step.
pub fn explain(plan: &Plan, asked: &str, color: bool, width: usize) -> Result<String, UnknownStep> {
    let mut told: Vec<(&str, &str)> = Vec::new();
    let mut parts = Vec::new();
    let kinds = find(plan, asked);
    if !kinds.is_empty() && is_stage(asked) {
        return Ok(kinds.iter().map(|kind| listed(kind, color, width)).collect());
    }
    for kind in kinds {
        let Some(first) = kind.steps.first() else { continue };
        let known = (first.name.as_str(), first.explain.as_str());
        parts.push(tell(&kind.place, &kind.steps, told.contains(&known), color, width));
        told.push(known);
    }
    if parts.is_empty() { Err(unknown(plan, asked)) } else { Ok(parts.join("\n")) }
}

/// Whether this is the number of a stage. No step has such a name.
fn is_stage(asked: &str) -> bool {
    asked.split('.').count() == 2 && asked.split('.').all(|part| part.parse::<usize>().is_ok())
}

/// One line for a kind of step of a stage: its number, its name, where it is done.
fn listed(kind: &Kind<'_>, color: bool, width: usize) -> String {
    let Some(first) = kind.steps.first() else { return String::new() };
    let hosts = variants(&kind.steps).into_iter().map(|(_, hosts)| hosts).collect::<Vec<_>>().join(", ");
    let head = format!("{}{}: ", kind.place, Paint(color).bold(&first.name));
    hang(&head, columns(&kind.place) + columns(&first.name) + 2, &hosts, width)
}

fn unknown(plan: &Plan, asked: &str) -> UnknownStep {
    let names = plan.platforms.iter().flat_map(PlatformPlan::steps).map(|step| step.name.as_str());
    let similar = names.map(|name| (strsim::jaro_winkler(name, asked), name)).filter(|(score, _)| *score >= SIMILAR);
    let similar = similar.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.to_owned());
    UnknownStep { asked: asked.to_owned(), similar }
}

/// Steps of one kind in one stage. What was said of this kind before is not said `again`.
fn tell(place: &str, steps: &[&PlannedStep], again: bool, color: bool, width: usize) -> String {
    let Some(first) = steps.first() else { return String::new() };
    let paint = Paint(color);
    let mut out = format!("{place}{}{}\n", paint.bold(&first.name), if first.skip.is_some() { " (left out)" } else { "" });
    let mut line = |label: &str, text: &str| {
        let head = format!("  {label:<width$}", width = LABEL - 2);
        out.push_str(&hang(&paint.dim(&head), LABEL, text, width));
    };
    if !again {
        line("why", &first.explain);
        line("documented", &first.source);
        line("way back", &way_back(first));
        line(
            "if it dies",
            match (first.spec.repeat, &first.spec.probe) {
                (Repeat::Allowed, Some(probe)) if !probe.is_empty() => "may be started again when its effect is provably not there",
                (Repeat::Allowed, _) => "a person decides; starting it again is safe",
                (Repeat::Ask, _) => "a person decides",
            },
        );
        line("time", &limits(first));
    }
    if let Some(reason) = &first.skip {
        line("left out", &format!("{reason}; only its proof is looked at"));
    }
    for (variant, hosts) in variants(steps) {
        line("on", &hosts);
        line("as", &String::from(variant.run_as.clone()));
        for text in variant.spec.only_if.iter().flat_map(words::probe) {
            line("only if", &text);
        }
        for text in words::action(&variant.spec.action) {
            line("does", &text);
        }
        for text in variant.spec.probe.iter().flat_map(words::probe) {
            line("proof", &text);
        }
        if variant.spec.probe.is_none() {
            line("proof", "its own result alone");
        }
    }
    out
}

fn way_back(step: &PlannedStep) -> String {
    let kind = match step.reversibility {
        Reversibility::Reversible => "can be undone as it was",
        Reversibility::Compensable => "its effect can be made up for",
        Reversibility::OneWay => "◆ one-way",
    };
    if step.undo.is_empty() { kind.to_owned() } else { format!("{kind}: {}", step.undo) }
}

fn limits(step: &PlannedStep) -> String {
    let deadline = match step.spec.limits.deadline_s {
        0 => "no deadline".to_owned(),
        seconds => format!("at most {seconds} s"),
    };
    let limits = &step.spec.limits;
    let settle = (limits.settle_s > 0).then(|| format!("its effect may take {} s to show", limits.settle_s));
    let then = match limits.then {
        OnLimit::Stop => "it is ended",
        OnLimit::Tell => "people are told and it goes on",
        OnLimit::Ask => "a person is asked and it goes on",
    };
    let seen = if limits.watch.is_empty() { "" } else { " and its log file does not grow" };
    let silence = (limits.silence_s > 0).then(|| format!("when it is silent for {} s{seen}, {then}", limits.silence_s));
    [Some(deadline), settle, silence].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The steps in groups that do the same on their hosts, with the hosts.
fn variants<'a>(steps: &[&'a PlannedStep]) -> Vec<(&'a PlannedStep, String)> {
    let mut groups: Vec<(&PlannedStep, Vec<String>)> = Vec::new();
    for step in steps {
        let name = match &step.instance {
            Some(instance) => format!("{}:{instance}", step.host),
            None => step.host.clone(),
        };
        let same = |other: &PlannedStep| {
            other.spec.action == step.spec.action
                && other.spec.only_if == step.spec.only_if
                && other.spec.probe == step.spec.probe
                && other.run_as == step.run_as
                && other.skip == step.skip
        };
        match groups.iter_mut().find(|(known, _)| same(known)) {
            Some((_, hosts)) => hosts.push(name),
            None => groups.push((step, vec![name])),
        }
    }
    groups.into_iter().map(|(step, hosts)| (step, fold(&hosts))).collect()
}
