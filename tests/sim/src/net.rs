//! Time, messages under way, and what was seen: everything of the simulated world that is not inside a host.

use crate::faults::Luck;
use crate::plant::Plant;
use crate::truth::Truth;
use controller::hosts::Incoming;
use proto::ToAgent;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use tokio::sync::mpsc;

/// What is due at some time.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message reaches a host.
    ToHost(u64, Box<ToAgent>),
    /// Something reaches a controller.
    ToController(u64, Box<Incoming>),
    /// A host notices that a connection is over.
    Gone(u64),
    /// The effect of an attempt appears, or its process ends or dies.
    Process(String, u64, Moment),
    /// The supervisors of a host die.
    Crash(String),
    /// A host goes down.
    Down(String),
    /// A host has room on its disk again.
    Room(String),
}

/// A moment in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Effect,
    End,
    Death,
}

/// How many messages may wait for a controller before its connection counts as broken.
pub(crate) const WINDOW: usize = 4096;

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) host: String,
    /// Which life of a controller has it.
    pub(crate) life: u64,
    to_controller: Option<mpsc::Sender<Incoming>>,
    /// The host has not noticed that it is over.
    open_there: bool,
    /// What would arrive later than this is lost.
    deaf_after: u64,
    mute_after: u64,
    /// When the last message under way arrives: messages do not overtake each other.
    last_to_controller: u64,
    last_to_host: u64,
}

struct Timed {
    at: u64,
    number: u64,
    due: Due,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// See the module.
pub(crate) struct Net {
    /// Milliseconds since the history began.
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    number: u64,
    lines: BTreeMap<u64, Line>,
    /// The runs that lives of controllers worked for; the place is the life's number.
    lives: Vec<String>,
    /// Hosts that no connection reaches, and until when.
    away: BTreeMap<String, u64>,
    pub(crate) luck: Luck,
    pub(crate) truth: Vec<Truth>,
    pub(crate) plant: Option<Plant>,
    trace: bool,
}

impl Net {
    pub(crate) fn new(luck: Luck, plant: Option<Plant>, trace: bool) -> Self {
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            lines: BTreeMap::new(),
            lives: Vec::new(),
            away: BTreeMap::new(),
            luck,
            truth: Vec::new(),
            plant,
            trace,
        }
    }

    /// Tells a story to who replays a history.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10.3}  {}", self.now as f64 / 1000.0, line());
        }
    }

    pub(crate) fn saw(&mut self, what: Truth) {
        self.trace(|| format!("{what:?}"));
        self.truth.push(what);
    }

    pub(crate) fn after(&mut self, wait: u64, due: Due) {
        self.at(self.now + wait, due);
    }

    fn at(&mut self, at: u64, due: Due) {
        self.number += 1;
        self.queue.push(Reverse(Timed { at, number: self.number, due }));
    }

    /// A controller begins to work for a run. Answers the number of its life.
    pub(crate) fn born(&mut self, run: &str) -> u64 {
        self.lives.push(run.to_owned());
        self.lives.len() as u64 - 1
    }

    /// The run that the controller behind a connection works for.
    pub(crate) fn run_of(&self, link: u64) -> String {
        let life = self.lines.get(&link).and_then(|line| usize::try_from(line.life).ok());
        life.and_then(|life| self.lives.get(life)).cloned().unwrap_or_default()
    }

    /// When something is due next.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(timed)| timed.at)
    }

    /// The next thing that is due by now.
    pub(crate) fn pop(&mut self) -> Option<Due> {
        if self.next_at()? > self.now {
            return None;
        }
        self.queue.pop().map(|Reverse(timed)| timed.due)
    }

    fn latency(&mut self) -> u64 {
        let most = self.luck.faults.latency;
        self.luck.rng().between(1, most)
    }

    /// How long it takes until a host answers a connection attempt, and whether it does.
    pub(crate) fn reach(&mut self, host: &str) -> (u64, bool) {
        let wait = self.latency() * 3;
        if self.is_away(host) {
            return (self.luck.rng().skewed(10, 10_000), false);
        }
        (wait, true)
    }

    pub(crate) fn is_away(&self, host: &str) -> bool {
        self.away.get(host).is_some_and(|until| *until > self.now)
    }

    /// The way to a host is closed for a while.
    pub(crate) fn close_way(&mut self, host: &str, wait: u64) {
        let until = self.now + wait;
        self.trace(|| format!("{host} cannot be reached until {until}"));
        let away = self.away.entry(host.to_owned()).or_default();
        *away = until.max(*away);
        for link in self.lines_of(|line| line.host == host) {
            self.cut(link);
        }
    }

    /// Nothing keeps anybody from any host any more.
    pub(crate) fn open_ways(&mut self) {
        self.away.clear();
    }

    pub(crate) fn open_line(&mut self, host: &str, life: u64, to_controller: mpsc::Sender<Incoming>) -> u64 {
        self.number += 1;
        let line = Line {
            host: host.to_owned(),
            life,
            to_controller: Some(to_controller),
            open_there: true,
            deaf_after: u64::MAX,
            mute_after: u64::MAX,
            last_to_controller: 0,
            last_to_host: 0,
        };
        self.lines.insert(self.number, line);
        self.number
    }

    fn lines_of(&self, wanted: impl Fn(&Line) -> bool) -> Vec<u64> {
        self.lines.iter().filter(|(_, line)| wanted(line)).map(|(link, _)| *link).collect()
    }

    /// The host's side of a line, while the host believes in it.
    pub(crate) fn host_of(&self, link: u64) -> Option<&str> {
        self.lines.get(&link).filter(|line| line.open_there).map(|line| line.host.as_str())
    }

    /// A controller says something.
    pub(crate) fn send_to_host(&mut self, link: u64, message: ToAgent) {
        let wait = self.latency();
        self.maybe_cut(link);
        let now = self.now;
        let Some(line) = self.lines.get_mut(&link) else { return };
        let at = (now + wait).max(line.last_to_host);
        line.last_to_host = at;
        if at <= line.mute_after {
            self.at(at, Due::ToHost(link, Box::new(message)));
        }
    }

    /// A host says something.
    pub(crate) fn send_to_controller(&mut self, link: u64, incoming: Incoming) {
        let wait = self.latency();
        self.maybe_cut(link);
        let now = self.now;
        let Some(line) = self.lines.get_mut(&link) else { return };
        let at = (now + wait).max(line.last_to_controller);
        line.last_to_controller = at;
        if at <= line.deaf_after {
            self.at(at, Due::ToController(link, Box::new(incoming)));
        }
    }

    fn maybe_cut(&mut self, link: u64) {
        if self.lines.get(&link).is_none_or(|line| line.deaf_after != u64::MAX) || !self.luck.strikes(|faults| faults.cut) {
            return;
        }
        let host = self.lines.get(&link).map(|line| line.host.clone()).unwrap_or_default();
        self.cut(link);
        if self.luck.strikes(|faults| faults.partition) {
            // Sometimes longer than anybody is willing to wait.
            let wait = self.luck.rng().skewed(500, 400_000);
            self.close_way(&host, wait);
        }
    }

    /// A connection drops: on each side something still arrives, the rest is lost, and each side notices some time later.
    pub(crate) fn cut(&mut self, link: u64) {
        let now = self.now;
        let latency = self.luck.faults.latency;
        let rng = self.luck.rng();
        let (deaf, mute) = (now + rng.below(latency), now + rng.below(latency));
        let (seen_here, seen_there) = (rng.skewed(1, 60_000), rng.skewed(1, 120_000));
        let Some(line) = self.lines.get_mut(&link).filter(|line| line.deaf_after == u64::MAX) else { return };
        (line.deaf_after, line.mute_after) = (deaf, mute);
        let host = line.host.clone();
        self.trace(|| format!("connection {link} to {host} drops"));
        let closed = Incoming::Closed { reason: "the connection was lost".into() };
        self.at(deaf + seen_here, Due::ToController(link, Box::new(closed)));
        self.at(mute + seen_there, Due::Gone(link));
    }

    /// The host ends a connection.
    pub(crate) fn close_there(&mut self, link: u64, reason: &str) {
        let Some(line) = self.lines.get_mut(&link) else { return };
        line.open_there = false;
        if line.deaf_after == u64::MAX {
            let at = line.last_to_controller.max(self.now) + 1;
            let closed = Incoming::Closed { reason: reason.to_owned() };
            self.at(at, Due::ToController(link, Box::new(closed)));
        }
    }

    /// The controller ends a connection, or has died.
    pub(crate) fn close_here(&mut self, link: u64) {
        let now = self.now;
        let wait = self.luck.rng().skewed(1, 60_000);
        let Some(line) = self.lines.get_mut(&link) else { return };
        if line.to_controller.take().is_some() && line.mute_after == u64::MAX {
            let at = line.last_to_host.max(now) + wait;
            self.at(at, Due::Gone(link));
        }
    }

    /// A controller is no more: nothing that it has not sent will be sent, and some of what it has sent is lost.
    pub(crate) fn bury(&mut self, life: u64) {
        for link in self.lines_of(|line| line.life == life && line.to_controller.is_some()) {
            self.close_here(link);
            let (now, kept) = (self.now, self.latency());
            if let Some(line) = self.lines.get_mut(&link) {
                line.mute_after = line.mute_after.min(now + kept - 1);
            }
        }
    }

    /// All connections of a host end with it.
    pub(crate) fn drop_lines(&mut self, host: &str) {
        for link in self.lines_of(|line| line.host == host && line.open_there) {
            self.cut(link);
            if let Some(line) = self.lines.get_mut(&link) {
                line.open_there = false;
            }
        }
    }

    /// Whether a message that is due reaches its host.
    pub(crate) fn arrives(&self, link: u64) -> bool {
        self.lines.get(&link).is_some_and(|line| line.open_there && self.now <= line.mute_after)
    }

    /// Hands something to a controller that may be gone.
    pub(crate) fn deliver(&mut self, link: u64, incoming: Incoming) {
        let Some(line) = self.lines.get_mut(&link) else { return };
        let closed = matches!(incoming, Incoming::Closed { .. });
        if !closed && self.now > line.deaf_after {
            return;
        }
        if let Some(to) = &line.to_controller {
            let _ = to.try_send(incoming);
        }
        if closed {
            line.to_controller = None;
        }
    }

    /// The host has noticed that a connection is over.
    pub(crate) fn gone(&mut self, link: u64) -> Option<String> {
        let line = self.lines.get_mut(&link)?;
        std::mem::replace(&mut line.open_there, false).then(|| line.host.clone())
    }
}
