//! A real OpenSSH server for a host: one `sshd -i` for each connection, so that no daemon and no port of its own is needed, and the
//! lab still has its hand on the plug. Programs find on a host what they find behind the lab's own server.

use crate::layout::{HOST_VARIABLE, Host};
use crate::server::environment;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, PublicKey};
use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const SSHD: &str = "/usr/sbin/sshd";

/// Whether OpenSSH's server is installed here.
pub fn is_installed() -> bool {
    Path::new(SSHD).exists()
}

fn directory(host: &Host) -> PathBuf {
    host.dir.join("etc/ssh")
}

/// Writes what the server of a host reads.
pub(crate) fn furnish(host: &Host, key: &PrivateKey, login: &PublicKey) -> io::Result<()> {
    if !is_installed() {
        return Err(io::Error::other(format!("{} is to have a real server, and {SSHD} is not installed", host.name)));
    }
    // As root, sshd insists on this directory, which its service unit makes otherwise.
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd")?;
    }
    let dir = directory(host);
    fs::create_dir_all(&dir)?;
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    write(&dir.join("host_key"), private.as_bytes(), 0o600)?;
    let public = login.to_openssh().map_err(io::Error::other)?;
    write(&dir.join("authorized_keys"), public.as_bytes(), 0o600)?;
    let words: String = environment(host).iter().map(|(name, value)| format!(" {name}='{value}'")).collect();
    let session = format!("#!/bin/sh\ncd '{}' && exec env -i{words} /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n", host.dir.display());
    write(&dir.join("session"), session.as_bytes(), 0o700)?;
    let shown = dir.display();
    let config = format!(
        "HostKey {shown}/host_key\nAuthorizedKeysFile {shown}/authorized_keys\nForceCommand {shown}/session\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PrintMotd no\nPrintLastLog no\n"
    );
    write(&dir.join("sshd_config"), config.as_bytes(), 0o600)
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Answers one connection. Returns when its server has ended.
pub(crate) async fn serve(host: &Host, connection: TcpStream) {
    let server = || -> io::Result<tokio::process::Child> {
        connection.set_nonblocking(false)?;
        let output = OwnedFd::from(connection.try_clone()?);
        let dir = directory(host);
        let mut sshd = tokio::process::Command::new(SSHD);
        sshd.arg("-i").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(dir.join("log"));
        sshd.env(HOST_VARIABLE, &host.dir).stdin(Stdio::from(OwnedFd::from(connection))).stdout(output).stderr(Stdio::null());
        sshd.spawn()
    };
    if let Ok(mut server) = server() {
        // How a session ends is the client's business.
        let _ = server.wait().await;
    }
}
