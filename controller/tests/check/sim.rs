//! Simulated hosts behind the seam: each answers questions as a healthy Campaign server does, unless a test says otherwise.

use controller::check::passwords::ProofKey;
use controller::check::{History, HostState, Limits, Migrated, Point, gather};
use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use hmac::{Hmac, KeyInit, Mac};
use inventory::*;
use proto::inspect::{
    Answer, FINGERPRINT_KEY, Fingerprint, LOGON_PASSWORD, LOGON_SINCE, Logon, PathKind, Query, ReadError, Reading, System, XmlValue,
};
use proto::{FromAgent, Secret, ToAgent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

pub(crate) const OLD: u32 = 8989;
pub(crate) const NEW: u32 = 9383;
/// The `internal` password of a healthy host.
pub(crate) const PASSWORD: &str = "typed-canary";
pub(crate) const HOME: &str = "/usr/local/neolane";

/// A platform with hosts of these roles; the first host is its application server.
pub(crate) fn platform(name: &str, topology: Topology, hosts: &[(&str, &[Role])]) -> Platform {
    let app = hosts[0].0.to_owned();
    let database = Database {
        engine: Engine::Postgresql,
        server: "db1".to_owned(),
        name: "campaign".to_owned(),
        user: "campaign".to_owned(),
        password: Some(SecretRef::Env("PGPASSWORD".to_owned())),
        unicode: Some(true),
        backup: Backup::On { on: app.clone(), dir: "/backup".to_owned(), scratch: None },
    };
    let instance = Instance {
        name: format!("{name}_prod"),
        kind: InstanceKind::Marketing,
        app,
        database: Some(database.clone()),
        timezone: None,
        timestamptz: false,
    };
    Platform {
        name: name.to_owned(),
        topology,
        rehearsal: false,
        runbook: None,
        database: Some(database),
        instances: vec![instance],
        hosts: hosts.iter().map(|(name, roles)| host(name, roles)).collect(),
        overrides: BTreeMap::new(),
        order: None,
        restart_order: None,
    }
}

pub(crate) fn host(name: &str, roles: &[Role]) -> Host {
    Host {
        name: name.to_owned(),
        address: name.to_owned(),
        os: Some("debian-11".to_owned()),
        roles: roles.to_vec(),
        web: Web { server: WebServer::Apache, address: "localhost:80".to_owned(), service: None, config: None },
        init: Some(InitSystem::Sysv),
        init_scripts: "/etc/init.d".to_owned(),
        ssh: Ssh {
            user: None,
            port: Some(22),
            identity: Vec::new(),
            jump: None,
            host_key: None,
            known_hosts: Vec::new(),
            connect_timeout: Some(10),
            config: Some("none".to_owned()),
            password: None,
            legacy: inventory::Legacy::none(),
        },
        become_: Become { method: BecomeMethod::Sudo, password: None },
        campaign: Campaign { home: HOME.to_owned(), user: "neolane".to_owned(), soap: inventory::Campaign::SOAP.to_owned() },
        host_state: "/var/lib/caravan".to_owned(),
        source: Source { version: SourceVersion::V6_1, latest_build: Some(OLD), packages: Vec::new() },
        target: Target { version: "7.4.1".to_owned(), build: NEW, packages: Vec::new(), client: None },
        keep: None,
        origins: BTreeMap::new(),
        place: String::new(),
    }
}

pub(crate) fn fleet(platforms: Vec<Platform>) -> Fleet {
    Fleet { name: "fleet".to_owned(), base: "/".into(), parallel: Parallel { platforms: 4, hosts: 50 }, platforms }
}

/// emea: one marketing, two mail and three tracking servers.
pub(crate) fn emea() -> Platform {
    platform(
        "emea",
        Topology::Standard,
        &[
            ("mkt1", &[Role::Marketing]),
            ("mta1", &[Role::Mta]),
            ("mta2", &[Role::Mta]),
            ("trk01", &[Role::Tracking]),
            ("trk02", &[Role::Tracking]),
            ("trk03", &[Role::Tracking]),
        ],
    )
}

/// How a host's agent behaves when it is talked to.
#[derive(Clone, Default, PartialEq)]
pub(crate) enum Manner {
    #[default]
    Answers,
    /// It cannot be opened.
    Refuses(OpenErrorKind),
    /// The link closes before the answer.
    HangsUp,
    /// It never opens.
    Hangs,
    /// It never answers.
    Silent,
    /// It says that it cannot go on.
    Fatal,
    /// It answers fewer questions than it was asked.
    Short,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum OpenErrorKind {
    Unreachable,
    HostKey,
    Authentication,
    Become,
    Agent,
}

/// One simulated host.
#[derive(Clone)]
pub(crate) struct SimHost {
    pub(crate) system: System,
    pub(crate) build: u32,
    /// What `nlserver pdump` says of the version.
    pub(crate) version: String,
    /// `internalPassword`; empty means that none is set.
    pub(crate) password: String,
    /// What its SOAP endpoint takes as the password; `None`: nothing listens there.
    pub(crate) accepts: Option<String>,
    /// The protocol that its agent speaks.
    pub(crate) protocol: u16,
    pub(crate) euid: u32,
    pub(crate) host_key: String,
    /// What of its connection nobody should use any more.
    pub(crate) outdated: Vec<String>,
    /// The clock's difference to the controller's.
    pub(crate) skew_ms: i64,
    pub(crate) manner: Manner,
    /// Answers that differ from a healthy host's, by question.
    pub(crate) answers: Vec<(Query, Reading)>,
}

impl SimHost {
    pub(crate) fn healthy(name: &str) -> Self {
        Self {
            system: System {
                os: "debian-11".to_owned(),
                os_like: "debian".to_owned(),
                kernel: "5.10.0".to_owned(),
                arch: "x86_64".to_owned(),
                systemd: true,
                clock_ms: 0,
                machine_id: format!("machine-of-{name}"),
                hostname: name.to_owned(),
                euid: 0,
            },
            build: OLD,
            version: "6.1".to_owned(),
            password: "stored-canary-equal".to_owned(),
            accepts: Some(PASSWORD.to_owned()),
            protocol: proto::PROTOCOL,
            euid: 0,
            host_key: format!("SHA256:{name}"),
            outdated: Vec::new(),
            skew_ms: 0,
            manner: Manner::Answers,
            answers: Vec::new(),
        }
    }

    /// Replaces the answers to the questions that `matches` selects.
    pub(crate) fn answer(&mut self, query: Query, reading: Reading) {
        self.answers.push((query, reading));
    }

    fn reading(&self, query: &Query, platform: &Platform, secrets: &BTreeMap<String, Secret>) -> Reading {
        if let Some((_, reading)) = self.answers.iter().rev().find(|(asked, _)| asked == query) {
            return reading.clone();
        }
        let conf = format!("{HOME}/nl6/conf");
        match query {
            Query::System => {
                let now = i64::try_from(now_ms()).unwrap();
                Ok(Answer::System(System { clock_ms: u64::try_from(now + self.skew_ms).unwrap(), ..self.system.clone() }))
            }
            Query::Packages { names, .. } => {
                let old = names.iter().filter(|name| !name.ends_with("-v7"));
                Ok(Answer::Packages(old.map(|name| (name.clone(), format!("6.1-{}", self.build))).collect()))
            }
            Query::Xml { file, attribute, .. } if file.ends_with("config-*.xml") => {
                let value = |instance: &Instance| {
                    let value = match attribute.as_str() {
                        "provider" => Some("postgresql"),
                        "unicodeData" => Some("1"),
                        "NChar" => Some("0"),
                        _ => None,
                    };
                    XmlValue { file: format!("{conf}/config-{}.xml", instance.name), value: value.map(str::to_owned) }
                };
                let mut values: Vec<XmlValue> = platform.instances.iter().map(value).collect();
                if attribute == "name" {
                    values.push(XmlValue { file: format!("{conf}/config-default.xml"), value: None });
                }
                Ok(Answer::Xml(values))
            }
            Query::Xml { file, .. } => Ok(Answer::Xml(vec![XmlValue { file: file.clone(), value: Some("u6F2A".to_owned()) }])),
            Query::Fingerprint { attribute, .. } if attribute == "trackingPassword" => {
                let key = secrets.get(FINGERPRINT_KEY).expect("a key").expose();
                Ok(Answer::Fingerprint(Fingerprint::Keyed(Secret::new(fingerprint(key, "tracking-canary")))))
            }
            Query::Fingerprint { .. } => match (self.password.as_str(), secrets.get(FINGERPRINT_KEY)) {
                ("", _) => Ok(Answer::Fingerprint(Fingerprint::Unset)),
                (_, None) => Err(ReadError::Failed("no key for fingerprints was sent".to_owned())),
                (password, Some(key)) => {
                    Ok(Answer::Fingerprint(Fingerprint::Keyed(Secret::new(fingerprint(key.expose(), password)))))
                }
            },
            Query::Space { .. } => Ok(Answer::Space { free: 50 << 30, inodes: 1_000_000 }),
            Query::Path { path } if path.ends_with(".back") => Ok(Answer::Path(PathKind::Absent)),
            Query::Path { .. } => Ok(Answer::Path(PathKind::Directory)),
            Query::File { path } => Err(ReadError::Missing(path.clone())),
            Query::Output { argv, .. } => {
                let text = match argv[0].rsplit('/').next().unwrap() {
                    "nlserver" => format!(
                        "Application Server for Adobe Campaign Version {} (build {}) of 01/02/2016\nmta@demo (7831) - 15.6 MB\n",
                        self.version, self.build
                    ),
                    "stat" => "1001 neolane\n".to_owned(),
                    "id" => "1001\n".to_owned(),
                    // 3 GiB, whatever is counted.
                    "du" => format!("{}\t{}\n", 3 << 20, argv.last().expect("a tree")),
                    "pg_dump" => "pg_dump (PostgreSQL) 13.4\n".to_owned(),
                    // The statement is the last word.
                    "psql" if argv.last().is_some_and(|sql| sql.contains("xtkoption")) => "database-id|u6F2A\n".to_owned(),
                    "psql" if argv.last().is_some_and(|sql| sql.contains("xtkoperator")) => "columns|1\noperators|12\n".to_owned(),
                    "psql" => "version|13.4\nencoding|UTF8\nsize|4000000000\n".to_owned(),
                    other => return Err(ReadError::Missing(other.to_owned())),
                };
                Ok(Answer::Output { code: 0, text })
            }
            Query::Processes { .. } => Ok(Answer::Processes(Vec::new())),
            Query::Logon { url, account } => {
                assert_eq!(account, "internal");
                let typed = secrets.get(LOGON_PASSWORD).expect("the password to try");
                match &self.accepts {
                    Some(password) if password == typed.expose() => Ok(Answer::Logon(Logon::Accepted)),
                    Some(_) => Ok(Answer::Logon(Logon::Refused("Invalid login or password".to_owned()))),
                    None => Err(ReadError::Failed(format!("{url}: Connection refused (os error 111)"))),
                }
            }
        }
    }
}

/// What an agent makes of a stored value: HMAC-SHA-256, lower-case hex.
pub(crate) fn fingerprint(key_hex: &str, value: &str) -> String {
    let key: Vec<u8> = (0..key_hex.len()).step_by(2).map(|at| u8::from_str_radix(&key_hex[at..at + 2], 16).unwrap()).collect();
    assert_eq!(key.len(), 32, "the key has 256 bits");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(value.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A fleet of simulated hosts.
pub(crate) struct Sim {
    platforms: Vec<Platform>,
    pub(crate) hosts: BTreeMap<String, SimHost>,
    /// Every host that was opened, with whether root was asked for.
    pub(crate) opened: Mutex<Vec<(String, bool)>>,
    /// Links that are open now, and the most that were open at once.
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) most_open: AtomicUsize,
    /// Every message that the agents received, without the secrets' values.
    pub(crate) received: Arc<Mutex<Vec<String>>>,
}

impl Sim {
    pub(crate) fn new(platforms: &[Platform]) -> Self {
        let hosts = platforms.iter().flat_map(|platform| &platform.hosts);
        Self {
            platforms: platforms.to_vec(),
            hosts: hosts.map(|host| (host.name.clone(), SimHost::healthy(&host.name))).collect(),
            opened: Mutex::default(),
            open: Arc::default(),
            most_open: AtomicUsize::new(0),
            received: Arc::default(),
        }
    }

    /// The same hosts in other platforms.
    pub(crate) fn of(self, platforms: &[Platform]) -> Self {
        Self { platforms: platforms.to_vec(), ..self }
    }

    pub(crate) fn at(&mut self, host: &str) -> &mut SimHost {
        self.hosts.get_mut(host).unwrap()
    }

    /// Asks all hosts.
    pub(crate) fn gather(self, when: Point) -> BTreeMap<String, HostState> {
        let fleet = fleet(self.platforms.clone());
        let selected = names(&fleet);
        let limits = Limits { open: Duration::from_secs(5), answer: Duration::from_secs(5), hosts: 50 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(gather(&Arc::new(self), &fleet, &selected, when, (&ProofKey::new().unwrap(), &BTreeMap::new()), limits))
    }
}

pub(crate) fn names(fleet: &Fleet) -> BTreeSet<String> {
    fleet.platforms.iter().flat_map(|platform| platform.hosts.iter().map(|host| host.name.clone())).collect()
}

impl Hosts for Sim {
    async fn open(&self, name: &str, root: bool) -> Result<Link, OpenError> {
        self.opened.lock().unwrap().push((name.to_owned(), root));
        let sim = self.hosts[name].clone();
        if let Manner::Refuses(kind) = sim.manner {
            return Err(refusal(name, kind));
        }
        if sim.manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        let platform = self.platforms.iter().find(|platform| platform.host(name).is_some()).unwrap().clone();
        let now_open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(now_open, Ordering::SeqCst);
        let (to, inbox) = mpsc::channel(1);
        let (outbox, from) = mpsc::channel(1);
        let agent = AgentHello {
            protocol: sim.protocol,
            version: "0.1.0".to_owned(),
            boot_id: "boot".to_owned(),
            euid: sim.euid,
            user: if sim.euid == 0 { "root".to_owned() } else { "ops".to_owned() },
            host_key: sim.host_key.clone(),
            outdated: sim.outdated.clone(),
        };
        let (open, received) = (Arc::clone(&self.open), Arc::clone(&self.received));
        tokio::spawn(async move {
            serve(sim, platform, inbox, outbox, received).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(Link { agent, to, from })
    }
}

async fn serve(
    sim: SimHost,
    platform: Platform,
    mut inbox: mpsc::Receiver<Outgoing>,
    outbox: mpsc::Sender<Incoming>,
    received: Arc<Mutex<Vec<String>>>,
) {
    let mut secrets = BTreeMap::new();
    while let Some(Outgoing::Message(message)) = inbox.recv().await {
        received.lock().unwrap().push(format!("{message:?}").chars().take_while(|c| c.is_alphanumeric()).collect());
        match message {
            ToAgent::Secrets { values } => secrets = values,
            ToAgent::Inspect { id, queries, .. } => {
                let logon = queries.iter().any(|query| matches!(query, Query::Logon { .. }));
                assert!(!logon || sim.protocol >= LOGON_SINCE, "an older agent was asked what it cannot know");
                assert_eq!(secrets.contains_key(LOGON_PASSWORD), logon, "the password goes where it is tried, and nowhere else");
                let mut readings: Vec<Reading> = queries.iter().map(|query| sim.reading(query, &platform, &secrets)).collect();
                // A real link is not instant: it gives others the time to be open as well.
                tokio::time::sleep(Duration::from_millis(5)).await;
                let answer = match sim.manner {
                    Manner::Silent => continue,
                    Manner::HangsUp => Incoming::Closed { reason: "connection reset by peer".to_owned() },
                    Manner::Fatal => Incoming::Message(FromAgent::Fatal { message: "no space left in /tmp".to_owned() }),
                    Manner::Short => {
                        readings.pop();
                        Incoming::Message(FromAgent::Inspected { id, readings })
                    }
                    Manner::Answers | Manner::Hangs | Manner::Refuses(_) => {
                        Incoming::Message(FromAgent::Inspected { id, readings })
                    }
                };
                let _ = outbox.send(answer).await;
            }
            _ => {}
        }
    }
}

fn refusal(host: &str, kind: OpenErrorKind) -> OpenError {
    let (host, next) = (host.to_owned(), "Look at it.".to_owned());
    match kind {
        OpenErrorKind::Unreachable => OpenError::Unreachable { host, seen: "connection refused (10.1.0.5:22)".to_owned(), next },
        OpenErrorKind::HostKey => OpenError::HostKey { host, seen: "its key changed".to_owned(), next },
        OpenErrorKind::Authentication => OpenError::Authentication { host, seen: "publickey was tried".to_owned(), next },
        OpenErrorKind::Become => OpenError::Become { host, seen: "sudo wants a password".to_owned(), next },
        OpenErrorKind::Agent => OpenError::Agent { host, seen: "exit 126".to_owned(), next },
    }
}

/// The record of a workstation from which the migration was rehearsed.
pub(crate) fn rehearsed() -> History {
    let migrated = |source: &str| Migrated {
        run: "2026-11-14-k3".to_owned(),
        platform: "dev".to_owned(),
        rehearsal: true,
        topology: Topology::Standard,
        source: source.to_owned(),
        target: format!("v7.4.1 ({NEW})"),
        took: Duration::from_secs(6720),
        postupgrades: BTreeMap::new(),
    };
    History { migrated: ["v5.11", "v6.02", "v6.1"].map(migrated).to_vec(), ..History::default() }
}
