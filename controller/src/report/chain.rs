//! Whether a journal is as it was written: by its own chain, and by the heads that hosts hold of it. Pure.
//!
//! The chain shows a line that was changed and nothing else: whoever changes a line can make the chain anew from there. But every
//! grant told its host the hash of the newest line, and no later hand on the journal reaches those.

use crate::run::journal::GENESIS;
use proto::event::{Event, Kind};
use proto::message::Attempt;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What a look at the journal's chain came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainCheck {
    /// SHA-256 of the last whole line.
    pub head: String,
    /// Bytes after the last whole line: a write that was cut off.
    pub torn: usize,
    /// The first line (from 1) that does not continue the line before it.
    pub broken_at: Option<usize>,
    /// What that comes to.
    pub damage: Option<Damage>,
    /// What the hosts hold of it.
    pub hosts: HostHeads,
}

impl ChainCheck {
    /// Whether nothing speaks against the journal.
    pub fn is_sound(&self) -> bool {
        self.damage.is_none() && self.hosts.against.is_empty()
    }
}

/// Where a chain is broken. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// This line is not as it was written.
    Edited {
        /// The line.
        line: usize,
    },
    /// Lines are missing, or were put in.
    Removed {
        /// The first line behind the gap.
        before: usize,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { line } => write!(f, "THE CHAIN IS BROKEN: line {line} is not as it was written"),
            Self::Removed { before: 1 } => write!(f, "THE CHAIN IS BROKEN: lines before line 1 were removed"),
            Self::Removed { before } => {
                write!(f, "THE CHAIN IS BROKEN: lines between line {} and line {before} were removed or put in", before - 1)
            }
        }
    }
}

/// What hosts hold of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostHeads {
    /// Why no host was asked, where none was.
    pub unasked: Option<String>,
    /// Hosts whose heads all are lines of the journal, and how many heads they hold.
    pub agree: BTreeMap<String, usize>,
    /// Heads that are no line of the journal.
    pub against: Vec<Contradiction>,
    /// Hosts that could not be asked, and why.
    pub away: BTreeMap<String, String>,
    /// Hosts that worked for another controller later: the run went on from the hosts, and this journal does not say how.
    pub elsewhere: Vec<String>,
    /// Up to this line the journal is what the hosts were told; 0 where no head is in it.
    pub proven: usize,
}

/// A head that a host holds and that is no line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The host.
    pub host: String,
    /// The head.
    pub head: String,
    /// The first step of the grant that it came with.
    pub step: String,
    /// Its attempt.
    pub attempt: u32,
    /// The last line that can have been written when the head was sent; none when no line says any more that this was granted.
    pub line: Option<usize>,
}

/// A grant as a host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The hash of the controller's newest line when the grant was sent.
    pub head: String,
    /// What was granted.
    pub steps: Vec<Attempt>,
}

/// Looks at the chain of a journal's bytes, which are `events`.
pub fn look(bytes: &[u8], events: &[Event]) -> ChainCheck {
    let hashes = hashes(bytes);
    let prev = |line: usize| events.get(line - 1).map(|event| event.prev.as_str());
    let fits = |line: usize| match line {
        1 => prev(1) == Some(GENESIS),
        line => prev(line) == hashes.get(line - 2).map(String::as_str),
    };
    let broken = (1..=events.len()).find(|line| !fits(*line));
    let seq = |line: usize| if line == 0 { Some(0) } else { events.get(line - 1).map(|event| event.seq) };
    let damage = broken.map(|line| match (seq(line - 1), seq(line)) {
        (Some(before), Some(at)) if before.checked_add(1) != Some(at) => Damage::Removed { before: line },
        // A line whose own `prev` was changed does not fit the one before it, and the one after it does not fit either.
        _ if line == 1 || (line < events.len() && !fits(line + 1)) => Damage::Edited { line },
        _ => Damage::Edited { line: line - 1 },
    });
    let torn = bytes.len() - bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    ChainCheck {
        head: hashes.last().map_or_else(|| GENESIS.to_owned(), Clone::clone),
        torn,
        broken_at: broken,
        damage,
        hosts: HostHeads::default(),
    }
}

/// SHA-256 of every whole line, lower-case hex.
fn hashes(bytes: &[u8]) -> Vec<String> {
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    whole.map(|line| Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

/// Compares a journal's bytes, which are `events`, with the grants that its hosts hold.
pub fn compare(bytes: &[u8], events: &[Event], held: &BTreeMap<String, Vec<Held>>) -> HostHeads {
    let lines: HashMap<String, usize> = hashes(bytes).into_iter().zip(1..).collect();
    let told = Told::of(events);
    let mut heads = HostHeads::default();
    for (host, grants) in held {
        let before = heads.against.len();
        for Held { head, steps } in grants {
            if let Some(line) = lines.get(head) {
                heads.proven = heads.proven.max(*line);
                continue;
            }
            let first = steps.first();
            heads.against.push(Contradiction {
                host: host.clone(),
                head: head.clone(),
                step: first.map(|known| known.step.0.clone()).unwrap_or_default(),
                attempt: first.map(|known| known.attempt).unwrap_or_default(),
                line: told.latest(steps),
            });
        }
        if heads.against.len() == before && !grants.is_empty() {
            heads.agree.insert(host.clone(), grants.len());
        }
    }
    heads
}

/// Where a journal speaks of each attempt.
struct Told<'a> {
    /// The line of its grant.
    granted: HashMap<(&'a str, u32), usize>,
    /// The first line of what its host said of it.
    answered: HashMap<(&'a str, u32), usize>,
    lines: usize,
}

impl<'a> Told<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut told = Self { granted: HashMap::new(), answered: HashMap::new(), lines: events.len() };
        for (event, line) in events.iter().zip(1..) {
            let (Some(step), Some(attempt)) = (event.scope.step.as_deref(), event.scope.attempt) else { continue };
            let known = match event.kind {
                Kind::StepGranted { .. } => &mut told.granted,
                _ => &mut told.answered,
            };
            known.entry((step, attempt)).or_insert(line);
        }
        told
    }

    /// The last line that can have been written when a grant was sent: what its host said of it came later.
    fn latest(&self, steps: &[Attempt]) -> Option<usize> {
        steps.iter().any(|known| self.granted.contains_key(&(known.step.0.as_str(), known.attempt))).then(|| {
            let answered = steps.iter().filter_map(|known| self.answered.get(&(known.step.0.as_str(), known.attempt)));
            answered.min().map_or(self.lines, |line| line - 1)
        })
    }
}

impl HostHeads {
    /// What the contradictions come to: which lines they speak against.
    pub fn accusation(&self) -> Option<String> {
        let first = self.against.iter().min_by_key(|known| (known.line.is_none(), known.line))?;
        let from = self.proven + 1;
        let (host, grant) = (&first.host, format!("{} (attempt {})", first.step, first.attempt));
        let held = format!("{host} holds another head, which came with its grant of {grant}");
        let untold = format!("{host} was granted {grant}, and no line says so");
        Some(match first.line {
            Some(line) if line <= from => format!("line {line} was edited, and the chain was made anew behind it: {held}"),
            Some(line) => {
                format!("one of the lines {from} to {line} was edited, put in or removed, and the chain was made anew: {held}")
            }
            None if self.proven == 0 => format!("it is not the journal that the hosts were told of: {untold}"),
            None => format!("lines after line {} were cut off or replaced: {untold}", self.proven),
        })
    }
}
