//! What is asked of a host: all of it in one round trip.

use super::layout::{Layout, output};
use super::{Point, database, tracking, zones};
use crate::plan::Phase;
use inventory::{Backup, BackupFile, Host, Platform, Role};
use proto::inspect::Query;
use std::collections::BTreeSet;

/// Everything that the prerequisites need to know from one host, to be asked in one `Inspect`. Nothing for a Windows host, whose
/// prerequisites are looked at by a person, and after the migration for a host without Campaign. The
/// fingerprint of the `internal` password is not among them: see [`super::passwords::query`].
pub fn queries(platform: &Platform, host: &Host, when: Point) -> Vec<Query> {
    if host.is_windows() || (when == Point::Verify && !host.has_campaign()) {
        return Vec::new();
    }
    if when == Point::BeforeRestart {
        return zones::queries(host);
    }
    // First, so that its clock is near the moment of asking: `pdump` can take seconds.
    let mut queries = vec![Query::System];
    if host.has_campaign() {
        queries.extend(campaign(host, when));
    }
    if when == Point::Preflight {
        queries.extend(super::on_host::space_queries(host));
        let dirs = backup_dirs(platform, host);
        if !dirs.is_empty() {
            queries.push(pg_dump());
        }
        queries.extend(dirs.into_iter().map(|dir| Query::Space { path: dir.to_owned() }));
        queries.extend(given(platform, host).map(|file| Query::File { path: file.path.clone() }));
        queries.extend(database::queries(platform, host));
    }
    queries
}

/// The questions that a plan asks in a phase: those of [`queries`].
pub fn planned_queries(platform: &Platform, host: &Host, phase: Phase) -> Vec<Query> {
    queries(platform, host, Point::of(phase))
}

fn campaign(host: &Host, when: Point) -> Vec<Query> {
    let layout = Layout::new(host, when);
    let mut queries = vec![layout.pdump()];
    if when == Point::Verify {
        return queries;
    }
    queries.extend(layout.packages());
    queries.extend([
        Query::Path { path: layout.back() },
        Query::Path { path: host.init_scripts.clone() },
        layout.owner(),
        layout.instance_list(),
    ]);
    if host.has_root() {
        queries.push(layout.account());
    }
    queries.extend(["provider", "server", "unicodeData", "NChar"].map(|attribute| layout.connection(attribute)));
    if host.roles.contains(&Role::Tracking) {
        queries.push(layout.database_id());
        queries.extend(tracking::query(host));
    }
    queries
}

/// The directories on this host that database backups of the platform go to.
pub(super) fn backup_dirs<'a>(platform: &'a Platform, host: &Host) -> BTreeSet<&'a str> {
    let databases = platform.database.iter().chain(platform.instances.iter().filter_map(|instance| instance.database.as_ref()));
    databases
        .filter_map(|database| match &database.backup {
            Backup::On { on, dir, .. } if *on == host.name => Some(dir.as_str()),
            _ => None,
        })
        .collect()
}

/// The backups on this host that somebody else made, each once.
fn given<'a>(platform: &'a Platform, host: &'a Host) -> impl Iterator<Item = &'a BackupFile> {
    let mut seen = BTreeSet::new();
    let databases = platform.instances.iter().filter_map(|instance| instance.database.as_ref());
    let files = databases.filter_map(|database| match &database.backup {
        Backup::Given(file) => Some(file),
        _ => None,
    });
    files.filter(move |file| file.on == host.name && seen.insert(&file.path))
}

pub(super) fn pg_dump() -> Query {
    output(&["pg_dump", "--version"])
}
