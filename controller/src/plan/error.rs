//! Why a fleet cannot be planned. All reasons are reported at once.

use super::template::TemplateError;
use std::fmt;

/// One reason why a fleet cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The hosts of a platform come from different versions.
    #[error("platform `{platform}` has more than one source version ({versions}); all servers of a platform run the same version")]
    Sources {
        /// The platform.
        platform: String,
        /// The versions, for people.
        versions: String,
    },
    /// A build upgrade that is none.
    #[error("platform `{platform}`: {hosts}: the target build {build} is not later than source.latest_build {latest}")]
    NotLater {
        /// The platform.
        platform: String,
        /// Its hosts, folded.
        hosts: String,
        /// The target's build.
        build: u32,
        /// The build in use.
        latest: u32,
    },
    /// Several time zones with an engine that cannot keep them.
    #[error(
        "instance `{instance}` of `{platform}`: `timestamptz` with an engine that does not support it corrupts the database; remove it, or name the engine if it is postgresql, oracle or mssql"
    )]
    Timestamptz {
        /// The platform.
        platform: String,
        /// The instance.
        instance: String,
    },
    /// postupgrade from v5 needs a time zone.
    #[error(
        "instance `{instance}` of `{platform}` comes from v5.11 and needs its time zone: add `timezone: Europe/Paris` (or what it is)"
    )]
    Timezone {
        /// The platform.
        platform: String,
        /// The instance.
        instance: String,
    },
    /// The OS of hosts is neither given nor clear from the packages.
    #[error(
        "{hosts} of `{platform}`: the OS is not in the inventory, and target.packages has {seen}; add `os: debian-11` (or what it is) to the hosts"
    )]
    OsUnknown {
        /// The platform.
        platform: String,
        /// Its hosts, folded.
        hosts: String,
        /// What the packages are for, for people.
        seen: String,
    },
    /// No runbook knows this OS.
    #[error("{hosts} of `{platform}`: os `{os}` belongs to no family that the runbook knows (Debian, RHEL, Windows)")]
    OsFamily {
        /// The platform.
        platform: String,
        /// Its hosts, folded.
        hosts: String,
        /// The OS.
        os: String,
    },
    /// There is no package for the OS of hosts.
    #[error("{hosts} of `{platform}`: no package of build {build} for {os}; add one with `os: {os}` to target.packages")]
    NoPackage {
        /// The platform.
        platform: String,
        /// Its hosts, folded.
        hosts: String,
        /// The OS.
        os: String,
        /// The target's build.
        build: u32,
    },
    /// The hosts of a platform shall get different builds.
    #[error("platform `{platform}` has more than one target ({targets}); all servers of a platform run the same build")]
    Targets {
        /// The platform.
        platform: String,
        /// The targets, for people.
        targets: String,
    },
    /// A package file of the workstation cannot be read.
    #[error("package file {path}: {seen}; put it there or mend its path in the inventory")]
    PackageFile {
        /// The file.
        path: String,
        /// What was seen.
        seen: String,
    },
    /// An override names a step that the runbook does not have.
    #[error("platform `{platform}` overrides `{step}`, which is no step of the runbook {runbook}{}", did_you_mean(suggestion.as_deref()))]
    UnknownStep {
        /// The platform.
        platform: String,
        /// What the inventory says.
        step: String,
        /// The runbook.
        runbook: String,
        /// A step with a similar name.
        suggestion: Option<String>,
    },
    /// A gate or an inspection cannot become a command.
    #[error(
        "platform `{platform}` replaces `{step}`, which {what} and cannot be a command; give it `before` or `after` steps, or `skip` it with a reason"
    )]
    NotReplaceable {
        /// The platform.
        platform: String,
        /// The step.
        step: String,
        /// What the step does.
        what: &'static str,
    },
    /// A site's own order breaks the vendor's.
    #[error("platform `{platform}`: `{key}` puts {first} before {second}; the vendor's order is {rule}")]
    OrderRule {
        /// The platform.
        platform: String,
        /// `order` or `restart_order`.
        key: &'static str,
        /// The role that comes too early.
        first: inventory::Role,
        /// The role that has to come before it.
        second: inventory::Role,
        /// The rule, for people.
        rule: String,
    },
    /// A site's own order is not about the platform's roles.
    #[error("platform `{platform}`: `{key}` {seen}; name each of these once: {expected}")]
    OrderRoles {
        /// The platform.
        platform: String,
        /// `order` or `restart_order`.
        key: &'static str,
        /// What is wrong.
        seen: String,
        /// The roles that the order has to name.
        expected: String,
    },
    /// An instance's application server cannot be the one.
    #[error("instance `{instance}` of `{platform}`: its app `{app}` {seen}; {next}")]
    App {
        /// The platform.
        platform: String,
        /// The instance.
        instance: String,
        /// The host.
        app: String,
        /// What is wrong.
        seen: String,
        /// What to do.
        next: String,
    },
    /// A database backup cannot be made as the inventory says.
    #[error("instance `{instance}` of `{platform}`: {seen}; {next}")]
    Backup {
        /// The platform.
        platform: String,
        /// The instance.
        instance: String,
        /// What is wrong.
        seen: String,
        /// What to do.
        next: String,
    },
    /// Two steps would have the same id.
    #[error("two steps would have the id {id}; give the site's own steps names that no other step of the host has")]
    DuplicateStep {
        /// The id.
        id: String,
    },
    /// A command of the inventory has a placeholder that nothing stands for.
    #[error("platform `{platform}`: the command for `{step}`: {problem}")]
    SiteCommand {
        /// The platform.
        platform: String,
        /// The step.
        step: String,
        /// What is wrong.
        problem: TemplateError,
    },
    /// The run that is to be undone did nothing.
    #[error("run {run} touched nothing: there is nothing to roll back")]
    NothingToRollBack {
        /// The run.
        run: String,
    },
    /// The inventory and the run that is to be undone say different things.
    #[error(
        "the inventory does not say any more what run {run} did: `{step}` {seen}; put the inventory back as it was then (the run's plan.json has it)"
    )]
    Moved {
        /// The run.
        run: String,
        /// The step, or the platform.
        step: String,
        /// What it was and what it would be now.
        seen: String,
    },
    /// A site's own runbook cannot be used.
    #[error("the runbook of `{platform}` cannot be used: {problem}")]
    RunbookFile {
        /// The platform.
        platform: String,
        /// What is wrong.
        problem: String,
    },
    /// A step of a site's own runbook cannot be planned.
    #[error("{place}: step `{step}` of the runbook: {problem}")]
    OwnStep {
        /// Where it stands.
        place: String,
        /// The step.
        step: String,
        /// What is wrong.
        problem: String,
    },
    /// The runbook itself is broken.
    #[error("step `{step}` of the runbook: {problem}. This is a defect of caravan")]
    Runbook {
        /// The step.
        step: String,
        /// What is wrong.
        problem: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Every reason why a fleet cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanErrors(pub Vec<PlanError>);

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            writeln!(f, "error: {error}")?;
        }
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} error{plural} in the plan; nothing was contacted.", self.0.len())
    }
}

impl std::error::Error for PlanErrors {}
