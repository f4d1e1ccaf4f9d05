//! The conversation with one host: a task that owns the host's link, passes orders to its agent and reports back.
//!
//! A connection is not the lifeline of a step (invariant 4). When it drops while steps are open, the task reconnects with back-off,
//! attaches to the supervisor again and says what it has; the supervisor sends what is missing. It repeats the grant in its own
//! order, since the grant may have been lost with the connection; the supervisor starts no attempt twice. Only when the host stays
//! away longer than the run is willing to wait are its open steps reported as lost.

mod connection;
mod incoming;
mod keeping;
mod pushing;

use super::output::Outputs;
use crate::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use keeping::Fetching;
use proto::message::{Attempt, Claim, Granted, HostEvent, Offered};
use proto::{Query, Reading, RunAs, Secret, StepId, ToAgent};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How many messages a host may send on a connection before it was asked for anything, and how many for each thing that it is asked for: a
/// step has some events, and a few alerts.
const MESSAGES: (u32, u32) = (1000, 200);
/// Lines of output are shown at most this often for a host.
const LINE_EVERY: Duration = Duration::from_millis(100);

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
    /// The file that is being sent, by its digest.
    sending: Option<(String, JoinHandle<()>)>,
    fetching: Option<Fetching>,
    /// What was offered on this link for a step that was not granted on it yet.
    early_offer: Option<(Attempt, Offered)>,
    /// A file that the host asked for before the step that needs it was granted on this link, and from where on.
    early_need: Option<(String, u64)>,
    next_file: u32,
    /// How many more messages the host may send. One that never ends must not fill the run's journal or the controller's memory.
    allowance: u32,
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
        allowance: 0,
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
        let asked = if let Order::Grant { steps, .. } = &order { steps.len() } else { 1 };
        self.allowance = self.allowance.saturating_add(MESSAGES.1.saturating_mul(u32::try_from(asked).unwrap_or(u32::MAX)));
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
}

fn attempt(granted: &Granted) -> Attempt {
    Attempt { step: granted.spec.id.clone(), attempt: granted.attempt }
}
