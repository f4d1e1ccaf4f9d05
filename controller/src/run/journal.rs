//! The append-only record of a run's events: one JSON object a line, each with the SHA-256 of the line before it.
//!
//! Appending is durable: [`Journal::append`] returns when the events are on the disk. Events that wait at the same time share one
//! fsync (group commit).

use proto::event::{EVENT_VERSION, Event, Kind, Scope};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{mpsc, oneshot};

/// The `prev` of the first event.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why a journal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// It cannot be written. Nothing that was asked for after this happened.
    #[error(
        "the journal {path} cannot be written: {error}. Nothing further was granted; steps that run go on. Make room or mend the disk, then look at `caravan status`"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// It cannot be read.
    #[error("the journal {path} cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Another controller has it open.
    #[error(
        "the run is driven by another controller on this workstation (it has {path} locked). `caravan attach` shows it, `caravan pause` stops it"
    )]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// The chain does not hold.
    #[error(
        "line {line} of {path} does not follow from the line before it: lines were changed or removed. The hosts have their own record: `caravan resume --from-hosts` goes on from there"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// The first line, from 1, that does not fit.
        line: usize,
    },
    /// A line that is not the last cannot be understood.
    #[error("line {line} of {path} cannot be understood: {error}. The journal was edited or damaged; the lines before it are good")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: String,
    },
    /// The file speaks a newer schema.
    #[error("line {line} of {path} has version {version}; this Caravan reads up to {EVENT_VERSION}. Use the newer one")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its version.
        version: u32,
    },
}

/// An event before it has its place and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What it is about.
    pub scope: Scope,
    /// What happened.
    pub kind: Kind,
    /// Where it comes from, for events of a host.
    pub origin: Option<Origin>,
    /// When it happened, RFC 3339 UTC, for an event that is put down again in a rebuilt record; now where it says nothing.
    pub time: Option<String>,
}

/// The host's side of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The host's clock, milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// Which boot.
    pub boot_id: String,
    /// Position in the host's journal.
    pub seq: u64,
}

impl Draft {
    /// An event of the controller's own.
    pub fn new(scope: Scope, kind: Kind) -> Self {
        Self { scope, kind, origin: None, time: None }
    }

    /// An event that a host reports.
    pub fn of_host(scope: Scope, kind: Kind, origin: Origin) -> Self {
        Self { origin: Some(origin), ..Self::new(scope, kind) }
    }

    /// The same, put down again with the time at which it happened.
    pub fn at(self, time: String) -> Self {
        Self { time: Some(time), ..self }
    }
}

/// A moment in the life of events that go into a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of them is in the file.
    Before,
    /// They are in the file, and a power loss could still take them.
    Appended,
    /// They are durable, and nobody who waits for them knows yet.
    Durable,
}

/// What is called at every [`Moment`], on the thread that writes.
pub type Watcher = dyn Fn(Moment, &[Event]) + Send + Sync;

static WATCHER: OnceLock<Box<Watcher>> = OnceLock::new();

/// Has every journal of this process show its events at every [`Moment`], so that a fault test can end the process there and nowhere
/// else. Only a program that links this crate can ask for it, and only once; the `caravan` program never does.
pub fn watch(watcher: Box<Watcher>) {
    // The first one stays: a second would take the place of a test that runs.
    drop(WATCHER.set(watcher));
}

struct Batch {
    drafts: Vec<Draft>,
    done: oneshot::Sender<Result<Written, JournalError>>,
}

/// What [`Journal::append`] made durable.
#[derive(Debug)]
pub struct Written {
    /// The events, with place and time.
    pub events: Vec<Event>,
    /// SHA-256 of the last line: the head of the chain.
    pub head: String,
}

/// Where a journal's bytes go.
pub trait Storage: Send + 'static {
    /// Appends bytes.
    ///
    /// # Errors
    /// They could not be written whole.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// It may not be durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The writing end of a journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: Queue,
    path: PathBuf,
}

#[derive(Clone)]
enum Queue {
    /// A thread of its own writes: fsync blocks, and nothing else may wait for it but those who asked.
    Thread(mpsc::UnboundedSender<Batch>),
    /// Written by whoever appends: for storage that does not block.
    Inline(Arc<Mutex<Writer>>),
}

impl Journal {
    /// Starts the journal of a new run.
    ///
    /// # Errors
    /// The file exists already or cannot be made.
    pub fn create(path: &Path, run: &str) -> Result<Self, JournalError> {
        let open = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        // The file's name has to be durable too, before anything that is said in it is done.
        let dir = path.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|dir| dir.sync_all()));
        let file = open
            .and_then(|file| dir.map(|()| file))
            .map_err(|e| JournalError::Write { path: path.to_owned(), error: e.to_string() })?;
        lock(&file, path)?;
        Ok(Self::start(Writer::new(Box::new(file), path, run)))
    }

    /// Goes on with the journal of a run that another controller left. What a write that was cut off left behind its last line is cut
    /// away ([`Chain::torn`] says how much): nothing was ever done for it.
    ///
    /// # Errors
    /// Another controller has it, it cannot be read or written, or it was edited or damaged.
    pub fn reopen(path: &Path, run: &str) -> Result<(Self, Chain), JournalError> {
        let read_error = |e: io::Error| JournalError::Read { path: path.to_owned(), error: e.to_string() };
        let write_error = |e: io::Error| JournalError::Write { path: path.to_owned(), error: e.to_string() };
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(read_error)?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read_error)?;
        let chain = parse(&bytes, path)?;
        if let Some(line) = chain.broken_at {
            return Err(JournalError::Broken { path: path.to_owned(), line });
        }
        if chain.torn > 0 {
            file.set_len((bytes.len() - chain.torn) as u64).and_then(|()| file.sync_all()).map_err(write_error)?;
        }
        Ok((Self::start(Writer::new(Box::new(file), path, run).behind(&chain)), chain))
    }

    /// Whether a controller has a journal open now. False where it cannot be looked at.
    pub fn is_driven(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Goes on behind what was read from storage that does not block (a simulation's).
    pub fn continue_over(storage: impl Storage, run: &str, chain: &Chain) -> Self {
        let path = PathBuf::from("(memory)");
        let writer = Writer::new(Box::new(storage), &path, run).behind(chain);
        Self { queue: Queue::Inline(Arc::new(Mutex::new(writer))), path }
    }

    /// A journal over storage that does not block (a simulation's).
    pub fn over(storage: impl Storage, run: &str) -> Self {
        let path = PathBuf::from("(memory)");
        let writer = Writer::new(Box::new(storage), &path, run);
        Self { queue: Queue::Inline(Arc::new(Mutex::new(writer))), path }
    }

    fn start(mut writer: Writer) -> Self {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Batch>();
        let path = writer.path.clone();
        std::thread::spawn(move || {
            while let Some(first) = waiting.blocking_recv() {
                let mut batches = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    batches.push(more);
                }
                writer.commit(batches);
            }
        });
        Self { queue: Queue::Thread(queue), path }
    }

    /// Appends events and returns once they are durable.
    ///
    /// # Errors
    /// The disk refused. From then on every call fails: what comes after a hole would not be a record.
    pub async fn append(&self, drafts: Vec<Draft>) -> Result<Written, JournalError> {
        let (done, written) = oneshot::channel();
        let gone = || JournalError::Write { path: self.path.clone(), error: "its writer ended".to_owned() };
        match &self.queue {
            Queue::Thread(queue) => queue.send(Batch { drafts, done }).map_err(|_| gone())?,
            Queue::Inline(writer) => writer.lock().map_err(|_| gone())?.commit(vec![Batch { drafts, done }]),
        }
        written.await.map_err(|_| gone())?
    }
}

/// One controller has a journal at a time; the lock lives as long as the file is open. Whoever only looks whether it is there
/// ([`Journal::is_driven`]) holds it for a moment.
fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(25)),
            // A file system without locks (some network mounts): its operators have to take care themselves.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
    Err(JournalError::Held { path: path.to_owned() })
}

struct Writer {
    storage: Box<dyn Storage>,
    path: PathBuf,
    run: String,
    seq: u64,
    prev: String,
    broken: Option<String>,
}

impl Writer {
    fn new(storage: Box<dyn Storage>, path: &Path, run: &str) -> Self {
        Self { storage, path: path.to_owned(), run: run.to_owned(), seq: 0, prev: GENESIS.to_owned(), broken: None }
    }

    fn behind(self, chain: &Chain) -> Self {
        Self { seq: chain.events.last().map_or(0, |event| event.seq), prev: chain.head.clone(), ..self }
    }

    fn commit(&mut self, batches: Vec<Batch>) {
        let mut bytes = Vec::new();
        let mut written = Vec::new();
        let result = match &self.broken {
            Some(error) => Err(error.clone()),
            None => batches
                .iter()
                .try_for_each(|batch| {
                    let events: Result<Vec<_>, _> = batch.drafts.iter().map(|draft| self.line(draft, &mut bytes)).collect();
                    events.map(|events| written.push(Written { events, head: self.prev.clone() }))
                })
                .and_then(|()| self.store(&bytes, &written))
                .map_err(|e| e.to_string()),
        };
        match result {
            Ok(()) => batches.into_iter().zip(written).for_each(|(batch, written)| drop(batch.done.send(Ok(written)))),
            Err(error) => {
                let failure = JournalError::Write { path: self.path.clone(), error: error.clone() };
                self.broken = Some(error);
                batches.into_iter().for_each(|batch| drop(batch.done.send(Err(failure.clone()))));
            }
        }
    }

    fn store(&mut self, bytes: &[u8], written: &[Written]) -> io::Result<()> {
        let show = |moment| {
            if let Some(watcher) = WATCHER.get() {
                written.iter().for_each(|written| watcher(moment, &written.events));
            }
        };
        show(Moment::Before);
        self.storage.append(bytes)?;
        show(Moment::Appended);
        self.storage.sync()?;
        show(Moment::Durable);
        Ok(())
    }

    fn line(&mut self, draft: &Draft, bytes: &mut Vec<u8>) -> io::Result<Event> {
        self.seq += 1;
        let event = Event {
            v: EVENT_VERSION,
            seq: self.seq,
            time: draft.time.clone().unwrap_or_else(|| rfc3339(jiff::Timestamp::now())),
            run: self.run.clone(),
            scope: draft.scope.clone(),
            kind: draft.kind.clone(),
            host_time: draft.origin.as_ref().and_then(|o| jiff::Timestamp::from_millisecond(o.time_ms as i64).ok()).map(rfc3339),
            boot_id: draft.origin.as_ref().map(|o| o.boot_id.clone()),
            host_seq: draft.origin.as_ref().map(|o| o.seq),
            prev: self.prev.clone(),
        };
        let line = serde_json::to_vec(&event)?;
        self.prev = hex(&Sha256::digest(&line));
        bytes.extend_from_slice(&line);
        bytes.push(b'\n');
        Ok(event)
    }
}

/// A time as it stands in events.
pub(super) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A journal that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// SHA-256 of the last whole line.
    pub head: String,
    /// Bytes after the last whole line: a write that was cut off.
    pub torn: usize,
    /// The first line (from 1) whose `prev` is not the hash of the line before it.
    pub broken_at: Option<usize>,
}

/// Reads a journal.
///
/// # Errors
/// It cannot be read, or a whole line cannot be understood.
pub fn read(path: &Path) -> Result<Chain, JournalError> {
    let bytes = std::fs::read(path).map_err(|e| JournalError::Read { path: path.to_owned(), error: e.to_string() })?;
    parse(&bytes, path)
}

/// Reads a journal's bytes; `path` is for messages.
///
/// # Errors
/// A whole line cannot be understood.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Chain, JournalError> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
    let mut chain = Chain { events: Vec::new(), head: GENESIS.to_owned(), torn: bytes.len() - whole, broken_at: None };
    for (index, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        let line = &line[..line.len() - 1];
        let event: Event = serde_json::from_slice(line).map_err(|e| JournalError::Line {
            path: path.to_owned(),
            line: index + 1,
            error: e.to_string(),
        })?;
        if event.v > EVENT_VERSION {
            return Err(JournalError::TooNew { path: path.to_owned(), line: index + 1, version: event.v });
        }
        if chain.broken_at.is_none() && event.prev != chain.head {
            chain.broken_at = Some(index + 1);
        }
        chain.head = hex(&Sha256::digest(line));
        chain.events.push(event);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn sample(path: &Path) -> Vec<u8> {
        let journal = Journal::create(path, "r1").unwrap();
        for n in 0..5u32 {
            let scope = Scope { platform: Some("emea".into()), attempt: Some(n), ..Scope::default() };
            journal
                .append(vec![Draft::new(scope.clone(), Kind::StageStarted), Draft::new(scope, Kind::BarrierOpened)])
                .await
                .unwrap();
        }
        std::fs::read(path).unwrap()
    }

    #[tokio::test]
    async fn a_journal_truncated_anywhere_is_read_up_to_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(&dir.path().join("j")).await;
        for end in 0..=bytes.len() {
            let chain = parse(&bytes[..end], Path::new("j")).unwrap();
            assert_eq!(chain.events.len(), bytes[..end].iter().filter(|b| **b == b'\n').count());
            assert_eq!(chain.broken_at, None);
        }
    }

    #[tokio::test]
    async fn a_hole_of_zeros_is_named_where_lines_follow_and_cut_off_where_none_does() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(&dir.path().join("j")).await;
        let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        let mut holed = bytes.clone();
        holed[ends[2] + 3..ends[2] + 40].fill(0);
        assert!(matches!(parse(&holed, Path::new("j")), Err(JournalError::Line { line: 4, .. })));
        let mut tail = bytes.clone();
        tail[ends[7] + 3..].fill(0);
        let chain = parse(&tail, Path::new("j")).unwrap();
        assert_eq!((chain.events.len(), chain.torn, chain.broken_at), (8, bytes.len() - ends[7], None));
    }

    #[tokio::test]
    async fn a_flipped_byte_is_never_taken_for_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(&dir.path().join("j")).await;
        let whole = parse(&bytes, Path::new("j")).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let line = bytes[..at].iter().filter(|b| **b == b'\n').count();
                match parse(&flipped, Path::new("j")) {
                    Err(JournalError::Line { line: named, .. } | JournalError::TooNew { line: named, .. }) => {
                        assert!((line + 1..=line + 2).contains(&named), "byte {at}: line {named} is named instead of {}", line + 1);
                    }
                    Err(other) => panic!("byte {at}: {other}"),
                    // The lines before it stand; it was taken for the end, or the chain does not fit from there on. Of the last line only
                    // the hosts, which hold its hash, can tell.
                    Ok(chain) => {
                        assert_eq!(chain.events[..line.min(chain.events.len())], whole.events[..line.min(chain.events.len())]);
                        let ends = chain.events.len() <= line;
                        let named = chain.broken_at.is_some_and(|broken| (line + 1..=line + 2).contains(&broken));
                        let last = line + 1 == whole.events.len() && chain.head != whole.head;
                        assert!(ends || named || last, "byte {at}, bit {bit}: {:?}", chain.broken_at);
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn an_edited_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = String::from_utf8(sample(&dir.path().join("j")).await).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[3] = lines[3].replace("emea", "apac");
        let edited = lines.join("\n") + "\n";
        assert_eq!(parse(edited.as_bytes(), Path::new("j")).unwrap().broken_at, Some(5));
    }

    #[tokio::test]
    async fn after_a_write_error_nothing_more_is_taken() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let journal = Journal::start(Writer::new(Box::new(full), Path::new("/dev/full"), "r"));
        let draft = || vec![Draft::new(Scope::default(), Kind::PhaseStarted)];
        assert!(journal.append(draft()).await.is_err());
        assert!(journal.append(draft()).await.is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = parse(&bytes, Path::new("j"));
        }
    }
}
