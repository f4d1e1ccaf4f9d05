//! The Campaign installation: its version, its packages, its instances.

use super::Checked;
use crate::check::banner::{Banner, modules};
use crate::check::finding::clean;
use crate::check::layout::instance_of;
use inventory::{InstanceKind, Role, SourceVersion};
use proto::event::{Finding, Status};
use proto::inspect::{PathKind, ReadError};
use std::collections::BTreeSet;

impl Checked<'_> {
    /// What `nlserver pdump` says of itself; otherwise the finding that says why it is not known.
    fn banner(&self) -> Result<(Banner, &str), Box<Finding>> {
        let check = "version";
        let finding = match self.reached.readings.output(&self.layout.pdump()) {
            Ok((code, text)) => {
                if let Some(banner) = Banner::parse(text) {
                    return Ok((banner, text));
                }
                let seen = format!("exit {code}: {}", clean(text.lines().next().unwrap_or("no output")));
                let remedy = "Run `nlserver pdump` there as the Campaign account and look at what it says.";
                self.subject.finding(check, Status::Unknown, "`nlserver pdump` does not say the version", seen, remedy)
            }
            Err(ReadError::Missing(_)) => {
                let message = format!("no Campaign installation in {}", self.layout.tree());
                let seen = format!("{} is not there", self.layout.program());
                let remedy = "Correct `campaign.home` or `source.version` in the inventory, or the host's roles.";
                self.subject.finding(check, Status::Failure, message, seen, remedy)
            }
            Err(error) => self.subject.unread(check, "the version", &error),
        };
        Err(Box::new(finding))
    }

    pub(super) fn version(&self) -> Finding {
        let check = "version";
        let (banner, _) = match self.banner() {
            Ok(found) => found,
            Err(finding) => return *finding,
        };
        let (source, target) = (&self.host.source, &self.host.target);
        let Banner { version, build } = &banner;
        let evidence = format!("nlserver pdump: {version} (build {build})");
        let failure = |message: String, remedy: &str| self.subject.finding(check, Status::Failure, message, &*evidence, remedy);
        let warning = |message: String, remedy: &str| self.subject.finding(check, Status::Warning, message, &*evidence, remedy);
        if *build == target.build {
            let remedy = "Where a run stopped half-way: `caravan runs`, then `caravan resume RUN` or `caravan rollback RUN` (`resume --from-hosts` from another workstation). A host that was migrated for good is taken out of the inventory.";
            return failure(format!("it is at the target build {build} already"), remedy);
        }
        if !is_version(version, source.version.as_str()) {
            let message = format!("the inventory says v{}, installed is {version} ({build})", source.version.as_str());
            return failure(message, "Correct `source.version` in the inventory: the procedure depends on it.");
        }
        let upgrade = source.version == SourceVersion::V7;
        if upgrade && *build > target.build {
            let message = format!("build {build} is later than the target build {}", target.build);
            return failure(message, "Correct `target.build` in the inventory: a build upgrade leads to a later build.");
        }
        match source.latest_build {
            // What is upgraded need not be the latest: that is what it is upgraded to.
            None if upgrade => self.subject.ok(check, format!("v7, build {build}"), evidence),
            None => warning(
                format!("build {build}; the inventory does not say the latest build of v{}", source.version.as_str()),
                "Look up the latest build, set `source.latest_build`: it must be installed before migrating.",
            ),
            Some(latest) if *build < latest => failure(
                format!("build {build} is not the latest of v{} ({latest})", source.version.as_str()),
                "Install the latest build of the version in use first, on every server of the platform.",
            ),
            Some(latest) if *build > latest => warning(
                format!("build {build} is newer than the inventory's latest build {latest}"),
                "Correct `source.latest_build` in the inventory.",
            ),
            Some(_) => self.subject.ok(check, format!("v{}, latest build {build}", source.version.as_str()), evidence),
        }
    }

    pub(super) fn new_version(&self) -> Finding {
        let (Banner { version, build }, _) = match self.banner() {
            Ok(found) => found,
            Err(finding) => return *finding,
        };
        let evidence = format!("nlserver pdump: {version} (build {build})");
        let target = &self.host.target;
        if build == target.build {
            return self.subject.ok("version", format!("v{}, build {build}", target.version), evidence);
        }
        let message = format!("build {build} is installed, {} was to be", target.build);
        self.subject.finding(
            "version",
            Status::Failure,
            message,
            evidence,
            "Look at the output of `install.packages` of this host.",
        )
    }

    /// For the reader only: what the application server runs before it is stopped.
    pub(super) fn running(&self) -> Option<Finding> {
        let application = [Role::Marketing, Role::MidSourcing, Role::PowerBooster, Role::PowerCluster];
        if !self.host.roles.iter().any(|role| application.contains(role)) {
            return None;
        }
        let (_, text) = self.banner().ok()?;
        let modules = modules(text);
        let message = if modules.is_empty() { "no module is running" } else { "modules are running; they will be stopped" };
        let names: BTreeSet<String> = modules.into_iter().map(clean).collect();
        Some(self.subject.ok("running", message, format!("nlserver pdump: {}", join(&names, "No tasks"))))
    }

    pub(super) fn packages_old(&self) -> Finding {
        let check = "packages-old";
        // Where the OS is not declared both managers were asked, and one of them is not there.
        let mut answers: Vec<_> = self.layout.packages().iter().map(|query| self.reached.readings.packages(query)).collect();
        answers.sort_by_key(|answer| answer.as_ref().map_or(1, |packages| usize::from(packages.is_empty())));
        let installed = match answers.into_iter().next() {
            Some(Ok(installed)) => installed,
            Some(Err(error)) => return self.subject.unread(check, "the package manager's list", &error),
            None => {
                return self.subject.unread(
                    check,
                    "the package manager's list",
                    &ReadError::Failed("nothing was asked".to_owned()),
                );
            }
        };
        let list = installed.iter().map(|(name, version)| clean(&format!("{name} {version}"))).collect();
        let evidence = format!("installed: {}", join(&list, "none of them"));
        let is_installed = |name: &String| installed.iter().any(|(found, _)| found == name);
        let (old, new) = (self.layout.old_packages(), self.layout.new_packages());
        if let Some(name) = new.iter().find(|name| !old.contains(name) && is_installed(name)) {
            let message = format!("the v7 package {name} is installed already");
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Where a run stopped half-way: `caravan runs`, then `caravan resume RUN` or `caravan rollback RUN`. Otherwise look at what was begun there by hand.",
            );
        }
        let missing: BTreeSet<String> = old.iter().filter(|name| !is_installed(name)).cloned().collect();
        let remedy =
            "Say in `source.packages[].names` what is installed there: it has to be removed, and put back when going back.";
        if missing.is_empty() {
            self.subject.ok(check, "the packages to replace are installed", evidence)
        } else {
            let status = if missing.len() == old.len() { Status::Failure } else { Status::Warning };
            self.subject.finding(check, status, format!("not installed: {}", join(&missing, "")), evidence, remedy)
        }
    }

    pub(super) fn instance_config(&self) -> Finding {
        let check = "instance-config";
        let files = match self.reached.readings.xml(&self.layout.instance_list()) {
            Ok(values) => values,
            Err(ReadError::Missing(_)) => &[],
            Err(error) => return self.subject.unread(check, "conf/config-*.xml", &error),
        };
        let present: BTreeSet<String> = files.iter().filter_map(|value| instance_of(&value.file)).map(clean).collect();
        let known: BTreeSet<String> = self.platform.instances.iter().map(|instance| instance.name.clone()).collect();
        let evidence = format!("instances configured there: {}", join(&present, "none"));
        let missing: BTreeSet<String> = self.expected_instances().difference(&present).cloned().collect();
        if !missing.is_empty() {
            let message = format!("no config-<instance>.xml for {}", join(&missing, ""));
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Correct `instances` in the inventory, or the host's configuration.",
            );
        }
        // A mail server carries the instances it delivers for; which ones, the inventory does not say.
        if self.host.roles.contains(&Role::Mta) && present.is_disjoint(&known) {
            let message = "a mail server without the configuration of any instance";
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Correct `instances` or the host's roles in the inventory.",
            );
        }
        let strange: BTreeSet<String> = present.difference(&known).cloned().collect();
        if !strange.is_empty() {
            let message = format!("instances that the inventory does not name: {}", join(&strange, ""));
            let remedy = "Add them to `instances`: nobody runs their postupgrade otherwise. Or remove what is no longer used.";
            return self.subject.finding(check, Status::Warning, message, evidence, remedy);
        }
        self.subject.ok(check, "instances as declared", evidence)
    }

    /// Instances that must be configured here: those whose application server it is, and on every marketing server the marketing ones.
    fn expected_instances(&self) -> BTreeSet<String> {
        let marketing = self.host.roles.contains(&Role::Marketing);
        let here = |instance: &&inventory::Instance| {
            instance.app == self.host.name || (marketing && instance.kind == InstanceKind::Marketing)
        };
        self.platform.instances.iter().filter(here).map(|instance| instance.name.clone()).collect()
    }

    pub(super) fn back_tree_absent(&self) -> Finding {
        let check = "back-tree-absent";
        let back = self.layout.back();
        match self.reached.readings.path(&back) {
            Ok(PathKind::Absent) | Err(ReadError::Missing(_)) => {
                self.subject.ok(check, "the name of the backup tree is free", back)
            }
            Ok(_) => {
                let remedy = "Where a run stopped half-way, it is the way back: `caravan runs`, then `caravan resume RUN` or `caravan rollback RUN`. Move it away only if no run needs it any more.";
                self.subject.finding(
                    check,
                    Status::Failure,
                    format!("{back} exists already"),
                    "the backup step moves the installation there",
                    remedy,
                )
            }
            Err(error) => self.subject.unread(check, &back, &error),
        }
    }
}

/// Whether a banner's version is of a release line: `6.1` and `6.1.1` are of `6.1`, `6.11` is not.
fn is_version(found: &str, line: &str) -> bool {
    found.strip_prefix(line).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn join(names: &BTreeSet<String>, none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.iter().map(String::as_str).collect::<Vec<_>>().join(", ") }
}
