//! The seam between those who talk to hosts (the engine, `exec`) and what carries the talk (SSH, or a simulation).

use proto::{FromAgent, ToAgent};
use std::future::Future;
use tokio::sync::mpsc;

/// An open conversation with the agent of one host, after the handshake.
#[derive(Debug)]
pub struct Link {
    /// What the agent said of itself.
    pub agent: AgentHello,
    /// To the agent. A full channel holds the sender up: that is the flow control.
    pub to: mpsc::Sender<Outgoing>,
    /// From the agent. Ends with exactly one [`Incoming::Closed`].
    pub from: mpsc::Receiver<Incoming>,
}

/// What an agent said of itself in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentHello {
    /// The protocol that is spoken.
    pub protocol: u16,
    /// The agent's version.
    pub version: String,
    /// Which boot of the host this is.
    pub boot_id: String,
    /// Effective user id.
    pub euid: u32,
    /// Account name.
    pub user: String,
    /// The host key that the server proved to have, `SHA256:...`; empty in a simulation.
    pub host_key: String,
    /// Algorithms of the connection, and of those to its bastions, that nobody should use any more (`ssh.legacy`); empty in a simulation.
    pub outdated: Vec<String>,
}

/// To an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A message.
    Message(ToAgent),
    /// A piece of a file.
    Data {
        /// The stream.
        stream: u32,
        /// Where in the stream it stands.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// From an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A message.
    Message(FromAgent),
    /// A piece of output.
    Data {
        /// The stream.
        stream: u32,
        /// Where in the stream it stands.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The conversation is over. Nothing follows.
    Closed {
        /// Why, for people: the connection was lost, the agent ended, it sent garbage.
        reason: String,
    },
}

/// Why a host's agent could not be talked to. Each text names the host, what was expected, what was seen and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No connection: refused, timed out, no route, name unknown, or the server is not SSH.
    #[error("{host} cannot be reached: {seen}. {next}")]
    Unreachable {
        /// The host.
        host: String,
        /// What was seen.
        seen: String,
        /// What to do.
        next: String,
    },
    /// The server's key is unknown, changed or revoked.
    #[error("{host}: {seen}. {next}")]
    HostKey {
        /// The host.
        host: String,
        /// What was seen.
        seen: String,
        /// What to do.
        next: String,
    },
    /// The server accepts none of our ways to log in.
    #[error("{host} refuses the login: {seen}. {next}")]
    Authentication {
        /// The host.
        host: String,
        /// What was tried and what the server offered.
        seen: String,
        /// What to do.
        next: String,
    },
    /// Logged in, but root cannot be had.
    #[error("{host}: cannot become root: {seen}. {next}")]
    Become {
        /// The host.
        host: String,
        /// What was seen.
        seen: String,
        /// What to do.
        next: String,
    },
    /// Logged in, but the agent cannot be started or does not speak our protocol.
    #[error("{host}: the agent does not start: {seen}. {next}")]
    Agent {
        /// The host.
        host: String,
        /// What was seen.
        seen: String,
        /// What to do.
        next: String,
    },
}

/// Something that can open conversations with the hosts of a fleet.
pub trait Hosts: Send + Sync + 'static {
    /// Connects to a host of the fleet, starts or finds its agent there, and shakes hands. `root` asks for an agent that runs as
    /// root (through `become`); with `become: none` it makes no difference.
    ///
    /// # Errors
    /// One [`OpenError`] per kind of reason. Nothing is retried here.
    fn open(&self, host: &str, root: bool) -> impl Future<Output = Result<Link, OpenError>> + Send;

    /// Chance for the pause before a host is tried again. A simulation gives its own, so that a history can be replayed.
    fn jitter(&self) -> u8 {
        let mut byte = [0u8];
        // Without a source of randomness all pauses are the shortest.
        let _ = getrandom::fill(&mut byte);
        byte[0]
    }
}
