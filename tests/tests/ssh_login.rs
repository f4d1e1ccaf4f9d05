//! Logging in to real OpenSSH servers: user certificates, certificates of hosts, ssh-agents with many keys.

use controller::hosts::{Hosts, Link, OpenError};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Sshd, fleet, key_pair, public_key, whoami};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

fn options() -> SshOptions {
    SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() }
}

async fn open_with(host: &inventory::Host, options: SshOptions) -> Result<Link, OpenError> {
    SshHosts::new(&fleet(vec![host.clone()]), Arc::new(Secrets::unattended("/")), options).unwrap().open(&host.name, false).await
}

async fn open(host: &inventory::Host) -> Result<Link, OpenError> {
    open_with(host, options()).await
}

#[track_caller]
fn refused(result: Result<Link, OpenError>) -> String {
    match result {
        Ok(_) => panic!("it was let in"),
        Err(error) => error.to_string(),
    }
}

/// Signs a public key; `what` is what `ssh-keygen` is told besides.
fn sign(ca: &Path, key: &Path, what: &[&str]) {
    let signed = Command::new("ssh-keygen").arg("-q").args(what).arg("-s").arg(ca).arg(key.with_extension("pub")).status();
    assert!(signed.unwrap().success());
}

/// An ssh-agent, which ends with this.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let mut command = Command::new("ssh-agent");
        let child = command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let agent = Self { child, socket };
        harness::sshd::agent_listens(&agent.socket);
        agent
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).stderr(Stdio::null()).status();
        assert!(added.unwrap().success());
    }

    fn options(&self) -> SshOptions {
        SshOptions { agent_socket: Some(self.socket.clone()), ..options() }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// The server knows an authority and no key.
#[tokio::test]
async fn certificates_of_users_let_in() {
    if !sshd::installed() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let ca = key_pair(keys.path(), "ca", &["-t", "ed25519"], "");
    let server = Sshd::start(&format!("TrustedUserCAKeys {}.pub", ca.display()));
    fs::write(server.dir.path().join("authorized_keys"), "").unwrap();
    let me = whoami();
    for kind in [&["-t", "ed25519"][..], &["-t", "ecdsa"], &["-t", "rsa", "-b", "2048"]] {
        let name = kind[1];
        let key = key_pair(keys.path(), name, kind, "");
        let mut host = server.host("mkt1");
        host.ssh.identity = vec![key.display().to_string()];
        refused(open(&host).await);
        // The certificate lies beside its key; one of another account, one of yesterday, and one that is good.
        sign(&ca, &key, &["-I", "other", "-n", "somebody-else"]);
        let text = refused(open(&host).await);
        assert!(text.contains(&format!("{} with the certificate other", key.display())), "{text}");
        sign(&ca, &key, &["-I", "old", "-n", &me, "-V", "-2d:-1d"]);
        refused(open(&host).await);
        sign(&ca, &key, &["-I", "good", "-n", &me, "-V", "-1d:+1d"]);
        open(&host).await.unwrap_or_else(|error| panic!("{name}: {error}"));

        // It lies elsewhere, as ssh_config says; and the key is in ssh-agent, which knows nothing of the certificate.
        let elsewhere = keys.path().join(format!("{name}-elsewhere"));
        fs::rename(keys.path().join(format!("{name}-cert.pub")), &elsewhere).unwrap();
        refused(open(&host).await);
        let config = keys.path().join("config");
        fs::write(&config, format!("Host mkt*\n  CertificateFile {}\n", elsewhere.display())).unwrap();
        host.ssh.config = Some(config.display().to_string());
        open(&host).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let agent = Agent::start(server.dir.path());
        agent.add(&key);
        host.ssh.identity.clear();
        open_with(&host, agent.options()).await.unwrap_or_else(|error| panic!("{name} by ssh-agent: {error}"));
        // The agent has both.
        fs::rename(&elsewhere, keys.path().join(format!("{name}-cert.pub"))).unwrap();
        agent.add(&key);
        host.ssh.config = Some("none".to_owned());
        open_with(&host, agent.options()).await.unwrap_or_else(|error| panic!("{name}, all by ssh-agent: {error}"));
    }
}

/// Many keys of an agent are not tried before the one that is named, and with `IdentitiesOnly` not at all.
#[tokio::test]
async fn many_keys_of_an_agent_lock_nobody_out() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("MaxAuthTries 3");
    let agent = Agent::start(server.dir.path());
    for number in 0..6 {
        agent.add(&key_pair(server.dir.path(), &format!("other-{number}"), &["-t", "ed25519"], ""));
    }
    let mut host = server.host("mkt1");
    open_with(&host, agent.options()).await.unwrap();
    host.ssh.identity.clear();
    let text = refused(open_with(&host, agent.options()).await);
    assert!(text.contains("MaxAuthTries") && text.contains("ssh-agent key other-0"), "{text}");
    // The public half says which one of them; no other is tried.
    agent.add(&server.identity());
    let public = server.dir.path().join("mine.pub");
    fs::copy(server.identity().with_extension("pub"), &public).unwrap();
    let config = server.dir.path().join("config");
    let only =
        format!("Host *\n  IdentitiesOnly yes\n  IdentityFile {}\n  IdentityAgent {}\n", public.display(), agent.socket.display());
    fs::write(&config, only).unwrap();
    host.ssh.config = Some(config.display().to_string());
    // The agent is the one that ssh_config names.
    open(&host).await.unwrap();
    fs::write(server.dir.path().join("authorized_keys"), "").unwrap();
    let text = refused(open(&host).await);
    assert!(!text.contains("other-"), "{text}");
}

/// `RevokedHostKeys` of ssh_config counts before all else, as for `ssh`; a file that is not understood revokes every key.
#[tokio::test]
async fn revoked_host_keys_are_refused_as_by_ssh() {
    if !sshd::installed() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let (ca, other) = (key_pair(keys.path(), "ca", &["-t", "ed25519"], ""), key_pair(keys.path(), "other", &["-t", "ed25519"], ""));
    let plain = Sshd::start("");
    let mut certified = Sshd::start("");
    let key = certified.dir.path().join("host");
    let ip = certified.address.ip().to_string();
    sign(&ca, &key, &["-h", "-I", "lab", "-n", &ip, "-V", "-1d:+1d"]);
    certified.restart(&format!("HostCertificate {}-cert.pub", key.display()));
    let by_authority = certified.known_hosts_with(&format!("@cert-authority * {}\n", public_key(&ca)));
    let revoked = keys.path().join("revoked");
    let krl = |key: &Path| {
        let made = Command::new("ssh-keygen").arg("-q").arg("-k").arg("-f").arg(&revoked).arg(key.with_extension("pub")).status();
        assert!(made.unwrap().success());
        fs::read(&revoked).unwrap()
    };
    let text = |content: String| Some(content.into_bytes());
    let mut connected = 0;
    for (server, known) in [(&plain, plain.known_hosts()), (&certified, by_authority)] {
        let (own, other, ca) = (&server.host_key, public_key(&other), public_key(&ca));
        let by_authority = server.host_key == certified.host_key;
        let cases = [
            ("empty", text("# nothing\n\n".to_owned()), None),
            ("other", text(format!("{other}\n")), None),
            ("own", text(format!("{other} x\n \t{own} y\n")), Some("is revoked")),
            ("authority", text(format!("{ca}\n")), Some("is revoked").filter(|_| by_authority)),
            ("garbage", text(format!("{other}\ngarbage\n")), Some("line 2")),
            ("missing", None, Some("cannot be read")),
            ("KRL", Some(krl(&server.dir.path().join("host"))), Some("is a KRL")),
            ("KRL of another", Some(krl(&keys.path().join("other"))), Some("is a KRL")),
        ];
        for (name, content, expected) in cases {
            let _ = fs::remove_file(&revoked);
            content.iter().for_each(|content| fs::write(&revoked, content).unwrap());
            let config = keys.path().join("config");
            let text = format!(
                "Host *\n  RevokedHostKeys {}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  IdentityFile {}\n  BatchMode yes\n",
                revoked.display(),
                known.display(),
                server.identity().display()
            );
            fs::write(&config, text).unwrap();
            let mut ssh = Command::new("ssh");
            ssh.arg("-F").arg(&config).args(["-p", &server.address.port().to_string(), &server.address.ip().to_string(), "exit 0"]);
            let ssh = ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap();
            let mut host = server.host("mkt1");
            host.ssh.known_hosts = vec![known.display().to_string()];
            host.ssh.config = Some(config.display().to_string());
            let opened = open(&host).await;
            // Of a KRL Caravan does not know what is in it.
            if name != "KRL of another" {
                let said = String::from_utf8_lossy(&ssh.stderr);
                assert_eq!(opened.is_ok(), ssh.status.success(), "{name}: {said} {:?}", opened.err());
            }
            connected += usize::from(opened.is_ok());
            let text = opened.map(|_| ()).map_err(|error| error.to_string());
            match expected {
                Some(expected) => assert!(text.as_ref().is_err_and(|text| text.contains(expected)), "{name}: {text:?}"),
                None => assert_eq!(text, Ok(()), "{name}"),
            }
        }
    }
    assert_eq!(connected, 5);
}
