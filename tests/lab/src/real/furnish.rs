//! What makes a host of a realistic lab a Campaign server: accounts, an SSH server, the old packages, a site's configuration, a web server,
//! a database server. Scripts run on the host; what they need lies in the host's own directory of the lab until they are done.

use super::net::Network;
use super::packages::base_file;
use super::{NAME_FILE, RealHost, SHARED_DIR, WITNESS, database};
use crate::faults::FURNISHING;
use crate::furnish::{LOGIN, Secrets, package_path};
use crate::layout::{Family, Host, Layout, Platform};
use crate::package;
use crate::processes::wait_until;
use crate::spec::Role;
use crate::standins::{database_server, place, scratch_server, script};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The keys of a lab.
pub(crate) struct Keys {
    /// The public half of the key that logs in, as a line of `authorized_keys`.
    login: String,
    /// The private keys of the hosts.
    hosts: BTreeMap<String, String>,
}

fn key() -> io::Result<(String, String)> {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    Ok((private.to_string(), key.public_key().to_openssh().map_err(io::Error::other)?))
}

impl Keys {
    /// Draws all keys of a lab and writes those of its operator into `dir`.
    pub(crate) fn make(dir: &Path, layout: &Layout) -> io::Result<Self> {
        let (private, login) = key()?;
        crate::furnish::private_file(&dir.join("id_ed25519"), &private)?;
        fs::write(dir.join("id_ed25519.pub"), format!("{login} caravan-lab\n"))?;
        let mut known_hosts = String::new();
        let mut hosts = BTreeMap::new();
        for host in layout.hosts() {
            let (private, public) = key()?;
            known_hosts.push_str(&format!("{} {public}\n", host.address));
            hosts.insert(host.name.clone(), private);
        }
        fs::write(dir.join("known_hosts"), known_hosts)?;
        Ok(Self { login, hosts })
    }
}

/// Writes what all hosts of a lab share. They reach it as several accounts, so that everybody may write there.
pub(crate) fn shared(layout: &Layout, binary: &Path, secrets: &Secrets) -> io::Result<()> {
    let dir = &layout.dir;
    for shared in ["bin", "packages", "databases", "hosts"] {
        fs::create_dir_all(dir.join(shared))?;
    }
    for name in [super::INIT, WITNESS, "pg_dump", "pg_restore"] {
        place(binary, &dir.join("bin").join(name))?;
    }
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let mut files = vec![dir.join("records.jsonl"), dir.join("records.lock")];
    for instance in layout.platforms.iter().flat_map(|platform| &platform.instances) {
        files.push(dir.join("databases").join(format!("{}.lock", instance.name)));
    }
    for file in files {
        fs::write(&file, b"")?;
        open(&file, 0o666)?;
    }
    open(dir, 0o777)?;
    open(&dir.join("databases"), 0o777)?;
    fs::write(dir.join("db.pw"), &secrets.database_password)?;
    fs::write(dir.join("scratch.pw"), &secrets.scratch_password)?;
    fs::write(Layout::file(dir), serde_json::to_vec_pretty(layout)?)
}

/// What hosts are made from.
pub(crate) struct Seed<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) secrets: &'a Secrets,
    pub(crate) network: &'a Network,
    pub(crate) keys: &'a Keys,
    /// The password of the account that logs in, for `sudo`.
    pub(crate) password: &'a str,
}

impl Seed<'_> {
    /// Writes what a host is made of, before it is started.
    pub(crate) fn plant(&self, platform: &Platform, host: &Host) -> io::Result<()> {
        let own = self.layout.dir.join("hosts").join(&host.name);
        for dir in ["disk", "usr/local/neolane", "var/lib/lab/run", "seed"] {
            fs::create_dir_all(own.join(dir))?;
        }
        for dir in ["var/lib/lab", "var/lib/lab/run"] {
            fs::set_permissions(own.join(dir), fs::Permissions::from_mode(0o777))?;
        }
        fs::write(host.state().join(NAME_FILE), &host.name)?;
        fs::write(host.state().join(FURNISHING), b"")?;
        fs::write(host.state().join("packages.json"), b"[]")?;
        let dir = own.join("seed");
        let mut names = String::from("127.0.0.1 localhost\n");
        for platform in &self.layout.platforms {
            let database = database::server(platform)?.address;
            names.push_str(&format!("{database} {} {}\n", database_server(&platform.name), scratch_server(&platform.name)));
            platform.hosts.iter().for_each(|host| names.push_str(&format!("{} {}\n", host.address, host.name)));
        }
        let mut packages: Vec<PathBuf> = package::names(&host.source)
            .iter()
            .map(|name| package_path(self.layout, host.family(), &[name], host.source.build))
            .collect();
        if host.family() == Family::Rhel {
            packages.insert(0, base_file(self.layout));
        }
        let packages: Vec<String> =
            packages.iter().filter_map(|path| Some(format!("/{SHARED_DIR}/packages/{}", path.file_name()?.to_str()?))).collect();
        let family = match host.family() {
            Family::Debian => DEBIAN,
            Family::Rhel => RHEL,
        };
        let files = [
            ("hosts", names),
            ("authorized_keys", self.keys.login.clone()),
            ("host_key", self.keys.hosts.get(&host.name).cloned().unwrap_or_default()),
            ("password", format!("{LOGIN}:{}\n", self.password)),
            ("os-release", os_release(&host.os)),
            ("packages", packages.join("\n") + "\n"),
            ("family", family.to_owned()),
            ("httpd.init", HTTPD.to_owned()),
            ("tree", format!("/usr/local/neolane/{}\n", host.source.tree())),
            ("service", format!("{}\n", script(&host.source))),
            ("install", INSTALL.to_owned()),
            ("start", START.to_owned()),
        ];
        for (name, content) in files {
            fs::write(dir.join(name), content)?;
        }
        if host.is(Role::Tracking) {
            fs::write(dir.join("tracking"), host.family().web_service())?;
        }
        if database::server(platform)?.name == host.name {
            let sql = database::creation(self.layout, platform, self.secrets);
            fs::write(dir.join("database.sql"), sql)?;
            fs::write(dir.join("network"), self.network.cidr())?;
        }
        Ok(())
    }
}

/// What the agent reads about a host's system; nothing where it is this machine's own.
fn os_release(os: &str) -> String {
    if crate::layout::this_machine().as_deref() == Some(os) {
        return String::new();
    }
    let (id, version) = os.split_once('-').unwrap_or((os, ""));
    format!("ID={id}\nVERSION_ID=\"{version}\"\nNAME=\"{id}\"\nPRETTY_NAME=\"{id} {version}\"\n")
}

/// Makes a host a machine of its own, with the old version.
const INSTALL: &str = include_str!("../../real/install.sh");

/// Starts what runs on a host before anybody touches it.
const START: &str = include_str!("../../real/start.sh");

/// What differs between the families of systems.
const DEBIAN: &str = include_str!("../../real/debian.sh");
const RHEL: &str = include_str!("../../real/rhel.sh");

/// The service script of the RHEL family's web server.
const HTTPD: &str = include_str!("../../real/httpd.init");

/// Runs one of the scripts of a host on it.
fn run(host: &RealHost, script: &str) -> io::Result<()> {
    host.run("sh", &[&format!("/{SHARED_DIR}/hosts/{}/seed/{script}", host.name)]).map(|_| ())
}

/// Makes a host that was started a server with the old version, which does not run yet.
pub(crate) fn install(host: &RealHost) -> io::Result<()> {
    run(host, "install")
}

/// Writes the site's configuration.
pub(crate) fn configure(layout: &Layout, platform: &Platform, host: &Host, real: &RealHost, secrets: &Secrets) -> io::Result<()> {
    crate::furnish::configure(layout, platform, host, secrets)?;
    real.run("chown", &["-R", "neolane:neolane", "/usr/local/neolane"]).map(|_| ())
}

/// Starts what runs on a host, and waits for it.
pub(crate) fn start(host: &Host, real: &RealHost) -> io::Result<()> {
    run(real, "start")?;
    let mut expected = crate::conf::auto_start(host)?;
    expected.push("watchdog@default".to_owned());
    if host.is(Role::Tracking) {
        expected.push(host.family().web_service().to_owned());
    }
    for name in &expected {
        if !crate::standins::wait_for(host, name)? {
            return Err(io::Error::other(format!("{name} of {} did not come up", host.name)));
        }
    }
    // systemd calls a service started before its program listens.
    let listens = || TcpStream::connect_timeout(&SocketAddr::from((real.address, 22)), Duration::from_secs(1)).is_ok();
    if !wait_until(Duration::from_secs(60), listens) {
        return Err(io::Error::other(format!("the SSH server of {} did not come up", host.name)));
    }
    Ok(())
}

/// Does something with several hosts at once, twice as many as the machine has processors for; the first error.
pub(crate) fn in_parallel<T: Sync>(hosts: &[T], act: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    let at_once = std::thread::available_parallelism().map_or(2, usize::from) * 2;
    hosts.chunks(at_once).try_for_each(|some| {
        std::thread::scope(|scope| {
            let doing: Vec<_> = some.iter().map(|host| scope.spawn(|| act(host))).collect();
            let done = doing.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
            done.collect::<io::Result<()>>()
        })
    })
}
