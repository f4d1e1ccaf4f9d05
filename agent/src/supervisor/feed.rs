//! What a supervisor tells the bridge, from a thread of its own: a connection that hangs must never hold a step up.
//!
//! Messages go out in the order they were put in. Output is read from the steps' spools while there is nothing else to say, and
//! what remains of a step's output goes out before the message that says that the step ended.

use crate::channel::Output;
use crate::runner::spool::Follower;
use proto::FromAgent;
use proto::frame::{DATA_CHUNK, Frame};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often output is looked for where nobody tells that there is some (a step adopted from a supervisor that died).
const LOOK: Duration = Duration::from_millis(100);

/// One thing to be sent.
enum Item {
    Message(FromAgent),
    /// From here on the output of a step goes out as it appears.
    Follow(u32, Follower),
    /// All output of a step up to this length goes out now.
    Drain(u32, u64),
    /// A piece of a file: stream, offset, bytes.
    Piece(u32, u64, Vec<u8>),
    /// Nothing follows.
    Close,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// There may be new output.
    nudged: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The sending half of a connection with a bridge.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Feed {
    /// Starts sending.
    pub(crate) fn new(stream: UnixStream) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut sender = Sender { shared: Arc::clone(&shared), output: Output::new(stream.try_clone()?), followed: Vec::new() };
        let theirs = stream.try_clone()?;
        let thread = std::thread::spawn(move || {
            sender.run();
            let _ = theirs.shutdown(Shutdown::Both);
        });
        Ok(Self { shared, stream, thread })
    }

    pub(crate) fn say(&self, message: FromAgent) {
        self.say_all([message]);
    }

    /// Says several things in one go.
    pub(crate) fn say_all(&self, messages: impl IntoIterator<Item = FromAgent>) {
        self.put(messages.into_iter().map(Item::Message));
    }

    /// Sends a step's output from an offset on, as it appears.
    pub(crate) fn follow(&self, stream: u32, dir: PathBuf, from: u64) {
        self.put([Item::Follow(stream, Follower::new(dir, from))]);
    }

    /// Sends what remains of a step's output, before anything that is put in later.
    pub(crate) fn drain(&self, stream: u32, len: u64) {
        self.put([Item::Drain(stream, len)]);
    }

    /// Sends a piece of a file.
    pub(crate) fn piece(&self, stream: u32, offset: u64, bytes: Vec<u8>) {
        self.put([Item::Piece(stream, offset, bytes)]);
    }

    /// There may be new output.
    pub(crate) fn nudge(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).nudged = true;
        self.shared.changed.notify_one();
    }

    /// Sends what was put in so far, then ends the connection. Does not wait longer than `patience`.
    pub(crate) fn close(self, patience: Duration) {
        self.put([Item::Close]);
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn put(&self, items: impl IntoIterator<Item = Item>) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).items.extend(items);
        self.shared.changed.notify_one();
    }
}

struct Sender {
    shared: Arc<Shared>,
    output: Output<UnixStream>,
    followed: Vec<(u32, Follower)>,
}

impl Sender {
    fn run(&mut self) {
        loop {
            let sent = match self.take() {
                Some(Item::Close) => return,
                Some(Item::Message(message)) => self.say(message),
                Some(Item::Follow(stream, follower)) => {
                    self.followed.push((stream, follower));
                    true
                }
                Some(Item::Drain(stream, len)) => self.drain(stream, len),
                Some(Item::Piece(stream, offset, bytes)) => self.output.data(stream, offset, &bytes),
                None => self.pump(),
            };
            if !sent {
                return;
            }
        }
    }

    /// Sends a message with all that wait right behind it, in one write: each write is a packet of its own further on. One that is
    /// too large for a frame is left out.
    fn say(&self, first: FromAgent) -> bool {
        let mut bytes = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            if let Ok(frame) = Frame::message(&message) {
                frame.encode_into(&mut bytes);
            }
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            next = match queue.items.pop_front() {
                Some(Item::Message(message)) => Some(message),
                Some(other) => {
                    queue.items.push_front(other);
                    None
                }
                None => None,
            };
        }
        self.output.raw(&bytes)
    }

    /// The next item, or nothing when output should be looked at.
    fn take(&self) -> Option<Item> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(item) = queue.items.pop_front() {
                return Some(item);
            }
            if std::mem::take(&mut queue.nudged) {
                return None;
            }
            if self.followed.is_empty() {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.shared.changed.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return None;
            }
            queue = waited.0;
        }
    }

    /// Sends some of the output that has appeared. Messages do not have to wait for all of it.
    fn pump(&mut self) -> bool {
        let mut more = false;
        for (stream, follower) in &mut self.followed {
            if let Some((offset, bytes)) = follower.next(DATA_CHUNK) {
                more = true;
                if !self.output.data(*stream, offset, &bytes) {
                    return false;
                }
            }
        }
        if more {
            self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).nudged = true;
        }
        true
    }

    fn drain(&mut self, stream: u32, len: u64) -> bool {
        let Some(place) = self.followed.iter().position(|(other, _)| *other == stream) else { return true };
        let (_, mut follower) = self.followed.swap_remove(place);
        while follower.offset() < len {
            let Some((offset, bytes)) = follower.next(DATA_CHUNK) else { return true };
            if !self.output.data(stream, offset, &bytes) {
                return false;
            }
        }
        true
    }
}
