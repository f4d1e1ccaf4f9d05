//! What is asked of the state of a run. Nothing here decides what may happen next, and all but a few remarks of the engine change nothing.

use super::*;

impl RunState {
    /// A planned step by its indices.
    pub fn step(&self, platform: usize, step: usize) -> Option<&PlannedStep> {
        let mut rest = step;
        for stage in self.plan.platforms.get(platform)?.phases.iter().flat_map(|phase| &phase.stages) {
            match stage.steps.get(rest) {
                Some(step) => return Some(step),
                None => rest -= stage.steps.len(),
            }
        }
        None
    }

    /// The indices of a step of this plan.
    pub fn find(&self, id: &StepId) -> Option<(usize, usize)> {
        self.index.get(id).copied()
    }

    /// Which attempt the next grant of a step is, from 1.
    pub fn next_attempt(&self, platform: usize, step: usize) -> u32 {
        self.platforms[platform].steps[step].attempt + 1
    }

    /// Phase and name of a platform's current stage.
    pub fn stage(&self, platform: usize) -> (Phase, &str) {
        let platform = &self.platforms[platform];
        let stage = &platform.stages[platform.at.min(platform.stages.len() - 1)];
        (stage.phase, &stage.name)
    }

    /// Whether opening the current stage's barrier ends its phase, and whether it ends the platform.
    pub fn ends(&self, platform: usize) -> (bool, bool) {
        let platform = &self.platforms[platform];
        (platform.stages[platform.at].phase_ends, platform.at + 1 == platform.stages.len())
    }

    /// The platform's name.
    pub fn platform_name(&self, platform: usize) -> &str {
        &self.platforms[platform].name
    }

    /// Whether a step acts, or is only probed because its host is outside `--limit` or the inventory leaves it out. Files in Caravan's
    /// own directories are pushed everywhere: they touch nothing.
    pub fn acts(&self, step: &PlannedStep) -> bool {
        let own = matches!(step.spec.action, Action::PushFile { .. } | Action::Download { .. });
        !self.is_skipped(step) && (own || self.bounds.limit.as_ref().is_none_or(|limit| limit.contains(&step.host)))
    }

    /// No new grants from now on (Ctrl-C). Not an event: it is recorded when the run has come to rest.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// A person is being asked (+1), or the question is over (-1).
    pub fn asking(&mut self, platform: usize, change: isize) {
        let asking = &mut self.platforms[platform].asking;
        *asking = asking.saturating_add_signed(change);
    }

    /// Whether every platform is over, or the run was paused and nothing is open any more.
    pub fn at_rest(&self) -> bool {
        let idle = |p: &PlatformState| p.claiming.is_empty() && p.stages.iter().all(|stage| stage.open == 0);
        self.platforms.iter().all(|p| p.end.is_some() || (self.paused && idle(p)))
    }

    /// The run ends once it is at rest, and cannot be resumed.
    pub fn abort(&mut self) {
        self.paused = true;
        self.aborted = true;
    }

    /// Whether a person ended the run.
    pub fn was_aborted(&self) -> bool {
        self.aborted
    }

    /// Whether the run was paused before its end.
    pub fn was_paused(&self) -> bool {
        self.paused && self.platforms.iter().any(|p| p.end.is_none())
    }

    /// Hosts that have granted steps which have not ended.
    pub fn busy_hosts(&self) -> impl Iterator<Item = &String> {
        self.busy.keys()
    }

    /// Whether something that a host says about a step can be so: it is the step's host, and the step was granted to it, in this attempt,
    /// and has not ended.
    pub fn awaits(&self, id: &StepId, host: &str, attempt: Option<u32>) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            step.status.is_open() && attempt.is_none_or(|n| n == step.attempt) && self.on_host(platform, step, host)
        })
    }

    /// The digests of the copies that are kept off the hosts, by the step that made them.
    pub fn kept(&self) -> &BTreeMap<StepId, String> {
        &self.kept
    }

    /// Whether a copy that a step made is kept.
    pub fn is_kept(&self, id: &StepId) -> bool {
        self.kept.contains_key(id)
    }

    /// Whether an attempt at a host's own step is newer than anything that was granted.
    pub fn never_granted(&self, id: &StepId, host: &str, attempt: u32) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            attempt > step.attempt && self.on_host(platform, step, host)
        })
    }

    /// Whether a step's host said that it began.
    pub fn has_begun(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| self.platforms[platform].steps[index].status == StepStatus::Running)
    }

    /// Whether a step can have begun although its host has not said so: a controller before this one granted it.
    pub fn may_have_begun(&self, id: &StepId) -> bool {
        let step = |(platform, index): (usize, usize)| &self.platforms[platform].steps[index];
        self.find(id).map(step).is_some_and(|step| step.inherited || step.status == StepStatus::Running)
    }

    /// Whether a step's end is what a controller assumed of a host that stayed away.
    pub fn is_assumed(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| {
            let step = &self.platforms[platform].steps[index];
            let of_agent = self.step(platform, index).is_some_and(|planned| executor(planned) == Executor::Agent);
            step.assumed && step.status.is_bad() && of_agent
        })
    }

    /// Whether a watchdog has spoken about the attempt at a step that runs.
    pub fn is_alerted(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, index)| self.platforms[platform].steps[index].alerted)
    }

    /// Granted steps of a host that have not ended.
    pub fn open_steps(&self, host: &str) -> Vec<StepId> {
        let open = |(platform, step): (usize, &StepState)| step.status.is_open() && self.on_host(platform, step, host);
        let mut found = Vec::new();
        for (id, (platform, step)) in &self.index {
            if open((*platform, &self.platforms[*platform].steps[*step])) {
                found.push((*platform, *step, id.clone()));
            }
        }
        found.sort();
        found.into_iter().map(|(_, _, id)| id).collect()
    }

    /// The newest event of a host that is in the journal; 0 when there is none.
    pub fn host_seq(&self, host: &str) -> u64 {
        self.host_seqs.get(host).copied().unwrap_or_default()
    }

    /// From behind which event a host's supervisor has to show again what happened, so that the output of the step that runs there can
    /// be told apart.
    pub fn replay_from(&self, host: &str) -> u64 {
        let begun = self.begun.get(host).filter(|_| self.busy.contains_key(host));
        begun.map_or(self.host_seq(host), |seq| seq.saturating_sub(1))
    }

    /// Whether a controller of this run ever had the lock of a host.
    pub fn was_held(&self, host: &str) -> bool {
        self.platforms.iter().any(|platform| platform.held.contains(host))
    }

    /// A step by its id's text.
    pub fn find_text(&self, id: &str) -> Option<&PlannedStep> {
        let (platform, index) = self.find(&StepId(id.to_owned()))?;
        self.step(platform, index)
    }

    /// Whether nothing more is granted.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Hosts of a platform that were not brought to its end, by name.
    pub fn failed_hosts(&self, platform: usize) -> Vec<String> {
        let state = &self.platforms[platform];
        let last = state.stages.get(state.at).filter(|stage| stage.tolerant);
        let here = last.into_iter().flat_map(|stage| stage.hosts_left());
        let failed: BTreeSet<&String> = state.dropped.iter().chain(here).collect();
        failed.into_iter().cloned().collect()
    }

    /// The newest attempt at a step that was granted; 0 when there is none.
    pub fn attempt(&self, id: &StepId) -> u32 {
        self.find(id).map_or(0, |(platform, step)| self.platforms[platform].steps[step].attempt)
    }

    /// How a step ended, if it did.
    pub fn ended(&self, id: &StepId) -> Option<Outcome> {
        let (platform, step) = self.find(id)?;
        match self.platforms[platform].steps[step].status {
            StepStatus::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Whether a step is granted and has not ended.
    pub fn is_open(&self, id: &StepId) -> bool {
        self.find(id).is_some_and(|(platform, step)| self.platforms[platform].steps[step].status.is_open())
    }

    /// Whether a platform is past its preflight, and not over well: then its hosts stay this run's.
    pub fn keeps_locks(&self, platform: usize) -> bool {
        let state = &self.platforms[platform];
        !self.aborted && state.end != Some(RunOutcome::Ok) && state.has_been_touched()
    }

    /// Hosts that a controller before this one took and that this one had no reason to take. A host that is away cannot be parted from,
    /// and one with open steps is not disturbed: they go on.
    pub fn left_attended(&self) -> Vec<String> {
        let claimed = |host: &String| self.platforms.iter().any(|platform| platform.claimed.contains(host));
        let takes_part = |p: &&PlatformState| self.bounds.platforms.contains(&p.name);
        let ours = |host: &String| self.platforms.iter().filter(takes_part).any(|platform| platform.agents.contains(host));
        let left = |host: &&String| ours(host) && !claimed(host) && !self.away.contains(*host) && !self.busy.contains_key(*host);
        self.attended.iter().filter(left).cloned().collect()
    }

    /// The platform of a host that agents work on.
    pub fn platform_of(&self, host: &str) -> Option<usize> {
        self.platforms.iter().position(|platform| platform.agents.contains(host))
    }

    /// The hosts of a platform whose locks this controller neither has nor asked for, and that can be reached as far as it knows.
    pub fn unclaimed(&self, platform: usize) -> impl Iterator<Item = &String> {
        let state = &self.platforms[platform];
        let known = |host: &&String| state.claimed.contains(*host) || state.claiming.contains(*host) || self.away.contains(*host);
        state.agents.iter().filter(move |host| !known(host))
    }

    /// The hosts of a platform that an agent has steps for.
    pub fn agent_hosts(&self, platform: usize) -> &BTreeSet<String> {
        &self.platforms[platform].agents
    }

    /// Whether a person decided that the step is not carried out.
    pub fn is_skipped(&self, step: &PlannedStep) -> bool {
        let decided = self.find(&step.id).is_some_and(|(platform, at)| self.platforms[platform].steps[at].skipped);
        decided || step.skip.is_some()
    }

    /// Gates that wait for a person, by platform and step.
    pub fn waiting_gates(&self) -> Vec<(usize, usize)> {
        let platforms = self.platforms.iter().enumerate();
        let of = |(number, platform): (usize, &PlatformState)| -> Vec<(usize, usize)> {
            let waiting = platform.steps.iter().enumerate().filter(|(_, at)| at.status == StepStatus::Gate);
            waiting.map(|(index, _)| (number, index)).collect()
        };
        platforms.flat_map(of).collect()
    }

    /// Phase and name of the stage that a step stands in.
    pub fn place(&self, step: &PlannedStep) -> (Phase, &str) {
        let at = self.find(&step.id).and_then(|(platform, index)| {
            let platform = &self.platforms[platform];
            platform.stages.get(platform.steps[index].stage)
        });
        at.map_or((Phase::Preflight, ""), |stage| (stage.phase, stage.name.as_str()))
    }

    /// Findings that were overridden so far, with their reasons.
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overridden
    }

    /// Steps that failed and may be started again without asking: those that a resumed run retries.
    pub fn repeatable(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (number, platform) in self.platforms.iter().enumerate().filter(|(_, platform)| platform.end.is_none()) {
            for (index, at) in platform.steps.iter().enumerate() {
                let failed = at.status == StepStatus::Ended(Outcome::Failed);
                let planned = || self.step(number, index);
                if failed && planned().is_some_and(|step| step.spec.repeat == Repeat::Allowed || !self.acts(step)) {
                    found.push((number, index));
                }
            }
        }
        found
    }

    fn on_host(&self, platform: usize, step: &StepState, host: &str) -> bool {
        self.platforms[platform].stages[step.stage].waves[step.wave].queues[step.queue].host == host
    }

    /// How the run ended and its exit code (design: exit codes, the first that applies). Findings about a host that could not be reached
    /// are that host's matter (3), not failures of their own (1).
    pub fn verdict(&self) -> (RunOutcome, u8) {
        let selected = || self.platforms.iter().filter(|p| self.bounds.platforms.contains(&p.name));
        let finding_holds = |f: &Finding| {
            f.overridden.is_none()
                && matches!(f.status, Status::Failure | Status::Unknown)
                && match &f.host {
                    Some(host) => !self.unreachable.contains(host),
                    None => f.status == Status::Failure || !self.any_unreachable(&f.platform),
                }
        };
        let failed = selected().any(|p| {
            let failed = |s: &StepState| s.status.is_bad() && (s.assumed || s.status == StepStatus::Ended(Outcome::Failed));
            p.findings.iter().any(finding_holds) || p.steps.iter().any(failed)
        });
        if self.aborted {
            (RunOutcome::Aborted, 1)
        } else if self.locked {
            (RunOutcome::Stopped, 4)
        } else if failed {
            (RunOutcome::Stopped, 1)
        } else if !self.unreachable.is_empty() {
            (RunOutcome::Stopped, 3)
        } else if self.was_paused() || selected().any(|p| p.end != Some(RunOutcome::Ok)) {
            (RunOutcome::Waiting, 5)
        } else {
            (RunOutcome::Ok, 0)
        }
    }

    fn any_unreachable(&self, platform: &str) -> bool {
        let hosts = self.plan.platforms.iter().filter(|p| p.name == platform).flat_map(|p| &p.phases);
        hosts.flat_map(|phase| &phase.stages).flat_map(|stage| &stage.hosts).any(|host| self.unreachable.contains(host))
    }
}
