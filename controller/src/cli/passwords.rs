//! `caravan passwords`: the `internal` password, which must be the same on all tracking servers.

use super::check::{Outcome, to_json};
use super::page::{Mark, Page};
use super::{Context, Exit, Failure, Format};
use crate::check::passwords::{self, PlatformProof, ProofKey, group_name};
use crate::check::{self, HostState, Limits, Point, Verdict, fold};
use crate::hosts::Hosts;
use crate::view::text::{count, pad};
use inventory::{Fleet, Platform};
use proto::event::{Finding, Status};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The `internal` password.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordsArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: PasswordsCommand,
}

/// What can be done with the `internal` password.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum PasswordsCommand {
    /// Proves whether it is set and identical across the tracking servers. Changes nothing; no value leaves its host.
    Check(PasswordsCheckArgs),
}

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
/// [`Exit::Usage`] for a proof that this version does not have, [`Exit::Internal`] when no key can be made.
pub async fn check<H: Hosts>(
    context: &Context,
    args: &PasswordsCheckArgs,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    hosts: &Arc<H>,
) -> Result<Outcome, Failure> {
    if args.proof == ProofBy::Logon {
        return Err(Failure::new(
            Exit::Usage,
            "error: `--proof logon` is not available in this version; nothing was contacted.\n  \
             `--proof stored-value` proves that the passwords are identical wherever their stored values are equal.",
        ));
    }
    let key = ProofKey::new().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let platforms: Vec<&Platform> =
        fleet.platforms.iter().filter(|platform| platform.hosts.iter().any(|host| selected.contains(&host.name))).collect();
    let whole = platforms.iter().flat_map(|platform| platform.hosts.iter().map(|host| host.name.clone())).collect();
    let states = check::gather_passwords(hosts, fleet, &whole, Point::Preflight, &key, Limits::of(fleet)).await;
    let proofs: Vec<(&Platform, PlatformProof)> = platforms
        .into_iter()
        .map(|platform| (platform, passwords::prove(platform, &passwords::readings(platform, &states, Point::Preflight))))
        .collect();
    let away = reasons(states);
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
    page.note("", "compared: stored values, by keyed fingerprints of this check");
    if proof.groups.len() > 1 {
        let counts: Vec<String> = proof.groups.iter().map(|hosts| count(hosts.len(), "host")).collect();
        let widest = counts.iter().map(String::len).max().unwrap_or_default();
        for (index, (hosts, number)) in proof.groups.iter().zip(&counts).enumerate() {
            page.row(&format!("{}  {}  {}", group_name(index), pad(number, widest), fold(hosts)));
        }
    }
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
