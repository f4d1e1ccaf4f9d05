//! The inventory of a lab. It sets variables only and overrides no step: the runbook under test is the one that ships.

use crate::furnish::{LOGIN, client_path, database_of, package_path, scratch_of};
use crate::layout::{Family, Host, Instance, Layout, Platform};
use crate::package;
use crate::spec::{Release, Role};
use serde_yaml::Value;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// A YAML map with its keys in this order: people read the file.
fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// Writes `DIR/fleet.yaml`, for hosts whose SSH servers all listen on this port.
pub(crate) fn write(layout: &Layout, dir: &Path, port: u16) -> io::Result<()> {
    let ssh = map([
        ("user", LOGIN.into()),
        ("port", port.into()),
        ("identity", path(&dir.join("id_ed25519"))),
        ("known_hosts", path(&dir.join("known_hosts"))),
        // What the account that runs the lab has in its own ssh_config has nothing to do with it.
        ("config", "none".into()),
    ]);
    let target = map([
        ("version", layout.target.version.as_str().into()),
        ("build", layout.target.build.into()),
        ("packages", packages(layout, dir, &layout.target)?),
    ]);
    let defaults = if layout.real {
        // Everything else is where the product expects it.
        let sudo = map([("method", "sudo".into()), ("password", "file:./ops.pw".into())]);
        map([("ssh", ssh), ("become", sudo), ("target", target)])
    } else {
        map([
            ("ssh", ssh),
            ("become", map([("method", "none".into())])),
            ("campaign", map([("home", path(&dir.join("hosts/{host}/usr/local/neolane"))), ("user", account().into())])),
            ("host_state", path(&dir.join("hosts/{host}/var/lib/caravan"))),
            ("target", target),
        ])
    };
    let platforms =
        layout.platforms.iter().map(|platform| platform_of(layout, dir, platform)).collect::<io::Result<Vec<Value>>>()?;
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

fn packages(layout: &Layout, dir: &Path, release: &Release) -> io::Result<Value> {
    let hosts = layout.hosts().filter(|host| host.source == *release || layout.target == *release);
    let systems: BTreeSet<&str> = hosts.map(|host| host.os.as_str()).collect();
    let names = package::names(release);
    // A real package file holds one package.
    let files = |os| names.chunks(if layout.real { 1 } else { names.len() }).map(move |names| (os, names));
    let packages = systems.into_iter().flat_map(files).map(|(os, names): (&str, &[&str])| {
        let path = package_path(layout, Family::of(os), names, release.build);
        let digest = package::sha256(&std::fs::read(&path)?);
        let file = path.strip_prefix(dir).unwrap_or(&path).display();
        Ok(map([
            ("os", os.into()),
            ("path", format!("./{file}").into()),
            ("sha256", digest.into()),
            ("names", names.to_vec().into()),
        ]))
    });
    Ok(packages.collect::<io::Result<Vec<Value>>>()?.into())
}

fn platform_of(layout: &Layout, dir: &Path, platform: &Platform) -> io::Result<Value> {
    let instances: Vec<Value> = platform.instances.iter().map(|instance| instance_of(layout, platform, instance)).collect();
    let hosts: Vec<Value> = platform.hosts.iter().map(|host| host_of(layout, host)).collect();
    let release = &platform.source;
    let source = map([
        // Of v7, the inventory names the version alone: which build it is, `latest_build` says.
        ("version", if release.is_v7() { "7".into() } else { release.version.as_str().into() }),
        ("latest_build", release.build.into()),
        ("packages", packages(layout, dir, release)?),
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
        let file = client.strip_prefix(dir).unwrap_or(&client).display();
        let client = map([("path", format!("./{file}").into()), ("sha256", digest.into())]);
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
    let dir = if layout.real { PathBuf::from("/var/backups/campaign") } else { layout.dir.join("hosts/{host}/backup") };
    let mut backup = map([("on", instance.app.as_str().into()), ("dir", path(&dir))]);
    if let (true, Value::Mapping(entries)) = (platform.scratch, &mut backup) {
        let (server, name, user) = scratch_of(&platform.name, &instance.name);
        let password = "file:./scratch.pw".into();
        let scratch = map([("server", server.into()), ("name", name.into()), ("user", user.into()), ("password", password)]);
        entries.insert("scratch".into(), scratch);
    }
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

fn host_of(layout: &Layout, host: &Host) -> Value {
    let roles: Vec<&str> = host.roles.iter().map(|role| role.as_str()).collect();
    let mut value = map([
        ("name", host.name.as_str().into()),
        ("address", host.address.to_string().into()),
        ("os", host.os.as_str().into()),
        ("init", if host.systemd { "systemd" } else { "sysv" }.into()),
        ("init_scripts", if layout.real { "/etc/init.d".into() } else { path(&host.init_scripts()) }),
        ("roles", roles.into()),
    ]);
    if let (false, Value::Mapping(entries)) = (layout.real, &mut value) {
        let url = format!("http://{}:{}{}", host.address, host.soap_port, crate::standins::soap::PATH);
        entries.insert("campaign".into(), map([("soap", url.into())]));
    }
    if let (true, Value::Mapping(entries)) = (host.openssh, &mut value) {
        // A real server lets in real accounts only.
        entries.insert("ssh".into(), map([("user", account().into())]));
    }
    if let (true, Value::Mapping(entries)) = (host.is(Role::Tracking), &mut value) {
        entries.insert("web_server".into(), "apache".into());
        let address = if layout.real { "localhost:80".to_owned() } else { format!("{}:{}", host.address, host.web_port) };
        entries.insert("web_address".into(), address.into());
        if !layout.real {
            entries.insert("web_config".into(), path(&host.web_config()));
        }
    }
    value
}
