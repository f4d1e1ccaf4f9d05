//! Fetching an encrypted copy from a host, and putting it where it is kept: on the workstation, or through it on another host.
//!
//! The controller asks for one piece after the other, with a few on their way, so that what arrives is bounded and so is the rate. What is
//! there already is not asked for again, whoever was cut off: a connection, a controller, the host that keeps the copy. A host is believed
//! nothing: what counts is the digest of what arrived.

mod sink;

use crate::hosts::{Hosts, Outgoing};
use proto::ToAgent;
use proto::frame::{FETCH_LIMIT, FETCHED};
use proto::message::Offered;
use sink::{Sink, SinkError};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much may be on its way.
const WINDOW: u64 = 1 << 20;
/// How long a host may take to send the next bytes of a piece.
const SILENCE: Duration = Duration::from_secs(120);
/// How long until a host that keeps copies is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How many frames may wait: far more than are ever on their way.
pub(super) const WAITING: usize = 256;

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A file of the workstation.
    File(PathBuf),
    /// A file of another host.
    Host { host: String, dest: String },
}

/// A copy that is to be fetched.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) file: Offered,
    pub(super) place: Place,
    /// Bytes a second.
    pub(super) limit: Option<u64>,
    /// How long a host that keeps copies may stay away.
    pub(super) patience: Duration,
}

/// The host that has the copy.
pub(super) struct Source {
    pub(super) to: mpsc::Sender<Outgoing>,
    /// Stream, offset and bytes of what it sends.
    pub(super) data: mpsc::Receiver<(u32, u64, Vec<u8>)>,
    /// The stream that was used last.
    pub(super) stream: u32,
}

/// Why a copy is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotKept {
    /// The host's connection is gone: it offers the file again on the next one.
    Gone,
    /// It cannot be: a text that names the place.
    Refused(String),
}

enum End {
    NotKept(NotKept),
    /// The host that keeps copies is away.
    Away(String),
}

impl From<SinkError> for End {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Refused(reason) => Self::NotKept(NotKept::Refused(reason)),
            SinkError::Away(reason) => Self::Away(reason),
        }
    }
}

/// Fetches a copy until it is where it belongs: whole, checked and durable. `begun` is told from where on it is fetched, each time that is
/// begun; `progress` how far it is. Answers how many bytes came since the last beginning.
pub(super) async fn fetch<H: Hosts>(
    hosts: &H,
    job: &Job,
    source: &mut Source,
    begun: &(dyn Fn(u64) + Send + Sync),
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<u64, NotKept> {
    let mut until = Instant::now() + job.patience;
    loop {
        let mut moved = false;
        match attempt(hosts, job, source, begun, progress, &mut moved).await {
            Ok(received) => return Ok(received),
            Err(End::NotKept(why)) => return Err(why),
            Err(End::Away(reason)) => {
                if moved {
                    until = Instant::now() + job.patience;
                }
                if Instant::now() + PAUSE > until {
                    return Err(NotKept::Refused(reason));
                }
                tokio::time::sleep(PAUSE).await;
                if source.to.is_closed() {
                    return Err(NotKept::Gone);
                }
            }
        }
    }
}

async fn attempt<H: Hosts>(
    hosts: &H,
    job: &Job,
    source: &mut Source,
    begun: &(dyn Fn(u64) + Send + Sync),
    progress: &(dyn Fn(u64) + Send + Sync),
    moved: &mut bool,
) -> Result<u64, End> {
    let gone = || End::NotKept(NotKept::Gone);
    let size = job.file.size;
    let mut sink = Sink::open(hosts, &job.place, &job.file).await?;
    let first = sink.have();
    begun(first);
    source.stream = (source.stream + 1) | FETCHED;
    let piece = job.limit.map_or(u64::from(FETCH_LIMIT), |limit| (limit / 8).clamp(4096, u64::from(FETCH_LIMIT)));
    let window = job.limit.map_or(WINDOW, |limit| (limit / 4).clamp(piece, WINDOW));
    let (mut asked, mut got, mut due) = (first, first, Instant::now());
    while got < size {
        while asked < size && asked - got < window {
            let length = piece.min(size - asked);
            if let Some(limit) = job.limit {
                tokio::time::sleep_until(due).await;
                due = due.max(Instant::now()) + Duration::from_secs_f64(length as f64 / limit as f64);
            }
            let (sha256, stream) = (job.file.sha256.clone(), source.stream);
            let fetch = ToAgent::Fetch { sha256, stream, offset: asked, length: u32::try_from(length).unwrap_or(FETCH_LIMIT) };
            source.to.send(Outgoing::Message(fetch)).await.map_err(|_| gone())?;
            asked += length;
        }
        let next = tokio::time::timeout(SILENCE, source.data.recv())
            .await
            .map_err(|_| End::NotKept(NotKept::Refused(format!("the host sent nothing of it for {} s", SILENCE.as_secs()))))?;
        let Some((stream, offset, bytes)) = next else { return Err(gone()) };
        if stream != source.stream {
            continue;
        }
        if offset != got || bytes.is_empty() || bytes.len() as u64 > asked - got {
            let reason =
                format!("the host sent {} bytes from {offset} on where {} from {got} on were asked for", bytes.len(), asked - got);
            return Err(End::NotKept(NotKept::Refused(reason)));
        }
        got += bytes.len() as u64;
        *moved = true;
        sink.write(bytes).await?;
        progress(got);
    }
    sink.finish().await?;
    Ok(got - first)
}
