//! Passwords that are typed at the workstation, or taken from where the operator says they are. Never from an argument itself.

use super::super::{Exit, Failure};
use crate::secrets::{Secrets, read_line};
use inventory::SecretRef;
use proto::Secret;

/// Where a password is, as it was typed. It is not looked at before it is used, and never shown: a person may have typed the password
/// itself.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordArg(String);

impl std::fmt::Debug for PasswordArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordArg(***)")
    }
}

impl std::str::FromStr for PasswordArg {
    type Err = std::convert::Infallible;

    /// Takes every text: a message about a wrong one would show it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Before anything is started.
        if let Ok(reference) = text.parse() {
            crate::secrets::note_variable(&reference);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The word for the first line of standard input.
const STDIN: &str = "stdin";

/// Where the passwords of a command come from. One for all platforms where it is a reference; asked for each platform otherwise.
pub(super) enum Source {
    /// By reference.
    Reference(SecretRef, Secrets),
    /// The line that was read from standard input.
    Line(Secret),
    /// At the terminal.
    Ask(Secrets),
}

impl Source {
    /// `option` is the option's name, for errors.
    ///
    /// # Errors
    /// [`Exit::Usage`] for what is no reference to a secret (it is not repeated), and when standard input ends before a line.
    pub(super) fn of(arg: Option<&PasswordArg>, option: &str) -> Result<Self, Failure> {
        // Paths in options start where the command was typed, those of an inventory at the inventory.
        let secrets = || Secrets::new("");
        match arg.map(|arg| arg.0.as_str()) {
            None | Some("prompt:") => Ok(Self::Ask(secrets())),
            Some(STDIN) => read_line()
                .map(Self::Line)
                .map_err(|why| Failure::new(Exit::Usage, format!("error: {option}: standard input: {why}"))),
            Some(text) => match text.parse() {
                Ok(reference) => Ok(Self::Reference(reference, secrets())),
                Err(error) => Err(Failure::new(Exit::Usage, format!("error: {option}: {error}, or `{STDIN}`"))),
            },
        }
    }

    /// Whether a person types it: then once is not enough for a new one.
    pub(super) fn is_typed(&self) -> bool {
        matches!(self, Self::Ask(_))
    }

    /// The password for `what` (`the internal password of emea`).
    ///
    /// # Errors
    /// [`Exit::Usage`] when it cannot be had, with what to do.
    pub(super) async fn password(&self, what: &str) -> Result<Secret, Failure> {
        match self {
            Self::Line(password) => Ok(password.clone()),
            Self::Reference(reference, secrets) => secrets.resolve(reference, what).await,
            Self::Ask(secrets) => secrets.resolve(&SecretRef::Prompt, what).await,
        }
        .map_err(|failure| Failure::new(failure.exit, format!("error: {}", failure.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_reference_is_refused_and_not_repeated() {
        for text in ["hunter2", "env:", "file:", "env:1x"] {
            let arg: PasswordArg = text.parse().unwrap();
            assert!(!format!("{arg:?}").contains(text));
            let Err(failure) = Source::of(Some(&arg), "--password") else { panic!("{text} was taken") };
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.starts_with("error: --password: ") && !failure.message.contains("hunter2"), "{failure}");
        }
        let arg = "command:printf s3cret".parse().unwrap();
        assert_eq!(Source::of(Some(&arg), "--password").ok().unwrap().password("it").await.unwrap().expose(), "s3cret");
        let arg = "file:/nonexistent/pw".parse().unwrap();
        let failure = Source::of(Some(&arg), "--password").ok().unwrap().password("it").await.unwrap_err();
        assert!(failure.message.starts_with("error: it: /nonexistent/pw"), "{failure}");
    }
}
