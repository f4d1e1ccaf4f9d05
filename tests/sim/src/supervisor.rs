//! The supervisor of a run on a simulated host. Its brain is the real fold over the host's journal ([`proto::host::State`]); around it is
//! what the agent's supervisor does, without processes and sockets.

use crate::disk::{Disk, Status, Stop};
use crate::net::Net;
use crate::plant::Plant;
use crate::truth::Truth;
use controller::hosts::Incoming;
use proto::StepId;
use proto::event::Outcome;
use proto::host::{Entry, Next, Record, Standing, State};
use proto::message::{Attempt, Claim, FromAgent, Granted, Happened, HostEvent};

/// The host and the world around it, for one call.
pub(crate) struct Around<'a> {
    pub(crate) disk: &'a mut Disk,
    pub(crate) net: &'a mut Net,
}

struct Running {
    index: usize,
    /// Our own runner only looks what became of the step.
    probing: bool,
}

/// The controller that attached last. Its steps go on when its connection is gone.
struct Controller {
    id: String,
    token: u64,
    link: Option<u64>,
}

/// See the module.
pub(crate) struct Supervisor {
    run: String,
    state: State,
    /// Events that are in the state and not in the journal yet. Nobody was told of them.
    unwritten: Vec<HostEvent>,
    running: Option<Running>,
    controller: Option<Controller>,
    /// A controller said that it is done, and whether the lock is to be released.
    finishing: Option<bool>,
}

/// What became of a call.
pub(crate) type Done = Result<(), Stop>;

impl Supervisor {
    /// A supervisor that knows what the journal says. A step that began and did not end is adopted.
    pub(crate) fn start(disk: &Disk, run: &str) -> Self {
        let mut state = State::default();
        disk.runs.get(run).into_iter().flat_map(|run| &run.records).for_each(|record| state.apply(record));
        let running = state.standing(Standing::Running).first().map(|index| Running { index: *index, probing: false });
        Self { run: run.to_owned(), state, unwritten: Vec::new(), running, controller: None, finishing: None }
    }

    /// The controller is done with the host, and nothing runs any more.
    pub(crate) fn is_over(&self) -> bool {
        self.finishing.is_some() && self.running.is_none()
    }

    /// The connection of the controller that attached last, while it is there.
    pub(crate) fn link(&self) -> Option<u64> {
        self.controller.as_ref()?.link
    }

    /// A connection is over.
    pub(crate) fn gone(&mut self, link: u64) {
        if let Some(controller) = self.controller.as_mut().filter(|controller| controller.link == Some(link)) {
            controller.link = None;
        }
    }

    pub(crate) fn say(&self, net: &mut Net, message: FromAgent) {
        if let Some(link) = self.link() {
            net.send_to_controller(link, Incoming::Message(message));
        }
    }

    /// A controller is there, for which its bridge has taken the host: it gets everything that it does not have yet.
    pub(crate) fn attach(&mut self, on: &mut Around, link: u64, claim: &Claim, acked: u64, keep: Vec<String>) -> Done {
        let Some(token) = on.disk.lock.token_of(&self.run, &claim.controller) else {
            on.net.send_to_controller(link, Incoming::Message(FromAgent::Refused { reason: "taken since".to_owned() }));
            return Ok(());
        };
        let mut records = Vec::new();
        if token > self.state.token() {
            records.push(Record::Token { token });
        }
        if !keep.is_empty() {
            records.push(Record::Kept { lines: keep });
        }
        self.record(on, &records)?;
        let controller = Controller { id: claim.controller.clone(), token, link: Some(link) };
        if let Some(Controller { id, link: Some(before), .. }) = self.controller.replace(controller)
            && before != link
        {
            if id != claim.controller {
                let reason = "another controller has attached to this run on this host".to_owned();
                on.net.send_to_controller(before, Incoming::Message(FromAgent::Refused { reason }));
            }
            on.net.close_there(before, "the supervisor ended the connection");
        }
        let mut open = self.state.standing(Standing::Running);
        open.extend(self.state.standing(Standing::Waiting));
        let (host_seq, open) = (self.state.host_seq(), self.state.attempts(&open));
        self.say(on.net, FromAgent::Attached { host_seq, open, token });
        let revoked = self.state.standing(Standing::Revoked);
        if !revoked.is_empty() {
            self.say(on.net, FromAgent::Revoked { steps: self.state.attempts(&revoked) });
        }
        for event in self.state.events().iter().filter(|event| event.host_seq > acked) {
            self.say(on.net, FromAgent::Event(event.clone()));
        }
        Ok(())
    }

    pub(crate) fn grant(&mut self, on: &mut Around, steps: Vec<Granted>, head: String, token: u64, keep: Vec<String>) -> Done {
        let Some(controller) = &self.controller else { return Ok(()) };
        let current = on.disk.lock.token_of(&self.run, &controller.id);
        let reason = match current {
            _ if self.finishing.is_some() => Some("the run is over on this host".to_owned()),
            _ if on.net.plant == Some(Plant::TokenNotChecked) => None,
            Some(current) if current == token && controller.token == token => None,
            Some(current) => Some(format!("the grant has the token {token}, and this host gave out {current}; attach again")),
            None => Some("this controller does not hold the host any more".to_owned()),
        };
        if let Some(reason) = reason {
            self.say(on.net, FromAgent::Refused { reason });
            return Ok(());
        }
        let known: Vec<Attempt> =
            steps.iter().map(|granted| Attempt { step: granted.spec.id.clone(), attempt: granted.attempt }).collect();
        if on.net.plant == Some(Plant::ForgetsRevoked) {
            self.forget_revoked(on, &known);
        }
        let is_known = |event: &&HostEvent| known.iter().any(|k| k.step == event.step && k.attempt == event.attempt);
        let ended: Vec<HostEvent> = self.state.events().iter().filter(is_known).cloned().collect();
        let kept = (!keep.is_empty()).then_some(Record::Kept { lines: keep });
        let records: Vec<Record> = kept.into_iter().chain([Record::Grant { steps, head, token }]).collect();
        self.record(on, &records)?;
        for event in ended {
            self.say(on.net, FromAgent::Event(event));
        }
        let revoked: Vec<Attempt> = self.state.attempts(&self.state.standing(Standing::Revoked));
        let revoked: Vec<Attempt> = revoked.into_iter().filter(|at| known.contains(at)).collect();
        if !revoked.is_empty() {
            self.say(on.net, FromAgent::Revoked { steps: revoked });
        }
        Ok(())
    }

    /// The planted bug: what was taken back stands in the journal under a number by which nobody asks, so that it is taken as new.
    fn forget_revoked(&mut self, on: &mut Around, known: &[Attempt]) {
        let revoked = self.state.attempts(&self.state.standing(Standing::Revoked));
        let forgotten = |step: &StepId, attempt: &mut u32| {
            let of = |at: &Attempt| at.step == *step && at.attempt == *attempt;
            if known.iter().any(of) && revoked.iter().any(of) {
                *attempt = u32::MAX;
            }
        };
        let Some(run) = on.disk.runs.get_mut(&self.run) else { return };
        for record in &mut run.records {
            match record {
                Record::Grant { steps, .. } => {
                    steps.iter_mut().for_each(|granted| forgotten(&granted.spec.id, &mut granted.attempt))
                }
                Record::Revoked { steps } => steps.iter_mut().for_each(|at| forgotten(&at.step, &mut at.attempt)),
                _ => {}
            }
        }
        self.state = State::default();
        run.records.iter().for_each(|record| self.state.apply(record));
    }

    /// Takes back what has not begun.
    pub(crate) fn revoke_waiting(&mut self, on: &mut Around) -> Done {
        let waiting = self.state.standing(Standing::Waiting);
        self.revoke(on, &waiting)
    }

    fn revoke(&mut self, on: &mut Around, indexes: &[usize]) -> Done {
        let steps = self.state.attempts(indexes);
        if !steps.is_empty() {
            self.record(on, &[Record::Revoked { steps: steps.clone() }])?;
        }
        for at in &steps {
            on.net.saw(Truth::Revoked { host: on.disk.host.clone(), run: self.run.clone(), at: at.clone() });
        }
        self.say(on.net, FromAgent::Revoked { steps });
        Ok(())
    }

    pub(crate) fn finish(&mut self, on: &mut Around, release: bool) -> Done {
        self.revoke_waiting(on)?;
        self.finishing = Some(release);
        Ok(())
    }

    /// Does whatever can be done now.
    pub(crate) fn go_on(&mut self, on: &mut Around) -> Done {
        self.go_on_with_steps(on)?;
        self.write_down(on)
    }

    fn go_on_with_steps(&mut self, on: &mut Around) -> Done {
        loop {
            if let Some(running) = self.running.take() {
                let status = on.disk.runs.get(&self.run).and_then(|run| run.statuses.get(&running.index)).cloned();
                let lives = on.disk.runner(&self.run, running.index).is_some();
                match status {
                    Some(status) => self.ended(on, running.index, &status),
                    None if lives => {
                        self.running = Some(running);
                        return Ok(());
                    }
                    None if running.probing => self.nobody_knows(on, running.index),
                    None => self.launch(on, running.index, true),
                }
                continue;
            }
            if self.controller.is_none() || self.finishing.is_some() {
                return Ok(());
            }
            match self.state.next() {
                Next::Wait => return Ok(()),
                Next::Revoke(indexes) => self.revoke(on, &indexes)?,
                Next::Start(index) if self.holds(on) => self.begin(on, index)?,
                Next::Start(_) => {
                    // The host was taken: nothing of this controller begins any more, and it is told so.
                    self.revoke_waiting(on)?;
                    self.say(on.net, FromAgent::Refused { reason: "this host was taken over".to_owned() });
                }
            }
        }
    }

    /// Whether the host is still held by the controller that attached last.
    fn holds(&self, on: &Around) -> bool {
        let held = |controller: &Controller| on.disk.lock.token_of(&self.run, &controller.id) == Some(controller.token);
        self.controller.as_ref().is_some_and(held) || on.net.plant == Some(Plant::TokenNotChecked)
    }

    /// Whether the lock is to be let go of, and is still this run's.
    pub(crate) fn releases(&self, disk: &Disk) -> bool {
        let controller = self.controller.as_ref().filter(|_| self.finishing == Some(true));
        controller.is_some_and(|controller| disk.lock.token_of(&self.run, &controller.id).is_some())
    }

    fn begin(&mut self, on: &mut Around, index: usize) -> Done {
        let late = on.net.plant == Some(Plant::IntentAfterAct);
        // Only where the journal's last line was lost: nothing begins twice.
        let left = on.disk.runs.get(&self.run).is_some_and(|run| run.statuses.contains_key(&index));
        let has_begun = left || on.disk.runner(&self.run, index).is_some();
        if late && !has_begun {
            self.launch(on, index, false);
        }
        // Durable before anything begins: from here on the step counts as begun, whatever happens to us.
        self.happened(on, index, Happened::Started { stream: State::stream(index) });
        self.write_down(on)?;
        if has_begun {
            self.running = Some(Running { index, probing: false });
        } else if !late {
            self.launch(on, index, false);
        }
        Ok(())
    }

    fn launch(&mut self, on: &mut Around, index: usize, probing: bool) {
        let Some(entry) = self.state.entry(index) else { return };
        on.disk.launch(on.net, &self.run, index, &entry.granted, entry.token, probing);
        self.running = Some(Running { index, probing });
    }

    /// The runner died, and so did the one that was to look what became of the step.
    fn nobody_knows(&mut self, on: &mut Around, index: usize) {
        let status = Status { outcome: Outcome::Unknown, died: true };
        if let Some(at) = self.state.entry(index).map(Entry::attempt) {
            on.net.saw(Truth::Ended { host: on.disk.host.clone(), run: self.run.clone(), at, outcome: status.outcome });
        }
        self.ended(on, index, &status);
    }

    fn ended(&mut self, on: &mut Around, index: usize, status: &Status) {
        let (outcome, died) = (status.outcome, status.died);
        let what = Happened::Finished { outcome, exit_code: None, duration_ms: 1, message: String::new(), output_len: 0, died };
        self.happened(on, index, what);
    }

    /// Takes an event into the state. It counts, and is told, once it was written down.
    fn happened(&mut self, on: &Around, index: usize, what: Happened) {
        let Some(entry) = self.state.entry(index) else { return };
        let event = HostEvent {
            host_seq: self.state.host_seq() + 1,
            host_time_ms: on.disk.clock_ms(on.net),
            boot_id: format!("boot{}", on.disk.boot),
            step: entry.granted.spec.id.clone(),
            attempt: entry.granted.attempt,
            what,
        };
        self.state.apply(&Record::Event(event.clone()));
        self.unwritten.push(event);
    }

    fn write_down(&mut self, on: &mut Around) -> Done {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.unwritten);
        let early = on.net.plant == Some(Plant::ToldBeforeDurable);
        if early {
            events.iter().for_each(|event| self.say(on.net, FromAgent::Event(event.clone())));
        }
        let records: Vec<Record> = events.iter().cloned().map(Record::Event).collect();
        on.disk.append(on.net, &self.run, &records)?;
        if !early {
            events.into_iter().for_each(|event| self.say(on.net, FromAgent::Event(event)));
        }
        Ok(())
    }

    fn record(&mut self, on: &mut Around, records: &[Record]) -> Done {
        self.write_down(on)?;
        if records.is_empty() {
            return Ok(());
        }
        on.disk.append(on.net, &self.run, records)?;
        records.iter().for_each(|record| self.state.apply(record));
        Ok(())
    }
}
