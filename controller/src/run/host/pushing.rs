//! Files of the workstation that a host's steps need.

use super::Task;
use crate::hosts::{Hosts, Outgoing};
use proto::frame::DATA_CHUNK;
use proto::message::Granted;
use proto::{Action, StepId, ToAgent};
use std::io;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// How many pieces of a file are read at once.
const READ_PIECES: usize = 8;

impl<H: Hosts> Task<H> {
    /// Sends a file that an open step needs; one at a time. Beside everything else: a large file must not hold up events.
    /// A controller that took the run up attaches before it grants again what is open: what is asked for in between, and once, waits for
    /// that (`granted`: it has come).
    pub(super) async fn send_file(&mut self, sha256: String, offset: u64, granted: bool) {
        let Some(link) = &self.link else { return };
        let to = link.to.clone();
        let asked =
            self.open.iter().any(|granted| matches!(&granted.spec.action, Action::PushFile { sha256: own, .. } if *own == sha256));
        if !asked && !granted {
            self.early_need = Some((sha256, offset));
            return;
        }
        let path = self.settings.files.get(&sha256).filter(|_| asked).cloned();
        if let Some(path) = &path {
            tracing::debug!(host = %self.settings.host, "sending {} from byte {offset}", path.display());
        }
        self.next_file += 1;
        let stream = self.next_file;
        if let Some((_, before)) = self.sending.take() {
            before.abort();
        }
        let sending = sha256.clone();
        let work = tokio::spawn(async move {
            let sent = match &path {
                Some(path) => stream_file(path, &to, &sha256, stream, offset).await,
                None => Err(io::Error::new(io::ErrorKind::NotFound, "no open step of the plan pushes a file with this digest")),
            };
            if let Err(error) = sent {
                let reason = path.map_or_else(|| error.to_string(), |path| format!("{}: {error}", path.display()));
                let _ = to.send(Outgoing::Message(ToAgent::FileRefused { sha256, reason })).await;
            }
        });
        self.sending = Some((sending, work));
    }

    /// A step has ended, and with it the need for its file: what is still to be sent would only hold up what comes after it.
    pub(super) fn stop_sending_for(&mut self, step: &StepId) {
        let pushes = |granted: &Granted, sent: &str| {
            granted.spec.id == *step && matches!(&granted.spec.action, Action::PushFile { sha256, .. } if sha256 == sent)
        };
        let over = self.sending.take_if(|(sent, _)| self.open.iter().any(|granted| pushes(granted, sent)));
        if let Some((_, work)) = over {
            work.abort();
        }
    }
}

async fn stream_file(path: &Path, to: &mpsc::Sender<Outgoing>, sha256: &str, stream: u32, mut offset: u64) -> io::Result<()> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection ended");
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(offset)).await?;
    to.send(Outgoing::Message(ToAgent::FileBegin { sha256: sha256.to_owned(), stream })).await.map_err(gone)?;
    // Each reading goes by way of another thread: several pieces come in one.
    let mut read = vec![0; READ_PIECES * DATA_CHUNK];
    loop {
        let length = file.read(&mut read).await?;
        if length == 0 {
            break;
        }
        for piece in read.get(..length).unwrap_or_default().chunks(DATA_CHUNK) {
            to.send(Outgoing::Data { stream, offset, bytes: piece.to_vec() }).await.map_err(gone)?;
            offset += piece.len() as u64;
        }
    }
    to.send(Outgoing::Message(ToAgent::FileEnd { stream })).await.map_err(gone)
}
