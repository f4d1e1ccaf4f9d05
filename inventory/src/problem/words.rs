//! Words of messages: values as they are shown, and what was most likely meant.

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
