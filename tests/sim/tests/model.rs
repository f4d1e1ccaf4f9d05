//! Every interleaving, at small scope, of the part that must be right in each of them: lock, token, grant, intent, result,
//! acknowledgement, takeover. Two workstations work on one run (the second one takes it over), with two hosts and three steps in two
//! stages; each controller and each host crashes at any moment, once.
//!
//! Of the product are: the fold over a host's journal with its decision what is next ([`proto::host::State`]), and the rules of the
//! lock as the simulation has them ([`sim::Lock`]). The supervisor around the fold (`model/host.rs`) and the controller
//! (`model/controller.rs`) are modelled after `agent/src/supervisor` and `controller/src/run`, in steps as small as their durable writes
//! and messages.

#[path = "model/controller.rs"]
mod controller;
#[path = "model/host.rs"]
mod host;

use controller::{Controller, Order};
use host::{At, Crashed, End, Host, Turn};
use stateright::{Checker, Model, Property};
use std::collections::BTreeMap;

/// How many hosts there are. The name of the first one is the lowest.
const HOSTS: usize = 2;
/// The steps of each stage. Those of a stage are on one host; a barrier stands between two stages.
const STAGES: [&[u8]; 2] = [&[0, 1], &[2]];

fn host_of(step: u8) -> usize {
    usize::from(step == 2)
}

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// A host begins a step without a look at its lock.
    FencingNotChecked,
    /// A controller acknowledges what it has not made durable.
    AckBeforeDurable,
    /// A host starts a runner before its journal says so.
    IntentAfterAct,
}

/// What a host says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Told {
    Refused,
    Attached { token: u64, open: Vec<At> },
    Revoked(Vec<At>),
    Event { seq: u8, at: At, end: Option<End> },
}

/// A state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Everything {
    /// One for each workstation; its lives follow each other.
    controllers: [Controller; 2],
    hosts: [Host; HOSTS],
    /// Messages under way, by the number of the controller and of the host.
    to_host: BTreeMap<(u8, usize), Vec<Order>>,
    to_controller: BTreeMap<(u8, usize), Vec<Vec<Told>>>,
    /// How often what may still crash.
    controller_crashes: [u8; 2],
    host_crashes: [u8; HOSTS],
    /// What must not happen, and happened.
    wrong: Option<&'static str>,
}

/// Something happens. Hosts do what they do in one go; the number says behind how many durable writes of it the supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    /// A controller is started.
    Begin(usize),
    /// A controller does what is next.
    Controller(usize),
    /// A message reaches a host.
    Reach(u8, usize, Option<u8>),
    /// A message reaches a controller.
    Hear(u8, usize),
    /// A runner ends, and the supervisor notices it.
    End(usize, Option<u8>),
    CrashController(usize),
    /// The supervisor dies.
    CrashHost(usize),
    /// The machine goes down, before or after the effect of what runs.
    GoDown(usize, bool),
}

/// In one go a supervisor writes no more often than this: it takes a grant in, or notices an end, and begins the next step.
const WRITES: u8 = 4;

struct Scope {
    bug: Option<Bug>,
    /// Whether machines go down, not supervisors alone.
    machines: bool,
}

impl Everything {
    fn workstation(&self, id: u8) -> Option<usize> {
        self.controllers.iter().position(|controller| controller.id == id && controller.lives)
    }

    fn say(&mut self, id: u8, host: usize, said: Vec<Told>) {
        if !said.is_empty() && self.workstation(id).is_some() {
            self.to_controller.entry((id, host)).or_default().push(said);
        }
    }

    /// The supervisor of a host does something, and then whatever it can go on with.
    fn turn(
        &mut self,
        host: usize,
        writes: Option<u8>,
        bug: Option<Bug>,
        act: impl FnOnce(&mut Host, &mut Turn) -> Result<(), Crashed>,
    ) -> Option<()> {
        let mut turn = Turn { writes, said: Vec::new(), bug };
        let here = &mut self.hosts[host];
        let done = act(here, &mut turn).and_then(|()| here.go_on(&mut turn));
        let started = std::mem::take(&mut here.started);
        let listener = here.supervisor.map(|(id, _)| id);
        started.into_iter().for_each(|at| self.judge_begin(host, at));
        match (done, writes) {
            (Ok(()), None) => {
                self.say(listener?, host, turn.said);
                Some(())
            }
            // It did not write as often as that.
            (Ok(()), Some(_)) => None,
            (Err(Crashed), _) => {
                self.crash_host(host);
                Some(())
            }
        }
    }

    fn crash_host(&mut self, host: usize) {
        self.host_crashes[host] -= 1;
        self.hosts[host].supervisor = None;
        self.cut(host);
    }

    fn cut(&mut self, host: usize) {
        self.to_host.retain(|(_, to), _| *to != host);
        self.to_controller.retain(|(_, from), _| *from != host);
        self.controllers.iter_mut().for_each(|controller| controller.lose(host));
    }

    /// A step begins on a host: what must be so?
    fn judge_begin(&mut self, host: usize, at: At) {
        let here = &self.hosts[host];
        let holder = here.lock.holder.as_ref().map(|holder| holder.controller.clone());
        let granting = here.supervisor.map(|(id, _)| id.to_string());
        if holder != granting {
            self.wrong = Some("a step begins after a newer token was given out");
        }
        let earlier = STAGES.iter().take_while(|steps| !steps.contains(&at.0)).flat_map(|steps| steps.iter());
        let earlier = earlier.chain(
            STAGES.iter().filter(|steps| steps.contains(&at.0)).flat_map(|steps| steps.iter().take_while(|step| **step != at.0)),
        );
        if !earlier.into_iter().all(|step| self.hosts[host_of(*step)].is_done(*step)) {
            self.wrong = Some("a step begins before those before it are proven");
        }
        if self.hosts[host].effects.contains_key(&at.0) {
            self.wrong = Some("a step begins again after it was done");
        }
    }
}

impl Model for Scope {
    type State = Everything;
    type Action = Happens;

    fn init_states(&self) -> Vec<Everything> {
        vec![Everything { controller_crashes: [1, 1], host_crashes: [1, 1], ..Everything::default() }]
    }

    fn actions(&self, state: &Everything, actions: &mut Vec<Happens>) {
        if state.wrong.is_some() {
            return;
        }
        for workstation in 0..2 {
            let controller = &state.controllers[workstation];
            let began = controller.lives || controller.id > 2 * workstation as u8;
            if !controller.lives && (!began || state.controller_crashes[workstation] == 0) {
                actions.push(Happens::Begin(workstation));
            }
            actions.push(Happens::Controller(workstation));
            if controller.lives && state.controller_crashes[workstation] > 0 {
                actions.push(Happens::CrashController(workstation));
            }
        }
        let fuses = |host: usize| {
            let most = if state.host_crashes[host] > 0 { WRITES } else { 0 };
            [None].into_iter().chain((1..=most).map(Some))
        };
        for (id, host) in state.to_host.keys().copied() {
            actions.extend(fuses(host).map(|fuse| Happens::Reach(id, host, fuse)));
        }
        actions.extend(state.to_controller.keys().map(|(id, host)| Happens::Hear(*id, *host)));
        for host in 0..HOSTS {
            actions.extend(fuses(host).map(|fuse| Happens::End(host, fuse)));
            if state.host_crashes[host] > 0 && state.hosts[host].supervisor.is_some() {
                actions.push(Happens::CrashHost(host));
                if self.machines && state.hosts[host].living().is_some() {
                    actions.extend([true, false].map(|effect| Happens::GoDown(host, effect)));
                }
            }
        }
    }

    fn next_state(&self, before: &Everything, happens: Happens) -> Option<Everything> {
        let mut state = before.clone();
        match happens {
            Happens::Begin(workstation) => {
                let crashed = 1 - state.controller_crashes[workstation];
                state.controllers[workstation].begin(1 + 2 * workstation as u8 + crashed);
            }
            Happens::Controller(workstation) => {
                let controller = &mut state.controllers[workstation];
                let (host, order) = controller.go_on()?;
                let id = controller.id;
                state.to_host.entry((id, host)).or_default().push(order);
            }
            Happens::Reach(id, host, fuse) => {
                let order = take_first(&mut state.to_host, (id, host))?;
                let current = state.hosts[host].supervisor.map(|(of, _)| of);
                match order {
                    Order::Claim { .. } if fuse.is_some() => return None,
                    Order::Claim { take_over, acked } => match state.hosts[host].claim(id, take_over) {
                        true => state.to_host.entry((id, host)).or_default().insert(0, Order::Attach { acked }),
                        false => state.say(id, host, vec![Told::Refused]),
                    },
                    Order::Attach { .. } if state.hosts[host].token_of(id).is_none() => state.say(id, host, vec![Told::Refused]),
                    Order::Attach { acked } => {
                        // It takes the place of the connection that was there.
                        if let Some(other) = current.filter(|of| *of != id) {
                            state.say(other, host, vec![Told::Refused]);
                        }
                        state.turn(host, fuse, self.bug, |here, turn| here.attach(turn, id, acked))?;
                    }
                    // One that another connection took the place of is not listened to.
                    Order::Grant { steps, token } if current == Some(id) => {
                        state.turn(host, fuse, self.bug, |here, turn| here.grant(turn, id, &steps, token))?;
                    }
                    Order::Grant { .. } => {}
                }
            }
            Happens::Hear(id, host) => {
                let said = take_first(&mut state.to_controller, (id, host))?;
                let workstation = state.workstation(id)?;
                said.into_iter().for_each(|said| state.controllers[workstation].hear(host, said, self.bug));
            }
            Happens::End(host, fuse) => {
                let at = state.hosts[host].living()?;
                state.hosts[host].end_step(at);
                if state.hosts[host].supervisor.is_some() {
                    state.turn(host, fuse, self.bug, |_, _| Ok(()))?;
                } else if fuse.is_some() {
                    return None;
                }
            }
            Happens::CrashController(workstation) => {
                let id = state.controllers[workstation].id;
                state.controller_crashes[workstation] -= 1;
                state.controllers[workstation].die();
                // What it has sent may still arrive; nobody hears the answers.
                state.to_controller.retain(|(of, _), _| *of != id);
            }
            Happens::CrashHost(host) => state.crash_host(host),
            Happens::GoDown(host, effect) => {
                state.hosts[host].go_down(effect);
                state.crash_host(host);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing wrong happens", |_, state: &Everything| state.wrong.is_none()),
            Property::always("each step is done once", |_, state: &Everything| {
                state.hosts.iter().all(|host| host.effects.values().all(|times| *times == 1))
            }),
            Property::always("what was acknowledged is durable", |_, state: &Everything| {
                let durable = |c: &Controller| (0..HOSTS).all(|host| c.acked[host] <= c.durable(host));
                state.controllers.iter().all(durable)
            }),
            Property::always("who says that all is done is right", |_, state: &Everything| {
                let done = (0..3).all(|step| state.hosts[host_of(step)].is_done(step));
                done || !state.controllers.iter().any(Controller::is_finished)
            }),
            Property::sometimes("the first controller finishes", |_, state: &Everything| state.controllers[0].is_finished()),
            Property::sometimes(
                "a takeover succeeds in the middle of the run, and the second controller finishes",
                |_, state: &Everything| {
                    let took = state.hosts.iter().all(|host| host.lock.token > 1);
                    took && state.controllers[1].is_finished() && !state.controllers[0].journal.is_empty()
                },
            ),
            Property::sometimes("the first controller is refused after the takeover", |_, state: &Everything| {
                state.controllers[0].refused && (0..HOSTS).all(|host| state.controllers[1].has(host))
            }),
        ]
    }
}

/// Takes the first of the messages under way; an empty queue leaves nothing behind.
fn take_first<T>(queues: &mut BTreeMap<(u8, usize), Vec<T>>, key: (u8, usize)) -> Option<T> {
    let queue = queues.get_mut(&key)?;
    let first = queue.remove(0);
    if queue.is_empty() {
        queues.remove(&key);
    }
    Some(first)
}

#[test]
#[ignore = "takes many minutes and gigabytes of memory: its scope has to become smaller before it can be part of every run"]
fn every_interleaving_is_right() {
    let checker = Scope { bug: None, machines: true }.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} of them different, up to {} steps deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}
