//! Finding or starting the supervisor of a run, and carrying its frames.

use super::ToController;
use crate::channel::Input;
use crate::durable;
use proto::frame::{Frame, parse};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long another bridge may take to start the supervisor that this one found locked but not yet listening.
const PATIENCE: Duration = Duration::from_secs(5);
/// The socket's name in the run's directory.
pub(crate) const SOCKET: &str = "supervisor.sock";

/// Why there is no connection to a supervisor.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another run holds the host, or the request makes no sense.
    Refused(String),
    /// The host is not fit: directories that cannot be written, a supervisor that does not start.
    Fatal(String),
}

/// Connects to the supervisor of a run, which is started when there is none.
pub(crate) fn connect(host_state: &str, run: &str) -> Result<UnixStream, Failure> {
    let dir = run_dir(host_state, run)?;
    let cannot = |what: &str, e: &dyn std::fmt::Display| Failure::Fatal(format!("{what} {}: {e}", dir.display()));
    if let Some(stream) = dial(&dir) {
        return Ok(stream);
    }
    let runs = durable::parent(&dir);
    // Others may look into it (the lock says who holds the host), but not write.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(host_state);
    made.map_err(|e| Failure::Fatal(format!("cannot create Caravan's directory {host_state}: {e}")))?;
    durable::private_dir(runs).map_err(|e| cannot("cannot create the run's directory", &e))?;
    durable::private_dir(&dir).map_err(|e| cannot("cannot create the run's directory", &e))?;
    let said = start(&dir).map_err(|e| cannot("cannot start the supervisor of", &e))?;
    match said.split_once(' ') {
        Some(("refused", reason)) => return Err(Failure::Refused(reason.to_owned())),
        Some(("fatal", message)) => return Err(Failure::Fatal(message.to_owned())),
        _ if said == "ready" || said == "running" => {}
        _ => return Err(cannot("the supervisor did not start for", &format!("it said `{said}`"))),
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match dial(&dir) {
            Some(stream) => return Ok(stream),
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            None => return Err(cannot("cannot connect to the supervisor of", &"it does not answer")),
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
    let mut child = command.spawn()?;
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
pub(crate) fn relay(reader: UnixStream, output: &ToController) -> Parted {
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
        output.raw(&bytes);
    }
    parted
}
