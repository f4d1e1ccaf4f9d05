//! The step that runs: starting its runner, adopting one, finding out how it ended.

use super::run::Event;
use crate::inspect::now_ms;
use crate::runner::Status;
use crate::runner::files::{StepFiles, read_json};
use proto::Outcome;
use proto::Secret;
use proto::host::{Entry, Record, State};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How much later than the runner itself the supervisor ends what a dead runner left behind.
const MARGIN_S: u64 = 30;
/// How long that has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// The step that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) index: usize,
    pub(crate) stream: u32,
    pub(crate) files: StepFiles,
    /// Our own runner lives.
    pub(crate) runner_lives: bool,
    /// The runner that lives only looks what became of the step.
    probing: bool,
    began_ms: u64,
    deadline_s: u64,
    terminated: Option<Instant>,
}

/// What was found out about the running step.
#[derive(Debug)]
pub(crate) enum Look {
    /// It runs.
    Runs,
    /// It ended.
    Ended(Status),
    /// Nobody runs for it, and there is no result.
    Dead,
}

impl Running {
    pub(crate) fn new(run_dir: &Path, index: usize, entry: &Entry, began_ms: u64) -> Self {
        Self {
            index,
            stream: State::stream(index),
            files: files(run_dir, index),
            runner_lives: false,
            probing: false,
            began_ms,
            deadline_s: entry.granted.spec.limits.deadline_s,
            terminated: None,
        }
    }

    /// Makes the step's directory and takes its lock.
    ///
    /// # Errors
    /// The directory cannot be written, or somebody runs for the step.
    pub(crate) fn prepare(&self, entry: &Entry) -> Result<fs::File, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot prepare {}: {e}", self.files.dir().display());
        crate::durable::private_dir(self.files.dir()).map_err(|e| failed(&e))?;
        let lock = self.files.open_lock().map_err(|e| failed(&e))?;
        lock.try_lock().map_err(|e| failed(&e))?;
        let json = serde_json::to_vec(&Record::Step(Box::new(entry.granted.clone()))).map_err(|e| failed(&e))?;
        fs::write(self.files.spec(), json).map_err(|e| failed(&e))?;
        Ok(lock)
    }

    /// Starts a runner, which gets the lock as its standard error. With `probing` it does nothing but look what became of a step
    /// whose runner died.
    pub(crate) fn spawn(
        &mut self,
        lock: fs::File,
        probing: bool,
        secrets: &BTreeMap<String, Secret>,
        events: &SyncSender<Event>,
    ) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot start a runner: {e}");
        let mut command = crate::program::own_command("runner");
        command.arg(self.files.dir()).args(probing.then_some("probe"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(lock).spawn().map_err(|e| failed(&e))?;
        // The command still has our copy of the lock.
        drop(command);
        self.runner_lives = true;
        self.probing = probing;
        let text = zeroize::Zeroizing::new(serde_json::to_vec(secrets).map_err(|e| failed(&e))?);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (events, index) = (events.clone(), self.index);
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A runner that dies at once is noticed below.
                let _ = stdin.write_all(&text);
            }
            drop(text);
            let mut piece = [0; 4096];
            if let Some(mut stdout) = stdout {
                while stdout.read(&mut piece).is_ok_and(|read| read > 0) {
                    let _ = events.send(Event::Stirred);
                }
            }
            let _ = child.wait();
            let _ = events.send(Event::RunnerEnded(index));
        });
        Ok(())
    }

    /// Looks how the step stands.
    pub(crate) fn look(&mut self) -> Look {
        // The lock first: a result that is written in between must not be missed.
        let nobody = !self.runner_lives && self.files.is_free();
        if self.files.status().exists()
            && let Ok(status) = read_json(&self.files.status())
        {
            return Look::Ended(status);
        }
        match (nobody, self.probing) {
            (false, _) => {
                self.enforce_deadline();
                Look::Runs
            }
            (true, false) => Look::Dead,
            (true, true) => Look::Ended(Status {
                outcome: Outcome::Unknown,
                exit_code: None,
                duration_ms: now_ms().saturating_sub(self.began_ms),
                message: "its runner died, and so did the one that looked what became of it; a person has to look".to_owned(),
                output_len: 0,
            }),
        }
    }

    /// A runner keeps the deadline itself. When it died, and programs that it started hold the step open beyond it, they are
    /// ended here.
    fn enforce_deadline(&mut self) {
        let late = self.deadline_s > 0 && now_ms().saturating_sub(self.began_ms) / 1000 > self.deadline_s + MARGIN_S;
        if !late || self.runner_lives {
            return;
        }
        let signal = match self.terminated {
            None => {
                self.terminated = Some(Instant::now());
                Signal::TERM
            }
            Some(since) if since.elapsed() > GRACE => Signal::KILL,
            Some(_) => return,
        };
        for pid in holders(&self.files.lock()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Where the files of a step are.
pub(crate) fn files(run_dir: &Path, index: usize) -> StepFiles {
    StepFiles::new(&run_dir.join("steps").join(format!("{index:04}")))
}

/// The processes that have a file open.
fn holders(path: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id().to_string();
    let holds = |entry: &fs::DirEntry| {
        let open = fs::read_dir(entry.path().join("fd")).ok();
        open.is_some_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to: PathBuf| to == path)))
    };
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    entries.flatten().filter(|entry| entry.file_name().to_str() != Some(&own) && holds(entry)).filter_map(pid).collect()
}
