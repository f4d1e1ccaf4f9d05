//! A file that the running step needs: the supervisor has the controller asked for it, and the bridge writes what comes.

use crate::digest;
use crate::runner::files::{Need, StepFiles, WANTED, read_json};
use crate::runner::publish;
use std::fs;
use std::io;
use std::path::Path;

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
            Err(reason) => {
                self.answer(files, &reason);
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

    /// Nothing is wanted any more: bytes that still come are nobody's.
    pub(crate) fn forget(&mut self, run: &Path) {
        *self = Self::default();
        let _ = fs::remove_file(run.join(WANTED));
    }

    /// Tells the runner: the file arrived (empty), or why not. A runner that cannot be told meets its deadline.
    fn answer(&mut self, files: &StepFiles, reason: &str) {
        if let Some(run) = files.run() {
            self.forget(run);
        }
        let _ = publish(&files.answer(), reason.as_bytes());
    }
}

/// Makes the file, and tells the bridge which one it is. How much of it is there.
fn offer(need: &Need, files: &StepFiles) -> Result<u64, String> {
    let cannot = |path: &Path, e: io::Error| format!("{} cannot be written: {e}", path.display());
    let part = digest::open_part(&need.part, true).map_err(|e| cannot(&need.part, e))?;
    let have = part.metadata().map_err(|e| cannot(&need.part, e))?.len();
    let wanted = files.run().unwrap_or(files.dir()).join(WANTED);
    let json = serde_json::to_vec(need).map_err(|e| e.to_string())?;
    publish(&wanted, &json).map_err(|e| cannot(&wanted, e))?;
    Ok(have)
}
