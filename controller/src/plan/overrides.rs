//! What a site changes about single steps: the vendor's commands are samples.

use super::error::PlanError;
use super::model::{PlannedStep, Reversibility};
use super::runbook::{Runbook, Template};
use super::template::{Values, fill_text};
use inventory::{Platform, SiteCommand, SiteStep};
use proto::step::{Command, Limits, LineRule, Repeat};
use proto::{Action, RunAs, StepId, StepSpec};

/// Names that are similar enough to be meant.
const SIMILAR: f64 = 0.6;

/// Finds overrides that name no step of the runbook, or replace what cannot be replaced.
pub(super) fn check(platform: &Platform, runbook: &Runbook, way_back: Option<&Runbook>, errors: &mut Vec<PlanError>) {
    let mut names = runbook.names();
    names.extend(way_back.iter().flat_map(|runbook| runbook.names()));
    for (step, change) in &platform.overrides {
        if !names.contains(&step.as_str()) {
            let similar = names.iter().map(|name| (strsim::jaro_winkler(name, step), *name)).filter(|(score, _)| *score >= SIMILAR);
            errors.push(PlanError::UnknownStep {
                platform: platform.name.clone(),
                step: step.clone(),
                runbook: runbook.name.clone(),
                suggestion: similar.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.to_owned()),
            });
            continue;
        }
        let kind = runbook
            .steps
            .iter()
            .chain(way_back.iter().flat_map(|runbook| &runbook.steps))
            .find(|template| template.name == *step)
            .and_then(|template| template.action.as_object()?.keys().next());
        let what = match kind.map(String::as_str) {
            Some("gate") => "waits for a person",
            Some("inspect") => "reads facts that checks rest on",
            _ => continue,
        };
        if change.command.is_some() {
            errors.push(PlanError::NotReplaceable { platform: platform.name.clone(), step: step.clone(), what });
        }
    }
}

/// A step with what the site changes about it: the steps before it, itself, the steps after it.
pub(super) fn apply(
    platform: &Platform,
    template: &Template,
    mut step: PlannedStep,
    values: &Values,
    errors: &mut Vec<PlanError>,
) -> Vec<PlannedStep> {
    let Some(change) = platform.overrides.get(&template.name) else { return vec![step] };
    let mut resolve = |name: &str, command: &SiteCommand| match argv(command, values) {
        Ok(argv) => Some(argv),
        Err(problem) => {
            let error = PlanError::SiteCommand { platform: platform.name.clone(), step: name.to_owned(), problem };
            // The same mistake is made on every host; it is said once.
            if !errors.contains(&error) {
                errors.push(error);
            }
            None
        }
    };
    let mut extra = |sites: &[SiteStep], original: &PlannedStep| -> Vec<PlannedStep> {
        sites
            .iter()
            .filter_map(|site| Some(site_step(site, resolve(&site.name, &site.command)?, original, &template.name)))
            .collect()
    };
    let before = extra(&change.before, &step);
    let after = extra(&change.after, &step);
    if let Some(command) = &change.command
        && let Some(argv) = resolve(&template.name, command)
    {
        step.title.push_str(" (the site's own command)");
        step.spec.title.clone_from(&step.title);
        replace(&mut step, command, argv);
    }
    step.skip.clone_from(&change.skip);
    before.into_iter().chain([step]).chain(after).collect()
}

/// Program and arguments with values put into the arguments. The text of a shell command stays as the site wrote it.
fn argv(command: &SiteCommand, values: &Values) -> Result<Vec<String>, super::TemplateError> {
    match command.argv.as_slice() {
        [shell, flag, _] if shell == "/bin/sh" && flag == "-c" => Ok(command.argv.clone()),
        argv => argv.iter().map(|argument| fill_text(argument, values)).collect(),
    }
}

fn replace(step: &mut PlannedStep, command: &SiteCommand, argv: Vec<String>) {
    if let Some(account) = &command.run_as {
        step.run_as = RunAs::from(account.clone());
        step.spec.run_as = step.run_as.clone();
    }
    if let Some(deadline_s) = command.deadline_s {
        step.spec.limits.deadline_s = deadline_s;
    }
    // What starts a service still does when the site does it its own way, and an error of postupgrade stays one.
    let (starts_service, mut fail_on) = match &step.spec.action {
        Action::Command(command) => (command.starts_service, command.fail_on.clone()),
        Action::Service { op, .. } => (*op == proto::step::ServiceOp::Start, Vec::new()),
        _ => (false, Vec::new()),
    };
    // Only the vendor's command is known to bear being started again.
    step.spec.repeat = Repeat::Ask;
    fail_on.extend(runs_yum(&argv).then(yum_removes));
    step.spec.action = Action::Command(Command { argv: argv.clone(), ok: vec![0], starts_service, fail_on, ..Command::default() });
    step.action = step.spec.action.kind().to_owned();
    step.command = Some(argv);
}

/// Whether a command is yum or dnf, or a shell's text that has one of them.
fn runs_yum(argv: &[String]) -> bool {
    let yum = |word: &str| matches!(word.rsplit('/').next(), Some("yum" | "dnf"));
    let text: &[String] = match argv {
        [shell, flag, text, ..] if shell == "/bin/sh" && flag == "-c" => std::slice::from_ref(text),
        [program, ..] => std::slice::from_ref(program),
        [] => &[],
    };
    text.iter().flat_map(|text| text.split(|c: char| c.is_whitespace() || ";&|()".contains(c))).any(yum)
}

/// With `yum update`, the vendor says: if it says `Removing:` instead of `Upgrading:`, stop (procedure, step 4).
fn yum_removes() -> LineRule {
    let means = "yum removes packages instead of upgrading them".to_owned();
    LineRule { starts_with: "Removing:".to_owned(), means, ..LineRule::default() }
}

/// A step that the site adds. It is where the step it goes with is, runs as that one does, and applies where that one does.
fn site_step(site: &SiteStep, argv: Vec<String>, original: &PlannedStep, goes_with: &str) -> PlannedStep {
    let id = StepId(match original.id.0.rsplit_once('/') {
        Some((place, _)) => format!("{place}/{}", site.name),
        None => site.name.clone(),
    });
    let title = format!("{} on {}", site.name, original.host);
    let mut step = PlannedStep {
        id: id.clone(),
        name: site.name.clone(),
        title: title.clone(),
        short: site.name.clone(),
        reversibility: Reversibility::Compensable,
        source: format!("the site's own step, with {goes_with}"),
        explain: "Added by the inventory. Only its exit code says whether it went well.".to_owned(),
        undo: "Only the site knows how.".to_owned(),
        skip: None,
        spec: StepSpec {
            id,
            title,
            run_as: original.run_as.clone(),
            action: Action::Verify,
            only_if: original.spec.only_if.clone(),
            probe: None,
            repeat: Repeat::Ask,
            limits: Limits::default(),
        },
        ..original.clone()
    };
    replace(&mut step, &site.command, argv);
    step
}
