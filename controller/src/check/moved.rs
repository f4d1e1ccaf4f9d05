//! What moved since a plan was saved: the complete list of differences between then and now. Pure.

use super::facts::{Fact, Facts, one_line};
use super::finding::fold;
use crate::plan::{Plan, PlannedStep};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a plan rested on when it was saved, or rests on now.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The resolved inventory as JSON; it holds no secret.
    pub inventory: &'a Value,
    /// The facts.
    pub facts: &'a Facts,
    /// The plan.
    pub plan: &'a Plan,
}

/// The differences. Empty when nothing moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// In the inventory.
    pub inventory: Vec<Change>,
    /// On hosts.
    pub facts: Vec<Change>,
    /// In the steps that the plan has now.
    pub steps: Vec<StepChange>,
}

/// One thing that is another now, on one host or on several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The hosts, folded (`trk[01-12]`); empty for what is about no host.
    pub hosts: String,
    /// The fact, or the place in the inventory.
    pub what: String,
    /// What it was; `None` when it was not there.
    pub was: Option<String>,
    /// What it is; `None` when it is not there any more.
    pub is: Option<String>,
}

/// Steps of one stage that would be other ones now, in the same way on the same hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepChange {
    /// What became of them.
    pub how: How,
    /// Platform, phase and stage.
    pub stage: String,
    /// The hosts, folded.
    pub hosts: String,
    /// Which fields differ; empty unless they changed.
    pub fields: String,
    /// Their names.
    pub names: Vec<String>,
}

/// What became of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// They are new.
    Added,
    /// They are gone.
    Removed,
    /// They are other ones.
    Changed,
    /// They have another place in the order.
    Reordered,
}

impl Moved {
    /// Compares. Facts count for the given hosts alone: those of platforms that take no part may have moved.
    pub fn between(was: Ground<'_>, is: Ground<'_>, hosts: &BTreeSet<String>) -> Self {
        Self {
            inventory: inventory(was.inventory, is.inventory),
            facts: facts(was.facts, is.facts, hosts),
            steps: steps(was.plan, is.plan),
        }
    }

    /// Whether nothing moved.
    pub fn is_empty(&self) -> bool {
        self.inventory.is_empty() && self.facts.is_empty() && self.steps.is_empty()
    }
}

/// Equal changes of several hosts become one.
#[derive(Default)]
struct Folded(BTreeMap<(String, Option<String>, Option<String>), BTreeSet<String>>);

impl Folded {
    fn add(&mut self, host: &str, what: String, was: Option<String>, is: Option<String>) {
        self.0.entry((what, was, is)).or_default().insert(host.to_owned());
    }

    fn changes(self) -> Vec<Change> {
        let change = |((what, was, is), hosts): ((String, _, _), BTreeSet<String>)| {
            let hosts: Vec<String> = hosts.into_iter().filter(|host| !host.is_empty()).collect();
            Change { hosts: fold(&hosts), what, was, is }
        };
        self.0.into_iter().map(change).collect()
    }
}

fn facts(was: &Facts, is: &Facts, hosts: &BTreeSet<String>) -> Vec<Change> {
    let mut by_fact: BTreeMap<Fact, Folded> = BTreeMap::new();
    for host in hosts {
        // A host that is new, or gone, is a difference of the inventory.
        let (Some(was), Some(is)) = (was.get(host), is.get(host)) else { continue };
        for fact in was.keys().chain(is.keys()).copied().collect::<BTreeSet<_>>() {
            let (was, is) = (was.get(&fact).cloned(), is.get(&fact).cloned());
            if was != is {
                by_fact.entry(fact).or_default().add(host, fact.as_str().to_owned(), was, is);
            }
        }
    }
    by_fact.into_values().flat_map(Folded::changes).collect()
}

fn inventory(was: &Value, is: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    differences(&mut Vec::new(), was, is, &mut found);
    let mut folded = Folded::default();
    for (path, was, is) in found {
        // What stands on every host comes from one line of the file, as a rule.
        match path.as_slice() {
            [platforms, _, hosts, host, rest @ ..] if platforms == "platforms" && hosts == "hosts" && !rest.is_empty() => {
                folded.add(host, rest.join("."), was, is);
            }
            _ => folded.add("", path.join("."), was, is),
        }
    }
    folded.changes()
}

type Difference = (Vec<String>, Option<String>, Option<String>);

/// Walks two JSON values side by side. Lists of things with names are compared name by name, whatever their order; other lists as they
/// are.
fn differences(path: &mut Vec<String>, was: &Value, is: &Value, found: &mut Vec<Difference>) {
    if was == is {
        return;
    }
    let keyed = |value: &Value| match value {
        Value::Object(fields) => Some(fields.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()),
        Value::Array(items) => {
            let name = |item: &Value| Some((item.get("name")?.as_str()?.to_owned(), item.clone()));
            items.iter().map(name).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    let (Some(before), Some(after)) = (keyed(was), keyed(is)) else {
        found.push((path.clone(), text(was), text(is)));
        return;
    };
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) = (before.into_iter().collect(), after.into_iter().collect());
    let seen = found.len();
    for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        path.push(key.clone());
        match (before.get(key), after.get(key)) {
            (Some(was), Some(is)) => differences(path, was, is, found),
            (was, is) => found.push((path.clone(), was.and_then(text), is.and_then(text))),
        }
        path.pop();
    }
    if found.len() == seen {
        found.push((path.clone(), Some("in another order".to_owned()), Some("in this order".to_owned())));
    }
}

/// A value in a few words; nothing for `null`.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) if fields.len() > 3 => Some("there".to_owned()),
        value => Some(value.to_string()),
    }
}

fn steps(was: &Plan, is: &Plan) -> Vec<StepChange> {
    let all = |plan: &Plan| -> Vec<PlannedStep> { plan.platforms.iter().flat_map(|platform| platform.steps().cloned()).collect() };
    let (was, is) = (all(was), all(is));
    let by_id = |steps: &[PlannedStep]| -> BTreeMap<String, PlannedStep> {
        steps.iter().map(|step| (step.id.0.clone(), step.clone())).collect()
    };
    let (before, after) = (by_id(&was), by_id(&is));
    let mut grouped: BTreeMap<(How, String, String, String), BTreeSet<String>> = BTreeMap::new();
    let mut add = |how: How, step: &PlannedStep, fields: String| {
        grouped.entry((how, stage(step), step.name.clone(), fields)).or_default().insert(step.host.clone());
    };
    for step in &is {
        match before.get(&step.id.0) {
            None => add(How::Added, step, String::new()),
            Some(old) if old != step => add(How::Changed, step, fields(old, step)),
            Some(_) => {}
        }
    }
    was.iter().filter(|step| !after.contains_key(&step.id.0)).for_each(|step| add(How::Removed, step, String::new()));
    let remaining = was.iter().filter(|step| after.contains_key(&step.id.0));
    let kept = is.iter().filter(|step| before.contains_key(&step.id.0));
    remaining.zip(kept).filter(|(old, new)| old.id != new.id).for_each(|(_, new)| add(How::Reordered, new, String::new()));
    let mut changes: Vec<StepChange> = Vec::new();
    for ((how, stage, name, fields), hosts) in grouped {
        let hosts = fold(&hosts.into_iter().collect::<Vec<_>>());
        let same =
            |known: &&mut StepChange| known.how == how && known.stage == stage && known.hosts == hosts && known.fields == fields;
        match changes.iter_mut().find(same) {
            Some(known) => known.names.push(name),
            None => changes.push(StepChange { how, stage, hosts, fields, names: vec![name] }),
        }
    }
    changes
}

/// `emea/migrate/tracking`.
fn stage(step: &PlannedStep) -> String {
    step.id.0.split('/').take(3).collect::<Vec<_>>().join("/")
}

/// The fields in which two steps differ; those of what the agent gets by their own names.
fn fields(was: &PlannedStep, is: &PlannedStep) -> String {
    let (Ok(was), Ok(is)) = (serde_json::to_value(was), serde_json::to_value(is)) else { return String::new() };
    let mut found = Vec::new();
    differences(&mut Vec::new(), &was, &is, &mut found);
    let name = |path: &[String]| match path {
        [spec, field, ..] if spec == "spec" => field.clone(),
        [field, ..] => field.clone(),
        [] => String::new(),
    };
    let names: BTreeSet<String> = found.iter().map(|(path, ..)| name(path)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Moved {
    /// A block for each of inventory, facts and steps that has differences. No colour, safe for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, changes) in [("inventory", &self.inventory), ("facts", &self.facts)] {
            if !changes.is_empty() {
                writeln!(f, "{title}")?;
            }
            for Change { hosts, what, was, is } in changes {
                let about = if hosts.is_empty() { what.clone() } else { format!("{hosts}  {what}") };
                let nothing = "nothing".to_owned();
                let [was, is] = [was, is].map(|value| one_line(value.as_ref().unwrap_or(&nothing)));
                writeln!(f, "  {}: was {was}; is {is}", one_line(&about))?;
            }
        }
        if !self.steps.is_empty() {
            writeln!(f, "steps")?;
        }
        for StepChange { how, stage, hosts, fields, names } in &self.steps {
            let how = match how {
                How::Added => "added",
                How::Removed => "removed",
                How::Changed => "changed",
                How::Reordered => "in another order",
            };
            let fields = if fields.is_empty() { String::new() } else { format!(" ({fields})") };
            writeln!(f, "  {}", one_line(&format!("{hosts}  {stage}: {how}{fields}: {}", names.join(", "))))?;
        }
        Ok(())
    }
}
