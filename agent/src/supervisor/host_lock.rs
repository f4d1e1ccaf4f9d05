//! The lock of a host: one run at a time. Whoever holds it is named in it.

use crate::account;
use crate::inspect::now_ms;
use crate::runner::files::StepFiles;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who holds the host.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    run: String,
    pid: u32,
    account: String,
    since_ms: u64,
}

/// The lock, held as long as this lives.
#[derive(Debug)]
pub(crate) struct HostLock {
    file: File,
}

/// Why the lock cannot be had.
#[derive(Debug)]
pub(crate) enum NotLocked {
    /// The supervisor of this very run is there already.
    Running,
    /// Another run has the host; the text says which.
    Refused(String),
    /// The file cannot be used.
    Fatal(String),
}

impl HostLock {
    /// Takes the host for a run.
    pub(crate) fn take(host_state: &Path, run: &str) -> Result<Self, NotLocked> {
        let path = host_state.join("lock");
        let cannot = |e: io::Error| NotLocked::Fatal(format!("cannot lock {}: {e}", path.display()));
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o644).open(&path).map_err(cannot)?;
        let locked = file.try_lock();
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(cannot)?;
        let holder: Option<Holder> = serde_json::from_slice(&text).ok();
        match (locked, holder) {
            (Err(TryLockError::Error(e)), _) => return Err(cannot(e)),
            (Err(TryLockError::WouldBlock), Some(holder)) if holder.run == run => return Err(NotLocked::Running),
            (Err(TryLockError::WouldBlock), Some(holder)) => return Err(NotLocked::Refused(holder.describe("holds this host"))),
            (Err(TryLockError::WouldBlock), None) => {
                return Err(NotLocked::Refused("another run is taking this host right now; try again".to_owned()));
            }
            // Its supervisor died. What it had started may go on.
            (Ok(()), Some(holder)) if holder.run != run && a_step_runs(&host_state.join("runs").join(&holder.run)) => {
                return Err(NotLocked::Refused(
                    holder.describe("has lost its supervisor, but a step of it still runs on this host: it held it"),
                ));
            }
            (Ok(()), _) => {}
        }
        let mut lock = Self { file };
        let holder = Holder { run: run.to_owned(), pid: std::process::id(), account: account::current_name(), since_ms: now_ms() };
        let json = serde_json::to_vec(&holder).map_err(|e| cannot(e.into()))?;
        lock.write(&json).map_err(cannot)?;
        Ok(lock)
    }

    /// The run is over on this host.
    pub(crate) fn release(mut self) {
        let _ = self.write(b"");
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)?;
        self.file.sync_all()
    }
}

impl Holder {
    fn describe(&self, verb: &str) -> String {
        let Self { run, pid, account, since_ms } = self;
        let since = utc(*since_ms);
        format!("run {run} {verb} since {since} (account {account}, supervisor pid {pid}); resume or abort that run first")
    }
}

/// Whether any step of a run is still running.
fn a_step_runs(run_dir: &Path) -> bool {
    let Ok(steps) = fs::read_dir(run_dir.join("steps")) else { return false };
    steps.flatten().any(|step| !StepFiles::new(&step.path()).is_free())
}

/// A time for people, RFC 3339 UTC. Days become a date by counting in cycles of 400 years from 1 March of the year 0.
fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + carry;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399_000), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn another_run_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lock = HostLock::take(dir.path(), "first").unwrap();
        let Err(NotLocked::Refused(text)) = HostLock::take(dir.path(), "second") else { panic!("taken twice") };
        assert!(text.contains("run first holds this host since 20"), "{text}");
        assert!(matches!(HostLock::take(dir.path(), "first"), Err(NotLocked::Running)));
        lock.release();
        HostLock::take(dir.path(), "second").unwrap();
    }
}
