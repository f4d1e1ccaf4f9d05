//! What the placeholders of a runbook stand for.

use super::files::Files;
use super::runbook::{BackupBy, Family};
use super::site::Site;
use super::template::Values;
use crate::release::Release;
use inventory::{
    Backup, Database, Host, InitSystem, Instance, InstanceKind, Keep, KeepAt, Package, Platform, Role, Scratch, SourceVersion,
};
use proto::step::{KeepTo, PackageManager, ServiceManager};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the names of secrets begin with that are the passwords of scratch databases; the instance's name follows.
pub(crate) const SCRATCH_SECRETS: &str = "scratch/";

/// The package of v7, where the inventory does not name it.
const NEW_NAMES: &[&str] = &["nlserver6-v7"];

/// The packages of a version, where the inventory does not name them.
fn vendor_names(version: SourceVersion) -> &'static [&'static str] {
    match version {
        SourceVersion::V5_11 => &["nlserver5", "nlthirdparty5"],
        SourceVersion::V6_02 | SourceVersion::V6_1 => &["nlserver6", "nlthirdparty6"],
        SourceVersion::V7 => NEW_NAMES,
    }
}

/// From this version of v7 on, its unit has a name of its own (procedure, step 1: "from 20.1 `systemctl stop nlserver`").
const OWN_UNIT: &str = "20.1";

/// The service of the version that shall be installed. The v7 package keeps the name of the init script, and first kept that of its unit.
fn target_service(site: &Site<'_>) -> &'static str {
    let own = site.init == InitSystem::Systemd && !Release::of(&site.host.target.version).is_before(OWN_UNIT);
    if own { "nlserver" } else { "nlserver6" }
}

/// The service of the version in use. A build of v7 is taken to call it as the later one does: `source.version` tells no builds apart,
/// see [`guessed_service`].
fn source_service(site: &Site<'_>) -> &'static str {
    match site.host.source.version {
        SourceVersion::V5_11 => "nlserver5",
        SourceVersion::V6_02 | SourceVersion::V6_1 => "nlserver6",
        SourceVersion::V7 => target_service(site),
    }
}

/// Whether the service in use can have another name than the plan gives it: where v7 is installed already, and is from before 20.1.
pub(super) fn guessed_service(site: &Site<'_>) -> bool {
    site.host.has_campaign() && site.host.source.version == SourceVersion::V7 && target_service(site) == "nlserver"
}

/// Service and directory of a version on Windows, and what of its `conf` comes along to v7.
fn on_windows(version: SourceVersion) -> [(&'static str, Value); 3] {
    let (service, directory, conf) = match version {
        SourceVersion::V5_11 => (
            "nlserver5",
            "Neolane v5",
            "conf (config-<instance>.xml alone, never config-default.xml, and with autoStart renamed to _autoStart)",
        ),
        SourceVersion::V6_02 => ("nlserver6", "Neolane v6", "conf (with autoStart renamed to _autoStart in config-<instance>.xml)"),
        SourceVersion::V6_1 => ("nlserver6", "Adobe Campaign v6", "conf"),
        SourceVersion::V7 => ("nlserver6-v7", "Adobe Campaign v7", "conf"),
    };
    [("windows.service", json!(service)), ("windows.directory", json!(directory)), ("windows.conf", json!(conf))]
}

/// The files of a web server that name the installation (procedure, step 8). Those that a host does not have are passed over.
fn web_files(host: &Host, family: Family) -> Vec<String> {
    let rhel = family == Family::Rhel;
    let dir = host.web.config.as_deref().unwrap_or(if rhel { "/etc/httpd" } else { "/etc/apache2" });
    let below: &[&str] = if rhel {
        &["conf/httpd.conf", "conf.d/*.conf", "conf.modules.d/*.conf"]
    } else {
        &["envvars", "mods-available/nlsrv.load", "mods-available/nlsrv.conf", "mods-available/alias.conf", "conf.d/*.conf"]
    };
    let mut files: Vec<String> = below.iter().map(|file| format!("{dir}/{file}")).collect();
    // What `envvars` is on Debian.
    files.extend(dir.rsplit_once('/').filter(|_| rhel).map(|(etc, name)| format!("{etc}/sysconfig/{name}")));
    files
}

/// What postupgrade is told beside the instance: from v5 its time zone; several time zones where the inventory wants them.
fn postupgrade_options(site: &Site<'_>, instance: &Instance) -> Vec<String> {
    let zone = instance.timezone.as_ref().filter(|_| site.host.source.version == SourceVersion::V5_11);
    let mut options: Vec<String> = zone.iter().map(|zone| format!("-timezone:{zone}")).collect();
    options.extend(instance.timestamptz.then(|| "-usetimestamptz:1".to_owned()));
    options
}

/// What one step is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) instance: Option<&'a Instance>,
    pub(super) role: Option<Role>,
    pub(super) package: Option<&'a Package>,
}

/// The values for a step's placeholders.
pub(super) fn values(platform: &Platform, subject: Subject<'_>, files: &Files) -> Values {
    let Subject { site, instance, package, .. } = subject;
    let host = site.host;
    let mut values = host_values(platform, site);
    if let Some(instance) = instance {
        values.insert("instance", json!(instance.name));
        let options = postupgrade_options(site, instance);
        values.insert("postupgrade.suffix", json!(options.iter().map(|option| format!(" {option}")).collect::<String>()));
        values.insert("postupgrade.options", json!(options));
        let several = platform.instances.iter().filter(|instance| backup_by(platform, instance) == BackupBy::Dba).count() > 1;
        let gate = if several { format!("backup-by-dba.{}", instance.name) } else { "backup-by-dba".to_owned() };
        values.insert("gate.backup", json!(gate));
        values.insert(
            "database.label",
            json!(instance.database.as_ref().map_or_else(|| "not named in the inventory".to_owned(), label)),
        );
        values.insert(
            "backup.file",
            json!(match instance.database.as_ref().map(|database| &database.backup) {
                Some(Backup::Given(file)) => format!(", as {} on {}", file.path, file.on),
                _ => String::new(),
            }),
        );
        if let Some(database) = &instance.database {
            values.insert("database.name", json!(database.name));
            values.insert("database.server", json!(database.server));
            values.insert("database.user", json!(database.user));
            values.insert("database.pgpass", json!(pgpass(database, &instance.name)));
            if let Backup::On { dir, .. } = &database.backup {
                values.insert("backup.dir", json!(dir));
            }
            if let Some(keep) = &host.keep {
                let name = format!("{}.dump.age", instance.name);
                values.insert("keep.dump_to", to_value(&kept_at(keep, host, &name)));
                values.insert("keep.dump", json!(name));
            }
            if let Some(scratch) = scratch(platform, instance) {
                values.insert("scratch.name", json!(scratch.name));
                values.insert("scratch.server", json!(scratch.server));
                values.insert("scratch.user", json!(scratch.user));
                values.insert("scratch.secret_files", json!(scratch_secrets(scratch, database, &instance.name)));
            }
        }
    }
    if let Some(package) = package {
        let (inventory::Location::Path(place) | inventory::Location::Url(place)) = &package.location;
        values.insert("package.file", json!(package.location.file_name()));
        values.insert("package.url", json!(place));
        values.insert("package.sha256", json!(package.sha256));
        values.insert("package.size", json!(files.size(package)));
        values.insert("package.dest", json!(landing_place(host, package)));
    }
    values
}

fn host_values(platform: &Platform, site: &Site<'_>) -> Values {
    let host = site.host;
    let manager = match site.init {
        InitSystem::Sysv => ServiceManager::Sysv(host.init_scripts.clone()),
        InitSystem::Systemd => ServiceManager::Systemd,
    };
    let rhel = site.family == Family::Rhel;
    let packages = if rhel { PackageManager::Rpm } else { PackageManager::Dpkg };
    let web_service = host.web.service.as_deref().unwrap_or(if rhel { "httpd" } else { "apache2" });
    let files = |packages: &[&Package]| packages.iter().map(|package| landing_place(host, package)).collect::<Vec<_>>();
    let version = host.source.version;
    let mut values = Values::from([
        ("platform", json!(platform.name)),
        ("host", json!(host.name)),
        ("host_state", json!(host.host_state)),
        ("home", json!(host.campaign.home)),
        ("init_scripts", json!(host.init_scripts)),
        ("manager", to_value(&manager)),
        ("package_manager", to_value(&packages)),
        ("web.service", json!(web_service)),
        ("web.address", json!(host.web.address)),
        ("web.files", json!(web_files(host, site.family))),
        ("source.version", json!(version.as_str())),
        ("source.tree", json!(version.tree())),
        ("source.service", json!(source_service(site))),
        ("source.names", json!(names(&site.old, vendor_names(version)))),
        ("source.files", json!(files(&site.old))),
        ("windows.stop_modules", json!(stop_modules(platform, host))),
        ("target.service", json!(target_service(site))),
        ("target.build", json!(host.target.build)),
        ("target.build_text", json!(host.target.build.to_string())),
        ("target.files", json!(files(&site.target))),
        ("target.names", json!(names(&site.target, NEW_NAMES))),
    ]);
    values.extend(on_windows(version));
    if let Some(keep) = &host.keep {
        values.insert("keep.tree", json!(format!("{}.back.tar.gz.age", version.tree())));
        values.insert("keep.tree_to", to_value(&kept_at(keep, host, &format!("{}.back.tar.gz.age", version.tree()))));
        values.insert(
            "keep.place",
            json!(match &keep.to {
                KeepAt::Workstation => "the workstation",
                KeepAt::Host { name, .. } => name,
            }),
        );
        values.insert("keep.limit", json!(keep.limit));
        values.insert("keep.encrypt_to", json!(keep.encrypt_to));
    }
    values
}

/// Where a copy of one of a host's files goes.
fn kept_at(keep: &Keep, host: &Host, name: &str) -> KeepTo {
    match &keep.to {
        KeepAt::Workstation => KeepTo::Workstation,
        KeepAt::Host { name: keeper, dir } => {
            KeepTo::Host { host: keeper.clone(), dest: format!("{dir}/{{run}}/{}/{name}", host.name) }
        }
    }
}

fn to_value<T: serde::Serialize>(value: &T) -> Value {
    // Enums of strings always have a JSON form.
    serde_json::to_value(value).unwrap_or_default()
}

/// The names of packages, each once; the vendor's where the inventory has none.
fn names(packages: &[&Package], vendor: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in packages.iter().flat_map(|package| &package.names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() { vendor.iter().map(ToString::to_string).collect() } else { names }
}

/// Where a package file is put on a host.
fn landing_place(host: &Host, package: &Package) -> String {
    format!("{}/packages/{}/{}", host.host_state, package.sha256, package.location.file_name())
}

/// The vendor's commands that end deliveries on a Windows host before its service is stopped: one for each instance that it carries.
fn stop_modules(platform: &Platform, host: &Host) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for instance in host.roles.iter().flat_map(|role| carried(platform, host, *role)) {
        if !names.contains(&instance.name.as_str()) {
            names.push(&instance.name);
        }
    }
    names.into_iter().map(|name| format!("nlserver stop mta@{name}")).collect()
}

/// A line of a PostgreSQL password file (`hostname:port:database:username:password`; `:` and `\` are escaped). The password is put in
/// on the host, in memory.
pub(crate) fn pgpass(database: &Database, instance: &str) -> String {
    password_line([&database.server, &database.name, &database.user], &database_secret(instance))
}

fn password_line([server, name, user]: [&str; 3], secret: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("{}:*:{}:{}:{{secret:{secret}}}", escape(server), escape(name), escape(user))
}

/// The name of the secret that is the password of an instance's database.
fn database_secret(instance: &str) -> String {
    format!("database/{instance}")
}

/// The files in memory that hold the password of a scratch database: its own, or that of the instance's database; none where the
/// inventory names neither, so that the host's own way to log in is used.
pub(crate) fn scratch_secrets(scratch: &Scratch, database: &Database, instance: &str) -> BTreeMap<String, String> {
    let secret = match (&scratch.password, &database.password) {
        (Some(_), _) => format!("{SCRATCH_SECRETS}{instance}"),
        (None, Some(_)) => database_secret(instance),
        (None, None) => return BTreeMap::new(),
    };
    let line = password_line([&scratch.server, &scratch.name, &scratch.user], &secret);
    BTreeMap::from([("PGPASSFILE".to_owned(), line)])
}

/// The database that an instance's dump is restored into, to show that it can be.
pub(crate) fn scratch<'a>(platform: &Platform, instance: &'a Instance) -> Option<&'a Scratch> {
    match &instance.database.as_ref()?.backup {
        Backup::On { scratch, .. } if backup_by(platform, instance) == BackupBy::Caravan => scratch.as_ref(),
        _ => None,
    }
}

fn label(database: &Database) -> String {
    format!("`{}` on {}", database.name, database.server)
}

/// Who backs an instance's database up. Caravan only where the inventory says so and the backup host is not a Windows one.
pub(super) fn backup_by(platform: &Platform, instance: &Instance) -> BackupBy {
    match backup_host(instance) {
        Some(on) if platform.host(on).is_some_and(|host| !host.is_windows()) => BackupBy::Caravan,
        _ => BackupBy::Dba,
    }
}

/// The host that the inventory names for the backup of an instance's database.
pub(super) fn backup_host(instance: &Instance) -> Option<&str> {
    match &instance.database.as_ref()?.backup {
        Backup::On { on, .. } => Some(on),
        Backup::ByDba | Backup::Given(_) => None,
    }
}

/// The instances whose modules a host runs in one of its roles. The inventory ties an instance to its application server; a mail server
/// runs those of the marketing instances.
pub(super) fn carried<'a>(platform: &'a Platform, host: &Host, role: Role) -> Vec<&'a Instance> {
    let kind = match role {
        Role::Marketing | Role::Mta => InstanceKind::Marketing,
        Role::MidSourcing => InstanceKind::MidSourcing,
        Role::PowerBooster | Role::PowerCluster => InstanceKind::Execution,
        Role::Tracking | Role::Database => return Vec::new(),
    };
    platform.instances.iter().filter(|instance| instance.kind == kind && (role == Role::Mta || instance.app == host.name)).collect()
}
