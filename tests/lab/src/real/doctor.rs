//! Which tier of the lab can run here, and what is missing.

use crate::layout::Family;
use crate::spec::Spec;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// One thing that realistic hosts need.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnosis {
    /// What it is.
    pub what: String,
    /// Whether it is here.
    pub well: bool,
    /// Whether hosts cannot run without it.
    pub needed: bool,
    /// What was found, or what to do.
    pub note: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.well, self.needed) {
            (true, _) => "✓",
            (false, true) => "✗",
            (false, false) => "–",
        };
        write!(f, "{mark} {}: {}", self.what, self.note)
    }
}

/// Programs and files that realistic hosts take from this machine, and the Debian package that has them.
const NEEDED: [(&str, &str, &str); 14] = [
    ("unshare, nsenter", "/usr/bin/unshare", "util-linux"),
    ("ip", "/usr/sbin/ip", "iproute2"),
    ("OpenSSH's server", "/usr/sbin/sshd", "openssh-server"),
    ("OpenSSH's client", "/usr/bin/ssh", "openssh-client"),
    ("sudo", "/usr/bin/sudo", "sudo"),
    ("Apache", "/usr/sbin/apache2", "apache2"),
    ("Apache's headers", "/usr/bin/apxs", "apache2-dev"),
    ("a C compiler", "/usr/bin/cc", "gcc"),
    ("PostgreSQL's server", "/usr/bin/pg_createcluster", "postgresql"),
    ("PostgreSQL's tools", "/usr/bin/pg_dump", "postgresql-client"),
    ("dpkg-deb", "/usr/bin/dpkg-deb", "dpkg"),
    ("chpasswd, useradd", "/usr/sbin/useradd", "passwd"),
    ("su", "/usr/bin/su", "util-linux"),
    ("update-rc.d", "/usr/sbin/update-rc.d", "init-system-helpers"),
];

/// What single kinds of hosts need besides.
const EXTRA: [(&str, &[&str], &str); 2] = [
    (RPM, &["/usr/bin/rpm", "/usr/bin/rpmbuild"], "rpm"),
    (
        SYSTEMD,
        &["/usr/bin/systemd-nspawn", "/usr/bin/dbus-daemon", "/usr/share/pam-configs/systemd"],
        "systemd-container libpam-systemd dbus",
    ),
];

/// What hosts with systemd are called in a diagnosis.
const SYSTEMD: &str = "hosts with systemd";

/// What hosts of the RHEL family are called in a diagnosis.
const RPM: &str = "hosts of the RHEL family";

/// What single faults are called in a diagnosis.
const LOSS: &str = "the fault `loss`";
const SLOW: &str = "the fault `slow`";

/// Faults that not every kernel can do: what is tried, and what to say where it fails.
const FAULTS: [(&str, &str, &str); 2] = [
    (
        LOSS,
        "iptables -A INPUT -m statistic --mode random --probability 0.5 -j DROP",
        "`apt-get install --no-install-recommends iptables`; where it is installed, the kernel's match `statistic` is missing",
    ),
    (SLOW, "tc qdisc add dev lo root tbf rate 256kbit burst 16kb latency 500ms", "the kernel's queue `tbf` is missing"),
];

/// How much memory a host may need, in kilobytes, besides what programs share.
const ROOM_KB: u64 = 1024 * 1024;

/// Looks at everything that realistic hosts need. They can run when all of it is well.
pub fn diagnose() -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let mut note = |what: &str, well: bool, yes: &str, no: &str| {
        found.push(Diagnosis { what: what.to_owned(), well, needed: true, note: if well { yes } else { no }.to_owned() });
    };
    let root = rustix::process::geteuid().is_root();
    note("root", root, "this is root", "realistic hosts are made by root alone; start it as root");
    let machine = crate::layout::this_machine().unwrap_or_default();
    note(
        "Debian",
        Path::new("/usr/bin/dpkg").exists() && Path::new("/etc/debian_version").exists(),
        &machine,
        "hosts are made of this machine's own files, which have to be Debian's (12 is what is tested)",
    );
    for (what, file, package) in NEEDED {
        note(what, Path::new(file).exists(), file, &format!("apt-get install --no-install-recommends {package}"));
    }
    if root {
        let spaces = tried("true", &["--mount", "--pid", "--uts", "--ipc", "--net", "--fork"]);
        note("namespaces", spaces, "can be made", "`unshare` is refused: a container without CAP_SYS_ADMIN? Use a virtual machine");
        let overlay = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w o /mnt/r";
        note(
            "overlay",
            tried(overlay, &["--mount"]),
            "can be mounted over /",
            "`mount -t overlay` is refused: the kernel's module `overlay` is missing, or / is one itself",
        );
        let cable = "ip link add name cable0 type veth peer name cable1 && ip link add name bridge0 type bridge && ip link set cable0 master bridge0";
        note(
            "network",
            tried(cable, &["--net"]),
            "bridges and cables can be made",
            "`ip link add` is refused: the kernel's modules `bridge` and `veth` are missing",
        );
    }
    let room = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let room = room.unwrap_or(0);
    note(
        "memory",
        room >= ROOM_KB,
        &format!("{} MiB free", room / 1024),
        &format!("{} MiB free, and 1 GiB is needed: hosts write into memory", room / 1024),
    );
    if root {
        for (what, script, no) in FAULTS {
            let well = tried(script, &["--net"]);
            let note = if well { "can be made" } else { no }.to_owned();
            found.push(Diagnosis { what: what.to_owned(), well, needed: false, note });
        }
    }
    for (what, files, package) in EXTRA {
        let well = files.iter().all(|file| Path::new(file).exists());
        let note = if well { files.join(", ") } else { format!("apt-get install --no-install-recommends {package}") };
        found.push(Diagnosis { what: what.to_owned(), well, needed: false, note });
    }
    found
}

/// Whether realistic hosts can run, by what was found.
pub fn can_run(found: &[Diagnosis]) -> bool {
    found.iter().all(|diagnosis| diagnosis.well || !diagnosis.needed)
}

/// What the hosts and faults of a spec need, and what was not found; nothing when that fleet can be made here.
pub fn missing<'a>(spec: &Spec, found: &'a [Diagnosis]) -> Vec<&'a Diagnosis> {
    let platforms = || spec.platforms.iter();
    let wanted = |what: &str| match what {
        SYSTEMD => platforms().any(|platform| !platform.systemd.is_empty()),
        LOSS => !spec.faults.loss.is_empty(),
        SLOW => !spec.faults.slow_links.is_empty(),
        RPM => platforms().any(|platform| platform.os.as_deref().is_some_and(|os| Family::of(os) == Family::Rhel)),
        _ => false,
    };
    found.iter().filter(|diagnosis| !diagnosis.well && (diagnosis.needed || wanted(&diagnosis.what))).collect()
}

/// Whether a shell command works in namespaces of its own.
fn tried(script: &str, namespaces: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
