//! The rules that every runbook keeps, the site's own ones as well as those that this binary carries.

use super::read::fault;
use super::{Family, Runbook, Template, When};
use crate::plan::is_plain_name;
use crate::plan::model::Phase;
use inventory::Fault;
use serde_json::Value;

/// Steps that checks, passwords and the way back know by their names, with their phases.
const NEEDED: [(&str, Phase); 6] = [
    ("facts", Phase::Preflight),
    ("fingerprint.internal-password", Phase::Preflight),
    ("stop.processes", Phase::Stop),
    ("backup.move-tree", Phase::Backup),
    ("install.packages", Phase::Migrate),
    ("postupgrade", Phase::Migrate),
];

/// Programs that read a text as a program.
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ksh"];

/// Everything in a runbook that breaks a rule.
pub(super) fn rules(runbook: &Runbook) -> Vec<Fault> {
    let mut faults = Vec::new();
    let way_back = runbook.steps.iter().all(|step| step.phase == Phase::Rollback) && !runbook.steps.is_empty();
    for (index, step) in runbook.steps.iter().enumerate() {
        let at = format!("/steps/{index}");
        let mut say = |place: &str, message: String, label: &str| {
            faults.push(fault(format!("{at}{place}"), false, format!("step `{}`: {message}", step.name), label));
        };
        if !is_word(&step.name) {
            say("/name", "this is no name of a step".to_owned(), "letters, digits, `.`, `-` and `_`, a lower-case letter first");
        }
        if step.stage.as_ref().is_some_and(|stage| !is_word(stage)) {
            say("/stage", "this is no name of a stage".to_owned(), "letters, digits, `.`, `-` and `_`, a lower-case letter first");
        }
        if step.stage.is_some() == step.at.is_some() {
            say("", "a step must have either `stage` or `at`".to_owned(), "one of them is expected here");
        }
        let same = |other: &&Template| (other.phase, &other.stage) == (step.phase, &step.stage);
        if runbook.steps.iter().filter(same).any(|other| other.tolerant != step.tolerant) {
            say("/tolerant", "all steps of a stage must say the same of `tolerant`".to_owned(), "");
        }
        if !way_back {
            going_back(step, &mut say);
        }
        if step.action == "verify" && step.probe.is_none() {
            say("/action", "a step that only verifies needs a `probe`".to_owned(), "");
        }
        commands(step, &mut say);
        line_rules(step, &mut say);
        copy_name(step, &mut say);
        if let Some(other) = runbook.steps.iter().take(index).find(|other| other.name == step.name && other.phase == step.phase)
            && !apart(step, other)
        {
            say("/name", "two steps of this name can be for the same host".to_owned(), "their `when` must exclude each other");
        }
    }
    for (name, phase) in NEEDED.iter().filter(|_| !way_back) {
        if !runbook.steps.iter().any(|step| step.name == *name && step.phase == *phase) {
            let message = format!("there is no step `{name}` in {phase}: checks and the way back know it by this name");
            faults.push(fault("/steps".to_owned(), true, message, ""));
        }
    }
    faults
}

/// What only a way back can say.
fn going_back(step: &Template, say: &mut dyn FnMut(&str, String, &str)) {
    let When { unless, dump, touched, tree, archive, .. } = &step.when;
    let words = [
        ("/phase", step.phase == Phase::Rollback),
        ("/undoes", !step.undoes.is_empty()),
        ("/tolerant", step.tolerant),
        ("/when/unless", !unless.is_empty()),
        ("/when/dump", dump.is_some()),
        ("/when/touched", touched.is_some()),
        ("/when/tree", tree.is_some()),
        ("/when/archive", archive.is_some()),
    ];
    for (place, _) in words.into_iter().filter(|(_, said)| *said) {
        say(place, "this belongs to a way back".to_owned(), "a runbook leads to v7");
    }
}

/// What a step must not run, and how.
fn commands(step: &Template, say: &mut dyn FnMut(&str, String, &str)) {
    let parts = [Some(&step.action), step.probe.as_ref(), step.only_if.as_ref()];
    if parts.into_iter().flatten().any(has_shell_read_a_value) {
        say(
            "/action",
            "a shell must not read a value".to_owned(),
            "give values as arguments: [/bin/sh, -c, 'cat \"$1\"', sh, \"{host}\"]",
        );
    }
    if step.run_as == super::Account::Root && step.action.get("inspect").is_none() && parts.into_iter().flatten().any(runs_campaign)
    {
        say("/run_as", "root must not run or read what the Campaign account can write".to_owned(), "`campaign` is expected here");
    }
}

/// Whether a command somewhere in an action or a probe has a shell read a value as a part of its script.
fn has_shell_read_a_value(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_shell_read_a_value),
        Value::Object(fields) => fields.iter().any(|(key, value)| match (key.as_str(), value.as_array()) {
            ("argv", Some(argv)) => {
                let argv: Vec<&str> = argv.iter().filter_map(Value::as_str).collect();
                scripts(&argv).any(has_placeholder)
            }
            _ => has_shell_read_a_value(value),
        }),
        _ => false,
    }
}

/// What shells of a command line take for options or a script. The shell may be started by another program (`env`, `nice`).
fn scripts<'a>(argv: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_shell = |word: &str| word.rsplit('/').next().is_some_and(|name| SHELLS.contains(&name));
    let shells = argv.iter().enumerate().filter(move |(_, word)| is_shell(word)).map(|(at, _)| at);
    shells.flat_map(|at| {
        let words = argv.get(at + 1..).unwrap_or_default();
        let (mut read, mut has_script) = (0, false);
        while let Some(option) = words.get(read).filter(|word| word.starts_with(['-', '+'])) {
            has_script |= option.starts_with('-') && option.contains('c');
            // `-o` takes the word behind it.
            read += if option.ends_with('o') { 2 } else { 1 };
        }
        words.iter().take(read + usize::from(has_script)).copied()
    })
}

/// A rule on lines of output that asks nothing would be about none, and what it is there to see would pass.
fn line_rules(step: &Template, say: &mut dyn FnMut(&str, String, &str)) {
    let rules = step.action.pointer("/command/fail_on").and_then(Value::as_array).into_iter().flatten();
    let asks = |rule: &Value, key: &str| rule.get(key).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    for (index, rule) in rules.enumerate() {
        if rule.is_object() && !asks(rule, "starts_with") && !asks(rule, "contains") {
            let message = "a rule on lines of output must say what the line begins with or has in it".to_owned();
            say(&format!("/action/command/fail_on/{index}"), message, "`starts_with` or `contains` is expected here");
        }
    }
}

/// A copy that is kept is one file in a directory of the workstation: its name must not lead out of there.
fn copy_name(step: &Template, say: &mut dyn FnMut(&str, String, &str)) {
    let name = step.action.pointer("/keep/name").and_then(Value::as_str);
    if name.is_some_and(|name| !is_plain_name(&with_letters(name))) {
        let label = "the name of one file is expected here: without `/`, and not beginning with `.`";
        say("/action/keep/name", "this is no name of a copy".to_owned(), label);
    }
}

/// A text with a letter for each of its placeholders.
fn with_letters(text: &str) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}') {
            Some((word, rest)) if has_placeholder(&format!("{{{word}}}")) => filled.extend(["x", rest]),
            _ => filled.extend(["{", part]),
        }
    }
    filled
}

/// Whether a program or a profile of the installation is run somewhere in an action or a probe.
fn runs_campaign(value: &Value) -> bool {
    let of_campaign = |text: &Value| text.as_str().is_some_and(|text| text.contains("env.sh") || text.contains("bin/nlserver"));
    match value {
        Value::Array(items) => items.iter().any(runs_campaign),
        Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
            "argv" => value.as_array().is_some_and(|argv| argv.iter().any(of_campaign)),
            "profile" => of_campaign(value),
            _ => runs_campaign(value),
        }),
        _ => false,
    }
}

/// Whether a text has a placeholder in it.
fn has_placeholder(text: &str) -> bool {
    text.split('{').skip(1).any(|rest| {
        let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-')).collect();
        !word.is_empty() && rest[word.len()..].starts_with('}')
    })
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Whether no host can have both of two steps.
fn apart(one: &Template, other: &Template) -> bool {
    fn lists<T: PartialEq>(one: Option<&Vec<T>>, other: Option<&Vec<T>>) -> bool {
        matches!((one, other), (Some(one), Some(other)) if !one.iter().any(|word| other.contains(word)))
    }
    fn words<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
        matches!((one, other), (Some(one), Some(other)) if one != other)
    }
    let linux = vec![Family::Debian, Family::Rhel];
    let (a, b) = (&one.when, &other.when);
    let (undone, undone_there) = (&one.undoes, &other.undoes);
    lists(a.family.as_ref().or(Some(&linux)), b.family.as_ref().or(Some(&linux)))
        || lists(a.source.as_ref(), b.source.as_ref())
        || lists(a.init.as_ref(), b.init.as_ref())
        || lists(a.topology.as_ref(), b.topology.as_ref())
        || lists(a.engine.as_ref(), b.engine.as_ref())
        || words(a.campaign, b.campaign)
        || words(a.backup, b.backup)
        || words(a.database_password, b.database_password)
        || words(a.scratch, b.scratch)
        || words(a.package, b.package)
        || words(a.dump, b.dump)
        || words(a.tree, b.tree)
        || words(a.old_packages, b.old_packages)
        || undone.iter().any(|name| b.unless.contains(name))
        || undone_there.iter().any(|name| a.unless.contains(name))
}
