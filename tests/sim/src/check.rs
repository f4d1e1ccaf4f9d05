//! The invariants, judged after a history from what really happened on the hosts.

use crate::truth::{Decision, Truth};
use controller::plan::{Phase, Plan, PlannedStep};
use controller::run::journal::Chain;
use proto::StepId;
use proto::event::{Kind, Outcome};
use proto::message::{Attempt, Mode};
use proto::step::{Action, Repeat};
use std::collections::{BTreeMap, BTreeSet};

/// Where a step stands in its plan.
struct Place<'p> {
    step: &'p PlannedStep,
    platform: usize,
    /// The number of its stage within the platform.
    stage: usize,
    /// Its position within its stage.
    position: usize,
    phase: Phase,
    tolerant: bool,
}

/// What is known of a step in one run.
#[derive(Default)]
struct Known<'p> {
    proven: bool,
    /// Its last end, if no attempt has begun since.
    bad: Option<Outcome>,
    running: bool,
    attempts: BTreeSet<u32>,
    revoked: BTreeSet<u32>,
    /// Attempts that were granted on the way back, with the hosts that had dropped out by then.
    without: BTreeMap<u32, BTreeSet<&'p str>>,
    acted: bool,
    /// A person wants it again, and no attempt has begun since.
    retry: bool,
}

/// Checks what happened in one run against its plan.
pub(crate) struct Judge<'p> {
    run: &'p str,
    places: BTreeMap<&'p StepId, Place<'p>>,
    limit: Option<&'p BTreeSet<String>>,
    /// The platform that the others wait for.
    canary: Option<usize>,
    known: BTreeMap<&'p StepId, Known<'p>>,
    /// Platforms that left preflight, or were left by the controller.
    touched: BTreeSet<usize>,
    left: BTreeSet<usize>,
    /// Hosts that were out of the controller's reach once.
    lost: BTreeSet<String>,
    names: Vec<&'p str>,
}

impl<'p> Judge<'p> {
    pub(crate) fn new(run: &'p str, plan: &'p Plan, limit: Option<&'p BTreeSet<String>>, canary: Option<&str>) -> Self {
        let canary = canary.and_then(|name| plan.platforms.iter().position(|platform| platform.name == name));
        let mut places = BTreeMap::new();
        for (platform, of) in plan.platforms.iter().enumerate() {
            let stages = of.phases.iter().flat_map(|phase| phase.stages.iter().map(move |stage| (phase.name, stage)));
            for (number, (phase, stage)) in stages.enumerate() {
                for (position, step) in stage.steps.iter().enumerate() {
                    let tolerant = stage.tolerant;
                    places.insert(&step.id, Place { step, platform, stage: number, position, phase, tolerant });
                }
            }
        }
        let known = places.keys().map(|id| (*id, Known::default())).collect();
        let names = plan.platforms.iter().map(|platform| platform.name.as_str()).collect();
        Self { run, places, limit, canary, known, touched: BTreeSet::new(), left: BTreeSet::new(), lost: BTreeSet::new(), names }
    }

    /// Takes in everything that happened, in order.
    ///
    /// # Errors
    /// What must not have happened.
    pub(crate) fn all<'t>(&mut self, truth: impl Iterator<Item = &'t Truth>) -> Result<(), String> {
        truth.into_iter().try_for_each(|what| self.take(what))
    }

    fn known(&mut self, id: &StepId) -> Result<&mut Known<'p>, String> {
        self.known.get_mut(id).ok_or_else(|| format!("{id} is in no plan"))
    }

    fn take(&mut self, what: &Truth) -> Result<(), String> {
        match what {
            Truth::Granted { run, at } if run == self.run => self.granted(at),
            Truth::Began { run, at, mode, host, .. } if run == self.run => self.began(host, at, *mode),
            Truth::Acted { run, at, .. } if run == self.run => self.acted(at),
            Truth::Died { run, at, .. } if run == self.run => {
                self.known(&at.step)?.running = false;
                Ok(())
            }
            Truth::Ended { run, at, outcome, .. } if run == self.run => {
                let known = self.known(&at.step)?;
                known.running = false;
                known.proven |= outcome.is_proof();
                known.bad = Some(*outcome).filter(|outcome| !outcome.is_proof());
                Ok(())
            }
            Truth::Revoked { run, at, .. } if run == self.run => {
                self.known(&at.step)?.revoked.insert(at.attempt);
                Ok(())
            }
            Truth::Inspected { run, host } if run == self.run => {
                for (id, place) in &self.places {
                    if place.step.host == *host
                        && matches!(place.step.spec.action, Action::Inspect { .. })
                        && let Some(known) = self.known.get_mut(id)
                    {
                        known.proven = true;
                    }
                }
                Ok(())
            }
            Truth::Decided { run, step, what } if run == self.run => {
                let known = self.known(step)?;
                match what {
                    Decision::Retry => known.retry = true,
                    Decision::Skip => {}
                    Decision::Accept | Decision::Confirm => known.proven = true,
                }
                Ok(())
            }
            Truth::Lost { run, host } if run == self.run => {
                self.lost.insert(host.clone());
                Ok(())
            }
            Truth::Left { run, platform } if run == self.run => {
                self.left.extend(self.names.iter().position(|name| name == platform));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// On the way back a host that fails or stays away drops out, and the others go on without it. That is decided when something is
    /// granted to them: a person may bring the host back at any time, and what was granted by then goes on.
    fn granted(&mut self, at: &Attempt) -> Result<(), String> {
        let Some(place) = self.places.get(&at.step).filter(|place| place.tolerant) else { return Ok(()) };
        let tolerant = self.places.values().filter(|other| other.platform == place.platform && other.tolerant);
        let out = tolerant.filter(|other| self.is_out(other)).map(|other| other.step.host.as_str()).collect();
        self.known(&at.step)?.without.insert(at.attempt, out);
        Ok(())
    }

    fn began(&mut self, host: &str, at: &Attempt, mode: Mode) -> Result<(), String> {
        let place = self.places.get(&at.step).ok_or_else(|| format!("{} is in no plan", at.step))?;
        if place.step.host != host {
            return Err(format!("{} began on {host}, which is not its host", at.step));
        }
        if mode == Mode::Act && self.limit.is_some_and(|limit| !limit.contains(host)) {
            return Err(format!("{} acts, although the run is limited to other hosts", at.step));
        }
        self.order(place, at)?;
        self.preflight(place)?;
        let touched = place.phase != Phase::Preflight;
        let platform = place.platform;
        let known = self.known(&at.step)?;
        if !known.attempts.insert(at.attempt) {
            return Err(format!("attempt {} of {} began twice", at.attempt, at.step));
        }
        if known.revoked.contains(&at.attempt) {
            return Err(format!("attempt {} of {} began after it was taken back", at.attempt, at.step));
        }
        if std::mem::replace(&mut known.running, true) {
            return Err(format!("attempt {} of {} began while another one runs", at.attempt, at.step));
        }
        if touched {
            self.touched.insert(platform);
        }
        Ok(())
    }

    /// Everything that must be proven before a step of this place begins, is.
    fn order(&self, place: &Place, at: &Attempt) -> Result<(), String> {
        let without = self.known.get(&at.step).and_then(|known| known.without.get(&at.attempt));
        for (id, other) in &self.places {
            let earlier_stage = other.stage < place.stage;
            let same_stage = other.stage == place.stage;
            let earlier_wave = same_stage && other.step.wave < place.step.wave;
            let own = other.step.host == place.step.host;
            let before_on_host = same_stage && own && other.step.wave == place.step.wave && other.position < place.position;
            if other.platform != place.platform || !(earlier_stage || earlier_wave || before_on_host) {
                continue;
            }
            let known = &self.known[*id];
            let dropped = other.tolerant && !own && without.is_some_and(|hosts| hosts.contains(other.step.host.as_str()));
            if !known.proven && !dropped {
                return Err(format!("{} began before {id} was proven", place.step.id));
            }
        }
        Ok(())
    }

    /// Whether a host stayed away, or a step of it failed on the way back.
    fn is_out(&self, of: &Place) -> bool {
        let same = |place: &Place| place.platform == of.platform && place.tolerant && place.step.host == of.step.host;
        let failed = || self.places.iter().any(|(id, place)| same(place) && self.known[*id].bad.is_some());
        self.lost.contains(&of.step.host) || failed()
    }

    /// When a platform is touched for the first time, no other is in the middle of its preflight.
    fn preflight(&self, place: &Place) -> Result<(), String> {
        if place.phase == Phase::Preflight || self.touched.contains(&place.platform) {
            return Ok(());
        }
        for (id, other) in &self.places {
            let over = self.touched.contains(&other.platform) || self.left.contains(&other.platform);
            if other.phase == Phase::Preflight && !over && !self.known[*id].proven {
                return Err(format!("{} began before the preflight of {} was over", place.step.id, self.names[other.platform]));
            }
        }
        let waits = self.canary.filter(|canary| *canary != place.platform);
        match self.places.iter().find(|(id, other)| waits == Some(other.platform) && !self.known[**id].proven) {
            Some((id, _)) => Err(format!("{} began before the canary was through: {id} is not proven", place.step.id)),
            None => Ok(()),
        }
    }

    fn acted(&mut self, at: &Attempt) -> Result<(), String> {
        let repeat = self.places.get(&at.step).map_or(Repeat::Ask, |place| place.step.spec.repeat);
        let known = self.known(&at.step)?;
        if known.proven {
            return Err(format!("attempt {} of {} acted although the step was done", at.attempt, at.step));
        }
        let again = std::mem::replace(&mut known.acted, true);
        let allowed = match repeat {
            Repeat::Ask => false,
            // Only an attempt that is dead and provably did nothing may be repeated without asking.
            Repeat::Allowed => known.bad == Some(Outcome::Failed),
        };
        if again && !std::mem::take(&mut known.retry) && !allowed {
            return Err(format!(
                "attempt {} of {} acted again after {:?}, and nobody had decided that",
                at.attempt, at.step, known.bad
            ));
        }
        known.bad = None;
        Ok(())
    }

    /// Every beginning of a record is a good one, since a write can be cut off anywhere: a step that is taken back leaves none open
    /// behind it, which the next controller would grant alone.
    ///
    /// # Errors
    /// The step that is open.
    pub(crate) fn beginnings(&self, chain: &Chain) -> Result<(), String> {
        let mut open: BTreeSet<StepId> = BTreeSet::new();
        for event in &chain.events {
            let Some(id) = event.scope.step.clone().map(StepId) else { continue };
            match event.kind {
                Kind::StepGranted { .. } => drop(open.insert(id)),
                Kind::StepFinished { .. } => drop(open.remove(&id)),
                Kind::StepRevoked => {
                    open.remove(&id);
                    let behind = |other: &&StepId| self.stands_behind(other, &id);
                    if let Some(left) = open.iter().find(behind) {
                        return Err(format!("the record takes {id} back in front of {left}, which stands behind it"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// After a run was taken up again, nothing new is granted on a platform that is past its preflight before its checks were made again
    /// and hold nothing up.
    ///
    /// # Errors
    /// The step that was granted all the same.
    pub(crate) fn looked_again(&self, chain: &Chain) -> Result<(), String> {
        let (mut judged, mut due) = (BTreeSet::new(), BTreeSet::new());
        for event in &chain.events {
            let scope = &event.scope;
            let platform = scope.platform.as_deref().and_then(|name| self.names.iter().position(|known| *known == name));
            match (&event.kind, platform) {
                (Kind::RunResumed { .. }, _) => due = judged.clone(),
                (Kind::ChecksRepeated { holding }, Some(platform)) if holding.is_empty() => drop(due.remove(&platform)),
                // A write may be cut off between the barrier and the end of its stage: then it is judged once more.
                (Kind::StageFinished, Some(platform)) => {
                    let stage = |place: &&Place| {
                        let inspects = matches!(place.step.spec.action, Action::Inspect { .. });
                        let name = place.step.id.0.split('/').nth(2);
                        inspects && place.phase == Phase::Preflight && place.platform == platform && name == scope.stage.as_deref()
                    };
                    if scope.phase.as_deref() == Some(Phase::Preflight.as_str()) && self.places.values().any(|p| stage(&p)) {
                        judged.insert(platform);
                    }
                }
                (Kind::StepGranted { .. }, Some(platform)) if due.contains(&platform) => {
                    let step = scope.step.as_deref().unwrap_or_default();
                    return Err(format!("{step} was granted before the checks of its platform were made again"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether one step of a host waits for another one in the same wave.
    fn stands_behind(&self, step: &StepId, before: &StepId) -> bool {
        let (Some(step), Some(before)) = (self.places.get(step), self.places.get(before)) else { return false };
        let queue = |place: &Place| (place.platform, place.stage, place.step.wave, place.step.host.clone());
        queue(step) == queue(before) && step.position > before.position
    }

    /// Whether every step was proven, or a person answered for it.
    ///
    /// # Errors
    /// A step that was not.
    pub(crate) fn complete(&self) -> Result<(), String> {
        let missing = self.places.iter().find(|(id, place)| !place.tolerant && !self.known[**id].proven);
        missing.map_or(Ok(()), |(id, _)| Err(format!("the run {} says that all is well, and {id} was never proven", self.run)))
    }
}

/// No step begins on a host that another run or a newer token holds.
///
/// # Errors
/// The step that did.
pub(crate) fn fencing<'t>(truth: impl Iterator<Item = &'t Truth>) -> Result<(), String> {
    let mut held: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut running: BTreeMap<&str, &Attempt> = BTreeMap::new();
    for what in truth {
        match what {
            Truth::Locked { host, run, token } => {
                held.insert(host, (run, *token));
                if highest.insert(host, *token).is_some_and(|before| before >= *token) {
                    return Err(format!("{host} gave out the token {token}, which is not newer than those before it"));
                }
            }
            Truth::Released { host } => {
                held.remove(host.as_str());
            }
            Truth::Began { host, run, at, token, .. } => {
                if held.get(host.as_str()) != Some(&(run.as_str(), *token)) {
                    let holder = held.get(host.as_str());
                    return Err(format!("{} of {run} began on {host} with token {token}, and {holder:?} held it", at.step));
                }
                if let Some(other) = running.insert(host, at) {
                    return Err(format!("{} began on {host} while {} still ran there", at.step, other.step));
                }
            }
            Truth::Died { host, .. } | Truth::Ended { host, .. } => {
                running.remove(host.as_str());
            }
            _ => {}
        }
    }
    Ok(())
}
