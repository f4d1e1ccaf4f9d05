//! Disks that are full or cannot be written, for tests: file systems of their own, in a mount namespace that nobody else sees.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the test that runs inside.
const INSIDE: &str = "CARAVAN_TEST_INSIDE";

/// Whether this process may mount. The first time it may not: then the test is run once more by a process of its own that may, and
/// has passed when that one did. A machine that gives no right to do so is told, and the test is skipped.
///
/// ```ignore
/// if !mounts::inside("a_full_disk") {
///     return;
/// }
/// ```
pub fn inside(test: &str) -> bool {
    inside_of(test, &["--mount"])
}

/// As [`inside`], with a network, processes and a host name of its own besides; all processes end with the test. There is a loopback
/// interface, which is down.
pub fn inside_machine(test: &str) -> bool {
    inside_of(test, &["--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
}

fn inside_of(test: &str, namespaces: &[&str]) -> bool {
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        return true;
    }
    let able = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !able.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `unshare {}` is not allowed here (it needs root)", namespaces.join(" "));
        return false;
    }
    let own = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(own).args(["--exact", test, "--nocapture", "--include-ignored"]).env(INSIDE, test);
    let status = command.stdin(Stdio::null()).status().expect("unshare runs");
    assert!(status.success(), "{test} failed in its mount namespace: see above");
    false
}

/// A mount, undone when it is dropped.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// A file system in memory with so much room, in a directory that is made where it is missing.
    pub fn small(at: &Path, kilobytes: u32) -> Self {
        std::fs::create_dir_all(at).expect("a directory");
        mount(&["-t", "tmpfs", "-o", &format!("size={kilobytes}k,mode=0700"), "tmpfs"], at);
        Self { at: at.to_owned() }
    }

    /// A file system in memory in which no program can be executed, with so much room, in a directory that is made where it is missing.
    pub fn noexec(at: &Path, kilobytes: u32) -> Self {
        std::fs::create_dir_all(at).expect("a directory");
        mount(&["-t", "tmpfs", "-o", &format!("size={kilobytes}k,mode=0700,noexec"), "tmpfs"], at);
        Self { at: at.to_owned() }
    }

    /// A directory that can be changed while what is below stays as it was; `changes`: where the changes go, on a file system that can
    /// carry them.
    pub fn changeable(at: &Path, changes: &Path) -> Self {
        let (upper, work) = (changes.join("upper"), changes.join("work"));
        [&upper, &work].into_iter().for_each(|dir| std::fs::create_dir_all(dir).expect("a directory"));
        let option = format!("lowerdir={},upperdir={},workdir={}", at.display(), upper.display(), work.display());
        mount(&["-t", "overlay", "-o", &option, "overlay"], at);
        Self { at: at.to_owned() }
    }

    /// A directory at another place, too.
    pub fn bind(from: &Path, at: &Path) -> Self {
        mount(&["--bind", from.to_str().expect("a path in UTF-8")], at);
        Self { at: at.to_owned() }
    }

    /// A directory as it is, and nobody can write there, not even root.
    pub fn read_only(at: &Path) -> Self {
        let own = at.to_str().expect("a path in UTF-8");
        mount(&["--bind", own], at);
        mount(&["-o", "remount,bind,ro"], at);
        Self { at: at.to_owned() }
    }

    /// Gives a [`Mounted::small`] another size.
    pub fn resize(&self, kilobytes: u32) {
        mount(&["-o", &format!("remount,size={kilobytes}k")], &self.at);
    }

    /// Takes all the room that is left. Gives the file that takes it.
    pub fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {}
        path
    }
}

fn mount(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().expect("mount runs");
    assert!(status.success(), "mount {args:?} {}", at.display());
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: processes of the lab may still be in it, and they end with the lab.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
