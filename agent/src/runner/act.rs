//! A step's work under another account: a child of the runner, which gives up root before it does anything.

use super::halt::Halt;
use super::outcome::Verdict;
use super::watch::Signs;
use crate::account::Account;
use crate::channel::Input;
use proto::frame::{Frame, parse};
use proto::host::Record;
use proto::{Outcome, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::Arc;

/// What is to be done for a step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// A [`Record::Step`].
    pub(crate) step: Record,
    /// Somebody died: nothing is done, only looked.
    pub(crate) after_death: Option<Death>,
    /// Whom to become first.
    pub(crate) account: Option<Account>,
    pub(crate) secrets: BTreeMap<String, Secret>,
}

/// Who died before a step came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Death {
    /// Its runner: how far it had come is not known.
    OfRunner,
    /// The supervisor, before its runner had everything that the step needs: nothing was begun.
    BeforeItBegan,
}

/// The streams of what the child says: the step's output, and nothing but their number when the action begins and when it has ended.
pub(super) const OUTPUT: u32 = 0;
pub(super) const ACTING: u32 = 1;
pub(super) const ACTED: u32 = 2;

/// Has the job done by a child that becomes the account.
///
/// # Errors
/// The child was killed. What it had started may go on, so that nobody can look yet what became of the step.
pub(crate) fn elsewhere(job: &Job, halt: &Halt, signs: &Signs, sink: &mut dyn FnMut(&[u8])) -> Result<Verdict, String> {
    match start(job, halt) {
        Ok(output) => relay(output, signs, sink),
        Err(message) => Ok(Verdict::new(Outcome::Failed, message)),
    }
}

fn start(job: &Job, halt: &Halt) -> Result<std::process::ChildStdout, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot start the part that runs under another account: {e}");
    let mut text = zeroize::Zeroizing::new(serde_json::to_vec(job).map_err(|e| failed(&e))?);
    text.push(b'\n');
    // Standard error is the step's lock: the child holds it as long as it lives.
    let lock = std::io::stderr().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
    let mut command = crate::program::own_command("act");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(lock);
    if let Some(account) = &job.account {
        command.envs(account.environment());
    }
    let mut child = crate::program::spawn(&mut command, &[]).map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).map_err(|e| failed(&e))?;
        halt.tell(stdin);
    }
    child.stdout.take().ok_or_else(|| failed(&"no pipe"))
}

fn relay(output: std::process::ChildStdout, signs: &Signs, sink: &mut dyn FnMut(&[u8])) -> Result<Verdict, String> {
    let mut input = Input::new(output);
    loop {
        match input.next() {
            Ok(Frame::Data { stream: OUTPUT, bytes, .. }) => sink(&bytes),
            Ok(Frame::Data { stream, .. }) => signs.acting(stream == ACTING),
            Ok(Frame::Control(payload)) => return parse(&payload).map_err(|e| e.to_string()),
            Err(_) => return Err("the part of the agent that ran under the step's account was killed".to_owned()),
        }
    }
}

/// Reads the job that [`elsewhere`] sent: the first line.
pub(super) fn read_job() -> Result<Job, String> {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let mut piece = zeroize::Zeroizing::new([0; 4096]);
    while text.last() != Some(&b'\n') {
        match std::io::stdin().lock().read(&mut *piece) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("cannot read the job: {e}")),
        }
    }
    serde_json::from_slice(&text).map_err(|_| "the job is not understood".to_owned())
}

/// Waits in a thread for the rest of standard input: why the work has to end. An end without a word is the runner's own, which is no
/// reason to end.
pub(super) fn listen(halt: Arc<Halt>) {
    std::thread::spawn(move || {
        let mut reason = String::new();
        if std::io::stdin().lock().read_to_string(&mut reason).is_ok() && !reason.is_empty() {
            halt.order(reason);
        }
    });
}
