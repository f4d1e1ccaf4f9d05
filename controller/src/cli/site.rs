//! What every command that talks to hosts begins with: the fleet, the secrets that it refers to, and SSH.

use super::inventory::load_fleet;
use super::{Context, Exit, Failure};
use crate::secrets::Secrets;
use crate::ssh::{SshHosts, SshOptions};
use inventory::{Fleet, Selector};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// A fleet that can be talked to. Nothing was contacted yet.
pub(super) struct Site {
    pub(super) fleet: Fleet,
    pub(super) secrets: Arc<Secrets>,
    pub(super) hosts: Arc<SshHosts>,
}

impl Site {
    /// Reads the inventory and prepares SSH; warnings go to standard error.
    pub(super) fn open(context: &Context) -> Result<Self, Failure> {
        Self::with(context, Secrets::new)
    }

    /// As [`Site::open`], for work that must not wait for a person: what would have to be asked for at the terminal fails at once.
    pub(super) fn open_unattended(context: &Context) -> Result<Self, Failure> {
        Self::with(context, Secrets::unattended)
    }

    fn with(context: &Context, secrets: impl Fn(PathBuf) -> Secrets) -> Result<Self, Failure> {
        let fleet = load_fleet(context)?;
        let secrets = Arc::new(secrets(fleet.base.clone()));
        let hosts = Arc::new(SshHosts::new(&fleet, secrets.clone(), SshOptions::default())?);
        if context.verbosity >= 0 {
            hosts.warnings().iter().for_each(|warning| say!("{warning}"));
        }
        Ok(Self { fleet, secrets, hosts })
    }

    /// The hosts that a selector names; all without one.
    pub(super) fn select(&self, selector: Option<&str>) -> Result<BTreeSet<String>, Failure> {
        select(&self.fleet, selector)
    }
}

/// The hosts that a selector names; all without one.
pub(super) fn select(fleet: &Fleet, selector: Option<&str>) -> Result<BTreeSet<String>, Failure> {
    let Some(text) = selector else {
        return Ok(fleet.platforms.iter().flat_map(|platform| &platform.hosts).map(|host| host.name.clone()).collect());
    };
    let usage = |error: inventory::SelectorError| Failure::new(Exit::Usage, format!("error: {error}"));
    Selector::parse(text).map_err(usage)?.resolve(fleet).map_err(usage)
}

/// The platforms that a selector names, each with all its hosts. The option that it stands in and why not less are for the error.
pub(super) fn whole_platforms(fleet: &Fleet, text: &str, (option, why): (&str, &str)) -> Result<BTreeSet<String>, Failure> {
    let hosts = select(fleet, Some(text))?;
    let mut platforms = BTreeSet::new();
    for platform in &fleet.platforms {
        let named = platform.hosts.iter().filter(|host| hosts.contains(&host.name)).count();
        if named == platform.hosts.len() {
            platforms.insert(platform.name.clone());
        } else if named > 0 {
            let text = format!(
                "error: {option} names {named} of {} hosts of {name}; {why}. Say `platform:{name}`",
                platform.hosts.len(),
                name = platform.name
            );
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    Ok(platforms)
}

/// How wide text may be: the terminal, or what suits a file.
pub(super) fn width() -> usize {
    use std::io::IsTerminal;
    let err = std::io::stderr();
    let columns =
        err.is_terminal().then(|| rustix::termios::tcgetwinsize(&err).ok()).flatten().map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns > 0).unwrap_or(100).clamp(60, 160)
}
