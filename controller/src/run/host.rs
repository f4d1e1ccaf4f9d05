//! The conversation with one host: a task that owns the host's link, passes orders to its agent and reports back.
//!
//! A connection is not the lifeline of a step (invariant 4). When it drops while steps are open, the task reconnects with back-off,
//! attaches to the supervisor again and says what it has; the supervisor sends what is missing. Only when the host stays away longer
//! than the run is willing to wait are its open steps reported as lost.

use crate::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use proto::message::{Granted, Happened, HostEvent};
use proto::{FromAgent, Query, Reading, RunAs, Secret, StepId, ToAgent};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the engine asks of a host's task.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read facts.
    Inspect { id: u32, queries: Vec<Query> },
    /// Carry steps out. `outputs` says where the output of each goes.
    Grant { steps: Vec<Granted>, outputs: Vec<(StepId, PathBuf)>, head: String },
    /// Everything up to this `host_seq` is durable.
    Ack { host_seq: u64 },
    /// Take back what has not begun.
    Revoke,
    /// The run is over.
    Finish,
}

/// What a host's task reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The answer to an inspection.
    Inspected { id: u32, readings: Vec<Reading>, agent: AgentHello },
    /// An entry of the host's journal. Its output up to there is on the disk.
    Event(HostEvent),
    /// A line of output, for the display alone.
    Line { step: StepId, text: String },
    /// These steps had not begun and will not.
    Revoked(Vec<StepId>),
    /// No conversation could be opened; nothing was sent.
    Unreachable(OpenError),
    /// The connection dropped; the task tries to come back.
    Lost(String),
    /// It came back.
    Reattached,
    /// It did not come back in time: what happened to the open steps is not known.
    GaveUp(String),
    /// Another run or a newer token holds the host.
    Refused(String),
    /// The host's output could not be written on the workstation.
    Broken(String),
    /// The answer to [`Order::Finish`].
    Finished,
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
    /// How long a host may stay away while steps are open.
    pub(crate) patience: Duration,
    pub(crate) token: u64,
}

struct Output {
    path: PathBuf,
    file: Option<File>,
    /// Bytes that are in the file.
    have: u64,
}

struct Task<H> {
    hosts: Arc<H>,
    settings: Settings,
    reports: mpsc::UnboundedSender<(String, Report)>,
    link: Option<Link>,
    attached: bool,
    acked: u64,
    /// Steps that were granted and have not ended.
    open: BTreeMap<StepId, Granted>,
    outputs: BTreeMap<StepId, Output>,
    streams: HashMap<u32, StepId>,
    /// Inspections that were asked and not answered.
    inspecting: usize,
    next_file: u32,
    head: String,
}

/// Runs a host's task until its orders end.
pub(crate) async fn run<H: Hosts>(
    hosts: Arc<H>,
    settings: Settings,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<(String, Report)>,
) {
    let mut task = Task {
        hosts,
        settings,
        reports,
        link: None,
        attached: false,
        acked: 0,
        open: BTreeMap::new(),
        outputs: BTreeMap::new(),
        streams: HashMap::new(),
        inspecting: 0,
        next_file: 0,
        head: String::new(),
    };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => task.carry_out(order).await,
                None => return,
            },
            incoming = next_incoming(&mut task.link) => task.take(incoming).await,
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
                if self.connect().await {
                    self.inspecting += 1;
                    let run_as = self.settings.run_as.clone();
                    self.send(ToAgent::Inspect { id, queries, run_as }).await;
                }
            }
            Order::Grant { steps, outputs, head } => {
                self.head = head;
                if !self.connect().await {
                    return;
                }
                for (step, path) in outputs {
                    self.outputs.insert(step, Output { path, file: None, have: 0 });
                }
                self.open.extend(steps.iter().map(|granted| (granted.spec.id.clone(), granted.clone())));
                if !self.attached {
                    self.attach().await;
                }
                let (head, token) = (self.head.clone(), self.settings.token);
                self.send(ToAgent::Grant { steps, head, token }).await;
            }
            Order::Ack { host_seq } => {
                self.acked = self.acked.max(host_seq);
                if self.attached {
                    self.send(ToAgent::Ack { host_seq }).await;
                }
            }
            Order::Revoke => {
                if self.attached && self.link.is_some() {
                    self.send(ToAgent::Revoke).await;
                }
            }
            Order::Finish => {
                if self.attached && self.link.is_some() {
                    self.send(ToAgent::Finish).await;
                } else {
                    self.report(Report::Finished);
                }
            }
        }
    }

    /// Opens a conversation if none is open.
    async fn connect(&mut self) -> bool {
        if self.link.is_some() {
            return true;
        }
        match self.hosts.open(&self.settings.host, self.settings.root).await {
            Ok(link) => {
                self.link = Some(link);
                if !self.settings.secrets.is_empty() {
                    let values = self.settings.secrets.clone();
                    self.send(ToAgent::Secrets { values }).await;
                }
                true
            }
            Err(error) => {
                self.report(Report::Unreachable(error));
                false
            }
        }
    }

    async fn attach(&mut self) {
        self.attached = true;
        let output = self.open.keys().filter_map(|step| Some((step.clone(), self.outputs.get(step)?.have))).collect();
        let (run, host_state) = (self.settings.run.clone(), self.settings.host_state.clone());
        let (acked, token) = (self.acked, self.settings.token);
        self.send(ToAgent::Attach { run, host_state, acked, output, token }).await;
    }

    async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => self.take_message(message).await,
            Incoming::Data { stream, offset, bytes } => self.keep_output(stream, offset, &bytes),
            Incoming::Closed { reason } => {
                self.link = None;
                self.attached = false;
                if !self.open.is_empty() {
                    self.report(Report::Lost(reason));
                    self.come_back().await;
                } else if std::mem::take(&mut self.inspecting) > 0 {
                    let next = "Nothing was changed on it; start again when the connection holds".to_owned();
                    let host = self.settings.host.clone();
                    self.report(Report::Unreachable(OpenError::Unreachable { host, seen: reason, next }));
                }
            }
        }
    }

    async fn take_message(&mut self, message: FromAgent) {
        match message {
            FromAgent::Inspected { id, readings } => {
                self.inspecting = self.inspecting.saturating_sub(1);
                let agent = self.link.as_ref().map(|link| link.agent.clone()).unwrap_or_default();
                self.report(Report::Inspected { id, readings, agent });
            }
            FromAgent::Event(event) => {
                match &event.what {
                    Happened::Started { stream } => {
                        self.streams.insert(*stream, event.step.clone());
                    }
                    Happened::Finished { .. } => {
                        self.open.remove(&event.step);
                        self.streams.retain(|_, step| *step != event.step);
                        self.settle_output(&event.step).await;
                    }
                }
                self.report(Report::Event(event));
            }
            FromAgent::Revoked { steps } => {
                steps.iter().for_each(|step| drop(self.open.remove(step)));
                self.report(Report::Revoked(steps));
            }
            FromAgent::Refused { reason } => {
                self.open.clear();
                self.attached = false;
                self.report(Report::Refused(reason));
            }
            FromAgent::NeedFile { sha256, offset } => self.send_file(sha256, offset).await,
            FromAgent::Finished => {
                self.attached = false;
                self.report(Report::Finished);
            }
            FromAgent::Fatal { message } => tracing::warn!(host = %self.settings.host, "the agent ends: {message}"),
            FromAgent::Attached { .. } | FromAgent::Hello { .. } | FromAgent::Incompatible { .. } | FromAgent::Exited { .. } => {}
        }
    }

    fn keep_output(&mut self, stream: u32, offset: u64, bytes: &[u8]) {
        let Some(step) = self.streams.get(&stream) else { return };
        let Some(output) = self.outputs.get_mut(step) else { return };
        let step = step.clone();
        if let Err(error) = output.write(offset, bytes) {
            let path = output.path.display().to_string();
            return self.report(Report::Broken(format!("cannot write {path}: {error}")));
        }
        let text = String::from_utf8_lossy(bytes);
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
            self.report(Report::Line { step, text: line.trim().to_owned() });
        }
    }

    /// Makes a step's output durable, before its end is.
    async fn settle_output(&mut self, step: &StepId) {
        let Some(Output { file: Some(file), path, .. }) = self.outputs.remove(step) else { return };
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if let Ok(Err(error)) = synced {
            self.report(Report::Broken(format!("cannot write {}: {error}", path.display())));
        }
    }

    async fn send_file(&mut self, sha256: String, offset: u64) {
        let Some(link) = &self.link else { return };
        let to = link.to.clone();
        self.next_file += 1;
        let stream = self.next_file;
        let path = self.settings.files.get(&sha256).cloned();
        // Beside everything else: a large file must not hold up events.
        tokio::spawn(async move {
            let sent = match &path {
                Some(path) => stream_file(path, &to, &sha256, stream, offset).await,
                None => Err(io::Error::new(io::ErrorKind::NotFound, "the plan names no file with this digest")),
            };
            if let Err(error) = sent {
                let reason = format!("{}: {error}", path.unwrap_or_default().display());
                let _ = to.send(Outgoing::Message(ToAgent::FileRefused { sha256, reason })).await;
            }
        });
    }

    /// Reconnects while steps are open on the host, until patience ends.
    async fn come_back(&mut self) {
        let end = Instant::now() + self.settings.patience;
        let mut pause = Duration::from_millis(500);
        loop {
            if Instant::now() + pause > end {
                self.open.clear();
                let waited = self.settings.patience.as_secs();
                return self.report(Report::GaveUp(format!("it did not come back within {waited} s")));
            }
            tokio::time::sleep(pause + jitter(pause)).await;
            pause = (pause * 2).min(Duration::from_secs(30));
            if let Ok(link) = self.hosts.open(&self.settings.host, self.settings.root).await {
                self.link = Some(link);
                if !self.settings.secrets.is_empty() {
                    let values = self.settings.secrets.clone();
                    self.send(ToAgent::Secrets { values }).await;
                }
                self.attach().await;
                // The grant itself may have been lost with the connection. A step that the host knows is not started again.
                let steps = self.open.values().cloned().collect();
                let (head, token) = (self.head.clone(), self.settings.token);
                self.send(ToAgent::Grant { steps, head, token }).await;
                return self.report(Report::Reattached);
            }
        }
    }
}

impl Output {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            if let Some(parent) = self.path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            self.file = Some(File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(bytes, offset)?;
        }
        self.have = self.have.max(offset + bytes.len() as u64);
        Ok(())
    }
}

async fn stream_file(path: &Path, to: &mpsc::Sender<Outgoing>, sha256: &str, stream: u32, mut offset: u64) -> io::Result<()> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection ended");
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(offset)).await?;
    to.send(Outgoing::Message(ToAgent::FileBegin { sha256: sha256.to_owned(), stream })).await.map_err(gone)?;
    loop {
        let mut bytes = vec![0; proto::frame::DATA_CHUNK];
        let length = file.read(&mut bytes).await?;
        if length == 0 {
            break;
        }
        bytes.truncate(length);
        to.send(Outgoing::Data { stream, offset, bytes }).await.map_err(gone)?;
        offset += length as u64;
    }
    to.send(Outgoing::Message(ToAgent::FileEnd { stream })).await.map_err(gone)
}

/// Up to a quarter more, so that hosts behind one broken link do not all come back in the same moment.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0u8];
    let _ = getrandom::fill(&mut byte);
    pause * u32::from(byte[0]) / 1024
}
