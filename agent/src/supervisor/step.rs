//! The step that runs: starting its runner, adopting one, finding out how it ended.

use super::run::Event;
use crate::inspect::now_ms;
use crate::runner::files::{StepFiles, read_json};
use crate::runner::{Status, publish};
use proto::host::{Entry, Record, State};
use proto::message::{Happened, HostEvent};
use proto::step::{Limits, OnLimit};
use proto::{Outcome, Secret};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
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
    /// On which boot it began.
    boot_id: String,
    limits: Limits,
    /// How many alerts of its watchdog are in the journal.
    alerts: usize,
    /// In place of a dead runner: for how many times the deadline people were told, and when its processes were told to end.
    told: u64,
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
    /// A step that begins now.
    pub(crate) fn new(run_dir: &Path, index: usize, entry: &Entry, boot_id: &str) -> Self {
        Self {
            index,
            stream: State::stream(index),
            files: files(run_dir, index),
            runner_lives: false,
            probing: false,
            began_ms: now_ms(),
            boot_id: boot_id.to_owned(),
            limits: entry.granted.spec.limits.clone(),
            alerts: 0,
            told: 0,
            terminated: None,
        }
    }

    /// A step that the journal knows as begun: its runner may live, may have left a result, or may be dead.
    pub(crate) fn adopt(run_dir: &Path, index: usize, state: &State) -> Option<Self> {
        let entry = state.entry(index)?;
        let is_own = |event: &&HostEvent| event.step == entry.granted.spec.id && event.attempt == entry.granted.attempt;
        let began = state.events().iter().find(is_own)?;
        let alerts = state.events().iter().filter(is_own).filter(|event| matches!(event.what, Happened::Alert { .. })).count();
        let running = Self::new(run_dir, index, entry, &began.boot_id);
        Some(Self { began_ms: began.host_time_ms, alerts, ..running })
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
        self.files.reserve_status().map_err(|e| failed(&e))?;
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
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(lock);
        let mut child = crate::program::spawn(&mut command, &[]).map_err(|e| failed(&e))?;
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

    /// What its watchdog noticed since this was asked last.
    pub(crate) fn new_alerts(&mut self) -> Vec<Happened> {
        let alerts = self.files.alerts_after(self.alerts);
        self.alerts += alerts.len();
        alerts
    }

    /// Looks how the step stands. `boot_id` is the present boot.
    pub(crate) fn look(&mut self, boot_id: &str) -> Look {
        // The lock first: a result that is written in between must not be missed.
        let nobody = !self.runner_lives && self.files.is_free();
        if self.files.status().exists()
            && let Ok(status) = read_json(&self.files.status())
        {
            return Look::Ended(if self.probing { self.found_out(status, boot_id) } else { status });
        }
        match (nobody, self.probing) {
            (false, _) => {
                self.watch_in_place_of_runner();
                Look::Runs
            }
            (true, false) => Look::Dead,
            (true, true) => Look::Ended(Status {
                outcome: Outcome::Unknown,
                exit_code: None,
                duration_ms: self.age_ms(),
                message: "its runner died, and so did the one that looked what became of it; a person has to look".to_owned(),
                output_len: 0,
                died: true,
                made: Vec::new(),
            }),
        }
    }

    fn age_ms(&self) -> u64 {
        now_ms().saturating_sub(self.began_ms)
    }

    /// The result of one who looked later is about the step as a whole.
    fn found_out(&self, status: Status, boot_id: &str) -> Status {
        let message = if self.boot_id == boot_id {
            status.message
        } else {
            format!("this host was started again while the step ran; {}", status.message)
        };
        Status { duration_ms: self.age_ms(), message, ..status }
    }

    /// Has the step's processes ended. Its runner does it, and the supervisor where the runner is dead.
    ///
    /// # Errors
    /// The order cannot be written down.
    pub(crate) fn stop(&self, reason: &str) -> io::Result<()> {
        if self.files.stop().exists() { Ok(()) } else { publish(&self.files.stop(), reason.as_bytes()) }
    }

    /// A runner keeps the limits of its step, and stops it where somebody wants that. When it died, and programs that it had started
    /// hold the step open, the deadline and the wish are looked after here.
    fn watch_in_place_of_runner(&mut self) {
        if self.runner_lives {
            return;
        }
        let (ran, limit) = (self.age_ms() / 1000, self.limits.deadline_s);
        if limit > 0 && ran > limit + MARGIN_S && ran / limit > self.told {
            self.told = ran / limit;
            let message = format!("its runner died; what it had started has run for {ran} s, longer than its limit of {limit} s");
            // On a full disk nobody can be told, and nothing is ended that a person asks for later: both are tried again.
            let _ = match self.limits.then {
                OnLimit::Stop => self.stop(&format!("it did not end within {limit} s and was stopped")),
                then => self.files.add_alert(&Happened::Alert { message, ask: then == OnLimit::Ask }),
            };
        }
        if self.files.stop().exists() {
            self.end_processes();
        }
    }

    fn end_processes(&mut self) {
        let signal = match self.terminated {
            None => Signal::TERM,
            Some(since) if since.elapsed() > GRACE => Signal::KILL,
            Some(_) => return,
        };
        let holders = holders(&self.files.lock());
        // One that was adopted lives after all: this is its work.
        if holders.iter().any(|pid| is_runner(*pid)) {
            return;
        }
        self.terminated.get_or_insert_with(Instant::now);
        for pid in holders {
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

/// Whether a process is a runner, and not what one has started.
fn is_runner(pid: Pid) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"runner")
}
