//! `caravan passwords check`: the two proofs.

use super::super::check::{Outcome, to_json};
use super::super::page::{Mark, Page};
use super::super::{Context, Exit, Failure, Format, start};
use super::typed::{PasswordArg, Source};
use crate::check::passwords::{self, PlatformProof, ProofKey, group_name, logon, method};
use crate::check::{self, HostState, Limits, Point, Verdict, fold};
use crate::hosts::Hosts;
use crate::view::text::{count, pad};
use inventory::{Fleet, Platform};
use proto::Secret;
use proto::event::{Finding, Status};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::sync::Arc;

/// How the password is proven.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PasswordsCheckArgs {
    /// Only the platforms of these hosts: names, globs, `platform:NAME`, `role:NAME`, joined by commas, `!` for not.
    ///
    /// A platform is always proven as a whole: a tracking server that was not looked at would prove nothing.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// What is compared.
    #[arg(long, value_enum, default_value_t = ProofBy::StoredValue)]
    pub proof: ProofBy,
    /// Where the password for a logon is: env:NAME, file:PATH, command:PROGRAM ARGS, or stdin. Asked for at the terminal when left
    /// out.
    ///
    /// It goes to each server's own endpoint through SSH, and nowhere else. Given without `--proof logon`, it is tried on platforms
    /// whose stored values differ.
    #[arg(long, value_name = "REFERENCE")]
    pub password: Option<PasswordArg>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProofBy {
    /// Keyed fingerprints of the values in `serverConf.xml`.
    #[default]
    StoredValue,
    /// A logon to each server with the password typed here.
    Logon,
}

/// Proves the password on every platform that has a selected host, over any transport.
///
/// # Errors
/// [`Exit::Usage`] when the password for a logon cannot be had, [`Exit::Internal`] when no key can be made.
pub async fn check<H: Hosts>(
    context: &Context,
    args: &PasswordsCheckArgs,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    hosts: &Arc<H>,
) -> Result<Outcome, Failure> {
    let platforms: Vec<&Platform> =
        fleet.platforms.iter().filter(|platform| platform.hosts.iter().any(|host| selected.contains(&host.name))).collect();
    // Asked for before anything is contacted.
    let source = match (args.proof, &args.password) {
        (ProofBy::StoredValue, None) => None,
        (_, password) => Some(Source::of(password.as_ref(), "--password")?),
    };
    let typed = match &source {
        Some(source) if args.proof == ProofBy::Logon => to_try(source, &platforms).await?,
        _ => BTreeMap::new(),
    };
    let (mut proofs, mut away) = prove(fleet, &platforms, hosts, &typed).await?;
    if args.proof == ProofBy::StoredValue {
        let differ: Vec<&Platform> =
            proofs.iter().filter(|(_, proof)| proof.groups.len() > 1).map(|(platform, _)| *platform).collect();
        let source = match source {
            Some(source) => Some(source),
            None if !differ.is_empty() && offered(context, &differ) => Some(Source::of(None, "--password")?),
            None => None,
        };
        if let Some(source) = source {
            let typed = to_try(&source, &differ).await?;
            let (second, more) = prove(fleet, &differ, hosts, &typed).await?;
            away.extend(more);
            for (platform, proof) in second {
                proofs.iter_mut().filter(|(first, _)| first.name == platform.name).for_each(|first| first.1 = proof.clone());
            }
        }
    }
    let findings: Vec<Finding> = proofs.iter().flat_map(|(platform, proof)| passwords::findings(platform, proof)).collect();
    let by_hand = proofs.iter().any(|(_, proof)| proof.by_hand.iter().any(|host| proof.tracking.contains(host)));
    let exit = match check::verdict(&findings) {
        // A plan has a gate for Windows servers; here nobody confirms anything.
        Verdict::Failed => Exit::Failed,
        _ if by_hand => Exit::Failed,
        Verdict::Clear if away.is_empty() => Exit::Ok,
        Verdict::Clear | Verdict::Unreachable => Exit::Unreachable,
    };
    let text = match context.format {
        Format::Json => {
            #[derive(Serialize)]
            struct Report<'a> {
                platforms: Vec<&'a PlatformProof>,
            }
            to_json(&Report { platforms: proofs.iter().map(|(_, proof)| proof).collect() })?
        }
        Format::Text => {
            let mut page = Page::new(context.color.0);
            for (platform, proof) in &proofs {
                print(&mut page, platform, proof, &away);
                page.gap();
            }
            page.text.truncate(page.text.trim_end().len());
            page.text.push('\n');
            page.text
        }
    };
    Ok(Outcome { text, exit })
}

/// The passwords to try, by platform.
async fn to_try(source: &Source, platforms: &[&Platform]) -> Result<BTreeMap<String, Secret>, Failure> {
    let mut typed = BTreeMap::new();
    for platform in platforms {
        let what = format!("the internal password of {}", platform.name);
        let password = source.password(&what).await?;
        if password.expose().is_empty() {
            let why =
                "it is empty; a server on which none is set would accept it, which proves nothing. Nothing was contacted with it.";
            return Err(Failure::new(Exit::Usage, format!("error: {what}: {why}")));
        }
        typed.insert(platform.name.clone(), password);
    }
    Ok(typed)
}

/// Whether a person at the terminal wants a logon to decide. Without a terminal nobody is asked.
fn offered(context: &Context, platforms: &[&Platform]) -> bool {
    if context.format == Format::Json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    let names: Vec<&str> = platforms.iter().map(|platform| platform.name.as_str()).collect();
    start::says_yes(&format!(
        "The stored values of {} differ, which proves nothing if they are salted. A logon on each server decides: the password is typed\n\
         here, and goes through SSH to each server's own endpoint alone. Try it? Type yes: ",
        names.join(", ")
    ))
}

/// Asks the platforms' hosts and says what is proven, and why hosts were not reached. `typed`: the passwords to try, by platform.
pub(super) async fn prove<'a, H: Hosts>(
    fleet: &Fleet,
    platforms: &[&'a Platform],
    hosts: &Arc<H>,
    typed: &BTreeMap<String, Secret>,
) -> Result<(Vec<(&'a Platform, PlatformProof)>, BTreeMap<String, String>), Failure> {
    let key = ProofKey::new().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let whole = platforms.iter().flat_map(|platform| platform.hosts.iter().map(|host| host.name.clone())).collect();
    let states = check::gather_passwords(hosts, fleet, &whole, (&key, typed), Limits::of(fleet)).await;
    let prove = |platform: &Platform| {
        let stored = passwords::readings(platform, &states, Point::Preflight);
        match typed.contains_key(&platform.name) {
            true => logon::prove(platform, &stored, &logon::readings(platform, &states)),
            false => passwords::prove(platform, &stored),
        }
    };
    let proofs = platforms.iter().map(|platform| (*platform, prove(platform))).collect();
    Ok((proofs, reasons(states)))
}

/// Why hosts were not reached. Takes the states, so that the fingerprints in them are wiped.
fn reasons(states: BTreeMap<String, HostState>) -> BTreeMap<String, String> {
    let reason = |(host, state)| match state {
        HostState::Unreachable { reason, .. } => Some((host, reason)),
        HostState::Reached(_) => None,
    };
    states.into_iter().filter_map(reason).collect()
}

fn print(page: &mut Page, platform: &Platform, proof: &PlatformProof, away: &BTreeMap<String, String>) {
    let servers = if platform.with_role(inventory::Role::Tracking).next().is_some() { "tracking server" } else { "server" };
    page.title(&["internal password", &platform.name, &count(proof.tracking.len(), servers)]);
    let findings = passwords::findings(platform, proof);
    let Some((first, rest)) = findings.split_first() else {
        page.note("", "no Campaign server");
        return;
    };
    page.item(mark(first.status), "", "", &first.message);
    page.note("", method(proof));
    if proof.groups.len() > 1
        || proof.groups.first().is_some_and(|group| proof.logon.is_some() && group.len() < proof.tracking.len())
    {
        let counts: Vec<String> = proof.groups.iter().map(|hosts| count(hosts.len(), "host")).collect();
        let widest = counts.iter().map(String::len).max().unwrap_or_default();
        for (index, (hosts, number)) in proof.groups.iter().zip(&counts).enumerate() {
            page.row(&format!("{}  {}  {}", group_name(proof, index), pad(number, widest), fold(hosts)));
        }
    }
    proof.logon.iter().flat_map(logon::Said::notes).for_each(|note| page.note("", &note));
    for (host, reason) in &proof.reasons {
        page.note("", &format!("{host}: {reason}"));
    }
    for host in &proof.unreachable {
        page.note("", away.get(host).map_or("not reached", String::as_str));
    }
    remedy(page, first);
    for finding in rest.iter().filter(|finding| finding.status != Status::Ok) {
        page.item(mark(finding.status), "other servers:", "", &finding.message);
        remedy(page, finding);
    }
}

fn remedy(page: &mut Page, finding: &Finding) {
    if !finding.remedy.is_empty() {
        page.note("do", &finding.remedy);
    }
}

fn mark(status: Status) -> Mark {
    match status {
        Status::Ok => Mark::Ok,
        Status::Warning => Mark::Warning,
        Status::Unknown => Mark::Unknown,
        Status::Failure => Mark::Failure,
    }
}
