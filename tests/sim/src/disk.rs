//! What outlives everything on a simulated host: its lock, the journals of runs, the results that runners left, and what the steps did.
//! And what outlives the supervisor: the processes.

use crate::lock::Lock;
use crate::net::{Due, Moment, Net};
use crate::truth::Truth;
use proto::event::Outcome;
use proto::host::Record;
use proto::message::{Attempt, Granted, Mode};
use proto::step::{Probe, StepId};
use std::collections::{BTreeMap, BTreeSet};

/// Why a supervisor cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It died.
    Crash,
    /// The whole host went down.
    Down,
    /// Its journal cannot be written.
    Full,
}

/// The result that a runner leaves.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) outcome: Outcome,
    pub(crate) died: bool,
}

/// What is kept for a run.
#[derive(Debug, Default)]
pub(crate) struct RunDisk {
    pub(crate) records: Vec<Record>,
    /// Results by the step's number.
    pub(crate) statuses: BTreeMap<usize, Status>,
}

/// How an action ends by itself.
#[derive(Debug, Clone, Copy)]
enum End {
    Done,
    Failed,
    CutOff,
}

/// A runner.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) run: String,
    pub(crate) index: usize,
    pub(crate) at: Attempt,
    probe: Option<Probe>,
    mode: Mode,
    /// It only looks what became of a step whose runner died.
    pub(crate) probing: bool,
    /// It does something; otherwise it looks.
    acts: bool,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    There,
    NotThere,
    CannotTell,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) host: String,
    pub(crate) lock: Lock,
    pub(crate) runs: BTreeMap<String, RunDisk>,
    pub(crate) effects: BTreeSet<StepId>,
    pub(crate) processes: BTreeMap<u64, Process>,
    pub(crate) full: bool,
    pub(crate) boot: u32,
    clock_off: i64,
    next_pid: u64,
}

impl Disk {
    pub(crate) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), ..Self::default() }
    }

    /// A durable write. It happens whole, unless something strikes: then a part of it may be there, and nobody knows.
    ///
    /// # Errors
    /// What struck.
    fn durably(&mut self, net: &mut Net, parts: usize, mut write: impl FnMut(&mut Self, usize)) -> Result<(), Stop> {
        if !self.full && net.luck.strikes(|faults| faults.host_full) {
            self.full = true;
            let wait = net.luck.rng().skewed(1000, 120_000);
            net.after(wait, Due::Room(self.host.clone()));
        }
        if self.full {
            net.trace(|| format!("{}: no room for the journal", self.host));
            return Err(Stop::Full);
        }
        let stop = if net.luck.strikes(|faults| faults.supervisor) {
            Some(Stop::Crash)
        } else if net.luck.strikes(|faults| faults.reboot) {
            Some(Stop::Down)
        } else {
            None
        };
        let written = if stop.is_some() { net.luck.rng().below(parts as u64 + 1) as usize } else { parts };
        (0..written).for_each(|part| write(self, part));
        if let Some(stop) = stop {
            net.trace(|| format!("{}: {stop:?} with {written} of {parts} records written", self.host));
        }
        stop.map_or(Ok(()), Err)
    }

    /// Appends to the journal of a run.
    ///
    /// # Errors
    /// As [`Disk::durably`].
    pub(crate) fn append(&mut self, net: &mut Net, run: &str, records: &[Record]) -> Result<(), Stop> {
        self.durably(net, records.len(), |disk, part| {
            disk.runs.entry(run.to_owned()).or_default().records.push(records[part].clone())
        })
    }

    /// Replaces the lock.
    ///
    /// # Errors
    /// As [`Disk::durably`].
    pub(crate) fn set_lock(&mut self, net: &mut Net, lock: &Lock) -> Result<(), Stop> {
        let result = self.durably(net, 1, |disk, _| disk.lock = lock.clone());
        if self.lock == *lock {
            net.saw(match &lock.holder {
                Some(holder) => Truth::Locked { host: self.host.clone(), run: holder.run.clone(), token: lock.token },
                None => Truth::Released { host: self.host.clone() },
            });
        }
        result
    }

    /// The host's clock, which is wrong by as much as it likes.
    pub(crate) fn clock_ms(&self, net: &Net) -> u64 {
        (1_700_000_000_000 + net.now).saturating_add_signed(self.clock_off)
    }

    fn look(&self, net: &mut Net, probe: &Option<Probe>) -> Option<Look> {
        let Some(Probe::Exists(effect)) = probe else { return None };
        if net.luck.strikes(|faults| faults.blind) {
            return Some(Look::CannotTell);
        }
        let there = self.effects.contains(&StepId(effect.clone()));
        Some(if there { Look::There } else { Look::NotThere })
    }

    /// Starts a runner.
    pub(crate) fn launch(&mut self, net: &mut Net, run: &str, index: usize, granted: &Granted, token: u64, probing: bool) -> u64 {
        let at = Attempt { step: granted.spec.id.clone(), attempt: granted.attempt };
        let probe = granted.spec.probe.clone();
        if !probing {
            let (host, run, mode) = (self.host.clone(), run.to_owned(), granted.mode);
            net.saw(Truth::Began { host, run, at: at.clone(), token, mode });
        }
        // Another attempt looks first whether there is anything left to do.
        let acts = !probing && granted.mode == Mode::Act && (granted.attempt == 1 || self.look(net, &probe) != Some(Look::There));
        self.next_pid += 1;
        let pid = self.next_pid;
        let mut process =
            Process { run: run.to_owned(), index, at: at.clone(), probe, mode: granted.mode, probing, acts, end: End::Done };
        let soon = |moment| Due::Process(self.host.clone(), pid, moment);
        if acts {
            net.saw(Truth::Acted { host: self.host.clone(), run: run.to_owned(), at });
            let takes = net.luck.rng().skewed(2, 60_000);
            let failing = net.luck.strikes(|faults| faults.failure);
            let rng = net.luck.rng();
            if failing {
                process.end = rng.weighted(&[(2, End::Failed), (1, End::CutOff)]);
            }
            let effect = !failing || rng.chance(4000);
            let effect_at = if rng.chance(5000) { takes } else { rng.below(takes) };
            if effect {
                net.after(effect_at, soon(Moment::Effect));
            }
            net.after(takes, soon(Moment::End));
            if net.luck.strikes(|faults| faults.runner) {
                let wait = net.luck.rng().below(takes);
                net.after(wait, soon(Moment::Death));
            }
            self.strike_meanwhile(net, takes);
        } else {
            let takes = net.luck.rng().between(1, 40);
            net.after(takes, soon(Moment::End));
            if net.luck.strikes(|faults| faults.runner / 4) {
                net.after(0, soon(Moment::Death));
            }
        }
        self.processes.insert(pid, process);
        pid
    }

    /// While a step runs, other things go wrong.
    fn strike_meanwhile(&mut self, net: &mut Net, takes: u64) {
        if net.luck.strikes(|faults| faults.supervisor) {
            let wait = net.luck.rng().below(takes * 2);
            net.after(wait, Due::Crash(self.host.clone()));
        }
        if net.luck.strikes(|faults| faults.reboot) {
            let wait = net.luck.rng().below(takes * 2);
            net.after(wait, Due::Down(self.host.clone()));
        }
        if net.luck.strikes(|faults| faults.clock) {
            let rng = net.luck.rng();
            let far = rng.weighted(&[(3, 3_600_000), (2, 40_000_000_000), (1, u64::MAX >> 1)]);
            let jump = rng.below(far) as i64;
            self.clock_off = if rng.chance(5000) { jump } else { -jump };
        }
    }

    /// A moment in the life of a process has come. Answers the run and whether its supervisor should look.
    pub(crate) fn process(&mut self, net: &mut Net, pid: u64, moment: Moment) -> Option<String> {
        let process = self.processes.get(&pid)?;
        match moment {
            Moment::Effect => {
                self.effects.insert(process.at.step.clone());
                None
            }
            Moment::Death => {
                let process = self.processes.remove(&pid)?;
                self.died(net, &process);
                Some(process.run)
            }
            Moment::End => {
                let process = self.processes.remove(&pid)?;
                let outcome = self.verdict(net, &process);
                let (host, run, at) = (self.host.clone(), process.run.clone(), process.at.clone());
                net.saw(Truth::Ended { host, run, at, outcome });
                let status = Status { outcome, died: process.probing };
                self.runs.entry(process.run.clone()).or_default().statuses.insert(process.index, status);
                Some(process.run)
            }
        }
    }

    /// What the action's end and the probe prove together, by the rules of the agent's runner.
    fn verdict(&self, net: &mut Net, process: &Process) -> Outcome {
        let empty = process.probe.as_ref().is_some_and(Probe::is_empty);
        let seen = self.look(net, &process.probe);
        match (process.probing, process.mode) {
            (false, Mode::Prove) if empty => Outcome::Skipped,
            (false, Mode::Prove) => match seen {
                Some(Look::There) => Outcome::Skipped,
                Some(Look::NotThere) => Outcome::Failed,
                Some(Look::CannotTell) | None => Outcome::Unknown,
            },
            (true, _) => match seen {
                Some(Look::There) => Outcome::Ok,
                Some(Look::NotThere) => Outcome::Failed,
                Some(Look::CannotTell) | None => Outcome::Unknown,
            },
            // The effect is there already, from an attempt before this one.
            (false, Mode::Act) if !process.acts => Outcome::Ok,
            (false, Mode::Act) => match (process.end, seen) {
                (End::Done, None | Some(Look::There)) => Outcome::Ok,
                (End::Done | End::CutOff, Some(Look::NotThere)) => Outcome::Failed,
                (End::Done | End::CutOff, Some(Look::CannotTell)) | (End::CutOff, None) => Outcome::Unknown,
                (End::CutOff, Some(Look::There)) | (End::Failed, _) => Outcome::Failed,
            },
        }
    }

    /// Ends the processes of a running step.
    pub(crate) fn stop(&mut self, net: &mut Net, run: &str, at: &Attempt) {
        if let Some((pid, process)) = self.processes.iter_mut().find(|(_, process)| process.run == run && process.at == *at) {
            process.end = End::CutOff;
            let wait = net.luck.rng().skewed(1, 10_000);
            net.after(wait, Due::Process(self.host.clone(), *pid, Moment::End));
        }
    }

    fn died(&self, net: &mut Net, process: &Process) {
        if !process.probing {
            net.saw(Truth::Died { host: self.host.clone(), run: process.run.clone(), at: process.at.clone() });
        }
    }

    /// The host goes down: every process ends where it stands.
    pub(crate) fn go_down(&mut self, net: &mut Net) {
        for process in std::mem::take(&mut self.processes).into_values() {
            self.died(net, &process);
        }
        self.boot += 1;
    }

    /// Whether a runner lives for a step of a run, and whether it only looks.
    pub(crate) fn runner(&self, run: &str, index: usize) -> Option<&Process> {
        self.processes.values().find(|process| process.run == run && process.index == index)
    }
}
