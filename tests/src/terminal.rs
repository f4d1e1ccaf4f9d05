//! `caravan` at a terminal, with somebody who types: script(1) of util-linux makes the terminal.

use crate::{Ran, Site};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(90);

impl Site {
    /// Runs `caravan` at a terminal. `talk`: what has to be shown, and what is typed then, in this order. Everything that was shown is
    /// in `stdout`.
    ///
    /// # Panics
    /// Something is not shown in time.
    #[track_caller]
    pub fn at_terminal(&self, args: &[&str], talk: &[(&str, &str)]) -> Ran {
        at_terminal(&self.command(args), talk)
    }
}

/// Runs a command, with its arguments and environment alone, at a terminal; otherwise as [`Site::at_terminal`].
///
/// # Panics
/// Something is not shown in time.
#[track_caller]
pub fn at_terminal(prepared: &Command, talk: &[(&str, &str)]) -> Ran {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let line: Vec<String> = std::iter::once(prepared.get_program()).chain(prepared.get_args()).map(quoted).collect();
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &line.join(" "), "/dev/null"])
        .env_clear()
        .env("SHELL", "/bin/sh")
        .env("TERM", "dumb")
        .env("NO_COLOR", "1");
    command.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("script(1) starts");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read) = stdout.read(&mut piece)
            && read > 0
            && sender.send(piece[..read].to_vec()).is_ok()
        {}
    });
    let (mut shown, mut seen) = (Vec::new(), 0);
    for (expected, typed) in talk {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&shown[seen..]).into_owned();
            if let Some(at) = text.find(expected) {
                seen += at + expected.len();
                break;
            }
            match pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(piece) => shown.extend(piece),
                Err(error) => {
                    let _ = child.kill();
                    panic!("`{expected}` was not shown ({error}):\n{text}");
                }
            }
        }
        // A question is shown before the terminal is told not to show the answer.
        std::thread::sleep(Duration::from_millis(300));
        stdin.write_all(format!("{typed}\n").as_bytes()).expect("somebody listens");
    }
    loop {
        match pieces.recv_timeout(PATIENCE) {
            Ok(piece) => shown.extend(piece),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("it does not end:\n{}", String::from_utf8_lossy(&shown));
            }
        }
    }
    let code = child.wait().expect("script(1) ends").code().unwrap_or(-1);
    Ran { code, stdout: String::from_utf8_lossy(&shown).replace('\r', ""), stderr: String::new() }
}
