//! CPU time and the ends of processes.
//!
//! The bench makes itself the reaper of its descendants: an agent's supervisor, whose parent has gone, becomes its child, and so
//! its CPU is counted when it is reaped. CPU counts for whom it is asked after: first the controller is waited for, then the
//! server, then the orphans of the server.

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long processes have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(20);

/// Directories to remove when the bench is interrupted.
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Makes this process the parent of descendants whose parent dies (prctl(2), `PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt_orphans() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// User and system time of all children that were reaped so far, with that of their own reaped children (getrusage(2)).
pub(crate) fn of_reaped() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let time = |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec().unsigned_abs(), t.tv_usec().unsigned_abs() as u32 * 1000);
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// What a living process with one thread has used so far (proc(5), `schedstat`: the first number, in nanoseconds).
pub(crate) fn of_living(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default())
}

/// Reaps what has ended, until there are no children any more or patience ends. True when none are left.
pub(crate) fn reap_all() -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return true,
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            _ if Instant::now() > until => return false,
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Ends all descendants, each by its id; says how many there were.
pub(crate) fn end_children() -> usize {
    let mut ended = 0;
    // Once more after each round: the child of a process that ended becomes ours.
    loop {
        let descendants = descendants(std::process::id());
        for pid in descendants.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        ended += descendants.len();
        if reap_all() {
            return ended;
        }
    }
}

/// All processes below one, that live and do not wait to be reaped.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The program's name stands in parentheses and may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        if let (Some(parent), false) = (parent, state == Some("Z")) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![of];
    while let Some(next) = open.pop().and_then(|pid| children.get(&pid)) {
        found.extend(next);
        open.extend(next);
    }
    found
}

/// A process and its children, and theirs, as far as the names of all begin with `name` (proc(5), `children`: cheaper than a look at all
/// processes).
pub(crate) fn of_one_kind(pid: u32, name: &str) -> Vec<u32> {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !comm.starts_with(name) {
        return Vec::new();
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split(' ').filter_map(|child| child.trim().parse().ok());
    std::iter::once(pid).chain(children.flat_map(|child| of_one_kind(child, name))).collect()
}

/// Names a directory that must not outlive an interrupted bench.
pub(crate) fn remove_on_signals(dir: PathBuf) {
    DIRECTORIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(dir);
}

/// On Ctrl-C and SIGTERM: ends everything that was started, removes directories, leaves.
pub(crate) fn clean_up_on_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        end_children();
        let directories = DIRECTORIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        directories.iter().for_each(|dir| drop(std::fs::remove_dir_all(dir)));
        std::process::exit(130);
    });
    Ok(())
}
