//! Plans made by hand, and the events that a run of them would write.

use controller::plan::{Phase, PhasePlan, Plan, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope};
use inventory::{Role, Topology};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proto::event::{Finding, RunOutcome, Status};
use proto::{Action, Event, Kind, Outcome, RunAs, Scope, StepId, StepSpec};
use std::collections::BTreeMap;

/// When every run in these tests begins.
pub(crate) const START: &str = "2026-11-22T21:58:04Z";
pub(crate) const RUN: &str = "2026-11-22-q7";

/// A platform with so many mail and tracking servers.
pub(crate) fn platform(name: &str, topology: Topology, mta: usize, tracking: usize) -> PlatformPlan {
    let domain = format!("{name}.example.net");
    let marketing = vec![format!("mkt1.{domain}")];
    let mtas: Vec<String> = (1..=mta).map(|n| format!("mta{n}.{domain}")).collect();
    let digits = if tracking > 99 { 3 } else { 2 };
    let trackings: Vec<String> = (1..=tracking).map(|n| format!("trk{n:0digits$}.{domain}")).collect();
    let all: Vec<String> = [&marketing[..], &mtas[..], &trackings[..]].concat();
    let mut make = Maker { platform: name.to_owned(), instance: format!("{name}_prod") };
    let migrate = ["remove.packages", "install.packages", "restore.conf"];
    let mut stages = vec![make.stage(Phase::Migrate, "marketing", &[Role::Marketing], &marketing, &migrate)];
    let postupgrade = make.step(Phase::Migrate, "marketing", &marketing[0], "postupgrade", 1);
    stages[0].steps.push(postupgrade);
    stages.push(make.stage(Phase::Migrate, "mta", &[Role::Mta], &mtas, &migrate));
    stages.push(make.stage(Phase::Migrate, "tracking", &[Role::Tracking], &trackings, &migrate));
    if topology == Topology::CloudMessaging {
        let mut gate = make.step(Phase::Migrate, "vendor", &marketing[0], "vendor.execution", 0);
        gate.action = "gate".to_owned();
        gate.spec.action = Action::Gate {
            gate: format!("{name}/vendor-execution"),
            ask: "the vendor has migrated the execution servers".to_owned(),
            commands: vec![],
        };
        stages.insert(
            0,
            StagePlan {
                name: "vendor".to_owned(),
                roles: vec![],
                hosts: vec![marketing[0].clone()],
                tolerant: false,
                steps: vec![gate],
            },
        );
    }
    let mut backup = make.stage(Phase::Backup, "all", &[], &all, &["backup.tree"]);
    backup.steps.push(make.step(Phase::Backup, "all", &marketing[0], "backup.database", 0));
    let restart = [("tracking", Role::Tracking, &trackings), ("mta", Role::Mta, &mtas), ("marketing", Role::Marketing, &marketing)];
    let restart = restart.map(|(stage, role, hosts)| make.stage(Phase::Restart, stage, &[role], hosts, &["start.services"]));
    let phases = vec![
        PhasePlan { name: Phase::Preflight, stages: vec![make.stage(Phase::Preflight, "all", &[], &all, &["facts"])] },
        PhasePlan { name: Phase::Stop, stages: vec![make.stage(Phase::Stop, "all", &[], &all, &["stop.nlserver"])] },
        PhasePlan { name: Phase::Backup, stages: vec![backup] },
        PhasePlan { name: Phase::Migrate, stages },
        PhasePlan { name: Phase::Restart, stages: restart.into() },
        PhasePlan { name: Phase::Verify, stages: vec![make.stage(Phase::Verify, "all", &[], &all, &["verify.build"])] },
    ];
    let roles = BTreeMap::from([(Role::Marketing, 1), (Role::Mta, mta), (Role::Tracking, tracking)]);
    PlatformPlan {
        name: name.to_owned(),
        topology,
        rehearsal: false,
        source: "v6.1 (8989)".to_owned(),
        target: "v7.4.1 (9383)".to_owned(),
        roles,
        phases,
    }
}

/// A plan of these platforms.
pub(crate) fn plan(platforms: Vec<PlatformPlan>) -> Plan {
    Plan {
        fleet: "fleet".to_owned(),
        hash: "9f2c4be07a63d1558e20b1f4c9d7a83e6605fb2d4c1e98a7705d3b6c2f8e1a44".to_owned(),
        platforms,
        files: vec![],
        warnings: vec![],
    }
}

struct Maker {
    platform: String,
    instance: String,
}

impl Maker {
    fn stage(&mut self, phase: Phase, name: &str, roles: &[Role], hosts: &[String], steps: &[&str]) -> StagePlan {
        let each = |host: &String| steps.iter().map(|step| self.step(phase, name, host, step, 0)).collect::<Vec<_>>();
        StagePlan {
            name: name.to_owned(),
            roles: roles.to_vec(),
            hosts: hosts.to_vec(),
            tolerant: false,
            steps: hosts.iter().flat_map(each).collect(),
        }
    }

    fn step(&self, phase: Phase, stage: &str, host: &str, name: &str, wave: u32) -> PlannedStep {
        let instance = matches!(name, "postupgrade" | "backup.database").then(|| self.instance.clone());
        let place = instance.as_ref().map_or(host.to_owned(), |instance| format!("{host}:{instance}"));
        let id = StepId(format!("{}/{phase}/{stage}/{place}/{name}", self.platform));
        let title = format!("{} on {host}", name.replace('.', " "));
        let action = if phase == Phase::Preflight { Action::Inspect { queries: vec![] } } else { Action::Verify };
        let one_way = name == "postupgrade";
        PlannedStep {
            name: name.to_owned(),
            title: title.clone(),
            short: name.to_owned(),
            scope: if instance.is_some() { StepScope::Instance } else { StepScope::Host },
            host: host.to_owned(),
            instance,
            run_as: RunAs::User("root".to_owned()),
            action: action.kind().to_owned(),
            command: None,
            reversibility: if one_way { Reversibility::OneWay } else { Reversibility::Reversible },
            source: "migration, Linux, procedure".to_owned(),
            wave,
            explain: String::new(),
            undo: String::new(),
            skip: None,
            spec: StepSpec {
                id: id.clone(),
                title,
                run_as: RunAs::User("root".to_owned()),
                action,
                only_if: None,
                probe: None,
                repeat: proto::step::Repeat::Ask,
                limits: proto::step::Limits::default(),
            },
            id,
        }
    }
}

/// A phase of the way back: two stages in which hosts that fail are left behind.
pub(crate) fn tolerant_phase(platform: &str, hosts: &[&str]) -> PhasePlan {
    let mut make = Maker { platform: platform.to_owned(), instance: String::new() };
    let hosts: Vec<String> = hosts.iter().map(|host| format!("{host}.{platform}.example.net")).collect();
    let mut stages = [("files", ["restore.tree", "install.old"]), ("services", ["start.old", "verify.old"])]
        .map(|(stage, steps)| make.stage(Phase::Rollback, stage, &[], &hosts, &steps));
    stages.iter_mut().for_each(|stage| stage.tolerant = true);
    PhasePlan { name: Phase::Rollback, stages: stages.into() }
}

/// What a controller writes that takes a run up again.
pub(crate) fn resumed(cut_bytes: u64, from_hosts: bool) -> Kind {
    let [command, operator, version] = ["resume", "kim@ops2", "0.1.0"].map(str::to_owned);
    Kind::RunResumed { command, operator, version, cut_bytes, from_hosts, conditions: Default::default() }
}

pub(crate) fn resumed_kinds() -> impl Strategy<Value = Kind> {
    (0..3u64, any::<bool>()).prop_map(|(cut_bytes, from_hosts)| resumed(cut_bytes, from_hosts))
}

/// What goes wrong in a run.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// Steps that end like this, by a part of their id.
    pub steps: Vec<(String, Outcome, String)>,
    /// Hosts that are out of reach from a phase on.
    pub away: Vec<(String, Phase)>,
    /// Findings, beside one good one a platform.
    pub findings: Vec<Finding>,
    /// Confirmed gates.
    pub confirmed: bool,
}

impl Faults {
    /// One step that fails.
    pub(crate) fn step(id: &str, message: &str) -> Self {
        Self { steps: vec![(id.to_owned(), Outcome::Failed, message.to_owned())], confirmed: true, ..Self::default() }
    }
}

/// A failing finding about the internal password.
pub(crate) fn red_password(platform: &str) -> Finding {
    Finding {
        id: format!("passwords@{platform}"),
        check: "passwords".to_owned(),
        when: None,
        platform: platform.to_owned(),
        host: None,
        instance: None,
        status: Status::Failure,
        message: "the internal password is not proven identical on 12 tracking servers".to_owned(),
        evidence: "stored values: group A trk[01-08,10-12], group B trk09".to_owned(),
        remedy: format!("set it everywhere: caravan passwords set --on platform:{platform}"),
        overridden: None,
    }
}

/// Writes down the events of runs.
pub(crate) struct Story<'a> {
    plan: &'a Plan,
    faults: Faults,
    /// Milliseconds since the start, and the event.
    events: Vec<(i64, Scope, Kind)>,
}

/// Every event that a run of this plan with these faults writes, in journal order.
pub(crate) fn run(plan: &Plan, faults: &Faults) -> Vec<Event> {
    let mut story = Story { plan, faults: faults.clone(), events: vec![] };
    let started = Kind::RunStarted {
        command: "migrate".to_owned(),
        operator: "eva@ops7".to_owned(),
        version: "0.1.0".to_owned(),
        plan: plan.hash.clone(),
        limit: None,
        platforms: plan.platforms.iter().map(|platform| platform.name.clone()).collect(),
        limit_hosts: None,
        undoes: None,
        conditions: Default::default(),
    };
    story.events.push((0, Scope::default(), started));
    let ends: Vec<(i64, RunOutcome)> = plan.platforms.iter().map(|platform| story.platform(platform)).collect();
    let end = ends.iter().map(|(end, _)| *end).max().unwrap_or(0) + 10;
    let worst = |wanted| ends.iter().any(|(_, outcome)| *outcome == wanted);
    let (outcome, exit_code) = match () {
        () if worst(RunOutcome::Stopped) => (RunOutcome::Stopped, 1),
        () if worst(RunOutcome::Waiting) => (RunOutcome::Waiting, 5),
        () => (RunOutcome::Ok, 0),
    };
    story.events.push((end, Scope::default(), Kind::RunFinished { outcome, exit_code }));
    story.events.sort_by_key(|(at, ..)| *at);
    let events = story.events.into_iter().enumerate();
    events.map(|(at, (time, scope, kind))| event(at as u64 + 1, time, scope, kind)).collect()
}

/// An event so many milliseconds after the start.
pub(crate) fn event(seq: u64, millis: i64, scope: Scope, kind: Kind) -> Event {
    let start: Timestamp = START.parse().unwrap();
    let time = start.checked_add(SignedDuration::from_millis(millis)).unwrap();
    let prev = "0".repeat(64);
    // What hosts say has a place in their own journals.
    let of_host = matches!(kind, Kind::StepStarted | Kind::StepFinished { .. } | Kind::StepOutput { .. } | Kind::StepAlert { .. });
    Event {
        v: 1,
        seq,
        time: format!("{time:.3}"),
        run: RUN.to_owned(),
        scope,
        kind,
        host_time: None,
        boot_id: None,
        host_seq: of_host.then_some(seq),
        prev,
    }
}

impl Story<'_> {
    fn platform(&mut self, platform: &PlatformPlan) -> (i64, RunOutcome) {
        let scope = Scope { platform: Some(platform.name.clone()), ..Scope::default() };
        let mut now = 20;
        for phase in &platform.phases {
            let scope = Scope { phase: Some(phase.name.to_string()), ..scope.clone() };
            self.events.push((now, scope.clone(), Kind::PhaseStarted));
            for stage in &phase.stages {
                let scope = Scope { stage: Some(stage.name.clone()), ..scope.clone() };
                self.events.push((now, scope.clone(), Kind::StageStarted));
                let ended;
                (now, ended) = self.stage(phase.name, stage, &scope, now);
                let mut outcome = ended;
                if phase.name == Phase::Preflight && outcome == RunOutcome::Ok {
                    outcome = self.findings(&platform.name, &scope, now);
                }
                if outcome != RunOutcome::Ok {
                    let message = format!("stopped in {}", stage.name);
                    let scope = Scope { platform: scope.platform, ..Scope::default() };
                    self.events.push((now + 5, scope, Kind::PlatformFinished { outcome, message }));
                    return (now + 5, outcome);
                }
                self.events.push((now + 1, scope.clone(), Kind::BarrierOpened));
                self.events.push((now + 2, scope, Kind::StageFinished));
                now += 10;
            }
            self.events.push((now, scope.clone(), Kind::BarrierOpened));
            self.events.push((now, scope, Kind::PhaseFinished));
            now += 10;
        }
        self.events.push((now, scope, Kind::PlatformFinished { outcome: RunOutcome::Ok, message: String::new() }));
        (now, RunOutcome::Ok)
    }

    fn findings(&mut self, platform: &str, scope: &Scope, now: i64) -> RunOutcome {
        let good = Finding {
            id: format!("version@mkt1.{platform}.example.net"),
            check: "version".to_owned(),
            when: None,
            platform: platform.to_owned(),
            host: Some(format!("mkt1.{platform}.example.net")),
            instance: None,
            status: Status::Ok,
            message: "build 8989 is the latest of v6.1".to_owned(),
            evidence: "nlserver pdump: (7.0 PR 6.1 build 8989@abcdef)".to_owned(),
            remedy: String::new(),
            overridden: None,
        };
        let mine: Vec<Finding> = self.faults.findings.iter().filter(|finding| finding.platform == platform).cloned().collect();
        let red = mine.iter().any(|finding| finding.status != Status::Warning && finding.overridden.is_none());
        for finding in std::iter::once(good).chain(mine) {
            self.events.push((now, Scope { stage: None, host: finding.host.clone(), ..scope.clone() }, Kind::Finding { finding }));
        }
        if red { RunOutcome::Stopped } else { RunOutcome::Ok }
    }

    fn stage(&mut self, phase: Phase, stage: &StagePlan, scope: &Scope, start: i64) -> (i64, RunOutcome) {
        let mut end = start;
        let mut outcome = RunOutcome::Ok;
        let waves = stage.steps.iter().map(|step| step.wave).max().unwrap_or(0);
        for wave in 0..=waves {
            let begin = end;
            let mut clocks: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
            for step in stage.steps.iter().filter(|step| step.wave == wave) {
                let (clock, alive) = clocks.entry(&step.host).or_insert((begin + 2, true));
                let scope = Scope {
                    host: Some(step.host.clone()),
                    instance: step.instance.clone(),
                    step: Some(step.id.0.clone()),
                    attempt: Some(1),
                    ..scope.clone()
                };
                let away = self.faults.away.iter().any(|(host, from)| *host == step.host && *from <= phase);
                if away && *alive {
                    let scope = Scope { platform: scope.platform.clone(), host: scope.host.clone(), ..Scope::default() };
                    let reason = format!("{} cannot be reached: connection timed out after 10 s", step.host);
                    self.events.push((begin + 10_000, scope, Kind::HostUnreachable { reason }));
                    (*clock, *alive, outcome) = (begin + 10_000, false, RunOutcome::Stopped);
                }
                if *alive {
                    let ended = self.step(step, &scope, begin, clock);
                    if ended != RunOutcome::Ok {
                        (*alive, outcome) = (false, ended);
                    }
                }
                end = end.max(*clock);
            }
            if outcome != RunOutcome::Ok {
                break;
            }
        }
        (end, outcome)
    }

    fn step(&mut self, step: &PlannedStep, scope: &Scope, granted: i64, clock: &mut i64) -> RunOutcome {
        if let Action::Gate { gate, ask, .. } = &step.spec.action {
            let gate = gate.clone();
            self.events.push((*clock, scope.clone(), Kind::GateWaiting { gate: gate.clone(), ask: ask.clone() }));
            if !self.faults.confirmed {
                return RunOutcome::Waiting;
            }
            *clock += 60_000;
            let (note, operator) = ("ticket 4711".to_owned(), "eva@ops7".to_owned());
            self.events.push((*clock, scope.clone(), Kind::GateConfirmed { gate, note, operator }));
            return RunOutcome::Ok;
        }
        // Durations that differ by host and step, and stay the same from run to run.
        let host =
            self.plan.platforms.iter().flat_map(|p| &p.phases[0].stages[0].hosts).position(|host| *host == step.host).unwrap_or(0)
                as i64;
        let long = match step.name.as_str() {
            "postupgrade" => 3_900_000,
            "install.packages" => 60_000,
            "backup.tree" | "backup.database" => 30_000,
            _ => 2_000,
        };
        let duration = long + (host * 7_919 + step.name.len() as i64 * 613) % (long / 2);
        let fault = self.faults.steps.iter().find(|(id, ..)| step.id.0.contains(id.as_str()));
        let (outcome, message) = fault.map_or((Outcome::Ok, String::new()), |(_, outcome, message)| (*outcome, message.clone()));
        self.events.push((granted, scope.clone(), Kind::StepGranted { action: step.action.clone(), prove: false }));
        self.events.push((*clock, scope.clone(), Kind::StepStarted));
        *clock += duration;
        let file = format!("output/{}/0001.log", step.host);
        self.events.push((*clock - 1, scope.clone(), Kind::StepOutput { file, offset: 0, length: 812 }));
        let exit_code = Some(if outcome == Outcome::Ok { 0 } else { 1 });
        let kind = Kind::StepFinished { outcome, exit_code, duration_ms: duration as u64, message, died: false };
        self.events.push((*clock, scope.clone(), kind));
        if outcome.is_proof() { RunOutcome::Ok } else { RunOutcome::Stopped }
    }
}
