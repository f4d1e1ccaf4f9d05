//! What findings mean together: which of them a person set aside, whether they hold things up.

use super::finding::{About, CHECKS, NOT_REACHED, instance_scope};
use inventory::{Fleet, Platform};
use proto::event::{Finding, Status};
use std::collections::{BTreeMap, BTreeSet};

/// The check that is never set aside.
const NEVER: &str = "reachable";

/// An override that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no such finding.
    #[error("there is no finding `{id}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// What was typed.
        id: String,
        /// The finding that comes nearest.
        suggestion: Option<String>,
    },
    /// A host that was not reached cannot be set aside: nothing is known of it.
    #[error(
        "`{0}` cannot be overridden: nothing is known of a host that was not reached. Mend the connection, or leave the host out."
    )]
    Never(String),
    /// A reason is mandatory, since reports show it.
    #[error("the override of `{0}` has no reason: write `--override {0}=REASON`")]
    NoReason(String),
}

/// Whether an id can stand for a finding of this fleet that may be set aside. Contacts nobody, so that a typing error is found before
/// anything starts.
///
/// # Errors
/// The check, or the platform, host or instance does not exist; or it is a check that is never set aside.
pub fn overridable(fleet: &Fleet, id: &str) -> Result<(), OverrideError> {
    let known = known_ids(&fleet.platforms);
    if !known.contains(id) {
        return Err(unknown(id, known.iter().map(String::as_str)));
    }
    if is_never(id) { Err(OverrideError::Never(id.to_owned())) } else { Ok(()) }
}

/// Every id that a finding of these platforms can have.
fn known_ids(platforms: &[Platform]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for platform in platforms {
        for (check, about, _) in CHECKS {
            let scopes: Vec<String> = match about {
                About::Host => platform.hosts.iter().map(|host| host.name.clone()).collect(),
                About::Instance => {
                    platform.instances.iter().map(|instance| instance_scope(&platform.name, &instance.name)).collect()
                }
                About::Platform => vec![platform.name.clone()],
            };
            known.extend(scopes.iter().map(|scope| format!("{check}@{scope}")));
        }
    }
    known
}

fn is_never(id: &str) -> bool {
    id.split_once('@').is_some_and(|(check, _)| check == NEVER)
}

/// Sets findings aside that a person overrode by id, with the reason. Findings that are well are left as they are. An id whose
/// check and scope exist without a finding (the host was not reached, so only that is known of it) changes nothing.
///
/// # Errors
/// Every override that cannot be accepted; then none was applied.
pub fn apply_overrides(findings: Vec<Finding>, overrides: &BTreeMap<String, String>) -> Result<Vec<Finding>, Vec<OverrideError>> {
    let errors: Vec<OverrideError> = overrides.iter().filter_map(|(id, reason)| refuse(&findings, id, reason)).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let apply = |mut finding: Finding| {
        if stands(&finding) {
            finding.overridden = overrides.get(&finding.id).map(|reason| reason.trim().to_owned());
        }
        finding
    };
    Ok(findings.into_iter().map(apply).collect())
}

fn refuse(findings: &[Finding], id: &str, reason: &str) -> Option<OverrideError> {
    let known = findings.iter().any(|finding| finding.id == id) || {
        let scopes: BTreeSet<&str> =
            findings.iter().filter_map(|finding| finding.id.split_once('@').map(|(_, scope)| scope)).collect();
        id.split_once('@').is_some_and(|(check, scope)| CHECKS.iter().any(|(known, ..)| *known == check) && scopes.contains(scope))
    };
    if !known {
        return Some(unknown(id, findings.iter().map(|finding| finding.id.as_str())));
    }
    if is_never(id) {
        return Some(OverrideError::Never(id.to_owned()));
    }
    reason.trim().is_empty().then(|| OverrideError::NoReason(id.to_owned()))
}

fn unknown<'a>(id: &str, known: impl Iterator<Item = &'a str>) -> OverrideError {
    let nearest = known.map(|known| (strsim::damerau_levenshtein(id, known), known)).min();
    let suggestion = nearest.filter(|(distance, _)| *distance <= id.len() / 3 + 1).map(|(_, id)| id.to_owned());
    OverrideError::Unknown { id: id.to_owned(), suggestion }
}

/// Whether a finding stands in the way of anything by itself.
fn stands(finding: &Finding) -> bool {
    matches!(finding.status, Status::Failure | Status::Unknown)
}

/// Whether any finding holds things up: a failure, or something that could not be found out, that nobody set aside.
pub fn holds_up(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| stands(finding) && finding.overridden.is_none())
}

/// What findings come to, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing holds things up.
    Clear,
    /// Hosts were not reached, and that is all that is wrong.
    Unreachable,
    /// A check failed or is unknown for another reason.
    Failed,
}

/// What findings come to. What is unknown only because a host was not reached follows from that host's own finding, and is not
/// counted on top of it.
pub fn verdict(findings: &[Finding]) -> Verdict {
    let mut verdict = Verdict::Clear;
    for finding in findings.iter().filter(|finding| stands(finding) && finding.overridden.is_none()) {
        let away = finding.check == NEVER || (finding.status == Status::Unknown && finding.evidence.starts_with(NOT_REACHED));
        if !away {
            return Verdict::Failed;
        }
        verdict = Verdict::Unreachable;
    }
    verdict
}
