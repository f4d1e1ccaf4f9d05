//! Whether a server's key is the one that the host must have: strict, always. An unknown key is refused like a wrong one.

use super::known_hosts::{KnownHosts, Line, written};
use super::revoked::{Revocation, RevokedKeys};
use russh::keys::ssh_key::known_hosts::Marker;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// What is known of the key that one host must have.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    names: Names,
    pin: Option<PublicKey>,
    files: Vec<Arc<KnownHosts>>,
    revoked: Option<Arc<RevokedKeys>>,
}

/// The names under which a host may stand in known_hosts, in the form that the file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    names: Vec<String>,
    /// The same without the port, where it has another one than 22.
    portless: Vec<String>,
    /// What a certificate must be for.
    principals: Vec<String>,
}

impl Names {
    /// Of the server at an address: a host of the inventory is also known by its name there.
    pub(super) fn of(address: &str, host: &inventory::Host, port: u16, bastion: bool) -> Self {
        let mut names = vec![address.to_owned()];
        if !bastion && address == host.address && host.name != address {
            names.push(host.name.clone());
        }
        let portless: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        Self { principals: portless.clone(), portless, names: names.iter().map(|name| written(name, port)).collect() }
    }

    /// ssh_config(5) `HostKeyAlias`: this name, and no port.
    pub(super) fn alias(alias: &str) -> Self {
        let names = vec![alias.to_lowercase()];
        Self { principals: names.clone(), names, portless: Vec::new() }
    }
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
    /// The key is marked `@revoked`, or in a file of revoked keys, at this place.
    Revoked(String),
    /// Whether it is revoked cannot be known, and why.
    Uncertain(String),
    /// Only a certificate authority is known for this host, at this place, and the server showed no certificate.
    OnlyAuthority(String),
    /// The server's certificate does not count, and why.
    Certificate(String),
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
    /// What `files`, the pin and the file of revoked keys say of a host.
    ///
    /// # Errors
    /// The pin is not a public key in OpenSSH's form.
    pub(super) fn new(
        names: Names,
        pin: Option<&str>,
        files: Vec<Arc<KnownHosts>>,
        revoked: Option<Arc<RevokedKeys>>,
    ) -> Result<Self, String> {
        let pin =
            match pin {
                Some(text) => Some(PublicKey::from_openssh(text.trim()).map_err(|error| {
                    format!("the pinned ssh.host_key is not a public key such as `ssh-ed25519 AAAA...` ({error})")
                })?),
                None => None,
            };
        Ok(Self { names, pin, files, revoked })
    }

    /// What the file of revoked keys says, before anything else.
    fn revoked(&self, relied_on: &[&PublicKey]) -> Option<Verdict> {
        Some(match self.revoked.as_ref()?.judge(relied_on)? {
            Revocation::Revoked(place) => Verdict::Revoked(place),
            Revocation::Unknown(why) => Verdict::Uncertain(why),
        })
    }

    /// Judges a key that a server proved to have.
    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        if let Some(verdict) = self.revoked(&[key]) {
            return verdict;
        }
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
        let is_known = |portless: bool| self.lines(portless).any(|(_, line)| line.marker.is_none() && same(&line.key, key));
        if is_known(false) {
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
        // As OpenSSH does: a host on another port than 22 may be known without its port, where nothing is known with it.
        if is_known(true) {
            return Verdict::Known;
        }
        match self.lines(false).find(|(_, line)| line.marker == Some(Marker::CertAuthority)) {
            Some((file, line)) => Verdict::OnlyAuthority(place(file, line)),
            None => Verdict::Unknown,
        }
    }

    /// Judges a certificate that a server proved to have (OpenSSH's PROTOCOL.certkeys): signed by an authority that is known for the host,
    /// for hosts, for one of its names, valid now, and neither the key nor the authority revoked.
    pub(super) fn judge_certificate(&self, certificate: &Certificate, now: SystemTime) -> Verdict {
        let authority = PublicKey::from(certificate.signature_key().clone());
        let own = PublicKey::from(certificate.public_key().clone());
        if let Some(verdict) = self.revoked(&[&own, &authority]) {
            return verdict;
        }
        let revoked = self
            .lines(true)
            .find(|(_, line)| line.marker == Some(Marker::Revoked) && (same(&line.key, &own) || same(&line.key, &authority)));
        if let Some((file, line)) = revoked {
            return Verdict::Revoked(place(file, line));
        }
        if self.pin.is_some() {
            return self.judge(&own);
        }
        let signed = |portless: bool| {
            let of_authority = |line: &Line| line.marker == Some(Marker::CertAuthority) && same(&line.key, &authority);
            self.lines(portless).any(|(_, line)| of_authority(line))
        };
        let failing = match signed(true).then(|| self.counts(certificate, &authority, now)) {
            Some(Ok(())) => return Verdict::Known,
            Some(Err(why)) => Some(super::text::printable(&why)),
            None => None,
        };
        // As for OpenSSH (check_host_key), a certificate that does not count leaves the bare key. Where no authority is known with the port,
        // the key may be known without it, whatever is known with it.
        if !signed(false) && self.lines(true).any(|(_, line)| line.marker.is_none() && same(&line.key, &own)) {
            return Verdict::Known;
        }
        match (self.judge(&own), failing) {
            (verdict @ (Verdict::Known | Verdict::Revoked(_)), _) | (verdict, None) => verdict,
            (_, Some(why)) => Verdict::Certificate(why),
        }
    }

    /// Whether a certificate of a known authority is for this host, and now; or why it is not.
    fn counts(&self, certificate: &Certificate, authority: &PublicKey, now: SystemTime) -> Result<(), String> {
        if !certificate.cert_type().is_host() {
            return Err("it is one for users".to_owned());
        }
        let principals = certificate.valid_principals();
        let named = |name: &String| self.names.principals.contains(name);
        if !principals.is_empty() && !principals.iter().any(named) {
            return Err(format!("it is for {}, not for {}", principals.join(", "), self.names.principals.join(" or ")));
        }
        if !certificate.critical_options().is_empty() {
            let options: Vec<&str> = certificate.critical_options().keys().map(String::as_str).collect();
            return Err(format!("it has critical options that mean nothing for hosts: {}", options.join(", ")));
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (after, before) = (certificate.valid_after(), certificate.valid_before());
        if seconds < after {
            return Err(format!("it is valid from {} on", shown(after)));
        }
        if seconds >= before {
            return Err(format!("it was valid until {}", shown(before)));
        }
        match certificate.validate_at(seconds, [&authority.fingerprint(HashAlg::Sha256)]) {
            Ok(()) => Ok(()),
            Err(_) => Err("its signature is wrong".to_owned()),
        }
    }

    /// Whether the server is asked for a certificate before a bare key: as by OpenSSH, where an authority is known, or where the type of key
    /// that it prefers is, or nothing at all.
    pub(super) fn wants_certificate(&self) -> bool {
        let known = self.algorithms();
        let authority = || self.lines(false).any(|(_, line)| line.marker == Some(Marker::CertAuthority));
        self.pin.is_none() && (known.is_empty() || known.contains(&Algorithm::Ed25519) || authority())
    }

    /// The types of the keys that are known, so that the server is asked for those first. As for OpenSSH, lines without the port have no say
    /// in it, nor has a type of which the first key is revoked.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        if let Some(pin) = &self.pin {
            return vec![pin.algorithm()];
        }
        let of =
            |marker: Option<Marker>| self.lines(false).filter(move |(_, line)| line.marker == marker).map(|(_, line)| &line.key);
        let mut first: Vec<&PublicKey> = Vec::new();
        for key in of(None) {
            if !first.iter().any(|before| before.algorithm() == key.algorithm()) {
                first.push(key);
            }
        }
        first.retain(|key| !of(Some(Marker::Revoked)).any(|revoked| same(revoked, key)));
        first.into_iter().map(PublicKey::algorithm).collect()
    }

    /// The host as it stands in a line of known_hosts.
    pub(super) fn written_names(&self) -> String {
        self.names.names.join(",")
    }

    /// Where the file of revoked keys is.
    pub(super) fn revoked_file(&self) -> Option<&Path> {
        self.revoked.as_ref().map(|file| file.path())
    }

    /// Where the files are.
    pub(super) fn files(&self) -> Vec<std::path::PathBuf> {
        self.files.iter().map(|file| file.path().to_owned()).collect()
    }

    /// Lines about this host; `portless`: also those that name it without its port.
    fn lines<'a>(&'a self, portless: bool) -> impl Iterator<Item = (&'a Path, &'a Line)> {
        // Two questions: what excludes the one name says nothing about the other.
        let asked = [Some(&self.names.names), Some(&self.names.portless).filter(|_| portless)];
        let of = move |file: &'a KnownHosts| {
            let mut found: Vec<&Line> = asked.into_iter().flatten().flat_map(|names| file.matching(names)).collect();
            found.sort_by_key(|line| line.number);
            found.dedup_by_key(|line| line.number);
            found.into_iter().map(|line| (file.path(), line))
        };
        self.files.iter().flat_map(move |file| of(file))
    }
}

/// A key's fingerprint as OpenSSH prints it, `SHA256:...`.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A time of a certificate.
fn shown(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "for ever".to_owned(), |time| time.to_string())
}

/// Comments do not make another key.
fn same(one: &PublicKey, other: &PublicKey) -> bool {
    one.key_data() == other.key_data()
}

fn place(file: &Path, line: &Line) -> String {
    format!("{}:{}", file.display(), line.number)
}
