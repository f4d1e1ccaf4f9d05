//! Nothing that dies around a step takes the step, its result or its output with it.

use crate::common::{Bridge, Host, PATIENCE, exists, kill, shell, wait_until, with_probe};
use proto::message::Granted;
use proto::{FromAgent, Outcome, Probe, StepId};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STEP: &str = "p/migrate/s/h/postupgrade";

/// Says a line, waits to be let go, says another one. Notes each start.
fn patient(host: &Host) -> Granted {
    shell(
        host,
        STEP,
        "echo x >> starts; echo before; echo > began; while [ ! -e go ]; do sleep 0.01; done; echo after; echo > effect",
    )
}

fn go(host: &Host) {
    fs::write(host.path("go"), "").unwrap();
}

/// Attaches with what an earlier conversation left behind.
fn re_attach(host: &Host, before: &Bridge, output: BTreeMap<StepId, u64>) -> Bridge {
    let mut bridge = Bridge::open();
    bridge.claim = before.claim.clone();
    bridge.events = before.events.clone();
    let acked = before.events.last().map_or(0, |event| event.host_seq);
    bridge.send_attach(host, acked, output);
    let FromAgent::Attached { .. } = bridge.message() else { panic!("not attached") };
    bridge
}

#[test]
fn a_step_goes_on_without_its_bridge_and_nothing_is_lost() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![patient(&host), shell(&host, "p/migrate/s/h/next", "echo next")]);
    host.wait_for("began");
    let FromAgent::Event(started) = first.message() else { panic!("no start") };
    first.events.push(started);
    wait_until("the first line", || {
        let _ = first.next(Duration::from_millis(10));
        first.output.values().any(|bytes| bytes == b"before\n")
    });
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    go(&host);
    // Both steps end while nobody is there.
    wait_until("the second step", || host.run_dir().join("steps/0001/status.json").exists());

    let mut second = re_attach(&host, &first, BTreeMap::from([(StepId(STEP.to_owned()), 4)]));
    second.until_finished(STEP).expect(Outcome::Ok);
    let next = second.until_finished("p/migrate/s/h/next").expect(Outcome::Ok);
    assert_eq!(next.output, "next\n");
    let stream = *second.output.keys().next().unwrap();
    assert_eq!(
        (second.begins[&stream], second.output[&stream].as_slice()),
        (4, b"re\nafter\n".as_slice()),
        "from the offset that was known"
    );
    let seqs: Vec<u64> = second.events.iter().map(|event| event.host_seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert_eq!(host.read("starts"), "x\n");
    second.finish();
}

#[test]
fn a_later_bridge_replaces_the_one_before() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![patient(&host)]);
    host.wait_for("began");
    let mut second = Bridge::attach(&host);
    loop {
        match first.message() {
            FromAgent::Refused { reason } => break assert!(reason.contains("another controller")),
            FromAgent::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
    first.grant(vec![shell(&host, "a/a/a/a/late", "echo > late")]);
    go(&host);
    assert_eq!(second.until_finished(STEP).expect(Outcome::Ok).output, "before\nafter\n");
    assert!(second.next(Duration::from_millis(200)).is_err(), "the first bridge was still listened to");
    second.finish();
    assert!(!host.path("late").exists());
}

#[test]
fn a_dead_supervisors_step_is_adopted_and_not_started_again() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![patient(&host), shell(&host, "p/migrate/s/h/next", "echo next >> starts")]);
    host.wait_for("began");
    kill(host.supervisor());
    loop {
        match first.message() {
            FromAgent::Fatal { message } => break assert!(message.contains("attach again"), "{message}"),
            FromAgent::Event(event) => first.events.push(event),
            other => panic!("{other:?}"),
        }
    }
    let mut second = re_attach(&host, &first, BTreeMap::new());
    assert!(second.next(Duration::from_millis(300)).is_err(), "the step was taken for ended");
    go(&host);
    assert_eq!(second.until_finished(STEP).expect(Outcome::Ok).output, "before\nafter\n");
    second.until_finished("p/migrate/s/h/next").expect(Outcome::Ok);
    assert_eq!(host.read("starts"), "x\nnext\n");
    second.finish();
}

#[test]
fn a_step_goes_on_when_supervisor_and_bridge_die_again_and_again() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let talks = "echo x >> starts; echo > began; while [ ! -e go ]; do echo a line; sleep 0.01; done; echo over; echo > effect";
    bridge.grant(vec![with_probe(shell(&host, STEP, talks), exists(&host.path("effect")))]);
    host.wait_for("began");
    let mut output = Vec::new();
    for _ in 0..3 {
        wait_until("some output", || {
            if let Ok(FromAgent::Event(event)) = bridge.next(Duration::from_millis(5)) {
                bridge.events.push(event);
            }
            bridge.output.values().any(|bytes| bytes.len() > 50)
        });
        bridge.child.kill().unwrap();
        kill(host.supervisor());
        // What had arrived by then.
        while let Ok(message) = bridge.next(Duration::from_millis(50)) {
            let FromAgent::Event(event) = message else { panic!("{message:?}") };
            bridge.events.push(event);
        }
        output.extend(bridge.output.values().next().unwrap());
        bridge = re_attach(&host, &bridge, BTreeMap::from([(StepId(STEP.to_owned()), output.len() as u64)]));
    }
    go(&host);
    let ended = bridge.until_finished(STEP).expect(Outcome::Ok);
    output.extend(bridge.output.values().next().unwrap());
    let text = String::from_utf8(output).unwrap();
    assert!(text.ends_with("a line\nover\n") && text.lines().rev().skip(1).all(|line| line == "a line"), "{text}");
    assert_eq!((ended.output_len, host.read("starts").as_str()), (text.len() as u64, "x\n"));
    bridge.finish();
}

#[test]
fn a_result_that_nobody_saw_is_found() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    first.grant(vec![patient(&host)]);
    host.wait_for("began");
    kill(host.supervisor());
    go(&host);
    wait_until("the result", || host.run_dir().join("steps/0000/status.json").exists());
    let mut second = Bridge::attach(&host);
    assert_eq!(second.until_finished(STEP).expect(Outcome::Ok).output, "before\nafter\n");
    assert_eq!(host.read("starts"), "x\n");
    second.finish();
}

#[test]
fn a_torn_journal_is_cut_and_gone_on_with() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.perform(shell(&host, "a/a/a/a/x", "echo x >> acted")).expect(Outcome::Ok);
    kill(host.supervisor());
    let path = host.run_dir().join("journal.jsonl");
    let mut journal = fs::read(&path).unwrap();
    journal.extend_from_slice(b"{\"event\":{\"host_seq\":3,\"host_ti");
    fs::write(&path, &journal).unwrap();
    let mut again = Bridge::open();
    again.send_attach(&host, 2, BTreeMap::new());
    assert_eq!(again.message(), FromAgent::Attached { host_seq: 2, open: vec![], token: 2 });
    again.perform(shell(&host, "a/a/a/a/y", "echo y >> acted")).expect(Outcome::Ok);
    assert_eq!(host.read("acted"), "x\ny\n");
    again.finish();
}

#[test]
fn nothing_is_done_with_a_journal_that_was_changed() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.perform(shell(&host, "a/a/a/a/x", "echo x >> acted")).expect(Outcome::Ok);
    kill(host.supervisor());
    let path = host.run_dir().join("journal.jsonl");
    let journal = fs::read(&path).unwrap();
    // In the grant, the event that says that the step began, and the last one.
    for line in [2, 3, 4] {
        let mut changed = journal.clone();
        let begin = changed.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum::<usize>();
        changed[begin + 40] ^= 4;
        fs::write(&path, &changed).unwrap();
        let mut again = Bridge::open();
        again.send_attach(&host, 0, BTreeMap::new());
        let FromAgent::Fatal { message } = again.message() else { panic!("gone on with a damaged journal") };
        assert!(message.contains(&format!("line {line} ")) && message.contains("journal.jsonl"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), changed, "evidence was destroyed");
    }
    fs::write(&path, &journal).unwrap();
    let mut again = Bridge::attach(&host);
    again.perform(shell(&host, "a/a/a/a/y", "echo y >> acted")).expect(Outcome::Ok);
    assert_eq!(host.read("acted"), "x\ny\n");
    again.finish();
}

#[test]
fn a_supervisor_that_nobody_needs_ends() {
    let host = Host::new();
    let run = host.run_dir();
    fs::create_dir_all(&run).unwrap();
    let arguments = ["supervisor", run.to_str().unwrap(), "--idle", "1"];
    let ended = std::process::Command::new(crate::common::AGENT).args(arguments).output().unwrap();
    assert!(ended.status.success() && ended.stdout == b"ready\n", "{ended:?}");
    let mut bridge = Bridge::attach(&host);
    bridge.perform(shell(&host, "a/a/a/a/x", "true")).expect(Outcome::Ok);
    assert!(bridge.next(PATIENCE / 20).is_err());
    bridge.finish();
}

#[test]
fn much_output_arrives_whole_through_a_break() {
    let host = Host::new();
    let mut first = Bridge::attach(&host);
    let lines = "i=0; while [ $i -lt 40000 ]; do echo line $i of a long postupgrade; i=$((i+1)); done; echo > effect";
    first.grant(vec![with_probe(shell(&host, STEP, lines), exists(&host.path("effect")))]);
    let FromAgent::Event(started) = first.message() else { panic!("no start") };
    first.events.push(started);
    wait_until("some output", || {
        let _ = first.next(Duration::from_millis(1));
        first.output.values().any(|bytes| bytes.len() > 20_000)
    });
    let so_far = first.output.values().next().unwrap().clone();
    first.child.kill().unwrap();
    let mut second = re_attach(&host, &first, BTreeMap::from([(StepId(STEP.to_owned()), so_far.len() as u64)]));
    let ended = second.until_finished(STEP).expect(Outcome::Ok);
    let whole = String::from_utf8(so_far).unwrap() + &ended.output;
    let expected: String = (0..40000).map(|i| format!("line {i} of a long postupgrade\n")).collect();
    assert!(whole == expected && ended.output_len == expected.len() as u64, "output has changed on its way");
    second.finish();
}

/// The probe of a step may not be left out of what is durable: it decides after a crash.
#[test]
fn grants_are_durable_with_their_probes() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let probe = Probe::Absent(host.text("never"));
    bridge.perform(with_probe(shell(&host, STEP, "true"), probe)).expect(Outcome::Ok);
    let journal = fs::read_to_string(host.run_dir().join("journal.jsonl")).unwrap();
    let grant = journal.lines().find(|line| line.starts_with("{\"record\":\"grant\"")).unwrap();
    assert!(grant.contains("/never"), "{grant}");
    bridge.finish();
}

/// A session as systemd knows it: a control group whose processes are all ended when it is over.
struct Session(PathBuf);

impl Session {
    fn begin() -> Option<Self> {
        let root = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|dir| dir.join("cgroup.procs").exists())?;
        let session = Self(root.join(format!("caravan-test-session-{}", std::process::id())));
        fs::create_dir(&session.0).ok().map(|()| session)
    }

    fn admit(&self, pid: u32) -> bool {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).is_ok()
    }

    fn end(&self) {
        wait_until("the end of the session", || {
            let left = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
            left.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).for_each(|pid| {
                let _ = kill_process(pid, Signal::KILL);
            });
            left.is_empty()
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
        wait_until("an empty group", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_step_outlives_the_session_that_began_it() {
    let host = Host::new();
    let mut first = Bridge::open();
    let Some(session) = Session::begin().filter(|session| session.admit(first.child.id())) else {
        return eprintln!("skipped: the control groups of this machine cannot be changed");
    };
    first.send_attach(&host, 0, BTreeMap::new());
    assert!(matches!(first.message(), FromAgent::Attached { .. }));
    first.grant(vec![patient(&host)]);
    host.wait_for("began");
    let members = fs::read_to_string(session.0.join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), first.child.id().to_string(), "of the agent only the bridge belongs to the session");
    session.end();
    let mut second = re_attach(&host, &first, BTreeMap::new());
    go(&host);
    second.until_finished(STEP).expect(Outcome::Ok);
    second.finish();
}
