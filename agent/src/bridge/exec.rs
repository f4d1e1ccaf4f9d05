//! Ad-hoc commands, outside any run. They end with the connection.

use super::{Secrets, ToController};
use crate::mask::Mask;
use crate::program::{Program, Watched};
use proto::FromAgent;
use rustix::process::{Pid, Signal, kill_process_group};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long commands have to end after SIGTERM when the connection ends.
const GRACE: Duration = Duration::from_secs(2);

/// The commands that run under this bridge.
#[derive(Debug)]
pub(crate) struct Commands {
    output: Arc<ToController>,
    running: Mutex<Vec<Pid>>,
}

impl Commands {
    pub(crate) fn new(output: Arc<ToController>) -> Self {
        Self { output, running: Mutex::default() }
    }

    /// Starts a command and answers with its output and its end, from a thread of its own.
    pub(crate) fn start(self: &Arc<Self>, id: u32, argv: Vec<String>, secrets: &Secrets) {
        let started =
            Program { argv: &argv, ..Program::default() }.command().and_then(|command| Watched::start(command, &[], None));
        let watched = match started {
            Ok(watched) => watched,
            Err(message) => {
                let _ = self.output.message(&FromAgent::Exited { id, code: None, message });
                return;
            }
        };
        let group = watched.group();
        self.lock().push(group);
        let this = Arc::clone(self);
        let mut mask = Mask::of(secrets);
        std::thread::spawn(move || {
            let mut offset = 0;
            let mut show = |bytes: &[u8]| {
                if bytes.is_empty() {
                    return;
                }
                this.output.data(id, offset, bytes);
                offset += bytes.len() as u64;
            };
            let ended = watched.follow(None, &mut |bytes| {
                let mut shown = Vec::with_capacity(bytes.len());
                mask.push(bytes, &mut shown);
                show(&shown);
            });
            let mut rest = Vec::new();
            mask.finish(&mut rest);
            show(&rest);
            this.lock().retain(|other| *other != group);
            let code = ended.code();
            let message = if code.is_some() { String::new() } else { ended.describe() };
            let _ = this.output.message(&FromAgent::Exited { id, code, message });
        });
    }

    /// Ends whatever runs.
    pub(crate) fn end_all(&self) {
        let signal = |signal| {
            self.lock().iter().for_each(|group| {
                let _ = kill_process_group(*group, signal);
            })
        };
        signal(Signal::TERM);
        let until = Instant::now() + GRACE;
        while !self.lock().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(Signal::KILL);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
