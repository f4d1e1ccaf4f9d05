//! A step that something killed: nothing is started again by the agent, and the probe says what became of it.

use crate::common::{Bridge, Host, children, exists, kill, shell, step, with_probe};
use proto::host::Record;
use proto::message::{Granted, Happened};
use proto::{Action, Outcome, Probe, RunAs};
use rustix::process::{Signal, kill_process};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const STEP: &str = "p/migrate/s/h/postupgrade";
const WAIT: &str = "echo x >> starts; echo before; echo > began; while [ ! -e go ]; do sleep 0.01; done; echo > effect";

/// Says a line and waits to be let go.
fn patient(host: &Host) -> Granted {
    shell(host, STEP, WAIT)
}

fn as_nobody(host: &Host, mut step: Granted) -> Granted {
    fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    step.spec.run_as = RunAs::User("nobody".to_owned());
    step
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped in part: only root can become somebody else");
    }
    root
}

/// What a probe answers about a step that was killed, and what follows: outcome, and whether it counts as having died.
fn probes(host: &Host) -> [(Option<Probe>, Outcome, bool, &'static str); 4] {
    let program = crate::common::argv(&["no-such-program"]);
    let blind = Probe::Command { argv: program, profile: None, code: None, contains: vec![], lacks: vec![] };
    [
        (Some(exists(&host.path("began"))), Outcome::Ok, false, "the effect is there"),
        (Some(exists(&host.path("effect"))), Outcome::Failed, true, "the effect is not there"),
        (Some(blind), Outcome::Unknown, true, "cannot tell whether the effect is there"),
        (None, Outcome::Unknown, true, "no probe"),
    ]
}

#[test]
fn the_probe_decides_about_a_killed_program() {
    for nobody in [false, true] {
        if nobody && !is_root() {
            continue;
        }
        for case in 0..4 {
            let host = Host::new();
            let (probe, outcome, died, says) = probes(&host)[case].clone();
            let mut bridge = Bridge::attach(&host);
            let mut step = patient(&host);
            step.spec.probe = probe;
            bridge.grant(vec![if nobody { as_nobody(&host, step) } else { step }]);
            host.wait_for("began");
            let program = host.processes("echo before")[0];
            kill_process(program, if case == 3 { Signal::TERM } else { Signal::KILL }).unwrap();
            let ended = bridge.until_finished(STEP).expect(outcome).died(died).says(says);
            let signal = if case == 3 { "signal 15" } else { "signal 9" };
            assert!(ended.message.contains(signal) && ended.message.contains("last output: before"), "{ended:?}");
            assert_eq!(host.read("starts"), "x\n");
            bridge.finish();
        }
    }
}

#[test]
fn a_program_that_ends_by_itself_has_not_died() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    for (id, text) in [("a/a/a/a/crash", "kill -SEGV $$"), ("a/a/a/a/code", "exit 137")] {
        bridge.perform(shell(&host, id, text)).expect(Outcome::Failed).died(false);
    }
    let mut late = shell(&host, "a/a/a/a/late", "sleep 1000; true");
    late.spec.limits.deadline_s = 1;
    bridge.perform(late).expect(Outcome::Unknown).died(false).says("did not end within 1 s");
    bridge.finish();
}

#[test]
fn another_attempt_after_a_death_looks_first() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut step = with_probe(patient(&host), exists(&host.path("effect")));
    bridge.grant(vec![step.clone()]);
    host.wait_for("began");
    kill(host.processes("echo before")[0]);
    bridge.until_finished(STEP).expect(Outcome::Failed).died(true);
    fs::write(host.path("go"), "").unwrap();
    step.attempt = 2;
    bridge.perform(step.clone()).expect(Outcome::Ok).died(false);
    step.attempt = 3;
    bridge.perform(step).expect(Outcome::Ok).says("nothing was done");
    assert_eq!(host.read("starts"), "x\nx\n");
    bridge.finish();
}

#[test]
fn a_dead_runner_leaves_the_decision_to_the_probe() {
    for case in 0..4 {
        let host = Host::new();
        let (probe, outcome, died, says) = probes(&host)[case].clone();
        let mut bridge = Bridge::attach(&host);
        let mut step = patient(&host);
        step.spec.probe = probe;
        bridge.grant(vec![step]);
        host.wait_for("began");
        kill(host.runner());
        still_runs(&mut bridge);
        for pid in host.processes("echo before") {
            kill(pid);
        }
        bridge.until_finished(STEP).expect(outcome).died(died).says("its runner died").says(says);
        assert_eq!(host.read("starts"), "x\n");
        bridge.finish();
    }
}

/// What a dead runner had started still runs: so does the step.
fn still_runs(bridge: &mut Bridge) {
    while let Ok(message) = bridge.next(Duration::from_millis(300)) {
        let proto::FromAgent::Event(event) = message else { panic!("{message:?}") };
        bridge.events.push(event);
    }
    assert_eq!(bridge.events.len(), 1, "the step was given up while its program ran");
}

#[test]
fn a_step_that_outlives_its_runner_may_still_take_effect() {
    for nobody in [false, true] {
        if nobody && !is_root() {
            continue;
        }
        let host = Host::new();
        let mut bridge = Bridge::attach(&host);
        // It says nothing after its runner is gone: its output has nowhere to go.
        let quiet = "echo > began; while [ ! -e go ]; do sleep 0.01; done; echo > effect";
        let step = with_probe(shell(&host, STEP, quiet), exists(&host.path("effect")));
        bridge.grant(vec![if nobody { as_nobody(&host, step) } else { step }]);
        host.wait_for("began");
        if nobody {
            // The part of the runner that has the account; the runner itself cannot tell what became of the step, either.
            kill(children(host.runner())[0]);
        } else {
            kill(host.runner());
        }
        still_runs(&mut bridge);
        fs::write(host.path("go"), "").unwrap();
        bridge.until_finished(STEP).expect(Outcome::Ok).died(false).says("the effect is there");
        bridge.finish();
    }
}

#[test]
fn a_step_that_began_before_the_host_was_started_again_is_looked_at() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![with_probe(patient(&host), exists(&host.path("effect")))]);
    host.wait_for("began");
    kill(host.supervisor());
    // As after a boot: no process, only what was durable, and another boot id.
    for pid in host.processes("runner").into_iter().chain(host.processes("echo before")) {
        kill(pid);
    }
    fs::remove_dir_all(host.run_dir().join("steps")).unwrap();
    let journal = host.run_dir().join("journal.jsonl");
    let (mut records, _) = proto::lines::read(&fs::read(&journal).unwrap()).unwrap();
    for record in &mut records {
        if let Record::Event(event) = record {
            assert!(matches!(event.what, Happened::Started { .. }));
            event.boot_id = "an earlier boot".to_owned();
        }
    }
    let lines: Vec<u8> = records.iter().flat_map(|record| proto::lines::write(record).unwrap()).collect();
    fs::write(&journal, lines).unwrap();

    let mut again = Bridge::attach(&host);
    again.until_finished(STEP).expect(Outcome::Failed).died(true).says("started again while the step ran").says("its runner died");
    assert_eq!(host.read("starts"), "x\n");
    again.finish();
}

#[test]
fn a_journal_that_lost_its_last_line_starts_nothing_twice() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![patient(&host)]);
    host.wait_for("began");
    kill(host.supervisor());
    // The line that says that the step began.
    let journal = host.run_dir().join("journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    assert!(text[last..].contains("started"));
    fs::write(&journal, &text[..text.len() - 1]).unwrap();

    let mut again = Bridge::open();
    again.claim = bridge.claim.clone();
    again.send_attach(&host, 0, std::collections::BTreeMap::new());
    assert!(matches!(again.message(), proto::FromAgent::Attached { host_seq: 0, .. }));
    fs::write(host.path("go"), "").unwrap();
    let ended = again.until_finished(STEP).expect(Outcome::Ok);
    assert_eq!((host.read("starts").as_str(), ended.output.as_str()), ("x\n", "before\n"));
    again.finish();
}

#[test]
fn actions_without_a_program_are_looked_at_as_well() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    // It waits for a process that does not end.
    let sleeper = host.path("bin/sleeper");
    fs::create_dir(host.path("bin")).unwrap();
    fs::copy("/bin/sleep", &sleeper).unwrap();
    let mut child = std::process::Command::new(&sleeper).arg("1000").spawn().unwrap();
    let action = Action::StopProcesses { under: host.text("bin"), term_after_s: 1000, kill_after_s: 1000 };
    bridge.grant(vec![with_probe(step(STEP, action), Probe::NoProcesses { under: host.text("bin") })]);
    crate::common::wait_until("the step's first line", || {
        let _ = bridge.next(Duration::from_millis(10)).map(|message| {
            let proto::FromAgent::Event(event) = message else { panic!("{message:?}") };
            bridge.events.push(event);
        });
        !bridge.output.is_empty()
    });
    kill(host.runner());
    bridge.until_finished(STEP).expect(Outcome::Failed).died(true).says("its runner died");
    child.kill().unwrap();
    child.wait().unwrap();
    bridge.finish();
}

#[test]
fn a_runner_whose_supervisor_died_before_it_was_handed_the_secrets_begins_nothing() {
    let cases = [("", false, "failed"), ("{\"database/sea\":", false, "failed"), ("", true, "ok")];
    for (handed, there, outcome) in cases {
        let host = Host::new();
        let (dir, effect) = (host.path("step"), host.path("effect"));
        fs::create_dir(&dir).unwrap();
        if there {
            fs::write(&effect, "").unwrap();
        }
        let granted = with_probe(shell(&host, STEP, "echo x >> starts"), exists(&effect));
        fs::write(dir.join("spec.json"), serde_json::to_vec(&Record::Step(Box::new(granted))).unwrap()).unwrap();
        let mut runner = Command::new(env!("CARGO_BIN_EXE_caravan-agent"));
        let mut runner = runner.arg("runner").arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        runner.stdin.take().unwrap().write_all(handed.as_bytes()).unwrap();
        assert!(runner.wait().unwrap().success());
        let status: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("status.json")).unwrap()).unwrap();
        assert_eq!((&status["outcome"], &status["died"]), (&outcome.into(), &(!there).into()), "{status}");
        assert!(status["message"].as_str().unwrap().contains("nothing was begun"), "{status}");
        assert!(!host.path("starts").exists());
    }
}
