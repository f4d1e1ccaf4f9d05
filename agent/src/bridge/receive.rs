//! Receiving a file that the running step needs. The supervisor names the file; its bytes go from sshd's pipe to the disk here, through no
//! other process.

use crate::digest;
use crate::runner::files::{Need, WANTED};
use proto::ToAgent;
use rustix::fs::Advice;
use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
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
    /// What the supervisor said, for as long as it stands.
    wanted: File,
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

    /// The controller begins to send. What the supervisor has to be told where that cannot be received.
    pub(super) fn begin(&self, sha256: &str, stream: u32) -> Option<ToAgent> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut state = self.state();
            state.incoming = None;
            if state.over {
                return None;
            }
            let reason = match Incoming::open(&self.run.join(WANTED), sha256, stream) {
                Ok(incoming) => {
                    state.incoming = Some(incoming);
                    return None;
                }
                Err(NotOpened::Busy(_)) if Instant::now() < until => {
                    drop(state);
                    std::thread::sleep(LOOK);
                    continue;
                }
                Err(NotOpened::Busy(path)) => format!("{}: another connection to this host still writes it", path.display()),
                Err(NotOpened::Because(reason)) => reason,
            };
            return Some(ToAgent::FileRefused { sha256: sha256.to_owned(), reason });
        }
    }

    /// Bytes of a file. What the supervisor has to be told where they cannot be taken: the file is not received any more.
    pub(super) fn data(&self, stream: u32, offset: u64, bytes: &[u8]) -> Option<ToAgent> {
        let mut state = self.state();
        state.forget_what_is_not_wanted();
        let incoming = state.incoming.as_mut().filter(|incoming| incoming.stream == stream)?;
        let reason = incoming.add(offset, bytes).err()?;
        let Incoming { sha256, path, .. } = state.incoming.take()?;
        Some(ToAgent::FileRefused { sha256, reason: format!("{}: {reason}", path.display()) })
    }

    /// The controller has sent all of it. From here on the file is its runner's.
    pub(super) fn end(&self, stream: u32) {
        self.state().incoming.take_if(|incoming| incoming.stream == stream);
    }

    /// The supervisor has said something: its step may have ended, and nobody waits for the file any more.
    pub(super) fn look(&self) {
        self.state().forget_what_is_not_wanted();
    }

    /// The connection to the supervisor is gone.
    pub(super) fn over(&self) {
        *self.state() = State { over: true, incoming: None };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_what_is_not_wanted(&mut self) {
        self.incoming.take_if(|incoming| !incoming.is_wanted());
    }
}

/// Why a file is not received.
enum NotOpened {
    /// Somebody else writes it.
    Busy(PathBuf),
    Because(String),
}

impl Incoming {
    fn open(wanted: &Path, sha256: &str, stream: u32) -> Result<Self, NotOpened> {
        let because = |reason: &str| NotOpened::Because(reason.to_owned());
        let wanted = File::open(wanted)
            .map_err(|_| because("the run's supervisor did not say where it goes; it may be of another build of Caravan"))?;
        let Need { sha256: expected, size, part: path } =
            serde_json::from_reader(&wanted).map_err(|e| NotOpened::Because(format!("{WANTED} is damaged: {e}")))?;
        if expected != sha256 {
            return Err(because("another file is wanted by now"));
        }
        let failed = |e: io::Error| NotOpened::Because(format!("{} cannot be written: {e}", path.display()));
        let mut file = digest::open_part(&path, false).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NotOpened::Busy(path)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let offset = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { stream, sha256: expected, wanted, path, file, offset, written: offset, size })
    }

    /// The supervisor takes back what it said by removing it, or putting something else in its place.
    fn is_wanted(&self) -> bool {
        self.wanted.metadata().is_ok_and(|meta| meta.nlink() > 0)
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
