//! Making sure that nothing runs under a directory: waiting, then SIGTERM, then SIGKILL (domain: procedure step 1).

use super::{Context, Done, Result, Trouble};
use crate::processes::{self, Process, describe};
use rustix::process::{Pid, Signal};
use std::time::{Duration, Instant};

/// How long the kernel may take to end a process after SIGKILL.
const LAST_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(under: &str, term_after_s: u64, kill_after_s: u64, context: &mut Context<'_>) -> Result {
    let began = Instant::now();
    let first = running(under)?;
    if first.is_empty() {
        context.note(&format!("nothing ran under {under}"));
        return Ok(Done::default());
    }
    context.note(&format!("waiting up to {term_after_s} s for {} to end", describe(&first)));
    let mut needed = "";
    let mut left = wait(under, Duration::from_secs(term_after_s), context)?;
    for (signal, name, patience) in
        [(Signal::TERM, "SIGTERM", Duration::from_secs(kill_after_s)), (Signal::KILL, "SIGKILL", LAST_WAIT)]
    {
        if left.is_empty() {
            break;
        }
        context.note(&format!("sending {name} to {}", describe(&left)));
        needed = name;
        send(&left, signal, under, context);
        left = wait(under, patience, context)?;
    }
    if !left.is_empty() {
        return Err(format!("expected no process under {under}, still there after SIGKILL: {}", describe(&left)).into());
    }
    let seconds = began.elapsed().as_secs();
    let message = if needed.is_empty() { String::new() } else { format!("{needed} was needed to end {}", describe(&first)) };
    context.note(&format!("nothing runs under {under} any more, after {seconds} s"));
    Ok(Done { message, ..Done::default() })
}

fn running(under: &str) -> std::result::Result<Vec<Process>, Trouble> {
    processes::under(under).map_err(|e| Trouble::from(format!("cannot list processes: {e}")))
}

fn wait(under: &str, patience: Duration, context: &Context<'_>) -> std::result::Result<Vec<Process>, Trouble> {
    let until = Instant::now() + patience;
    loop {
        let left = running(under)?;
        if left.is_empty() || Instant::now() >= until {
            return Ok(left);
        }
        context.pause(PAUSE)?;
    }
}

fn send(processes: &[Process], signal: Signal, under: &str, context: &mut Context<'_>) {
    // Asked again right before: a process id may belong to somebody else by now.
    let still = processes::under(under).unwrap_or_default();
    for process in processes.iter().filter(|process| still.contains(process)) {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => context.note(&format!("cannot signal {} (pid {}): {e}", process.executable, process.pid)),
        }
    }
}
