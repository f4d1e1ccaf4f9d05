//! Saved plans: `plan -o FILE` writes one with the facts it rests on, `migrate FILE` refuses it once the inventory or a fact has moved.

use super::migrate::build_plan;
use super::site::Site;
use super::start::operator;
use super::{Exit, Failure};
use crate::check::passwords::ProofKey;
use crate::check::{self, Facts, Ground, HostState, Limits, Moved};
use crate::hosts::Hosts;
use crate::plan::{Plan, digest};
use crate::view::text::{count, sanitize};
use inventory::Fleet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// The version of the file's form.
const FORM: u64 = 1;
/// The key under which a file says that it is a saved plan, and in which form.
const MARK: &str = "caravan_plan";
/// The key of the digest of everything else.
const SEAL: &str = "sha256";

/// What the file holds, beside [`SEAL`]. It holds no secret: the inventory says where secrets are, not what they are.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(rename = "caravan_plan")]
    form: u64,
    /// Caravan's version.
    caravan: String,
    /// When it was saved, RFC 3339 UTC.
    saved: Timestamp,
    /// Who saved it: account and workstation.
    operator: String,
    inventory: Inventory,
    facts: Facts,
    plan: Plan,
}

/// The resolved inventory.
#[derive(Debug, Serialize, Deserialize)]
struct Inventory {
    /// SHA-256 of its canonical JSON.
    digest: String,
    content: Value,
}

/// What the hosts said.
struct Seen {
    facts: Facts,
    /// Why others said nothing.
    away: Vec<String>,
}

/// Plans a fleet, reads the facts that the plan rests on, and writes both to a file: whole or not at all, readable by its owner alone.
///
/// # Errors
/// [`Exit::Usage`] for a fleet that cannot be planned, [`Exit::Unreachable`] when the facts of a host cannot be read,
/// [`Exit::Internal`] when the file cannot be written.
pub async fn write<H: Hosts>(path: &Path, fleet: &Fleet, hosts: &Arc<H>) -> Result<Plan, Failure> {
    let plan = build_plan(fleet)?;
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Internal, format!("error: {} cannot be written: {error}", path.display()))
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // First, so that nobody waits for a fleet to answer and then has nowhere to put it.
    let mut file = tempfile::Builder::new().prefix(".caravan-plan-").tempfile_in(dir).map_err(|error| cannot(&error))?;
    let Seen { facts, away } = look(fleet, hosts, &all_hosts(fleet, |_| true)).await?;
    if !away.is_empty() {
        let away = away.join("\n");
        let next = "A plan is saved with the facts of every host; nothing was written.";
        return Err(Failure::new(Exit::Unreachable, format!("{away}\nerror: {} not written. {next}", path.display())));
    }
    let content = serde_json::to_value(fleet).map_err(|error| cannot(&error))?;
    let plan = Plan { hash: hash(&content, &plan, &facts).map_err(|error| cannot(&error))?, ..plan };
    let saved = Saved {
        form: FORM,
        caravan: env!("CARGO_PKG_VERSION").to_owned(),
        saved: Timestamp::now(),
        operator: operator(),
        inventory: Inventory { digest: digest(&content).map_err(|error| cannot(&error))?, content },
        facts,
        plan,
    };
    let text = sealed(&saved).map_err(|error| cannot(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|error| cannot(&error))?;
    file.persist(path).map_err(|error| cannot(&error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| cannot(&error))?;
    Ok(saved.plan)
}

/// The plan of a saved file, once it is proven that it still fits: the inventory is the same, the steps would be the same, and every
/// host of the platforms that take part answers with the same facts. Nothing is changed on any host.
///
/// # Errors
/// [`Exit::Usage`] for a file that is no saved plan or was edited, [`Exit::Moved`] with the list of differences when the fleet moved,
/// [`Exit::Unreachable`] when the facts of a host cannot be read.
pub(super) async fn open(path: &Path, site: &Site, platforms: &BTreeSet<String>) -> Result<Plan, Failure> {
    read(path, &site.fleet, &site.hosts, platforms).await
}

/// As `open`, over any transport.
///
/// # Errors
/// [`Exit::Usage`] for a file that is no saved plan or was edited, [`Exit::Moved`] with the list of differences when the fleet moved,
/// [`Exit::Unreachable`] when the facts of a host cannot be read.
pub async fn read<H: Hosts>(path: &Path, fleet: &Fleet, hosts: &Arc<H>, platforms: &BTreeSet<String>) -> Result<Plan, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("error: the plan {} cannot be read: {error}", path.display())))?;
    let saved = unseal(&bytes).map_err(|problem| {
        let next = "Save a plan with: caravan plan -o FILE (a new name: -o replaces what is there)";
        Failure::new(Exit::Usage, format!("error: {} {problem}. {next}", path.display()))
    })?;
    let plan = build_plan(fleet)?;
    let internal =
        |error: serde_json::Error| Failure::new(Exit::Internal, format!("error: the inventory has no JSON form: {error}"));
    let content = serde_json::to_value(fleet).map_err(internal)?;
    let mut asked = all_hosts(fleet, |platform| platforms.contains(platform));
    let Seen { facts, away } = look(fleet, hosts, &asked).await?;
    asked.retain(|host| facts.contains_key(host));
    let was = Ground { inventory: &saved.inventory.content, facts: &saved.facts, plan: &saved.plan };
    let is = Ground { inventory: &content, facts: &facts, plan: &plan };
    let moved = Moved::between(was, is, &asked);
    let mut problems: String = away.iter().map(|reason| format!("{reason}\n")).collect();
    if moved.is_empty() && away.is_empty() {
        return Ok(saved.plan);
    }
    let by = format!("saved {} by {} with Caravan {}", saved.saved.strftime("%Y-%m-%d %H:%M UTC"), saved.operator, saved.caravan);
    let (exit, what, next) = if moved.is_empty() {
        let what = format!("the facts of {} cannot be compared", count(away.len(), "host"));
        (Exit::Unreachable, what, "Make them reachable, then start again.".to_owned())
    } else {
        problems.push_str(&moved.to_string());
        let next = format!("Look at what moved, then plan again: caravan plan -o {}", path.display());
        (Exit::Moved, "the fleet has moved since".to_owned(), next)
    };
    let text = format!("{problems}error: {} ({}) is refused: {what}. Nothing was touched. {next}", path.display(), sanitize(&by));
    Err(Failure::new(exit, text))
}

/// The hosts of the platforms that `takes_part` names.
fn all_hosts(fleet: &Fleet, takes_part: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let platforms = fleet.platforms.iter().filter(|platform| takes_part(&platform.name));
    platforms.flat_map(|platform| &platform.hosts).map(|host| host.name.clone()).collect()
}

/// Reads the facts of some hosts.
async fn look<H: Hosts>(fleet: &Fleet, hosts: &Arc<H>, selected: &BTreeSet<String>) -> Result<Seen, Failure> {
    let key = ProofKey::new().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let states = check::gather_facts(hosts, fleet, selected, &key, Limits::of(fleet)).await;
    let mut seen = Seen { facts: BTreeMap::new(), away: Vec::new() };
    for host in fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| selected.contains(&host.name)) {
        match states.get(&host.name) {
            Some(HostState::Unreachable { reason, .. }) => seen.away.push(sanitize(reason).into_owned()),
            state => {
                let facts = check::facts_of(host, state.and_then(HostState::reached));
                seen.facts.insert(host.name.clone(), facts);
            }
        }
    }
    Ok(seen)
}

/// The hash of a plan that rests on facts: of the inventory, the steps and the facts.
fn hash(inventory: &Value, plan: &Plan, facts: &Facts) -> Result<String, serde_json::Error> {
    digest(&serde_json::json!({ "inventory": inventory, "platforms": plan.platforms, "facts": facts }))
}

/// The file's text, with the digest of everything in it.
fn sealed(saved: &Saved) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(saved)?;
    let seal = digest(&value)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert(SEAL.to_owned(), Value::String(seal));
    }
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Takes a file's text apart; an error says what is wrong with the file.
fn unseal(bytes: &[u8]) -> Result<Saved, String> {
    let other = || "is no plan that `caravan plan -o` saved".to_owned();
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| format!("{}: {error}", other()))?;
    let form = value.get(MARK).and_then(Value::as_u64).ok_or_else(other)?;
    let version = value.get("caravan").and_then(Value::as_str).map_or("of another version".into(), sanitize).into_owned();
    if form != FORM {
        let own = env!("CARGO_PKG_VERSION");
        return Err(format!("has form {form}, saved by Caravan {version}; this one ({own}) reads form {FORM}"));
    }
    let seal = value.as_object_mut().and_then(|fields| fields.remove(SEAL));
    let digest_of = |value: &Value| digest(value).map_err(|error| format!("cannot be compared with its digest: {error}"));
    let found = digest_of(&value)?;
    if seal.as_ref().and_then(Value::as_str) != Some(&found) {
        return Err(format!(
            "was edited or damaged after it was saved: its content has the SHA-256 {found}, and it does not say so"
        ));
    }
    let saved: Saved =
        serde_json::from_value(value).map_err(|error| format!("cannot be understood, Caravan {version} saved it: {error}"))?;
    let hash = hash(&saved.inventory.content, &saved.plan, &saved.facts).map_err(|error| error.to_string())?;
    if hash != saved.plan.hash || digest_of(&saved.inventory.content)? != saved.inventory.digest {
        return Err(format!("does not fit itself: the plan's hash is {}, its content has {hash}", sanitize(&saved.plan.hash)));
    }
    Ok(saved)
}
