//! Reads files and directories of many hosts at once, through the agent's way for ad-hoc commands. Changes nothing there.

use super::exec::closed_reason;
use crate::hosts::{Hosts, Incoming, Outgoing};
use crate::ssh::text::printable;
use inventory::{BecomeMethod, Host};
use proto::{FromAgent, ToAgent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The number of the one command on each link.
const ID: u32 = 1;
/// The exit code by which our scripts say that there is nothing under this name.
const NOTHING: i32 = 44;

/// How much is asked of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many hosts are asked at the same time; at least one is.
    pub at_once: usize,
    /// How long one host may take, from connecting to the last byte.
    pub time: Duration,
    /// How many bytes one host may answer.
    pub bytes: usize,
}

/// Something to read on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: String,
    /// Whether root is needed to read it.
    pub root: bool,
    /// Where it is.
    pub path: String,
}

impl Place {
    /// A place below Caravan's directory on a host, which is root's wherever root can be had.
    pub fn below_state(host: &Host, path: &str) -> Self {
        let root = host.become_.method != BecomeMethod::None;
        Self { host: host.name.clone(), root, path: format!("{}/{path}", host.host_state) }
    }
}

/// What was found, host by host: nothing where nothing has this name, and otherwise why it could not be read.
pub type Found<T> = BTreeMap<String, Result<Option<T>, String>>;

/// Reads a file on each of some hosts, side by side.
pub async fn read_files<H: Hosts>(hosts: &Arc<H>, places: Vec<Place>, bounds: Bounds) -> Found<Vec<u8>> {
    // Values go in as arguments, never as text of the script.
    ask(hosts, places, "[ -e \"$1\" ] || exit 44; exec cat -- \"$1\"", bounds).await
}

/// Lists the names in a directory on each of some hosts, side by side, the one that was changed last first.
pub async fn list_dirs<H: Hosts>(hosts: &Arc<H>, places: Vec<Place>, bounds: Bounds) -> Found<Vec<String>> {
    let found = ask(hosts, places, "[ -d \"$1\" ] || exit 44; exec ls -1t -- \"$1\"", bounds).await;
    let names = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    found.into_iter().map(|(host, read)| (host, read.map(|bytes| bytes.map(names)))).collect()
}

async fn ask<H: Hosts>(hosts: &Arc<H>, places: Vec<Place>, script: &'static str, bounds: Bounds) -> Found<Vec<u8>> {
    let turns = Arc::new(Semaphore::new(bounds.at_once.max(1)));
    let mut asking = JoinSet::new();
    let mut found = Found::new();
    for place in places {
        // A task that dies leaves this behind: never a host that is silently missing.
        found.insert(place.host.clone(), Err(format!("{}: asking it was given up", place.host)));
        let (hosts, turns) = (Arc::clone(hosts), Arc::clone(&turns));
        asking.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let late = || Err(format!("{}: no answer within {} s", place.host, bounds.time.as_secs()));
            let read = timeout(bounds.time, read(&*hosts, &place, script, bounds.bytes)).await.unwrap_or_else(|_| late());
            (place.host, read)
        });
    }
    while let Some(ended) = asking.join_next().await {
        if let Ok((host, read)) = ended {
            found.insert(host, read);
        }
    }
    found
}

/// Dropping the link at the end closes it, and ends what still runs there.
async fn read<H: Hosts>(hosts: &H, place: &Place, script: &str, bytes: usize) -> Result<Option<Vec<u8>>, String> {
    let Place { host, root, path } = place;
    let mut link = hosts.open(host, *root).await.map_err(|error| error.to_string())?;
    let argv = ["sh", "-c", script, "sh", path].map(str::to_owned).to_vec();
    if link.to.send(Outgoing::Message(ToAgent::Exec { id: ID, argv })).await.is_err() {
        return Err(format!("{host}: {}", closed_reason(&mut link.from).await));
    }
    let mut output = Vec::new();
    loop {
        match link.from.recv().await {
            Some(Incoming::Data { stream: ID, bytes: more, .. }) => {
                if output.len() + more.len() > bytes {
                    return Err(format!("{host}: {path} is larger than {bytes} bytes; look at it there"));
                }
                output.extend(more);
            }
            Some(Incoming::Message(FromAgent::Exited { id: ID, code, message })) => {
                return match code {
                    Some(0) => Ok(Some(output)),
                    Some(NOTHING) => Ok(None),
                    _ => {
                        let said = String::from_utf8_lossy(&output);
                        let said = said.lines().next().filter(|line| !line.is_empty()).unwrap_or(&message);
                        Err(format!("{host}: {path} cannot be read: {}", printable(said)))
                    }
                };
            }
            Some(Incoming::Message(FromAgent::Fatal { message })) => return Err(format!("{host}: {}", printable(&message))),
            Some(Incoming::Closed { reason }) => return Err(format!("{host}: {reason}")),
            None => return Err(format!("{host}: the connection ended")),
            Some(Incoming::Data { .. } | Incoming::Message(_)) => {}
        }
    }
}
