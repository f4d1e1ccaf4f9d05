//! The agent's processes on a host of the lab, seen as what they are: processes of this machine.

use crate::layout::{Host, Layout};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A process that cannot become another one under our hands.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    handle: OwnedFd,
}

impl Process {
    fn open(pid: u32) -> Option<Self> {
        let id = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { pid, handle: pidfd_open(id, PidfdFlags::empty()).ok()? })
    }

    /// Sends a signal; false when it is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.handle, signal).is_ok()
    }

    /// Whether it is stopped, neither ended nor running.
    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }
}

/// The words of a process's command line.
fn words(pid: u32) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Whether a process is the agent in this mode, for a run on this host.
fn is_agent(pid: u32, host: &Host, mode: &str) -> bool {
    let words = words(pid);
    let runs = host.seen_there(&host.host_state().join("runs"));
    matches!(words.as_slice(), [_, own, dir, ..] if own == mode.as_bytes() && dir.starts_with(runs.as_os_str().as_bytes()))
        && (host.process_one().is_none() || runs_on(pid, host))
}

/// Whether a process belongs to a host: to its process ids where it has its own, else by where its program is.
fn runs_on(pid: u32, host: &Host) -> bool {
    let ids = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    match host.process_one() {
        Some(first) => ids(pid).is_some_and(|own| ids(first) == Some(own)),
        None => fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(&host.dir)),
    }
}

/// The supervisor on a host.
pub fn supervisor(host: &Host) -> Option<Process> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_agent(*pid, host, "supervisor"))
        .find_map(Process::open)
        .filter(|found| is_agent(found.pid, host, "supervisor"))
}

/// Whether a bridge is there, which answers the controller.
pub fn bridge(host: &Host) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| words(pid).get(1).is_some_and(|mode| mode == b"bridge") && runs_on(pid, host))
}

/// The programs that run from a host's directory with this word on their command line (`-postupgrade`).
pub fn programs(host: &Host, word: &str) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| runs_on(*pid, host) && words(*pid).iter().any(|own| own == word.as_bytes());
    pids.filter(is).filter_map(Process::open).filter(|process| is(&process.pid)).collect()
}

/// The runner that a supervisor has started, brought to a halt in the middle of its step. `None` when there is none to be had.
pub fn stop_runner(host: &Host, supervisor: u32) -> Option<Process> {
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let runner = Process::open(pid).filter(|_| is_agent(pid, host, "runner"));
            if let Some(runner) = runner.filter(|runner| runner.signal(Signal::STOP)) {
                let halted = Instant::now() + Duration::from_secs(1);
                while Instant::now() < halted {
                    if runner.is_stopped() {
                        return Some(runner);
                    }
                    std::hint::spin_loop();
                }
            }
        }
    }
    None
}

/// The hosts' own journals, followed as they grow.
#[derive(Debug)]
pub struct Journals {
    hosts: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    host: Host,
    file: Option<fs::File>,
    /// What was read of a line that is not whole yet.
    rest: Vec<u8>,
    supervisor: Option<u32>,
}

impl Journals {
    /// Those of all hosts of a lab, from their beginning.
    pub fn new(layout: &Layout) -> Self {
        let followed = |host: &Host| Followed { host: host.clone(), file: None, rest: Vec::new(), supervisor: None };
        Self { hosts: layout.hosts().map(followed).collect() }
    }

    /// The next host on which this step has just begun, with its supervisor.
    pub fn begun(&mut self, step: &str) -> Option<(Host, u32)> {
        self.hosts.iter_mut().find_map(|followed| {
            let begun = followed.begun(step)?;
            Some((followed.host.clone(), begun))
        })
    }

    /// How often each step began, by its name.
    pub fn all(layout: &Layout) -> BTreeMap<String, usize> {
        let mut begun = BTreeMap::new();
        for host in layout.hosts() {
            let text = journal(host).and_then(|path| fs::read(path).ok()).unwrap_or_default();
            for step in text.split(|byte| *byte == b'\n').filter_map(started) {
                *begun.entry(step_name(&step).to_owned()).or_default() += 1;
            }
        }
        begun
    }
}

impl Followed {
    fn begun(&mut self, step: &str) -> Option<u32> {
        if self.file.is_none() {
            self.file = Some(fs::File::open(journal(&self.host)?).ok()?);
        }
        if self.supervisor.is_none_or(|pid| !is_agent(pid, &self.host, "supervisor")) {
            self.supervisor = supervisor(&self.host).map(|process| process.pid);
        }
        let file = self.file.as_mut()?;
        // A cut tail is written over from where it began: nothing that was read before it changes.
        let position = file.stream_position().ok()?;
        if file.read_to_end(&mut self.rest).is_err() {
            file.seek(SeekFrom::Start(position)).ok()?;
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n')? + 1;
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let begun = lines.split(|byte| *byte == b'\n').filter_map(started).any(|id| step_name(&id) == step);
        if begun { self.supervisor } else { None }
    }
}

/// The name in a step's id (`PLATFORM/PHASE/STAGE/HOST[:INSTANCE]/NAME`).
pub fn step_name(id: &str) -> &str {
    id.splitn(5, '/').nth(4).unwrap_or(id)
}

/// The journal of the one run on a host.
fn journal(host: &Host) -> Option<PathBuf> {
    let mut runs = fs::read_dir(host.host_state().join("runs")).ok()?.flatten();
    Some(runs.next()?.path().join("journal.jsonl"))
}

/// The step that a line of a host's journal says to have begun.
fn started(line: &[u8]) -> Option<String> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    line.get("what")?.get("started")?;
    Some(line.get("step")?.as_str()?.to_owned())
}
