//! The disk of a workstation: the journal of one run, with what is durable and what is not, and controllers that die over it.

use crate::plant::Plant;
use crate::world::World;
use controller::run::journal::{self, Chain, Storage};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Cheap to clone: every life of a controller writes to the same.
#[derive(Clone, Default)]
pub(crate) struct Paper(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    bytes: Vec<u8>,
    /// Up to where a power loss takes nothing.
    synced: usize,
}

/// How a controller dies over a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Before anything of it is in the file.
    Before,
    /// In the middle of it.
    Torn,
    /// It is in the file; the machine goes down, and a part of it is lost again.
    PowerLoss,
    /// It is in the file and not durable, and the machine goes on.
    Appended,
    /// It is durable, and nothing was done for it yet.
    Durable,
}

impl Paper {
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in the journal. A torn tail is cut away, as the product does when it opens a journal.
    ///
    /// # Errors
    /// It cannot be understood, or its chain is broken.
    pub(crate) fn read(&self) -> Result<Chain, String> {
        let mut paper = self.lock();
        let chain = journal::parse(&paper.bytes, Path::new("journal")).map_err(|error| error.to_string())?;
        if let Some(line) = chain.broken_at {
            return Err(format!("line {line} does not follow from the line before it"));
        }
        let whole = paper.bytes.len() - chain.torn;
        paper.bytes.truncate(whole);
        paper.synced = paper.synced.min(whole);
        Ok(chain)
    }

    /// The workstation goes down: what was not durable is gone, up to any byte.
    pub(crate) fn power_loss(&self, world: &World) {
        let mut paper = self.lock();
        let loose = (paper.bytes.len() - paper.synced) as u64;
        let kept = paper.synced + world.with(|w| w.net.luck.rng().below(loose + 1)) as usize;
        paper.bytes.truncate(kept);
    }
}

/// The writing end that one life of a controller has.
pub(crate) struct Pen {
    pub(crate) paper: Paper,
    pub(crate) world: World,
    pub(crate) life: u64,
    /// Rung when the controller dies.
    pub(crate) bell: Arc<tokio::sync::Notify>,
    pub(crate) dying: Option<Durable>,
    pub(crate) dead: bool,
}

/// The next sync is this controller's last act.
pub(crate) struct Durable;

impl Pen {
    fn die(&mut self, how: Death) -> io::Error {
        self.dead = true;
        self.world.with(|w| {
            w.net.trace(|| format!("controller {} dies over its journal: {how:?}", self.life));
            w.net.bury(self.life);
        });
        if how == Death::PowerLoss {
            self.paper.power_loss(&self.world);
        }
        self.bell.notify_one();
        io::Error::other("the controller is dead")
    }
}

impl Storage for Pen {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the controller is dead"));
        }
        let (death, full, part) = self.world.with(|w| {
            let luck = &mut w.net.luck;
            let kinds = [(2, Death::Before), (2, Death::Torn), (2, Death::PowerLoss), (2, Death::Appended), (3, Death::Durable)];
            let death = luck.strikes(|faults| faults.kill).then(|| luck.rng().weighted(&kinds));
            let full = death.is_none() && luck.strikes(|faults| faults.full);
            (death, full, luck.rng().below(bytes.len() as u64) as usize)
        });
        let written = match death {
            Some(Death::Before) => 0,
            Some(Death::Torn) => part,
            _ if full => part,
            _ => bytes.len(),
        };
        self.paper.lock().bytes.extend_from_slice(&bytes[..written]);
        match death {
            Some(Death::Durable) => self.dying = Some(Durable),
            Some(how) => return Err(self.die(how)),
            None if full => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            None => {}
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let plant = self.world.with(|w| w.net.plant);
        if plant != Some(Plant::DiskLies) {
            let mut paper = self.paper.lock();
            paper.synced = paper.bytes.len();
        }
        match self.dying.take() {
            Some(Durable) => Err(self.die(Death::Durable)),
            None => Ok(()),
        }
    }
}
