//! Collecting problems.

use super::{Kind, LISTED, Problem, Problems, Severity, Source, Span};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Collects problems while an inventory is read.
#[derive(Debug)]
pub(crate) struct Report {
    source: Arc<Source>,
    masks: Vec<Span>,
    items: Vec<Problem>,
    seen: HashMap<(Option<Span>, String), usize>,
    given_up: HashSet<(usize, String)>,
    key: Option<String>,
}

impl Report {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source, masks: Vec::new(), items: Vec::new(), seen: HashMap::new(), given_up: HashSet::new(), key: None }
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// A problem that makes the inventory unusable.
    pub(crate) fn error(&mut self, kind: Kind, span: &Span, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, kind, Some(span.clone()), message.into())
    }

    /// A problem that a person should look at.
    pub(crate) fn warning(&mut self, kind: Kind, span: &Span, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Warning, kind, Some(span.clone()), message.into())
    }

    /// A problem of the whole file.
    pub(crate) fn file_error(&mut self, kind: Kind, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, kind, None, message.into())
    }

    fn add(&mut self, severity: Severity, kind: Kind, span: Option<Span>, message: String) -> &mut Problem {
        // What is inherited by many hosts is looked at for each of them, and said once.
        // The last place in the list serves all that do not fit any more; `finish` says how many.
        let next = self.items.len().min(LISTED);
        let at = *self.seen.entry((span.clone(), message.clone())).or_insert(next);
        if at == self.items.len() {
            self.items.push(Problem { severity, kind, message, help: None, label: String::new(), span, others: Vec::new() });
        }
        self.items[at].others.clear();
        &mut self.items[at]
    }

    /// Sets the key whose value is read now, for messages; gives the one before.
    pub(crate) fn enter(&mut self, key: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.key, key)
    }

    /// The key whose value is read now.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Remembers that a key of the map at `map` is there and was reported: it must not be reported as missing too.
    pub(crate) fn give_up(&mut self, map: &Span, key: &str) {
        self.given_up.insert((map.start, key.to_owned()));
    }

    /// Whether a key of this map was reported already.
    pub(crate) fn gave_up(&self, map: &Span, key: &str) -> bool {
        self.given_up.contains(&(map.start, key.to_owned()))
    }

    /// The beginning of a map or list: its bracket, or the first word of a block. What is said about the whole is marked there.
    pub(crate) fn head(&self, span: &Span) -> Span {
        let text = self.source.text().get(span.clone()).unwrap_or_default();
        let length = if text.starts_with(['{', '[']) {
            1
        } else {
            text.find(|char: char| char.is_whitespace() || ":,}]".contains(char)).unwrap_or(text.len())
        };
        span.start..span.start + length.max(1)
    }

    /// A part of the file that is never shown.
    pub(crate) fn mask(&mut self, span: &Span) {
        self.masks.push(span.clone());
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.items.len() > LISTED || self.items.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Everything, in the order of the file.
    pub(crate) fn finish(mut self) -> Problems {
        if self.items.len() > LISTED {
            self.items.truncate(LISTED);
            self.file_error(Kind::TooManyProblems, format!("there are more problems than the {LISTED} listed here"));
        }
        self.items.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        Problems { source: self.source, masks: self.masks, items: self.items }
    }
}
