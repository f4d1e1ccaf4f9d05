//! The real agent on a stand-in installation: that it understands every question, and that its answers mean what we take them for.

use crate::check::sim::{self, NEW, OLD, platform};
use controller::check::passwords::ProofKey;
use controller::check::{HostState, Limits, Point, evaluate, gather, queries};
use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use controller::ssh::AGENTS;
use inventory::{BecomeMethod, Platform, Role, Topology};
use proto::event::{Finding, Status};
use proto::frame::{self, Decoder, Frame, MAGIC};
use proto::{FromAgent, ToAgent};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Mutex, mpsc};

/// One test at a time: a process that is forked while another test writes a program holds that file open, and it cannot be run.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Hosts whose agent is a process of this machine.
struct Local(PathBuf);

impl Hosts for Local {
    async fn open(&self, _host: &str, _root: bool) -> Result<Link, OpenError> {
        let mut child = Command::new(&self.0)
            .arg("bridge")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the agent starts");
        let hello = ToAgent::Hello { protocol: proto::PROTOCOL, oldest: proto::PROTOCOL_OLDEST, version: "test".to_owned() };
        send(&mut child, &hello).await;
        let mut output = child.stdout.take().expect("a pipe");
        let mut magic = vec![0; MAGIC.len()];
        output.read_exact(&mut magic).await.expect("the magic");
        assert_eq!(magic, MAGIC);
        let mut decoder = Decoder::new();
        let Some(FromAgent::Hello { protocol, version, boot_id, euid, user }) = receive(&mut output, &mut decoder).await else {
            panic!("no hello")
        };
        let agent = AgentHello { protocol, version, boot_id, euid, user, host_key: String::new(), outdated: Vec::new() };
        let (to, mut outgoing) = mpsc::channel(4);
        let (incoming, from) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = outgoing.recv() => match message {
                        Some(Outgoing::Message(message)) => send(&mut child, &message).await,
                        Some(Outgoing::Data { .. }) => {}
                        None => break,
                    },
                    message = receive(&mut output, &mut decoder) => match message {
                        Some(message) => drop(incoming.send(Incoming::Message(message)).await),
                        None => break,
                    },
                }
            }
            let _ = incoming.send(Incoming::Closed { reason: "the agent ended".to_owned() }).await;
        });
        Ok(Link { agent, to, from })
    }
}

async fn send(child: &mut Child, message: &ToAgent) {
    let bytes = Frame::message(message).unwrap().encode();
    child.stdin.as_mut().unwrap().write_all(&bytes).await.unwrap();
}

async fn receive(output: &mut ChildStdout, decoder: &mut Decoder) -> Option<FromAgent> {
    loop {
        if let Some(Frame::Control(payload)) = decoder.next_frame().unwrap() {
            return Some(frame::parse(&payload).unwrap());
        }
        let mut piece = [0; 4096];
        match output.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => decoder.push(&piece[..length]),
        }
    }
}

/// A stand-in installation as the conventions of the lab have it, and a platform that describes it.
fn installation(dir: &TempDir) -> Platform {
    let home = dir.path().join("neolane");
    let conf = home.join("nl6/conf");
    fs::create_dir_all(&conf).unwrap();
    fs::create_dir_all(home.join("nl6/bin")).unwrap();
    fs::create_dir_all(dir.path().join("init.d")).unwrap();
    let server = r#"<?xml version='1.0'?>
<serverconf><shared><authentication><xtk internalPassword="stored-canary"/></authentication></shared>
<redirection databaseId="u6F2A" trackingPassword="canary-too"/></serverconf>"#;
    let instance = r#"<serverconf><shared><dataStore><dataSource name="default">
<dbcnx NChar="0" provider="PostgreSQL" server="db" login="c" unicodeData="1"/></dataSource></dataStore></shared></serverconf>"#;
    fs::write(conf.join("serverConf.xml"), server).unwrap();
    fs::write(conf.join("config-solo_prod.xml"), instance).unwrap();
    fs::write(conf.join("config-default.xml"), "<serverconf><shared/><web autoStart='true'/></serverconf>").unwrap();
    fs::write(home.join("nl6/env.sh"), format!("BUILD={OLD}; export BUILD\n")).unwrap();
    let program = "#!/bin/sh\necho \"12:00:00 > Application Server for Adobe Campaign Version 6.1 (build $BUILD) of 01/02/2016\"\necho 'web@default (77) - 15.6 MB'\n";
    script(&home.join("nl6/bin/nlserver"), program);
    let mut platform = platform("solo", Topology::Standalone, &[("solo1", &[Role::Marketing, Role::Tracking])]);
    let host = &mut platform.hosts[0];
    host.os = None;
    host.become_.method = BecomeMethod::None;
    host.campaign.home = home.display().to_string();
    host.init_scripts = dir.path().join("init.d").display().to_string();
    host.host_state = dir.path().join("state").display().to_string();
    platform
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn agent(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("caravan-agent");
    if path.exists() {
        return path;
    }
    fs::write(&path, AGENTS.first().expect("this build carries an agent").unpack().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn ask(dir: &TempDir, platform: &Platform, when: Point) -> BTreeMap<String, HostState> {
    let fleet = sim::fleet(vec![platform.clone()]);
    let hosts = Arc::new(Local(agent(dir)));
    let databases = BTreeMap::from([(("solo".to_owned(), "database/solo_prod".to_owned()), proto::Secret::new("db-canary"))]);
    gather(&hosts, &fleet, &sim::names(&fleet), when, (&ProofKey::new().unwrap(), &databases), Limits::of(&fleet)).await
}

fn status(findings: &[Finding], id: &str) -> (Status, String) {
    let finding = findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id} is missing"));
    (finding.status, format!("{finding:#?}"))
}

#[tokio::test]
async fn the_agent_answers_what_the_checks_ask() {
    let _alone = ALONE.lock().await;
    let dir = TempDir::new().unwrap();
    let platform = installation(&dir);
    let states = ask(&dir, &platform, Point::Preflight).await;
    let reached = states["solo1"].reached().unwrap_or_else(|| panic!("{states:?}"));
    // What this machine lacks (packages, pg_dump) may be missing; nothing may be misunderstood.
    for query in queries(&platform, &platform.hosts[0], Point::Preflight) {
        if let Err(error) = reached.readings.get(&query) {
            assert!(matches!(error, proto::inspect::ReadError::Missing(_)), "{query:?}: {error}");
        }
    }
    let findings = evaluate(&platform, &states, Point::Preflight, &sim::rehearsed());
    for id in [
        "version@solo1",
        "running@solo1",
        "instance-config@solo1",
        "back-tree-absent@solo1",
        "campaign-user@solo1",
        "clock@solo1",
        "dbms@solo/solo_prod",
        "unicode@solo/solo_prod",
        "internal-password@solo",
        "builds-equal@solo",
    ] {
        let (status, text) = status(&findings, id);
        assert_eq!(status, Status::Ok, "{text}");
    }
    let shown = format!("{findings:?} {states:?}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn what_is_missing_there_is_seen_as_missing() {
    let _alone = ALONE.lock().await;
    let dir = TempDir::new().unwrap();
    let platform = installation(&dir);
    let home = dir.path().join("neolane");
    fs::create_dir(home.join("nl6.back")).unwrap();
    fs::remove_file(home.join("nl6/conf/config-solo_prod.xml")).unwrap();
    fs::write(
        home.join("nl6/conf/serverConf.xml"),
        "<serverconf><shared><authentication><xtk internalPassword=''/></authentication></shared></serverconf>",
    )
    .unwrap();
    let findings = evaluate(&platform, &ask(&dir, &platform, Point::Preflight).await, Point::Preflight, &sim::rehearsed());
    for (id, expected) in [
        ("back-tree-absent@solo1", Status::Failure),
        ("instance-config@solo1", Status::Failure),
        ("dbms@solo/solo_prod", Status::Unknown),
        ("internal-password@solo", Status::Failure),
    ] {
        let (status, text) = status(&findings, id);
        assert_eq!(status, expected, "{text}");
    }
    fs::remove_dir_all(home.join("nl6")).unwrap();
    let findings = evaluate(&platform, &ask(&dir, &platform, Point::Preflight).await, Point::Preflight, &sim::rehearsed());
    for (id, expected) in [
        ("version@solo1", Status::Failure),
        ("instance-config@solo1", Status::Failure),
        ("internal-password@solo", Status::Unknown),
    ] {
        let (status, text) = status(&findings, id);
        assert_eq!(status, expected, "{text}");
    }
}

#[tokio::test]
async fn the_new_build_is_proven_where_it_is_installed() {
    let _alone = ALONE.lock().await;
    let dir = TempDir::new().unwrap();
    let platform = installation(&dir);
    fs::write(dir.path().join("neolane/nl6/env.sh"), format!("BUILD={NEW}; export BUILD\n")).unwrap();
    let findings = evaluate(&platform, &ask(&dir, &platform, Point::Verify).await, Point::Verify, &sim::rehearsed());
    assert!(findings.iter().all(|finding| finding.status == Status::Ok), "{findings:#?}");
}
