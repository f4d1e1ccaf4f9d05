//! What may happen next in a run: a function of where it stands.

use super::again::{self, Admission, Again};
use super::stage::{Room, StepStatus, Terms};
use super::state::{Decision, PlatformState, RunState};
use super::touch::Hold;
use crate::plan::Phase;
use proto::event::{Outcome, RunOutcome};
use std::collections::{BTreeMap, BTreeSet};

impl RunState {
    /// What may happen now. Each decision has to be journaled, applied and carried out before the next call.
    pub fn decide(&mut self) -> Vec<Decision> {
        let mut room = Room {
            preflight_over: self.platforms.iter().all(|p| p.end.is_some() || !p.is_in_preflight()),
            platforms: self.bounds.parallel_platforms.saturating_sub(self.platforms.iter().filter(|p| p.is_touched()).count()),
            hosts: self.bounds.parallel_hosts.saturating_sub(self.busy.len() - self.stranded()),
        };
        let mut decisions = Vec::new();
        for platform in 0..self.platforms.len() {
            let state = &self.platforms[platform];
            if state.end.is_some() {
                continue;
            }
            let Some(stage) = state.stages.get(state.at) else {
                // The record was cut off between the end of its last stage and its own.
                let without: BTreeSet<&String> = state.stages.iter().flat_map(|stage| stage.hosts_left()).collect();
                let names = without.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
                decisions.push(match without.is_empty() {
                    true => Decision::End { platform, outcome: RunOutcome::Ok, message: String::new() },
                    false => Decision::End { platform, outcome: RunOutcome::Stopped, message: format!("without {names}") },
                });
                continue;
            };
            if self.aborted {
                self.decide_abort(platform, &mut decisions);
            } else if stage.entered {
                self.decide_in_stage(platform, &mut room, &mut decisions);
            } else if !self.paused {
                let (touch, phase_begins) = (state.is_about_to_be_touched(), stage.phase_begins);
                match (touch && room.preflight_over).then(|| self.hold(platform)).flatten() {
                    Some(Hold::End(outcome, message)) => decisions.push(Decision::End { platform, outcome, message }),
                    Some(Hold::Recheck(reason)) => decisions.push(Decision::Recheck { platform, reason }),
                    Some(Hold::Wait) => {}
                    // In the middle it may be entered: nothing is granted before the checks were made.
                    None if !touch => decisions.push(Decision::Enter { platform, phase_begins }),
                    None if !room.has_place() => {}
                    None => match self.platforms[platform].admit(platform, &mut decisions) {
                        Admission::Granted if room.admits(touch) => decisions.push(Decision::Enter { platform, phase_begins }),
                        Admission::Granted | Admission::Wait => {}
                        Admission::Refused(message) => decisions.push(again::stopped(platform, message)),
                    },
                }
            }
        }
        decisions
    }

    /// Hosts with open steps that nobody waits for: their platform ended before this controller could ask what became of them.
    fn stranded(&self) -> usize {
        let ended = self.platforms.iter().filter(|platform| platform.end.is_some() && !platform.unsent.is_empty());
        ended.map(|platform| platform.unsent().len()).sum::<usize>().min(self.busy.len())
    }

    /// What may happen in a stage that was entered: grant what is ready; and once nothing is open any more, open its barrier or end the
    /// platform.
    fn decide_in_stage(&mut self, platform: usize, room: &mut Room, decisions: &mut Vec<Decision>) {
        let state = &mut self.platforms[platform];
        let stage = &state.stages[state.at];
        let (tolerant, judged) = (stage.tolerant, stage.judged);
        let away = !tolerant && stage.is_waiting_for(&self.away);
        // Hosts of a judged stage are read to the end even if one fails: the operator wants all findings at once.
        let closed = !tolerant && !judged && (stage.bad > 0 || away);
        let without: BTreeSet<String> = match tolerant {
            // Whoever failed in one wave has no part in the next one either.
            true => self.away.iter().chain(&state.dropped).chain(stage.hosts_failed()).cloned().collect(),
            false => self.away.clone(),
        };
        let unsent = state.unsent();
        let (ready, for_agent) = match closed || self.paused {
            true => (false, false),
            false => stage.has_ready(&self.plan, platform, &without),
        };
        // Before anything is read, too: whoever comes second is told so at once, and not what a platform looks like in the middle of a
        // migration.
        let looks_again = ready && state.again != Again::No;
        let wanted = for_agent || !unsent.is_empty() || (judged && ready) || looks_again;
        let claims = if wanted { state.claims(tolerant, &self.away, &self.unreachable) } else { Claims::Done };
        let locked = state.agents.iter().any(|host| self.away.contains(host) && !self.unreachable.contains(host));
        match claims {
            Claims::Next(hosts) if !self.paused || !unsent.is_empty() => {
                state.claiming.extend(hosts.iter().cloned());
                decisions.push(Decision::Claim { platform, hosts });
                return;
            }
            Claims::Asked if judged => return,
            // Hosts that are there are read all the same: the operator wants all findings at once.
            Claims::Refused if judged && !locked && unsent.is_empty() => {}
            // A host that cannot be had: nothing is granted on this platform, and what other controllers granted stays unknown, also in
            // stages behind one that a person went back to.
            Claims::Refused if state.claiming.is_empty() && state.open() == state.unsent.len() => {
                let message = format!("{} {}: not all hosts of the platform can be had for this run", stage.phase, stage.name);
                return decisions.push(Decision::End { platform, outcome: RunOutcome::Stopped, message });
            }
            Claims::Done if !unsent.is_empty() => {
                let told =
                    |(host, steps): (&String, &Vec<usize>)| Decision::Attach { platform, host: host.clone(), steps: steps.clone() };
                return decisions.extend(unsent.iter().map(told));
            }
            _ => {}
        }
        if looks_again && !matches!(claims, Claims::Done) && !(judged && matches!(claims, Claims::Refused)) {
            return; // Its hosts are taken first.
        }
        if ready {
            match state.admit(platform, decisions) {
                Admission::Granted => {}
                Admission::Wait => return,
                // What runs goes on, and with it its platform, as far as that.
                Admission::Refused(_) if state.open() > 0 || state.asking > 0 || !state.claiming.is_empty() => return,
                Admission::Refused(message) => return decisions.push(again::stopped(platform, message)),
            }
        }
        let PlatformState { stages, steps, at, .. } = state;
        let stage = &mut stages[*at];
        if ready {
            let before = decisions.len();
            let claimed = matches!(claims, Claims::Done);
            let terms = Terms { platform, plan: &self.plan, steps, without: &without, claimed };
            stage.grant(&terms, room, decisions);
            if decisions.len() > before {
                return;
            }
        }
        if stage.open > 0 || state.asking > 0 || !state.claiming.is_empty() || (self.paused && state.stages[state.at].left() > 0) {
            return;
        }
        if ready {
            return; // It waits for a place among the hosts that work at once.
        }
        decisions.push(self.conclude(platform, closed, away));
    }

    /// The run is being ended: what is open on hosts is taken back or awaited, and every lock that this run has is taken in hand once
    /// more, so that it can be released. Hosts that are away keep theirs.
    fn decide_abort(&mut self, platform: usize, decisions: &mut Vec<Decision>) {
        let away = &self.away;
        let state = &mut self.platforms[platform];
        let known = |host: &&String| !state.claimed.contains(*host) && !state.claiming.contains(*host) && !away.contains(*host);
        // A lock may have been taken of which nothing was recorded any more.
        let entered = state.stages.iter().any(|stage| stage.entered);
        let hosts: Vec<String> = state.agents.iter().filter(|_| entered).filter(known).cloned().collect();
        if !hosts.is_empty() {
            state.claiming.extend(hosts.iter().cloned());
            return decisions.push(Decision::Claim { platform, hosts });
        }
        let unsent = state.unsent();
        let mut lost = 0;
        for (host, steps) in unsent {
            match state.claimed.contains(&host) {
                true => decisions.push(Decision::Attach { platform, host, steps }),
                false => lost += steps.len(),
            }
        }
        if state.claiming.is_empty() && state.open() == lost && decisions.is_empty() {
            let message = "a person ended the run".to_owned();
            decisions.push(Decision::End { platform, outcome: RunOutcome::Aborted, message });
        }
    }

    /// Nothing is open in the stage and nothing more can be granted.
    fn conclude(&self, platform: usize, closed: bool, away: bool) -> Decision {
        let state = &self.platforms[platform];
        let stage = &state.stages[state.at];
        if stage.judged {
            return Decision::Judge { platform };
        }
        if closed {
            let outcome = if !away && self.waits_for_a_decision(platform) { RunOutcome::Waiting } else { RunOutcome::Stopped };
            return Decision::End { platform, outcome, message: stage.why_stopped(&state.steps, &self.away) };
        }
        if stage.gates > 0 {
            let message = format!("{} {} waits for a person", stage.phase, stage.name);
            return Decision::End { platform, outcome: RunOutcome::Waiting, message };
        }
        match stage.left() {
            0 => Decision::Open { platform },
            _ if stage.tolerant => Decision::Pass { platform },
            left => {
                let message = format!("{} {}: {left} steps were not proven and cannot be granted", stage.phase, stage.name);
                Decision::End { platform, outcome: RunOutcome::Stopped, message }
            }
        }
    }

    /// Whether unknown outcomes, as their hosts told them, are all that keeps the stage closed: then a person decides.
    fn waits_for_a_decision(&self, platform: usize) -> bool {
        let state = &self.platforms[platform];
        let here = || state.steps.iter().filter(|at| at.stage == state.at && at.status.is_bad());
        here().all(|at| at.status == StepStatus::Ended(Outcome::Unknown) && !at.assumed)
    }

    /// Whether every step of the current stage ended in proof. The engine asks again right before it opens a barrier.
    pub fn proven(&self, platform: usize) -> bool {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).is_some_and(|stage| stage.left() == 0 && stage.bad == 0 && stage.open == 0)
    }

    /// Whether gates are all that keeps the current stage from being proven.
    pub fn waits_for_a_person(&self, platform: usize) -> bool {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).is_some_and(|s| s.gates > 0 && s.bad == 0 && s.open == 0 && !s.is_waiting_for(&self.away))
    }

    /// Why the current stage cannot open, in one line for people.
    pub fn why_stopped(&self, platform: usize) -> String {
        let platform = &self.platforms[platform];
        platform.stages.get(platform.at).map(|stage| stage.why_stopped(&platform.steps, &self.away)).unwrap_or_default()
    }

    /// Hosts that failed in a tolerant stage and that the platform went on without.
    pub fn dropped(&self, platform: usize) -> &BTreeSet<String> {
        &self.platforms[platform].dropped
    }
}

/// How far a controller is with the locks of a platform's hosts.
enum Claims {
    /// All are its own.
    Done,
    /// These are to be taken now.
    Next(Vec<String>),
    /// Answers are awaited.
    Asked,
    /// One cannot be had.
    Refused,
}

impl PlatformState {
    /// The lowest-named host first, then the others: of two controllers that begin at once, one gets the platform.
    fn claims(&self, tolerant: bool, away: &BTreeSet<String>, unreachable: &BTreeSet<String>) -> Claims {
        // A tolerant stage does without hosts that are gone, but never beside another run.
        let wanted = || self.agents.iter().filter(|host| !tolerant || !unreachable.contains(*host));
        let missing: Vec<&String> = wanted().filter(|host| !self.claimed.contains(*host)).collect();
        if missing.is_empty() {
            return Claims::Done;
        }
        if missing.iter().any(|host| away.contains(*host) && !self.claiming.contains(*host)) {
            return Claims::Refused;
        }
        let first = wanted().next().filter(|first| !self.claimed.contains(*first));
        let next: Vec<String> = match first {
            Some(first) => vec![first.clone()],
            None => missing.into_iter().cloned().collect(),
        };
        let next: Vec<String> = next.into_iter().filter(|host| !self.claiming.contains(host)).collect();
        if next.is_empty() { Claims::Asked } else { Claims::Next(next) }
    }

    /// Open steps by host that this controller has not told their hosts of.
    fn unsent(&self) -> BTreeMap<String, Vec<usize>> {
        let mut unsent: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for step in &self.unsent {
            let at = &self.steps[*step];
            let host = &self.stages[at.stage].waves[at.wave].queues[at.queue].host;
            unsent.entry(host.clone()).or_default().push(*step);
        }
        unsent
    }

    /// How many steps are granted and have not ended, in all stages.
    fn open(&self) -> usize {
        self.stages.iter().map(|stage| stage.open).sum()
    }

    fn phase_at(&self, stage: usize) -> Option<Phase> {
        self.stages.get(stage).map(|stage| stage.phase)
    }

    fn is_in_preflight(&self) -> bool {
        self.phase_at(self.at) == Some(Phase::Preflight)
    }

    /// Whether the stage it has not entered yet is the first one after preflight.
    pub(super) fn is_about_to_be_touched(&self) -> bool {
        !self.is_in_preflight() && self.at.checked_sub(1).is_none_or(|before| self.phase_at(before) == Some(Phase::Preflight))
    }

    /// Whether it left preflight and is not over.
    pub(super) fn is_touched(&self) -> bool {
        self.end.is_none() && self.has_been_touched()
    }

    /// Whether it left preflight.
    pub(super) fn has_been_touched(&self) -> bool {
        let entered = self.stages.get(self.at).is_some_and(|stage| stage.entered);
        !self.is_in_preflight() && (entered || !self.is_about_to_be_touched())
    }
}
