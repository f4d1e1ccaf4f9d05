//! What a supervisor and the controller that attached to it say to each other.

use super::offer::Offering;
use super::receive::Receiving;
use super::run::{Controller, Run};
use super::step::files;
use crate::host_lock::Denied;
use crate::runner::files::StepFiles;
use proto::host::{Record, Standing, State};
use proto::message::{Attempt, Claim, Granted, Happened, HostEvent};
use proto::{FromAgent, StepId, ToAgent};
use std::collections::BTreeMap;

impl Run {
    /// Carries out one message of a connection.
    ///
    /// # Errors
    /// The journal or the host's lock cannot be used: the supervisor has to end.
    pub(super) fn message(&mut self, number: u64, message: ToAgent) -> Result<(), String> {
        match message {
            // Sent before Attach by a bridge that had them already.
            ToAgent::Secrets { values } => self.secrets.extend(values),
            ToAgent::Attach { claim, acked, output, keep, .. } => self.attach(number, &claim, acked, &output, keep)?,
            _ if self.connection() != Some(number) => {}
            ToAgent::Grant { steps, head, token, keep } => self.grant(steps, head, token, keep)?,
            ToAgent::Revoke => {
                let waiting = self.state.standing(Standing::Waiting);
                self.revoke(&waiting)?;
            }
            // Everything is kept until the run's directory goes: there is nothing to let go of.
            ToAgent::Ack { .. } => {}
            ToAgent::FileBegin { sha256, stream } => self.receiving.begin(&sha256, stream),
            ToAgent::FileEnd { stream } => self.with_files(|receiving, files| receiving.end(files, stream)),
            ToAgent::FileRefused { sha256, reason } => {
                self.with_files(|receiving, files| receiving.refuse(files, &sha256, &reason));
                self.answer_offer(&sha256, if reason.is_empty() { "the controller refused it" } else { &reason });
            }
            ToAgent::FileKept { sha256 } => self.answer_offer(&sha256, ""),
            ToAgent::Fetch { sha256, stream, offset, length } => {
                if let (Some(running), Some(feed)) = (&self.running, self.feed()) {
                    self.offering.fetch(&running.files, feed, &sha256, (stream, offset, length));
                }
            }
            ToAgent::Stop { attempt } => self.stop(&attempt)?,
            ToAgent::Finish { release } => {
                let waiting = self.state.standing(Standing::Waiting);
                if !waiting.is_empty() {
                    self.revoke(&waiting)?;
                }
                self.finishing = true;
                self.releasing = release;
            }
            // The bridge answers these itself.
            ToAgent::Hello { .. } | ToAgent::Inspect { .. } | ToAgent::Exec { .. } | ToAgent::Store { .. } => {}
        }
        Ok(())
    }

    /// Ends the processes of a running step. What then becomes of it is told as for any other.
    fn stop(&self, attempt: &Attempt) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        if self.state.entry(running.index).is_none_or(|entry| entry.attempt() != *attempt) {
            return Ok(());
        }
        running.stop("somebody asked for it to be stopped").map_err(|e| self.full(&e))
    }

    fn answer_offer(&self, sha256: &str, answer: &str) {
        if let Some(running) = &self.running {
            self.offering.answer(&running.files, sha256, answer);
        }
    }

    fn with_files(&mut self, act: impl FnOnce(&mut Receiving, &StepFiles)) {
        if let Some(running) = &self.running {
            act(&mut self.receiving, &running.files);
        }
    }

    /// A controller is there, for which its bridge has taken the host: it gets everything that it does not have yet.
    fn attach(
        &mut self,
        number: u64,
        claim: &Claim,
        acked: u64,
        output: &BTreeMap<StepId, u64>,
        keep: Vec<String>,
    ) -> Result<(), String> {
        let token = match self.lock.token(&self.name, &claim.controller) {
            Ok(token) => token,
            // Somebody else has taken the host since.
            Err(Denied::Refused(reason)) => {
                self.send(number, FromAgent::Refused { reason });
                return Ok(());
            }
            Err(Denied::Fatal(message)) => return Err(message),
        };
        let mut records = Vec::new();
        if token > self.state.token() {
            records.push(Record::Token { token });
        }
        if !keep.is_empty() {
            records.push(Record::Kept { lines: keep });
        }
        self.record(&records)?;
        if self.controller.as_ref().is_none_or(|before| before.id != claim.controller) {
            // Whoever goes on with the run has not said that it is over.
            (self.finishing, self.releasing) = (false, false);
        }
        let controller = Controller { id: claim.controller.clone(), token, connection: Some(number) };
        if let Some(Controller { id, connection: Some(before), .. }) = self.controller.replace(controller)
            && before != number
        {
            let reason = "another controller has attached to this run on this host".to_owned();
            // The connection that a controller lost is not worth a word.
            let last = (id != claim.controller).then_some(FromAgent::Refused { reason });
            self.drop_connection(before, last);
        }
        self.receiving.forget(&self.dir);
        self.offering = Offering::default();
        let mut open = self.state.standing(Standing::Running);
        open.extend(self.state.standing(Standing::Waiting));
        let (host_seq, open) = (self.state.host_seq(), self.state.attempts(&open));
        self.say(FromAgent::Attached { host_seq, open, token });
        let revoked = self.state.standing(Standing::Revoked);
        if !revoked.is_empty() {
            self.say(FromAgent::Revoked { steps: self.state.attempts(&revoked) });
        }
        self.replay(acked, output);
        Ok(())
    }

    /// Sends events after `acked`, and output that the controller lacks: from the given offset where it has a part, from the
    /// beginning where it has not seen the step's end, and none where it has.
    fn replay(&self, acked: u64, output: &BTreeMap<StepId, u64>) {
        let Some(feed) = self.feed() else { return };
        let events = self.state.events();
        for event in events {
            let Some(index) = self.state.find(&event.step, event.attempt) else { continue };
            let stream = State::stream(index);
            match &event.what {
                Happened::Started { .. } => {
                    if event.host_seq > acked {
                        feed.say(FromAgent::Event(event.clone()));
                    }
                    let is_end = |other: &&HostEvent| same_attempt(other, event) && matches!(other.what, Happened::Finished { .. });
                    let seen_to_end = events.iter().find(is_end).is_some_and(|end| end.host_seq <= acked);
                    // Offsets are by step: they are about its latest attempt.
                    let later = events.iter().any(|other| other.step == event.step && other.attempt > event.attempt);
                    let from = output.get(&event.step).copied().filter(|_| !later);
                    if from.is_some() || !seen_to_end {
                        feed.follow(stream, files(&self.dir, index).output(), from.unwrap_or(0));
                    }
                    continue;
                }
                Happened::Finished { output_len, .. } => feed.drain(stream, *output_len),
                Happened::Made(_) | Happened::Alert { .. } => {}
            }
            if event.host_seq > acked {
                feed.say(FromAgent::Event(event.clone()));
            }
        }
    }

    fn grant(&mut self, steps: Vec<Granted>, head: String, token: u64, keep: Vec<String>) -> Result<(), String> {
        if let Some(reason) = self.not_to_be_granted(token)? {
            self.say(FromAgent::Refused { reason });
            return Ok(());
        }
        // Results have to find room on a disk that others fill meanwhile. Who cannot have that does not begin.
        self.journal.reserve(steps.len() + 1).map_err(|e| self.full(&e))?;
        // What has ended already is not run again; its events may not have arrived.
        let known: Vec<Attempt> =
            steps.iter().map(|granted| Attempt { step: granted.spec.id.clone(), attempt: granted.attempt }).collect();
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

    /// Why nothing is taken from this controller, where that is so.
    fn not_to_be_granted(&self, token: u64) -> Result<Option<String>, String> {
        let Some(controller) = &self.controller else { return Ok(None) };
        if self.finishing {
            return Ok(Some("the run is over on this host".to_owned()));
        }
        match self.lock.token(&self.name, &controller.id) {
            Ok(current) if current == token && controller.token == token => Ok(None),
            Ok(current) => Ok(Some(format!("the grant has the token {token}, and this host gave out {current}; attach again"))),
            Err(Denied::Refused(reason)) => Ok(Some(reason)),
            Err(Denied::Fatal(message)) => Err(message),
        }
    }

    /// Takes back steps, durably, and says so.
    pub(super) fn revoke(&mut self, indexes: &[usize]) -> Result<(), String> {
        let steps = self.state.attempts(indexes);
        if !steps.is_empty() {
            self.record(&[Record::Revoked { steps: steps.clone() }])?;
        }
        self.say(FromAgent::Revoked { steps });
        Ok(())
    }
}

fn same_attempt(one: &HostEvent, other: &HostEvent) -> bool {
    one.step == other.step && one.attempt == other.attempt
}
