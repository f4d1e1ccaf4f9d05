//! What an agent says.

use super::{LINE_EVERY, Report, Task, attempt};
use crate::hosts::{Hosts, Incoming};
use proto::frame::is_fetched;
use proto::message::{Attempt, Happened, HostEvent};
use proto::{FromAgent, StepId};
use tokio::time::Instant;

/// A host's journal cannot grow by more than this between two events.
const SEQ_LEAP: u64 = 1_000_000;
/// The longest text of an event, in bytes. An agent's own are a few lines.
const TEXT: usize = 16 * 1024;

impl<H: Hosts> Task<H> {
    pub(super) async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => match self.allowance.checked_sub(1) {
                Some(rest) => {
                    self.allowance = rest;
                    self.take_message(message).await;
                }
                None => self.leave("the agent says more than there is to say"),
            },
            Incoming::Data { stream, offset, bytes } if is_fetched(stream) => self.fetched(stream, offset, bytes),
            Incoming::Data { stream, offset, bytes } => self.keep_output(stream, offset, &bytes),
            Incoming::Closed { .. } => {}
        }
    }

    async fn take_message(&mut self, message: FromAgent) {
        match message {
            FromAgent::Attached { host_seq, open, token } => self.attached(host_seq, open, token),
            FromAgent::Inspected { id, readings } => {
                if self.inspecting.remove(&id).is_some() {
                    let agent = self.link.as_ref().map(|link| link.agent.clone()).unwrap_or_default();
                    self.report(Report::Inspected { id, readings, agent });
                }
            }
            FromAgent::Event(event) => self.take_event(event).await,
            FromAgent::Revoked { steps } => {
                steps.iter().for_each(|revoked| self.has_kept(&revoked.step));
                self.open.retain(|granted| !steps.contains(&attempt(granted)));
                self.report(Report::Revoked(steps));
            }
            // Not now: as if the connection had dropped, it is tried again until patience ends.
            FromAgent::Busy { reason } => {
                self.busy = Some(reason);
                self.link = None;
                self.attaching = false;
            }
            FromAgent::Refused { reason } => {
                self.open.clear();
                self.attaching = false;
                self.claiming = false;
                self.claimed = false;
                // The grant behind a refused attach is refused as well; the first reason is the one that says who holds the host.
                if !std::mem::replace(&mut self.refused, true) {
                    self.report(Report::Refused(reason));
                }
            }
            FromAgent::Offer { attempt, file } => self.offered(attempt, file).await,
            FromAgent::NeedFile { sha256, offset } => self.send_file(sha256, offset, false).await,
            FromAgent::Finished => {
                self.attaching = false;
                self.report(Report::Finished);
            }
            // The supervisor has ended; the bridge may well live on. There is nobody left to talk to about steps.
            FromAgent::Fatal { message } => {
                self.fatal = Some(message);
                self.link = None;
                self.attaching = false;
            }
            FromAgent::Hello { .. } | FromAgent::Incompatible { .. } | FromAgent::Exited { .. } => {}
            // Files are stored over connections of their own.
            FromAgent::StoreAt { .. } | FromAgent::Stored { .. } | FromAgent::NotStored { .. } => {}
        }
    }

    /// The supervisor says where it stands.
    fn attached(&mut self, host_seq: u64, open: Vec<Attempt>, token: u64) {
        self.was_attached = true;
        self.fatal = None;
        if self.claimed && token != self.token {
            // Another controller had it in between, and let it go again: what was true of the host may not be any more.
            self.open.clear();
            self.claiming = false;
            self.refused = true;
            return self
                .report(Report::Refused("another controller had this host in between; `resume` takes the run up anew".to_owned()));
        }
        self.token = token;
        self.unkept.retain(|(step, _)| step.is_some());
        self.claimed = true;
        if std::mem::take(&mut self.claiming) {
            self.report(Report::Claimed { token });
        }
        if host_seq < self.seen {
            return self
                .give_up("its journal of this run begins anew: the host was restored, or Caravan's directory there was removed");
        }
        self.listed = Some((host_seq, open));
        self.take_back_what_never_arrived();
    }

    /// Once everything that happened on the host is known here, what it does not list as open never arrived there. That is sent again,
    /// unless the run is being paused.
    pub(super) fn take_back_what_never_arrived(&mut self) {
        let Some((_, listed)) = self.listed.as_ref().filter(|(host_seq, _)| *host_seq <= self.seen) else { return };
        if !self.revoking {
            return;
        }
        let never_arrived = |attempt: &Attempt| !listed.contains(attempt) && !self.sent.contains(attempt);
        let gone: Vec<Attempt> = self.open.iter().map(attempt).filter(never_arrived).collect();
        if gone.is_empty() {
            return;
        }
        self.open.retain(|granted| !gone.contains(&attempt(granted)));
        self.report(Report::Revoked(gone));
    }

    /// The host has seen a grant, and with it what it was to keep.
    fn has_kept(&mut self, step: &StepId) {
        if let Some(at) = self.unkept.iter().position(|(of, _)| of.as_ref() == Some(step)) {
            self.unkept.drain(..=at);
        }
    }

    /// Nothing more is heard from a host that does not keep to the protocol.
    fn leave(&mut self, why: &str) {
        tracing::warn!(host = %self.settings.host, "{why}; the connection is closed");
        self.link = None;
        self.give_up("it does not keep to the protocol");
    }

    async fn take_event(&mut self, mut event: HostEvent) {
        if let Happened::Alert { message, .. } | Happened::Finished { message, .. } = &mut event.what {
            shorten(message);
        }
        if event.host_seq <= self.seen {
            // A supervisor that was attached to again repeats what it cannot know to be durable here.
            return self.outputs.map(&event);
        }
        if event.host_seq > self.seen.saturating_add(SEQ_LEAP) {
            return self.leave("the agent sends an event out of any order");
        }
        self.seen = event.host_seq;
        self.has_kept(&event.step);
        self.outputs.map(&event);
        if matches!(event.what, Happened::Finished { .. }) {
            self.stop_sending_for(&event.step);
            self.open.retain(|granted| granted.spec.id != event.step);
            if let Err(error) = self.outputs.settle(&event.step).await {
                self.report(Report::Broken(error));
            }
        }
        self.report(Report::Event(event));
        self.take_back_what_never_arrived();
    }

    fn keep_output(&mut self, stream: u32, offset: u64, bytes: &[u8]) {
        match self.outputs.write(stream, offset, bytes) {
            Ok(Some(step)) => {
                let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                let text = String::from_utf8_lossy(bytes);
                if let Some(line) = text.lines().rev().find(|line| due && !line.trim().is_empty()) {
                    self.last_line = Some(Instant::now());
                    self.report(Report::Line { step, text: line.trim().to_owned() });
                }
            }
            Ok(None) => {}
            Err(error) => self.report(Report::Broken(error)),
        }
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT {
        let end = (0..=TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!(" ({more} bytes more)"));
    }
}
