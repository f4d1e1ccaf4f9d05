//! Many hosts behind a bastion that allows little.

use controller::hosts::Hosts;
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Sshd, fleet, whoami};
use std::sync::Arc;

/// How many hosts there are, and on how many servers.
const HOSTS: usize = 50;
const SERVERS: usize = 5;

/// The bastion drops connections that are being started above three, and lets one connection have four sessions; all hosts are reached, at
/// once, over one connection to it, and it never turned one away.
#[tokio::test]
async fn fifty_hosts_are_reached_through_a_bastion_that_allows_little() {
    if !sshd::installed() {
        return;
    }
    let bastion = Sshd::start("MaxStartups 3:50:10\nMaxSessions 4\nLogLevel DEBUG1");
    let servers: Vec<Sshd> = (0..SERVERS).map(|_| Sshd::start("")).collect();
    // One key for everything: hosts with other keys would be other ways.
    for server in &servers {
        std::fs::copy(bastion.identity().with_extension("pub"), server.dir.path().join("authorized_keys")).unwrap();
    }
    let line = |server: &Sshd| format!("[{}]:{} {}\n", server.address.ip(), server.address.port(), server.host_key);
    let known: String = servers.iter().chain([&bastion]).map(line).collect();
    let known_hosts = bastion.known_hosts_with(&known).display().to_string();
    let host = |number: usize| {
        let server = &servers[number % SERVERS];
        let state = server.dir.path().join(format!("state-{number}"));
        let address = server.address;
        let mut host = sshd::host(&format!("mta{number}"), address, &bastion.identity(), server.dir.path(), &state);
        host.ssh.known_hosts = vec![known_hosts.clone()];
        host.ssh.jump = Some(format!("{}@{}", whoami(), bastion.address));
        host
    };
    let all: Vec<inventory::Host> = (0..HOSTS).map(host).collect();
    let names: Vec<String> = all.iter().map(|host| host.name.clone()).collect();
    let options = SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() };
    let hosts = Arc::new(SshHosts::new(&fleet(all), Arc::new(Secrets::unattended("/")), options).unwrap());
    let mut opening = tokio::task::JoinSet::new();
    for name in names {
        let hosts = Arc::clone(&hosts);
        opening.spawn(async move { hosts.open(&name, false).await.map_err(|error| error.to_string()) });
    }
    // All are held open until the last one is there.
    let links = opening.join_all().await;
    let failed: Vec<&String> = links.iter().filter_map(|link| link.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let log = bastion.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "one connection for all");
    assert!(!log.contains("drop connection") && !log.contains("no more sessions"), "{log}");
    // Nor did any server drop one that was being started.
    for server in &servers {
        assert!(!server.log().contains("drop connection") && !server.log().contains("beginning MaxStartups"), "{}", server.log());
    }
}
