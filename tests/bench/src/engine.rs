//! w2 to w4: a plan made here, carried out by the engine as `migrate` does it: over SSH with host keys, with a durable journal,
//! with every event shown (as plain lines on standard error).

use crate::Workload;
use crate::site::Files;
use anyhow::{Context, anyhow};
use controller::plan::{Phase, PhasePlan, Plan, PlannedFile, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope};
use controller::progress::{self, Progress};
use controller::run::journal::Journal;
use controller::run::options::HostOptions;
use controller::run::state::Bounds;
use controller::run::store::Store;
use controller::run::{Engine, Observer, Options};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use inventory::Topology;
use proto::step::{Command, Limits, Repeat};
use proto::{Action, Event, RunAs, StepId, StepSpec};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How many steps each host has in each of the three groups of w2.
const GROUPS: [usize; 3] = [4, 3, 3];
/// All of them.
pub(crate) const STEPS: usize = GROUPS[0] + GROUPS[1] + GROUPS[2];
const PLATFORM: &str = "bench";

/// Carries the plan of a workload out; answers the run's exit code.
pub(crate) fn run(site: &Path, work: Workload) -> anyhow::Result<u8> {
    let files = Files(site.to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(carry_out(&files, work));
    runtime.shutdown_background();
    exit
}

async fn carry_out(files: &Files, work: Workload) -> anyhow::Result<u8> {
    let path = files.inventory();
    let fleet = inventory::load(&path).map_err(|problems| anyhow!("{}", problems.render(false)))?.fleet;
    let secrets = Arc::new(Secrets::new(&fleet.base));
    let hosts = SshHosts::new(&fleet, secrets, SshOptions::default()).map_err(|failure| anyhow!("{}", failure.message))?;
    let all: Vec<&inventory::Host> = fleet.platforms.iter().flat_map(|platform| &platform.hosts).collect();
    let names: Vec<String> = all.iter().map(|host| host.name.clone()).collect();
    let plan = if work == Workload::W2 { ten_steps(&names) } else { push(files, work, &names)? };
    let (dir, plan) = Store::new(&files.state()).create(&plan)?;
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id)?;
    let option = |host: &inventory::Host| HostOptions {
        host_state: host.host_state.clone(),
        root: false,
        run_as: RunAs::Login,
        secrets: BTreeMap::new(),
    };
    let options = Options {
        command: "bench".to_owned(),
        run: dir.id.clone(),
        claim: proto::message::Claim {
            seat: "bench".to_owned(),
            controller: dir.id.clone(),
            operator: "bench".to_owned(),
            ..Default::default()
        },
        bounds: Bounds {
            platforms: [PLATFORM.to_owned()].into(),
            limit: None,
            parallel_platforms: fleet.parallel.platforms,
            parallel_hosts: fleet.parallel.hosts,
            conditions: Default::default(),
        },
        limit_text: None,
        hosts: all.iter().map(|host| (host.name.clone(), option(host))).collect(),
        files: plan.files.iter().map(|file| (file.sha256.clone(), file.path.clone().into())).collect::<HashMap<_, _>>(),
        dir: dir.path.clone(),
        confirmed: BTreeMap::new(),
        accepted: BTreeMap::new(),
        abort: None,
        patience: Duration::from_secs(60),
        judge: Box::new(|_, _, _| Vec::new()),
        again: Box::new(|_, _| BTreeMap::new()),
        reader: Box::new(|_, _, _| Vec::new()),
        clock: controller::run::touch::Clock::default(),
        asker: None,
    };
    let shown = progress::Options { color: false, verbosity: 0, terminal: false };
    let mut screen = Screen(Progress::new(&plan, shown));
    // Nobody pauses it.
    let (_keyboard, signals) = tokio::sync::mpsc::channel(1);
    let ended = Engine::new(Arc::new(plan), Arc::new(hosts), options, journal, &mut screen)?.run(signals).await;
    screen.0.finish();
    Ok(ended.context("the engine")?.exit_code)
}

struct Screen(Progress);

impl Observer for Screen {
    fn event(&mut self, event: &Event) {
        self.0.event(event);
    }

    fn line(&mut self, _host: &str, step: &StepId, text: &str) {
        self.0.output(&step.0, text);
    }
}

/// Three stages with all hosts in each; every step runs `true`.
fn ten_steps(hosts: &[String]) -> Plan {
    let command = || Action::Command(Command { argv: vec!["true".to_owned()], ok: vec![0], ..Command::default() });
    let stages = GROUPS.iter().enumerate().map(|(group, count)| {
        let stage = format!("group{}", group + 1);
        let steps = hosts.iter().flat_map(|host| {
            let stage = &stage;
            (1..=*count).map(move |number| step(stage, host, &format!("step{number}"), command()))
        });
        StagePlan { steps: steps.collect(), name: stage.clone(), roles: Vec::new(), tolerant: false, hosts: hosts.to_vec() }
    });
    plan(stages.collect(), Vec::new())
}

/// One stage in which every host gets the payload.
fn push(files: &Files, work: Workload, hosts: &[String]) -> anyhow::Result<Plan> {
    let sha256 = std::fs::read_to_string(files.payload_digest(work)).context("the payload's digest")?;
    let size = std::fs::metadata(files.payload(work)).context("the payload")?.len();
    let steps = hosts.iter().map(|host| {
        let dest = files.pushed(host).display().to_string();
        step("push", host, "push", Action::PushFile { sha256: sha256.clone(), size, dest, mode: 0o644 })
    });
    let stage =
        StagePlan { name: "push".to_owned(), roles: Vec::new(), tolerant: false, hosts: hosts.to_vec(), steps: steps.collect() };
    let path = files.payload(work).display().to_string();
    Ok(plan(vec![stage], vec![PlannedFile { sha256: sha256.clone(), path, size }]))
}

fn plan(stages: Vec<StagePlan>, files: Vec<PlannedFile>) -> Plan {
    let platform = PlatformPlan {
        name: PLATFORM.to_owned(),
        topology: Topology::Standard,
        rehearsal: false,
        source: String::new(),
        target: String::new(),
        roles: BTreeMap::new(),
        phases: vec![PhasePlan { name: Phase::Migrate, stages }],
    };
    Plan { fleet: PLATFORM.to_owned(), hash: "0".repeat(64), platforms: vec![platform], files, warnings: Vec::new() }
}

fn step(stage: &str, host: &str, name: &str, action: Action) -> PlannedStep {
    let id = StepId(format!("{PLATFORM}/{}/{stage}/{host}/{name}", Phase::Migrate));
    PlannedStep {
        id: id.clone(),
        name: name.to_owned(),
        title: name.to_owned(),
        short: String::new(),
        scope: StepScope::Host,
        host: host.to_owned(),
        instance: None,
        run_as: RunAs::Login,
        action: action.kind().to_owned(),
        command: None,
        reversibility: Reversibility::Reversible,
        source: String::new(),
        wave: 0,
        explain: String::new(),
        undo: String::new(),
        skip: None,
        spec: StepSpec {
            id,
            title: name.to_owned(),
            run_as: RunAs::Login,
            action,
            only_if: None,
            probe: None,
            repeat: Repeat::Ask,
            limits: Limits::default(),
        },
    }
}
