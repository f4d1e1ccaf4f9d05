//! Other YAML files of a site, read as strictly as the inventory: a value to look at, and a way to say where in the file something is
//! wrong with it.

use crate::problem::{Kind, Problems, Report, Source, Span};
use crate::yaml::{self, Entry, Node, Scalar, Value as Tree};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// A YAML file that was read.
#[derive(Debug, Clone)]
pub struct Document {
    source: Arc<Source>,
    root: Node,
}

/// Something that is wrong in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place, as a JSON pointer (`/steps/3/when`). A place that does not exist stands for the nearest one around it.
    pub at: String,
    /// It is the key that is wrong, and not its value.
    pub key: bool,
    /// What is wrong, in one line.
    pub message: String,
    /// What was expected there.
    pub label: String,
    /// The way out; empty where there is none to name.
    pub help: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not the YAML of one document without duplicate keys, tags and the like: everything at once.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let text = crate::read_bytes(path)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| std::io::Error::other(error.utf8_error().to_string())));
        match text {
            Ok(text) => Self::parse(&text, &shown),
            Err(error) => {
                let mut report = Report::new(Arc::new(Source::new(shown, "")));
                report.file_error(Kind::Unreadable, format!("cannot read {}: {error}", path.display()));
                Err(report.finish())
            }
        }
    }

    /// Reads a document from its text. `file_name` is what messages call it.
    ///
    /// # Errors
    /// As [`Document::load`].
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Problems> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let too_large = text.len() > yaml::MAX_BYTES;
        let source = Arc::new(Source::new(file_name, if too_large { "" } else { text }));
        let mut report = Report::new(source.clone());
        if too_large {
            report.file_error(Kind::TooLarge, format!("{file_name} is larger than {} MiB", yaml::MAX_BYTES >> 20));
            return Err(report.finish());
        }
        match yaml::tree(&mut report) {
            Some(root) if !report.has_errors() => Ok(Self { source, root }),
            _ => Err(report.finish()),
        }
    }

    /// Its content. Numbers are those that are whole and not negative; everything else that is no truth value is a text.
    pub fn value(&self) -> Value {
        plain(&self.root)
    }

    /// Where a place is: `my-runbook.yaml:12:5`.
    pub fn place(&self, pointer: &str) -> String {
        self.source.place(self.locate(pointer, false).start)
    }

    /// What is wrong, as people read it, in the order of the file.
    pub fn refuse(&self, faults: &[Fault]) -> Problems {
        let mut report = Report::new(self.source.clone());
        for fault in faults {
            let span = report.head(&self.locate(&fault.at, fault.key));
            let problem = report.error(Kind::Runbook, &span, fault.message.clone()).label(fault.label.clone());
            problem.help_if((!fault.help.is_empty()).then(|| fault.help.clone()));
        }
        report.finish()
    }

    fn locate(&self, pointer: &str, key: bool) -> Span {
        let mut node = &self.root;
        let mut span = node.span.clone();
        let mut segments = pointer.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let entry = |entries: &'_ [Entry]| entries.iter().position(|entry| entry.key == segment);
            let next = match &node.value {
                Tree::Map(entries) => {
                    entry(entries).and_then(|at| entries.get(at)).map(|entry| (&entry.value, Some(entry.at.clone())))
                }
                Tree::List(items) => segment.parse().ok().and_then(|at: usize| items.get(at)).map(|item| (item, None)),
                Tree::Scalar { .. } => None,
            };
            let Some((found, at)) = next else { break };
            node = found;
            span = match at {
                Some(at) if key && segments.peek().is_none() => at,
                _ => node.span.clone(),
            };
        }
        span
    }
}

fn plain(node: &Node) -> Value {
    match &node.value {
        Tree::List(items) => items.iter().map(plain).collect(),
        Tree::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), plain(&entry.value))).collect::<Map<_, _>>())
        }
        Tree::Scalar { text, .. } => match node.scalar() {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Number(value) => value.into(),
            Scalar::Text => text.clone().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_places() {
        let text = "name: x\nsteps:\n  - { a: 1, b: \"2\", c: [true, ~] }\n  - d: |\n      text\n";
        let document = Document::parse(text, "r.yaml").unwrap();
        let expected = serde_json::json!({"name": "x", "steps": [{"a": 1, "b": "2", "c": [true, null]}, {"d": "text\n"}]});
        assert_eq!(document.value(), expected);
        assert_eq!(document.place("/steps/0/b"), "r.yaml:3:16");
        assert_eq!(document.place("/steps/1/nothing/there"), document.place("/steps/1"));
        let fault = Fault { at: "/steps/0/b".into(), key: true, message: "no".into(), label: "here".into(), help: String::new() };
        let problems = document.refuse(&[fault]);
        let problem = problems.iter().next().unwrap();
        assert_eq!(problems.position(problem), Some((3, 13)));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let refused = |text: &str| Document::parse(text, "r.yaml").unwrap_err().render(false);
        assert!(refused("a: 1\na: 2\n").contains("given twice"));
        assert!(refused("a: [").contains("not YAML"));
        assert!(Document::load(Path::new("/nonexistent/r.yaml")).unwrap_err().render(false).contains("cannot read"));
    }
}
