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
pub struct KnownHosts {
    path: PathBuf,
    lines: Vec<Line>,
    warnings: Vec<String>,
}

/// One line that holds a key.
#[derive(Debug, Clone)]
pub struct Line {
    /// Line number, from 1.
    pub number: usize,
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
    pub fn parse(path: &Path, bytes: &[u8]) -> Self {
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
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The lines that are about a host with these names, which are in the form that the file uses ([`written`]). A line that
    /// excludes one of them (`!name`) is not about it.
    pub fn matching<'a>(&'a self, names: &[String]) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.is_about(names))
    }
}

/// A host and port in the form of known_hosts: lower-case, `[host]:port` unless the port is 22.
pub fn written(host: &str, port: u16) -> String {
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
    fn is_about(&self, names: &[String]) -> bool {
        match &self.hosts {
            HostPatterns::HashedName { salt, hash } => names.iter().any(|name| {
                Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name.as_bytes()).verify_slice(hash).is_ok())
            }),
            HostPatterns::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        // A negation that matches wins over everything else on the line.
                        Some(pattern) if names.iter().any(|name| matches(pattern, name)) => return false,
                        Some(_) => {}
                        None => found = found || names.iter().any(|name| matches(pattern, name)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;
    use std::process::Command;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";

    fn numbers(file: &KnownHosts, host: &str, port: u16) -> Vec<usize> {
        file.matching(&[written(host, port)]).map(|line| line.number).collect()
    }

    fn parse(text: &str) -> KnownHosts {
        KnownHosts::parse(Path::new("known_hosts"), text.as_bytes())
    }

    #[test]
    fn bad_lines_are_named_and_do_not_hide_good_ones() {
        let file = parse(&format!(
            "one {KEY}\n@what two {KEY}\nthree\nfour ssh-ed25519\nfive ssh-ed25519 AAAA\n|1|x six {KEY}\n\u{fffd}\n  \t# comment\n\tone {KEY}\r\n"
        ));
        assert_eq!(numbers(&file, "one", 22), [1, 9]);
        let places: Vec<&str> = file.warnings().iter().map(|text| text.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["known_hosts:2", "known_hosts:3", "known_hosts:4", "known_hosts:5", "known_hosts:6", "known_hosts:7"]);
        assert!(file.warnings()[0].contains("@what"), "{:?}", file.warnings());
    }

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(KnownHosts::read(&dir.path().join("none")).unwrap().lines.is_empty());
        assert!(KnownHosts::read(dir.path()).is_err());
    }

    #[test]
    fn markers_ports_and_case() {
        let file = parse(&format!(
            "@revoked * {KEY}\n@cert-authority *.example.net {KEY}\n[MKT1.Example.net]:2222 {KEY}\n[::1]:2222 {KEY}\n"
        ));
        assert_eq!(numbers(&file, "mkt1.example.net", 22), [1, 2]);
        // As in OpenSSH, `*.example.net` does not match `[mkt1.example.net]:2222`.
        assert_eq!(numbers(&file, "Mkt1.example.net", 2222), [1, 3]);
        assert_eq!(numbers(&file, "::1", 2222), [1, 4]);
        let markers: Vec<_> = file.matching(&[written("mkt1.example.net", 22)]).map(|line| line.marker).collect();
        assert_eq!(markers, [Some(Marker::Revoked), Some(Marker::CertAuthority)]);
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = "*a".repeat(200);
        let name = "a".repeat(2000);
        assert!(matches(&pattern, &name));
        assert!(!matches(&format!("{pattern}b"), &name));
    }

    /// Lines of all kinds about hosts that are likely to collide.
    fn any_file() -> impl Strategy<Value = Vec<(String, bool)>> {
        let pattern = proptest::string::string_regex("!?(\\[?(a|b|A|\\*|\\?|\\.|1){1,4}(\\]:(22|23))?)").unwrap();
        let hosts = proptest::collection::vec(pattern, 1..4).prop_map(|patterns| patterns.join(","));
        proptest::collection::vec((hosts, any::<bool>()), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// `ssh-keygen -F` finds the same lines, also when it has hashed the file before.
        #[test]
        fn as_ssh_keygen_finds(lines in any_file(), host in "[ab1.]{1,4}", port in prop_oneof![Just(22u16), Just(23)]) {
            prop_assume!(!host.starts_with('.') && !host.is_empty());
            if Command::new("ssh-keygen").arg("-?").output().is_err() {
                say!("skipped: ssh-keygen is not installed");
                return Ok(());
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("known_hosts");
            let mut text = String::new();
            for (hosts, tab) in &lines {
                let _ = writeln!(text, "{hosts}{}{KEY}", if *tab { '\t' } else { ' ' });
            }
            std::fs::write(&path, &text).unwrap();
            for hashed in [false, true] {
                if hashed {
                    let done = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&path).output().unwrap();
                    prop_assert!(done.status.success());
                }
                let found = Command::new("ssh-keygen").args(["-F", &written(&host, port), "-f"]).arg(&path).output().unwrap();
                let expected: Vec<usize> = String::from_utf8_lossy(&found.stdout)
                    .lines()
                    .filter_map(|line| line.strip_prefix("# Host ")?.rsplit_once("line ")?.1.split(' ').next()?.parse().ok())
                    .collect();
                let file = KnownHosts::read(&path).unwrap();
                prop_assert_eq!(numbers(&file, &host, port), expected, "{} in {}", host, std::fs::read_to_string(&path).unwrap());
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let file = KnownHosts::parse(Path::new("x"), &bytes);
            let _ = numbers(&file, "a", 22);
        }

        #[test]
        fn patterns_match_as_their_definition_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn defined(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|skip| defined(rest, &name[skip..])),
                    Some((wanted, rest)) => name.split_first().is_some_and(|(byte, name)| (*wanted == b'?' || wanted == byte) && defined(rest, name)),
                }
            }
            prop_assert_eq!(matches(&pattern, &name), defined(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
