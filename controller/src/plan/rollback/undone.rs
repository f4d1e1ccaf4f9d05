//! What is undone on one platform: which steps of the way back its hosts and instances need.

use super::Forward;
use crate::plan::model::{PhasePlan, PlannedStep, PlatformPlan};
use crate::plan::runbook::Template;
use crate::plan::template::Values;
use crate::plan::values::Subject;
use crate::plan::{Phase, StepScope};
use inventory::{Host, Instance};
use proto::Action;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The step that upgrades an instance's database, in the names that it has.
pub(super) const UPGRADES: [&str; 2] = ["postupgrade", "windows.postupgrade"];

/// What the run did on one platform.
#[derive(Debug)]
pub(crate) struct Undone<'a> {
    run: &'a str,
    /// Its granted steps, in the plan's order, with their phases.
    granted: Vec<(Phase, &'a PlannedStep)>,
    on_host: BTreeSet<(&'a str, &'a str)>,
    for_instance: BTreeSet<(&'a str, &'a str)>,
    accepted: BTreeSet<(&'a str, &'a str)>,
    /// Instances whose backup was let through without proof.
    unproven_backups: BTreeSet<&'a str>,
    /// Hosts on which something was changed outside Caravan's own directory, or might have been.
    touched: BTreeSet<&'a str>,
    latest: &'a BTreeSet<String>,
    made: &'a BTreeMap<(String, String), String>,
    kept: &'a BTreeMap<(String, String), (String, String)>,
}

impl<'a> Undone<'a> {
    pub(super) fn new(forward: &Forward<'a>, platform: &'a PlatformPlan) -> Self {
        let of_phase =
            |phase: &'a PhasePlan| phase.stages.iter().flat_map(|stage| &stage.steps).map(move |step| (phase.name, step));
        let all = || platform.phases.iter().flat_map(of_phase);
        let granted: Vec<_> = all().filter(|(_, step)| forward.done.granted.contains(&step.id)).collect();
        let acts = |(phase, step): &&(Phase, &PlannedStep)| {
            let looks = matches!(step.spec.action, Action::Verify | Action::Inspect { .. });
            *phase != Phase::Preflight && !looks
        };
        let accepted = || all().map(|(_, step)| step).filter(|step| forward.done.accepted.contains(&step.id));
        Self {
            run: forward.run,
            on_host: granted.iter().map(|(_, step)| (step.name.as_str(), step.host.as_str())).collect(),
            for_instance: granted.iter().filter_map(|(_, step)| Some((step.name.as_str(), step.instance.as_deref()?))).collect(),
            accepted: accepted().map(|step| (step.name.as_str(), step.host.as_str())).collect(),
            unproven_backups: accepted()
                .filter(|step| step.name.starts_with("backup.database"))
                .filter_map(|step| step.instance.as_deref())
                .collect(),
            touched: granted.iter().filter(acts).map(|(_, step)| step.host.as_str()).collect(),
            latest: &forward.done.latest,
            made: &forward.done.made,
            kept: &forward.done.kept,
            granted,
        }
    }

    /// Whether nothing of the platform was changed.
    pub(super) fn is_untouched(&self) -> bool {
        self.touched.is_empty()
    }

    /// Whether something was changed on a host, or might have been.
    pub(super) fn is_touched(&self, host: &str) -> bool {
        self.touched.contains(host)
    }

    /// The steps that were granted.
    pub(super) fn granted(&self) -> impl Iterator<Item = &'a PlannedStep> {
        self.granted.iter().map(|(_, step)| *step)
    }

    /// The steps that were granted outside preflight.
    pub(super) fn acts(&self) -> impl Iterator<Item = (Phase, &'a PlannedStep)> {
        self.granted.iter().copied().filter(|(phase, _)| *phase != Phase::Preflight)
    }

    /// Whether a step of the way back is for this host or instance.
    pub(crate) fn concerns(&self, template: &Template, subject: Subject<'_>) -> bool {
        let host = subject.site.host;
        let was_granted = |name: &String| match (template.scope, subject.instance) {
            (StepScope::Instance, Some(instance)) => self.for_instance.contains(&(name.as_str(), instance.name.as_str())),
            _ => self.on_host.contains(&(name.as_str(), host.name.as_str())),
        };
        let when = &template.when;
        let touched = self.is_touched(&host.name);
        let needed = match when.touched {
            Some(wanted) => touched == wanted,
            None if template.undoes.is_empty() => self.restores() || touched,
            None => template.undoes.iter().any(was_granted),
        };
        needed
            && !when.unless.iter().any(was_granted)
            && when.dump.is_none_or(|wanted| subject.instance.is_some_and(|instance| self.dump(&instance.name).is_some() == wanted))
            && when.tree.is_none_or(|wanted| self.has_tree(host) == wanted)
            && when.archive.is_none_or(|wanted| self.archive(&host.name).is_some() == wanted)
    }

    /// Whether a database has to be restored.
    pub(super) fn restores(&self) -> bool {
        self.for_instance.iter().any(|(name, _)| UPGRADES.contains(name))
    }

    /// The dump that the run made of an instance's database: the file that its own `pg_dump` was told to write. A dump of the site's own
    /// making is one for `pg_restore` only if it looks the same.
    pub(super) fn dump(&self, instance: &str) -> Option<(&'a str, &'a str)> {
        if self.unproven_backups.contains(instance) {
            return None;
        }
        let backup = self.granted().find(|step| step.name == "backup.database" && step.instance.as_deref() == Some(instance))?;
        let Action::Command(command) = &backup.spec.action else { return None };
        let (program, arguments) = command.argv.split_first()?;
        let custom = program == "pg_dump" && arguments.iter().any(|argument| argument == "--format=custom");
        let file = arguments.iter().find_map(|argument| argument.strip_prefix("--file="))?;
        custom.then_some((backup.host.as_str(), file))
    }

    /// Whether `nl6.back` (from v5 `nl5.back`) of a host is the tree that the run moved: it moved it, and nobody went on without the proof.
    fn has_tree(&self, host: &Host) -> bool {
        let move_tree = ("backup.move-tree", host.name.as_str());
        self.on_host.contains(&move_tree) && !self.accepted.contains(&move_tree)
    }

    /// The digest of a file that the run made as a backup, where its host told it.
    fn digest(&self, host: &str, file: &str) -> Option<&'a str> {
        self.made.get(&(host.to_owned(), file.to_owned())).map(String::as_str)
    }

    /// The archive that the run made of a host's installation, with its digest.
    fn archive(&self, host: &str) -> Option<(&'a str, &'a str)> {
        let step = self.granted().find(|step| step.name == "backup.archive" && step.host == host)?;
        let Action::Archive { dest, .. } = &step.spec.action else { return None };
        Some((dest, self.digest(host, dest)?))
    }

    /// Where encrypted copies of a platform's backups are kept: whose, of which file, on which host, which file.
    pub(super) fn copies(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str, &'a str)> {
        let of_platform = |host: &str| self.granted().any(|step| step.host == host);
        let kept = self.kept.iter().filter(move |((host, _), _)| of_platform(host));
        kept.map(|((host, file), (to, copy))| (host.as_str(), file.as_str(), to.as_str(), copy.as_str()))
    }

    /// The values that only a way back has.
    pub(crate) fn values(&self, subject: Subject<'_>, values: &mut Values) {
        let host = subject.site.host;
        values.insert("forward.run", json!(self.run));
        if let Some((_, file)) = subject.instance.and_then(|instance: &Instance| self.dump(&instance.name)) {
            values.insert("forward.dump", json!(file));
            // A dump of an earlier Caravan has no digest on record, and neither has one of the site's own making.
            let list = json!({ "command": { "argv": ["pg_restore", "--list", file], "code": 0 } });
            let proof = self.digest(&host.name, file).map(|sha256| json!({ "digest": { "path": file, "sha256": sha256 } }));
            values.insert("forward.dump_proof", proof.map_or(list.clone(), |digest| json!({ "all": [digest, list] })));
        }
        if let Some((archive, sha256)) = self.archive(&host.name) {
            values.insert("forward.archive", json!(archive));
            values.insert("forward.archive_sha256", json!(sha256));
        }
        let build = host.source.latest_build.filter(|_| self.latest.contains(&host.name));
        values.insert("source.banner", json!([build.map_or("build ".to_owned(), |build| format!("build {build}"))]));
        let build = build.map(|build| format!("build='{build}'"));
        let redirect: Vec<String> = ["status='OK'".to_owned()].into_iter().chain(build).collect();
        values.insert("source.redirect", json!(redirect));
    }
}
