//! The agent: carries out Caravan's steps on a host, and needs nothing there but a kernel.
//!
//! One binary, three lives that do not depend on each other:
//!
//! - the **bridge** is what sshd started. It carries frames between the SSH channel and the supervisor, answers questions and runs
//!   ad-hoc commands. It dies with the connection, and nothing else does.
//! - the **supervisor** (one a run and host) takes grants, keeps the host's journal and starts one runner after the other.
//! - a **runner** (one a step) does the work and writes the result to disk itself, so that neither the bridge's nor the
//!   supervisor's death loses it.
//!
//! Everything is std threads and blocking calls: an agent waits most of its life, and must be small.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod account;
mod action;
mod bridge;
mod channel;
mod digest;
mod durable;
mod host_lock;
mod http;
mod inspect;
pub mod mask;
mod pattern;
mod probe;
mod processes;
mod program;
mod runner;
mod supervisor;
mod terminal;
pub mod xml;

use std::process::ExitCode;

const USAGE: &str = "\
usage: caravan-agent bridge                 speak frames on standard input and output
       caravan-agent supervisor RUNDIR      take grants of one run (started by a bridge)
       caravan-agent runner STEPDIR         carry out one step (started by a supervisor)
       caravan-agent --version
";

/// Runs the agent in the mode that its arguments name.
///
/// Exit codes: 0 all well, 1 it could not go on (the reason is on standard error, or was sent as a message), 2 wrong usage.
pub fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    keep_memory_private();
    match words.as_slice() {
        ["bridge"] => bridge::run(),
        ["supervisor", dir] => supervisor::run(dir, None),
        ["supervisor", dir, "--idle", seconds] => supervisor::run(dir, Some(seconds)),
        ["runner", dir] => runner::run(dir, false),
        ["runner", dir, "probe"] => runner::run(dir, true),
        ["act"] => runner::run_act(),
        ["as", rest @ ..] => account::run_program_as(rest),
        ["at", terminal, program, rest @ ..] => terminal::run_program_at(terminal, program, rest),
        ["--version"] => {
            say(&format!("caravan-agent {} protocol {}\n", env!("CARGO_PKG_VERSION"), proto::PROTOCOL));
            ExitCode::SUCCESS
        }
        _ => {
            complain(USAGE);
            ExitCode::from(2)
        }
    }
}

/// From here on this process leaves no core dump, whatever becomes of it, and no other process of the same account can look into its
/// memory: it holds secrets. Programs that it starts are as they always are (exec resets this; a limit on core files would stay with
/// services).
pub(crate) fn keep_memory_private() {
    // Every kernel that the agent runs on has it.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Prints to standard output; a reader that is gone is no reason to die (`println!` would).
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints to standard error; see [`say`].
fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
