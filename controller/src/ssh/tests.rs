//! Becoming root, against a small SSH server that lets anybody in and runs what it is told with a `sudo` of our own.

use super::*;
use crate::hosts::Incoming;
use inventory::{
    Become, Campaign, Platform, Role, SecretRef, Source, SourceVersion, Ssh, Target as Version, Topology, Web, WebServer,
};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg};
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
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Anybody {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
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
        for program in ["cat", "chmod", "cp", "env", "gzip", "head", "id", "mkdir", "mv", "rm", "sh", "sha256sum", "uname"] {
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
        let path = bin.display().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = Anybody { path: path.clone(), channels: HashMap::new() };
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
        let reference = password.map(|password| {
            let file = self.dir.path().join("password");
            std::fs::write(&file, password).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            SecretRef::File(file.display().to_string())
        });
        let text = |path: &str| self.dir.path().join(path).display().to_string();
        let host = Host {
            name: "mkt1".to_owned(),
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
                password: None,
                legacy: false,
            },
            become_: Become { method: BecomeMethod::Sudo, password: reference },
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
            hosts: vec![host],
            overrides: std::collections::BTreeMap::new(),
            order: None,
            restart_order: None,
        };
        let fleet = Fleet {
            name: "f".to_owned(),
            base: "/".into(),
            parallel: inventory::Parallel { platforms: 1, hosts: 1 },
            platforms: vec![platform],
        };
        let options = SshOptions { agent_socket: None, home: None, ..SshOptions::default() };
        SshHosts::new(&fleet, Arc::new(Secrets::new("/")), options).unwrap().open("mkt1", true).await
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
    world.fails(Some("wrong-secret"), "does not accept the password", "become.password").await;
    world.mode("sudoers");
    world.fails(Some("right"), "ops may not use sudo", "inventory sudoers").await;
    world.mode("tty");
    world.fails(None, "wants a terminal", "!requiretty").await;
    let bare = World::new(false).await;
    bare.fails(None, "not installed", "become: none").await;
}
