//! The hosts' journals against the controller's: nothing is lost between them, nothing is in one that the other does not bear out.

use crate::disk::RunDisk;
use controller::run::journal::Chain;
use proto::event::{Event, Kind};
use proto::host::Record;
use proto::message::{Attempt, Happened, HostEvent};
use std::collections::{BTreeMap, BTreeSet};

/// A controller's journal, by what hosts could say about it.
pub(crate) struct Witness<'c> {
    heads: BTreeSet<&'c str>,
    granted: BTreeSet<(&'c str, u32)>,
    /// Entries that came from a host: by host and its number.
    from_hosts: BTreeMap<(&'c str, u64), Vec<&'c Event>>,
    /// Attempts that the controller wrote off, or that it did not wait for.
    given_up: BTreeSet<(&'c str, u32)>,
}

impl<'c> Witness<'c> {
    pub(crate) fn new(chain: &'c Chain) -> Self {
        let heads = chain.events.iter().map(|event| event.prev.as_str()).chain([chain.head.as_str()]).collect();
        let (mut granted, mut given_up) = (BTreeSet::new(), BTreeSet::new());
        let mut from_hosts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &chain.events {
            let attempt = event.scope.step.as_deref().zip(event.scope.attempt);
            match (&event.kind, event.host_seq) {
                (Kind::StepGranted { .. }, _) => granted.extend(attempt),
                (Kind::StepFinished { .. } | Kind::StepRevoked, None) => given_up.extend(attempt),
                _ => {}
            }
            if let (Some(host), Some(seq)) = (event.scope.host.as_deref(), event.host_seq) {
                from_hosts.entry((host, seq)).or_default().push(event);
            }
        }
        Self { heads, granted, from_hosts, given_up }
    }

    /// Compares with the journal of one host. With `done` the run came to its end, and the controller has to know everything.
    ///
    /// # Errors
    /// What is lost, or what nobody bears out.
    pub(crate) fn compare(&self, host: &str, disk: &RunDisk, done: bool) -> Result<(), String> {
        let mut events = BTreeMap::new();
        let mut seq = 0;
        for record in &disk.records {
            match record {
                Record::Grant { head, steps, .. } if !self.heads.contains(head.as_str()) => {
                    let step = steps.first().map_or("nothing", |granted| &granted.spec.id.0);
                    return Err(format!("{host} was granted {step} before the line that says so was durable"));
                }
                Record::Event(event) => {
                    seq += 1;
                    if event.host_seq != seq {
                        return Err(format!("the journal of {host} has event {} where {seq} was expected", event.host_seq));
                    }
                    events.insert(seq, event);
                }
                _ => {}
            }
        }
        if done {
            self.lost(host, &events)?;
        }
        self.invented(host, &events)
    }

    fn lost(&self, host: &str, events: &BTreeMap<u64, &HostEvent>) -> Result<(), String> {
        for (seq, event) in events {
            let attempt = (event.step.0.as_str(), event.attempt);
            if !self.granted.contains(&attempt) {
                return Err(format!("{host} has attempt {} of {}, which the controller never granted", event.attempt, event.step));
            }
            let known = self.from_hosts.contains_key(&(host, *seq)) || self.given_up.contains(&attempt);
            if !known && matches!(event.what, Happened::Finished { .. }) {
                return Err(format!("the end of attempt {} of {} on {host} is lost (event {seq})", event.attempt, event.step));
            }
        }
        Ok(())
    }

    fn invented(&self, host: &str, events: &BTreeMap<u64, &HostEvent>) -> Result<(), String> {
        let own = self.from_hosts.range((host, 0)..=(host, u64::MAX));
        for ((_, seq), told) in own {
            for told in told {
                let Some(event) = events.get(seq) else {
                    return Err(format!("{host} does not know its event {seq}, which the controller has ({:?})", told.kind));
                };
                let at = told.scope.step.as_deref().zip(told.scope.attempt);
                let same = at == Some((event.step.0.as_str(), event.attempt)) && says_the_same(&told.kind, &event.what);
                if !same {
                    return Err(format!(
                        "event {seq} of {host} is {event:?} there, and {:?} of {at:?} at the controller",
                        told.kind
                    ));
                }
            }
        }
        Ok(())
    }
}

fn says_the_same(told: &Kind, happened: &Happened) -> bool {
    match (told, happened) {
        (Kind::StepStarted, Happened::Started { .. }) => true,
        (Kind::StepFinished { outcome, died, .. }, Happened::Finished { outcome: other, died: too, .. }) => {
            outcome == other && died == too
        }
        (Kind::StepAlert { .. }, Happened::Alert { .. }) => true,
        _ => false,
    }
}

/// Attempts that a host's journal says it began, to be compared with what really began.
pub(crate) fn begun(disk: &RunDisk) -> BTreeSet<Attempt> {
    let started = |record: &Record| match record {
        Record::Event(event) if matches!(event.what, Happened::Started { .. }) => {
            Some(Attempt { step: event.step.clone(), attempt: event.attempt })
        }
        _ => None,
    };
    disk.records.iter().filter_map(started).collect()
}
