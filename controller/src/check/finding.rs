//! How a finding is put together.

use inventory::{Host, Instance, Platform};
use proto::event::{Finding, Status};
use proto::inspect::ReadError;

/// What a check is about, which is what stands behind the `@` of a finding's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Host,
    Instance,
    Platform,
}

/// Every check, by its stable name: what stands before the `@` of a finding's id.
pub(super) const CHECKS: &[(&str, About)] = &[
    ("reachable", About::Host),
    ("windows", About::Host),
    ("os-as-declared", About::Host),
    ("os-supported", About::Host),
    ("arch", About::Host),
    ("version", About::Host),
    ("running", About::Host),
    ("packages-old", About::Host),
    ("instance-config", About::Host),
    ("back-tree-absent", About::Host),
    ("disk", About::Host),
    ("campaign-user", About::Host),
    ("clock", About::Host),
    ("security-zones", About::Host),
    ("tracking-password", About::Host),
    ("dbms", About::Instance),
    ("unicode", About::Instance),
    ("database", About::Instance),
    ("operator-passwords", About::Instance),
    ("builds-equal", About::Platform),
    ("same-machine", About::Platform),
    ("backup", About::Platform),
    ("rehearsal", About::Platform),
    ("internal-password", About::Platform),
    ("internal-password-others", About::Platform),
];

/// How the evidence of a finding begins that is unknown for one reason only: hosts were not reached, which their own findings say.
pub(super) const NOT_REACHED: &str = "not reached: ";

/// How much of what a host said goes into a finding.
const EXCERPT: usize = 160;

/// What a finding is about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    platform: &'a str,
    host: Option<&'a str>,
    instance: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub(super) fn platform(platform: &'a Platform) -> Self {
        Self { platform: &platform.name, host: None, instance: None }
    }

    pub(super) fn host(platform: &'a Platform, host: &'a Host) -> Self {
        Self { host: Some(&host.name), ..Self::platform(platform) }
    }

    pub(super) fn instance(platform: &'a Platform, instance: &'a Instance) -> Self {
        Self { host: Some(&instance.app), instance: Some(&instance.name), ..Self::platform(platform) }
    }

    fn about(self) -> About {
        match (self.instance, self.host) {
            (Some(_), _) => About::Instance,
            (None, Some(_)) => About::Host,
            (None, None) => About::Platform,
        }
    }

    /// All is well; there is nothing to do.
    pub(super) fn ok(self, check: &'static str, message: impl Into<String>, evidence: impl Into<String>) -> Finding {
        self.finding(check, Status::Ok, message, evidence, "")
    }

    pub(super) fn finding(
        self,
        check: &'static str,
        status: Status,
        message: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        debug_assert!(CHECKS.contains(&(check, self.about())), "{check} is not in the list of checks");
        let scope = match (self.instance, self.host) {
            (Some(instance), _) => instance_scope(self.platform, instance),
            (None, host) => host.unwrap_or(self.platform).to_owned(),
        };
        Finding {
            id: format!("{check}@{scope}"),
            check: check.to_owned(),
            platform: self.platform.to_owned(),
            host: self.host.map(str::to_owned),
            instance: self.instance.map(str::to_owned),
            status,
            message: message.into(),
            evidence: evidence.into(),
            remedy: remedy.into(),
            overridden: None,
        }
    }

    /// It could not be found out: denied is told apart from everything else, since it has another remedy.
    pub(super) fn unread(self, check: &'static str, what: &str, error: &ReadError) -> Finding {
        let remedy = match error {
            ReadError::Denied(_) => "Let the agent become root (`become` in the inventory), or let the login account read it.",
            ReadError::Missing(_) => "Check `campaign.home` in the inventory, and the installation on the host.",
            ReadError::Failed(_) => "Look at it on the host, then run `caravan check` again.",
        };
        self.finding(check, Status::Unknown, format!("{what} cannot be read"), clean(&error.to_string()), remedy)
    }
}

/// How an instance stands in a finding's id. Hosts are unique in a fleet, instances only in their platform.
pub(super) fn instance_scope(platform: &str, instance: &str) -> String {
    format!("{platform}/{instance}")
}

/// What a host said, fit for one line of a terminal: no control characters, not longer than an excerpt.
pub(super) fn clean(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// Names of hosts for one line of a screen.
pub(crate) fn fold<S: AsRef<str>>(names: &[S]) -> String {
    inventory::fold_names(&names.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}
