//! The servers, each a real program on a port of its own.

use super::world::{PASSWORD, World};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What starts a server.
enum Kind {
    /// OpenSSH, with these types of host key and these lines of configuration.
    OpenSsh(&'static [&'static str], &'static str),
    Dropbear,
    TinySshd,
    Lsh,
    /// With these algorithms for the signatures of keys.
    AsyncSsh(&'static str),
}

pub(super) const ALL_KEYS: &[&str] = &["ed25519", "ecdsa", "rsa"];

const SERVERS: &[(&str, u16, Kind)] = &[
    (
        "OpenSSH",
        2201,
        Kind::OpenSsh(
            ALL_KEYS,
            "ListenAddress 127.0.0.1\nListenAddress ::1\nListenAddress fe80::1%lo\nBanner BASE/banner\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, PAM",
        2202,
        Kind::OpenSsh(ALL_KEYS, "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\nPermitTTY yes"),
    ),
    (
        "OpenSSH, curve25519 and chacha20",
        2203,
        Kind::OpenSsh(
            &["ed25519"],
            "KexAlgorithms curve25519-sha256\nCiphers chacha20-poly1305@openssh.com\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, nistp256 and aes128-gcm",
        2204,
        Kind::OpenSsh(
            &["ecdsa"],
            "KexAlgorithms ecdh-sha2-nistp256\nCiphers aes128-gcm@openssh.com\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, group14-sha256 and aes256-ctr",
        2205,
        Kind::OpenSsh(
            &["rsa"],
            "KexAlgorithms diffie-hellman-group14-sha256\nCiphers aes256-ctr\nMACs hmac-sha2-512\nHostKeyAlgorithms rsa-sha2-512\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, umac alone",
        2206,
        Kind::OpenSsh(&["ed25519"], "Ciphers aes128-ctr\nMACs umac-128@openssh.com\nUsePAM no\nKbdInteractiveAuthentication no"),
    ),
    (
        "OpenSSH as on RHEL 6",
        2207,
        Kind::OpenSsh(
            &["rsa"],
            "KexAlgorithms diffie-hellman-group14-sha1\nHostKeyAlgorithms ssh-rsa\nPubkeyAcceptedAlgorithms ssh-rsa\nCiphers aes128-cbc\n\
             MACs hmac-sha1\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, group-exchange-sha1",
        2208,
        Kind::OpenSsh(
            &["ed25519"],
            "KexAlgorithms diffie-hellman-group-exchange-sha1\nCiphers aes256-cbc\nMACs hmac-sha1-etm@openssh.com\nUsePAM no\nKbdInteractiveAuthentication no",
        ),
    ),
    (
        "OpenSSH, rsa with SHA-1",
        2209,
        Kind::OpenSsh(&["ed25519"], "PubkeyAcceptedAlgorithms ssh-rsa\nUsePAM no\nKbdInteractiveAuthentication no"),
    ),
    ("dropbear", 2210, Kind::Dropbear),
    ("tinysshd", 2211, Kind::TinySshd),
    ("lsh", 2212, Kind::Lsh),
    ("asyncssh", 2213, Kind::AsyncSsh("ssh-ed25519,ssh-rsa,rsa-sha2-256,rsa-sha2-512")),
    ("asyncssh, rsa with SHA-1", 2214, Kind::AsyncSsh("ssh-ed25519,ssh-rsa")),
];

/// The port of a server.
pub(super) fn port(name: &str) -> u16 {
    SERVERS.iter().find(|(server, ..)| *server == name).map(|(_, port, _)| *port).unwrap_or_else(|| panic!("no server {name}"))
}

/// The servers that run. They end with this.
pub(super) struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Why a server cannot run here.
pub(super) fn missing(name: &str) -> Option<String> {
    let (_, _, kind) = SERVERS.iter().find(|(server, ..)| *server == name)?;
    let there = |paths: &[&str], package: &str| {
        let gone = paths.iter().find(|path| !Path::new(path).exists())?;
        Some(format!("{gone} is not there (apt install {package})"))
    };
    match kind {
        Kind::OpenSsh(..) => there(&["/usr/sbin/sshd"], "openssh-server"),
        Kind::Dropbear => there(&["/usr/sbin/dropbear", "/usr/bin/dropbearkey"], "dropbear-bin"),
        Kind::TinySshd => there(&["/usr/sbin/tinysshd"], "tinysshd"),
        Kind::Lsh => there(&["/usr/sbin/lshd", "/usr/bin/lsh-keygen", "/usr/bin/ssh-conv"], "lsh-server"),
        Kind::AsyncSsh(..) => there(&["/usr/lib/python3/dist-packages/asyncssh"], "python3-asyncssh"),
    }
}

/// Starts all servers that can run here. `more`: further lines for OpenSSH's configuration.
pub(super) fn start(world: &World, more: &str) -> Running {
    let mut running = Running(Vec::new());
    let mut ports = Vec::new();
    for (name, port, kind) in SERVERS {
        if missing(name).is_some() {
            continue;
        }
        let dir = world.base().join(format!("server-{port}"));
        fs::create_dir(&dir).unwrap();
        if let Some(mut command) = command(world, &dir, *port, kind, more) {
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(dir.join("log")).unwrap());
            running.0.push(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        ports.push((name, *port, dir));
    }
    let until = Instant::now() + Duration::from_secs(20);
    for (name, port, dir) in ports {
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{name}: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    running
}

fn command(world: &World, dir: &Path, port: u16, kind: &Kind, more: &str) -> Option<Command> {
    let text = |path: &Path| path.display().to_string();
    Some(match kind {
        Kind::OpenSsh(types, config) => {
            let mut lines = format!(
                "Port {port}\nPidFile none\nPermitRootLogin no\nPrintMotd no\nMaxStartups 200\nMaxSessions 100\n\
                 TrustedUserCAKeys {}/keys/ca.pub\n{}\n",
                text(world.base()),
                config.replace("BASE", &text(world.base()))
            );
            for kind in *types {
                lines.push_str(&format!("HostKey {}\n", text(&host_key(world, kind))));
            }
            if !config.contains("ListenAddress") {
                lines.push_str("ListenAddress 127.0.0.1\n");
            }
            lines.push_str(more);
            fs::write(dir.join("sshd_config"), lines).unwrap();
            let mut command = Command::new("/usr/sbin/sshd");
            command.arg("-D").arg("-e").arg("-f").arg(dir.join("sshd_config"));
            command
        }
        Kind::Dropbear => {
            let mut command = Command::new("/usr/sbin/dropbear");
            command.args(["-F", "-E", "-p", &format!("127.0.0.1:{port}")]);
            for kind in ALL_KEYS {
                let key = dir.join(kind);
                run(Command::new("/usr/bin/dropbearkey").args(["-t", kind, "-f"]).arg(&key));
                command.arg("-r").arg(key);
            }
            command
        }
        Kind::TinySshd => {
            let keys = dir.join("keys");
            run(Command::new("/usr/sbin/tinysshd-makekey").arg(&keys));
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            // It is made for inetd: one process a connection, on standard input and output.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let output = OwnedFd::from(stream.try_clone().unwrap());
                    let mut command = Command::new("/usr/sbin/tinysshd");
                    command.arg("-q").arg(&keys).stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null());
                    let mut child = command.spawn().unwrap();
                    drop(command);
                    std::thread::spawn(move || child.wait());
                }
            });
            return None;
        }
        Kind::Lsh => {
            let (seed, key) = (dir.join("seed"), dir.join("key"));
            fs::write(&seed, [7; 32]).unwrap();
            fs::set_permissions(&seed, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let make = "umask 077; lsh-keygen --server -a rsa -l 2048 | lsh-writekey --server -o \"$0\"";
            run(Command::new("sh").args(["-c", make]).arg(&key).env("LSH_YARROW_SEED_FILE", &seed));
            let mut command = Command::new("/usr/sbin/lshd");
            command.args(["-p", &port.to_string(), "--interface=127.0.0.1", "--no-pid-file", "-h"]).arg(&key);
            command.env("LSH_YARROW_SEED_FILE", &seed);
            command
        }
        Kind::AsyncSsh(signatures) => {
            let script = dir.join("server.py");
            fs::write(&script, include_str!("asyncssh_server.py")).unwrap();
            let key = host_key(world, "ed25519");
            let mut command = Command::new("/usr/bin/python3");
            command.arg(script).arg(port.to_string()).arg(key).arg(PASSWORD).arg(world.base().join("keys/ca.pub")).arg(signatures);
            command
        }
    })
}

/// One key of each type serves all servers.
fn host_key(world: &World, kind: &str) -> PathBuf {
    world.path("keys").join(format!("host-{kind}"))
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}
