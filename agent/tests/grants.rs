//! The life of a grant: order, stopping after a failure, proving, post-conditions, revoking, ending.

use crate::common::{Bridge, Host, attempt, claim, exists, script, shell, step, with_probe};
use proto::message::{Happened, Mode};
use proto::{Action, FromAgent, Outcome, Probe, ToAgent};
use std::collections::BTreeMap;

#[test]
fn steps_run_in_order_and_a_failure_ends_the_grant() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![
        shell(&host, "p/stop/s/h/one", "echo first; echo 1 >> log"),
        shell(&host, "p/stop/s/h/two", "echo 2 >> log; echo dpkg: dependency problems; exit 7"),
        shell(&host, "p/stop/s/h/three", "echo 3 >> log"),
    ]);
    let one = bridge.until_finished("p/stop/s/h/one").expect(Outcome::Ok);
    assert_eq!((one.output.as_str(), one.output_len, one.exit_code), ("first\n", 6, Some(0)));
    let two = bridge.until_finished("p/stop/s/h/two").expect(Outcome::Failed).says("expected exit code 0, seen exit code 7");
    assert!(two.message.contains("dpkg: dependency problems"), "{two:?}");
    assert_eq!(bridge.message(), FromAgent::Revoked { steps: vec![attempt("p/stop/s/h/three", 1)] });
    assert_eq!(host.read("log"), "1\n2\n");
    let seqs: Vec<u64> = bridge.events.iter().map(|event| event.host_seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    // The same attempt stays revoked, however often a controller that lost its connection repeats the grant.
    let mut three = shell(&host, "p/stop/s/h/three", "echo 3 >> log");
    bridge.grant(vec![three.clone()]);
    assert_eq!(bridge.message(), FromAgent::Revoked { steps: vec![attempt("p/stop/s/h/three", 1)] });
    assert_eq!(host.read("log"), "1\n2\n");
    // Another attempt is another matter.
    three.attempt = 2;
    bridge.perform(three).expect(Outcome::Ok);
    assert_eq!(host.read("log"), "1\n2\n3\n");
    bridge.finish();
}

#[test]
fn a_step_is_ok_only_when_its_effect_is_seen() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let absent = with_probe(shell(&host, "a/a/a/a/no-effect", "true"), exists(&host.path("effect")));
    bridge.perform(absent).expect(Outcome::Failed).says("ended well, but its effect was not seen").says("does not exist");
    let mut slow =
        with_probe(shell(&host, "a/a/a/a/slow", "(sleep 0.3; echo > effect) > /dev/null 2>&1 &"), exists(&host.path("effect")));
    slow.spec.limits.settle_s = 20;
    let Action::Command(command) = &mut slow.spec.action else { unreachable!() };
    command.starts_service = true;
    bridge.perform(slow).expect(Outcome::Ok);
    let blind = Probe::Command {
        argv: crate::common::argv(&["no-such-program"]),
        profile: None,
        code: None,
        contains: vec![],
        lacks: vec![],
    };
    bridge.perform(with_probe(shell(&host, "a/a/a/a/blind", "true"), blind)).expect(Outcome::Unknown).says("no-such-program");
    bridge.finish();
}

#[test]
fn proving_never_acts() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut prove = |id: &str, probe: Option<Probe>| {
        let mut step = shell(&host, id, "echo > acted");
        (step.mode, step.spec.probe) = (Mode::Prove, probe);
        bridge.perform(step)
    };
    prove("a/a/a/a/1", Some(exists(host.dir.path()))).expect(Outcome::Skipped);
    prove("a/a/a/a/2", Some(exists(&host.path("nothing")))).expect(Outcome::Failed).says("nothing, which does not exist");
    prove("a/a/a/a/3", None).expect(Outcome::Unknown).says("no probe");
    assert!(!host.path("acted").exists());
    bridge.finish();
}

#[test]
fn a_step_that_does_not_apply_is_skipped_whatever_was_asked() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let starts = |module: &str, file: &str| Probe::Xml {
        file: host.path(file).to_string_lossy().into_owned(),
        element: format!("serverconf/{module}"),
        attribute: "autoStart".to_owned(),
        equals: Some("true".to_owned()),
    };
    std::fs::write(host.path("config.xml"), "<serverconf><mta autoStart='true'/><inMail autoStart='false'/></serverconf>").unwrap();
    std::fs::write(host.path("broken.xml"), "<serverconf>").unwrap();
    let mut ask = |id: &str, only_if: Probe, mode: Mode, attempt: u32| {
        let mut step = with_probe(shell(&host, &format!("a/a/a/a/{id}"), "echo > acted"), exists(&host.path("acted")));
        (step.spec.only_if, step.mode, step.attempt) = (Some(only_if), mode, attempt);
        bridge.perform(step)
    };
    ask("off", starts("inMail", "config.xml"), Mode::Act, 1).expect(Outcome::Skipped).says("inMail").says("seen `false`");
    ask("proven", starts("inMail", "config.xml"), Mode::Prove, 1).expect(Outcome::Skipped).says("does not apply");
    ask("again", starts("inMail", "config.xml"), Mode::Act, 2).expect(Outcome::Skipped).says("does not apply");
    ask("element", starts("stat", "config.xml"), Mode::Act, 1).expect(Outcome::Skipped).says("no such element");
    ask("file", starts("mta", "nothing.xml"), Mode::Act, 1).expect(Outcome::Skipped).says("nothing.xml");
    ask("broken", starts("mta", "broken.xml"), Mode::Act, 1).expect(Outcome::Unknown).says("nothing was done");
    assert!(!host.path("acted").exists());
    ask("on", starts("mta", "config.xml"), Mode::Act, 1).expect(Outcome::Ok);
    assert!(host.path("acted").exists());
    bridge.finish();
}

#[test]
fn a_probe_that_looks_at_nothing_proves_but_never_replaces_the_action() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let step = |id: &str| with_probe(shell(&host, id, "echo x >> acted"), Probe::All(vec![]));
    let mut proven = step("a/a/a/a/1");
    proven.mode = Mode::Prove;
    bridge.perform(proven).expect(Outcome::Skipped).says("no effect of its own");
    assert!(!host.path("acted").exists());
    bridge.perform(step("a/a/a/a/2")).expect(Outcome::Ok);
    let mut again = step("a/a/a/a/3");
    again.attempt = 2;
    bridge.perform(again).expect(Outcome::Ok);
    assert_eq!(host.read("acted"), "x\nx\n");
    bridge.finish();
}

#[test]
fn a_second_attempt_looks_first() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut again = with_probe(shell(&host, "a/a/a/a/x", "echo x >> acted"), exists(&host.path("acted")));
    again.attempt = 2;
    bridge.perform(again.clone()).expect(Outcome::Ok);
    again.attempt = 3;
    bridge.perform(again).expect(Outcome::Ok).says("nothing was done");
    assert_eq!(host.read("acted"), "x\n");
    bridge.finish();
}

#[test]
fn a_step_and_attempt_that_is_known_is_not_run_again() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let step = shell(&host, "a/a/a/a/x", "echo x >> acted");
    bridge.perform(step.clone()).expect(Outcome::Ok);
    // Its events come again, with their old numbers.
    bridge.grant(vec![step, shell(&host, "a/a/a/a/y", "echo y >> acted")]);
    bridge.until_finished("a/a/a/a/x").expect(Outcome::Ok);
    bridge.until_finished("a/a/a/a/y").expect(Outcome::Ok);
    assert_eq!(host.read("acted"), "x\ny\n");
    assert_eq!(bridge.events.last().unwrap().host_seq, 4);
    bridge.finish();
}

#[test]
fn what_has_not_begun_can_be_taken_back() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let wait = "echo > began; while [ ! -e go ]; do sleep 0.01; done";
    bridge.grant(vec![shell(&host, "a/a/a/a/x", wait), shell(&host, "a/a/a/a/y", "echo > acted")]);
    host.wait_for("began");
    bridge.send(&ToAgent::Revoke);
    let FromAgent::Event(event) = bridge.message() else { panic!("no start") };
    bridge.events.push(event);
    assert_eq!(bridge.message(), FromAgent::Revoked { steps: vec![attempt("a/a/a/a/y", 1)] });
    std::fs::write(host.path("go"), "").unwrap();
    bridge.until_finished("a/a/a/a/x").expect(Outcome::Ok);
    bridge.finish();
    assert!(!host.path("acted").exists());
}

#[test]
fn actions_of_others_are_refused_in_words() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let gate = Action::Gate { gate: "p/g".to_owned(), ask: String::new(), commands: vec![] };
    bridge.perform(step("a/a/a/a/gate", gate)).expect(Outcome::Failed).says("a gate waits for a person");
    bridge.perform(step("a/a/a/a/inspect", Action::Inspect { queries: vec![] })).expect(Outcome::Failed).says("bridge");
    bridge.finish();
}

#[test]
fn bad_runs_and_directories_are_refused() {
    let host = Host::new();
    let attach = |run: &str, host_state: String| ToAgent::Attach {
        run: run.to_owned(),
        host_state,
        claim: claim("seat", "one"),
        acked: 0,
        output: BTreeMap::new(),
        keep: Vec::new(),
    };
    for (run, host_state) in [("../x", host.state()), ("", host.state()), ("r", "relative".to_owned())] {
        let mut bridge = Bridge::open();
        bridge.send(&attach(run, host_state));
        assert!(matches!(bridge.message(), FromAgent::Refused { .. }), "{run}");
    }
    std::fs::write(host.path("file"), "").unwrap();
    let mut bridge = Bridge::open();
    bridge.send(&attach("r", host.text("file/state")));
    let FromAgent::Fatal { message } = bridge.message() else { panic!("attached in a file") };
    assert!(message.contains("file/state"), "{message}");
}

#[test]
fn programs_that_are_not_there_are_named() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut command = script(&host, "");
    command.argv = crate::common::argv(&["no-such-program", "x"]);
    bridge.perform(step("a/a/a/a/x", Action::Command(command))).expect(Outcome::Failed).says("no-such-program is not in PATH");
    let mut command = script(&host, "true");
    command.dir = Some("/no/such/dir".to_owned());
    bridge.perform(step("a/a/a/a/y", Action::Command(command))).expect(Outcome::Failed).says("/no/such/dir");
    let started = bridge.events.iter().filter(|event| matches!(event.what, Happened::Started { .. })).count();
    assert_eq!(started, 2);
    bridge.finish();
}
