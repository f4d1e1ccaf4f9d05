//! A controller of the model: what the engine does with what it knows, and in which order it makes that durable and sends it
//! (`controller/src/run`). The second controller goes on with the same run on another workstation, from what the hosts have.

use crate::host::{At, End};
use crate::{Bug, HOSTS, STAGES, Told, host_of};
use std::collections::BTreeMap;

/// What a controller knows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Known {
    /// Granted in this attempt, and not ended.
    Open(u8),
    Done,
    /// It ended without proof in this attempt; the runbook allows another one.
    Failed(u8),
    /// This attempt was taken back.
    Revoked(u8),
}

/// What a controller's journal comes to: what is known of each step, and which event of its host says so.
type Journal = BTreeMap<u8, (Known, u8)>;

/// Where the conversation with a host stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) enum Link {
    #[default]
    None,
    /// Attach was sent.
    Asked,
    /// The host is ours, with this token; what was granted on this connection.
    Ours { token: u64, told: Vec<At> },
}

/// What goes to a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// Sent as one message with what follows: the bridge takes the lock ...
    Claim {
        take_over: bool,
        acked: u8,
    },
    /// ... and then connects to the supervisor.
    Attach {
        acked: u8,
    },
    Grant {
        steps: Vec<At>,
        token: u64,
    },
}

/// How a controller ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ended {
    /// A host refused it.
    Refused,
    /// It knows that all steps are done.
    Finished,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Controller {
    /// Its number: each life of a controller has its own. The first two work on one workstation, the others on another one.
    pub(crate) id: u8,
    /// Durable, and outlives it.
    pub(crate) journal: Journal,
    links: [Link; HOSTS],
    /// Once it has ended it neither does nor hears anything, and what it knew does not matter any more.
    pub(crate) ended: Option<Ended>,
    /// What was heard and is not in the journal yet; with a planted bug it stays here.
    heard: Journal,
}

impl Controller {
    pub(crate) fn new(id: u8) -> Self {
        Self { id, ..Self::default() }
    }

    /// It dies, and the next one on its workstation begins with what is durable.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { id: self.id + 1, journal: std::mem::take(&mut self.journal), ..Self::default() };
    }

    fn takes_over(&self) -> bool {
        self.id > 2
    }

    /// The newest event of a host that is durable here.
    fn durable(&self, host: usize) -> u8 {
        newest(&self.journal, host)
    }

    pub(crate) fn has(&self, host: usize) -> bool {
        matches!(self.links[host], Link::Ours { .. })
    }

    /// The connection to a host is gone.
    pub(crate) fn lose(&mut self, host: usize) {
        self.links[host] = Link::None;
    }

    /// What the controller does by itself next, if anything: claims hosts, the lowest-named one first; once all are ours, grants what may
    /// happen now.
    ///
    /// The grant is durable in its journal before it is sent. That a controller dies in between is the same as that it dies
    /// afterwards and the message is never delivered, so it is one step here.
    pub(crate) fn go_on(&mut self) -> Option<(usize, Order)> {
        if self.ended.is_some() {
            return None;
        }
        self.commit();
        for host in 0..HOSTS {
            match self.links[host] {
                Link::None => {
                    self.links[host] = Link::Asked;
                    return Some((host, Order::Claim { take_over: self.takes_over(), acked: self.durable(host) }));
                }
                Link::Asked => return None,
                Link::Ours { .. } => {}
            }
        }
        let known = |step: &u8| self.journal.get(step).map(|(known, _)| *known);
        let is_done = |step: &u8| known(step) == Some(Known::Done);
        let steps = STAGES.iter().find(|steps| !steps.iter().all(is_done))?;
        let host = host_of(steps[0]);
        let Link::Ours { token, told } = &mut self.links[host] else { return None };
        let open = steps.iter().filter_map(|step| match known(step) {
            Some(Known::Open(attempt)) => Some((*step, attempt)),
            _ => None,
        });
        let open: Vec<At> = open.collect();
        let steps = if open.is_empty() {
            // Intent: durable before it is sent.
            let fresh = steps.iter().filter(|step| !is_done(step)).map(|step| match known(step) {
                Some(Known::Failed(attempt) | Known::Revoked(attempt)) => (*step, attempt + 1),
                _ => (*step, 1),
            });
            let fresh: Vec<At> = fresh.collect();
            for (step, attempt) in &fresh {
                let seq = self.journal.get(step).map_or(0, |(_, seq)| *seq);
                self.journal.insert(*step, (Known::Open(*attempt), seq));
            }
            fresh
        } else if open.iter().all(|at| told.contains(at)) {
            return None;
        } else {
            open
        };
        told.extend(steps.iter().copied());
        Some((host, Order::Grant { steps, token: *token }))
    }

    /// A host says something. It is made durable in one write, then acknowledged: false if it is not durable then.
    pub(crate) fn hear(&mut self, host: usize, said: Vec<Told>, bug: Option<Bug>) -> bool {
        let refused = said.contains(&Told::Refused);
        let acknowledged = said.into_iter().filter_map(|said| self.take_in(host, said)).max().unwrap_or(0);
        if bug != Some(Bug::AckBeforeDurable) {
            self.commit();
        }
        let is_durable = acknowledged <= self.durable(host);
        let is_finished = (0..3).all(|step| matches!(self.journal.get(&step), Some((Known::Done, _))));
        if refused || is_finished {
            let ended = if is_finished { Ended::Finished } else { Ended::Refused };
            *self = Self { id: self.id, ended: Some(ended), ..Self::default() };
        }
        is_durable
    }

    fn commit(&mut self) {
        self.journal.append(&mut self.heard);
    }

    /// Takes in something that a host says; the number of the event, if it is a new one.
    fn take_in(&mut self, host: usize, said: Told) -> Option<u8> {
        match said {
            Told::Refused => {}
            Told::Attached { token, open } => {
                self.links[host] = Link::Ours { token, told: Vec::new() };
                // What the host has and this controller never heard of, another one granted.
                open.into_iter().for_each(|at| self.note(at, Known::Open(at.1), 0));
            }
            Told::Revoked(steps) => steps.into_iter().for_each(|at| self.note(at, Known::Revoked(at.1), 0)),
            Told::Event { seq, at, end } if seq > self.seen(host) => {
                let known = match end {
                    None => Known::Open(at.1),
                    Some(End::Ok) => Known::Done,
                    Some(End::Failed) => Known::Failed(at.1),
                };
                self.note(at, known, seq);
                return Some(seq);
            }
            Told::Event { .. } => {}
        }
        None
    }

    /// The newest event of a host that was heard.
    fn seen(&self, host: usize) -> u8 {
        self.durable(host).max(newest(&self.heard, host))
    }

    fn note(&mut self, (step, attempt): At, known: Known, seq: u8) {
        let before = self.heard.get(&step).or(self.journal.get(&step)).copied();
        let news = match before {
            None => true,
            // It speaks of the attempt that is open, or of one that this controller has not heard of.
            Some((Known::Open(own), _)) => own < attempt || (own == attempt && (seq > 0 || known != Known::Open(own))),
            Some((Known::Failed(own) | Known::Revoked(own), _)) => own < attempt,
            Some((Known::Done, _)) => false,
        };
        if news {
            self.heard.insert(step, (known, seq.max(before.map_or(0, |(_, seq)| seq))));
        }
    }
}

fn newest(journal: &Journal, host: usize) -> u8 {
    journal.iter().filter(|(step, _)| host_of(**step) == host).map(|(_, (_, seq))| *seq).max().unwrap_or(0)
}
