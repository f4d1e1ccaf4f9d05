//! Ranges in names: `trk[01-12]` stands for twelve hosts, and twelve hosts are shown as `trk[01-12]`.

use std::collections::BTreeSet;

/// The most hosts that one name can stand for, and a fleet can have.
pub(crate) const MAX_HOSTS: usize = 10_000;
/// Longer than any host name with its ranges (a DNS name has at most 253 characters).
const MAX_LENGTH: usize = 512;
/// More digits than any number of hosts needs; it keeps numbers inside `u64`.
const MAX_DIGITS: usize = 9;

/// Why a range cannot be expanded. Each text says what a range looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not a range, or an empty one.
    #[error("{text}: {reason}")]
    Syntax {
        /// The text between the brackets.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// It counts down.
    #[error("[{first}-{last}] counts down: write [{last}-{first}]")]
    Reversed {
        /// The first number, as written.
        first: String,
        /// The last number, as written.
        last: String,
    },
    /// A range inside a range.
    #[error("a range cannot stand inside a range")]
    Nested,
    /// It stands for too many names.
    #[error("stands for more than {MAX_HOSTS} names")]
    TooMany,
}

/// All names that a text stands for, in order: `[1-3]`, `[01-12]` (zero-padded), `[1:3]`, `[1-3,5]`. Several ranges in one name
/// give every combination, the last one counting fastest.
///
/// # Errors
/// The first thing that is wrong with a range.
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    if text.len() > MAX_LENGTH {
        return Err(RangeError::Syntax { text: text.chars().take(20).collect(), reason: "longer than any name" });
    }
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(at) = rest.find(['[', ']']) {
        let (literal, tail) = rest.split_at(at);
        let Some(inside) = tail.strip_prefix('[') else {
            return Err(RangeError::Syntax { text: text.to_owned(), reason: "`]` without `[`" });
        };
        let Some(end) = inside.find(']') else {
            return Err(RangeError::Syntax { text: text.to_owned(), reason: "`[` without `]`" });
        };
        if inside[..end].contains('[') {
            return Err(RangeError::Nested);
        }
        let numbers = numbers(&inside[..end])?;
        if names.len().saturating_mul(numbers.len()) > MAX_HOSTS {
            return Err(RangeError::TooMany);
        }
        names = names.iter().flat_map(|name| numbers.iter().map(move |number| format!("{name}{literal}{number}"))).collect();
        rest = &inside[end + 1..];
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

/// Whether a text has a range in it.
pub(crate) fn is_range(text: &str) -> bool {
    text.contains(['[', ']'])
}

fn numbers(list: &str) -> Result<Vec<String>, RangeError> {
    let syntax = |reason| RangeError::Syntax { text: format!("[{list}]"), reason };
    if list.trim().is_empty() {
        return Err(syntax("this range is empty: write for example [1-3]"));
    }
    let mut all = Vec::new();
    for item in list.split(',').map(str::trim) {
        let (first, last) = item.split_once(['-', ':']).unwrap_or((item, item));
        let (first, last) = (first.trim(), last.trim());
        for end in [first, last] {
            if end.is_empty() || !end.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(syntax("a range goes from number to number, for example [1-3] or [01-12]"));
            }
            if end.len() > MAX_DIGITS {
                return Err(RangeError::TooMany);
            }
        }
        let padded = |text: &str| text.len() > 1 && text.starts_with('0');
        if (padded(first) || padded(last)) && first.len() != last.len() {
            return Err(syntax("with leading zeros both ends have the same number of digits, for example [01-12]"));
        }
        let width = if padded(first) { first.len() } else { 0 };
        let (Ok(from), Ok(to)) = (first.parse::<u64>(), last.parse::<u64>()) else {
            return Err(syntax("this is not a number"));
        };
        if from > to {
            return Err(RangeError::Reversed { first: first.to_owned(), last: last.to_owned() });
        }
        if to - from >= MAX_HOSTS as u64 {
            return Err(RangeError::TooMany);
        }
        all.extend((from..=to).map(|number| format!("{number:0width$}")));
        if all.len() > MAX_HOSTS {
            return Err(RangeError::TooMany);
        }
    }
    Ok(all)
}

/// The longest text that [`fold_names`] gives: it has to fit on a line beside other columns.
const FOLDED: usize = 100;

/// Names for a screen: `trk01, trk02, trk03, trk05` becomes `trk[01-03,05]`. What does not fit on a line is counted.
pub fn fold_names(names: &[&str]) -> String {
    let folded = fold(names);
    let mut out = String::new();
    let mut left = names.iter().collect::<BTreeSet<_>>().len();
    for (index, (group, count)) in folded.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        if index > 0 && out.chars().count() + separator.len() + group.chars().count() > FOLDED {
            out.push_str(&format!(", … {left} more"));
            return out;
        }
        out.push_str(separator);
        if group.chars().count() > FOLDED {
            out.extend(group.chars().take(FOLDED));
            out.push_str(&format!("… ({count} names)"));
        } else {
            out.push_str(group);
        }
        left -= count;
    }
    out
}

/// Names in groups, each as one text that [`expand`] takes apart again, with how many names it stands for; groups in the order of
/// their first name.
pub(crate) fn fold(names: &[&str]) -> Vec<(String, usize)> {
    /// Names that differ in one number alone.
    struct Group<'a> {
        prefix: &'a str,
        suffix: &'a str,
        /// Digits of zero-padded numbers; 0 where the numbers are not padded.
        numbers: BTreeSet<(usize, u64)>,
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for name in names {
        let (prefix, digits, suffix) = split(name);
        let at = *index.entry((prefix, suffix, digits.is_empty())).or_insert_with(|| {
            groups.push(Group { prefix, suffix, numbers: BTreeSet::new() });
            groups.len() - 1
        });
        if let Ok(number) = digits.parse() {
            groups[at].numbers.insert((digits.len(), number));
        }
    }
    groups
        .iter()
        .map(|group| {
            let runs = runs(&group.numbers);
            let text = match (runs.as_slice(), group.numbers.len()) {
                ([], _) => format!("{}{}", group.prefix, group.suffix),
                ([only], 1) => format!("{}{only}{}", group.prefix, group.suffix),
                _ => format!("{}[{}]{}", group.prefix, runs.join(","), group.suffix),
            };
            (text, group.numbers.len().max(1))
        })
        .collect()
}

/// Numbers as texts of consecutive ones. A run keeps one notation: all of one width, or none with a leading zero.
fn runs(numbers: &BTreeSet<(usize, u64)>) -> Vec<String> {
    let padded = |(width, number): (usize, u64)| number.to_string().len() < width;
    let write = |(width, number): (usize, u64)| format!("{number:0width$}");
    let mut runs: Vec<((usize, u64), (usize, u64))> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((first, last)) if last.1 + 1 == number.1 && (number.0 == first.0 || (!padded(*first) && !padded(number))) => {
                *last = number
            }
            _ => runs.push((number, number)),
        }
    }
    runs.iter()
        .map(|(first, last)| if first == last { write(*first) } else { format!("{}-{}", write(*first), write(*last)) })
        .collect()
}

/// A name around the number that counts its hosts: the last one of the first label (`trk01` of `trk01.emea2.example.net`), else the
/// last one at all (the last part of an address).
fn split(name: &str) -> (&str, &str, &str) {
    let whole = |name| (name, "", "");
    // Brackets are no part of a host's name; a text with them cannot be folded and taken apart again.
    if is_range(name) {
        return whole(name);
    }
    let label = name.find('.').filter(|end| !name[..*end].bytes().all(|byte| byte.is_ascii_digit())).unwrap_or(name.len());
    let Some(last) =
        name[..label].rfind(|char: char| char.is_ascii_digit()).or_else(|| name.rfind(|char: char| char.is_ascii_digit()))
    else {
        return whole(name);
    };
    let first = name[..last]
        .rfind(|char: char| !char.is_ascii_digit())
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    if last + 1 - first > MAX_DIGITS {
        return whole(name);
    }
    (&name[..first], &name[first..=last], &name[last + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(text: &str) -> Vec<String> {
        expand(text).unwrap()
    }

    #[test]
    fn ranges_in_all_notations() {
        assert_eq!(expanded("mta"), ["mta"]);
        assert_eq!(expanded("mta[1-3].x"), ["mta1.x", "mta2.x", "mta3.x"]);
        assert_eq!(expanded("trk[08-11]"), ["trk08", "trk09", "trk10", "trk11"]);
        assert_eq!(expanded("10.1.0.[9:11]"), ["10.1.0.9", "10.1.0.10", "10.1.0.11"]);
        assert_eq!(expanded("r[1-2]h[01,03]"), ["r1h01", "r1h03", "r2h01", "r2h03"]);
        assert_eq!(expanded("a[0-0]"), ["a0"]);
    }

    #[test]
    fn what_is_no_range_says_why() {
        for (text, word) in [
            ("a[]", "is empty"),
            ("a[ ]", "is empty"),
            ("a[1-", "without `]`"),
            ("a]1", "without `[`"),
            ("a[x-z]", "number to number"),
            ("a[1-2-3]", "number to number"),
            ("a[-3]", "number to number"),
            ("a[01-100]", "same number of digits"),
            ("a[3-1]", "counts down"),
            ("a[1-[2-3]]", "inside a range"),
            ("a[1-100000]", "more than"),
            ("a[1-200]b[1-200]", "more than"),
            ("a[1-9999999999]", "more than"),
        ] {
            let message = expand(text).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    #[test]
    fn folded_names_read_as_ranges() {
        assert_eq!(fold_names(&["trk01", "trk02", "trk03", "trk05"]), "trk[01-03,05]");
        assert_eq!(fold_names(&["trk01.emea.example.net", "trk02.emea.example.net"]), "trk[01-02].emea.example.net");
        assert_eq!(fold_names(&["mkt1", "trk9", "trk10", "trk11", "db"]), "mkt1, trk[9-11], db");
        assert_eq!(fold_names(&["10.1.0.1", "10.1.0.2"]), "10.1.0.[1-2]");
        assert_eq!(fold_names(&[]), "");
    }

    #[test]
    fn folded_names_fit_on_a_line() {
        let names: Vec<_> =
            (0..300).map(|index| format!("host-{}-{}", char::from(b'a' + (index % 26) as u8), "x".repeat(index % 40))).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let folded = fold_names(&names);
        assert!(folded.chars().count() < FOLDED + 20, "{folded}");
        assert!(folded.contains("more"), "{folded}");
    }

    proptest! {
        #[test]
        fn folding_loses_no_name(names in proptest::collection::btree_set("[a-c]{0,2}[0-9]{1,3}(\\.[a-b]{1,2}[0-9]{0,2})?|[a-d.-]{1,4}", 0..60)) {
            let list: Vec<_> = names.iter().map(String::as_str).collect();
            let mut back = BTreeSet::new();
            let mut counted = 0;
            for (text, count) in fold(&list) {
                let all = expand(&text).unwrap();
                prop_assert_eq!(all.len(), count, "{}", text);
                counted += count;
                back.extend(all);
            }
            prop_assert_eq!(counted, names.len());
            prop_assert_eq!(back, names);
        }

        #[test]
        fn any_text_expands_or_says_why(text in "[a\\[\\]0-9:,é-]{0,30}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(!names.is_empty() && names.len() <= MAX_HOSTS);
            }
        }
    }
}
