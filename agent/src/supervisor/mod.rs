//! The supervisor: takes grants for one run on this host, keeps the host's journal, and starts one runner after the other. It
//! lives on when bridges come and go, ends with its run, and everything it knows is in its journal: the next one goes on where
//! it stopped.

mod cgroup;
mod feed;
mod journal;
mod offer;
mod receive;
mod run;
mod step;
mod talk;

use crate::bridge::SOCKET;
use crate::channel::Input;
use crate::host_lock::HostLock;
use journal::Journal;
use proto::frame::Frame;
use proto::host::State;
use run::{Event, Run};
use rustix::fs::Mode;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// After this long with nothing running and no bridge the supervisor ends. The next attach starts another one.
const IDLE: Duration = Duration::from_secs(600);
/// How often a step without a runner of our own is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often anything else is.
const SLOW: Duration = Duration::from_secs(1);
/// How many events may wait: memory stays small, whatever is sent.
const QUEUE: usize = 16;

/// The mode `supervisor RUNDIR`. Says one line on standard output once it can be connected to (`ready`), or why it cannot
/// (`running`, `fatal REASON`), and then has no standard streams any more.
pub(crate) fn run(dir: &str, idle: Option<&str>) -> ExitCode {
    // The session that started us ends some day; its signals are not for us. (Its control group: see `cgroup`.)
    let _ = rustix::process::setsid();
    let idle = idle.and_then(|seconds| seconds.parse().ok()).map_or(IDLE, Duration::from_secs);
    let (word, code) = match start(dir) {
        Ok(started) => {
            crate::say("ready\n");
            detach();
            return live(started, idle);
        }
        Err(NotStarted::Running) => ("running".to_owned(), ExitCode::SUCCESS),
        Err(NotStarted::Fatal(reason)) => (format!("fatal {reason}"), ExitCode::from(1)),
    };
    crate::say(&format!("{word}\n"));
    code
}

/// Why a supervisor does not start.
enum NotStarted {
    /// The run has one.
    Running,
    /// The run's directory cannot be used.
    Fatal(String),
}

/// A supervisor that can be connected to.
struct Started {
    listener: UnixListener,
    run: Run,
    /// Locked as long as the supervisor lives: a run has one on a host. Apart from the host's own lock, which is about runs.
    _only: File,
}

fn start(dir: &str) -> Result<Started, NotStarted> {
    let fatal = |what: &str, e: &dyn std::fmt::Display| NotStarted::Fatal(format!("cannot {what} {dir}: {e}"));
    let dir_path = std::fs::canonicalize(dir).map_err(|e| fatal("find the run's directory", &e))?;
    let (Some(run), Some(host_state)) = (dir_path.file_name(), dir_path.parent().and_then(Path::parent)) else {
        return Err(fatal("take for a run's directory", &"expected HOST_STATE/runs/RUN"));
    };
    let only = only_one(&dir_path).map_err(|e| fatal("lock", &e))?.ok_or(NotStarted::Running)?;
    let (journal, records) = Journal::open(&dir_path.join("journal.jsonl")).map_err(NotStarted::Fatal)?;
    let mut state = State::default();
    records.iter().for_each(|record| state.apply(record));
    // A socket's path must be short (unix(7)): from within the directory it is.
    std::env::set_current_dir(&dir_path).map_err(|e| fatal("enter", &e))?;
    let _ = std::fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET).map_err(|e| fatal("listen in", &e))?;
    rustix::fs::chmod(SOCKET, Mode::RUSR | Mode::WUSR).map_err(|e| fatal("protect the socket in", &e))?;
    let name = run.to_string_lossy();
    let run = Run::new(&dir_path, HostLock::new(host_state), &name, journal, state);
    cgroup::leave_session(&name);
    Ok(Started { listener, run, _only: only })
}

/// Nothing where the run's supervisor lives. The file says its process id, for people.
fn only_one(dir: &Path) -> std::io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(dir.join("supervisor.lock"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
        Ok(()) => {}
    }
    // On a full disk people have to do without.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Some(file))
}

/// Lets go of the standard streams: whoever reads them waits for their end.
fn detach() {
    let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}

fn live(started: Started, idle: Duration) -> ExitCode {
    let Started { listener, mut run, _only } = started;
    let (sender, events) = sync_channel(QUEUE);
    run.connect(sender.clone());
    std::thread::spawn(move || listen(&listener, &sender));
    let ended = serve(&mut run, &events, idle).and_then(|()| run.let_go());
    let _ = std::fs::remove_file(SOCKET);
    let code = if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    run.part(ended.err());
    code
}

/// Until the run is over on this host. An error is why it cannot go on here.
fn serve(run: &mut Run, events: &Receiver<Event>, idle: Duration) -> Result<(), String> {
    let mut busy_at = Instant::now();
    loop {
        run.go_on()?;
        if run.is_over() {
            return Ok(());
        }
        if run.is_busy() {
            busy_at = Instant::now();
        }
        if busy_at.elapsed() >= idle {
            return Ok(());
        }
        let patience = if run.has_to_look() { LOOK } else { SLOW.min(idle) };
        match events.recv_timeout(patience) {
            Ok(event) => run.take(event)?,
            Err(RecvTimeoutError::Timeout) => {}
            // The listener holds the other end for as long as we live.
            Err(RecvTimeoutError::Disconnected) => return Err("the supervisor cannot listen any more".to_owned()),
        }
    }
}

/// Takes connections of our own account and of root. Each gets a thread that reads its frames.
fn listen(listener: &UnixListener, sender: &SyncSender<Event>) {
    let mut number = 0;
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            std::thread::sleep(LOOK);
            continue;
        };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { continue };
        if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
            continue;
        }
        let Ok(reader) = stream.try_clone() else { continue };
        number += 1;
        if sender.send(Event::Connected(number, stream)).is_err() {
            return;
        }
        let sender = sender.clone();
        std::thread::spawn(move || read(number, reader, &sender));
    }
}

fn read(number: u64, stream: UnixStream, sender: &SyncSender<Event>) {
    let mut input = Input::new(stream);
    while let Ok(frame) = input.next() {
        // Bytes of files are the bridge's to write.
        let Frame::Control(payload) = frame else { continue };
        if sender.send(Event::Message(number, payload)).is_err() {
            return;
        }
    }
    let _ = sender.send(Event::Gone(number));
}
