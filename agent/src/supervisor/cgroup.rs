//! Leaving the control group of the session that started us.
//!
//! A session of its own (`setsid`) keeps a supervisor clear of the signals of a login session. systemd, however, ends processes by
//! control group: those of a login session when it ends, where logind has `KillUserProcesses=yes` (logind.conf(5)), and those of sshd's
//! service when sshd is started again, where no PAM module made a session of its own and the service has no `KillMode=process`
//! (systemd.kill(5)). As root a supervisor therefore moves to the root of the hierarchy, and everything that it starts is born there:
//! runners, and services that steps start and that live on. It needs the kernel's files alone, no program of systemd. Nothing has to
//! be removed afterwards.
//!
//! Where the root takes no processes (in a container that passes controllers on, it is no real root), a group of its own has to do. It
//! stays behind, empty, until the container goes.
//!
//! Without root it stays where it is, since groups above the session belong to root. On a host that is set up to end what a session
//! leaves behind, its steps then end with the session (`loginctl enable-linger` keeps an account's processes). Whoever attaches next
//! finds them dead and asks their probes.

use std::fs;
use std::path::Path;

/// Where systemd keeps its groups: the one hierarchy (cgroup v2), or the one of its own (v1, with or without a v2 beside it).
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// A list of processes; writing to it moves one.
const PROCESSES: &str = "cgroup.procs";

/// Moves this process out of its session's group, where it can.
pub(crate) fn leave_session(run: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for hierarchy in HIERARCHIES.map(Path::new).into_iter().filter(|dir| dir.join(PROCESSES).exists()) {
        if !move_into(hierarchy) {
            // One that is there already is left from a supervisor of this run that ended.
            let group = hierarchy.join(format!("caravan.{run}"));
            let _ = fs::create_dir(&group);
            if !move_into(&group) {
                let _ = fs::remove_dir(&group);
            }
        }
    }
}

fn move_into(group: &Path) -> bool {
    fs::write(group.join(PROCESSES), std::process::id().to_string()).is_ok()
}
