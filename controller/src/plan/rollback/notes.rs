//! What a person should know before a rollback starts: what cannot be had back, and which backups it stands on.

use super::undone::UPGRADES;
use super::{Forward, Undone};
use crate::plan::fold;
use crate::plan::model::{Phase, PlannedStep, PlatformPlan};
use crate::plan::text::{Paint, columns, hang};
use inventory::Platform;
use proto::Action;
use serde::Serialize;

/// What a person should know before a rollback starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollbackNotes {
    /// The run that is undone.
    pub run: String,
    /// Its platforms, as far as they take part.
    pub platforms: Vec<PlatformNotes>,
}

/// What a person should know of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformNotes {
    /// Its name.
    pub platform: String,
    /// The instances whose databases were upgraded, or may have been: the one-way points that the run passed.
    pub one_way: Vec<OneWay>,
    /// Whether services of v7 were started: then deliveries were made, and recipients tracked.
    pub restarted: bool,
    /// Hosts whose `nl6.back` (from v5 `nl5.back`) takes its place again.
    pub trees: Vec<String>,
    /// The name of that tree.
    #[serde(skip)]
    tree: String,
    /// Hosts whose installation of v7 is kept beside it.
    pub set_aside: Vec<String>,
    /// Archives of these trees, as `HOST: FILE`: the second way back, by hand.
    pub archives: Vec<String>,
    /// Encrypted copies of backups that are kept elsewhere, as `HOST: FILE: PLACE: COPY`: the last way back, by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// Hosts that are stopped for the restore of a database and that the run had not stopped: nobody starts them again.
    pub stay_stopped: Vec<String>,
    /// The site's own steps that were granted, each name once: only the site knows how they are undone.
    pub own_steps: Vec<String>,
    /// Gates that wait for a person. The text of the plan names them, and the notes' text does not again.
    pub gates: Vec<String>,
}

/// An instance whose database was upgraded, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OneWay {
    /// The instance.
    pub instance: String,
    /// The backup that is restored.
    pub backup: DatabaseBackup,
}

/// A backup of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseBackup {
    /// The dump that the run made.
    Dump {
        /// The host that it is on.
        host: String,
        /// The file.
        file: String,
    },
    /// A person restores it.
    ByHand,
}

impl RollbackNotes {
    pub(super) fn of(forward: &Forward<'_>, plans: &[PlatformPlan], undone: &[(&Platform, Undone<'_>)]) -> Self {
        let of_plan = |plan: &PlatformPlan| {
            let (_, undone) = undone.iter().find(|(platform, _)| platform.name == plan.name)?;
            Some(PlatformNotes::of(plan, undone))
        };
        Self { run: forward.run.to_owned(), platforms: plans.iter().filter_map(of_plan).collect() }
    }

    /// The notes as text for a terminal of `width` columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        let paint = Paint(color);
        let mut out = String::new();
        for platform in &self.platforms {
            out.push_str(&format!("{} · back to before run {}\n", paint.bold(&platform.platform), self.run));
            platform.render(paint, width, &mut out);
            out.push('\n');
        }
        out
    }
}

impl PlatformNotes {
    fn of(plan: &PlatformPlan, undone: &Undone<'_>) -> Self {
        let named = |name: &'static str| plan.steps().filter(move |step| step.name == name);
        let hosts = |steps: &mut dyn Iterator<Item = &PlannedStep>| {
            let mut hosts: Vec<String> = Vec::new();
            for step in steps {
                if !hosts.contains(&step.host) {
                    hosts.push(step.host.clone());
                }
            }
            hosts
        };
        let mut one_way: Vec<OneWay> = Vec::new();
        for instance in undone.granted().filter(|step| UPGRADES.contains(&step.name.as_str())).filter_map(|s| s.instance.as_deref())
        {
            let backup = undone.dump(instance).map_or(DatabaseBackup::ByHand, |(host, file)| DatabaseBackup::Dump {
                host: host.to_owned(),
                file: file.to_owned(),
            });
            one_way.push(OneWay { instance: instance.to_owned(), backup });
        }
        let archive = |(_, step): (Phase, &PlannedStep)| match &step.spec.action {
            Action::Archive { dest, .. } => Some(format!("{}: {dest}", step.host)),
            _ => None,
        };
        let stops = ["stop.web-server", "stop.processes", "windows.stop", "windows.stop-web"];
        let mut stay = plan.steps().filter(|step| stops.contains(&step.name.as_str()) && !undone.is_touched(&step.host));
        let mut own_steps: Vec<String> = Vec::new();
        for (_, step) in undone.acts().filter(|(_, step)| step.source.starts_with("the site's own step")) {
            if !own_steps.contains(&step.name) {
                own_steps.push(step.name.clone());
            }
        }
        let gate = |step: &PlannedStep| match &step.spec.action {
            Action::Gate { gate, .. } => Some(gate.clone()),
            _ => None,
        };
        Self {
            platform: plan.name.clone(),
            one_way,
            restarted: undone.acts().any(|(phase, _)| phase == Phase::Restart),
            trees: hosts(&mut named("back.tree")),
            tree: plan.back_tree().to_owned(),
            set_aside: hosts(&mut named("back.set-aside")),
            archives: undone.acts().filter_map(archive).collect(),
            copies: undone.copies().map(|(host, file, to, copy)| format!("{host}: {file}: {to}: {copy}")).collect(),
            stay_stopped: hosts(&mut stay),
            own_steps,
            gates: plan.steps().filter_map(gate).collect(),
        }
    }

    fn render(&self, paint: Paint, width: usize, out: &mut String) {
        let mut line = |mark: &str, text: &str| {
            let head = format!("  {mark} ");
            out.push_str(&hang(&paint.yellow(&head), columns(&head), text, width));
        };
        for OneWay { instance, backup } in &self.one_way {
            let from = match backup {
                DatabaseBackup::Dump { host, file } => format!("is restored from {file} on {host}"),
                DatabaseBackup::ByHand => "is restored by its administrator, from the backup made before".to_owned(),
            };
            line("◆", &format!("{instance}: the postupgrade began. Its database {from}; what was written into it since is lost."));
        }
        if self.restarted {
            line(
                "◆",
                "services of v7 were started: what was delivered and tracked since is lost to the restored database, and what was sent \
                 cannot be called back.",
            );
        } else if !self.one_way.is_empty() {
            line("·", "no service of v7 was started by the run: nothing was delivered or tracked since.");
        }
        if !self.trees.is_empty() {
            let name = self.tree.trim_end_matches(".back");
            line("·", &format!("{} becomes {name} again on {}.", self.tree, fold(&self.trees)));
        }
        if !self.set_aside.is_empty() {
            let text =
                format!("the nl6 of v7 is kept as nl6.v7-RUN on {}, for its logs and what was tracked.", fold(&self.set_aside));
            line("·", &text);
        }
        if !self.archives.is_empty() {
            let hosts: Vec<&str> = self.archives.iter().filter_map(|archive| archive.split(": ").next()).collect();
            let file = self.archives.first().and_then(|archive| archive.rsplit('/').next()).unwrap_or_default();
            line("·", &format!("should {} be gone, its archive {file} is on {}.", self.tree, inventory::fold_names(&hosts)));
        }
        if !self.stay_stopped.is_empty() {
            let text = format!(
                "{}: stopped for the restore of the database, and not started again: the run had not stopped them.",
                fold(&self.stay_stopped)
            );
            line("‖", &text);
        }
        if !self.own_steps.is_empty() {
            line("‖", &format!("not undone, for only the site knows how: {}.", self.own_steps.join(", ")));
        }
    }
}
