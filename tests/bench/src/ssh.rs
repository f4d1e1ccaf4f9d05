//! What pushes are held against: in w3 `ssh HOST 'cat > f' < file` on every host, as many at a time as Caravan starts connections; in w4
//! `scp` to all hosts at once, because Caravan has all connections open after a moment, too.

use crate::Workload;
use crate::site::Files;
use anyhow::{Context, anyhow, bail};
use controller::ssh::SshOptions;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Copies the payload to all hosts. `same_algorithms`: with the key exchange and cipher that Caravan prefers, which cost less than
/// what OpenSSH's client asks for by itself.
pub(crate) fn run(site: &Path, work: Workload, same_algorithms: bool) -> anyhow::Result<()> {
    let files = Files(site.to_owned());
    let fleet = inventory::load(&files.inventory()).map_err(|problems| anyhow!("{}", problems.render(false)))?.fleet;
    let count = fleet.platforms.iter().map(|platform| platform.hosts.len()).sum();
    let at_once = if work == Workload::W4 { count } else { SshOptions::default().starts };
    let hosts = Mutex::new(fleet.platforms.iter().flat_map(|platform| &platform.hosts));
    let next = || hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let copying: Vec<_> = (0..at_once)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(host) = next() {
                        copy(&files, host, work, same_algorithms).with_context(|| host.name.clone())?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        copying.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a copy panicked")))
    })
}

fn copy(files: &Files, host: &inventory::Host, work: Workload, same_algorithms: bool) -> anyhow::Result<()> {
    let program = if work == Workload::W4 { "scp" } else { "ssh" };
    let mut command = Command::new(format!("/usr/bin/{program}"));
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", files.known_hosts().display()));
    if same_algorithms {
        command.args(["-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-gcm@openssh.com"]);
    }
    command.arg("-i").arg(files.identity()).arg("-o").arg(format!("Port={}", host.ssh.port.unwrap_or(22)));
    command.arg("-o").arg(format!("User={}", host.ssh.user.as_deref().unwrap_or_default())).stdout(Stdio::null());
    let pushed = files.pushed(&host.name);
    if work == Workload::W4 {
        command.arg("-q").arg(files.payload(work)).arg(format!("{}:{}", host.address, pushed.display())).stdin(Stdio::null());
    } else {
        command.arg(&host.address).arg(format!("cat > '{}'", pushed.display()));
        command.stdin(Stdio::from(File::open(files.payload(work))?));
    }
    match command.status()? {
        status if status.success() => Ok(()),
        status => bail!("{program} failed: {status}"),
    }
}
