//! What hosts say, made harmless before a person sees it.

use std::fmt::Write;

/// Keeps printable characters, makes tabs and line ends spaces, and writes every other control character as `\x1b` or `\u{202e}`: a
/// host must not be able to move the cursor, colour or retitle the operator's terminal, or to turn text around.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        push_harmless(letter, &mut out, |letter| matches!(letter, '\n' | '\r' | '\t').then_some(' '));
    }
    out
}

/// As [`printable`], for one line of output: tabs stay, a carriage return at the end goes.
pub fn printable_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes));
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        push_harmless(letter, &mut out, |letter| (letter == '\t').then_some('\t'));
    }
    out
}

fn push_harmless(letter: char, out: &mut String, replaced: impl Fn(char) -> Option<char>) {
    if let Some(other) = replaced(letter) {
        out.push(other);
    } else if letter.is_ascii_control() {
        let _ = write!(out, "\\x{:02x}", u32::from(letter));
    } else if letter.is_control() || turns_text(letter) {
        let _ = write!(out, "{}", letter.escape_unicode());
    } else {
        out.push(letter);
    }
}

/// The characters that change the direction of text (Unicode UAX #9).
fn turns_text(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The last non-empty lines of what a host printed, at most `limit` characters, on one line.
pub fn tail(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let start = lines.len().saturating_sub(4);
    let shown = printable(&lines.get(start..).unwrap_or_default().join(" / "));
    let skipped = shown.chars().count().saturating_sub(limit);
    if skipped == 0 { shown } else { format!("...{}", shown.chars().skip(skipped).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminal_commands_become_text() {
        assert_eq!(printable("a\x1b[31mred\x07\r\nb"), "a\\x1b[31mred\\x07  b");
        assert_eq!(printable_line(b"x\ty\r"), "x\ty");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(printable("Zürich"), "Zürich");
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail(b"one\n\ntwo\n", 100), "one / two");
        assert_eq!(tail(b"0123456789", 4), "...6789");
    }

    proptest! {
        #[test]
        fn nothing_that_controls_a_terminal_gets_through(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!tail(&bytes, 1000).chars().any(|letter| letter.is_control() || turns_text(letter)));
            prop_assert!(!printable_line(&bytes).chars().any(|letter| letter != '\t' && (letter.is_control() || turns_text(letter))));
        }
    }
}
