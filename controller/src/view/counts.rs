//! Counts that move with each step, and the order that they prove.

use super::model::*;
use super::record::Breach;
use jiff::Timestamp;
use proto::Outcome;

impl View {
    /// Changes a step, and keeps every count that depends on it.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut StepView)) {
        let Some(step) = self.steps.get_mut(at) else { return };
        let (settled, bucket) = (step.settled(), Bucket::of(step));
        change(step);
        let (now_settled, now_bucket, state) = (step.settled(), Bucket::of(step), step.state);
        let (stage_at, slot, wave) = (step.stage, step.slot, step.wave);
        let Some(stage) = self.stages.get_mut(stage_at) else { return };
        if let Some(open) = stage.open_waves.get_mut(&wave) {
            match (settled, now_settled) {
                (false, true) => *open -= 1,
                (true, false) => *open += 1,
                _ => {}
            }
        }
        if let Some(host) = stage.hosts.get_mut(slot) {
            if let Some(count) = bucket.count(host) {
                *count -= 1;
            }
            if let Some(count) = now_bucket.count(host) {
                *count += 1;
            }
            match state {
                StepState::Running => host.current = Some(at),
                _ if host.current == Some(at) => host.current = None,
                _ => {}
            }
            if matches!(now_bucket, Bucket::Failed | Bucket::Unknown) {
                host.worst = Some(at);
            } else if host.worst == Some(at) {
                host.worst = None;
            }
        }
        self.recount(stage_at, slot);
        self.move_frontier(stage_at);
    }

    /// Works out the state of a host in a stage again and moves it between the stage's counts.
    pub(super) fn recount(&mut self, stage: usize, slot: usize) {
        let Some(stage) = self.stages.get_mut(stage) else { return };
        let Some(host) = stage.hosts.get_mut(slot) else { return };
        let left_behind =
            stage.tolerant && self.platforms.get(stage.platform).is_some_and(|platform| platform.dropped.contains(&host.name));
        let touched = host.open + host.proven + host.accepted + host.failed + host.unknown > 0;
        let state =
            if host.total == 0 && stage.state == Progressed::Done || host.total > 0 && host.proven + host.accepted >= host.total {
                HostState::Done
            } else if host.failed > 0 {
                HostState::Failed
            } else if self.index.away.contains_key(&host.name) && (touched || stage.state != Progressed::Waiting) {
                HostState::Unreachable
            } else if host.unknown > 0 {
                HostState::Failed
            } else if left_behind && host.open == 0 {
                HostState::Dropped
            } else if touched {
                HostState::Running
            } else {
                HostState::Waiting
            };
        *stage.counts.of(host.state) -= 1;
        *stage.counts.of(state) += 1;
        host.state = state;
    }

    /// Whether everything before a stage may be built upon. Preflight is over when its barrier opened: what it checks is judged
    /// by findings, and those can be overridden. A tolerant stage is over for the hosts that did not end well in it.
    fn passable(&self, at: usize) -> bool {
        self.stages.get(at).is_some_and(|stage| {
            let phase = self.platforms.get(stage.platform).and_then(|platform| platform.phases.get(stage.phase));
            let preflight = stage.phase_name == crate::plan::Phase::Preflight;
            let passed = stage.tolerant && stage.state == Progressed::Done && stage.hosts.iter().all(|host| host.open == 0);
            stage.settled()
                || passed
                || preflight
                    && (stage.state == Progressed::Done
                        || stage.barrier.is_some()
                        || phase.is_some_and(|phase| phase.state == Progressed::Done || phase.barrier.is_some()))
        })
    }

    pub(super) fn move_frontier(&mut self, changed: usize) {
        let Some(platform) = self.stages.get(changed).map(|stage| stage.platform) else { return };
        let Some((mut frontier, range)) = self.platforms.get(platform).map(|view| (view.frontier, view.stages.clone())) else {
            return;
        };
        if changed < frontier && !self.passable(changed) {
            frontier = changed;
        }
        while frontier < range.end && self.passable(frontier) {
            frontier += 1;
        }
        if let Some(platform) = self.platforms.get_mut(platform) {
            platform.frontier = frontier;
        }
    }

    /// Notes a step that acts before everything ahead of it is proven.
    pub(super) fn check_order(&mut self, at: usize, time: Option<Timestamp>) {
        let Some(step) = self.steps.get(at) else { return };
        let (stage_at, wave, id, host) = (step.stage, step.wave, step.id.clone(), step.host.clone());
        self.move_frontier(stage_at);
        let Some(stage) = self.stages.get(stage_at) else { return };
        let frontier = self.platforms.get(stage.platform).map_or(stage_at, |platform| platform.frontier);
        let before = if frontier < stage_at {
            self.stages.get(frontier).map(|stage| stage.label.clone())
        } else {
            self.unsettled_before(stage_at, wave, &host)
        };
        if let Some(before) = before {
            self.breaches.push(Breach { step: id, time, before });
        }
    }

    /// What has to be proven before a step of this wave begins on a host, though its platform may go on: the waves before it, and in
    /// a tolerant stage what the host itself did not get done.
    fn unsettled_before(&self, stage_at: usize, wave: u32, host: &str) -> Option<String> {
        let stage = self.stages.get(stage_at)?;
        if !stage.tolerant {
            let open = stage.open_waves.iter().find(|(number, open)| **number < wave && **open > 0);
            return open.map(|(number, _)| format!("{}, wave {}", stage.label, number + 1));
        }
        let first = self.platforms.get(stage.platform)?.stages.start;
        let earlier = self.stages.get(first..stage_at)?.iter().filter(|stage| stage.tolerant);
        let mut lost = earlier.filter(|stage| stage.hosts.iter().any(|known| known.name == host && known.state != HostState::Done));
        if let Some(lost) = lost.next() {
            return Some(lost.label.clone());
        }
        let unsettled = |step: &&StepView| step.wave < wave && !step.settled();
        // A host that did not end well in an earlier wave, or that is away, is not waited for.
        let under_way = |host: &HostView| matches!(host.state, HostState::Waiting | HostState::Running);
        let waits = |step: &StepView| step.host == host || stage.hosts.get(step.slot).is_some_and(under_way);
        let step = self.steps_of(stage).iter().filter(unsettled).find(|step| waits(step))?;
        Some(format!("{}, wave {}", stage.label, step.wave + 1))
    }
}

/// Which count of its host a step stands in.
#[derive(Clone, Copy)]
enum Bucket {
    None,
    Open,
    Proven,
    Accepted,
    Failed,
    Unknown,
}

impl Bucket {
    fn of(step: &StepView) -> Self {
        match step.state {
            StepState::Granted | StepState::Running => Self::Open,
            StepState::Ended(outcome) if outcome.is_proof() => Self::Proven,
            _ if step.accepted.is_some() => Self::Accepted,
            StepState::Ended(Outcome::Unknown) => Self::Unknown,
            StepState::Ended(_) => Self::Failed,
            StepState::Waiting => Self::None,
        }
    }

    fn count(self, host: &mut HostView) -> Option<&mut usize> {
        match self {
            Self::None => None,
            Self::Open => Some(&mut host.open),
            Self::Proven => Some(&mut host.proven),
            Self::Accepted => Some(&mut host.accepted),
            Self::Failed => Some(&mut host.failed),
            Self::Unknown => Some(&mut host.unknown),
        }
    }
}
