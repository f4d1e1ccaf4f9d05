//! The rules that stand-ins judge by, each looked at in the state on disk at the moment of the event.

mod versions;

use crate::conf;
use crate::layout::{Host, Instance, Layout, Platform};
use crate::processes::{self, Running};
use crate::records::{Event, Rule, Writer};
use crate::spec::{Role, Topology};
use crate::standins::tree;
use crate::state::{self, Progress};
use std::io;

/// A host of a lab as one of its stand-ins sees it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) layout: Layout,
    pub(crate) platform: Platform,
    pub(crate) host: Host,
}

impl Site {
    /// The host with this name.
    pub(crate) fn new(layout: Layout, host: &str) -> io::Result<Self> {
        let Some((platform, host)) = layout.host(host) else {
            return Err(io::Error::other(format!("the lab has no host {host}")));
        };
        let (platform, host) = (platform.clone(), host.clone());
        Ok(Self { layout, platform, host })
    }

    /// The right to judge and record for this host.
    pub(crate) fn writer(&self) -> io::Result<Writer> {
        Writer::open(&self.layout.dir, &self.platform.name, &self.host.name)
    }

    /// Records one event that breaks no rule.
    pub(crate) fn record(&self, event: Event, subject: &str, detail: &str) -> io::Result<()> {
        self.writer()?.append(event, subject, detail)
    }

    /// Records the backup tree when it is seen for the first time, and whether something still ran from it; and when it is seen in its
    /// old place again.
    pub(crate) fn notice_move(&self) -> io::Result<()> {
        let [seen, back] = [self.host.state().join("backup-seen"), put_back_file(&self.host)];
        let is_back = || !self.host.backup().exists() && tree::unpacked(&self.host).is_ok_and(|found| found == self.host.source);
        if seen.exists() {
            if !is_back() {
                return Ok(());
            }
            let mut writer = self.writer()?;
            if seen.exists() {
                std::fs::rename(&seen, &back)?;
                writer.append(Event::TreePutBack, &back_name(&self.host), "")?;
            }
            return Ok(());
        }
        if !self.host.backup().exists() {
            return Ok(());
        }
        let mut writer = self.writer()?;
        if seen.exists() {
            return Ok(());
        }
        std::fs::write(&seen, b"")?;
        let _ = std::fs::remove_file(&back);
        writer.append(Event::TreeMoved, &back_name(&self.host), "")?;
        let from_it = processes::running(&self.host)?;
        if !from_it.is_empty() {
            let detail = format!("{} was moved while {} ran", self.host.source.tree(), names(&from_it));
            writer.append(Event::Violation(Rule::MovedWhileRunning), &back_name(&self.host), &detail)?;
        }
        Ok(())
    }

    /// Judges a change of packages. `target` says whether it belongs to the migration (removing the old, installing the new) or
    /// to something else, such as going back.
    pub(crate) fn judge_packages(&self, writer: &mut Writer, subject: &str, target: bool) -> io::Result<()> {
        let running = processes::running(&self.host)?;
        if !running.is_empty() {
            let detail = format!("packages changed while {} ran", names(&running));
            writer.append(Event::Violation(Rule::PackagesWhileRunning), subject, &detail)?;
        }
        if !target {
            // Going back: what is upgraded has to be restored before the old version is there again.
            let upgraded = state::upgraded(&self.layout, &self.platform)?;
            if !upgraded.is_empty() {
                writer.append(Event::Violation(Rule::BackBeforeRestore), subject, &upgraded.join(", "))?;
            }
            return Ok(());
        }
        let mut backup = Vec::new();
        if !self.host.backup().exists() {
            backup.push(format!("{} does not exist", back_name(&self.host)));
        }
        for instance in &self.platform.instances {
            if state::database(&self.layout, &instance.name)?.dumps == 0 {
                backup.push(format!("the database of {} was not dumped", instance.name));
            }
        }
        if !backup.is_empty() {
            writer.append(Event::Violation(Rule::PackagesBeforeBackup), subject, &backup.join(", "))?;
        }
        let missing = state::missing_before(&self.layout, &self.platform, state::host_rank(&self.platform, &self.host))?;
        if !missing.is_empty() {
            writer.append(Event::Violation(Rule::MigratedEarly), subject, &missing.join(", "))?;
        }
        Ok(())
    }

    /// Judges the beginning of a postupgrade. `again`: it was completed before.
    pub(crate) fn judge_postupgrade(&self, writer: &mut Writer, instance: &Instance, again: bool) -> io::Result<()> {
        let subject = instance.name.as_str();
        if again {
            writer.append(Event::Violation(Rule::PostupgradeAgain), subject, "it was completed before")?;
        }
        if instance.app != self.host.name {
            let detail = format!("its application server is {}", instance.app);
            writer.append(Event::Violation(Rule::PostupgradeElsewhere), subject, &detail)?;
        }
        let mut alive = Vec::new();
        for host in &self.platform.hosts {
            let running = processes::running(host)?;
            if !running.is_empty() {
                alive.push(format!("{} runs {}", host.name, names(&running)));
            }
        }
        if !alive.is_empty() {
            writer.append(Event::Violation(Rule::PostupgradeWhileRunning), subject, &alive.join(", "))?;
        }
        let rank = state::instance_rank(&self.platform, instance);
        let mut missing = state::missing_before(&self.layout, &self.platform, rank)?;
        for host in &self.platform.hosts {
            let here = host.instances.contains(&instance.name) && state::host_rank(&self.platform, host) == rank;
            if here && state::progress(&self.layout, host)? != Progress::New {
                missing.push(format!("{} is not migrated", host.name));
            }
        }
        if !missing.is_empty() {
            writer.append(Event::Violation(Rule::PostupgradeEarly), subject, &missing.join(", "))?;
        }
        self.judge_held(writer, subject)
    }

    /// Judges the restore of a database from a dump of `from`. `upgrading`: its postupgrade runs.
    pub(crate) fn judge_restore(&self, writer: &mut Writer, name: &str, from: &str, upgrading: bool) -> io::Result<()> {
        let mut alive = Vec::new();
        if upgrading {
            alive.push("its postupgrade runs".to_owned());
        }
        for host in &self.platform.hosts {
            let running = processes::running(host)?;
            if !running.is_empty() {
                alive.push(format!("{} runs {}", host.name, names(&running)));
            }
        }
        if !alive.is_empty() {
            writer.append(Event::Violation(Rule::RestoredWhileRunning), name, &alive.join(", "))?;
        }
        if name != from {
            writer.append(Event::Violation(Rule::RestoredFromAnother), name, &format!("the dump is one of {from}"))?;
        }
        Ok(())
    }

    /// Judges the start of something on a platform that goes back. Hosts that did not come along keep nobody from it.
    fn judge_start_back(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        let mut wrong = state::upgraded(&self.layout, &self.platform)?;
        if state::progress(&self.layout, &self.host)? != Progress::Old || self.host.backup().exists() {
            wrong.push("the old installation is not back".to_owned());
        }
        for host in &self.platform.hosts {
            let new: Vec<Running> =
                processes::running(host)?.into_iter().filter(|entry| entry.build == self.layout.target.build).collect();
            if !new.is_empty() {
                wrong.push(format!("{} still runs {} of the new version", host.name, names(&new)));
            }
        }
        if !wrong.is_empty() {
            writer.append(Event::Violation(Rule::StartedBeforeBack), what, &wrong.join(", "))?;
        }
        self.judge_surroundings(writer, what)?;
        self.judge_tracking(writer, what)
    }

    /// Judges the start of a module, the service or the web server.
    pub(crate) fn judge_start(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        if self.platform.hosts.iter().any(|host| put_back_file(host).exists()) {
            return self.judge_start_back(writer, what);
        }
        if versions::is_bare_start(&self.layout, &self.host, what) {
            return Ok(());
        }
        let missing = state::between(&self.layout, &self.platform)?;
        if !missing.is_empty() {
            writer.append(Event::Violation(Rule::StartedEarly), what, &missing.join(", "))?;
        }
        self.judge_released(writer, what)?;
        self.judge_surroundings(writer, what)?;
        self.judge_tracking(writer, what)?;
        let Some(rank) = Self::restart_rank(&self.host, what) else { return Ok(()) };
        let migrated = self.platform.hosts.iter().map(|host| state::progress(&self.layout, host));
        // The restart order is about the migrated platform; before it, nobody restarts anything but by hand.
        if self.platform.topology == Topology::Standalone || !migrated.collect::<io::Result<Vec<_>>>()?.contains(&Progress::New) {
            return Ok(());
        }
        let mut down = Vec::new();
        for host in &self.platform.hosts {
            let running = processes::running(host)?;
            for needed in Self::must_run(host) {
                let before = Self::restart_rank(host, &needed).is_some_and(|other| other < rank);
                if before && !running.iter().any(|entry| entry.name == needed) {
                    down.push(format!("{needed} of {} does not run", host.name));
                }
            }
        }
        if !down.is_empty() {
            writer.append(Event::Violation(Rule::RestartOrder), what, &down.join(", "))?;
        }
        Ok(())
    }

    /// A tracking server that goes online needs the password of all the others.
    fn judge_tracking(&self, writer: &mut Writer, what: &str) -> io::Result<()> {
        if !self.host.is(Role::Tracking) || !(what.starts_with("trackinglogd@") || Self::is_web(&self.host, what)) {
            return Ok(());
        }
        // Values are compared and never named: records are read by people.
        let own = conf::internal_password(&self.host.nl6()).unwrap_or_default();
        let wrong = if own.is_empty() {
            Some("no internal password is set".to_owned())
        } else if self.platform.salted {
            // Salted values of one password differ; a stand-in does not know the password itself.
            None
        } else {
            let others = self.platform.hosts.iter().filter(|host| host.is(Role::Tracking) && host.name != self.host.name);
            let differs = |host: &&Host| conf::internal_password(&host.nl6()).is_ok_and(|other| !other.is_empty() && other != own);
            others.filter(differs).map(|host| format!("the internal password is not that of {}", host.name)).next()
        };
        match wrong {
            Some(detail) => writer.append(Event::Violation(Rule::TrackingPassword), what, &detail),
            None => Ok(()),
        }
    }

    pub(super) fn is_web(host: &Host, what: &str) -> bool {
        what == host.family().web_service()
    }

    /// The place of a module on a host in the documented restart order: tracking, then mid-sourcing and delivery, then marketing; after
    /// a build upgrade marketing, tracking, delivery (domain, section 2). `None` for what no order is documented for.
    fn restart_rank(host: &Host, what: &str) -> Option<u32> {
        let rank = Self::documented_rank(host, what)?;
        Some(if host.source.is_v7() { (rank + 1) % 3 } else { rank })
    }

    fn documented_rank(host: &Host, what: &str) -> Option<u32> {
        let delivery = [Role::Mta, Role::MidSourcing, Role::PowerBooster, Role::PowerCluster].iter().any(|role| host.is(*role));
        let module = what.split('@').next().unwrap_or(what);
        match module {
            "trackinglogd" if host.is(Role::Tracking) => Some(0),
            _ if Self::is_web(host, what) => Some(0),
            "mta" | "inMail" | "stat" | "sms" if delivery => Some(1),
            "mta" | "inMail" | "stat" | "sms" => Some(2),
            "wfserver" | "web" if host.is(Role::Marketing) => Some(2),
            "wfserver" | "web" if delivery => Some(1),
            _ => None,
        }
    }

    /// What makes a host count as restarted: its web server and `trackinglogd` where it tracks, `mta` where it delivers. Which
    /// other modules a site runs says nothing about the order.
    fn must_run(host: &Host) -> Vec<String> {
        let mut needed = conf::auto_start(host).unwrap_or_default();
        // Where marketing comes last, nothing waits for it.
        let application = host.source.is_v7() && host.is(Role::Marketing);
        let counts = |module: &String| module.starts_with("mta@") || module.starts_with("trackinglogd@");
        needed.retain(|module| counts(module) || (application && module == "web@default"));
        if host.is(Role::Tracking) {
            needed.push(host.family().web_service().to_owned());
        }
        needed
    }
}

/// The file that says that a host's old installation was put back.
fn put_back_file(host: &Host) -> std::path::PathBuf {
    host.state().join("put-back")
}

/// The name of a host's backup tree.
fn back_name(host: &Host) -> String {
    format!("{}.back", host.source.tree())
}

fn names(running: &[Running]) -> String {
    running.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ")
}
