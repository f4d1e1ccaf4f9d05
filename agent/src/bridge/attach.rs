//! Finding or starting the supervisor of a run, and carrying its frames.

use super::ToController;
use super::receive::Receiving;
use crate::channel::Input;
use crate::durable;
use crate::host_lock::{self, Denied, HostLock};
use proto::frame::{Frame, parse};
use proto::message::Claim;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a supervisor that is starting, or ending, may take to do so.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// The socket's name in the run's directory.
pub(crate) const SOCKET: &str = "supervisor.sock";

/// Why there is no connection to a supervisor.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another run holds the host, or the request makes no sense.
    Refused(String),
    /// The host is this run's, but a step of another run has not ended yet.
    Busy(String),
    /// The host is not fit: directories that cannot be written, a supervisor that does not start.
    Fatal(String),
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(reason) => Self::Refused(reason),
            Denied::Fatal(message) => Self::Fatal(message),
        }
    }
}

/// Takes the host for a run, then connects to the run's supervisor, which is started when there is none. The connection, and the run's
/// directory.
pub(crate) fn connect(host_state: &str, run: &str, claim: &Claim) -> Result<(UnixStream, PathBuf), Failure> {
    let dir = run_dir(host_state, run)?;
    let cannot = |what: &str, e: &dyn std::fmt::Display| Failure::Fatal(format!("{what} {}: {e}", dir.display()));
    let host_state = Path::new(host_state);
    host_lock::make_host_state(host_state)
        .map_err(|e| Failure::Fatal(format!("cannot create Caravan's directory {}: {e}", host_state.display())))?;
    let lock = HostLock::new(host_state);
    lock.claim(run, claim)?;
    // The claim comes first: from here on the other run begins nothing more, and what it has begun comes to an end.
    let elsewhere = lock.runs_elsewhere(run).map_err(|e| Failure::Fatal(format!("cannot see what runs on this host: {e}")))?;
    if let Some(what) = elsewhere {
        return Err(Failure::Busy(format!("{what}; it begins nothing more; attach again when that step has ended")));
    }
    durable::private_dir(&dir).map_err(|e| cannot("cannot create the run's directory", &e))?;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(stream) = dial(&dir) {
            return Ok((stream, dir));
        }
        let said = start(&dir).map_err(|e| cannot("cannot start the supervisor of", &e))?;
        match said.split_once(' ') {
            Some(("fatal", message)) => return Err(Failure::Fatal(message.to_owned())),
            _ if said == "ready" => {}
            // Another bridge has just started it, or it is just ending.
            _ if said == "running" && Instant::now() < until => std::thread::sleep(LOOK),
            _ if said == "running" => return Err(cannot("cannot connect to the supervisor of", &"it does not answer")),
            _ => return Err(cannot("the supervisor did not start for", &format!("it said `{said}`"))),
        }
    }
}

fn run_dir(host_state: &str, run: &str) -> Result<PathBuf, Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if run.is_empty() || run.len() > 128 || run.starts_with('.') || !run.chars().all(good) {
        return Err(Failure::Refused(format!("`{run}` is not the id of a run")));
    }
    if !host_state.starts_with('/') {
        return Err(Failure::Refused(format!("expected an absolute path for Caravan's directory on the host, got `{host_state}`")));
    }
    Ok(Path::new(host_state).join("runs").join(run))
}

/// Connects, if somebody listens. The address goes through `/proc/self/fd`, since the path of a socket must not be longer than
/// 107 bytes (unix(7)) and the run's directory may well be.
fn dial(dir: &Path) -> Option<UnixStream> {
    let handle = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd())).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    (peer.uid == rustix::process::geteuid() || peer.uid.is_root()).then_some(stream)
}

/// Starts a supervisor and returns the one line it says once it listens, or why it does not.
fn start(dir: &Path) -> std::io::Result<String> {
    let mut command = crate::program::own_command("supervisor");
    command.arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = crate::program::spawn(&mut command, &[])?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    // It lives on without us; as long as we are here it must not become a zombie.
    std::thread::spawn(move || child.wait());
    Ok(said.trim().to_owned())
}

/// The type of a [`proto::FromAgent`]: all that is read of what is only passed on.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// How a conversation with a supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parted {
    /// It said why.
    Told,
    /// It was cut off.
    Lost,
}

/// Carries the supervisor's frames to the controller until the supervisor ends.
pub(crate) fn relay(reader: UnixStream, output: &ToController, receiving: &Receiving) -> Parted {
    let mut input = Input::new(reader);
    let mut parted = Parted::Lost;
    while let Ok(frames) = input.next_ones() {
        let mut bytes = Vec::new();
        for frame in frames {
            if let Frame::Control(payload) = &frame {
                let last_words =
                    parse::<Kind>(payload).is_ok_and(|kind| matches!(kind.kind.as_str(), "finished" | "refused" | "fatal"));
                parted = if last_words { Parted::Told } else { Parted::Lost };
            }
            frame.encode_into(&mut bytes);
        }
        receiving.look();
        output.raw(&bytes);
    }
    parted
}
