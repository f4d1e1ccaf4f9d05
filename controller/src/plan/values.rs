//! What the placeholders of a runbook stand for.

use super::files::Files;
use super::runbook::{BackupBy, Family};
use super::site::Site;
use super::template::Values;
use inventory::{Backup, Database, Host, InitSystem, Instance, InstanceKind, Package, Platform, Role};
use proto::step::{PackageManager, ServiceManager};
use serde_json::{Value, json};

/// The packages of v6.1, where the inventory does not name them.
const OLD_NAMES: &[&str] = &["nlserver6", "nlthirdparty6"];
/// The package of v7, where the inventory does not name it.
const NEW_NAMES: &[&str] = &["nlserver6-v7"];

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
        let several = platform.instances.iter().filter(|instance| backup_by(platform, instance) == BackupBy::Dba).count() > 1;
        let gate = if several { format!("backup-by-dba.{}", instance.name) } else { "backup-by-dba".to_owned() };
        values.insert("gate.backup", json!(gate));
        values.insert(
            "database.label",
            json!(instance.database.as_ref().map_or_else(|| "not named in the inventory".to_owned(), label)),
        );
        if let Some(database) = &instance.database {
            values.insert("database.name", json!(database.name));
            values.insert("database.server", json!(database.server));
            values.insert("database.user", json!(database.user));
            values.insert("database.pgpass", json!(pgpass(database, &instance.name)));
            if let Backup::On { dir, .. } = &database.backup {
                values.insert("backup.dir", json!(dir));
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
    Values::from([
        ("platform", json!(platform.name)),
        ("host", json!(host.name)),
        ("home", json!(host.campaign.home)),
        ("init_scripts", json!(host.init_scripts)),
        ("manager", to_value(&manager)),
        ("package_manager", to_value(&packages)),
        ("web.service", json!(web_service)),
        ("web.address", json!(host.web.address)),
        ("source.version", json!(host.source.version.as_str())),
        ("source.names", json!(names(&site.old, OLD_NAMES))),
        ("source.files", json!(files(&site.old))),
        ("windows.stop_modules", json!(stop_modules(platform, host))),
        ("target.build", json!(host.target.build)),
        ("target.build_text", json!(host.target.build.to_string())),
        ("target.files", json!(files(&site.target))),
        ("target.names", json!(names(&site.target, NEW_NAMES))),
    ])
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
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let Database { server, name, user, .. } = database;
    format!("{}:*:{}:{}:{{secret:database/{instance}}}", escape(server), escape(name), escape(user))
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
        Backup::ByDba => None,
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
