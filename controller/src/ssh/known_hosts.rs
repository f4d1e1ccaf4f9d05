//! known_hosts files as sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT" describes them, matched as OpenSSH matches them.
//!
//! Parsing of keys, markers and hashed names is `ssh_key`'s. Splitting into fields and all matching is ours: markers, wildcards,
//! negations and tabs count, a line that cannot be read is a warning that names it, and a file that cannot be read is an error.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use russh::keys::ssh_key::known_hosts::{HostPatterns, Marker};
use sha1::Sha1;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The port that known_hosts does not write down.
const DEFAULT_PORT: u16 = 22;

/// One known_hosts file.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownHosts {
    path: PathBuf,
    lines: Vec<Line>,
    warnings: Vec<String>,
}

/// One line that holds a key.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Line number, from 1.
    pub(super) number: usize,
    /// `@revoked` or `@cert-authority`.
    pub(super) marker: Option<Marker>,
    /// The key.
    pub(super) key: PublicKey,
    hosts: HostPatterns,
}

impl KnownHosts {
    /// Reads a file. One that does not exist is empty.
    ///
    /// # Errors
    /// Any other reason for which it cannot be read: an unreadable file must not look like one that knows nobody.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self::parse(path, &bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { path: path.to_owned(), ..Self::default() }),
            Err(error) => Err(error),
        }
    }

    /// Reads the content of a file. Lines that cannot be understood become warnings.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Self {
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(index + 1, line) {
                Ok(line) => file.lines.push(line),
                Err(why) => file.warnings.push(format!("{}:{}: {why}; the line is ignored", path.display(), index + 1)),
            }
        }
        file
    }

    /// Where it was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What could not be understood, each with `file:line`.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The lines that are about this name, which is in the form that the file uses ([`written`]).
    pub(super) fn matching<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.is_about(name))
    }
}

/// A host and port in the form of known_hosts: lower-case, `[host]:port` unless the port is 22.
pub(super) fn written(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == DEFAULT_PORT { host } else { format!("[{host}]:{port}") }
}

fn parse_line(number: usize, line: &str) -> Result<Line, String> {
    let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty());
    let mut next = |what: &str| fields.next().ok_or_else(|| format!("{what} is missing"));
    let mut hosts = next("the host field")?;
    let mut marker = None;
    if hosts.starts_with('@') {
        marker = Some(hosts.parse::<Marker>().map_err(|_| format!("the marker {hosts} is not known"))?);
        hosts = next("the host field")?;
    }
    let hosts = hosts.parse::<HostPatterns>().map_err(|error| format!("the host field cannot be read ({error})"))?;
    let (kind, key) = (next("the key's type")?, next("the key")?);
    let key =
        PublicKey::from_openssh(&format!("{kind} {key}")).map_err(|error| format!("the {kind} key cannot be read ({error})"))?;
    Ok(Line { number, marker, key, hosts })
}

impl Line {
    fn is_about(&self, name: &str) -> bool {
        match &self.hosts {
            HostPatterns::HashedName { salt, hash } => {
                Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name.as_bytes()).verify_slice(hash).is_ok())
            }
            HostPatterns::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        // A negation that matches wins over everything else on the line.
                        Some(pattern) if matches(pattern, name) => return false,
                        Some(_) => {}
                        None => found = found || matches(pattern, name),
                    }
                }
                found
            }
        }
    }
}

/// Matches `*` and `?` without regard to case. Iterative with one point to return to, so that a hostile pattern costs at most
/// the product of the lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<u8> = pattern.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let name = name.as_bytes();
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at_name) {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    at_pattern = after + 1;
                    at_name = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at_pattern).all(|byte| *byte == b'*')
}
