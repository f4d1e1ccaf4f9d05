//! Many hosts behind a bastion that allows little.

use controller::hosts::{Hosts, OpenError};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Sshd, fleet, key_pair, whoami};
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

/// One connection carries so many hosts, and no more.
#[tokio::test]
async fn more_hosts_than_a_connection_carries_get_another_one() {
    if !sshd::installed() {
        return;
    }
    let (bastion, server) = (Sshd::start("LogLevel DEBUG1"), Sshd::start(""));
    let host = behind(&bastion, &server);
    let named = |number: usize| inventory::Host { name: format!("mta{number}"), ..host.clone() };
    let options = SshOptions { agent_socket: None, home: None, user: None, hosts_per_bastion: 3, ..SshOptions::default() };
    let hosts = SshHosts::new(&fleet((0..7).map(named).collect()), Arc::new(Secrets::unattended("/")), options).unwrap();
    let mut links = Vec::new();
    for number in 0..7 {
        links.push(hosts.open(&format!("mta{number}"), false).await.unwrap_or_else(|error| panic!("{error}")));
    }
    assert_eq!(bastion.log().matches("Accepted publickey").count(), 3);
}

/// A host behind a bastion, which knows the same key.
fn behind(bastion: &Sshd, server: &Sshd) -> inventory::Host {
    std::fs::copy(bastion.identity().with_extension("pub"), server.dir.path().join("authorized_keys")).unwrap();
    let line = |server: &Sshd| format!("[{}]:{} {}\n", server.address.ip(), server.address.port(), server.host_key);
    let known = bastion.known_hosts_with(&(line(bastion) + &line(server)));
    let mut host = sshd::host("mkt1", server.address, &bastion.identity(), &known, &server.dir.path().join("state"));
    host.ssh.jump = Some(format!("{}@{}", whoami(), bastion.address));
    host
}

async fn open(all: Vec<inventory::Host>) -> Result<(), OpenError> {
    let options = SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() };
    SshHosts::new(&fleet(all), Arc::new(Secrets::unattended("/")), options).unwrap().open("mkt1", false).await.map(|_| ())
}

/// What a host is allowed is not offered to the bastion before it: that has its own settings.
#[tokio::test]
async fn outdated_algorithms_of_a_host_are_not_for_its_bastion() {
    if !sshd::installed() {
        return;
    }
    const OLD: &str = "KexAlgorithms diffie-hellman-group14-sha1\nCiphers aes128-cbc\nMACs hmac-sha1";
    let (old, modern) = (Sshd::start(OLD), Sshd::start(""));
    let mut host = behind(&old, &modern);
    host.ssh.legacy = inventory::Legacy::all();
    let text = open(vec![host.clone()]).await.unwrap_err().to_string();
    let settings = "in your ssh_config: KexAlgorithms diffie-hellman-group14-sha1; Ciphers aes128-cbc; MACs hmac-sha1";
    assert!(text.contains("its bastion") && text.contains("for the bastion") && text.contains(settings), "{text}");
    assert!(!text.contains("ssh.legacy"), "{text}");
    // As the error says; and where the bastion is a host of the fleet that is allowed it.
    let config = old.dir.path().join("config");
    let lines = settings.split_once(": ").unwrap().1.replace("; ", "\n  ");
    std::fs::write(&config, format!("Host {}\n  {lines}\n", old.address.ip())).unwrap();
    let mut configured = host.clone();
    configured.ssh.config = Some(config.display().to_string());
    configured.ssh.legacy = inventory::Legacy::none();
    open(vec![configured]).await.unwrap();
    let mut bastion = old.host("jump1");
    bastion.ssh.legacy = inventory::Legacy::all();
    open(vec![host, bastion]).await.unwrap();

    // The other way round, where nothing outdated is offered to the bastion.
    let offered = |server: &Sshd| {
        let log = server.log();
        let (_, offered) = log.rsplit_once("peer client KEXINIT proposal").expect("an offer in the log");
        ["group14-sha1", "aes128-cbc", "hmac-sha1"].map(|name| offered.contains(name))
    };
    let (modern, old) = (Sshd::start("LogLevel DEBUG2"), Sshd::start(OLD));
    let mut host = behind(&modern, &old);
    host.ssh.legacy = inventory::Legacy::all();
    open(vec![host.clone()]).await.unwrap();
    assert_eq!(offered(&modern), [false; 3]);
    host.ssh.legacy = inventory::Legacy::none();
    let text = open(vec![host]).await.unwrap_err().to_string();
    assert!(text.contains("set ssh.legacy: [diffie-hellman-group14-sha1, aes128-cbc, hmac-sha1] for this host"), "{text}");
}

/// Hosts with keys of their own log in to their bastion each by itself; the bastion, which drops what is being started above a number, is asked
/// by no more than that at once, also where only keys of hosts are taken.
#[tokio::test]
async fn a_bastion_is_not_flooded_by_hosts_with_keys_of_their_own() {
    if !sshd::installed() {
        return;
    }
    const AT_ONCE: usize = 3;
    let bastion = Sshd::start(&format!("MaxStartups {0}:100:{0}\nLogLevel DEBUG1", 2 * AT_ONCE));
    let server = Sshd::start("");
    let mut first = behind(&bastion, &server);
    let mut keys = String::new();
    let all = (0..20).map(|number| {
        let key = key_pair(bastion.dir.path(), &format!("own-{number}"), &["-t", "ed25519"], "");
        keys += &std::fs::read_to_string(key.with_extension("pub")).unwrap();
        first.name = format!("mta{number}");
        first.ssh.identity = vec![key.display().to_string()];
        first.clone()
    });
    let all: Vec<inventory::Host> = all.collect();
    [&bastion, &server].iter().for_each(|sshd| std::fs::write(sshd.dir.path().join("authorized_keys"), &keys).unwrap());
    let names: Vec<String> = all.iter().map(|host| host.name.clone()).collect();
    let options =
        SshOptions { agent_socket: None, home: None, user: None, starts: 50, starts_per_bastion: AT_ONCE, ..SshOptions::default() };
    let hosts = Arc::new(SshHosts::new(&fleet(all), Arc::new(Secrets::unattended("/")), options).unwrap());
    let mut opening = tokio::task::JoinSet::new();
    for name in names {
        let hosts = Arc::clone(&hosts);
        opening.spawn(async move { hosts.scan(&name).await.map(|_| ()).map_err(|error| error.to_string()) });
    }
    let failed: Vec<String> = opening.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let log = bastion.log();
    assert_eq!(log.matches("Accepted publickey").count(), 20, "one connection for each key");
    assert!(!log.contains("drop connection") && !log.contains("beginning MaxStartups"), "{log}");
}
