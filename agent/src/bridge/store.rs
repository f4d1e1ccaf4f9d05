//! Storing a file that this host keeps for another one. It comes in order, from where it stopped; until it is whole and checked it has a
//! name of its own, which tells it from what was once sent with other content.

use crate::{digest, durable};
use proto::FromAgent;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How much of the digest is in the name of a file that is not whole yet.
const TOLD_APART: usize = 16;

/// A file on its way.
#[derive(Debug)]
pub(super) struct Storing {
    id: u32,
    dest: PathBuf,
    part: PathBuf,
    file: File,
    /// Where the next byte belongs.
    offset: u64,
    size: u64,
    sha256: String,
}

impl Storing {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Answers how much of the file is there. Nothing is left to be stored where all of it is, or where it cannot be.
    pub(super) fn begin(id: u32, dest: &str, size: u64, sha256: &str) -> (Option<Self>, FromAgent) {
        let dest = Path::new(dest);
        let refuse = |reason: String| (None, FromAgent::NotStored { id, reason });
        let plain = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !dest.is_absolute() || dest.file_name().is_none() || !plain {
            return refuse(format!("{} cannot be stored: an absolute path and a SHA-256 are expected", dest.display()));
        }
        if is_there(dest, size, sha256) {
            return (None, FromAgent::Stored { id });
        }
        let part = durable::beside(dest, &format!(".{}.part", sha256.get(..TOLD_APART).unwrap_or_default()));
        match open(dest, &part, size) {
            Ok((file, offset)) => {
                let storing = Self { id, dest: dest.to_owned(), part, file, offset, size, sha256: sha256.to_owned() };
                (Some(storing), FromAgent::StoreAt { id, offset })
            }
            Err(reason) => refuse(reason),
        }
    }

    /// Takes in bytes. What is stored is answered once it is whole, or cannot become it.
    pub(super) fn data(mut self, offset: u64, bytes: &[u8]) -> (Option<Self>, Option<FromAgent>) {
        let refuse = |id: u32, reason: String| (None, Some(FromAgent::NotStored { id, reason }));
        if offset != self.offset || bytes.len() as u64 > self.size - self.offset {
            let reason = format!("bytes from {} on were expected, and {} bytes from {offset} on came", self.offset, bytes.len());
            return refuse(self.id, reason);
        }
        if let Err(e) = self.file.write_all(bytes) {
            return refuse(self.id, format!("{} cannot be written: {e}", self.part.display()));
        }
        self.offset += bytes.len() as u64;
        if self.offset < self.size {
            return (Some(self), None);
        }
        match self.finish() {
            Ok(()) => (None, Some(FromAgent::Stored { id: self.id })),
            Err(reason) => refuse(self.id, reason),
        }
    }

    fn finish(&self) -> Result<(), String> {
        let failed = |e: io::Error| format!("{} cannot be put in place: {e}", self.dest.display());
        self.file.sync_all().map_err(failed)?;
        if !is_there(&self.part, self.size, &self.sha256) {
            let _ = fs::remove_file(&self.part);
            return Err(format!("{}: what arrived has another digest than what was sent; it was removed", self.part.display()));
        }
        fs::rename(&self.part, &self.dest).and_then(|()| durable::sync_dir(durable::parent(&self.dest))).map_err(failed)
    }
}

fn is_there(path: &Path, size: u64, sha256: &str) -> bool {
    let Ok(mut file) = digest::open(path) else { return false };
    file.metadata().is_ok_and(|meta| meta.len() == size)
        && digest::of_open(&mut file, &mut |_| Ok::<(), ()>(())).is_ok_and(|read| read.is_ok_and(|(seen, _)| seen == sha256))
}

/// Opens the part of a file that is there, and makes room for the rest: a disk that cannot take it says so before anything is sent.
fn open(dest: &Path, part: &Path, size: u64) -> Result<(File, u64), String> {
    let failed = |e: io::Error| format!("{} cannot be written: {e}", part.display());
    durable::private_dir(durable::parent(dest)).map_err(failed)?;
    let mut file = digest::open_part(part, true).map_err(failed)?;
    let mut have = file.metadata().map_err(failed)?.len();
    if have > size {
        file.set_len(0).map_err(failed)?;
        have = 0;
    }
    let room = rustix::fs::fstatvfs(&file).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if let Some(room) = room.ok().filter(|room| *room < size - have) {
        return Err(format!("{} needs {} bytes more, and its disk has {room} bytes free", part.display(), size - have));
    }
    // All of it was there, and was not checked any more: a piece is sent again, so that it is.
    if have == size && size > 0 {
        have = size - 1;
        file.set_len(have).map_err(failed)?;
    }
    file.seek(SeekFrom::Start(have)).map_err(failed)?;
    Ok((file, have))
}
