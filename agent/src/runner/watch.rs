//! The watchdog of a step: a thread of its runner, which knows when the step's output came and how long it has been at work. What a
//! limit brings about is the step's own policy ([`OnLimit`]).

use super::files::StepFiles;
use super::halt::Halt;
use super::notify;
use crate::pattern;
use proto::message::Happened;
use proto::step::{Limits, OnLimit};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it looks.
const TICK: Duration = Duration::from_millis(200);
/// How often it looks at log files, which may be many: a twentieth of the time of silence, within these bounds.
const SCANS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What the thread is told.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    now: Mutex<Option<Acting>>,
}

/// The action is at work.
#[derive(Debug, Clone, Copy)]
struct Acting {
    since: Instant,
    /// When output came last.
    output: Instant,
}

impl Signs {
    /// The action begins, or has ended. Limits count while it is at work: not while a probe is asked or an effect is waited for.
    pub(crate) fn acting(&self, acting: bool) {
        let now = Instant::now();
        *self.lock() = acting.then_some(Acting { since: now, output: now });
    }

    /// Output came.
    pub(crate) fn output(&self) {
        if let Some(acting) = self.lock().as_mut() {
            acting.output = Instant::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Acting>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the watchdog. It ends with the process.
pub(crate) fn start(files: StepFiles, limits: Limits, halt: Arc<Halt>) -> Arc<Signs> {
    let signs = Arc::new(Signs::default());
    let seen = Arc::clone(&signs);
    std::thread::spawn(move || Watchdog { files, halt, deadline: 0, silence: Silence::new(&limits), limits }.run(&seen));
    signs
}

struct Watchdog {
    files: StepFiles,
    limits: Limits,
    halt: Arc<Halt>,
    /// For how many times the deadline people were told already.
    deadline: u64,
    silence: Silence,
}

impl Watchdog {
    fn run(mut self, signs: &Signs) {
        loop {
            std::thread::sleep(TICK);
            if let Ok(reason) = std::fs::read_to_string(self.files.stop()) {
                return self.halt.order(reason);
            }
            let acting = *signs.lock();
            match acting {
                Some(acting) => self.look(acting),
                None => self.silence = Silence::new(&self.limits),
            }
        }
    }

    fn look(&mut self, acting: Acting) {
        let (limit, then) = (self.limits.deadline_s, self.limits.then);
        let ran = acting.since.elapsed().as_secs();
        if limit > 0 && ran / limit > self.deadline {
            self.deadline = ran / limit;
            self.reached(match then {
                OnLimit::Stop => format!("it did not end within {limit} s and was stopped"),
                _ => format!("it has run for {ran} s, longer than its limit of {limit} s"),
            });
        }
        if let Some(silent) = self.silence.broken(acting) {
            let files = if self.limits.watch.is_empty() {
                String::new()
            } else {
                format!(", and nothing was written to {}", self.limits.watch.join(", "))
            };
            self.reached(match then {
                OnLimit::Stop => format!("it printed nothing for {silent} s{files}, and was stopped"),
                _ => format!("it has printed nothing for {silent} s{files}"),
            });
        }
    }

    fn reached(&self, message: String) {
        let ask = match self.limits.then {
            OnLimit::Stop => return self.halt.order(message),
            OnLimit::Tell => false,
            OnLimit::Ask => true,
        };
        // On a full disk nobody can be told; the step goes on all the same.
        if self.files.add_alert(&Happened::Alert { message, ask }).is_ok() {
            notify();
        }
    }
}

/// For how long there was no sign of life.
struct Silence {
    limit: Duration,
    watch: Vec<String>,
    /// The watched files and their sizes when they were looked at last.
    files: Option<Vec<(PathBuf, u64)>>,
    looked: Instant,
    /// When a file was seen to have changed.
    changed: Option<Instant>,
    /// The sign of life that the periods are counted from.
    sign: Option<Instant>,
    /// How many whole periods of silence were told.
    told: u64,
}

impl Silence {
    fn new(limits: &Limits) -> Self {
        Self {
            limit: Duration::from_secs(limits.silence_s),
            watch: limits.watch.clone(),
            files: None,
            looked: Instant::now(),
            changed: None,
            sign: None,
            told: 0,
        }
    }

    /// Seconds of silence, when one more whole period of it has passed.
    fn broken(&mut self, acting: Acting) -> Option<u64> {
        if self.limit.is_zero() {
            return None;
        }
        let scan = (self.limit / 20).clamp(SCANS.0, SCANS.1);
        if self.files.is_none() || self.looked.elapsed() >= scan || self.periods(acting) > self.told {
            self.look();
        }
        let periods = self.periods(acting);
        if periods <= self.told {
            return None;
        }
        self.told = periods;
        Some(self.sign?.elapsed().as_secs())
    }

    /// How many whole periods have passed since the last sign of life.
    fn periods(&mut self, acting: Acting) -> u64 {
        let sign = self.changed.map_or(acting.output, |changed| changed.max(acting.output));
        if self.sign != Some(sign) {
            self.sign = Some(sign);
            self.told = 0;
        }
        sign.elapsed().as_secs() / self.limit.as_secs().max(1)
    }

    /// Any change of a watched file is a sign of life: growth, a new one, one that was rotated away.
    fn look(&mut self) {
        self.looked = Instant::now();
        let found = self.watch.iter().filter_map(|path| pattern::files(path).ok()).flatten();
        let files: Vec<(PathBuf, u64)> =
            found.filter_map(|path| Some((path.clone(), std::fs::metadata(path).ok()?.len()))).collect();
        let same = self.files.as_ref().is_none_or(|before| *before == files);
        self.files = Some(files);
        if !same {
            self.changed = Some(self.looked);
        }
    }
}
