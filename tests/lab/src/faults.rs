//! Faults of a spec, as stand-ins meet them.

use crate::layout::Host;
use crate::rules::Site;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The file that is there while a host is made: no fault is met before the story begins.
pub(crate) const FURNISHING: &str = "furnishing";

/// The file by which a stand-in tells its host's SSH server to cut the connections.
pub(crate) fn cut_file(host: &Host) -> PathBuf {
    host.state().join("cut-now")
}

/// What another process tells a stand-in host's SSH server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Cut all connections. What they ran goes on.
    Drop,
    /// Cut all connections and refuse new ones.
    Cut,
    /// Take new ones again.
    Heal,
}

impl Order {
    const ALL: [(Self, &str); 3] = [(Self::Drop, "drop"), (Self::Cut, "cut"), (Self::Heal, "heal")];

    fn file(host: &Host) -> PathBuf {
        host.state().join("order")
    }

    /// Gives the order and waits until it is obeyed.
    ///
    /// # Errors
    /// Nobody obeys it: the lab does not run.
    pub fn give(self, host: &Host) -> io::Result<()> {
        let word = Self::ALL.iter().find(|(order, _)| *order == self).map_or("", |(_, word)| word);
        let file = Self::file(host);
        crate::processes::write_atomically(&file, word.as_bytes())?;
        if crate::processes::wait_until(Duration::from_secs(10), || !file.exists()) {
            return Ok(());
        }
        std::fs::remove_file(&file)?;
        Err(io::Error::other(format!("nobody serves {}: its lab does not run, or its spec keeps the host unreachable", host.name)))
    }

    /// The order that a host's server was given, until [`Order::obeyed`].
    pub(crate) fn given(host: &Host) -> Option<Self> {
        let text = std::fs::read_to_string(Self::file(host)).ok()?;
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(order, _)| *order)
    }

    /// Tells who gave the order that it was obeyed.
    pub(crate) fn obeyed(host: &Host) {
        // One that was taken back meanwhile needs no answer.
        let _ = std::fs::remove_file(Self::file(host));
    }
}

impl Site {
    /// Meets a step that the spec may have faults for: cuts the connection, takes its time, and says whether to fail.
    pub(crate) fn meet(&self, step: &str) -> io::Result<bool> {
        if self.is_furnished() {
            return Ok(false);
        }
        let faults = &self.layout.faults;
        let here = |host: &String, name: &String| *host == self.host.name && name == step;
        if let Some(cut) = faults.cut.iter().find(|fault| here(&fault.host, &fault.after))
            && self.is_due(&format!("cut-{step}"), Some(cut.times.unwrap_or(1)))?
        {
            std::fs::write(cut_file(&self.host), b"")?;
            crate::processes::wait_until(Duration::from_secs(5), || !cut_file(&self.host).exists());
        }
        if let Some(slow) = faults.slow.iter().find(|fault| here(&fault.host, &fault.what)) {
            std::thread::sleep(Duration::from_millis(slow.seconds.0));
        }
        match faults.fail.iter().find(|fault| here(&fault.host, &fault.step)) {
            Some(fault) => self.is_due(&format!("fail-{step}"), fault.times),
            None => Ok(false),
        }
    }

    /// Whether the host is just being made: nobody's doings are judged yet.
    pub(crate) fn is_furnished(&self) -> bool {
        self.host.state().join(FURNISHING).exists()
    }

    /// Counts how often a fault was met.
    fn is_due(&self, name: &str, times: Option<u32>) -> io::Result<bool> {
        let Some(times) = times else { return Ok(true) };
        // Held while counting: two stand-ins of a host can meet a fault at once.
        let _writer = self.writer()?;
        let counter = self.host.state().join(format!("fault-{name}"));
        let met: u32 = std::fs::read_to_string(&counter).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        std::fs::write(&counter, (met + 1).to_string())?;
        Ok(met < times)
    }
}
