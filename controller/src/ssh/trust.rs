//! Whether a server's key is the one that the host must have: strict, always. An unknown key is refused like a wrong one.

use super::known_hosts::{KnownHosts, Line, written};
use russh::keys::ssh_key::known_hosts::Marker;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use std::path::Path;
use std::sync::Arc;

/// What is known of the key that one host must have.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// The names under which the host may stand in known_hosts, and the port.
    names: Vec<String>,
    port: u16,
    pin: Option<PublicKey>,
    files: Vec<Arc<KnownHosts>>,
}

/// What is to be thought of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the host's.
    Known,
    /// Nothing is known of this host.
    Unknown,
    /// The host must have another key: each with its place.
    Changed(Vec<Expected>),
    /// The key is marked `@revoked` at this place.
    Revoked(String),
    /// Only a certificate authority is known for this host, at this place.
    OnlyAuthority(String),
}

/// A key that a host should have had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its fingerprint, `SHA256:...`.
    pub fingerprint: String,
    /// Where that is written down, `FILE:LINE` or the inventory's pin.
    pub place: String,
}

impl Trust {
    /// What `files` and the pin say of a host, known by any of `names`.
    ///
    /// # Errors
    /// The pin is not a public key in OpenSSH's form.
    pub(super) fn new(names: Vec<String>, port: u16, pin: Option<&str>, files: Vec<Arc<KnownHosts>>) -> Result<Self, String> {
        let pin =
            match pin {
                Some(text) => Some(PublicKey::from_openssh(text.trim()).map_err(|error| {
                    format!("the pinned ssh.host_key is not a public key such as `ssh-ed25519 AAAA...` ({error})")
                })?),
                None => None,
            };
        Ok(Self { names, port, pin, files })
    }

    /// Judges a key that a server proved to have.
    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        if let Some((file, line)) = self.lines(true).find(|(_, line)| line.marker == Some(Marker::Revoked) && same(&line.key, key))
        {
            return Verdict::Revoked(place(file, line));
        }
        if let Some(pin) = &self.pin {
            if same(pin, key) {
                return Verdict::Known;
            }
            return Verdict::Changed(vec![Expected {
                fingerprint: fingerprint(pin),
                place: "ssh.host_key of the inventory".to_owned(),
            }]);
        }
        // As OpenSSH does, a host on another port than 22 may be known without its port; but such a line proves no change.
        if self.lines(true).any(|(_, line)| line.marker.is_none() && same(&line.key, key)) {
            return Verdict::Known;
        }
        // The server was asked first for the types of key that are known (`algorithms`). A key of another type means that it no
        // longer has the known one: that is a change too.
        let expected: Vec<Expected> = self
            .lines(false)
            .filter(|(_, line)| line.marker.is_none())
            .map(|(file, line)| Expected { fingerprint: fingerprint(&line.key), place: place(file, line) })
            .collect();
        if !expected.is_empty() {
            return Verdict::Changed(expected);
        }
        match self.lines(false).find(|(_, line)| line.marker == Some(Marker::CertAuthority)) {
            Some((file, line)) => Verdict::OnlyAuthority(place(file, line)),
            None => Verdict::Unknown,
        }
    }

    /// The types of the keys that are known, so that the server is asked for those first.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        match &self.pin {
            Some(pin) => vec![pin.algorithm()],
            None => self.lines(true).filter(|(_, line)| line.marker.is_none()).map(|(_, line)| line.key.algorithm()).collect(),
        }
    }

    /// The host as it stands in a line of known_hosts.
    pub(super) fn written_names(&self) -> String {
        self.names.iter().map(|name| written(name, self.port)).collect::<Vec<_>>().join(",")
    }

    /// Lines about this host; `portless`: also those that name it without its port.
    fn lines(&self, portless: bool) -> impl Iterator<Item = (&Path, &Line)> {
        let mut names: Vec<String> = self.names.iter().map(|name| written(name, self.port)).collect();
        if portless {
            names.extend(self.names.iter().map(|name| name.to_lowercase()));
        }
        self.files.iter().flat_map(move |file| file.matching(&names).map(|line| (file.path(), line)).collect::<Vec<_>>())
    }
}

/// A key's fingerprint as OpenSSH prints it, `SHA256:...`.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Comments do not make another key.
fn same(one: &PublicKey, other: &PublicKey) -> bool {
    one.key_data() == other.key_data()
}

fn place(file: &Path, line: &Line) -> String {
    format!("{}:{}", file.display(), line.number)
}
