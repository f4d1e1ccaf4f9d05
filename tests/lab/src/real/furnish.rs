//! What makes a host of a realistic lab a Campaign server: accounts, an SSH server, the old packages, a site's configuration, a web server,
//! a database server. Scripts run on the host; what they need lies in the host's own directory of the lab until they are done.

use super::net::Network;
use super::{NAME_FILE, RealHost, SHARED_DIR, WITNESS, database};
use crate::faults::FURNISHING;
use crate::furnish::{LOGIN, Secrets, package_path};
use crate::layout::{Family, Host, Layout, Platform};
use crate::package;
use crate::spec::Role;
use crate::standins::{place, script};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
            names.push_str(&format!("{database} {}\n", crate::standins::database_server(&platform.name)));
            platform.hosts.iter().for_each(|host| names.push_str(&format!("{} {}\n", host.address, host.name)));
        }
        let packages = package::names(&host.source).iter();
        let debs = packages.map(|name| package_path(self.layout, Family::Debian, &[name], host.source.build));
        let debs: Vec<String> =
            debs.filter_map(|path| Some(format!("/{SHARED_DIR}/packages/{}", path.file_name()?.to_string_lossy()))).collect();
        let files = [
            ("hosts", names),
            ("authorized_keys", self.keys.login.clone()),
            ("host_key", self.keys.hosts.get(&host.name).cloned().unwrap_or_default()),
            ("password", format!("{LOGIN}:{}\n", self.password)),
            ("os-release", os_release(&host.os)),
            ("debs", debs.join("\n") + "\n"),
            ("tree", format!("/usr/local/neolane/{}\n", host.source.tree())),
            ("service", format!("{}\n", script(&host.source))),
            ("install", INSTALL.to_owned()),
            ("start", START.to_owned()),
        ];
        for (name, content) in files {
            fs::write(dir.join(name), content)?;
        }
        if host.is(Role::Tracking) {
            fs::write(dir.join("tracking"), b"")?;
        }
        if database::server(platform)?.name == host.name {
            let sql = database::creation(self.layout, platform, &self.secrets.database_password);
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

/// Makes a machine out of a copy of this one, and installs the old version as its operators did.
const INSTALL: &str = r#"set -e
cd "$(dirname "$0")"
host=$(cat /var/lib/lab/name)
hostname "$host"
echo "$host" >/etc/hostname
cp hosts /etc/hosts
[ ! -s os-release ] || { rm -f /etc/os-release; cp os-release /etc/os-release; }
# Nothing of the machine that this is a copy of: no keys, no other accounts' rights.
rm -f /etc/ssh/ssh_host_* /etc/ssh/sshd_config.d/* /etc/sudoers.d/*
getent passwd ops >/dev/null || useradd --create-home --shell /bin/bash ops
chpasswd <password
install -d -o ops -g ops -m 700 /home/ops /home/ops/.ssh
install -o ops -g ops -m 600 authorized_keys /home/ops/.ssh/authorized_keys
printf 'root ALL=(ALL:ALL) ALL\nops ALL=(ALL:ALL) ALL\n' >/etc/sudoers
chmod 440 /etc/sudoers
install -m 600 host_key /etc/ssh/ssh_host_ed25519_key
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UsePAM yes' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' \
    'PrintMotd no' 'AcceptEnv LANG LC_*' 'Subsystem sftp /usr/lib/openssh/sftp-server' >/etc/ssh/sshd_config
mkdir -p /run/sshd /var/backups/campaign
# Wrappers that note what the real programs do.
ln -s /run/lab/bin/pg_dump /run/lab/bin/pg_restore /usr/local/bin/
dpkg --force-unsafe-io -i $(cat debs)
if [ -e tracking ]; then
    rm -f /etc/apache2/sites-enabled/*
    echo "ServerName $host" >/etc/apache2/conf-enabled/lab.conf
    tree=$(cat tree)
    cd /etc/apache2
    echo ". $tree/env.sh" >>envvars
    echo "LoadModule requesthandler24_module $tree/lib/libnlsrvmod.so" >mods-available/nlsrv.load
    echo "Alias /nl $tree/web/" >>mods-available/alias.conf
    ln -s "$tree/conf/apache_neolane.conf" mods-available/nlsrv.conf
    ln -s ../mods-available/nlsrv.load ../mods-available/nlsrv.conf mods-enabled/
    cd "$OLDPWD"
fi
if [ -e database.sql ]; then
    rm -rf /etc/postgresql/* /var/lib/postgresql/* /var/log/postgresql/*
    install -d -o postgres -g postgres -m 2775 /run/postgresql
    version=$(ls /usr/lib/postgresql | sort -n | tail -1)
    pg_createcluster "$version" campaign --port 5432 --start-conf manual --locale C.UTF-8 -- --auth-host=scram-sha-256 --no-sync
    conf=/etc/postgresql/$version/campaign
    echo "host all all $(cat network) scram-sha-256" >>$conf/pg_hba.conf
    printf "listen_addresses = '*'\nfsync = off\nshared_buffers = 16MB\n" >>$conf/postgresql.conf
    pg_ctlcluster "$version" campaign start
    su postgres -c 'psql -X -q -v ON_ERROR_STOP=1 -d postgres' <database.sql
fi
if [ -d /run/systemd/system ]; then systemctl start ssh; else /usr/sbin/sshd; fi
"#;

/// Starts what runs on a host before anybody touches it.
const START: &str = r#"set -e
service=$(cat "$(dirname "$0")/service")
rm -r "$(dirname "$0")"
start() { if [ -d /run/systemd/system ]; then systemctl start "$1"; else "/etc/init.d/$1" start; fi; }
start "$service"
[ ! -e /etc/apache2/mods-enabled/nlsrv.load ] || start apache2
"#;

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
