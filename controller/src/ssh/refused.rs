//! Why no connection came about, and how that is told.

use super::algorithms;
use super::connect::{ClientError, Target};
use super::offered::Offered;
use super::text::printable;
use super::trust::Verdict;
use crate::hosts::OpenError;
use russh::AlgorithmKind;
use std::io::ErrorKind;

/// Why no connection came about.
pub(super) enum Reason {
    Resolve(std::io::Error),
    /// Each address that was tried.
    Tcp(Vec<(std::net::SocketAddr, std::io::Error)>),
    Forward(russh::Error),
    /// The operator's own program does not start.
    Program(std::io::Error),
    /// ssh_config allows nothing that is there.
    Algorithms(String),
    Client(ClientError),
    /// Server and client have no algorithm of this kind in common; what the server offered, as far as it was understood.
    NothingCommon(AlgorithmKind, Vec<String>, Option<Offered>),
    /// Connected, and then nothing within this many seconds.
    Silent(u64),
}

impl Reason {
    pub(super) fn into_open_error(self, target: &Target) -> OpenError {
        let host = target.name.clone();
        let place = format!("{}:{}", target.address, target.port);
        let unreachable = |seen: String, next: &str| OpenError::Unreachable { host: host.clone(), seen, next: next.to_owned() };
        match self {
            Self::Resolve(error) => unreachable(
                format!("{} cannot be resolved ({error})", target.address),
                "Correct `address` in the inventory, or the name service",
            ),
            Self::Tcp(failed) => {
                let seconds = target.connect_timeout.as_secs();
                let told = |(address, error): &(std::net::SocketAddr, std::io::Error)| match error.kind() {
                    ErrorKind::TimedOut => format!("{address} did not answer within {seconds} s"),
                    ErrorKind::ConnectionRefused => format!("{address} refuses the connection"),
                    _ => format!("{address}: {error}"),
                };
                let all = |kind: ErrorKind| failed.iter().all(|(_, error)| error.kind() == kind);
                let next = match () {
                    () if all(ErrorKind::ConnectionRefused) => "Is sshd running there, and on this port?",
                    () if all(ErrorKind::TimedOut) => "Is the host up, and is there a way to it (VPN, firewall, ssh.jump)?",
                    () => "Is there a way to it (VPN, route, ssh.jump)?",
                };
                unreachable(failed.iter().map(told).collect::<Vec<_>>().join("; "), next)
            }
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
            Self::NothingCommon(kind, theirs, offered) => {
                let seen = offered.as_ref().map_or_else(|| theirs.join(", "), Offered::to_string);
                let seen = format!("no common algorithm ({}); the server offers {seen}", algorithms::kind_name(&kind));
                let limited = target.algorithms.limits(&kind);
                let needed = offered.as_ref().and_then(algorithms::needed);
                let next = match (limited, needed) {
                    (Some(keyword), _) if target.bastion => {
                        format!("Allow one of these in {keyword} for the bastion {host} in your ssh_config")
                    }
                    (Some(keyword), _) => format!("Allow one of these in {keyword} of your ssh_config, or set ssh.config: none"),
                    (None, Some(needed)) if target.bastion => format!(
                        "Bring its SSH server up to date; if that cannot be, allow them for the bastion {host} in your ssh_config: {}",
                        algorithms::settings(&needed)
                    ),
                    (None, Some(needed)) => format!(
                        "Bring its SSH server up to date; if that cannot be, set ssh.legacy: [{}] for this host",
                        needed.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                    (None, None) => "Caravan has none of these: its SSH server has to offer others".to_owned(),
                };
                OpenError::Unreachable { host: host.clone(), seen: printable(&seen), next }
            }
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
        Verdict::Uncertain(why) => (
            format!("whether its host key {offered} is revoked cannot be known: {why}"),
            "Correct RevokedHostKeys of your ssh_config, or that file".to_owned(),
        ),
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
pub(super) fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
