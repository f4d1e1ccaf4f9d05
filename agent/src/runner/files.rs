//! The files of one step, which supervisor and runner share.

use crate::durable;
use proto::message::{Happened, Offered};
use rustix::fs::FallocateFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Room for a result: its message is at most a few lines.
const RESERVED: u64 = 16 * 1024;

/// What a run's supervisor has asked the controller for, as [`Need`]: in the run's directory, for the bridge.
pub(crate) const WANTED: &str = "wanted.json";

/// Names the files of one step.
#[derive(Debug, Clone)]
pub(crate) struct StepFiles {
    dir: PathBuf,
}

/// A runner's request for a file that the controller has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    pub(crate) sha256: String,
    pub(crate) size: u64,
    /// Where the bridge writes what arrives. What is there already is not sent again.
    pub(crate) part: PathBuf,
}

/// A file that a runner offers to the controller. It does not change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) path: PathBuf,
    pub(crate) file: Offered,
}

impl StepFiles {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where packages are received: `packages` in Caravan's directory on the host, in which this is `runs/RUN/steps/STEP`.
    pub(crate) fn packages(&self) -> Option<PathBuf> {
        self.dir.ancestors().nth(4).map(|host_state| host_state.join("packages"))
    }

    /// What was granted. Not durable by itself: the journal has it.
    pub(crate) fn spec(&self) -> PathBuf {
        self.dir.join("spec.json")
    }

    /// Locked while the step runs.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The result.
    pub(crate) fn status(&self) -> PathBuf {
        self.dir.join("status.json")
    }

    /// The masked output, in segments.
    pub(crate) fn output(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The request for a file, as [`Need`].
    pub(crate) fn need(&self) -> PathBuf {
        self.dir.join("need.json")
    }

    /// The supervisor's answer: the file arrived (empty), or why it does not come (text).
    pub(crate) fn answer(&self) -> PathBuf {
        self.dir.join("answer")
    }

    /// The file that the step offers to the controller, as [`Offer`].
    pub(crate) fn offer(&self) -> PathBuf {
        self.dir.join("offer.json")
    }

    /// What the run knows of copies that are kept elsewhere: `runs/RUN/kept`.
    pub(crate) fn kept(&self) -> Option<PathBuf> {
        self.run().map(|run| run.join("kept"))
    }

    /// The run's directory, in which this is `steps/STEP`.
    pub(crate) fn run(&self) -> Option<&Path> {
        self.dir.ancestors().nth(2)
    }

    /// Why the step is to be stopped, once it is.
    pub(crate) fn stop(&self) -> PathBuf {
        self.dir.join("stop")
    }

    /// What a watchdog noticed, a line each, as [`Happened::Alert`]. Here it outlives a supervisor.
    fn alerts(&self) -> PathBuf {
        self.dir.join("alerts.jsonl")
    }

    /// Adds an alert. On an error the file is as it was before.
    pub(crate) fn add_alert(&self, alert: &Happened) -> io::Result<()> {
        let mut line = serde_json::to_vec(alert)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.alerts())?;
        let len = file.metadata()?.len();
        file.write_all(&line).inspect_err(|_| {
            let _ = file.set_len(len);
        })
    }

    /// The alerts so far, without the first `known`. What is being written is left for the next time.
    pub(crate) fn alerts_after(&self, known: usize) -> Vec<Happened> {
        let text = std::fs::read_to_string(self.alerts()).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.skip(known).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lock file, made where it is missing. Closed by `exec` unless it is handed on.
    pub(crate) fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.lock())
    }

    /// Whether nobody runs for this step.
    pub(crate) fn is_free(&self) -> bool {
        match self.open_lock() {
            Ok(file) => !matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)),
            // No directory, no runner.
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Whether the step began and has not ended: somebody runs for it, and there is no result. (What outlives a step can go on holding
    /// its lock: services that a package's scripts started again.)
    pub(crate) fn is_running(&self) -> bool {
        !self.status().exists() && self.lock().exists() && !self.is_free()
    }

    fn reserved(&self) -> PathBuf {
        durable::beside(&self.status(), ".tmp")
    }

    /// Takes the space that the result will need, before the step begins. What is taken already stays taken.
    pub(crate) fn reserve_status(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.reserved())?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOSPC) => Err(io::Error::from(rustix::io::Errno::NOSPC)),
            // A file system that cannot do it: by hand.
            Err(_) => {
                file.write_all(&vec![b' '; RESERVED as usize])?;
                file.sync_all()
            }
        }
    }

    /// Writes the result into the reserved space, durably, and then under its name.
    pub(crate) fn write_status(&self, json: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.reserved())?;
        file.write_all(json)?;
        file.set_len(json.len() as u64)?;
        file.sync_all()?;
        std::fs::rename(self.reserved(), self.status())?;
        durable::sync_dir(&self.dir)
    }
}

/// Reads a small JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{} is damaged: {e}", path.display()))
}
