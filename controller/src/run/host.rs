//! The conversation with one host: a task that owns the host's link, passes orders to its agent and reports back.
//!
//! A connection is not the lifeline of a step (invariant 4). When it drops while steps are open, the task reconnects with back-off,
//! attaches to the supervisor again and says what it has; the supervisor sends what is missing. It repeats the grant in its own
//! order, since the grant may have been lost with the connection; the supervisor starts no attempt twice. Only when the host stays
//! away longer than the run is willing to wait are its open steps reported as lost.

mod keeping;

use super::output::Outputs;
use crate::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use keeping::Fetching;
use proto::frame::{DATA_CHUNK, is_fetched};
use proto::message::{Attempt, Claim, Granted, Happened, HostEvent, Offered};
use proto::{Action, FromAgent, Query, Reading, RunAs, Secret, StepId, ToAgent};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long an agent may take to answer an attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// The first pause before coming back, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// An inspection that was asked on so many links without an answer is not asked on another one for its own sake.
const ASKED_ENOUGH: u32 = 2;
/// A host's journal cannot grow by more than this between two events.
const SEQ_LEAP: u64 = 1_000_000;
/// Lines of output are shown at most this often for a host.
const LINE_EVERY: Duration = Duration::from_millis(100);
/// How many pieces of a file that is pushed are read at once.
const READ_PIECES: usize = 8;

/// What the engine asks of a host's task.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read facts.
    Inspect { id: u32, queries: Vec<Query> },
    /// Open a connection for the claim that is to come. Nothing is asked over it.
    Open,
    /// Take the host's lock, and have the host keep these lines.
    Claim { keep: Vec<String> },
    /// Carry steps out. `outputs` says where the output of each goes, `keep` is for the host to keep first.
    Grant { steps: Vec<Granted>, outputs: Vec<(StepId, PathBuf)>, head: String, keep: Vec<String> },
    /// End a running step.
    Stop(Attempt),
    /// Everything up to this `host_seq` is durable.
    Ack { host_seq: u64 },
    /// The file that a step offered is kept, and that is durable.
    Kept { whose: Attempt, sha256: String },
    /// Take back what has not begun.
    Revoke,
    /// The controller is done with the host; with `release` the run is.
    Finish { release: bool },
}

/// What a host's task reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The answer to an inspection.
    Inspected { id: u32, readings: Vec<Reading>, agent: AgentHello },
    /// The host's lock is this controller's.
    Claimed { token: u64 },
    /// An entry of the host's journal. Its output up to there is on the disk.
    Event(HostEvent),
    /// A line of output, for the display alone.
    Line { step: StepId, text: String },
    /// A copy of a step's file is being fetched, from this offset on.
    KeepBegun { whose: Attempt, file: Offered, offset: u64 },
    /// It is where it belongs: whole, checked and durable. So many bytes came since it was begun last.
    Kept { whose: Attempt, file: Offered, received: u64 },
    /// These steps had not begun and will not.
    Revoked(Vec<Attempt>),
    /// No conversation could be opened; nothing that is open was begun.
    Unreachable(OpenError),
    /// The connection dropped; the task tries to come back.
    Lost(String),
    /// It came back.
    Reattached,
    /// It did not come back in time: what happened to the open steps is not known.
    GaveUp(String),
    /// Another run or a newer token holds the host.
    Refused(String),
    /// The run's lock on the host could not be released.
    StillLocked(String),
    /// The host's output could not be written on the workstation.
    Broken(String),
    /// The answer to [`Order::Finish`].
    Finished,
}

impl Report {
    /// Whether what it means depends on which steps of the host are open.
    pub(crate) fn is_about_open_steps(&self) -> bool {
        matches!(self, Self::Revoked(_) | Self::Unreachable(_) | Self::GaveUp(_) | Self::Refused(_))
    }
}

/// What a host's task needs to know.
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) run: String,
    pub(crate) host_state: String,
    pub(crate) root: bool,
    pub(crate) run_as: RunAs,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Files of the workstation that this host's steps push, by digest.
    pub(crate) files: Arc<HashMap<String, PathBuf>>,
    /// Where copies of the run's backups are kept on the workstation.
    pub(crate) backups: PathBuf,
    /// The digests of copies that are kept, by the step that offered them.
    pub(crate) kept: BTreeMap<StepId, String>,
    /// How long a host may stay away while steps are open, or once it was reached.
    pub(crate) patience: Duration,
    /// Who the controller is, for the host's lock.
    pub(crate) claim: Claim,
    /// The newest event of the host that is durable, and how far back the supervisor has to begin so that it shows where the output of
    /// the step that runs comes from.
    pub(crate) seen: u64,
    pub(crate) replay_from: u64,
    /// Where the output of the steps goes that a controller before this one left open: a host that is claimed again sends it at once,
    /// before they are granted again.
    pub(crate) outputs: Vec<(StepId, PathBuf)>,
    /// A controller before this one worked with the host: it gets time to come back.
    pub(crate) known: bool,
}

struct Task<H> {
    hosts: Arc<H>,
    settings: Settings,
    reports: mpsc::UnboundedSender<(String, Report)>,
    link: Option<Link>,
    /// Attach was sent on this link.
    attaching: bool,
    /// The engine wants the host's lock and has not heard of it.
    claiming: bool,
    /// The lock is ours.
    claimed: bool,
    /// What the supervisor said on this link that it has, and up to which event that holds. What is neither in it nor was sent on this
    /// link never arrived there.
    listed: Option<(u64, Vec<Attempt>)>,
    /// What was granted on this link.
    sent: Vec<Attempt>,
    /// Lines that the host may not have yet: those of the claim, and those of each grant by its first step.
    unkept: Vec<(Option<StepId>, Vec<String>)>,
    /// The supervisor has answered an attach at least once: something may have begun.
    was_attached: bool,
    /// A conversation was opened at least once.
    was_reached: bool,
    /// Why none could be opened ahead of its need.
    unopened: Option<OpenError>,
    /// What the agent said before it ended.
    fatal: Option<String>,
    /// The host is held by another run: nothing more is said about it.
    refused: bool,
    /// It is ours, and a step of the run that held it before still runs: why.
    busy: Option<String>,
    /// A running attempt that a person wants ended.
    stopping: Option<Attempt>,
    /// The engine was told that the connection dropped.
    lost: bool,
    /// What has not begun is taken back, also after a reconnect.
    revoking: bool,
    /// The newest event that the engine made durable.
    acked: u64,
    /// The newest event that was passed on to the engine.
    seen: u64,
    /// Steps that were granted and have not ended, in the order of their grant.
    open: Vec<Granted>,
    outputs: Outputs,
    /// Inspections that are not answered, and on how many links each was asked.
    inspecting: BTreeMap<u32, (Vec<Query>, u32)>,
    sending: Option<JoinHandle<()>>,
    fetching: Option<Fetching>,
    /// What was offered on this link for a step that was not granted on it yet.
    early_offer: Option<(Attempt, Offered)>,
    /// A file that the host asked for before the step that needs it was granted on this link, and from where on.
    early_need: Option<(String, u64)>,
    next_file: u32,
    head: String,
    last_line: Option<Instant>,
    token: u64,
}

/// Runs a host's task until its orders end.
pub(crate) async fn run<H: Hosts>(
    hosts: Arc<H>,
    mut settings: Settings,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<(String, Report)>,
) {
    let mut outputs = Outputs::default();
    outputs.expect(std::mem::take(&mut settings.outputs));
    let (seen, acked, was_reached) = (settings.seen, settings.replay_from, settings.known);
    let mut task = Task {
        hosts,
        settings,
        reports,
        link: None,
        attaching: false,
        claiming: false,
        claimed: false,
        listed: None,
        sent: Vec::new(),
        unkept: Vec::new(),
        was_attached: false,
        was_reached,
        unopened: None,
        fatal: None,
        refused: false,
        busy: None,
        stopping: None,
        lost: false,
        revoking: false,
        acked,
        seen,
        open: Vec::new(),
        outputs,
        inspecting: BTreeMap::new(),
        sending: None,
        fetching: None,
        early_offer: None,
        early_need: None,
        next_file: 0,
        head: String::new(),
        last_line: None,
        token: 1,
    };
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => task.carry_out(order).await,
                None => return,
            },
            incoming = next_incoming(&mut task.link) => match incoming {
                Incoming::Closed { reason } => task.closed(reason, &mut orders).await,
                incoming => {
                    task.take(incoming).await;
                    if task.link.is_none() {
                        task.closed("the agent ended the conversation".to_owned(), &mut orders).await;
                    }
                }
            },
        }
    }
}

async fn next_incoming(link: &mut Option<Link>) -> Incoming {
    match link {
        Some(link) => link.from.recv().await.unwrap_or_else(|| Incoming::Closed { reason: "the connection ended".to_owned() }),
        None => std::future::pending().await,
    }
}

impl<H: Hosts> Task<H> {
    fn report(&self, report: Report) {
        // The engine outlives its tasks; if it is gone, nobody is left to tell.
        let _ = self.reports.send((self.settings.host.clone(), report));
    }

    async fn send(&mut self, message: ToAgent) {
        if let Some(link) = &self.link {
            // A link that closed is noticed, with its reason, where it is read.
            let _ = link.to.send(Outgoing::Message(message)).await;
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Inspect { id, queries } => {
                self.inspecting.insert(id, (queries, 0));
                // A new link asks by itself.
                if self.link.is_some() {
                    self.inspect(id).await;
                } else {
                    self.connect().await;
                }
            }
            // Whoever wants something of the host is told why it cannot be had.
            Order::Open if self.link.is_none() => self.unopened = self.open_link().await.err(),
            Order::Open => {}
            Order::Claim { keep } => {
                self.claiming = true;
                self.unkept.push((None, keep));
                if self.connect().await {
                    self.attach().await;
                }
            }
            Order::Grant { steps, outputs, head, keep } => {
                self.head = head;
                self.outputs.expect(outputs);
                if !keep.is_empty() {
                    self.unkept.push((steps.first().map(|granted| granted.spec.id.clone()), keep.clone()));
                }
                self.open.extend(steps);
                if self.connect().await {
                    self.attach_and_grant(keep).await;
                    self.take_up_early_offer().await;
                    if let Some((sha256, offset)) = self.early_need.take() {
                        self.send_file(sha256, offset, true).await;
                    }
                }
            }
            Order::Stop(attempt) => {
                if self.attaching {
                    self.send(ToAgent::Stop { attempt: attempt.clone() }).await;
                }
                // Said again after each reconnect, until the attempt is over.
                self.stopping = Some(attempt);
            }
            Order::Ack { host_seq } => {
                self.acked = self.acked.max(host_seq);
                // One for everything once nothing is open: an attach says how far we are, should it be needed before.
                if self.attaching && self.open.is_empty() {
                    self.send(ToAgent::Ack { host_seq }).await;
                }
            }
            Order::Kept { whose, sha256 } => self.kept(whose, sha256).await,
            Order::Revoke => {
                self.revoking = true;
                if self.attaching {
                    self.send(ToAgent::Revoke).await;
                    self.take_back_what_never_arrived();
                }
            }
            Order::Finish { release } => self.finish(release).await,
        }
    }

    /// Ends the supervisor. A lock that is to be released is worth another connection: it would keep the next run out.
    async fn finish(&mut self, release: bool) {
        if self.claimed && release && !self.attaching {
            let opened = if self.link.is_some() { Ok(()) } else { self.open_link().await };
            if let Err(error) = opened {
                return self.report(Report::StillLocked(error.to_string()));
            }
            self.attach().await;
        }
        match self.attaching && self.link.is_some() {
            true => self.send(ToAgent::Finish { release }).await,
            false => self.report(Report::Finished),
        }
    }

    async fn inspect(&mut self, id: u32) {
        let Some((queries, asked)) = self.inspecting.get_mut(&id) else { return };
        *asked += 1;
        let (queries, run_as) = (queries.clone(), self.settings.run_as.clone());
        self.send(ToAgent::Inspect { id, queries, run_as }).await;
    }

    /// Opens a conversation if none is open. A host that was reached before is given time to come back: a bastion that restarts between
    /// two stages must not stop a platform half way.
    async fn connect(&mut self) -> bool {
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

    async fn open_link(&mut self) -> Result<(), OpenError> {
        let link = self.hosts.open(&self.settings.host, self.settings.root).await?;
        self.link = Some(link);
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
    async fn attach(&mut self) {
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
    async fn attach_and_grant(&mut self, keep: Vec<String>) {
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

    async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => self.take_message(message).await,
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
    fn take_back_what_never_arrived(&mut self) {
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

    async fn take_event(&mut self, event: HostEvent) {
        if event.host_seq <= self.seen {
            // A supervisor that was attached to again repeats what it cannot know to be durable here.
            return self.outputs.map(&event);
        }
        if event.host_seq > self.seen.saturating_add(SEQ_LEAP) {
            tracing::warn!(host = %self.settings.host, "the agent sends an event out of any order; the connection is closed");
            self.link = None;
            return self.give_up("it does not keep to the protocol");
        }
        self.seen = event.host_seq;
        self.has_kept(&event.step);
        self.outputs.map(&event);
        if matches!(event.what, Happened::Finished { .. }) {
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

    /// Sends a file that an open step needs; one at a time. Beside everything else: a large file must not hold up events.
    /// A controller that took the run up attaches before it grants again what is open: what is asked for in between, and once, waits for
    /// that (`granted`: it has come).
    async fn send_file(&mut self, sha256: String, offset: u64, granted: bool) {
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
        if let Some(before) = self.sending.take() {
            before.abort();
        }
        self.sending = Some(tokio::spawn(async move {
            let sent = match &path {
                Some(path) => stream_file(path, &to, &sha256, stream, offset).await,
                None => Err(io::Error::new(io::ErrorKind::NotFound, "no open step of the plan pushes a file with this digest")),
            };
            if let Err(error) = sent {
                let reason = path.map_or_else(|| error.to_string(), |path| format!("{}: {error}", path.display()));
                let _ = to.send(Outgoing::Message(ToAgent::FileRefused { sha256, reason })).await;
            }
        }));
    }

    async fn closed(&mut self, reason: String, orders: &mut mpsc::UnboundedReceiver<Order>) {
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

    fn give_up(&mut self, why: &str) {
        self.open.clear();
        self.report(Report::GaveUp(why.to_owned()));
    }
}

fn attempt(granted: &Granted) -> Attempt {
    Attempt { step: granted.spec.id.clone(), attempt: granted.attempt }
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
