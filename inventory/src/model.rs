//! A fleet after everything was resolved: what the rest of Caravan works with.
//!
//! Every type serialises without secrets (a [`SecretRef`] says where a secret is, not what it is), so that a plan's hash can
//! cover it.

mod database;
mod host;
mod keep;
mod version;

pub use database::*;
pub use host::*;
pub use keep::*;
pub use version::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Everything in one inventory file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// The file's name without its ending, for people.
    pub name: String,
    /// The directory that relative paths of the file start from.
    #[serde(skip)]
    pub base: std::path::PathBuf,
    /// How much happens at once.
    pub parallel: Parallel,
    /// The platforms, in the order of the file.
    pub platforms: Vec<Platform>,
}

/// How much happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parallel {
    /// Platforms that migrate at the same time.
    pub platforms: usize,
    /// Hosts that work at the same time.
    pub hosts: usize,
}

/// One Campaign deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Platform {
    /// Its name; unique in the fleet.
    pub name: String,
    /// How its servers are arranged, which decides the order.
    pub topology: Topology,
    /// Whether it is marked as a test platform.
    pub rehearsal: bool,
    /// The platform's main database, where the inventory names one.
    pub database: Option<Database>,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// Its hosts, in the order of the file, ranges expanded.
    pub hosts: Vec<Host>,
    /// The file of the site's own runbook, relative to the inventory's directory, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Changes to single steps of the runbook, by step name.
    pub overrides: BTreeMap<String, Override>,
    /// The site's own order of the `migrate` stages within the vendor's rules, where it gives one.
    pub order: Option<Vec<Role>>,
    /// The site's own order of the `restart` stages, where it gives one.
    pub restart_order: Option<Vec<Role>>,
}

impl Platform {
    /// Hosts that have this role, in inventory order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.roles.contains(&role))
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

/// How a platform's servers are arranged (domain: the mandated order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// One machine carries everything.
    Standalone,
    /// Marketing, mail and tracking servers.
    Standard,
    /// As standard, with execution servers that the vendor hosts.
    CloudMessaging,
    /// One execution server apart from marketing.
    PowerBooster,
    /// Two or more execution servers apart from marketing.
    PowerCluster,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Application server.
    Marketing,
    /// Executes deliveries for a marketing instance, with a database of its own.
    MidSourcing,
    /// Mail server.
    Mta,
    /// Redirection and tracking server.
    Tracking,
    /// Execution server of a Power Booster platform.
    PowerBooster,
    /// Execution server of a Power Cluster platform.
    PowerCluster,
    /// Database server: backup and restore only.
    Database,
}

impl Role {
    /// The role as the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marketing => "marketing",
            Self::MidSourcing => "mid-sourcing",
            Self::Mta => "mta",
            Self::Tracking => "tracking",
            Self::PowerBooster => "power-booster",
            Self::PowerCluster => "power-cluster",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Topology {
    /// All of them, simplest first.
    pub const ALL: [Self; 5] = [Self::Standalone, Self::Standard, Self::CloudMessaging, Self::PowerBooster, Self::PowerCluster];

    /// The topology as the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Standard => "standard",
            Self::CloudMessaging => "cloud-messaging",
            Self::PowerBooster => "power-booster",
            Self::PowerCluster => "power-cluster",
        }
    }

    /// Roles that a host of such a platform may have.
    pub fn roles(self) -> &'static [Role] {
        use Role::{Database, Marketing, MidSourcing, Mta, PowerBooster, PowerCluster, Tracking};
        match self {
            Self::Standalone | Self::Standard | Self::CloudMessaging => &[Marketing, MidSourcing, Mta, Tracking, Database],
            Self::PowerBooster => &[Marketing, PowerBooster, MidSourcing, Mta, Tracking, Database],
            Self::PowerCluster => &[Marketing, PowerCluster, MidSourcing, Mta, Tracking, Database],
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named configuration with a database of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    /// Its name, as in `config-<instance>.xml`.
    pub name: String,
    /// What it does.
    pub kind: InstanceKind,
    /// The host that runs its postupgrade.
    pub app: String,
    /// Its database.
    pub database: Option<Database>,
    /// Its time zone, which postupgrade needs from v5.
    pub timezone: Option<String>,
    /// Whether its database shall keep several time zones from now on (`-usetimestamptz:1`). Only with an engine that can: see
    /// [`Engine::keeps_time_zones`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timestamptz: bool,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceKind {
    /// The application.
    Marketing,
    /// Delivers for a marketing instance.
    MidSourcing,
    /// Execution instance of a Power Booster or Power Cluster platform.
    Execution,
}

/// Where a secret is. The secret itself is fetched when it is needed, by the controller, and only then.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// Asked at the terminal (`prompt:`).
    Prompt,
    /// An environment variable of the workstation (`env:NAME`).
    Env(String),
    /// A file of the workstation (`file:PATH`).
    File(String),
    /// What a program prints (`command:PROGRAM ARGS`).
    Command(String),
}

/// A change to one step of the runbook.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Override {
    /// Runs this instead.
    pub command: Option<SiteCommand>,
    /// Leaves the step out, for this reason. Its barrier then opens only if the step's probe says that the effect is there.
    pub skip: Option<String>,
    /// Extra steps before it.
    pub before: Vec<SiteStep>,
    /// Extra steps after it.
    pub after: Vec<SiteStep>,
}

/// A step that a site adds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteStep {
    /// Its name; unique in the plan of a host.
    pub name: String,
    /// What it runs.
    pub command: SiteCommand,
}

/// A command from the inventory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteCommand {
    /// Program and arguments. From `shell: true`: `["/bin/sh", "-c", TEXT]`.
    pub argv: Vec<String>,
    /// Whom it runs as (`root`, an account, `login`); as the step it changes when left out.
    pub run_as: Option<String>,
    /// Seconds it may take.
    pub deadline_s: Option<u64>,
}
