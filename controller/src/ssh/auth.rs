//! Logging in: with keys and certificates, and where the server wants it with a password or answers to its questions.

use super::algorithms::SSH_RSA;
use super::connect::{Client, Target};
use super::identity::{Candidates, Identity, Key, signer};
use super::password::{Passwords, Tried};
use super::text::printable;
use crate::hosts::OpenError;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{self, Signature};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{AgentAuthError, MethodKind, Signer};
use std::sync::Arc;
use tokio::net::UnixStream;

/// How many rounds of questions one login may have.
const MOST_ROUNDS: usize = 8;

/// What came of one attempt.
enum Answer {
    In,
    /// The server wants another one. What it offers now; whether it took this one but wants something more.
    Refused {
        offered: Vec<MethodKind>,
        partial: bool,
    },
    /// It could not be made.
    Unusable(String),
}

impl From<AuthResult> for Answer {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::In,
            AuthResult::Failure { remaining_methods, partial_success } => {
                Self::Refused { offered: remaining_methods.to_vec(), partial: partial_success }
            }
        }
    }
}

/// A login under way.
struct Login<'a> {
    handle: &'a mut Handle<Client>,
    target: &'a Target,
    tried: Vec<String>,
    unusable: Vec<String>,
    /// What the server offers, once it has said so.
    offered: Option<Vec<MethodKind>>,
    /// What it accepted as a part of it.
    accepted: Option<String>,
    /// How a key signed that nobody should sign with any more.
    outdated: Option<&'static str>,
}

/// Logs in: with the first key that the server accepts, then with what else it wants. Gives the outdated algorithm that our own key signed
/// with, if it did.
///
/// # Errors
/// [`OpenError::Authentication`] with what was tried and what the server offers.
pub(super) async fn log_in(
    handle: &mut Handle<Client>,
    target: &Target,
    passwords: &Passwords,
    candidates: &Candidates,
) -> Result<Option<&'static str>, OpenError> {
    let unusable = candidates.unusable.clone();
    let mut login = Login { handle, target, tried: Vec::new(), unusable, offered: None, accepted: None, outdated: None };
    if login.keys(candidates).await? {
        return Ok(login.outdated);
    }
    // Where nothing was tried, the method "none" tells what the server offers, and lets in where no authentication is wanted.
    if login.offered.is_none() {
        match login.handle.authenticate_none(&target.user).await {
            Ok(result) => {
                if login.take(result.into(), None)? {
                    return Ok(None);
                }
            }
            Err(_) => return Err(login.closed()),
        }
    }
    if login.offers(MethodKind::KeyboardInteractive) && login.questions(passwords).await? {
        return Ok(login.outdated);
    }
    if login.offers(MethodKind::Password) && login.password(passwords).await? {
        return Ok(login.outdated);
    }
    Err(login.refused())
}

impl Login<'_> {
    fn offers(&self, method: MethodKind) -> bool {
        self.offered.as_ref().is_none_or(|offered| offered.contains(&method))
    }

    /// Notes what came of an attempt; true when that was it.
    fn take(&mut self, answer: Answer, name: Option<String>) -> Result<bool, OpenError> {
        match answer {
            Answer::In => return Ok(true),
            Answer::Unusable(why) => self.unusable.push(why),
            Answer::Refused { offered, partial } => {
                self.accepted = self.accepted.take().or_else(|| name.clone().filter(|_| partial));
                self.tried.extend(name);
                self.offered = Some(offered);
            }
        }
        if self.handle.is_closed() { Err(self.closed()) } else { Ok(false) }
    }

    async fn keys(&mut self, candidates: &Candidates) -> Result<bool, OpenError> {
        let mut rsa_hash: Option<Option<HashAlg>> = None;
        for identity in &candidates.identities {
            if !self.offers(MethodKind::PublicKey) {
                break;
            }
            let hash = if identity.public_key().algorithm().is_rsa() {
                match rsa_hash {
                    Some(hash) => hash,
                    None => *rsa_hash.insert(self.best_rsa_hash().await),
                }
            } else {
                None
            };
            let mut answer = self.key(identity, hash).await;
            let rsa = identity.public_key().algorithm().is_rsa();
            let mut sha1 = rsa && hash.is_none();
            // A server may claim SHA-2 and not take it (sshd with PubkeyAcceptedAlgorithms ssh-rsa).
            if rsa && !sha1 && self.target.allows_sha1() && matches!(answer, Answer::Refused { partial: false, .. }) {
                (answer, sha1) = (self.key(identity, None).await, true);
            }
            if sha1 && matches!(answer, Answer::In | Answer::Refused { partial: true, .. }) {
                self.outdated = Some(SSH_RSA);
            }
            if self.take(answer, Some(identity.name()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// RFC 8332: SHA-2 where the server says so, or says nothing. SHA-1 only for servers that can do nothing else, and only where
    /// `ssh.legacy` or ssh_config allows it.
    async fn best_rsa_hash(&mut self) -> Option<HashAlg> {
        let allowed = self.target.allows_sha1();
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Some(hash),
            Ok(Some(None) | None) if allowed => None,
            Ok(Some(None)) => {
                let how = match self.target.bastion {
                    true => "PubkeyAcceptedAlgorithms ssh-rsa for it in your ssh_config",
                    false => "ssh.legacy: [ssh-rsa]",
                };
                self.unusable
                    .push(format!("RSA keys (the server takes their signatures with SHA-1 alone; {how} would allow that)"));
                Some(HashAlg::Sha512)
            }
            _ => Some(HashAlg::Sha512),
        }
    }

    async fn key(&mut self, identity: &Identity, hash: Option<HashAlg>) -> Answer {
        let user = &self.target.user;
        let result = match (&identity.key, &identity.certificate) {
            (Key::File(_, key), None) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                self.handle.authenticate_publickey(user, key).await.map_err(|error| error.to_string())
            }
            (Key::File(_, key), Some(certificate)) => {
                let certificate = certificate.as_ref().clone();
                let mut signer = ByFile(Arc::clone(key));
                let result = self.handle.authenticate_certificate_with(user, certificate, hash, &mut signer).await;
                result.map_err(|error| error.to_string())
            }
            (Key::Agent(socket, key), certificate) => {
                let client = match signer(socket).await {
                    Ok(client) => client,
                    Err(why) => return Answer::Unusable(why),
                };
                let mut signer = ByKey { client, key };
                let result = match certificate {
                    None => self.handle.authenticate_publickey_with(user, key.clone(), hash, &mut signer).await,
                    Some(certificate) => {
                        self.handle.authenticate_certificate_with(user, certificate.as_ref().clone(), hash, &mut signer).await
                    }
                };
                result.map_err(|error| error.to_string())
            }
        };
        result.map_or_else(|why| Answer::Unusable(format!("{} ({why})", identity.name())), Answer::from)
    }

    /// Answers the server's questions: the password where it asks for one thing without an echo first, anything else by asking the person.
    async fn questions(&mut self, passwords: &Passwords) -> Result<bool, OpenError> {
        // Nobody said how, and no key was a part of it: a person has not asked for this.
        if self.target.password.is_none() && self.accepted.is_none() {
            return Ok(false);
        }
        let mut turn = passwords.turn(self.target).await?;
        if turn.as_ref().is_some_and(|turn| turn.was_refused()) {
            self.unusable.push(self.target.refused_elsewhere());
            return Ok(false);
        }
        let mut response = self.handle.authenticate_keyboard_interactive_start(&self.target.user, None).await;
        let mut given = false;
        for _ in 0..MOST_ROUNDS {
            match response {
                Ok(KeyboardInteractiveAuthResponse::Success) => {
                    turn.iter_mut().filter(|_| given).for_each(|turn| turn.ended(Tried::Accepted));
                    return Ok(true);
                }
                Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                    let ended = if partial_success { Tried::Accepted } else { Tried::Refused };
                    turn.iter_mut().filter(|_| given).for_each(|turn| turn.ended(ended));
                    let answer = Answer::Refused { offered: remaining_methods.to_vec(), partial: partial_success };
                    return self.take(answer, Some("keyboard-interactive".to_owned()));
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => {
                    let mut answers = Vec::new();
                    for prompt in &prompts {
                        let password = turn.as_ref().filter(|_| !given && !prompt.echo).map(|turn| turn.password().to_owned());
                        let answer = match password {
                            Some(password) => {
                                given = true;
                                password
                            }
                            None => passwords.ask(self.target, &prompt.prompt).await?,
                        };
                        answers.push(answer);
                    }
                    response = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                }
                Err(_) => return Err(self.closed()),
            }
        }
        self.unusable.push("keyboard-interactive (the server never stops asking)".to_owned());
        Ok(false)
    }

    async fn password(&mut self, passwords: &Passwords) -> Result<bool, OpenError> {
        let Some(mut turn) = passwords.turn(self.target).await? else { return Ok(false) };
        if turn.was_refused() {
            self.unusable.push(self.target.refused_elsewhere());
            return Ok(false);
        }
        let Ok(result) = self.handle.authenticate_password(&self.target.user, turn.password()).await else {
            return Err(self.closed());
        };
        let refused = matches!(result, AuthResult::Failure { partial_success: false, .. });
        turn.ended(if refused { Tried::Refused } else { Tried::Accepted });
        self.take(result.into(), Some("password".to_owned()))
    }

    fn refused(&self) -> OpenError {
        let (target, tried, offered) = (self.target, &self.tried, self.offered.as_deref().unwrap_or_default());
        let mut seen = match tried.as_slice() {
            [] => format!("there is no key to try as {}", target.user),
            tried => format!("tried as {}: {}", target.user, tried.join(", ")),
        };
        if let Some(accepted) = &self.accepted {
            seen.push_str(&format!("; {accepted} was accepted, but the server also wants something else"));
        }
        if !self.unusable.is_empty() {
            seen.push_str(&format!("; not usable: {}", self.unusable.join("; ")));
        }
        seen.push_str(&format!("; the server offers {}", names(offered)));
        let asks = offered.iter().any(|method| matches!(method, MethodKind::Password | MethodKind::KeyboardInteractive));
        let next = if asks && target.password.is_none() && target.bastion {
            // A password of a host behind it is none of its business.
            format!(
                "A bastion is told no password of the hosts behind it: let it accept a key of {}, named in ssh.identity or with IdentityFile for it in your ssh_config",
                target.user
            )
        } else if asks && target.password.is_none() {
            "Set ssh.password (such as `prompt:`) for this host, or a key that it accepts in ssh.identity".to_owned()
        } else if tried.is_empty() {
            "Name a key in ssh.identity, or load one into ssh-agent".to_owned()
        } else if !offered.contains(&MethodKind::PublicKey) {
            format!("Correct ssh.user or ssh.password, or allow PubkeyAuthentication for {}", target.user)
        } else {
            format!("Put one of these public keys into authorized_keys of {}, or correct ssh.user and ssh.identity", target.user)
        };
        OpenError::Authentication { host: target.name.clone(), seen: printable(&seen), next }
    }

    fn closed(&self) -> OpenError {
        let Self { target, tried, .. } = self;
        OpenError::Authentication {
            host: target.name.clone(),
            seen: format!("the server closed the connection during the login as {} (tried: {})", target.user, tried.join(", ")),
            next: "Too many keys may have been tried (MaxAuthTries): name the right one in ssh.identity".to_owned(),
        }
    }
}

/// Has an ssh-agent sign with a key, also what a certificate of that key stands for: the agent need not hold the certificate.
struct ByKey<'a> {
    client: AgentClient<UnixStream>,
    key: &'a PublicKey,
}

impl Signer for ByKey<'_> {
    type Error = AgentAuthError;

    async fn auth_sign(&mut self, _: &AgentIdentity, hash: Option<HashAlg>, to_sign: Vec<u8>) -> Result<Vec<u8>, AgentAuthError> {
        self.client.auth_sign(&AgentIdentity::from(self.key.clone()), hash, to_sign).await
    }
}

/// Signs for a certificate with its key, which was read from a file; with RSA by the hash that the server knows.
struct ByFile(Arc<PrivateKey>);

impl Signer for ByFile {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        let wrong = |error: ssh_key::Error| AgentAuthError::Key(error.into());
        let signed: Result<Signature, _> = match self.0.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&to_sign),
            pair => pair.try_sign(&to_sign),
        };
        let signature = Vec::<u8>::try_from(signed.map_err(|_| wrong(ssh_key::Error::Crypto))?).map_err(wrong)?;
        // RFC 4252, section 7: the signature follows what it signs, as a string.
        let length = u32::try_from(signature.len()).map_err(|_| wrong(ssh_key::Error::Crypto))?;
        to_sign.extend(length.to_be_bytes());
        to_sign.extend(signature);
        Ok(to_sign)
    }
}

fn names(methods: &[MethodKind]) -> String {
    if methods.is_empty() {
        return "nothing".to_owned();
    }
    methods.iter().map(<&str>::from).collect::<Vec<_>>().join(", ")
}
