//! Running a program that asks for passwords at its terminal (`nlserver config -internalpassword`).
//!
//! Nobody has documented what it asks, only in which order: so whatever it says last is taken for a question once it is silent in the
//! middle of a line, sooner behind a colon or a question mark. A whole line that ends in one of them may be a heading (`Connecting:`) or a
//! question, and takes as long. What is typed is never shown by the terminal, and masked wherever the program
//! itself shows it.

use super::command::{Lines, life_pipe};
use super::{Cause, Context, Done, Result, Trouble};
use crate::program::{Ended, Program, hung_up, readable, spawn};
use crate::terminal;
use proto::Secret;
use proto::step::{Answers, Command, Dialog};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a program has to be silent behind what looks like a question: some throw away what was typed before they read.
const SETTLED: Duration = Duration::from_millis(300);
/// The same where it looks less like one: in the middle of a line without a mark, or at the end of a line with one.
const SILENT: Duration = Duration::from_secs(3);
/// How long it has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How much of what was said last is looked at.
const TAIL: usize = 4096;

pub(super) fn run(spec: &Command, dialog: &Dialog, context: &mut Context<'_>) -> Result {
    let mut first: Option<Trouble> = None;
    for way in &dialog.ways {
        let mut talk = Talk::begin(spec, dialog, way, context.secrets)?;
        let ended = talk.follow(context);
        match talk.judge(ended) {
            Ok(done) => return Ok(done),
            // It refused by itself, so that nothing was changed: the next way may be the right one.
            Err((trouble, true)) => {
                context.note("(refused)");
                first.get_or_insert(trouble);
            }
            Err((trouble, false)) => return Err(trouble),
        }
    }
    Err(first.unwrap_or_else(|| "there is no way to answer what the program asks".to_owned().into()))
}

/// One run of the program.
struct Talk<'a> {
    spec: &'a Command,
    dialog: &'a Dialog,
    way: &'a Answers,
    child: Child,
    terminal: File,
    life: OwnedFd,
    answers: Vec<&'a Secret>,
    /// How many answers were typed.
    typed: usize,
    lines: Lines<'a>,
    /// What was said since the last answer.
    tail: Vec<u8>,
    /// When something was said or typed last.
    stirred: Instant,
    /// When the last answer was typed, or the program was started.
    since: Instant,
    succeeded: bool,
}

/// Why the program was ended, where it did not end by itself.
enum Stop {
    Halted(Trouble),
    TooSlow(String),
}

impl<'a> Talk<'a> {
    fn begin(
        spec: &'a Command,
        dialog: &'a Dialog,
        way: &'a Answers,
        secrets: &'a BTreeMap<String, Secret>,
    ) -> std::result::Result<Self, Trouble> {
        let missing = |name: &String| format!("the secret `{name}` was not sent");
        let answers: std::result::Result<Vec<&Secret>, String> =
            way.secrets.iter().map(|name| secrets.get(name).ok_or_else(|| missing(name))).collect();
        let answers = answers?;
        if answers.iter().any(|answer| answer.expose().chars().any(char::is_control)) {
            return Err("a password has a control character in it, which cannot be typed at a terminal".to_owned().into());
        }
        let failed = |e: rustix::io::Errno| Trouble::from(format!("cannot start the program: {e}"));
        let (ours, name) = terminal::open()?;
        let mut command = Program { terminal: Some(&name), ..Program::from(spec) }.command()?;
        // As in every other step: the program and its descendants hold the step's lock, and are it.
        let lock = rustix::io::dup(std::io::stderr()).map_err(failed)?;
        let (life, theirs) = life_pipe().map_err(failed)?;
        command.stdout(Stdio::null()).stderr(Stdio::null()).arg0("caravan-agent");
        let child = spawn(&mut command, &[]).map_err(|e| format!("cannot start the program: {e}"))?;
        drop((lock, theirs));
        let now = Instant::now();
        Ok(Self {
            spec,
            dialog,
            way,
            child,
            terminal: ours,
            life,
            answers,
            typed: 0,
            lines: Lines::new(&[]),
            tail: Vec::new(),
            stirred: now,
            since: now,
            succeeded: false,
        })
    }

    /// Answers until the program has ended, or has to be ended.
    fn follow(&mut self, context: &mut Context<'_>) -> std::result::Result<Ended, Stop> {
        let patience = Duration::from_secs(self.dialog.patience_s);
        loop {
            self.listen(context.sink);
            if let Ok(Some(status)) = self.child.try_wait()
                && hung_up(&self.life)
            {
                self.drain(context.sink);
                return Ok(Ended { status: Some(status), in_time: true, left_some: false });
            }
            if let Err(halted) = context.go_on() {
                self.end(context.sink);
                return Err(Stop::Halted(halted));
            }
            if self.since.elapsed() > patience {
                self.end(context.sink);
                let seconds = self.dialog.patience_s;
                return Err(Stop::TooSlow(match self.answers.len() - self.typed {
                    0 => format!("it did not end within {seconds} s after the last answer"),
                    left => format!("it did not ask within {seconds} s; {left} of {} answers were not typed", self.answers.len()),
                }));
            }
            if self.asks() {
                self.answer();
            }
        }
    }

    /// Takes in what is said within a moment.
    fn listen(&mut self, sink: &mut dyn FnMut(&[u8])) -> bool {
        if !readable(&self.terminal, 50) {
            return false;
        }
        let mut piece = [0; 4096];
        match self.terminal.read(&mut piece) {
            Ok(read) if read > 0 => {
                let said: Vec<u8> = piece.get(..read).unwrap_or_default().iter().copied().filter(|byte| *byte != b'\r').collect();
                sink(&said);
                self.lines.take(&said);
                self.tail.extend_from_slice(&said);
                let over = self.tail.len().saturating_sub(TAIL);
                self.tail.drain(..over);
                self.stirred = Instant::now();
                self.succeeded |= contains(&self.tail, self.dialog.says.as_bytes());
                true
            }
            // Nobody has the other end open: not yet, or no longer.
            _ => {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        }
    }

    /// What the program said before it ended.
    fn drain(&mut self, sink: &mut dyn FnMut(&[u8])) {
        while self.listen(sink) {}
        self.lines.end();
    }

    /// Whether the program waits for an answer.
    fn asks(&self) -> bool {
        if self.typed == self.answers.len() {
            return false;
        }
        let silent = self.stirred.elapsed();
        let text = self.tail.trim_ascii_end();
        let whole_line = self.tail.get(text.len()..).unwrap_or_default().contains(&b'\n');
        match (text.last(), whole_line) {
            (None, _) => false,
            (Some(b':' | b'?'), false) => silent >= SETTLED,
            (Some(b':' | b'?'), true) | (Some(_), false) => silent >= SILENT,
            (Some(_), true) => false,
        }
    }

    fn answer(&mut self) {
        let Some(answer) = self.answers.get(self.typed) else { return };
        let mut line = Zeroizing::new(Vec::with_capacity(answer.expose().len() + 1));
        line.extend_from_slice(answer.expose().as_bytes());
        line.push(b'\n');
        // A program that went away meanwhile is noticed by its end.
        let _ = self.terminal.write_all(&line);
        self.typed += 1;
        self.tail.clear();
        (self.stirred, self.since) = (Instant::now(), Instant::now());
    }

    /// Ends the program and all that it started.
    fn end(&mut self, sink: &mut dyn FnMut(&[u8])) {
        // Its session, or itself as long as it has not begun one.
        let group = Pid::from_child(&self.child);
        let signal = |signal| {
            let _ = rustix::process::kill_process_group(group, signal).or_else(|_| rustix::process::kill_process(group, signal));
        };
        signal(Signal::TERM);
        let until = Instant::now() + GRACE;
        while !matches!(self.child.try_wait(), Ok(Some(_))) && Instant::now() < until {
            self.listen(sink);
        }
        signal(Signal::KILL);
        let _ = self.child.wait();
        self.drain(sink);
    }

    /// What the end means. With trouble: whether the program refused by itself.
    fn judge(&self, ended: std::result::Result<Ended, Stop>) -> std::result::Result<Done, (Trouble, bool)> {
        let last = &self.lines.last;
        let said = if last.is_empty() { "it printed nothing".to_owned() } else { format!("last output: {}", last.join(" | ")) };
        // Without the last answer there was nothing that it could have done.
        let done_nothing = self.typed < self.answers.len();
        let open = |message: String, exit_code, cause| {
            let (message, cause) = match done_nothing {
                true => (format!("{message}; it was not given all that it needs, so nothing was changed; {said}"), Cause::Itself),
                false => (format!("{message}; {said}"), cause),
            };
            (Trouble { message, exit_code, cause }, false)
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(Stop::Halted(trouble)) => return Err(open(trouble.message, None, Cause::Halted)),
            Err(Stop::TooSlow(why)) => return Err(open(why, None, Cause::Halted)),
        };
        let exit_code = ended.code();
        let right = exit_code.is_some_and(|code| self.spec.ok.contains(&code));
        match (right, self.succeeded, exit_code) {
            (true, true, _) => Ok(Done { exit_code, message: self.way.means.clone(), ..Done::default() }),
            // By somebody else, or by a fault of its own.
            (_, _, None) => {
                let cause = if ended.killed_by().is_some() { Cause::Killed } else { Cause::Halted };
                Err(open(format!("it was {}", ended.describe()), None, cause))
            }
            // One of the two says that it was done.
            (true, false, _) | (false, true, _) => {
                let seen = if self.succeeded { "said" } else { "did not say" };
                let text =
                    format!("expected exit code 0 and `{}`; it {seen} that, and ended with {}", self.dialog.says, ended.describe());
                Err(open(text, exit_code, Cause::Halted))
            }
            (false, false, _) => {
                let answers = format!("after {} of {} answers", self.typed, self.answers.len());
                let message = format!("it refused {answers} ({}); {said}", ended.describe());
                Err((Trouble { message, exit_code, cause: Cause::Itself }, true))
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}
