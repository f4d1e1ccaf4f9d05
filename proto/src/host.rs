//! What a host writes down about a run, and what follows from it: the journal of a host as a pure fold. The agent acts on it; the
//! controller rebuilds a run from it (`resume --from-hosts`); simulation and model check use it as it is.

use crate::event::Outcome;
use crate::frame::OUTPUT;
use crate::message::{Attempt, Granted, Happened, HostEvent};
use crate::step::StepId;
use serde::{Deserialize, Serialize};

/// One record.
///
/// All files have steps in this form only, with the tag inside as in [`crate::ToAgent`]: reading steps takes a lot of code, and
/// this way the agent has it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// Steps were granted, in one message.
    Grant {
        /// The steps.
        steps: Vec<Granted>,
        /// The controller's witness.
        head: String,
        /// The controller's token.
        token: u64,
    },
    /// Something happened to a step.
    Event(HostEvent),
    /// These steps had not begun and will not.
    Revoked {
        /// The steps, with their attempts.
        steps: Vec<Attempt>,
    },
    /// A controller attached, and the host gave it this token.
    Token {
        /// The token.
        token: u64,
    },
    /// What the controller wants kept here: its part of the plan and its own decisions, so that a run can be taken over from the hosts
    /// alone. The host does not look into it.
    Kept {
        /// The lines.
        lines: Vec<String>,
    },
    /// One step is to be carried out.
    Step(Box<Granted>),
}

/// Where a granted step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not begun.
    Waiting,
    /// It began and has not ended, as far as the journal knows.
    Running,
    /// It ended.
    Ended(Outcome),
    /// It did not begin and will not.
    Revoked,
}

/// A granted step.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The step as it was granted first.
    pub granted: Granted,
    /// The token of the controller that granted it.
    pub token: u64,
    /// Where it stands.
    pub standing: Standing,
}

impl Entry {
    /// Which attempt at which step.
    pub fn attempt(&self) -> Attempt {
        Attempt { step: self.granted.spec.id.clone(), attempt: self.granted.attempt }
    }
}

/// Everything that the journal says.
#[derive(Debug, Default)]
pub struct State {
    /// The granted steps, in the order of their first grant. The place is the step's number on this host.
    entries: Vec<Entry>,
    /// For each grant the steps of its message, in order.
    grants: Vec<Vec<usize>>,
    /// All events, in order.
    events: Vec<HostEvent>,
    /// The highest token seen.
    token: u64,
}

/// What has to happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This step begins.
    Start(usize),
    /// These steps will not begin: one ahead of them in their grant did not end well, or a newer controller has taken over.
    Revoke(Vec<usize>),
    /// Nothing, until something happens.
    Wait,
}

impl State {
    /// Takes in one record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Grant { steps, token, .. } => {
                self.token = self.token.max(*token);
                let members = steps.iter().map(|granted| self.admit(granted, *token)).collect();
                self.grants.push(members);
            }
            Record::Event(event) => {
                let standing = match event.what {
                    Happened::Started { .. } => Some(Standing::Running),
                    Happened::Finished { outcome, .. } => Some(Standing::Ended(outcome)),
                    Happened::Made(_) | Happened::Alert { .. } => None,
                };
                let entry = self.find(&event.step, event.attempt).and_then(|index| self.entries.get_mut(index));
                if let (Some(entry), Some(standing)) = (entry, standing) {
                    entry.standing = standing;
                }
                self.events.push(event.clone());
            }
            Record::Revoked { steps } => {
                for entry in self.entries.iter_mut().filter(|entry| entry.standing == Standing::Waiting) {
                    if steps.contains(&entry.attempt()) {
                        entry.standing = Standing::Revoked;
                    }
                }
            }
            Record::Token { token } => self.token = self.token.max(*token),
            // The one says nothing about steps, the other is for runners and never in a journal.
            Record::Kept { .. } | Record::Step(_) => {}
        }
    }

    /// The place of a granted step: a new one, or the one that this attempt has already, since nothing is run twice. An attempt that
    /// was revoked stays revoked: a controller that lost its connection may repeat a grant without knowing what became of it, and
    /// must not start a step behind one that failed. Who wants the step after all grants another attempt.
    fn admit(&mut self, granted: &Granted, token: u64) -> usize {
        self.find(&granted.spec.id, granted.attempt).unwrap_or_else(|| {
            self.entries.push(Entry { granted: granted.clone(), token, standing: Standing::Waiting });
            self.entries.len() - 1
        })
    }

    /// The latest place of a step and attempt.
    pub fn find(&self, step: &StepId, attempt: u32) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.granted.spec.id == *step && entry.granted.attempt == attempt)
    }

    /// A granted step by its place.
    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// All events, in order.
    pub fn events(&self) -> &[HostEvent] {
        &self.events
    }

    /// The highest token seen.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The newest event.
    pub fn host_seq(&self) -> u64 {
        self.events.last().map_or(0, |event| event.host_seq)
    }

    /// The stream of a step's output.
    pub fn stream(index: usize) -> u32 {
        OUTPUT | u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The steps that stand so, in order.
    pub fn standing(&self, standing: Standing) -> Vec<usize> {
        let matching = self.entries.iter().enumerate().filter(|(_, entry)| entry.standing == standing);
        matching.map(|(index, _)| index).collect()
    }

    /// Some entries by step and attempt.
    pub fn attempts(&self, indexes: &[usize]) -> Vec<Attempt> {
        indexes.iter().filter_map(|index| self.entry(*index)).map(Entry::attempt).collect()
    }

    /// What has to happen next. One step runs at a time; grants are carried out in the order they came.
    pub fn next(&self) -> Next {
        if !self.standing(Standing::Running).is_empty() {
            return Next::Wait;
        }
        for members in &self.grants {
            let mut proven = true;
            for (place, index) in members.iter().enumerate() {
                let Some(entry) = self.entry(*index) else { continue };
                match entry.standing {
                    Standing::Waiting if proven && entry.token >= self.token => return Next::Start(*index),
                    Standing::Waiting => {
                        let rest = members.get(place..).unwrap_or_default();
                        let waiting = |index: &&usize| self.entry(**index).is_some_and(|entry| entry.standing == Standing::Waiting);
                        return Next::Revoke(rest.iter().filter(waiting).copied().collect());
                    }
                    Standing::Ended(outcome) => proven = proven && outcome.is_proof(),
                    Standing::Running | Standing::Revoked => proven = false,
                }
            }
        }
        Next::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Mode;
    use crate::step::{Action, Limits, Repeat, RunAs, StepSpec};
    use proptest::prelude::*;

    fn granted(id: u8, attempt: u32) -> Granted {
        let spec = StepSpec {
            id: StepId(format!("p/stop/s/h/{id}")),
            title: String::new(),
            run_as: RunAs::Login,
            action: Action::Verify,
            only_if: None,
            probe: None,
            repeat: Repeat::Ask,
            limits: Limits::default(),
        };
        Granted { spec, attempt, mode: Mode::Act }
    }

    fn event(state: &State, index: usize, what: Happened) -> Record {
        let entry = state.entry(index).unwrap();
        Record::Event(HostEvent {
            host_seq: state.host_seq() + 1,
            host_time_ms: 0,
            boot_id: String::new(),
            step: entry.granted.spec.id.clone(),
            attempt: entry.granted.attempt,
            what,
        })
    }

    fn finished(outcome: Outcome) -> Happened {
        Happened::Finished { outcome, exit_code: None, duration_ms: 0, message: String::new(), output_len: 0, died: false }
    }

    proptest! {
        /// Whatever is granted and however steps end: nothing starts twice, nothing starts behind a step of its grant that did not
        /// end well, and in the end nothing waits.
        #[test]
        fn grants_keep_their_order(
            grants in proptest::collection::vec(proptest::collection::vec((0u8..6, 1u32..3), 1..5), 1..5),
            outcomes in proptest::collection::vec(0u8..4, 40),
        ) {
            let mut state = State::default();
            for steps in &grants {
                let steps = steps.iter().map(|(id, attempt)| granted(*id, *attempt)).collect();
                state.apply(&Record::Grant { steps, head: String::new(), token: 1 });
            }
            let mut started = Vec::new();
            let mut outcomes = outcomes.into_iter();
            loop {
                match state.next() {
                    Next::Wait => break,
                    Next::Revoke(indexes) => {
                        prop_assert!(!indexes.is_empty());
                        let steps = state.attempts(&indexes);
                        state.apply(&Record::Revoked { steps });
                    }
                    Next::Start(index) => {
                        let key = (state.entry(index).unwrap().granted.spec.id.clone(), state.entry(index).unwrap().granted.attempt);
                        prop_assert!(!started.contains(&key), "{key:?} twice");
                        started.push(key);
                        let record = event(&state, index, Happened::Started { stream: State::stream(index) });
                        state.apply(&record);
                        prop_assert_eq!(state.next(), Next::Wait);
                        let outcome = match outcomes.next() {
                            Some(0) => Outcome::Failed,
                            Some(1) => Outcome::Unknown,
                            Some(2) => Outcome::Skipped,
                            _ => Outcome::Ok,
                        };
                        let record = event(&state, index, finished(outcome));
                        state.apply(&record);
                    }
                }
            }
            prop_assert!(state.standing(Standing::Waiting).is_empty());
            for members in &state.grants {
                let standings: Vec<Standing> = members.iter().map(|index| state.entries[*index].standing).collect();
                let bad = standings.iter().position(|s| !matches!(s, Standing::Ended(outcome) if outcome.is_proof()));
                if let Some(bad) = bad {
                    for index in &members[bad + 1..] {
                        // What stands behind it ran only if an earlier grant had it.
                        let first = state.grants.iter().position(|m| m.contains(index)).unwrap();
                        let own = &state.grants[first] != members;
                        prop_assert!(own || matches!(state.entries[*index].standing, Standing::Revoked) || members[..=bad].contains(index));
                    }
                }
            }
        }
    }

    #[test]
    fn a_newer_token_closes_older_grants() {
        let mut state = State::default();
        state.apply(&Record::Grant { steps: vec![granted(1, 1), granted(2, 1)], head: String::new(), token: 1 });
        state.apply(&Record::Token { token: 2 });
        assert_eq!(state.next(), Next::Revoke(vec![0, 1]));
        let steps = state.attempts(&[0, 1]);
        state.apply(&Record::Revoked { steps });
        assert_eq!(state.next(), Next::Wait);
        // The attempt stays revoked; whoever took over grants another one.
        state.apply(&Record::Grant { steps: vec![granted(1, 1)], head: String::new(), token: 2 });
        assert_eq!(state.next(), Next::Wait);
        state.apply(&Record::Grant { steps: vec![granted(1, 2)], head: String::new(), token: 2 });
        assert_eq!(state.next(), Next::Start(2));
    }
}
