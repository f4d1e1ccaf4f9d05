//! Running programs: finding them, following their output, ending them in time.

use crate::account::Account;
use crate::action::SecretFile;
use crate::runner::halt::Halt;
use proto::step::Command as CommandSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long output of descendants is waited for after a program itself ended, where they do not count as the program.
const LINGER: Duration = Duration::from_millis(500);
/// Where system programs are, for sessions whose `PATH` leaves them out.
const SYSTEM_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];

/// What programs find as their umask: what an init system gives to services (`UMask=` of systemd.exec(5)). Maintainer scripts of packages
/// make files, and services that a step starts live on with it: with 077 nobody but their own account could read what they write.
const PROGRAM_UMASK: rustix::fs::RawMode = 0o022;

/// `PATH` of the session, with the system's directories appended where they are missing.
pub(crate) fn search_path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    let mut dirs: Vec<&str> = given.split(':').filter(|dir| !dir.is_empty()).collect();
    for dir in SYSTEM_PATH {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs.join(":")
}

/// Where a program without `/` is found; others are taken as they are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    search_path().split(':').map(|dir| Path::new(dir).join(program)).find(|path| runs(path))
}

/// A program that can be run.
#[derive(Debug, Default)]
pub(crate) struct Program<'a> {
    pub(crate) argv: &'a [String],
    /// A shell file that is sourced first if it exists.
    pub(crate) profile: Option<&'a str>,
    pub(crate) dir: Option<&'a str>,
    pub(crate) env: Option<&'a BTreeMap<String, String>>,
    /// Whom it runs as; `None` is ourselves.
    pub(crate) account: Option<&'a Account>,
    /// The terminal that it gets in place of the standard streams, in a session of its own.
    pub(crate) terminal: Option<&'a str>,
    /// Files in memory that it finds by environment variables. They have to be open until it was started, with them ([`spawn`]).
    pub(crate) secret_files: &'a [(String, SecretFile)],
}

impl<'a> From<&'a CommandSpec> for Program<'a> {
    fn from(spec: &'a CommandSpec) -> Self {
        Self {
            argv: &spec.argv,
            profile: spec.profile.as_deref(),
            dir: spec.dir.as_deref(),
            env: Some(&spec.env),
            ..Self::default()
        }
    }
}

impl Program<'_> {
    /// The command, in a process group of its own, with no input, and with the umask of programs instead of ours. (Ours, 077, comes from
    /// the bootstrap. From here on it is not needed: every file of the agent that matters is made with a mode of its own, in a directory
    /// that nobody else can enter.)
    ///
    /// # Errors
    /// The program does not exist; the text names it.
    pub(crate) fn command(&self) -> Result<Command, String> {
        let Some((program, args)) = self.argv.split_first() else { return Err("no program was given".to_owned()) };
        let profile = self.profile.filter(|profile| Path::new(profile).exists());
        let mut words: Vec<String> = Vec::new();
        if let Some(profile) = profile {
            words.extend(["/bin/sh", "-c", ". \"$0\"; exec \"$@\"", profile].map(str::to_owned));
            words.push(program.clone());
        } else {
            let found = find(program).ok_or_else(|| missing(program))?;
            words.push(found.to_string_lossy().into_owned());
        }
        words.extend(args.iter().cloned());
        if let Some(account) = self.account {
            words.splice(0..0, account.wrapper());
            words.insert(0, OWN_EXECUTABLE.to_owned());
        }
        if let Some(terminal) = self.terminal {
            words.splice(0..0, [OWN_EXECUTABLE, "at", terminal].map(str::to_owned));
        }
        let Some((first, rest)) = words.split_first() else { return Err("no program was given".to_owned()) };
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(PROGRAM_UMASK));
        let mut command = Command::new(first);
        command.args(rest).env("PATH", search_path()).stdin(Stdio::null());
        if self.terminal.is_none() {
            // A session is a process group, too, and whoever leads a group already cannot begin one.
            command.process_group(0);
        }
        let dir = self.dir.unwrap_or("/");
        if !Path::new(dir).is_dir() {
            return Err(format!("the working directory {dir} does not exist"));
        }
        command.current_dir(dir);
        if let Some(env) = self.env {
            command.envs(env);
        }
        command.envs(self.secret_files.iter().map(|(variable, file)| (variable, file.path())));
        Ok(command)
    }
}

/// The text for a program that is not there.
pub(crate) fn missing(program: &str) -> String {
    if program.contains('/') {
        format!("{program} does not exist")
    } else {
        format!("the program {program} is not in PATH ({})", search_path())
    }
}

/// The agent itself, whatever became of the name that it was started under.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Another process of the agent, in the root directory.
pub(crate) fn own_command(mode: &str) -> Command {
    let mut command = Command::new(OWN_EXECUTABLE);
    command.arg0("caravan-agent").arg(mode).current_dir("/");
    command
}

/// Where a program's output comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A pipe: it ends when the last process that has it ends.
    Pipe(PipeReader),
    /// A file in memory, for programs that leave a service behind: the service may go on writing to it without harm.
    Memory(File, u64),
}

/// Held while a program is started: its files with secrets must go to no other.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a program, which gets these files and no other one. Every program of the agent is started here: between the moment when a
/// file may be inherited and the moment when the program has it no other one may begin. (Once `Command::spawn` returns, the program has
/// taken the place of the process that began as our copy.)
///
/// # Errors
/// As [`Command::spawn`].
pub(crate) fn spawn(command: &mut Command, files: &[(String, SecretFile)]) -> std::io::Result<Child> {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let inherit = |inherit| files.iter().try_for_each(|(_, file)| file.inherit(inherit));
    let child = inherit(true).map_err(Into::into).and_then(|()| command.spawn());
    inherit(false)?;
    child
}

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) child: Child,
    pub(crate) output: Source,
    /// Its other end is with the program and all its descendants; while one of them lives, the program counts as running.
    pub(crate) life: Option<OwnedFd>,
    pub(crate) deadline: Option<Instant>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: Option<ExitStatus>,
    /// Nobody had to end it, because its time was up or for another reason of ours.
    pub(crate) in_time: bool,
    /// It had ended, and descendants of it still ran when they had to be ended.
    pub(crate) left_some: bool,
}

impl Ended {
    /// The exit code, or what else happened.
    pub(crate) fn describe(&self) -> String {
        match self.status {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("ended by signal {signal}"),
                (None, None) => "no exit code".to_owned(),
            },
            None => "still running".to_owned(),
        }
    }

    /// The signal by which somebody else ended it. A program that crashed ended by itself.
    pub(crate) fn killed_by(&self) -> Option<i32> {
        let signal = self.status?.signal().filter(|_| self.in_time)?;
        let own = [Signal::ABORT, Signal::BUS, Signal::FPE, Signal::ILL, Signal::PIPE, Signal::SEGV, Signal::SYS, Signal::TRAP];
        (!own.iter().any(|own| own.as_raw() == signal)).then_some(signal)
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }
}

impl Watched {
    /// Starts a program with standard output and standard error in one pipe, and with these files.
    ///
    /// # Errors
    /// It cannot be started; the text names it.
    pub(crate) fn start(mut command: Command, files: &[(String, SecretFile)], deadline: Option<Instant>) -> Result<Self, String> {
        let cannot = |e: std::io::Error| format!("cannot start {}: {e}", command_name(&command));
        let (reader, writer) = std::io::pipe().map_err(cannot)?;
        let second = writer.try_clone().map_err(cannot)?;
        let name = command_name(&command);
        let child = spawn(command.stdout(writer).stderr(second), files).map_err(|e| format!("cannot start {name}: {e}"))?;
        // The command keeps its ends of the pipe; with them the output would never end.
        drop(command);
        Ok(Self { child, output: Source::Pipe(reader), life: None, deadline })
    }

    /// The program's process group.
    pub(crate) fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Follows the program to its end, and hands out its output as it comes. When the deadline passes, or `halt` is ordered, the whole
    /// process group gets SIGTERM and, a little later, SIGKILL. `sink` gets an empty piece several times a second, so that whoever follows
    /// can look at something else, too.
    pub(crate) fn follow(mut self, halt: Option<&Halt>, sink: &mut dyn FnMut(&[u8])) -> Ended {
        let mut piece = vec![0u8; 32 * 1024];
        let mut status: Option<ExitStatus> = None;
        let mut ended_at: Option<Instant> = None;
        let mut open = true;
        let mut killing: Option<Instant> = None;
        let mut left_some = false;
        let mut killed = false;
        loop {
            sink(&[]);
            open = open && self.read(&mut piece, ended_at.is_some_and(|at| at.elapsed() <= LINGER), sink);
            if status.is_none() {
                status = if open { self.child.try_wait().ok().flatten() } else { self.wait_a_little() };
                if status.is_some() {
                    ended_at = Some(Instant::now());
                }
            }
            let lives_on = self.life.as_ref().is_some_and(|life| !hung_up(life));
            if let (Some(ended), false) = (ended_at, lives_on) {
                // What was in the pipe when the program ended is read; what its descendants may still say is not waited for long.
                let over = !open || ended.elapsed() > LINGER;
                if over || matches!(self.output, Source::Memory(..)) {
                    if !over {
                        self.read(&mut piece, true, sink);
                    }
                    return Ended { status, in_time: killing.is_none(), left_some };
                }
            }
            if !open && status.is_some() {
                std::thread::sleep(Duration::from_millis(50));
            }
            let now = Instant::now();
            match killing {
                None if self.deadline.is_some_and(|deadline| now >= deadline)
                    || halt.is_some_and(|halt| halt.ordered().is_some()) =>
                {
                    let _ = rustix::process::kill_process_group(self.group(), Signal::TERM);
                    killing = Some(now);
                    left_some = status.is_some();
                }
                Some(since) if !killed && since.elapsed() > GRACE => {
                    let _ = rustix::process::kill_process_group(self.group(), Signal::KILL);
                    killed = true;
                }
                // Something that left the process group holds on: it is said to be running, not waited for.
                Some(since) if killed && since.elapsed() > 2 * GRACE => return Ended { status, in_time: false, left_some },
                _ => {}
            }
        }
    }

    /// Waits for output for a moment and hands it out. False when there will be no more.
    fn read(&mut self, piece: &mut [u8], hurry: bool, sink: &mut dyn FnMut(&[u8])) -> bool {
        match &mut self.output {
            Source::Pipe(pipe) => {
                let wait = if hurry { 10 } else { self.deadline.map_or(250, |d| millis_until(d).min(250)) };
                if !readable(&*pipe, wait) {
                    return true;
                }
                match pipe.read(piece) {
                    Ok(0) => false,
                    Ok(read) => {
                        sink(piece.get(..read).unwrap_or_default());
                        true
                    }
                    Err(e) => e.kind() == std::io::ErrorKind::Interrupted,
                }
            }
            Source::Memory(file, offset) => {
                loop {
                    match file.read_at(piece, *offset) {
                        Ok(read) if read > 0 => {
                            sink(piece.get(..read).unwrap_or_default());
                            *offset += read as u64;
                        }
                        _ => break,
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
                true
            }
        }
    }

    /// Output is over, and so will be the program at once, normally.
    fn wait_a_little(&mut self) -> Option<ExitStatus> {
        for pause in [0, 1, 2, 5, 10, 50] {
            std::thread::sleep(Duration::from_millis(pause));
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
        }
        None
    }
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn millis_until(when: Instant) -> i64 {
    i64::try_from(when.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX)
}

/// Whether something can be read (or the other end is gone) within some milliseconds.
pub(crate) fn readable(fd: &impl std::os::fd::AsFd, millis: i64) -> bool {
    let wait = Timespec { tv_sec: millis / 1000, tv_nsec: (millis % 1000) * 1_000_000 };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&wait)), Ok(ready) if ready > 0)
}

/// Whether nobody has the other end of a pipe any more.
pub(crate) fn hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    matches!(ready, Ok(n) if n > 0) && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP))
}

/// What a program printed, up to a limit, and how it ended.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) ended: Ended,
    pub(crate) text: Vec<u8>,
}

/// Runs a read-only program within a time limit; keeps at most `limit` bytes of its output.
///
/// # Errors
/// It cannot be started.
pub(crate) fn capture(program: &Program<'_>, limit: usize, within: Duration) -> Result<Captured, String> {
    let watched = Watched::start(program.command()?, program.secret_files, Some(Instant::now() + within))?;
    let mut text = Vec::new();
    let ended = watched.follow(None, &mut |bytes| {
        let room = limit.saturating_sub(text.len());
        text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    });
    Ok(Captured { ended, text })
}
