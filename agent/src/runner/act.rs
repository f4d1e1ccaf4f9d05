//! A step's work under another account: a child of the runner, which gives up root before it does anything.

use super::outcome::Verdict;
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

/// What is to be done for a step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// A [`Record::Step`].
    pub(crate) step: Record,
    /// The runner before this one died: nothing is done, only looked.
    pub(crate) after_death: bool,
    /// Whom to become first.
    pub(crate) account: Option<Account>,
    pub(crate) secrets: BTreeMap<String, Secret>,
}

/// Has the job done by a child that becomes the account.
pub(crate) fn elsewhere(job: &Job, sink: &mut dyn FnMut(&[u8])) -> Verdict {
    start(job).and_then(|output| relay(output, sink)).unwrap_or_else(|(outcome, message)| Verdict::new(outcome, message))
}

type Broken = (Outcome, String);

fn start(job: &Job) -> Result<std::process::ChildStdout, Broken> {
    let failed =
        |e: &dyn std::fmt::Display| (Outcome::Failed, format!("cannot start the part that runs under another account: {e}"));
    let text = zeroize::Zeroizing::new(serde_json::to_vec(job).map_err(|e| failed(&e))?);
    // Standard error is the step's lock: the child holds it as long as it lives.
    let lock = std::io::stderr().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
    let mut command = crate::program::own_command("act");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(lock);
    if let Some(account) = &job.account {
        command.envs(account.environment());
    }
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).map_err(|e| failed(&e))?;
    }
    child.stdout.take().ok_or_else(|| failed(&"no pipe"))
}

fn relay(output: std::process::ChildStdout, sink: &mut dyn FnMut(&[u8])) -> Result<Verdict, Broken> {
    let mut input = Input::new(output);
    loop {
        match input.next() {
            Ok(Frame::Data { bytes, .. }) => sink(&bytes),
            Ok(Frame::Control(payload)) => return parse(&payload).map_err(|e| (Outcome::Unknown, e.to_string())),
            Err(_) => {
                let message =
                    "the part of the agent that ran under the step's account was killed; whether the step took effect is not known";
                return Err((Outcome::Unknown, message.to_owned()));
            }
        }
    }
}

/// Reads the job that [`elsewhere`] sent.
pub(crate) fn read_job() -> Result<Job, String> {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    std::io::stdin().lock().read_to_end(&mut text).map_err(|e| format!("cannot read the job: {e}"))?;
    serde_json::from_slice(&text).map_err(|_| "the job is not understood".to_owned())
}
