//! How a finding is put together.

use inventory::{Host, Instance, Platform};
use proto::event::When::{self, Always, BeforeRestart, BeforeTouch};
use proto::event::{Finding, Status};
use proto::inspect::ReadError;

/// What a check is about, which is what stands behind the `@` of a finding's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Host,
    Instance,
    Platform,
}

impl About {
    fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Instance => "instance",
            Self::Platform => "platform",
        }
    }
}

/// Every check that can be set aside or holds up by itself, by its stable name (what stands before the `@` of a finding's id), what it
/// is about, and when it has to be well. CHECKS.md has them for people, and a test compares the two.
///
/// In the middle of a migration only those that stay true through it can be asked again: that is what `always` means. Versions,
/// packages, trees and passwords change on the way, by the migration itself.
pub(super) const CHECKS: &[(&str, About, When)] = &[
    ("reachable", About::Host, Always),
    ("windows", About::Host, BeforeTouch),
    ("ssh-legacy", About::Host, BeforeTouch),
    ("os-as-declared", About::Host, Always),
    ("os-supported", About::Host, BeforeTouch),
    ("arch", About::Host, BeforeTouch),
    ("version", About::Host, BeforeTouch),
    ("running", About::Host, BeforeTouch),
    ("packages-old", About::Host, BeforeTouch),
    ("package-files", About::Host, Always),
    ("instance-config", About::Host, BeforeTouch),
    ("back-tree-absent", About::Host, BeforeTouch),
    ("disk", About::Host, Always),
    ("campaign-user", About::Host, Always),
    ("clock", About::Host, Always),
    ("security-zones", About::Host, BeforeRestart),
    ("tracking-password", About::Host, BeforeTouch),
    ("dbms", About::Instance, BeforeTouch),
    ("unicode", About::Instance, BeforeTouch),
    ("database", About::Instance, BeforeTouch),
    ("operator-passwords", About::Instance, BeforeTouch),
    ("builds-equal", About::Platform, BeforeTouch),
    ("same-machine", About::Platform, BeforeTouch),
    ("backup", About::Platform, BeforeTouch),
    ("rehearsal", About::Platform, BeforeTouch),
    ("internal-password", About::Platform, BeforeTouch),
    ("internal-password-others", About::Platform, BeforeTouch),
];

/// When a check has to be well. Nothing of a name that is no check.
pub(super) fn when(check: &str) -> Option<When> {
    CHECKS.iter().find(|(name, ..)| *name == check).map(|(.., when)| *when)
}

/// The name of every check, what its findings are about (`host`, `instance`, `platform`), and when it has to be well: nothing where a
/// finding is for the record alone.
pub fn catalogue() -> impl Iterator<Item = (&'static str, &'static str, Option<When>)> {
    let own = CHECKS.iter().map(|(name, about, when)| (*name, about.as_str(), Some(*when)));
    own.chain(super::postupgrade::CHECKS.iter().map(|(name, when)| (*name, About::Instance.as_str(), *when)))
}

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
        debug_assert!(
            CHECKS.iter().any(|(name, about, _)| (*name, *about) == (check, self.about())),
            "{check} is not in the list of checks"
        );
        let scope = match (self.instance, self.host) {
            (Some(instance), _) => instance_scope(self.platform, instance),
            (None, host) => host.unwrap_or(self.platform).to_owned(),
        };
        Finding {
            id: format!("{check}@{scope}"),
            check: check.to_owned(),
            when: when(check),
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
