//! From decisions to entries of the record, and to what is done once those are durable.

use super::decide;
use super::engine::{Effect, Engine, Inspection, now_ms, output_file};
use super::fold::RECHECK;
use super::journal::Draft;
use super::options::Occasion;
use super::state::Decision;
use crate::hosts::Hosts;
use crate::plan::PlannedStep;
use proto::Action;
use proto::event::{Finding, Kind, RunOutcome, Scope, Status};
use proto::message::{Granted, Mode};
use tokio::time::Instant;

impl<H: Hosts> Engine<'_, H> {
    /// What a decision adds to the record, and what is done once that is durable.
    pub(super) fn prepare(&mut self, decision: Decision, drafts: &mut Vec<Draft>, effects: &mut Vec<Effect>) {
        match decision {
            Decision::Claim { platform, hosts } => {
                // The others are claimed once the first one is ours: they are connected to meanwhile.
                let others = self.state.unclaimed(platform).filter(|host| !hosts.contains(host)).cloned();
                let others: Vec<Effect> = others.map(|host| Effect::Open { host }).collect();
                effects.extend(hosts.into_iter().map(|host| Effect::Claim { host }));
                effects.extend(others);
            }
            Decision::Attach { platform, host, steps } => {
                self.state.told(platform, &steps);
                let planned = steps.into_iter().filter_map(|index| Some((index, self.state.step(platform, index)?)));
                let (mut granted, mut outputs) = (Vec::new(), Vec::new());
                for (index, step) in planned {
                    let attempt = self.state.attempt(&step.id);
                    outputs.push((step.id.clone(), self.options.dir.join(output_file(step, index, attempt))));
                    granted.push(self.granted(step, attempt));
                }
                effects.push(Effect::Grant { host, steps: granted, outputs });
            }
            Decision::Enter { platform, phase_begins } => {
                let scope = self.stage_scope(platform);
                if phase_begins {
                    drafts.push(Draft::new(Scope { stage: None, ..scope.clone() }, Kind::PhaseStarted));
                }
                drafts.push(Draft::new(scope, Kind::StageStarted));
            }
            Decision::Grant { platform, host, steps } => {
                let (mut granted, mut outputs) = (Vec::new(), Vec::new());
                for index in steps {
                    let Some(step) = self.state.step(platform, index) else { continue };
                    let attempt = self.state.next_attempt(platform, index);
                    let acts = self.state.acts(step);
                    drafts.push(Draft::new(
                        self.step_scope(platform, step, attempt),
                        Kind::StepGranted { action: step.action.clone(), prove: !acts },
                    ));
                    outputs.push((step.id.clone(), self.options.dir.join(output_file(step, index, attempt))));
                    granted.push(self.granted(step, attempt));
                }
                effects.push(Effect::Grant { host, steps: granted, outputs });
            }
            Decision::Inspect { platform, host, steps } => {
                let mut queries = Vec::new();
                for index in &steps {
                    let Some(step) = self.state.step(platform, *index) else { continue };
                    if let Action::Inspect { queries: more } = &step.spec.action {
                        queries.extend(more.iter().cloned());
                    }
                    let attempt = self.state.next_attempt(platform, *index);
                    let kind = Kind::StepGranted { action: step.action.clone(), prove: false };
                    drafts.push(Draft::new(self.step_scope(platform, step, attempt), kind));
                }
                self.next_inspection += 1;
                let inspection = Inspection {
                    host: host.clone(),
                    platform,
                    steps,
                    queries: queries.clone(),
                    began: Instant::now(),
                    asked_ms: now_ms(),
                    again: false,
                };
                self.inspections.insert(self.next_inspection, inspection);
                effects.push(Effect::Inspect { host, id: self.next_inspection, queries });
            }
            Decision::Gate { platform, step: index } => {
                let Some(step) = self.state.step(platform, index) else { return };
                let Action::Gate { gate, ask, .. } = &step.spec.action else { return };
                let (gate, ask) = (gate.clone(), ask.clone());
                let scope = self.step_scope(platform, step, self.state.next_attempt(platform, index));
                drafts.push(Draft::new(scope, Kind::GateWaiting { gate: gate.clone(), ask: ask.clone() }));
                match self.options.confirmed.get(&gate).cloned() {
                    Some(note) => drafts.extend(self.confirmation(platform, index, &note)),
                    None if self.options.asker.is_some() => {
                        self.state.asking(platform, 1);
                        effects.push(Effect::Ask { platform, step: index, gate, ask });
                    }
                    None => {}
                }
            }
            Decision::Judge { platform } => self.judge(platform, drafts),
            Decision::Open { platform } => self.open_barrier(platform, drafts),
            Decision::Recheck { platform, reason } => {
                let about = self.state.platform_name(platform).to_owned();
                let scope = Scope { stage: None, phase: None, ..self.stage_scope(platform) };
                let (decision, operator) = (RECHECK.to_owned(), "caravan".to_owned());
                drafts.push(Draft::new(scope, Kind::Decision { decision, about, operator, reason }));
            }
            Decision::LookAgain { platform } => self.look_again(platform, drafts, effects),
            Decision::Pass { platform } => self.leave_stage(platform, drafts),
            Decision::End { platform, outcome, message } => {
                let scope = Scope { stage: None, phase: None, ..self.stage_scope(platform) };
                drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome, message }));
            }
        }
    }

    /// Findings and what follows from them are one batch: a barrier is never open beside findings that were lost.
    fn judge(&mut self, platform: usize, drafts: &mut Vec<Draft>) {
        let scope = self.stage_scope(platform);
        let (phase, _) = self.state.stage(platform);
        let readings = self.readings.remove(&platform).unwrap_or_default();
        let findings = (self.options.judge)(self.state.platform_name(platform), Occasion::Phase(phase), &readings);
        let held = self.found(platform, findings, drafts).len();
        if held == 0 && self.state.proven(platform) {
            return self.open_barrier(platform, drafts);
        }
        if held == 0 && self.state.waits_for_a_person(platform) {
            let message = format!("{phase} waits for a person");
            let scope = Scope { stage: None, phase: None, ..scope };
            return drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome: RunOutcome::Waiting, message }));
        }
        let mut message = match held {
            0 => String::new(),
            1 => format!("{phase}: 1 finding holds it up"),
            n => format!("{phase}: {n} findings hold it up"),
        };
        if !self.state.proven(platform) {
            let why = self.state.why_stopped(platform);
            message = if message.is_empty() { why } else { format!("{message}; {why}") };
        }
        let scope = Scope { stage: None, phase: None, ..scope };
        drafts.push(Draft::new(scope, Kind::PlatformFinished { outcome: RunOutcome::Stopped, message }));
    }

    /// Findings for the record, and which of them hold the platform up, by id.
    pub(super) fn found(&self, platform: usize, findings: Vec<Finding>, drafts: &mut Vec<Draft>) -> Vec<String> {
        let scope = self.stage_scope(platform);
        let holds_up = |f: &&Finding| f.overridden.is_none() && matches!(f.status, Status::Failure | Status::Unknown);
        let held = findings.iter().filter(holds_up).map(|finding| finding.id.clone()).collect();
        for finding in findings {
            let scope = Scope { host: finding.host.clone(), instance: finding.instance.clone(), ..scope.clone() };
            if let Some(reason) = &finding.overridden {
                let (operator, about) = (self.options.claim.operator.clone(), finding.id.clone());
                let decision = Kind::Decision { decision: "override".to_owned(), about, operator, reason: reason.clone() };
                drafts.push(Draft::new(scope.clone(), decision));
            }
            drafts.push(Draft::new(scope, Kind::Finding { finding }));
        }
        held
    }

    fn open_barrier(&self, platform: usize, drafts: &mut Vec<Draft>) {
        let scope = self.stage_scope(platform);
        drafts.push(Draft::new(scope, Kind::BarrierOpened));
        self.leave_stage(platform, drafts);
    }

    /// The stage is over, and with it its phase and the platform where it was their last. Hosts that dropped out of a tolerant stage
    /// were not brought to the end: then the platform has not ended well.
    fn leave_stage(&self, platform: usize, drafts: &mut Vec<Draft>) {
        let scope = self.stage_scope(platform);
        let (phase_ends, platform_ends) = self.state.ends(platform);
        drafts.push(Draft::new(scope.clone(), Kind::StageFinished));
        let scope = Scope { stage: None, ..scope };
        if phase_ends {
            drafts.push(Draft::new(scope.clone(), Kind::PhaseFinished));
        }
        if platform_ends {
            let failed = self.state.failed_hosts(platform);
            let (outcome, message) = match failed.is_empty() {
                true => (RunOutcome::Ok, String::new()),
                false => (RunOutcome::Stopped, format!("without {}", failed.join(", "))),
            };
            let kind = Kind::PlatformFinished { outcome, message };
            drafts.push(Draft::new(Scope { phase: None, ..scope }, kind));
        }
    }

    /// The entries of a gate that a person confirmed.
    pub(super) fn confirmation(&self, platform: usize, index: usize, note: &str) -> Vec<Draft> {
        let Some(step) = self.state.step(platform, index) else { return Vec::new() };
        let Action::Gate { gate, .. } = &step.spec.action else { return Vec::new() };
        let scope = self.step_scope(platform, step, self.state.next_attempt(platform, index));
        decide::confirmation(scope, gate, note, &self.options.claim.operator)
    }

    fn granted(&self, step: &PlannedStep, attempt: u32) -> Granted {
        let mode = if self.state.acts(step) { Mode::Act } else { Mode::Prove };
        Granted { spec: step.spec.clone(), attempt, mode }
    }
}
