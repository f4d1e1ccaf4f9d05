//! Placeholders: how values get into the actions and probes of a runbook.
//!
//! `{word}` in a string stands for a value. A string that is nothing but one placeholder becomes the value with its type (a
//! number, an object); a list element that is exactly `{word...}` becomes the elements of a list. Values are put in once and are
//! not looked at again, so a value with braces in it stays as it is. `{run}` is left for the run.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values by the name of their placeholder.
pub(super) type Values = BTreeMap<&'static str, Value>;

/// The placeholder that a run replaces with its id.
const RUN: &str = "run";

/// Why values cannot be put into a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing has this name here.
    #[error("unknown placeholder `{{{0}}}`")]
    Unknown(String),
    /// A list or an object cannot stand inside a text.
    #[error("the value of `{{{0}}}` cannot stand inside a text")]
    NotText(String),
    /// Only a list can be spread.
    #[error("`{{{0}...}}` needs a list")]
    NotList(String),
}

/// Puts values into every string of a JSON value.
pub(super) fn fill(template: &Value, values: &Values) -> Result<Value, TemplateError> {
    match template {
        Value::String(text) => match whole(text) {
            Some(RUN) | None => Ok(Value::String(fill_text(text, values)?)),
            Some(name) => lookup(name, values).cloned(),
        },
        Value::Array(items) => {
            let mut filled = Vec::with_capacity(items.len());
            for item in items {
                match item.as_str().and_then(whole).and_then(|name| name.strip_suffix("...")) {
                    Some(name) => match lookup(name, values)? {
                        Value::Array(elements) => filled.extend(elements.iter().cloned()),
                        _ => return Err(TemplateError::NotList(name.to_owned())),
                    },
                    None => filled.push(fill(item, values)?),
                }
            }
            Ok(Value::Array(filled))
        }
        Value::Object(fields) => {
            let fields: Result<Map<String, Value>, TemplateError> =
                fields.iter().map(|(key, value)| Ok((key.clone(), fill(value, values)?))).collect();
            Ok(Value::Object(fields?))
        }
        other => Ok(other.clone()),
    }
}

/// Puts values into a text. Braces around anything but a word (`{}`, `{ print $1 }`) are not placeholders.
pub(super) fn fill_text(text: &str, values: &Values) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        filled.push_str(before);
        match after.find('}').map(|close| after.split_at(close + 1)) {
            Some((placeholder, behind)) if whole(placeholder).is_some_and(|name| name != RUN) => {
                let name = whole(placeholder).unwrap_or_default();
                match lookup(name, values)? {
                    Value::String(value) => filled.push_str(value),
                    Value::Number(value) => filled.push_str(&value.to_string()),
                    _ => return Err(TemplateError::NotText(name.to_owned())),
                }
                rest = behind;
            }
            _ => {
                filled.push('{');
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The name in a text that is exactly one placeholder.
fn whole(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    let word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-'));
    word.then_some(name)
}

fn lookup<'a>(name: &str, values: &'a Values) -> Result<&'a Value, TemplateError> {
    values.get(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values() -> Values {
        Values::from([
            ("home", json!("/usr/local/neolane")),
            ("size", json!(63)),
            ("names", json!(["a", "{home}"])),
            ("x", json!("{home}")),
        ])
    }

    #[test]
    fn values_keep_their_type_and_are_put_in_once() {
        let filled = fill(&json!({"size": "{size}", "dest": "{home}/{size}", "names": ["n", "{names...}"], "x": "{x}"}), &values());
        assert_eq!(filled, Ok(json!({"size": 63, "dest": "/usr/local/neolane/63", "names": ["n", "a", "{home}"], "x": "{home}"})));
    }

    #[test]
    fn the_run_and_other_braces_stay() {
        for text in ["{home}/nl6.back-{run}.tar.gz", "{run}"] {
            let filled = fill(&json!(text), &values()).unwrap();
            assert!(filled.as_str().unwrap().contains("{run}"), "{filled}");
        }
        assert_eq!(fill_text("awk '{ print $1 }' {} {", &values()).unwrap(), "awk '{ print $1 }' {} {");
    }

    #[test]
    fn what_cannot_be_put_in_is_an_error() {
        assert_eq!(fill(&json!("{homme}"), &values()), Err(TemplateError::Unknown("homme".into())));
        assert_eq!(fill(&json!("a {names}"), &values()), Err(TemplateError::NotText("names".into())));
        assert_eq!(fill(&json!(["{size...}"]), &values()), Err(TemplateError::NotList("size".into())));
    }
}
