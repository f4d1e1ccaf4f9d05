//! Hides known secret values in a stream of output.

use proto::Secret;
use std::collections::BTreeMap;

/// What stands in the place of a secret.
pub const MASK: &[u8] = b"***";

/// Replaces every known secret value by [`MASK`], wherever the stream is cut into pieces. Bytes are held back only while they
/// could be the beginning of a secret.
pub struct Mask {
    /// The values, longest first, so that a secret that contains another is hidden whole.
    values: Vec<Secret>,
    held: Vec<u8>,
}

impl Mask {
    /// Knows these secrets. Empty values hide nothing.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut values: Vec<Secret> = secrets.into_iter().filter(|s| !s.expose().is_empty()).cloned().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        Self { values, held: Vec::new() }
    }

    /// The mask for secrets by name.
    pub(crate) fn of(secrets: &BTreeMap<String, Secret>) -> Self {
        Self::new(secrets.values())
    }

    /// Takes the next piece of the stream, appends to `out` what can be shown by now.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.values.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        let shown = self.show(out, false);
        self.held.drain(..shown);
    }

    /// The stream is over: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.show(out, true);
        zeroize::Zeroize::zeroize(&mut self.held);
    }

    /// A whole text at once, for messages.
    pub fn text(&self, text: &str) -> String {
        let mut fresh = Self { values: self.values.clone(), held: Vec::new() };
        let mut out = Vec::with_capacity(text.len());
        fresh.push(text.as_bytes(), &mut out);
        fresh.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends what of `held` can be shown, and says how much of it that was.
    fn show(&self, out: &mut Vec<u8>, last: bool) -> usize {
        let mut rest = self.held.as_slice();
        while let Some((first, after)) = rest.split_first() {
            let candidates = || self.values.iter().map(|v| v.expose().as_bytes());
            // A longer secret that may still become whole goes before a shorter one that already is.
            if !last && candidates().any(|value| value.len() > rest.len() && value.starts_with(rest)) {
                break;
            }
            match candidates().find_map(|value| rest.strip_prefix(value)) {
                Some(behind) => {
                    out.extend_from_slice(MASK);
                    rest = behind;
                }
                None => {
                    out.push(*first);
                    rest = after;
                }
            }
        }
        self.held.len() - rest.len()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(values: &[String], pieces: &[&[u8]]) -> Vec<u8> {
        let secrets: Vec<Secret> = values.iter().map(Secret::new).collect();
        let mut mask = Mask::new(&secrets);
        let mut out = Vec::new();
        for piece in pieces {
            mask.push(piece, &mut out);
        }
        mask.finish(&mut out);
        out
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(values in proptest::collection::vec("[ab]{1,4}", 0..4), text in "[abc]{0,60}", cut in 1usize..9) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let at_once = masked(&values, &[text.as_bytes()]);
            prop_assert_eq!(&masked(&values, &pieces), &at_once);
            // `*` is in no value: a value that is still there would be a leak.
            for value in &values {
                prop_assert!(!String::from_utf8_lossy(&at_once).contains(value.as_str()), "{value} in {at_once:?}");
            }
        }

        #[test]
        fn what_is_no_secret_is_kept(text in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..40) {
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            // Longer than the text can be: it never occurs.
            prop_assert_eq!(masked(&["x".repeat(300)], &pieces), text);
        }
    }

    #[test]
    fn a_prefix_is_held_back_only_as_long_as_it_may_become_a_secret() {
        let secrets = [Secret::new("hunter2")];
        let mut mask = Mask::new(&secrets);
        let mut out = Vec::new();
        mask.push(b"password: hun", &mut out);
        assert_eq!(out, b"password: ");
        mask.push(b"g", &mut out);
        assert_eq!(out, b"password: hung");
    }
}
