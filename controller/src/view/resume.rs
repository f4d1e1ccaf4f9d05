//! How a run begins and goes on: the lives of its controllers, and the time between them.

use super::model::*;
use super::record::Life;
use super::steps::keep_attempt;
use super::text::sanitize;
use crate::plan::Phase;
use jiff::{SignedDuration, Timestamp};
use proto::Kind;
use proto::event::{Conditions, RunOutcome};
use std::time::Duration;

/// The same, as it can be shown.
fn harmless(conditions: &Conditions) -> Conditions {
    let clean = |text: &String| sanitize(text).into_owned();
    Conditions {
        canaries: conditions.canaries.iter().map(clean).collect(),
        window: conditions.window.as_ref().map(clean),
        ..conditions.clone()
    }
}

impl View {
    pub(super) fn begin(&mut self, time: Option<Timestamp>, kind: &Kind) {
        let Kind::RunStarted { command, operator, version, plan, limit, platforms, undoes, conditions, .. } = kind else { return };
        let clean = |text: &String| sanitize(text).into_owned();
        self.run.command = clean(command);
        self.run.operator = clean(operator);
        self.run.version = clean(version);
        self.run.plan = clean(plan);
        self.run.limit = limit.as_ref().map(clean);
        self.run.undoes = undoes.as_ref().map(clean);
        self.run.started = self.run.started.or(time);
        self.is_under_way();
        if !platforms.is_empty() {
            self.platforms.iter_mut().for_each(|platform| platform.selected = platforms.contains(&platform.name));
        }
        self.lives.push(Life {
            command: clean(command),
            operator: clean(operator),
            version: clean(version),
            from: time,
            until: None,
            ended: false,
            cut_bytes: 0,
            from_hosts: false,
            conditions: harmless(conditions),
            paused: None,
        });
    }

    /// A controller took the run up again. What was known in memory alone is not known any more: where hosts are, whose their locks
    /// are, what was read from them. What hosts have is open until they say what became of it.
    pub(super) fn resume(&mut self, time: Option<Timestamp>, kind: &Kind) {
        let Kind::RunResumed { command, operator, version, cut_bytes, from_hosts, conditions } = kind else { return };
        let clean = |text: &String| sanitize(text).into_owned();
        self.is_under_way();
        self.lives.push(Life {
            command: clean(command),
            operator: clean(operator),
            version: clean(version),
            from: time,
            until: None,
            ended: false,
            cut_bytes: *cut_bytes,
            from_hosts: *from_hosts,
            conditions: harmless(conditions),
            paused: None,
        });
        let gone: Vec<(String, usize)> = self.index.away.drain().collect();
        for (host, at) in gone {
            if let Some(known) = self.interruptions.get_mut(at) {
                known.until = time;
            }
            self.recount_host(&host);
        }
        self.drop_unjudged_findings();
        (0..self.platforms.len()).for_each(|at| self.reopen(at));
    }

    fn is_under_way(&mut self) {
        self.run.ended = None;
        self.run.outcome = None;
        self.run.exit_code = None;
    }

    /// Checks whose barrier is not open are made again; until then nothing is known of what they found.
    fn drop_unjudged_findings(&mut self) {
        let (platforms, stages) = (&self.platforms, &self.stages);
        self.findings.retain(|known| {
            let platform = platforms.iter().find(|platform| platform.name == known.finding.platform);
            let stages = platform.and_then(|platform| stages.get(platform.stages.clone())).unwrap_or_default();
            // Where the journal does not name the stage, the whole phase has to be over.
            let mut its = stages
                .iter()
                .filter(|stage| stage.phase_name.as_str() == known.phase && (known.stage.is_empty() || stage.name == known.stage));
            known.step.is_some() || its.all(|stage| stage.state == Progressed::Done)
        });
        let places = self.findings.iter().enumerate();
        let key = |known: &super::FindingView| (known.phase.clone(), known.finding.platform.clone(), known.finding.id.clone());
        self.index.findings = places.map(|(at, known)| (key(known), at)).collect();
    }

    /// The checks of a platform are made again: until then nothing is known of what they found.
    pub(super) fn recheck(&mut self, name: &str) {
        let Some(platform) = self.index.platforms.get(name).and_then(|at| self.platforms.get_mut(*at)) else { return };
        let mut again = Vec::new();
        for at in platform.stages.clone() {
            let Some(stage) = self.stages.get_mut(at).filter(|stage| stage.phase_name == Phase::Preflight) else { continue };
            let inspects = |at: &usize| self.steps.get(*at).is_some_and(|step| step.action == "inspect");
            let checks: Vec<usize> = stage.steps.clone().filter(inspects).collect();
            if !checks.is_empty() {
                (stage.state, stage.ended) = (Progressed::Running, None);
                again.extend(checks);
            }
        }
        for phase in platform.phases.iter_mut().filter(|phase| phase.name == Phase::Preflight) {
            (phase.state, phase.ended) = (Progressed::Running, None);
        }
        again.into_iter().for_each(|step| self.reopen_step(step));
        self.drop_unjudged_findings();
    }

    /// A platform that did not end well goes on where it stopped.
    fn reopen(&mut self, at: usize) {
        let Some(platform) = self.platforms.get_mut(at).filter(|platform| platform.outcome != Some(RunOutcome::Ok)) else { return };
        platform.outcome = None;
        platform.ended = None;
        platform.message.clear();
        // Hosts that dropped out of a tolerant stage have another chance in it.
        let dropped = std::mem::take(&mut platform.dropped);
        let range = platform.stages.clone();
        for stage in self.stages.get_mut(range.clone()).unwrap_or_default() {
            let again = stage.tolerant && stage.state == Progressed::Done && !stage.settled();
            if stage.state == Progressed::Stopped || again {
                stage.state = Progressed::Running;
                stage.ended = None;
            }
        }
        let stages = &self.stages;
        if let Some(platform) = self.platforms.get_mut(at) {
            for phase in platform.phases.iter_mut().filter(|phase| phase.started.is_some()) {
                let open = |at: usize| stages.get(at).is_some_and(|stage| stage.state == Progressed::Running);
                if phase.state == Progressed::Stopped || phase.stages.clone().any(open) {
                    phase.state = Progressed::Running;
                    phase.ended = None;
                }
            }
        }
        for stage in range {
            let Some(steps) = self.stages.get(stage).filter(|stage| stage.state == Progressed::Running).map(|s| s.steps.clone())
            else {
                continue;
            };
            steps.for_each(|step| self.reopen_step(step));
        }
        dropped.iter().for_each(|host| self.recount_host(host));
    }

    fn reopen_step(&mut self, at: usize) {
        let Some(step) = self.steps.get_mut(at) else { return };
        let state = match step.state {
            // What was read is evaluated in memory: it is read again until the barrier behind it is open.
            StepState::Waiting => return,
            _ if step.action == "inspect" => {
                keep_attempt(step);
                StepState::Waiting
            }
            // The same attempt, of which its host has not been heard.
            StepState::Ended(_) if step.assumed && step.accepted.is_none() => {
                (step.assumed, step.ended) = (false, None);
                step.message.clear();
                StepState::Granted
            }
            _ => return,
        };
        self.change(at, |step| step.state = state);
    }

    /// Notes when the controller was last heard of.
    pub(super) fn alive(&mut self, time: Option<Timestamp>, kind: &Kind) {
        // Decisions are written down without a controller, too.
        let counts = !matches!(kind, Kind::RunStarted { .. } | Kind::RunResumed { .. } | Kind::Decision { .. });
        if let Some(life) = self.lives.last_mut().filter(|life| counts && !life.ended) {
            life.until = time.or(life.until);
        }
    }

    /// The controller said that it ends.
    pub(super) fn leave(&mut self, time: Option<Timestamp>) {
        if let Some(life) = self.lives.last_mut() {
            life.until = time.or(life.until);
            life.ended = true;
        }
    }

    /// The times in which no controller drove the run: between the last event of one and the beginning of the next.
    pub fn gaps(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let pairs = self.lives.iter().zip(self.lives.iter().skip(1));
        pairs.filter_map(|(before, after)| Some((before.until.or(before.from)?, after.from?)))
    }

    /// How long something took, without the times in which no controller drove the run.
    pub fn worked(&self, from: Option<Timestamp>, until: Option<Timestamp>) -> Option<SignedDuration> {
        let (from, until) = (from?, until?);
        let gone = self.gaps().map(|(left, back)| back.min(until).duration_since(left.max(from)).max(SignedDuration::ZERO));
        Some(until.duration_since(from).saturating_sub(gone.fold(SignedDuration::ZERO, SignedDuration::saturating_add)))
    }

    /// How far a running step is, as far as its time tells where it is expected to take as long as an earlier one: an estimate, and
    /// told as one. Nothing where no earlier one is known.
    pub fn estimate(&self, step: &StepView, now: Timestamp) -> Option<String> {
        let (expected, from) = self.expected.get(&step.id).filter(|(expected, _)| !expected.is_zero())?;
        let started = step.started.filter(|_| step.state == StepState::Running)?;
        // The step runs on its host, whoever drives the run.
        let ran = Duration::try_from(now.duration_since(started)).unwrap_or_default();
        let about = super::text::duration(SignedDuration::try_from(*expected).ok()?);
        Some(match ran.as_millis() * 100 / expected.as_millis().max(1) {
            percent @ 0..100 => format!("about {percent} % of {about} (estimate: {from})"),
            _ => format!("longer than the {about} of {from}"),
        })
    }

    /// [`View::worked`] for people; `–` where a point is missing.
    pub fn took(&self, from: Option<Timestamp>, until: Option<Timestamp>) -> String {
        self.worked(from, until).map_or_else(|| "–".to_owned(), super::text::duration)
    }
}
