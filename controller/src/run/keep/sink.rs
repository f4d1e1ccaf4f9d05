//! Where the bytes of a copy go.

use super::Place;
use crate::hosts::{Hosts, Incoming, Link, OpenError, Outgoing};
use proto::message::Offered;
use proto::{FromAgent, ToAgent};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a host may take to say how much of a file it has.
const ANSWER: Duration = Duration::from_secs(60);
/// A host reads what it has at least this fast, to check it. Bytes a second.
const READ_RATE: u64 = 10 << 20;
/// How much of the digest is in the name of a file that is not whole yet: one with other content is never gone on with.
const TOLD_APART: usize = 16;
/// The id of the one file that is stored over a connection.
const STORE: u32 = 1;
/// What has to stay free on the workstation: the journal and what steps print have to go somewhere.
const SPARE: u64 = 256 << 20;
/// After how many bytes the disk is looked at again.
const LOOK: u64 = 4 << 20;

/// Why bytes cannot be put where they belong.
#[derive(Debug)]
pub(super) enum SinkError {
    /// Not for now: the host is away.
    Away(String),
    /// Not at all, as things are.
    Refused(String),
}

/// An open place.
pub(super) enum Sink {
    /// All of it is there.
    Whole {
        size: u64,
    },
    File(FileSink),
    Host(HostSink),
}

impl Sink {
    pub(super) async fn open<H: Hosts>(hosts: &H, place: &Place, file: &Offered) -> Result<Self, SinkError> {
        match place {
            Place::File(path) => {
                let (path, file) = (path.clone(), file.clone());
                let opened = tokio::task::spawn_blocking(move || FileSink::open(path, &file)).await;
                opened.unwrap_or_else(|e| Err(SinkError::Refused(e.to_string())))
            }
            Place::Host { host, dest } => HostSink::open(hosts, host, dest, file).await,
        }
    }

    /// How much of it is there.
    pub(super) fn have(&self) -> u64 {
        match self {
            Self::Whole { size } => *size,
            Self::File(sink) => sink.have,
            Self::Host(sink) => sink.have,
        }
    }

    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> Result<(), SinkError> {
        match self {
            Self::Whole { .. } => Ok(()),
            Self::File(sink) => sink.write(&bytes),
            Self::Host(sink) => sink.write(bytes).await,
        }
    }

    /// Returns once it is whole, checked and durable.
    pub(super) async fn finish(self) -> Result<(), SinkError> {
        match self {
            Self::Whole { .. } => Ok(()),
            Self::File(sink) => {
                let finished = tokio::task::spawn_blocking(move || sink.finish()).await;
                finished.unwrap_or_else(|e| Err(SinkError::Refused(e.to_string())))
            }
            Self::Host(sink) => sink.finish().await,
        }
    }
}

/// A file of the workstation.
pub(super) struct FileSink {
    path: PathBuf,
    part: PathBuf,
    file: File,
    hash: Sha256,
    have: u64,
    written: u64,
    /// Bytes written since the disk was looked at.
    unlooked: u64,
    expected: Offered,
}

fn refused(path: &Path, e: &dyn std::fmt::Display) -> SinkError {
    SinkError::Refused(format!("{} on the workstation cannot be written: {e}", path.display()))
}

impl FileSink {
    fn open(path: PathBuf, expected: &Offered) -> Result<Sink, SinkError> {
        let failed = |e: io::Error| refused(&path, &e);
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        if is_whole(&path, expected).map_err(failed)? {
            return Ok(Sink::Whole { size: expected.size });
        }
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", expected.sha256.get(..TOLD_APART).unwrap_or_default()));
        let part = path.with_file_name(name);
        remove_others(&path, &part);
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&part).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > expected.size {
            file.set_len(0).map_err(failed)?;
        }
        let mut hash = Sha256::new();
        let have = read_into(&mut file, &mut hash).map_err(failed)?;
        has_room(&file, expected.size.saturating_sub(have)).map_err(|why| refused(&part, &why))?;
        Ok(Sink::File(Self { path, part, file, hash, have, written: have, unlooked: 0, expected: expected.clone() }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        // Other copies come at the same time, and the run's own record is on that disk most likely: it must never be full of them.
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= LOOK {
            self.unlooked = 0;
            let missing = self.expected.size.saturating_sub(self.written);
            has_room(&self.file, missing.min(LOOK)).map_err(|why| refused(&self.part, &why))?;
        }
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| refused(&self.part, &e))?;
        self.hash.update(bytes);
        Ok(())
    }

    fn finish(self) -> Result<(), SinkError> {
        let Self { path, part, file, hash, expected, .. } = self;
        let seen = hex(&hash.finalize());
        if seen != expected.sha256 {
            let _ = std::fs::remove_file(&part);
            return Err(SinkError::Refused(format!(
                "what arrived is not what the host said: expected SHA-256 {}, seen {seen}; {} was removed",
                expected.sha256,
                part.display()
            )));
        }
        let failed = |e: io::Error| refused(&path, &e);
        file.sync_all().map_err(failed)?;
        std::fs::rename(&part, &path).map_err(failed)?;
        // The directories above it are new as well.
        path.ancestors().skip(1).take(3).try_for_each(|dir| File::open(dir)?.sync_all()).map_err(failed)
    }
}

/// Whether a disk takes so many bytes more and keeps its spare room; what is missing otherwise.
fn has_room(file: &File, missing: u64) -> Result<(), String> {
    let room = rustix::fs::fstatvfs(file).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    match room.ok().filter(|room| *room < missing.saturating_add(SPARE)) {
        Some(room) => Err(format!(
            "{missing} bytes more are needed and {} MiB are left free for the run's own record; its disk has {room} bytes free",
            SPARE >> 20
        )),
        None => Ok(()),
    }
}

/// Removes what is left of copies that a host offered before with other content: at most one is kept for each.
fn remove_others(path: &Path, part: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return };
    let begins = format!("{}.", name.to_string_lossy());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other.starts_with(&begins) && other.ends_with(".part") && entry.path() != part {
            // One that cannot be removed takes room, and nothing else.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file has the size and the digest that it should have.
fn is_whole(path: &Path, expected: &Offered) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut hash = Sha256::new();
    Ok(read_into(&mut file, &mut hash)? == expected.size && hex(&hash.finalize()) == expected.sha256)
}

fn read_into(file: &mut File, hash: &mut Sha256) -> io::Result<u64> {
    let (mut piece, mut length) = (vec![0; 64 * 1024], 0);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(length),
            read => {
                hash.update(piece.get(..read).unwrap_or_default());
                length += read as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of another host, over a connection of its own.
pub(super) struct HostSink {
    host: String,
    dest: String,
    link: Link,
    have: u64,
    sent: u64,
    size: u64,
}

impl HostSink {
    async fn open<H: Hosts>(hosts: &H, host: &str, dest: &str, file: &Offered) -> Result<Sink, SinkError> {
        let link = hosts.open(host, true).await.map_err(|error| match error {
            OpenError::Unreachable { .. } => SinkError::Away(error.to_string()),
            error => SinkError::Refused(error.to_string()),
        })?;
        let mut sink = Self { host: host.to_owned(), dest: dest.to_owned(), link, have: 0, sent: 0, size: file.size };
        let store = ToAgent::Store { id: STORE, dest: dest.to_owned(), size: file.size, sha256: file.sha256.clone() };
        sink.send(Outgoing::Message(store)).await?;
        match sink.answer(ANSWER + reading(file.size)).await? {
            FromAgent::StoreAt { offset, .. } if offset < file.size => {
                (sink.have, sink.sent) = (offset, offset);
                Ok(Sink::Host(sink))
            }
            FromAgent::Stored { .. } => Ok(Sink::Whole { size: file.size }),
            _ => Err(sink.nonsense()),
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), SinkError> {
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        // It speaks before all of it was sent only where it cannot go on.
        let said = match self.sent < self.size {
            true => self.link.from.try_recv().ok(),
            false => None,
        };
        if let Some(said) = said {
            return Err(self.understand(Some(said)).err().unwrap_or_else(|| self.nonsense()));
        }
        self.send(Outgoing::Data { stream: STORE, offset, bytes }).await
    }

    async fn finish(mut self) -> Result<(), SinkError> {
        match self.answer(ANSWER + reading(self.size)).await? {
            FromAgent::Stored { .. } => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    async fn send(&mut self, message: Outgoing) -> Result<(), SinkError> {
        if self.link.to.send(message).await.is_ok() {
            return Ok(());
        }
        // Why is said where it is read.
        Err(self.answer(ANSWER).await.err().unwrap_or_else(|| self.nonsense()))
    }

    async fn answer(&mut self, patience: Duration) -> Result<FromAgent, SinkError> {
        let said = tokio::time::timeout(patience, self.link.from.recv()).await.map_err(|_| {
            SinkError::Away(format!("{} did not answer for {} s while it was to keep {}", self.host, patience.as_secs(), self.dest))
        })?;
        self.understand(said)
    }

    fn understand(&self, said: Option<Incoming>) -> Result<FromAgent, SinkError> {
        let Self { host, dest, .. } = self;
        match said {
            Some(Incoming::Message(FromAgent::NotStored { id: STORE, reason })) => {
                Err(SinkError::Refused(format!("{host} cannot keep {dest}: {reason}")))
            }
            Some(Incoming::Message(FromAgent::Fatal { message })) => {
                Err(SinkError::Refused(format!("{host} cannot keep {dest}: {message}")))
            }
            Some(Incoming::Message(message)) => Ok(message),
            Some(Incoming::Data { .. }) => Err(self.nonsense()),
            Some(Incoming::Closed { reason }) => Err(SinkError::Away(format!("{host}, which keeps {dest}, is gone: {reason}"))),
            None => Err(SinkError::Away(format!("{host}, which keeps {dest}, is gone"))),
        }
    }

    fn nonsense(&self) -> SinkError {
        SinkError::Refused(format!("the agent of {} does not keep to the protocol", self.host))
    }
}

fn reading(size: u64) -> Duration {
    Duration::from_secs(size / READ_RATE)
}
