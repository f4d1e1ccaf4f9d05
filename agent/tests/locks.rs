//! The lock of a host, by real bridges: who gets it, who is refused, what becomes of steps that were granted with an older token.

use crate::common::{Bridge, Host, RUN, attempt, claim, shell, wait_until};
use proto::host::{Record, Standing, State};
use proto::message::Claim;
use proto::{FromAgent, Outcome, ToAgent};
use rustix::process::{Signal, kill_process, test_kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;

const OTHER: &str = "2026-11-23-zz";

#[track_caller]
fn token(answer: FromAgent) -> u64 {
    let FromAgent::Attached { token, .. } = answer else { panic!("expected to be attached, got {answer:?}") };
    token
}

#[track_caller]
fn refused(answer: FromAgent, texts: &[&str]) {
    let FromAgent::Refused { reason } = answer else { panic!("expected a refusal, got {answer:?}") };
    for text in texts {
        assert!(reason.contains(text), "expected `{text}` in: {reason}");
    }
}

fn taking_over(mut claim: Claim, reason: &str) -> Claim {
    claim.take_over = Some(reason.to_owned());
    claim
}

/// Holds its step open until the file `go` is there.
fn waiting(host: &Host, id: &str) -> proto::message::Granted {
    shell(host, id, "echo > began; while [ ! -e go ]; do sleep 0.01; done")
}

fn go(host: &Host) {
    fs::write(host.path("go"), "").unwrap();
}

fn records(host: &Host, run: &str) -> Vec<Record> {
    let bytes = fs::read(host.path("state/runs").join(run).join("journal.jsonl")).unwrap();
    proto::lines::read(&bytes).unwrap().0
}

#[test]
fn a_host_has_one_holder_and_its_tokens_only_grow() {
    let host = Host::new();
    let mut bridge = Bridge::open();
    let attach = |bridge: &mut Bridge, run: &str, claim: Claim| bridge.try_attach(&host, run, claim);
    // Free, the same controller, another one of the same seat.
    assert_eq!(token(attach(&mut bridge, RUN, claim("desk", "one"))), 1);
    assert_eq!(token(attach(&mut bridge, RUN, claim("desk", "one"))), 1);
    assert_eq!(token(attach(&mut bridge, RUN, claim("desk", "two"))), 2);
    let lock = host.lock();
    assert_eq!((&lock["run"], &lock["seat"], &lock["controller"]), (&RUN.into(), &"desk".into(), &"two".into()));
    assert_eq!((&lock["operator"], lock["token"].as_u64()), (&"operator@desk".into(), Some(2)));

    // Another workstation, another run, and one that says it succeeds the wrong run.
    let same_run = ["run 2026-11-22-k3 of operator@desk", "since 20", "another workstation", "--take-over"];
    refused(attach(&mut bridge, RUN, claim("home", "three")), &same_run);
    let other_run = ["run 2026-11-22-k3 of operator@desk", "`resume`, `abort` or `rollback`", "--take-over REASON"];
    refused(attach(&mut bridge, OTHER, claim("desk", "three")), &other_run);
    let succeeding = |seat: &str, run: &str| Claim { succeeds: Some(run.to_owned()), ..claim(seat, "three") };
    refused(attach(&mut bridge, OTHER, succeeding("desk", "no-such-run")), &other_run);
    refused(attach(&mut bridge, OTHER, succeeding("home", RUN)), &other_run);
    assert_eq!(host.lock(), lock, "a refused claim changes nothing");

    // A rollback follows its run; then somebody takes the host, and says why.
    assert_eq!(token(attach(&mut bridge, OTHER, succeeding("desk", RUN))), 3);
    let taken = attach(&mut bridge, RUN, taking_over(claim("home", "four"), "the workstation burned"));
    assert_eq!(token(taken), 4);
    refused(attach(&mut bridge, OTHER, claim("desk", "three")), &["operator@home", "the workstation burned"]);

    // Who lost it does not take it back by coming again, with whatever right it had: only another controller does.
    for before in [claim("desk", "one"), claim("home", "two"), succeeding("desk", RUN)] {
        refused(attach(&mut bridge, RUN, taking_over(before, "again")), &["does not hold the host any more", "operator@home"]);
    }

    // Released, by its holder alone; the token stays.
    let mut stale = Bridge::open();
    let mut home = Bridge::open();
    assert_eq!(token(attach(&mut home, RUN, claim("home", "four"))), 4);
    refused(stale.try_attach(&host, RUN, claim("desk", "two")), &["does not hold the host"]);
    home.finish();
    assert_eq!(host.read("state/lock"), "{\"token\":4}");
    assert_eq!(token(stale.try_attach(&host, OTHER, claim("desk", "two"))), 5);
    stale.end(true);
}

#[test]
fn a_lock_outlives_its_supervisor() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.perform(shell(&host, "a/a/a/a/x", "true")).expect(Outcome::Ok);
    let supervisor = host.supervisor();
    bridge.end(false);
    wait_until("the end of the supervisor", || test_kill_process(supervisor).is_err());
    let mut other = Bridge::open();
    refused(other.try_attach(&host, OTHER, claim("seat", "other")), &[RUN]);
    // The run itself goes on, as another controller of its seat, and not from elsewhere.
    refused(other.try_attach(&host, RUN, claim("elsewhere", "other")), &["another workstation"]);
    assert_eq!(token(other.try_attach(&host, RUN, claim("seat", "other"))), 2);
    other.finish();
    let mut last = Bridge::open();
    assert_eq!(token(last.try_attach(&host, OTHER, claim("elsewhere", "last"))), 3);
    last.finish();
}

#[test]
fn others_can_read_who_holds_a_host() {
    let host = Host::new();
    Bridge::attach(&host).end(false);
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state/lock"), mode("state") & 0o011, mode("state/runs")), (0o644, 0o011, 0o700));
}

#[test]
fn a_damaged_lock_is_nobodys_until_it_is_taken_over() {
    let host = Host::new();
    let mut bridge = Bridge::open();
    for controller in ["one", "two", "three"] {
        token(bridge.try_attach(&host, RUN, claim("seat", controller)));
    }
    let whole = fs::read(host.path("state/lock")).unwrap();
    for damaged in [&b""[..], b"{}", b"{\"run\":\"x\"}", &whole[..whole.len() - 1], &[&whole[..], &b"}"[..]].concat()] {
        fs::write(host.path("state/lock"), damaged).unwrap();
        refused(bridge.try_attach(&host, RUN, claim("seat", "three")), &["state/lock", "cannot be read", "--take-over REASON"]);
        assert_eq!(fs::read(host.path("state/lock")).unwrap(), damaged);
    }
    // The journals know which tokens were given out.
    assert_eq!(token(bridge.try_attach(&host, RUN, taking_over(claim("seat", "four"), "the disk was restored"))), 4);
    assert_eq!(host.lock()["reason"], "the disk was restored");
    bridge.finish();
}

#[test]
fn who_lost_the_host_in_the_middle_of_a_grant_begins_nothing_more() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![
        waiting(&host, "p/stop/s/h/one"),
        shell(&host, "p/stop/s/h/two", "echo 2 >> acted"),
        shell(&host, "p/stop/s/h/three", "echo 3 >> acted"),
    ]);
    host.wait_for("began");
    let mut second = Bridge::open();
    refused(second.try_attach(&host, OTHER, claim("home", "b")), &[RUN]);
    // What runs is not stopped: the new holder waits for it.
    let taking = || taking_over(claim("home", "b"), "the operator left");
    for _ in 0..2 {
        let answer = second.try_attach(&host, OTHER, taking());
        let FromAgent::Busy { reason } = answer else { panic!("expected to wait, got {answer:?}") };
        assert!(reason.contains(RUN) && reason.contains("p/stop/s/h/one"), "{reason}");
    }
    go(&host);
    first.until_finished("p/stop/s/h/one").expect(Outcome::Ok);
    let rest = vec![attempt("p/stop/s/h/two", 1), attempt("p/stop/s/h/three", 1)];
    assert_eq!(first.message(), FromAgent::Revoked { steps: rest.clone() });
    refused(first.message(), &[OTHER, "operator@home", "the operator left", "begins nothing more"]);
    assert!(records(&host, RUN).contains(&Record::Revoked { steps: rest }));

    assert_eq!(token(second.try_attach(&host, OTHER, taking())), 2);
    second.perform(shell(&host, "p/stop/s/h/two", "echo second >> acted")).expect(Outcome::Ok);
    // Whatever the first one says now: nothing begins, and the host stays the other one's.
    let mut again = shell(&host, "p/stop/s/h/two", "echo 2 >> acted");
    again.attempt = 2;
    first.grant(vec![again]);
    refused(first.message(), &[OTHER]);
    first.finish();
    assert_eq!((host.read("acted").as_str(), &host.lock()["run"]), ("second\n", &OTHER.into()));
    second.finish();
}

#[test]
fn a_run_that_is_gone_on_with_takes_back_what_its_first_controller_granted() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![waiting(&host, "p/stop/s/h/one"), shell(&host, "p/stop/s/h/two", "echo first >> acted")]);
    host.wait_for("began");
    let FromAgent::Event(_) = first.message() else { panic!("no start") };
    let mut second = Bridge::open();
    let open = vec![attempt("p/stop/s/h/one", 1), attempt("p/stop/s/h/two", 1)];
    let answer = second.try_attach(&host, RUN, claim("seat", "second"));
    assert_eq!(answer, FromAgent::Attached { host_seq: 1, open, token: 2 });
    refused(first.message(), &["another controller"]);
    go(&host);
    second.until_finished("p/stop/s/h/one").expect(Outcome::Ok);
    assert_eq!(second.message(), FromAgent::Revoked { steps: vec![attempt("p/stop/s/h/two", 1)] });
    let mut two = shell(&host, "p/stop/s/h/two", "echo second >> acted");
    two.attempt = 2;
    second.perform(two).expect(Outcome::Ok);
    assert_eq!(host.read("acted"), "second\n");
    second.finish();
}

#[test]
fn who_goes_on_with_a_run_has_not_ended_it() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![waiting(&host, "p/stop/s/h/one")]);
    host.wait_for("began");
    first.send(&ToAgent::Finish { release: true });
    let mut second = Bridge::attach(&host);
    second.grant(vec![shell(&host, "p/stop/s/h/two", "echo x >> acted")]);
    go(&host);
    second.until_finished("p/stop/s/h/two").expect(Outcome::Ok);
    assert_eq!(host.lock()["controller"].as_str(), Some(second.claim.controller.as_str()));
    second.finish();
}

#[test]
fn a_token_that_the_host_did_not_give_is_refused() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    for wrong in [0, 2] {
        bridge.token = wrong;
        bridge.grant(vec![shell(&host, "a/a/a/a/x", "echo > acted")]);
        refused(bridge.message(), &[&format!("the token {wrong}"), "gave out 1"]);
    }
    bridge.token = 1;
    bridge.perform(shell(&host, "a/a/a/a/y", "true")).expect(Outcome::Ok);
    assert!(!host.path("acted").exists());
    bridge.finish();
}

#[test]
fn a_step_holds_its_host_when_everything_around_it_died() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![waiting(&host, "p/stop/s/h/one")]);
    host.wait_for("began");
    for pid in [host.supervisor()].into_iter().chain(host.processes("runner")) {
        kill_process(pid, Signal::KILL).unwrap();
    }
    let mut other = Bridge::open();
    let taking = || taking_over(claim("home", "b"), "nobody answers");
    assert!(matches!(other.try_attach(&host, OTHER, taking()), FromAgent::Busy { .. }));
    go(&host);
    wait_until("the step's end", || matches!(other.try_attach(&host, OTHER, taking()), FromAgent::Attached { .. }));
    other.finish();
}

#[test]
fn what_is_kept_is_durable_with_what_relies_on_it() {
    let host = Host::new();
    let mut bridge = Bridge::open();
    bridge.send(&ToAgent::Attach {
        run: RUN.to_owned(),
        host_state: host.state(),
        claim: claim("seat", "one"),
        acked: 0,
        output: std::collections::BTreeMap::new(),
        keep: vec!["the plan".to_owned()],
    });
    assert_eq!(token(bridge.message()), 1);
    let steps = vec![shell(&host, "a/a/a/a/x", "true")];
    bridge.send(&ToAgent::Grant { steps: steps.clone(), head: "h".to_owned(), token: 1, keep: vec!["a decision".to_owned()] });
    bridge.until_finished("a/a/a/a/x").expect(Outcome::Ok);
    let kept = |line: &str| Record::Kept { lines: vec![line.to_owned()] };
    let grant = Record::Grant { steps, head: "h".to_owned(), token: 1 };
    assert_eq!(records(&host, RUN)[..4], [Record::Token { token: 1 }, kept("the plan"), kept("a decision"), grant]);
    bridge.finish();
}

#[test]
fn of_many_that_come_at_once_one_gets_the_host() {
    let host = Host::new();
    let at_once = |claims: Vec<(String, Claim)>| -> Vec<FromAgent> {
        let start = Barrier::new(claims.len());
        std::thread::scope(|scope| {
            let threads: Vec<_> = claims
                .into_iter()
                .map(|(run, claim)| {
                    let (host, start) = (&host, &start);
                    scope.spawn(move || {
                        let mut bridge = Bridge::open();
                        start.wait();
                        bridge.try_attach(host, &run, claim)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    let answers = at_once((0..6).map(|n| (format!("run-{n}"), claim(&format!("seat-{n}"), "c"))).collect());
    let attached = answers.iter().filter(|answer| matches!(answer, FromAgent::Attached { token: 1, .. })).count();
    let refused = answers.iter().filter(|answer| matches!(answer, FromAgent::Refused { .. })).count();
    assert_eq!((attached, refused), (1, 5), "{answers:?}");
    // Who takes it gets it, each with a token of its own; the last one has it.
    let run = host.lock()["run"].as_str().unwrap().to_owned();
    at_once((0..6).map(|n| (run.clone(), taking_over(claim(&format!("seat-{n}"), &format!("c-{n}")), "why not"))).collect());
    assert_eq!(host.lock()["token"], 7);
}

/// A step that notices whether another one runs beside it.
fn alone(host: &Host, id: &str) -> proto::message::Granted {
    shell(host, id, "mkdir busy || echo clash >> clashes; echo x >> done; sleep 0.01; rmdir busy")
}

#[test]
fn steps_of_two_runs_never_run_beside_each_other() {
    let host = Host::new();
    let mut bridges = Vec::new();
    for turn in 0..8 {
        let run = [RUN, OTHER][turn % 2];
        let mut bridge = Bridge::open();
        let claim = taking_over(claim(run, &turn.to_string()), "it is my turn");
        wait_until("the host", || match bridge.try_attach(&host, run, claim.clone()) {
            FromAgent::Attached { .. } => true,
            FromAgent::Busy { .. } => false,
            other => panic!("{other:?}"),
        });
        let id = |number: usize| format!("p/stop/s/h/{turn}-{number}");
        bridge.grant((0..20).map(|number| alone(&host, &id(number))).collect());
        // Somewhere in the middle of it the other one comes. The last one is left alone.
        bridge.until_finished(&id(if turn < 7 { 2 + turn } else { 19 })).expect(Outcome::Ok);
        bridges.push(bridge);
    }
    let count = |standing: Standing| -> usize {
        let states = [RUN, OTHER].map(|run| {
            let mut state = State::default();
            records(&host, run).iter().for_each(|record| state.apply(record));
            state.standing(standing).len()
        });
        states.iter().sum()
    };
    wait_until("what was taken back", || count(Standing::Waiting) == 0);
    let done = host.read("done").lines().count();
    assert_eq!((host.read("clashes").as_str(), done), ("", count(Standing::Ended(Outcome::Ok))));
    assert_eq!(done + count(Standing::Revoked), 160);
    assert!(done < 160, "nobody was interrupted");
}
