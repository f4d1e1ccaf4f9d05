//! A host of the model. Its brain is the real fold over its journal (`proto::host::State`), its lock follows the real rules; what is
//! modelled is the supervisor around them, as the agent has it, in steps as small as its durable writes.

use crate::{Bug, Told};
use proto::event::Outcome;
use proto::host::{Next, Record, Standing, State};
use proto::message::{Attempt, Claim, Granted, Happened, HostEvent, Mode};
use proto::step::{Action, Limits, Repeat, RunAs, StepId, StepSpec};
use sim::Lock;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A step and which attempt at it.
pub(crate) type At = (u8, u8);

/// One record of the host's journal, small: see [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Small {
    Grant(Vec<At>, u64),
    Started(At),
    Finished(At, End),
    Revoked(Vec<At>),
    Token(u64),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    Ok,
    /// It died, and the probe says that its effect is not there.
    Failed,
}

/// A runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Runner {
    Lives,
    /// It left a result.
    Ended,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Host {
    pub(crate) lock: Lock,
    pub(crate) journal: Vec<Small>,
    /// Those whose end the journal does not have, without those that are gone and left no result.
    runners: BTreeMap<At, Runner>,
    /// How often the effect of each step came about.
    pub(crate) effects: BTreeMap<u8, u8>,
    /// While the supervisor lives: the controller that attached last, with its token.
    pub(crate) supervisor: Option<(u8, u64)>,
    /// Runners that were started since anybody looked.
    pub(crate) started: Vec<At>,
}

/// The supervisor died in the middle of what it did.
pub(crate) struct Crashed;

/// What a supervisor does in one go: how many more durable writes it lives for, what it says, what is wrong with it.
pub(crate) struct Turn {
    pub(crate) writes: Option<u8>,
    pub(crate) said: Vec<Told>,
    pub(crate) bug: Option<Bug>,
}

impl Turn {
    /// Right behind a durable write: does the supervisor go on?
    fn written(&mut self) -> Result<(), Crashed> {
        let Some(writes) = &mut self.writes else { return Ok(()) };
        *writes -= 1;
        if *writes == 0 { Err(Crashed) } else { Ok(()) }
    }
}

pub(crate) const RUN: &str = "run";

fn step_id(step: u8) -> StepId {
    StepId(format!("p/s/s/h/{step}"))
}

fn number(id: &StepId) -> u8 {
    id.name().parse().unwrap()
}

fn granted((step, attempt): At) -> Granted {
    let spec = StepSpec {
        id: step_id(step),
        title: String::new(),
        run_as: RunAs::Login,
        action: Action::Verify,
        only_if: None,
        probe: None,
        repeat: Repeat::Allowed,
        limits: Limits::default(),
    };
    Granted { spec, attempt: attempt.into(), mode: Mode::Act }
}

fn attempt((step, attempt): At) -> Attempt {
    Attempt { step: step_id(step), attempt: attempt.into() }
}

fn small(attempt: &Attempt) -> At {
    (number(&attempt.step), attempt.attempt as u8)
}

/// The real fold over a journal. Few journals are in many states, so it is kept.
fn fold(journal: &[Small]) -> Rc<State> {
    thread_local! { static FOLDS: RefCell<HashMap<Vec<Small>, Rc<State>>> = RefCell::default(); }
    FOLDS.with_borrow_mut(|folds| {
        if let Some(state) = folds.get(journal) {
            return Rc::clone(state);
        }
        let state = Rc::new(fold_anew(journal));
        folds.insert(journal.to_vec(), Rc::clone(&state));
        state
    })
}

fn fold_anew(journal: &[Small]) -> State {
    let mut state = State::default();
    for record in journal {
        let event = |(step, attempt): At, what| {
            let (host_seq, host_time_ms, boot_id) = (state.host_seq() + 1, 0, String::new());
            Record::Event(HostEvent { host_seq, host_time_ms, boot_id, step: step_id(step), attempt: attempt.into(), what })
        };
        let record = match record {
            Small::Grant(steps, token) => {
                let steps = steps.iter().copied().map(granted).collect();
                Record::Grant { steps, head: String::new(), token: *token }
            }
            Small::Started(at) => event(*at, Happened::Started { stream: 0 }),
            Small::Finished(at, end) => {
                let outcome = if *end == End::Ok { Outcome::Ok } else { Outcome::Failed };
                let (exit_code, duration_ms, message, output_len) = (None, 0, String::new(), 0);
                let died = *end == End::Failed;
                event(*at, Happened::Finished { outcome, exit_code, duration_ms, message, output_len, died })
            }
            Small::Revoked(steps) => Record::Revoked { steps: steps.iter().copied().map(attempt).collect() },
            Small::Token(token) => Record::Token { token: *token },
        };
        state.apply(&record);
    }
    state
}

/// The events of a journal with their numbers, as they are sent.
fn events(journal: &[Small]) -> Vec<Told> {
    let events = journal.iter().filter_map(|record| match record {
        Small::Started(at) => Some((*at, None)),
        Small::Finished(at, end) => Some((*at, Some(*end))),
        Small::Grant(..) | Small::Revoked(_) | Small::Token(_) => None,
    });
    events.zip(1..).map(|((at, end), seq)| Told::Event { seq, at, end }).collect()
}

impl Host {
    fn standing(&self, standing: Standing) -> Vec<At> {
        let state = fold(&self.journal);
        state.attempts(&state.standing(standing)).iter().map(small).collect()
    }

    pub(crate) fn token_of(&self, controller: u8) -> Option<u64> {
        self.lock.token_of(RUN, &controller.to_string())
    }

    /// Adds a record to the journal, unless the fold says the same without it, now and ever after.
    fn record(&mut self, turn: &mut Turn, record: Small) -> Result<(), Crashed> {
        let says_nothing_new = match &record {
            // The same attempts in the same order; the token is in the journal since the controller attached.
            Small::Grant(steps, _) => self.journal.iter().any(|before| matches!(before, Small::Grant(same, _) if same == steps)),
            // Of tokens the highest counts, wherever it stands.
            Small::Token(_) => {
                self.journal.retain(|before| !matches!(before, Small::Token(_)));
                false
            }
            _ => false,
        };
        match record {
            _ if says_nothing_new => {}
            Small::Token(_) => self.journal.insert(0, record),
            _ => self.journal.push(record),
        }
        turn.written()
    }

    /// Adds an event to the journal, then tells it.
    fn event(&mut self, turn: &mut Turn, record: Small) -> Result<(), Crashed> {
        self.record(turn, record)?;
        turn.said.extend(events(&self.journal).pop());
        Ok(())
    }

    fn revoke(&mut self, turn: &mut Turn, steps: Vec<At>) -> Result<(), Crashed> {
        self.record(turn, Small::Revoked(steps.clone()))?;
        turn.said.push(Told::Revoked(steps));
        Ok(())
    }

    /// The lock as it is once a controller has taken it, if it may.
    fn claimed(&self, controller: u8, take_over: bool) -> Option<Lock> {
        let seat = if controller < 3 { "first" } else { "second" };
        let claim = Claim {
            seat: seat.to_owned(),
            controller: controller.to_string(),
            operator: String::new(),
            take_over: take_over.then(String::new),
            succeeds: None,
        };
        self.lock.claim(RUN, &claim).ok()
    }

    /// The bridge of a controller takes the lock: false if it is refused.
    pub(crate) fn claim(&mut self, controller: u8, take_over: bool) -> bool {
        let claimed = self.claimed(controller, take_over);
        let is_ours = claimed.is_some();
        self.lock = claimed.unwrap_or_else(|| self.lock.clone());
        is_ours
    }

    /// Whether a claim would be refused. It is for ever then: the workstation that took over never loses the host again.
    pub(crate) fn refuses(&self, controller: u8, take_over: bool) -> bool {
        self.claimed(controller, take_over).is_none()
    }

    /// The bridge has connected to the supervisor, which may have had to be started.
    pub(crate) fn attach(&mut self, turn: &mut Turn, controller: u8, acked: u8) -> Result<(), Crashed> {
        let Some(token) = self.token_of(controller) else { return Ok(()) };
        if token > fold(&self.journal).token() {
            self.record(turn, Small::Token(token))?;
        }
        self.supervisor = Some((controller, token));
        turn.said
            .push(Told::Attached { token, open: [self.standing(Standing::Running), self.standing(Standing::Waiting)].concat() });
        let revoked = self.standing(Standing::Revoked);
        if !revoked.is_empty() {
            turn.said.push(Told::Revoked(revoked));
        }
        turn.said.extend(events(&self.journal).into_iter().filter(|told| matches!(told, Told::Event { seq, .. } if *seq > acked)));
        Ok(())
    }

    pub(crate) fn grant(&mut self, turn: &mut Turn, controller: u8, steps: &[At], token: u64) -> Result<(), Crashed> {
        let current = self.token_of(controller) == Some(token) && self.supervisor == Some((controller, token));
        if !current && turn.bug != Some(Bug::FencingNotChecked) {
            turn.said.push(Told::Refused);
            return Ok(());
        }
        let known = |told: &Told| matches!(told, Told::Event { at, .. } if steps.contains(at));
        let said: Vec<Told> = events(&self.journal).into_iter().filter(known).collect();
        self.record(turn, Small::Grant(steps.to_vec(), token))?;
        turn.said.extend(said);
        let revoked: Vec<At> = self.standing(Standing::Revoked).into_iter().filter(|at| steps.contains(at)).collect();
        if !revoked.is_empty() {
            turn.said.push(Told::Revoked(revoked));
        }
        Ok(())
    }

    /// The supervisor does whatever can be done now.
    pub(crate) fn go_on(&mut self, turn: &mut Turn) -> Result<(), Crashed> {
        while let Some((controller, token)) = self.supervisor {
            if let Some(at) = self.standing(Standing::Running).first().copied() {
                let end = match self.runners.get(&at) {
                    Some(Runner::Lives) => return Ok(()),
                    Some(Runner::Ended) => End::Ok,
                    // The runner was never started, or is dead: the probe says what became of the step.
                    None if self.effects.contains_key(&at.0) => End::Ok,
                    None => End::Failed,
                };
                self.runners.remove(&at);
                self.event(turn, Small::Finished(at, end))?;
                continue;
            }
            let state = fold(&self.journal);
            match state.next() {
                Next::Wait => return Ok(()),
                Next::Revoke(indexes) => self.revoke(turn, state.attempts(&indexes).iter().map(small).collect())?,
                Next::Start(_) if self.token_of(controller) != Some(token) && turn.bug != Some(Bug::FencingNotChecked) => {
                    self.revoke(turn, self.standing(Standing::Waiting))?;
                    turn.said.push(Told::Refused);
                }
                Next::Start(index) => self.begin(turn, small(&state.attempts(&[index])[0]))?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, turn: &mut Turn, at: At) -> Result<(), Crashed> {
        // Only where the journal's last line was lost: nothing begins twice.
        let has_begun = self.runners.contains_key(&at);
        let late = turn.bug == Some(Bug::IntentAfterAct);
        if late && !has_begun {
            self.launch(at);
            turn.written()?;
        }
        self.event(turn, Small::Started(at))?;
        if !late && !has_begun {
            self.launch(at);
        }
        Ok(())
    }

    fn launch(&mut self, at: At) {
        self.runners.insert(at, Runner::Lives);
        self.started.push(at);
    }

    /// A step whose runner lives.
    pub(crate) fn living(&self) -> Option<At> {
        self.runners.iter().find(|(_, runner)| **runner == Runner::Lives).map(|(at, _)| *at)
    }

    /// The runner does what it is there for and leaves its result.
    pub(crate) fn end_step(&mut self, at: At) {
        *self.effects.entry(at.0).or_default() += 1;
        self.runners.insert(at, Runner::Ended);
    }

    /// The machine goes down, and the runner that lives with it, before its effect.
    pub(crate) fn go_down(&mut self) {
        self.runners.retain(|_, runner| *runner != Runner::Lives);
    }

    /// Whether the journal bears out that a step was done.
    pub(crate) fn is_done(&self, step: u8) -> bool {
        self.journal.iter().any(|record| matches!(record, Small::Finished((of, _), End::Ok) if *of == step))
    }
}
