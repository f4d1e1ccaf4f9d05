//! Runbooks: the vendor's procedure as data, embedded in the binary.
//!
//! A runbook is read in two passes. The first checks its shape ([`Runbook`]); actions and probes stay JSON values with
//! placeholders in them. The second happens when a plan is made: the values go in, and what comes out is deserialised into
//! [`proto::Action`] and [`proto::Probe`]. So a runbook can say nothing that an agent does not know. A site's own runbook is read and
//! checked in the same way, and its errors have places.

mod check;
mod read;

use super::model::{Phase, Reversibility, StepScope};
use inventory::{Document, Engine, InitSystem, KeepOf, Problems, Role, SourceVersion, Topology};
use proto::step::{Limits, Repeat};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

/// A runbook that this binary carries, read once.
type Embedded = LazyLock<Result<Runbook, RunbookError>>;

/// The way to v7.
static THERE: Embedded = LazyLock::new(|| Runbook::parse(include_str!("runbooks/to-v7.yaml")));

/// The way back from it.
static BACK: Embedded = LazyLock::new(|| Runbook::parse(include_str!("runbooks/rollback-from-v7.yaml")));

/// A migration procedure.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// Its name (`to-v7`).
    pub name: String,
    /// The versions that it starts from; of a way back, those that it leads to.
    pub source_versions: Vec<SourceVersion>,
    /// Its steps, in order.
    pub steps: Vec<Template>,
}

/// One step of a runbook, before it is applied to hosts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Stable name. May stand several times under conditions that exclude each other, and once in each phase.
    pub name: String,
    /// One line for people, with placeholders.
    pub title: String,
    /// A few words for the folded plan, with placeholders; empty: left out there.
    #[serde(default)]
    pub short: String,
    /// The phase it belongs to.
    pub phase: Phase,
    /// The stage's name, where it is always the same one. Either this or `at`.
    #[serde(default)]
    pub stage: Option<String>,
    /// Which of the phase's stages by role.
    #[serde(default)]
    pub at: Option<At>,
    /// What it is about.
    pub scope: StepScope,
    /// Where an instance step runs.
    #[serde(default)]
    pub on: On,
    /// Done once for each of these things of the host.
    #[serde(default)]
    pub each: Option<Each>,
    /// In a rollback: only where one of these steps of the run that is undone was granted.
    #[serde(default)]
    pub undoes: Vec<String>,
    /// In a rollback: the stage goes on without a host that fails. The same for all steps of a stage.
    #[serde(default)]
    pub tolerant: bool,
    /// Its wave in the stage.
    #[serde(default)]
    pub wave: Wave,
    /// When it applies: all conditions must hold.
    #[serde(default)]
    pub when: When,
    /// Whom it runs as.
    pub run_as: Account,
    /// The serde form of [`proto::Action`] with placeholders.
    pub action: Value,
    /// The serde form of [`proto::Probe`] with placeholders: the step applies only where it holds.
    #[serde(default)]
    pub only_if: Option<Value>,
    /// The serde form of [`proto::Probe`] with placeholders.
    #[serde(default)]
    pub probe: Option<Value>,
    /// Whether it may be started again after a dead attempt.
    #[serde(default)]
    pub repeat: Repeat,
    /// Time limits.
    #[serde(default)]
    pub limits: Limits,
    /// Whether there is a way back.
    pub reversibility: Reversibility,
    /// The documented step it stands for.
    pub source: String,
    /// Why it is done and how its effect is seen.
    pub explain: String,
    /// How it is undone; empty where there is nothing to undo.
    #[serde(default)]
    pub undo: String,
    /// Where it stands in a site's own runbook (`my-runbook.yaml:12:5`).
    #[serde(skip)]
    pub place: Option<String>,
}

/// Which of a phase's stages by role a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// The first stage that the host is in.
    Host,
    /// The stage of each role of `when.role` that the host has.
    Role,
    /// The stage of the instance's kind.
    App,
}

/// Where an instance step runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// On the instance's application server.
    #[default]
    App,
    /// On the host that makes the backup of its database; on the application server where a person makes it.
    BackupHost,
    /// On every host that runs modules of the instance, for each of its roles.
    Carriers,
    /// On every host with a Campaign installation: which instances it carries is looked at there.
    Everywhere,
}

/// Things of a host that a step is done once for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Each {
    /// Package files of the target.
    Package,
    /// Package files of the source.
    OldPackage,
    /// The setup program of the client console, where the inventory names one.
    Client,
    /// Stages of its roles: a host with several roles has the step in each of them. Otherwise it has it in the first.
    Stage,
}

/// The wave of a step in its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Wave {
    /// This one.
    Fixed(u32),
    /// The place of the host's last role in the restart order.
    Named(NamedWave),
}

impl Default for Wave {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

/// A wave that depends on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedWave {
    /// The place of the host's last role in the restart order.
    RestartOrder,
}

/// Whom a step of the runbook runs as. Where root cannot be had (see [`inventory::Host::has_root`]) all of them are the login user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Account {
    /// root.
    Root,
    /// The account that owns the installation.
    Campaign,
    /// The account that logged in.
    Login,
}

/// The closed set of conditions. Every one that is given must hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The host's family is one of these. Left out: any but Windows.
    #[serde(default)]
    pub family: Option<Vec<Family>>,
    /// The version in use is one of these.
    #[serde(default)]
    pub source: Option<Vec<SourceVersion>>,
    /// The host's init system is one of these.
    #[serde(default)]
    pub init: Option<Vec<InitSystem>>,
    /// The host has one of these roles.
    #[serde(default)]
    pub role: Option<Vec<Role>>,
    /// The host carries a Campaign installation.
    #[serde(default)]
    pub campaign: Option<bool>,
    /// The platform's topology is one of these.
    #[serde(default)]
    pub topology: Option<Vec<Topology>>,
    /// The engine of the instance's database is one of these.
    #[serde(default)]
    pub engine: Option<Vec<Engine>>,
    /// Who makes the backup of the instance's database.
    #[serde(default)]
    pub backup: Option<BackupBy>,
    /// The inventory says where the password of the instance's database is.
    #[serde(default)]
    pub database_password: Option<bool>,
    /// The inventory names a database that the instance's dump is restored into, to show that it can be.
    #[serde(default)]
    pub scratch: Option<bool>,
    /// The inventory has these backups of the host kept off it.
    #[serde(default)]
    pub keep: Option<KeepOf>,
    /// How the package file gets to the host.
    #[serde(default)]
    pub package: Option<PackageFrom>,
    /// In a rollback: none of these steps of the run that is undone was granted.
    #[serde(default)]
    pub unless: Vec<String>,
    /// In a rollback: the run made a dump of the instance's database that `pg_restore` can restore.
    #[serde(default)]
    pub dump: Option<bool>,
    /// In a rollback: the run changed something on the host. Then the step is for the host whichever of `undoes` was granted there.
    #[serde(default)]
    pub touched: Option<bool>,
    /// In a rollback: the host's `nl6.back` (from v5 `nl5.back`) is the installation as the run moved it.
    #[serde(default)]
    pub tree: Option<bool>,
    /// In a rollback: the run archived the host's installation, and its digest is on record.
    #[serde(default)]
    pub archive: Option<bool>,
    /// The inventory says which packages the host had before, or how the site installs them again.
    #[serde(default)]
    pub old_packages: Option<bool>,
}

/// A family of operating systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Debian and what descends from it.
    Debian,
    /// Red Hat Enterprise Linux and what descends from it.
    Rhel,
    /// Windows: planned as gates.
    Windows,
}

/// Who makes a database backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupBy {
    /// Caravan.
    Caravan,
    /// A person.
    Dba,
}

/// How a package file gets to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageFrom {
    /// From the workstation.
    Path,
    /// The host downloads it.
    Url,
}

/// Why an embedded runbook cannot be used: a defect of this binary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the runbook cannot be read: {0}. This is a defect of caravan")]
pub struct RunbookError(String);

impl Runbook {
    /// Reads a runbook from its text, with all the checks.
    ///
    /// # Errors
    /// The text is not YAML, its shape is not that of a runbook, or it breaks a rule of runbooks.
    pub fn parse(text: &str) -> Result<Self, RunbookError> {
        let defect = |problems: Problems| RunbookError(problems.render(false).trim_end().to_owned());
        read::read(&Document::parse(text, "runbook").map_err(defect)?).map_err(defect)
    }

    /// Reads a site's own runbook: the same shape and the same checks as those of the runbooks that this binary carries.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong in it, at once and with its places.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let document = Document::load(path)?;
        let mut runbook = read::read(&document)?;
        for (index, step) in runbook.steps.iter_mut().enumerate() {
            step.place = Some(document.place(&format!("/steps/{index}")));
        }
        Ok(runbook)
    }

    /// The runbook that starts from a version, if this binary has one.
    ///
    /// # Errors
    /// An embedded runbook cannot be read.
    pub fn for_source(version: SourceVersion) -> Result<Option<Self>, RunbookError> {
        Self::starting(&THERE, version)
    }

    /// The runbook that leads back to a version, if this binary has one.
    ///
    /// # Errors
    /// An embedded runbook cannot be read.
    pub fn back_to(version: SourceVersion) -> Result<Option<Self>, RunbookError> {
        Self::starting(&BACK, version)
    }

    fn starting(embedded: &Embedded, version: SourceVersion) -> Result<Option<Self>, RunbookError> {
        let runbook = embedded.as_ref().map_err(Clone::clone)?;
        Ok(runbook.source_versions.contains(&version).then(|| runbook.clone()))
    }

    /// The names of its steps, each once, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for step in &self.steps {
            if !names.contains(&step.name.as_str()) {
                names.push(&step.name);
            }
        }
        names
    }
}
