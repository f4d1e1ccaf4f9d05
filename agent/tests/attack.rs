//! What other accounts of a host cannot do to an agent, and what it does not leave behind for them.

use crate::common::*;
use proto::frame::Frame;
use proto::{FromAgent, Outcome, ToAgent};
use rustix::process::{Gid, Uid};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// An account that nobody has.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can act as another account");
    }
    root
}

/// Runs something as another account, in a thread of its own: ids are per thread.
fn as_other<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let work = || {
        let (uid, gid) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
        rustix::thread::set_thread_groups(&[gid]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        what()
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Opens every directory on the way, as no host would.
fn open_up(host: &Host, run_dir: &Path) {
    for dir in run_dir.ancestors().take_while(|dir| dir.starts_with(host.dir.path())) {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    }
}

#[test]
fn another_account_is_not_heard_by_a_supervisor() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let socket = host.run_dir().join("supervisor.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(host.run_dir()).unwrap().mode() & 0o777, 0o700);
    if !is_root() {
        return bridge.finish();
    }
    // Even where permissions would let it through: the kernel says who it is.
    open_up(&host, &host.run_dir());
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let attach = ToAgent::Attach {
        run: RUN.to_owned(),
        host_state: host.state(),
        claim: bridge.claim.clone(),
        acked: 0,
        output: Default::default(),
        keep: Vec::new(),
    };
    let said = |stream: &mut UnixStream| {
        let _ = stream.write_all(&Frame::message(&attach).unwrap().encode());
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = [0; 256];
        // Cut off, or nothing but an end: nothing was said either way.
        stream.read(&mut answer).unwrap_or(0)
    };
    let heard = as_other(|| said(&mut UnixStream::connect(&socket).unwrap()));
    assert_eq!(heard, 0, "another account is answered");
    bridge.perform(shell(&host, "s", "true")).expect(Outcome::Ok);
    // Our own account is.
    assert!(said(&mut UnixStream::connect(&socket).unwrap()) > 0);
}

#[test]
fn a_bridge_speaks_to_no_supervisor_of_another_account() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    Bridge::attach(&host).finish();
    wait_until("the end", || host.processes("supervisor").is_empty());
    open_up(&host, &host.run_dir());
    let socket = host.run_dir().join("supervisor.sock");
    let impostor = as_other(|| UnixListener::bind(&socket).unwrap());
    std::fs::set_permissions(host.run_dir(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut bridge = Bridge::open();
    bridge.send(&ToAgent::Secrets { values: [("a".to_owned(), proto::Secret::new("canary-of-a-password"))].into() });
    bridge.send_attach(&host, 0, Default::default());
    assert!(matches!(bridge.message(), FromAgent::Attached { .. }));
    impostor.set_nonblocking(true).unwrap();
    while let Ok((mut stream, _)) = impostor.accept() {
        let mut heard = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"", "it was told something");
    }
    bridge.finish();
}

/// Bridge, supervisor and runner leave no core dump and nobody of their account can look into them. Programs that they start are as they
/// always are.
#[test]
fn processes_with_secrets_are_closed() {
    let host = Host::new();
    let agent = host.path("caravan-agent");
    std::fs::copy(AGENT, &agent).unwrap();
    // What the kernel lets an account do with a process shows in who owns its entry of /proc. Root owns all of its own anyway.
    let account = if rustix::process::geteuid().is_root() { OTHER } else { rustix::process::geteuid().as_raw() };
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]);
    if rustix::process::geteuid().is_root() {
        for path in [host.dir.path(), &agent] {
            std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap();
        }
        command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    let mut bridge = Bridge::by(command.arg(&agent).arg("bridge")).greet();
    bridge.send_attach(&host, 0, Default::default());
    assert!(matches!(bridge.message(), FromAgent::Attached { .. }));
    bridge.grant(vec![shell(&host, "s", "touch began; while [ ! -e go ]; do sleep 0.02; done")]);
    host.wait_for("began");
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    let runs_as = |pid: i32| std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let bridge_pid = i32::try_from(bridge.child.id()).unwrap();
    let (supervisor, runner) = (host.supervisor().as_raw_nonzero().get(), host.runner().as_raw_nonzero().get());
    for (what, pid) in [("bridge", bridge_pid), ("supervisor", supervisor), ("runner", runner)] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()).unwrap();
        assert_eq!((uid, owner(pid)), (account.to_string().as_str(), 0), "{what}");
    }
    let program = children(host.runner())[0].as_raw_nonzero().get();
    assert_eq!((runs_as(program), owner(program)), (account, account));
    std::fs::write(host.path("go"), "").unwrap();
    bridge.until_finished("s").expect(Outcome::Ok);
    kill_by_abort(&mut bridge);
}

fn kill_by_abort(bridge: &mut Bridge) {
    let pid = rustix::process::Pid::from_child(&bridge.child);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = bridge.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}
