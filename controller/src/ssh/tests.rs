//! Logging in by password and becoming root, against a small SSH server that lets in whom a test says and runs what it is told with a
//! `sudo` of our own.

mod bastion;

use super::*;
use crate::hosts::Incoming;
use inventory::{
    Become, Campaign, Platform, Role, SecretRef, Source, SourceVersion, Ssh, Target as Version, Topology, Web, WebServer,
};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, MethodKind, MethodSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Behaves as the file `mode` beside it says; the password is `right`.
const SUDO: &str = r#"#!/bin/sh
mode=$(cat "${0%/*}/mode")
case "$mode" in
tty) echo "sudo: sorry, you must have a tty to run sudo" >&2; exit 1;;
sudoers) echo "ops is not in the sudoers file.  This incident will be reported." >&2; exit 1;;
command) echo "Sorry, user ops is not allowed to execute '/bin/sh -c x' as root on mkt1." >&2; exit 1;;
esac
if [ "$1" = -n ]; then
    if [ "$mode" = password ]; then echo "sudo: a password is required" >&2; exit 1; fi
    shift 2
else
    prompt=$3
    shift 4
    if [ "$mode" = password ]; then
        echo "We trust you have received the usual lecture" >&2
        printf %s "$prompt" >&2
        IFS= read -r answer
        while [ "$answer" != right ]; do
            echo "Sorry, try again." >&2
            printf %s "$prompt" >&2
            IFS= read -r answer || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
        done
    fi
fi
SUDO_UID=1000 exec "$@"
"#;

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDLZx1iDbSbH2klclCi2LejVQ/vGbrnXPmsRMv4oiQmHwAAAIjASWs/wElr
PwAAAAtzc2gtZWQyNTUxOQAAACDLZx1iDbSbH2klclCi2LejVQ/vGbrnXPmsRMv4oiQmHw
AAAEDelqNiPtFYAm93YWqn82nPdLUJTdfYA0Yakk89AVkyVctnHWINtJsfaSVyUKLYt6NV
D+8Zuudc+axEy/iiJCYfAAAABHRlc3QB
-----END OPENSSH PRIVATE KEY-----
";

struct Anybody {
    path: String,
    /// Whom it lets in: everybody with a key, or as this file says.
    login: PathBuf,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Anybody {
    /// `password`, `questions`, `key-and-code`; anything else: every key.
    fn wants(&self, what: &str) -> bool {
        std::fs::read_to_string(&self.login).is_ok_and(|login| login == what)
    }

    /// One more try is noted down, with what was tried.
    fn note(&self, tried: &str) {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(self.login.with_extension("tried")).unwrap();
        writeln!(file, "{tried}").unwrap();
    }
}

fn no(methods: &[MethodKind], partial: bool) -> Auth {
    Auth::Reject { proceed_with_methods: Some(MethodSet::from(methods)), partial_success: partial }
}

impl Handler for Anybody {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(match self.wants("password") {
            true => no(&[MethodKind::Password], false),
            false if self.wants("questions") => no(&[MethodKind::KeyboardInteractive], false),
            false => no(&[MethodKind::PublicKey], false),
        })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.note("password");
        Ok(if password == "right" { Auth::Accept } else { no(&[MethodKind::Password], false) })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let prompts = match self.wants("key-and-code") {
            true => vec![("Code: ".into(), true)],
            false => vec![("Password: ".into(), false)],
        };
        let Some(answers) = response else {
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() });
        };
        self.note("questions");
        let answers: Vec<String> = answers.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
        Ok(if answers == ["right"] { Auth::Accept } else { no(&[MethodKind::KeyboardInteractive], false) })
    }

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(match self.wants("key-and-code") {
            true => no(&[MethodKind::KeyboardInteractive], true),
            false if self.wants("password") => no(&[MethodKind::Password], false),
            false if self.wants("questions") => no(&[MethodKind::KeyboardInteractive], false),
            false => Auth::Accept,
        })
    }

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(String::from_utf8_lossy(command).into_owned())
            .env("PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (mut read, write) = channel.split();
        let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        tokio::spawn(async move {
            while let Some(message) = read.wait().await {
                match (message, &mut stdin) {
                    (ChannelMsg::Data { data }, Some(stdin)) => drop(stdin.write_all(&data).await),
                    (ChannelMsg::Eof, _) => stdin = None,
                    _ => {}
                }
            }
        });
        tokio::spawn(async move {
            let (mut out, mut err) = ([0; 4096], [0; 4096]);
            let (mut more_out, mut more_err) = (true, true);
            while more_out || more_err {
                tokio::select! {
                    length = stdout.read(&mut out), if more_out => match length {
                        Ok(length) if length > 0 => drop(write.data_bytes(out[..length].to_vec()).await),
                        _ => more_out = false,
                    },
                    length = stderr.read(&mut err), if more_err => match length {
                        Ok(length) if length > 0 => drop(write.extended_data_bytes(1, err[..length].to_vec()).await),
                        _ => more_err = false,
                    },
                }
            }
            let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(255);
            let _ = write.exit_status(code.try_into().unwrap_or(255)).await;
            let _ = write.close().await;
        });
        Ok(())
    }
}

/// A directory with the stand-in, a server on a loopback port, and the fleet's only host.
struct World {
    dir: tempfile::TempDir,
    address: SocketAddr,
    key: String,
}

impl World {
    async fn new(with_sudo: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("id"), KEY).unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        // A PATH without the machine's own sudo.
        for program in ["cat", "chmod", "cp", "env", "gzip", "head", "id", "ls", "mkdir", "mv", "rm", "sh", "sha256sum", "uname"] {
            let found = ["/usr/bin", "/bin"].iter().map(|at| Path::new(at).join(program)).find(|path| path.exists());
            std::os::unix::fs::symlink(found.unwrap(), bin.join(program)).unwrap();
        }
        if with_sudo {
            std::fs::write(bin.join("sudo"), SUDO).unwrap();
            std::fs::set_permissions(bin.join("sudo"), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let key = russh::keys::decode_secret_key(KEY, None).unwrap();
        let public = key.public_key().to_openssh().unwrap();
        let config = Arc::new(Config { keys: vec![key], auth_rejection_time: Duration::ZERO, ..Config::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (path, login) = (bin.display().to_string(), dir.path().join("login"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = Anybody { path: path.clone(), login: login.clone(), channels: HashMap::new() };
                let running = russh::server::run_stream(Arc::clone(&config), stream, handler).await;
                tokio::spawn(async move { drop(running.unwrap().await) });
            }
        });
        Self { dir, address, key: public }
    }

    fn mode(&self, mode: &str) {
        std::fs::write(self.dir.path().join("bin/mode"), mode).unwrap();
    }

    async fn open(&self, password: Option<&str>) -> Result<Link, OpenError> {
        self.hosts(&["mkt1"], password, None, Arc::new(Secrets::new("/"))).open("mkt1", true).await
    }

    /// A secret in a file.
    fn secret(&self, name: &str, value: &str) -> SecretRef {
        let file = self.dir.path().join(name);
        std::fs::write(&file, value).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        SecretRef::File(file.display().to_string())
    }

    /// Several hosts, all on this server.
    fn hosts(&self, names: &[&str], sudo: Option<&str>, login: Option<SecretRef>, secrets: Arc<Secrets>) -> SshHosts {
        let options = SshOptions { agent_socket: None, home: None, ..SshOptions::default() };
        SshHosts::new(&self.fleet(names, sudo, login), secrets, options).unwrap()
    }

    fn fleet(&self, names: &[&str], sudo: Option<&str>, login: Option<SecretRef>) -> Fleet {
        let reference = sudo.map(|password| self.secret("password", password));
        let text = |path: &str| self.dir.path().join(path).display().to_string();
        let host = |name: &str| Host {
            name: name.to_owned(),
            address: self.address.ip().to_string(),
            os: None,
            roles: vec![Role::Marketing],
            web: Web { server: WebServer::Apache, address: String::new(), service: None, config: None },
            init: None,
            init_scripts: String::new(),
            ssh: Ssh {
                user: Some("ops".to_owned()),
                port: Some(self.address.port()),
                identity: vec![text("id")],
                jump: None,
                host_key: Some(self.key.clone()),
                known_hosts: vec![text("known_hosts")],
                connect_timeout: Some(10),
                config: Some("none".to_owned()),
                password: login.clone(),
                legacy: inventory::Legacy::none(),
            },
            become_: Become { method: BecomeMethod::Sudo, password: reference.clone() },
            campaign: Campaign { home: String::new(), user: String::new(), soap: inventory::Campaign::SOAP.to_owned() },
            host_state: text("state"),
            source: Source { version: SourceVersion::V6_1, latest_build: None, packages: Vec::new() },
            target: Version { version: String::new(), build: 0, packages: Vec::new(), client: None },
            keep: None,
            origins: std::collections::BTreeMap::new(),
            place: String::new(),
        };
        let platform = Platform {
            name: "p".to_owned(),
            topology: Topology::Standard,
            rehearsal: false,
            runbook: None,
            database: None,
            instances: Vec::new(),
            hosts: names.iter().map(|name| host(name)).collect(),
            overrides: std::collections::BTreeMap::new(),
            order: None,
            restart_order: None,
        };
        Fleet {
            name: "f".to_owned(),
            base: "/".into(),
            parallel: inventory::Parallel { platforms: 1, hosts: 1 },
            platforms: vec![platform],
        }
    }

    /// Runs the agent through sudo; what it says proves the way it came.
    async fn works(&self, password: Option<&str>) {
        let mut link = self.open(password).await.unwrap();
        let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo $SUDO_UID".to_owned()];
        let exec = proto::ToAgent::Exec { id: 1, argv };
        link.to.send(crate::hosts::Outgoing::Message(exec)).await.unwrap();
        let Some(Incoming::Data { bytes, .. }) = link.from.recv().await else { panic!("no output") };
        assert_eq!(bytes, b"1000\n");
    }

    async fn fails(&self, password: Option<&str>, seen: &str, next: &str) {
        let error = self.open(password).await.unwrap_err();
        assert!(matches!(error, OpenError::Become { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(seen) && text.contains(next), "{text}");
        assert!(!text.contains("wrong-secret"), "{text}");
    }
}

#[tokio::test]
async fn sudo_with_and_without_a_password() {
    let world = World::new(true).await;
    world.mode("free");
    world.works(None).await;
    // NOPASSWD although the inventory has a password: it is never asked for, and never written into the agent's input.
    world.works(Some("right")).await;
    world.mode("password");
    world.works(Some("right")).await;
}

#[tokio::test]
async fn sudo_errors_are_told_apart() {
    let world = World::new(true).await;
    world.mode("password");
    world.fails(None, "asks ops for a password", "become.password").await;
    world.fails(None, "gives none", "may not allow this command").await;
    world.fails(None, "gives none", "print it again with caravan inventory sudoers").await;
    world.fails(Some("wrong-secret"), "does not accept the password", "become.password").await;
    world.mode("sudoers");
    world.fails(Some("right"), "ops may not use sudo: it is not in the sudoers file", "See caravan inventory sudoers").await;
    world.mode("command");
    world.fails(Some("right"), "ops may use sudo, but not for this command", "print it again with caravan inventory sudoers").await;
    world.mode("tty");
    world.fails(None, "wants a terminal", "!requiretty").await;
    let bare = World::new(false).await;
    bare.fails(None, "not installed", "become: none").await;
}

fn tried(world: &World) -> usize {
    let path = world.dir.path().join("login.tried");
    let tried = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    let _ = std::fs::remove_file(path);
    tried
}

#[tokio::test]
async fn a_login_password_is_given_where_the_server_wants_one() {
    let world = World::new(true).await;
    let login = |what: &str| std::fs::write(world.dir.path().join("login"), what).unwrap();
    for what in ["password", "questions"] {
        login(what);
        let open = async |password: Option<SecretRef>| {
            let hosts = world.hosts(&["mkt1"], None, password, Arc::new(Secrets::unattended("/")));
            hosts.open("mkt1", false).await.map(|_| ()).map_err(|error| error.to_string())
        };
        open(Some(world.secret("login-password", "right"))).await.unwrap();
        assert_eq!(tried(&world), 1, "{what}");
        // Nobody said that there is one: it is not asked for, and the error says what to set.
        let text = open(None).await.unwrap_err();
        assert!(text.contains("ssh.password") && text.contains("offers"), "{text}");
        assert_eq!(tried(&world), 0, "{what}");
        let text = open(Some(world.secret("login-password", "wrong-secret"))).await.unwrap_err();
        assert!(!text.contains("wrong-secret") && text.contains("tried as ops"), "{text}");
        tried(&world);
    }
}

/// A wrong password is tried on one host, and not on each host of the fleet until the account is locked.
#[tokio::test]
async fn a_wrong_password_locks_no_account() {
    let world = World::new(true).await;
    std::fs::write(world.dir.path().join("login"), "password").unwrap();
    let names: Vec<String> = (1..=20).map(|number| format!("mta{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (password, expected) in [("wrong-secret", 1), ("right", 20)] {
        let hosts = world.hosts(&names, None, Some(world.secret("login-password", password)), Arc::new(Secrets::unattended("/")));
        let hosts = Arc::new(hosts);
        let mut opening = tokio::task::JoinSet::new();
        for name in &names {
            let (hosts, name) = (Arc::clone(&hosts), (*name).to_owned());
            opening.spawn(async move { hosts.open(&name, false).await.map(|_| ()) });
        }
        let ended = opening.join_all().await;
        assert_eq!(tried(&world), expected, "{password}");
        assert!(ended.iter().all(|ended| ended.is_ok() == (password == "right")), "{ended:?}");
    }
}

/// A key is a part of the login; the code that the server asks for besides comes from a person, and is not kept.
#[tokio::test]
async fn a_second_factor_is_asked_for() {
    let world = World::new(true).await;
    std::fs::write(world.dir.path().join("login"), "key-and-code").unwrap();
    let secrets = Arc::new(Secrets::unattended("/"));
    let hosts = world.hosts(&["mkt1"], None, None, Arc::clone(&secrets));
    let text = hosts.open("mkt1", false).await.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("only a person can give"), "{text}");
    for expected in [true, false] {
        if expected {
            secrets.answer("ops@mkt1 asks: Code", proto::Secret::new("right".to_owned())).await;
        }
        assert_eq!(hosts.open("mkt1", false).await.is_ok(), expected, "an answer is good once");
    }
}
