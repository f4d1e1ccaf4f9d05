//! What a finished migration looks like from the hosts: read from their records, from their web servers, and from what was left
//! behind on disk. Nothing here asks Caravan.

use crate::either::Fleet;
use lab::{Event, Host, Layout, Platform, Progress, Record, Role, progress, redirect_build};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// For people.
    pub(crate) lines: Vec<String>,
    /// What is not as it should be.
    pub(crate) wrong: Vec<String>,
}

/// Judges the fleet of a lab after a migration. `state` is where Caravan kept its runs.
pub(crate) fn judge(lab: &dyn Fleet, state: &Path) -> io::Result<Verdict> {
    let records = lab.records()?;
    let mut verdict = Verdict::default();
    let layout = lab.layout();
    for platform in &layout.platforms {
        verdict.platform(&layout, platform, &records)?;
    }
    verdict.lines.push(String::new());
    let broken = lab.violations()?;
    verdict.lines.push(format!("{} rules broken in {} recorded events", broken.len(), records.len()));
    verdict.wrong.extend(broken.iter().map(|violation| format!("a stand-in saw a rule broken: {violation}")));
    let (files, leaks) = leaks(lab, state)?;
    verdict.lines.push(format!("{} of {files} files that Caravan wrote hold a password", leaks.len()));
    verdict.wrong.extend(leaks.iter().map(|path| format!("a password is in {}", path.display())));
    Ok(verdict)
}

impl Verdict {
    fn platform(&mut self, layout: &Layout, platform: &Platform, records: &[Record]) -> io::Result<()> {
        let mine: Vec<&Record> = records.iter().filter(|record| record.platform == platform.name).collect();
        self.lines.push(String::new());
        self.lines.push(format!("{} ({})", platform.name, platform.topology.as_str()));

        let installed = mine.iter().filter(|record| record.event == Event::PackageInstalled);
        self.lines.push(format!("  installed   {}", in_order(platform, installed.map(|record| &record.host))));
        let restarted = mine.iter().filter(|record| matches!(record.event, Event::ModuleStarted | Event::WebStarted));
        self.lines.push(format!("  restarted   {}", in_order(platform, restarted.map(|record| &record.host))));

        let mut counts = Vec::new();
        for instance in &platform.instances {
            let ended = mine.iter().filter(|record| record.event == Event::PostupgradeEnded && record.subject == instance.name);
            let count = ended.count();
            counts.push(format!("{} {count}×", instance.name));
            if count != 1 {
                self.wrong.push(format!("postupgrade of {} completed {count} times instead of once", instance.name));
            }
        }
        self.lines.push(format!("  postupgrade {}", counts.join(", ")));

        let mut answers = Vec::new();
        for host in &platform.hosts {
            if progress(layout, host)? != Progress::New {
                self.wrong.push(format!("{} is not migrated", host.name));
            }
            if host.is(Role::Tracking) {
                let shown = redirect_build(host).unwrap_or_else(|error| error.to_string());
                answers.push(format!("{} {shown}", host.name));
                if shown != layout.target.build.to_string() {
                    self.wrong.push(format!("/r/test of {} answers with build {shown}, not {}", host.name, layout.target.build));
                }
            }
            let names: Vec<String> = lab::running(host)?.into_iter().map(|entry| entry.name).collect();
            if !names.iter().any(|name| name.starts_with("watchdog@")) {
                self.wrong.push(format!("the service of {} does not run", host.name));
            }
        }
        if !answers.is_empty() {
            self.lines.push(format!("  /r/test     {}", answers.join(", ")));
        }
        Ok(())
    }
}

/// Hosts in the order in which they first turn up, with neighbours of the same roles together: `trk1, trk2 → mkt1`.
fn in_order<'a>(platform: &Platform, hosts: impl Iterator<Item = &'a String>) -> String {
    let mut seen: Vec<&Host> = Vec::new();
    for name in hosts {
        if let Some(host) = platform.host(name)
            && !seen.iter().any(|other| other.name == host.name)
        {
            seen.push(host);
        }
    }
    let groups = seen.chunk_by(|a, b| a.roles == b.roles).map(|group| {
        let names: Vec<&str> = group.iter().map(|host| host.name.as_str()).collect();
        names.join(", ")
    });
    let text = groups.collect::<Vec<_>>().join(" → ");
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// How many files Caravan wrote, here and on the hosts, and which of them hold a password of the lab.
fn leaks(lab: &dyn Fleet, state: &Path) -> io::Result<(usize, Vec<PathBuf>)> {
    let secrets = lab.secrets();
    let values = [
        &secrets.internal_password,
        &secrets.internal_stored,
        &secrets.database_password,
        &secrets.scratch_password,
        &secrets.tracking_password,
    ];
    let mut files = BTreeMap::new();
    let layout = lab.layout();
    let places = layout.hosts().map(Host::host_state).chain([state.to_owned(), lab.dir().join("report.md")]);
    for place in places {
        contains(&place, &values.map(String::as_str), &mut files)?;
    }
    let holding = files.iter().filter(|(_, holds)| **holds).map(|(path, _)| path.clone());
    Ok((files.len(), holding.collect()))
}

fn contains(place: &Path, values: &[&str], files: &mut BTreeMap<PathBuf, bool>) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(place) else { return Ok(()) };
    if metadata.is_dir() {
        for entry in fs::read_dir(place)? {
            contains(&entry?.path(), values, files)?;
        }
    } else if metadata.is_file() {
        // The values are plain text: what is lost of a binary file's bytes cannot hide one.
        let content = fs::read(place)?;
        let content = String::from_utf8_lossy(&content);
        let holds = values.iter().any(|value| content.contains(value));
        files.insert(place.to_owned(), holds);
    }
    Ok(())
}
