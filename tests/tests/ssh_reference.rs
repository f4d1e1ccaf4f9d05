//! Caravan reaches hosts as the operator's own `ssh` would: for generated ssh_config and known_hosts files both decide the same, which
//! the servers tell: whether there is a connection, on which servers, over which, as whom.

use controller::hosts::Hosts;
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Sshd, fleet, key_pair, public_key, whoami};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How many configurations each of the four tests tries; `CARAVAN_SSH_CASES` says another number, `CARAVAN_SSH_SEED` makes other ones.
const CASES: u64 = 50;
/// The name that is asked for.
const NAME: &str = "mkt1.example.net";

/// xorshift64*: the same numbers everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One chance in `of`.
    fn one_in(&mut self, of: u64) -> bool {
        self.next() >> 33 < (1 << 31) / of
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[(self.next() >> 33) as usize % all.len()]
    }
}

/// One of the servers.
struct Server {
    sshd: Sshd,
    /// Its second host key.
    rsa: String,
    /// How much of its log was looked at.
    seen: usize,
}

/// Two hosts and two bastions, a key that they let in, and one that they do not.
struct World {
    dir: tempfile::TempDir,
    servers: Vec<Server>,
    authority: String,
    good: PathBuf,
    other: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (good, other) =
            (key_pair(dir.path(), "good", &["-t", "ed25519"], ""), key_pair(dir.path(), "other", &["-t", "ed25519"], ""));
        let ca = key_pair(dir.path(), "ca", &["-t", "ed25519"], "");
        let servers = (0..4).map(|number| {
            let rsa = key_pair(dir.path(), &format!("rsa-{number}"), &["-t", "rsa", "-b", "2048"], "");
            let extra = format!("LogLevel DEBUG1\nHostKey {}\n", rsa.display());
            let mut sshd = Sshd::start(&extra);
            let ip = sshd.address.ip();
            // Certificates of all kinds: one that counts, one for another name, one of yesterday.
            let certificate = match number {
                0 => Some((format!("{ip},alias-0"), "-1d:+1d")),
                1 => Some(("elsewhere.example.net".to_owned(), "-1d:+1d")),
                2 => Some((ip.to_string(), "-2d:-1d")),
                _ => None,
            };
            if let Some((principals, validity)) = certificate {
                let host = sshd.dir.path().join("host");
                let mut sign = Command::new("ssh-keygen");
                sign.args(["-q", "-h", "-I", "lab", "-n", &principals, "-V", validity, "-s"])
                    .arg(&ca)
                    .arg(host.with_extension("pub"));
                assert!(sign.status().unwrap().success());
                sshd.restart(&format!("{extra}HostCertificate {}-cert.pub\n", host.display()));
            }
            fs::copy(good.with_extension("pub"), sshd.dir.path().join("authorized_keys")).unwrap();
            Server { sshd, rsa: public_key(&rsa), seen: 0 }
        });
        Self { servers: servers.collect(), authority: public_key(&ca), good, other, dir }
    }

    fn place(&self, server: usize) -> (String, u16) {
        let address = self.servers[server].sshd.address;
        (address.ip().to_string(), address.port())
    }

    /// A known_hosts file, mostly with the right keys.
    fn known_hosts(&self, draw: &mut Draw, path: &Path) {
        let mut lines = Vec::new();
        for (number, server) in self.servers.iter().enumerate() {
            let (ip, port) = self.place(number);
            let key = match draw.one_in(12) {
                true => self.servers[(number + 1) % 4].rsa.clone(),
                false if draw.one_in(3) => server.rsa.clone(),
                false => server.sshd.host_key.clone(),
            };
            let names = match (draw.next() >> 33) % 20 {
                0 => ip.clone(),
                1 => format!("[127.*]:{port}"),
                2 => format!("!{ip},[127.*]:{port}"),
                3 => format!("![{ip}]:{port},[127.*]:*"),
                4 => format!("[{ip}]:{},[{ip}]:{port}", port ^ 1),
                5 => format!("alias-{number},[{ip}]:{port}"),
                6 => format!("[{ip}]:{}", port ^ 1),
                _ => format!("[{ip}]:{port}"),
            };
            match (draw.next() >> 33) % 16 {
                0 => {}
                1 => lines.push(format!("@revoked * {key}")),
                2 => lines.push(format!("@cert-authority * {}", self.authority)),
                3 => lines.push(format!("@cert-authority {names} {}", self.authority)),
                4 => lines.push(format!("{names}\t{key} a comment")),
                _ => lines.push(format!("{names} {key}")),
            }
            if draw.one_in(10) {
                lines.push(
                    draw.of(&["garbage", "@unknown * ssh-rsa AAAA", "# a comment", "", "|1|broken ssh-ed25519 AAAA"]).to_owned(),
                );
            }
        }
        fs::write(path, lines.join("\n") + "\n").unwrap();
        if draw.one_in(4) {
            let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(path).stderr(Stdio::null()).output().unwrap();
            // It refuses files with lines that it does not understand, and leaves them.
            drop(hashed);
            let _ = fs::remove_file(path.with_extension("old"));
        }
    }

    /// Settings of a section about a server.
    fn section(&self, draw: &mut Draw, server: usize, head: &str, jump: bool) -> String {
        let me = whoami();
        let (ip, port) = self.place(server);
        let mut text = format!("{head}\n");
        let mut add = |line: String| text.push_str(&format!("  {line}\n"));
        if !draw.one_in(4) {
            add(format!("HostName {ip}"));
        }
        if !draw.one_in(4) {
            add(format!("Port {port}"));
        }
        match (draw.next() >> 33) % 12 {
            0 => add("User nobody".to_owned()),
            1 => add("User no-such-account".to_owned()),
            2 | 3 => add(format!("User {me}")),
            _ => {}
        }
        if draw.one_in(3) {
            add(format!("IdentityFile {}", if draw.one_in(3) { &self.other } else { &self.good }.display()));
        }
        if draw.one_in(5) {
            add(format!("HostKeyAlias alias-{server}"));
        }
        if draw.one_in(5) {
            add(format!(
                "HostKeyAlgorithms {}",
                draw.of(&["ssh-ed25519", "rsa-sha2-512", "+ssh-rsa", "ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"])
            ));
        }
        if draw.one_in(6) {
            add(format!("UserKnownHostsFile {0}/known_a {0}/known_b", self.dir.path().display()));
        }
        if draw.one_in(10) {
            add("AddressFamily inet".to_owned());
        }
        if jump {
            let (jip, jport) = self.place(3);
            let direct = format!("{me}@{jip}:{jport}");
            let way = draw
                .of(&["jump1", "jump2", "jump1,jump2", "none", &format!("{me}@jump1"), &direct, &format!("{direct},jump1")])
                .to_owned();
            if draw.one_in(6) {
                add(format!("ProxyCommand ssh -F {}/config -W %h:%p jump2", self.dir.path().display()));
            } else {
                add(format!("ProxyJump {way}"));
            }
        }
        text
    }

    fn config(&self, draw: &mut Draw) -> String {
        let mut text = String::from("# generated\n");
        let sections = 1 + (draw.next() >> 33) % 3;
        for _ in 0..sections {
            let server = usize::from(draw.one_in(2));
            let head = draw.of(&[
                "Host mkt1.example.net",
                "Host mkt*",
                "Host !mkt1.example.net *",
                "Host web* mkt1.*",
                "Match originalhost mkt1*",
                "Match all",
                "Match user nobody",
            ]);
            let jump = !draw.one_in(3);
            // A section for everybody would send the bastions through themselves.
            let jump = jump && (head.contains("mkt1.") && !head.contains('!') || head.contains("mkt*"));
            text.push_str(&self.section(draw, server, head, jump));
        }
        text.push_str(&self.section(draw, 2, "Host jump1", false));
        let further = draw.one_in(3);
        let mut second = self.section(draw, 3, "Host jump2", false);
        if further {
            second.push_str("  ProxyJump jump1\n");
        }
        text.push_str(&second);
        // What no section says before: no name is looked up anywhere.
        for (server, head) in [(0, "Host mkt1.example.net"), (2, "Host jump1"), (3, "Host jump2")] {
            let (ip, port) = self.place(server);
            text.push_str(&format!("{head}\n  HostName {ip}\n  Port {port}\n"));
        }
        let (ip, port) = self.place(0);
        let dir = self.dir.path().display();
        fs::write(self.dir.path().join("included"), format!("Host mkt1*\n  HostName {ip}\n  Port {port}\n")).unwrap();
        if draw.one_in(3) {
            text = format!("Include {dir}/included\n{text}");
        }
        text.push_str(&format!(
            "Match all\n  BatchMode yes\n  IdentityAgent none\n  IdentityFile {}\n  UserKnownHostsFile {dir}/known_a\n  GlobalKnownHostsFile {dir}/known_b\n  ConnectTimeout 5\n",
            self.good.display()
        ));
        text
    }

    /// What the servers saw since they were asked last.
    fn news(&mut self) -> BTreeSet<String> {
        let mut news = BTreeSet::new();
        for (number, server) in self.servers.iter_mut().enumerate() {
            let log = server.sshd.log();
            for line in log[server.seen..].lines() {
                let word =
                    |text: &str, after: &str| -> Option<String> { Some(text.split_once(after)?.1.split(' ').next()?.to_owned()) };
                if let Some(user) = word(line, "userauth-request for user ") {
                    news.insert(format!("{number} is asked as {user}"));
                } else if let Some(user) = word(line, "Accepted publickey for ") {
                    news.insert(format!("{number} lets {user} in"));
                } else if line.contains("server_request_direct_tcpip")
                    && let Some((_, target)) = line.split_once("target ")
                {
                    news.insert(format!("{number} leads to {target}"));
                }
            }
            server.seen = log.len();
        }
        news
    }
}

#[tokio::test]
async fn it_connects_as_ssh_does() {
    as_ssh_does(0).await;
}

#[tokio::test]
async fn it_refuses_as_ssh_does() {
    as_ssh_does(1).await;
}

#[tokio::test]
async fn it_goes_as_whom_ssh_goes() {
    as_ssh_does(2).await;
}

#[tokio::test]
async fn it_takes_the_way_that_ssh_takes() {
    as_ssh_does(3).await;
}

/// A number out of the environment.
fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

/// The cases of one test; each has some of everything.
async fn as_ssh_does(quarter: u64) {
    if !sshd::installed() {
        return;
    }
    let mut world = World::new();
    let (mut connected, mut refused, mut through) = (0, 0, 0);
    let cases = number("CARAVAN_SSH_CASES").unwrap_or(CASES);
    let seed = number("CARAVAN_SSH_SEED").unwrap_or(0).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    for case in (quarter * cases + 1)..=(quarter + 1) * cases {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15 ^ seed ^ case.wrapping_mul(0xd134_2543_de82_ef95));
        let config = world.dir.path().join("config");
        fs::write(&config, world.config(&mut draw)).unwrap();
        for file in ["known_a", "known_b"] {
            world.known_hosts(&mut draw, &world.dir.path().join(file));
        }
        world.news();
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args([NAME, "exit 0"]).stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK").process_group(0);
        let ended = ssh.output().unwrap();
        let expected = (ended.status.success(), world.news());

        let state = world.dir.path().join("state");
        let (address, nothing) = (world.servers[0].sshd.address, Path::new("/nonexistent"));
        let mut host = sshd::host(NAME, address, nothing, nothing, &state);
        NAME.clone_into(&mut host.address);
        host.ssh = inventory::Ssh {
            user: None,
            port: None,
            identity: Vec::new(),
            known_hosts: Vec::new(),
            connect_timeout: None,
            config: Some(config.display().to_string()),
            ..host.ssh
        };
        let options = SshOptions { agent_socket: None, home: None, user: Some(whoami()), ..SshOptions::default() };
        let opened = match SshHosts::new(&fleet(vec![host]), Arc::new(Secrets::unattended("/")), options) {
            Ok(hosts) => {
                let opened = tokio::time::timeout(Duration::from_secs(60), hosts.open(NAME, false)).await.expect("an answer");
                opened.map(|_| ()).map_err(|error| error.to_string())
            }
            Err(failure) => Err(failure.message),
        };
        let seen = (opened.is_ok(), world.news());
        let shown = || {
            let file = |name: &str| fs::read_to_string(world.dir.path().join(name)).unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("debug")).collect();
            format!(
                "case {case}\nssh: {}\ncaravan: {opened:?}\n{}\n-- known_a\n{}\n-- known_b\n{}",
                said.join("\n     "),
                file("config"),
                file("known_a"),
                file("known_b")
            )
        };
        assert_eq!(seen, expected, "{}", shown());
        connected += u32::from(expected.0);
        refused += u32::from(!expected.0);
        through += u32::from(expected.1.iter().any(|line| line.contains("leads to")));
    }
    // What is drawn has something of everything.
    assert!(connected > 10 && refused > 10 && through > 5, "{connected} connected, {refused} refused, {through} through bastions");
    eprintln!("{connected} connected, {refused} refused, {through} through bastions");
}
