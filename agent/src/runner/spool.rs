//! The kept output of a step: a directory of segments, each named after the offset of its first byte. The first 16 MiB and the
//! last 48 MiB stay; what was between shows as a gap in the offsets. Output that finds no space is dropped and counted: a full
//! disk never holds a step up.

use crate::mask::Mask;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The size of a segment.
const SEGMENT: u64 = 4 * 1024 * 1024;
/// Segments that begin below this offset stay.
const HEAD: u64 = 16 * 1024 * 1024;
/// How many whole segments stay at the end.
const TAIL: usize = 12;

/// Writes the output of a step.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    mask: Mask,
    /// Bytes so far, kept or not.
    len: u64,
    current: Option<Segment>,
    /// Segments beyond the head, oldest first.
    tail: VecDeque<u64>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    start: u64,
}

impl Spool {
    /// Opens the spool of a step; goes on where an earlier runner of it stopped.
    pub(crate) fn open(dir: &Path, mask: Mask) -> io::Result<Self> {
        let starts = match starts(dir) {
            // Made with its first segment: many steps print nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            starts => starts?,
        };
        let len = match starts.last() {
            Some(start) => start + fs::metadata(path(dir, *start))?.len(),
            None => 0,
        };
        let tail = starts.into_iter().filter(|start| *start >= HEAD).collect();
        Ok(Self { dir: dir.to_owned(), mask, len, current: None, tail })
    }

    /// Takes the next piece of output.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let mut shown = Vec::with_capacity(bytes.len());
        self.mask.push(bytes, &mut shown);
        self.keep(&shown);
    }

    /// The output is over. Returns its whole length.
    pub(crate) fn finish(&mut self) -> u64 {
        let mut rest = Vec::new();
        self.mask.finish(&mut rest);
        self.keep(&rest);
        self.len
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = match &self.current {
                Some(segment) => (segment.start + SEGMENT).saturating_sub(self.len),
                None => SEGMENT,
            };
            if room == 0 {
                self.current = None;
                continue;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if self.append(piece).is_err() {
                // Whatever of it was written is cut off; the next piece begins a segment at its own offset.
                if let Some(segment) = self.current.take() {
                    let _ = segment.file.set_len(self.len - segment.start);
                }
            }
            self.len += piece.len() as u64;
            bytes = rest;
        }
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.current.is_none() {
            let start = self.len;
            crate::durable::private_dir(&self.dir)?;
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path(&self.dir, start))?;
            self.current = Some(Segment { file, start });
            if start >= HEAD {
                self.tail.push_back(start);
                if self.tail.len() > TAIL + 1
                    && let Some(oldest) = self.tail.pop_front()
                {
                    fs::remove_file(path(&self.dir, oldest))?;
                }
            }
        }
        match &mut self.current {
            Some(segment) => segment.file.write_all(piece),
            None => Ok(()),
        }
    }
}

fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}"))
}

/// The offsets of the segments that are there, in order.
fn starts(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(start) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            starts.push(start);
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Reads the output of a step while it is being written.
#[derive(Debug)]
pub(crate) struct Follower {
    dir: PathBuf,
    offset: u64,
    current: Option<Segment>,
}

impl Follower {
    /// Begins at an offset.
    pub(crate) fn new(dir: PathBuf, offset: u64) -> Self {
        Self { dir, offset, current: None }
    }

    /// Up to which offset everything was handed out.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes and their offset, if there are any yet.
    pub(crate) fn next(&mut self, limit: usize) -> Option<(u64, Vec<u8>)> {
        if let Some(found) = self.read_on(limit) {
            return Some(found);
        }
        let starts = starts(&self.dir).ok()?;
        let here = self.current.as_ref().map(|segment| segment.start);
        let candidates = starts.iter().copied().filter(|start| here.is_none_or(|here| *start > here));
        // Without a segment at hand: the one that the offset lies in, or else the next one.
        let (before, after): (Vec<u64>, Vec<u64>) = candidates.partition(|start| here.is_none() && *start <= self.offset);
        for start in before.last().into_iter().chain(after.first()).copied() {
            // A segment is complete once the next one is there: what was written to it last is read before going on.
            if let Some(found) = self.read_on(limit) {
                return Some(found);
            }
            let Ok(file) = File::open(path(&self.dir, start)) else { continue };
            self.current = Some(Segment { file, start });
            if self.offset < start {
                self.offset = start;
            }
            if let Some(found) = self.read_on(limit) {
                return Some(found);
            }
        }
        None
    }

    fn read_on(&mut self, limit: usize) -> Option<(u64, Vec<u8>)> {
        let segment = self.current.as_ref()?;
        let mut bytes = vec![0; limit];
        let read = segment.file.read_at(&mut bytes, self.offset.checked_sub(segment.start)?).ok()?;
        if read == 0 {
            return None;
        }
        bytes.truncate(read);
        let at = self.offset;
        self.offset += read as u64;
        Some((at, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut follower = Follower::new(dir.to_owned(), from);
        std::iter::from_fn(|| follower.next(1 << 20)).collect()
    }

    /// What stands where is known from the offset alone.
    fn stretch(from: u64, len: usize) -> Vec<u8> {
        let period: Vec<u8> = (0..251).collect();
        let begin = (from % 251) as usize;
        period.repeat(len / 251 + 2)[begin..begin + len].to_vec()
    }

    fn fill(spool: &mut Spool, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let end = (at + 300_007).min(to);
            spool.write(&stretch(at, (end - at) as usize));
            at = end;
        }
    }

    #[test]
    fn the_beginning_and_the_end_of_long_output_stay() {
        let dir = tempfile::tempdir().unwrap();
        let total = 90 * 1024 * 1024 + 12_345;
        let mut spool = Spool::open(dir.path(), Mask::new([])).unwrap();
        fill(&mut spool, 0, total);
        assert_eq!(spool.finish(), total);
        let kept = all(dir.path(), 0);
        let mut covered = 0;
        for (offset, bytes) in &kept {
            assert!(*bytes == stretch(*offset, bytes.len()), "wrong bytes at {offset}");
            covered += bytes.len() as u64;
        }
        let (last, bytes) = kept.last().unwrap();
        assert_eq!(last + bytes.len() as u64, total);
        assert!(kept.iter().take_while(|(offset, _)| *offset < HEAD).map(|(_, b)| b.len() as u64).sum::<u64>() >= HEAD);
        let tail: u64 = kept.iter().filter(|(offset, _)| *offset >= HEAD).map(|(_, b)| b.len() as u64).sum();
        assert!((48 * 1024 * 1024..=52 * 1024 * 1024).contains(&tail), "{tail}");
        assert!(covered < total);
    }

    #[test]
    fn a_follower_may_begin_anywhere_and_a_writer_may_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), Mask::new([])).unwrap();
        fill(&mut spool, 0, 5_000_000);
        let mut follower = Follower::new(dir.path().to_owned(), 4_500_000);
        let mut seen = 0;
        while let Some((offset, bytes)) = follower.next(100_000) {
            assert_eq!(offset, 4_500_000 + seen);
            seen += bytes.len() as u64;
        }
        assert_eq!(seen, 500_000);
        spool.finish();
        let mut again = Spool::open(dir.path(), Mask::new([])).unwrap();
        fill(&mut again, 5_000_000, 5_000_010);
        let (offset, bytes) = follower.next(100).unwrap();
        assert_eq!((offset, bytes), (5_000_000, stretch(5_000_000, 10)));
    }
}
