//! Patterns with `*`, in the last segment of a path or relative to a directory.

use std::io;
use std::path::{Path, PathBuf};

/// Whether a name matches a pattern in which `*` stands for any characters.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Greedy with one fallback: only the last `*` ever needs to be reconsidered.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if Some(byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    n = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Whether the last segment of a path is a pattern.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|last| last.contains('*'))
}

/// The files that a path selects, sorted by name: itself when it is no pattern (whether it exists or not), otherwise what its
/// directory holds. A directory that does not exist holds nothing.
pub(crate) fn files(path: &str) -> io::Result<Vec<PathBuf>> {
    if !is_pattern(path) {
        return Ok(vec![PathBuf::from(path)]);
    }
    let (dir, last) = path.rsplit_once('/').unwrap_or((".", path));
    let dir = if dir.is_empty() { Path::new("/") } else { Path::new(dir) };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if matches(last.as_bytes(), entry.file_name().as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| naive(rest, &name[skip..])),
            Some((byte, rest)) => name.split_first().is_some_and(|(first, name)| first == byte && naive(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn stars_match_what_the_definition_says(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
