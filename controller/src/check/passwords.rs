//! The proof that the `internal` password is the same on all tracking servers (domain: prerequisite 5).
//!
//! Proof (a), *stored value*: each host makes a keyed fingerprint of the value in its `serverConf.xml`; the controller compares the
//! fingerprints. Equal stored values prove equal passwords. Different ones prove nothing, since the encoding may be salted.
//! Only the grouping leaves this module: no value, no fingerprint.

use super::Point;
use super::finding::{NOT_REACHED, Subject, clean, fold};
use super::layout::Layout;
use super::readings::HostState;
use inventory::{Host, Platform, Role, Topology};
use proto::Secret;
use proto::event::{Finding, Status};
use proto::inspect::Query;
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
}

/// What was proven for one platform. Its JSON form is a contract (`passwords check --format json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformProof {
    /// The platform.
    pub name: String,
    /// `true`: proven identical on all tracking servers. `None`: not proven. (`false` takes a logon.)
    pub identical: Option<bool>,
    /// How `identical` was proven.
    pub proof: Option<Proof>,
    /// The tracking servers by stored value, the largest group first. See [`tracking`] for what counts as one.
    pub groups: Vec<Vec<String>>,
    /// The platform's other Campaign servers by stored value, the largest group first.
    pub others: Vec<Vec<String>>,
    /// Servers of either kind without a password.
    pub unset: Vec<String>,
    /// Servers of either kind whose stored value could not be read.
    pub unreadable: Vec<String>,
    /// Servers of either kind that were not reached.
    pub unreachable: Vec<String>,
    /// The servers whose passwords must be identical.
    #[serde(skip)]
    pub tracking: BTreeSet<String>,
    /// Of `others`: those whose value is not the one of the largest group.
    #[serde(skip)]
    pub differing: Vec<String>,
    /// Of `unreadable`: the Windows servers, which nobody can read from here. A person proves them, at a gate of the plan.
    #[serde(skip)]
    pub by_hand: Vec<String>,
    /// Why a host of `unreadable` could not be read.
    #[serde(skip)]
    pub reasons: BTreeMap<String, String>,
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
        (Some(query), Some(HostState::Reached(reached))) => reached.readings.password(&query),
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
    }
}

/// The order of groups: the larger first, then by name, so that it says nothing about the values.
fn larger(a: &[String], b: &[String]) -> std::cmp::Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

/// What a proof means for the migration: one finding about the tracking servers, and one about the platform's other servers where
/// there are any.
pub fn findings(platform: &Platform, proof: &PlatformProof) -> Vec<Finding> {
    if proof.tracking.is_empty() && proof.others.is_empty() {
        return Vec::new();
    }
    let mut findings = vec![of_tracking(platform, proof)];
    if platform.hosts.iter().any(|host| host.has_campaign() && !proof.tracking.contains(&host.name)) {
        findings.push(of_others(platform, proof));
    }
    findings
}

const SET: &str = "run `nlserver config -internalpassword` there as the Campaign account";

fn of_tracking(platform: &Platform, proof: &PlatformProof) -> Finding {
    let check = "internal-password";
    let subject = Subject::platform(platform);
    let only = |hosts: &[String]| hosts.iter().filter(|host| proof.tracking.contains(*host)).cloned().collect::<Vec<_>>();
    let (unset, by_hand, unreachable) = (only(&proof.unset), only(&proof.by_hand), only(&proof.unreachable));
    let unreadable: Vec<String> = only(&proof.unreadable).into_iter().filter(|host| !by_hand.contains(host)).collect();
    if proof.identical == Some(true) {
        let all = proof.groups.first().map(Vec::as_slice).unwrap_or_default();
        let message = match all {
            [one] => format!("set on {one}, the only server that it has to be the same on"),
            _ => format!("identical on all {} tracking servers", all.len()),
        };
        return subject.ok(check, message, evidence(proof));
    }
    let (mut said, mut remedies) = (Vec::new(), Vec::new());
    if proof.groups.len() > 1 {
        said.push(format!("not proven identical: {}", difference(&proof.groups)));
        remedies.push(format!(
            "Set the same password on all of them: {SET}. Stored values can differ for equal passwords if they are salted."
        ));
    }
    if !unset.is_empty() {
        said.push(format!("not set on {}", fold(&unset)));
        remedies.push(format!("Set it on {}: {SET}.", fold(&unset)));
    }
    if !unreadable.is_empty() {
        said.push(format!("cannot be read on {}", fold(&unreadable)));
        remedies.push("Let the agent become root, or compare it by hand and override this with the reason.".to_owned());
    }
    if !unreachable.is_empty() {
        said.push(format!("not proven: {} not reached", fold(&unreachable)));
    }
    if !by_hand.is_empty() {
        if let [one] = proof.groups.as_slice() {
            said.push(format!("identical on the {} that can be seen from here", one.len()));
        }
        said.push(format!("{} (Windows): for a person, who confirms it at a gate of the plan", fold(&by_hand)));
        remedies.push("Compare it there by hand.".to_owned());
    }
    let (mut status, mut evidence) = (Status::Failure, evidence(proof));
    if unset.is_empty() && proof.groups.len() < 2 {
        status = Status::Unknown;
        match (unreadable.is_empty(), unreachable.is_empty()) {
            // Nothing speaks against what can be seen from here, and a gate holds up until a person has confirmed the rest.
            (true, true) => status = Status::Warning,
            // Only the connection is missing: that host's own finding says what to do.
            (true, false) => evidence = format!("{NOT_REACHED}{}; {evidence}", fold(&unreachable)),
            (false, _) => {}
        }
    }
    subject.finding(check, status, said.join("; "), evidence, remedies.join(" "))
}

/// Who differs from whom: the odd ones, where there is a majority to be odd against.
fn difference(groups: &[Vec<String>]) -> String {
    let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
    match (groups, lengths.as_slice()) {
        ([most, odd @ ..], [largest, second, ..]) if largest > second => {
            let odd: Vec<&String> = odd.iter().flatten().collect();
            format!("{} differ{} from the {} of {}", fold(&odd), if odd.len() == 1 { "s" } else { "" }, most.len(), group_name(0))
        }
        _ => groups.iter().map(|hosts| fold(hosts)).collect::<Vec<_>>().join(" differs from "),
    }
}

fn of_others(platform: &Platform, proof: &PlatformProof) -> Finding {
    let check = "internal-password-others";
    let subject = Subject::platform(platform);
    let only = |hosts: &[String]| hosts.iter().filter(|host| !proof.tracking.contains(*host)).cloned().collect::<Vec<_>>();
    let (unset, unreadable) = (only(&proof.unset), only(&proof.unreadable));
    let mut said = Vec::new();
    if !unset.is_empty() {
        said.push(format!("not set on {}", fold(&unset)));
    }
    if !proof.differing.is_empty() {
        said.push(format!(
            "{} differ{} from the tracking servers",
            fold(&proof.differing),
            if proof.differing.len() == 1 { "s" } else { "" }
        ));
    }
    if !unreadable.is_empty() {
        said.push(format!("cannot be read on {}", fold(&unreadable)));
    }
    if said.is_empty() {
        return subject.ok(check, "the other servers have the same one as far as they were reached", evidence(proof));
    }
    // On an application server it is no matter of tracking: without it nobody can connect after the migration.
    let applications: BTreeSet<&str> = platform.instances.iter().map(|instance| instance.app.as_str()).collect();
    let locked_out = unset.iter().any(|host| applications.contains(host.as_str()));
    let status = if locked_out { Status::Failure } else { Status::Warning };
    let remedy = if unset.is_empty() { String::new() } else { format!("Set it: {SET}. v7 lets nobody connect without it.") };
    subject.finding(check, status, said.join("; "), evidence(proof), remedy)
}

/// The grouping in one line: who is with whom, never what they have.
fn evidence(proof: &PlatformProof) -> String {
    let mut parts = vec!["compared: stored values, by keyed fingerprints of this check".to_owned()];
    for (index, hosts) in proof.groups.iter().enumerate() {
        parts.push(format!(
            "{} {} host{} {}",
            group_name(index),
            hosts.len(),
            if hosts.len() == 1 { "" } else { "s" },
            fold(hosts)
        ));
    }
    parts.extend(proof.others.iter().map(|hosts| format!("others: {}", fold(hosts))));
    parts.extend(proof.reasons.iter().map(|(host, reason)| format!("{host}: {}", clean(reason))));
    parts.join("; ")
}

/// `group A` to `group Z`, then by number.
pub fn group_name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(small) if small < 26 => format!("group {}", char::from(b'A' + small)),
        _ => format!("group {}", index + 1),
    }
}
