//! The plan as readable text: what is equal is folded, and it reads in the vendor's order.

use super::fold;
use super::model::{Phase, PhasePlan, Plan, PlannedStep, PlatformPlan, Reversibility, StagePlan};
use super::text::{FIRM, Paint, columns, hang, pad, words};
use proto::Action;
use std::collections::BTreeMap;
use std::time::Duration;

/// Columns of a phase's number and name.
const PHASE: usize = 16;
/// The most columns that host names of a stage get; longer ones have the steps on a line of their own.
const HOSTS: usize = 24;
/// Marks what only a backup brings back.
const ONE_WAY: &str = "◆";

/// How long platforms are expected to take, and where that is known from.
pub type Expected = BTreeMap<String, (Duration, String)>;

/// A plan as text for a terminal of `width` columns.
pub fn render(plan: &Plan, color: bool, width: usize) -> String {
    render_expecting(plan, &Expected::new(), color, width)
}

/// As [`render`], with what is expected of its platforms.
pub fn render_expecting(plan: &Plan, expected: &Expected, color: bool, width: usize) -> String {
    let paint = Paint(color);
    let mut out = String::new();
    for platform in &plan.platforms {
        let expected = expected.get(&platform.name).map(|(takes, from)| format!("expected {} ({from})", words(*takes)));
        out.push_str(&render_platform(platform, expected, paint, width));
        out.push('\n');
    }
    for warning in &plan.warnings {
        let head = "warning: ";
        out.push_str(&hang(&paint.yellow(head), columns(head), warning, width));
    }
    if !plan.warnings.is_empty() {
        out.push('\n');
    }
    let hash = plan.hash.get(..12).unwrap_or(&plan.hash);
    out.push_str(&hang("", 0, &format!("plan {hash} · nothing was contacted{}", details(plan)), width));
    out
}

/// How to see more, in words that work with this plan.
fn details(plan: &Plan) -> String {
    let staged = |platform: &PlatformPlan| {
        let shown = |phase: &PhasePlan| matches!(phase.name, Phase::Migrate | Phase::Rollback);
        let (index, phase) = platform.phases.iter().enumerate().find(|(_, phase)| shown(phase))?;
        let step = phase.stages.first()?.steps.first()?;
        Some(format!(" · details: --explain {}.1 (a stage), --explain {} (a step)", index + 1, step.name))
    };
    plan.platforms.iter().find_map(staged).unwrap_or_default()
}

fn render_platform(platform: &PlatformPlan, expected: Option<String>, paint: Paint, width: usize) -> String {
    let roles: Vec<String> = platform.roles.iter().map(|(role, hosts)| format!("{hosts} {role}")).collect();
    let mut about = format!("· {} · {} -> {} · {}", platform.topology, platform.source, platform.target, roles.join(", "));
    for more in platform.rehearsal.then(|| "rehearsal".to_owned()).into_iter().chain(expected) {
        about = format!("{about} · {more}");
    }
    let mut out = hang(&format!("{} ", paint.bold(&platform.name)), columns(&platform.name) + 1, &about, width);
    out.push('\n');
    for (index, phase) in platform.phases.iter().enumerate() {
        let title = pad(&format!("  {} {}", index + 1, phase.name), PHASE);
        let hosts = pad(&count(phase), 10);
        let head = format!("{}{hosts}", paint.bold(&title));
        match phase.name {
            Phase::Migrate => {
                out.push_str(&format!("{}{}\n", paint.bold(&title), paint.dim("── barrier ──")));
                out.push_str(&stage_lines(index + 1, phase, paint, width));
            }
            Phase::Rollback => {
                out.push_str(&format!("{}{}\n", paint.bold(&title), count(phase)));
                out.push_str(&stage_lines(index + 1, phase, paint, width));
            }
            Phase::Restart => out.push_str(&hang(&head, PHASE + 10, &restart_line(phase), width)),
            _ => out.push_str(&hang(&head, PHASE + 10, &phase_line(phase), width)),
        }
    }
    let notes = notes(platform, width, paint);
    if !notes.is_empty() {
        out.push('\n');
        out.push_str(&notes);
    }
    out
}

/// `12 hosts`.
fn count(phase: &PhasePlan) -> String {
    let mut hosts: Vec<&String> = phase.stages.iter().flat_map(|stage| &stage.hosts).collect();
    hosts.sort_unstable();
    hosts.dedup();
    format!("{} host{}", hosts.len(), if hosts.len() == 1 { "" } else { "s" })
}

/// The stages of a phase on one line, each with what is done in it; the hosts where not all of the phase's take part.
fn phase_line(phase: &PhasePlan) -> String {
    let stages = phase.stages.iter().map(|stage| {
        let whole = phase.stages.iter().all(|other| other.hosts.len() <= stage.hosts.len());
        let hosts = if whole { String::new() } else { format!(" ({})", fold(&stage.hosts)) };
        format!("{}{hosts}", shorts(stage.steps.iter()))
    });
    let mut line = stages.collect::<Vec<_>>().join(", then ");
    if phase.name == Phase::Preflight {
        line.push_str(" (writes only Caravan's own directory)");
    }
    line
}

fn restart_line(phase: &PhasePlan) -> String {
    let has = |name: &str| phase.stages.iter().any(|stage| stage.name == name);
    let roles = phase.stages.iter().filter(|stage| !["zones", "configuration", "service"].contains(&stage.name.as_str()));
    let order = roles.map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(" -> ");
    let first = if has("zones") { "security zones, then " } else { "" };
    let modules = if has("configuration") { "autoStart back, then " } else { "" };
    let last = if has("service") { ", then the whole service everywhere" } else { "" };
    format!("{first}{modules}{order}{last}")
}

/// One line for each stage; one for each group of its hosts where they do different things.
fn stage_lines(number: usize, phase: &PhasePlan, paint: Paint, width: usize) -> String {
    let groups: Vec<(String, Vec<Row>)> = phase
        .stages
        .iter()
        .enumerate()
        .map(|(index, stage)| (pad(&format!("     {number}.{} {}", index + 1, stage.name), PHASE + 4), host_groups(stage)))
        .collect();
    let title = groups.iter().map(|(title, _)| columns(title) + 2).max().unwrap_or_default();
    let widest = groups.iter().flat_map(|(_, groups)| groups).map(|row| columns(&row.hosts)).max().unwrap_or_default();
    let hosts_column = widest.min(HOSTS) + 2;
    let mut out = String::new();
    let first_tolerant = phase.stages.iter().position(|stage| stage.tolerant);
    for (number, (name, groups)) in groups.iter().enumerate() {
        if first_tolerant == Some(number) {
            let text = "── from here on a host that fails does not keep the others ──";
            out.push_str(&format!("     {}\n", paint.dim(text)));
        }
        for (index, Row { hosts, steps, one_way }) in groups.iter().enumerate() {
            let name = pad(if index == 0 { name } else { "" }, title);
            let mark = if *one_way { format!("{FIRM}{FIRM}{ONE_WAY}{FIRM}one-way") } else { String::new() };
            let steps = format!("{steps}{mark}");
            let lines = if columns(hosts) > HOSTS {
                let first = hang(&paint.bold(&name), title, hosts, width);
                first + &hang(&" ".repeat(title + hosts_column), title + hosts_column, &steps, width)
            } else {
                hang(&format!("{}{}", paint.bold(&name), pad(hosts, hosts_column)), title + hosts_column, &steps, width)
            };
            out.push_str(&lines.replace(ONE_WAY, &paint.yellow(ONE_WAY)));
        }
    }
    out
}

/// Hosts of a stage that do the same.
struct Row {
    /// Their names, folded.
    hosts: String,
    /// What they do, in a few words.
    steps: String,
    /// Whether one of the steps is one-way.
    one_way: bool,
}

/// The hosts of a stage in groups that do the same.
fn host_groups(stage: &StagePlan) -> Vec<Row> {
    /// Steps in a few words, and whether they are left out.
    type Kinds<'a> = Vec<(&'a str, bool)>;
    let mut groups: Vec<(Kinds<'_>, Vec<String>)> = Vec::new();
    for host in &stage.hosts {
        let of_host = || stage.steps.iter().filter(|step| step.host == *host);
        let told = of_host().filter(|step| !step.short.is_empty());
        let kinds: Vec<(&str, bool)> = told.map(|step| (step.short.as_str(), step.skip.is_some())).collect();
        match groups.iter_mut().find(|(known, _)| *known == kinds) {
            Some((_, hosts)) => hosts.push(host.clone()),
            None => groups.push((kinds, vec![host.clone()])),
        }
    }
    let row = |hosts: Vec<String>| {
        let steps = || stage.steps.iter().filter(|step| hosts.contains(&step.host));
        let one_way = steps().any(|step| step.reversibility == Reversibility::OneWay);
        Row { hosts: fold(&hosts), steps: shorts(steps()), one_way }
    };
    groups.into_iter().map(|(_, hosts)| row(hosts)).collect()
}

/// What steps do, in a few words each: equal ones once, with the instances that they are about.
fn shorts<'a>(steps: impl Iterator<Item = &'a PlannedStep>) -> String {
    let mut words: Vec<(String, Vec<String>)> = Vec::new();
    for step in steps.filter(|step| !step.short.is_empty()) {
        let word = if step.skip.is_some() { format!("{} (left out)", step.short) } else { step.short.clone() };
        let instance = step.instance.clone();
        match words.iter_mut().find(|(known, _)| *known == word) {
            Some((_, instances)) => instances.extend(instance.filter(|instance| !instances.contains(instance))),
            None => words.push((word, instance.into_iter().collect())),
        }
    }
    let with_instances = |(word, instances): (String, Vec<String>)| match instances.as_slice() {
        [] => word,
        instances => format!("{word} {}", fold(instances)),
    };
    words.into_iter().map(with_instances).collect::<Vec<_>>().join(&format!("{FIRM}· "))
}

/// What a person has to know of this platform: where the way back changes, and what waits for them.
fn notes(platform: &PlatformPlan, width: usize, paint: Paint) -> String {
    let mut out = String::new();
    let first_one_way = platform.phases.iter().enumerate().find_map(|(phase, planned)| {
        let one_way = |stage: &StagePlan| stage.steps.iter().any(|step| step.reversibility == Reversibility::OneWay);
        planned.stages.iter().position(one_way).map(|stage| format!("{}.{}", phase + 1, stage + 1))
    });
    if let Some(number) = first_one_way {
        let back = platform.phases.iter().any(|phase| phase.name == Phase::Rollback);
        let text = if back {
            format!("{number} puts a backup in the place of the database: what was written since is lost.")
        } else {
            format!("from {number} on the way back is the backup of the database and {}.", platform.back_tree())
        };
        out.push_str(&hang(&format!("{} ", paint.yellow(ONE_WAY)), 2, &text, width));
    }
    let gates: Vec<&str> = platform
        .steps()
        .filter_map(|step| match &step.spec.action {
            Action::Gate { gate, .. } => Some(gate.as_str()),
            _ => None,
        })
        .collect();
    if !gates.is_empty() {
        let text = format!("waits for a person (--confirm GATE=NOTE): {}", gates.join(", "));
        out.push_str(&hang("‖ ", 2, &text, width));
    }
    out
}
