//! Overrides: what a site changes about single steps.

use super::{Site, value};
use crate::model::{Override, SiteCommand, SiteStep};
use crate::problem::{Kind, Report, Span, did_you_mean, quote};
use crate::raw::{self, CommandLine};
use crate::read::{Spanned, Text};
use std::collections::BTreeMap;

/// The overrides of a platform. `steps` are the steps that the runbooks have, where the caller knows them.
pub(super) fn overrides(site: &Site<'_>, steps: Option<&[&str]>, report: &mut Report) -> BTreeMap<String, Override> {
    let mut all = BTreeMap::new();
    for (name, change) in site.raw.overrides.iter().flat_map(|overrides| &overrides.value.0) {
        if value::step(&name.value, &name.span, report)
            && let Some(steps) = steps.filter(|steps| !steps.contains(&name.value.as_str()))
        {
            report
                .error(Kind::UnknownStep, &name.span, format!("the runbook has no step {}", quote(&name.value)))
                .label("`caravan plan` shows the steps and their names")
                .help_if(did_you_mean(&name.value, steps.iter().copied()));
        }
        all.insert(name.value.clone(), change_of(name, change, report));
    }
    all
}

fn change_of(name: &Spanned<String>, raw: &raw::Override, report: &mut Report) -> Override {
    if raw.command.is_none() && raw.skip.is_none() && raw.before.is_none() && raw.after.is_none() {
        report
            .error(Kind::OverrideEmpty, &name.span, format!("the override of {} changes nothing", quote(&name.value)))
            .label("`command`, `skip`, `before` or `after` is expected in it");
    }
    if let (Some(command), Some(skip)) = (&raw.command, &raw.skip) {
        report
            .error(Kind::OverrideConflict, &skip.span, format!("the override of {} both replaces and skips it", quote(&name.value)))
            .label("remove one of them")
            .also(&command.span, "its command");
    }
    if raw.command.is_none() {
        let stray = [
            ("run_as", raw.run_as.as_ref().map(|value| &value.span)),
            ("deadline", raw.deadline.as_ref().map(|value| &value.span)),
            ("shell", raw.shell.as_ref().map(|value| &value.span)),
        ];
        for (key, span) in stray.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            report
                .error(Kind::OverrideConflict, span, format!("`{key}` belongs to a `command`, and there is none"))
                .label("add `command:`, or remove this");
        }
    }
    Override {
        command: command(raw.command.as_ref(), raw.shell.as_ref(), raw.run_as.as_ref(), raw.deadline.as_ref(), report),
        skip: raw.skip.as_ref().map(|reason| reason.value.0.clone()),
        before: extra(raw.before.as_ref(), report),
        after: extra(raw.after.as_ref(), report),
    }
}

fn extra(raw: Option<&Spanned<Vec<Spanned<raw::SiteStep>>>>, report: &mut Report) -> Vec<SiteStep> {
    let mut steps = Vec::new();
    let mut seen: Vec<(String, Span)> = Vec::new();
    for entry in raw.iter().flat_map(|list| &list.value) {
        let step = &entry.value;
        let Some(name) = &step.name else { continue };
        value::step(&name.value, &name.span, report);
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name.value.0) {
            report
                .error(Kind::ListedTwice, &name.span, format!("the extra step {} is given twice", quote(&name.value)))
                .label("given again here")
                .also(first, "given first here");
        }
        seen.push((name.value.0.clone(), name.span.clone()));
        if let Some(command) =
            command(step.command.as_ref(), step.shell.as_ref(), step.run_as.as_ref(), step.deadline.as_ref(), report)
        {
            steps.push(SiteStep { name: name.value.0.clone(), command });
        }
    }
    steps
}

fn command(
    line: Option<&Spanned<CommandLine>>,
    shell: Option<&Spanned<bool>>,
    run_as: Option<&Spanned<Text>>,
    deadline: Option<&Spanned<Text>>,
    report: &mut Report,
) -> Option<SiteCommand> {
    let deadline_s = deadline.and_then(|deadline| value::duration(deadline, report));
    if let Some(account) = run_as {
        value::account(account, report);
    }
    let line = line?;
    let shell = shell.is_some_and(|shell| shell.value);
    let argv = match &line.value {
        CommandLine::Argv(words) if words.first().is_none_or(|program| program.value.trim().is_empty()) => {
            report
                .error(Kind::CommandForm, &line.span, "this command has no program")
                .label("for example [systemctl, stop, nlserver]");
            return None;
        }
        CommandLine::Argv(_) if shell => {
            report
                .error(Kind::CommandForm, &line.span, "with `shell: true` a command is one text")
                .label("a text is expected here")
                .help("remove `shell: true`: a list needs no shell and is safer");
            return None;
        }
        CommandLine::Argv(words) => words.iter().map(|word| word.value.clone()).collect(),
        CommandLine::Text(text) if text.trim().is_empty() => {
            report.error(Kind::EmptyText, &line.span, "this command is empty").label("for example [systemctl, stop, nlserver]");
            return None;
        }
        CommandLine::Text(text) if !shell => {
            let words: Vec<_> = text.split_whitespace().collect();
            report
                .error(Kind::CommandForm, &line.span, "a command is a list of program and arguments")
                .label("a list is expected here")
                .help(format!("write `command: [{}]`, or add `shell: true` to give this text to /bin/sh", words.join(", ")));
            return None;
        }
        CommandLine::Text(text) => ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
    };
    Some(SiteCommand { argv, run_as: run_as.map(|account| account.value.0.clone()), deadline_s })
}
