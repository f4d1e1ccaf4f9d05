//! A log file that a program writes while it says nothing itself: what is in it is told now and then, in one line of the step's output.
//! Read as the account that the program runs as, never written, and within bounds, however large the file is.

use crate::pattern;
use proto::step::LOG_MARK;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// For how long the program has to be silent before its log speaks for it.
const SILENT: Duration = Duration::from_secs(2);
/// How often it speaks at most.
const EVERY: Duration = Duration::from_secs(5);
/// The most that is read at one look.
const AT_ONCE: u64 = 1024 * 1024;
/// How much of a line is looked at, and how many characters of the last one are told.
const LINE: usize = 4096;
const TOLD: usize = 200;
/// By how much the clock of a file system may be behind.
const SLACK: Duration = Duration::from_secs(2);

/// What is known of the log of a program.
pub(super) struct Log<'a> {
    pattern: &'a str,
    /// When the program was started: older files are of somebody else.
    since: SystemTime,
    file: Option<(PathBuf, File)>,
    /// The beginning of a line whose end was not written yet.
    begun: Vec<u8>,
    lines: u64,
    warnings: u64,
    errors: u64,
    last: String,
    looked: Instant,
    /// When the program said something.
    said: Instant,
    /// When the log spoke, and how many lines it had then.
    told: (Option<Instant>, u64),
}

impl<'a> Log<'a> {
    /// The newest file that a path selects, for a program that starts now.
    pub(super) fn new(pattern: &'a str) -> Self {
        let now = Instant::now();
        Self {
            pattern,
            since: SystemTime::now().checked_sub(SLACK).unwrap_or(SystemTime::UNIX_EPOCH),
            file: None,
            begun: Vec::new(),
            lines: 0,
            warnings: 0,
            errors: 0,
            last: String::new(),
            looked: now,
            said: now,
            told: (None, 0),
        }
    }

    /// The program said something itself.
    pub(super) fn program_spoke(&mut self) {
        self.said = Instant::now();
    }

    /// A line about it, where there is something new and the program is silent.
    pub(super) fn line(&mut self) -> Option<String> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        self.looked = Instant::now();
        self.read();
        let due = self.told.0.is_none_or(|told| told.elapsed() >= EVERY);
        if !due || self.said.elapsed() < SILENT || self.lines <= self.told.1 {
            return None;
        }
        self.told = (Some(self.looked), self.lines);
        let Self { lines, warnings, errors, last, .. } = self;
        Some(format!("{LOG_MARK}{lines} lines, {warnings} warnings, {errors} errors; {last}\n"))
    }

    fn read(&mut self) {
        if let Some((path, file)) = newest(self.pattern, self.since)
            && self.file.as_ref().is_none_or(|(known, _)| *known != path)
        {
            // Another one has other lines.
            (self.lines, self.warnings, self.errors, self.told.1) = (0, 0, 0, 0);
            self.begun.clear();
            self.file = Some((path, file));
        }
        let Some((_, file)) = &mut self.file else { return };
        let mut bytes = Vec::new();
        // What cannot be read now may be later, and the step is not held up by it.
        let _ = file.take(AT_ONCE).read_to_end(&mut bytes);
        for (number, piece) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 {
                self.end_line();
            }
            let room = LINE.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun.clear();
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        match level(text) {
            "error" => self.errors += 1,
            "warning" => self.warnings += 1,
            _ => {}
        }
        self.last = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect();
    }
}

/// The level of a line as nlserver writes them: `2011-10-04 11:57:51.804Z B67B28C0 1 error log PostgreSQL error: ...`.
fn level(line: &str) -> &str {
    line.split_whitespace().nth(4).unwrap_or_default()
}

/// The regular file that was changed last of those that the pattern selects, if that was since then. A link is none.
fn newest(pattern: &str, since: SystemTime) -> Option<(PathBuf, File)> {
    let changed = |path: &Path| {
        let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        meta.modified().ok().filter(|changed| *changed >= since)
    };
    let files = pattern::files(pattern).ok()?;
    let path = files.into_iter().filter_map(|path| Some((changed(&path)?, path))).max()?.1;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path).ok()?;
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// As if nothing had been looked at or said for a while.
    fn later<'a>(log: &mut Log<'a>) -> Option<String> {
        let past = Instant::now().checked_sub(EVERY * 2).unwrap();
        (log.looked, log.said) = (past, past);
        log.told.0 = log.told.0.map(|_| past);
        log.line()
    }

    #[test]
    fn the_newest_log_is_counted_line_by_line_and_told_when_the_program_is_silent() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("postupgrade_6.1_2011.log");
        std::fs::write(&old, "2011-10-04 11:57:51.804Z B67B28C0 1 error log of another time\n").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        let pattern = dir.path().join("postupgrade_*.log").to_str().unwrap().to_owned();
        let mut log = Log::new(&pattern);
        assert_eq!(later(&mut log), None, "a log of somebody else");
        let mut file = File::create(dir.path().join("postupgrade_7.4.1_2026.log")).unwrap();
        file.write_all(b"2026-10-04 11:57:51.804Z B67B28C0 1 info log Updating tables\n2026-10-04 11:57:52.804Z B67B28C0 1 warning log PU-0003 x").unwrap();
        assert_eq!(
            later(&mut log).unwrap(),
            "[log] 1 lines, 0 warnings, 0 errors; 2026-10-04 11:57:51.804Z B67B28C0 1 info log Updating tables\n"
        );
        assert_eq!(later(&mut log), None, "nothing new");
        file.write_all(b"\n\n2026-10-04 11:57:53.804Z B67B28C0 1 error log bad\x1b[31m\n").unwrap();
        log.program_spoke();
        log.looked = Instant::now().checked_sub(LOOK).unwrap();
        assert_eq!(log.line(), None, "the program speaks for itself");
        assert_eq!(
            later(&mut log).unwrap(),
            "[log] 3 lines, 1 warnings, 1 errors; 2026-10-04 11:57:53.804Z B67B28C0 1 error log bad [31m\n"
        );
        // A second attempt has a log of its own.
        std::fs::write(dir.path().join("postupgrade_7.4.1_2027.log"), "one\n").unwrap();
        let next = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(dir.path().join("postupgrade_7.4.1_2027.log")).unwrap().set_modified(next).unwrap();
        assert_eq!(later(&mut log).unwrap(), "[log] 1 lines, 0 warnings, 0 errors; one\n");
    }

    #[test]
    fn a_link_is_not_followed_and_a_huge_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "of somebody else\n").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("a.log")).unwrap();
        let pattern = dir.path().join("*.log").to_str().unwrap().to_owned();
        let mut log = Log::new(&pattern);
        assert_eq!(later(&mut log), None);
        std::fs::write(dir.path().join("b.log"), [b"x".repeat(3_000_000), b"\n".to_vec()].concat()).unwrap();
        for _ in 0..2 {
            assert_eq!(later(&mut log), None, "so much is read at once");
        }
        let told = later(&mut log).unwrap();
        assert_eq!(told, format!("[log] 1 lines, 0 warnings, 0 errors; {}\n", "x".repeat(TOLD)));
    }
}
