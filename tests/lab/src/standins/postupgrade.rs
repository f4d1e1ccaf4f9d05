//! `nlserver config -postupgrade`: goes through the parts of an upgrade, keeps in the database how far it came, and resumes there.

use super::{clock, nlserver, say, tree};
use crate::layout::Instance;
use crate::records::{Event, Rule};
use crate::rules::Site;
use crate::state;
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

/// The parts of an upgrade.
const PARTS: &[&str] =
    &["Checking the data model", "Updating tables", "Updating schemas", "Updating reports and workflows", "Updating options"];

/// Lines that go to the screen, and to the log where there is one.
struct Report {
    log: Option<fs::File>,
    warnings: u32,
    errors: u32,
}

impl Report {
    fn line(&mut self, mark: &str, text: &str) -> io::Result<()> {
        say(&format!("{} {mark:3} {text}", clock()));
        match mark {
            ">>>" => self.errors += 1,
            ">>" => self.warnings += 1,
            _ => {}
        }
        let level = match mark {
            ">>>" => "error",
            ">>" => "warning",
            _ => "info",
        };
        if let Some(log) = &mut self.log {
            let time = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.3fZ");
            writeln!(log, "{time} B67B28C0 1 {level} log {text}")?;
        }
        Ok(())
    }

    fn summary(&mut self, instance: &str) -> io::Result<()> {
        let (warnings, errors) = (self.warnings, self.errors);
        self.line(">", &format!("{instance} instance, {warnings} warning(s) and {errors} error(s) during the update."))
    }
}

pub(super) fn run(site: &Site, options: &[&str]) -> io::Result<u8> {
    say(&nlserver::banner(site)?);
    let name = options.iter().find_map(|option| option.strip_prefix("-instance:")).unwrap_or_default();
    let check = options.contains(&"-check");
    let mut report = Report { log: None, warnings: 0, errors: 0 };
    let configuration = site.host.nl6().join(format!("conf/config-{name}.xml"));
    let Some(instance) = site.platform.instance(name).filter(|_| configuration.exists()) else {
        report.line(">>>", &format!("Unable to load the configuration of instance '{name}' (config-{name}.xml)"))?;
        return Ok(1);
    };
    if !check
        && site.host.source.is_v5()
        && !options.iter().any(|option| option.strip_prefix("-timezone:").is_some_and(|zone| !zone.is_empty()))
    {
        report.line(">>>", "The time zone of the database is not known: -timezone:<zone> is missing")?;
        return Ok(1);
    }
    if check { verify(site, instance, report) } else { upgrade(site, instance, options.contains(&"-force"), report) }
}

fn verify(site: &Site, instance: &Instance, mut report: Report) -> io::Result<u8> {
    let fails = site.meet("postupgrade.check")?;
    report.line(">", &format!("Checking database of instance '{}'", instance.name))?;
    if fails {
        report.line(">>>", "PU-0005 The schema 'cus:recipient' uses an attribute that does not exist any more")?;
    }
    report.summary(&instance.name)?;
    site.record(Event::PostupgradeChecked, &instance.name, if fails { "1 error" } else { "" })?;
    // What counts is the line; the code says nothing, so that nobody relies on it.
    Ok(0)
}

fn upgrade(site: &Site, instance: &Instance, force: bool, mut report: Report) -> io::Result<u8> {
    let name = instance.name.as_str();
    let Some(_lock) = state::lock_database(&site.layout, name)? else {
        site.record(Event::Violation(Rule::PostupgradeOverlaps), name, "another postupgrade of the instance runs")?;
        report.line(">>>", "PU-0008 Another update of this database is running")?;
        return Ok(1);
    };
    let release = tree::unpacked(&site.host)?;
    let mut database = state::database(&site.layout, name)?;
    let again = database.build == release.build;
    {
        let mut writer = site.writer()?;
        site.judge_postupgrade(&mut writer, instance, again && !force)?;
        let from =
            if database.completed == 0 || again { String::new() } else { format!("resumes after part {}", database.completed) };
        writer.append(Event::PostupgradeBegan, name, &from)?;
    }
    let directory = site.host.nl6().join("var").join(name).join("postupgrade");
    fs::create_dir_all(&directory)?;
    let time = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
    let log = directory.join(format!("postupgrade_{}_{time}.log", release.version));
    report.log = Some(fs::OpenOptions::new().create(true).append(true).open(log)?);
    if again {
        report.line(">", "The database is up to date")?;
    } else if database.completed > 0 {
        report.line(">", &format!("Resuming after part {}", database.completed))?;
    }
    let mut met = false;
    while let Some(part) = PARTS.get(database.completed as usize).filter(|_| !again) {
        report.line(">", &format!("{part} ({}/{})", database.completed + 1, PARTS.len()))?;
        // In the second part: what is cut off here has something to resume.
        if database.completed > 0 && !std::mem::replace(&mut met, true) && site.meet("postupgrade")? {
            report.line(">>>", "PU-0005 PostgreSQL error: column \"iflags\" of relation \"nmsdelivery\" does not exist")?;
            report.summary(name)?;
            site.record(Event::PostupgradeFailed, name, "1 error")?;
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(10));
        database.completed += 1;
        state::set_database(&site.layout, name, &database)?;
    }
    report.line(">>", "JST-310040 A JavaScript of the site uses a function that is obsolete; it can be ignored")?;
    report.line(">>", "The document with identifier 'recipient' and type 'xtk:form' is in conflict with the new version.")?;
    database.build = release.build;
    database.upgrades += 1;
    let mut writer = site.writer()?;
    state::set_database(&site.layout, name, &database)?;
    writer.append(Event::PostupgradeEnded, name, "")?;
    report.summary(name)?;
    Ok(0)
}
