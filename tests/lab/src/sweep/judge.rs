//! Whether a run that was disturbed ended as an undisturbed one does: by the hosts' own records, by what is left on them, and by
//! Caravan's journal.

use super::site::Site;
use crate::either::Fleet;
use crate::verdict;
use controller::run::store::Store;
use lab::Event;
use proto::Action;
use proto::event::{Kind, RunOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long supervisors may take to end after their run.
const GRACE: Duration = Duration::from_secs(10);

/// How often something was done: host, what, to what.
pub(super) type Done = BTreeMap<(String, String, String), usize>;

/// What the hosts' programs were made to do. Reading is left out: it may be done as often as one likes.
pub(super) fn done(lab: &dyn Fleet) -> io::Result<Done> {
    let mut done = Done::new();
    for record in lab.records()? {
        if !matches!(record.event, Event::DumpListed | Event::PostupgradeChecked | Event::Violation(_)) {
            *done.entry((record.host, format!("{:?}", record.event), record.subject)).or_default() += 1;
        }
    }
    Ok(done)
}

/// What is not as it should be after a disturbed run. `clean` is what an undisturbed one does.
pub(super) fn judge(site: &Site, clean: &Done) -> io::Result<Vec<String>> {
    let mut wrong = verdict::judge(site.fleet(), &site.state())?.wrong;
    let done = done(site.fleet())?;
    let all: BTreeSet<_> = clean.keys().chain(done.keys()).collect();
    for key in all {
        let (expected, seen) = (clean.get(key).copied().unwrap_or(0), done.get(key).copied().unwrap_or(0));
        if expected != seen {
            let (host, what, subject) = key;
            wrong.push(format!("{host}: {what} of {subject} {seen} times instead of {expected}"));
        }
    }
    journal(&site.state(), &mut wrong);
    left_behind(site.fleet(), &mut wrong);
    still_locked(site.fleet(), &mut wrong)?;
    Ok(wrong)
}

/// The journal is whole, says that the run ended well, and has each step proven once; what only reads may have been asked again.
fn journal(state: &Path, wrong: &mut Vec<String>) {
    let read = Store::new(state).find(None).and_then(|run| Ok((run.plan()?, run.chain()?)));
    let (plan, chain) = match read {
        Ok(read) => read,
        Err(error) => return wrong.push(format!("the run's record: {error}")),
    };
    if chain.torn > 0 || chain.broken_at.is_some() {
        wrong.push(format!("the journal is not whole: {} torn bytes, chain broken at {:?}", chain.torn, chain.broken_at));
    }
    match chain.events.last().map(|event| &event.kind) {
        Some(Kind::RunFinished { outcome: RunOutcome::Ok, .. }) => {}
        last => wrong.push(format!("the journal does not end with a run that ended well but with {last:?}")),
    }
    let mut proofs: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &chain.events {
        let proven = matches!(&event.kind, Kind::StepFinished { outcome, .. } if outcome.is_proof());
        if let (true, Some(step)) = (proven, &event.scope.step) {
            *proofs.entry(step).or_default() += 1;
        }
    }
    let steps = plan.platforms.iter().flat_map(|platform| &platform.phases).flat_map(|phase| &phase.stages).flat_map(|s| &s.steps);
    for step in steps {
        let count = proofs.get(step.id.0.as_str()).copied().unwrap_or(0);
        let reads = matches!(step.spec.action, Action::Inspect { .. });
        if count == 0 || (count > 1 && !reads) {
            wrong.push(format!("the journal has {} proven {count} times instead of once", step.id.0));
        }
    }
}

/// Supervisors end with their run.
fn left_behind(lab: &dyn Fleet, wrong: &mut Vec<String>) {
    let until = Instant::now() + GRACE;
    loop {
        let left: Vec<String> =
            lab.layout().hosts().filter(|host| lab::agent::supervisor(host).is_some()).map(|h| h.name.clone()).collect();
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            return wrong.push(format!("a supervisor still runs on {}", left.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A run that ended well has let go of its hosts: the next one need not take them over.
fn still_locked(lab: &dyn Fleet, wrong: &mut Vec<String>) -> io::Result<()> {
    for host in lab.layout().hosts() {
        let bytes = match fs::read(host.host_state().join("lock")) {
            // Nobody ever had the host: what else was not done there is told already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let lock: serde_json::Value = serde_json::from_slice(&bytes)?;
        if let Some(run) = lock.get("run").and_then(|run| run.as_str()).filter(|run| !run.is_empty()) {
            wrong.push(format!("{} is still locked by run {run}", host.name));
        }
    }
    Ok(())
}
