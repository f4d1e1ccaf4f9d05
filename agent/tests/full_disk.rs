//! A disk that is full: nothing begins that could not say how it ended, what has begun ends with its result, and once there is room
//! the run goes on. Caravan's directory is a small file system of its own here, which only processes of this test see.

use crate::common::{AGENT, Bridge, Host, RUN, attempt, kill, shell, wait_until};
use proto::{FromAgent, Outcome, StepId};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const STEP: &str = "p/migrate/s/h/postupgrade";

/// A file system of two mebibytes in the place of the host's directory for Caravan.
struct SmallDisk {
    host: Host,
    /// A process that lives where the file system is.
    keeper: Child,
}

impl SmallDisk {
    /// Nothing where this account may not mount.
    fn new() -> Option<Self> {
        let host = Host::new();
        fs::create_dir(host.path("state")).unwrap();
        let script = "mount -t tmpfs -o size=2m none \"$0\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "/bin/sh", "-c", script, &host.state()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.stderr(Stdio::null()).spawn().ok()?;
        let mut said = [0; 8];
        let mounted = std::io::Read::read_exact(keeper.stdout.as_mut().unwrap(), &mut said).is_ok();
        let disk = Self { host, keeper };
        if !mounted {
            eprintln!("skipped: this account may not mount a file system");
        }
        mounted.then_some(disk)
    }

    /// A program that sees the small file system.
    fn inside(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id())).arg("--").args(argv);
        command
    }

    fn bridge(&self) -> Bridge {
        Bridge::by(&mut self.inside(&[AGENT, "bridge"])).greet()
    }

    /// A path below Caravan's directory, as this process sees it.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/{name}", self.keeper.id(), self.host.state()))
    }

    fn step(&self, name: &str) -> PathBuf {
        self.path(&format!("runs/{RUN}/steps/{name}"))
    }

    fn fill(&self) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.path("filler")).unwrap();
        for piece in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'x'; piece]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn attach(disk: &SmallDisk, bridge: &mut Bridge) -> FromAgent {
    bridge.send_attach(&disk.host, 0, BTreeMap::new());
    bridge.message()
}

#[track_caller]
fn says_full(answer: FromAgent, what: &str) {
    let FromAgent::Fatal { message } = answer else { panic!("expected that it cannot go on, got {answer:?}") };
    assert!(message.contains(what) && message.contains("No space left on device"), "{message}");
}

#[test]
fn a_host_is_not_taken_without_room() {
    let Some(disk) = SmallDisk::new() else { return };
    disk.fill();
    says_full(attach(&disk, &mut disk.bridge()), "cannot take the lock");
    disk.make_room();
    let mut bridge = disk.bridge();
    assert!(matches!(attach(&disk, &mut bridge), FromAgent::Attached { token: 1, .. }));
    bridge.perform(shell(&disk.host, STEP, "true")).expect(Outcome::Ok);
    bridge.finish();
}

#[test]
fn nothing_is_granted_without_room_for_its_results() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut first = disk.bridge();
    assert!(matches!(attach(&disk, &mut first), FromAgent::Attached { .. }));
    disk.fill();
    first.grant(vec![shell(&disk.host, STEP, "echo x >> acted")]);
    says_full(first.message(), "cannot write the journal");
    assert!(!disk.host.path("acted").exists());

    disk.make_room();
    let mut again = disk.bridge();
    again.claim = first.claim.clone();
    let answer = attach(&disk, &mut again);
    assert_eq!(answer, FromAgent::Attached { host_seq: 0, open: vec![], token: 1 });
    again.perform(shell(&disk.host, STEP, "echo x >> acted")).expect(Outcome::Ok);
    assert_eq!(disk.host.read("acted"), "x\n");
    again.finish();
}

#[test]
fn output_that_fills_the_disk_costs_nothing_but_itself() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut bridge = disk.bridge();
    assert!(matches!(attach(&disk, &mut bridge), FromAgent::Attached { .. }));
    let chatter =
        "i=0; while [ $i -lt 40000 ]; do echo line $i of a long postupgrade that says far too much about it all; i=$((i+1)); done";
    bridge.grant(vec![shell(&disk.host, STEP, chatter)]);
    // All of it was printed and counted; what found no room is missing from what arrives.
    let mut output = 0;
    let ended = loop {
        match bridge.next_with_gaps() {
            Err(bytes) => output += bytes,
            Ok(FromAgent::Event(event)) => {
                bridge.events.push(event.clone());
                if matches!(event.what, proto::message::Happened::Finished { .. }) && event.step.0 == STEP {
                    break bridge.ended(STEP, 1);
                }
            }
            Ok(other) => panic!("{other:?}"),
        }
    };
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Ok, Some(0)), "{ended:?}");
    assert!(ended.output_len > 2 * 1024 * 1024 && output < ended.output_len, "{output} of {}", ended.output_len);
    // A step does not begin without room for its own result. What is said about it has its room since before.
    disk.fill();
    bridge.grant(vec![
        shell(&disk.host, "p/migrate/s/h/next", "echo next >> acted"),
        shell(&disk.host, "p/migrate/s/h/last", "echo last >> acted"),
    ]);
    wait_until("the rest", || {
        let message = bridge.message();
        if let FromAgent::Event(event) = &message {
            bridge.events.push(event.clone());
        }
        message == FromAgent::Revoked { steps: vec![attempt("p/migrate/s/h/last", 1)] }
    });
    bridge.ended("p/migrate/s/h/next", 1).expect(Outcome::Failed).says("No space left on device").says("steps/0001");
    assert!(!disk.host.path("acted").exists());

    disk.make_room();
    fs::remove_dir_all(disk.step("0000/out")).unwrap();
    for name in ["p/migrate/s/h/next", "p/migrate/s/h/last"] {
        let mut step = shell(&disk.host, name, "echo again >> acted");
        step.attempt = 2;
        bridge.perform(step).expect(Outcome::Ok);
    }
    assert_eq!(disk.host.read("acted"), "again\nagain\n");
    bridge.finish();
}

#[test]
fn a_result_finds_room_on_a_full_disk_and_so_does_its_event() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut first = disk.bridge();
    assert!(matches!(attach(&disk, &mut first), FromAgent::Attached { .. }));
    first.grant(vec![shell(&disk.host, STEP, "echo > began; while [ ! -e go ]; do sleep 0.01; done; exit 3")]);
    disk.host.wait_for("began");
    disk.fill();
    let supervisor = fs::read_to_string(disk.path(&format!("runs/{RUN}/supervisor.lock"))).unwrap();
    kill(rustix::process::Pid::from_raw(supervisor.trim().parse().unwrap()).unwrap());
    fs::write(disk.host.path("go"), "").unwrap();
    wait_until("the result", || disk.step("0000/status.json").exists());
    let mut again = disk.bridge();
    again.claim = first.claim.clone();
    again.send_attach(&disk.host, 0, BTreeMap::from([(StepId(STEP.to_owned()), 0)]));
    assert!(matches!(again.message(), FromAgent::Attached { .. }));
    again.until_finished(STEP).expect(Outcome::Failed).died(false).says("exit code 3");
    // The host is let go of as soon as there is room to write that down.
    disk.fill();
    again.send(&proto::ToAgent::Finish { release: true });
    says_full(again.message(), "its lock was not released");
    disk.make_room();
    let mut last = disk.bridge();
    last.claim = first.claim.clone();
    assert!(matches!(attach(&disk, &mut last), FromAgent::Attached { .. }));
    last.finish();
    assert_eq!(fs::read_to_string(disk.path("lock")).unwrap(), "{\"token\":1}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut bridge = disk.bridge();
    assert!(matches!(attach(&disk, &mut bridge), FromAgent::Attached { .. }));
    let claim = bridge.claim.clone();
    bridge.end(false);
    let supervisor = disk.path(&format!("runs/{RUN}/supervisor.lock"));
    wait_until("the end of the supervisor", || fs::File::open(&supervisor).unwrap().try_lock().is_ok());
    let remounted = disk.inside(&["mount", "-o", "remount,ro", &disk.host.state()]).status().unwrap();
    assert!(remounted.success());
    // Who holds the host can be said all the same.
    let mut other = disk.bridge();
    let FromAgent::Refused { reason } = other.try_attach(&disk.host, "other", crate::common::claim("elsewhere", "other")) else {
        panic!("not refused")
    };
    assert!(reason.contains(RUN), "{reason}");
    for controller in [claim.controller.as_str(), "another"] {
        let claim = proto::message::Claim { controller: controller.to_owned(), ..claim.clone() };
        let FromAgent::Fatal { message } = disk.bridge().try_attach(&disk.host, RUN, claim) else { panic!("not fatal") };
        assert!(message.contains("Read-only file system"), "{message}");
    }
}
