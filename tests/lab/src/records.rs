//! What the stand-ins saw: the hosts' own records, which tests hold Caravan's word against.
//!
//! One append-only file for the whole lab, so that the order of events between hosts is known. A writer holds an exclusive lock
//! while it looks at the platform's state, judges and appends; a line is one `write` to a file opened for appending.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One event that a stand-in saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the order of all events of the lab, from 1.
    pub seq: u64,
    /// When, RFC 3339 UTC.
    pub time: String,
    /// On which platform.
    pub platform: String,
    /// On which host.
    pub host: String,
    /// What happened.
    pub event: Event,
    /// To what: a module, a package, an instance, a file.
    pub subject: String,
    /// More about it, for people; of a violation: what is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A module runs.
    ModuleStarted,
    /// A module was stopped by a stand-in (one that was killed by others leaves no record).
    ModuleStopped,
    /// A module was told to start and did not come up.
    ModuleFailed,
    /// The `nlserver` service was started.
    ServiceStarted,
    /// The `nlserver` service was stopped.
    ServiceStopped,
    /// The web server runs.
    WebStarted,
    /// The web server was stopped.
    WebStopped,
    /// Packages were installed.
    PackageInstalled,
    /// Packages were removed.
    PackageRemoved,
    /// The package manager failed.
    PackageFailed,
    /// `nl6` was found under the name `nl6.back`.
    TreeMoved,
    /// The configuration was read again.
    ConfigReloaded,
    /// The `internal` password was changed.
    PasswordChanged,
    /// A logon over SOAP was answered.
    Logon,
    /// `postupgrade -check` was run.
    PostupgradeChecked,
    /// postupgrade began, or went on where it had stopped.
    PostupgradeBegan,
    /// postupgrade completed.
    PostupgradeEnded,
    /// postupgrade stopped by itself.
    PostupgradeFailed,
    /// A database was dumped.
    DumpWritten,
    /// A dump was refused or failed.
    DumpFailed,
    /// A dump was read back.
    DumpListed,
    /// A database was restored from a dump.
    DumpRestored,
    /// A dump was restored into a scratch database.
    DumpTried,
    /// A restore was refused or failed.
    RestoreFailed,
    /// `nl6.back` was found to be `nl6` again.
    TreePutBack,
    /// A rule was broken.
    Violation(Rule),
}

/// What a stand-in must never see (domain: the mandated order, the procedure).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// postupgrade while another one of the same instance runs.
    PostupgradeOverlaps,
    /// postupgrade of an instance that has been upgraded already.
    PostupgradeAgain,
    /// postupgrade while something of the platform runs.
    PostupgradeWhileRunning,
    /// postupgrade on another host than the instance's application server.
    PostupgradeElsewhere,
    /// postupgrade before the stages ahead are complete, or before every host of its stage that carries the instance is.
    PostupgradeEarly,
    /// Packages replaced or removed while processes of the host run.
    PackagesWhileRunning,
    /// Packages replaced or removed before every database of the platform was dumped and `nl6.back` was there.
    PackagesBeforeBackup,
    /// A host migrated before the stages ahead of it were complete.
    MigratedEarly,
    /// `nl6` moved while processes of it ran.
    MovedWhileRunning,
    /// Something started while its platform was not wholly migrated.
    StartedEarly,
    /// Something started before what the documented restart order puts ahead of it.
    RestartOrder,
    /// A tracking server started without an `internal` password, or with another one than the platform's other tracking servers.
    TrackingPassword,
    /// A database restored while something of its platform runs, or while its postupgrade does.
    RestoredWhileRunning,
    /// A database restored from the dump of another one.
    RestoredFromAnother,
    /// v7 packages removed, or old ones installed, while a database of the platform was upgraded and not restored.
    BackBeforeRestore,
    /// From v5: `config-default.xml` of v5 in a new installation.
    DefaultConfigOfV5,
    /// From v5.11 and v6.02: a module of an instance could start by itself while its platform was being migrated.
    ModulesNotHeld,
    /// From v5.11 and v6.02: something started while `autoStart` was not on the modules that had it before.
    ModulesNotReleased,
    /// From v5 and back to it: something started while the shell's or the web server's files lead to the installation that is not there.
    LeadsToTheOther,
    /// On the way back: something started while a database was upgraded and not restored, while its own old installation was not
    /// wholly back, or while v7 still ran on the platform.
    StartedBeforeBack,
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// When and where it was broken, and by what.
    pub record: Record,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Record { seq, platform, host, subject, detail, .. } = &self.record;
        write!(f, "#{seq} {platform} {host} {subject}: {detail} ({:?})", self.rule)
    }
}

/// Everything the stand-ins of the lab in `dir` recorded, in order.
///
/// # Errors
/// When the file cannot be read or holds a line that is no record.
pub fn records(dir: &Path) -> io::Result<Vec<Record>> {
    let text = match std::fs::read_to_string(file(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    // A line that is just being written is no record yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

/// The rules that the stand-ins of the lab in `dir` saw broken, in order.
///
/// # Errors
/// As [`records`].
pub fn violations(dir: &Path) -> io::Result<Vec<Violation>> {
    let broken = records(dir)?.into_iter().filter_map(|record| match record.event {
        Event::Violation(rule) => Some(Violation { rule, record }),
        _ => None,
    });
    Ok(broken.collect())
}

fn file(dir: &Path) -> PathBuf {
    dir.join("records.jsonl")
}

/// The right to append: while it is held, no other stand-in of the lab judges or records.
#[derive(Debug)]
pub struct Writer {
    // Released when it is dropped, also by a crash.
    _lock: File,
    out: File,
    next: u64,
    platform: String,
    host: String,
}

impl Writer {
    /// Waits for the right to append, for a host of a platform.
    ///
    /// # Errors
    /// When the files cannot be opened or locked.
    pub fn open(dir: &Path, platform: &str, host: &str) -> io::Result<Self> {
        let lock = OpenOptions::new().create(true).append(true).open(dir.join("records.lock"))?;
        lock.lock()?;
        let mut out = OpenOptions::new().create(true).append(true).read(true).open(file(dir))?;
        let next = last_seq(&mut out)? + 1;
        Ok(Self { _lock: lock, out, next, platform: platform.to_owned(), host: host.to_owned() })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, event: Event, subject: &str, detail: &str) -> io::Result<()> {
        let record = Record {
            seq: self.next,
            time: jiff::Timestamp::now().to_string(),
            platform: self.platform.clone(),
            host: self.host.clone(),
            event,
            subject: subject.to_owned(),
            // Bounded, so that the last line is always found in the last bytes of the file.
            detail: detail.chars().take(2000).collect(),
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.next += 1;
        Ok(())
    }
}

/// The number of the last record: read from the file itself, since a counter beside it could fall behind in a crash.
fn last_seq(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(32 * 1024)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(line) = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()) else { return Ok(0) };
    let record: Record = serde_json::from_slice(line)?;
    Ok(record.seq)
}
