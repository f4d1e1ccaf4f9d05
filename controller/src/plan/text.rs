//! Lines for a terminal: width, colour.

/// Puts colour on text, or does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How many columns a text takes. Names are ASCII; the few symbols in use take one column each.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// A text padded with blanks to a number of columns.
pub(super) fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(columns(text))))
}

/// A blank at which no line is broken.
pub(super) const FIRM: &str = "\u{a0}";

/// Breaks a text into lines of at most `width` columns, at blanks. A word that is longer stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter().map(|line| line.replace(FIRM, " ")).collect()
}

/// A text after a head on the first line, wrapped, the further lines under its beginning.
pub(super) fn hang(head: &str, head_columns: usize, text: &str, width: usize) -> String {
    // Below this, wrapping would make the text less readable than a long line does.
    const NARROWEST: usize = 24;
    let mut out = String::new();
    let lines = wrap(text, width.saturating_sub(head_columns).max(NARROWEST));
    for (index, line) in lines.iter().enumerate() {
        let lead = if index == 0 { head.to_owned() } else { " ".repeat(head_columns) };
        out.push_str(&lead);
        out.push_str(line);
        out.push('\n');
    }
    if lines.is_empty() {
        out.push_str(head.trim_end());
        out.push('\n');
    }
    out
}

/// `1 h 52 min`, `40 s`.
pub(crate) fn words(time: std::time::Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..3600 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
