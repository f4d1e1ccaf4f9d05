//! A terminal for a program that asks at one (pty(7)).

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Our end of a new terminal, and the name of the program's. What is typed is not shown, whether the program sees to that or not.
///
/// # Errors
/// The host has no terminals to give (`/dev/ptmx`, `/dev/pts`).
pub(crate) fn open() -> Result<(File, String), String> {
    let failed = |e: rustix::io::Errno| format!("no terminal can be had for the program: {e}; look at /dev/ptmx and /dev/pts");
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
    grantpt(&ours).and_then(|()| unlockpt(&ours)).map_err(failed)?;
    let name = ptsname(&ours, Vec::new()).map_err(failed)?;
    // Both ends have one set of modes.
    let mut modes = tcgetattr(&ours).map_err(failed)?;
    modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
    tcsetattr(&ours, OptionalActions::Now, &modes).map_err(failed)?;
    Ok((File::from(ours), name.to_string_lossy().into_owned()))
}

/// The mode `at TERMINAL PROGRAM...`: begins a session with this terminal and turns into the program.
pub(crate) fn run_program_at(terminal: &str, program: &str, rest: &[&str]) -> ExitCode {
    let begin = || {
        rustix::process::setsid()?;
        // The first terminal that the leader of a session opens becomes the session's own: `/dev/tty`.
        let tty = rustix::fs::open(terminal, OFlags::RDWR, Mode::empty())?;
        rustix::stdio::dup2_stdin(&tty)?;
        rustix::stdio::dup2_stdout(&tty)?;
        rustix::stdio::dup2_stderr(&tty)
    };
    if let Err(error) = begin() {
        crate::complain(&format!("cannot use the terminal {terminal}: {error}\n"));
        return ExitCode::from(126);
    }
    let error = Command::new(program).args(rest).exec();
    crate::complain(&format!("cannot start {program}: {error}\n"));
    ExitCode::from(126)
}
