//! A simulated host: its disk, its supervisors, and what its bridges do with messages.

use crate::disk::{Disk, Stop};
use crate::net::{Moment, Net};
use crate::supervisor::{Around, Done, Supervisor};
use crate::truth::Truth;
use controller::hosts::Incoming;
use proto::message::Claim;
use proto::{Answer, FromAgent, ToAgent};
use std::collections::BTreeMap;

/// See the module.
pub(crate) struct Host {
    pub(crate) disk: Disk,
    supervisors: BTreeMap<String, Supervisor>,
    /// Which run the supervisor behind a connection belongs to.
    bridges: BTreeMap<u64, String>,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        let disk = Disk::new(name);
        Self { disk, supervisors: BTreeMap::new(), bridges: BTreeMap::new() }
    }

    /// A message has come on a connection.
    pub(crate) fn message(&mut self, net: &mut Net, link: u64, message: ToAgent) {
        let mut say = |message| net.send_to_controller(link, Incoming::Message(message));
        match message {
            ToAgent::Inspect { id, queries, .. } => {
                let readings = queries.iter().map(|_| Ok(Answer::Processes(Vec::new()))).collect();
                say(FromAgent::Inspected { id, readings });
                let run = net.run_of(link);
                net.saw(Truth::Inspected { host: self.disk.host.clone(), run });
            }
            ToAgent::Attach { run, claim, acked, keep, .. } => self.attach(net, link, run, &claim, acked, keep),
            message => match self.bridges.get(&link).cloned() {
                Some(run) => self.with(net, &run, |supervisor, on| pass(supervisor, on, &run, link, message)),
                None if matches!(
                    message,
                    ToAgent::Grant { .. } | ToAgent::Revoke | ToAgent::Stop { .. } | ToAgent::Finish { .. }
                ) =>
                {
                    say(FromAgent::Refused { reason: "no run is attached on this connection; send Attach first".to_owned() });
                }
                None => {}
            },
        }
    }

    fn attach(&mut self, net: &mut Net, link: u64, run: String, claim: &Claim, acked: u64, keep: Vec<String>) {
        let lock = match self.disk.lock.claim(&run, claim) {
            Ok(lock) => lock,
            Err(reason) => return net.send_to_controller(link, Incoming::Message(FromAgent::Refused { reason })),
        };
        if lock != self.disk.lock
            && let Err(stop) = self.disk.set_lock(net, &lock)
        {
            return self.stopped(net, &run, Some(link), stop);
        }
        if let Some(process) = self.disk.processes.values().find(|process| process.run != run) {
            let reason = format!("{} of run {} still runs", process.at.step, process.run);
            return net.send_to_controller(link, Incoming::Message(FromAgent::Busy { reason }));
        }
        self.bridges.insert(link, run.clone());
        self.supervisors.entry(run.clone()).or_insert_with(|| Supervisor::start(&self.disk, &run));
        self.with(net, &run, |supervisor, on| supervisor.attach(on, link, claim, acked, keep));
    }

    /// Lets a supervisor do something, and then whatever it can go on with.
    fn with(&mut self, net: &mut Net, run: &str, act: impl FnOnce(&mut Supervisor, &mut Around) -> Done) {
        let Some(supervisor) = self.supervisors.get_mut(run) else { return };
        let mut on = Around { disk: &mut self.disk, net };
        let done = act(supervisor, &mut on).and_then(|()| supervisor.go_on(&mut on));
        let over = supervisor.is_over();
        let attached = supervisor.link();
        match done {
            Err(stop) => self.stopped(net, run, attached, stop),
            Ok(()) if over => self.over(net, run),
            Ok(()) => {}
        }
    }

    /// The controller is done with this host, and nothing runs.
    fn over(&mut self, net: &mut Net, run: &str) {
        let Some(supervisor) = self.supervisors.get(run) else { return };
        let released = self.disk.lock.released();
        if supervisor.releases(&self.disk)
            && let Err(stop) = self.disk.set_lock(net, &released)
        {
            let link = supervisor.link();
            return self.stopped(net, run, link, stop);
        }
        supervisor.say(net, FromAgent::Finished);
        self.end_supervisor(net, run, "the supervisor ended");
    }

    fn stopped(&mut self, net: &mut Net, run: &str, link: Option<u64>, stop: Stop) {
        let message = match stop {
            Stop::Down => return self.go_down(net),
            Stop::Full => "cannot write the journal: no space left on device".to_owned(),
            Stop::Crash => "the supervisor of the run ended unexpectedly".to_owned(),
        };
        if let Some(link) = link {
            net.send_to_controller(link, Incoming::Message(FromAgent::Fatal { message: message.clone() }));
            net.close_there(link, &message);
        }
        self.end_supervisor(net, run, &message);
    }

    fn end_supervisor(&mut self, net: &mut Net, run: &str, reason: &str) {
        self.supervisors.remove(run);
        let links: Vec<u64> = self.bridges.iter().filter(|(_, of)| *of == run).map(|(link, _)| *link).collect();
        for link in links {
            self.bridges.remove(&link);
            net.close_there(link, reason);
        }
    }

    /// All supervisors die. Runners live on.
    pub(crate) fn crash(&mut self, net: &mut Net) {
        let runs: Vec<String> = self.supervisors.keys().cloned().collect();
        for run in runs {
            net.trace(|| format!("{}: the supervisor of {run} dies", self.disk.host));
            let attached = self.supervisors.get(&run).and_then(Supervisor::link);
            self.stopped(net, &run, attached, Stop::Crash);
        }
    }

    /// The host goes down, and comes up again after a while.
    pub(crate) fn go_down(&mut self, net: &mut Net) {
        net.trace(|| format!("{} goes down", self.disk.host));
        self.disk.go_down(net);
        self.supervisors.clear();
        self.bridges.clear();
        net.drop_lines(&self.disk.host);
        let wait = net.luck.rng().skewed(5_000, 300_000);
        net.close_way(&self.disk.host, wait);
    }

    /// A connection is over, as the host sees it.
    pub(crate) fn gone(&mut self, link: u64) {
        if let Some(supervisor) = self.bridges.remove(&link).and_then(|run| self.supervisors.get_mut(&run)) {
            supervisor.gone(link);
        }
    }

    /// A moment in the life of a process has come.
    pub(crate) fn process(&mut self, net: &mut Net, pid: u64, moment: Moment) {
        if let Some(run) = self.disk.process(net, pid, moment) {
            self.with(net, &run, |_, _| Ok(()));
        }
    }
}

/// What a bridge passes on to its supervisor. One that another connection took the place of is not listened to.
fn pass(supervisor: &mut Supervisor, on: &mut Around, run: &str, link: u64, message: ToAgent) -> Done {
    if supervisor.link() != Some(link) {
        return Ok(());
    }
    match message {
        ToAgent::Grant { steps, head, token, keep } => supervisor.grant(on, steps, head, token, keep),
        ToAgent::Revoke => supervisor.revoke_waiting(on),
        ToAgent::Finish { release } => supervisor.finish(on, release),
        ToAgent::Stop { attempt } => {
            on.disk.stop(on.net, run, &attempt);
            Ok(())
        }
        _ => Ok(()),
    }
}
