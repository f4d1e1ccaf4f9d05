//! The view of a plan before anything happened, and ways to ask a view.

use super::model::*;
use super::record::{GateView, Interruption};
use super::text::short_names;
use crate::plan::{Expected, Phase, PhasePlan, Plan, PlannedStep, StagePlan};
use proto::{Action, Event};
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl View {
    /// The view of a run of this plan before its first event.
    pub fn new(plan: &Plan) -> Self {
        let mut view = Self {
            fleet: plan.fleet.clone(),
            plan_hash: plan.hash.clone(),
            run: RunInfo::default(),
            platforms: Vec::with_capacity(plan.platforms.len()),
            stages: Vec::new(),
            steps: Vec::new(),
            findings: Vec::new(),
            gates: Vec::new(),
            decisions: Vec::new(),
            interruptions: Vec::new(),
            alerts: Vec::new(),
            backups: Vec::new(),
            pauses: Vec::new(),
            lives: Vec::new(),
            claims: Vec::new(),
            breaches: Vec::new(),
            preflight_barrier: None,
            expected: Expected::new(),
            index: Index::default(),
        };
        for platform in &plan.platforms {
            let at = view.platforms.len();
            let first = view.stages.len();
            let mut phases = Vec::with_capacity(platform.phases.len());
            for (number, phase) in platform.phases.iter().enumerate() {
                let from = view.stages.len();
                for order in 0..phase.stages.len() {
                    view.add_stage(at, number, phase, order);
                }
                phases.push(PhaseView {
                    name: phase.name,
                    state: Progressed::Waiting,
                    started: None,
                    ended: None,
                    barrier: None,
                    stages: from..view.stages.len(),
                });
            }
            let hosts: BTreeSet<&str> =
                view.stages.iter().skip(first).flat_map(|stage| &stage.hosts).map(|host| host.name.as_str()).collect();
            view.index.short.extend(short_names(hosts));
            view.index.platforms.insert(platform.name.clone(), at);
            view.platforms.push(PlatformView {
                name: platform.name.clone(),
                topology: platform.topology,
                source: platform.source.clone(),
                target: platform.target.clone(),
                phases,
                stages: first..view.stages.len(),
                outcome: None,
                message: String::new(),
                selected: true,
                started: None,
                ended: None,
                dropped: BTreeSet::new(),
                frontier: first,
            });
        }
        view
    }

    /// The view of a run after these events.
    pub fn of<'a>(plan: &Plan, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut view = Self::new(plan);
        for event in events {
            view.apply(event);
        }
        view
    }

    /// What screens call a host beside its platform's name: its first label where that is unique in the platform, else its name.
    pub fn short<'a>(&'a self, host: &'a str) -> &'a str {
        self.index.short.get(host).map_or(host, String::as_str)
    }

    /// A step by its id.
    pub fn step(&self, id: &str) -> Option<&StepView> {
        self.index.steps.get(id).and_then(|at| self.steps.get(*at))
    }

    /// The stages of a platform, in order.
    pub fn stages_of(&self, platform: &PlatformView) -> &[StageView] {
        self.stages.get(platform.stages.clone()).unwrap_or_default()
    }

    /// The steps of a stage, in the plan's order.
    pub fn steps_of(&self, stage: &StageView) -> &[StepView] {
        self.steps.get(stage.steps.clone()).unwrap_or_default()
    }

    /// Whether a host is out of reach now.
    pub fn is_away(&self, host: &str) -> bool {
        self.index.away.contains_key(host)
    }

    /// Why a host is out of reach now, if it is.
    pub fn interruption(&self, host: &str) -> Option<&Interruption> {
        self.index.away.get(host).and_then(|at| self.interruptions.get(*at))
    }

    /// Gates that wait for a person.
    pub fn waiting_gates(&self) -> impl Iterator<Item = &GateView> {
        self.gates.iter().filter(|gate| gate.confirmed.is_none())
    }

    fn add_stage(&mut self, platform: usize, number: usize, phase: &PhasePlan, order: usize) {
        let Some(plan) = phase.stages.get(order) else { return };
        let at = self.stages.len();
        let mut stage = StageView {
            platform,
            phase: number,
            phase_name: phase.name,
            name: plan.name.clone(),
            label: label(number, phase, order, plan),
            roles: plan.roles.clone(),
            tolerant: plan.tolerant,
            state: Progressed::Waiting,
            started: None,
            ended: None,
            barrier: None,
            hosts: plan.hosts.iter().map(|name| HostView { name: name.clone(), ..HostView::default() }).collect(),
            steps: self.steps.len()..self.steps.len() + plan.steps.len(),
            counts: Counts { waiting: plan.hosts.len(), ..Counts::default() },
            open_waves: BTreeMap::new(),
        };
        let mut slots: HashMap<&str, usize> = plan.hosts.iter().enumerate().map(|(slot, name)| (name.as_str(), slot)).collect();
        for step in &plan.steps {
            let slot = *slots.entry(step.host.as_str()).or_insert_with(|| {
                stage.hosts.push(HostView { name: step.host.clone(), ..HostView::default() });
                stage.counts.waiting += 1;
                stage.hosts.len() - 1
            });
            if let Some(host) = stage.hosts.get_mut(slot) {
                host.total += 1;
            }
            *stage.open_waves.entry(step.wave).or_default() += 1;
            if let Action::Gate { gate, .. } = &step.spec.action {
                self.index.gate_steps.entry(gate.clone()).or_default().push(self.steps.len());
            }
            self.index.steps.insert(step.id.0.clone(), self.steps.len());
            self.steps.push(step_view(step, at, slot));
        }
        for (slot, host) in stage.hosts.iter().enumerate() {
            self.index.hosts.entry(host.name.clone()).or_default().push((at, slot));
        }
        self.stages.push(stage);
    }
}

fn label(number: usize, phase: &PhasePlan, order: usize, stage: &StagePlan) -> String {
    let number = number + 1;
    let order = order + 1;
    match (phase.stages.len(), phase.name) {
        (1, Phase::Migrate) | (0, _) => format!("{number} {} {}", phase.name, stage.name),
        (1, _) => format!("{number} {}", phase.name),
        (_, Phase::Migrate | Phase::Rollback) => format!("{number}.{order} {}", stage.name),
        _ => format!("{number}.{order} {} {}", phase.name, stage.name),
    }
}

fn step_view(step: &PlannedStep, stage: usize, slot: usize) -> StepView {
    StepView {
        id: step.id.0.clone(),
        name: step.name.clone(),
        title: step.title.clone(),
        host: step.host.clone(),
        instance: step.instance.clone(),
        action: step.action.clone(),
        reversibility: step.reversibility,
        source: step.source.clone(),
        stage,
        slot,
        wave: step.wave,
        state: StepState::Waiting,
        attempt: 0,
        prove: false,
        started: None,
        ended: None,
        duration_ms: 0,
        exit_code: None,
        message: String::new(),
        died: false,
        assumed: false,
        earlier: Vec::new(),
        alerts: Vec::new(),
        output: None,
        accepted: None,
        skipped: false,
        skip: step.skip.clone(),
        repeat: step.spec.repeat,
    }
}
