//! What people learn from what controllers write down, and what of it an observer beside all hosts has to know.

use crate::truth::{Decision, Truth};
use crate::world::World;
use controller::run::Observer;
use controller::run::journal::Chain;
use proto::StepId;
use proto::event::{Event, Kind};
use proto::message::Attempt;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Steps that wait for a decision, as a person at the screen sees them.
pub(crate) type Bad = Arc<Mutex<BTreeSet<String>>>;

/// Reads the record of a run, over all its controllers.
pub(crate) struct Watch {
    world: World,
    run: String,
    /// Gates that the operator confirmed for the controller that is at work.
    gates: BTreeSet<String>,
    bad: Bad,
    /// How many entries it has read.
    read: usize,
}

impl Watch {
    pub(crate) fn new(world: World, run: &str) -> Self {
        Self { world, run: run.to_owned(), gates: BTreeSet::new(), bad: Bad::default(), read: 0 }
    }

    /// A controller begins, with these gates confirmed. What the one before it wrote down without living to show it counts: the
    /// run goes on from there. Answers where the operator sees what waits for a decision.
    pub(crate) fn sit_down(&mut self, chain: &Chain, gates: BTreeSet<String>) -> Bad {
        for event in chain.events.iter().skip(self.read) {
            self.event(event);
        }
        // A disk that lied may have lost entries that were read.
        self.read = chain.events.len();
        self.gates = gates;
        self.bad = Bad::default();
        self.bad.clone()
    }
}

impl Observer for Watch {
    fn event(&mut self, event: &Event) {
        self.read += 1;
        self.world
            .with(|w| w.net.trace(|| format!("run {}: {} {:?} {:?}", self.run, about(event), event.scope.attempt, event.kind)));
        let step = event.scope.step.clone().map(StepId);
        let truth = match (&event.kind, step) {
            (Kind::GateConfirmed { gate, .. }, Some(step)) if self.gates.contains(gate) => {
                Truth::Decided { run: self.run.clone(), step, what: Decision::Confirm }
            }
            (Kind::PlatformFinished { .. }, _) => {
                Truth::Left { run: self.run.clone(), platform: event.scope.platform.clone().unwrap_or_default() }
            }
            (Kind::HostUnreachable { .. } | Kind::HostLocked { .. }, _) => {
                Truth::Lost { run: self.run.clone(), host: event.scope.host.clone().unwrap_or_default() }
            }
            (Kind::StepFinished { outcome, .. }, Some(step)) => {
                if let (Ok(mut bad), false) = (self.bad.lock(), outcome.is_proof()) {
                    bad.insert(step.0);
                }
                return;
            }
            (Kind::StepGranted { .. }, Some(step)) => {
                if let Ok(mut bad) = self.bad.lock() {
                    bad.remove(&step.0);
                }
                let attempt = event.scope.attempt.unwrap_or_default();
                Truth::Granted { run: self.run.clone(), at: Attempt { step, attempt } }
            }
            _ => return,
        };
        self.world.with(|w| w.net.saw(truth));
    }

    fn line(&mut self, _: &str, _: &StepId, _: &str) {}
}

fn about(event: &Event) -> &str {
    let scope = &event.scope;
    [&scope.step, &scope.host, &scope.stage, &scope.platform].into_iter().flatten().next().map_or("", String::as_str)
}
