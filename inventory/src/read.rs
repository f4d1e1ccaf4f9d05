//! From a tree to typed values, going on after each error.

use crate::problem::{Kind, Report, Span, did_you_mean, listing, nearest, quote};
use crate::yaml::{Node, REFERENCES, Scalar, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}

/// A type that can be read from a tree.
pub(crate) trait Read: Sized {
    /// The value; `None` when it cannot be used, which was then reported.
    fn read(node: &Node, report: &mut Report) -> Option<Self>;
}

/// Says that something else was expected.
pub(crate) fn wrong_type(node: &Node, expected: &str, report: &mut Report) {
    let key = report.key().map(|key| format!("{}: ", quote(key))).unwrap_or_default();
    let at = report.head(&node.span);
    report
        .error(Kind::WrongType, &at, format!("{key}{expected} is expected, this is {}", node.describe()))
        .label(format!("{expected} is expected here"));
}

impl<T: Read> Read for Spanned<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        Some(Self { value: T::read(node, report)?, span: node.span.clone() })
    }
}

/// Any scalar as it stands in the file: `6.1` stays `6.1`, quoted or not.
impl Read for String {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(text.clone()),
            _ => {
                wrong_type(node, "a text", report);
                None
            }
        }
    }
}

/// A text that says something and is no reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Text(pub(crate) String);

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Read for Text {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let text = String::read(node, report)?;
        if text.trim().is_empty() {
            report.error(Kind::EmptyText, &node.span, "this text is empty").label("write a value, or leave the key out");
            return None;
        }
        if let Some(prefix) = REFERENCES.iter().find(|prefix| text.starts_with(**prefix)) {
            report
                .error(Kind::StrayReference, &node.span, format!("`{prefix}` stands for secrets only, and this is none"))
                .label("write the value itself");
            return None;
        }
        Some(Self(text))
    }
}

impl Read for bool {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Scalar::Bool(value) = node.scalar() {
            return Some(value);
        }
        wrong_type(node, "`true` or `false`", report);
        None
    }
}

impl Read for u64 {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        if let Scalar::Number(value) = node.scalar() {
            return Some(value);
        }
        wrong_type(node, "a whole number", report);
        None
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| T::read(item, report)).collect()),
            _ => {
                wrong_type(node, "a list", report);
                None
            }
        }
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::read(node, report).map(Self),
            _ => T::read(node, report).map(|one| Self(vec![one])),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A closed set of words, as the inventory writes them.
pub(crate) trait Word: Copy + 'static {
    /// What kind of problem another word is.
    const KIND: Kind = Kind::UnknownWord;
    /// What it is called in messages (`topology`).
    const WHAT: &'static str;
    /// All of them.
    const ALL: &'static [(&'static str, Self)];
}

impl<T: Word> Read for T {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let Value::Scalar { text, .. } = &node.value else {
            wrong_type(node, "a word", report);
            return None;
        };
        let found = T::ALL.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = T::ALL.iter().map(|(word, _)| *word).collect();
            report
                .error(T::KIND, &node.span, format!("unknown {} {}", T::WHAT, quote(text)))
                .label(format!("one of {}", words.join(", ")))
                .help_if(did_you_mean(text, words));
        }
        found
    }
}

/// The same map as one of the places says it that a value can stand in, nearest first.
pub(crate) struct Layer<'a, T> {
    /// The place's name (`host`, `platform`, `defaults`).
    pub(crate) name: &'static str,
    /// What stands there.
    pub(crate) map: &'a T,
}

/// Key path to place, for `inventory list -v`: where a value begins in the file, and in which layer.
pub(crate) type Origins = Vec<(String, usize, &'static str)>;

/// A map that can stand in several layers; the nearer one wins, key by key.
pub(crate) trait Overlay: Sized {
    /// What holds, and where each value came from.
    fn overlay(layers: &[Layer<'_, Self>], path: &str, origins: &mut Origins) -> Self;
}

/// The value of one key from the nearest layer that has it.
pub(crate) fn nearest_layer<'a, M, T: Clone + 'a>(
    layers: &'a [Layer<'_, M>],
    get: impl Fn(&'a M) -> Option<&'a Spanned<T>>,
    path: &str,
    key: &str,
    origins: &mut Origins,
) -> Option<Spanned<T>> {
    let (name, value) = layers.iter().find_map(|layer| get(layer.map).map(|value| (layer.name, value)))?;
    origins.push((if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, value.span.start, name));
    Some(value.clone())
}

/// Reads a map's keys one by one; what is left at the end is unknown.
pub(crate) struct Keys<'a> {
    span: &'a Span,
    entries: &'a [crate::yaml::Entry],
}

impl<'a> Keys<'a> {
    /// The keys of a map; reported when it is none.
    pub(crate) fn of(node: &'a Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { span: &node.span, entries }),
            _ => {
                wrong_type(node, "a map", report);
                None
            }
        }
    }

    /// The value of a key, where it is given and usable. `key:` with nothing behind it counts as not given.
    pub(crate) fn read<T: Read>(&self, key: &str, report: &mut Report) -> Option<T> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if entry.value.is_null() {
            return None;
        }
        let outer = report.enter(Some(key.to_owned()));
        let value = T::read(&entry.value, report);
        report.enter(outer);
        if value.is_none() {
            report.give_up(self.span, key);
        }
        value
    }

    /// Reports keys that nobody knows and keys that are missing.
    pub(crate) fn check(&self, what: &str, known: &[&str], required: &[&str], report: &mut Report) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let problem = report.error(Kind::UnknownKey, &entry.at, format!("unknown key {} in {what}", quote(&entry.key)));
            problem.label(format!("{what} has: {}", known.join(", ")));
            let help = crate::raw::elsewhere(&entry.key).map(|place| format!("{} stands {place}", quote(&entry.key)));
            problem.help_if(help.or_else(|| did_you_mean(&entry.key, known.iter().copied())));
            if let Some(meant) = nearest(&entry.key, known.iter().copied()) {
                report.give_up(self.span, meant);
            }
        }
        let given = |key: &&&str| self.entries.iter().any(|entry| entry.key == **key && !entry.value.is_null());
        let missing: Vec<_> = required.iter().filter(|key| !given(key) && !report.gave_up(self.span, key)).copied().collect();
        if !missing.is_empty() {
            let at = report.head(self.span);
            report
                .error(Kind::MissingKey, &at, format!("{what} lacks {}", listing(&missing)))
                .label(format!("add {}", missing.iter().map(|key| format!("`{key}:`")).collect::<Vec<_>>().join(", ")));
        }
    }
}

/// Defines a map of the format once: its keys give the reader, the messages and the JSON Schema. Keys after `;` may be left out.
macro_rules! map {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (
        $(#[doc = $doc:literal])+
        $name:ident as $what:literal {
            $($(#[doc = $rdoc:literal])+ $(#[key = $rkey:literal])? $required:ident: $rtype:ty,)*
            ;
            $($(#[doc = $odoc:literal])+ $(#[key = $okey:literal])? $optional:ident: $otype:ty,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[doc = $rdoc])+ $(#[schemars(rename = $rkey)])? #[schemars(required)] pub(crate) $required: Option<crate::read::Spanned<$rtype>>,)*
            $($(#[doc = $odoc])+ $(#[schemars(rename = $okey)])? pub(crate) $optional: Option<crate::read::Spanned<$otype>>,)*
        }

        impl crate::read::Read for $name {
            fn read(node: &crate::yaml::Node, report: &mut crate::problem::Report) -> Option<Self> {
                let keys = crate::read::Keys::of(node, report)?;
                const REQUIRED: &[&str] = &[$(map!(@key $required $($rkey)?)),*];
                const KNOWN: &[&str] = &[$(map!(@key $required $($rkey)?),)* $(map!(@key $optional $($okey)?)),*];
                keys.check($what, KNOWN, REQUIRED, report);
                Some(Self {
                    $($required: keys.read(map!(@key $required $($rkey)?), report),)*
                    $($optional: keys.read(map!(@key $optional $($okey)?), report),)*
                })
            }
        }

        impl crate::read::Overlay for $name {
            fn overlay(layers: &[crate::read::Layer<'_, Self>], path: &str, origins: &mut crate::read::Origins) -> Self {
                Self {
                    $($required: crate::read::nearest_layer(layers, |map| map.$required.as_ref(), path, map!(@key $required $($rkey)?), origins),)*
                    $($optional: crate::read::nearest_layer(layers, |map| map.$optional.as_ref(), path, map!(@key $optional $($okey)?), origins),)*
                }
            }
        }
    };
}

pub(crate) use map;
