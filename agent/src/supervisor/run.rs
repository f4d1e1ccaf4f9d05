//! One run on this host: the single place where its state changes.

use super::feed::Feed;
use super::journal::Journal;
use super::receive::Receiving;
use super::step::{Look, Running, files};
use crate::action::secret_names;
use crate::inspect::{boot_id, now_ms};
use crate::runner::Status;
use proto::frame::parse;
use proto::host::{Next, Record, Standing, State};
use proto::message::{Attempt, Claim, Granted, Happened, HostEvent};
use proto::{Action, FromAgent, Outcome, Secret, StepId, ToAgent};
use std::collections::BTreeMap;
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
    Data(u64, u32, u64, Vec<u8>),
    Gone(u64),
    /// A runner has something to show.
    Stirred,
    RunnerEnded(usize),
}

/// A run.
pub(crate) struct Run {
    dir: PathBuf,
    boot_id: String,
    journal: Journal,
    state: State,
    /// Events that are in the state and not in the journal yet. Nobody was told of them.
    unwritten: Vec<HostEvent>,
    running: Option<Running>,
    secrets: BTreeMap<String, Secret>,
    /// Connections, by number.
    feeds: BTreeMap<u64, Feed>,
    /// The connection that attached last: the only one that is listened to.
    attached: Option<u64>,
    /// A controller has attached in this supervisor's life: only then are waiting steps begun.
    controlled: bool,
    /// The controller that attached last.
    controller: Option<String>,
    receiving: Receiving,
    /// Since when the next step waits for secrets.
    waiting_since: Option<Instant>,
    finishing: bool,
    events: Option<SyncSender<Event>>,
}

impl Run {
    pub(crate) fn new(dir: &Path, journal: Journal, state: State) -> Self {
        let began = |index: usize| state.events().iter().rev().find(|event| state.find(&event.step, event.attempt) == Some(index));
        // A step that began and did not end is adopted: its runner may live, may have left a result, or may be dead.
        let running = state.standing(Standing::Running).first().and_then(|index| {
            let began_ms = began(*index).map_or_else(now_ms, |event| event.host_time_ms);
            Some(Running::new(dir, *index, state.entry(*index)?, began_ms))
        });
        Self {
            dir: dir.to_owned(),
            boot_id: boot_id(),
            journal,
            state,
            unwritten: Vec::new(),
            running,
            secrets: BTreeMap::new(),
            feeds: BTreeMap::new(),
            attached: None,
            controlled: false,
            controller: None,
            receiving: Receiving::default(),
            waiting_since: None,
            finishing: false,
            events: None,
        }
    }

    /// Where runners report.
    pub(crate) fn connect(&mut self, events: SyncSender<Event>) {
        self.events = Some(events);
    }

    /// Whether somebody needs this supervisor.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some() || self.attached.is_some()
    }

    /// Whether something has to be looked at that nobody reports.
    pub(crate) fn has_to_look(&self) -> bool {
        self.waiting_since.is_some() || self.running.as_ref().is_some_and(|running| !running.runner_lives)
    }

    /// The controller said that the run is over, and nothing runs any more.
    pub(crate) fn is_over(&self) -> bool {
        self.finishing && self.running.is_none()
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
            Event::Data(number, stream, offset, bytes) => {
                if let (true, Some(running)) = (self.attached == Some(number), &self.running) {
                    self.receiving.data(&running.files, stream, offset, &bytes);
                }
            }
            Event::Gone(number) => self.drop_connection(number, None),
            Event::Stirred => {
                if let Some(feed) = self.attached.and_then(|number| self.feeds.get(&number)) {
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

    fn message(&mut self, number: u64, message: ToAgent) -> Result<(), String> {
        match message {
            // Sent before Attach by a bridge that had them already.
            ToAgent::Secrets { values } => self.secrets.extend(values),
            ToAgent::Attach { claim, acked, output, keep, .. } => self.attach(number, &claim, acked, &output, keep)?,
            _ if self.attached != Some(number) => {}
            ToAgent::Grant { steps, head, token, keep } => self.grant(steps, head, token, keep)?,
            ToAgent::Revoke => {
                let waiting = self.state.standing(Standing::Waiting);
                self.revoke(&waiting)?;
            }
            // Everything is kept until the run's directory goes: there is nothing to let go of.
            ToAgent::Ack { .. } => {}
            ToAgent::FileBegin { sha256, stream } => self.with_files(|receiving, files| receiving.begin(files, &sha256, stream)),
            ToAgent::FileEnd { stream } => self.with_files(|receiving, files| receiving.end(files, stream)),
            ToAgent::FileRefused { sha256, reason } => {
                self.with_files(|receiving, files| receiving.refuse(files, &sha256, &reason))
            }
            ToAgent::Stop { .. } => {}
            ToAgent::Finish { .. } => {
                let waiting = self.state.standing(Standing::Waiting);
                if !waiting.is_empty() {
                    self.revoke(&waiting)?;
                }
                self.finishing = true;
            }
            // The bridge answers these itself.
            ToAgent::Hello { .. } | ToAgent::Inspect { .. } | ToAgent::Exec { .. } => {}
        }
        Ok(())
    }

    fn with_files(&mut self, act: impl FnOnce(&mut Receiving, &crate::runner::files::StepFiles)) {
        if let Some(running) = &self.running {
            act(&mut self.receiving, &running.files);
        }
    }

    /// A controller is there: it gets everything that it does not have yet.
    fn attach(
        &mut self,
        number: u64,
        claim: &Claim,
        acked: u64,
        output: &BTreeMap<StepId, u64>,
        keep: Vec<String>,
    ) -> Result<(), String> {
        let mut records = Vec::new();
        if self.controller.as_ref() != Some(&claim.controller) {
            self.controller = Some(claim.controller.clone());
            records.push(Record::Token { token: self.state.token() + 1 });
        }
        if !keep.is_empty() {
            records.push(Record::Kept { lines: keep });
        }
        self.record(&records)?;
        if let Some(before) = self.attached.take().filter(|before| *before != number) {
            let reason = "another controller has attached to this run on this host".to_owned();
            self.drop_connection(before, Some(FromAgent::Refused { reason }));
        }
        self.attached = Some(number);
        self.controlled = true;
        self.receiving = Receiving::default();
        let mut open = self.state.standing(Standing::Running);
        open.extend(self.state.standing(Standing::Waiting));
        let (host_seq, open, token) = (self.state.host_seq(), self.state.attempts(&open), self.state.token());
        self.say(FromAgent::Attached { host_seq, open, token });
        let revoked = self.state.standing(Standing::Revoked);
        let revoked: Vec<usize> = revoked.into_iter().filter(|index| self.is_latest(*index)).collect();
        if !revoked.is_empty() {
            self.say(FromAgent::Revoked { steps: self.state.attempts(&revoked) });
        }
        self.replay(acked, output);
        Ok(())
    }

    /// A revoked step may have been granted again.
    fn is_latest(&self, index: usize) -> bool {
        let entry = self.state.entry(index);
        entry.is_some_and(|entry| self.state.find(&entry.granted.spec.id, entry.granted.attempt) == Some(index))
    }

    /// Sends events after `acked`, and output that the controller lacks: from the given offset where it has a part, from the
    /// beginning where it has not seen the step's end, and none where it has.
    fn replay(&self, acked: u64, output: &BTreeMap<StepId, u64>) {
        let Some(feed) = self.attached.and_then(|number| self.feeds.get(&number)) else { return };
        let events = self.state.events();
        for event in events {
            let Some(index) = self.state.find(&event.step, event.attempt) else { continue };
            let stream = State::stream(index);
            match &event.what {
                Happened::Started { .. } => {
                    if event.host_seq > acked {
                        feed.say(FromAgent::Event(event.clone()));
                    }
                    let end = events.iter().find(|other| other.host_seq > event.host_seq && same_attempt(other, event));
                    let seen_to_end = end.is_some_and(|end| end.host_seq <= acked);
                    // Offsets are by step: they are about its latest attempt.
                    let later = events.iter().any(|other| other.step == event.step && other.attempt > event.attempt);
                    let from = output.get(&event.step).copied().filter(|_| !later);
                    if from.is_some() || !seen_to_end {
                        feed.follow(stream, files(&self.dir, index).output(), from.unwrap_or(0));
                    }
                }
                Happened::Alert { .. } => {
                    if event.host_seq > acked {
                        feed.say(FromAgent::Event(event.clone()));
                    }
                }
                Happened::Finished { output_len, .. } => {
                    feed.drain(stream, *output_len);
                    if event.host_seq > acked {
                        feed.say(FromAgent::Event(event.clone()));
                    }
                }
            }
        }
    }

    fn outdated(&self, token: u64) -> String {
        format!("a newer controller has taken this run over (its token is {}, this one's {token})", self.state.token())
    }

    fn grant(&mut self, steps: Vec<Granted>, head: String, token: u64, keep: Vec<String>) -> Result<(), String> {
        if token < self.state.token() {
            let reason = self.outdated(token);
            self.say(FromAgent::Refused { reason });
            return Ok(());
        }
        if self.finishing {
            self.say(FromAgent::Refused { reason: "the run is over on this host".to_owned() });
            return Ok(());
        }
        self.journal.reserve().map_err(|e| self.full(&e))?;
        // What has ended already is not run again; its events may not have arrived.
        let attempt = |granted: &Granted| Attempt { step: granted.spec.id.clone(), attempt: granted.attempt };
        let known: Vec<Attempt> = steps.iter().map(attempt).collect();
        let is_known = |event: &&HostEvent| known.iter().any(|k| k.step == event.step && k.attempt == event.attempt);
        let ended: Vec<HostEvent> = self.state.events().iter().filter(is_known).cloned().collect();
        let kept = (!keep.is_empty()).then_some(Record::Kept { lines: keep });
        let records: Vec<Record> = kept.into_iter().chain([Record::Grant { steps, head, token }]).collect();
        self.record(&records)?;
        for event in ended {
            self.say(FromAgent::Event(event));
        }
        let revoked: Vec<usize> = known
            .iter()
            .filter_map(|known| self.state.find(&known.step, known.attempt))
            .filter(|index| self.state.entry(*index).is_some_and(|entry| entry.standing == Standing::Revoked))
            .collect();
        if !revoked.is_empty() {
            self.say(FromAgent::Revoked { steps: self.state.attempts(&revoked) });
        }
        Ok(())
    }

    fn revoke(&mut self, indexes: &[usize]) -> Result<(), String> {
        let steps = self.state.attempts(indexes);
        if !steps.is_empty() {
            self.record(&[Record::Revoked { steps: steps.clone() }])?;
        }
        self.say(FromAgent::Revoked { steps });
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
                match running.look() {
                    Look::Ended(status) => self.ended(&running, status),
                    Look::Runs => {
                        self.running = Some(running);
                        self.ask_for_file();
                        return Ok(());
                    }
                    Look::Dead => self.find_out(running)?,
                }
                continue;
            }
            if !self.controlled || self.finishing {
                return Ok(());
            }
            match self.state.next() {
                Next::Wait => return Ok(()),
                Next::Revoke(indexes) => self.revoke(&indexes)?,
                Next::Start(index) if self.lacks_secrets(index) => return Ok(()),
                Next::Start(index) => self.begin(index)?,
            }
        }
    }

    /// Whether a step has to wait for secrets. Not for ever: then it says itself what it lacks.
    fn lacks_secrets(&mut self, index: usize) -> bool {
        let command = match self.state.entry(index).map(|entry| &entry.granted.spec.action) {
            Some(Action::Command(command)) => command,
            _ => return false,
        };
        let lacks =
            command.secret_files.values().flat_map(|content| secret_names(content)).any(|name| !self.secrets.contains_key(name));
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let wait = lacks && since.elapsed() < SECRETS;
        if !wait {
            self.waiting_since = None;
        }
        wait
    }

    fn begin(&mut self, index: usize) -> Result<(), String> {
        let Some(entry) = self.state.entry(index).cloned() else { return Ok(()) };
        let running = Running::new(&self.dir, index, &entry, now_ms());
        let lock = running.prepare(&entry);
        // Durable before anything begins: from here on the step counts as begun, whatever happens to us.
        self.happened(index, Happened::Started { stream: running.stream });
        self.write_down()?;
        if let Some(feed) = self.attached.and_then(|number| self.feeds.get(&number)) {
            feed.follow(running.stream, running.files.output(), 0);
        }
        self.receiving = Receiving::default();
        self.launch(running, lock, false)
    }

    /// A dead runner left no result: another one looks what became of the step.
    fn find_out(&mut self, running: Running) -> Result<(), String> {
        let Some(entry) = self.state.entry(running.index).cloned() else { return Ok(()) };
        let lock = running.prepare(&entry);
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
                self.ended(&running, Status { outcome, exit_code: None, duration_ms: 0, message, output_len: 0 });
                Ok(())
            }
        }
    }

    fn ended(&mut self, running: &Running, status: Status) {
        let Status { outcome, exit_code, duration_ms, message, output_len } = status;
        if let Some(feed) = self.attached.and_then(|number| self.feeds.get(&number)) {
            feed.drain(running.stream, output_len);
        }
        let died = false;
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
        if let Some(feed) = self.attached.and_then(|number| self.feeds.get(&number)) {
            feed.say_all(events.into_iter().map(FromAgent::Event));
        }
        Ok(())
    }

    fn ask_for_file(&mut self) {
        let (Some(running), true) = (&self.running, self.attached.is_some()) else { return };
        if let Some((sha256, offset)) = self.receiving.ask(&running.files) {
            self.say(FromAgent::NeedFile { sha256, offset });
        }
    }

    fn record(&mut self, records: &[Record]) -> Result<(), String> {
        self.write_down()?;
        if records.is_empty() {
            return Ok(());
        }
        self.journal.append(records).map_err(|e| self.full(&e))?;
        records.iter().for_each(|record| self.state.apply(record));
        Ok(())
    }

    fn full(&self, error: &std::io::Error) -> String {
        format!("cannot write the journal in {}: {error}; what runs goes on; make room, then attach again", self.dir.display())
    }

    fn say(&self, message: FromAgent) {
        if let Some(number) = self.attached {
            self.send(number, message);
        }
    }

    fn send(&self, number: u64, message: FromAgent) {
        if let Some(feed) = self.feeds.get(&number) {
            feed.say(message);
        }
    }

    fn drop_connection(&mut self, number: u64, last: Option<FromAgent>) {
        if self.attached == Some(number) {
            self.attached = None;
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

fn same_attempt(one: &HostEvent, other: &HostEvent) -> bool {
    one.step == other.step && one.attempt == other.attempt
}
