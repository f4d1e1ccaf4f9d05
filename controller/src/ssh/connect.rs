//! Connections: TCP or through a bastion, key exchange, host key check, login.

use super::algorithms::{self, Lists, Offer};
use super::auth;
use super::identity::{Identities, Wanted};
use super::password::Passwords;
use super::text::printable;
use super::trust::{Trust, Verdict, fingerprint};
use crate::hosts::OpenError;
use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
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
    /// Algorithms of OpenSSH 5.3's age are offered too.
    pub(super) legacy: bool,
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
        let Self { user, address, port, wanted, known_hosts, proxy_command, .. } = self;
        format!("{user}@{address}:{port} {wanted:?} {known_hosts:?} {proxy_command:?}")
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
    match timeout(LOGIN_TIMEOUT, auth::log_in(&mut handle, target, passwords, &candidates)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(OpenError::Authentication {
                host: target.name.clone(),
                seen: format!("the login as {} did not end within {} s", target.user, LOGIN_TIMEOUT.as_secs()),
                next: "Look at the server's own log, or at what its PAM modules wait for".to_owned(),
            });
        }
    }
    let host_key = get(&seen.key).map(|key| fingerprint(&key)).unwrap_or_default();
    Ok(Connection { handle, host_key, seen, _through: through })
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

/// Why no connection came about.
enum Reason {
    Resolve(std::io::Error),
    Tcp(String, std::io::Error),
    Forward(russh::Error),
    /// The operator's own program does not start.
    Program(std::io::Error),
    /// ssh_config allows nothing that is there.
    Algorithms(String),
    Client(ClientError),
    /// Connected, and then nothing within this many seconds.
    Silent(u64),
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
        legacy: target.legacy,
        bastion: target.bastion,
        lists: &target.algorithms,
    };
    let config = Arc::new(algorithms::config(offer).map_err(Reason::Algorithms)?);
    let client = Client { trust: Arc::clone(&target.trust), only_key, seen: Arc::clone(seen) };
    let exchange = match through {
        None if let Some(command) = &target.proxy_command => {
            let stream = super::program::start(command).map_err(Reason::Program)?;
            timeout(limit, client::connect_stream(config, stream, client)).await
        }
        None => {
            let stream = tcp(target, limit).await?;
            timeout(limit, client::connect_stream(config, stream, client)).await
        }
        Some(bastion) => {
            let opening = bastion.handle.channel_open_direct_tcpip(target.address.clone(), target.port.into(), "127.0.0.1", 0);
            let channel = timeout(limit, opening).await.map_err(|_| Reason::Silent(limit.as_secs()))?.map_err(Reason::Forward)?;
            timeout(limit, client::connect_stream(config, channel.into_stream(), client)).await
        }
    };
    exchange.map_err(|_| Reason::Silent(limit.as_secs()))?.map_err(Reason::Client)
}

/// Tries every address that the name has.
async fn tcp(target: &Target, limit: Duration) -> Result<TcpStream, Reason> {
    let resolve = timeout(limit, tokio::net::lookup_host((target.address.as_str(), target.port))).await;
    let addresses = resolve.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(Reason::Resolve)?;
    let mut last = None;
    let wanted = |address: &std::net::SocketAddr| match target.family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    for address in addresses.filter(wanted) {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small frames go back and forth: waiting to fill packets would cost 40 ms each time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some((address, error)),
            Err(_) => last = Some((address, ErrorKind::TimedOut.into())),
        }
    }
    Err(match last {
        Some((address, error)) => Reason::Tcp(address.to_string(), error),
        None => Reason::Resolve(std::io::Error::other("the name has no address")),
    })
}

impl Reason {
    fn into_open_error(self, target: &Target) -> OpenError {
        let host = target.name.clone();
        let place = format!("{}:{}", target.address, target.port);
        let unreachable = |seen: String, next: &str| OpenError::Unreachable { host: host.clone(), seen, next: next.to_owned() };
        match self {
            Self::Resolve(error) => unreachable(
                format!("{} cannot be resolved ({error})", target.address),
                "Correct `address` in the inventory, or the name service",
            ),
            Self::Tcp(address, error) if error.kind() == ErrorKind::TimedOut => unreachable(
                format!("{address} did not answer within {} s", target.connect_timeout.as_secs()),
                "Is the host up, and is there a way to it (VPN, firewall, ssh.jump)?",
            ),
            Self::Tcp(address, error) if error.kind() == ErrorKind::ConnectionRefused => {
                unreachable(format!("{address} refuses the connection"), "Is sshd running there, and on this port?")
            }
            Self::Tcp(address, error) => unreachable(format!("{address}: {error}"), "Is there a way to it (VPN, route, ssh.jump)?"),
            Self::Forward(error) => unreachable(
                format!("its bastion opens no way to {place} ({})", forward(&error)),
                "Can the bastion reach it, and does its sshd allow AllowTcpForwarding?",
            ),
            Self::Program(error) => unreachable(
                format!("`{}` cannot be started ({error})", printable(target.proxy_command.as_deref().unwrap_or_default())),
                "Correct ProxyCommand in your ssh_config",
            ),
            Self::Algorithms(why) => unreachable(why, "Allow one that it has in your ssh_config, or set ssh.config: none"),
            Self::Silent(seconds) => unreachable(
                format!("{place} accepts connections, but no SSH server finished the key exchange within {seconds} s"),
                "Is it an SSH port, and is the host overloaded? See ssh.connect_timeout",
            ),
            Self::Client(ClientError::Key(verdict, offered)) => key_error(target, &verdict, &offered),
            Self::Client(ClientError::Russh(russh::Error::NoCommonAlgo { kind, theirs, .. })) => unreachable(
                printable(&format!("no common algorithm ({kind:?}); the server has {}", theirs.join(", "))),
                "If it is of OpenSSH 5.3's age, set ssh.legacy: true for this host",
            ),
            Self::Client(error) => unreachable(
                printable(&format!("{place} does not speak SSH as expected ({})", lower(&error.to_string()))),
                "Is it an SSH server? It may also have too many connections open (MaxStartups)",
            ),
        }
    }
}

fn key_error(target: &Target, verdict: &Verdict, offered: &str) -> OpenError {
    let (seen, next) = match verdict {
        Verdict::Known => (format!("the host key {offered} is refused"), "Report this as a mistake in Caravan".to_owned()),
        Verdict::Unknown => (
            format!("its host key is unknown: {offered}"),
            "Compare it with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), then enrol it: caravan hosts trust"
                .to_owned(),
        ),
        Verdict::Changed(expected) => {
            let expected: Vec<String> = expected.iter().map(|key| format!("{} ({})", key.fingerprint, key.place)).collect();
            (
                format!("its HOST KEY CHANGED: expected {}, seen {offered}", expected.join(" or ")),
                "Somebody may be listening in, or the host was installed anew. Find out which; then remove the old key from that place"
                    .to_owned(),
            )
        }
        Verdict::Revoked(place) => {
            (format!("its host key {offered} is revoked ({place})"), "Do not connect to it before its key was replaced".to_owned())
        }
        Verdict::OnlyAuthority(place) => (
            format!(
                "its host key {offered} is not known; only a certificate authority is ({place}), and the server has no certificate of it"
            ),
            "Have its key signed by that authority (HostCertificate in sshd_config), or enrol the key itself: caravan hosts trust"
                .to_owned(),
        ),
        Verdict::Certificate(why) => (
            format!("its host certificate for {offered} does not count: {why}"),
            "Have its key signed anew by a known authority, or enrol the key itself: caravan hosts trust".to_owned(),
        ),
    };
    OpenError::HostKey { host: target.name.clone(), seen, next }
}

fn forward(error: &russh::Error) -> String {
    match error {
        russh::Error::ChannelOpenFailure(reason) => format!("{reason:?}"),
        error => lower(&error.to_string()),
    }
}

/// Library errors begin with a capital letter; ours stand inside a sentence.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// A poisoned lock only means that a thread died while it held a plain value.
fn set<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
}

fn get<T: Clone>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}
