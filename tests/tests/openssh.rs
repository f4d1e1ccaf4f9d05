//! The way to hosts, against real OpenSSH servers.

use controller::hosts::{Hosts, Incoming, Link, OpenError, Outgoing};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Relay, Sshd, fleet};
use proto::{FromAgent, ToAgent};
use std::sync::Arc;
use std::time::Duration;

/// Nothing of the account that runs the tests: no ssh-agent, no home directory.
fn options() -> SshOptions {
    SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() }
}

fn hosts(all: Vec<inventory::Host>) -> SshHosts {
    SshHosts::new(&fleet(all), Arc::new(Secrets::new("/")), options()).unwrap()
}

async fn open(host: inventory::Host) -> Result<Link, OpenError> {
    let name = host.name.clone();
    hosts(vec![host]).open(&name, true).await
}

/// Runs a command; its exit code and output.
async fn exec(link: &mut Link, argv: &[&str]) -> (Option<i32>, String) {
    let argv = argv.iter().map(ToString::to_string).collect();
    link.to.send(Outgoing::Message(ToAgent::Exec { id: 7, argv })).await.unwrap();
    let mut output = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), link.from.recv()).await.unwrap() {
            Some(Incoming::Data { stream: 7, bytes, .. }) => output.extend(bytes),
            Some(Incoming::Message(FromAgent::Exited { id: 7, code, .. })) => {
                return (code, String::from_utf8_lossy(&output).into_owned());
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_runs_through_the_agent_which_is_sent_only_once() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    let relay = Relay::start(server.address);
    let mut host = server.host("mkt1");
    host.ssh.port = relay.address.port();
    host.address = relay.address.ip().to_string();
    host.ssh.known_hosts = vec![server.known_hosts_at(relay.address).display().to_string()];
    let hosts = hosts(vec![host]);

    let mut link = hosts.open("mkt1", true).await.unwrap();
    assert_eq!(link.agent.user, sshd::whoami());
    assert!(link.agent.host_key.starts_with("SHA256:"), "{:?}", link.agent);
    assert_eq!(exec(&mut link, &["echo", "a b"]).await, (Some(0), "a b\n".to_owned()));
    assert_eq!(exec(&mut link, &["sh", "-c", "exit 7"]).await.0, Some(7));
    drop(link);
    let packed = controller::ssh::AGENTS[0].gzip.len() as u64;
    assert!(relay.sent() > packed, "the agent was not sent the first time");

    let mut link = hosts.open("mkt1", true).await.unwrap();
    assert_eq!(exec(&mut link, &["true"]).await.0, Some(0));
    let sent = relay.sent();
    assert!(sent < 16 * 1024, "{sent} bytes were sent to a host that has the agent");
}
