//! Connecting, attaching to the supervisor, and coming back when a connection drops.

use super::{MESSAGES, Order, Report, Task, attempt, next_incoming};
use crate::hosts::{Hosts, Incoming, OpenError};
use proto::message::Attempt;
use proto::{FromAgent, ToAgent};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long an agent may take to answer an attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// The first pause before coming back, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// An inspection that was asked on so many links without an answer is not asked on another one for its own sake.
const ASKED_ENOUGH: u32 = 2;

impl<H: Hosts> Task<H> {
    /// Opens a conversation if none is open. A host that was reached before is given time to come back: a bastion that restarts between
    /// two stages must not stop a platform half way.
    pub(super) async fn connect(&mut self) -> bool {
        if self.link.is_some() {
            return true;
        }
        let end = Instant::now() + self.settings.patience;
        let mut pause = PAUSES.0;
        loop {
            let error = match self.unopened.take() {
                Some(error) => error,
                None => match self.open_link().await {
                    Ok(()) => return true,
                    Err(error) => error,
                },
            };
            if !self.was_reached || Instant::now() + pause > end {
                self.not_begun(error);
                return false;
            }
            pause = self.wait(pause).await;
        }
    }

    pub(super) async fn open_link(&mut self) -> Result<(), OpenError> {
        let link = self.hosts.open(&self.settings.host, self.settings.root).await?;
        self.link = Some(link);
        self.allowance = self.allowance.max(MESSAGES.0);
        (self.fetching, self.early_offer, self.early_need) = (None, None, None);
        (self.listed, self.sent) = (None, Vec::new());
        self.attaching = false;
        self.was_reached = true;
        if !self.settings.secrets.is_empty() {
            let values = self.settings.secrets.clone();
            self.send(ToAgent::Secrets { values }).await;
        }
        // Reading is harmless: what was not answered on a link before this one is asked again.
        let unanswered: Vec<u32> = self.inspecting.keys().copied().collect();
        for id in unanswered {
            self.inspect(id).await;
        }
        Ok(())
    }

    /// Attaches where that has not been done on this link, with everything that the host may not have yet.
    pub(super) async fn attach(&mut self) {
        if std::mem::replace(&mut self.attaching, true) {
            return;
        }
        let output = self.outputs.held(self.open.iter().map(|granted| &granted.spec.id));
        let (run, host_state) = (self.settings.run.clone(), self.settings.host_state.clone());
        let claim = self.settings.claim.clone();
        let keep = self.unkept.iter().flat_map(|(_, lines)| lines).cloned().collect();
        self.send(ToAgent::Attach { run, host_state, claim, acked: self.acked, output, keep }).await;
    }

    /// Attaches, and grants what is open, in its order. One write: no round trip is waited for, since the host's token is known from
    /// its claim and stays the same for this controller.
    pub(super) async fn attach_and_grant(&mut self, keep: Vec<String>) {
        let keep = if self.attaching { keep } else { Vec::new() };
        self.attach().await;
        let still_open = |stop: &Attempt| self.open.iter().any(|granted| attempt(granted) == *stop);
        if let Some(attempt) = self.stopping.clone().filter(still_open) {
            self.send(ToAgent::Stop { attempt }).await;
        }
        if self.revoking {
            self.send(ToAgent::Revoke).await;
            self.take_back_what_never_arrived();
        } else if !self.open.is_empty() {
            self.sent = self.open.iter().map(attempt).collect();
            let (steps, head, token) = (self.open.clone(), self.head.clone(), self.token);
            self.send(ToAgent::Grant { steps, head, token, keep }).await;
        }
    }

    /// What was to be done on the host was not begun, and will not be.
    fn not_begun(&mut self, error: OpenError) {
        self.open.clear();
        self.claiming = false;
        self.inspecting.clear();
        self.report(Report::Unreachable(error));
    }

    pub(super) async fn closed(&mut self, reason: String, orders: &mut mpsc::UnboundedReceiver<Order>) {
        self.link = None;
        self.fetching = None;
        self.attaching = false;
        if self.needs_supervisor() {
            if self.busy.is_none() {
                self.lost = true;
                self.report(Report::Lost(self.fatal.clone().unwrap_or_else(|| reason.clone())));
            }
            self.come_back(orders).await;
        }
        if self.link.is_some() || self.inspecting.is_empty() {
            return;
        }
        if self.inspecting.values().any(|(_, asked)| *asked >= ASKED_ENOUGH) {
            let next = "Nothing was changed on it; start again when the connection holds".to_owned();
            return self.not_begun(OpenError::Unreachable { host: self.settings.host.clone(), seen: reason, next });
        }
        self.connect().await;
    }

    fn needs_supervisor(&self) -> bool {
        self.claiming || !self.open.is_empty()
    }

    /// Reconnects while steps are open on the host or its lock is wanted, until the supervisor has answered or patience ends.
    async fn come_back(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let end = Instant::now() + self.settings.patience;
        let mut pause = PAUSES.0;
        while self.needs_supervisor() {
            if let (Some(message), false) = (&self.fatal, self.was_attached) {
                // The agent cannot work there at all, and never did: waiting would not help.
                let (seen, next) = (message.clone(), "Mend it, then start again".to_owned());
                return self.not_begun(OpenError::Agent { host: self.settings.host.clone(), seen, next });
            }
            if Instant::now() + pause > end {
                let waited = self.settings.patience.as_secs();
                let why = self.fatal.take().map(|message| format!(" ({message})")).unwrap_or_default();
                if let Some(reason) = self.busy.take() {
                    (self.claiming, self.refused) = (false, true);
                    self.open.clear();
                    return self.report(Report::Refused(reason));
                }
                let text = format!("it did not come back within {waited} s{why}");
                if std::mem::take(&mut self.claiming) && self.open.is_empty() {
                    let next = "Nothing was granted to it; `resume` when it is back".to_owned();
                    return self.not_begun(OpenError::Unreachable { host: self.settings.host.clone(), seen: text, next });
                }
                return self.give_up(&text);
            }
            pause = self.wait(pause).await;
            // A pause that was asked for meanwhile decides what is said on the new connection.
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Revoke => self.revoking = true,
                    Order::Ack { host_seq } => self.acked = self.acked.max(host_seq),
                    order => self.carry_out(order).await,
                }
            }
            if self.link.is_none() && self.open_link().await.is_err() {
                continue;
            }
            self.attach_and_grant(Vec::new()).await;
            if self.wait_until_attached().await {
                self.busy = None;
                if std::mem::take(&mut self.lost) && !self.refused {
                    self.report(Report::Reattached);
                }
                return;
            }
        }
    }

    /// Takes in what comes until the supervisor has answered the attach; false when the connection ends first.
    async fn wait_until_attached(&mut self) -> bool {
        let end = Instant::now() + ATTACH_LIMIT;
        loop {
            let incoming = tokio::time::timeout_at(end, next_incoming(&mut self.link)).await;
            let Ok(incoming) = incoming else {
                self.link = None;
                return false;
            };
            let answered = matches!(incoming, Incoming::Message(FromAgent::Attached { .. } | FromAgent::Refused { .. }));
            let busy = matches!(incoming, Incoming::Message(FromAgent::Busy { .. }));
            if matches!(incoming, Incoming::Closed { .. }) {
                self.link = None;
                self.attaching = false;
                return false;
            }
            self.take(incoming).await;
            if answered || busy || self.link.is_none() {
                return answered;
            }
        }
    }

    /// Waits, and answers the next pause. Up to a quarter longer than asked, so that hosts behind one broken link do not all come back
    /// in the same moment.
    async fn wait(&self, pause: Duration) -> Duration {
        tokio::time::sleep(pause + pause * u32::from(self.hosts.jitter()) / 1024).await;
        (pause * 2).min(PAUSES.1)
    }

    pub(super) fn give_up(&mut self, why: &str) {
        self.open.clear();
        self.report(Report::GaveUp(why.to_owned()));
    }
}
