//! One real OpenSSH server that stands for all hosts of a fleet.

use crate::cpu;
use crate::site::Site;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SSHD: &str = "/usr/sbin/sshd";

/// Whether OpenSSH is installed here; says aloud when it is not.
pub(crate) fn installed() -> bool {
    let missing: Vec<&str> = [SSHD, "/usr/bin/ssh-keygen", "/usr/bin/ssh"].into_iter().filter(|p| !Path::new(p).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} not installed (apt install openssh-server openssh-client)", missing.join(", "));
    }
    missing.is_empty()
}

/// A running sshd.
pub(crate) struct Server {
    child: Child,
    /// What it used until it listened, which no client is to be blamed for.
    idle: Duration,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) fn start(site: &Site) -> anyhow::Result<Self> {
        let dir = site.path();
        // As root, sshd insists on this directory (which its service unit makes otherwise).
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").context("/run/sshd")?;
        }
        let (config, log) = (dir.join("sshd_config"), dir.join("sshd.log"));
        let _ = fs::remove_file(&log);
        fs::write(&config, configuration(site)).context("sshd_config")?;
        let mut command = Command::new(SSHD);
        command.arg("-D").arg("-f").arg(&config).arg("-E").arg(&log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("sshd cannot be started")?;
        // Not found out by connecting to it, which would cost it something.
        let until = Instant::now() + Duration::from_secs(20);
        let said = || fs::read_to_string(&log).unwrap_or_default();
        while !said().contains("Server listening on") {
            if Instant::now() > until || child.try_wait().is_ok_and(|ended| ended.is_some()) {
                let _ = child.kill();
                let _ = child.wait();
                bail!("sshd does not listen: {}", said().trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let idle = cpu::of_living(child.id());
        Ok(Self { child, idle })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and waits for all that it left behind. Answers what it and its descendants used.
    pub(crate) fn stop(mut self) -> anyhow::Result<Duration> {
        let before = cpu::of_reaped()?;
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        self.child.wait()?;
        if !cpu::reap_all() {
            bail!("processes of the hosts still run {:?} after everything should be over", cpu::descendants(std::process::id()));
        }
        Ok((cpu::of_reaped()? - before).saturating_sub(self.idle))
    }
}

/// `rdomain lo`: all addresses of 127.0.0.0/8 and no others, although sshd takes 16 addresses at most (sshd_config(5),
/// `ListenAddress`; on Linux the domain is a device). An empty home: what the account's own shell start files do (bash reads
/// `.bashrc` under sshd) is no cost of SSH. Accounts without a password count as locked unless PAM is asked (sshd_config(5), `UsePAM`).
fn configuration(site: &Site) -> String {
    let dir = site.path().display();
    format!(
        "ListenAddress 0.0.0.0:{} rdomain lo\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile none\n\
         StrictModes no\nUsePAM {}\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nAllowUsers {}@127.0.0.0/8\nMaxStartups 1000\nPrintMotd no\nPrintLastLog no\n\
         Subsystem sftp /usr/lib/openssh/sftp-server\nSetEnv XDG_CACHE_HOME={dir}/cache HOME={dir}/home\n",
        site.port,
        if site.account_is_own { "no" } else { "yes" },
        site.account
    )
}
