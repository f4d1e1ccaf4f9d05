//! Login passwords: asked for once, and a wrong one is tried on one host only, not on each host of a fleet until the account is locked.

use super::connect::Target;
use super::text::printable;
use crate::hosts::OpenError;
use crate::secrets::Secrets;
use inventory::SecretRef;
use proto::Secret;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What is known of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// Some server took it.
    Accepted,
    /// Some server refused it, and none took it before.
    Refused,
}

/// A password as somebody's, from somewhere.
type Whose = (String, SecretRef);

/// The login passwords of a fleet.
pub(super) struct Passwords {
    secrets: Arc<Secrets>,
    known: Mutex<HashMap<Whose, Arc<Mutex<Option<Tried>>>>>,
}

/// The right to try a password. While it is not known to be good, nobody else has one for it.
pub(super) struct Turn {
    password: Secret,
    known: Option<Tried>,
    held: Option<OwnedMutexGuard<Option<Tried>>>,
}

impl Turn {
    /// The password.
    pub(super) fn password(&self) -> &str {
        self.password.expose()
    }

    /// Whether a server refused it, and none took it.
    pub(super) fn was_refused(&self) -> bool {
        self.known == Some(Tried::Refused)
    }

    /// Notes what a server said to it, and lets the others go on.
    pub(super) fn ended(&mut self, tried: Tried) {
        if let Some(mut held) = self.held.take() {
            *held = Some(tried);
        }
    }
}

impl Passwords {
    pub(super) fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, known: Mutex::default() }
    }

    /// Fetches the password of a target, if it has one; a person is asked now, before anything is opened.
    ///
    /// # Errors
    /// [`OpenError::Authentication`]: it cannot be fetched.
    pub(super) async fn fetch(&self, target: &Target) -> Result<Option<Secret>, OpenError> {
        let Some(reference) = &target.password else { return Ok(None) };
        let what = format!("SSH password of {}", target.user);
        let fetched = self.secrets.resolve(reference, &what).await;
        fetched.map(Some).map_err(|failure| OpenError::Authentication {
            host: target.name.clone(),
            seen: failure.message,
            next: "Correct ssh.password for this host".to_owned(),
        })
    }

    /// Waits until the password of a target may be tried.
    pub(super) async fn turn(&self, target: &Target) -> Result<Option<Turn>, OpenError> {
        let (Some(password), Some(reference)) = (self.fetch(target).await?, &target.password) else { return Ok(None) };
        let whose = (target.user.clone(), reference.clone());
        let known = Arc::clone(self.known.lock().await.entry(whose).or_default());
        let held = known.lock_owned().await;
        let known = *held;
        Ok(Some(Turn { password, known, held: known.is_none().then_some(held) }))
    }

    /// Asks the person for an answer to a server's own question. It is not kept: it may be good once.
    ///
    /// # Errors
    /// [`OpenError::Authentication`]: nobody can be asked.
    pub(super) async fn ask(&self, target: &Target, question: &str) -> Result<String, OpenError> {
        let what = format!("{}@{} asks: {}", target.user, target.name, printable(question.trim().trim_end_matches(':')));
        let answer = self.secrets.resolve(&SecretRef::Prompt, &what).await;
        self.secrets.forget_prompt(&what).await;
        answer.map(|answer| answer.expose().to_owned()).map_err(|failure| OpenError::Authentication {
            host: target.name.clone(),
            seen: failure.message,
            next: "The server wants answers that only a person can give: use an account or a bastion that asks for a key alone"
                .to_owned(),
        })
    }
}
