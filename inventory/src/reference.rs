//! How a reference to a secret is written: in an inventory, and wherever else a secret is not to be written out.

use crate::model::SecretRef;
use crate::yaml::REFERENCES;

/// What can be written instead of a secret.
pub(crate) const HELP: &str = "write `prompt:` (asked at the terminal), `env:NAME`, `file:PATH` or `command:PROGRAM ARGS`";

/// Why a text is no reference to a secret. None of them holds the text, which may be a secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has none of the prefixes.
    #[error("a reference to a secret is expected, never the secret itself: {HELP}")]
    Plain,
    /// What stands behind the prefix cannot be used.
    #[error("{0}")]
    Bad(&'static str),
}

impl std::str::FromStr for SecretRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let found = REFERENCES.iter().find_map(|prefix| Some((*prefix, text.strip_prefix(prefix)?.trim())));
        let (prefix, rest) = found.ok_or(ReferenceError::Plain)?;
        let wrong = match prefix {
            "prompt:" => (!rest.is_empty()).then_some("nothing stands behind `prompt:`"),
            "env:" => (!is_variable(rest)).then_some("the name of an environment variable stands behind `env:`"),
            "file:" => rest.is_empty().then_some("the path of a file stands behind `file:`"),
            _ => rest.is_empty().then_some("a program and its arguments stand behind `command:`"),
        };
        if let Some(wrong) = wrong {
            return Err(ReferenceError::Bad(wrong));
        }
        Ok(match prefix {
            "prompt:" => Self::Prompt,
            "env:" => Self::Env(rest.to_owned()),
            "file:" => Self::File(rest.to_owned()),
            _ => Self::Command(rest.to_owned()),
        })
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}
