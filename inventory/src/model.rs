//! A fleet after everything was resolved: what the rest of Caravan works with.
//!
//! Every type serialises without secrets (a [`SecretRef`] says where a secret is, not what it is), so that a plan's hash can
//! cover it.

use crate::legacy::Legacy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Everything in one inventory file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fleet {
    /// The file's name without its ending, for people.
    pub name: String,
    /// The directory that relative paths of the file start from.
    #[serde(skip)]
    pub base: std::path::PathBuf,
    /// How much happens at once.
    pub parallel: Parallel,
    /// The platforms, in the order of the file.
    pub platforms: Vec<Platform>,
}

/// How much happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parallel {
    /// Platforms that migrate at the same time.
    pub platforms: usize,
    /// Hosts that work at the same time.
    pub hosts: usize,
}

/// One Campaign deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Platform {
    /// Its name; unique in the fleet.
    pub name: String,
    /// How its servers are arranged, which decides the order.
    pub topology: Topology,
    /// Whether it is marked as a test platform.
    pub rehearsal: bool,
    /// The platform's main database, where the inventory names one.
    pub database: Option<Database>,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// Its hosts, in the order of the file, ranges expanded.
    pub hosts: Vec<Host>,
    /// The file of the site's own runbook, relative to the inventory's directory, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Changes to single steps of the runbook, by step name.
    pub overrides: BTreeMap<String, Override>,
    /// The site's own order of the `migrate` stages within the vendor's rules, where it gives one.
    pub order: Option<Vec<Role>>,
    /// The site's own order of the `restart` stages, where it gives one.
    pub restart_order: Option<Vec<Role>>,
}

impl Platform {
    /// Hosts that have this role, in inventory order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.roles.contains(&role))
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }
}

/// How a platform's servers are arranged (domain: the mandated order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// One machine carries everything.
    Standalone,
    /// Marketing, mail and tracking servers.
    Standard,
    /// As standard, with execution servers that the vendor hosts.
    CloudMessaging,
    /// One execution server apart from marketing.
    PowerBooster,
    /// Two or more execution servers apart from marketing.
    PowerCluster,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Application server.
    Marketing,
    /// Executes deliveries for a marketing instance, with a database of its own.
    MidSourcing,
    /// Mail server.
    Mta,
    /// Redirection and tracking server.
    Tracking,
    /// Execution server of a Power Booster platform.
    PowerBooster,
    /// Execution server of a Power Cluster platform.
    PowerCluster,
    /// Database server: backup and restore only.
    Database,
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
            Self::Database => "database",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Topology {
    /// All of them, simplest first.
    pub const ALL: [Self; 5] = [Self::Standalone, Self::Standard, Self::CloudMessaging, Self::PowerBooster, Self::PowerCluster];

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

    /// Roles that a host of such a platform may have.
    pub fn roles(self) -> &'static [Role] {
        use Role::{Database, Marketing, MidSourcing, Mta, PowerBooster, PowerCluster, Tracking};
        match self {
            Self::Standalone | Self::Standard | Self::CloudMessaging => &[Marketing, MidSourcing, Mta, Tracking, Database],
            Self::PowerBooster => &[Marketing, PowerBooster, MidSourcing, Mta, Tracking, Database],
            Self::PowerCluster => &[Marketing, PowerCluster, MidSourcing, Mta, Tracking, Database],
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named configuration with a database of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instance {
    /// Its name, as in `config-<instance>.xml`.
    pub name: String,
    /// What it does.
    pub kind: InstanceKind,
    /// The host that runs its postupgrade.
    pub app: String,
    /// Its database.
    pub database: Option<Database>,
    /// Its time zone, which postupgrade needs from v5.
    pub timezone: Option<String>,
    /// Whether its database shall keep several time zones from now on (`-usetimestamptz:1`). Only with an engine that can: see
    /// [`Engine::keeps_time_zones`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timestamptz: bool,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceKind {
    /// The application.
    Marketing,
    /// Delivers for a marketing instance.
    MidSourcing,
    /// Execution instance of a Power Booster or Power Cluster platform.
    Execution,
}

/// A database and how it is backed up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Database {
    /// The engine.
    pub engine: Engine,
    /// The database server's address.
    pub server: String,
    /// The database's name.
    pub name: String,
    /// The account.
    pub user: String,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// Whether it is a Unicode database, where the inventory says so.
    pub unicode: Option<bool>,
    /// How it is backed up.
    pub backup: Backup,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// Oracle.
    Oracle,
    /// Microsoft SQL Server.
    Mssql,
    /// MySQL.
    Mysql,
}

impl Engine {
    /// Whether it has a type for points in time with their time zone. With another one `-usetimestamptz:1` corrupts the database.
    pub fn keeps_time_zones(self) -> bool {
        !matches!(self, Self::Mysql)
    }
}

/// How a database is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backup {
    /// Caravan runs `pg_dump` on this host of the platform, into this directory.
    On {
        /// Host name.
        on: String,
        /// Directory on that host (`{host}` and `{platform}` resolved).
        dir: String,
        /// Where it is shown that the dump can be restored; only its table of contents is read when left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        scratch: Option<Scratch>,
    },
    /// The DBA does it: the plan has a gate for it.
    ByDba,
    /// The DBA does it, and this file is the backup: preflight looks at it, and the plan has a gate for it.
    Given(BackupFile),
}

/// A file that is a backup, made by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupFile {
    /// The host of the platform that has it.
    pub on: String,
    /// The file (`{host}` and `{platform}` resolved).
    pub path: String,
    /// Its SHA-256, lower-case hex; that of the `.sha256` file beside it when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The most seconds since it was written.
    pub max_age: u64,
    /// The least bytes that it has; at least one.
    pub min_size: u64,
}

/// A PostgreSQL database that a dump is restored into, to show that it can be. What was in it before is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scratch {
    /// Address of its server.
    pub server: String,
    /// Its name; no database of the fleet has it.
    pub name: String,
    /// Account that owns it: that of the instance's database, where the inventory gives none.
    pub user: String,
    /// Where the password is; that of the instance's database when left out.
    pub password: Option<SecretRef>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Its name; unique in the fleet.
    pub name: String,
    /// Where SSH connects to (name or address). The name, where the inventory gives none.
    pub address: String,
    /// Distribution and major version (`debian-11`, `rhel-8`, `windows`); asked from the host when left out.
    pub os: Option<String>,
    /// What it is for; at least one.
    pub roles: Vec<Role>,
    /// The web server of a tracking server.
    pub web: Web,
    /// Its init system; asked from the host when left out.
    pub init: Option<InitSystem>,
    /// Where init scripts are (`/etc/init.d`).
    pub init_scripts: String,
    /// How SSH reaches it.
    pub ssh: Ssh,
    /// How the agent becomes root.
    #[serde(rename = "become")]
    pub become_: Become,
    /// The Campaign installation.
    pub campaign: Campaign,
    /// Caravan's directory on the host.
    pub host_state: String,
    /// What is installed now.
    pub source: Source,
    /// What shall be installed.
    pub target: Target,
    /// Which of its backups are kept off it; none when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Where values came from: key path (`ssh.user`) to place (`default`, `fleet.yaml:12:5 (defaults)`), for `inventory list -v`.
    #[serde(skip)]
    pub origins: BTreeMap<String, String>,
    /// `line:column` of the host in its file.
    #[serde(skip)]
    pub place: String,
}

impl Host {
    /// Whether it is a Windows host, whose steps are gates.
    pub fn is_windows(&self) -> bool {
        self.os.as_deref().is_some_and(|os| os == "windows" || os.starts_with("windows-"))
    }

    /// Whether root can be had on it: by `become`, or because the inventory says that the login account is root. Without it every step
    /// runs as the login account.
    pub fn has_root(&self) -> bool {
        self.become_.method != BecomeMethod::None || self.ssh.user.as_deref() == Some("root")
    }

    /// Whether it carries a Campaign installation (everything but a pure database server).
    pub fn has_campaign(&self) -> bool {
        self.roles.iter().any(|role| *role != Role::Database)
    }
}

/// The web server of a tracking server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Web {
    /// Which one.
    pub server: WebServer,
    /// Where the host itself reaches it, `HOST:PORT` (`localhost:80`).
    pub address: String,
    /// Its service name (`apache2` on Debian, `httpd` on RHEL), where the inventory gives one.
    pub service: Option<String>,
    /// The directory of its configuration (`/etc/apache2` on Debian, `/etc/httpd` on RHEL), where the inventory gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// A web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebServer {
    /// Apache HTTP Server.
    Apache,
    /// Internet Information Services.
    Iis,
}

/// An init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InitSystem {
    /// Init scripts.
    Sysv,
    /// systemd.
    Systemd,
}

/// How SSH reaches a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ssh {
    /// Login account; what ssh_config says, or the workstation's own account name, when left out.
    pub user: Option<String>,
    /// Port; what ssh_config says, or 22, when left out.
    pub port: Option<u16>,
    /// Private key files, tried in order; `~` stands for the home directory.
    pub identity: Vec<String>,
    /// Where the login password is, for servers that want one.
    pub password: Option<SecretRef>,
    /// Jump host, `[USER@]HOST[:PORT]`.
    pub jump: Option<String>,
    /// The host key that the host must have, `ssh-ed25519 AAAA...`: a pin.
    pub host_key: Option<String>,
    /// known_hosts files; what ssh_config says, or `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`, when empty.
    pub known_hosts: Vec<String>,
    /// Seconds until connecting gives up; what ssh_config says, or 15, when left out.
    pub connect_timeout: Option<u64>,
    /// The ssh_config file that fills in what is not said here: `none`, or a file instead of the operator's own (`ssh -F`).
    pub config: Option<String>,
    /// Which algorithms of OpenSSH 5.3's age it is allowed.
    pub legacy: Legacy,
}

/// How the agent becomes root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Become {
    /// How.
    pub method: BecomeMethod,
    /// Where the password is, if it needs one.
    pub password: Option<SecretRef>,
}

/// How the agent becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BecomeMethod {
    /// It does not: every step runs as the login user (who is root already, or owns all that is touched).
    None,
    /// sudo.
    Sudo,
    /// doas.
    Doas,
    /// su, with root's own password.
    Su,
}

impl BecomeMethod {
    /// As the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sudo => "sudo",
            Self::Doas => "doas",
            Self::Su => "su",
        }
    }
}

/// The Campaign installation on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// The directory that holds `nl6` (`/usr/local/neolane`).
    pub home: String,
    /// The account that owns it (`neolane`).
    pub user: String,
    /// Where the host's own server answers SOAP calls, as seen from the host ([`Campaign::SOAP`]).
    pub soap: String,
}

impl Campaign {
    /// The documented address of a server's own SOAP router.
    pub const SOAP: &str = "http://localhost:8080/nl/jsp/soaprouter.jsp";
}

/// Which backups of a host are kept off it, and where. They are encrypted before they leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keep {
    /// Where they go.
    pub to: KeepAt,
    /// What is kept; nothing when empty.
    pub of: Vec<KeepOf>,
    /// The most bytes that it sends in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The public keys of age that they are encrypted to; at least one.
    pub encrypt_to: Vec<String>,
}

/// Where backups are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAt {
    /// In the directory of the run on the workstation.
    Workstation,
    /// On another host of the fleet.
    Host {
        /// Its name.
        name: String,
        /// The directory there: `kept` in its `host_state`, where the inventory gives none.
        dir: String,
    },
}

/// A backup that can be kept off its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepOf {
    /// The archive of the installation.
    Installation,
    /// The dumps of the databases that the host backs up.
    Database,
}

/// The version that is installed before the migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// `5.11`, `6.02`, `6.1`; `7` for an upgrade to a later build of v7.
    pub version: SourceVersion,
    /// The latest build of that version, which must be installed before migrating (prerequisite 1).
    pub latest_build: Option<u32>,
    /// Its packages, needed to go back.
    pub packages: Vec<Package>,
}

/// A version that Caravan migrates from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceVersion {
    /// v5.11.
    #[serde(rename = "5.11")]
    V5_11,
    /// v6.02.
    #[serde(rename = "6.02")]
    V6_02,
    /// v6.1.
    #[serde(rename = "6.1")]
    V6_1,
    /// v7: an upgrade to a later build of it.
    #[serde(rename = "7")]
    V7,
}

impl SourceVersion {
    /// The version as the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V5_11 => "5.11",
            Self::V6_02 => "6.02",
            Self::V6_1 => "6.1",
            Self::V7 => "7",
        }
    }

    /// The directory of an installation below `campaign.home`: v5 lives in `nl5`, every other version in `nl6`.
    pub fn tree(self) -> &'static str {
        if self == Self::V5_11 { "nl5" } else { "nl6" }
    }
}

/// The version that shall be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Version (`7.4.1`).
    pub version: String,
    /// Build number (`9383`).
    pub build: u32,
    /// Its packages, one or more for each OS of the fleet.
    pub packages: Vec<Package>,
    /// The setup program of the client console, which application servers offer to their users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Package>,
}

/// A package file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// The OS it is for (`debian-11`).
    pub os: String,
    /// Where it is.
    pub location: Location,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Names of the packages that the file installs (`nlserver6-v7`), where the inventory gives them.
    pub names: Vec<String>,
}

/// Where a package file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// On the workstation; relative paths start at the inventory's directory.
    Path(String),
    /// Downloaded by each host.
    Url(String),
}

impl Location {
    /// The file's own name.
    pub fn file_name(&self) -> &str {
        let (Self::Path(text) | Self::Url(text)) = self;
        text.rsplit(['/', '\\']).next().unwrap_or(text)
    }
}

/// Where a secret is. The secret itself is fetched when it is needed, by the controller, and only then.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// Asked at the terminal (`prompt:`).
    Prompt,
    /// An environment variable of the workstation (`env:NAME`).
    Env(String),
    /// A file of the workstation (`file:PATH`).
    File(String),
    /// What a program prints (`command:PROGRAM ARGS`).
    Command(String),
}

/// A change to one step of the runbook.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Override {
    /// Runs this instead.
    pub command: Option<SiteCommand>,
    /// Leaves the step out, for this reason. Its barrier then opens only if the step's probe says that the effect is there.
    pub skip: Option<String>,
    /// Extra steps before it.
    pub before: Vec<SiteStep>,
    /// Extra steps after it.
    pub after: Vec<SiteStep>,
}

/// A step that a site adds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteStep {
    /// Its name; unique in the plan of a host.
    pub name: String,
    /// What it runs.
    pub command: SiteCommand,
}

/// A command from the inventory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteCommand {
    /// Program and arguments. From `shell: true`: `["/bin/sh", "-c", TEXT]`.
    pub argv: Vec<String>,
    /// Whom it runs as (`root`, an account, `login`); as the step it changes when left out.
    pub run_as: Option<String>,
    /// Seconds it may take.
    pub deadline_s: Option<u64>,
}
