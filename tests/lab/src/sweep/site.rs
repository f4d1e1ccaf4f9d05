//! One fleet, and a workstation to migrate it from.

use super::fleets::{Migration, Tier};
use crate::either::Fleet;
use lab::real::{RealHost, RealLab};
use lab::{Lab, LabServer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one command may take. A whole migration takes a few seconds, on a machine that does much else besides perhaps twenty; a cable
/// that is pulled costs a minute more.
const LIMIT: Duration = Duration::from_secs(240);

/// A file system in memory. A process that is killed loses nothing that it wrote, on whichever file system: half of a case's time would
/// be spent on waiting for a disk that has nothing to prove.
const MEMORY: &str = "/dev/shm";
/// What has to be free there, for the fleets of a whole sweep and those that are kept of it.
const ROOM: u64 = 2 << 30;

/// Whether fleets can be built in memory: their programs run from there. `TMPDIR` says where to build them instead.
fn has_memory() -> bool {
    let fits = |system: StatVfs| {
        !system.f_flag.intersects(StatVfsMountFlags::NOEXEC | StatVfsMountFlags::RDONLY)
            && system.f_bavail.saturating_mul(system.f_frsize) >= ROOM
    };
    std::env::var_os("TMPDIR").is_none() && statvfs(MEMORY).is_ok_and(fits)
}

/// A new directory where fleets are built.
fn new_dir() -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("caravan-sweep-");
    if has_memory() { builder.tempdir_in(MEMORY) } else { builder.tempdir() }
}

/// The stand-ins' program on the file system that fleets are built on, so that they link it. A copy made while another case starts a
/// process could not be run: that process has it open for writing until it is another program.
pub(super) struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    /// Puts it there. Nothing else may run yet.
    pub(super) fn near(standin: &Path) -> io::Result<Self> {
        let dir = new_dir()?;
        let program = Self { dir };
        if std::fs::hard_link(standin, program.path()).is_err() {
            std::fs::copy(standin, program.path())?;
        }
        Ok(program)
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("standin")
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not within [`LIMIT`].
    Hung,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Hung => write!(f, "no end within {} s", LIMIT.as_secs()),
        }
    }
}

/// The hosts of a fleet.
enum Hosts {
    StandIns(Lab),
    Real(RealLab),
}

/// A fleet that nobody else uses.
pub(super) struct Site {
    hosts: Hosts,
    migration: Migration,
    // After the hosts: first everything ends, then the directory goes.
    root: tempfile::TempDir,
}

/// A host whose connections are cut, and what tells whether there are new ones.
pub(super) enum Severed<'a> {
    StandIn { server: &'a LabServer, accepted: u64 },
    Real { host: &'a RealHost, sessions: Vec<u32> },
}

/// How long a cable is out when the sessions end with it.
const OUT: Duration = Duration::from_millis(500);

impl Severed<'_> {
    /// Cuts the connections. False when that cannot be done.
    pub(super) fn cut(&self) -> bool {
        match self {
            Self::StandIn { server, .. } => {
                server.cut();
                true
            }
            Self::Real { host, .. } => {
                let out = host.cut().is_ok();
                host.end_sessions();
                std::thread::sleep(OUT);
                self.mend() && out
            }
        }
    }

    /// Pulls the cable: nobody is told. False when that cannot be done.
    pub(super) fn go_silent(&self) -> bool {
        matches!(self, Self::Real { host, .. } if host.cut().is_ok())
    }

    /// Puts the cable back.
    pub(super) fn mend(&self) -> bool {
        matches!(self, Self::Real { host, .. } if host.mend().is_ok())
    }

    /// Whether the controller came back.
    pub(super) fn is_back(&self) -> bool {
        match self {
            Self::StandIn { server, accepted } => server.accepted() > *accepted,
            Self::Real { host, sessions } => host.sessions().iter().any(|pid| !sessions.contains(pid)),
        }
    }
}

impl Site {
    /// Builds a fleet.
    pub(super) fn new(migration: Migration, tier: Tier, standin: &Path) -> io::Result<Self> {
        let root = new_dir()?;
        std::fs::create_dir(root.path().join("home"))?;
        let (spec, dir) = (migration.spec(tier), root.path().join("lab"));
        let hosts = match tier {
            Tier::Real => Hosts::Real(RealLab::start(&spec, &dir, standin)?),
            Tier::StandIns | Tier::OpenSsh => Hosts::StandIns(Lab::start_with(spec, &dir, standin)?),
        };
        Ok(Self { hosts, migration, root })
    }

    /// The fleet.
    pub(super) fn fleet(&self) -> &dyn Fleet {
        match &self.hosts {
            Hosts::StandIns(lab) => lab,
            Hosts::Real(lab) => lab,
        }
    }

    /// A host whose connections are to be cut.
    pub(super) fn sever(&self, host: &str) -> Severed<'_> {
        match &self.hosts {
            Hosts::StandIns(lab) => {
                let server = lab.host(host).server;
                Severed::StandIn { server, accepted: server.accepted() }
            }
            Hosts::Real(lab) => {
                let host = lab.host(host);
                Severed::Real { host, sessions: host.sessions() }
            }
        }
    }

    /// Where the workstation keeps its runs.
    pub(super) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Where a victim notes down what it saw.
    pub(super) fn note(&self) -> PathBuf {
        self.root.path().join("note")
    }

    /// Leaves everything where it is, ended, and says where.
    pub(super) fn keep(self) -> PathBuf {
        let Self { hosts, root, .. } = self;
        drop(hosts);
        root.keep()
    }

    /// Starts this program in a mode, with arguments of Caravan.
    pub(super) fn start(&self, mode: &[String], arguments: &[String]) -> io::Result<Child> {
        let mut log = OpenOptions::new().create(true).append(true).open(self.root.path().join("log"))?;
        writeln!(log, "$ lab {} -- {}", mode.join(" "), arguments.join(" "))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(mode).arg("--").arg("-i").arg(self.fleet().inventory()).arg("--state-dir").arg(self.state()).args(arguments);
        command.env_clear().env("HOME", self.root.path().join("home")).env("USER", "sweep").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
    }

    /// Waits for a command that [`Site::start`] started. One that does not end in time is ended.
    pub(super) fn wait(&self, mut child: Child) -> io::Result<Ended> {
        let ended = if has_ended(Pid::from_child(&child), LIMIT)? {
            let status = child.wait()?;
            status.signal().map_or(Ended::Code(status.code().unwrap_or(-1)), Ended::Signal)
        } else {
            child.kill()?;
            child.wait()?;
            Ended::Hung
        };
        let mut log = OpenOptions::new().append(true).open(self.root.path().join("log"))?;
        writeln!(log, "({ended})")?;
        Ok(ended)
    }

    /// Runs a command of Caravan to its end.
    pub(super) fn caravan(&self, arguments: &[String]) -> io::Result<Ended> {
        self.wait(self.start(&["caravan".into()], arguments)?)
    }

    /// The arguments of the migration.
    pub(super) fn migrate(&self) -> Vec<String> {
        let mut arguments = vec!["-q".to_owned(), "migrate".to_owned(), "--yes".to_owned()];
        arguments.extend(self.migration.confirmations());
        arguments
    }

    /// The arguments that make the newest run go on.
    pub(super) fn resume(&self) -> Vec<String> {
        let mut arguments = vec!["-q".to_owned(), "resume".to_owned()];
        arguments.extend(self.migration.confirmations());
        arguments
    }
}

/// Whether a process ends in time.
pub(super) fn has_ended(pid: Pid, limit: Duration) -> io::Result<bool> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(limit.subsec_nanos()) };
    loop {
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
