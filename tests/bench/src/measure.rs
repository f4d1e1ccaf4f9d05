//! One measurement: a server, a process that does the work, and what both used.

use crate::server::Server;
use crate::site::Site;
use crate::{Contender, Workload, cpu};
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often memory is looked at. It is a high-water mark: only what grows after the last look is missed.
const LOOK: Duration = Duration::from_millis(10);
/// How often the CPU time of sshd's sessions is looked at: so much of each session's end can be missed.
const LOOK_AT_SSHD: Duration = Duration::from_millis(20);
/// A measurement that takes longer than this is ended.
const TOO_LONG: Duration = Duration::from_secs(600);

/// What was measured once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) workload: Workload,
    pub(crate) contender: Contender,
    pub(crate) hosts: usize,
    /// Samples with the same number were taken one after the other, and are compared with each other.
    pub(crate) run: u8,
    /// CPU seconds of the client's side (the controller, or what stands for it).
    pub(crate) client_cpu_s: f64,
    /// CPU seconds of the server's side: sshd, its sessions, agents, the steps' own programs.
    pub(crate) server_cpu_s: f64,
    /// Those of them that sshd and its sessions used themselves, without the programs that they started.
    pub(crate) sshd_cpu_s: f64,
    /// From the start of the client's process to its end.
    pub(crate) wall_s: f64,
    /// The most memory that the client's process had (`VmHWM`), in KiB; not that of its children.
    pub(crate) memory_kib: u64,
}

impl Sample {
    pub(crate) fn total_cpu_s(&self) -> f64 {
        self.client_cpu_s + self.server_cpu_s
    }
}

/// Measures on one site.
pub(crate) struct Bench<'a> {
    site: &'a Site,
    program: std::path::PathBuf,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(site: &'a Site) -> anyhow::Result<Self> {
        Ok(Self { site, program: std::env::current_exe().context("this program's own path")? })
    }

    /// Puts the agent on every host. Not counted.
    pub(crate) fn warm_up(&self) -> anyhow::Result<()> {
        self.measure(Workload::W1, Contender::Caravan, 0).map(drop)
    }

    /// Does the work once.
    pub(crate) fn measure(&self, workload: Workload, contender: Contender, run: u8) -> anyhow::Result<Sample> {
        // What was written before is no longer on its way to the disk while others are measured.
        rustix::fs::sync();
        let server = Server::start(self.site)?;
        let before = cpu::of_reaped()?;
        let watch = SshdWatch::begin(server.pid());
        let began = Instant::now();
        let errors = self.site.path().join("stderr");
        let mut child =
            self.command(workload, contender).stderr(File::create(&errors)?).spawn().context("cannot start a client")?;
        let (status, memory_kib) = wait(&mut child)?;
        let wall_s = began.elapsed().as_secs_f64();
        let client_cpu_s = (cpu::of_reaped()? - before).as_secs_f64();
        let sshd_cpu_s = watch.end().as_secs_f64();
        let server_cpu_s = server.stop()?.as_secs_f64();
        if !status.success() {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            let log = fs::read_to_string(self.site.path().join("sshd.log")).unwrap_or_default();
            bail!("{workload} by {} failed ({status}):\n{}\nsshd said last:\n{}", contender.name(), tail(&said), tail(&log));
        }
        self.site.sweep().context("cleaning up after a measurement")?;
        Ok(Sample { workload, contender, hosts: self.site.hosts, run, client_cpu_s, server_cpu_s, sshd_cpu_s, wall_s, memory_kib })
    }

    fn command(&self, workload: Workload, contender: Contender) -> Command {
        let files = self.site.files();
        let mut command = Command::new(&self.program);
        // Nothing of the account that runs the bench: no ssh-agent, no configuration, no other keys.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.site.path().join("home")).env("USER", &self.site.account);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        match (workload, contender) {
            (Workload::W1, Contender::Caravan) => {
                command.args(["caravan", "-i"]).arg(files.inventory()).arg("--state-dir").arg(files.state());
                command.args(["exec", "--", "true"]);
            }
            (_, Contender::Caravan) => {
                command.args(["engine", "--work", &workload.to_string(), "--site"]).arg(self.site.path());
            }
            (_, Contender::Floor | Contender::FloorWithPrograms) => {
                let frames = if workload == Workload::W2 { crate::engine::STEPS } else { 1 };
                command.args(["floor", "--frames", &frames.to_string(), "--site"]).arg(self.site.path());
                command.args((contender == Contender::FloorWithPrograms).then_some("--programs"));
            }
            (_, Contender::SshCat | Contender::SshCatSame | Contender::Scp | Contender::ScpSame) => {
                command.args(["ssh", "--work", &workload.to_string(), "--site"]).arg(self.site.path());
                let same = matches!(contender, Contender::SshCatSame | Contender::ScpSame);
                command.args(same.then_some("--same-algorithms"));
            }
        }
        command
    }
}

/// Looks at what sshd and its sessions use, until they end: sshd reaps its sessions itself, so that their own share is not to be had later.
struct SshdWatch {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl SshdWatch {
    fn begin(server: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (before, mut used) = (cpu::of_living(server), BTreeMap::new());
            loop {
                // Once more after the end: a session outlives its client by a moment.
                let last = stop.load(Ordering::Relaxed);
                for pid in cpu::of_one_kind(server, "sshd") {
                    let now = cpu::of_living(pid);
                    used.entry(pid).and_modify(|before: &mut Duration| *before = now.max(*before)).or_insert(now);
                }
                if last {
                    return used.into_values().sum::<Duration>().saturating_sub(before);
                }
                std::thread::sleep(LOOK_AT_SSHD);
            }
        });
        Self { over, thread }
    }

    fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Waits for the end of a client and watches its memory.
fn wait(child: &mut Child) -> anyhow::Result<(ExitStatus, u64)> {
    let began = Instant::now();
    let mut memory = 0;
    loop {
        memory = memory.max(memory_kib(child.id(), "VmHWM"));
        if let Some(status) = child.try_wait()? {
            return Ok((status, memory));
        }
        if began.elapsed() > TOO_LONG {
            child.kill()?;
            child.wait()?;
            bail!("a measurement took longer than {} s", TOO_LONG.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// A line of `/proc/PID/status` that is a number of KiB; 0 when the process has gone.
pub(crate) fn memory_kib(pid: u32, line: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
