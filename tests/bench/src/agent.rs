//! How large the agent is, on disk, on the wire and in memory.

use crate::measure::memory_kib;
use crate::server::Server;
use crate::site::Site;
use crate::{Cli, cpu, table};
use anyhow::{anyhow, bail};
use controller::hosts::{Hosts, Incoming, Link, Outgoing};
use controller::secrets::Secrets;
use controller::ssh::{AGENTS, SshHosts, SshOptions};
use proto::message::Claim;
use proto::{FromAgent, ToAgent};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const DISK_KIB: f64 = 1.8 * 1024.0;
const WIRE_KIB: f64 = 800.0;
const RESIDENT_KIB: f64 = 4.0 * 1024.0;
/// How long an agent has to say something.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing happens before memory is looked at.
const QUIET: Duration = Duration::from_millis(500);

/// Measures the agent.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<()> {
    let site = Site::new(1, cli.account.as_deref())?;
    let server = Server::start(&site)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let resident = runtime.block_on(resident(&site, server.pid()));
    runtime.shutdown_background();
    server.stop()?;
    let mut text = String::new();
    for agent in AGENTS {
        table::target(&mut text, &format!("{} on disk, KiB", agent.target), agent.size as f64 / 1024.0, DISK_KIB);
        table::target(&mut text, &format!("{} on the wire, KiB", agent.target), agent.gzip.len() as f64 / 1024.0, WIRE_KIB);
    }
    for (mode, resident) in resident? {
        table::target(&mut text, &format!("{mode}, idle, resident KiB"), resident as f64, RESIDENT_KIB);
    }
    print!("{text}");
    Ok(())
}

/// The memory of the idle bridge and the idle supervisor of one run.
async fn resident(site: &Site, server: u32) -> anyhow::Result<Vec<(String, u64)>> {
    let fleet = inventory::load(&site.files().inventory()).map_err(|problems| anyhow!("{}", problems.render(false)))?.fleet;
    // Nothing of the account that runs the bench.
    let options = SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() };
    let hosts =
        SshHosts::new(&fleet, Arc::new(Secrets::new(&fleet.base)), options).map_err(|failure| anyhow!("{}", failure.message))?;
    let Some(host) = fleet.platforms.iter().flat_map(|platform| &platform.hosts).next() else { bail!("the fleet has no host") };
    let mut link = hosts.open(&host.name, false).await?;
    let attach = ToAgent::Attach {
        run: "bench".to_owned(),
        host_state: host.host_state.clone(),
        claim: Claim { controller: "bench".to_owned(), ..Claim::default() },
        acked: 0,
        output: std::collections::BTreeMap::new(),
        keep: Vec::new(),
    };
    link.to.send(Outgoing::Message(attach)).await?;
    wait_for(&mut link, |message| matches!(message, FromAgent::Attached { .. })).await?;
    tokio::time::sleep(QUIET).await;
    // The supervisor is a child of the bridge, and so of sshd, as long as the bridge lives.
    let found: Vec<(String, u64)> =
        cpu::descendants(server).into_iter().filter_map(|pid| Some((mode(pid)?, memory_kib(pid, "VmRSS")))).collect();
    link.to.send(Outgoing::Message(ToAgent::Finish { release: true })).await?;
    wait_for(&mut link, |message| *message == FromAgent::Finished).await?;
    if found.len() != 2 {
        bail!("expected a bridge and a supervisor, found {found:?}");
    }
    Ok(found)
}

async fn wait_for(link: &mut Link, wanted: impl Fn(&FromAgent) -> bool) -> anyhow::Result<()> {
    loop {
        match tokio::time::timeout(PATIENCE, link.from.recv()).await? {
            Some(Incoming::Message(message)) if wanted(&message) => return Ok(()),
            Some(Incoming::Closed { reason }) => bail!("the conversation ended: {reason}"),
            None => bail!("the conversation ended"),
            Some(_) => {}
        }
    }
}

/// The mode of an agent's process; nothing for other programs.
fn mode(pid: u32) -> Option<String> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    words.get(1).filter(|mode| ["bridge", "supervisor"].contains(&mode.as_str())).cloned()
}
