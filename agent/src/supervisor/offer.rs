//! A file of the running step that the controller fetches.

use super::feed::Feed;
use crate::digest;
use crate::runner::files::{Offer, StepFiles, read_json};
use crate::runner::publish;
use proto::frame::{FETCH_LIMIT, is_fetched};
use proto::message::Offered;
use std::os::unix::fs::FileExt;

/// What a connection was told of the step's file.
#[derive(Debug, Default)]
pub(crate) struct Offering {
    offered: bool,
}

impl Offering {
    /// What the connection has to be told. Once for each connection.
    pub(crate) fn offer(&mut self, files: &StepFiles) -> Option<Offered> {
        if self.offered || files.answer().exists() {
            return None;
        }
        let offer: Offer = read_json(&files.offer()).ok()?;
        self.offered = true;
        Some(offer.file)
    }

    /// Sends a piece. Nothing is sent of anything but the file that the step offers; a file that cannot be read is the end of the step.
    pub(crate) fn fetch(&self, files: &StepFiles, feed: &Feed, sha256: &str, (stream, offset, length): (u32, u64, u32)) {
        let Ok(offer) = read_json::<Offer>(&files.offer()) else { return };
        if offer.file.sha256 != sha256 || !is_fetched(stream) || length > FETCH_LIMIT {
            return;
        }
        let mut bytes = vec![0; length as usize];
        let read = digest::open_own(&offer.path).and_then(|file| file.read_exact_at(&mut bytes, offset));
        match read {
            Ok(()) => feed.piece(stream, offset, bytes),
            Err(e) => self.answer(files, sha256, &format!("{} cannot be read: {e}", offer.path.display())),
        }
    }

    /// Tells the runner: the file is kept (empty), or why not.
    pub(crate) fn answer(&self, files: &StepFiles, sha256: &str, answer: &str) {
        if read_json::<Offer>(&files.offer()).is_ok_and(|offer| offer.file.sha256 == sha256) {
            // A runner that cannot be told waits, and a person can stop it.
            let _ = publish(&files.answer(), answer.as_bytes());
        }
    }
}
