//! A page of results for people: titles, marked items, notes under them, wrapped at a fixed width so that it reads the same in a
//! terminal, in a mail and in a ticket.

use crate::view::text::{sanitize, width};

/// How wide a page is, in columns.
const COLUMNS: usize = 100;
/// Where notes begin.
const INDENT: usize = 6;
/// The column after a note's label.
const LABEL: usize = 6;

/// What an item is marked with; each has a sign of its own, so that nothing depends on colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Ok,
    Warning,
    Unknown,
    Failure,
    SetAside,
}

impl Mark {
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("✓", "32"),
            Self::Warning => ("!", "33"),
            Self::Unknown => ("?", "35"),
            Self::Failure => ("✗", "31"),
            Self::SetAside => ("~", "36"),
        }
    }
}

/// A page that is being written.
pub(super) struct Page {
    /// What was written so far.
    pub(super) text: String,
    color: bool,
}

impl Page {
    pub(super) fn new(color: bool) -> Self {
        Self { text: String::new(), color }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `emea · standard · 16 hosts`.
    pub(super) fn title(&mut self, parts: &[&str]) {
        let title = parts.iter().map(|part| sanitize(part)).collect::<Vec<_>>().join(" · ");
        let title = self.painted("1", &title);
        self.text.push_str(&title);
        self.text.push('\n');
    }

    /// `  ✗ version  trk[01-03]  what was found`; what was found goes to the next line where it does not fit.
    pub(super) fn item(&mut self, mark: Mark, name: &str, scope: &str, message: &str) {
        let (sign, code) = mark.sign();
        let sign = self.painted(code, sign);
        let [name, scope, message] = [name, scope, message].map(sanitize);
        let parts = |all: &[&str]| all.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("  ");
        let whole = parts(&[&name, &scope, &message]);
        let head = parts(&[&name, &scope]);
        self.text.push_str(&format!("  {sign} "));
        if head.is_empty() {
            self.wrapped(4, 4, &message);
        } else if 4 + width(&whole) <= COLUMNS {
            self.text.push_str(&format!("{whole}\n"));
        } else {
            self.text.push_str(&format!("{head}\n{}", " ".repeat(INDENT)));
            self.wrapped(INDENT, INDENT, &message);
        }
    }

    /// A row of a table under an item: kept as it is.
    pub(super) fn row(&mut self, text: &str) {
        self.text.push_str(&format!("{}{}\n", " ".repeat(INDENT), sanitize(text)));
    }

    /// A labelled note under an item.
    pub(super) fn note(&mut self, label: &str, text: &str) {
        let label = if label.is_empty() { String::new() } else { format!("{label:<LABEL$}") };
        self.text.push_str(&format!("{}{label}", " ".repeat(INDENT)));
        self.wrapped(INDENT + width(&label), INDENT + width(&label), &sanitize(text));
    }

    /// Goes on in a line of which `used` columns are used; further lines are indented.
    fn wrapped(&mut self, mut used: usize, indent: usize, text: &str) {
        let mut fresh = true;
        for word in text.split_whitespace() {
            if !fresh && used + 1 + width(word) > COLUMNS {
                self.text.push_str(&format!("\n{}", " ".repeat(indent)));
                (used, fresh) = (indent, true);
            }
            if !fresh {
                self.text.push(' ');
                used += 1;
            }
            self.text.push_str(word);
            used += width(word);
            fresh = false;
        }
        self.text.push('\n');
    }

    /// A line of its own.
    pub(super) fn line(&mut self, text: &str) {
        self.text.push_str(&sanitize(text));
        self.text.push('\n');
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colour_is_in_the_signs_and_titles_alone() {
        let mut page = Page::new(true);
        page.title(&["emea", "2 hosts"]);
        page.item(Mark::Failure, "disk", "trk01", "full");
        assert_eq!(page.text, "\x1b[1memea · 2 hosts\x1b[0m\n  \x1b[31m✗\x1b[0m disk  trk01  full\n");
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_stays_on_the_page(words in proptest::collection::vec("[^ ]{0,20}", 0..60), label in "[a-z]{0,4}") {
            let text = words.join(" ");
            let mut page = Page::new(false);
            page.item(Mark::Unknown, "check", "host", &text);
            page.note(&label, &text);
            page.item(Mark::Ok, "", "", &text);
            for line in page.text.lines() {
                prop_assert!(width(line) <= COLUMNS, "{line:?}");
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
