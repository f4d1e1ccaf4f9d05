//! What is true on the hosts: packages, configuration, databases. Read from disk whenever it is asked for, since many processes
//! change it.

use crate::conf;
use crate::layout::{Host, Instance, Layout, Platform};
use crate::processes::write_atomically;
use crate::spec::{Release, Role, Topology};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A package in a host's database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// `nlserver6-v7`.
    pub name: String,
    /// Version and build.
    pub release: Release,
    /// Whether its installation went through.
    pub whole: bool,
}

fn package_file(host: &Host) -> PathBuf {
    host.state().join("packages.json")
}

/// The packages of a host.
///
/// # Errors
/// When the database cannot be read.
pub fn packages(host: &Host) -> io::Result<Vec<Package>> {
    serde_json::from_slice(&std::fs::read(package_file(host))?).map_err(io::Error::from)
}

pub(crate) fn set_packages(host: &Host, packages: &[Package]) -> io::Result<()> {
    write_atomically(&package_file(host), &serde_json::to_vec(packages)?)
}

/// How far a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The old version is in place, untouched.
    Old,
    /// Neither the one nor the other.
    Between,
    /// The target's packages are installed and the configuration is back.
    New,
}

/// How far a host is.
///
/// # Errors
/// When its package database cannot be read.
pub fn progress(layout: &Layout, host: &Host) -> io::Result<Progress> {
    let packages = packages(host)?;
    let has = |release: &Release| packages.iter().any(|package| package.whole && package.release == *release);
    Ok(match () {
        () if has(&layout.target) && configuration_is_back(host) => Progress::New,
        () if has(&host.source) && host.old_tree().join("bin/nlserver").exists() => Progress::Old,
        () => Progress::Between,
    })
}

/// Whether each instance's configuration, the customer's files and the password are where they were before.
fn configuration_is_back(host: &Host) -> bool {
    let (now, before) = (host.nl6(), host.backup());
    let same = |file: String| {
        let Ok(found) = std::fs::read_to_string(now.join(&file)) else { return false };
        // After `cleanup` there is nothing left to compare with.
        let Ok(kept) = std::fs::read_to_string(before.join(&file)) else { return true };
        found.replace("_autoStart", "autoStart") == kept.replace("_autoStart", "autoStart")
    };
    let there = |file: &str| !before.join(file).exists() || now.join(file).exists();
    let password = |dir: &Path| conf::internal_password(dir).unwrap_or_default();
    host.instances.iter().all(|instance| same(format!("conf/config-{instance}.xml")) && there(&format!("var/{instance}/redir")))
        && there("customer.sh")
        && there("customers/site.js")
        && (!before.exists() || password(&now) == password(&before))
}

/// The state of an instance's database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The account.
    pub user: String,
    /// SHA-256 of the account's password: the database knows it without the lab writing it down once more.
    pub password_sha256: String,
    /// The build that its schema belongs to.
    pub build: u32,
    /// The part of postupgrade that was completed last; 0 before it begins.
    pub completed: u32,
    /// How often postupgrade ran to its end.
    pub upgrades: u32,
    /// Dumps that were written.
    pub dumps: u32,
}

impl Database {
    /// Whether postupgrade began on it, whether or not it ended: the old version refuses it.
    pub(crate) fn is_upgraded(&self, platform: &Platform) -> bool {
        self.completed > 0 || self.build != platform.source.build
    }
}

fn database_file(layout: &Layout, instance: &str) -> PathBuf {
    layout.dir.join("databases").join(format!("{instance}.json"))
}

/// The state of an instance's database.
///
/// # Errors
/// When there is none.
pub fn database(layout: &Layout, instance: &str) -> io::Result<Database> {
    if layout.real {
        return crate::real::database::read(layout, instance);
    }
    serde_json::from_slice(&std::fs::read(database_file(layout, instance))?).map_err(io::Error::from)
}

pub(crate) fn set_database(layout: &Layout, instance: &str, state: &Database) -> io::Result<()> {
    if layout.real {
        return crate::real::database::write(layout, instance, state);
    }
    write_atomically(&database_file(layout, instance), &serde_json::to_vec(state)?)
}

/// The lock that a running postupgrade of an instance holds; `None` while another process holds it. A process that dies gives it
/// back.
pub(crate) fn lock_database(layout: &Layout, instance: &str) -> io::Result<Option<File>> {
    let file = File::create(database_file(layout, instance).with_extension("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The place of a role in the order in which servers migrate (domain, section 2; its reading for mid-sourcing, mail and
/// execution servers). Written down here a second time on purpose: the lab judges Caravan's plans and must not share them.
/// A build upgrade begins with tracking everywhere.
pub fn migration_rank(platform: &Platform, role: Role) -> u32 {
    match platform.topology {
        Topology::Standalone => 0,
        Topology::Standard | Topology::CloudMessaging if platform.source.is_v7() => match role {
            Role::Tracking => 0,
            Role::Marketing => 2,
            _ => 1,
        },
        Topology::Standard | Topology::CloudMessaging => match role {
            Role::Marketing => 0,
            Role::MidSourcing => 1,
            Role::Mta => 2,
            _ => 3,
        },
        Topology::PowerBooster | Topology::PowerCluster => match role {
            Role::Tracking => 0,
            Role::Marketing => 2,
            _ => 1,
        },
    }
}

/// The stage in which a host gets its packages: the earliest of its roles.
pub(crate) fn host_rank(platform: &Platform, host: &Host) -> u32 {
    host.roles.iter().map(|role| migration_rank(platform, *role)).min().unwrap_or(0)
}

/// The stage in which an instance is upgraded: that of the servers it belongs to.
pub(crate) fn instance_rank(platform: &Platform, instance: &Instance) -> u32 {
    migration_rank(platform, instance.of)
}

/// Whether postupgrade of an instance has completed.
pub(crate) fn is_upgraded(layout: &Layout, instance: &str) -> io::Result<bool> {
    Ok(database(layout, instance)?.upgrades > 0)
}

/// The instances of a platform whose databases the old version cannot work with any more: upgraded, or half of it.
pub(crate) fn upgraded(layout: &Layout, platform: &Platform) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for instance in &platform.instances {
        if database(layout, &instance.name)?.is_upgraded(platform) {
            found.push(format!("the database of {} is not restored", instance.name));
        }
    }
    Ok(found)
}

/// What is missing until every stage before `rank` is complete.
pub(crate) fn missing_before(layout: &Layout, platform: &Platform, rank: u32) -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for host in platform.hosts.iter().filter(|host| host_rank(platform, host) < rank) {
        if progress(layout, host)? != Progress::New {
            missing.push(format!("{} is not migrated", host.name));
        }
    }
    for instance in platform.instances.iter().filter(|instance| instance_rank(platform, instance) < rank) {
        if !is_upgraded(layout, &instance.name)? {
            missing.push(format!("{} is not upgraded", instance.name));
        }
    }
    Ok(missing)
}

/// What is missing until a platform is wholly migrated; nothing either while nothing of it was touched.
pub(crate) fn between(layout: &Layout, platform: &Platform) -> io::Result<Vec<String>> {
    let mut untouched = true;
    for host in &platform.hosts {
        untouched &= progress(layout, host)? == Progress::Old;
    }
    for instance in &platform.instances {
        untouched &= database(layout, &instance.name)?.completed == 0;
    }
    if untouched { Ok(Vec::new()) } else { missing_before(layout, platform, u32::MAX) }
}
