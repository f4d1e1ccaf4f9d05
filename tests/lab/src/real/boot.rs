//! Process 1 of a realistic host. It is started in new namespaces of every kind but that of users, makes a file system that looks like a
//! machine of its own, and then waits for orphans until it is killed, and everything of the host with it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// What of the base stays visible; every other directory of its root is empty on a host, among them what is built, `/root` and `/home`.
const SYSTEM: [&str; 8] = ["bin", "boot", "etc", "lib", "lib64", "sbin", "usr", "var"];

/// Where a host finds the files that all hosts of its lab share.
pub(crate) const SHARED: &str = "run/lab";

/// Where the host's own disk can be reached: a file system in memory below everything that it writes.
pub(crate) const DISK: &str = "run/lab-disk";

/// What a host has written on it, and has removed of the machine's own files.
pub(crate) const OWN_FILES: &str = "run/lab-disk/upper";

/// How much is on it at most.
pub(crate) const DISK_SIZE: &str = "1g";

/// Where systemd keeps its control groups: its own hierarchy (v1, with or without a v2 beside it), or the one of v2.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Runs as process 1, `lab-init BASE FLEET NAME`, or turns into the program that boots a systemd, `lab-init BASE FLEET NAME GROUP`, whose
/// control groups are below `GROUP`.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut next = || arguments.next().map(PathBuf::from).unwrap_or_default();
    let (base, fleet, name, group) = (next(), next(), next(), next());
    let name = name.to_string_lossy().into_owned();
    let systemd = !group.as_os_str().is_empty();
    let made = make(&base, &fleet, &name, systemd)
        .and_then(|root| if systemd { boot(&root, &fleet, &name, &group.to_string_lossy()) } else { enter(&root, &fleet) });
    let made = made.and_then(|()| fs::write(format!("/{SHARED}/hosts/{name}/booted"), b""));
    if let Err(error) = made {
        super::super::standins::complain(&format!("{name}: {error}"));
        return ExitCode::FAILURE;
    }
    loop {
        // As process 1 it inherits every orphan; without a child there is nothing to wait on but time.
        if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What the program that boots a systemd mounts itself, and only where nothing is mounted yet.
const KERNEL: [&str; 4] = ["dev", "proc", "run", "sys"];

/// Makes the host's file system and gives the path of its root.
fn make(base: &Path, fleet: &Path, name: &str, systemd: bool) -> io::Result<PathBuf> {
    let own = fleet.join("hosts").join(name);
    mount(&["--make-rprivate", "/"])?;
    // Nobody but this host's namespace sees it: it goes with the host, and nothing is left to be undone.
    let disk = own.join("disk");
    mount(&["-t", "tmpfs", "-o", &format!("mode=755,size={DISK_SIZE}"), "disk", &text(&disk)])?;
    for dir in ["upper", "work", "root"] {
        fs::create_dir(disk.join(dir))?;
    }
    let root = disk.join("root");
    let layers = format!("lowerdir={},upperdir={},workdir={}", base.display(), text(&disk.join("upper")), text(&disk.join("work")));
    mount(&["-t", "overlay", "-o", &layers, "overlay", &text(&root)])?;
    for entry in fs::read_dir(&root)? {
        let entry = entry?;
        let kept = |name: &str| SYSTEM.contains(&name) || name.starts_with("lib") || (systemd && KERNEL.contains(&name));
        let known = entry.file_name().to_str().is_some_and(kept);
        if entry.file_type()?.is_dir() && !known {
            let mode = match entry.file_name().to_str() {
                Some("tmp") => "mode=1777",
                Some("root") => "mode=700",
                _ => "mode=755",
            };
            mount(&["-t", "tmpfs", "-o", mode, "empty", &text(&entry.path())])?;
        }
    }
    mount(&["-t", "tmpfs", "-o", "mode=1777", "empty", &text(&root.join("var/tmp"))])?;
    // What other hosts of the lab look at is directly shared: locks do not pass an overlay.
    for dir in ["usr/local/neolane", "var/lib/lab"] {
        fs::create_dir_all(root.join(dir))?;
        mount(&["--bind", &text(&own.join(dir)), &text(&root.join(dir))])?;
    }
    Ok(root)
}

/// Makes that file system the root, with the kernel's own file systems in it.
fn enter(root: &Path, fleet: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    for (target, source) in [(SHARED, fleet), (DISK, root.parent().unwrap_or(root))] {
        fs::create_dir(target)?;
        mount(&["--bind", &text(source), target])?;
    }
    mount(&["-t", "proc", "proc", "proc"])?;
    mount(&["-t", "sysfs", "-o", "ro", "sysfs", "sys"])?;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        fs::write(Path::new("dev").join(device), b"")?;
        mount(&["--bind", &format!("/dev/{device}"), &format!("dev/{device}")])?;
    }
    for dir in ["dev/pts", "dev/shm", "run/lock"] {
        DirBuilder::new().mode(0o755).create(dir)?;
    }
    mount(&["-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620,gid=5", "devpts", "dev/pts"])?;
    mount(&["-t", "tmpfs", "-o", "mode=1777,size=64m", "shm", "dev/shm"])?;
    for (target, link) in [
        ("pts/ptmx", "dev/ptmx"),
        ("/proc/self/fd", "dev/fd"),
        ("fd/0", "dev/stdin"),
        ("fd/1", "dev/stdout"),
        ("fd/2", "dev/stderr"),
    ] {
        symlink(target, link)?;
    }
    fs::create_dir(".before")?;
    rustix::process::pivot_root(".", ".before")?;
    std::env::set_current_dir("/")?;
    run_program("umount", &["-l", "/.before"])?;
    fs::remove_dir("/.before")
}

/// Units of a host with systemd: nothing that is installed on the machine starts by itself.
const UNITS: [(&str, &str); 2] = [
    (
        "etc/systemd/system/lab.target",
        "[Unit]\nDescription=A host of the lab\nRequires=basic.target dbus.service systemd-logind.service systemd-user-sessions.service\n\
         After=basic.target dbus.service systemd-logind.service systemd-user-sessions.service\nAllowIsolate=yes\n",
    ),
    ("etc/systemd/logind.conf.d/lab.conf", "[Login]\nKillUserProcesses=yes\n"),
];

/// Turns into the program that boots the systemd of that file system.
fn boot(root: &Path, fleet: &Path, name: &str, group: &str) -> io::Result<()> {
    for (file, content) in UNITS {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap_or(root))?;
        fs::write(file, content)?;
    }
    // What the machine starts at its boot and at its times is not this host's business.
    for dir in ["timers.target.wants", "sockets.target.wants", "sysinit.target.wants"] {
        let dir = root.join("etc/systemd/system").join(dir);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    fs::write(root.join("etc/machine-id"), b"")?;
    // Groups of its own, or the systemds of two hosts would take each other's.
    for hierarchy in HIERARCHIES.map(Path::new).into_iter().filter(|dir| dir.join("cgroup.procs").exists()) {
        let own = hierarchy.join(group);
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
    }
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.args(["-q", "-b", "--register=no", "--keep-unit", "-M", name, "-D"]).arg(root);
    nspawn.arg(format!("--bind={}:/{SHARED}", text(fleet)));
    nspawn.arg(format!("--bind={}:/{DISK}", text(root.parent().unwrap_or(root))));
    Err(nspawn.arg("systemd.unit=lab.target").stdin(Stdio::null()).exec())
}

/// Removes the control groups that a systemd has left behind.
pub(crate) fn remove_groups(group: &str) {
    fn remove(dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        // One that still holds a process stays; what is gone is what was asked for.
        let _ = fs::remove_dir(dir);
    }
    HIERARCHIES.iter().for_each(|hierarchy| remove(&Path::new(hierarchy).join(group)));
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn mount(arguments: &[&str]) -> io::Result<()> {
    run_program("mount", arguments)
}

fn run_program(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`{program} {}` failed: {}", arguments.join(" "), said.trim())))
}
