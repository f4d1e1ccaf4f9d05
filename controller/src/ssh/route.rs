//! Out of the inventory: where each host is, over which bastions, and what its key must be.

use super::connect::Target;
use super::known_hosts::KnownHosts;
use super::trust::Trust;
use super::{Place, SYSTEM_KNOWN_HOSTS, SshOptions};
use inventory::Host;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One bastion on the way to a host.
pub(super) struct Hop {
    /// Equal for hosts that can share one connection to it.
    pub(super) key: String,
    pub(super) target: Target,
}

/// Reads each known_hosts file once.
pub(super) struct Files<'a> {
    pub(super) read: HashMap<PathBuf, Arc<KnownHosts>>,
    pub(super) base: &'a Path,
    pub(super) home: Option<&'a Path>,
}

impl Files<'_> {
    /// Where a host is and how to get there.
    pub(super) fn place(&mut self, host: &Host, options: &SshOptions) -> Result<Place, String> {
        let mut names = vec![host.address.clone()];
        if host.name != host.address {
            names.push(host.name.clone());
        }
        let target = self.target(&host.name, names, host.ssh.port, host, options, host.ssh.host_key.as_deref())?;
        let mut hops: Vec<Hop> = Vec::new();
        for jump in
            host.ssh.jump.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|jump| !matches!(*jump, "" | "none"))
        {
            let (user, address, port) = parse_jump(jump)?;
            // A bastion that is a host of the fleet itself inherits the `jump` of the defaults: the way to it ends there.
            if address == host.address && port == host.ssh.port {
                break;
            }
            let mut hop = self.target(jump, vec![address], port, host, options, None)?;
            hop.bastion = true;
            if let Some(user) = user {
                hop.user = user;
            }
            let before = hops.last().map(|hop| hop.key.as_str()).unwrap_or_default();
            let key = format!("{before}>{}@{}:{port} {:?} {:?}", hop.user, hop.address, host.ssh.identity, host.ssh.known_hosts);
            hops.push(Hop { key, target: hop });
        }
        Ok(Place { host: host.clone(), target, hops })
    }

    fn target(
        &mut self,
        name: &str,
        names: Vec<String>,
        port: u16,
        host: &Host,
        options: &SshOptions,
        pin: Option<&str>,
    ) -> Result<Target, String> {
        let ssh = &host.ssh;
        let user = ssh.user.clone().or_else(|| options.user.clone());
        let user = user.ok_or("it is not known whom to log in as; set ssh.user")?;
        let paths: Vec<PathBuf> = if ssh.known_hosts.is_empty() {
            let own = self.home.map(|home| home.join(".ssh/known_hosts"));
            own.into_iter().chain([PathBuf::from(SYSTEM_KNOWN_HOSTS)]).collect()
        } else {
            ssh.known_hosts.iter().map(|path| self.path(path)).collect()
        };
        let files = paths.iter().map(|path| self.known_hosts(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Target {
            name: name.to_owned(),
            address: names.first().cloned().unwrap_or_default(),
            port,
            user,
            identity: ssh.identity.iter().map(|path| self.path(path)).collect(),
            trust: Arc::new(Trust::new(names, port, pin, files)?),
            bastion: false,
            known_hosts: paths.into_iter().next().unwrap_or_default(),
            ssh: Arc::new(ssh.clone()),
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
        match (text.strip_prefix('~'), self.home) {
            (Some(""), Some(home)) => home.to_owned(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => self.base.join(text),
        }
    }
}

/// `[USER@]HOST[:PORT]`, where HOST with colons stands in brackets (as ssh_config(5) `ProxyJump`).
fn parse_jump(text: &str) -> Result<(Option<String>, String, u16), String> {
    let wrong = || format!("ssh.jump: {text:?} is not [USER@]HOST[:PORT]");
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
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => 22,
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
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
        let read = |text| parse_jump(text).map(|(user, host, port)| format!("{} {host} {port}", user.unwrap_or_default()));
        assert_eq!(read("bastion"), Ok(" bastion 22".to_owned()));
        assert_eq!(read("ops@bastion:2222"), Ok("ops bastion 2222".to_owned()));
        assert_eq!(read("me@corp@bastion"), Ok("me@corp bastion 22".to_owned()));
        assert_eq!(read("[2001:db8::1]:2222"), Ok(" 2001:db8::1 2222".to_owned()));
        assert_eq!(read("2001:db8::1"), Ok(" 2001:db8::1 22".to_owned()));
        for wrong in ["", "@host", "host:", "host:0", "host:70000", "[::1", "[::1]x", "a b"] {
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
