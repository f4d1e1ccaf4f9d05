//! Takes hosts for a run before anything of it is read, for a controller that has no record of its own.

use super::exec::closed_reason;
use super::{Exit, Failure};
use crate::hosts::{Hosts, Incoming, Outgoing};
use crate::ssh::text::printable;
use inventory::{BecomeMethod, Fleet, Host};
use proto::message::Claim;
use proto::{FromAgent, ToAgent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a host may take: a person may have to type a password first.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes hosts, each given with the newest event that was read of it: of each platform the lowest-named one first and the others behind
/// it, so that of two who want the same platform one gets all of it.
///
/// # Errors
/// All hosts that could not be taken: [`Exit::Locked`] where one is somebody else's, else [`Exit::Unreachable`].
pub(super) async fn claim_hosts<H: Hosts>(
    fleet: &Fleet,
    hosts: &Arc<H>,
    run: &str,
    wanted: &BTreeMap<String, u64>,
    claim: &Claim,
) -> Result<(), Failure> {
    let mut rounds: [Vec<(&Host, u64)>; 2] = Default::default();
    for platform in &fleet.platforms {
        let mut of_platform: Vec<_> = platform.hosts.iter().filter_map(|host| Some((host, *wanted.get(&host.name)?))).collect();
        of_platform.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let mut of_platform = of_platform.into_iter();
        rounds[0].extend(of_platform.next());
        rounds[1].extend(of_platform);
    }
    for round in rounds {
        claim_round(hosts, run, round, claim, fleet.parallel.hosts).await?;
    }
    Ok(())
}

async fn claim_round<H: Hosts>(
    hosts: &Arc<H>,
    run: &str,
    round: Vec<(&Host, u64)>,
    claim: &Claim,
    at_once: usize,
) -> Result<(), Failure> {
    let turns = Arc::new(Semaphore::new(at_once.max(1)));
    let mut asking = JoinSet::new();
    for (host, acked) in round {
        let (name, root) = (host.name.clone(), host.become_.method != BecomeMethod::None);
        let (run, host_state, claim) = (run.to_owned(), host.host_state.clone(), claim.clone());
        let attach = ToAgent::Attach { run, host_state, claim, acked, output: BTreeMap::new(), keep: Vec::new() };
        let (hosts, turns) = (Arc::clone(hosts), Arc::clone(&turns));
        asking.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let late = || Err((Exit::Unreachable, format!("{name}: no answer within {} s", PATIENCE.as_secs())));
            timeout(PATIENCE, claim_one(&*hosts, &name, root, attach)).await.unwrap_or_else(|_| late())
        });
    }
    let mut denied: Vec<(Exit, String)> = Vec::new();
    while let Some(ended) = asking.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(why)) => denied.push(why),
            Err(error) => denied.push((Exit::Internal, format!("taking a host was given up: {error}"))),
        }
    }
    if denied.is_empty() {
        return Ok(());
    }
    denied.sort_by(|a, b| a.1.cmp(&b.1));
    let locked = denied.iter().any(|(exit, _)| *exit == Exit::Locked);
    let reasons: Vec<String> = denied.into_iter().map(|(_, reason)| format!("error: {reason}")).collect();
    let text = format!("{}\nNothing was granted.", reasons.join("\n"));
    Err(Failure::new(if locked { Exit::Locked } else { Exit::Unreachable }, text))
}

/// Dropping the link at the end closes it; the host stays this controller's, and its supervisor waits for it.
async fn claim_one<H: Hosts>(hosts: &H, host: &str, root: bool, attach: ToAgent) -> Result<(), (Exit, String)> {
    let away = |reason: String| (Exit::Unreachable, reason);
    let mut link = hosts.open(host, root).await.map_err(|error| away(error.to_string()))?;
    if link.to.send(Outgoing::Message(attach)).await.is_err() {
        return Err(away(format!("{host}: {}", closed_reason(&mut link.from).await)));
    }
    loop {
        match link.from.recv().await {
            // What another run still has running there is waited for when the run goes on.
            Some(Incoming::Message(FromAgent::Attached { .. } | FromAgent::Busy { .. })) => return Ok(()),
            Some(Incoming::Message(FromAgent::Refused { reason })) => {
                return Err((Exit::Locked, format!("{host}: {}", printable(&reason))));
            }
            Some(Incoming::Message(FromAgent::Fatal { message })) => return Err(away(format!("{host}: {}", printable(&message)))),
            Some(Incoming::Closed { reason }) => return Err(away(format!("{host}: {reason}"))),
            None => return Err(away(format!("{host}: the connection ended"))),
            Some(Incoming::Data { .. } | Incoming::Message(_)) => {}
        }
    }
}
