//! A file that the running step needs: the supervisor has the controller asked for it, and the bridge writes what comes.

use crate::runner::files::{Need, StepFiles, read_json};
use crate::runner::publish;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// What a connection was asked for.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    /// The digest.
    asked: Option<String>,
    /// The stream that the controller sends it in.
    stream: Option<u32>,
}

impl Receiving {
    /// What the connection has to be asked for: digest and offset. Once for each request of a step.
    pub(crate) fn ask(&mut self, files: &StepFiles) -> Option<(String, u64)> {
        if self.asked.is_some() || files.answer().exists() {
            return None;
        }
        let need: Need = read_json(&files.need()).ok()?;
        match offer(&need, files) {
            Ok(have) => {
                self.asked = Some(need.sha256.clone());
                Some((need.sha256, have))
            }
            Err(e) => {
                self.answer(files, &format!("{} cannot be written: {e}", need.part.display()));
                None
            }
        }
    }

    /// The controller begins to send.
    pub(crate) fn begin(&mut self, sha256: &str, stream: u32) {
        if self.asked.as_deref() == Some(sha256) {
            self.stream = Some(stream);
        }
    }

    /// All of it was sent, and written.
    pub(crate) fn end(&mut self, files: &StepFiles, stream: u32) {
        if self.stream == Some(stream) {
            self.answer(files, "");
        }
    }

    /// The controller cannot send it, or the bridge cannot write it.
    pub(crate) fn refuse(&mut self, files: &StepFiles, sha256: &str, reason: &str) {
        if self.asked.as_deref() == Some(sha256) {
            let reason = if reason.is_empty() { "the controller refused it" } else { reason };
            self.answer(files, reason);
        }
    }

    /// Tells the runner: the file arrived (empty), or why not. A runner that cannot be told meets its deadline.
    fn answer(&mut self, files: &StepFiles, reason: &str) {
        *self = Self::default();
        if let Some(wanted) = files.wanted() {
            let _ = fs::remove_file(wanted);
        }
        let _ = publish(&files.answer(), reason.as_bytes());
    }
}

/// Tells the bridge what may be written, and makes it. How much of it is there.
fn offer(need: &Need, files: &StepFiles) -> io::Result<u64> {
    let part = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&need.part)?;
    let have = part.metadata()?.len();
    if let Some(wanted) = files.wanted() {
        publish(&wanted, &serde_json::to_vec(need)?)?;
    }
    Ok(have)
}
