//! A value that cannot be printed.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A secret on its way to the place that needs it. It cannot be displayed, its `Debug` form is fixed, and its memory is wiped
/// when it is dropped.
///
/// It can be serialised, because frames carry it inside SSH; the messages that do so are never journaled.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Each caller is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What stands before a secret's name, with `}` behind it, in a text that it is put into on the host.
pub const MARK: &str = "{secret:";

/// The names of the secrets that a text needs, for `{secret:NAME}` in it.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(MARK).skip(1).filter_map(|after| Some(after.split_once('}')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }
}
