//! Leaving the control group of the session that started us.
//!
//! A session of its own (`setsid`) keeps a supervisor clear of the signals of a login session. systemd, however, ends processes by
//! control group: those of a login session when it ends, where logind has `KillUserProcesses=yes` (logind.conf(5)), and those of sshd's
//! service when sshd is started again, where no PAM module made a session of its own and the service has no `KillMode=process`
//! (systemd.kill(5)). As root a supervisor therefore moves into a group of its own, below the root of the hierarchy, and everything
//! that it starts is born there. It needs the kernel's files alone, no program of systemd.
//!
//! Without root it stays where it is, since groups above the session belong to root. On a host that is set up to end what a session
//! leaves behind, its steps then end with the session (`loginctl enable-linger` keeps an account's processes). Whoever attaches next
//! finds them dead and asks their probes.

use std::fs;
use std::path::{Path, PathBuf};

/// Where systemd keeps its groups: the one hierarchy (cgroup v2), or the one of its own (v1, with or without a v2 beside it).
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// A list of processes; writing to it moves one.
const PROCESSES: &str = "cgroup.procs";
/// How often it is tried, since another supervisor of the same name may just remove the group.
const TRIES: usize = 3;

/// The groups that this process has moved into.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<PathBuf>);

/// Moves this process into a group named after its run, where it can.
pub(crate) fn leave_session(run: &str) -> Groups {
    if !rustix::process::geteuid().is_root() {
        return Groups::default();
    }
    let hierarchies = HIERARCHIES.iter().map(Path::new).filter(|dir| dir.join(PROCESSES).exists());
    let groups = hierarchies.map(|dir| dir.join(format!("caravan.{run}")));
    Groups(groups.filter(|group| enter(group)).collect())
}

fn enter(group: &Path) -> bool {
    let entered = (0..TRIES).any(|_| {
        // One that is there already is left from a supervisor of this run that died.
        let _ = fs::create_dir(group);
        move_into(group)
    });
    if !entered {
        let _ = fs::remove_dir(group);
    }
    entered
}

fn move_into(group: &Path) -> bool {
    fs::write(group.join(PROCESSES), std::process::id().to_string()).is_ok()
}

impl Groups {
    /// Leaves the groups and removes them. One that still holds a service which a step has started stays until the host goes down.
    pub(crate) fn end(self) {
        for group in self.0 {
            if group.parent().is_some_and(move_into) {
                let _ = fs::remove_dir(group);
            }
        }
    }
}
