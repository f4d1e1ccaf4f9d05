//! What the steps of a host print, kept on the workstation: a file a step.

use proto::StepId;
use proto::message::{Happened, HostEvent};
use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// How much of one step's output is kept (as much as its host keeps). Beyond it nothing more is written: a step that prints without end
/// must not fill the workstation, where the journal is.
const KEPT: u64 = 64 * 1024 * 1024;
/// No output is as long as this: an offset beyond it is nonsense.
const FURTHEST: u64 = 1 << 42;

/// The output files of one host's steps.
#[derive(Default)]
pub(super) struct Outputs {
    files: BTreeMap<StepId, Output>,
    streams: HashMap<u32, StepId>,
}

struct Output {
    path: PathBuf,
    file: Option<File>,
    /// Up to which offset there is nothing missing to ask for.
    have: u64,
    written: u64,
}

impl Outputs {
    /// Output of these steps is going to come.
    pub(super) fn expect(&mut self, outputs: Vec<(StepId, PathBuf)>) {
        for (step, path) in outputs {
            self.files.insert(step, Output { path, file: None, have: 0, written: 0 });
        }
    }

    /// Up to where there is output of these steps, for a supervisor that is attached to again.
    pub(super) fn held<'a>(&self, steps: impl Iterator<Item = &'a StepId>) -> BTreeMap<StepId, u64> {
        steps.filter_map(|step| Some((step.clone(), self.files.get(step)?.have))).collect()
    }

    /// Takes note of which stream a step's output comes on.
    pub(super) fn map(&mut self, event: &HostEvent) {
        if let Happened::Started { stream } = event.what {
            self.streams.retain(|_, step| *step != event.step);
            self.streams.insert(stream, event.step.clone());
        }
    }

    /// Keeps a piece of output; answers whose it is. Pieces that belong to no step are dropped.
    ///
    /// # Errors
    /// A text about the file that cannot be written.
    pub(super) fn write(&mut self, stream: u32, offset: u64, bytes: &[u8]) -> Result<Option<StepId>, String> {
        let Some(step) = self.streams.get(&stream).filter(|_| offset < FURTHEST) else { return Ok(None) };
        let Some(output) = self.files.get_mut(step) else { return Ok(None) };
        output.write(offset, bytes).map_err(|error| format!("cannot write {}: {error}", output.path.display()))?;
        Ok(Some(step.clone()))
    }

    /// Makes a step's output durable, before its end is.
    ///
    /// # Errors
    /// A text about the file that cannot be written.
    pub(super) async fn settle(&mut self, step: &StepId) -> Result<(), String> {
        self.streams.retain(|_, other| other != step);
        let Some(Output { file: Some(file), path, .. }) = self.files.remove(step) else { return Ok(()) };
        match tokio::task::spawn_blocking(move || file.sync_data()).await {
            Ok(Err(error)) => Err(format!("cannot write {}: {error}", path.display())),
            _ => Ok(()),
        }
    }
}

impl Output {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.have = self.have.max(offset.saturating_add(bytes.len() as u64));
        if self.written >= KEPT {
            return Ok(());
        }
        self.written += bytes.len() as u64;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(parent) = self.path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                }
                self.file.insert(File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?)
            }
        };
        file.write_all_at(bytes, offset)
    }
}
