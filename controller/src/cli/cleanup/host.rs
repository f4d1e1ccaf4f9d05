//! Removing what a run left on one host, over the agent. Programs get their arguments as they are; no shell reads them.

use super::over::Left;
use crate::hosts::{Hosts, Incoming, Link, OpenError, Outgoing};
use crate::ssh::text::printable;
use proto::message::Claim;
use proto::{FromAgent, ToAgent};
use std::collections::BTreeMap;

/// How it went on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything is gone.
    Removed,
    /// Another run holds the host, or a step still runs there: nothing was removed.
    Locked(String),
    /// Something could not be removed, or it is not known whether it was.
    Failed(String),
    /// The host was not reached, or did not let us in.
    Unreachable(String),
}

impl From<OpenError> for Ended {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Become { .. } | OpenError::Agent { .. } => Self::Failed(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// What is removed of a run.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) run: String,
    pub(super) left: Left,
    /// Also the trees that were kept to go back.
    pub(super) trees: bool,
    pub(super) claim: Claim,
}

/// Removes it, and says what was removed, however it ended. Can be repeated: what is gone already is no error.
pub(super) async fn clean<H: Hosts>(hosts: &H, order: &Order) -> (Ended, Vec<String>) {
    let mut removed = Vec::new();
    let ended = on_host(hosts, order, &mut removed).await.err().unwrap_or(Ended::Removed);
    (ended, removed)
}

async fn on_host<H: Hosts>(hosts: &H, order: &Order, removed: &mut Vec<String>) -> Result<(), Ended> {
    let Order { run, left, trees, .. } = order;
    let state = &left.host_state;
    let link = hosts.open(&left.host, left.root).await?;
    let (euid, mut agent) = (link.agent.euid, Agent { link, commands: 0 });
    agent.release(order).await?;
    for tree in left.trees.iter().filter(|_| *trees) {
        let (home, _) = tree.rsplit_once('/').unwrap_or_default();
        let mut installed = false;
        for name in ["nl6", "nl5"] {
            installed = installed || agent.exists(&format!("{home}/{name}")).await?;
        }
        if agent.exists(tree).await? && !installed {
            return Err(Ended::Failed(format!(
                "there is no installation in {home} beside {tree}, which is all that is left of Campaign; it stays"
            )));
        }
        agent.remove(tree, removed).await?;
    }
    for copy in &left.copies {
        agent.remove(copy, removed).await?;
    }
    agent.remove(&format!("{state}/runs/{run}"), removed).await?;
    // Refused while another run is in it.
    agent.run(&["rmdir", "--", &format!("{state}/runs")]).await?;
    if agent.exists(&format!("{state}/runs")).await? {
        // Packages are there once for all runs, and another one's way back needs them.
        return Ok(());
    }
    agent.remove(&format!("{state}/packages"), removed).await?;
    // No other run is left: the agent goes as well, although it is the one that we talk to.
    for name in ["agent", "lock", "lock.guard"] {
        agent.remove(&format!("{state}/{name}"), removed).await?;
    }
    agent.run(&["rmdir", "--", state]).await?;
    if euid != 0 {
        return agent.remove_cache(removed).await;
    }
    if left.root {
        // Checks that need no root went through an agent of the login account.
        let link = hosts.open(&left.host, false).await?;
        if link.agent.euid != 0 {
            return Agent { link, commands: 0 }.remove_cache(removed).await;
        }
    }
    Ok(())
}

/// An agent that does as it is told.
struct Agent {
    link: Link,
    commands: u32,
}

impl Agent {
    /// Makes sure that no run needs the host, and that the one that is cleaned up holds it no more: it does where the host was away
    /// when the run was aborted.
    async fn release(&mut self, order: &Order) -> Result<(), Ended> {
        let path = format!("{}/lock", order.left.host_state);
        if !self.exists(&path).await? {
            return Ok(());
        }
        let (code, text) = self.run(&["cat", "--", &path]).await?;
        if code != Some(0) {
            return Err(Ended::Failed(format!("expected to read who holds the host in {path}, seen: {}", printable(text.trim()))));
        }
        if text.trim().is_empty() {
            return Ok(());
        }
        let lock: serde_json::Value = serde_json::from_str(&text)
            .map_err(|_| Ended::Locked(format!("{path} cannot be understood; look at it, and remove it when no run works here")))?;
        match lock.get("run").and_then(serde_json::Value::as_str).unwrap_or_default() {
            "" => Ok(()),
            holder if holder == order.run => self.give_up(order).await,
            holder => Err(Ended::Locked(format!("run {} holds this host; finish or abort that run first", printable(holder)))),
        }
    }

    /// Has the run itself give the host up.
    async fn give_up(&mut self, order: &Order) -> Result<(), Ended> {
        let attach = ToAgent::Attach {
            run: order.run.clone(),
            host_state: order.left.host_state.clone(),
            claim: order.claim.clone(),
            acked: 0,
            output: BTreeMap::new(),
            keep: Vec::new(),
        };
        self.send(attach).await?;
        loop {
            match self.next().await? {
                FromAgent::Attached { open, .. } if open.is_empty() => self.send(ToAgent::Finish { release: true }).await?,
                FromAgent::Attached { open, .. } => {
                    let steps = open.iter().map(|attempt| attempt.step.0.as_str()).collect::<Vec<_>>().join(", ");
                    self.send(ToAgent::Finish { release: false }).await?;
                    return Err(Ended::Locked(format!("{steps} still runs there; try again when it has ended")));
                }
                FromAgent::Finished => return Ok(()),
                FromAgent::Refused { reason } | FromAgent::Busy { reason } => return Err(Ended::Locked(printable(&reason))),
                _ => {}
            }
        }
    }

    /// Removes a file or directory with everything in it; says so if it was there.
    async fn remove(&mut self, path: &str, removed: &mut Vec<String>) -> Result<(), Ended> {
        if !self.exists(path).await? {
            return Ok(());
        }
        match self.run(&["rm", "-r", "-f", "--", path]).await? {
            (Some(0), _) => {
                removed.push(path.to_owned());
                Ok(())
            }
            (_, text) => Err(Ended::Failed(format!("expected {path} to be removed, seen: {}", printable(text.trim())))),
        }
    }

    /// Removes the agent of an account that is not root from the account's own cache.
    async fn remove_cache(&mut self, removed: &mut Vec<String>) -> Result<(), Ended> {
        let mut cache = self.variable("XDG_CACHE_HOME").await?;
        if cache.is_empty() {
            let home = self.variable("HOME").await?;
            cache = if home.is_empty() { home } else { format!("{home}/.cache") };
        }
        if !cache.starts_with('/') {
            return Ok(());
        }
        self.remove(&format!("{cache}/caravan/agent"), removed).await?;
        self.run(&["rmdir", "--", &format!("{cache}/caravan")]).await.map(drop)
    }

    async fn variable(&mut self, name: &str) -> Result<String, Ended> {
        let (code, text) = self.run(&["printenv", name]).await?;
        Ok(if code == Some(0) { text.trim_end_matches('\n').to_owned() } else { String::new() })
    }

    /// Whether there is something under a name, be it a link that leads nowhere.
    async fn exists(&mut self, path: &str) -> Result<bool, Ended> {
        // test(1) knows `-L` since POSIX; both in one call, for a round trip less.
        let (code, text) = self.run(&["test", "-e", path, "-o", "-L", path]).await?;
        match code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(Ended::Failed(format!("cannot see whether {path} is there: {}", printable(text.trim())))),
        }
    }

    /// Runs a program; answers its exit code and what it printed.
    async fn run(&mut self, argv: &[&str]) -> Result<(Option<i32>, String), Ended> {
        self.commands += 1;
        let own = self.commands;
        self.send(ToAgent::Exec { id: own, argv: argv.iter().map(ToString::to_string).collect() }).await?;
        let mut output = Vec::new();
        loop {
            match self.link.from.recv().await {
                Some(Incoming::Data { stream, bytes, .. }) if stream == own => output.extend(bytes),
                Some(Incoming::Message(FromAgent::Exited { id, code, message })) if id == own => {
                    let text = String::from_utf8_lossy(&output).into_owned();
                    return Ok((code, if message.is_empty() { text } else { format!("{text}{message}") }));
                }
                other => self.gone(other)?,
            };
        }
    }

    async fn next(&mut self) -> Result<FromAgent, Ended> {
        loop {
            match self.link.from.recv().await {
                Some(Incoming::Message(FromAgent::Fatal { message })) => return Err(Ended::Failed(printable(&message))),
                Some(Incoming::Message(message)) => return Ok(message),
                other => self.gone(other)?,
            }
        }
    }

    /// The conversation may be over.
    fn gone(&self, incoming: Option<Incoming>) -> Result<(), Ended> {
        let lost = |reason: &str| Err(Ended::Failed(format!("the connection was lost: {reason}; not all may be removed")));
        match incoming {
            Some(Incoming::Closed { reason }) => lost(&printable(&reason)),
            Some(Incoming::Message(FromAgent::Fatal { message })) => Err(Ended::Failed(printable(&message))),
            None => lost("the agent ended"),
            Some(_) => Ok(()),
        }
    }

    async fn send(&mut self, message: ToAgent) -> Result<(), Ended> {
        let sent = self.link.to.send(Outgoing::Message(message)).await;
        sent.map_err(|_| Ended::Failed("the connection was lost; not all may be removed".to_owned()))
    }
}
