//! The hosts seen through OpenSSH's own client.

use crate::common::{Bench, standard};
use lab::{Cut, Lab};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `ssh` to a host, with nothing of this machine's own configuration.
fn ssh(lab: &Lab, host: &str, command: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=3", "-o", "LogLevel=ERROR"]);
    ssh.arg("-i").arg(lab.dir().join("id_ed25519"));
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", lab.dir().join("known_hosts").display()));
    ssh.arg("-p").arg(lab.port().to_string()).arg(format!("ops@{}", lab.host(host).host.address)).arg(command);
    ssh.stdin(Stdio::null());
    ssh
}

fn output(lab: &Lab, host: &str, command: &str) -> Output {
    ssh(lab, host, command).output().unwrap()
}

/// Whether there is an `ssh` to test with.
fn have_ssh() -> bool {
    let found = Command::new("ssh").arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no `ssh` on this machine (Debian: apt-get install openssh-client)");
    }
    found
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn commands_run_as_on_any_host() {
    if !have_ssh() {
        return;
    }
    let bench = Bench::standard();
    let lab = &bench.lab;
    let done = output(lab, "demo-mkt1", "pwd; echo $HOME; command -v dpkg; echo oops >&2; exit 7");
    let dir = bench.host("demo-mkt1").dir.display().to_string();
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("{dir}\n{dir}/home/ops\n{dir}/bin/dpkg\n"));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "oops\n");
    assert_eq!(done.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output(lab, "demo-mkt1", "dpkg -l").stdout).contains("nlserver6"));
    let pdump = output(lab, "demo-trk1", "usr/local/neolane/nl6/bin/nlserver pdump");
    assert!(String::from_utf8_lossy(&pdump.stdout).contains("trackinglogd@default"));
    assert_eq!(output(lab, "demo-mkt1", "kill -9 $$").status.code(), Some(137));
    // Nothing of the lab's own environment comes along.
    let environment = output(lab, "demo-mkt1", "env");
    assert!(!String::from_utf8_lossy(&environment.stdout).contains("CARGO"));
}

#[test]
fn large_streams_go_both_ways_at_once() {
    if !have_ssh() {
        return;
    }
    let bench = Bench::standard();
    let data: Vec<u8> =
        (0..6_000_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()).take(6_000_000).collect();
    let mut child = ssh(&bench.lab, "demo-mkt1", "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let expected = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(done.stdout == expected, "{} bytes came back", done.stdout.len());
    // A command that reads nothing ends well, however much it is sent.
    let mut child = ssh(&bench.lab, "demo-mkt1", "exec <&-; echo no").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&expected).is_ok());
    assert_eq!(child.wait_with_output().unwrap().stdout, b"no\n");
    writer.join().unwrap();
}

#[test]
fn strangers_are_refused() {
    if !have_ssh() {
        return;
    }
    let bench = Bench::standard();
    let lab = &bench.lab;
    let other = bench.dir().join("other");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no `ssh-keygen` on this machine");
        return;
    }
    let mut stranger = Command::new("ssh");
    stranger.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]);
    stranger.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-i"]).arg(&other);
    stranger.arg("-p").arg(lab.port().to_string()).arg(format!("ops@{}", bench.host("demo-mkt1").address)).arg("true");
    let done = stranger.stdin(Stdio::null()).output().unwrap();
    assert_eq!(done.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&done.stderr).contains("Permission denied (publickey)"), "{done:?}");
}

#[test]
fn what_was_begun_goes_on_when_the_connection_is_cut() {
    if !have_ssh() {
        return;
    }
    let bench = Bench::standard();
    let lab = &bench.lab;
    let host = lab.host("demo-mkt1");
    let at = |name: &str| host.dir().join(name);
    let command = "touch begun; until [ -e go ]; do sleep 0.02; done; echo done > new; mv new mark";
    let mut child = ssh(lab, "demo-mkt1", command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the command runs", || at("begun").exists());
    assert_eq!(host.server.open(), 1);
    host.cut();
    assert_eq!(child.wait().unwrap().code(), Some(255));
    wait_for("the server has let go", || host.server.open() == 0);
    std::fs::write(at("go"), "").unwrap();
    wait_for("the orphan has done its work", || at("mark").exists());
    assert_eq!(output(lab, "demo-mkt1", "cat mark").stdout, b"done\n");
}

#[test]
fn hosts_go_down_come_up_and_fall_silent() {
    if !have_ssh() {
        return;
    }
    let mut spec = standard();
    spec.faults.unreachable.push("demo-trk2".into());
    let bench = Bench::new(spec);
    let lab = &bench.lab;
    let code = |host: &str| output(lab, host, "true").status.code();
    assert_eq!(code("demo-trk2"), Some(255));
    assert!(String::from_utf8_lossy(&output(lab, "demo-trk2", "true").stderr).contains("refused"));
    lab.host("demo-trk2").up().unwrap();
    assert_eq!(code("demo-trk2"), Some(0));
    lab.host("demo-trk2").down();
    assert_eq!(code("demo-trk2"), Some(255));
    assert_eq!(code("demo-trk1"), Some(0), "the others are not concerned");
    lab.host("demo-trk1").server.silence();
    let silent = output(lab, "demo-trk1", "true");
    assert!(String::from_utf8_lossy(&silent.stderr).contains("timed out"), "{silent:?}");
}

#[test]
fn another_process_can_do_something_to_a_host() {
    let bench = Bench::standard();
    let lab = &bench.lab;
    let fault = |arguments: &[&str]| {
        let output = Command::new(crate::common::PROGRAM).args(["fault", "--dir"]).arg(lab.dir()).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let host = lab.host("demo-mta1");
    let open = || std::net::TcpStream::connect((host.host.address, lab.port()));
    let cut_off = |mut stream: std::net::TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server's greeting, and then the end.
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    };
    let first = open().unwrap();
    wait_for("the connection is served", || host.server.open() == 1);
    assert_eq!(fault(&["demo-mta1", "drop"]), (true, String::new()));
    cut_off(first);
    let second = open().unwrap();
    wait_for("the connection is served", || host.server.open() == 1);
    assert_eq!(fault(&["demo-mta1", "cut"]), (true, String::new()));
    cut_off(second);
    assert_eq!(open().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(fault(&["demo-mta1", "heal"]), (true, String::new()));
    open().unwrap();
    let (done, said) = fault(&["demo-mta1", "loss", "5"]);
    assert!(!done && said.contains("demo-mta1 is a stand-in") && said.contains("cut, drop and heal"), "{said}");
    let (done, said) = fault(&["nobody", "cut"]);
    assert!(!done && said.contains("no host nobody; there are: demo-mkt1, "), "{said}");
}

#[test]
fn a_fault_cuts_the_connection_once_when_its_step_begins() {
    if !have_ssh() {
        return;
    }
    let mut spec = standard();
    spec.faults.cut.push(Cut { host: "demo-mkt1".into(), after: "postupgrade.check".into(), times: None });
    let bench = Bench::new(spec);
    let check = "usr/local/neolane/nl6/bin/nlserver config -postupgrade -check -instance:demo";
    assert_eq!(output(&bench.lab, "demo-mkt1", check).status.code(), Some(255));
    assert_eq!(output(&bench.lab, "demo-mkt1", check).status.code(), Some(0));
}

#[test]
fn everything_ends_with_the_lab() {
    if !have_ssh() {
        return;
    }
    let bench = Bench::standard();
    let hosts: Vec<_> = bench.platform().hosts.clone();
    let mut child = ssh(&bench.lab, "demo-mkt1", "sleep 1000 & echo $!; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    let modules: Vec<u32> = hosts.iter().flat_map(|host| lab::running(host).unwrap()).map(|entry| entry.pid).collect();
    assert!(modules.len() > 10, "{modules:?}");
    drop(bench);
    child.wait().unwrap();
    for pid in modules.into_iter().chain([pid]) {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // One that nobody has reaped yet is dead all the same.
        assert!(state.is_empty() || state.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'), "{state}");
    }
}
