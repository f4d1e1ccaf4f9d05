//! The inventory of a lab. It sets variables only and overrides no step: the runbook under test is the one that ships.

use crate::furnish::{LOGIN, database_of, package_path};
use crate::layout::{Family, Host, Instance, Layout, Platform};
use crate::package;
use crate::spec::{Release, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;

/// Writes `DIR/fleet.yaml`.
pub(crate) fn write(layout: &Layout, port: u16) -> io::Result<()> {
    let dir = &layout.dir;
    let inventory = json!({
        "version": 1,
        "defaults": {
            "ssh": {
                "user": LOGIN,
                "port": port,
                "identity": dir.join("id_ed25519"),
                "known_hosts": dir.join("known_hosts"),
            },
            "become": { "method": "none" },
            "campaign": { "home": dir.join("hosts/{host}/usr/local/neolane"), "user": account() },
            "host_state": dir.join("hosts/{host}/var/lib/caravan"),
            "source": {
                "version": layout.source.version,
                "latest_build": layout.source.build,
                "packages": packages(layout, package::OLD, &layout.source)?,
            },
            "target": {
                "version": layout.target.version,
                "build": layout.target.build,
                "packages": packages(layout, package::NEW, &layout.target)?,
            },
        },
        "platforms": layout.platforms.iter().map(|platform| platform_of(layout, platform)).collect::<Vec<_>>(),
    });
    let text = serde_yaml::to_string(&inventory).map_err(io::Error::other)?;
    std::fs::write(dir.join("fleet.yaml"), format!("# Written by `lab`. Everything in it lives below this directory.\n{text}"))
}

/// The account that this process runs as: it owns all files of the lab, and steps run as it.
fn account() -> String {
    let id = rustix::process::geteuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| "neolane".to_owned())
}

fn packages(layout: &Layout, names: &[&str], release: &Release) -> io::Result<Vec<Value>> {
    let systems: BTreeSet<&str> = layout.hosts().map(|host| host.os.as_str()).collect();
    let packages = systems.into_iter().map(|os| {
        let path = package_path(layout, Family::of(os), names, release.build);
        let digest = package::sha256(&std::fs::read(&path)?);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(json!({ "os": os, "path": format!("./packages/{file}"), "sha256": digest, "names": names }))
    });
    packages.collect()
}

fn platform_of(layout: &Layout, platform: &Platform) -> Value {
    let mut value = json!({
        "name": platform.name,
        "topology": platform.topology.as_str(),
        "instances": platform.instances.iter().map(|instance| instance_of(layout, platform, instance)).collect::<Vec<_>>(),
        "hosts": platform.hosts.iter().map(host_of).collect::<Vec<_>>(),
    });
    if let Some(first) = platform.instances.first() {
        value["database"] = database(layout, platform, first);
    }
    value
}

fn instance_of(layout: &Layout, platform: &Platform, instance: &Instance) -> Value {
    let kind = match instance.of {
        Role::Marketing => "marketing",
        Role::MidSourcing => "mid-sourcing",
        _ => "execution",
    };
    json!({ "name": instance.name, "kind": kind, "app": instance.app, "database": database(layout, platform, instance) })
}

fn database(layout: &Layout, platform: &Platform, instance: &Instance) -> Value {
    let (server, user) = database_of(&platform.name);
    json!({
        "engine": "postgresql",
        "server": server,
        "name": instance.name,
        "user": user,
        "password": "file:./db.pw",
        "unicode": true,
        "backup": { "on": instance.app, "dir": layout.dir.join("hosts/{host}/backup") },
    })
}

fn host_of(host: &Host) -> Value {
    let mut value = json!({
        "name": host.name,
        "address": host.address,
        "os": host.os,
        "init": "sysv",
        "init_scripts": host.init_scripts(),
        "roles": host.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
    });
    if host.is(Role::Tracking) {
        value["web_server"] = json!("apache");
        value["web_address"] = json!(format!("{}:{}", host.address, host.web_port));
    }
    value
}
