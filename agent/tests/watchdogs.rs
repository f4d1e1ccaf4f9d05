//! Limits of steps and what they bring about: a step is ended, or people are told or asked. And steps that people end.

use crate::common::{Bridge, Host, exists, kill, shell, wait_until, with_probe};
use proto::message::{Granted, Happened};
use proto::step::OnLimit;
use proto::{FromAgent, Outcome, RunAs};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const STEP: &str = "p/migrate/s/h/postupgrade";
const WAIT: &str = "echo > began; while [ ! -e go ]; do sleep 0.01; done";

fn limited(host: &Host, text: &str, then: OnLimit) -> Granted {
    let mut step = shell(host, STEP, text);
    step.spec.limits.then = then;
    step
}

fn go(host: &Host) {
    fs::write(host.path("go"), "").unwrap();
}

fn alerts(bridge: &Bridge) -> usize {
    bridge.events.iter().filter(|event| matches!(event.what, Happened::Alert { .. })).count()
}

#[test]
fn a_deadline_can_tell_instead_of_ending() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut step = limited(&host, WAIT, OnLimit::Tell);
    step.spec.limits.deadline_s = 1;
    bridge.grant(vec![step]);
    let (first, ask) = bridge.until_alert();
    assert!(first.contains("has run for 1 s") && first.contains("its limit of 1 s") && !ask, "{first}");
    // Again, as long as it goes on.
    assert!(!bridge.until_alert().1);
    go(&host);
    bridge.until_finished(STEP).expect(Outcome::Ok).died(false);
    bridge.finish();
}

#[test]
fn silence_ends_a_step() {
    for as_nobody in [false, true] {
        if as_nobody && !rustix::process::geteuid().is_root() {
            eprintln!("skipped in part: only root can become somebody else");
            continue;
        }
        let host = Host::new();
        let mut bridge = Bridge::attach(&host);
        let mut step = limited(&host, "echo working; sleep 1000; true", OnLimit::Stop);
        step.spec.limits.silence_s = 1;
        step.spec.probe = Some(exists(&host.path("effect")));
        if as_nobody {
            fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
            step.spec.run_as = RunAs::User("nobody".to_owned());
        }
        let ended = bridge.perform(step).expect(Outcome::Failed).died(false);
        assert_eq!(ended.output, "working\n");
        ended.says("printed nothing for 1 s, and was stopped").says("its effect is not there");
        assert!(host.processes("sleep 1000").is_empty());
        bridge.finish();
    }
}

#[test]
fn output_and_growing_log_files_are_signs_of_life() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    // First it talks, then only its log grows, then there is a new log, then nothing.
    let text = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; for i in 1 2 3 4 5 6; do echo $i >> a.log; sleep 0.5; done; \
                echo > b.log; sleep 1; echo > quiet; while [ ! -e go ]; do sleep 0.01; done";
    let mut step = limited(&host, text, OnLimit::Ask);
    step.spec.limits.silence_s = 2;
    step.spec.limits.watch = vec![host.text("*.log"), host.text("no-such-directory/*")];
    bridge.grant(vec![step]);
    let (message, ask) = bridge.until_alert();
    assert!(host.path("quiet").exists(), "taken for silent while it worked: {message}");
    assert!(ask && message.contains("nothing for 2 s") && message.contains("*.log"), "{message}");
    // Once for each period.
    let (message, _) = bridge.until_alert();
    assert!(message.contains("nothing for 4 s"), "{message}");
    go(&host);
    bridge.until_finished(STEP).expect(Outcome::Ok);
    assert_eq!(alerts(&bridge), 2);
    bridge.finish();
}

#[test]
fn an_alert_outlives_the_supervisor_and_is_told_once() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    let mut step = limited(&host, WAIT, OnLimit::Ask);
    step.spec.limits.silence_s = 1;
    first.grant(vec![step]);
    first.until_alert();
    kill(host.supervisor());
    let file = host.run_dir().join("steps/0000/alerts.jsonl");
    let written = || fs::read_to_string(&file).unwrap().lines().count();
    let so_far = written();
    wait_until("an alert that no supervisor takes", || written() > so_far);
    let mut second = Bridge::open();
    second.send_attach(&host, 1, BTreeMap::new());
    assert!(matches!(second.message(), FromAgent::Attached { .. }));
    second.until_alert();
    second.until_alert();
    go(&host);
    second.until_finished(STEP).expect(Outcome::Ok);
    assert_eq!(alerts(&second), written());
    let seqs: Vec<u64> = second.events.iter().map(|event| event.host_seq).collect();
    assert!(seqs.iter().copied().eq(2..2 + seqs.len() as u64), "{seqs:?}");
    second.finish();
}

#[test]
fn a_person_can_end_a_step() {
    for (as_nobody, probe) in [(false, Some("effect")), (false, None), (true, Some("began"))] {
        if as_nobody && !rustix::process::geteuid().is_root() {
            eprintln!("skipped in part: only root can become somebody else");
            continue;
        }
        let host = Host::new();
        let mut bridge = Bridge::attach(&host);
        let mut step = shell(&host, STEP, WAIT);
        step.spec.probe = probe.map(|name| exists(&host.path(name)));
        if as_nobody {
            fs::set_permissions(host.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
            step.spec.run_as = RunAs::User("nobody".to_owned());
        }
        bridge.grant(vec![step, shell(&host, "a/a/a/a/next", "echo > next")]);
        host.wait_for("began");
        // What does not run is not stopped.
        bridge.stop(STEP, 2);
        bridge.stop("a/a/a/a/next", 1);
        let FromAgent::Event(started) = bridge.message() else { panic!("no start") };
        bridge.events.push(started);
        assert!(bridge.next(Duration::from_millis(600)).is_err());
        bridge.stop(STEP, 1);
        let ended = bridge.until_finished(STEP).died(false).says("somebody asked for it to be stopped");
        let (outcome, says) = match probe {
            Some("effect") => (Outcome::Failed, "its effect is not there"),
            Some(_) => (Outcome::Failed, "its effect is there all the same"),
            None => (Outcome::Unknown, "no probe"),
        };
        ended.expect(outcome).says(says);
        assert!(host.processes("sleep").is_empty());
        bridge.finish();
        assert!(!host.path("next").exists());
    }
}

#[test]
fn what_a_dead_runner_left_behind_can_be_ended_too() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![with_probe(shell(&host, STEP, WAIT), exists(&host.path("effect")))]);
    host.wait_for("began");
    kill(host.runner());
    bridge.stop(STEP, 1);
    // It was ended on purpose: nobody is to start it again for that.
    let ended = bridge.until_finished(STEP).expect(Outcome::Failed).died(false);
    ended.says("somebody asked for it to be stopped").says("the effect is not there").says("its runner died");
    bridge.finish();
}

#[test]
fn an_adopted_step_can_be_ended() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![with_probe(shell(&host, STEP, WAIT), exists(&host.path("effect")))]);
    host.wait_for("began");
    kill(host.supervisor());
    let mut second = Bridge::attach(&host);
    second.stop(STEP, 1);
    let ended = second.until_finished(STEP).expect(Outcome::Failed).died(false);
    assert!(!ended.message.contains("died"), "the runner that lives was taken for dead: {ended:?}");
    second.finish();
}
