//! The order to end what a step does, given from another thread.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Says to the thread that acts that it has to end, and why. The first reason counts.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    reason: OnceLock<String>,
    /// The part of the runner that acts under another account. It is told over its standard input.
    elsewhere: Mutex<Option<ChildStdin>>,
}

impl Halt {
    /// Orders the end. The reason is for people, a sentence about the step: `it did not ... and was stopped`.
    pub(crate) fn order(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.pass_on();
    }

    /// Why the work has to end, once it has to.
    pub(crate) fn ordered(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Has the order passed on to another process, too.
    pub(crate) fn tell(&self, elsewhere: ChildStdin) {
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = Some(elsewhere);
        self.pass_on();
    }

    fn pass_on(&self) {
        let Some(reason) = self.ordered() else { return };
        if let Some(mut pipe) = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // One that has ended by now needs no order. Closing the pipe ends the text.
            let _ = pipe.write_all(reason.as_bytes());
        }
    }
}
