//! `caravan passwords set`: sets the `internal` password on all Campaign servers of platforms. A run like any other.

use super::super::check::{Outcome, to_json};
use super::super::page::{Mark, Page};
use super::super::site::{Site, whole_platforms};
use super::super::start::{self, Drive, RunArgs};
use super::super::{Context, Exit, Failure, Format};
use super::proof::prove;
use super::typed::{PasswordArg, Source};
use crate::check::{fold, passwords};
use crate::plan::passwords::{SET, build};
use crate::plan::{Plan, PlatformPlan};
use crate::run::journal::Journal;
use crate::run::state::Bounds;
use crate::run::store::Store;
use crate::secrets::Secrets;
use crate::view::text::{count, pad};
use inventory::{Fleet, Host, Platform};
use proto::event::{Finding, Kind, Outcome as StepOutcome, Status};
use proto::{Event, Secret};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The longest password that is typed: a terminal takes lines of 4096 bytes, and nobody has so long a password.
const LONGEST: usize = 1000;

/// Where and with what.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordsSetArgs {
    /// Only these platforms (`platform:NAME`, joined by commas). A platform's servers get it together.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// Where the password is that is set now: env:NAME, file:PATH or command:PROGRAM ARGS. Asked for once a platform when left out; it
    /// is empty where none is set.
    #[arg(long, value_name = "REFERENCE")]
    pub current: Option<PasswordArg>,
    /// Where the new password is: env:NAME, file:PATH, command:PROGRAM ARGS, or stdin. Asked for twice a platform when left out.
    #[arg(long, value_name = "REFERENCE")]
    pub new: Option<PasswordArg>,
    #[command(flatten)]
    pub(crate) with: RunArgs,
    /// Start without asking. Answers the start question and nothing else.
    #[arg(long)]
    pub yes: bool,
}

/// Sets the password on every selected platform, proves it by stored values and by logons, and says which servers have which.
///
/// # Errors
/// Anything that keeps the run from starting, and a record that cannot be kept.
pub(crate) async fn set(context: &Context, args: &PasswordsSetArgs) -> Result<Outcome, Failure> {
    let site = Site::open(context)?;
    let fleet = &site.fleet;
    let platforms = match &args.on {
        Some(text) => whole_platforms(fleet, text, ("--on", "the servers of a platform get a password together"))?,
        None => fleet.platforms.iter().map(|platform| platform.name.clone()).collect(),
    };
    let questions =
        |host: &Host| -> Vec<proto::Query> { passwords::queries(host).into_iter().chain(passwords::logon::query(host)).collect() };
    let plan = build(fleet, &platforms, &questions).map_err(|errors| Failure::new(Exit::Internal, errors.to_string()))?;
    start::check_ids(&plan, fleet, &args.with)?;
    let sources = (Source::of(args.current.as_ref(), "--current")?, Source::of(args.new.as_ref(), "--new")?);
    if !args.yes {
        ask_to_start(&plan)?;
    }
    let typed = ask(&plan, &sources, &site.secrets).await?;
    let hosts = start::host_options(fleet, &plan, &platforms, &site.secrets, false).await?;
    let (dir, plan) = Store::new(&context.state_dir).create(&plan).map_err(|e| start::internal(&e))?;
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id).map_err(|e| start::journal_failure(&e))?;
    let drive = Drive {
        command: "passwords set",
        dir: dir.clone(),
        plan: plan.clone(),
        journal,
        hosts,
        left: None,
        bounds: Bounds {
            platforms,
            limit: None,
            parallel_platforms: fleet.parallel.platforms,
            parallel_hosts: fleet.parallel.hosts,
            conditions: Default::default(),
        },
        limit_text: None,
        overridden: BTreeMap::new(),
        claim: start::claim(context, &args.with, None)?,
        abort: None,
    };
    // The events of the run are in its record; what is printed here, in either form, is what became of the servers.
    let shown = Context { format: Format::Text, ..context.clone() };
    let exit = start::drive(&shown, &site, &args.with, drive).await?;
    if matches!(exit, Exit::Locked | Exit::Internal | Exit::Detached) {
        // Nothing was begun, or it goes on: there is nothing to tell yet.
        return Ok(Outcome { text: String::new(), exit });
    }
    let events = dir.events().map_err(|e| start::internal(&e))?;
    let mut fates: Vec<Fate> = plan.platforms.iter().map(|platform| Fate::of(&dir.id, platform, &events)).collect();
    if fates.iter().any(|fate| !fate.old.is_empty() || !fate.unknown.is_empty()) {
        look_again(&site, fleet, &typed, &mut fates).await?;
    }
    let text = match context.format {
        Format::Json => {
            #[derive(Serialize)]
            struct Report<'a> {
                run: &'a str,
                platforms: &'a [Fate],
            }
            to_json(&Report { run: &dir.id, platforms: &fates })?
        }
        Format::Text => page(context, &fates),
    };
    Ok(Outcome { text, exit })
}

fn ask_to_start(plan: &Plan) -> Result<(), Failure> {
    let servers = |platform: &PlatformPlan| {
        let hosts: Vec<&str> = servers(platform).collect();
        format!("{} ({})", platform.name, fold(&hosts))
    };
    let platforms: Vec<String> = plan.platforms.iter().map(servers).collect();
    start::ask(&format!("Set the internal password on all servers of {}? Type yes: ", platforms.join(", ")))
}

/// The servers that get the password, in the order of the inventory.
fn servers(platform: &PlatformPlan) -> impl Iterator<Item = &str> {
    let set = platform.phases.first();
    set.into_iter().flat_map(|phase| &phase.stages).flat_map(|stage| &stage.steps).map(|step| step.host.as_str())
}

/// Fetches the passwords of a plan before anything is contacted, and has them at hand for its steps. Returns the new ones by platform.
async fn ask(plan: &Plan, (current, new): &(Source, Source), secrets: &Secrets) -> Result<BTreeMap<String, Secret>, Failure> {
    let mut typed = BTreeMap::new();
    for platform in &plan.platforms {
        let (old_label, new_label) = (start::current_label(&platform.name), start::new_label(&platform.name));
        let old = current.password(&old_label).await?;
        check(&old, &old_label)?;
        let password = new.password(&new_label).await?;
        if password.expose().is_empty() {
            return Err(wrong(&new_label, "it is empty, and v7 lets nobody connect without one"));
        }
        check(&password, &new_label)?;
        if new.is_typed() && new.password(&format!("{new_label}, once more")).await? != password {
            return Err(wrong(&new_label, "the two are not the same"));
        }
        secrets.answer(&old_label, old).await;
        secrets.answer(&new_label, password.clone()).await;
        typed.insert(platform.name.clone(), password);
    }
    Ok(typed)
}

/// As in `set`, for a run that is taken up again at the terminal.
pub(crate) async fn ask_again(plan: &Plan, secrets: &Secrets) -> Result<(), Failure> {
    ask(plan, &(Source::of(None, "--current")?, Source::of(None, "--new")?), secrets).await.map(|_| ())
}

fn check(password: &Secret, label: &str) -> Result<(), Failure> {
    if password.expose().chars().any(char::is_control) {
        return Err(wrong(label, "it has a control character in it, which cannot be typed at a terminal"));
    }
    if password.expose().len() > LONGEST {
        return Err(wrong(label, "it is longer than 1000 bytes"));
    }
    Ok(())
}

fn wrong(label: &str, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("error: {label}: {why}. Nothing was contacted."))
}

/// Which servers of a platform have which password.
#[derive(Debug, Serialize)]
struct Fate {
    name: String,
    /// They have the new one.
    new: Vec<String>,
    /// Theirs was not changed.
    old: Vec<String>,
    /// Nobody can tell.
    unknown: Vec<String>,
    /// Windows servers: a person sets it there, at a gate.
    by_hand: Vec<String>,
    #[serde(skip)]
    run: String,
    /// Why a server has not the new one.
    #[serde(skip)]
    reasons: BTreeMap<String, String>,
    /// What the proofs found.
    #[serde(skip)]
    findings: Vec<Finding>,
}

impl Fate {
    /// As the record of the run has it.
    fn of(run: &str, platform: &PlatformPlan, events: &[Event]) -> Self {
        let mut fate = Self {
            name: platform.name.clone(),
            new: Vec::new(),
            old: Vec::new(),
            unknown: Vec::new(),
            by_hand: Vec::new(),
            run: run.to_owned(),
            reasons: BTreeMap::new(),
            findings: Vec::new(),
        };
        for step in platform.steps().filter(|step| step.name == SET) {
            let host = step.host.clone();
            if step.action == "gate" {
                fate.by_hand.push(host);
                continue;
            }
            let of_step = events.iter().filter(|event| event.scope.step.as_ref() == Some(&step.id.0));
            let mut told = of_step.filter_map(|event| match &event.kind {
                Kind::StepGranted { .. } => Some((StepOutcome::Unknown, "it was begun, and its end is not known")),
                Kind::StepRevoked => Some((StepOutcome::Failed, "it was taken back before it began")),
                Kind::StepFinished { outcome, message, .. } => Some((*outcome, message.as_str())),
                _ => None,
            });
            let (outcome, reason) = told.next_back().unwrap_or((StepOutcome::Failed, "it was not begun"));
            let place = match outcome {
                StepOutcome::Ok | StepOutcome::Skipped => &mut fate.new,
                StepOutcome::Failed => &mut fate.old,
                StepOutcome::Unknown => &mut fate.unknown,
            };
            place.push(host.clone());
            if !matches!(outcome, StepOutcome::Ok | StepOutcome::Skipped) {
                fate.reasons.insert(host, reason.to_owned());
            }
        }
        let mut findings: BTreeMap<&str, &Finding> = BTreeMap::new();
        for event in events.iter().filter(|event| event.scope.platform.as_deref() == Some(&platform.name)) {
            if let Kind::Finding { finding } = &event.kind {
                findings.insert(&finding.id, finding);
            }
        }
        fate.findings = findings.into_values().cloned().collect();
        fate
    }

    /// What the servers themselves say now: one that accepts the new password has it, whatever the record says.
    fn take(&mut self, said: &passwords::logon::Said) {
        let accepted = |host: &String| said.accepted.contains(host);
        let refused = |host: &String| said.refused.contains_key(host);
        for host in std::mem::take(&mut self.unknown) {
            match (accepted(&host), refused(&host)) {
                (true, _) => self.new.push(host),
                (_, true) => self.old.push(host),
                _ => self.unknown.push(host),
            }
        }
        let found: Vec<String> = self.old.iter().filter(|host| accepted(host)).cloned().collect();
        self.old.retain(|host| !found.contains(host));
        self.new.extend(found);
        // It said that it has changed it, and does not take it.
        let doubtful: Vec<String> = self.new.iter().filter(|host| refused(host)).cloned().collect();
        self.new.retain(|host| !doubtful.contains(host));
        for host in doubtful {
            self.reasons.insert(host.clone(), "it said that it has the new one, and refuses it at its own endpoint".to_owned());
            self.unknown.push(host);
        }
        self.reasons.retain(|host, _| !self.new.contains(host));
        [&mut self.new, &mut self.old, &mut self.unknown].into_iter().for_each(|hosts| hosts.sort());
    }
}

/// Asks the servers of the platforms where not all have the new one.
async fn look_again(site: &Site, fleet: &Fleet, typed: &BTreeMap<String, Secret>, fates: &mut [Fate]) -> Result<(), Failure> {
    let open: BTreeSet<&str> =
        fates.iter().filter(|fate| !fate.old.is_empty() || !fate.unknown.is_empty()).map(|fate| fate.name.as_str()).collect();
    let platforms: Vec<&Platform> = fleet.platforms.iter().filter(|platform| open.contains(platform.name.as_str())).collect();
    let (proofs, _) = prove(fleet, &platforms, &site.hosts, typed).await?;
    for (platform, proof) in proofs {
        let fate = fates.iter_mut().find(|fate| fate.name == platform.name);
        if let (Some(fate), Some(said)) = (fate, &proof.logon) {
            fate.take(said);
        }
    }
    Ok(())
}

fn page(context: &Context, fates: &[Fate]) -> String {
    let mut page = Page::new(context.color.0);
    for fate in fates {
        let servers = fate.new.len() + fate.old.len() + fate.unknown.len() + fate.by_hand.len();
        page.title(&["internal password", &fate.name, &count(servers, "server")]);
        let rows = [
            (Mark::Ok, "new", &fate.new),
            (Mark::Failure, "old", &fate.old),
            (Mark::Unknown, "unknown", &fate.unknown),
            (Mark::Warning, "by hand", &fate.by_hand),
        ];
        for (mark, name, hosts) in rows.into_iter().filter(|(_, _, hosts)| !hosts.is_empty()) {
            page.item(mark, &pad(name, 7), &pad(&count(hosts.len(), "host"), 8), &fold(hosts));
            for host in hosts.iter() {
                if let Some(reason) = fate.reasons.get(host) {
                    page.note("", &format!("{host}: {reason}"));
                }
            }
        }
        for finding in &fate.findings {
            let mark = match finding.status {
                Status::Ok => Mark::Ok,
                Status::Warning => Mark::Warning,
                Status::Unknown => Mark::Unknown,
                Status::Failure => Mark::Failure,
            };
            page.item(mark, "", "", &finding.message);
            page.note("", &finding.evidence);
        }
        if !fate.old.is_empty() || !fate.unknown.is_empty() {
            let go_on = super::super::next::fleet(context, &format!("resume {}", fate.run));
            page.note(
                "do",
                &format!("Go on with the servers that are left, with their current password and the same new one: {go_on}"),
            );
        }
        page.gap();
    }
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    page.text
}
