//! Starts the agent on a connection: runs the bootstrap, answers what it and sudo ask, sends the agent where it is missing, and
//! shakes hands.

use super::bootstrap::{self, Answer, find};
use super::connect::Connection;
use super::elevation::{Elevation, RAW, Refusal};
use super::embedded::EmbeddedAgent;
use super::text::{printable, tail};
use crate::hosts::{AgentHello, OpenError};
use proto::frame::{MAGIC, NOISE_LIMIT};
use proto::{Decoder, Frame, FromAgent, Secret, ToAgent};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// From the request to the agent's first byte: login shells with slow start files, sudo that asks a directory service.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// From the agent's first byte to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// A piece of the agent that makes no progress for this long: the host is stuck.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// From the last piece sent to the agent's first byte: a slow disk, a slow digest.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(60);
/// The agent goes in pieces of this size ...
const PIECE: usize = 32 * 1024;
/// ... with a pause after each: sshd grows its buffer for what its child has not read yet, which costs it more than the pause.
const PACE: Duration = Duration::from_millis(1);
/// How much of standard error is kept for messages.
const STDERR_KEPT: usize = 8 * 1024;
/// How much of it a message shows.
const STDERR_SHOWN: usize = 400;

/// What is needed to start an agent.
pub(super) struct Start<'a> {
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) host_state: &'a str,
    pub(super) agents: &'a [EmbeddedAgent],
    pub(super) elevation: Elevation,
    pub(super) password: Option<Secret>,
    /// Set where it may work on a pseudo-terminal.
    pub(super) wants_terminal: AtomicBool,
    /// The login shell runs programs of its PATH alone (rbash).
    pub(super) restricted: bool,
    /// Set where the login shell turned out to be such a one.
    pub(super) is_restricted: AtomicBool,
    /// Set where no session could be opened: some servers allow one a connection, and refuse another or hang up.
    pub(super) no_session: AtomicBool,
}

/// An agent that runs and has said hello.
pub(super) struct Started {
    pub(super) hello: AgentHello,
    pub(super) read: ChannelReadHalf,
    pub(super) write: ChannelWriteHalf<Msg>,
    pub(super) decoder: Decoder,
    pub(super) said: Said,
}

/// What a channel said besides its standard output.
#[derive(Debug, Default)]
pub(super) struct Said {
    stderr: Vec<u8>,
    exit: Option<String>,
}

impl Said {
    /// Takes note of a message; true when the channel is over.
    pub(super) fn note(&mut self, message: Option<ChannelMsg>) -> bool {
        match message {
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                self.stderr.extend_from_slice(&data);
                if self.stderr.len() > 2 * STDERR_KEPT {
                    self.stderr.drain(..self.stderr.len() - STDERR_KEPT);
                }
                false
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.exit = Some(format!("exit code {exit_status}"));
                false
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.exit = Some(format!("signal {signal_name:?}"));
                false
            }
            Some(ChannelMsg::Close) | None => true,
            _ => false,
        }
    }

    /// How the program ended, where the server said so.
    pub(super) fn exit(&self) -> Option<&str> {
        self.exit.as_deref()
    }

    /// The end of standard error, harmless, on one line.
    pub(super) fn stderr(&self) -> String {
        tail(&self.stderr, STDERR_SHOWN)
    }
}

/// Runs the bootstrap on a new channel.
///
/// # Errors
/// [`OpenError::Agent`] and [`OpenError::Become`]; [`OpenError::Unreachable`] when the connection is lost.
pub(super) async fn start(connection: &Connection, start: &Start<'_>) -> Result<Started, OpenError> {
    let command = bootstrap::command(start.agents, start.host_state, &start.elevation, start.restricted)
        .map_err(|why| start.agent_error(why, "Correct host_state in the inventory"))?;
    let failed = |error: russh::Error| start.lost(connection, &error);
    let channel = timeout(START_TIMEOUT, connection.handle.channel_open_session())
        .await
        .map_err(|_| start.slow("the server opened no session channel", START_TIMEOUT))?
        .map_err(|error| {
            start.no_session.store(true, Ordering::Relaxed);
            match error {
                russh::Error::ChannelOpenFailure(reason) => start.agent_error(
                    format!("the server opens no session ({reason:?})"),
                    "See MaxSessions and the account's limits there",
                ),
                error => failed(error),
            }
        })?;
    let (read, write) = channel.split();
    if start.elevation.terminal {
        // A name that every terminal database has: nothing is drawn.
        write.request_pty(false, "dumb", 80, 24, 0, 0, RAW).await.map_err(failed)?;
    }
    write.exec(true, command).await.map_err(failed)?;
    let mut starting = Starting { connection, start, read, write, out: Vec::new(), said: Said::default(), passwords: 0 };
    starting.until_magic().await?;
    starting.shake_hands().await
}

struct Starting<'a> {
    connection: &'a Connection,
    start: &'a Start<'a>,
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    /// Standard output that was not understood yet.
    out: Vec<u8>,
    said: Said,
    /// How often sudo was given the password.
    passwords: usize,
}

impl Starting<'_> {
    /// Reads until the agent's first bytes, which are taken out of `out`.
    async fn until_magic(&mut self) -> Result<(), OpenError> {
        // However much a host says meanwhile: it must not keep others waiting for good.
        let (mut limit, mut since) = (START_TIMEOUT, Instant::now());
        let mut sent = false;
        loop {
            let message = timeout_at(since + limit, self.read.wait()).await.map_err(|_| {
                self.start.slow(&format!("the agent did not start (standard error: {})", self.shown_stderr()), limit)
            })?;
            match message {
                Some(ChannelMsg::Data { data }) => {
                    self.out.extend_from_slice(&data);
                    if let Some(at) = find(&self.out, MAGIC) {
                        self.out.drain(..at + MAGIC.len());
                        return Ok(());
                    }
                    // On a terminal everything comes in one stream.
                    if self.start.elevation.terminal {
                        self.answer_question().await?;
                    }
                    if let Some((answer, used)) = bootstrap::answer(&self.out) {
                        self.out.drain(..used.min(self.out.len()));
                        match answer {
                            Answer::Need { system, packed } if !sent => {
                                self.send_agent(&system, packed).await?;
                                sent = true;
                                (limit, since) = (UNPACK_TIMEOUT, Instant::now());
                            }
                            answer => return Err(self.start.refused(answer)),
                        }
                    }
                    self.start.bounded(&self.out)?;
                }
                Some(ChannelMsg::Failure) => {
                    return Err(self.start.agent_error(
                        "the server refuses to run a command".to_owned(),
                        "Does the account have a forced command, no shell, or SFTP alone?",
                    ));
                }
                message => {
                    let over = self.said.note(message);
                    self.answer_question().await?;
                    if over {
                        return Err(self.ended());
                    }
                }
            }
        }
    }

    /// Writes the password when it is asked for; a second question means that it was wrong.
    async fn answer_question(&mut self) -> Result<(), OpenError> {
        let printed = if self.start.elevation.terminal { &mut self.out } else { &mut self.said.stderr };
        let Some(end) = self.start.elevation.asked(printed) else { return Ok(()) };
        printed.drain(..end);
        let Some(password) = self.start.password.as_ref().filter(|_| self.passwords == 0) else {
            let wrong = self.start.elevation.refusal("Authentication failed", self.start.user, true);
            return Err(wrong.map_or_else(|| self.ended(), |refusal| self.start.become_error(refusal)));
        };
        self.passwords += 1;
        let line = [password.expose().as_bytes(), b"\n"].concat();
        // The channel's queue takes the bytes themselves over: there is no copy left here to wipe.
        self.write.data_bytes(line).await.map_err(|error| self.start.lost(self.connection, &error))
    }

    /// Sends the agent in pieces, listening meanwhile.
    async fn send_agent(&mut self, system: &str, packed: bool) -> Result<(), OpenError> {
        let Some(agent) = self.start.agents.iter().find(|agent| agent.system == system) else {
            return Err(self.start.refused(Answer::NoAgent { system: printable(system) }));
        };
        let unpacked;
        let bytes: &[u8] = if packed {
            agent.gzip
        } else {
            unpacked = agent.unpack().map_err(|error| {
                self.start.agent_error(format!("its embedded form is damaged ({error})"), "Install this build of caravan again")
            })?;
            &unpacked
        };
        tracing::debug!(host = self.start.host, bytes = bytes.len(), "sending the agent");
        for piece in bytes.chunks(PIECE) {
            let (write, read) = (&self.write, &mut self.read);
            let writing = timeout(PROGRESS_TIMEOUT, write.data_bytes(piece.to_vec()));
            tokio::pin!(writing);
            let written = loop {
                tokio::select! {
                    biased;
                    written = &mut writing => break written,
                    message = read.wait() => {
                        if let Some(ChannelMsg::Data { data }) = &message {
                            self.out.extend_from_slice(data);
                            // The agent's own first words may be among them, and they are short.
                            self.start.bounded(&self.out)?;
                        } else if self.said.note(message) {
                            return Err(self.ended());
                        }
                    }
                }
            };
            written
                .map_err(|_| self.start.slow("the host stopped taking the agent", PROGRESS_TIMEOUT))?
                .map_err(|error| self.start.lost(self.connection, &error))?;
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    async fn shake_hands(mut self) -> Result<Started, OpenError> {
        let hello = ToAgent::Hello {
            protocol: proto::PROTOCOL,
            oldest: proto::PROTOCOL_OLDEST,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let garbage = |error: proto::FrameError| {
            self.start.agent_error(
                format!("it does not speak our protocol ({error})"),
                "Remove the agent's directory on the host, and try again",
            )
        };
        let mut decoder = Decoder::new();
        decoder.push(&self.out);
        let bytes = Frame::message(&hello).map_err(garbage)?.encode();
        self.write.data_bytes(bytes).await.map_err(|error| self.start.lost(self.connection, &error))?;
        let deadline = tokio::time::Instant::now() + HANDSHAKE_TIMEOUT;
        let answer = loop {
            match decoder.next_frame().map_err(garbage)? {
                Some(Frame::Control(payload)) => break proto::frame::parse::<FromAgent>(&payload).map_err(garbage)?,
                Some(Frame::Data { .. }) => return Err(garbage(proto::FrameError::BadMessage("data before the hello".to_owned()))),
                None => {}
            }
            let message = tokio::time::timeout_at(deadline, self.read.wait())
                .await
                .map_err(|_| self.start.slow("the agent did not say hello", HANDSHAKE_TIMEOUT))?;
            if let Some(ChannelMsg::Data { data }) = &message {
                decoder.push(data);
            } else if self.said.note(message) {
                return Err(self.ended());
            }
        };
        match answer {
            FromAgent::Hello { protocol, .. } if !(proto::PROTOCOL_OLDEST..=proto::PROTOCOL).contains(&protocol) => {
                Err(self.start.incompatible(protocol, protocol, ""))
            }
            FromAgent::Hello { protocol, version, boot_id, euid, user } => {
                let host_key = self.connection.host_key.clone();
                let outdated = self.connection.outdated.clone();
                let hello = AgentHello { protocol, version, boot_id, euid, user, host_key, outdated };
                Ok(Started { hello, read: self.read, write: self.write, decoder, said: self.said })
            }
            FromAgent::Incompatible { protocol, oldest, version } => Err(self.start.incompatible(protocol, oldest, &version)),
            FromAgent::Fatal { message } => Err(self.start.agent_error(printable(&message), "Mend that on the host")),
            _ => Err(garbage(proto::FrameError::BadMessage("another message than the hello".to_owned()))),
        }
    }

    /// The error for a channel that ended before the handshake.
    fn ended(&self) -> OpenError {
        // Where the server said how the command ended, that is what happened: some hang up after their one session.
        if let (None, Some(why)) = (self.said.exit(), self.connection.lost()) {
            return OpenError::Unreachable {
                host: self.start.host.to_owned(),
                seen: format!("the connection was lost while the agent started ({why})"),
                next: "Try again; see the network and the server's log".to_owned(),
            };
        }
        // A terminal has one stream for both; a server may give none all the same.
        let printed =
            if self.start.elevation.terminal { [&self.out[..], &self.said.stderr].concat() } else { self.said.stderr.clone() };
        let printed = String::from_utf8_lossy(&printed);
        if let Some(refusal) = self.start.elevation.refusal(&printed, self.start.user, self.passwords > 0) {
            return self.start.become_error(refusal);
        }
        let exit = self.said.exit().unwrap_or("no exit code");
        let mut seen = format!("the start command ended ({exit}); standard error: {}", self.shown_stderr());
        if !self.out.is_empty() {
            seen.push_str(&format!("; standard output: {}", tail(&self.out, 200)));
        }
        let user = self.start.user;
        if self.start.restricted || printed.contains(": restricted") {
            self.start.is_restricted.store(!self.start.restricted, Ordering::Relaxed);
            let next =
                format!("The login shell of {user} is a restricted one: put `sh` into its PATH, or give it another one (chsh)");
            return self.start.agent_error(seen, &next);
        }
        let silent = self.out.is_empty() && printed.is_empty();
        if silent || [&*printed, &*String::from_utf8_lossy(&self.out)].iter().any(|text| text.contains("not available")) {
            let next = "runs no commands (nologin, false?): give it another one (chsh), or log in as another account (ssh.user)";
            return self.start.agent_error(seen, &format!("The login shell of {user} {next}"));
        }
        self.start.agent_error(seen, "Run a command there by hand: ssh HOST true")
    }

    fn shown_stderr(&self) -> String {
        let text = self.said.stderr();
        if text.is_empty() { "nothing".to_owned() } else { text }
    }
}

impl Start<'_> {
    fn agent_error(&self, seen: String, next: &str) -> OpenError {
        OpenError::Agent { host: self.host.to_owned(), seen, next: next.to_owned() }
    }

    /// What was printed and not understood stays small.
    fn bounded(&self, printed: &[u8]) -> Result<(), OpenError> {
        if printed.len() <= NOISE_LIMIT {
            return Ok(());
        }
        Err(self.agent_error(
            format!("more than {} KiB were printed before it ({})", NOISE_LIMIT / 1024, tail(printed, 80)),
            "What does the account's login shell print when it is not interactive?",
        ))
    }

    fn become_error(&self, refusal: Refusal) -> OpenError {
        self.wants_terminal.store(refusal.wants_terminal, Ordering::Relaxed);
        OpenError::Become { host: self.host.to_owned(), seen: refusal.seen, next: refusal.next }
    }

    fn slow(&self, what: &str, limit: Duration) -> OpenError {
        self.agent_error(
            format!("{what} within {} s", limit.as_secs()),
            "Is the host overloaded, or does its login shell wait for something?",
        )
    }

    fn lost(&self, connection: &Connection, error: &russh::Error) -> OpenError {
        OpenError::Unreachable {
            host: self.host.to_owned(),
            seen: format!(
                "the connection was lost while the agent started ({})",
                connection.lost().unwrap_or_else(|| error.to_string())
            ),
            next: "Try again; see the network and the server's log".to_owned(),
        }
    }

    fn refused(&self, answer: Answer) -> OpenError {
        match answer {
            Answer::NoAgent { system } => {
                let known: Vec<&str> = self.agents.iter().map(|agent| agent.system).collect();
                self.agent_error(
                    format!("the machine is {system:?}, and this build has agents for: {}", known.join(", ")),
                    "Use a build of caravan that has one for it",
                )
            }
            Answer::OldKernel(kernel) => self.agent_error(
                format!("the kernel is {kernel}, and the agent needs Linux 3.2 or a newer one"),
                "Boot a newer kernel there, or migrate this host by hand",
            ),
            Answer::Need { .. } => self.agent_error("it was asked for twice".to_owned(), "Look at the disk of the host"),
            Answer::Failed(why) => self.agent_error(why, "Mend that on the host, or set host_state"),
        }
    }

    fn incompatible(&self, newest: u16, oldest: u16, version: &str) -> OpenError {
        self.agent_error(
            format!(
                "the agent {version} speaks protocol {oldest} to {newest}, this caravan {} to {}",
                proto::PROTOCOL_OLDEST,
                proto::PROTOCOL
            ),
            "Use the caravan that began this run, or let it finish first",
        )
    }
}
