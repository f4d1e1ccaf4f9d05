//! Logging in to real OpenSSH servers: user certificates, certificates of hosts, ssh-agents with many keys.

use controller::hosts::{Hosts, Link, OpenError};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Sshd, fleet, key_pair, whoami};
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
