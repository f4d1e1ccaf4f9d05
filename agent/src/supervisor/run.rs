//! One run on this host: the single place where its state changes.

use super::feed::Feed;
use super::journal::Journal;
use super::offer::Offering;
use super::receive::Receiving;
use super::step::{Look, Running};
use crate::host_lock::{Denied, HostLock};
use crate::inspect::{boot_id, now_ms};
use crate::runner::Status;
use proto::frame::parse;
use proto::host::{Entry, Next, Record, Standing, State};
use proto::message::{Happened, HostEvent};
use proto::{FromAgent, Outcome, Secret, ToAgent};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How long a step waits for secrets that it needs and that were not sent yet.
const SECRETS: Duration = Duration::from_secs(30);
/// How long what was said last may take to go out when a connection is ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Something that happens to a supervisor.
#[derive(Debug)]
pub(crate) enum Event {
    /// A bridge connected; connections are numbered.
    Connected(u64, UnixStream),
    Message(u64, Vec<u8>),
    Gone(u64),
    /// A runner has something to show.
    Stirred,
    RunnerEnded(usize),
}

/// The controller that attached last. Its steps go on when its connection is gone.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) id: String,
    /// The token that the host gave it.
    pub(super) token: u64,
    /// The only connection that is listened to.
    pub(super) connection: Option<u64>,
}

/// A run.
pub(crate) struct Run {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    pub(super) lock: HostLock,
    boot_id: String,
    pub(super) journal: Journal,
    pub(super) state: State,
    /// Events that are in the state and not in the journal yet. Nobody was told of them.
    unwritten: Vec<HostEvent>,
    pub(super) running: Option<Running>,
    pub(super) secrets: BTreeMap<String, Secret>,
    /// Connections, by number.
    feeds: BTreeMap<u64, Feed>,
    /// Who attached in this supervisor's life: only then are waiting steps begun.
    pub(super) controller: Option<Controller>,
    pub(super) receiving: Receiving,
    pub(super) offering: Offering,
    /// Since when the next step waits for secrets.
    waiting_since: Option<Instant>,
    pub(super) finishing: bool,
    /// The host's lock is released at the end.
    pub(super) releasing: bool,
    events: Option<SyncSender<Event>>,
}

impl Run {
    pub(crate) fn new(dir: &Path, lock: HostLock, name: &str, journal: Journal, state: State) -> Self {
        let running = state.standing(Standing::Running).first().and_then(|index| Running::adopt(dir, *index, &state));
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            lock,
            boot_id: boot_id(),
            journal,
            state,
            unwritten: Vec::new(),
            running,
            secrets: BTreeMap::new(),
            feeds: BTreeMap::new(),
            controller: None,
            receiving: Receiving::default(),
            offering: Offering::default(),
            waiting_since: None,
            finishing: false,
            releasing: false,
            events: None,
        }
    }

    /// Where runners report.
    pub(crate) fn connect(&mut self, events: SyncSender<Event>) {
        self.events = Some(events);
    }

    /// Whether somebody needs this supervisor.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some() || self.connection().is_some()
    }

    /// Whether something has to be looked at that nobody reports.
    pub(crate) fn has_to_look(&self) -> bool {
        self.waiting_since.is_some() || self.running.as_ref().is_some_and(|running| !running.runner_lives)
    }

    /// The controller said that the run is over, and nothing runs any more.
    pub(crate) fn is_over(&self) -> bool {
        self.finishing && self.running.is_none()
    }

    /// Lets go of the host, where the controller said so. Before it is told that the supervisor ends: the next run may come at once.
    pub(crate) fn let_go(&mut self) -> Result<(), String> {
        let Some(controller) = self.controller.as_ref().filter(|_| self.finishing && self.releasing) else { return Ok(()) };
        self.lock.release(&self.name, &controller.id).map_err(|e| {
            format!("the run is over on this host, but its lock was not released: {e}; make room, attach and finish again")
        })
    }

    /// Ends all connections, after saying why.
    pub(crate) fn part(&mut self, fatal: Option<String>) {
        match fatal {
            Some(message) => self.say(FromAgent::Fatal { message }),
            None if self.finishing => self.say(FromAgent::Finished),
            None => {}
        }
        for (_, feed) in std::mem::take(&mut self.feeds) {
            feed.close(LAST_WORDS);
        }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// The journal cannot be written: the supervisor has to end.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Connected(number, stream) => {
                if let Ok(feed) = Feed::new(stream) {
                    self.feeds.insert(number, feed);
                }
            }
            Event::Message(number, payload) => match parse::<ToAgent>(&payload) {
                Ok(message) => return self.message(number, message),
                Err(e) => self.drop_connection(number, Some(FromAgent::Fatal { message: e.to_string() })),
            },
            Event::Gone(number) => self.drop_connection(number, None),
            Event::Stirred => {
                if let Some(feed) = self.feed() {
                    feed.nudge();
                }
            }
            Event::RunnerEnded(index) => {
                if let Some(running) = self.running.as_mut().filter(|running| running.index == index) {
                    running.runner_lives = false;
                }
            }
        }
        Ok(())
    }

    /// Does whatever can be done now.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(crate) fn go_on(&mut self) -> Result<(), String> {
        self.go_on_with_steps()?;
        self.write_down()
    }

    fn go_on_with_steps(&mut self) -> Result<(), String> {
        loop {
            if let Some(mut running) = self.running.take() {
                let look = running.look(&self.boot_id);
                running.new_alerts().into_iter().for_each(|alert| self.happened(running.index, alert));
                match look {
                    Look::Ended(status) => self.ended(&running, status),
                    Look::Runs => {
                        self.running = Some(running);
                        self.ask_for_file();
                        self.offer_file();
                        return Ok(());
                    }
                    Look::Dead => self.find_out(running)?,
                }
                continue;
            }
            if self.controller.is_none() || self.finishing {
                return Ok(());
            }
            match self.state.next() {
                Next::Wait => return Ok(()),
                Next::Revoke(indexes) => self.revoke(&indexes)?,
                Next::Start(index) if self.lacks_secrets(index) => return Ok(()),
                Next::Start(index) => self.begin_if_held(index)?,
            }
        }
    }

    /// Begins a step, if the host is still this controller's. Otherwise nothing of it begins any more, and it is told so. Between the
    /// look at the lock and the step's own lock nobody can take the host.
    fn begin_if_held(&mut self, index: usize) -> Result<(), String> {
        let Some(Controller { id, token, .. }) = &self.controller else { return Ok(()) };
        let guard = self.lock.guard().map_err(|e| format!("cannot look who holds this host: {e}"))?;
        let reason = match self.lock.token(&self.name, id) {
            Ok(current) if current == *token => return self.begin(index, guard),
            Ok(current) => format!("this host has given out the token {current} since; this controller has {token}"),
            Err(Denied::Refused(reason)) => reason,
            Err(Denied::Fatal(message)) => return Err(message),
        };
        drop(guard);
        let waiting = self.state.standing(Standing::Waiting);
        self.revoke(&waiting)?;
        self.say(FromAgent::Refused { reason });
        Ok(())
    }

    /// Whether a step has to wait for secrets. Not for ever: then it says itself what it lacks.
    fn lacks_secrets(&mut self, index: usize) -> bool {
        let Some(entry) = self.state.entry(index) else { return false };
        let lacks = entry.granted.spec.action.secrets().any(|name| !self.secrets.contains_key(name));
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let wait = lacks && since.elapsed() < SECRETS;
        if !wait {
            self.waiting_since = None;
        }
        wait
    }

    /// Until the step's lock is taken, `guard` keeps others from taking the host.
    fn begin(&mut self, index: usize, guard: File) -> Result<(), String> {
        let Some(entry) = self.state.entry(index).cloned() else { return Ok(()) };
        self.journal.reserve(1).map_err(|e| self.full(&e))?;
        let running = Running::new(&self.dir, index, &entry, &self.boot_id);
        // Only where the journal's last line was lost: nothing begins twice.
        let has_begun = running.files.status().exists() || running.files.is_running();
        let lock = if has_begun { None } else { Some(running.prepare(&entry)) };
        drop(guard);
        // Durable before anything begins: from here on the step counts as begun, whatever happens to us.
        self.happened(index, Happened::Started { stream: running.stream });
        self.write_down()?;
        if let Some(feed) = self.feed() {
            feed.follow(running.stream, running.files.output(), 0);
        }
        self.receiving.forget(&self.dir);
        self.offering = Offering::default();
        match lock {
            Some(lock) => self.launch(running, lock, false),
            None => {
                self.running = Some(running);
                Ok(())
            }
        }
    }

    /// A dead runner left no result: another one looks what became of the step.
    fn find_out(&mut self, running: Running) -> Result<(), String> {
        let Some(entry) = self.state.entry(running.index).cloned() else { return Ok(()) };
        // Others look at the step's lock under this one.
        let guard = self.lock.guard().map_err(|e| format!("cannot lock this host: {e}"))?;
        let lock = running.prepare(&entry);
        drop(guard);
        self.launch(running, lock, true)
    }

    fn launch(&mut self, mut running: Running, lock: Result<std::fs::File, String>, probing: bool) -> Result<(), String> {
        let Some(events) = self.events.clone() else { return Ok(()) };
        match lock.and_then(|lock| running.spawn(lock, probing, &self.secrets, &events)) {
            Ok(()) => {
                self.running = Some(running);
                Ok(())
            }
            Err(message) => {
                let outcome = if probing { Outcome::Unknown } else { Outcome::Failed };
                let status =
                    Status { outcome, exit_code: None, duration_ms: 0, message, output_len: 0, died: probing, made: Vec::new() };
                self.ended(&running, status);
                Ok(())
            }
        }
    }

    fn ended(&mut self, running: &Running, status: Status) {
        let Status { outcome, exit_code, duration_ms, message, output_len, died, made } = status;
        self.receiving.forget(&self.dir);
        if let Some(feed) = self.feed() {
            feed.drain(running.stream, output_len);
        }
        made.into_iter().for_each(|made| self.happened(running.index, Happened::Made(made)));
        self.happened(running.index, Happened::Finished { outcome, exit_code, duration_ms, message, output_len, died });
    }

    /// Takes an event into the state. It counts, and is told, once it was written down: the end of a step and the beginning of the
    /// next one share one write.
    fn happened(&mut self, index: usize, what: Happened) {
        let Some(entry) = self.state.entry(index) else { return };
        let event = HostEvent {
            host_seq: self.state.host_seq() + 1,
            host_time_ms: now_ms(),
            boot_id: self.boot_id.clone(),
            step: entry.granted.spec.id.clone(),
            attempt: entry.granted.attempt,
            what,
        };
        self.state.apply(&Record::Event(event.clone()));
        self.unwritten.push(event);
    }

    /// Writes what happened to the journal, then tells it.
    fn write_down(&mut self) -> Result<(), String> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.unwritten);
        let records: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
        self.journal.append(&records).map_err(|e| self.full(&e))?;
        if let Some(feed) = self.feed() {
            feed.say_all(events.into_iter().map(FromAgent::Event));
        }
        Ok(())
    }

    fn ask_for_file(&mut self) {
        let (Some(running), true) = (&self.running, self.connection().is_some()) else { return };
        if let Some((sha256, offset)) = self.receiving.ask(&running.files) {
            self.say(FromAgent::NeedFile { sha256, offset });
        }
    }

    fn offer_file(&mut self) {
        let (Some(running), true) = (&self.running, self.connection().is_some()) else { return };
        let Some(file) = self.offering.offer(&running.files) else { return };
        if let Some(attempt) = self.state.entry(running.index).map(Entry::attempt) {
            self.say(FromAgent::Offer { attempt, file });
        }
    }

    pub(super) fn record(&mut self, records: &[Record]) -> Result<(), String> {
        self.write_down()?;
        if records.is_empty() {
            return Ok(());
        }
        self.journal.append(records).map_err(|e| self.full(&e))?;
        records.iter().for_each(|record| self.state.apply(record));
        Ok(())
    }

    pub(super) fn full(&self, error: &std::io::Error) -> String {
        format!("cannot write the journal in {}: {error}; what runs goes on; make room, then attach again", self.dir.display())
    }

    /// The connection of the controller that attached last, while it is there.
    pub(super) fn connection(&self) -> Option<u64> {
        self.controller.as_ref()?.connection
    }

    pub(super) fn feed(&self) -> Option<&Feed> {
        self.feeds.get(&self.connection()?)
    }

    pub(super) fn say(&self, message: FromAgent) {
        if let Some(feed) = self.feed() {
            feed.say(message);
        }
    }

    pub(super) fn send(&self, number: u64, message: FromAgent) {
        if let Some(feed) = self.feeds.get(&number) {
            feed.say(message);
        }
    }

    pub(super) fn drop_connection(&mut self, number: u64, last: Option<FromAgent>) {
        if let Some(controller) = self.controller.as_mut().filter(|controller| controller.connection == Some(number)) {
            controller.connection = None;
        }
        let Some(feed) = self.feeds.remove(&number) else { return };
        match last {
            Some(message) => {
                feed.say(message);
                // It may hang; nobody waits for it here.
                std::thread::spawn(move || feed.close(LAST_WORDS));
            }
            None => feed.close(Duration::ZERO),
        }
    }
}
