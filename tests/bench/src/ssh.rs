//! What w3 is held against: `ssh HOST 'cat > f' < file` on every host, as many at a time as Caravan starts connections.

use crate::site::Files;
use anyhow::{Context, anyhow, bail};
use controller::ssh::SshOptions;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Copies the payload to all hosts. `same_algorithms`: with the key exchange and cipher that Caravan prefers, which cost less than
/// what OpenSSH's client asks for by itself.
pub(crate) fn run(site: &Path, same_algorithms: bool) -> anyhow::Result<()> {
    let files = Files(site.to_owned());
    let fleet = inventory::load(&files.inventory()).map_err(|problems| anyhow!("{}", problems.render(false)))?.fleet;
    let hosts = Mutex::new(fleet.platforms.iter().flat_map(|platform| &platform.hosts));
    let next = || hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let copying: Vec<_> = (0..SshOptions::default().starts)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(host) = next() {
                        copy(&files, host, same_algorithms).with_context(|| host.name.clone())?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        copying.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a copy panicked")))
    })
}

fn copy(files: &Files, host: &inventory::Host, same_algorithms: bool) -> anyhow::Result<()> {
    let mut command = Command::new("/usr/bin/ssh");
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", files.known_hosts().display()));
    if same_algorithms {
        command.args(["-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-gcm@openssh.com"]);
    }
    command.arg("-i").arg(files.identity()).arg("-p").arg(host.ssh.port.unwrap_or(22).to_string());
    command.arg("-l").arg(host.ssh.user.as_deref().unwrap_or_default()).arg(&host.address);
    command.arg(format!("cat > '{}'", files.pushed(&host.name).display()));
    command.stdin(Stdio::from(File::open(files.payload())?)).stdout(Stdio::null());
    match command.status()? {
        status if status.success() => Ok(()),
        status => bail!("ssh failed: {status}"),
    }
}
