//! Builds a lab's directory: hosts with an old installation that runs, packages, keys, secrets.

use crate::conf;
use crate::layout::{Family, Host, Instance, Layout, Platform, this_machine};
use crate::openssh;
use crate::package;
use crate::spec::{PlatformSpec, Role, Spec};
use crate::standins::{self, Unpack, database_server, place, scratch_name, scratch_server, stored, unpack};
use crate::state::{self, Database, Package};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The account that the lab's SSH servers know.
pub(crate) const LOGIN: &str = "ops";

/// The database account of every instance.
pub(crate) const DATABASE_USER: &str = "neolane";

/// The account of every scratch database.
pub(crate) const SCRATCH_USER: &str = "tester";

/// Values that must turn up nowhere but where they belong: canaries for tests.
#[derive(Clone)]
pub struct Secrets {
    /// The `internal` password that the operators typed.
    pub internal_password: String,
    /// How it is stored in each `serverConf.xml`.
    pub internal_stored: String,
    /// The tracking password in each `serverConf.xml`.
    pub tracking_password: String,
    /// The password of all databases, which `db.pw` holds for the inventory.
    pub database_password: String,
    /// The password of all scratch databases, which `scratch.pw` holds for the inventory.
    pub scratch_password: String,
}

impl Secrets {
    /// New ones.
    pub(crate) fn draw() -> io::Result<Self> {
        let internal_password = format!("Int-{}", random(9)?);
        Ok(Self {
            internal_stored: stored(&internal_password, ""),
            internal_password,
            tracking_password: format!("Trk-{}", random(9)?),
            database_password: format!("Db-{}", random(9)?),
            scratch_password: format!("Scr-{}", random(9)?),
        })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(***)")
    }
}

pub(crate) fn random(words: usize) -> io::Result<String> {
    let mut bytes = vec![0; words];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a lab is made of once it is furnished.
pub(crate) struct Furnished {
    pub(crate) layout: Layout,
    pub(crate) secrets: Secrets,
    /// The public half of the key that logs in.
    pub(crate) login: russh::keys::PublicKey,
    /// A listening socket and a host key for each host, in the order of the hosts.
    pub(crate) doors: Vec<(TcpListener, PrivateKey)>,
    /// The port of all SSH servers.
    pub(crate) port: u16,
}

/// Builds everything in `dir`, which must be empty or absent.
pub(crate) fn furnish(spec: &Spec, dir: &Path, binary: &Path) -> io::Result<Furnished> {
    fs::create_dir_all(dir)?;
    if fs::read_dir(dir)?.next().is_some() {
        return Err(io::Error::other(format!("{} is not empty: a lab is built in a directory of its own", dir.display())));
    }
    // Executables are recognised by their path, which the kernel gives without links.
    let dir = fs::canonicalize(dir)?;
    let count = spec.platforms.iter().map(|platform| platform.resolve().map(|hosts| hosts.len())).sum::<Result<usize, _>>();
    let (listeners, port) = listen(count.map_err(io::Error::other)?)?;
    if let Some(problem) = only_realistic(spec) {
        return Err(io::Error::other(format!("{problem}: that is for realistic hosts only (`lab up --real`)")));
    }
    let mut addresses = listeners.iter();
    let layout = lay_out(spec, &dir, || match addresses.next().map(TcpListener::local_addr).transpose()? {
        // The address is the lab's own; its ports are free unless another program guesses them.
        Some(SocketAddr::V4(address)) => {
            let address = *address.ip();
            // Both at once, so that they differ.
            let (web, soap) = (TcpListener::bind((address, 0))?, TcpListener::bind((address, 0))?);
            Ok(Place { address, web_port: web.local_addr()?.port(), soap_port: soap.local_addr()?.port() })
        }
        _ => Err(io::Error::other("a listener for each host is needed")),
    })?;
    let secrets = Secrets::draw()?;

    place(binary, &dir.join("lib/lab"))?;
    fs::create_dir_all(dir.join("databases"))?;
    fs::create_dir_all(dir.join("packages"))?;
    fs::write(Layout::file(&dir), serde_json::to_vec_pretty(&layout)?)?;
    private_file(&dir.join("db.pw"), &secrets.database_password)?;
    private_file(&dir.join("scratch.pw"), &secrets.scratch_password)?;
    let login = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
    private_file(&dir.join("id_ed25519"), &login.to_openssh(LineEnding::LF).map_err(io::Error::other)?)?;
    let public = login.public_key().to_openssh().map_err(io::Error::other)?;
    fs::write(dir.join("id_ed25519.pub"), format!("{public} caravan-lab\n"))?;

    let mut known_hosts = String::new();
    let mut doors = Vec::new();
    for (host, listener) in layout.hosts().zip(listeners) {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
        let public = key.public_key().to_openssh().map_err(io::Error::other)?;
        known_hosts.push_str(&format!("[{}]:{port} {public}\n", host.address));
        if host.openssh {
            openssh::furnish(host, &key, login.public_key())?;
        }
        doors.push((listener, key));
    }
    fs::write(dir.join("known_hosts"), known_hosts)?;
    for platform in &layout.platforms {
        for instance in &platform.instances {
            let database = Database {
                user: DATABASE_USER.to_owned(),
                password_sha256: package::sha256(secrets.database_password.as_bytes()),
                build: platform.source.build,
                ..Database::default()
            };
            state::set_database(&layout, &instance.name, &database)?;
            if platform.scratch {
                // Nothing is in it yet.
                let empty = Database {
                    user: SCRATCH_USER.to_owned(),
                    password_sha256: package::sha256(secrets.scratch_password.as_bytes()),
                    ..Database::default()
                };
                state::set_database(&layout, &scratch_name(&instance.name), &empty)?;
            }
        }
        for host in &platform.hosts {
            write_packages(&layout, platform, host.family())?;
            furnish_host(&layout, platform, host, &secrets)?;
        }
    }
    crate::fleet::write(&layout, &layout.dir, port)?;
    Ok(Furnished { login: login.public_key().clone(), layout, secrets, doors, port })
}

/// What a spec asks that stand-in hosts cannot have.
fn only_realistic(spec: &Spec) -> Option<String> {
    let faults = &spec.faults;
    let systemd = spec.platforms.iter().flat_map(|platform| &platform.systemd).map(|name| format!("systemd on {name}"));
    let loss = faults.loss.iter().map(|loss| format!("a link of {} that loses packets", loss.host));
    let slow = faults.slow_links.iter().map(|link| format!("a slow link of {}", link.host));
    systemd.chain(loss).chain(slow).next()
}

pub(crate) fn private_file(path: &Path, content: &str) -> io::Result<()> {
    use io::Write;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

/// Listens on as many loopback addresses as there are hosts, all with one port: an address of its own for each host, from a block
/// that is drawn anew for each lab, so that labs can run side by side.
fn listen(count: usize) -> io::Result<(Vec<TcpListener>, u16)> {
    let mut last = io::Error::other("no hosts");
    for _ in 0..50 {
        let mut draw = [0; 2];
        getrandom::fill(&mut draw).map_err(io::Error::other)?;
        let first = u32::from(Ipv4Addr::new(127, 79, 0, 0)) + u32::from(u16::from_be_bytes(draw)) / 4 * 3 + 256;
        let mut port = 0;
        let listeners = (0..count).map(|n| {
            let address = Ipv4Addr::from(first + u32::try_from(n).unwrap_or(u32::MAX));
            let listener = TcpListener::bind((address, port))?;
            port = listener.local_addr()?.port();
            Ok(listener)
        });
        match listeners.collect::<io::Result<Vec<_>>>() {
            Ok(listeners) => return Ok((listeners, port)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Where a host is.
pub(crate) struct Place {
    pub(crate) address: Ipv4Addr,
    pub(crate) web_port: u16,
    pub(crate) soap_port: u16,
}

/// Decides who is who. `next` says where the next host is.
pub(crate) fn lay_out(spec: &Spec, dir: &Path, mut next: impl FnMut() -> io::Result<Place>) -> io::Result<Layout> {
    let mut platforms = Vec::new();
    for platform in &spec.platforms {
        let instances = instances(platform)?;
        let source = platform.source.as_ref().unwrap_or(&spec.source);
        let os = platform.os.clone().or_else(this_machine).unwrap_or_else(|| "debian-12".to_owned());
        let mut hosts = Vec::new();
        for host in platform.resolve().map_err(io::Error::other)? {
            let place = next()?;
            let without = platform.without.get(&host.name).map(Vec::as_slice).unwrap_or_default();
            let optional = |name: &String| instances.iter().any(|instance| instance.name == *name && instance.app != host.name);
            if let Some(name) = without.iter().find(|name| !optional(name)) {
                let problem =
                    format!("`without` of {}: `{name}` is no instance, or {} is its application server", host.name, host.name);
                return Err(io::Error::other(problem));
            }
            let carried = instances.iter().filter(|instance| carries(&host.name, &host.roles, instance));
            let carried = carried.filter(|instance| !without.contains(&instance.name));
            hosts.push(Host {
                instances: carried.map(|instance| instance.name.clone()).collect(),
                disabled: platform.disabled.get(&host.name).cloned().unwrap_or_default(),
                openssh: platform.openssh.contains(&host.name),
                systemd: platform.systemd.contains(&host.name),
                source: source.clone(),
                dir: dir.join("hosts").join(&host.name),
                name: host.name,
                roles: host.roles,
                os: os.clone(),
                web_port: place.web_port,
                soap_port: place.soap_port,
                address: place.address,
            });
        }
        platforms.push(Platform {
            name: platform.name.clone(),
            topology: platform.topology,
            hosts,
            instances,
            source: source.clone(),
            client: platform.client,
            salted: platform.salted,
            web: platform.web,
            scratch: platform.scratch,
        });
    }
    Ok(Layout {
        dir: dir.to_owned(),
        source: spec.source.clone(),
        target: spec.target.clone(),
        platforms,
        faults: spec.faults.clone(),
        real: false,
    })
}

/// The instances of a platform: one or more of marketing, one of mid-sourcing, one for each execution server.
fn instances(platform: &PlatformSpec) -> io::Result<Vec<Instance>> {
    let hosts = platform.resolve().map_err(io::Error::other)?;
    let first = |role: Role| hosts.iter().find(|host| host.roles.contains(&role)).map(|host| host.name.clone());
    let base = platform.name.replace(['-', '.'], "_");
    let mut instances = Vec::new();
    for number in 1..=platform.instances {
        let name = if number == 1 { base.clone() } else { format!("{base}_{number}") };
        instances.push(Instance { name, of: Role::Marketing, app: first(Role::Marketing).unwrap_or_default() });
    }
    if let Some(app) = first(Role::MidSourcing) {
        instances.push(Instance { name: format!("{base}_mid"), of: Role::MidSourcing, app });
    }
    for role in [Role::PowerBooster, Role::PowerCluster] {
        for (number, host) in hosts.iter().filter(|host| host.roles.contains(&role)).enumerate() {
            instances.push(Instance { name: format!("{base}_exec{}", number + 1), of: role, app: host.name.clone() });
        }
    }
    Ok(instances)
}

/// Whether a host has the configuration of an instance.
fn carries(host: &str, roles: &[Role], instance: &Instance) -> bool {
    instance.app == host
        || match instance.of {
            Role::Marketing => roles.iter().any(|role| matches!(role, Role::Marketing | Role::Mta | Role::Tracking)),
            Role::MidSourcing => roles.contains(&Role::MidSourcing),
            _ => false,
        }
}

fn write_packages(layout: &Layout, platform: &Platform, family: Family) -> io::Result<()> {
    for release in [&platform.source, &layout.target] {
        let file = package_path(layout, family, package::names(release), release.build);
        if !file.exists() {
            fs::write(file, package::content(family, package::names(release), release)?)?;
        }
    }
    write_client(layout, platform)
}

/// Writes the setup of the client console, where a platform has one.
pub(crate) fn write_client(layout: &Layout, platform: &Platform) -> io::Result<()> {
    let client = client_path(layout);
    if platform.client && !client.exists() {
        fs::write(client, format!("MZ setup of the client console of build {}\n", layout.target.build))?;
    }
    Ok(())
}

/// Where the file with these packages is.
pub(crate) fn package_path(layout: &Layout, family: Family, names: &[&str], build: u32) -> PathBuf {
    layout.dir.join("packages").join(package::file_name(family, names.first().unwrap_or(&"nlserver"), build))
}

/// Where the setup of the client console is.
pub(crate) fn client_path(layout: &Layout) -> PathBuf {
    layout.dir.join(format!("packages/setup-client-7.0.{}.exe", layout.target.build))
}

fn furnish_host(layout: &Layout, platform: &Platform, host: &Host, secrets: &Secrets) -> io::Result<()> {
    for dir in ["home/ops", "bin", "tmp", "backup", "var/lib/lab/run"] {
        fs::create_dir_all(host.dir.join(dir))?;
    }
    let binary = layout.dir.join("lib/lab");
    let tools: &[&str] = match host.family() {
        Family::Debian => &["dpkg", "dpkg-query"],
        Family::Rhel => &["rpm"],
    };
    for name in tools.iter().chain(&["pg_dump", "pg_restore", "psql"]) {
        place(&binary, &host.dir.join("bin").join(name))?;
    }
    if host.is(Role::Tracking) {
        place(&binary, &host.web_program())?;
        place(&binary, &host.init_scripts().join(host.family().web_service()))?;
    }
    unpack(host, Unpack { release: &host.source, binary: &binary })?;
    standins::make_conf(host, &host.source)?;
    let names = package::names(&host.source).iter();
    let installed = names.map(|name| Package { name: name.to_string(), release: host.source.clone(), whole: true });
    state::set_packages(host, &installed.collect::<Vec<_>>())?;
    configure(layout, platform, host, secrets)
}

/// Writes what a site has configured on a host with the old version.
pub(crate) fn configure(layout: &Layout, platform: &Platform, host: &Host, secrets: &Secrets) -> io::Result<()> {
    let nl6 = host.nl6();
    let faults = &layout.faults;
    let has = |hosts: &[String]| hosts.contains(&host.name);
    let salt = standins::salt(platform.salted)?;
    let password = match () {
        () if has(&faults.empty_password) => String::new(),
        () if has(&faults.different_password) => stored(&format!("{} of {}", secrets.internal_password, host.name), &salt),
        () => stored(&secrets.internal_password, &salt),
    };
    let server_conf = nl6.join("conf/serverConf.xml");
    let tracking = if has(&faults.empty_tracking_password) { "" } else { &secrets.tracking_password };
    let text = conf::server_conf(&host.source, &password, tracking, "uFE80000000000000F1FA913DD7CC7C48004BA419F");
    fs::write(&server_conf, &text)?;
    let web = platform.web || host.roles.iter().any(|role| !matches!(role, Role::Mta | Role::Tracking));
    fs::write(nl6.join("conf/config-default.xml"), conf::config_default(&host.source, web, host.is(Role::Tracking)))?;
    surroundings(host, layout.real)?;
    fs::write(nl6.join("customer.sh"), "# Variables of this site.\nTZ=Europe/Berlin\nexport TZ\n")?;
    fs::write(nl6.join("customers/site.js"), format!("// Code of {}.\n", platform.name))?;
    for instance in &host.instances {
        let roles =
            if platform.instance(instance).is_some_and(|instance| instance.app == host.name) { &host.roles[..] } else { &[] };
        let delivers = if host.is(Role::Mta) { &[Role::Mta][..] } else { &[] };
        let roles = [roles, delivers].concat();
        let config = conf::config_instance(&platform.name, instance, DATABASE_USER, &roles, &host.disabled);
        fs::write(nl6.join(format!("conf/config-{instance}.xml")), config)?;
        let redirect = nl6.join("var").join(instance).join("redir");
        fs::create_dir_all(redirect.join("log"))?;
        fs::write(redirect.join("log/0.log"), "2026-11-22 recipient=1 url=/r/?id=h1\n")?;
    }
    if has(&faults.unreadable_conf) {
        fs::write(&server_conf, &text[..text.len() / 2])?;
        fs::set_permissions(&server_conf, fs::Permissions::from_mode(0o000))?;
    }
    Ok(())
}

/// What names the installation outside of it: the account's shell and the web server. The web server of a `real` host is a real one, and
/// configured on the host.
fn surroundings(host: &Host, real: bool) -> io::Result<()> {
    let tree = host.old_tree();
    // A realistic host knows nothing of the lab's directory.
    let tree = if real { Path::new("/").join(tree.strip_prefix(&host.dir).unwrap_or(&tree)) } else { tree };
    let tree = tree.display();
    let bashrc = format!("# ~/.bashrc of the Campaign account.\nHISTSIZE=1000\n. {tree}/env.sh\numask 027\n");
    fs::write(host.home().join(".bashrc"), bashrc)?;
    if !host.is(Role::Tracking) || real {
        return Ok(());
    }
    let etc = host.web_config();
    let write = |name: &str, text: String| {
        let file = etc.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&etc))?;
        fs::write(file, text)
    };
    let load = format!("LoadModule requesthandler22_module {tree}/lib/libnlsrvmod.so\n");
    match host.family() {
        Family::Debian => {
            write("envvars", format!("export APACHE_RUN_USER=www-data\n. {tree}/env.sh\n"))?;
            write("mods-available/nlsrv.load", load)?;
            write("mods-available/alias.conf", format!("Alias /nl {tree}/web/\n"))?;
            std::os::unix::fs::symlink(format!("{tree}/conf/apache_neolane.conf"), etc.join("mods-available/nlsrv.conf"))
        }
        Family::Rhel => {
            write("conf.d/nlsrv.conf", format!("{load}Alias /nl {tree}/web/\n"))?;
            write("conf/httpd.conf", "IncludeOptional conf.d/*.conf\n".to_owned())?;
            write("../sysconfig/httpd", format!("LD_LIBRARY_PATH={tree}/lib\n"))
        }
    }
}

/// Starts what runs on a host before anybody touches it. Nothing of it is recorded: the story begins afterwards.
pub(crate) fn start_host(layout: &Layout, host: &Host) -> io::Result<()> {
    let stubborn = layout.faults.fail.iter().any(|fault| fault.host == host.name && fault.step == "stop");
    let mut expected = conf::auto_start(host)?;
    expected.push("watchdog@default".to_owned());
    for module in &expected {
        standins::launch(host, module, stubborn)?;
    }
    if host.is(Role::Tracking) {
        standins::launch_web(host, host.source.build)?;
        expected.push(host.family().web_service().to_owned());
    }
    for name in &expected {
        if !standins::wait_for(host, name)? {
            return Err(io::Error::other(format!("{name} of {} did not come up", host.name)));
        }
    }
    Ok(())
}

/// Server, name and account of an instance's scratch database, as the inventory names them.
pub(crate) fn scratch_of(platform: &str, instance: &str) -> (String, String, &'static str) {
    (scratch_server(platform), scratch_name(instance), SCRATCH_USER)
}

/// The server that the inventory names for a platform's databases.
pub(crate) fn database_of(platform: &str) -> (String, &'static str) {
    (database_server(platform), DATABASE_USER)
}
