//! Receiving a file that the running step needs. The supervisor names the file; its bytes go from sshd's pipe to the disk here, through no
//! other process.

use crate::runner::files::{Need, WANTED, read_json};
use proto::ToAgent;
use rustix::fs::{Advice, OFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So much of a file goes to the disk at once.
const WRITE_OUT: u64 = 4 * 1024 * 1024;
/// How long another bridge, which lost its supervisor to this one, may take to let go of the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What one connection to a supervisor receives. It is over with the connection, while the controller may go on sending: the next
/// connection is the only one that adds to a file.
#[derive(Debug)]
pub(super) struct Receiving {
    /// The run's directory.
    run: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    incoming: Option<Incoming>,
}

/// A file on its way. Locked as long as it is open: it has one writer, who adds to its end.
#[derive(Debug)]
struct Incoming {
    stream: u32,
    sha256: String,
    path: PathBuf,
    file: File,
    /// Where the next byte belongs.
    offset: u64,
    /// What is before this was given to the disk.
    written: u64,
    size: u64,
}

impl Receiving {
    pub(super) fn new(run: &Path) -> Self {
        Self { run: run.to_owned(), state: Mutex::default() }
    }

    /// The controller begins to send. What the supervisor has to be told where it cannot be received. Nothing happens where nobody waits
    /// for this file.
    pub(super) fn begin(&self, sha256: &str, stream: u32) -> Option<ToAgent> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut state = self.state();
            state.incoming = None;
            let need = read_json::<Need>(&self.run.join(WANTED)).ok().filter(|need| need.sha256 == sha256 && !state.over)?;
            let why = match Incoming::open(need, stream) {
                Ok(Some(incoming)) => {
                    state.incoming = Some(incoming);
                    return None;
                }
                Ok(None) if Instant::now() < until => None,
                Ok(None) => Some("another connection still writes it".to_owned()),
                Err(e) => Some(format!("it cannot be written: {e}")),
            };
            if let Some(reason) = why {
                return Some(ToAgent::FileRefused { sha256: sha256.to_owned(), reason });
            }
            drop(state);
            std::thread::sleep(LOOK);
        }
    }

    /// Bytes of a file. What the supervisor has to be told where they cannot be taken: the file is not received any more.
    pub(super) fn data(&self, stream: u32, offset: u64, bytes: &[u8]) -> Option<ToAgent> {
        let mut state = self.state();
        let incoming = state.incoming.as_mut().filter(|incoming| incoming.stream == stream)?;
        let reason = incoming.add(offset, bytes).err()?;
        let Incoming { sha256, path, .. } = state.incoming.take()?;
        Some(ToAgent::FileRefused { sha256, reason: format!("{}: {reason}", path.display()) })
    }

    /// The controller has sent all of it. From here on the file is its runner's.
    pub(super) fn end(&self, stream: u32) {
        self.state().incoming.take_if(|incoming| incoming.stream == stream);
    }

    /// The connection to the supervisor is gone.
    pub(super) fn over(&self) {
        *self.state() = State { over: true, incoming: None };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Incoming {
    /// Nothing while somebody else writes the file.
    fn open(need: Need, stream: u32) -> io::Result<Option<Self>> {
        let Need { sha256, size, part: path } = need;
        let mut file = OpenOptions::new().write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let offset = file.seek(SeekFrom::End(0))?;
        Ok(Some(Self { stream, sha256, path, file, offset, written: offset, size }))
    }

    /// Adds bytes. What is there already is skipped.
    fn add(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let known = usize::try_from(self.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        if offset > self.offset {
            return Err(format!("bytes from {} on are missing", self.offset));
        }
        if self.offset + fresh.len() as u64 > self.size {
            return Err(format!("more than the expected {} bytes came", self.size));
        }
        self.file.write_all(fresh).map_err(|e| format!("it cannot be written: {e}"))?;
        self.offset += fresh.len() as u64;
        self.write_out();
        Ok(())
    }

    /// Has the kernel begin to write what it has not written: nobody has to wait for all of it at the end. What is not on the disk yet stays
    /// in memory all the same, where it is hashed later.
    fn write_out(&mut self) {
        if let Some(length) = NonZeroU64::new(self.offset - self.written).filter(|length| length.get() >= WRITE_OUT) {
            let _ = rustix::fs::fadvise(&self.file, self.written, Some(length), Advice::DontNeed);
            self.written = self.offset;
        }
    }
}
