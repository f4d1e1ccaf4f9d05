//! Proof (b): one logon as `internal` at each server's own SOAP endpoint, with a password that the operator typed.
//!
//! The password goes to the agents in a frame that nobody keeps; they answer accepted, refused, or why they could not ask. That one
//! password is accepted everywhere proves that it is the same everywhere. That some accept and some refuse it proves that it is not.
//! That all refuse it proves nothing but that it was the wrong one.

use super::{PasswordReading, PlatformProof, Proof, tracking};
use crate::check::finding::{clean, fold};
use crate::check::readings::HostState;
use inventory::{Host, Platform};
use proto::event::Status;
use proto::inspect::{Answer, Logon, Query};
use std::collections::{BTreeMap, BTreeSet};

/// The account whose password it is.
pub const ACCOUNT: &str = "internal";

/// What to do about an endpoint that could not be asked.
pub(super) const NOT_ASKED_REMEDY: &str =
    "Start the `web` module there, or say in the inventory where the server answers (`campaign.soap`), and try again.";

/// The question to a host; `None` where there is none to ask (Windows, no Campaign there).
pub fn query(host: &Host) -> Option<Query> {
    (host.has_campaign() && !host.is_windows())
        .then(|| Query::Logon { url: host.campaign.soap.clone(), account: ACCOUNT.to_owned() })
}

/// What is known of a logon on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogonReading {
    /// The server opened a session.
    Accepted,
    /// The server answered with a fault, which says this.
    Refused(String),
    /// Its endpoint could not be asked, for this reason.
    NotAsked(String),
    /// The host was not reached.
    Unreachable,
}

/// Reads the logons out of what is known of the hosts. A host of the platform that is not in `hosts` was not reached.
pub fn readings(platform: &Platform, hosts: &BTreeMap<String, HostState>) -> BTreeMap<String, LogonReading> {
    let reading = |host: &Host| match (query(host), hosts.get(&host.name)) {
        (None, _) => LogonReading::NotAsked("a Windows host: its steps and checks are a person's".to_owned()),
        (Some(query), Some(HostState::Reached(reached))) => match reached.readings.get(&query) {
            Ok(Answer::Logon(Logon::Accepted)) => LogonReading::Accepted,
            Ok(Answer::Logon(Logon::Refused(fault))) => LogonReading::Refused(clean(fault)),
            Ok(_) => LogonReading::NotAsked("the agent answered another question than it was asked".to_owned()),
            Err(error) => LogonReading::NotAsked(error.to_string()),
        },
        (Some(_), Some(HostState::Unreachable { .. }) | None) => LogonReading::Unreachable,
    };
    platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| (host.name.clone(), reading(host))).collect()
}

/// What the servers of a platform said to a logon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Those that accept the password, those of `like` included.
    pub accepted: BTreeSet<String>,
    /// Those that refuse it, with the fault's text; it is empty for those of `like`.
    pub refused: BTreeMap<String, String>,
    /// Those that could not be asked, but whose stored value equals that of another, which was: equal stored values prove equal
    /// passwords.
    pub like: BTreeMap<String, String>,
}

impl Said {
    /// Whether all of these servers that said something refused: then the password was a wrong one.
    pub(super) fn only_refused(&self, servers: &BTreeSet<String>) -> bool {
        self.accepted.is_disjoint(servers) && self.refused.keys().any(|host| servers.contains(host))
    }

    /// For people: what stands behind the groups.
    pub fn notes(&self) -> Vec<String> {
        // Servers mostly refuse in the same words.
        let mut faults: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (host, fault) in self.refused.iter().filter(|(_, fault)| !fault.is_empty()) {
            faults.entry(fault).or_default().push(host);
        }
        let mut notes: Vec<String> = faults.iter().map(|(fault, hosts)| format!("{}: {fault}", fold(hosts))).collect();
        notes.extend(
            self.like
                .iter()
                .map(|(host, other)| format!("{host} was not asked: its stored value is the one of {other}, which was")),
        );
        notes
    }
}

/// What the logons prove. Pure. A host without a stored password is `unset`, whatever it said.
pub fn prove(
    platform: &Platform,
    stored: &BTreeMap<String, PasswordReading>,
    logons: &BTreeMap<String, LogonReading>,
) -> PlatformProof {
    let tracking = tracking(platform);
    let names: BTreeSet<&str> = platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| host.name.as_str()).collect();
    let mut said = Said::default();
    let (mut unset, mut unreadable, mut unreachable, mut reasons) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    for &name in &names {
        match (stored.get(name), logons.get(name)) {
            (Some(PasswordReading::Unset), _) => unset.push(name.to_owned()),
            (_, Some(LogonReading::Accepted)) => {
                said.accepted.insert(name.to_owned());
            }
            (_, Some(LogonReading::Refused(fault))) => {
                said.refused.insert(name.to_owned(), fault.clone());
            }
            (_, Some(LogonReading::NotAsked(reason))) => {
                unreadable.push(name.to_owned());
                reasons.insert(name.to_owned(), reason.clone());
            }
            (_, Some(LogonReading::Unreachable) | None) => unreachable.push(name.to_owned()),
        }
    }
    unreadable.retain(|name| match alike(name, stored, &said) {
        Some((other, accepted)) => {
            reasons.remove(name);
            said.like.insert(name.clone(), other);
            if accepted {
                said.accepted.insert(name.clone());
            } else {
                said.refused.insert(name.clone(), String::new());
            }
            false
        }
        None => true,
    });
    let of = |wanted: bool| {
        let here = |host: &&String| tracking.contains(*host) == wanted;
        let accepted: Vec<String> = said.accepted.iter().filter(here).cloned().collect();
        let refused: Vec<String> = said.refused.keys().filter(here).cloned().collect();
        (accepted, refused)
    };
    let ((accepted, refused), (others_accepted, others_refused)) = (of(true), of(false));
    let identical = match (accepted.is_empty(), refused.is_empty()) {
        (false, true) if accepted.len() == tracking.len() => Some(true),
        (false, false) => Some(false),
        _ => None,
    };
    let differing = if accepted.is_empty() { Vec::new() } else { others_refused.clone() };
    let groups = |accepted: Vec<String>, refused: Vec<String>| [accepted, refused].into_iter().filter(|g| !g.is_empty()).collect();
    let by_hand = unreadable.iter().filter(|name| platform.host(name).is_some_and(Host::is_windows)).cloned().collect();
    PlatformProof {
        name: platform.name.clone(),
        identical,
        proof: identical.map(|_| Proof::Logon),
        groups: groups(accepted, refused),
        others: groups(others_accepted, others_refused),
        unset,
        unreadable,
        unreachable,
        tracking,
        differing,
        by_hand,
        reasons,
        logon: Some(said),
    }
}

/// A server with the same stored value that was asked, and whether it accepts the password. None where such servers contradict each
/// other: then one of them does not go by what is stored.
fn alike(name: &str, stored: &BTreeMap<String, PasswordReading>, said: &Said) -> Option<(String, bool)> {
    let Some(PasswordReading::Stored(own)) = stored.get(name) else { return None };
    let mut answers = stored.iter().filter_map(|(other, reading)| match reading {
        PasswordReading::Stored(value) if value == own && !said.like.contains_key(other) => {
            let accepted = said.accepted.contains(other);
            (accepted || said.refused.contains_key(other)).then(|| (other.clone(), accepted))
        }
        _ => None,
    });
    let first = answers.next()?;
    answers.all(|(_, accepted)| accepted == first.1).then_some(first)
}

/// What the tracking servers disagree about, as status, text and remedy.
pub(super) fn disagreement(platform: &Platform, proof: &PlatformProof, said: &Said) -> Option<(Status, String, String)> {
    let here = |host: &&String| proof.tracking.contains(*host);
    let refused: Vec<&String> = said.refused.keys().filter(here).collect();
    let accepted = said.accepted.iter().filter(here).count();
    let refuse = if refused.len() == 1 { "refuses" } else { "refuse" };
    match (accepted, refused.len()) {
        (_, 0) => None,
        (0, _) => Some((
            Status::Unknown,
            format!("nothing is proven: {} {refuse} the password that was tried, and none accepts it", fold(&refused)),
            format!("Type the password of {} again: it may have been another one.", platform.name),
        )),
        (accepted, _) => Some((
            Status::Failure,
            format!(
                "not identical: {} {refuse} the password that {accepted} accept{}",
                fold(&refused),
                if accepted == 1 { "s" } else { "" }
            ),
            format!("Set the same password on all of them: {}.", super::findings::set(platform)),
        )),
    }
}
