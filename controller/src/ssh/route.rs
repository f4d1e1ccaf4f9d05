//! Out of the inventory and ssh_config: where each host is, over which bastions, and what its key must be.

use super::config::{File, Question, Said, SshConfig, Tokens};
use super::connect::{Family, Target};
use super::identity::{AgentSocket, Wanted};
use super::known_hosts::KnownHosts;
use super::revoked::RevokedKeys;
use super::trust::{Names, Trust};
use super::{Place, SYSTEM_KNOWN_HOSTS, SshOptions};
use inventory::Host;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How many bastions may stand behind each other.
const MOST_HOPS: usize = 8;
/// Seconds until connecting gives up, where nobody says it.
const CONNECT_TIMEOUT: u64 = 15;

/// One bastion on the way to a host.
pub(super) struct Hop {
    /// Equal for hosts that can share one connection to it.
    pub(super) key: String,
    pub(super) target: Target,
}

/// A value that the inventory leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The inventory's word for it (`ssh.port`), or ssh_config's where the inventory has none.
    pub key: &'static str,
    /// What it is.
    pub value: String,
    /// Whether ssh_config says so; OpenSSH's own default, or Caravan's, otherwise.
    pub from_config: bool,
}

/// Finds ways; reads each file of keys once.
pub(super) struct Ways<'a> {
    /// All hosts of the fleet: a bastion may be one of them.
    pub(super) fleet: Vec<Server<'a>>,
    pub(super) read: HashMap<PathBuf, Arc<KnownHosts>>,
    pub(super) revoked: HashMap<PathBuf, Arc<RevokedKeys>>,
    pub(super) config: &'a SshConfig,
    pub(super) base: &'a Path,
    pub(super) options: &'a SshOptions,
}

/// A host of the fleet, by where it is.
pub(super) struct Server<'a> {
    host: &'a Host,
    address: String,
    port: u16,
    user: Option<String>,
}

impl Server<'_> {
    fn is_at(&self, address: &str, port: u16) -> bool {
        self.port == port && [&self.address, &self.host.name].iter().any(|own| own.eq_ignore_ascii_case(address))
    }
}

/// One server to be reached, as somebody names it.
struct Named<'a> {
    /// What is typed behind `ssh`.
    name: &'a str,
    user: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    /// The host of the inventory: it, or one behind it.
    host: &'a Host,
    /// It is a bastion.
    bastion: bool,
}

impl<'a> Ways<'a> {
    /// What is asked of ssh_config about a host.
    pub(super) fn question(&self, host: &Host) -> Question {
        Question {
            file: self.file(host),
            name: host.name.clone(),
            address: Some(host.address.clone()).filter(|address| *address != host.name),
            user: host.ssh.user.clone(),
            port: host.ssh.port,
        }
    }

    fn file(&self, host: &Host) -> File {
        match host.ssh.config.as_deref() {
            Some("none") => File::None,
            Some(path) => File::At(self.path(path)),
            None => File::Own,
        }
    }

    /// Where a host of the fleet is itself, and whose account is used there.
    pub(super) fn server(&self, host: &'a Host) -> Server<'a> {
        // Where `ssh` refuses its configuration, it is told when the way to that host is looked for.
        let said = self.config.ask(&self.question(host)).unwrap_or_default();
        let named = said.one("hostname").filter(|_| host.address == host.name);
        Server {
            host,
            address: named.unwrap_or(&host.address).to_owned(),
            port: host.ssh.port.or_else(|| said.one("port")?.parse().ok()).unwrap_or(22),
            user: host.ssh.user.as_deref().or(said.one("user")).or(self.options.user.as_deref()).map(str::to_owned),
        }
    }

    /// Where a host is and how to get there, with what the inventory leaves open.
    pub(super) fn place(&mut self, host: &Host) -> Result<(Place, Vec<Setting>), String> {
        let question = self.question(host);
        let said = self.config.ask(&question)?;
        let named =
            Named { name: &host.name, user: question.user, address: question.address, port: question.port, host, bastion: false };
        let mut target = self.target(&named, &said)?;
        let mut hops = Vec::new();
        let jumps = match (&host.ssh.jump, said.one("proxyjump")) {
            (Some(jumps), _) => jumps.clone(),
            (None, Some(jumps)) => jumps.to_owned(),
            (None, None) => String::new(),
        };
        if host.ssh.jump.is_some() {
            target.proxy_command = None;
        }
        self.jumps(&jumps, host, &target, &mut hops)?;
        let settings = settings(host, &said, &target, &jumps);
        Ok((
            Place { host: host.clone(), target, hops, terminal: AtomicBool::new(false), restricted: AtomicBool::new(false) },
            settings,
        ))
    }

    /// Adds the bastions that `jumps` names, in the order in which they are passed. The first has a way of its own, which ssh_config may
    /// lead over further ones; the others are reached from the one before.
    fn jumps(&mut self, jumps: &str, host: &Host, target: &Target, hops: &mut Vec<Hop>) -> Result<(), String> {
        let list = jumps.split(',').map(str::trim).filter(|jump| !matches!(*jump, "" | "none"));
        for (number, jump) in list.enumerate() {
            let (user, name, port) = parse_jump(jump)?;
            let question = Question { file: self.file(host), name: name.clone(), address: None, user: user.clone(), port };
            let said = self.config.ask(&question)?;
            let named = Named { name: &name, user, address: None, port, host, bastion: true };
            let mut hop = self.target(&named, &said)?;
            jump.clone_into(&mut hop.name);
            // A bastion that is a host of the fleet itself inherits the `jump` of the defaults: the way to it ends there.
            if host.ssh.jump.is_some() && hop.address == target.address && hop.port == target.port {
                break;
            }
            if number > 0 {
                hop.proxy_command = None;
            } else if let Some(further) = said.one("proxyjump").filter(|further| *further != "none") {
                if hops.len() >= MOST_HOPS {
                    return Err(format!(
                        "more than {MOST_HOPS} bastions stand behind each other: does ssh_config lead in a circle?"
                    ));
                }
                let further = further.to_owned();
                self.jumps(&further, host, &hop, hops)?;
            }
            let before = hops.last().map(|hop: &Hop| hop.key.as_str()).unwrap_or_default();
            let key = format!("{before}>{}", hop.key());
            hops.push(Hop { key, target: hop });
        }
        if hops.len() > MOST_HOPS {
            return Err(format!("more than {MOST_HOPS} bastions stand behind each other: does ssh_config lead in a circle?"));
        }
        Ok(())
    }

    fn target(&mut self, named: &Named<'_>, said: &Said) -> Result<Target, String> {
        let (ssh, options) = (&named.host.ssh, self.options);
        let number = |key: &str| said.one(key).and_then(|text| text.parse::<u64>().ok());
        let port = named.port.or_else(|| number("port").and_then(|port| u16::try_from(port).ok())).unwrap_or(22);
        let address = named.address.clone().or_else(|| said.one("hostname").map(str::to_owned));
        let address = address.unwrap_or_else(|| named.name.to_owned());
        let own = said.one("user").map(str::to_owned);
        // What stands in the inventory is about the host; ssh_config may know more about its bastion.
        let user = named.user.clone().or(own).or_else(|| ssh.user.clone().filter(|_| named.bastion));
        let user = user.or_else(|| options.user.clone()).ok_or("it is not known whom to log in as; set ssh.user")?;
        let alias = said.one("hostkeyalias");
        let tokens = Tokens {
            name: named.name,
            address: &address,
            alias: alias.unwrap_or(&address),
            port,
            user: &user,
            own_user: options.user.as_deref(),
            home: options.home.as_deref(),
        };
        let paths = |key: &str| -> Result<Option<Vec<PathBuf>>, String> {
            let Some(values) = said.all(key) else { return Ok(None) };
            let words = values.iter().filter(|value| *value != "none").map(|value| tokens.path(value));
            words.collect::<Result<_, _>>().map(Some)
        };
        let listed = |key: &str| -> Result<Option<Vec<PathBuf>>, String> {
            let Some(values) = said.one(key) else { return Ok(None) };
            let words = values.split_whitespace().filter(|value| *value != "none").map(|value| tokens.path(value));
            words.collect::<Result<_, _>>().map(Some)
        };
        let configured = paths("identityfile")?;
        let inventory: Vec<PathBuf> = ssh.identity.iter().map(|path| self.path(path)).collect();
        let (files, named_files) = match configured {
            Some(files) if inventory.is_empty() || named.bastion => {
                (files.into_iter().chain(inventory.into_iter().filter(|_| named.bastion)).collect(), true)
            }
            _ => (inventory, !ssh.identity.is_empty()),
        };
        let wanted = Wanted {
            files,
            defaults: !named_files,
            only: said.is_on("identitiesonly"),
            certificates: paths("certificatefile")?.unwrap_or_default(),
            agent: match said.one("identityagent") {
                None | Some("SSH_AUTH_SOCK") => AgentSocket::Usual,
                Some("none") => AgentSocket::None,
                Some(text) => match text.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                    Some(name) => std::env::var_os(name).map_or(AgentSocket::None, |path| AgentSocket::At(path.into())),
                    None => AgentSocket::At(tokens.path(text)?),
                },
            },
        };
        let known_hosts: Vec<PathBuf> = if ssh.known_hosts.is_empty() {
            let usual = || options.home.iter().map(|home| home.join(".ssh/known_hosts")).collect();
            let own = listed("userknownhostsfile")?.unwrap_or_else(usual);
            let global = listed("globalknownhostsfile")?.unwrap_or_else(|| vec![PathBuf::from(SYSTEM_KNOWN_HOSTS)]);
            own.into_iter().chain(global).collect()
        } else {
            ssh.known_hosts.iter().map(|path| self.path(path)).collect()
        };
        let files = known_hosts.iter().map(|path| self.known_hosts(path)).collect::<Result<Vec<_>, _>>()?;
        let revoked = match said.one("revokedhostkeys").filter(|path| *path != "none") {
            Some(path) => {
                let path = tokens.path(path)?;
                Some(Arc::clone(self.revoked.entry(path).or_insert_with_key(|path| Arc::new(RevokedKeys::read(path)))))
            }
            None => None,
        };
        let pin = ssh.host_key.as_deref().filter(|_| !named.bastion);
        let names = match alias {
            Some(alias) => Names::alias(alias),
            None => Names::of(&address, named.host, port, named.bastion),
        };
        let proxy_command = match said.one("proxycommand").filter(|command| *command != "none") {
            Some(command) => Some(tokens.expand(command)?),
            None => None,
        };
        let lists = |key: &str| said.one(key).map(|text| text.split(',').map(str::to_owned).collect::<Vec<_>>());
        // A bastion only carries bytes to the host: it is told no password of that host, and nothing outdated is used with it for that host's
        // sake. Where it is a host of the fleet itself, what the inventory says of that one counts.
        let itself = self.fleet.iter().find(|server| server.is_at(&address, port)).filter(|_| named.bastion);
        let (legacy, password) = match itself {
            None if named.bastion => (inventory::Legacy::none(), None),
            None => (ssh.legacy.clone(), ssh.password.clone()),
            Some(Server { host, user: account, .. }) => {
                (host.ssh.legacy.clone(), host.ssh.password.clone().filter(|_| account.as_ref() == Some(&user)))
            }
        };
        let seconds = ssh.connect_timeout.or_else(|| number("connecttimeout")).unwrap_or(CONNECT_TIMEOUT);
        Ok(Target {
            name: named.name.to_owned(),
            trust: Arc::new(Trust::new(names, pin, files, revoked)?),
            address,
            port,
            user,
            wanted,
            password,
            bastion: named.bastion,
            known_hosts: known_hosts.into_iter().next().unwrap_or_default(),
            connect_timeout: Duration::from_secs(seconds.max(1)),
            family: match said.one("addressfamily") {
                Some("inet") => Family::V4,
                Some("inet6") => Family::V6,
                _ => Family::Any,
            },
            legacy,
            algorithms: super::algorithms::Lists {
                kex: lists("kexalgorithms"),
                host_keys: lists("hostkeyalgorithms"),
                ciphers: lists("ciphers"),
                macs: lists("macs"),
                keys: lists("pubkeyacceptedalgorithms"),
            },
            proxy_command,
        })
    }

    fn known_hosts(&mut self, path: &Path) -> Result<Arc<KnownHosts>, String> {
        if let Some(file) = self.read.get(path) {
            return Ok(Arc::clone(file));
        }
        let file = KnownHosts::read(path)
            .map_err(|error| format!("{} cannot be read ({error}); host keys cannot be checked without it", path.display()))?;
        let file = Arc::new(file);
        self.read.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// `~` is the home directory; relative paths start at the inventory.
    fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix('~'), &self.options.home) {
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => self.base.join(text),
        }
    }
}

/// What the inventory leaves open about a host, as it was settled.
fn settings(host: &Host, said: &Said, target: &Target, jumps: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |open: bool, key: &'static str, word: &str, value: String| {
        let from_config = said.one(word).is_some();
        if open && !value.is_empty() {
            settings.push(Setting { key, value, from_config });
        }
    };
    let list = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let ssh = &host.ssh;
    add(host.address == host.name && said.one("hostname").is_some(), "address", "hostname", target.address.clone());
    add(ssh.user.is_none(), "ssh.user", "user", target.user.clone());
    add(ssh.port.is_none(), "ssh.port", "port", target.port.to_string());
    add(ssh.identity.is_empty(), "ssh.identity", "identityfile", list(&target.wanted.files));
    add(ssh.jump.is_none(), "ssh.jump", "proxyjump", if jumps == "none" { String::new() } else { jumps.to_owned() });
    add(ssh.known_hosts.is_empty(), "ssh.known_hosts", "userknownhostsfile", list(target.trust.files().as_slice()));
    add(ssh.connect_timeout.is_none(), "ssh.connect_timeout", "connecttimeout", target.connect_timeout.as_secs().to_string());
    add(true, "ProxyCommand", "proxycommand", target.proxy_command.clone().unwrap_or_default());
    for (key, word) in [
        ("HostKeyAlias", "hostkeyalias"),
        ("IdentitiesOnly", "identitiesonly"),
        ("IdentityAgent", "identityagent"),
        ("CertificateFile", "certificatefile"),
        ("RevokedHostKeys", "revokedhostkeys"),
        ("AddressFamily", "addressfamily"),
        ("KexAlgorithms", "kexalgorithms"),
        ("HostKeyAlgorithms", "hostkeyalgorithms"),
        ("Ciphers", "ciphers"),
        ("MACs", "macs"),
        ("PubkeyAcceptedAlgorithms", "pubkeyacceptedalgorithms"),
    ] {
        add(said.one(word).is_some(), key, word, said.all(word).unwrap_or_default().join(", "));
    }
    settings
}

/// `[USER@]HOST[:PORT]`, where HOST with colons stands in brackets (as ssh_config(5) `ProxyJump`).
fn parse_jump(text: &str) -> Result<(Option<String>, String, Option<u16>), String> {
    let wrong = || format!("the jump host {text:?} is not [USER@]HOST[:PORT]");
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) if !user.is_empty() => (Some(user.to_owned()), rest),
        Some(_) => return Err(wrong()),
        None => (None, text),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':').map(Some).or(port.is_empty().then_some(None)).ok_or_else(wrong)?)
        }
        None => match rest.split_once(':') {
            // More than one colon: an IPv6 address without a port.
            Some((_, port)) if port.contains(':') => (rest, None),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?),
        None => None,
    };
    // What begins with a dash would be an option of `ssh`.
    if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok((user, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn jumps_are_read_as_ssh_reads_them() {
        let read =
            |text| parse_jump(text).map(|(user, host, port)| format!("{} {host} {}", user.unwrap_or_default(), port.unwrap_or(22)));
        assert_eq!(read("bastion"), Ok(" bastion 22".to_owned()));
        assert_eq!(read("ops@bastion:2222"), Ok("ops bastion 2222".to_owned()));
        assert_eq!(read("me@corp@bastion"), Ok("me@corp bastion 22".to_owned()));
        assert_eq!(read("[2001:db8::1]:2222"), Ok(" 2001:db8::1 2222".to_owned()));
        assert_eq!(read("2001:db8::1"), Ok(" 2001:db8::1 22".to_owned()));
        for wrong in ["", "@host", "host:", "host:0", "host:70000", "[::1", "[::1]x", "a b", "-oProxyCommand=x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_jump_is_survived(text in any::<String>()) {
            let _ = parse_jump(&text);
        }
    }
}
