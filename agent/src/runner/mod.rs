//! A runner: one process for one step. It does the work, proves the result, and writes output and result to disk itself, so that
//! neither the bridge's nor the supervisor's death loses them.
//!
//! Its standard error is the step's lock file, locked by whoever started it: the lock lives in that open file, so there is no
//! moment at which the runner is alive and the lock is free. Descendants get a copy of it (except services that a step starts):
//! while one of them lives, the step counts as running. Standard input brings the secrets; standard output tells the supervisor
//! that there is something to see, one byte at a time, and may be gone.

pub(crate) mod act;
pub(crate) mod files;
pub(crate) mod halt;
mod outcome;
pub(crate) mod spool;
mod watch;

use crate::mask::Mask;
use crate::{account, durable};
use act::{Death, Job};
use files::{StepFiles, read_json};
use halt::Halt;
use outcome::{Verdict, Work};
use proto::frame::Frame;
use proto::host::Record;
use proto::message::{Granted, Made};
use proto::step::{Action, Limits};
use proto::{Outcome, Secret};
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};
use spool::Spool;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use watch::Signs;

/// How a step ended, as its runner writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) duration_ms: u64,
    pub(crate) message: String,
    pub(crate) output_len: u64,
    /// It was ended from outside, see [`proto::message::Happened::Finished`].
    #[serde(default)]
    pub(crate) died: bool,
    /// Files that count as backups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) made: Vec<Made>,
}

/// The mode `runner STEPDIR`, and `runner STEPDIR probe` to find out what became of a step whose runner died.
pub(crate) fn run(dir: &str, after_death: bool) -> ExitCode {
    match carry_out(&StepFiles::new(Path::new(dir)), after_death) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            crate::complain(&format!("{message}\n"));
            ExitCode::from(1)
        }
    }
}

fn carry_out(files: &StepFiles, after_death: bool) -> Result<(), String> {
    let began = Instant::now();
    let _own_lock = hold_lock(files)?;
    // The supervisor may be gone before we are: a full pipe must not stop us.
    let _ = rustix::fs::fcntl_setfl(std::io::stdout(), OFlags::NONBLOCK);
    let (secrets, after_death) = match (read_secrets()?, after_death) {
        (Some(secrets), after_death) => (secrets, after_death.then_some(Death::OfRunner)),
        // Without its secrets a step would not only fail: what it prints could not be masked.
        (None, false) => (BTreeMap::new(), Some(Death::BeforeItBegan)),
        (None, true) => return Err("the supervisor was killed; the next one has somebody look again".to_owned()),
    };
    let Record::Step(granted) = read_json(&files.spec())? else { return Err(format!("{} is no step", files.spec().display())) };
    if read_json::<Status>(&files.status()).is_ok() {
        return Ok(());
    }
    // The supervisor has reserved it already; nothing may begin without.
    let reserved =
        files.reserve_status().map_err(|e| format!("cannot reserve space for the result in {}: {e}", files.dir().display()));
    let mask = Mask::of(&secrets);
    let mut spool = Spool::open(&files.output(), Mask::of(&secrets)).map_err(|e| format!("cannot keep output: {e}"))?;
    let halt = Arc::new(Halt::default());
    // Who only looks needs nobody to watch over him.
    let limits = if after_death.is_some() { Limits { deadline_s: 0, ..Limits::default() } } else { granted.spec.limits.clone() };
    let signs = watch::start(files.clone(), limits, Arc::clone(&halt));
    let verdict = match reserved {
        Ok(()) => decide(files, granted, after_death, secrets, (&halt, &signs), &mut |bytes| {
            signs.output();
            spool.write(bytes);
            notify();
        }),
        Err(message) => Ok(Verdict::new(Outcome::Failed, message)),
    };
    let output_len = spool.finish();
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Verdict { outcome, exit_code, mut message, mut died, made } = verdict?;
    // What its runner, or the supervisor in its place, was told to stop did not die by itself or by others.
    if let (true, Ok(reason)) = (after_death.is_some(), std::fs::read_to_string(files.stop())) {
        died = false;
        message = format!("{reason}; {message}");
    }
    let status = Status { outcome, exit_code, duration_ms, message: mask.text(&message), output_len, died, made };
    let json = serde_json::to_vec(&status).map_err(|e| e.to_string())?;
    files.write_status(&json).map_err(|e| format!("cannot write the result to {}: {e}", files.dir().display()))?;
    notify();
    Ok(())
}

/// Tells the supervisor that there is something to see, if it is there.
pub(crate) fn notify() {
    let _ = rustix::io::write(std::io::stdout(), b".");
}

/// Makes sure that this step's lock is ours. Normally it came with standard error.
fn hold_lock(files: &StepFiles) -> Result<Option<std::fs::File>, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot lock {}: {e}", files.lock().display());
    let named = rustix::fs::stat(files.lock()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let given = rustix::fs::fstat(std::io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    if given.is_some() && given == named {
        rustix::fs::flock(std::io::stderr(), FlockOperation::NonBlockingLockExclusive).map_err(|e| cannot(&e))?;
        return Ok(None);
    }
    let file = files.open_lock().map_err(|e| cannot(&e))?;
    file.try_lock().map_err(|e| cannot(&e))?;
    rustix::stdio::dup2_stderr(&file).map_err(|e| cannot(&e))?;
    Ok(Some(file))
}

/// The secrets, which may be none; nothing where the supervisor was killed before it had said all of them.
fn read_secrets() -> Result<Option<BTreeMap<String, Secret>>, String> {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    std::io::stdin().lock().read_to_end(&mut text).map_err(|e| format!("cannot read the secrets: {e}"))?;
    match serde_json::from_slice(&text) {
        Ok(secrets) => Ok(Some(secrets)),
        Err(error) if error.is_eof() => Ok(None),
        Err(_) => Err("the secrets on standard input are not understood".to_owned()),
    }
}

fn decide(
    files: &StepFiles,
    granted: Box<Granted>,
    after_death: Option<Death>,
    secrets: BTreeMap<String, Secret>,
    (halt, signs): (&Halt, &Signs),
    sink: &mut dyn FnMut(&[u8]),
) -> Result<Verdict, String> {
    let by_us = matches!(granted.spec.action, Action::PushFile { .. } | Action::Keep { .. });
    let account = match account::resolve(&granted.spec.run_as) {
        Ok(account) => account,
        Err(message) => return Ok(Verdict::new(Outcome::Failed, message)),
    };
    let secrets = match (&account, &granted.spec.action) {
        (None, _) => secrets,
        // Another account's process gets what its step names and nothing else; output is masked here, where all are known.
        (Some(_), action) => {
            let named: Vec<&str> = action.secrets().collect();
            secrets.into_iter().filter(|(name, _)| named.contains(&name.as_str())).collect()
        }
    };
    let job = Job { step: Record::Step(granted), after_death, account, secrets };
    match &job.account {
        // What the controller sends is written by the bridge, which has our account.
        Some(_) if !by_us => act::elsewhere(&job, halt, signs, sink),
        _ => {
            let work = Work { files: Some(files), halt, acting: &|acting| signs.acting(acting) };
            Ok(outcome::reach(&job, &work, sink))
        }
    }
}

/// The mode `act`: the part of a runner that runs as another account. Reads its job from standard input; output and the result go
/// to standard output as frames.
pub(crate) fn run_act() -> ExitCode {
    let output = crate::channel::Output::new(std::io::stdout());
    let verdict = act::read_job().and_then(|job| {
        if let Some(account) = &job.account {
            account.become_it()?;
        }
        let halt = Arc::new(Halt::default());
        act::listen(Arc::clone(&halt));
        let acting = |acting| {
            let stream = if acting { act::ACTING } else { act::ACTED };
            output.frame(&Frame::Data { stream, offset: 0, bytes: Vec::new() });
        };
        Ok(outcome::reach(&job, &Work { files: None, halt: &halt, acting: &acting }, &mut |bytes| {
            output.data(act::OUTPUT, 0, bytes);
        }))
    });
    let verdict = verdict.unwrap_or_else(|message| Verdict::new(Outcome::Failed, message));
    match output.message(&verdict) {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

/// A text for the record, as a line of the step's output.
pub(crate) fn note(sink: &mut dyn FnMut(&[u8]), text: &str) {
    sink(format!("{text}\n").as_bytes());
}

/// Writes a small file that may be read by the supervisor as soon as it is there.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let other = durable::beside(path, ".tmp");
    let mut file = std::fs::File::create(&other)?;
    file.write_all(bytes)?;
    std::fs::rename(&other, path)
}
