//! Fleets for the tests of the plan, built by hand: no inventory file is read.

use controller::plan::{self, FileCheck, Plan, PlanErrors};
use inventory::*;
use proto::Query;
use std::collections::BTreeMap;

pub(crate) const OLD_SHA: &str = "1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const DEB_SHA: &str = "2222222222222222222222222222222222222222222222222222222222222222";
pub(crate) const RPM_SHA: &str = "3333333333333333333333333333333333333333333333333333333333333333";
pub(crate) const CLIENT_SHA: &str = "4444444444444444444444444444444444444444444444444444444444444444";

/// What preflight asks in these tests.
pub(crate) fn queries(_: &Platform, host: &Host, _: plan::Phase) -> Vec<Query> {
    vec![Query::System, Query::Processes { under: host.campaign.home.clone() }]
}

/// Plans without looking for package files.
pub(crate) fn plan(fleet: &Fleet) -> Result<Plan, PlanErrors> {
    plan::build_with(fleet, &queries, FileCheck::Optional)
}

pub(crate) fn fleet(platforms: Vec<Platform>) -> Fleet {
    Fleet { name: "fleet".into(), base: "/nonexistent".into(), parallel: Parallel { platforms: 4, hosts: 50 }, platforms }
}

pub(crate) fn host(name: &str, roles: &[Role]) -> Host {
    let package = |os: &str, location: Location, sha256: &str, names: &[&str]| Package {
        os: os.into(),
        location,
        sha256: sha256.into(),
        names: names.iter().map(ToString::to_string).collect(),
    };
    Host {
        name: name.into(),
        address: name.into(),
        os: Some("debian-11".into()),
        roles: roles.to_vec(),
        web: Web { server: WebServer::Apache, address: "localhost:80".into(), service: None, config: None },
        init: Some(InitSystem::Systemd),
        init_scripts: "/etc/init.d".into(),
        ssh: Ssh {
            user: Some("ops".into()),
            port: Some(22),
            identity: vec![],
            jump: None,
            host_key: None,
            known_hosts: vec![],
            connect_timeout: Some(10),
            config: Some("none".to_owned()),
            password: None,
            legacy: inventory::Legacy::none(),
        },
        become_: Become { method: BecomeMethod::Sudo, password: Some(SecretRef::Prompt) },
        campaign: Campaign {
            home: "/usr/local/neolane".into(),
            user: "neolane".into(),
            soap: inventory::Campaign::SOAP.to_owned(),
        },
        host_state: "/var/lib/caravan".into(),
        source: Source {
            version: SourceVersion::V6_1,
            latest_build: Some(8989),
            packages: vec![package(
                "debian-11",
                Location::Path("old/nlserver6_8989_amd64.deb".into()),
                OLD_SHA,
                &["nlserver6", "nlthirdparty6"],
            )],
        },
        target: Target {
            version: "7.4.1".into(),
            build: 9383,
            packages: vec![
                package("debian-11", Location::Path("nlserver6-v7-9383-amd64_deb11.deb".into()), DEB_SHA, &[]),
                package(
                    "rhel-8",
                    Location::Url("https://packages.example.net/nlserver6-v7-9383-0.x86_64.rpm".into()),
                    RPM_SHA,
                    &[],
                ),
            ],
            client: None,
        },
        keep: None,
        origins: BTreeMap::new(),
        place: String::new(),
    }
}

pub(crate) fn rhel(mut host: Host) -> Host {
    host.os = Some("rhel-8".into());
    host
}

pub(crate) fn sysv(mut host: Host) -> Host {
    host.init = Some(InitSystem::Sysv);
    host
}

pub(crate) fn windows(mut host: Host) -> Host {
    host.os = Some("windows".into());
    host.init = None;
    host.web.server = WebServer::Iis;
    host
}

pub(crate) fn database(name: &str, backup: Backup) -> Database {
    Database {
        engine: Engine::Postgresql,
        server: "db1".into(),
        name: name.into(),
        user: "campaign".into(),
        password: Some(SecretRef::File("db.pw".into())),
        unicode: Some(true),
        backup,
    }
}

pub(crate) fn on(host: &str) -> Backup {
    Backup::On { on: host.into(), dir: "/backup".into(), scratch: None }
}

/// Gives an instance whose database Caravan backs up another one, which the dump is restored into.
pub(crate) fn add_scratch(instance: &mut Instance, own_password: Option<SecretRef>) {
    if let Some(Database { backup: Backup::On { scratch, .. }, .. }) = &mut instance.database {
        let (server, name, user) = ("scratch1".into(), "tried".into(), "tester".into());
        *scratch = Some(Scratch { server, name, user, password: own_password });
    }
}

pub(crate) fn instance(name: &str, kind: InstanceKind, app: &str, backup: Backup) -> Instance {
    Instance {
        name: name.into(),
        kind,
        app: app.into(),
        database: Some(database(name, backup)),
        timezone: None,
        timestamptz: false,
    }
}

pub(crate) fn platform(name: &str, topology: Topology, hosts: Vec<Host>, instances: Vec<Instance>) -> Platform {
    Platform {
        name: name.into(),
        topology,
        rehearsal: false,
        runbook: None,
        database: None,
        instances,
        hosts,
        overrides: BTreeMap::new(),
        order: None,
        restart_order: None,
    }
}

pub(crate) fn standalone() -> Platform {
    let hosts = vec![host("solo", &[Role::Marketing, Role::Mta, Role::Tracking])];
    platform("solo", Topology::Standalone, hosts, vec![instance("solo_prod", InstanceKind::Marketing, "solo", on("solo"))])
}

/// One marketing server, mail and tracking servers, a database server; Debian and RHEL.
pub(crate) fn standard() -> Platform {
    let mut hosts = vec![host("mkt1", &[Role::Marketing])];
    hosts.extend(["mta1", "mta2", "mta3"].map(|name| host(name, &[Role::Mta])));
    hosts.extend(["trk01", "trk02"].map(|name| host(name, &[Role::Tracking])));
    hosts.extend(["trk03", "trk04"].map(|name| sysv(rhel(host(name, &[Role::Tracking])))));
    hosts.push(host("db1", &[Role::Database]));
    platform("emea", Topology::Standard, hosts, vec![instance("emea_prod", InstanceKind::Marketing, "mkt1", on("db1"))])
}

/// With a mid-sourcing server; the databases are the DBA's.
pub(crate) fn cloud_messaging() -> Platform {
    let hosts = vec![
        host("cm-mkt", &[Role::Marketing]),
        host("cm-mid", &[Role::MidSourcing]),
        host("cm-trk1", &[Role::Tracking]),
        host("cm-trk2", &[Role::Tracking]),
    ];
    let instances = vec![
        instance("cm_prod", InstanceKind::Marketing, "cm-mkt", Backup::ByDba),
        instance("cm_mid", InstanceKind::MidSourcing, "cm-mid", Backup::ByDba),
    ];
    platform("cloud", Topology::CloudMessaging, hosts, instances)
}

pub(crate) fn power_booster() -> Platform {
    let hosts = vec![
        host("pb-mkt", &[Role::Marketing]),
        host("pb-exec", &[Role::PowerBooster]),
        host("pb-mta", &[Role::Mta]),
        host("pb-trk", &[Role::Tracking]),
    ];
    let instances = vec![
        instance("pb_prod", InstanceKind::Marketing, "pb-mkt", on("pb-mkt")),
        instance("pb_exec", InstanceKind::Execution, "pb-exec", on("pb-exec")),
    ];
    platform("booster", Topology::PowerBooster, hosts, instances)
}

pub(crate) fn power_cluster() -> Platform {
    let hosts = vec![
        host("pc-mkt1", &[Role::Marketing]),
        host("pc-mkt2", &[Role::Marketing]),
        host("pc-exec1", &[Role::PowerCluster]),
        host("pc-exec2", &[Role::PowerCluster]),
        host("pc-trk1", &[Role::Tracking]),
        host("pc-trk2", &[Role::Tracking]),
    ];
    let instances = vec![
        instance("pc_prod", InstanceKind::Marketing, "pc-mkt1", on("pc-mkt1")),
        instance("pc_exec1", InstanceKind::Execution, "pc-exec1", on("pc-exec1")),
        instance("pc_exec2", InstanceKind::Execution, "pc-exec2", on("pc-exec2")),
    ];
    platform("cluster", Topology::PowerCluster, hosts, instances)
}

/// Standard, with a marketing server on Windows.
pub(crate) fn with_windows() -> Platform {
    let hosts = vec![
        windows(host("win-mkt", &[Role::Marketing])),
        host("win-mta", &[Role::Mta]),
        windows(host("win-trk", &[Role::Tracking])),
        host("lin-trk", &[Role::Tracking]),
    ];
    platform("redmond", Topology::Standard, hosts, vec![instance("win_prod", InstanceKind::Marketing, "win-mkt", Backup::ByDba)])
}

/// The documented front servers (mail and tracking), and a marketing server that is also a tracking server.
pub(crate) fn several_roles() -> Platform {
    let hosts = vec![
        host("all1", &[Role::Marketing, Role::Tracking]),
        host("front1", &[Role::Mta, Role::Tracking]),
        host("front2", &[Role::Mta, Role::Tracking]),
    ];
    platform("mixed", Topology::Standard, hosts, vec![instance("mixed_prod", InstanceKind::Marketing, "all1", on("all1"))])
}

/// A platform as it would be if it came from another version.
pub(crate) fn coming_from(version: SourceVersion, platform: Platform) -> Platform {
    let name = format!("{}-{}", platform.name, version.as_str());
    Platform { name, ..from_version(version, platform) }
}

/// As [`coming_from`], under the same name.
pub(crate) fn from_version(version: SourceVersion, mut platform: Platform) -> Platform {
    let names: &[&str] = match version {
        SourceVersion::V5_11 => &["nlserver5", "nlthirdparty5"],
        SourceVersion::V6_02 | SourceVersion::V6_1 => &["nlserver6", "nlthirdparty6"],
        SourceVersion::V7 => &["nlserver6-v7"],
    };
    for host in &mut platform.hosts {
        host.source.version = version;
        for package in &mut host.source.packages {
            package.names = names.iter().map(ToString::to_string).collect();
        }
    }
    for instance in &mut platform.instances {
        instance.timezone = (version == SourceVersion::V5_11).then(|| "Europe/Paris".to_owned());
    }
    platform
}

/// With the setup of the client console.
pub(crate) fn with_client(location: Location, mut platform: Platform) -> Platform {
    for host in &mut platform.hosts {
        let location = location.clone();
        host.target.client = Some(Package { os: "windows".into(), location, sha256: CLIENT_SHA.into(), names: vec![] });
    }
    platform
}

pub(crate) fn command(argv: &[&str]) -> SiteCommand {
    SiteCommand { argv: argv.iter().map(ToString::to_string).collect(), run_as: None, deadline_s: None }
}

/// Standard, with every kind of override.
pub(crate) fn overridden() -> Platform {
    let mut platform = standard();
    let step = |name: &str, argv: &[&str]| SiteStep { name: name.into(), command: command(argv) };
    platform.overrides = BTreeMap::from([
        ("stop.nlserver".to_owned(), Override { command: Some(command(&["systemctl", "stop", "nlserver"])), ..Default::default() }),
        (
            "install.packages".to_owned(),
            Override {
                before: vec![step("site.snapshot", &["/opt/site/snapshot", "{host}"])],
                after: vec![step("site.tell", &["/bin/sh", "-c", "logger {migrated}"])],
                ..Default::default()
            },
        ),
        ("backup.archive".to_owned(), Override { skip: Some("the storage makes snapshots".to_owned()), ..Default::default() }),
        (
            "start.inMail".to_owned(),
            Override {
                command: Some(SiteCommand {
                    run_as: Some("root".into()),
                    deadline_s: Some(5),
                    ..command(&["/opt/site/inmail", "{instance}"])
                }),
                ..Default::default()
            },
        ),
    ]);
    platform
}

/// A public key of age.
pub(crate) const AGE_KEY: &str = "age1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0savhh7m";

/// Has all backups of a platform kept off its hosts.
pub(crate) fn keeping(to: KeepAt, mut platform: Platform) -> Platform {
    let of = vec![KeepOf::Installation, KeepOf::Database];
    let keep = Keep { to, of, limit: Some(20 << 20), encrypt_to: vec![AGE_KEY.into()] };
    platform.hosts.iter_mut().for_each(|host| host.keep = Some(keep.clone()));
    platform
}
