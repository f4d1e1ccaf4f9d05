//! The lock of a host: one run at a time, whoever logs in (invariant 6 of the design). It is a file, `lock` in Caravan's directory on
//! the host, and outlives every process: a platform that is half migrated belongs to its run until that run lets go of it.
//!
//! With the lock comes a token, which only ever grows on a host. Who takes the lock gets a new one, and steps that were granted with an
//! older one are not begun any more.

use crate::durable;
use crate::inspect::now_ms;
use crate::runner::files::{StepFiles, read_json};
use proto::host::{Record, State};
use proto::message::Claim;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the file says. A released lock has the token alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The run that holds the host; empty when none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    run: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    seat: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    controller: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    operator: String,
    /// Why it was taken over, where it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    since_ms: u64,
    token: u64,
    /// Controllers that had the host and lost it to others, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
}

/// How many controllers that lost the host are remembered.
const REMEMBERED: usize = 16;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why the lock cannot be had, or is not held any more.
#[derive(Debug)]
pub(crate) enum Denied {
    /// Somebody else has it; the text says who.
    Refused(String),
    /// The file cannot be used.
    Fatal(String),
}

/// The lock of one host.
#[derive(Debug, Clone)]
pub(crate) struct HostLock {
    /// Caravan's directory on the host.
    dir: PathBuf,
}

impl HostLock {
    pub(crate) fn new(host_state: &Path) -> Self {
        Self { dir: host_state.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Nobody changes the lock, and no step begins, while the answer lives. The file behind it has no content and is never renamed,
    /// unlike the lock.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub(crate) fn guard(&self) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.dir.join("lock.guard"))?;
        file.lock()?;
        Ok(file)
    }

    /// Takes the host for a run; answers the token. Nothing is written where the run's controller has the host already.
    pub(crate) fn claim(&self, run: &str, claim: &Claim) -> Result<u64, Denied> {
        // Before anything is written: who may not write here can still be told who has the host.
        if let Decision::Refuse(reason) = self.decide(run, claim)? {
            return Err(Denied::Refused(reason));
        }
        let cannot = |e: io::Error| Denied::Fatal(format!("cannot take the lock {} of this host: {e}", self.path().display()));
        let _guard = self.guard().map_err(cannot)?;
        match self.decide(run, claim)? {
            Decision::Keep(token) => Ok(token),
            Decision::Refuse(reason) => Err(Denied::Refused(reason)),
            Decision::Take(entry) => {
                self.write(&entry).map_err(cannot)?;
                Ok(entry.token)
            }
        }
    }

    fn decide(&self, run: &str, claim: &Claim) -> Result<Decision, Denied> {
        Ok(match self.read()? {
            Ok(entry) => entry.decide(run, claim),
            Err(damage) => match &claim.take_over {
                Some(_) => Decision::Take(Entry { token: self.highest_token(), ..Entry::default() }.taken_by(run, claim)),
                None => Decision::Refuse(format!(
                    "the lock {} of this host cannot be read ({damage}); when you know that no other run works on this host, take \
                     it with `--take-over REASON`",
                    self.path().display()
                )),
            },
        })
    }

    /// The token of a run's controller, while it has the host.
    pub(crate) fn token(&self, run: &str, controller: &str) -> Result<u64, Denied> {
        let entry = self.read()?.map_err(|e| Denied::Refused(format!("the lock of this host cannot be read any more ({e})")))?;
        if entry.run == run && entry.controller == controller {
            return Ok(entry.token);
        }
        Err(Denied::Refused(entry.stale(run)))
    }

    /// The run is over on this host: whoever comes next may have it. The token stays. Nothing happens where another controller has
    /// the host by now.
    pub(crate) fn release(&self, run: &str, controller: &str) -> io::Result<()> {
        let _guard = self.guard()?;
        match self.token(run, controller) {
            Ok(token) => self.write(&Entry { token, ..Entry::default() }),
            Err(Denied::Refused(_)) => Ok(()),
            Err(Denied::Fatal(message)) => Err(io::Error::other(message)),
        }
    }

    /// What the file says, or how it is damaged. No file: nobody ever had the host.
    fn read(&self) -> Result<Result<Entry, String>, Denied> {
        match fs::read(self.path()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_err(|e| e.to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Ok(Entry::default())),
            Err(e) => Err(Denied::Fatal(format!("cannot read the lock {} of this host: {e}", self.path().display()))),
        }
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        durable::write(&self.path(), &serde_json::to_vec(entry)?, 0o644)
    }

    /// The highest token that any run was granted steps with here: a damaged lock does not say it any more. One that is damaged in a
    /// way that goes unnoticed does no harm: a controller is known by its own id as well.
    fn highest_token(&self) -> u64 {
        let journals = runs(&self.dir).into_iter().filter_map(|run| fs::read(run.join("journal.jsonl")).ok());
        let tokens = journals.filter_map(|bytes| {
            let mut state = State::default();
            proto::lines::read(&bytes).ok()?.0.iter().for_each(|record| state.apply(record));
            Some(state.token())
        });
        tokens.max().unwrap_or(0)
    }

    /// A step that another run began here and that still runs, in words. What that run has not begun it will not begin: its token is
    /// older.
    ///
    /// # Errors
    /// Nobody can be kept from beginning a step meanwhile.
    pub(crate) fn runs_elsewhere(&self, run: &str) -> io::Result<Option<String>> {
        let _guard = self.guard()?;
        for other in runs(&self.dir).into_iter().filter(|dir| dir.file_name().is_some_and(|name| name != run)) {
            for step in entries(&other.join("steps")) {
                let files = StepFiles::new(&step);
                if files.is_running() {
                    let step = match read_json(&files.spec()) {
                        Ok(Record::Step(granted)) => granted.spec.id.0,
                        _ => step.display().to_string(),
                    };
                    return Ok(Some(format!("run {} still runs {step} on this host", name(&other))));
                }
            }
        }
        Ok(None)
    }
}

/// What follows from a claim.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is the claimer's already, with this token.
    Keep(u64),
    /// This is what the lock says from now on.
    Take(Entry),
    /// Somebody else has it.
    Refuse(String),
}

impl Entry {
    fn decide(&self, run: &str, claim: &Claim) -> Decision {
        let same_run = self.run == run;
        if same_run && self.controller == claim.controller {
            return Decision::Keep(self.token);
        }
        // It comes back on a connection of before, with the right that it had then, and does not know what happened since. A person
        // who does know starts another controller.
        if self.lost.contains(&claim.controller) {
            return Decision::Refuse(self.stale(run));
        }
        let inherits = same_run || claim.succeeds.as_ref() == Some(&self.run);
        if self.run.is_empty() || (inherits && self.seat == claim.seat) || claim.take_over.is_some() {
            return Decision::Take(self.taken_by(run, claim));
        }
        let holder = self.describe();
        Decision::Refuse(if same_run {
            format!("{holder}, from another workstation; go on with it there, or take this host over with `--take-over REASON`")
        } else {
            format!("{holder}; `resume`, `abort` or `rollback` that run first, or take this host over with `--take-over REASON`")
        })
    }

    fn taken_by(&self, run: &str, claim: &Claim) -> Self {
        let Claim { seat, controller, operator, take_over, .. } = claim.clone();
        let same_run = self.run == run;
        let mut lost = self.lost.clone();
        lost.extend((!self.run.is_empty()).then(|| self.controller.clone()));
        lost.drain(..lost.len().saturating_sub(REMEMBERED));
        Self {
            run: run.to_owned(),
            seat,
            controller,
            operator,
            reason: take_over.unwrap_or_else(|| if same_run { self.reason.clone() } else { String::new() }),
            since_ms: if same_run { self.since_ms } else { now_ms() },
            token: self.token + 1,
            lost,
        }
    }

    fn describe(&self) -> String {
        let operator = if self.operator.is_empty() { "somebody" } else { &self.operator };
        let why = if self.reason.is_empty() { String::new() } else { format!(" (taken over: {})", self.reason) };
        format!("run {} of {operator} holds this host since {}{why}", self.run, utc(self.since_ms))
    }

    /// Why a run that had the host begins nothing more.
    fn stale(&self, run: &str) -> String {
        let now = match self.run.as_str() {
            "" => "nobody holds this host".to_owned(),
            same if same == run => format!("another controller goes on with this run: {}", self.describe()),
            _ => self.describe(),
        };
        format!("this controller does not hold the host any more, and begins nothing more on it: {now}")
    }
}

/// Makes Caravan's directory on a host. Others can look up in it who holds the host, and no more: all that is in it is closed to them,
/// but the lock and the packages.
pub(crate) fn make_host_state(host_state: &Path) -> io::Result<()> {
    fs::create_dir_all(host_state)?;
    let _ = crate::durable::let_others_pass(host_state);
    fs::metadata(host_state).map(drop)
}

fn runs(host_state: &Path) -> Vec<PathBuf> {
    entries(&host_state.join("runs"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A time for people, RFC 3339 UTC. Days become a date by counting in cycles of 400 years from 1 March of the year 0.
fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + carry;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399_000), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }
}
