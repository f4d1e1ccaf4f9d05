//! A real OpenSSH server on a loopback address of its own, with a directory of its own, for the account that runs the tests.
//! Needs no root.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SSHD: &str = "/usr/sbin/sshd";

/// A running sshd. Ends, and its directory goes, when it is dropped.
pub struct Sshd {
    child: Child,
    /// Its directory: keys, configuration, log, the agent's cache.
    pub dir: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Its host key as known_hosts and `ssh.host_key` write it: `ssh-ed25519 AAAA...`.
    pub host_key: String,
}

/// Whether OpenSSH is installed here; says aloud that a test is skipped when it is not.
pub fn installed() -> bool {
    let there = Path::new(SSHD).exists();
    if !there {
        eprintln!("skipped: {SSHD} is not installed (apt install openssh-server)");
    }
    there
}

/// Waits until an ssh-agent answers: its socket is there a moment before.
#[track_caller]
pub fn agent_listens(socket: &Path) {
    crate::until("ssh-agent", || std::os::unix::net::UnixStream::connect(socket).is_ok());
}

/// A pair of keys without passphrase; the path of the private one.
pub fn key_pair(dir: &Path, name: &str, kind: &[&str], passphrase: &str) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-N", passphrase, "-C", name, "-f"]).arg(&path).args(kind).status();
    assert!(made.expect("ssh-keygen runs").success());
    path
}

/// The first two fields of a public key file.
pub fn public_key(private: &Path) -> String {
    let text = fs::read_to_string(private.with_extension("pub")).expect("a public key");
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

impl Sshd {
    /// Starts one that lets in the holder of `dir/user`, with extra lines of configuration.
    pub fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let user = key_pair(dir.path(), "user", &["-t", "ed25519"], "");
        let host = key_pair(dir.path(), "host", &["-t", "ed25519"], "");
        fs::copy(user.with_extension("pub"), dir.path().join("authorized_keys")).expect("authorized_keys");
        let address = free_address();
        let child = Self::launch(dir.path(), address, &host, extra);
        Self { child, host_key: public_key(&host), dir, address }
    }

    fn launch(dir: &Path, address: SocketAddrV4, host_key: &Path, extra: &str) -> Child {
        // As root, sshd insists on this directory (which its service unit makes otherwise).
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let shown = dir.display();
        let config = format!(
            "ListenAddress {}:{}\nHostKey {}\nAuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\n\
             SetEnv XDG_CACHE_HOME={shown}/cache\n{extra}\n",
            address.ip(),
            address.port(),
            host_key.display()
        );
        let path = dir.join("sshd_config");
        fs::write(&path, config).expect("sshd_config");
        let child = Command::new(SSHD)
            .arg("-D")
            .arg("-f")
            .arg(&path)
            .arg("-E")
            .arg(dir.join("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    /// The private key that is let in.
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// A known_hosts file that knows this server.
    pub fn known_hosts(&self) -> PathBuf {
        self.known_hosts_at(self.address)
    }

    /// A known_hosts file that knows this server's key under another address (a relay's).
    pub fn known_hosts_at(&self, address: SocketAddrV4) -> PathBuf {
        self.known_hosts_with(&format!("[{}]:{} {}\n", address.ip(), address.port(), self.host_key))
    }

    /// A known_hosts file with this content.
    pub fn known_hosts_with(&self, content: &str) -> PathBuf {
        let mut file = tempfile::NamedTempFile::new_in(self.dir.path()).expect("a file");
        file.write_all(content.as_bytes()).expect("known_hosts");
        file.into_temp_path().keep().expect("kept until the directory goes")
    }

    /// Starts it anew, with the same key under the same address, and other extra lines of configuration.
    pub fn restart(&mut self, extra: &str) {
        self.stop();
        self.child = Self::launch(self.dir.path(), self.address, &self.dir.path().join("host"), extra);
    }

    /// Gives the server another host key, under the same address.
    pub fn change_key(&mut self, kind: &[&str]) {
        self.stop();
        let dir = tempfile::tempdir_in(self.dir.path()).expect("a directory").keep();
        let host = key_pair(&dir, "host", kind, "");
        self.host_key = public_key(&host);
        self.child = Self::launch(self.dir.path(), self.address, &host, "");
    }

    /// The fleet's host for this server.
    pub fn host(&self, name: &str) -> inventory::Host {
        host(name, self.address, &self.identity(), &self.known_hosts(), &self.dir.path().join("state"))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A free port on a loopback address that depends on the process, so that tests do not meet.
pub fn free_address() -> SocketAddrV4 {
    listen().1
}

/// A listener on such an address.
pub fn listen() -> (TcpListener, SocketAddrV4) {
    let pid = std::process::id();
    let ip = Ipv4Addr::new(127, 1 + (pid >> 8 & 0x3f) as u8, (pid & 0xff) as u8, 1);
    let listener = TcpListener::bind((ip, 0)).expect("a loopback address");
    match listener.local_addr().expect("an address") {
        SocketAddr::V4(address) => (listener, address),
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

/// A host of an inventory with everything that SSH needs, and defaults for the rest.
pub fn host(name: &str, address: SocketAddrV4, identity: &Path, known_hosts: &Path, state: &Path) -> inventory::Host {
    use inventory::{Become, BecomeMethod, Campaign, Host, Role, Source, SourceVersion, Ssh, Target, Web, WebServer};
    fs::create_dir_all(state).expect("host_state");
    fs::set_permissions(state, fs::Permissions::from_mode(0o700)).expect("host_state");
    Host {
        name: name.to_owned(),
        address: address.ip().to_string(),
        os: None,
        roles: vec![Role::Marketing],
        web: Web { server: WebServer::Apache, address: "localhost:80".to_owned(), service: None, config: None },
        init: None,
        init_scripts: "/etc/init.d".to_owned(),
        ssh: Ssh {
            user: Some(whoami()),
            port: Some(address.port()),
            identity: vec![identity.display().to_string()],
            jump: None,
            host_key: None,
            known_hosts: vec![known_hosts.display().to_string()],
            connect_timeout: Some(10),
            config: Some("none".to_owned()),
            password: None,
            legacy: inventory::Legacy::none(),
        },
        become_: Become { method: BecomeMethod::None, password: None },
        campaign: Campaign {
            home: "/usr/local/neolane".to_owned(),
            user: "neolane".to_owned(),
            soap: inventory::Campaign::SOAP.to_owned(),
        },
        host_state: state.display().to_string(),
        source: Source { version: SourceVersion::V6_1, latest_build: None, packages: Vec::new() },
        target: Target { version: "7.4.1".to_owned(), build: 9383, packages: Vec::new(), client: None },
        keep: None,
        origins: std::collections::BTreeMap::new(),
        place: "1:1".to_owned(),
    }
}

/// A fleet of one platform with these hosts.
pub fn fleet(hosts: Vec<inventory::Host>) -> inventory::Fleet {
    inventory::Fleet {
        name: "test".to_owned(),
        base: PathBuf::from("/"),
        parallel: inventory::Parallel { platforms: 1, hosts: 50 },
        platforms: vec![inventory::Platform {
            name: "test".to_owned(),
            topology: inventory::Topology::Standard,
            rehearsal: false,
            runbook: None,
            database: None,
            instances: Vec::new(),
            hosts,
            overrides: std::collections::BTreeMap::new(),
            order: None,
            restart_order: None,
        }],
    }
}

/// The account that runs the tests.
pub fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A relay in front of a server that counts what the client sends.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddrV4,
    sent: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Relay {
    /// Starts one in front of `server`. Its threads end with their connections; the listener ends with the process.
    pub fn start(server: SocketAddrV4) -> Self {
        let (listener, address) = listen();
        let (sent, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, made) = (Arc::clone(&sent), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                made.fetch_add(1, Ordering::SeqCst);
                let (Ok(back), Ok(forth)) = (server.try_clone(), client.try_clone()) else { continue };
                let count = Arc::clone(&count);
                std::thread::spawn(move || copy(client, server, &count));
                std::thread::spawn(move || copy(back, forth, &AtomicU64::new(0)));
            }
        });
        Self { address, sent, connections }
    }

    /// Bytes that clients sent since the last call.
    pub fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match std::io::Read::read(&mut from, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                count.fetch_add(length as u64, Ordering::SeqCst);
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
