//! Small random plans: a few platforms, a few hosts, phases, stages, waves, gates, inspections, steps of every kind.

use crate::rng::Rng;
use controller::plan::{Phase, PhasePlan, Plan, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope};
use inventory::Topology;
use proto::step::{Action, Command, Limits, Probe, Repeat, RunAs, StepId, StepSpec};

/// A plan for the stream of numbers.
pub(crate) fn plan(rng: &mut Rng) -> Plan {
    let back = rng.chance(800);
    let platforms = rng.weighted(&[(55, 1), (30, 2), (15, 3)]);
    let hosts = rng.between(platforms, 5.min(platforms * 3));
    let mut names: Vec<Vec<String>> = vec![Vec::new(); platforms as usize];
    for number in 0..hosts {
        // Every platform has a host before any has a second one.
        let platform = if number < platforms { number } else { rng.below(platforms) } as usize;
        let name = format!("p{platform}h{}", names[platform].len());
        names[platform].push(name);
    }
    let platforms = names.iter().enumerate().map(|(p, hosts)| platform(rng, &format!("p{p}"), hosts, back)).collect();
    Plan { fleet: "sim".into(), hash: "0".repeat(64), platforms, files: vec![], warnings: vec![] }
}

fn platform(rng: &mut Rng, name: &str, hosts: &[String], back: bool) -> PlatformPlan {
    let mut phases = vec![preflight(rng, name, hosts)];
    let order: &[Phase] =
        if back { &[Phase::Rollback] } else { &[Phase::Stop, Phase::Backup, Phase::Migrate, Phase::Restart, Phase::Verify] };
    let wanted = if back { 1 } else { rng.between(1, 3) as usize };
    let first = rng.below((order.len() - wanted + 1) as u64) as usize;
    for phase in &order[first..first + wanted] {
        let stages = if back { rng.between(2, 4) } else { rng.weighted(&[(6, 1), (3, 2), (1, 3)]) };
        let stages = (0..stages).map(|s| stage(rng, name, *phase, &format!("s{s}"), hosts, back && s > 0)).collect();
        phases.push(PhasePlan { name: *phase, stages });
    }
    PlatformPlan {
        name: name.to_owned(),
        topology: Topology::Standard,
        rehearsal: false,
        source: String::new(),
        target: String::new(),
        roles: Default::default(),
        phases,
    }
}

fn preflight(rng: &mut Rng, platform: &str, hosts: &[String]) -> PhasePlan {
    let facts = |host: &String| {
        let queries = vec![proto::Query::System];
        step(platform, Phase::Preflight, "facts", host, "facts", 0, Action::Inspect { queries })
    };
    let plain = |name: &str, steps: Vec<PlannedStep>| StagePlan {
        name: name.to_owned(),
        roles: vec![],
        hosts: hosts.to_vec(),
        tolerant: false,
        steps,
    };
    let mut stages = vec![plain("facts", hosts.iter().map(facts).collect())];
    if rng.chance(3000) {
        let pushed = |host: &String| step(platform, Phase::Preflight, "files", host, "ready", 0, Action::Verify);
        stages.push(plain("files", hosts.iter().map(pushed).collect()));
    }
    PhasePlan { name: Phase::Preflight, stages }
}

fn stage(rng: &mut Rng, platform: &str, phase: Phase, name: &str, hosts: &[String], tolerant: bool) -> StagePlan {
    let mut chosen: Vec<String> = hosts.iter().filter(|_| rng.chance(7500)).cloned().collect();
    if chosen.is_empty() {
        chosen.push(hosts[rng.below(hosts.len() as u64) as usize].clone());
    }
    let waves = rng.weighted(&[(7, 1u32), (3, 2)]);
    let mut steps = Vec::new();
    for host in &chosen {
        for wave in 0..waves {
            let number = rng.weighted(&[(4, 1), (5, 2), (1, 3)]);
            if !tolerant && rng.chance(400) {
                let gate = format!("{platform}/{phase}-{name}-{host}-{wave}");
                let action = Action::Gate { gate, ask: "done?".into(), commands: vec![] };
                steps.push(step(platform, phase, name, host, &format!("gate{wave}"), wave, action));
            }
            for n in 0..number {
                // Names that do not sort in the order of the plan, as real ones do not.
                let word = format!("{}{wave}{n}", ['z', 'm', 'a'][n % 3]);
                let mut planned = step(platform, phase, name, host, &word, wave, Action::Command(Command::default()));
                planned.spec.probe = rng.weighted(&[(12, Seen::Effect), (4, Seen::NoProbe), (2, Seen::Nothing)]).probe(&planned.id);
                planned.spec.repeat = if rng.chance(4000) { Repeat::Allowed } else { Repeat::Ask };
                steps.push(planned);
            }
        }
    }
    StagePlan { name: name.to_owned(), roles: vec![], hosts: chosen, tolerant, steps }
}

/// How the effect of a step can be seen: it is looked at, there is no probe, or the probe looks at nothing.
#[derive(Clone, Copy)]
enum Seen {
    Effect,
    NoProbe,
    Nothing,
}

impl Seen {
    fn probe(self, id: &StepId) -> Option<Probe> {
        match self {
            Self::Effect => Some(Probe::Exists(id.0.clone())),
            Self::NoProbe => None,
            Self::Nothing => Some(Probe::All(Vec::new())),
        }
    }
}

fn step(platform: &str, phase: Phase, stage: &str, host: &str, name: &str, wave: u32, action: Action) -> PlannedStep {
    let id = StepId(format!("{platform}/{phase}/{stage}/{host}/{name}"));
    PlannedStep {
        id: id.clone(),
        name: name.to_owned(),
        short: String::new(),
        title: String::new(),
        scope: StepScope::Host,
        host: host.to_owned(),
        instance: None,
        run_as: RunAs::Login,
        action: action.kind().to_owned(),
        command: None,
        reversibility: Reversibility::OneWay,
        source: String::new(),
        wave,
        explain: String::new(),
        undo: String::new(),
        skip: None,
        spec: StepSpec {
            id,
            title: String::new(),
            run_as: RunAs::Login,
            action,
            only_if: None,
            probe: None,
            repeat: Repeat::Ask,
            limits: Limits::default(),
        },
    }
}
