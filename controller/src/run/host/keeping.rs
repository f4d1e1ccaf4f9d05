//! Files that a host offers, to be kept elsewhere.

use super::{LINE_EVERY, Report, Task, attempt};
use crate::hosts::{Hosts, Outgoing};
use crate::plan::is_plain_name;
use crate::run::keep::{self, Job, NotKept, Place, Source};
use proto::frame::FETCHED;
use proto::message::{Attempt, Offered};
use proto::step::KeepTo;
use proto::{Action, ToAgent};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A copy that is being fetched. Ends with it.
pub(super) struct Fetching {
    data: mpsc::Sender<(u32, u64, Vec<u8>)>,
    work: JoinHandle<()>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl<H: Hosts> Task<H> {
    /// An open step of this host has a file to be kept. Where the engine has it on record that it is kept, the host is told so at once.
    pub(super) async fn offered(&mut self, whose: Attempt, file: Offered) {
        let Some(link) = &self.link else { return };
        let to = link.to.clone();
        let step = self.open.iter().find(|granted| attempt(granted) == whose);
        let Some(Action::Keep { name, to: place, limit, .. }) = step.map(|granted| &granted.spec.action) else {
            // A controller that took the run up attaches before it grants again what is open: the offer comes in between, and once.
            self.early_offer = Some((whose, file));
            return;
        };
        if !(is_digest(&file.sha256) && is_digest(&file.plain_sha256)) {
            return self.refuse(file.sha256, "the host gives no digests for it").await;
        }
        // The plan may come from a file or from hosts: no name of a copy leads to another file of the workstation.
        if !is_plain_name(name) {
            return self.refuse(file.sha256, &format!("`{name}` is no name of a copy")).await;
        }
        let place = match place {
            KeepTo::Workstation => Place::File(self.settings.backups.join(&self.settings.host).join(name)),
            KeepTo::Host { host, dest } => Place::Host { host: host.clone(), dest: dest.clone() },
        };
        let there = match &place {
            Place::File(path) => std::fs::metadata(path).is_ok_and(|meta| meta.len() == file.size),
            Place::Host { .. } => true,
        };
        if there && self.settings.kept.get(&whose.step) == Some(&file.sha256) {
            return self.send(ToAgent::FileKept { sha256: file.sha256 }).await;
        }
        let job = Job { file, place, limit: *limit, patience: self.settings.patience };
        let (sender, data) = mpsc::channel(keep::WAITING);
        let source = Source { to, data, stream: FETCHED };
        // The one before it ends here.
        self.fetching = Some(Fetching { data: sender, work: self.fetch(whose, job, source) });
    }

    /// Looks at an offer again that came before its step was granted on this link.
    pub(super) async fn take_up_early_offer(&mut self) {
        if let Some((whose, file)) = self.early_offer.take() {
            self.offered(whose, file).await;
        }
    }

    fn fetch(&self, whose: Attempt, job: Job, mut source: Source) -> JoinHandle<()> {
        let (hosts, reports, host) = (Arc::clone(&self.hosts), self.reports.clone(), self.settings.host.clone());
        tokio::spawn(async move {
            // The engine outlives its tasks; if it is gone, nobody is left to tell.
            let report = |report| drop(reports.send((host.clone(), report)));
            let begun = |offset| report(Report::KeepBegun { whose: whose.clone(), file: job.file.clone(), offset });
            let shown = Mutex::new(None::<Instant>);
            let progress = |got: u64| {
                let Ok(mut last) = shown.lock() else { return };
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    let text = format!("{got} of {} bytes are kept elsewhere", job.file.size);
                    report(Report::Line { step: whose.step.clone(), text });
                }
            };
            match keep::fetch(&*hosts, &job, &mut source, &begun, &progress).await {
                Ok(received) => report(Report::Kept { whose: whose.clone(), file: job.file.clone(), received }),
                Err(NotKept::Gone) => {}
                Err(NotKept::Refused(reason)) => {
                    let refused = ToAgent::FileRefused { sha256: job.file.sha256.clone(), reason };
                    // A connection that is gone is noticed where it is read; the file is then offered again.
                    let _ = source.to.send(Outgoing::Message(refused)).await;
                }
            }
        })
    }

    /// A piece of the file that is being fetched. More than was ever asked for is the end of it.
    pub(super) fn fetched(&mut self, stream: u32, offset: u64, bytes: Vec<u8>) {
        let Some(fetching) = &self.fetching else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = fetching.data.try_send((stream, offset, bytes)) {
            tracing::warn!(host = %self.settings.host, "the agent sends more than was asked for; the connection is closed");
            self.fetching = None;
            self.link = None;
        }
    }

    /// The engine has it on record that a file is kept.
    pub(super) async fn kept(&mut self, whose: Attempt, sha256: String) {
        self.settings.kept.insert(whose.step, sha256.clone());
        self.fetching = None;
        if self.attaching {
            self.send(ToAgent::FileKept { sha256 }).await;
        }
    }

    async fn refuse(&mut self, sha256: String, reason: &str) {
        self.send(ToAgent::FileRefused { sha256, reason: reason.to_owned() }).await;
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}
