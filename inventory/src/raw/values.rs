//! Values that come in more than one form.

use super::{Host, Instance, Override};
use crate::legacy::{Legacy, OldAlgorithm};
use crate::model::SecretRef;
use crate::problem::{Kind, Report, quote};
use crate::read::{Read, Spanned, Text, wrong_type};
use crate::reference::{self, ReferenceError};
use crate::yaml::{Node, Scalar, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// A role's word; which ones there are depends on the topology.
#[derive(Debug, Clone)]
pub(crate) struct RoleWord(pub(crate) String);

impl Read for RoleWord {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        Text::read(node, report).map(|text| Self(text.0))
    }
}

impl JsonSchema for RoleWord {
    fn schema_name() -> Cow<'static, str> {
        crate::model::Role::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        crate::model::Role::json_schema(generator)
    }
}

/// The hosts of a platform, as a list or a map by name; and whether some of them could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Hosts(pub(crate) Vec<Spanned<Host>>, pub(crate) bool);

impl Read for Hosts {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(items) => {
                let hosts = Vec::<Spanned<Host>>::read(node, report)?;
                let lost = hosts.len() < items.len();
                for host in hosts.iter().filter(|host| host.value.name.is_none()) {
                    if report.gave_up(&host.span, "name") {
                        continue;
                    }
                    let at = report.head(&host.span);
                    report.error(Kind::MissingKey, &at, "a host lacks `name`").label("add `name:`");
                }
                Some(Self(hosts, lost))
            }
            Value::Map(entries) => {
                let mut hosts = Vec::new();
                for entry in entries {
                    let Some(mut host) = Host::read(&entry.value, report) else { continue };
                    if let Some(name) = &host.name {
                        report
                            .error(Kind::UnknownKey, &name.span, "a host in a map by name has no `name` of its own")
                            .label(format!("its name is {}", quote(&entry.key)));
                    }
                    host.name = Some(Spanned { value: Text(entry.key.clone()), span: entry.at.clone() });
                    hosts.push(Spanned { value: host, span: entry.value.span.clone() });
                }
                let lost = hosts.len() < entries.len();
                Some(Self(hosts, lost))
            }
            Value::Scalar { .. } => {
                wrong_type(node, "a list of hosts, or a map by name,", report);
                None
            }
        }
    }
}

impl JsonSchema for Hosts {
    fn schema_name() -> Cow<'static, str> {
        "Hosts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let host = generator.subschema_for::<Host>();
        json_schema!({ "anyOf": [{ "type": "array", "items": host }, { "type": "object", "additionalProperties": host }] })
    }
}

/// An instance as a name alone or as a map.
#[derive(Debug, Clone)]
pub(crate) struct InstanceEntry(pub(crate) Instance);

impl Read for InstanceEntry {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => Instance::read(node, report).map(Self),
            Value::Scalar { .. } if !node.is_null() => {
                let name = Spanned::<Text>::read(node, report)?;
                Some(Self(Instance { name: Some(name), ..Instance::default() }))
            }
            _ => {
                wrong_type(node, "an instance's name, or a map,", report);
                None
            }
        }
    }
}

impl JsonSchema for InstanceEntry {
    fn schema_name() -> Cow<'static, str> {
        "InstanceEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let instance = generator.subschema_for::<Instance>();
        json_schema!({ "anyOf": [{ "type": "string" }, instance] })
    }
}

/// Overrides by step name, in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Overrides(pub(crate) Vec<(Spanned<String>, Override)>);

impl Read for Overrides {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            wrong_type(node, "a map (of step names)", report);
            return None;
        };
        let mut overrides = Vec::new();
        for entry in entries {
            if let Some(change) = Override::read(&entry.value, report) {
                overrides.push((Spanned { value: entry.key.clone(), span: entry.at.clone() }, change));
            }
        }
        Some(Self(overrides))
    }
}

impl JsonSchema for Overrides {
    fn schema_name() -> Cow<'static, str> {
        "Overrides".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let change = generator.subschema_for::<Override>();
        json_schema!({ "type": "object", "additionalProperties": change })
    }
}

/// A command as a list or as one text.
#[derive(Debug, Clone)]
pub(crate) enum CommandLine {
    Argv(Vec<Spanned<String>>),
    Text(String),
}

impl Read for CommandLine {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::read(node, report).map(Self::Argv),
            _ => String::read(node, report).map(Self::Text),
        }
    }
}

impl JsonSchema for CommandLine {
    fn schema_name() -> Cow<'static, str> {
        "CommandLine".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "array", "items": { "type": "string" }, "minItems": 1 }, { "type": "string" }] })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A reference to a secret.
#[derive(Debug, Clone)]
pub(crate) struct Secret(pub(crate) SecretRef);

impl Read for Secret {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        // No message here may show the value.
        let Value::Scalar { text, .. } = &node.value else {
            report.mask(&node.span);
            wrong_type(node, "a reference to a secret", report);
            return None;
        };
        let error = match text.parse() {
            Ok(reference) => return Some(Self(reference)),
            Err(error) => error,
        };
        report.mask(&node.span);
        match error {
            ReferenceError::Plain => report
                .error(Kind::PlainSecret, &node.span, "a secret is written out in the inventory")
                .label("a reference is expected here"),
            ReferenceError::Bad(wrong) => {
                report.error(Kind::BadSecretReference, &node.span, "this reference to a secret cannot be used").label(wrong)
            }
        }
        .help(reference::HELP);
        None
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A reference to a secret: `prompt:`, `env:NAME`, `file:PATH` or `command:PROGRAM ARGS`.",
            "type": "string",
            "pattern": "^(prompt:|env:[A-Za-z_][A-Za-z0-9_]*|file:.+|command:.+)$",
        })
    }
}

impl Read for Legacy {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::<OldAlgorithm>::read(node, report).map(Self::only),
            _ => match node.scalar() {
                Scalar::Bool(true) => Some(Self::all()),
                Scalar::Bool(false) => Some(Self::none()),
                _ => {
                    wrong_type(node, "`true`, `false`, or a list of outdated algorithms", report);
                    None
                }
            },
        }
    }
}

impl JsonSchema for Legacy {
    fn schema_name() -> Cow<'static, str> {
        "Legacy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let algorithm = generator.subschema_for::<OldAlgorithm>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "type": "array", "items": algorithm }] })
    }
}
