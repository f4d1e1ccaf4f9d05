//! What is known of each host before it was asked: family, init system, packages. Preflight proves it.

use super::error::PlanError;
use super::fold;
use super::runbook::Family;
use inventory::{Host, InitSystem, Package, Platform};
use std::collections::BTreeMap;

/// A host with everything a plan needs to know of it.
#[derive(Debug, Clone)]
pub(super) struct Site<'a> {
    pub(super) host: &'a Host,
    pub(super) family: Family,
    pub(super) init: InitSystem,
    pub(super) target: Vec<&'a Package>,
    pub(super) old: Vec<&'a Package>,
    /// The setup program of the client console.
    pub(super) client: Option<&'a Package>,
}

/// Messages that are the same but for the host, with their hosts, so that each is said once.
#[derive(Debug, Default)]
struct ByHost(BTreeMap<String, Vec<String>>);

impl ByHost {
    fn add(&mut self, what: impl Into<String>, host: &Host) {
        self.0.entry(what.into()).or_default().push(host.name.clone());
    }
}

/// Settles what a plan has to know of every host of a platform. Adds to `errors` and `warnings` what cannot be known and what was
/// assumed.
pub(super) fn settle<'a>(platform: &'a Platform, errors: &mut Vec<PlanError>, warnings: &mut Vec<String>) -> Vec<Site<'a>> {
    let name = || platform.name.clone();
    let mut sites = Vec::new();
    let (mut assumed_os, mut assumed_init) = (ByHost::default(), ByHost::default());
    let (mut unclear, mut foreign, mut bare) = (ByHost::default(), ByHost::default(), ByHost::default());
    for host in &platform.hosts {
        if host.is_windows() || !host.has_campaign() {
            // Nothing is installed there by us: neither family nor init system decides anything.
            let family = if host.is_windows() { Family::Windows } else { Family::Debian };
            sites.push(Site { host, family, init: InitSystem::Systemd, target: Vec::new(), old: Vec::new(), client: None });
            continue;
        }
        let os = match &host.os {
            Some(os) => os.clone(),
            None => match package_systems(host).as_slice() {
                [only] => {
                    assumed_os.add(only.clone(), host);
                    only.clone()
                }
                [] => {
                    unclear.add("no package", host);
                    continue;
                }
                several => {
                    unclear.add(format!("packages for {}", several.join(", ")), host);
                    continue;
                }
            },
        };
        let Some(family) = family(&os) else {
            foreign.add(os, host);
            continue;
        };
        let target: Vec<&Package> = host.target.packages.iter().filter(|package| package.os == os).collect();
        if target.is_empty() {
            bare.add(os, host);
            continue;
        }
        let init = host.init.unwrap_or_else(|| {
            let init = usual_init(&os, family);
            assumed_init.add(format!("{} from {os}", if init == InitSystem::Systemd { "systemd" } else { "init scripts" }), host);
            init
        });
        let old = host.source.packages.iter().filter(|package| package.os == os).collect();
        sites.push(Site { host, family, init, target, old, client: host.target.client.as_ref() });
    }
    for (seen, hosts) in unclear.0 {
        errors.push(PlanError::OsUnknown { platform: name(), hosts: fold(&hosts), seen });
    }
    for (os, hosts) in foreign.0 {
        errors.push(PlanError::OsFamily { platform: name(), hosts: fold(&hosts), os });
    }
    for (os, hosts) in bare.0 {
        let build = platform.host(hosts.first().map_or("", String::as_str)).map_or(0, |host| host.target.build);
        errors.push(PlanError::NoPackage { platform: name(), hosts: fold(&hosts), os, build });
    }
    for (os, hosts) in assumed_os.0 {
        warnings.push(format!(
            "{}: {}: the OS is not in the inventory; taken from the packages: {os}. Preflight proves it.",
            platform.name,
            fold(&hosts)
        ));
    }
    for (init, hosts) in assumed_init.0 {
        warnings.push(format!(
            "{}: {}: the init system is not in the inventory; assumed {init}. Preflight proves it.",
            platform.name,
            fold(&hosts)
        ));
    }
    sites
}

/// The systems that a host's packages are for, each once.
fn package_systems(host: &Host) -> Vec<String> {
    let mut systems: Vec<String> = host.target.packages.iter().map(|package| package.os.clone()).collect();
    systems.retain(|os| os != "windows" && !os.starts_with("windows-"));
    systems.sort();
    systems.dedup();
    systems
}

/// The family of an `ID-VERSION` as /etc/os-release gives it.
fn family(os: &str) -> Option<Family> {
    match os.split('-').next().unwrap_or(os) {
        "debian" | "ubuntu" => Some(Family::Debian),
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "oracle" | "fedora" => Some(Family::Rhel),
        _ => None,
    }
}

/// The init system that an OS comes with: systemd since Debian 8, Ubuntu 15 and RHEL 7.
fn usual_init(os: &str, family: Family) -> InitSystem {
    let version = os.split(['-', '.']).nth(1).and_then(|version| version.parse::<u32>().ok());
    let first_with_systemd = match family {
        _ if os.starts_with("ubuntu") => 15,
        Family::Debian => 8,
        _ => 7,
    };
    match version {
        Some(version) if version < first_with_systemd => InitSystem::Sysv,
        _ => InitSystem::Systemd,
    }
}
