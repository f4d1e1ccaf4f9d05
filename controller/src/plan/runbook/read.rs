//! A runbook from a document: every field is tried on its own, so that all errors come at once and each has its place.

use super::{Runbook, Template, check};
use inventory::{Document, Fault, Problems};
use serde_json::{Map, Value, json};

/// The keys of a runbook.
const KEYS: [&str; 3] = ["name", "source_versions", "steps"];

/// The maps of a step whose keys are tried on their own.
const INNER: [&str; 2] = ["when", "limits"];

/// Reads a runbook.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub(super) fn read(document: &Document) -> Result<Runbook, Problems> {
    let value = document.value();
    let faults = shape(&value);
    if !faults.is_empty() {
        return Err(document.refuse(&faults));
    }
    let runbook: Runbook = serde_json::from_value(value)
        .map_err(|error| document.refuse(&[fault(String::new(), false, error.to_string(), "in this runbook")]))?;
    let faults = check::rules(&runbook);
    if faults.is_empty() { Ok(runbook) } else { Err(document.refuse(&faults)) }
}

pub(super) fn fault(at: String, key: bool, message: impl Into<String>, label: &str) -> Fault {
    Fault { at, key, message: message.into(), label: label.to_owned(), help: String::new() }
}

/// A step with everything that a step must have.
fn smallest() -> Map<String, Value> {
    let step = json!({
        "name": "x", "title": "x", "phase": "stop", "scope": "host", "run_as": "root", "action": "verify",
        "reversibility": "reversible", "source": "x", "explain": "x",
    });
    step.as_object().cloned().unwrap_or_default()
}

fn shape(value: &Value) -> Vec<Fault> {
    let Some(map) = value.as_object() else {
        return vec![fault(String::new(), false, "a runbook is a map", "`name`, `source_versions` and `steps` are expected here")];
    };
    let mut faults = Vec::new();
    for key in map.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        faults.push(fault(
            format!("/{key}"),
            true,
            format!("unknown field `{key}`"),
            "a runbook has `name`, `source_versions`, `steps`",
        ));
    }
    for key in KEYS.iter().filter(|key| !map.contains_key(**key)) {
        faults.push(fault(String::new(), false, format!("missing field `{key}`"), "in this runbook"));
    }
    for key in ["name", "source_versions"].into_iter().filter(|key| map.contains_key(*key)) {
        let mut one = json!({ "name": "x", "source_versions": [], "steps": [] });
        if let (Some(one), Some(value)) = (one.as_object_mut(), map.get(key)) {
            one.insert(key.to_owned(), value.clone());
        }
        if let Err(error) = serde_json::from_value::<Runbook>(one) {
            faults.push(fault(format!("/{key}"), false, error.to_string(), ""));
        }
    }
    match map.get("steps").map(Value::as_array) {
        Some(Some(steps)) => {
            for (index, step) in steps.iter().enumerate() {
                one_step(&format!("/steps/{index}"), step, &mut faults);
            }
        }
        Some(None) => faults.push(fault("/steps".to_owned(), false, "`steps` is a list", "a list is expected here")),
        None => {}
    }
    faults
}

fn one_step(at: &str, step: &Value, faults: &mut Vec<Fault>) {
    let Some(map) = step.as_object() else {
        faults.push(fault(at.to_owned(), false, "a step is a map", "a map is expected here"));
        return;
    };
    let name = map.get("name").and_then(Value::as_str).unwrap_or("without a name");
    let smallest = smallest();
    for key in smallest.keys().filter(|key| !map.contains_key(*key)) {
        faults.push(fault(at.to_owned(), false, format!("step `{name}`: missing field `{key}`"), "in this step"));
    }
    let with = |key: &str, value: Value| {
        let mut one = smallest.clone();
        one.insert(key.to_owned(), value);
        serde_json::from_value::<Template>(Value::Object(one)).map_err(|error| error.to_string())
    };
    let mut tried = |place: String, key: &str, value: Value| {
        if let Err(error) = with(key, value) {
            faults.push(fault(place, error.starts_with("unknown field"), format!("step `{name}`: {error}"), ""));
        }
    };
    for (key, value) in map {
        match value.as_object().filter(|_| INNER.contains(&key.as_str())) {
            Some(inner) => {
                for (word, value) in inner {
                    tried(format!("{at}/{key}/{word}"), key, json!({ word.as_str(): value }));
                }
            }
            None => tried(format!("{at}/{key}"), key, value.clone()),
        }
    }
}
