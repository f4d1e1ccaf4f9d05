//! The way to a running controller from another terminal: a socket in the run's directory. One line of JSON asks, one line answers.
//!
//! The directory is its owner's alone, and so is the socket; beside that each side looks who the other is: the same account, or root.

use crate::run::journal::Journal;
use crate::run::{Command, Signal};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// The socket's name in the run's directory.
const SOCKET: &str = "control.sock";
/// Paths of sockets are shorter than this (unix(7)).
const SHORT: usize = 100;
/// No request and no answer is longer than this many bytes.
const LONGEST: u64 = 64 * 1024;
/// So many are listened to at the same time; others wait.
const CLIENTS: usize = 8;
/// Whoever connects has to say what it wants within this time.
const TO_ASK: Duration = Duration::from_secs(5);
/// A controller answers within this time: it only has to write its decision down.
const TO_ANSWER: Duration = Duration::from_secs(60);

/// What is asked of a running controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Take back what has not begun, let end what runs, and stop there.
    Pause {
        /// Who: account and workstation.
        operator: String,
    },
    /// The same, and end the run for good.
    Abort {
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Start a failed or unknown step again; one that runs is ended first.
    Retry {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Do not carry a failed or unknown step out: its probe alone decides.
    Skip {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Let a step count although its probe does not show the effect.
    Accept {
        /// The step's id.
        step: String,
        /// Who.
        operator: String,
        /// Why.
        reason: String,
    },
    /// Confirm a gate.
    Confirm {
        /// The gate's id.
        gate: String,
        /// The person's note.
        note: String,
        /// Who.
        operator: String,
    },
}

impl From<Request> for Signal {
    fn from(request: Request) -> Self {
        match request {
            Request::Pause { operator } => Self::Pause { operator },
            Request::Abort { operator, reason } => Self::Abort { operator, reason },
            Request::Retry { step, operator, reason } => Self::Retry { step, operator, reason },
            Request::Skip { step, operator, reason } => Self::Skip { step, operator, reason },
            Request::Accept { step, operator, reason } => Self::Accept { step, operator, reason },
            Request::Confirm { gate, note, operator } => Self::Confirm { gate, note, operator },
        }
    }
}

/// The answer: what was done, or why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Done(String),
    Refused(String),
}

/// A controller that listens. Nobody is heard any more once this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // Left behind it does no harm: nobody listens on it, and the next controller takes its place.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens for requests about the run whose directory this is, and passes them to its engine. Whoever calls this drives the run: a
/// socket that is there already is of a controller that is gone.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(dir: &Path, to: mpsc::Sender<Command>) -> io::Result<Control> {
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (handle, address) = address(dir)?;
    let listener = UnixListener::bind(address)?;
    rustix::fs::chmodat(&handle, SOCKET, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    let clients = Arc::new(Semaphore::new(CLIENTS));
    let task = tokio::spawn(async move {
        loop {
            let Ok(place) = clients.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let to = to.clone();
                    tokio::spawn(async move {
                        // Whoever went away or spoke another language is no matter of the run's.
                        let _ = hear(stream, to).await;
                        drop(place);
                    });
                }
                // Too many open files, say: the run matters more than whoever calls.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    Ok(Control { path, task })
}

async fn hear(mut stream: UnixStream, to: mpsc::Sender<Command>) -> io::Result<()> {
    if !is_trusted(&stream) {
        return Ok(());
    }
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    match tokio::time::timeout(TO_ASK, reader.read_until(b'\n', &mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(()),
    };
    // Whoever only looked whether somebody is here has said nothing.
    if line.is_empty() {
        return Ok(());
    }
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => pass(request, &to).await,
        Err(error) => {
            Answer::Refused(format!("the controller does not understand the request ({error}); it is of another version"))
        }
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

async fn pass(request: Request, to: &mpsc::Sender<Command>) -> Answer {
    let over = || Answer::Refused("the run is just coming to its end; `caravan status` says where it stands".to_owned());
    let (reply, answer) = oneshot::channel();
    if to.send(Command { what: request.into(), reply: Some(reply) }).await.is_err() {
        return over();
    }
    match answer.await {
        Ok(Ok(text)) => Answer::Done(text),
        Ok(Err(why)) => Answer::Refused(why),
        Err(_) => over(),
    }
}

/// Asks the controller that drives the run. `None` when there is no controller. The inner result is its answer: what was done, or why
/// it was not.
pub async fn ask(dir: &Path, request: &Request) -> Option<Result<String, String>> {
    let stream = dial(dir).await?;
    match tokio::time::timeout(TO_ANSWER, converse(stream, request)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => Some(Err(format!("the controller ended before it answered ({error})"))),
        Err(_) => Some(Err(format!("the controller did not answer within {} s", TO_ANSWER.as_secs()))),
    }
}

async fn converse(mut stream: UnixStream, request: &Request) -> io::Result<Result<String, String>> {
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "no answer"));
    }
    Ok(match serde_json::from_slice(&line)? {
        Answer::Done(text) => Ok(text),
        Answer::Refused(why) => Err(why),
    })
}

/// Whether a controller drives the run whose directory this is: it has the run's journal locked.
pub fn is_driven(dir: &Path) -> bool {
    Journal::is_driven(&dir.join("journal.jsonl"))
}

/// Connects, if a controller listens. A socket that nobody listens on was left behind.
async fn dial(dir: &Path) -> Option<UnixStream> {
    let (_handle, address) = address(dir).ok()?;
    let stream = UnixStream::connect(address).await.ok()?;
    is_trusted(&stream).then_some(stream)
}

/// The socket's address. It goes through `/proc/self/fd`, since the path of a socket must not be longer than 107 bytes (unix(7)) and
/// the run's directory may well be. Good as long as the directory's handle is open.
fn address(dir: &Path) -> io::Result<(OwnedFd, String)> {
    let handle = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let plain = dir.join(SOCKET);
    // Before Linux 4.4 only the first thread of a process that gives no core dumps could use the other one.
    if plain.as_os_str().len() < SHORT
        && let Some(plain) = plain.to_str()
    {
        return Ok((handle, plain.to_owned()));
    }
    let address = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    Ok((handle, address))
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own.as_raw() || peer.uid() == 0)
}
