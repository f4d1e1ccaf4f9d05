//! Running a program as a step.

use super::log::Log;
use super::secret_file::{SecretFile, provide};
use super::{Cause, Context, Done, Result, Trouble};
use crate::program::{Ended, Program, Source, Watched, spawn};
use proto::step::{Command, LineRule};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use std::fs::File;
use std::os::fd::OwnedFd;

/// How much of a line is looked at.
const LINE_LIMIT: usize = 4096;
/// How many of the last lines an error quotes.
const QUOTED: usize = 3;

/// What a program's descendants are to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descendants {
    /// They are the step: it runs until the last one ended.
    Count,
    /// While the program runs they hold the step's lock; those that remain after it do not matter.
    MayRemain,
    /// They are a service. They get nothing of the step's.
    Outlive,
}

impl Descendants {
    pub(crate) fn of(command: &Command) -> Self {
        if command.starts_service { Self::Outlive } else { Self::Count }
    }
}

pub(crate) fn run(spec: &Command, descendants: Descendants, context: &mut Context<'_>) -> Result {
    let secret_files = provide(&spec.secret_files, context.secrets, None)?;
    let command = Program { secret_files: &secret_files, ..Program::from(spec) }.command()?;
    let failed = |e: rustix::io::Errno| Trouble::from(format!("cannot start the program: {e}"));
    // Inherited by the program since it is not closed by exec; ours is closed as soon as the program has its copy.
    let lock: Option<OwnedFd> = match descendants {
        Descendants::Outlive => None,
        _ => Some(rustix::io::dup(std::io::stderr()).map_err(failed)?),
    };
    let life = match descendants {
        Descendants::Count => Some(life_pipe().map_err(failed)?),
        _ => None,
    };
    let memory = if descendants == Descendants::Outlive { memory_file() } else { None };
    let mut watched = match &memory {
        Some(file) => start_into(command, &secret_files, file)?,
        None => Watched::start(command, &secret_files, None)?,
    };
    drop((lock, secret_files));
    watched.life = life.map(|(ours, _theirs)| ours);

    let mut lines = Lines::new(&spec.fail_on);
    let mut log = spec.log.as_deref().map(Log::new);
    let sink = &mut *context.sink;
    // What the log says stands on lines of its own, also where the program is in the middle of one.
    let mut at_line_start = true;
    let ended = watched.follow(Some(context.halt), &mut |bytes| {
        if bytes.is_empty() {
            // What its log says is not what the program said: no rule is about it.
            if let Some(told) = log.as_mut().filter(|_| at_line_start).and_then(Log::line) {
                sink(told.as_bytes());
            }
            return;
        }
        if let Some(log) = &mut log {
            log.program_spoke();
        }
        at_line_start = bytes.ends_with(b"\n");
        lines.take(bytes);
        sink(bytes);
    });
    if let Some(file) = &memory {
        // The service may go on writing: it gets an error for it, and the memory does not grow.
        let _ = rustix::fs::fcntl_add_seals(file, SealFlags::GROW);
    }
    lines.end();
    judge(spec, ended, &lines, context)
}

fn judge(spec: &Command, ended: Ended, lines: &Lines<'_>, context: &Context<'_>) -> Result {
    let exit_code = ended.code();
    if !ended.in_time {
        let mut halted = context.halted();
        if ended.left_some {
            let hint = "the program itself had ended, but what it had started was still running; a command that starts a service needs `starts_service`";
            halted.message = format!("{}; {hint}", halted.message);
        }
        return Err(Trouble { exit_code, ..halted });
    }
    let said =
        if lines.last.is_empty() { "it printed nothing".to_owned() } else { format!("last output: {}", lines.last.join(" | ")) };
    if let Some(signal) = ended.killed_by() {
        let message = format!("something else than Caravan ended it by signal {signal}; {said}");
        return Err(Trouble { message, exit_code, cause: Cause::Killed });
    }
    let trouble = |message: String| Err(Trouble { message, exit_code, cause: Cause::Itself });
    if let Some((rule, line)) = lines.bad.first() {
        let more = if lines.bad.len() > 1 { format!(" (and {} more such lines)", lines.bad.len() - 1) } else { String::new() };
        return trouble(format!("{}: {line}{more}; {}", rule.means, ended.describe()));
    }
    if exit_code.is_some_and(|code| spec.ok.contains(&code)) {
        return Ok(Done { exit_code, ..Done::default() });
    }
    let expected: Vec<String> = spec.ok.iter().map(i32::to_string).collect();
    trouble(format!("expected exit code {}, seen {}; {said}", expected.join(" or "), ended.describe()))
}

/// A pipe whose second end goes to the program and its descendants, and to nobody after them.
pub(super) fn life_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::empty())?;
    rustix::io::fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
    Ok((ours, theirs))
}

/// A file in memory that can be closed to further growth (Linux 3.17). Without it a pipe has to do.
fn memory_file() -> Option<File> {
    rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).ok().map(File::from)
}

fn start_into(
    mut command: std::process::Command,
    secret_files: &[(String, SecretFile)],
    file: &File,
) -> std::result::Result<Watched, Trouble> {
    let failed = |e: std::io::Error| Trouble::from(format!("cannot start the program: {e}"));
    let copy = || file.try_clone().map_err(failed);
    command.stdout(copy()?).stderr(copy()?);
    let child = spawn(&mut command, secret_files).map_err(failed)?;
    Ok(Watched { child, output: Source::Memory(copy()?, 0), life: None, deadline: None })
}

/// Looks at output line by line.
pub(super) struct Lines<'a> {
    rules: &'a [LineRule],
    current: Vec<u8>,
    /// Lines that mean failure, with their rules.
    bad: Vec<(&'a LineRule, String)>,
    /// The last lines that are not empty.
    pub(super) last: Vec<String>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(rules: &'a [LineRule]) -> Self {
        Self { rules, current: Vec::new(), bad: Vec::new(), last: Vec::new() }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for (index, piece) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.end();
            }
            let room = LINE_LIMIT.saturating_sub(self.current.len());
            self.current.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    pub(super) fn end(&mut self) {
        let whole = String::from_utf8_lossy(&self.current);
        let whole = whole.trim();
        let line: String = whole.chars().take(300).collect();
        let said = without_time(whole);
        let fits = self
            .rules
            .iter()
            .filter(|rule| !rule.is_empty() && said.starts_with(rule.starts_with.trim()) && whole.contains(rule.contains.trim()));
        // A rule for `>>` must not take the lines of a rule for `>>>`: the longest one that fits counts.
        if let Some(rule) = fits.max_by_key(|rule| (rule.starts_with.len(), rule.contains.len())) {
            self.bad.push((rule, line.clone()));
        }
        self.current.clear();
        if line.is_empty() {
            return;
        }
        if self.last.len() == QUOTED {
            self.last.remove(0);
        }
        self.last.push(line);
    }
}

/// A line without the time of day that nlserver puts before what it says: `11:57:51 >   >>> ...`.
fn without_time(line: &str) -> &str {
    let is_time = |word: &str| {
        let parts: Vec<&str> = word.split(':').collect();
        parts.len() == 3 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match line.split_once(char::is_whitespace) {
        Some((word, rest)) if is_time(word) => {
            let rest = rest.trim_start();
            // One `>` alone is nlserver's prompt; `>>` and `>>>` are what it says.
            rest.strip_prefix('>').filter(|said| said.starts_with(char::is_whitespace)).map_or(rest, str::trim_start)
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::without_time;

    #[test]
    fn a_time_of_day_before_a_line_is_no_part_of_what_it_says() {
        for line in [">>> PU-0005", "11:57:51 >>> PU-0005", "11:57:51 >   >>> PU-0005"] {
            assert!(without_time(line).starts_with(">>> "), "{line}");
        }
        assert!(without_time("11:57:51 >   >> PU-0003").starts_with(">> "));
        assert_eq!(without_time("1:2:3 >>> x"), "1:2:3 >>> x");
    }
}
