//! Small helpers for everything that people read: harmless text, widths, durations, folded host names.

use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::collections::HashMap;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Makes text from a host harmless on a terminal and in a report: colour and cursor sequences (ECMA-48 CSI and OSC) vanish, tabs
/// and line ends become a space, every other control character (C0, C1, DEL) and every character that reorders or hides
/// text (Unicode bidirectional controls, line and paragraph separator, zero-width) becomes U+FFFD.
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' | '\u{9b}' | '\u{9d}' => {
                let opener = match (c, rest.peek()) {
                    ('\u{9b}', _) => Some('['),
                    ('\u{9d}', _) => Some(']'),
                    (_, Some('[' | ']')) => rest.next(),
                    _ => None,
                };
                match opener {
                    Some('[') => while rest.next_if(|c| matches!(c, '\u{20}'..='\u{3f}')).is_some() {},
                    Some(_) => while rest.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\u{9c}' | '\n')).is_some() {},
                    None => {
                        clean.push('\u{fffd}');
                        continue;
                    }
                }
                // The final byte of CSI, or the terminator of OSC.
                if let Some('\u{1b}') = rest.next_if(|c| !matches!(c, '\n')) {
                    rest.next_if_eq(&'\\');
                }
            }
            '\t' | '\n' => clean.push(' '),
            '\r' => {
                if rest.peek() != Some(&'\n') {
                    clean.push(' ');
                }
            }
            c if is_harmful(c) => clean.push('\u{fffd}'),
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{061c}' | '\u{feff}')
}

/// What is left of output with progress lines that overwrite themselves: the text after the last lone carriage return of the last
/// line that is not empty, made harmless.
pub fn last_line(output: &str) -> Option<String> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty())?;
    let shown = line.trim_end_matches('\r').rsplit('\r').find(|part| !part.trim().is_empty())?;
    Some(sanitize(shown.trim()).into_owned())
}

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text that takes at most so many columns; what is cut off is marked with `…`.
pub fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut used = 0;
    let mut cut = String::new();
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    Cow::Owned(cut)
}

/// A text that takes exactly so many columns.
pub fn pad(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

/// A running clock: `7:41`, `1:52:07`.
pub fn clock(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A duration for people: `340 ms`, `14 s`, `7:41`, `1 h 52 min`.
pub fn duration(duration: SignedDuration) -> String {
    let millis = duration.as_millis().max(0);
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Time between two points, for people; `–` where one is missing.
pub fn between(from: Option<Timestamp>, until: Option<Timestamp>) -> String {
    match (from, until) {
        (Some(from), Some(until)) => duration(until.duration_since(from)),
        _ => "–".to_owned(),
    }
}

/// Time of day in UTC: `21:58:04`.
pub fn time_of_day(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "--:--:--".to_owned(), |time| time.strftime("%H:%M:%S").to_string())
}

/// Date and time in UTC: `2026-11-22 21:58:04`.
pub fn date_time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `1 host`, `12 hosts`.
pub fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// The names that screens use for hosts: the first label (`trk04` of `trk04.emea.example.net`) where it begins with a letter
/// and no other of these hosts has the same one, else the whole name.
pub fn short_names<'a>(hosts: impl IntoIterator<Item = &'a str>) -> HashMap<String, String> {
    let names: Vec<&str> = hosts.into_iter().collect();
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in &names {
        *uses.entry(first_label(name)).or_default() += 1;
    }
    names
        .iter()
        .map(|name| {
            let label = first_label(name);
            let good = label.starts_with(|c: char| c.is_ascii_alphabetic()) && uses.get(label) == Some(&1);
            ((*name).to_owned(), if good { label.to_owned() } else { (*name).to_owned() })
        })
        .collect()
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Host names folded into ranges as an inventory writes them: `trk[01-08,10-12], mkt1`.
pub fn fold_hosts<'a>(hosts: impl IntoIterator<Item = &'a str>) -> String {
    let mut groups: Vec<Numbered<'_>> = Vec::new();
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    for host in hosts {
        let (prefix, digits, suffix) = split_number(host);
        let Ok(number) = digits.parse() else {
            groups.push(Numbered { prefix: host, suffix: "", numbers: Vec::new() });
            continue;
        };
        let at = *known.entry((prefix, suffix)).or_insert_with(|| {
            groups.push(Numbered { prefix, suffix, numbers: Vec::new() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(at) {
            group.numbers.push((digits.len(), number, digits.starts_with('0')));
        }
    }
    let texts: Vec<String> = groups.iter_mut().map(Numbered::text).collect();
    texts.join(", ")
}

/// Names that differ in a number only.
struct Numbered<'a> {
    prefix: &'a str,
    suffix: &'a str,
    /// How many digits, the number, whether it begins with a zero.
    numbers: Vec<(usize, u64, bool)>,
}

impl Numbered<'_> {
    fn text(&mut self) -> String {
        let Self { prefix, suffix, numbers } = self;
        // `01` and `001` are different names; without leading zeros the number alone tells (`9`, `10`).
        if !numbers.iter().any(|(digits, _, zero)| *zero && *digits > 1) {
            numbers.iter_mut().for_each(|(digits, ..)| *digits = 1);
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut runs: Vec<(usize, u64, u64)> = Vec::new();
        for &(digits, number, _) in numbers.iter() {
            match runs.last_mut() {
                Some((same, _, last)) if *same == digits && last.checked_add(1) == Some(number) => *last = number,
                _ => runs.push((digits, number, number)),
            }
        }
        let texts: Vec<String> = runs
            .iter()
            .map(|&(digits, from, to)| match from == to {
                true => format!("{from:0digits$}"),
                false => format!("{from:0digits$}-{to:0digits$}"),
            })
            .collect();
        match numbers.len() {
            0 => format!("{prefix}{suffix}"),
            1 => format!("{prefix}{}{suffix}", texts.concat()),
            _ => format!("{prefix}[{}]{suffix}", texts.join(",")),
        }
    }
}

/// A host's name before, in and after the last number of its first label.
fn split_number(host: &str) -> (&str, &str, &str) {
    let label = first_label(host);
    let kept = label.trim_end_matches(|c: char| !c.is_ascii_digit());
    let prefix = kept.trim_end_matches(|c: char| c.is_ascii_digit());
    (prefix, &kept[prefix.len()..], &host[kept.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_fold_into_ranges() {
        let numbered = |names: &[&str]| fold_hosts(names.iter().copied());
        assert_eq!(numbered(&["trk01", "trk02", "trk03", "trk10", "mkt1"]), "trk[01-03,10], mkt1");
        assert_eq!(numbered(&["mta9", "mta11", "mta10"]), "mta[9-11]");
        assert_eq!(numbered(&["a01", "a001", "a02"]), "a[01-02,001]");
        assert_eq!(numbered(&["trk1.emea.net", "trk2.emea.net", "trk2.apac.net"]), "trk[1-2].emea.net, trk2.apac.net");
        assert_eq!(numbered(&["db", "db"]), "db, db");
        assert_eq!(numbered(&["n99999999999999999999999"]), "n99999999999999999999999");
        assert_eq!(numbered(&[]), "");
    }

    #[test]
    fn short_names_are_unique_first_labels() {
        let short = short_names(["trk01.emea.net", "trk01.apac.net", "mkt1.emea.net", "127.0.0.1"]);
        assert_eq!(short["mkt1.emea.net"], "mkt1");
        assert_eq!(short["trk01.emea.net"], "trk01.emea.net");
        assert_eq!(short["127.0.0.1"], "127.0.0.1");
    }

    #[test]
    fn hostile_text_is_made_harmless() {
        assert_eq!(sanitize("plain ünïcode"), "plain ünïcode");
        assert_eq!(sanitize("\u{1b}[31;1mred\u{1b}[0m"), "red");
        assert_eq!(sanitize("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\y"), "xy");
        assert_eq!(sanitize("a\tb\r\nc\rd\u{8}"), "a b c d\u{fffd}");
        assert_eq!(sanitize("\u{9b}2Jx\u{202e}y"), "x\u{fffd}y");
        assert_eq!(sanitize("\u{1b}c"), "\u{fffd}c");
    }

    #[test]
    fn the_last_line_is_what_a_terminal_would_show() {
        assert_eq!(last_line("one\n 10 %\r 20 %\r\n\n").as_deref(), Some("20 %"));
        assert_eq!(last_line("\n \r\n"), None);
    }

    #[test]
    fn durations_read_well() {
        let texts: Vec<String> = [0, 340, 14_000, 461_000, 6_727_000].map(|ms| duration(SignedDuration::from_millis(ms))).into();
        assert_eq!(texts, ["0 ms", "340 ms", "14 s", "7:41", "1 h 52 min"]);
        assert_eq!(clock(SignedDuration::from_secs(461)), "7:41");
        assert_eq!(clock(SignedDuration::from_secs(6727)), "1:52:07");
        assert_eq!(clock(SignedDuration::from_secs(-5)), "0:00");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_control_character_survives(text in any::<String>(), controls in prop::collection::vec(0u32..0xa0, 0..20)) {
            let text: String = text.chars().chain(controls.into_iter().filter_map(char::from_u32)).collect();
            let clean = sanitize(&text);
            prop_assert!(!clean.chars().any(is_harmful));
            prop_assert_eq!(sanitize(&clean), clean.as_ref());
        }

        #[test]
        fn text_fits(text in any::<String>(), columns in 0usize..100) {
            let clean = sanitize(&text);
            prop_assert!(width(&fit(&clean, columns)) <= columns);
            prop_assert_eq!(width(&pad(&clean, columns)), columns);
        }

        #[test]
        fn folding_never_panics(names in prop::collection::vec(".{0,12}", 0..10)) {
            fold_hosts(names.iter().map(String::as_str));
            short_names(names.iter().map(String::as_str));
        }
    }
}
