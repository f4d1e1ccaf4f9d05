//! The text that problems are about.

use std::fmt;

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
    pub(super) fn line(&self, number: usize) -> (usize, &str) {
        let start = self.lines.get(number.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        (start, self.text[start..end].trim_end_matches(['\n', '\r']))
    }

    /// The line that a byte is in, and where it begins.
    pub(crate) fn line_at(&self, offset: usize) -> (usize, &str) {
        self.line(self.position(offset).0)
    }

    /// The nearest character boundary at or before an offset.
    pub(super) fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}
