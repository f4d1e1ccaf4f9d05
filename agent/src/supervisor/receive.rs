//! Receiving a file that the running step needs.

use crate::runner::files::{Need, StepFiles, read_json};
use crate::runner::publish;
use rustix::fs::Advice;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;

/// So much of a file goes to the disk at once.
const WRITE_OUT: u64 = 4 * 1024 * 1024;

/// A file on its way.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    /// The digest that this connection was asked for.
    asked: Option<String>,
    incoming: Option<Incoming>,
}

#[derive(Debug)]
struct Incoming {
    stream: u32,
    file: File,
    /// Where the next byte belongs.
    offset: u64,
    /// What is before this was given to the disk.
    written: u64,
    size: u64,
}

impl Incoming {
    /// Has the kernel begin to write what it has not written: nobody has to wait for all of it at the end. What is not on the disk yet stays
    /// in memory all the same, where it is hashed later.
    fn write_out(&mut self) {
        if let Some(length) = NonZeroU64::new(self.offset - self.written).filter(|length| length.get() >= WRITE_OUT) {
            let _ = rustix::fs::fadvise(&self.file, self.written, Some(length), Advice::DontNeed);
            self.written = self.offset;
        }
    }
}

impl Receiving {
    /// What the connection has to be asked for: digest and offset. Once for each request of a step.
    pub(crate) fn ask(&mut self, files: &StepFiles) -> Option<(String, u64)> {
        if self.asked.is_some() || files.answer().exists() {
            return None;
        }
        let need: Need = read_json(&files.need()).ok()?;
        let have = std::fs::metadata(&need.part).map(|meta| meta.len()).unwrap_or(0);
        self.asked = Some(need.sha256.clone());
        Some((need.sha256, have))
    }

    /// The controller begins to send. Nothing happens where nobody waits for this file.
    pub(crate) fn begin(&mut self, files: &StepFiles, sha256: &str, stream: u32) {
        let Ok(need) = read_json::<Need>(&files.need()) else { return };
        if need.sha256 != sha256 || files.answer().exists() {
            return;
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&need.part);
        match opened.and_then(|mut file| Ok((file.seek(SeekFrom::End(0))?, file))) {
            Ok((offset, file)) => self.incoming = Some(Incoming { stream, file, offset, written: offset, size: need.size }),
            Err(e) => self.answer(files, &format!("{} cannot be written: {e}", need.part.display())),
        }
    }

    /// Bytes of a file. What is there already is skipped.
    pub(crate) fn data(&mut self, files: &StepFiles, stream: u32, offset: u64, bytes: &[u8]) {
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.stream == stream) else { return };
        let known = usize::try_from(incoming.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        let problem = if offset > incoming.offset {
            Some(format!("bytes from {} on are missing", incoming.offset))
        } else if incoming.offset + fresh.len() as u64 > incoming.size {
            Some(format!("more than the expected {} bytes came", incoming.size))
        } else {
            incoming.file.write_all(fresh).err().map(|e| format!("it cannot be written: {e}"))
        };
        match problem {
            None => {
                incoming.offset += fresh.len() as u64;
                incoming.write_out();
            }
            Some(problem) => self.answer(files, &problem),
        }
    }

    /// The controller has sent all of it.
    pub(crate) fn end(&mut self, files: &StepFiles, stream: u32) {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.stream == stream) {
            self.answer(files, "");
        }
    }

    /// The controller cannot send it.
    pub(crate) fn refuse(&mut self, files: &StepFiles, sha256: &str, reason: &str) {
        if self.asked.as_deref() == Some(sha256) {
            let reason = if reason.is_empty() { "the controller refused it" } else { reason };
            self.answer(files, reason);
        }
    }

    /// Tells the runner: the file arrived (empty), or why not. A runner that cannot be told meets its deadline.
    fn answer(&mut self, files: &StepFiles, reason: &str) {
        *self = Self::default();
        let _ = publish(&files.answer(), reason.as_bytes());
    }
}
