//! The proof that the `internal` password is the same on all tracking servers (domain: prerequisite 5).
//!
//! Proof (a), *stored value*: each host makes a keyed fingerprint of the value in its `serverConf.xml`; the controller compares the
//! fingerprints. Equal stored values prove equal passwords. Different ones prove nothing, since the encoding may be salted.
//! Only the grouping leaves this module: no value, no fingerprint.
//!
//! Proof (b), *logon*: see [`logon`].

mod findings;
pub mod logon;

pub use findings::{findings, group_name, method};

use super::Point;
use super::layout::Layout;
use super::readings::HostState;
use inventory::{Host, Platform, Role, Topology};
use proto::Secret;
use proto::inspect::{Query, ReadError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use zeroize::Zeroizing;

/// Bytes of a key: 256 bits.
const KEY_BYTES: usize = 32;
/// Hex digits of an HMAC-SHA-256.
const FINGERPRINT_DIGITS: usize = 64;

/// The key of the fingerprints of one check. Made for it, kept in memory, wiped when it is dropped.
pub struct ProofKey(Zeroizing<[u8; KEY_BYTES]>);

/// The system gave no random bytes for a key.
#[derive(Debug, thiserror::Error)]
#[error("no key for the fingerprints could be made: the system gives no random bytes ({0}). Nothing was asked of any host.")]
pub struct KeyError(getrandom::Error);

impl ProofKey {
    /// A new random key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(KeyError)?;
        Ok(Self(bytes))
    }

    /// The key as the agents expect it under [`proto::inspect::FINGERPRINT_KEY`]: lower-case hex.
    pub fn secret(&self) -> Secret {
        let mut hex = String::with_capacity(2 * KEY_BYTES);
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 15] {
                hex.extend(char::from_digit(digit.into(), 16));
            }
        }
        Secret::new(hex)
    }
}

impl std::fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProofKey(***)")
    }
}

/// The question for the stored `internal` password of a host; `None` where there is none to ask (Windows, no Campaign there).
pub fn query(host: &Host, when: Point) -> Option<Query> {
    (host.has_campaign() && !host.is_windows()).then(|| Layout::new(host, when).internal_password())
}

/// The questions for the stored `internal` password of a host that may have been migrated since the inventory was written: from v5 its
/// installation has another name then. [`readings`] takes the one that is there.
pub fn queries(host: &Host) -> Vec<Query> {
    let before = query(host, Point::Preflight);
    let after = query(host, Point::Verify).filter(|after| before.as_ref() != Some(after));
    before.into_iter().chain(after).collect()
}

/// What is known of a host's stored `internal` password.
#[derive(Debug, Clone, PartialEq)]
pub enum PasswordReading {
    /// One is stored; this is its keyed fingerprint.
    Stored(Secret),
    /// None is set.
    Unset,
    /// It could not be read, for this reason.
    Unreadable(String),
    /// The host was not reached.
    Unreachable,
}

impl PasswordReading {
    /// A fingerprint as an agent sent it. What is no fingerprint proves nothing, so it counts as unreadable.
    pub fn stored(fingerprint: Secret) -> Self {
        let text = fingerprint.expose();
        if text.len() == FINGERPRINT_DIGITS && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Self::Stored(fingerprint)
        } else {
            Self::Unreadable("the agent's answer is no fingerprint".to_owned())
        }
    }
}

/// How it was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The stored values are equal.
    StoredValue,
    /// The same password opens a session, or does not, at each server's own endpoint.
    Logon,
}

/// What was proven for one platform. Its JSON form is a contract (`passwords check --format json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformProof {
    /// The platform.
    pub name: String,
    /// `true`: proven identical on all tracking servers. `false`: proven to differ, which takes a logon. `None`: not proven.
    pub identical: Option<bool>,
    /// How `identical` was proven.
    pub proof: Option<Proof>,
    /// The tracking servers by stored value, the largest group first; by logon those that accept the password, then those that refuse
    /// it. See [`tracking`] for what counts as one.
    pub groups: Vec<Vec<String>>,
    /// The platform's other Campaign servers, grouped in the same way.
    pub others: Vec<Vec<String>>,
    /// Servers of either kind without a password.
    pub unset: Vec<String>,
    /// Servers of either kind whose stored value could not be read, or whose endpoint could not be asked.
    pub unreadable: Vec<String>,
    /// Servers of either kind that were not reached.
    pub unreachable: Vec<String>,
    /// The servers whose passwords must be identical.
    #[serde(skip)]
    pub tracking: BTreeSet<String>,
    /// Of `others`: those whose value is not the one of the largest group, or that refuse the password which tracking servers accept.
    #[serde(skip)]
    pub differing: Vec<String>,
    /// Of `unreadable`: the Windows servers, which nobody can read from here. A person proves them, at a gate of the plan.
    #[serde(skip)]
    pub by_hand: Vec<String>,
    /// Why a host of `unreadable` could not be read.
    #[serde(skip)]
    pub reasons: BTreeMap<String, String>,
    /// What the servers said, where a logon was tried.
    #[serde(skip)]
    pub logon: Option<logon::Said>,
}

/// The servers whose `internal` passwords must be identical: the tracking servers. A standalone machine does the tracking itself,
/// so it counts as one whatever its roles say; on another platform without a tracking server the marketing servers stand in,
/// since without an `internal` password nobody can connect to them after the migration.
pub fn tracking(platform: &Platform) -> BTreeSet<String> {
    let named = |role: Role| platform.with_role(role).map(|host| host.name.clone()).collect::<BTreeSet<_>>();
    let tracking = named(Role::Tracking);
    match platform.topology {
        Topology::Standalone => platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| host.name.clone()).collect(),
        _ if tracking.is_empty() => named(Role::Marketing),
        _ => tracking,
    }
}

/// Reads the passwords out of what is known of the hosts. A host of the platform that is not in `hosts` was not reached.
pub fn readings(platform: &Platform, hosts: &BTreeMap<String, HostState>, when: Point) -> BTreeMap<String, PasswordReading> {
    let reading = |host: &Host| match (query(host, when), hosts.get(&host.name)) {
        (None, _) => PasswordReading::Unreadable("a Windows host: its steps and checks are a person's".to_owned()),
        (Some(before), Some(HostState::Reached(reached))) => {
            let migrated = query(host, Point::Verify).filter(|after| {
                reached.readings.asked(after) && !matches!(reached.readings.get(after), Err(ReadError::Missing(_)))
            });
            reached.readings.password(&migrated.unwrap_or(before))
        }
        (Some(_), Some(HostState::Unreachable { .. }) | None) => PasswordReading::Unreachable,
    };
    platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| (host.name.clone(), reading(host))).collect()
}

/// Groups the servers of a platform by their stored `internal` password and says what that proves. Pure; the order of the hosts
/// in the inventory makes no difference. A Campaign server without a reading counts as not reached.
pub fn prove(platform: &Platform, readings: &BTreeMap<String, PasswordReading>) -> PlatformProof {
    let tracking = tracking(platform);
    let names: BTreeSet<&str> = platform.hosts.iter().filter(|host| host.has_campaign()).map(|host| host.name.as_str()).collect();
    let mut values: BTreeMap<(bool, &str), Vec<String>> = BTreeMap::new();
    let (mut unset, mut unreadable, mut unreachable, mut reasons) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    for name in names {
        match readings.get(name) {
            Some(PasswordReading::Stored(fingerprint)) => {
                values.entry((tracking.contains(name), fingerprint.expose())).or_default().push(name.to_owned());
            }
            Some(PasswordReading::Unset) => unset.push(name.to_owned()),
            Some(PasswordReading::Unreadable(reason)) => {
                unreadable.push(name.to_owned());
                reasons.insert(name.to_owned(), reason.clone());
            }
            Some(PasswordReading::Unreachable) | None => unreachable.push(name.to_owned()),
        }
    }
    let largest =
        values.iter().filter(|((tracking, _), _)| *tracking).max_by(|a, b| larger(b.1, a.1)).map(|((_, value), _)| *value);
    let differing = values
        .iter()
        .filter(|((tracking, value), _)| !tracking && largest.is_some_and(|largest| largest != *value))
        .flat_map(|(_, hosts)| hosts.iter().cloned())
        .collect::<BTreeSet<_>>();
    let of = |wanted: bool| {
        let mut groups: Vec<Vec<String>> =
            values.iter().filter(|((tracking, _), _)| *tracking == wanted).map(|(_, hosts)| hosts.clone()).collect();
        groups.sort_by(|a, b| larger(a, b));
        groups
    };
    let (groups, others) = (of(true), of(false));
    let by_hand = unreadable.iter().filter(|name| platform.host(name).is_some_and(Host::is_windows)).cloned().collect();
    let complete = matches!(groups.as_slice(), [one] if one.len() == tracking.len());
    PlatformProof {
        name: platform.name.clone(),
        identical: complete.then_some(true),
        proof: complete.then_some(Proof::StoredValue),
        groups,
        others,
        unset,
        unreadable,
        unreachable,
        tracking,
        differing: differing.into_iter().collect(),
        by_hand,
        reasons,
        logon: None,
    }
}

/// The order of groups: the larger first, then by name, so that it says nothing about the values.
fn larger(a: &[String], b: &[String]) -> std::cmp::Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

/// Both proofs, with the answers to both questions at hand: the stored values prove it where they are equal and no server refuses the
/// password; otherwise the logons decide.
pub fn both(platform: &Platform, hosts: &BTreeMap<String, HostState>, when: Point) -> PlatformProof {
    let stored = readings(platform, hosts, when);
    let by_value = prove(platform, &stored);
    let by_logon = logon::prove(platform, &stored, &logon::readings(platform, hosts));
    let refused = by_logon.logon.as_ref().is_some_and(|said| !said.refused.is_empty());
    if by_value.identical == Some(true) && !refused { by_value } else { by_logon }
}
