//! Processes of stand-ins: who runs on a host, and how everything ends with the lab.

use crate::layout::{HOST_VARIABLE, Host};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A long-running process of a stand-in: a module, or the web server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// `mta@demo`, `watchdog@default`, `apache2`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later process with the same id.
    started: u64,
    /// The build of the program, or of the library that the web server has loaded.
    pub build: u32,
}

fn directory(host: &Host) -> PathBuf {
    host.state().join("run")
}

/// Start time of a process, unless it is gone or only waits to be reaped.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything; the fields after it are numbered from 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The file that a process of a realistic host keeps locked while it lives: process ids mean nothing outside of their host.
fn lock_file(host: &Host, name: &str) -> PathBuf {
    directory(host).join(format!("{name}.lock"))
}

/// Enters the calling process into the host's list of what runs.
pub(crate) fn register(host: &Host, name: &str, build: u32) -> io::Result<()> {
    if host.is_here() {
        let lock = OpenOptions::new().create(true).append(true).open(lock_file(host, name))?;
        lock.lock()?;
        // Given back by the kernel alone, when the process ends in whatever way.
        std::mem::forget(lock);
    }
    enter(host, name, std::process::id(), build)
}

/// Enters a process into the host's list of what runs.
pub(crate) fn enter(host: &Host, name: &str, pid: u32, build: u32) -> io::Result<()> {
    let started = start_time(pid).ok_or_else(|| io::Error::other("no start time in /proc"))?;
    let entry = Running { name: name.to_owned(), pid, started, build };
    write_atomically(&directory(host).join(format!("{name}.json")), &serde_json::to_vec(&entry)?)
}

/// What runs on a host, by name.
///
/// # Errors
/// When the host's list cannot be read.
pub fn running(host: &Host) -> io::Result<Vec<Running>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory(host))? {
        // A file can vanish under us: another stand-in has just stopped that process.
        let Ok(bytes) = std::fs::read(entry?.path()) else { continue };
        let Ok(entry) = serde_json::from_slice::<Running>(&bytes) else { continue };
        if is_alive(host, &entry) {
            all.push(entry);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Whether a process of the list lives.
fn is_alive(host: &Host, entry: &Running) -> bool {
    match File::open(lock_file(host, &entry.name)) {
        Ok(lock) => matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => start_time(entry.pid) == Some(entry.started),
        // Somebody else's, and not to be opened: it cannot be told from one that lives.
        Err(_) => true,
    }
}

/// The running process of this name.
pub(crate) fn find(host: &Host, name: &str) -> io::Result<Option<Running>> {
    Ok(running(host)?.into_iter().find(|entry| entry.name == name))
}

/// Asks a process to end and waits for it. `false` when it is still there after `patience`.
pub(crate) fn stop(entry: &Running, patience: Duration) -> bool {
    if let Some(process) = open(entry.pid)
        && start_time(entry.pid) == Some(entry.started)
    {
        // A process that is gone by now is what was asked for.
        let _ = pidfd_send_signal(&process, Signal::TERM);
    }
    wait_until(patience, || start_time(entry.pid) != Some(entry.started))
}

/// Waits until something holds; `false` when it does not in time.
pub(crate) fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open(pid: u32) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Processes of this account that a lab's hosts started: their environment or their executable says so.
fn of_lab(dir: &Path) -> Vec<u32> {
    let me = rustix::process::geteuid().as_raw();
    let hosts = dir.join("hosts");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (entry.metadata().ok()?.uid() == me && pid != std::process::id() && belongs(pid, &hosts)).then_some(pid)
    });
    pids.collect()
}

fn belongs(pid: u32, hosts: &Path) -> bool {
    if std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(hosts)) {
        return true;
    }
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| {
        let Ok(variable) = std::str::from_utf8(variable) else { return false };
        variable
            .strip_prefix(HOST_VARIABLE)
            .and_then(|rest| rest.strip_prefix('='))
            .is_some_and(|dir| Path::new(dir).starts_with(hosts))
    })
}

/// Ends every process that the hosts of the lab in `dir` started, by process id. Returns how many are left, which is none unless
/// the system refuses.
pub fn end_all(dir: &Path) -> usize {
    let mut left = 0;
    // What is being started while we look is found in the next round.
    for _ in 0..40 {
        let pids = of_lab(dir);
        left = pids.len();
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // The descriptor pins the process: it is looked at again, so that a reused id is not hit.
            if let Some(process) = open(pid)
                && belongs(pid, &dir.join("hosts"))
            {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    left
}

/// Writes a file so that readers see the old content or the new one.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}
