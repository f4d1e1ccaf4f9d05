//! The plan: runbook x fleet, everything that will happen, in order.
//!
//! [`build`] is pure but for two things: it looks at the package files that the workstation will send, and reads a site's own runbooks. It contacts nothing and
//! resolves no secret. What it rests on: the order of stages ([`order`]), the runbook as data ([`runbook`]), what is known of the hosts
//! beforehand ([`site`]), and what the site changes ([`overrides`]).

mod error;
mod expand;
mod explain;
mod files;
mod hash;
pub mod model;
mod order;
mod overrides;
pub mod passwords;
mod render;
pub mod rollback;
pub mod runbook;
mod site;
mod template;
mod text;
mod values;
mod words;

pub use error::{PlanError, PlanErrors};
pub use expand::Queries;
pub use explain::{UnknownStep, explain, select};
pub use files::FileCheck;
pub(crate) use files::is_plain_name;
pub(crate) use hash::digest;
pub use model::*;
pub use render::{Expected, render, render_expecting};
pub use template::TemplateError;
pub(crate) use text::words;
pub(crate) use values::{SCRATCH_SECRETS, pgpass, scratch, scratch_secrets};

use expand::{ASKING, Expansion};
use files::Files;
use inventory::{Engine, Fleet, InstanceKind, Platform, Role, SourceVersion, Topology};
use runbook::{BackupBy, Runbook};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a migration needs and the plan does not do (procedure, step 5: local changes are carried over).
const BY_HAND: &str = "by hand: local changes of serverConf.xml beyond internalPassword, databaseId and trackingPassword, security zones, \
     and the setup of the client console are not carried over. Do it between migrate and restart, or right after the run.";

/// Plans the migration of a fleet that is going to happen: every package file of the workstation must be there.
///
/// `queries` says what preflight and verify ask of a host; it comes from the checks.
///
/// # Errors
/// Everything that keeps the fleet from being planned, at once.
pub fn build(fleet: &Fleet, queries: &Queries<'_>) -> Result<Plan, PlanErrors> {
    build_with(fleet, queries, FileCheck::Required)
}

/// Plans the migration of a fleet. With [`FileCheck::Optional`] a package file that is missing on the workstation is a warning, and the
/// plan can be read but not carried out.
///
/// # Errors
/// Everything that keeps the fleet from being planned, at once.
pub fn build_with(fleet: &Fleet, queries: &Queries<'_>, check: FileCheck) -> Result<Plan, PlanErrors> {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let files = Files::look(fleet, check, &mut errors, &mut warnings);
    let platforms: Vec<PlatformPlan> = fleet
        .platforms
        .iter()
        .filter_map(|platform| plan_platform(platform, &fleet.base, queries, &files, &mut errors, &mut warnings))
        .collect();
    let steps = || platforms.iter().flat_map(PlatformPlan::steps);
    let mut ids = BTreeSet::new();
    errors.extend(steps().filter(|step| !ids.insert(&step.id)).map(|step| PlanError::DuplicateStep { id: step.id.to_string() }));
    if !errors.is_empty() {
        return Err(PlanErrors(errors));
    }
    warnings.push(BY_HAND.to_owned());
    let digests: Vec<&str> = steps()
        .filter_map(|step| match &step.spec.action {
            proto::Action::PushFile { sha256, .. } => Some(sha256.as_str()),
            _ => None,
        })
        .collect();
    let planned = files.planned(&digests);
    let hash = hash::plan_hash(fleet, &platforms)
        .map_err(|error| PlanErrors(vec![PlanError::Runbook { step: "the plan's hash".to_owned(), problem: error.to_string() }]))?;
    Ok(Plan { fleet: fleet.name.clone(), hash, platforms, files: planned, warnings })
}

fn plan_platform(
    platform: &Platform,
    base: &Path,
    queries: &Queries<'_>,
    files: &Files,
    errors: &mut Vec<PlanError>,
    warnings: &mut Vec<String>,
) -> Option<PlatformPlan> {
    let before = errors.len();
    let runbook = runbook_of(platform, base, errors)?;
    let sites = site::settle(platform, errors, warnings);
    let mut stages = |stages: Result<order::Stages, PlanError>| stages.map_err(|error| errors.push(error)).ok();
    let (migrate, restart) = (stages(order::migrate(platform)), stages(order::restart(platform)));
    let way_back = way_back_of(platform, errors);
    overrides::check(platform, &runbook, way_back.as_ref(), errors);
    check_sources(platform, errors);
    check_targets(platform, errors);
    check_instances(platform, errors);
    let (migrate, restart) = (migrate?, restart?);
    if errors.len() > before {
        return None;
    }
    // Windows hosts have no agent to ask.
    let asking = sites.iter().filter(|site| !site.host.is_windows()).flat_map(|site| ASKING.map(|phase| (site.host, phase)));
    let asked: Result<BTreeMap<(&str, Phase), serde_json::Value>, serde_json::Error> = asking
        .map(|(host, phase)| Ok(((host.name.as_str(), phase), serde_json::to_value(queries(platform, host, phase))?)))
        .collect();
    let asked =
        asked.map_err(|error| errors.push(PlanError::Runbook { step: "facts".to_owned(), problem: error.to_string() })).ok()?;
    let expansion = Expansion {
        platform,
        runbook: &runbook,
        sites: &sites,
        migrate: &migrate,
        restart: &restart,
        files,
        queries: &asked,
        undone: None,
    };
    let phases = expansion.phases(errors);
    let lead = platform.hosts.iter().find(|host| host.has_campaign()).or(platform.hosts.first())?;
    let build = lead.source.latest_build.map(|build| format!(" ({build})")).unwrap_or_default();
    let plan = PlatformPlan {
        name: platform.name.clone(),
        topology: platform.topology,
        rehearsal: platform.rehearsal,
        source: format!("v{}{build}", lead.source.version.as_str()),
        target: format!("v{} ({})", lead.target.version, lead.target.build),
        roles: platform
            .topology
            .roles()
            .iter()
            .map(|role| (*role, platform.with_role(*role).count()))
            .filter(|(_, count)| *count > 0)
            .collect(),
        phases,
    };
    warn(platform, &plan, &migrate, way_back.as_ref(), warnings);
    warn_of_guesses(platform, &sites, warnings);
    Some(plan)
}

/// The version that a platform's servers run, by the first of them that has one: that all run the same is checked.
fn source_version(platform: &Platform) -> Option<SourceVersion> {
    Some(platform.hosts.iter().find(|host| host.has_campaign())?.source.version)
}

/// The runbook that leads back to a platform's source version: a site can override its steps beforehand.
fn way_back_of(platform: &Platform, errors: &mut Vec<PlanError>) -> Option<Runbook> {
    let defect = |problem: String| PlanError::Runbook { step: "all".to_owned(), problem };
    Runbook::back_to(source_version(platform)?).map_err(|error| errors.push(defect(error.to_string()))).ok().flatten()
}

/// The runbook for a platform's source version: the site's own one, where the inventory names it.
fn runbook_of(platform: &Platform, base: &Path, errors: &mut Vec<PlanError>) -> Option<Runbook> {
    let version = source_version(platform)?;
    let found = match &platform.runbook {
        Some(file) => match Runbook::load(&base.join(file)) {
            Ok(runbook) if runbook.source_versions.contains(&version) => return Some(runbook),
            Ok(runbook) => format!("{} ({file}) does not start from v{}", runbook.name, version.as_str()),
            Err(problems) => problems.render(false),
        },
        None => match Runbook::for_source(version) {
            Ok(Some(runbook)) => return Some(runbook),
            Ok(None) => format!("none starts from v{}", version.as_str()),
            Err(error) => error.to_string(),
        },
    };
    errors.push(PlanError::RunbookFile { platform: platform.name.clone(), problem: found.trim_end().to_owned() });
    None
}

/// All servers of a platform come from the same version; and a later build of v7 is a later one.
fn check_sources(platform: &Platform, errors: &mut Vec<PlanError>) {
    let hosts = || platform.hosts.iter().filter(|host| host.has_campaign());
    let mut versions: Vec<&str> = Vec::new();
    for host in hosts() {
        if !versions.contains(&host.source.version.as_str()) {
            versions.push(host.source.version.as_str());
        }
    }
    if versions.len() > 1 {
        errors.push(PlanError::Sources { platform: platform.name.clone(), versions: versions.join(", ") });
    }
    let mut earlier: BTreeMap<(u32, u32), Vec<String>> = BTreeMap::new();
    for host in hosts().filter(|host| host.source.version == SourceVersion::V7) {
        if let Some(latest) = host.source.latest_build.filter(|latest| *latest >= host.target.build) {
            earlier.entry((host.target.build, latest)).or_default().push(host.name.clone());
        }
    }
    for ((build, latest), hosts) in earlier {
        errors.push(PlanError::NotLater { platform: platform.name.clone(), hosts: fold(&hosts), build, latest });
    }
}

/// All servers of a platform get the same build.
fn check_targets(platform: &Platform, errors: &mut Vec<PlanError>) {
    let targets: BTreeSet<String> = platform
        .hosts
        .iter()
        .filter(|host| host.has_campaign())
        .map(|host| format!("{} ({})", host.target.version, host.target.build))
        .collect();
    if targets.len() > 1 {
        let targets = targets.into_iter().collect::<Vec<_>>().join(", ");
        errors.push(PlanError::Targets { platform: platform.name.clone(), targets });
    }
}

/// Every instance has an application server that can run its postupgrade, and a backup that can be made.
fn check_instances(platform: &Platform, errors: &mut Vec<PlanError>) {
    for instance in &platform.instances {
        let app = |seen: String, next: &str| PlanError::App {
            platform: platform.name.clone(),
            instance: instance.name.clone(),
            app: instance.app.clone(),
            seen,
            next: next.to_owned(),
        };
        match platform.host(&instance.app) {
            None => errors.push(app("is no host of the platform".to_owned(), "name one of its hosts as `app`")),
            Some(_) if platform.topology == Topology::Standalone => {}
            Some(_) if expand::app_role(platform, instance).is_none() => {
                let role = match instance.kind {
                    InstanceKind::Marketing => "marketing",
                    InstanceKind::MidSourcing => "mid-sourcing",
                    InstanceKind::Execution => "power-booster or power-cluster",
                };
                errors.push(app(format!("does not have the role {role}"), "give it that role or name another host as `app`"));
            }
            Some(_) => {}
        }
        let (name, of) = (platform.name.clone(), instance.name.clone());
        if instance.timestamptz && !instance.database.as_ref().is_some_and(|database| database.engine.keeps_time_zones()) {
            errors.push(PlanError::Timestamptz { platform: name.clone(), instance: of.clone() });
        }
        let from = platform.host(&instance.app).map(|host| host.source.version);
        if instance.timezone.is_none() && from == Some(SourceVersion::V5_11) {
            errors.push(PlanError::Timezone { platform: name, instance: of });
        }
        let backup = |seen: String, next: &str| PlanError::Backup {
            platform: platform.name.clone(),
            instance: instance.name.clone(),
            seen,
            next: next.to_owned(),
        };
        let Some(on) = values::backup_host(instance) else { continue };
        if platform.host(on).is_none() {
            errors.push(backup(
                format!("its backup is made on `{on}`, which is no host of the platform"),
                "add it to the hosts with the role database, or use `backup: { by: dba }`",
            ));
        }
        let changed =
            |step: &str| platform.overrides.get(step).is_some_and(|change| change.command.is_some() || change.skip.is_some());
        let own_way = changed("backup.database") && changed("backup.database-verify");
        let postgresql = instance.database.as_ref().is_some_and(|database| database.engine == Engine::Postgresql);
        if values::backup_by(platform, instance) == BackupBy::Caravan && !postgresql && !own_way {
            errors.push(backup(
                "its database is not PostgreSQL, and pg_dump backs up PostgreSQL alone".to_owned(),
                "use `backup: { by: dba }`, or override both backup.database and backup.database-verify with the site's own commands",
            ));
        }
    }
}

/// What a person should know before starting.
fn warn(platform: &Platform, plan: &PlatformPlan, migrate: &order::Stages, way_back: Option<&Runbook>, warnings: &mut Vec<String>) {
    let name = &platform.name;
    if let Some(file) = &platform.runbook {
        warnings.push(format!(
            "{name}: planned with the site's own runbook {file}, not with the vendor's procedure as Caravan carries it."
        ));
    }
    let mut several: Vec<(Vec<Role>, Role, Vec<String>)> = Vec::new();
    for (host, role) in order::upside_down(platform, migrate) {
        match several.iter_mut().find(|(roles, late, _)| *roles == host.roles && *late == role) {
            Some((_, _, hosts)) => hosts.push(host.name.clone()),
            None => several.push((host.roles.clone(), role, vec![host.name.clone()])),
        }
    }
    for (roles, late, hosts) in several {
        let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" and ");
        warnings.push(format!(
            "{name}: {} is {roles}: its packages come with the first of its stages, so {late} is migrated there ahead of hosts that the \
             order puts before {late}. Roles that are apart in the order belong on hosts of their own.",
            fold(&hosts)
        ));
    }
    for (step, change) in &platform.overrides {
        let planned = plan.steps().any(|planned| planned.name == *step);
        let later = way_back.is_some_and(|runbook| runbook.names().contains(&step.as_str()));
        if !planned && !later {
            warnings.push(format!("{name}: the override of `{step}` changes nothing: the plan of this platform has no such step."));
        } else if let Some(reason) = change.skip.as_ref().filter(|_| planned) {
            warnings.push(format!(
                "{name}: `{step}` is left out: {reason}. Its barrier opens only if its probe says that the effect is there."
            ));
        }
    }
}

/// The service of an installed v7 on systemd can have its older name. Where the site stops and starts it its own way, nobody guesses.
fn warn_of_guesses(platform: &Platform, sites: &[site::Site<'_>], warnings: &mut Vec<String>) {
    let own_way = |step: &str| platform.overrides.get(step).is_some_and(|change| change.command.is_some());
    if own_way("stop.nlserver") && own_way("back.start-service") {
        return;
    }
    let guessed: Vec<String> =
        sites.iter().filter(|site| values::guessed_service(site)).map(|site| site.host.name.clone()).collect();
    if !guessed.is_empty() {
        warnings.push(format!(
            "{}: {}: the service of the installed v7 is taken to be `nlserver`, as from 20.1 on. Where an earlier build is installed, it is \
             `nlserver6`: override `stop.nlserver`, which the way back uses for the new build, too (`[/bin/sh, -c, 'systemctl stop nlserver6 \
             || systemctl stop nlserver']`), and `back.start-service` (`[systemctl, start, nlserver6]`).",
            platform.name,
            fold(&guessed)
        ));
    }
}

/// Names folded for people.
fn fold(names: &[String]) -> String {
    inventory::fold_names(&names.iter().map(String::as_str).collect::<Vec<_>>())
}
