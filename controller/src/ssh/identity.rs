//! The keys that we can log in with: files, and those that ssh-agent holds.

use crate::secrets::Secrets;
use inventory::SecretRef;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::private::PrivateKey;
use russh::keys::{Algorithm, Certificate, PublicKey, decode_secret_key, key::parse_public_key};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// Tried in this order when the inventory names no identity (as ssh_config(5) `IdentityFile` does, without the rare ones).
const DEFAULT_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// An agent that does not answer within this is left out.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer taken from ssh-agent; it is OpenSSH's own limit.
const AGENT_ANSWER_LIMIT: u32 = 256 * 1024;
/// draft-ietf-sshm-ssh-agent: SSH_AGENTC_REQUEST_IDENTITIES and its answer.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;

/// A key that can be tried, with a certificate or without.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) key: Key,
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// Who signs.
#[derive(Clone)]
pub(super) enum Key {
    /// A private key, read from a file.
    File(PathBuf, Arc<PrivateKey>),
    /// The ssh-agent that listens there holds it: also keys of hardware, which it asks.
    Agent(PathBuf, PublicKey),
}

/// Which ssh-agent is asked (ssh_config(5) `IdentityAgent`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AgentSocket {
    /// The one of the environment.
    Usual,
    /// None.
    None,
    /// The one that listens there.
    At(PathBuf),
}

/// What is to be tried on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Key files, in order.
    pub(super) files: Vec<PathBuf>,
    /// Nobody named files: the usual ones are tried.
    pub(super) defaults: bool,
    /// No other keys of ssh-agent than those of these files (`IdentitiesOnly`).
    pub(super) only: bool,
    /// Certificates besides those that lie beside their keys (`CertificateFile`).
    pub(super) certificates: Vec<PathBuf>,
    pub(super) agent: AgentSocket,
}

/// What can be tried on a host, and what could not be used.
#[derive(Clone, Default)]
pub(super) struct Candidates {
    pub(super) identities: Vec<Identity>,
    /// Keys that were left out, each with the reason.
    pub(super) unusable: Vec<String>,
}

/// What an ssh-agent holds.
#[derive(Clone, Default)]
struct Held {
    keys: Vec<PublicKey>,
    certificates: Vec<Certificate>,
}

/// Reads each key file and asks each ssh-agent once for the whole fleet.
pub(super) struct Identities {
    secrets: Arc<Secrets>,
    agent_socket: Option<PathBuf>,
    home: Option<PathBuf>,
    files: Mutex<HashMap<PathBuf, Result<Arc<PrivateKey>, String>>>,
    agents: Mutex<HashMap<PathBuf, Result<Held, String>>>,
}

impl Identities {
    pub(super) fn new(secrets: Arc<Secrets>, agent_socket: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        Self { secrets, agent_socket, home, files: Mutex::default(), agents: Mutex::default() }
    }

    /// Files first, in the order in which they are named, then what ssh-agent holds besides. A certificate comes before its bare key.
    pub(super) async fn candidates(&self, wanted: &Wanted) -> Candidates {
        let mut found = Candidates::default();
        let socket = match &wanted.agent {
            AgentSocket::Usual => self.agent_socket.clone(),
            AgentSocket::None => None,
            AgentSocket::At(path) => Some(path.clone()),
        };
        let held = match &socket {
            Some(socket) => self.held(socket).await.unwrap_or_else(|why| {
                found.unusable.push(why);
                Held::default()
            }),
            None => Held::default(),
        };
        let usual = || {
            let ssh = self.home.as_ref().map(|home| home.join(".ssh"));
            ssh.iter().flat_map(|ssh| DEFAULT_FILES.iter().map(|name| ssh.join(name))).collect()
        };
        let paths: Vec<PathBuf> = if wanted.defaults { usual() } else { wanted.files.clone() };
        let mut certificates = held.certificates.clone();
        for path in &wanted.certificates {
            match certificate(path) {
                Ok(Some(read)) => certificates.push(read),
                Ok(None) => found.unusable.push(format!("{} is not there", path.display())),
                Err(why) => found.unusable.push(why),
            }
        }
        for path in &paths {
            let key = match self.read(path, wanted.defaults, socket.as_deref().map(|socket| (socket, &held))).await {
                Ok(Some(key)) => key,
                Ok(None) => continue,
                Err(why) => {
                    found.unusable.push(why);
                    continue;
                }
            };
            let beside = certificate(&beside(path, "-cert.pub")).unwrap_or_else(|why| {
                found.unusable.push(why);
                None
            });
            found.add(key, certificates.iter().cloned().chain(beside));
        }
        for key in held.keys.iter().filter(|_| !wanted.only) {
            let known = |identity: &Identity| identity.public_key().key_data() == key.key_data();
            if let (false, Some(socket)) = (found.identities.iter().any(known), &socket) {
                found.add(Key::Agent(socket.clone(), key.clone()), certificates.iter().cloned());
            }
        }
        found
    }

    async fn held(&self, socket: &Path) -> Result<Held, String> {
        let mut agents = self.agents.lock().await;
        if let Some(held) = agents.get(socket) {
            return held.clone();
        }
        let answer = tokio::time::timeout(AGENT_TIMEOUT, list_agent_keys(socket)).await;
        let held = answer
            .unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut)))
            .map_err(|error| format!("ssh-agent at {} cannot be asked ({error})", socket.display()));
        agents.insert(socket.to_owned(), held.clone());
        held
    }

    /// A key from a file. One that ssh-agent holds is used from there where the file is encrypted, or is the public half alone.
    async fn read(&self, path: &Path, optional: bool, held: Option<(&Path, &Held)>) -> Result<Option<Key>, String> {
        // Held while a person types, so that the whole fleet asks once.
        let mut files = self.files.lock().await;
        if let Some(read) = files.get(path) {
            return read.clone().map(|key| Some(Key::File(path.to_owned(), key)));
        }
        let shown = path.display();
        let in_agent = |wanted: &PublicKey| {
            let (socket, held) = held?;
            let key = held.keys.iter().find(|key| key.key_data() == wanted.key_data())?;
            Some(Key::Agent(socket.to_owned(), key.clone()))
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let public = std::fs::read_to_string(beside(path, ".pub")).ok();
                let key = public.and_then(|text| PublicKey::from_openssh(&text).ok()).and_then(|key| in_agent(&key));
                return match key {
                    None if !optional => Err(format!("{shown} cannot be read ({error})")),
                    key => Ok(key),
                };
            }
            Err(error) => return Err(format!("{shown} cannot be read ({error})")),
        };
        if let Ok(public) = PublicKey::from_openssh(&text) {
            return in_agent(&public).map(Some).ok_or_else(|| format!("{shown} is a public key that ssh-agent does not hold"));
        }
        if let Ok(private) = PrivateKey::from_openssh(text.as_str()) {
            let key = in_agent(private.public_key());
            if matches!(private.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
                // The file has no more than the token's handle for the key.
                let why = || format!("{shown} is a key of a hardware token that ssh-agent does not hold (ssh-add {shown})");
                return key.map(Some).ok_or_else(why);
            }
            if private.is_encrypted() && key.is_some() {
                return Ok(key);
            }
        }
        let key = match decode_secret_key(&text, None) {
            Ok(key) => Ok(Arc::new(key)),
            Err(_) if is_encrypted(&text) => self.unlock(path, &text).await,
            Err(error) => Err(format!("{shown} is not a private key that can be used ({error})")),
        };
        files.insert(path.to_owned(), key.clone());
        key.map(|key| Some(Key::File(path.to_owned(), key)))
    }

    async fn unlock(&self, path: &Path, text: &str) -> Result<Arc<PrivateKey>, String> {
        let shown = path.display();
        let what = format!("passphrase of {shown}");
        let passphrase = self
            .secrets
            .resolve(&SecretRef::Prompt, &what)
            .await
            .map_err(|failure| format!("{shown} is encrypted and {}; or load it into ssh-agent", failure.message))?;
        decode_secret_key(text, Some(passphrase.expose())).map(Arc::new).map_err(|_| format!("the passphrase of {shown} is wrong"))
    }
}

/// A connection to an ssh-agent, for signing.
pub(super) async fn signer(socket: &Path) -> Result<AgentClient<UnixStream>, String> {
    AgentClient::connect_uds(socket).await.map_err(|error| format!("ssh-agent at {} cannot be reached ({error})", socket.display()))
}

/// The file with this ending beside a key.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A user certificate, in OpenSSH's form; `None` where there is no such file.
fn certificate(path: &Path) -> Result<Option<Certificate>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read ({error})", path.display())),
    };
    match Certificate::from_openssh(text.trim()) {
        Ok(certificate) if certificate.cert_type().is_user() => Ok(Some(certificate)),
        Ok(_) => Err(format!("{} is a certificate for hosts", path.display())),
        Err(error) => Err(format!("{} is not a certificate ({error})", path.display())),
    }
}

impl Candidates {
    /// Adds a key: first with each certificate of it, then bare.
    fn add(&mut self, key: Key, certificates: impl Iterator<Item = Certificate>) {
        let mut own: Vec<Certificate> = Vec::new();
        for certificate in certificates.filter(|certificate| certificate.public_key() == key.public_key().key_data()) {
            if !own.contains(&certificate) {
                own.push(certificate);
            }
        }
        let with = own.into_iter().map(|certificate| Identity { key: key.clone(), certificate: Some(Arc::new(certificate)) });
        self.identities.extend(with);
        self.identities.push(Identity { key, certificate: None });
    }
}

impl Key {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::File(_, key) => key.public_key(),
            Self::Agent(_, key) => key,
        }
    }
}

impl Identity {
    pub(super) fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// How errors name it.
    pub(super) fn name(&self) -> String {
        let key = match &self.key {
            Key::File(path, _) => path.display().to_string(),
            Key::Agent(_, key) => {
                let comment = key.comment().to_string();
                let shown = if comment.is_empty() { super::trust::fingerprint(key) } else { super::text::printable(&comment) };
                format!("ssh-agent key {shown}")
            }
        };
        match &self.certificate {
            Some(certificate) => format!("{key} with the certificate {}", super::text::printable(certificate.key_id())),
            None => key,
        }
    }
}

/// Reads the list of keys ourselves: russh's reader gives up on the whole list when it does not understand one key of it.
async fn list_agent_keys(socket: &Path) -> std::io::Result<Held> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES]).await?;
    let length = stream.read_u32().await?;
    if length > AGENT_ANSWER_LIMIT {
        return Err(std::io::Error::other("its answer is too long"));
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    parse_agent_keys(&answer).ok_or_else(|| std::io::Error::other("its answer cannot be understood"))
}

fn parse_agent_keys(answer: &[u8]) -> Option<Held> {
    let (&kind, rest) = answer.split_first()?;
    if kind != IDENTITIES_ANSWER {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut held = Held::default();
    for _ in 0..u32::from_be_bytes(*count) {
        let blob = take_string(&mut rest)?;
        let comment = take_string(&mut rest)?;
        // A key of a kind that we cannot use is not tried; the others are.
        if let Ok(certificate) = Certificate::from_bytes(blob) {
            held.certificates.push(certificate);
        } else if let Ok(mut key) = parse_public_key(blob) {
            key.set_comment(String::from_utf8_lossy(comment).into_owned());
            held.keys.push(key);
        }
    }
    Some(held)
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(text)
}

/// Whether a private key that cannot be read without a passphrase is encrypted, in any of the forms that `ssh-keygen` writes.
fn is_encrypted(text: &str) -> bool {
    text.contains("ENCRYPTED") || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn one_broken_key_of_an_agent_does_not_hide_the_others() {
        let good =
            PublicKey::from_openssh("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio").unwrap();
        let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 2];
        answer.extend(string(b"\0\0\0\x07garbage"));
        answer.extend(string(b"broken"));
        answer.extend(string(&good.to_bytes().unwrap()));
        answer.extend(string(b"me@work"));
        let keys = parse_agent_keys(&answer).unwrap().keys;
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].key_data(), good.key_data());
        assert_eq!(keys[0].comment().to_string(), "me@work");
    }

    proptest! {
        #[test]
        fn any_answer_of_an_agent_is_survived(mut answer in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<bool>()) {
            if kind { answer.insert(0, IDENTITIES_ANSWER); }
            let _ = parse_agent_keys(&answer);
        }
    }
}
