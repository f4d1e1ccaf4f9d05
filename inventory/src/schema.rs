//! The JSON Schema of the format, for editors.

use crate::raw::Inventory;
use schemars::generate::SchemaSettings;

/// The JSON Schema (draft 2020-12) of an inventory. Editors use it to complete and explain keys; [`crate::load`] checks much more.
pub fn schema() -> serde_json::Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Inventory>();
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Report, Source};
    use crate::yaml::{Node, Scalar, Value, tree};
    use serde_json::Value as Json;
    use std::sync::Arc;

    /// What does not conform, as key path and reason: the part of JSON Schema that ours uses.
    fn violations(node: &Node, schema: &Json, root: &Json, path: &str) -> Vec<String> {
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            return violations(node, &root["$defs"][name], root, path);
        }
        for any in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[any].as_array() {
                let all: Vec<_> = choices.iter().map(|choice| violations(node, choice, root, path)).collect();
                return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Json::Array(types) => types.iter().filter_map(Json::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let fits = |name: &&str| match (*name, &node.value) {
            ("object", Value::Map(_)) | ("array", Value::List(_)) | ("string", Value::Scalar { .. }) => true,
            ("null", _) => node.is_null(),
            ("boolean", _) => matches!(node.scalar(), Scalar::Bool(_)),
            ("integer", _) => matches!(node.scalar(), Scalar::Number(_)),
            _ => false,
        };
        if !types.is_empty() && !types.iter().any(fits) {
            return vec![format!("{path}: not {types:?}")];
        }
        match &node.value {
            Value::Scalar { text, .. } => {
                let words = schema["enum"].as_array().cloned().or_else(|| schema.get("const").map(|word| vec![word.clone()]));
                words
                    .filter(|words| !words.iter().any(|word| word == text))
                    .map(|words| format!("{path}: none of {words:?}"))
                    .into_iter()
                    .collect()
            }
            Value::List(items) => {
                items.iter().flat_map(|item| violations(item, &schema["items"], root, &format!("{path}[]"))).collect()
            }
            Value::Map(entries) => {
                let mut found = Vec::new();
                for key in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                    if !entries.iter().any(|entry| entry.key == key) {
                        found.push(format!("{path}: lacks {key}"));
                    }
                }
                for entry in entries {
                    let path = format!("{path}.{}", entry.key);
                    match (schema["properties"].get(&entry.key), &schema["additionalProperties"]) {
                        (Some(property), _) => found.extend(violations(&entry.value, property, root, &path)),
                        (None, Json::Bool(false) | Json::Null) => found.push(format!("{path}: unknown")),
                        (None, other) => found.extend(violations(&entry.value, other, root, &path)),
                    }
                }
                found
            }
        }
    }

    fn check(text: &str) -> Vec<String> {
        let mut report = Report::new(Arc::new(Source::new("fleet.yaml", text)));
        let root = schema();
        violations(&tree(&mut report).unwrap(), &root, &root, "")
    }

    #[test]
    fn valid_inventories_conform() {
        assert_eq!(check(include_str!("../tests/valid/large.yaml")), Vec::<String>::new());
        for topology in crate::Topology::ALL {
            assert_eq!(check(&crate::init_template(topology)), Vec::<String>::new(), "{topology}");
        }
    }

    #[test]
    fn wrong_keys_types_and_words_do_not() {
        for (from, to) in [
            ("parallel: {", "parallel: { host: 1, "),
            ("topology: standalone", "topology: standalon"),
            ("rehearsal: true", "rehearsal: 1"),
            ("port: 2200", "port: high"),
            ("    instances: [emea_test]\n", ""),
        ] {
            let text = include_str!("../tests/valid/large.yaml");
            assert!(text.contains(from), "{from}");
            assert!(!check(&text.replacen(from, to, 1)).is_empty(), "{to}");
        }
    }

    #[test]
    fn every_key_is_described() {
        fn walk(schema: &Json, path: &str) {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{path}.{key}");
            }
        }
        let root = schema();
        walk(&root, "");
        for (name, definition) in root["$defs"].as_object().unwrap() {
            walk(definition, name);
        }
    }
}
