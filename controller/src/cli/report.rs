//! `report RUN`: the record for the change board.

use super::args::OutputFormat;
use super::pick;
use super::remote::{Bounds, Place, read_files};
use super::site::Site;
use super::status::{Recorded, failure, pretty, print};
use super::{Context, Exit, Failure};
use crate::hosts::Hosts;
use crate::plan::{Plan, PlatformPlan};
use crate::report::chain::{self, Held, HostHeads};
use crate::report::{Record, json, markdown};
use crate::run::store::RunDir;
use crate::run::{kept, rebuild};
use crate::view::View;
use inventory::Fleet;
use proto::event::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a host has to answer before the report does without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that a host's journal of a run may be.
const LARGEST: usize = 64 * 1024 * 1024;

/// What `report` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// The run: its id, or its unique beginning or end; the one that is driven now when left out, else the newest.
    pub run: Option<String>,
    /// Where to write it; standard output when left out.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Asks no host which heads of the journal it holds: then only simple edits of the journal are found.
    #[arg(long)]
    pub offline: bool,
}

/// Writes the record of a run. Its chain is looked at, and compared with the heads that the hosts hold of it.
///
/// # Errors
/// There is no such run, or the form is not there (2); the run cannot be read or the file not written (7).
pub async fn run(context: &Context, args: &ReportArgs, format: Option<OutputFormat>) -> Result<Exit, Failure> {
    let render: fn(&View, &Record) -> Result<String, Failure> = match format {
        None | Some(OutputFormat::Markdown) => |view, record| Ok(markdown(view, record)),
        Some(OutputFormat::Json) => |view, record| pretty(&json(view, record)),
        Some(OutputFormat::Text | OutputFormat::Html | OutputFormat::Junit) => {
            return Err(Failure::new(Exit::Usage, "error: this version writes reports with --format markdown or --format json"));
        }
    };
    let found = pick::shown(context, args.run.as_deref())?;
    let answers = ask_hosts(context, args, &found).await?;
    // Read after the hosts were: what they were told meanwhile is in it.
    let recorded = Recorded::read(&found)?;
    let mut chain = chain::look(&recorded.bytes, &recorded.events);
    chain.hosts = match answers {
        Ok(answers) => compare(&recorded, &answers),
        Err(why) => HostHeads { unasked: Some(why), ..HostHeads::default() },
    };
    let sound = chain.is_sound();
    let record = Record { dir: found.path.display().to_string(), chain: Some(chain), ..Record::default() };
    let text = render(&recorded.view(&found), &record)?;
    let exit = match &args.output {
        None => print(&text)?,
        Some(path) => match std::fs::write(path, text) {
            Ok(()) => Exit::Ok,
            Err(error) => return Err(Failure::new(Exit::Internal, format!("cannot write {}: {error}", path.display()))),
        },
    };
    match &record.chain {
        Some(chain) if !sound => {
            let damage = chain.damage.map(|damage| damage.to_string());
            damage.into_iter().chain(chain.hosts.accusation()).for_each(|what| say!("error: the journal of {}: {what}", found.id));
            Ok(Exit::Failed)
        }
        _ => Ok(exit),
    }
}

/// What each host of a run answered: its journal of it, that it has none, or why it did not answer.
type Answers = BTreeMap<String, Result<Option<Vec<u8>>, String>>;

/// Asks the hosts of a run for their journals of it; the inner error says why nobody was asked. A host that does not answer soon is left
/// out: the report does not wait for it, nor for a person who would have to type a password.
async fn ask_hosts(context: &Context, args: &ReportArgs, run: &RunDir) -> Result<Result<Answers, String>, Failure> {
    if args.offline {
        return Ok(Err("--offline".to_owned()));
    }
    let site = match Site::open_unattended(context) {
        Ok(site) => site,
        Err(_) if !context.inventory.exists() => return Ok(Err(format!("there is no inventory {}", context.inventory.display()))),
        Err(_) => return Ok(Err(format!("the inventory {} cannot be used", context.inventory.display()))),
    };
    let plan = run.plan().map_err(failure)?;
    Ok(Ok(ask(&site.fleet, &site.hosts, run, &plan).await))
}

/// All hosts of the plan are asked, whatever the journal says of them: lines can be missing in it.
async fn ask<H: Hosts>(fleet: &Fleet, hosts: &Arc<H>, run: &RunDir, plan: &Plan) -> Answers {
    let planned: BTreeSet<&str> = plan.platforms.iter().flat_map(PlatformPlan::steps).map(|step| step.host.as_str()).collect();
    let known = fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| !host.is_windows());
    let file = format!("runs/{}/journal.jsonl", run.id);
    let places = known.filter(|host| planned.contains(host.name.as_str())).map(|host| Place::below_state(host, &file)).collect();
    let bounds = Bounds { at_once: fleet.parallel.hosts, time: PATIENCE, bytes: LARGEST };
    read_files(hosts, places, bounds).await
}

/// Compares a journal with what its hosts hold of it.
fn compare(recorded: &Recorded, answers: &Answers) -> HostHeads {
    let granted: BTreeSet<&str> = recorded
        .events
        .iter()
        // Facts are read beside a run: no host writes anything down about them.
        .filter(|event| matches!(&event.kind, Kind::StepGranted { action, .. } if action != "inspect"))
        .filter_map(|event| event.scope.host.as_deref())
        .collect();
    let own = kept::record_of(&recorded.events);
    let (mut held, mut away, mut elsewhere) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let asked = answers.keys().map(String::as_str);
    for host in asked.chain(granted.iter().copied()).collect::<BTreeSet<_>>() {
        let records = match answers.get(host) {
            Some(Ok(Some(bytes))) => rebuild::records(bytes).map_err(|line| format!("line {line} of its journal is damaged")),
            Some(Ok(None)) => Err("it has no journal of this run any more".to_owned()),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("it is not in the inventory any more".to_owned()),
        };
        match records {
            Ok(records) => {
                let (grants, left) = kept::grants(&records, &own);
                held.insert(host.to_owned(), grants.into_iter().map(|(head, steps)| Held { head, steps }).collect());
                elsewhere.extend(left.then(|| host.to_owned()));
            }
            // A host that was granted nothing is not missed.
            Err(reason) if granted.contains(host) => drop(away.insert(host.to_owned(), reason)),
            Err(_) => {}
        }
    }
    HostHeads { away, elsewhere, ..chain::compare(&recorded.bytes, &recorded.events, &held) }
}
