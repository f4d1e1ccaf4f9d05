//! What a lab is asked to be: platforms, hosts per role, faults. Read strictly, so that a mistyped fault is never a test that
//! passes because nothing was wrong.

mod faults;

pub use faults::{Cut, Failing, Faults, Loss, STEPS, Slow, SlowLink, seconds};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A fleet to build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What is installed at first.
    #[serde(default = "Release::source")]
    pub source: Release,
    /// What the migration installs.
    #[serde(default = "Release::target")]
    pub target: Release,
    /// The platforms.
    pub platforms: Vec<PlatformSpec>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Faults,
}

/// A version with its build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// `5.11`, `6.02`, `6.1`, `7.4.1`.
    pub version: String,
    /// The build number.
    pub build: u32,
}

impl Release {
    /// The last build of v6.1.
    pub fn source() -> Self {
        Self { version: "6.1".into(), build: 8989 }
    }

    /// A v7 build.
    pub fn target() -> Self {
        Self { version: "7.4.1".into(), build: 9383 }
    }

    /// Whether it is v5, which lives in `nl5`.
    pub fn is_v5(&self) -> bool {
        self.version.starts_with("5.")
    }

    /// Whether it is a build of v7.
    pub fn is_v7(&self) -> bool {
        self.version.starts_with("7.")
    }

    /// The directory of its installation.
    pub fn tree(&self) -> &'static str {
        if self.is_v5() { "nl5" } else { "nl6" }
    }

    /// The version as package managers print it; the build number is a part of it.
    pub fn package_version(&self) -> String {
        format!("{}-{}", self.version, self.build)
    }
}

/// One platform to build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformSpec {
    /// Its name; host names and instance names are made from it.
    pub name: String,
    /// How its servers are arranged.
    pub topology: Topology,
    /// The OS that its packages are for (`debian-12`, `rhel-9`); this machine's own when left out, since the agent reads the
    /// real `/etc/os-release`.
    #[serde(default)]
    pub os: Option<String>,
    /// Hosts per role: how many, or their names. A name that stands in two roles is one host with both.
    #[serde(default)]
    pub hosts: BTreeMap<Role, HostsSpec>,
    /// Further roles of hosts.
    #[serde(default)]
    pub also: BTreeMap<String, Vec<Role>>,
    /// Modules that the configuration of a host's instances keeps from starting (`{emea-mta1: [inMail]}`), as sites do.
    #[serde(default)]
    pub disabled: BTreeMap<String, Vec<String>>,
    /// Instances that a mail or tracking server does not carry (`{emea-mta2: [emea_2]}`).
    #[serde(default)]
    pub without: BTreeMap<String, Vec<String>>,
    /// Hosts whose connections a real OpenSSH server answers.
    #[serde(default)]
    pub openssh: Vec<String>,
    /// What is installed on its hosts at first; what the whole fleet begins with when left out.
    #[serde(default)]
    pub source: Option<Release>,
    /// Whether the target has a setup of the client console.
    #[serde(default)]
    pub client: bool,
    /// Whether a salt is stored with each `internal` password, so that equal ones are stored in different ways.
    #[serde(default)]
    pub salted: bool,
    /// Whether every server runs the `web` module, mail and tracking servers too.
    #[serde(default)]
    pub web: bool,
    /// Hosts on which systemd runs (realistic hosts only); logind ends there what a session leaves behind.
    #[serde(default)]
    pub systemd: Vec<String>,
    /// Whether the inventory names a scratch database for each instance, which its dump is restored into.
    #[serde(default)]
    pub scratch: bool,
    /// How many instances the marketing server carries.
    #[serde(default = "one")]
    pub instances: usize,
}

fn one() -> usize {
    1
}

/// How many hosts, or which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HostsSpec {
    /// So many, with names made from platform and role.
    Count(usize),
    /// These.
    Names(Vec<String>),
}

/// How a platform's servers are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// One machine.
    Standalone,
    /// Marketing, mail and tracking servers.
    Standard,
    /// As standard, with execution servers at the vendor.
    CloudMessaging,
    /// One execution server.
    PowerBooster,
    /// Several execution servers.
    PowerCluster,
}

impl Topology {
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

    fn has(self, role: Role) -> bool {
        match role {
            Role::PowerBooster => self == Self::PowerBooster,
            Role::PowerCluster => self == Self::PowerCluster,
            _ => true,
        }
    }
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Application server.
    Marketing,
    /// Delivers for a marketing instance, with a database of its own.
    MidSourcing,
    /// Mail server.
    Mta,
    /// Redirection and tracking server.
    Tracking,
    /// Execution server of a Power Booster platform.
    PowerBooster,
    /// Execution server of a Power Cluster platform.
    PowerCluster,
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
        }
    }

    /// The role as a part of host names.
    fn short(self) -> &'static str {
        match self {
            Self::Marketing => "mkt",
            Self::MidSourcing => "mid",
            Self::Mta => "mta",
            Self::Tracking => "trk",
            Self::PowerBooster => "pb",
            Self::PowerCluster => "pc",
        }
    }
}

/// A host of a lab, as the spec resolves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecHost {
    /// Its name.
    pub(crate) name: String,
    /// Its roles.
    pub(crate) roles: Vec<Role>,
}

impl Spec {
    /// Reads a spec.
    ///
    /// # Errors
    /// A text that names the place in the file or the name that is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spec: Self = serde_yaml::from_str(text).map_err(|error| format!("the lab's spec cannot be read: {error}"))?;
        spec.validate()?;
        Ok(spec)
    }

    /// A small fleet with one platform of every topology.
    ///
    /// # Panics
    /// Never: the text is part of the program, and a test reads it.
    pub fn every_topology() -> Self {
        Self::parse(include_str!("../every-topology.yaml")).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// One platform, for tests.
    pub fn one(name: &str, topology: Topology, hosts: &[(Role, usize)]) -> Self {
        Self {
            source: Release::source(),
            target: Release::target(),
            platforms: vec![PlatformSpec {
                name: name.to_owned(),
                topology,
                os: None,
                hosts: hosts.iter().map(|(role, count)| (*role, HostsSpec::Count(*count))).collect(),
                also: BTreeMap::new(),
                disabled: BTreeMap::new(),
                without: BTreeMap::new(),
                openssh: Vec::new(),
                source: None,
                client: false,
                salted: false,
                web: false,
                systemd: Vec::new(),
                scratch: false,
                instances: 1,
            }],
            faults: Faults::default(),
        }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first thing that is wrong, and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        let mut known = BTreeSet::new();
        let mut platforms = BTreeSet::new();
        if self.platforms.is_empty() {
            return Err("the spec has no platform: write at least one under `platforms`".into());
        }
        for platform in &self.platforms {
            let source = platform.source.as_ref().unwrap_or(&self.source);
            if !["5.11", "6.02", "6.1"].contains(&source.version.as_str()) && !source.is_v7() {
                return Err(format!("source version `{}`: the stand-ins know 5.11, 6.02, 6.1 and 7.X", source.version));
            }
            if source.is_v7() && source.build >= self.target.build {
                return Err(format!("source build {}: an upgrade leads to a later build than {}", source.build, self.target.build));
            }
            if !is_name(&platform.name) || !platforms.insert(&platform.name) {
                return Err(format!("platform name `{}` is used twice or is not a name ([A-Za-z0-9._-])", platform.name));
            }
            for host in platform.resolve()? {
                if !known.insert(host.name.clone()) {
                    return Err(format!("host `{}` is in two platforms", host.name));
                }
            }
        }
        self.faults.validate(&known)
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl PlatformSpec {
    /// The names of its hosts; none where the spec is wrong.
    pub fn host_names(&self) -> Vec<String> {
        self.resolve().unwrap_or_default().into_iter().map(|host| host.name).collect()
    }

    /// The platform's hosts with all their roles, in the order of roles.
    pub(crate) fn resolve(&self) -> Result<Vec<SpecHost>, String> {
        let mut hosts: Vec<SpecHost> = Vec::new();
        let at = |what: String| format!("platform `{}`: {what}", self.name);
        for (role, wanted) in &self.hosts {
            if !self.topology.has(*role) {
                return Err(at(format!("a {} platform has no {} servers", self.topology.as_str(), role.as_str())));
            }
            let names = match wanted {
                HostsSpec::Count(count) => (1..=*count).map(|n| format!("{}-{}{n}", self.name, role.short())).collect(),
                HostsSpec::Names(names) => names.clone(),
            };
            for name in names {
                if !is_name(&name) {
                    return Err(at(format!("`{name}` is not a host name ([A-Za-z0-9._-])")));
                }
                match hosts.iter_mut().find(|host| host.name == name) {
                    Some(host) => host.roles.push(*role),
                    None => hosts.push(SpecHost { name, roles: vec![*role] }),
                }
            }
        }
        for (name, roles) in &self.also {
            let Some(host) = hosts.iter_mut().find(|host| host.name == *name) else {
                return Err(at(format!("`also` names the host `{name}`, which does not exist")));
            };
            for role in roles {
                if !self.topology.has(*role) {
                    return Err(at(format!("a {} platform has no {} servers", self.topology.as_str(), role.as_str())));
                }
                if !host.roles.contains(role) {
                    host.roles.push(*role);
                }
            }
        }
        let named = self.disabled.keys().map(|name| ("disabled", name)).chain(self.without.keys().map(|name| ("without", name)));
        for (key, name) in
            named.chain(self.openssh.iter().map(|name| ("openssh", name))).chain(self.systemd.iter().map(|name| ("systemd", name)))
        {
            if !hosts.iter().any(|host| host.name == *name) {
                return Err(at(format!("`{key}` names the host `{name}`, which does not exist")));
            }
        }
        for modules in self.disabled.values() {
            let known = crate::conf::INSTANCE_MODULES;
            if let Some(module) = modules.iter().find(|module| !known.contains(&module.as_str())) {
                return Err(at(format!("`disabled` names `{module}`; there are: {}", known.join(", "))));
            }
        }
        let count = |role: Role| hosts.iter().filter(|host| host.roles.contains(&role)).count();
        let wrong = match self.topology {
            Topology::Standalone if hosts.len() != 1 => Some("a standalone platform is exactly one host"),
            _ if count(Role::Marketing) == 0 => Some("at least one marketing server is needed"),
            Topology::PowerBooster if count(Role::PowerBooster) != 1 => Some("exactly one power-booster server is needed"),
            Topology::PowerCluster if count(Role::PowerCluster) < 2 => Some("two or more power-cluster servers are needed"),
            _ if self.instances == 0 => Some("`instances` is at least 1"),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(at(wrong.to_owned())),
            None => Ok(hosts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Spec::parse(text).unwrap_err()
    }

    #[test]
    fn the_built_in_fleet_has_every_topology() {
        let spec = Spec::every_topology();
        assert_eq!(spec.platforms.len(), 5);
        let standard = spec.platforms.iter().find(|p| p.topology == Topology::Standard).unwrap().resolve().unwrap();
        assert!(standard.iter().any(|host| host.roles.contains(&Role::Mta) && host.roles.contains(&Role::Tracking)));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error("platforms: []").contains("no platform"));
        assert!(error("platforms: [{name: a, topology: star, hosts: {}}]").contains("star"));
        assert!(error("platforms: [{name: a, topology: standard, hosts: {marketing: 1}, colour: red}]").contains("colour"));
        assert!(error("platforms: [{name: a, topology: standard, hosts: {mta: 1}}]").contains("marketing server is needed"));
        assert!(
            error("platforms: [{name: a, topology: standard, hosts: {marketing: 1, power-cluster: 2}}]")
                .contains("no power-cluster")
        );
        assert!(
            error("platforms: [{name: a, topology: power-cluster, hosts: {marketing: 1, power-cluster: 1}}]")
                .contains("two or more")
        );
        let host = "platforms: [{name: a, topology: standalone, hosts: {marketing: [m]}}]\nfaults: ";
        assert!(error(&format!("{host}{{unreachable: [x]}}")).contains("`x`, which does not exist; there are: m"));
        assert!(error(&format!("{host}{{fail: [{{host: m, step: instal}}]}}")).contains("`instal`; there are: stop, dump"));
        assert!(error(&format!("{host}{{slow: [{{host: m, what: install, seconds: -1}}]}}")).contains("between 0 and 3600"));
        assert!(Spec::parse(&format!("{host}{{fail: [{{host: m, step: 'module:mta@a', times: 1}}]}}")).is_ok());
        assert!(error(&format!("{host}{{loss: [{{host: x, percent: 3}}]}}")).contains("`x`, which does not exist"));
        assert!(error(&format!("{host}{{loss: [{{host: m, percent: 101}}]}}")).contains("100 is all of them"));
        assert!(error(&format!("{host}{{slow_links: [{{host: m, rate: fast}}]}}")).contains("write it as `256kbit`"));
        assert!(Spec::parse(&format!("{host}{{loss: [{{host: m, percent: 3}}], slow_links: [{{host: m, rate: 2mbit}}]}}")).is_ok());
        let platform = "platforms: [{name: a, topology: standalone, hosts: {marketing: [m]}, disabled: ";
        assert!(error(&format!("{platform}{{x: [mta]}}}}]")).contains("`x`, which does not exist"));
        assert!(error(&format!("{platform}{{m: [inmail]}}}}]")).contains("`inmail`; there are: mta, wfserver, inMail"));
    }

    #[test]
    fn a_name_in_two_roles_is_one_host() {
        let spec =
            Spec::parse("platforms: [{name: a, topology: standard, hosts: {marketing: [m], mta: [f], tracking: [f]}}]").unwrap();
        let hosts = spec.platforms[0].resolve().unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[1].roles, [Role::Mta, Role::Tracking]);
    }
}
