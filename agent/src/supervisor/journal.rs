//! The host's journal of a run: one JSON record a line, appended and made durable before anybody relies on it.

use proto::host::Record;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Space for the events of one step: that it began, and its result with a message of a few lines.
const STEP: u64 = 4 * 1024;
/// Space that is taken beyond that, so that it need not be taken anew for each step.
const AHEAD: u64 = 128 * 1024;

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    len: u64,
    reserved: u64,
}

impl Journal {
    /// Opens the journal (made where it is missing) and reads what is in it. A torn last line, left by a crash in the middle of
    /// an append, is cut off; nobody was told of it.
    ///
    /// # Errors
    /// The file cannot be read, or a line is damaged: then nothing in it can be relied on.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Record>), String> {
        let cannot = |e: io::Error| format!("cannot open the journal {}: {e}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(cannot)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(cannot)?;
        let (records, whole) = proto::lines::read(&bytes).map_err(|damaged| {
            let path = path.display();
            format!("{damaged}; it is {path}; move the run's directory away and decide by hand what was done")
        })?;
        let len = whole as u64;
        if whole < bytes.len() {
            file.set_len(len).map_err(cannot)?;
            file.sync_all().map_err(cannot)?;
        }
        crate::durable::sync_dir(crate::durable::parent(path)).map_err(cannot)?;
        Ok((Self { file, len, reserved: 0 }, records))
    }

    /// Appends records, durably: one write and one sync for all of them. On an error the journal is as it was before.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            lines.extend(proto::lines::write(record)?);
        }
        let written = (|| {
            self.file.seek(SeekFrom::Start(self.len))?;
            self.file.write_all(&lines)?;
            self.file.sync_data()
        })();
        match written {
            Ok(()) => self.len += lines.len() as u64,
            Err(_) => {
                // This lets go of the space ahead as well.
                let _ = self.file.set_len(self.len);
                self.reserved = 0;
            }
        }
        written
    }

    /// Takes space on disk for the events of this many steps, and some ahead. File systems that cannot do that are taken as they are.
    pub(crate) fn reserve(&mut self, steps: usize) -> io::Result<()> {
        let need = steps as u64 * STEP;
        if self.reserved >= self.len + need {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, need + AHEAD) {
            Ok(()) => {
                self.reserved = self.len + need + AHEAD;
                Ok(())
            }
            Err(rustix::io::Errno::NOSPC) => Err(io::Error::from(rustix::io::Errno::NOSPC)),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(token: u64) -> Record {
        Record::Token { token }
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[token(1), token(2)]).unwrap();
        journal.append(&[token(300)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            let (mut journal, records) = Journal::open(&path).unwrap();
            assert_eq!(records.len(), lines, "cut at {cut}");
            journal.append(&[token(9)]).unwrap();
            let (_, records) = Journal::open(&path).unwrap();
            assert_eq!((records.len(), records.last()), (lines + 1, Some(&token(9))));
        }
    }

    #[test]
    fn a_changed_byte_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[token(1), token(2)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            let line = 1 + whole[..at].iter().filter(|byte| **byte == b'\n').count();
            assert!(Journal::open(&path).unwrap_err().contains(&format!("line {line} ")), "byte {at}");
        }
    }
}
