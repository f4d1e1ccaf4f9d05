//! Hosts over SSH. Every type of the SSH library stays inside this module.
//!
//! [`SshHosts::open`]: connect (directly or through a bastion that all hosts behind it share), check the host key, log in, start
//! the agent with one command on one channel (it is sent only where it is missing), shake hands.

mod algorithms;
mod auth;
mod bootstrap;
mod config;
mod connect;
mod elevation;
mod embedded;
mod identity;
pub mod known_hosts;
mod link;
mod offered;
mod password;
mod program;
mod refused;
mod revoked;
mod route;
mod start;
mod tcp;
#[cfg(test)]
mod tests;
pub mod text;
mod trust;

use crate::exit::{Exit, Failure};
use crate::hosts::{Hosts, Link, OpenError};
use crate::secrets::Secrets;
use config::SshConfig;
use connect::{Connection, Target};
use elevation::Elevation;
use identity::Identities;
use inventory::{BecomeMethod, Fleet, Host};
use password::Passwords;
use route::{Hop, Ways};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub use embedded::{AGENTS, EmbeddedAgent};
pub use route::Setting;
pub use trust::{Expected, Verdict};

/// For hosts of the inventory the system-wide file counts besides the user's, as for OpenSSH.
const SYSTEM_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
/// Connection starts are spread over up to this many milliseconds, so that servers behind one bastion are not all asked at once.
const JITTER_MS: u32 = 20;

/// How hosts are reached; what the inventory does not say.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Connections that are being started at the same time, overall. sshd drops starts above `MaxStartups` (10 by default).
    pub starts: usize,
    /// The same at one bastion and through it, whoever logs in there.
    pub starts_per_bastion: usize,
    /// Hosts that one connection to a bastion carries; those after them get another one. Servers bound the channels of a connection.
    pub hosts_per_bastion: usize,
    /// Longest time for opening one host, without the wait for its turn and for people: a bound for everything together.
    pub open_timeout: Duration,
    /// Where ssh-agent listens.
    pub agent_socket: Option<PathBuf>,
    /// The operator's home directory: for `~`, `~/.ssh/known_hosts` and the default identities.
    pub home: Option<PathBuf>,
    /// The account that is used where the inventory names none.
    pub user: Option<String>,
    /// OpenSSH's client, which is asked what ssh_config says (`ssh -G`).
    pub program: PathBuf,
    /// The agents that can be sent.
    pub agents: &'static [EmbeddedAgent],
}

impl Default for SshOptions {
    /// What the process's environment says.
    fn default() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            starts: 10,
            starts_per_bastion: 8,
            hosts_per_bastion: 100,
            open_timeout: Duration::from_secs(300),
            agent_socket: variable("SSH_AUTH_SOCK").map(PathBuf::from),
            home: variable("HOME").map(PathBuf::from),
            user: ["USER", "LOGNAME"].into_iter().find_map(variable).and_then(|name| name.into_string().ok()),
            program: PathBuf::from("ssh"),
            agents: AGENTS,
        }
    }
}

/// The hosts of a fleet, over SSH.
pub struct SshHosts {
    hosts: HashMap<String, Place>,
    secrets: Arc<Secrets>,
    identities: Identities,
    passwords: Passwords,
    options: SshOptions,
    starts: Semaphore,
    /// The same of each bastion, by address and port.
    bastion_starts: HashMap<(String, u16), Semaphore>,
    bastions: Mutex<HashMap<String, Arc<Mutex<Bastion>>>>,
    warnings: Vec<String>,
    settings: HashMap<String, Vec<Setting>>,
}

/// One host and the way to it.
struct Place {
    host: Host,
    target: Target,
    /// The bastions on the way, nearest first.
    hops: Vec<Hop>,
    /// Root is to be had on a pseudo-terminal alone.
    terminal: AtomicBool,
    /// The login shell runs programs of its PATH alone.
    restricted: AtomicBool,
}

/// The connection to a bastion, which hosts share that log in there in the same way: the last one, where they are too many for one.
#[derive(Default)]
enum Bastion {
    #[default]
    Idle,
    Up(Arc<Connection>),
    /// The last attempt ended at this moment in this way.
    Failed(Instant, OpenError),
}

/// What `hosts trust` finds out about one server.
#[derive(Debug, Clone)]
pub struct ScannedKey {
    /// Type and fingerprint, `ssh-ed25519 SHA256:...`.
    pub fingerprint: String,
    /// What is to be thought of it.
    pub verdict: Verdict,
    /// The line for known_hosts, without line end.
    pub line: String,
    /// The known_hosts file of this server that new keys go to.
    pub file: PathBuf,
}

/// What Caravan runs as root where it becomes root, with its arguments: the start script, which takes the agent of this build, by its
/// digest, and starts it. `host_state` is Caravan's directory on the host. Everything else that root does, the agent is told to.
///
/// # Errors
/// `host_state` cannot be written in a command for every shell.
pub fn root_command(agents: &[EmbeddedAgent], host_state: &str) -> Result<Vec<String>, String> {
    bootstrap::arguments(agents, host_state)
}

impl SshHosts {
    /// Prepares the ways to all hosts of a fleet. Asks `ssh` what ssh_config says, reads known_hosts files; contacts nobody.
    ///
    /// # Errors
    /// [`Exit::Usage`]: a known_hosts file cannot be read, a pin or a jump host cannot be understood, `ssh` refuses its configuration.
    pub fn new(fleet: &Fleet, secrets: Arc<Secrets>, options: SshOptions) -> Result<Self, Failure> {
        let config = SshConfig::new(&options.program);
        let all = || fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| !host.is_windows());
        let mut ways = Ways {
            fleet: Vec::new(),
            read: HashMap::new(),
            revoked: HashMap::new(),
            config: &config,
            base: &fleet.base,
            options: &options,
        };
        config.ask_all(&all().map(|host| ways.question(host)).collect::<Vec<_>>());
        ways.fleet = all().map(|host| ways.server(host)).collect();
        let (mut hosts, mut settings) = (HashMap::new(), HashMap::new());
        for host in all() {
            let (place, settled) = ways.place(host).map_err(|why| Failure::new(Exit::Usage, format!("{}: {why}", host.name)))?;
            hosts.insert(host.name.clone(), place);
            settings.insert(host.name.clone(), settled);
        }
        let hops = hosts.values().flat_map(|place: &Place| &place.hops);
        let limit = || Semaphore::new(options.starts_per_bastion.max(1));
        let bastion_starts = hops.map(|hop| (hop.target.place(), limit())).collect();
        let mut warnings: Vec<String> = ways.read.values().flat_map(|file| file.warnings().iter().cloned()).collect();
        warnings.sort();
        let unread = config::own_file(options.home.as_deref()).filter(|_| !config.is_there());
        warnings.extend(unread.map(|file| format!("{} is not read: there is no `ssh` to ask what it says", file.display())));
        Ok(Self {
            hosts,
            passwords: Passwords::new(Arc::clone(&secrets)),
            identities: Identities::new(Arc::clone(&secrets), options.agent_socket.clone(), options.home.clone()),
            secrets,
            starts: Semaphore::new(options.starts.max(1)),
            bastion_starts,
            bastions: Mutex::default(),
            options,
            warnings,
            settings,
        })
    }

    /// What the inventory leaves open about a host, as it was settled.
    pub fn settings(&self, host: &str) -> &[Setting] {
        self.settings.get(host).map(Vec::as_slice).unwrap_or_default()
    }

    /// Lines of known_hosts files that could not be understood, each with `file:line`.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Names of the bastions on the way to these hosts, each once, as `scan` takes them.
    pub fn bastions<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut found = Vec::new();
        for hop in hosts.into_iter().filter_map(|host| self.hosts.get(host)).flat_map(|place| &place.hops) {
            if !found.contains(&hop.target.name) {
                found.push(hop.target.name.clone());
            }
        }
        found
    }

    /// Takes the key of a host, or of a bastion, without logging in to it. The bastions on the way must be known.
    ///
    /// # Errors
    /// As [`Hosts::open`], for the host and for the bastions on the way.
    pub async fn scan(&self, name: &str) -> Result<ScannedKey, OpenError> {
        let (target, hops) = self.find(name)?;
        let through = self.through(hops, name).await?;
        let (key, verdict) = {
            let _turn = self.turn(target, hops).await;
            connect::take_key(target, through).await?
        };
        Ok(ScannedKey {
            fingerprint: format!("{} {}", key.algorithm(), trust::fingerprint(&key)),
            verdict,
            line: format!("{} {}", target.trust.written_names(), key.to_openssh().unwrap_or_default()),
            file: target.known_hosts.clone(),
        })
    }

    /// A host or a bastion by name, with the bastions on the way to it.
    fn find(&self, name: &str) -> Result<(&Target, &[Hop]), OpenError> {
        if let Some(place) = self.hosts.get(name) {
            return Ok((&place.target, &place.hops));
        }
        for place in self.hosts.values() {
            if let Some(at) = place.hops.iter().position(|hop| hop.target.name == name)
                && let Some((hop, before)) = place.hops.get(..=at).and_then(<[Hop]>::split_last)
            {
                return Ok((&hop.target, before));
            }
        }
        Err(no_such_host(name))
    }

    async fn connect(&self, name: &str) -> Result<Connection, OpenError> {
        let (target, hops) = self.find(name)?;
        let through = self.through(hops, name).await?;
        let _turn = self.turn(target, hops).await;
        connect::connect(target, through, &self.identities, &self.passwords).await
    }

    /// Waits until a connection may be started: through the nearest bastion, and at the server itself if it is a bastion.
    async fn turn(&self, target: &Target, hops: &[Hop]) -> Vec<SemaphorePermit<'_>> {
        let mut places: Vec<_> = hops.last().map(|hop| hop.target.place()).into_iter().chain([target.place()]).collect();
        // Always in one order, so that two that want the same ones do not wait for each other.
        places.sort();
        places.dedup();
        let limits = places.iter().filter_map(|place| self.bastion_starts.get(place)).chain([&self.starts]);
        let mut permits = Vec::new();
        for limit in limits {
            permits.extend(limit.acquire().await);
        }
        if !hops.is_empty() {
            let pause = getrandom::u32().unwrap_or_default() % JITTER_MS;
            tokio::time::sleep(Duration::from_millis(pause.into())).await;
        }
        permits
    }

    /// The connection to the last bastion on the way: the one that is there, or a new one. Whoever waited while an attempt failed
    /// shares its failure, so that a dead bastion costs one time limit and not one for each host.
    async fn through(&self, hops: &[Hop], host: &str) -> Result<Option<Arc<Connection>>, OpenError> {
        let asked = Instant::now();
        let Some((last, before)) = hops.split_last() else { return Ok(None) };
        let bastion = Arc::clone(self.bastions.lock().await.entry(last.key.clone()).or_default());
        let mut state = bastion.lock().await;
        match &*state {
            // Whoever goes through it holds it, and so does this.
            Bastion::Up(connection)
                if !connection.handle.is_closed() && Arc::strong_count(connection) <= self.options.hosts_per_bastion =>
            {
                return Ok(Some(Arc::clone(connection)));
            }
            Bastion::Failed(when, error) if *when >= asked => return Err(behind(error, host)),
            _ => {}
        }
        let carrier = Box::pin(self.through(before, &last.target.name)).await;
        let connected = match carrier {
            Ok(carrier) => {
                let _turn = self.turn(&last.target, before).await;
                connect::connect(&last.target, carrier, &self.identities, &self.passwords).await
            }
            Err(error) => Err(error),
        };
        match connected {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *state = Bastion::Up(Arc::clone(&connection));
                Ok(Some(connection))
            }
            Err(error) => {
                let told = behind(&error, host);
                *state = Bastion::Failed(Instant::now(), error);
                Err(told)
            }
        }
    }

    async fn elevation(&self, place: &Place, root: bool) -> Result<(Elevation, Option<proto::Secret>), OpenError> {
        let become_ = &place.host.become_;
        if !root || become_.method == BecomeMethod::None || place.target.user == "root" {
            return Ok((Elevation::none(), None));
        }
        let with = |question| {
            let elevation = Elevation::by(become_.method, question);
            if place.terminal.load(Ordering::Relaxed) { elevation.on_terminal() } else { elevation }
        };
        let Some(reference) = &become_.password else { return Ok((with(None), None)) };
        // The password of root is another one than that of an account.
        let what = match become_.method {
            BecomeMethod::Su => "root's password".to_owned(),
            method => format!("{} password of {}", method.as_str(), place.target.user),
        };
        let password = self.secrets.resolve(reference, &what).await.map_err(|failure| OpenError::Become {
            host: place.host.name.clone(),
            seen: failure.message,
            next: "Correct become.password for this host".to_owned(),
        })?;
        let number = getrandom::u64().unwrap_or_default();
        Ok((with(Some(format!("caravan-sudo-{number:016x}:"))), Some(password)))
    }

    /// Starts an agent on a connection.
    async fn start(&self, place: &Place, mut connection: Connection, root: bool) -> Result<Link, OpenError> {
        let host = &place.host.name;
        let mut again = false;
        loop {
            // Asked before anything is opened: no server's clock runs while a person types.
            let (elevation, password) = self.elevation(place, root).await?;
            let start = start::Start {
                host,
                user: &place.target.user,
                host_state: &place.host.host_state,
                agents: self.options.agents,
                elevation,
                password,
                wants_terminal: AtomicBool::new(false),
                restricted: place.restricted.load(Ordering::Relaxed),
                is_restricted: AtomicBool::new(false),
                no_session: AtomicBool::new(false),
            };
            match tokio::time::timeout(self.options.open_timeout, start::start(&connection, &start)).await {
                Ok(Ok(started)) => return Ok(link::link(connection, started)),
                Ok(Err(_)) if start.wants_terminal.load(Ordering::Relaxed) || start.is_restricted.load(Ordering::Relaxed) => {
                    // sudo's requiretty: once more, and from now on, on a pseudo-terminal. rbash: with a command that it runs.
                    place.terminal.fetch_or(start.wants_terminal.into_inner(), Ordering::Relaxed);
                    place.restricted.fetch_or(start.is_restricted.into_inner(), Ordering::Relaxed);
                    again = true;
                }
                // tinysshd: one session a connection.
                Ok(Err(_)) if again && start.no_session.load(Ordering::Relaxed) => {
                    connection = self.connect(host).await?;
                    again = false;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(OpenError::Agent {
                        host: host.to_owned(),
                        seen: format!("it did not start within {} s", self.options.open_timeout.as_secs()),
                        next: "Is the host or the line overloaded?".to_owned(),
                    });
                }
            }
        }
    }
}

impl Hosts for SshHosts {
    async fn open(&self, host: &str, root: bool) -> Result<Link, OpenError> {
        let Some(place) = self.hosts.get(host) else { return Err(no_such_host(host)) };
        // Asked before anything is opened: no server's clock runs while a person types.
        self.elevation(place, root).await?;
        let connection = self.connect(host).await?;
        self.start(place, connection, root).await
    }
}

fn no_such_host(name: &str) -> OpenError {
    OpenError::Unreachable {
        host: name.to_owned(),
        seen: "the inventory has no such host that SSH can reach".to_owned(),
        next: "See caravan inventory list".to_owned(),
    }
}

/// A bastion's error as the error of a host behind it.
fn behind(error: &OpenError, name: &str) -> OpenError {
    let mut error = error.clone();
    match &mut error {
        OpenError::Unreachable { host, seen, .. }
        | OpenError::HostKey { host, seen, .. }
        | OpenError::Authentication { host, seen, .. }
        | OpenError::Become { host, seen, .. }
        | OpenError::Agent { host, seen, .. } => {
            *seen = format!("its bastion {host}: {seen}");
            name.clone_into(host);
        }
    }
    error
}
