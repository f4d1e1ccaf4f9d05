//! What is to be carried over, set aside and led elsewhere when a host comes from v5.11 or v6.02 (domain, procedure steps 4, 5 and 8).

use super::Site;
use crate::conf;
use crate::layout::{Family, Host, Layout};
use crate::records::{Event, Rule, Writer};
use crate::spec::Role;
use crate::standins::tree;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Whether this is the one start that a bare new installation needs on a host of v5: no instance is configured in it.
pub(super) fn is_bare_start(layout: &Layout, host: &Host, what: &str) -> bool {
    let harmless = ["nlserver6", "web@default", "syslogd@default"].contains(&what);
    host.source.is_v5() && harmless && is_new(layout, host) && configurations(&host.nl6()).is_empty()
}

/// Whether what is installed on a host is the target.
fn is_new(layout: &Layout, host: &Host) -> bool {
    tree::unpacked(host).is_ok_and(|found| found == layout.target)
}

/// The configurations of instances in an installation.
fn configurations(tree: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(tree.join("conf")).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_instance = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("config-") && name.ends_with(".xml") && name != "config-default.xml"
    };
    files.filter(of_instance).collect()
}

/// The modules of instances in a configuration that have an attribute of this name.
fn modules_with(file: &Path, attribute: &str) -> Vec<String> {
    let all = conf::attributes(file).unwrap_or_default();
    let module = |(path, name, _): &(String, String, String)| {
        let module = path.strip_prefix("serverconf/")?;
        (name == attribute && conf::INSTANCE_MODULES.contains(&module)).then(|| module.to_owned())
    };
    all.iter().filter_map(module).collect()
}

/// The files around an installation that name it, with what they say: the account's shell, and the web server's configuration.
fn surroundings(host: &Host) -> Vec<(String, String)> {
    let etc = host.web_config();
    let mut files = vec![host.home().join(".bashrc")];
    if host.is(Role::Tracking) {
        files.extend(match host.family() {
            Family::Debian => ["envvars", "mods-available/nlsrv.load", "mods-available/nlsrv.conf", "mods-available/alias.conf"]
                .map(|name| etc.join(name))
                .to_vec(),
            Family::Rhel => ["conf.d/nlsrv.conf", "../sysconfig/httpd"].map(|name| etc.join(name)).to_vec(),
        });
    }
    let said = |file: &PathBuf| {
        let link = fs::read_link(file).map(|link| link.to_string_lossy().into_owned());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some((name, link.or_else(|_| fs::read_to_string(file)).ok()?))
    };
    files.iter().filter_map(said).collect()
}

impl Site {
    /// Nothing of an instance may be able to start by itself while its platform is migrated.
    pub(crate) fn judge_held(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        let version = self.host.source.version.as_str();
        if !is_new(&self.layout, &self.host) {
            return Ok(());
        }
        if self.host.source.is_v5() {
            let default = fs::read_to_string(self.host.nl6().join("conf/config-default.xml")).unwrap_or_default();
            if default.contains(conf::DEFAULT_OF_V5) {
                writer.append(Event::Violation(Rule::DefaultConfigOfV5), what, "config-default.xml is that of v5")?;
            }
        }
        if !["5.11", "6.02"].contains(&version) {
            return Ok(());
        }
        let mut free = Vec::new();
        for file in configurations(&self.host.nl6()) {
            free.extend(modules_with(&file, "autoStart").into_iter().map(|module| format!("{module} in {}", file.display())));
        }
        if !free.is_empty() {
            let detail = format!("autoStart was not set aside: {}", free.join(", "));
            writer.append(Event::Violation(Rule::ModulesNotHeld), what, &detail)?;
        }
        Ok(())
    }

    /// What was set aside is back before anything starts.
    pub(super) fn judge_released(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        let (now, before) = (self.host.nl6(), self.host.backup());
        if !is_new(&self.layout, &self.host) || !before.exists() {
            return Ok(());
        }
        let mut held = Vec::new();
        for file in configurations(&now) {
            let name = file.file_name().unwrap_or_default();
            let (is, was) = (modules_with(&file, "autoStart"), modules_with(&before.join("conf").join(name), "autoStart"));
            if is != was {
                held.push(format!("{} has autoStart on {is:?}, it was on {was:?}", name.to_string_lossy()));
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        writer.append(Event::Violation(Rule::ModulesNotReleased), what, &held.join(", "))
    }

    /// The account's shell and the web server lead to the installation that is there.
    pub(super) fn judge_surroundings(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        let Ok(installed) = tree::unpacked(&self.host) else { return Ok(()) };
        let other = if installed.is_v5() { "/nl6/" } else { "/nl5/" };
        let wrong: Vec<String> =
            surroundings(&self.host).into_iter().filter(|(_, text)| text.contains(other)).map(|(name, _)| name).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let detail = format!("{} still lead to {}", wrong.join(", "), other.trim_matches('/'));
        writer.append(Event::Violation(Rule::LeadsToTheOther), what, &detail)
    }
}
