//! Logging in.

use super::connect::{Client, Target};
use super::identity::{Candidates, Identities, Identity};
use super::text::printable;
use crate::hosts::OpenError;
use russh::MethodKind;
use russh::client::{AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg};
use std::sync::Arc;

/// How one attempt ended that did not succeed.
enum Refusal {
    /// The server wants another key. What it offers now; whether it took the key but wants something more.
    Refused { offered: Vec<MethodKind>, partial: bool },
    /// The key could not be used.
    Unusable(String),
}

/// Logs in with the first key that the server accepts.
///
/// # Errors
/// [`OpenError::Authentication`] with what was tried and what the server offers; [`OpenError::Unreachable`] when the connection
/// is lost meanwhile.
pub(super) async fn log_in(
    handle: &mut Handle<Client>,
    target: &Target,
    identities: &Identities,
    candidates: &Candidates,
) -> Result<(), OpenError> {
    let mut tried: Vec<String> = Vec::new();
    let mut unusable = candidates.unusable.clone();
    let mut offered: Option<Vec<MethodKind>> = None;
    let mut rsa_hash: Option<Option<HashAlg>> = None;
    for identity in &candidates.identities {
        let hash = if identity.public_key().algorithm().is_rsa() {
            match rsa_hash {
                Some(hash) => hash,
                None => *rsa_hash.insert(best_rsa_hash(handle, target.ssh.legacy).await),
            }
        } else {
            None
        };
        match attempt(handle, target, identities, identity, hash).await {
            Ok(()) => return Ok(()),
            Err(Refusal::Unusable(why)) => unusable.push(why),
            Err(Refusal::Refused { offered: methods, partial }) => {
                tried.push(identity.name());
                if partial {
                    return Err(partial_success(target, &identity.name(), &methods));
                }
                if handle.is_closed() {
                    return Err(closed_meanwhile(target, &tried));
                }
                let go_on = methods.contains(&MethodKind::PublicKey);
                offered = Some(methods);
                if !go_on {
                    break;
                }
            }
        }
        if handle.is_closed() {
            return Err(closed_meanwhile(target, &tried));
        }
    }
    // Where nothing was tried, the method "none" tells what the server offers, and lets in where no authentication is wanted.
    if offered.is_none() {
        match handle.authenticate_none(&target.user).await {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { remaining_methods, .. }) => offered = Some(remaining_methods.to_vec()),
            Err(_) => return Err(closed_meanwhile(target, &tried)),
        }
    }
    Err(refused(target, &tried, &unusable, &offered.unwrap_or_default()))
}

async fn attempt(
    handle: &mut Handle<Client>,
    target: &Target,
    identities: &Identities,
    identity: &Identity,
    hash: Option<HashAlg>,
) -> Result<(), Refusal> {
    let result = match identity {
        Identity::File(_, key) => {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
            handle.authenticate_publickey(&target.user, key).await.map_err(|error| error.to_string())
        }
        Identity::Agent(key) => {
            let mut signer = identities.signer().await.map_err(Refusal::Unusable)?;
            let signed = handle.authenticate_publickey_with(&target.user, key.clone(), hash, &mut signer).await;
            signed.map_err(|error| error.to_string())
        }
    };
    match result {
        Ok(AuthResult::Success) => Ok(()),
        Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
            Err(Refusal::Refused { offered: remaining_methods.to_vec(), partial: partial_success })
        }
        Err(why) => Err(Refusal::Unusable(format!("{} ({why})", identity.name()))),
    }
}

/// RFC 8332: SHA-2 where the server says so, or says nothing. SHA-1 only for servers that can do nothing else, and only with
/// `ssh.legacy`.
async fn best_rsa_hash(handle: &Handle<Client>, legacy: bool) -> Option<HashAlg> {
    match handle.best_supported_rsa_hash().await {
        Ok(Some(Some(hash))) => Some(hash),
        Ok(Some(None) | None) if legacy => None,
        _ => Some(HashAlg::Sha512),
    }
}

fn names(methods: &[MethodKind]) -> String {
    if methods.is_empty() {
        return "nothing".to_owned();
    }
    methods.iter().map(<&str>::from).collect::<Vec<_>>().join(", ")
}

fn refused(target: &Target, tried: &[String], unusable: &[String], offered: &[MethodKind]) -> OpenError {
    let mut seen = match tried {
        [] => format!("there is no key to try as {}", target.user),
        tried => format!("tried as {}: {}", target.user, tried.join(", ")),
    };
    if !unusable.is_empty() {
        seen.push_str(&format!("; not usable: {}", unusable.join("; ")));
    }
    seen.push_str(&format!("; the server offers {}", names(offered)));
    let next = if tried.is_empty() {
        "Name a key in ssh.identity, or load one into ssh-agent".to_owned()
    } else if !offered.contains(&MethodKind::PublicKey) {
        "Caravan logs in with keys only: allow PubkeyAuthentication for this account".to_owned()
    } else {
        format!("Put one of these public keys into authorized_keys of {}, or correct ssh.user and ssh.identity", target.user)
    };
    OpenError::Authentication { host: target.name.clone(), seen: printable(&seen), next }
}

fn partial_success(target: &Target, key: &str, methods: &[MethodKind]) -> OpenError {
    OpenError::Authentication {
        host: target.name.clone(),
        seen: format!("{key} was accepted for {}, but the server also wants {}", target.user, names(methods)),
        next: "A second factor cannot be given: use an account or a bastion that asks for a key alone".to_owned(),
    }
}

fn closed_meanwhile(target: &Target, tried: &[String]) -> OpenError {
    OpenError::Authentication {
        host: target.name.clone(),
        seen: format!("the server closed the connection during the login as {} (tried: {})", target.user, tried.join(", ")),
        next: "Too many keys may have been tried (MaxAuthTries): name the right one in ssh.identity".to_owned(),
    }
}
