//! The format as it stands in the file: every key there is, once, with what it means. Reader, messages and JSON Schema follow
//! from these definitions.

mod values;
mod words;

pub(crate) use values::{CommandLine, Hosts, InstanceEntry, Overrides, RoleWord, Secret};

use crate::legacy::Legacy;
use crate::model::{BecomeMethod, Engine, InitSystem, InstanceKind, KeepOf, SourceVersion, Topology, WebServer};
use crate::read::{OneOrMany, Spanned, Text, map};
use schemars::JsonSchema;

/// The blocks that can stand in `defaults`, on a platform and on a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks<'a> {
    pub(crate) ssh: Option<&'a Spanned<Ssh>>,
    pub(crate) become_: Option<&'a Spanned<Become>>,
    pub(crate) campaign: Option<&'a Spanned<Campaign>>,
    pub(crate) source: Option<&'a Spanned<Source>>,
    pub(crate) target: Option<&'a Spanned<Target>>,
    pub(crate) keep: Option<&'a Spanned<Keep>>,
    pub(crate) host_state: Option<&'a Spanned<Text>>,
    pub(crate) init_scripts: Option<&'a Spanned<Text>>,
}

/// Defines a map that has these blocks beside its own keys.
macro_rules! layer {
    ($(#[doc = $doc:literal])+ $name:ident as $what:literal { $($required:tt)* } ; { $($optional:tt)* }) => {
        map! {
            $(#[doc = $doc])+
            $name as $what {
                $($required)*
                ;
                $($optional)*
                /// How SSH reaches the hosts.
                ssh: Ssh,
                /// How Caravan becomes root on the hosts.
                #[key = "become"] become_: Become,
                /// The Campaign installation on the hosts.
                campaign: Campaign,
                /// Caravan's directory on the hosts (`/var/lib/caravan`); `{host}` and `{platform}` stand for the names.
                host_state: Text,
                /// What is installed now.
                source: Source,
                /// What shall be installed.
                target: Target,
                /// Which backups are kept off the hosts, and where.
                keep: Keep,
                /// Where init scripts are on the hosts (`/etc/init.d`).
                init_scripts: Text,
            }
        }

        impl $name {
            pub(crate) fn blocks(&self) -> Blocks<'_> {
                Blocks {
                    ssh: self.ssh.as_ref(),
                    become_: self.become_.as_ref(),
                    campaign: self.campaign.as_ref(),
                    source: self.source.as_ref(),
                    target: self.target.as_ref(),
                    keep: self.keep.as_ref(),
                    host_state: self.host_state.as_ref(),
                    init_scripts: self.init_scripts.as_ref(),
                }
            }
        }
    };
}

map! {
    /// A Caravan inventory: one fleet.
    Inventory as "the inventory" {
        /// The version of this format: 1.
        version: u64,
        /// The Campaign deployments.
        platforms: Vec<Spanned<Platform>>,
        ;
        /// What holds for all hosts unless a platform or a host says otherwise: the nearer one wins, key by key.
        defaults: Defaults,
        /// How much happens at once.
        parallel: Parallel,
    }
}

map! {
    /// How much happens at once.
    Parallel as "`parallel`" {
        ;
        /// Platforms that migrate at the same time (4).
        platforms: u64,
        /// Hosts that work at the same time (50).
        hosts: u64,
    }
}

layer! {
    /// What holds for all hosts unless a platform or a host says otherwise.
    Defaults as "`defaults`" {} ; {
        /// A runbook of the site's own, in place of the one that Caravan carries.
        runbook: Text,
    }
}

layer! {
    /// One Campaign deployment: its servers, its instances, its database.
    Platform as "a platform" {
        /// Its name; unique in the fleet.
        name: Text,
        /// How its servers are arranged, which decides the order.
        topology: Topology,
        /// Its servers: a list, or a map by name.
        hosts: Hosts,
        /// Its instances: names, or maps. A name alone is a marketing instance.
        instances: Vec<Spanned<InstanceEntry>>,
    } ; {
        /// Marks a test platform (false).
        rehearsal: bool,
        /// The database of its instances.
        database: Database,
        /// A runbook of the site's own, in place of the one that Caravan carries.
        runbook: Text,
        /// Changes to single steps of the runbook, by step name (`stop.nlserver`).
        overrides: Overrides,
        /// The site's own order of the roles in `migrate`, within the vendor's rules.
        order: Vec<Spanned<RoleWord>>,
        /// The site's own order of the roles in `restart`, within the vendor's rules.
        restart_order: Vec<Spanned<RoleWord>>,
    }
}

layer! {
    /// One server, or several with a range in the name (`trk[01-12].example.net`).
    Host as "a host" {
        /// What it is for.
        roles: Vec<Spanned<RoleWord>>,
    } ; {
        /// Its name; unique in the fleet. Left out where the hosts are a map by name.
        name: Text,
        /// Where SSH connects to, if that is not the name. Ranges go in step with those of the name.
        address: Text,
        /// Distribution and major version (`debian-11`, `rhel-8`, `windows`); asked from the host when left out.
        os: Text,
        /// The web server of a tracking server (`apache`; on Windows `iis`).
        web_server: WebServer,
        /// Where the host itself reaches its web server (`localhost:80`).
        web_address: Text,
        /// The web server's service name, if it is neither `apache2` (Debian) nor `httpd` (RHEL).
        web_service: Text,
        /// The directory of its configuration, if it is neither `/etc/apache2` (Debian) nor `/etc/httpd` (RHEL); `{host}` and
        /// `{platform}` stand for the names.
        web_config: Text,
        /// Its init system; asked from the host when left out.
        init: InitSystem,
        /// Reserved.
        replaces: Text,
    }
}

map! {
    /// How SSH reaches a host.
    Ssh as "`ssh`" {
        ;
        /// Login account; what ssh_config says, or the workstation's own account name, when left out.
        user: Text,
        /// Port (what ssh_config says, or 22).
        port: u64,
        /// Private key file, or several, tried in order.
        identity: OneOrMany<Spanned<Text>>,
        /// Where the login password is, for servers that want one.
        password: Secret,
        /// Jump host, `[USER@]HOST[:PORT]`.
        jump: Text,
        /// The host key that the host must have, `ssh-ed25519 AAAA...`: a pin.
        host_key: Text,
        /// known_hosts file, or several (`~/.ssh/known_hosts`).
        known_hosts: OneOrMany<Spanned<Text>>,
        /// Seconds until connecting gives up (what ssh_config says, or 15).
        connect_timeout: u64,
        /// The ssh_config file that fills in what is not said here: `none`, or a file instead of `~/.ssh/config` and the system's.
        config: Text,
        /// Allows algorithms of OpenSSH 5.3's age: `true` for all of them, or a list of those that the host needs (false).
        legacy: Legacy,
    }
}

map! {
    /// How Caravan becomes root on a host.
    Become as "`become`" {
        ;
        /// `sudo`, `doas`, `su` (with root's own password), or `none`: the login account is root (`ssh.user: root`), or it owns the
        /// installation and every step runs as it (sudo).
        method: BecomeMethod,
        /// Where the password is.
        password: Secret,
    }
}

map! {
    /// The Campaign installation on a host.
    Campaign as "`campaign`" {
        ;
        /// The directory that holds `nl6` (`/usr/local/neolane`); `{host}` and `{platform}` stand for the names.
        home: Text,
        /// The account that owns it (neolane).
        user: Text,
        /// Where the server itself answers SOAP calls, as seen from the host (`http://localhost:8080/nl/jsp/soaprouter.jsp`). A
        /// password is tried there by `passwords check --proof logon`.
        soap: Text,
    }
}

map! {
    /// The version that is installed before the migration.
    Source as "`source`" {
        ;
        /// 5.11, 6.02 or 6.1; 7 for an upgrade to a later build of v7.
        version: SourceVersion,
        /// The latest build of that version: it must be installed before migrating.
        latest_build: u64,
        /// Its packages, needed to go back.
        packages: Vec<Spanned<Package>>,
    }
}

map! {
    /// The version that shall be installed.
    Target as "`target`" {
        ;
        /// Version (`7.4.1`).
        version: Text,
        /// Build number (`9383`).
        build: u64,
        /// Its packages, one or more for each OS of the fleet.
        packages: Vec<Spanned<Package>>,
        /// The setup program of the client console (`setup-client-7.0.XXXX.exe`), which application servers offer to their users.
        client: ClientSetup,
    }
}

map! {
    /// Which backups are kept off the hosts, and where. They are encrypted before they leave a host.
    Keep as "`keep`" {
        ;
        /// `workstation`, or the name of a host of the fleet.
        to: Text,
        /// The directory on that host (`kept` in its `host_state`); `{host}` and `{platform}` stand for the names.
        dir: Text,
        /// What is kept: `installation`, `database` (both).
        of: Vec<Spanned<KeepOf>>,
        /// The most that a host sends in a second (`20MiB`); no limit when left out.
        limit: Text,
        /// The public keys of age, `age1...`, that copies are encrypted to: one, or several of which any opens them.
        encrypt_to: OneOrMany<Spanned<Text>>,
    }
}

map! {
    /// A package file: its place is a path of the workstation or a URL.
    Package as "a package" {
        /// The OS it is for (`debian-11`).
        os: Text,
        /// SHA-256 of the file, 64 hex digits.
        sha256: Text,
        ;
        /// Path on the workstation; relative paths start at the inventory's directory.
        path: Text,
        /// URL that each host downloads from.
        url: Text,
        /// Names of the packages that the file installs.
        names: Vec<Spanned<Text>>,
    }
}

map! {
    /// The setup program of the client console: its place is a path of the workstation or a URL.
    ClientSetup as "`client`" {
        /// SHA-256 of the file, 64 hex digits.
        sha256: Text,
        ;
        /// Path on the workstation; relative paths start at the inventory's directory.
        path: Text,
        /// URL that each application server downloads from.
        url: Text,
    }
}

map! {
    /// A database and how it is backed up.
    Database as "`database`" {
        ;
        /// The engine; a migration cannot change it.
        engine: Engine,
        /// The database server's address.
        server: Text,
        /// The database's name.
        name: Text,
        /// The account.
        user: Text,
        /// Where the password is.
        password: Secret,
        /// Whether it is a Unicode database.
        unicode: bool,
        /// How it is backed up.
        backup: Backup,
    }
}

map! {
    /// How a database is backed up: by Caravan (`on`, `dir`) or by somebody else (`by`).
    Backup as "`backup`" {
        ;
        /// The host of the platform that `pg_dump` runs on.
        on: Text,
        /// The directory on that host; `{host}` and `{platform}` stand for the names.
        dir: Text,
        /// `dba`: the plan waits until a person confirms the backup.
        by: BackupBy,
        /// With `by`: the file that is the backup, on the host `on`, which preflight looks at; `{host}` and `{platform}` stand for the
        /// names.
        path: Text,
        /// With `path`: the file's SHA-256 (that of the `.sha256` file beside it, where there is one).
        sha256: Text,
        /// With `path`: how old the file may be (`24h`).
        max_age: Text,
        /// With `path`: how large the file is at least (`200MiB`); not empty when left out.
        min_size: Text,
        /// A database that the dump is restored into, to show that it can be.
        scratch: Scratch,
    }
}

map! {
    /// A PostgreSQL database that a dump is restored into, to show that it can be. What was in it before is lost.
    Scratch as "`scratch`" {
        /// The address of its server.
        server: Text,
        /// Its name; no database of the fleet has it.
        name: Text,
        ;
        /// The account that owns it (that of the instance's database).
        user: Text,
        /// Where the password is (that of the instance's database).
        password: Secret,
    }
}

/// Who backs a database up.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub(crate) enum BackupBy {
    /// The database administrator.
    Dba,
}

map! {
    /// An instance.
    Instance as "an instance" {
        /// Its name, as in `config-<instance>.xml`.
        name: Text,
        ;
        /// What it does (marketing).
        kind: InstanceKind,
        /// The host that runs its postupgrade; the only host that could, when left out.
        app: Text,
        /// Its database; keys that are left out are those of the platform's.
        database: Database,
        /// Its time zone (`Europe/Paris`), which postupgrade needs from v5.
        timezone: Text,
        /// Whether its database shall keep several time zones from now on (false).
        timestamptz: bool,
    }
}

map! {
    /// A change to one step of the runbook.
    Override as "an override" {
        ;
        /// Runs this instead: a list of program and arguments, or a text with `shell: true`.
        command: CommandLine,
        /// Gives the command, a text, to `/bin/sh -c`.
        shell: bool,
        /// Whom the command runs as (`root`, an account, `login`).
        run_as: Text,
        /// How long the command may take (`90s`, `15m`, `2h`, or seconds).
        deadline: Text,
        /// Leaves the step out, for this reason.
        skip: Text,
        /// Extra steps before it.
        before: Vec<Spanned<SiteStep>>,
        /// Extra steps after it.
        after: Vec<Spanned<SiteStep>>,
    }
}

map! {
    /// A step that a site adds.
    SiteStep as "an extra step" {
        /// Its name.
        name: Text,
        /// A list of program and arguments, or a text with `shell: true`.
        command: CommandLine,
        ;
        /// Gives the command, a text, to `/bin/sh -c`.
        shell: bool,
        /// Whom it runs as (`root`, an account, `login`).
        run_as: Text,
        /// How long it may take (`90s`, `15m`, `2h`, or seconds).
        deadline: Text,
    }
}

/// Where a key belongs that stands in the wrong map.
pub(crate) fn elsewhere(key: &str) -> Option<&'static str> {
    Some(match key {
        "user" | "port" | "identity" | "jump" | "host_key" | "known_hosts" | "connect_timeout" | "legacy" | "config" => {
            "in `ssh: { ... }`"
        }
        "method" => "in `become: { ... }`",
        "home" | "soap" => "in `campaign: { ... }`",
        "of" | "encrypt_to" => "in `keep: { ... }`",
        "latest_build" => "in `source: { ... }`",
        "build" => "in `target: { ... }`",
        "engine" | "server" | "unicode" | "backup" => "in `database: { ... }`",
        "roles" | "address" | "os" | "web_server" | "web_address" | "web_service" | "web_config" | "init" => "on a host",
        "topology" | "instances" | "overrides" | "order" | "restart_order" | "rehearsal" | "hosts" => "on a platform",
        "ssh" | "become" | "campaign" | "host_state" | "source" | "target" | "keep" | "init_scripts" => {
            "in `defaults`, on a platform or on a host"
        }
        "runbook" => "in `defaults` or on a platform",
        "parallel" | "platforms" | "defaults" => "at the top of the file",
        _ => return None,
    })
}
