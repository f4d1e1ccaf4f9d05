//! Puts a run together from what its hosts hold, for a workstation that has nothing of it.

use super::claim::claim_hosts;
use super::remote::{Bounds, Found, Place, list_dirs, read_files};
use super::{Exit, Failure};
use crate::check;
use crate::hosts::Hosts;
use crate::plan::{self, FileCheck};
use crate::run::kept::Kept;
use crate::run::rebuild::{Ground, RebuildError, Rebuilt, rebuild, records};
use crate::view::text::sanitize;
use inventory::{Fleet, Host, fold_names};
use proto::event::Kind;
use proto::host::Record;
use proto::message::Claim;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a host may take: a person may have to type a password first.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most that a host's journal of a run may be.
const LARGEST: usize = 64 * 1024 * 1024;

/// A run as its hosts hold it.
#[derive(Debug)]
pub struct Gathered {
    /// The run, put together.
    pub rebuilt: Rebuilt,
    /// The hosts that hold something of it, each with the newest event of its journal.
    pub holders: BTreeMap<String, u64>,
}

/// Takes the hosts that hold a run, and puts together what they hold then. A controller that still lives elsewhere is refused from the
/// moment its host is taken: nothing happens any more that what was read does not have. `before` is what was read without taking anything.
///
/// # Errors
/// Those of [`gather`]; [`Exit::Locked`] when a host is somebody else's, and [`Exit::Unreachable`] when one cannot be taken now.
pub async fn take<H: Hosts>(fleet: &Fleet, hosts: &Arc<H>, before: Gathered, claim: &Claim) -> Result<Rebuilt, Failure> {
    let mut gathered = before;
    let mut taken: BTreeSet<String> = BTreeSet::new();
    // A host that the other controller reached first while the others were being taken is found by the next reading.
    loop {
        let new: BTreeMap<String, u64> = gathered.holders.into_iter().filter(|(host, _)| !taken.contains(host)).collect();
        let run = gathered.rebuilt.run.clone();
        if new.is_empty() {
            return Ok(gathered.rebuilt);
        }
        claim_hosts(fleet, hosts, &run, &new, claim).await?;
        taken.extend(new.into_keys());
        gathered = gather(fleet, hosts, Some(&run)).await?;
    }
}

/// Reads what all hosts of a fleet hold of a run, and puts it together. Without a name it is the run that was started last; a name can be
/// the unique beginning or end of an id. Changes nothing on any host, and claims nothing.
///
/// # Errors
/// [`Exit::Usage`] when there is no such run, or several that fit; [`Exit::Unreachable`] when hosts that hold a part of it did not
/// answer; [`Exit::Internal`] when what they hold is damaged or contradicts itself.
pub async fn gather<H: Hosts>(fleet: &Fleet, hosts: &Arc<H>, run: Option<&str>) -> Result<Gathered, Failure> {
    let bounds = Bounds { at_once: fleet.parallel.hosts, time: PATIENCE, bytes: LARGEST };
    let asked: Vec<&Host> = fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| !host.is_windows()).collect();
    let places = asked.iter().map(|host| Place::below_state(host, "runs")).collect();
    let listed = Listed::of(list_dirs(hosts, places, bounds).await);
    let candidates = listed.candidates(run)?;
    let mut journals = Vec::new();
    for id in candidates {
        journals.push(read(&id, &asked, &listed, hosts, bounds).await?);
    }
    let newest = journals.into_iter().max_by_key(|journal| journal.started.clone());
    let Journals { id, mut away, records, .. } = newest.ok_or_else(|| listed.nothing())?;
    away.extend(listed.away.clone());
    let unreached = || away.values().map(|reason| format!("{}\n", sanitize(reason))).collect::<String>();
    let ground = ground(fleet, &id)?;
    let mut rebuilt = rebuild(&id, &records, &ground).map_err(|error| {
        let exit = match error {
            RebuildError::Missing { .. } if !away.is_empty() => Exit::Unreachable,
            RebuildError::Nothing => Exit::Usage,
            _ => Exit::Internal,
        };
        Failure::new(exit, format!("{}error: run {id}: {}", unreached(), sanitize(&error.to_string())))
    })?;
    let unknown: Vec<&str> = fleet
        .platforms
        .iter()
        .filter(|platform| rebuilt.left_out.contains(&platform.name))
        .flat_map(|platform| &platform.hosts)
        .map(|host| host.name.as_str())
        .filter(|host| away.contains_key(*host))
        .collect();
    if !unknown.is_empty() {
        let text = format!(
            "{}error: run {id}: {} did not answer, and no other host of its platform holds anything of the run: what was done there is not known. Make it reachable, then try again",
            unreached(),
            fold_names(&unknown)
        );
        return Err(Failure::new(Exit::Unreachable, text));
    }
    if !is_held(&id, &asked, records.keys(), hosts, bounds).await {
        let text = format!(
            "error: run {id} holds none of its hosts any more: it came to its end, was aborted, or stopped before anything was touched. There is nothing to go on with; start a new run"
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    if !away.is_empty() {
        let names: Vec<&str> = away.keys().map(String::as_str).collect();
        rebuilt.notices.push(format!("{} did not answer; the run does not need them", fold_names(&names)));
    }
    let newest =
        |records: &[Record]| records.iter().rev().find_map(|r| if let Record::Event(e) = r { Some(e.host_seq) } else { None });
    let holders = records.iter().filter(|(_, records)| !records.is_empty());
    let holders = holders.map(|(host, records)| (host.clone(), newest(records).unwrap_or(0))).collect();
    Ok(Gathered { rebuilt, holders })
}

/// What hosts are held against: the inventory, and what can be planned on it.
fn ground(fleet: &Fleet, run: &str) -> Result<Ground, Failure> {
    let next = "what hosts keep is held against the inventory's own plan";
    let there = plan::build_with(fleet, &check::planned_queries, FileCheck::Optional)
        .map_err(|errors| Failure::new(Exit::Usage, format!("{errors}\nerror: {next}")))?;
    let platforms = fleet.platforms.iter().map(|platform| platform.name.clone()).collect();
    let questions = |host: &Host| check::passwords::queries(host).into_iter().chain(check::passwords::logon::query(host)).collect();
    let passwords = plan::passwords::build(fleet, &platforms, &questions)
        .map_err(|errors| Failure::new(Exit::Usage, format!("{errors}\nerror: {next}")))?;
    Ground::of(fleet, &[there, passwords], run).map_err(|error| Failure::new(Exit::Internal, format!("error: {error}")))
}

/// Whether a run has the lock of one of its hosts. A run that is over has let go of them all; what it did last is not in what hosts keep.
/// A lock that cannot be read may be its own.
async fn is_held<H: Hosts>(
    run: &str,
    asked: &[&Host],
    holders: impl Iterator<Item = &String>,
    hosts: &Arc<H>,
    bounds: Bounds,
) -> bool {
    let holders: BTreeSet<&String> = holders.collect();
    let places = asked.iter().filter(|host| holders.contains(&host.name)).map(|host| Place::below_state(host, "lock")).collect();
    let names_it = |bytes: &[u8]| {
        let lock: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
        lock.is_none_or(|lock| lock.get("run").and_then(|of| of.as_str()) == Some(run))
    };
    read_files(hosts, places, bounds).await.values().any(|found| match found {
        Ok(Some(bytes)) => names_it(bytes),
        Ok(None) => false,
        Err(_) => true,
    })
}

/// Which runs the hosts know.
struct Listed {
    /// By host, the one that was changed last first.
    runs: BTreeMap<String, Vec<String>>,
    /// Why others did not answer.
    away: BTreeMap<String, String>,
}

impl Listed {
    fn of(found: Found<Vec<String>>) -> Self {
        let mut listed = Self { runs: BTreeMap::new(), away: BTreeMap::new() };
        for (host, found) in found {
            match found {
                Ok(runs) => drop(listed.runs.insert(host, runs.unwrap_or_default().into_iter().filter(|id| is_id(id)).collect())),
                Err(reason) => drop(listed.away.insert(host, reason)),
            }
        }
        listed
    }

    /// The runs that can be meant: the named one, or for each host the newest.
    fn candidates(&self, wanted: Option<&str>) -> Result<BTreeSet<String>, Failure> {
        let Some(wanted) = wanted else { return Ok(self.runs.values().filter_map(|runs| runs.first().cloned()).collect()) };
        let all: BTreeSet<&String> = self.runs.values().flatten().collect();
        if let Some(id) = all.iter().find(|id| id.as_str() == wanted) {
            return Ok(BTreeSet::from([(*id).clone()]));
        }
        let fitting: Vec<&str> =
            all.into_iter().map(String::as_str).filter(|id| id.starts_with(wanted) || id.ends_with(wanted)).collect();
        match fitting.as_slice() {
            [] => Ok(BTreeSet::new()),
            [id] => Ok(BTreeSet::from([(*id).to_owned()])),
            several => {
                let text = format!("error: `{}` could be {}; give more of the id", sanitize(wanted), several.join(", "));
                Err(Failure::new(Exit::Usage, text))
            }
        }
    }

    fn nothing(&self) -> Failure {
        let reasons: String = self.away.values().map(|reason| format!("{}\n", sanitize(reason))).collect();
        let exit = if self.runs.is_empty() { Exit::Unreachable } else { Exit::Usage };
        Failure::new(exit, format!("{reasons}error: no host that answered holds such a run"))
    }
}

/// A run's id, as Caravan makes them. Other names in the directory are not ours.
fn is_id(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// What the hosts hold of one run.
struct Journals {
    id: String,
    /// When its controller started it, RFC 3339; empty where no host says so.
    started: String,
    records: BTreeMap<String, Vec<Record>>,
    away: BTreeMap<String, String>,
}

async fn read<H: Hosts>(id: &str, asked: &[&Host], listed: &Listed, hosts: &Arc<H>, bounds: Bounds) -> Result<Journals, Failure> {
    let file = format!("runs/{id}/journal.jsonl");
    let has = |host: &str| listed.runs.get(host).is_some_and(|runs| runs.iter().any(|run| run == id));
    let places = asked.iter().filter(|host| has(&host.name)).map(|host| Place::below_state(host, &file)).collect();
    let found = read_files(hosts, places, bounds).await;
    let mut journals = Journals { id: id.to_owned(), started: String::new(), records: BTreeMap::new(), away: BTreeMap::new() };
    for host in listed.runs.keys() {
        let bytes = match found.get(host) {
            None | Some(Ok(None)) => Vec::new(),
            Some(Ok(Some(bytes))) => bytes.clone(),
            Some(Err(reason)) => {
                journals.away.insert(host.clone(), reason.clone());
                continue;
            }
        };
        let records = records(&bytes).map_err(|line| {
            let text = format!(
                "error: {host}: line {line} of its journal of run {id} is damaged. Look at it there: nothing can be told for sure"
            );
            Failure::new(Exit::Internal, text)
        })?;
        journals.started = journals.started.max(started(&records).unwrap_or_default());
        journals.records.insert(host.clone(), records);
    }
    Ok(journals)
}

/// When the run that a host's journal is of was started.
fn started(records: &[Record]) -> Option<String> {
    let kept = records.iter().filter_map(|record| if let Record::Kept { lines } = record { Some(lines) } else { None });
    kept.flatten().find_map(|line| match Kept::from_line(line) {
        Ok(Kept::Line(line)) if matches!(line.event.kind, Kind::RunStarted { .. }) => Some(line.event.time),
        _ => None,
    })
}
