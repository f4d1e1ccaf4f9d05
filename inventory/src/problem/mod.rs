//! What is wrong with an inventory, and how it is shown: every problem at once, each at its place, with a way out.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

mod kind;
mod report;
mod source;
mod words;

pub use kind::Kind;
pub(crate) use report::Report;
pub(crate) use source::Source;
pub(crate) use words::{did_you_mean, listing, nearest, quote};

/// A place in the file, in bytes.
pub(crate) type Span = Range<usize>;

/// Whether an inventory with this problem can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can be used; a person should look at it.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the inventory can be used all the same.
    pub severity: Severity,
    /// What kind it is.
    pub kind: Kind,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    label: String,
    span: Option<Span>,
    others: Vec<(Span, String)>,
}

impl Problem {
    /// What stands at the place itself: what was expected there.
    pub(crate) fn label(&mut self, text: impl Into<String>) -> &mut Self {
        self.label = text.into();
        self
    }

    /// The way out.
    pub(crate) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }

    /// The way out, where there is one.
    pub(crate) fn help_if(&mut self, text: Option<String>) -> &mut Self {
        if text.is_some() {
            self.help = text;
        }
        self
    }

    /// Another place that belongs to it.
    pub(crate) fn also(&mut self, span: &Span, label: impl Into<String>) -> &mut Self {
        self.others.push((span.clone(), label.into()));
        self
    }
}

/// Everything that is wrong with one inventory, in the order of the file.
#[derive(Debug, Clone)]
pub struct Problems {
    source: Arc<Source>,
    masks: Vec<Span>,
    items: Vec<Problem>,
}

/// How much of a line is shown after a place: more would be off the screen.
const SHOWN: usize = 200;
/// The longest line that is shown. Machines write longer ones, and nobody finds a place in them by looking.
const LONGEST: usize = 4096;
/// The most problems that are listed.
const LISTED: usize = 1000;

impl Problems {
    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.items.iter()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.items.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.items.len() - self.errors()
    }

    /// Line and column of a problem, both from 1; `None` where it is about the whole file.
    pub fn position(&self, problem: &Problem) -> Option<(usize, usize)> {
        problem.span.as_ref().map(|span| self.source.position(span.start))
    }

    /// The problems as text, each with its source line; values of secrets are masked. Ends with a line that counts them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for problem in &self.items {
            out.push_str(&self.render_one(problem, &renderer));
            out.push_str("\n\n");
        }
        if !self.items.is_empty() {
            out.push_str(&self.summary());
            out.push('\n');
        }
        out
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        let mut group = match &problem.span {
            Some(span) if self.source.line_at(span.start).1.len() > LONGEST => title.element(self.origin(span)),
            Some(span) => title.element(self.snippet(span, AnnotationKind::Primary, &problem.label)),
            None => annotate_snippets::Group::with_title(title),
        };
        for (span, label) in problem.others.iter().filter(|(span, _)| self.source.line_at(span.start).1.len() <= LONGEST) {
            group = group.element(self.snippet(span, AnnotationKind::Context, label));
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// A place alone.
    fn origin(&self, span: &Span) -> Origin<'_> {
        let (line, column) = self.source.position(span.start);
        Origin::path(self.source.name()).line(line).char_column(column)
    }

    /// The one line that a span begins in, with the span marked as far as that line goes.
    fn snippet<'a>(&'a self, span: &Span, kind: AnnotationKind, label: &'a str) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let (number, _) = self.source.position(span.start);
        let (start, line) = self.source.line(number);
        let mut text = self.masked(start, line);
        let from = self.source.floor(span.start).saturating_sub(start).min(text.len());
        let mut to = self.source.floor(span.end).saturating_sub(start).clamp(from, text.len());
        // Trailing blanks are no part of what is meant.
        to = from + text.get(from..to).map_or(0, |marked| marked.trim_end().len());
        if let Some((cut, _)) = text.get(from..).and_then(|rest| rest.char_indices().nth(SHOWN)) {
            text.truncate(from + cut);
            to = to.min(from + cut);
        }
        let annotation = kind.span(from..to);
        let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
        Snippet::source(text).line_start(number).path(self.source.name()).annotation(annotation)
    }

    /// A line whose secrets are stars; as many bytes as before, so that places stay.
    fn masked(&self, start: usize, line: &str) -> String {
        let end = start + line.len();
        let masks: Vec<_> = self.masks.iter().filter(|mask| mask.start < end && mask.end > start).collect();
        let hidden = |at: usize| masks.iter().any(|mask| mask.contains(&(start + at)));
        line.char_indices().map(|(at, char)| if hidden(at) { "*".repeat(char.len_utf8()) } else { char.to_string() }).collect()
    }

    fn summary(&self) -> String {
        let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        let file = self.source.name();
        match (self.errors(), self.warnings()) {
            (0, warnings) => format!("{} in {file}.", count(warnings, "warning")),
            (errors, 0) => format!("{} in {file}; nothing was contacted.", count(errors, "error")),
            (errors, warnings) => {
                format!("{} and {} in {file}; nothing was contacted.", count(errors, "error"), count(warnings, "warning"))
            }
        }
    }

    /// The problems for programs: `{"file", "errors", "warnings", "problems": [{"severity", "kind", "message", "line"?, "column"?,
    /// "label"?, "help"?}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self.items.iter().map(|problem| self.problem_json(problem)).collect();
        serde_json::json!({
            "file": self.source.name(),
            "errors": self.errors(),
            "warnings": self.warnings(),
            "problems": problems,
        })
    }

    fn problem_json(&self, problem: &Problem) -> serde_json::Value {
        let mut entry = serde_json::json!({
            "severity": problem.severity,
            "kind": problem.kind.as_str(),
            "message": problem.message,
        });
        if let Some((line, column)) = self.position(problem) {
            entry["line"] = line.into();
            entry["column"] = column.into();
        }
        if !problem.label.is_empty() {
            entry["label"] = problem.label.as_str().into();
        }
        if let Some(help) = &problem.help {
            entry["help"] = help.as_str().into();
        }
        entry
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
