//! What is wrong with an inventory, and how it is shown: every problem at once, each at its place, with a way out.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident => $word:literal,)*) => {
        /// What kind of problem it is. The words are stable, so that scripts can tell problems apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// The file cannot be read.
    Unreadable => "unreadable",
    /// The file is not UTF-8.
    Encoding => "encoding",
    /// The file is larger than an inventory can be.
    TooLarge => "too-large",
    /// More problems than can be listed.
    TooManyProblems => "too-many-problems",
    /// Not YAML.
    Syntax => "syntax",
    /// Nothing in it.
    Empty => "empty",
    /// More than one YAML document.
    SeveralDocuments => "several-documents",
    /// Nested too deeply.
    TooDeep => "too-deep",
    /// Aliases make it too large.
    TooManyAliases => "too-many-aliases",
    /// A YAML tag such as `!vault`.
    Tag => "tag",
    /// A key that is a list or a map.
    ComplexKey => "complex-key",
    /// `<<` with something that is not a map.
    MergeKey => "merge-key",
    /// A key given twice in one map.
    DuplicateKey => "duplicate-key",
    /// A value of the wrong type.
    WrongType => "wrong-type",
    /// A key that does not exist.
    UnknownKey => "unknown-key",
    /// A key that must be there.
    MissingKey => "missing-key",
    /// A key that a later version will have.
    ReservedKey => "reserved-key",
    /// A word that is not one of those allowed.
    UnknownWord => "unknown-word",
    /// A number outside its limits.
    OutOfRange => "out-of-range",
    /// A text that must not be empty.
    EmptyText => "empty-text",
    /// A list that must not be empty.
    EmptyList => "empty-list",
    /// A format version that this build does not read.
    FormatVersion => "format-version",
    /// A range that cannot be understood or is empty.
    RangeSyntax => "range-syntax",
    /// A range that counts down.
    RangeReversed => "range-reversed",
    /// A range inside a range.
    RangeNested => "range-nested",
    /// More hosts than a fleet can have.
    TooManyHosts => "too-many-hosts",
    /// Name and address do not stand for the same number of hosts.
    RangeMismatch => "range-mismatch",
    /// A name with characters that a name cannot have.
    BadName => "bad-name",
    /// A platform's name given twice.
    DuplicatePlatform => "duplicate-platform",
    /// A host's name given twice in a platform.
    DuplicateHost => "duplicate-host",
    /// A host in two platforms.
    HostInTwoPlatforms => "host-in-two-platforms",
    /// An instance's name given twice in a platform.
    DuplicateInstance => "duplicate-instance",
    /// A name that Campaign keeps for itself.
    ReservedName => "reserved-name",
    /// A role that does not exist.
    UnknownRole => "unknown-role",
    /// A role that the platform's topology does not have.
    RoleNotInTopology => "role-not-in-topology",
    /// Something listed twice.
    ListedTwice => "listed-twice",
    /// A topology without a role that it must have.
    MissingRole => "missing-role",
    /// More or fewer hosts than the topology has.
    HostCount => "host-count",
    /// A platform without mail or tracking servers (warning).
    NoDeliveryServers => "no-delivery-servers",
    /// An execution or mid-sourcing server that runs no instance (warning).
    NoInstanceOnHost => "no-instance-on-host",
    /// An instance that no host can run.
    NoApp => "no-app",
    /// An instance that several hosts could run.
    SeveralApps => "several-apps",
    /// An application server that is not a host of the platform.
    UnknownApp => "unknown-app",
    /// An application server without the role for it.
    WrongApp => "wrong-app",
    /// A secret written out.
    PlainSecret => "plain-secret",
    /// A reference to a secret that cannot be understood.
    BadSecretReference => "bad-secret-reference",
    /// A reference where there is no secret.
    StrayReference => "stray-reference",
    /// Not a SHA-256 digest.
    BadDigest => "bad-digest",
    /// Not an operating system that Caravan knows.
    BadOs => "bad-os",
    /// A package without its place, or with two.
    PackagePlace => "package-place",
    /// A URL that cannot be used.
    BadUrl => "bad-url",
    /// No package for a host.
    NoPackage => "no-package",
    /// A version that Caravan does not migrate from.
    SourceVersion => "source-version",
    /// A version that Caravan does not migrate to.
    TargetVersion => "target-version",
    /// An order that breaks the vendor's rules.
    OrderRule => "order-rule",
    /// An order that leaves a role out.
    OrderIncomplete => "order-incomplete",
    /// An order on a single machine.
    OrderWithoutStages => "order-without-stages",
    /// An engine that cannot come from this version.
    EngineNotSupported => "engine-not-supported",
    /// A platform without a database (warning).
    NoDatabase => "no-database",
    /// Two instances in one database (warning).
    SharedDatabase => "shared-database",
    /// A backup host that is not a host of the platform.
    UnknownBackupHost => "unknown-backup-host",
    /// A backup that is neither `on` and `dir` nor `by`.
    BackupForm => "backup-form",
    /// A backup that Caravan cannot make.
    BackupEngine => "backup-engine",
    /// Not a host name or address.
    BadAddress => "bad-address",
    /// Two hosts with one address and port (warning).
    SameAddress => "same-address",
    /// A path that cannot be used.
    BadPath => "bad-path",
    /// A placeholder that does not exist.
    BadPlaceholder => "bad-placeholder",
    /// Two directories that must be apart.
    PathsOverlap => "paths-overlap",
    /// Not an account name.
    BadAccount => "bad-account",
    /// Not a public host key.
    BadHostKey => "bad-host-key",
    /// A setting without effect (warning).
    WithoutEffect => "without-effect",
    /// A setting that does not go with the host's OS.
    NotOnThisOs => "not-on-this-os",
    /// Not a time zone.
    BadTimezone => "bad-timezone",
    /// v5 needs a time zone for postupgrade.
    MissingTimezone => "missing-timezone",
    /// Not a step name.
    BadStepName => "bad-step-name",
    /// A step that the runbook does not have.
    UnknownStep => "unknown-step",
    /// An override that changes nothing.
    OverrideEmpty => "override-empty",
    /// An override whose parts exclude each other.
    OverrideConflict => "override-conflict",
    /// A command as text without `shell: true`, or a list with it.
    CommandForm => "command-form",
    /// Not a length of time.
    BadDuration => "bad-duration",
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

/// The text of an inventory and where its lines begin.
pub(crate) struct Source {
    name: String,
    text: String,
    lines: Vec<usize>,
    /// Where each character begins; empty for ASCII, where a character is a byte.
    chars: Vec<usize>,
}

/// Without the text: a secret may be written out in it.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("bytes", &self.text.len()).finish()
    }
}

impl Source {
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        // YAML ends lines at CR, LF and CR LF.
        let bytes = text.as_bytes();
        let ends =
            bytes.iter().enumerate().filter(|(at, byte)| **byte == b'\n' || (**byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')));
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        let chars = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self { name: name.into(), text, lines, chars }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The byte at a line (from 1) and a column in characters (from 0), inside the text.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let Some(start) = line.checked_sub(1).and_then(|index| self.lines.get(index)) else { return self.text.len() };
        if self.chars.is_empty() {
            return (start + column).min(self.text.len());
        }
        let line = self.chars.partition_point(|at| at < start);
        self.chars.get(line + column).copied().unwrap_or(self.text.len())
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line.max(1), self.text[start..offset].chars().count() + 1)
    }

    /// `FILE:LINE:COLUMN` of a byte.
    pub(crate) fn place(&self, offset: usize) -> String {
        let (line, column) = self.position(offset);
        format!("{}:{line}:{column}", self.name)
    }

    /// A line (from 1) without its end, and where it begins.
    fn line(&self, number: usize) -> (usize, &str) {
        let start = self.lines.get(number.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        (start, self.text[start..end].trim_end_matches(['\n', '\r']))
    }

    /// The line that a byte is in, and where it begins.
    pub(crate) fn line_at(&self, offset: usize) -> (usize, &str) {
        self.line(self.position(offset).0)
    }

    /// The nearest character boundary at or before an offset.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
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
        let text = self.source.text.get(span.clone()).unwrap_or_default();
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

/// The longest value that a message shows.
const QUOTED: usize = 60;

/// A value from the file as messages show it: in backticks, without control characters, not longer than a line can bear.
pub(crate) fn quote(text: &str) -> String {
    let mut shown = String::new();
    for char in text.chars().take(QUOTED) {
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    if text.chars().nth(QUOTED).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `a`, `b` and `c`.
pub(crate) fn listing<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| quote(word.as_ref())).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The candidate that somebody most likely meant, if one is near enough to say so.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 100 {
        return None;
    }
    let lower = text.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let best = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min_by_key(|(distance, _)| *distance)?;
    // A third of a word may be wrong; more is a guess.
    let allowed = (best.1.chars().count().max(lower.chars().count()) / 3).max(1);
    (best.0 <= allowed).then_some(best.1)
}

/// `did you mean ...?`, if something is near enough.
pub(crate) fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(text, candidates).map(|candidate| format!("did you mean {}?", quote(candidate)))
}
