//! The keys that we can log in with: files, and those that ssh-agent holds.

use crate::secrets::Secrets;
use inventory::SecretRef;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::private::PrivateKey;
use russh::keys::{PublicKey, decode_secret_key, key::parse_public_key};
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

/// A key that can be tried.
#[derive(Clone)]
pub(super) enum Identity {
    /// Read from a file.
    File(PathBuf, Arc<PrivateKey>),
    /// Held by ssh-agent.
    Agent(PublicKey),
}

/// What can be tried on a host, and what could not be used.
#[derive(Clone, Default)]
pub(super) struct Candidates {
    pub(super) identities: Vec<Identity>,
    /// Keys that were left out, each with the reason.
    pub(super) unusable: Vec<String>,
}

/// Reads each key file and asks ssh-agent once for the whole fleet.
pub(super) struct Identities {
    secrets: Arc<Secrets>,
    agent_socket: Option<PathBuf>,
    home: Option<PathBuf>,
    files: Mutex<HashMap<PathBuf, Result<Arc<PrivateKey>, String>>>,
    agent: tokio::sync::OnceCell<Result<Vec<PublicKey>, String>>,
}

impl Identities {
    pub(super) fn new(secrets: Arc<Secrets>, agent_socket: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        Self { secrets, agent_socket, home, files: Mutex::default(), agent: tokio::sync::OnceCell::new() }
    }

    /// Files first, in the order of the inventory, then what ssh-agent holds besides.
    pub(super) async fn candidates(&self, named: &[PathBuf]) -> Candidates {
        let mut found = Candidates::default();
        let held = self.agent.get_or_init(|| async { self.ask_agent().await }).await;
        let agent_keys: &[PublicKey] = match held {
            Ok(keys) => keys,
            Err(why) => {
                found.unusable.push(why.clone());
                &[]
            }
        };
        let defaults: Vec<PathBuf>;
        let (paths, optional) = if named.is_empty() {
            let ssh = self.home.as_ref().map(|home| home.join(".ssh"));
            defaults = ssh.iter().flat_map(|ssh| DEFAULT_FILES.iter().map(|name| ssh.join(name))).collect();
            (&defaults[..], true)
        } else {
            (named, false)
        };
        for path in paths {
            match self.read(path, optional, agent_keys).await {
                Ok(Some(identity)) => found.identities.push(identity),
                Ok(None) => {}
                Err(why) => found.unusable.push(why),
            }
        }
        for key in agent_keys {
            if !found.identities.iter().any(|identity| identity.public_key().key_data() == key.key_data()) {
                found.identities.push(Identity::Agent(key.clone()));
            }
        }
        found
    }

    /// A key from a file. An encrypted one that ssh-agent holds is used from there, without asking for its passphrase.
    async fn read(&self, path: &Path, optional: bool, held: &[PublicKey]) -> Result<Option<Identity>, String> {
        // Held while a person types, so that the whole fleet asks once.
        let mut files = self.files.lock().await;
        if let Some(read) = files.get(path) {
            return read.clone().map(|key| Some(Identity::File(path.to_owned(), key)));
        }
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if optional && error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown} cannot be read ({error})")),
        };
        if let Ok(sealed) = PrivateKey::from_openssh(text.as_str())
            && sealed.is_encrypted()
            && let Some(key) = held.iter().find(|key| key.key_data() == sealed.public_key().key_data())
        {
            return Ok(Some(Identity::Agent(key.clone())));
        }
        let key = match decode_secret_key(&text, None) {
            Ok(key) => Ok(Arc::new(key)),
            Err(_) if is_encrypted(&text) => self.unlock(path, &text).await,
            Err(error) => Err(format!("{shown} is not a private key that can be used ({error})")),
        };
        files.insert(path.to_owned(), key.clone());
        key.map(|key| Some(Identity::File(path.to_owned(), key)))
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

    /// A connection to ssh-agent, for signing.
    pub(super) async fn signer(&self) -> Result<AgentClient<UnixStream>, String> {
        let socket = self.agent_socket.as_ref().ok_or("SSH_AUTH_SOCK is not set")?;
        AgentClient::connect_uds(socket)
            .await
            .map_err(|error| format!("ssh-agent at {} cannot be reached ({error})", socket.display()))
    }

    async fn ask_agent(&self) -> Result<Vec<PublicKey>, String> {
        let Some(socket) = &self.agent_socket else { return Ok(Vec::new()) };
        let answer = tokio::time::timeout(AGENT_TIMEOUT, list_agent_keys(socket)).await;
        answer
            .unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut)))
            .map_err(|error| format!("ssh-agent at {} cannot be asked ({error})", socket.display()))
    }
}

impl Identity {
    pub(super) fn public_key(&self) -> &PublicKey {
        match self {
            Self::File(_, key) => key.public_key(),
            Self::Agent(key) => key,
        }
    }

    /// How errors name it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path, _) => path.display().to_string(),
            Self::Agent(key) => {
                let comment = key.comment().to_string();
                format!(
                    "ssh-agent key {}",
                    if comment.is_empty() { super::trust::fingerprint(key) } else { super::text::printable(&comment) }
                )
            }
        }
    }
}

/// Reads the list of keys ourselves: russh's reader gives up on the whole list when it does not understand one key of it.
async fn list_agent_keys(socket: &Path) -> std::io::Result<Vec<PublicKey>> {
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

fn parse_agent_keys(answer: &[u8]) -> Option<Vec<PublicKey>> {
    let (&kind, rest) = answer.split_first()?;
    if kind != IDENTITIES_ANSWER {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let blob = take_string(&mut rest)?;
        let comment = take_string(&mut rest)?;
        // A key of a kind that we cannot use (a certificate, a hardware key) is not tried; the others are.
        if let Ok(mut key) = parse_public_key(blob) {
            key.set_comment(String::from_utf8_lossy(comment).into_owned());
            keys.push(key);
        }
    }
    Some(keys)
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
        let keys = parse_agent_keys(&answer).unwrap();
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
