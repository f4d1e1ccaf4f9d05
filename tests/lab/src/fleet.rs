//! The inventory of a lab. It sets variables only and overrides no step: the runbook under test is the one that ships.

use crate::furnish::{LOGIN, client_path, database_of, package_path};
use crate::layout::{Family, Host, Instance, Layout, Platform};
use crate::package;
use crate::spec::{Release, Role};
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// A YAML map with its keys in this order: people read the file.
fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// Writes `DIR/fleet.yaml`.
pub(crate) fn write(layout: &Layout, port: u16) -> io::Result<()> {
    let dir = &layout.dir;
    let ssh = map([
        ("user", LOGIN.into()),
        ("port", port.into()),
        ("identity", path(&dir.join("id_ed25519"))),
        ("known_hosts", path(&dir.join("known_hosts"))),
    ]);
    let target = map([
        ("version", layout.target.version.as_str().into()),
        ("build", layout.target.build.into()),
        ("packages", packages(layout, &layout.target)?),
    ]);
    let defaults = map([
        ("ssh", ssh),
        ("become", map([("method", "none".into())])),
        ("campaign", map([("home", path(&dir.join("hosts/{host}/usr/local/neolane"))), ("user", account().into())])),
        ("host_state", path(&dir.join("hosts/{host}/var/lib/caravan"))),
        ("target", target),
    ]);
    let platforms = layout.platforms.iter().map(|platform| platform_of(layout, platform)).collect::<io::Result<Vec<Value>>>()?;
    let inventory = map([("version", 1.into()), ("defaults", defaults), ("platforms", platforms.into())]);
    let text = serde_yaml::to_string(&inventory).map_err(io::Error::other)?;
    std::fs::write(dir.join("fleet.yaml"), format!("# Written by `lab`. Everything in it lives below this directory.\n{text}"))
}

/// The account that this process runs as: it owns all files of the lab, and steps run as it.
pub(crate) fn account() -> String {
    let id = rustix::process::geteuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| "neolane".to_owned())
}

fn packages(layout: &Layout, release: &Release) -> io::Result<Value> {
    let hosts = layout.hosts().filter(|host| host.source == *release || layout.target == *release);
    let systems: BTreeSet<&str> = hosts.map(|host| host.os.as_str()).collect();
    let packages = systems.into_iter().map(|os| {
        let path = package_path(layout, Family::of(os), release);
        let digest = package::sha256(&std::fs::read(&path)?);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(map([
            ("os", os.into()),
            ("path", format!("./packages/{file}").into()),
            ("sha256", digest.into()),
            ("names", package::names(release).to_vec().into()),
        ]))
    });
    Ok(packages.collect::<io::Result<Vec<Value>>>()?.into())
}

fn platform_of(layout: &Layout, platform: &Platform) -> io::Result<Value> {
    let instances: Vec<Value> = platform.instances.iter().map(|instance| instance_of(layout, platform, instance)).collect();
    let hosts: Vec<Value> = platform.hosts.iter().map(host_of).collect();
    let release = &platform.source;
    let source = map([
        // Of v7, the inventory names the version alone: which build it is, `latest_build` says.
        ("version", if release.is_v7() { "7".into() } else { release.version.as_str().into() }),
        ("latest_build", release.build.into()),
        ("packages", packages(layout, release)?),
    ]);
    let mut value = map([
        ("name", platform.name.as_str().into()),
        ("topology", platform.topology.as_str().into()),
        ("source", source),
        ("hosts", hosts.into()),
        ("instances", instances.into()),
    ]);
    if let (true, Value::Mapping(entries)) = (platform.client, &mut value) {
        let client = client_path(layout);
        let digest = package::sha256(&std::fs::read(&client)?);
        let file = client.file_name().unwrap_or_default().to_string_lossy();
        let client = map([("path", format!("./packages/{file}").into()), ("sha256", digest.into())]);
        entries.insert("target".into(), map([("client", client)]));
    }
    Ok(value)
}

fn instance_of(layout: &Layout, platform: &Platform, instance: &Instance) -> Value {
    let kind = match instance.of {
        Role::Marketing => "marketing",
        Role::MidSourcing => "mid-sourcing",
        _ => "execution",
    };
    let (server, user) = database_of(&platform.name);
    let backup = map([("on", instance.app.as_str().into()), ("dir", path(&layout.dir.join("hosts/{host}/backup")))]);
    let database = map([
        ("engine", "postgresql".into()),
        ("server", server.into()),
        ("name", instance.name.as_str().into()),
        ("user", user.into()),
        ("password", "file:./db.pw".into()),
        ("unicode", true.into()),
        ("backup", backup),
    ]);
    let mut value = map([
        ("name", instance.name.as_str().into()),
        ("kind", kind.into()),
        ("app", instance.app.as_str().into()),
        ("database", database),
    ]);
    if let (true, Value::Mapping(entries)) = (platform.source.is_v5(), &mut value) {
        entries.insert("timezone".into(), "Europe/Berlin".into());
    }
    value
}

fn host_of(host: &Host) -> Value {
    let roles: Vec<&str> = host.roles.iter().map(|role| role.as_str()).collect();
    let mut value = map([
        ("name", host.name.as_str().into()),
        ("address", host.address.to_string().into()),
        ("os", host.os.as_str().into()),
        ("init", "sysv".into()),
        ("init_scripts", path(&host.init_scripts())),
        ("roles", roles.into()),
    ]);
    if let Value::Mapping(entries) = &mut value {
        let url = format!("http://{}:{}{}", host.address, host.soap_port, crate::standins::soap::PATH);
        entries.insert("campaign".into(), map([("soap", url.into())]));
    }
    if let (true, Value::Mapping(entries)) = (host.openssh, &mut value) {
        // A real server lets in real accounts only.
        entries.insert("ssh".into(), map([("user", account().into())]));
    }
    if let (true, Value::Mapping(entries)) = (host.is(Role::Tracking), &mut value) {
        entries.insert("web_server".into(), "apache".into());
        entries.insert("web_address".into(), format!("{}:{}", host.address, host.web_port).into());
        entries.insert("web_config".into(), path(&host.web_config()));
    }
    value
}
