//! Security zones (domain: prerequisite 7): in v7 access is closed by default, and zones are configured after postupgrade and before the
//! restart. So they are looked at then, on the servers that people log on to.

use super::Point;
use super::finding::{NOT_REACHED, Subject, clean};
use super::layout::Layout;
use super::readings::{HostState, Readings};
use inventory::{Host, Platform, Role};
use proto::event::{Finding, Status};
use proto::inspect::{Query, ReadError};
use std::collections::{BTreeMap, BTreeSet};

const CHECK: &str = "security-zones";
/// Zones lie in one another; the vendor's own file has three of them.
const DEPTH: usize = 5;
/// Networks that a finding names before the rest is only counted.
const NAMED: usize = 6;
/// Servers that people log on to.
const ROLES: [Role; 4] = [Role::Marketing, Role::MidSourcing, Role::PowerBooster, Role::PowerCluster];

/// Whether a host's zones are looked at.
fn concerns(host: &Host) -> bool {
    !host.is_windows() && host.roles.iter().any(|role| ROLES.contains(role))
}

/// What is asked of a host.
pub(super) fn queries(host: &Host) -> Vec<Query> {
    if !concerns(host) {
        return Vec::new();
    }
    let file = Layout::new(host, Point::BeforeRestart).server_conf();
    networks(&file).chain(empty_passwords(&file)).collect()
}

/// One question for each depth: `serverconf/*/subNetwork`, `serverconf/*/*/subNetwork`, ... No other element has that name.
fn networks(file: &str) -> impl Iterator<Item = Query> {
    (1..=DEPTH).map(|depth| xml(file, &format!("serverconf/{}subNetwork", "*/".repeat(depth)), "mask"))
}

/// The same for the zones themselves, by an attribute that nothing else has.
fn empty_passwords(file: &str) -> impl Iterator<Item = Query> {
    (1..=DEPTH).map(|depth| xml(file, &format!("serverconf{}", "/*".repeat(depth)), "allowEmptyPassword"))
}

fn xml(file: &str, element: &str, attribute: &str) -> Query {
    Query::Xml { file: file.to_owned(), element: element.to_owned(), attribute: attribute.to_owned() }
}

pub(super) fn evaluate(platform: &Platform, hosts: &BTreeMap<String, HostState>) -> Vec<Finding> {
    let concerned = platform.hosts.iter().filter(|host| concerns(host));
    concerned.map(|host| of_host(Subject::host(platform, host), host, hosts.get(&host.name))).collect()
}

fn of_host(subject: Subject<'_>, host: &Host, state: Option<&HostState>) -> Finding {
    let Some(reached) = state.and_then(HostState::reached) else {
        let reason = match state {
            Some(HostState::Unreachable { reason, .. }) => clean(reason),
            _ => host.name.clone(),
        };
        let remedy = "Mend the connection, then `caravan resume`.";
        return subject.finding(
            CHECK,
            Status::Unknown,
            "its security zones are not known",
            format!("{NOT_REACHED}{reason}"),
            remedy,
        );
    };
    let file = Layout::new(host, Point::BeforeRestart).server_conf();
    let read = |queries: Vec<Query>| values(&reached.readings, queries);
    let (masks, open) = match (read(networks(&file).collect()), read(empty_passwords(&file).collect())) {
        (Ok(masks), Ok(open)) => (masks, open),
        (Err(error), _) | (_, Err(error)) => return subject.unread(CHECK, "the security zones", &error),
    };
    let mut named: Vec<String> = masks.iter().take(NAMED).map(|mask| clean(mask)).collect();
    if masks.len() > NAMED {
        named.push(format!("{} more", masks.len() - NAMED));
    }
    let evidence = if named.is_empty() { format!("{file}: no subNetwork") } else { format!("{file}: {}", named.join(", ")) };
    if masks.iter().all(|mask| is_loopback(mask)) {
        let message = "no security zone lets anybody in: v7 would be closed to everybody after the restart";
        let remedy = "Define securityZone and subNetwork for your networks in serverConf.xml, then `caravan resume`.";
        return subject.finding(CHECK, Status::Failure, message, evidence, remedy);
    }
    if open.iter().any(|value| matches!(value.as_str(), "true" | "1")) {
        let message = "a security zone allows logons without a password";
        let remedy = "Set allowEmptyPassword=\"false\" in serverConf.xml once all operators have passwords.";
        return subject.finding(CHECK, Status::Warning, message, evidence, remedy);
    }
    subject.ok(CHECK, "security zones are defined", evidence)
}

fn values(readings: &Readings, queries: Vec<Query>) -> Result<BTreeSet<String>, ReadError> {
    let mut found = BTreeSet::new();
    for query in queries {
        found.extend(readings.xml(&query)?.iter().filter_map(|value| value.value.clone()).filter(|value| !value.trim().is_empty()));
    }
    Ok(found)
}

fn is_loopback(mask: &str) -> bool {
    let mask = mask.trim();
    mask.starts_with("127.") || mask.starts_with("::1") || mask == "localhost"
}
