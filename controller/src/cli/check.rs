//! `caravan check`: the prerequisites of the fleet, without touching anything.

use super::{Context, Exit, Failure, Format};
use crate::check::passwords::ProofKey;
use crate::check::{self, DatabasePasswords, Limits, Point, Verdict, fold};
use crate::cli::page::{Mark, Page};
use crate::hosts::Hosts;
use crate::secrets::Secrets;
use crate::view::text::count;
use inventory::Fleet;
use proto::event::{Finding, Status};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Looks at everything that has to be true before a migration, on every host, and changes nothing.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CheckArgs {
    /// Only these hosts: names, globs, `platform:NAME`, `role:NAME`, joined by commas, `!` for not.
    ///
    /// What takes a whole platform to tell (equal builds, the internal password) is left out for platforms of which only a part
    /// is selected.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// Sets a finding aside, with the reason that reports show (repeatable). Never a host that was not reached.
    #[arg(long = "override", value_name = "FINDING=REASON", value_parser = parse_override)]
    pub overrides: Vec<(String, String)>,
}

/// Takes `FINDING=REASON` apart.
///
/// # Errors
/// There is no `=`.
pub fn parse_override(text: &str) -> Result<(String, String), String> {
    let (id, reason) =
        text.split_once('=').ok_or_else(|| "write FINDING=REASON, for example disk@trk01=\"grown tonight\"".to_owned())?;
    Ok((id.trim().to_owned(), reason.trim().to_owned()))
}

/// What a command prints on standard output, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// The exit code.
    pub exit: Exit,
}

/// Checks the selected hosts over any transport.
///
/// # Errors
/// [`Exit::Usage`] for an override that cannot be accepted, [`Exit::Internal`] when no key can be made.
pub async fn check<H: Hosts>(
    context: &Context,
    args: &CheckArgs,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    hosts: &Arc<H>,
    databases: &DatabasePasswords,
) -> Result<Outcome, Failure> {
    let key = ProofKey::new().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let states = check::gather(hosts, fleet, selected, Point::Preflight, (&key, databases), Limits::of(fleet)).await;
    let history = super::history::of(context, fleet);
    let mut findings = Vec::new();
    for platform in fleet.platforms.iter().filter(|platform| platform.hosts.iter().any(|host| selected.contains(&host.name))) {
        let whole = platform.hosts.iter().all(|host| selected.contains(&host.name));
        let told = |finding: &Finding| finding.host.as_ref().map_or(whole, |host| selected.contains(host));
        findings.extend(check::evaluate(platform, &states, Point::Preflight, &history).into_iter().filter(told));
    }
    // Fingerprints are in there.
    drop(states);
    let overrides: BTreeMap<String, String> = args.overrides.iter().cloned().collect();
    let findings = check::apply_overrides(findings, &overrides).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("error: {error}")).collect();
        Failure::new(Exit::Usage, lines.join("\n"))
    })?;
    let exit = match check::verdict(&findings) {
        Verdict::Clear => Exit::Ok,
        Verdict::Unreachable => Exit::Unreachable,
        Verdict::Failed => Exit::Failed,
    };
    let text = match context.format {
        Format::Json => json(&findings)?,
        Format::Text => text(fleet, selected, &findings, context),
    };
    Ok(Outcome { text, exit })
}

/// Fetches the passwords of the databases that are asked. One that cannot be had makes the findings of its database unknown, and the
/// others are looked at all the same.
pub(super) async fn database_passwords(fleet: &Fleet, selected: &BTreeSet<String>, secrets: &Secrets) -> DatabasePasswords {
    let mut passwords = DatabasePasswords::new();
    for platform in fleet.platforms.iter().filter(|platform| platform.hosts.iter().any(|host| selected.contains(&host.name))) {
        for name in check::database_passwords(platform) {
            match super::start::database_password(platform, &name, secrets).await {
                Ok(password) => drop(passwords.insert((platform.name.clone(), name), password)),
                Err(why) => tracing::warn!("{}", why.message),
            }
        }
    }
    passwords
}

/// How many findings there are of each kind; those that a person set aside are counted apart.
#[derive(Debug, Default, Serialize)]
struct Summary {
    ok: usize,
    warning: usize,
    failure: usize,
    unknown: usize,
    overridden: usize,
}

impl Summary {
    fn of(findings: &[Finding]) -> Self {
        let mut summary = Self::default();
        for finding in findings {
            let count = match finding.status {
                _ if finding.overridden.is_some() => &mut summary.overridden,
                Status::Ok => &mut summary.ok,
                Status::Warning => &mut summary.warning,
                Status::Failure => &mut summary.failure,
                Status::Unknown => &mut summary.unknown,
            };
            *count += 1;
        }
        summary
    }
}

fn json(findings: &[Finding]) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Report<'a> {
        findings: &'a [Finding],
        summary: Summary,
    }
    to_json(&Report { findings, summary: Summary::of(findings) })
}

/// A value as indented JSON with a line end.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Internal, format!("the result cannot be written: {error}")))?;
    Ok(text + "\n")
}

/// Findings that say the same of several hosts or instances.
struct Folded<'a> {
    first: &'a Finding,
    scopes: Vec<&'a str>,
    /// What was seen, with those of whom it was seen.
    evidence: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Folded<'a> {
    fn of(findings: impl Iterator<Item = &'a Finding>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for finding in findings {
            let scope = finding.instance.as_deref().or(finding.host.as_deref()).unwrap_or_default();
            let key = |f: &'a Finding| (&f.check, f.status, &f.message, &f.remedy, &f.overridden);
            match all.iter_mut().find(|folded| key(folded.first) == key(finding)) {
                Some(folded) => {
                    folded.scopes.push(scope);
                    match folded.evidence.iter_mut().find(|(seen, _)| *seen == finding.evidence) {
                        Some((_, scopes)) => scopes.push(scope),
                        None => folded.evidence.push((&finding.evidence, vec![scope])),
                    }
                }
                None => all.push(Self { first: finding, scopes: vec![scope], evidence: vec![(&finding.evidence, vec![scope])] }),
            }
        }
        all
    }

    fn print(&self, page: &mut Page) {
        let finding = self.first;
        let mark = match (finding.status, &finding.overridden) {
            (_, Some(_)) => Mark::SetAside,
            (Status::Ok, _) => Mark::Ok,
            (Status::Warning, _) => Mark::Warning,
            (Status::Unknown, _) => Mark::Unknown,
            (Status::Failure, _) => Mark::Failure,
        };
        page.item(mark, &finding.check, &fold(&self.scopes), &finding.message);
        if finding.status == Status::Ok {
            return;
        }
        for (seen, scopes) in self.evidence.iter().take(EVIDENCE) {
            let of = if self.evidence.len() > 1 { format!("{}: ", fold(scopes)) } else { String::new() };
            page.note("seen", &format!("{of}{seen}"));
        }
        if self.evidence.len() > EVIDENCE {
            page.note("", &format!("... and {} more: `--format json` has all of them", self.evidence.len() - EVIDENCE));
        }
        match &finding.overridden {
            Some(reason) => page.note("why", reason),
            None if finding.remedy.is_empty() => {}
            None => page.note("do", &finding.remedy),
        }
    }
}

/// How many different pieces of evidence are shown of findings that are otherwise the same.
const EVIDENCE: usize = 3;

fn text(fleet: &Fleet, selected: &BTreeSet<String>, findings: &[Finding], context: &Context) -> String {
    let mut page = Page::new(context.color.0);
    for platform in &fleet.platforms {
        let here = platform.hosts.iter().filter(|host| selected.contains(&host.name)).count();
        if here == 0 {
            continue;
        }
        page.title(&[&platform.name, platform.topology.as_str(), &count(here, "host")]);
        let of = |status: Status, set_aside: bool| {
            let chosen =
                move |f: &&Finding| f.platform == platform.name && f.status == status && f.overridden.is_some() == set_aside;
            Folded::of(findings.iter().filter(chosen))
        };
        let mut shown = of(Status::Failure, false);
        shown.extend(of(Status::Unknown, false));
        shown.extend(of(Status::Warning, false));
        shown.extend(of(Status::Failure, true));
        shown.extend(of(Status::Unknown, true));
        if context.verbosity > 0 {
            shown.extend(of(Status::Ok, false));
        }
        shown.iter().for_each(|folded| folded.print(&mut page));
        if context.verbosity <= 0 {
            let ok = findings.iter().filter(|f| f.platform == platform.name && f.status == Status::Ok).count();
            page.item(Mark::Ok, &format!("{} ok", count(ok, "check")), "", "");
        }
        if here < platform.hosts.len() {
            page.note(
                "",
                &format!(
                    "only {here} of {} hosts are selected: what takes the whole platform to tell was left out",
                    platform.hosts.len()
                ),
            );
        }
        page.gap();
    }
    let summary = Summary::of(findings);
    let mut totals =
        vec![count(summary.failure, "failure"), format!("{} unknown", summary.unknown), count(summary.warning, "warning")];
    totals.push(format!("{} ok", summary.ok));
    if summary.overridden > 0 {
        totals.push(format!("{} set aside", summary.overridden));
    }
    page.line(&format!("{}. Nothing was changed on any host.", totals.join(" · ")));
    let stands =
        |f: &&Finding| matches!(f.status, Status::Failure | Status::Unknown) && f.overridden.is_none() && f.check != "reachable";
    if let Some(example) = findings.iter().find(stands) {
        page.line(&format!("Failures and unknowns hold a migration up. To set one aside: --override {}=REASON", example.id));
    }
    page.text
}
