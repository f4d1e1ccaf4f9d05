//! One realistic host, seen from the lab.

use super::net::{self, Network};
use super::{INIT, boot};
use crate::layout::Host;
use crate::processes::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A host that runs, or ran: its name, address and process 1 (as seen from outside).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RealHost {
    /// Its name.
    pub name: String,
    /// Its address on the lab's bridge.
    pub address: Ipv4Addr,
    /// Its process 1.
    pub(crate) pid: u32,
    /// When that process started, in clock ticks since boot: tells it from a later process with the same id.
    started: u64,
    /// The process that process 1 is a child of, on a host with systemd.
    parent: Option<u32>,
    /// The lab's end of its cable.
    pub(crate) interface: String,
}

/// Kills a process. One that has ended meanwhile is what was asked for.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What programs find in their environment on a host.
const ENVIRONMENT: [&str; 3] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"];

impl RealHost {
    /// Starts the host's process 1 and connects it to the network. Nothing else runs on it yet.
    pub(crate) fn start(network: &Network, base: &Path, fleet: &Path, host: &Host) -> io::Result<Self> {
        let (name, address, systemd) = (&host.name, host.address, host.systemd);
        let own = fleet.join("hosts").join(name);
        let log = fs::File::create(own.join("log"))?;
        let interface = network.interface(address);
        let mut command = Command::new("unshare");
        // systemd's own program makes the other namespaces.
        let others: &[&str] = if systemd { &[] } else { &["--pid", "--uts", "--ipc", "--fork", "--kill-child"] };
        command.args(["--mount", "--net"]).args(others).arg(fleet.join("bin").join(INIT)).args([base, fleet]).arg(name);
        command.args(systemd.then_some(&interface)).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // A process group of its own: Ctrl-C in the lab's terminal is the lab's business.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        let parent = command.spawn()?.id();
        let failed =
            || io::Error::other(format!("{name} does not start: {}", fs::read_to_string(own.join("log")).unwrap_or_default()));
        let mut pid = None;
        wait_until(Duration::from_secs(20), || {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            pid = children.ok().and_then(|text| text.split_whitespace().next()?.parse::<u32>().ok());
            // Until it is systemd itself, it is a process that only prepares.
            pid =
                pid.filter(|pid| !systemd || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "systemd\n"));
            pid.is_some() || !Path::new(&format!("/proc/{parent}")).exists()
        });
        let Some((pid, started)) = pid.and_then(|pid| Some((pid, crate::processes::start_time(pid)?))) else {
            kill(parent);
            boot::remove_groups(&interface);
            return Err(failed());
        };
        let host = Self { name: name.clone(), address, pid, started, parent: systemd.then_some(parent), interface };
        network.connect(pid, address)?;
        let booted = || match systemd {
            true => host.run("systemctl", &["is-active", "lab.target"]).is_ok(),
            false => own.join("booted").exists(),
        };
        if !wait_until(Duration::from_secs(60), || booted() || !host.is_up()) || !booted() {
            host.end();
            return Err(failed());
        }
        Ok(host)
    }

    /// Whether its process 1 lives.
    pub fn is_up(&self) -> bool {
        crate::processes::start_time(self.pid) == Some(self.started)
    }

    /// Ends it: the kernel ends every process of the host with its process 1, and takes its mounts and its network away.
    pub fn end(&self) {
        if self.is_up() {
            kill(self.pid);
        }
        wait_until(Duration::from_secs(10), || !self.is_up());
        if let Some(parent) = self.parent {
            let gone = || crate::processes::start_time(parent).is_none();
            wait_until(Duration::from_secs(10), gone);
            boot::remove_groups(&self.interface);
        }
    }

    /// The root of its file system, as the lab reaches it. Links in it that begin with `/` lead to the lab's own files.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// A command that runs on the host, as root.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-p", "-u", "-i", "-n", "-r", "-w", "env", "-i"]);
        command.args(ENVIRONMENT).arg(program).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a program on the host, as root, to its end.
    ///
    /// # Errors
    /// It does not run, or ends with another exit code than 0; the error has what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let output = self.output(program, arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let (status, said) = (output.status, [text(&output.stdout), text(&output.stderr)].join(" "));
        Err(io::Error::other(format!("{}: `{program} {}`: {status}: {}", self.name, arguments.join(" "), said.trim())))
    }

    /// Runs a program on the host, as root, and gives how it ended.
    ///
    /// # Errors
    /// It does not run.
    pub fn output(&self, program: &str, arguments: &[&str]) -> io::Result<Output> {
        self.command(program, arguments).output()
    }

    /// The processes of the host, as seen from outside, without process 1.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(own) = namespace(self.pid) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != self.pid && namespace(*pid).as_ref() == Some(&own)).collect()
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // One that has ended meanwhile needs no signal.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// The processes of its SSH server that serve a connection, not the one that waits for new ones.
    pub fn sessions(&self) -> Vec<u32> {
        let serves = |pid: &u32| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.starts_with(b"sshd: ") && !title.starts_with(b"sshd: /usr/sbin/sshd")
        };
        self.processes().into_iter().filter(serves).collect()
    }

    /// Kills the processes of [`RealHost::sessions`]. What the sessions ran goes on, as orphans.
    pub fn end_sessions(&self) {
        self.sessions().into_iter().for_each(kill);
    }

    /// Pulls its network cable: nothing arrives, nothing answers, and nobody is told.
    ///
    /// # Errors
    /// The lab has no right to do so.
    pub fn cut(&self) -> io::Result<()> {
        net::ip(None, &format!("link set {} down\n", self.interface))
    }

    /// Puts its network cable back.
    ///
    /// # Errors
    /// The lab has no right to do so.
    pub fn mend(&self) -> io::Result<()> {
        net::ip(None, &format!("link set {} up\n", self.interface))
    }

    /// Stops every process of it where it is. Its kernel still acknowledges what arrives.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets its processes go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Takes all the room on its disk: everything but the Campaign installation is on it.
    ///
    /// # Errors
    /// The file system cannot be made smaller.
    pub fn fill_disk(&self) -> io::Result<()> {
        let disk = format!("/{}", boot::DISK);
        let mut refused = None;
        // What the host writes in between does not fit any more, and the kernel refuses it.
        for _ in 0..100 {
            let used = self.run("stat", &["-f", "-c", "%b %f %S", &disk])?;
            let numbers: Vec<u64> = used.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [blocks, free, size] = numbers[..] else { return Err(io::Error::other(format!("{}: `{used}`", self.name))) };
            match self.run("mount", &["-o", &format!("remount,size={}", (blocks - free).max(1) * size), &disk]) {
                Ok(_) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::other("the disk was not filled")))
    }

    /// Loses this many of a hundred packets that the host sends or is sent.
    ///
    /// # Errors
    /// The kernel cannot.
    pub fn lose(&self, percent: u8) -> io::Result<()> {
        let probability = format!("{:.2}", f64::from(percent.min(100)) / 100.0);
        for chain in ["INPUT", "OUTPUT"] {
            self.run("iptables", &["-F", chain])?;
            let random = ["-m", "statistic", "--mode", "random", "--probability", &probability, "-j", "DROP"];
            self.run("iptables", &[&["-A", chain][..], &random[..]].concat())?;
        }
        Ok(())
    }

    /// Sends to and receives from the host at this rate at most, as `tc` writes it (`256kbit`).
    ///
    /// # Errors
    /// It is no rate, or the kernel cannot.
    pub fn slow(&self, rate: &str) -> io::Result<()> {
        let shape = |device: &str| format!("qdisc replace dev {device} root tbf rate {rate} burst 16kb latency 500ms");
        let lab = shape(&self.interface);
        net::run(Command::new("tc").args(lab.split(' ')).stdin(Stdio::null()))?;
        let host = shape("eth0");
        self.run("tc", &host.split(' ').collect::<Vec<_>>()).map(|_| ())
    }

    /// How many packets [`RealHost::lose`] has lost so far.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn lost(&self) -> io::Result<u64> {
        let mut lost = 0;
        for chain in ["INPUT", "OUTPUT"] {
            let rules = self.run("iptables", &["-nvxL", chain])?;
            // Packets, bytes, target.
            let dropped = rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lost += dropped
                .filter(|words| words.get(2) == Some(&"DROP"))
                .filter_map(|words| words.first()?.parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(lost)
    }

    /// How often something had to wait at its end of a link that [`RealHost::slow`] has made slow, or at the lab's.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn held_up(&self) -> io::Result<u64> {
        let lab = net::run(Command::new("tc").args(["-s", "qdisc", "show", "dev", &self.interface]).stdin(Stdio::null()))?;
        let host = self.run("tc", &["-s", "qdisc", "show", "dev", "eth0"])?;
        let text = format!("{} {host}", String::from_utf8_lossy(&lab.stdout));
        let numbers = text.split("overlimits ").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(numbers.sum())
    }

    /// Takes every fault of [`RealHost::cut`], [`RealHost::freeze`], [`RealHost::fill_disk`], [`RealHost::lose`] and [`RealHost::slow`]
    /// back.
    ///
    /// # Errors
    /// One of them stays.
    pub fn heal(&self) -> io::Result<()> {
        self.thaw();
        self.mend()?;
        // There is one only where the link was slowed.
        let _ = Command::new("tc").args(["qdisc", "del", "dev", &self.interface, "root"]).stdin(Stdio::null()).output();
        let _ = self.output("tc", &["qdisc", "del", "dev", "eth0", "root"]);
        let _ = self.output("iptables", &["-F"]);
        self.run("mount", &["-o", &format!("remount,size={}", boot::DISK_SIZE), &format!("/{}", boot::DISK)]).map(|_| ())
    }
}
