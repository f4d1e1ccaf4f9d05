//! What a proof means for the migration.

use super::PlatformProof;
use super::logon::{self, Said};
use crate::check::finding::{NOT_REACHED, Subject, clean, fold};
use inventory::Platform;
use proto::event::{Finding, Status};
use std::collections::BTreeSet;

/// What a proof means for the migration: one finding about the tracking servers, and one about the platform's other servers where
/// there are any.
pub fn findings(platform: &Platform, proof: &PlatformProof) -> Vec<Finding> {
    if proof.tracking.is_empty() && proof.others.is_empty() {
        return Vec::new();
    }
    let mut findings = vec![of_tracking(platform, proof)];
    // A wrong password says nothing about the other servers either.
    let wrong = proof.logon.as_ref().is_some_and(|said| said.only_refused(&proof.tracking));
    if !wrong && platform.hosts.iter().any(|host| host.has_campaign() && !proof.tracking.contains(&host.name)) {
        findings.push(of_others(platform, proof));
    }
    findings
}

/// The command that sets it.
pub(super) fn set(platform: &Platform) -> String {
    format!("`caravan passwords set --on platform:{}`", platform.name)
}

fn of_tracking(platform: &Platform, proof: &PlatformProof) -> Finding {
    let check = "internal-password";
    let subject = Subject::platform(platform);
    let only = |hosts: &[String]| hosts.iter().filter(|host| proof.tracking.contains(*host)).cloned().collect::<Vec<_>>();
    let (unset, by_hand, unreachable) = (only(&proof.unset), only(&proof.by_hand), only(&proof.unreachable));
    let unreadable: Vec<String> = only(&proof.unreadable).into_iter().filter(|host| !by_hand.contains(host)).collect();
    if proof.identical == Some(true) {
        let all = proof.groups.first().map(Vec::as_slice).unwrap_or_default();
        let message = match (all, &proof.logon) {
            ([one], _) => format!("set on {one}, the only server that it has to be the same on"),
            (_, None) => format!("identical on all {} tracking servers", all.len()),
            (_, Some(_)) => format!("identical on all {} tracking servers: each accepts the password that was tried", all.len()),
        };
        return subject.ok(check, message, evidence(proof));
    }
    let (mut said, mut remedies) = (Vec::new(), Vec::new());
    let mut status = Status::Unknown;
    let wrong_password = proof.logon.as_ref().is_some_and(|answers| answers.only_refused(&proof.tracking));
    match &proof.logon {
        None if proof.groups.len() > 1 => {
            status = Status::Failure;
            said.push(format!("not proven identical: {}", difference(&proof.groups)));
            remedies.push(format!(
                "Stored values can differ for equal passwords if they are salted: `caravan passwords check --proof logon --on \
                 platform:{0}` decides, and what it proves is a reason for `--override {check}@{0}=...`. Where the passwords differ, \
                 set the same on all: {1}.",
                platform.name,
                set(platform)
            ));
        }
        None => {}
        Some(answers) => {
            let disagreement = logon::disagreement(platform, proof, answers);
            if let Some((worse, text, remedy)) = disagreement {
                status = worse;
                said.push(text);
                remedies.push(remedy);
            }
        }
    }
    if !unset.is_empty() {
        status = Status::Failure;
        said.push(format!("not set on {}", fold(&unset)));
        remedies.push(format!("Set it on all servers: {}.", set(platform)));
    }
    if !unreadable.is_empty() {
        said.push(format!("{} on {}", unread(proof), fold(&unreadable)));
        remedies.push(match &proof.logon {
            None => "Let the agent become root, or compare it by hand and override this with the reason.".to_owned(),
            Some(_) => logon::NOT_ASKED_REMEDY.to_owned(),
        });
    }
    if !unreachable.is_empty() {
        said.push(format!("not proven: {} not reached", fold(&unreachable)));
    }
    if !by_hand.is_empty() {
        if let ([one], false) = (proof.groups.as_slice(), wrong_password) {
            said.push(format!("identical on the {} that can be seen from here", one.len()));
        }
        said.push(format!("{} (Windows): for a person, who confirms it at a gate of the plan", fold(&by_hand)));
        remedies.push("Compare it there by hand.".to_owned());
    }
    let mut evidence = evidence(proof);
    if status == Status::Unknown && !wrong_password {
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

/// What could not be done on a host of `unreadable`.
fn unread(proof: &PlatformProof) -> &'static str {
    if proof.logon.is_some() { "could not be tried" } else { "cannot be read" }
}

/// Who differs from whom: the odd ones, where there is a majority to be odd against.
fn difference(groups: &[Vec<String>]) -> String {
    let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
    match (groups, lengths.as_slice()) {
        ([most, odd @ ..], [largest, second, ..]) if largest > second => {
            let odd: Vec<&String> = odd.iter().flatten().collect();
            format!("{} differ{} from the {} of {}", fold(&odd), if odd.len() == 1 { "s" } else { "" }, most.len(), letter(0))
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
        said.push(format!("{} on {}", unread(proof), fold(&unreadable)));
    }
    if said.is_empty() {
        return subject.ok(check, "the other servers have the same one as far as they were reached", evidence(proof));
    }
    // On an application server it is no matter of tracking: without it nobody can connect after the migration.
    let applications: BTreeSet<&str> = platform.instances.iter().map(|instance| instance.app.as_str()).collect();
    let locked_out = unset.iter().any(|host| applications.contains(host.as_str()));
    let status = if locked_out { Status::Failure } else { Status::Warning };
    let remedy =
        if unset.is_empty() { String::new() } else { format!("Set it: {}. v7 lets nobody connect without it.", set(platform)) };
    subject.finding(check, status, said.join("; "), evidence(proof), remedy)
}

/// The grouping in one line: who is with whom, never what they have.
fn evidence(proof: &PlatformProof) -> String {
    let mut parts = vec![method(proof).to_owned()];
    for (index, hosts) in proof.groups.iter().enumerate() {
        parts.push(format!(
            "{} {} host{} {}",
            group_name(proof, index),
            hosts.len(),
            if hosts.len() == 1 { "" } else { "s" },
            fold(hosts)
        ));
    }
    parts.extend(proof.others.iter().map(|hosts| format!("others: {}", fold(hosts))));
    parts.extend(proof.reasons.iter().map(|(host, reason)| format!("{host}: {}", clean(reason))));
    parts.extend(proof.logon.iter().flat_map(Said::notes));
    parts.join("; ")
}

/// How a proof was looked for, for people.
pub fn method(proof: &PlatformProof) -> &'static str {
    match proof.logon {
        None => "compared: stored values, by keyed fingerprints of this check",
        Some(_) => "tried: one logon as `internal` at each server's own endpoint",
    }
}

/// `group A` to `group Z`, then by number; where a logon was tried, what the servers of the group did.
pub fn group_name(proof: &PlatformProof, index: usize) -> String {
    if let Some(said) = &proof.logon {
        let accepts = proof.groups.get(index).and_then(|group| group.first()).is_some_and(|host| said.accepted.contains(host));
        return if accepts { "accepted" } else { "refused " }.to_owned();
    }
    letter(index)
}

fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(small) if small < 26 => format!("group {}", char::from(b'A' + small)),
        _ => format!("group {}", index + 1),
    }
}
