//! What a malicious host, another account of a host or of the workstation, and a malicious inventory cannot do.

use harness::sshd::{self, Sshd};
use harness::{Ran, program, until};
use proto::frame::{FRAME_LIMIT, MAGIC};
use proto::{Frame, FromAgent};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Everything that a terminal would obey: a title, colours, a cursor, a bell, text that runs backwards.
const ESCAPES: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}2J\u{202e}../../etc/passwd\r";

/// A workstation with a fleet of a malicious host and a good one.
struct World {
    root: tempfile::TempDir,
    evil: Sshd,
    good: Sshd,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Whatever it is asked to run, it runs this; the file changes from case to case.
        let script = root.path().join("evil.sh");
        let evil = Sshd::start(&format!("ForceCommand /bin/sh {}", script.display()));
        let world = Self { root, evil, good: Sshd::start("") };
        let host = |name: &str, role: &str, server: &Sshd| {
            let state = server.dir.path().join("state");
            fs::create_dir_all(&state).unwrap();
            fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
            format!(
                "      - {{ name: {name}, address: {}, roles: [{role}], host_state: {}, ssh: {{ port: {}, identity: {}, known_hosts: {} }} }}\n",
                server.address.ip(),
                state.display(),
                server.address.port(),
                server.identity().display(),
                server.known_hosts().display()
            )
        };
        let inventory = format!(
            "version: 1\ndefaults:\n  ssh: {{ user: {}, config: none }}\n  become: {{ method: none }}\n  source: {{ version: \"6.1\" }}\n  \
             target: {{ version: \"7.4.1\", build: 9383, packages: [{{ os: debian-12, url: \"https://x/p.deb\", sha256: {} }}] }}\nplatforms:\n  - name: emea\n    topology: standard\n    \
             instances: [emea]\n    database: {{ engine: oracle, server: db, name: c, user: c, backup: {{ by: dba }} }}\n    hosts:\n{}{}",
            sshd::whoami(),
            "0".repeat(64),
            host("evil", "marketing", &world.evil),
            host("good", "mta", &world.good)
        );
        fs::write(world.root.path().join("fleet.yaml"), inventory).unwrap();
        world
    }

    /// What the malicious host sends, and then waits for a while.
    fn sends(&self, before: &str, bytes: &[u8]) {
        fs::write(self.root.path().join("bytes"), bytes).unwrap();
        let script = format!("{before}\ncat {}\nexec sleep 20\n", self.root.path().join("bytes").display());
        fs::write(self.root.path().join("evil.sh"), script).unwrap();
    }

    fn caravan(&self, args: &[&str]) -> Ran {
        caravan(self.root.path(), &self.root.path().join("state"), args)
    }
}

fn command(root: &Path, state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program("caravan"));
    command.arg("-i").arg(root.join("fleet.yaml")).arg("--state-dir").arg(state).args(args);
    command.env_clear().env("HOME", root).env("USER", "tester").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn caravan(root: &Path, state: &Path, args: &[&str]) -> Ran {
    let output = command(root, state, args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn framed(messages: &[FromAgent]) -> Vec<u8> {
    messages.iter().flat_map(|message| Frame::message(message).unwrap().encode()).collect()
}

fn hello(text: &str) -> FromAgent {
    FromAgent::Hello {
        protocol: proto::PROTOCOL,
        version: text.to_owned(),
        boot_id: text.to_owned(),
        euid: 0,
        user: text.to_owned(),
    }
}

/// Whatever a host says: the controller goes on, another host is not held up, memory stays small, and a terminal sees text.
#[test]
fn a_malicious_host_harms_neither_the_controller_nor_others() {
    if !sshd::installed() {
        return;
    }
    let world = World::new();
    let with_magic = |bytes: &[u8]| [MAGIC, bytes].concat();
    let huge = [&(FRAME_LIMIT as u32 + 1).to_be_bytes()[..], &[1]].concat();
    let deep = [&[0, 1, 0, 1, 1][..], &[b'['; 65536]].concat();
    let fatal = FromAgent::Fatal { message: ESCAPES.to_owned() };
    let exited = FromAgent::Exited { id: 1, code: Some(0), message: ESCAPES.to_owned() };
    let of_command = Frame::Data { stream: 1, offset: 0, bytes: format!("{ESCAPES}\n").into_bytes() }.encode();
    let nobodys = Frame::Data { stream: 77, offset: u64::MAX - 3, bytes: vec![b'x'; 4096] }.encode();
    let text = format!("caravan-bootstrap: failed {ESCAPES}\n").into_bytes();
    let system = format!("caravan-bootstrap: need gzip {ESCAPES}\n").into_bytes();
    // What it does first, what it sends, and what is said about it.
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("exec yes noise", vec![], "KiB were printed before it"),
        ("", text, "the agent does not start"),
        ("", system, "this build has agents for"),
        ("head -c 3000000 /dev/zero; printf '\\n'", vec![], "KiB were printed before it"),
        ("", with_magic(&huge), "a frame claims 8388609 bytes"),
        ("", with_magic(b"\0\0\0\x05\x09abcd"), "unknown kind 9"),
        ("", with_magic(b"\0\0\0\x05\x01abcd"), "does not speak our protocol"),
        ("", with_magic(&deep), "does not speak our protocol"),
        ("", with_magic(&framed(std::slice::from_ref(&fatal))), "Mend that on the host"),
        ("", [with_magic(&framed(&[hello(ESCAPES), fatal])), nobodys.clone()].concat(), "evil"),
        ("", [with_magic(&framed(&[hello(ESCAPES)])), nobodys, huge].concat(), "not the protocol"),
        ("", [with_magic(&framed(&[hello(ESCAPES)])), of_command, framed(&[exited])].concat(), "evil"),
    ];
    for (before, bytes, expected) in cases {
        world.sends(before, &bytes);
        let ran = world.caravan(&["-vvv", "exec", "--", "echo", "well done"]);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains(expected), "{before} {expected}: {all}");
        assert!(ran.stdout.contains("well done"), "{expected}: the other host was held up: {all}");
        let bad = all.chars().find(|letter| (letter.is_control() && !matches!(letter, '\n' | '\t')) || *letter == '\u{202e}');
        assert_eq!(bad, None, "{expected}: {all:?}");
        assert!(ran.code == 1 || ran.code == 0, "{expected}: {ran:?}");
        assert!(!all.contains("panicked"), "{all}");
    }
    // Noise that never ends, where frames are expected.
    world.sends(&format!("cat {}; exec yes", world.root.path().join("begin").display()), b"");
    fs::write(world.root.path().join("begin"), with_magic(&framed(&[hello("1")]))).unwrap();
    let ran = world.caravan(&["exec", "--", "echo", "well done"]);
    assert!(ran.code == 1 && ran.stdout.contains("well done"), "{ran:?}");
}

/// Output that keeps to the protocol and never ends: memory stays small, and the operator can end it.
#[test]
fn output_without_end_takes_no_memory() {
    if !sshd::installed() {
        return;
    }
    let world = World::new();
    let (begin, piece) = (world.root.path().join("begin"), world.root.path().join("piece"));
    fs::write(&begin, [MAGIC, &framed(&[hello("1")])].concat()).unwrap();
    let line = [&b"x".repeat(16_383)[..], b"\n"].concat();
    fs::write(&piece, Frame::Data { stream: 1, offset: 0, bytes: line }.encode().repeat(64)).unwrap();
    world.sends(&format!("cat {}; while cat {}; do :; done", begin.display(), piece.display()), b"");
    let mut child = command(world.root.path(), &world.root.path().join("state"), &["exec", "--", "echo", "well done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A reader that takes 256 MiB, and then no more: what is not read must not be kept either.
    let mut stdout = child.stdout.take().unwrap();
    let mut read = 0;
    let mut bytes = vec![0; 1024 * 1024];
    while read < 256 * 1024 * 1024 {
        let more = stdout.read(&mut bytes).unwrap();
        assert!(more > 0, "the controller ended after {read} bytes");
        read += more;
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let most: u64 = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    assert!(most < 96 * 1024, "the controller had {most} KiB");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    drop(stdout);
    until("the end of the controller", || child.try_wait().unwrap().is_some());
}

/// A directory that somebody else could change a run's record in is refused, for writing and for reading; nothing is made in it.
#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let site = harness::Site::new("platforms: [{ name: emea, topology: standalone, hosts: { marketing: 1 } }]");
    let refused = |state: &Path, expected: &str, all: &[&[&str]]| {
        for args in all {
            let output = site.command_at(state, args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(7), "{args:?}: {text}");
            assert!(text.contains(expected) && text.contains(&state.display().to_string()), "{args:?}: {text}");
        }
        assert_eq!(fs::read_dir(state).unwrap().count(), 0);
    };
    let state = site.root().join("open-state");
    fs::create_dir(&state).unwrap();
    for mode in [0o770, 0o707] {
        fs::set_permissions(&state, PermissionsExt::from_mode(mode)).unwrap();
        refused(&state, "chmod 700", &[&["runs"], &["status"], &["resume"], &["report"]]);
    }
    refused(&state, "chmod 700", &[&["migrate", "--yes"]]);
    fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        refused(&state, "belongs to uid 65534", &[&["runs"]]);
        std::os::unix::fs::chown(&state, Some(0), None).unwrap();
    }
    // What a run leaves is its owner's alone, whatever the umask.
    let mut command = site.command_at(&state, &["migrate", "--yes"]);
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(command.get_program()).args(arguments).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    command.stdin(Stdio::null());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut dirs, mut files) = (0, 0);
    each(&state.join("runs"), &mut |path, meta| {
        let mode = meta.mode() & 0o777;
        if meta.is_dir() {
            dirs += 1
        } else {
            files += 1
        }
        assert_eq!(mode, if meta.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    });
    assert!(dirs > 2 && files > 5, "{dirs} {files}");
}

fn each(dir: &Path, look: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        look(&entry.path(), &meta);
        if meta.is_dir() {
            each(&entry.path(), look);
        }
    }
}

/// Root runs a file that is root's, in directories that are root's, whose digest it has just seen: not what an account of the host puts
/// there, and be it at the right moment.
#[tokio::test(flavor = "multi_thread")]
async fn nobodys_file_is_run_by_root() {
    use controller::hosts::{Hosts, OpenError};
    if !sshd::installed() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be made to run something as root");
        return;
    }
    let server = Sshd::start("");
    let options = || controller::ssh::SshOptions { agent_socket: None, home: None, user: None, ..Default::default() };
    let open = async |state: &Path| {
        let mut host = server.host("mkt1");
        host.host_state = state.display().to_string();
        let secrets = std::sync::Arc::new(controller::secrets::Secrets::unattended("/"));
        let hosts = controller::ssh::SshHosts::new(&sshd::fleet(vec![host]), secrets, options()).unwrap();
        hosts.open("mkt1", true).await
    };
    let world = tempfile::tempdir().unwrap();
    fs::set_permissions(world.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let marker = world.path().join("owned");
    let digest = controller::ssh::AGENTS[0].sha256;
    let evil = |dir: &Path, owner: u32| {
        let agent = dir.join("agent").join(digest);
        fs::create_dir_all(&agent).unwrap();
        let file = agent.join("caravan-agent");
        fs::write(&file, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        for path in [dir.to_owned(), dir.join("agent"), agent, file] {
            std::os::unix::fs::chown(path, Some(owner), None).unwrap();
        }
    };
    let dir = |path: &Path, owner: u32, mode: u32| {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    };
    // The cache of the login is not looked at (the server names one), and another content in root's own place is replaced.
    evil(&server.dir.path().join("cache/caravan"), 65534);
    let state = world.path().join("own");
    evil(&state, 0);
    fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    drop(open(&state).await.unwrap());
    let text = fs::read(state.join("agent").join(digest).join("caravan-agent")).unwrap();
    assert!(text.starts_with(b"\x7fELF"));
    // In a directory like /tmp nobody else renames what is root's.
    dir(&world.path().join("sticky"), 0, 0o1777);
    dir(&world.path().join("sticky/state"), 0, 0o700);
    drop(open(&world.path().join("sticky/state")).await.unwrap());

    // Another account's directory on the way, one that others can write to, links into them.
    dir(&world.path().join("theirs"), 65534, 0o755);
    dir(&world.path().join("theirs/state"), 0, 0o700);
    dir(&world.path().join("open"), 0, 0o777);
    dir(&world.path().join("open/state"), 0, 0o700);
    dir(&world.path().join("group"), 0, 0o775);
    std::os::unix::fs::chown(world.path().join("group"), None, Some(65534)).unwrap();
    dir(&world.path().join("group/state"), 0, 0o700);
    dir(&world.path().join("wide"), 0, 0o777);
    dir(&world.path().join("linked"), 0, 0o700);
    evil(&world.path().join("theirs/files"), 65534);
    std::os::unix::fs::symlink(world.path().join("theirs/files/agent"), world.path().join("linked/agent")).unwrap();
    std::os::unix::fs::symlink(world.path().join("open/state"), world.path().join("link")).unwrap();
    for place in ["theirs/state", "open/state", "group/state", "wide", "linked", "link"] {
        let refused = open(&world.path().join(place)).await;
        let Err(OpenError::Agent { seen, .. }) = refused else { panic!("{place}: {refused:?}") };
        assert!(seen.contains("belong to uid 0") && seen.contains("closed to others"), "{place}: {seen}");
    }
    assert!(!marker.exists());

    // And when it is swapped between the look and the run: the other account has the directory above.
    let race = world.path().join("race");
    dir(&race, 65534, 0o755);
    let [good, bad, state] = ["good", "bad", "state"].map(|name| race.join(name));
    fs::rename(world.path().join("own"), &good).unwrap();
    evil(&bad, 0);
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for which in [&good, &bad] {
                    let link = race.join("link");
                    let _ = fs::remove_file(&link);
                    std::os::unix::fs::symlink(which, &link).unwrap();
                    fs::rename(&link, &state).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let racing = async {
            until("a swap", || swaps.load(Ordering::Relaxed) > 1);
            for _ in 0..5 {
                assert!(open(&state).await.is_err());
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(racing));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!marker.exists(), "root ran another account's file");
}
