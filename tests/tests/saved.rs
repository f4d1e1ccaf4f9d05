//! Saved plans, what hosts hold against an edited journal, and what they hold of a run whose workstation is gone: end to end.

use controller::cli::from_hosts;
use controller::plan::PlatformPlan;
use controller::run::state::{Bounds, RunState};
use controller::run::store::{RunDir, Store};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::{Ran, Site};
use proto::event::{Event, Kind};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const SOLO: &str = "
platforms:
  - { name: solo, topology: standalone, hosts: { marketing: 1 }, also: { solo-mkt1: [mta, tracking] } }
";

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_saved_plan_is_carried_out_as_it_is_and_refused_once_the_fleet_has_moved() {
    let site = Site::new(SOLO);
    let file = site.root().join("night.plan");
    let name = file.to_str().unwrap();
    let printed = site.caravan(&["plan", "-o", name, "--format", "json"]).expect(0);
    assert!(printed.stderr.contains("holds this plan and the facts of 1 host"), "{}", printed.stderr);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let saved = json(&file);
    assert_eq!(printed.json(), saved["plan"]);
    for fact in ["os", "arch", "packages", "build", "roles", "instances", "engine", "host-key"] {
        assert!(saved["facts"]["solo-mkt1"][fact].as_str().is_some_and(|value| !value.is_empty()), "{fact}: {:#}", saved["facts"]);
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let secrets = site.lab.secrets();
    for secret in [&secrets.internal_password, &secrets.internal_stored, &secrets.tracking_password, &secrets.database_password] {
        assert!(!text.contains(secret.as_str()), "a secret is in the file");
    }

    // The inventory: the same file with another value is another fleet.
    let inventory = std::fs::read_to_string(site.lab.inventory()).unwrap();
    std::fs::write(site.lab.inventory(), inventory.replacen("topology: standalone", "topology: standalone\n  rehearsal: true", 1))
        .unwrap();
    let before = site.records("solo").len();
    let refused = site.caravan(&["migrate", name, "--yes"]).expect(6);
    assert!(refused.stderr.contains("platforms.solo.rehearsal: was false; is true"), "{}", refused.stderr);
    std::fs::write(site.lab.inventory(), &inventory).unwrap();
    // The file: edited by hand.
    let edited = site.root().join("edited.plan");
    std::fs::write(&edited, text.replacen("postupgrade", "postupgrades", 1)).unwrap();
    let refused = site.caravan(&["migrate", edited.to_str().unwrap(), "--yes"]).expect(2);
    assert!(refused.stderr.contains("was edited or damaged after it was saved"), "{}", refused.stderr);
    site.caravan(&["migrate", "/nonexistent.plan", "--yes"]).expect(2);
    assert_eq!(site.records("solo").len(), before, "nothing was touched");
    site.caravan(&["status"]).expect(2);

    site.caravan(&["migrate", name, "--yes"]).expect(0);
    site.assert_no_violations();
    let events = site.events();
    let Kind::RunStarted { plan, .. } = &events[0].kind else { panic!("{:?}", events[0]) };
    assert_eq!(saved["plan"]["hash"], plan.as_str());
    let granted: BTreeSet<String> = events
        .iter()
        .filter(|event| matches!(event.kind, Kind::StepGranted { .. } | Kind::GateWaiting { .. }))
        .filter_map(|event| event.scope.step.clone())
        .collect();
    let mut planned = BTreeSet::new();
    harness::for_each_step(&saved["plan"], |step| planned.extend(step["id"].as_str().map(str::to_owned)));
    assert_eq!(granted, planned, "what was planned is what happened");

    // The facts: it is migrated already.
    let before = site.records("solo").len();
    let refused = site.caravan(&["migrate", name, "--yes"]).expect(6);
    assert!(refused.stderr.contains("solo-mkt1  build: was 6.1"), "{}", refused.stderr);
    assert!(refused.stderr.contains("solo-mkt1  packages: was "), "{}", refused.stderr);
    let changed: Vec<_> = site.records("solo").split_off(before);
    assert!(changed.is_empty(), "{changed:?}");

    // A host that is away: no plan rests on what nobody read.
    site.lab.host("solo-mkt1").down();
    let other = site.root().join("other.plan");
    site.caravan(&["plan", "-o", other.to_str().unwrap()]).expect(3);
    assert!(!other.exists());
    let refused = site.caravan(&["migrate", name, "--yes"]).expect(3);
    assert!(refused.stderr.contains("cannot be compared"), "{}", refused.stderr);
}

/// Writes a journal as a controller does, with the chain made anew.
fn rechain(path: &Path, events: &[Event]) {
    let (mut text, mut prev) = (String::new(), "0".repeat(64));
    for (event, seq) in events.iter().zip(1..) {
        let line = serde_json::to_string(&Event { seq, prev, ..event.clone() }).unwrap();
        prev = Sha256::digest(line.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&line);
        text.push('\n');
    }
    std::fs::write(path, text).unwrap();
}

fn newest(site: &Site) -> RunDir {
    Store::new(&site.state()).find(None).unwrap()
}

#[test]
fn an_edited_journal_is_found_by_its_chain_and_a_rechained_one_by_the_hosts() {
    let site = Site::new(STANDARD);
    site.migrate(&[]).expect(0);
    let journal = newest(&site).path.join("journal.jsonl");
    let (whole, events) = (std::fs::read_to_string(&journal).unwrap(), site.events());
    let report = |more: &[&str]| site.caravan(&[&["report", "--format", "json"], more].concat());
    let chain = |ran: &Ran| ran.json()["journal"]["chain"].clone();

    // As it was written: all hosts say so.
    let told = chain(&report(&[]).expect(0));
    assert_eq!((&told["sound"], &told["hosts"]["simple_edits_only"]), (&true.into(), &false.into()));
    assert_eq!(told["hosts"]["agree"].as_array().unwrap().len(), 4, "{told:#}");
    let proven = told["hosts"]["proven_lines"].as_u64().unwrap() as usize;
    assert!(proven > events.len() / 2, "{proven} of {}", events.len());
    let text = site.caravan(&["report"]).expect(0);
    assert!(text.stdout.contains("4 hosts are in it: lines 1 to"), "{}", text.stdout);
    let offline = chain(&report(&["--offline"]).expect(0));
    assert_eq!((&offline["hosts"]["unasked"], &offline["hosts"]["simple_edits_only"]), (&"--offline".into(), &true.into()));

    // A line is changed: it is named, with hosts and without.
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let line = proven / 2;
    lines[line - 1] = lines[line - 1].replacen("\"time\":\"20", "\"time\":\"19", 1);
    std::fs::write(&journal, lines.join("\n") + "\n").unwrap();
    for more in [&["--offline"][..], &[]] {
        let ran = report(more).expect(1);
        assert_eq!((&chain(&ran)["sound"], &chain(&ran)["edited_line"]), (&false.into(), &line.into()));
        assert!(ran.stderr.contains(&format!("line {line} is not as it was written")), "{}", ran.stderr);
    }

    // The same with the chain made anew: the chain says nothing, the hosts do.
    let mut edited = events.clone();
    edited[line - 1].time = edited[line - 1].time.replacen("20", "19", 1);
    rechain(&journal, &edited);
    report(&["--offline"]).expect(0);
    let told = chain(&report(&[]).expect(1));
    assert_eq!(told["intact"], true);
    let to = told["hosts"]["against"].as_array().unwrap().iter().filter_map(|known| known["up_to_line"].as_u64()).min().unwrap();
    let from = told["hosts"]["proven_lines"].as_u64().unwrap();
    assert!((from as usize) < line && line <= to as usize, "line {line}: {:#}", told["hosts"]);

    // The tail is cut off and an end put in its place. One host is enough to find it.
    let mut cut = events[..proven / 2].to_vec();
    cut.push(events.last().unwrap().clone());
    rechain(&journal, &cut);
    report(&["--offline"]).expect(0);
    for host in ["emea-mta1", "emea-trk1", "emea-trk2"] {
        site.lab.host(host).down();
    }
    let ran = report(&[]).expect(1);
    assert_eq!(chain(&ran)["hosts"]["away"].as_array().unwrap().len(), 3);
    assert!(ran.stderr.contains("emea-mkt1 was granted") || ran.stderr.contains("emea-mkt1 holds another head"), "{}", ran.stderr);
    let markdown = site.caravan(&["report"]).expect(1);
    assert!(markdown.stdout.contains("THE HOSTS SPEAK AGAINST IT (emea-mkt1)"), "{}", markdown.stdout);

    // Nobody can be asked: that is said.
    site.lab.host("emea-mkt1").down();
    let alone = site.caravan(&["report"]).expect(0);
    assert!(alone.stdout.contains("this alone detects simple edits only"), "{}", alone.stdout);
}

#[test]
fn a_run_whose_controller_was_killed_is_put_together_from_its_hosts() {
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ slow: [{{ host: emea-mkt1, what: postupgrade, seconds: 5 }}] }}"));
    let mut controller = site.start(&["migrate", "--yes"]);
    let began = || site.records("emea").iter().any(|record| record.event == lab::Event::PostupgradeBegan);
    while !began() {
        assert!(controller.try_wait().unwrap().is_none(), "it ended before postupgrade began");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    controller.kill().unwrap();
    controller.wait().unwrap();

    let fleet = inventory::load(&site.lab.inventory()).unwrap().fleet;
    let secrets = Arc::new(Secrets::unattended(&fleet.base));
    let hosts = Arc::new(SshHosts::new(&fleet, secrets, SshOptions::default()).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gather = |run: Option<&str>| runtime.block_on(from_hosts::gather(&fleet, &hosts, run)).map(|gathered| gathered.rebuilt);
    let rebuilt = gather(None).unwrap();

    // The plan is the run's, step by step, and the run stands where its own record says.
    let dir = newest(&site);
    let plan = dir.plan().unwrap();
    assert_eq!((rebuilt.run.as_str(), &rebuilt.plan), (dir.id.as_str(), &plan));
    assert!(rebuilt.notices.is_empty(), "{:?}", rebuilt.notices);
    let folded = |events: &[Event]| {
        let mut state = RunState::new(Arc::new(plan.clone()), Bounds::recorded(events, &plan, 4, 50));
        events.iter().for_each(|event| state.apply(event));
        state
    };
    let own = dir.chain().unwrap();
    let written = controller::run::journal::Journal::create(&site.root().join("rebuilt.jsonl"), &rebuilt.run).unwrap();
    runtime.block_on(written.append(rebuilt.drafts.clone())).unwrap();
    let now = controller::run::journal::read(&site.root().join("rebuilt.jsonl")).unwrap();
    let (own, now) = (folded(&own.events), folded(&now.events));
    for step in plan.platforms.iter().flat_map(PlatformPlan::steps) {
        let id = &step.id;
        let stands = |state: &RunState| (state.attempt(id), state.ended(id), state.is_open(id), state.has_begun(id));
        // What was open when the controller was killed may have gone on: the hosts know.
        match own.is_open(id) {
            true => assert_eq!((now.attempt(id), now.ended(id).is_none_or(|end| end.is_proof())), (own.attempt(id), true), "{id}"),
            false => assert_eq!(stands(&now), stands(&own), "{id}"),
        }
    }
    let postupgrade = plan.platforms.iter().flat_map(PlatformPlan::steps).find(|step| step.name == "postupgrade").unwrap();
    assert!(now.has_begun(&postupgrade.id), "the step that runs is known to run");

    // By name, by a part of it, and by a name that no host knows.
    assert_eq!(gather(Some(&dir.id)).unwrap().run, dir.id);
    assert_eq!(gather(Some(&dir.id[..8])).unwrap().run, dir.id);
    let unknown = gather(Some("1999-")).unwrap_err();
    assert_eq!(unknown.exit.code(), 2);
    // Every host holds a part: without one of them it cannot be done, and it is named.
    site.lab.host("emea-trk2").down();
    let missing = gather(None).unwrap_err();
    assert_eq!(missing.exit.code(), 3);
    assert!(missing.message.contains("emea-trk2 did not give theirs"), "{missing}");
    site.lab.host("emea-trk2").up().unwrap();

    // Another workstation goes on with it. Its journal is proven by the hosts, although it is not the one that they were told of first.
    let state = site.root().join("another-workstation");
    let elsewhere = |args: &[&str]| {
        let mut command = site.command(&[]);
        let program = command.get_program().to_owned();
        let mut other = std::process::Command::new(program);
        other.arg("-i").arg(site.lab.inventory()).arg("--state-dir").arg(&state).args(args).env_clear();
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(std::process::Stdio::null());
        command = other;
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    };
    elsewhere(&["resume", "--from-hosts", "--take-over", "the workstation is gone"]).expect(0);
    site.assert_no_violations();
    let began = site.records("emea").iter().filter(|record| record.event == lab::Event::PostupgradeBegan).count();
    assert_eq!(began, 1, "what ran was adopted");
    let told = elsewhere(&["report", "--format", "json"]).expect(0).json()["journal"]["chain"].clone();
    assert_eq!(told["sound"], true, "{told:#}");
    assert!(told["hosts"]["agree"].as_array().is_some_and(|hosts| !hosts.is_empty()), "{told:#}");
    // The first workstation's record is still what the hosts were told by it, and says that it is not the whole.
    let told = site.caravan(&["report", "--format", "json"]).expect(0).json()["journal"]["chain"].clone();
    assert_eq!((&told["sound"], told["hosts"]["elsewhere"].as_array().map(Vec::is_empty)), (&true.into(), Some(false)), "{told:#}");
}
