//! Connections: TCP or through a bastion, key exchange, host key check, login.

use super::algorithms::{self, Lists, Offer, SSH_RSA};
use super::auth;
use super::identity::{Identities, Wanted};
use super::offered::{Heard, Overheard};
use super::password::Passwords;
use super::refused::{Reason, lower};
use super::tcp;
use super::text::printable;
use super::trust::{Trust, Verdict, fingerprint};
use crate::hosts::OpenError;
use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// Longest time for the login, once the server has proved its key. Longer than sshd's own LoginGraceTime would be of no use.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a server that hangs up before it says anything is tried again: that is what sshd does above `MaxStartups`.
const START_ATTEMPTS: u32 = 4;

/// A server to connect to, with everything that matters for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The name for people.
    pub(super) name: String,
    /// Where it is.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) wanted: Wanted,
    /// Where its login password is.
    pub(super) password: Option<inventory::SecretRef>,
    pub(super) trust: Arc<Trust>,
    /// Where its key is written down when it is enrolled.
    pub(super) known_hosts: PathBuf,
    /// It is a bastion: connections to other servers go through it.
    pub(super) bastion: bool,
    pub(super) connect_timeout: Duration,
    pub(super) family: Family,
    /// Algorithms of OpenSSH 5.3's age that are offered too.
    pub(super) legacy: inventory::Legacy,
    pub(super) algorithms: Lists,
    /// A program of the operator whose standard streams lead to the server (ssh_config(5) `ProxyCommand`).
    pub(super) proxy_command: Option<String>,
}

/// Which addresses of a name are tried (ssh_config(5) `AddressFamily`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Target {
    /// Equal for servers that one connection can stand for.
    pub(super) fn key(&self) -> String {
        let Self { user, address, port, wanted, password, known_hosts, legacy, algorithms, proxy_command, .. } = self;
        let revoked = self.trust.revoked_file();
        format!(
            "{user}@{address}:{port} {wanted:?} {password:?} {known_hosts:?} {revoked:?} {legacy:?} {algorithms:?} {proxy_command:?}"
        )
    }

    /// Where it is, whoever logs in.
    pub(super) fn place(&self) -> (String, u16) {
        (self.address.to_lowercase(), self.port)
    }

    /// Whether our RSA keys may sign with SHA-1: where the inventory allows it, or ssh_config asks for it.
    pub(super) fn allows_sha1(&self) -> bool {
        self.legacy.allows(SSH_RSA) || self.algorithms.keys.iter().flatten().any(|name| name == SSH_RSA)
    }

    /// Why a password is not tried here.
    pub(super) fn refused_elsewhere(&self) -> String {
        format!("the password of {} (a server refused it, and the account is not to be locked)", self.user)
    }
}

/// russh's callbacks for one connection.
pub(super) struct Client {
    trust: Arc<Trust>,
    /// Take the key and go, without checking it: for `hosts trust`, which never logs in.
    only_key: bool,
    seen: Arc<Seen>,
}

/// What the callbacks saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    key: Mutex<Option<PublicKey>>,
    verdict: Mutex<Option<Verdict>>,
    lost: Mutex<Option<String>>,
    /// What was agreed on that nobody should use any more.
    outdated: Mutex<Option<Vec<&'static str>>>,
}

/// Why a connection failed during the key exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Russh(#[from] russh::Error),
    #[error("the host key is refused")]
    Key(Verdict, String),
    #[error("the key was taken")]
    Taken,
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, server: &PublicKeyOrCertificate) -> Result<bool, ClientError> {
        let key = server.public_key();
        set(&self.seen.key, key.clone());
        let verdict = match server.certificate() {
            Some(certificate) => self.trust.judge_certificate(certificate, std::time::SystemTime::now()),
            None => self.trust.judge(&key),
        };
        set(&self.seen.verdict, verdict.clone());
        if self.only_key {
            return Err(ClientError::Taken);
        }
        match verdict {
            Verdict::Known => Ok(true),
            verdict => Err(ClientError::Key(verdict, format!("{} {}", key.algorithm(), fingerprint(&key)))),
        }
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, names: &russh::Names, _: &mut client::Session) -> Result<(), ClientError> {
        set(&self.seen.outdated, algorithms::outdated(names));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ClientError>) -> Result<(), ClientError> {
        let why = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the server ended it: {}", printable(&info.message)),
            DisconnectReason::Error(ClientError::Russh(russh::Error::KeepaliveTimeout)) => "nothing was heard for 60 s".to_owned(),
            DisconnectReason::Error(error) => lower(&error.to_string()),
        };
        set(&self.seen.lost, why);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// A connection that is logged in. It ends when this is dropped.
pub(super) struct Connection {
    pub(super) handle: Handle<Client>,
    /// The key that the server proved to have.
    pub(super) host_key: String,
    /// What it uses that nobody should use any more, here and on the way.
    pub(super) outdated: Vec<String>,
    seen: Arc<Seen>,
    /// The bastion that carries it: lives as long as something goes through it.
    _through: Option<Arc<Connection>>,
}

impl Connection {
    /// Why it was lost, where that is known.
    pub(super) fn lost(&self) -> Option<String> {
        get(&self.seen.lost)
    }
}

/// What a connection runs over.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for S {}

/// Connects and logs in.
pub(super) async fn connect(
    target: &Target,
    through: Option<Arc<Connection>>,
    identities: &Identities,
    passwords: &Passwords,
) -> Result<Connection, OpenError> {
    // Before anything is opened: a person may have to type something, and no server's clock may run meanwhile.
    let candidates = identities.candidates(&target.wanted).await;
    passwords.fetch(target).await?;
    let seen = Arc::new(Seen::default());
    let mut handle = exchange_keys(target, through.as_ref(), false, &seen).await.map_err(|why| why.into_open_error(target))?;
    let signed = match timeout(LOGIN_TIMEOUT, auth::log_in(&mut handle, target, passwords, &candidates)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(OpenError::Authentication {
                host: target.name.clone(),
                seen: format!("the login as {} did not end within {} s", target.user, LOGIN_TIMEOUT.as_secs()),
                next: "Look at the server's own log, or at what its PAM modules wait for".to_owned(),
            });
        }
    };
    let host_key = get(&seen.key).map(|key| fingerprint(&key)).unwrap_or_default();
    let mut outdated = get(&seen.outdated).unwrap_or_default();
    outdated.extend(signed.filter(|name| !outdated.contains(name)));
    let named = |name: &&str| if target.bastion { format!("{name} (bastion {})", target.name) } else { (*name).to_owned() };
    let mut outdated: Vec<String> = outdated.iter().map(named).collect();
    outdated.extend(through.iter().flat_map(|bastion| bastion.outdated.iter().cloned()));
    Ok(Connection { handle, host_key, outdated, seen, _through: through })
}

/// Connects, takes the server's key and what is to be thought of it, and leaves before logging in. The key is proved (the key exchange is
/// signed).
pub(super) async fn take_key(target: &Target, through: Option<Arc<Connection>>) -> Result<(PublicKey, Verdict), OpenError> {
    let seen = Arc::new(Seen::default());
    match exchange_keys(target, through.as_ref(), true, &seen).await {
        Err(Reason::Client(ClientError::Taken)) => {}
        Err(why) => return Err(why.into_open_error(target)),
        Ok(_) => {}
    }
    get(&seen.key).zip(get(&seen.verdict)).ok_or_else(|| OpenError::Unreachable {
        host: target.name.clone(),
        seen: "the key exchange ended without a host key".to_owned(),
        next: "Look at the server's own log".to_owned(),
    })
}

async fn exchange_keys(
    target: &Target,
    through: Option<&Arc<Connection>>,
    only_key: bool,
    seen: &Arc<Seen>,
) -> Result<Handle<Client>, Reason> {
    let mut attempt = 1;
    loop {
        let result = exchange_once(target, through, only_key, seen).await;
        match result {
            Err(Reason::Client(ClientError::Russh(ref error))) if hung_up_silently(error) && attempt < START_ATTEMPTS => {
                // Spread out, so that the hosts that were turned away together do not come back together.
                let spread = u64::from(getrandom::u32().unwrap_or_default() % 200);
                tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 200 + spread)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Whether the server closed the connection before it sent its identification: russh says "disconnected" for the one, and the
/// system "connection reset" for the other form of the same thing.
fn hung_up_silently(error: &russh::Error) -> bool {
    match error {
        russh::Error::Disconnect => true,
        russh::Error::IO(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        _ => false,
    }
}

async fn exchange_once(
    target: &Target,
    through: Option<&Arc<Connection>>,
    only_key: bool,
    seen: &Arc<Seen>,
) -> Result<Handle<Client>, Reason> {
    let limit = target.connect_timeout;
    let offer = Offer {
        known: &target.trust.algorithms(),
        certificates: target.trust.wants_certificate(),
        legacy: &target.legacy,
        bastion: target.bastion,
        lists: &target.algorithms,
    };
    let config = Arc::new(algorithms::config(offer).map_err(Reason::Algorithms)?);
    let client = Client { trust: Arc::clone(&target.trust), only_key, seen: Arc::clone(seen) };
    let heard = Heard::default();
    let stream: Box<dyn Stream> = match through {
        None if let Some(command) = &target.proxy_command => Box::new(super::program::start(command).map_err(Reason::Program)?),
        None => Box::new(tcp::connect(target, limit).await?),
        Some(bastion) => {
            let opening = bastion.handle.channel_open_direct_tcpip(target.address.clone(), target.port.into(), "127.0.0.1", 0);
            let channel = timeout(limit, opening).await.map_err(|_| Reason::Silent(limit.as_secs()))?.map_err(Reason::Forward)?;
            Box::new(channel.into_stream())
        }
    };
    let exchange = timeout(limit, client::connect_stream(config, Overheard::new(stream, Arc::clone(&heard)), client)).await;
    exchange.map_err(|_| Reason::Silent(limit.as_secs()))?.map_err(|error| match error {
        ClientError::Russh(russh::Error::NoCommonAlgo { kind, theirs, .. }) => {
            Reason::NothingCommon(kind, theirs, super::offered::parse(&heard.bytes()))
        }
        error => Reason::Client(error),
    })
}

/// A poisoned lock only means that a thread died while it held a plain value.
fn set<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
}

fn get<T: Clone>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}
