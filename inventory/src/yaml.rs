//! YAML as a tree that knows where everything stands.
//!
//! The tree is built from the events of `saphyr-parser`, because `serde_yaml` lets the last of two equal keys win, knows no
//! places for valid values, chokes on a byte order mark and leaves `<<` alone. `serde_yaml` types the plain scalars (what is a
//! number, a truth value, nothing). This is the one file that knows either of them.

use crate::problem::{Kind, Report, Span, quote};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// The largest inventory: 500 hosts written out take about 100 KiB.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// The deepest nesting; the format itself needs 8.
const MAX_DEPTH: usize = 32;
/// Nodes of the tree with aliases written out: what keeps a "billion laughs" file small.
const MAX_NODES: usize = 500_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A scalar: its text, and whether it stands there without quotes (only then it can be a number).
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Span,
    pub(crate) value: Node,
}

/// What a plain scalar means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Number(u64),
    Text,
}

impl Node {
    /// What a scalar means; lists and maps are [`Scalar::Text`].
    pub(crate) fn scalar(&self) -> Scalar {
        match &self.value {
            Value::Scalar { text, plain: true } => typed(text),
            _ => Scalar::Text,
        }
    }

    /// Whether it stands for "not given".
    pub(crate) fn is_null(&self) -> bool {
        self.scalar() == Scalar::Null
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Scalar { .. } => match self.scalar() {
                Scalar::Null => "nothing",
                Scalar::Bool(_) => "a truth value",
                Scalar::Number(_) => "a number",
                Scalar::Text => "a text",
            },
        }
    }
}

/// The meaning of a plain scalar by YAML's rules.
fn typed(text: &str) -> Scalar {
    // Most texts begin with a letter that no number and no other word begins with: asking for them costs more than it says.
    if !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit() || "~+-.nNtTfF".contains(first)) {
        return Scalar::Text;
    }
    if text.len() > 24 || text.contains(['\n', ':', '#', ' ', '&', '*', '!']) {
        return Scalar::Text;
    }
    match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(serde_yaml::Value::Null) => Scalar::Null,
        Ok(serde_yaml::Value::Bool(value)) => Scalar::Bool(value),
        Ok(serde_yaml::Value::Number(value)) => value.as_u64().map_or(Scalar::Text, Scalar::Number),
        _ => Scalar::Text,
    }
}

/// Reads the file's one document. `None` after an error that leaves nothing to look at; duplicate keys and the like are reported
/// and reading goes on.
pub(crate) fn tree(report: &mut Report) -> Option<Node> {
    let source = report.source().clone();
    let mut builder =
        Builder { report, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, documents: 0, ended: false };
    for item in Parser::new_from_str(source.text()) {
        match item {
            Ok((event, span)) => {
                let start = source.offset(span.start.line(), span.start.col());
                let end = source.offset(span.end.line(), span.end.col()).max(start);
                builder.event(event, start..end)?;
            }
            Err(error) => {
                let at = source.offset(error.marker().line(), error.marker().col());
                builder.syntax(at, error.info());
                return None;
            }
        }
        if builder.ended {
            break;
        }
    }
    let root = builder.root.take();
    match root {
        Some(node) if !node.is_null() => Some(node),
        _ => {
            report
                .file_error(Kind::Empty, format!("{} is empty", source.name()))
                .help("`caravan init` writes an inventory to start from");
            None
        }
    }
}

/// A list or map whose end was not seen yet.
struct Open {
    start: Span,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, places: HashMap<String, Span>, key: Option<Key>, merges: Vec<Node> },
}

/// How much an anchored value brings along.
#[derive(Clone, Copy)]
struct Weight {
    /// Values in it, itself included.
    nodes: usize,
    /// Levels of lists and maps in it.
    levels: usize,
}

/// The weight of a scalar.
const SCALAR: Weight = Weight { nodes: 1, levels: 0 };

enum Key {
    Named(String, Span),
    Merge,
    /// Something that cannot be a key: reported, and its value is left out.
    Unusable,
}

struct Builder<'a> {
    report: &'a mut Report,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
    ended: bool,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.report
                        .error(Kind::SeveralDocuments, &span, "a second YAML document begins here")
                        .label("an inventory is one document")
                        .help("put the platforms into one file, below one `platforms:`");
                    self.ended = true;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.is_some(), &span);
                // The parser counts blanks behind a quoted text, and line ends behind a block of text, as part of it.
                let end = span.start + source_text(self.report, &span).trim_end().len();
                let span = span.start..end;
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                return self.complete(Node { span, value }, anchor, SCALAR);
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.is_some(), &span);
                return self.begin(Open { start: span, anchor, content: Content::List(Vec::new()) });
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.is_some(), &span);
                let content = Content::Map { entries: Vec::new(), places: HashMap::new(), key: None, merges: Vec::new() };
                return self.begin(Open { start: span, anchor, content });
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(span),
            Event::Alias(anchor) => {
                let Some((node, weight)) = self.anchors.get(&anchor).cloned() else {
                    self.syntax(span.start, "this alias stands for something that is not complete here");
                    return None;
                };
                return self.complete(node, 0, weight);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Some(())
    }

    fn tag(&mut self, tagged: bool, span: &Span) {
        if tagged {
            self.report
                .error(Kind::Tag, span, "YAML tags are not supported")
                .label("a plain value is expected here")
                .help("for an encrypted value write a reference: `env:NAME`, `file:PATH`, `prompt:` or `command:PROGRAM ARGS`");
        }
    }

    fn begin(&mut self, open: Open) -> Option<()> {
        self.depth(1, &open.start)?;
        self.open.push(open);
        Some(())
    }

    /// Whether this many more levels can be borne: an alias brings its own along.
    fn depth(&mut self, levels: usize, span: &Span) -> Option<()> {
        if self.open.len() + levels > MAX_DEPTH {
            self.report.error(Kind::TooDeep, span, format!("nested more than {MAX_DEPTH} levels deep"));
            return None;
        }
        Some(())
    }

    fn end(&mut self, end: Span) -> Option<()> {
        let open = self.open.pop()?;
        let (value, last) = match open.content {
            Content::List(items) => {
                let last = items.last().map(|item| item.span.end);
                (Value::List(items), last)
            }
            Content::Map { mut entries, mut places, merges, .. } => {
                let last = entries.iter().map(|entry| entry.value.span.end.max(entry.at.end)).max();
                self.merge(&mut entries, &mut places, merges);
                (Value::Map(entries), last)
            }
        };
        // A flow list or map ends at its bracket; a block ends where its last value does.
        let end = if end.is_empty() { last.unwrap_or(open.start.end) } else { end.end };
        let node = Node { span: open.start.start..end.max(open.start.start), value };
        let weight = if open.anchor == 0 { SCALAR } else { weigh(&node) };
        self.finish(node, open.anchor, weight)
    }

    fn complete(&mut self, node: Node, anchor: usize, weight: Weight) -> Option<()> {
        self.depth(weight.levels, &node.span)?;
        self.nodes = self.nodes.saturating_add(weight.nodes);
        if self.nodes > MAX_NODES {
            self.report
                .error(
                    Kind::TooManyAliases,
                    &node.span,
                    format!("with its aliases written out the file has more than {MAX_NODES} values"),
                )
                .help("write the repeated parts into `defaults:` instead");
            return None;
        }
        self.finish(node, anchor, weight)
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, weight: Weight) -> Option<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.open.last_mut() {
            None => self.root = self.root.take().or(Some(node)),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map { entries, places, key, merges }, .. }) => match key.take() {
                None => *key = Some(as_key(node, self.report)),
                Some(Key::Merge) => merges.push(node),
                Some(Key::Unusable) => {}
                Some(Key::Named(name, at)) => {
                    mask_secret(&name, &node, self.report);
                    match places.get(&name) {
                        None => {
                            places.insert(name.clone(), at.clone());
                            entries.push(Entry { key: name, at, value: node });
                        }
                        Some(first) => {
                            self.report
                                .error(Kind::DuplicateKey, &at, format!("{} is given twice", quote(&name)))
                                .label("given again here")
                                .also(first, "given first here")
                                .help("YAML would silently take the last one: remove one of them");
                        }
                    }
                }
            },
        }
        Some(())
    }

    /// `<<: *base` and `<<: [*a, *b]`: keys that the map does not have itself, the first map that has one wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, places: &mut HashMap<String, Span>, merges: Vec<Node>) {
        for node in merges {
            let bases = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for base in bases {
                let Value::Map(inherited) = base.value else {
                    self.report
                        .error(Kind::MergeKey, &base.span, "`<<` merges maps only")
                        .label(format!("this is {}", Node { span: 0..0, value: base.value }.describe()));
                    continue;
                };
                for entry in inherited {
                    if !places.contains_key(&entry.key) {
                        places.insert(entry.key.clone(), entry.at.clone());
                        entries.push(entry);
                    }
                }
            }
        }
    }

    fn syntax(&mut self, at: usize, info: &str) {
        let source = self.report.source().clone();
        // What stands on the line is not known to be harmless, and a broken line cannot be taken apart: after something that
        // looks like a secret's key nothing of it is shown.
        let (start, line) = source.line_at(at);
        let lower = line.to_ascii_lowercase();
        if let Some(after) =
            SECRET_KEYS.iter().filter_map(|word| lower.find(word)).min().and_then(|word| Some(word + line[word..].find(':')? + 1))
        {
            self.report.mask(&(start + after..start + line.len()));
        }
        let help = if line.trim_start_matches(' ').starts_with('\t') {
            "indent with spaces: YAML does not allow tabs there"
        } else {
            "a value with `[`, `{`, `#` or `: ` in it, or with `:` at its end, needs quotes: \"mta[1-3]\", \"{host}\", \"prompt:\""
        };
        self.report.error(Kind::Syntax, &(at..at + 1), "this is not YAML").label(info).help(help);
    }
}

fn source_text<'a>(report: &'a Report, span: &Span) -> &'a str {
    report.source().text().get(span.clone()).unwrap_or_default()
}

fn as_key(node: Node, report: &mut Report) -> Key {
    match node.value {
        Value::Scalar { text, plain: true } if text == "<<" => Key::Merge,
        Value::Scalar { text, .. } => Key::Named(text, node.span),
        Value::List(_) | Value::Map(_) => {
            report
                .error(Kind::ComplexKey, &node.span, "a key must be a word")
                .help("a value that begins with `{` or `[` needs quotes: \"{host}\"");
            Key::Unusable
        }
    }
}

fn weigh(node: &Node) -> Weight {
    let children: Vec<Weight> = match &node.value {
        Value::Scalar { .. } => return SCALAR,
        Value::List(items) => items.iter().map(weigh).collect(),
        Value::Map(entries) => entries.iter().map(|entry| weigh(&entry.value)).collect(),
    };
    let nodes = children.iter().map(|child| child.nodes).sum::<usize>() + 1;
    let levels = children.iter().map(|child| child.levels).max().unwrap_or(0) + 1;
    Weight { nodes, levels }
}

/// Parts of keys whose values are never shown, known keys or not.
const SECRET_KEYS: [&str; 5] = ["pass", "secret", "token", "pwd", "credential"];

/// Beginnings of references to secrets, which are no secrets themselves.
pub(crate) const REFERENCES: [&str; 4] = ["env:", "file:", "prompt:", "command:"];

fn mask_secret(key: &str, value: &Node, report: &mut Report) {
    let key = key.to_ascii_lowercase();
    let reference = matches!(&value.value, Value::Scalar { text, .. } if REFERENCES.iter().any(|prefix| text.starts_with(prefix)));
    if !reference && !value.is_null() && SECRET_KEYS.iter().any(|word| key.contains(word)) {
        report.mask(&value.span);
    }
}
