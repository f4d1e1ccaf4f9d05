//! What a supervisor tells the bridge, from a thread of its own: a connection that hangs must never hold a step up.
//!
//! Messages go out in the order they were put in. Output is read from the steps' spools while there is nothing else to say, and
//! what remains of a step's output goes out before the message that says that the step ended.

use crate::channel::Output;
use crate::runner::spool::Follower;
use proto::FromAgent;
use proto::frame::DATA_CHUNK;
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
        self.put(Item::Message(message));
    }

    /// Sends a step's output from an offset on, as it appears.
    pub(crate) fn follow(&self, stream: u32, dir: PathBuf, from: u64) {
        self.put(Item::Follow(stream, Follower::new(dir, from)));
    }

    /// Sends what remains of a step's output, before anything that is put in later.
    pub(crate) fn drain(&self, stream: u32, len: u64) {
        self.put(Item::Drain(stream, len));
    }

    /// There may be new output.
    pub(crate) fn nudge(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).nudged = true;
        self.shared.changed.notify_one();
    }

    /// Sends what was put in so far, then ends the connection. Does not wait longer than `patience`.
    pub(crate) fn close(self, patience: Duration) {
        self.put(Item::Close);
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn put(&self, item: Item) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).items.push_back(item);
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
                Some(Item::Message(message)) => self.output.message(&message).unwrap_or(true),
                Some(Item::Follow(stream, follower)) => {
                    self.followed.push((stream, follower));
                    true
                }
                Some(Item::Drain(stream, len)) => self.drain(stream, len),
                None => self.pump(),
            };
            if !sent {
                return;
            }
        }
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
