//! The prerequisites of a platform as a whole.

use super::banner::Banner;
use super::database::Silent;
use super::finding::{NOT_REACHED, Subject, clean, fold};
use super::layout::Layout;
use super::queries::pg_dump;
use super::readings::{HostState, Reached};
use super::{Point, database, passwords};
use inventory::{Backup, BackupFile, Database, Engine, Host, KeepOf, Platform};
use proto::event::{Finding, Status};
use proto::inspect::ReadError;
use std::collections::BTreeMap;

pub(super) fn evaluate(platform: &Platform, hosts: &BTreeMap<String, HostState>, when: Point) -> Vec<Finding> {
    let reached: Vec<(&Host, &Reached)> =
        platform.hosts.iter().filter_map(|host| Some((host, hosts.get(&host.name)?.reached()?))).collect();
    let mut findings = Vec::new();
    findings.extend(builds_equal(platform, &reached, when));
    if when == Point::Preflight {
        findings.extend(same_machine(platform, &reached));
        findings.push(backup(platform, &reached, hosts));
    }
    findings.extend(passwords::findings(platform, &passwords::prove(platform, &passwords::readings(platform, hosts, when))));
    findings
}

/// Names of hosts by something that they have in common, the largest group first.
fn grouped<K: Ord>(pairs: impl Iterator<Item = (K, String)>) -> Vec<(K, Vec<String>)> {
    let mut groups: BTreeMap<K, Vec<String>> = BTreeMap::new();
    for (key, host) in pairs {
        groups.entry(key).or_default().push(host);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
    groups
}

/// Over the hosts whose build is known; the others have a finding of their own.
fn builds_equal(platform: &Platform, reached: &[(&Host, &Reached)], when: Point) -> Option<Finding> {
    let build = |(host, reached): &(&Host, &Reached)| {
        let (_, text) = reached.readings.output(&Layout::new(host, when).pdump()).ok()?;
        Some((Banner::parse(text)?.build, host.name.clone()))
    };
    let groups = grouped(reached.iter().filter_map(build));
    let evidence: Vec<String> = groups.iter().map(|(build, hosts)| format!("{build}: {}", fold(hosts))).collect();
    let evidence = evidence.join("; ");
    let subject = Subject::platform(platform);
    match groups.as_slice() {
        [] => None,
        [(build, _)] => Some(subject.ok("builds-equal", format!("the same build {build} on all servers"), evidence)),
        _ => Some(subject.finding(
            "builds-equal",
            Status::Failure,
            "the servers have different builds",
            evidence,
            match when {
                Point::Preflight => "Bring every server of the platform to the latest build of the version in use.",
                Point::BeforeRestart | Point::Verify => {
                    "Look at the output of `install.packages` of the hosts with the other build."
                }
            },
        )),
    }
}

/// Two names with one machine and one host key are most likely one machine, which would be migrated twice.
fn same_machine(platform: &Platform, reached: &[(&Host, &Reached)]) -> Option<Finding> {
    if reached.len() < 2 {
        return None;
    }
    let identity = |(host, reached): &(&Host, &Reached)| {
        let machine = &reached.readings.system().ok()?.machine_id;
        (!machine.is_empty()).then(|| ((machine.clone(), reached.agent.host_key.clone()), host.name.clone()))
    };
    let shared: Vec<String> = grouped(reached.iter().filter_map(identity))
        .iter()
        .filter(|(_, hosts)| hosts.len() > 1)
        .map(|(_, hosts)| fold(hosts))
        .collect();
    let subject = Subject::platform(platform);
    if shared.is_empty() {
        return Some(subject.ok("same-machine", "every host is a machine of its own", "machine id and host key"));
    }
    Some(subject.finding(
        "same-machine",
        Status::Warning,
        format!("hosts that look like one machine: {}", shared.join("; ")),
        "they have the same machine id and the same host key",
        "Make sure that they are not two names of one server, which would be migrated twice.",
    ))
}

/// How the databases are backed up before anything is changed (domain: prerequisite 2). That a dump can be read, and restored where the
/// inventory names a scratch database, is seen in the backup phase.
fn backup(platform: &Platform, reached: &[(&Host, &Reached)], hosts: &BTreeMap<String, HostState>) -> Finding {
    let check = "backup";
    let subject = Subject::platform(platform);
    let (mut worst, mut evidence, mut problems, mut remedies) = (Status::Ok, Vec::new(), Vec::new(), Vec::new());
    let mut away: Vec<&str> = Vec::new();
    let mut problem = |status: Status, text: String, remedy: &'static str| {
        worst = worst.max(status);
        problems.push(text);
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    };
    for instance in &platform.instances {
        let name = &instance.name;
        match database::of(platform, instance) {
            None => problem(
                Status::Failure,
                format!("the inventory does not say how the database of {name} is backed up"),
                "Set `database.backup` in the inventory: the backup is mandatory.",
            ),
            Some(Database { backup: Backup::ByDba, .. }) => evidence.push(format!("{name}: by the DBA, confirmed at a gate")),
            Some(Database { backup: Backup::Given(file), .. }) => {
                let at = format!("{} on {}", clean(&file.path), file.on);
                if platform.host(&file.on).is_some_and(Host::is_windows) {
                    problem(Status::Unknown, format!("the backup of {name} is on a Windows host and is not looked at"), WINDOWS);
                } else if let Some((_, host)) = reached.iter().find(|(host, _)| host.name == file.on) {
                    let (seen, found) = given(file, host, &at);
                    evidence.push(format!("{name}: by the DBA, {seen}"));
                    for (status, what) in found {
                        problem(status, format!("the backup of {name}, {at}, {what}"), GIVEN);
                    }
                } else {
                    away.push(file.on.as_str());
                }
            }
            Some(Database { backup: Backup::On { on, dir, scratch }, engine, .. }) => {
                let tried = scratch.as_ref().map_or_else(
                    || "of which the table of contents is read alone".to_owned(),
                    |scratch| format!("its restore tried on {}", scratch.server),
                );
                evidence.push(format!("{name}: pg_dump on {on} into {dir}, {tried}"));
                if *engine != Engine::Postgresql {
                    problem(
                        Status::Failure,
                        format!("pg_dump cannot back up the database of {name}, which is not PostgreSQL"),
                        "Set `backup: { by: dba }` for it: the plan then waits until the DBA's backup is confirmed.",
                    );
                } else if platform.host(on).is_some_and(Host::is_windows) {
                    problem(Status::Warning, format!("whether pg_dump runs on {on} is not checked from here"), WINDOWS);
                } else if let Some((_, host)) = reached.iter().find(|(host, _)| host.name == *on) {
                    let server = database::server(platform, instance, hosts).and_then(Result::ok);
                    match host.readings.output(&pg_dump()) {
                        Ok((0, version)) => {
                            evidence.push(clean(version));
                            if let Some(server) = server.as_ref().filter(|server| is_older(version, &server.version)) {
                                let text = format!(
                                    "pg_dump on {on} is older than the server of {name} ({}), and refuses it",
                                    clean(&server.version)
                                );
                                problem(Status::Failure, text, "Install the PostgreSQL client of the server's version there.");
                            }
                        }
                        Ok((code, _)) => problem(Status::Failure, format!("pg_dump does not run on {on} (exit {code})"), PG_DUMP),
                        Err(error) => problem(Status::Failure, format!("pg_dump does not run on {on} ({error})"), PG_DUMP),
                    }
                    match database::scratch_answers(platform, instance, hosts) {
                        Some(Err(Silent::Refused(seen))) => {
                            let text = format!("the scratch database of {name} cannot be logged on to from {on} ({seen})");
                            problem(Status::Failure, text, SCRATCH);
                        }
                        Some(Err(Silent::Unread(error))) => {
                            let text = format!("whether the scratch database of {name} answers is not known ({error})");
                            problem(Status::Unknown, text, SCRATCH);
                        }
                        Some(Ok(())) | None => {}
                    }
                    if let Ok((free, _)) = host.readings.space(dir) {
                        evidence.push(format!("{} MiB free in {dir}", free / MIB));
                        let kept = platform.host(on).and_then(|host| host.keep.as_ref());
                        let twice = kept.is_some_and(|keep| keep.of.contains(&KeepOf::Database));
                        let size = server.map_or(0, |server| server.size);
                        let and = if twice { ", for a dump and its encrypted copy" } else { "" };
                        let text = format!("{name} has {} MiB, {dir} on {on} {} MiB free{and}", size / MIB, free / MIB);
                        let size = if twice { size.saturating_mul(2) } else { size };
                        match free {
                            _ if free < size / COMPRESSION => problem(Status::Failure, text, SPACE),
                            _ if free < size => problem(Status::Warning, text, SPACE),
                            _ => {}
                        }
                    }
                } else {
                    away.push(on.as_str());
                }
            }
        }
    }
    let evidence = if evidence.is_empty() { "the inventory".to_owned() } else { evidence.join("; ") };
    if worst < Status::Unknown && !away.is_empty() {
        let evidence = format!("{NOT_REACHED}{}; {evidence}", fold(&away));
        return subject.finding(check, Status::Unknown, "whether pg_dump runs there is not known", evidence, "");
    }
    if problems.is_empty() {
        return subject.ok(check, "every database has its backup in the plan", evidence);
    }
    subject.finding(check, worst, problems.join("; "), evidence, remedies.join(" "))
}

/// What there is to say of a backup that somebody else made: what was seen, and what is wrong with it.
fn given(file: &BackupFile, host: &Reached, at: &str) -> (String, Vec<(Status, String)>) {
    let facts = match host.readings.file(&file.path) {
        Ok(facts) => facts,
        Err(ReadError::Missing(_)) => return (format!("{at}: not there"), vec![(Status::Failure, "is not there".to_owned())]),
        Err(error) => {
            return (format!("{at}: not read"), vec![(Status::Unknown, format!("cannot be read ({})", clean(&error.to_string())))]);
        }
    };
    let mut found = Vec::new();
    // By the host's own clock, as far as it is known: that of the workstation may differ.
    let now = host.readings.system().map_or(host.answered_ms, |system| system.clock_ms);
    let age = now.saturating_sub(facts.modified_ms) / 1000;
    if age > file.max_age {
        found.push((Status::Failure, format!("is {} old, and may be {} old", long(age), long(file.max_age))));
    }
    if facts.size < file.min_size {
        let seen = if facts.size == 0 { "is empty".to_owned() } else { format!("has {} bytes", facts.size) };
        found.push((Status::Failure, format!("{seen}, and at least {} are expected", file.min_size)));
    }
    let expected = file.sha256.as_deref().map(|sha256| (sha256, "the inventory"));
    let expected = expected.or_else(|| Some((facts.recorded.as_deref()?, "its .sha256 file")));
    let digest = match (&facts.sha256, expected) {
        (Some(seen), Some((expected, who))) if seen.eq_ignore_ascii_case(expected) => {
            format!("SHA-256 {} as {who} says", clean(seen))
        }
        (Some(seen), Some((expected, who))) => {
            found.push((Status::Failure, format!("has SHA-256 {}, and {who} says {}", clean(seen), clean(expected))));
            format!("SHA-256 {}", clean(seen))
        }
        (Some(seen), None) => format!("SHA-256 {}, with nothing to compare it to", clean(seen)),
        (None, Some(_)) => {
            found.push((Status::Unknown, "is too large for its SHA-256 to be read here".to_owned()));
            "SHA-256 not read".to_owned()
        }
        (None, None) => "SHA-256 not read".to_owned(),
    };
    (format!("{at}: {} bytes, {} old, {digest}", facts.size, long(age)), found)
}

/// A length of time for people.
fn long(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Whether `pg_dump --version` names an older major version than the server's, which pg_dump refuses to dump (PostgreSQL manual,
/// pg_dump: "cannot dump from PostgreSQL servers newer than its own major version").
fn is_older(pg_dump: &str, server: &str) -> bool {
    let major = |version: &str| -> Option<(u32, u32)> {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(str::parse::<u32>);
        let (first, second) = (numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0));
        // Before version 10 two numbers made a major version.
        Some((first, if first < 10 { second } else { 0 }))
    };
    major(pg_dump).zip(major(server)).is_some_and(|(ours, theirs)| ours < theirs)
}

const MIB: u64 = 1024 * 1024;
/// How much smaller than the database a dump is at best: it is compressed and has no indexes.
const COMPRESSION: u64 = 5;
const GIVEN: &str = "Have the backup made anew, and shown to be restorable; or correct `database.backup` in the inventory.";
const SPACE: &str = "Free space there, or name another directory in `database.backup`: a compressed dump has mostly less than half the database's size.";
const SCRATCH: &str =
    "Correct `scratch` in `database.backup`, or let that host in: the restore is tried when everything is stopped.";
const WINDOWS: &str = "Look at it by hand.";
const PG_DUMP: &str = "Install the PostgreSQL client there, or name another host in `database.backup.on`.";
