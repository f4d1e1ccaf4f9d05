//! Installing and removing packages.

use super::{Context, Done, Result, command, plain};
use crate::inspect::installed_versions;
use proto::Action;
use proto::step::{LineRule, PackageManager};

/// Installs packages. rpm ends well when a script fails that it runs after a package was unpacked; it only warns of it, and does not note
/// it either, as dpkg does.
pub(super) fn install(action: &Action, context: &mut Context<'_>) -> Result {
    let failed = LineRule {
        contains: "scriptlet failed".to_owned(),
        means: "a script of the package failed".to_owned(),
        ..LineRule::default()
    };
    let rules =
        if matches!(action, Action::InstallPackages { manager: PackageManager::Rpm, .. }) { vec![failed] } else { Vec::new() };
    run(action, rules, context)
}

/// Runs the package manager.
fn run(action: &Action, fail_on: Vec<LineRule>, context: &mut Context<'_>) -> Result {
    let mut command = plain(action);
    command.fail_on = fail_on;
    command.env.insert("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned());
    // Maintainer scripts may restart services: those live on, but while the package manager itself runs, so does the step.
    command::run(&command, command::Descendants::MayRemain, context)
}

/// Removes packages. Those that are not installed are none of it: rpm would refuse all of them, as after an attempt that was cut off. dpkg
/// only warns of them, and purges what is installed half-way.
pub(super) fn remove(manager: PackageManager, names: &[String], context: &mut Context<'_>) -> Result {
    let mut there = Vec::new();
    for name in names {
        let versions = match manager {
            PackageManager::Dpkg => None,
            PackageManager::Rpm => Some(installed_versions(manager, name, None).map_err(|e| format!("rpm cannot be asked: {e}"))?),
        };
        match versions {
            Some(versions) if versions.is_empty() => context.note(&format!("{name} is not installed")),
            _ => there.push(name.clone()),
        }
    }
    if there.is_empty() {
        return Ok(Done::default());
    }
    run(&Action::RemovePackages { manager, names: there }, Vec::new(), context)
}
