//! Runbook x platform: every step, on every host and instance it is for, in its stage.

use super::error::PlanError;
use super::files::{Files, is_plain_name};
use super::model::{Phase, PhasePlan, PlannedStep, StagePlan, StepScope};
use super::order::Stages;
use super::overrides;
use super::rollback::Undone;
use super::runbook::{Account, At, BackupBy, Each, Family, On, PackageFrom, Runbook, Template, Wave, When};
use super::site::Site;
use super::template::{Values, fill, fill_text};
use super::values::{Subject, backup_by, backup_host, carried, scratch, values};
use inventory::{Host, Instance, InstanceKind, Location, Platform, Role, Topology};
use proto::step::Limits;
use proto::{Action, Probe, Query, RunAs, StepId, StepSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// The questions that a phase asks of a host: given by the checks, so that plans and checks stay apart.
pub type Queries<'a> = dyn Fn(&Platform, &Host, Phase) -> Vec<Query> + 'a;

/// The phases that ask.
pub(super) const ASKING: [Phase; 3] = [Phase::Preflight, Phase::Restart, Phase::Verify];

/// The phases of a migration, in order.
const PHASES: [Phase; 6] = [Phase::Preflight, Phase::Stop, Phase::Backup, Phase::Migrate, Phase::Restart, Phase::Verify];

/// Applies a runbook to a platform.
pub(super) struct Expansion<'a> {
    pub(super) platform: &'a Platform,
    pub(super) runbook: &'a Runbook,
    pub(super) sites: &'a [Site<'a>],
    pub(super) migrate: &'a Stages,
    pub(super) restart: &'a Stages,
    pub(super) files: &'a Files,
    /// The questions of the phases that ask, by host.
    pub(super) queries: &'a BTreeMap<(&'a str, Phase), Value>,
    /// What is undone, where the runbook is a way back.
    pub(super) undone: Option<&'a Undone<'a>>,
}

/// A template applied to one subject, in its stage.
struct Placed<'a> {
    subject: Subject<'a>,
    stage: usize,
    /// Set apart from its like on the same host (`packages.push.2`).
    ordinal: usize,
}

impl<'a> Expansion<'a> {
    /// All phases with all stages and steps.
    pub(super) fn phases(&self, errors: &mut Vec<PlanError>) -> Vec<PhasePlan> {
        let phases: &[Phase] = if self.undone.is_some() { &[Phase::Rollback] } else { &PHASES };
        phases.iter().map(|phase| self.phase(*phase, errors)).collect()
    }

    fn phase(&self, phase: Phase, errors: &mut Vec<PlanError>) -> PhasePlan {
        let mut stages: Vec<StagePlan> = Vec::new();
        // The stages by role stand where the first step of one of them does.
        let mut by_role: Option<(usize, &Stages)> = None;
        for template in self.runbook.steps.iter().filter(|template| template.phase == phase) {
            if template.at.is_some() && by_role.is_none() {
                by_role = self.by_role(phase).map(|list| (stages.len(), list));
                stages
                    .extend(by_role.iter().flat_map(|(_, by_role)| &by_role.list).map(|(name, roles)| stage(name, roles.clone())));
            }
            for placed in self.places(template, &mut stages, by_role) {
                let stage = stages.get(placed.stage).map_or("", |stage| stage.name.as_str());
                let values = self.values(placed.subject, phase, stage);
                match self.step(template, &placed, stage, &values) {
                    Ok(step) => {
                        let steps = overrides::apply(self.platform, template, step, &values, errors);
                        if let Some(stage) = stages.get_mut(placed.stage) {
                            stage.tolerant = template.tolerant;
                            stage.steps.extend(steps);
                        }
                    }
                    Err(problem) => {
                        let step = template.name.clone();
                        let error = match template.place.clone() {
                            Some(place) => PlanError::OwnStep { place, step, problem },
                            None => PlanError::Runbook { step, problem },
                        };
                        // The same mistake is made on every host; it is said once.
                        if !errors.contains(&error) {
                            errors.push(error);
                        }
                    }
                }
            }
        }
        stages.retain(|stage| !stage.steps.is_empty());
        for stage in &mut stages {
            self.finish(stage);
        }
        PhasePlan { name: phase, stages }
    }

    fn by_role(&self, phase: Phase) -> Option<&'a Stages> {
        match phase {
            // On the way back, it is the reverse of it.
            Phase::Migrate | Phase::Rollback => Some(self.migrate),
            Phase::Restart => Some(self.restart),
            _ => None,
        }
    }

    /// Everything that a template is for, with the stage it belongs to.
    fn places(&self, template: &Template, stages: &mut Vec<StagePlan>, by_role: Option<(usize, &Stages)>) -> Vec<Placed<'a>> {
        let mut found = Vec::new();
        for subject in self.subjects(template) {
            if !self.applies(&template.when, subject) || self.undone.is_some_and(|undone| !undone.concerns(template, subject)) {
                continue;
            }
            let stage_of = match (&template.stage, template.at) {
                (Some(name), _) => Some(named_stage(stages, name)),
                (None, Some(at)) => by_role.and_then(|(first, stages)| Some(first + self.stage_at(stages, at, subject)?)),
                (None, None) => None,
            };
            let Some(stage) = stage_of else { continue };
            let same = |placed: &Placed<'_>| {
                placed.subject.site.host.name == subject.site.host.name
                    && placed.subject.instance.map(|i| &i.name) == subject.instance.map(|i| &i.name)
            };
            let ordinal = if template.each.is_some_and(|each| each != Each::Stage) {
                found.iter().filter(|placed| same(placed)).count()
            } else {
                0
            };
            found.push(Placed { subject, stage, ordinal });
        }
        if template.scope == StepScope::Host && template.at == Some(At::Role) {
            // Once per host, in the first of its stages; or once in each of them, whatever number of roles it has there.
            found.sort_by_key(|placed| placed.stage);
            let mut seen: Vec<(&str, Option<usize>)> = Vec::new();
            found.retain(|placed| {
                let stage = (template.each == Some(Each::Stage)).then_some(placed.stage);
                let key = (placed.subject.site.host.name.as_str(), stage);
                let first = !seen.contains(&key);
                seen.push(key);
                first
            });
        }
        found
    }

    fn subjects(&self, template: &Template) -> Vec<Subject<'a>> {
        let plain = |site: &'a Site<'a>| Subject { site, instance: None, role: None, package: None };
        let roles = |host: &Host| -> Vec<Role> {
            let wanted = template.when.role.as_deref().unwrap_or_default();
            host.roles.iter().copied().filter(|role| wanted.contains(role)).collect()
        };
        let sites = self.sites.iter();
        match template.scope {
            StepScope::Platform => {
                let lead = self.sites.iter().find(|site| site.host.roles.contains(&Role::Marketing)).or(self.sites.first());
                lead.map(plain).into_iter().collect()
            }
            StepScope::Host => match template.each {
                Some(Each::Package) => sites
                    .flat_map(|site| site.target.iter().map(move |package| Subject { package: Some(package), ..plain(site) }))
                    .collect(),
                Some(Each::OldPackage) => sites
                    .flat_map(|site| site.old.iter().map(move |package| Subject { package: Some(package), ..plain(site) }))
                    .collect(),
                Some(Each::Client) => {
                    sites.filter_map(|site| Some(Subject { package: Some(site.client?), ..plain(site) })).collect()
                }
                _ if template.at == Some(At::Role) => sites
                    .flat_map(|site| roles(site.host).into_iter().map(move |role| Subject { role: Some(role), ..plain(site) }))
                    .collect(),
                _ => sites.map(plain).collect(),
            },
            StepScope::Instance => match template.on {
                On::App => self.on_hosts(|instance| Some(instance.app.as_str())),
                On::BackupHost => self.on_hosts(|instance| {
                    let by_dba = backup_by(self.platform, instance) == BackupBy::Dba;
                    if by_dba { Some(instance.app.as_str()) } else { backup_host(instance) }
                }),
                On::Everywhere => sites
                    .filter(|site| site.host.has_campaign())
                    .flat_map(|site| {
                        self.platform.instances.iter().map(move |instance| Subject { instance: Some(instance), ..plain(site) })
                    })
                    .collect(),
                On::Carriers => sites
                    .flat_map(|site| roles(site.host).into_iter().map(move |role| (site, role)))
                    .flat_map(|(site, role)| {
                        let carried = carried(self.platform, site.host, role).into_iter();
                        carried.map(move |instance| Subject { instance: Some(instance), role: Some(role), ..plain(site) })
                    })
                    .collect(),
            },
        }
    }

    /// Each instance on the host that `host_of` names for it.
    fn on_hosts(&self, host_of: impl Fn(&'a Instance) -> Option<&'a str>) -> Vec<Subject<'a>> {
        let subject = |instance: &'a Instance| {
            let name = host_of(instance)?;
            let site = self.sites.iter().find(|site| site.host.name == name)?;
            Some(Subject { site, instance: Some(instance), role: None, package: None })
        };
        self.platform.instances.iter().filter_map(subject).collect()
    }

    fn stage_at(&self, stages: &Stages, at: At, subject: Subject<'_>) -> Option<usize> {
        match at {
            // What a host's first stage did is undone in the last one that it is in.
            At::Host if self.undone.is_some() => stages.of_host(subject.site.host).last().copied(),
            At::Host => stages.of_host(subject.site.host).first().copied(),
            At::Role => stages.of_role(subject.role?),
            At::App => app_role(self.platform, subject.instance?).and_then(|role| stages.of_role(role)).or_else(|| {
                // A single machine has one stage, whatever roles the inventory gives it.
                (self.platform.topology == Topology::Standalone).then_some(0)
            }),
        }
    }

    fn applies(&self, when: &When, subject: Subject<'_>) -> bool {
        fn among<T: PartialEq>(wanted: Option<&Vec<T>>, is: impl Fn(&T) -> bool) -> bool {
            wanted.is_none_or(|wanted| wanted.iter().any(is))
        }
        let site = subject.site;
        let database = subject.instance.and_then(|instance| instance.database.as_ref());
        let from = subject.package.map(|package| match package.location {
            Location::Path(_) => PackageFrom::Path,
            Location::Url(_) => PackageFrom::Url,
        });
        let family = match &when.family {
            Some(wanted) => wanted.contains(&site.family),
            None => site.family != Family::Windows,
        };
        family
            && among(when.source.as_ref(), |version| *version == site.host.source.version)
            && among(when.init.as_ref(), |init| *init == site.init)
            && among(when.role.as_ref(), |role| site.host.roles.contains(role))
            && when.campaign.is_none_or(|campaign| campaign == site.host.has_campaign())
            && among(when.topology.as_ref(), |topology| *topology == self.platform.topology)
            && among(when.engine.as_ref(), |engine| database.is_some_and(|database| database.engine == *engine))
            && when.backup.is_none_or(|by| subject.instance.is_some_and(|instance| backup_by(self.platform, instance) == by))
            && when.database_password.is_none_or(|given| database.is_some_and(|database| database.password.is_some() == given))
            && when.scratch.is_none_or(|given| subject.instance.is_some_and(|i| scratch(self.platform, i).is_some() == given))
            && when.keep.is_none_or(|of| site.host.keep.as_ref().is_some_and(|keep| keep.of.contains(&of)))
            && when.package.is_none_or(|wanted| from == Some(wanted))
            && when.old_packages.is_none_or(|wanted| self.has_old_packages(site) == wanted)
    }

    /// Whether the old packages can be installed again: from files, or in the site's own way.
    fn has_old_packages(&self, site: &Site<'_>) -> bool {
        let own_way = self.platform.overrides.get("back.install-packages").is_some_and(|change| change.command.is_some());
        own_way || !site.old.is_empty()
    }

    fn values(&self, subject: Subject<'_>, phase: Phase, stage: &str) -> Values {
        let mut values = values(self.platform, subject, self.files);
        values.insert("stage", Value::from(stage));
        if let Some(undone) = self.undone {
            undone.values(subject, &mut values);
        }
        if let Some(queries) = self.queries.get(&(subject.site.host.name.as_str(), phase)) {
            values.insert("queries", queries.clone());
        }
        values
    }

    fn step(&self, template: &Template, placed: &Placed<'_>, stage: &str, values: &Values) -> Result<PlannedStep, String> {
        let Subject { site, instance, .. } = placed.subject;
        let text = |text: &str| fill_text(text, values).map_err(|error| error.to_string());
        let action: Action = typed(&template.action, values)?;
        // The values may have brought in what the runbook's own text has not.
        if let Action::Keep { name, .. } = &action
            && !is_plain_name(name)
        {
            return Err(format!("`{name}` is no name of a copy: the name of one file is expected"));
        }
        let probe_of = |probe: &Option<Value>| -> Result<Option<Probe>, String> {
            probe.as_ref().map(|probe| typed(probe, values)).transpose()
        };
        let (only_if, probe) = (probe_of(&template.only_if)?, probe_of(&template.probe)?);
        let name = match placed.ordinal {
            0 => template.name.clone(),
            before => format!("{}.{}", template.name, before + 1),
        };
        let whose = instance.map(|instance| format!(":{}", instance.name)).unwrap_or_default();
        let id = StepId(format!("{}/{}/{stage}/{}{whose}/{name}", self.platform.name, template.phase, site.host.name));
        let title = text(&template.title)?;
        let run_as = run_as(site.host, template.run_as);
        let watch = template.limits.watch.iter().map(|pattern| text(pattern)).collect::<Result<_, _>>()?;
        let wave = match template.wave {
            Wave::Fixed(wave) => wave,
            Wave::Named(_) => self.restart.of_host(site.host).last().map_or(0, |stage| u32::try_from(*stage).unwrap_or(u32::MAX)),
        };
        Ok(PlannedStep {
            name,
            title: title.clone(),
            short: text(&template.short)?,
            scope: template.scope,
            host: site.host.name.clone(),
            instance: instance.map(|instance| instance.name.clone()),
            run_as: run_as.clone(),
            action: action.kind().to_owned(),
            command: action.argv(),
            reversibility: template.reversibility,
            source: template.source.clone(),
            wave,
            explain: text(&template.explain)?,
            undo: text(&template.undo)?,
            skip: None,
            spec: StepSpec {
                id: id.clone(),
                title,
                run_as,
                action,
                only_if,
                probe,
                repeat: template.repeat,
                limits: Limits { watch, ..template.limits.clone() },
            },
            id,
        })
    }

    /// Puts a stage's steps in order and says which hosts and roles it is about.
    fn finish(&self, stage: &mut StagePlan) {
        let place = |name: &str| self.platform.hosts.iter().position(|host| host.name == name);
        stage.steps.sort_by_key(|step| (step.wave, place(&step.host)));
        let hosts: Vec<&Host> =
            self.platform.hosts.iter().filter(|host| stage.steps.iter().any(|step| step.host == host.name)).collect();
        if stage.roles.is_empty() {
            let wanted: Vec<Option<&Vec<Role>>> = self.templates_of(stage).map(|template| template.when.role.as_ref()).collect();
            let about = |role: &Role| wanted.iter().any(|wanted| wanted.is_none_or(|wanted| wanted.contains(role)));
            stage.roles = hosts.iter().flat_map(|host| host.roles.iter().copied()).filter(about).collect();
            stage.roles.sort_unstable();
            stage.roles.dedup();
        }
        stage.hosts = hosts.into_iter().map(|host| host.name.clone()).collect();
    }

    fn templates_of<'s>(&'s self, stage: &'s StagePlan) -> impl Iterator<Item = &'s Template> {
        self.runbook.steps.iter().filter(move |template| template.stage.as_deref() == Some(stage.name.as_str()))
    }
}

/// The role whose stage runs an instance's postupgrade.
pub(super) fn app_role(platform: &Platform, instance: &Instance) -> Option<Role> {
    let roles: &[Role] = match instance.kind {
        InstanceKind::Marketing => &[Role::Marketing],
        InstanceKind::MidSourcing => &[Role::MidSourcing],
        InstanceKind::Execution => &[Role::PowerBooster, Role::PowerCluster],
    };
    let app = platform.host(&instance.app)?;
    roles.iter().copied().find(|role| app.roles.contains(role))
}

/// Whom a step runs as. Without root, everything is done by the login user.
pub(super) fn run_as(host: &Host, account: Account) -> RunAs {
    match account {
        _ if !host.has_root() => RunAs::Login,
        Account::Login => RunAs::Login,
        Account::Root => RunAs::User("root".to_owned()),
        Account::Campaign => RunAs::User(host.campaign.user.clone()),
    }
}

fn typed<T: DeserializeOwned>(template: &Value, values: &Values) -> Result<T, String> {
    let filled = fill(template, values).map_err(|error| error.to_string())?;
    serde_json::from_value(filled).map_err(|error| error.to_string())
}

fn stage(name: &str, roles: Vec<Role>) -> StagePlan {
    StagePlan { name: name.to_owned(), roles, hosts: Vec::new(), tolerant: false, steps: Vec::new() }
}

/// The stage of this name, made at the end if it is not there.
fn named_stage(stages: &mut Vec<StagePlan>, name: &str) -> usize {
    match stages.iter().position(|stage| stage.name == name) {
        Some(index) => index,
        None => {
            stages.push(stage(name, Vec::new()));
            stages.len() - 1
        }
    }
}
