//! A fleet of either tier, as the commands see it.

use lab::real::RealLab;
use lab::{Lab, Layout, Record, Secrets, Spec, Violation};
use std::io;
use std::path::{Path, PathBuf};

/// A running fleet.
pub(crate) trait Fleet {
    /// Who is who.
    fn layout(&self) -> Layout;
    /// Its directory.
    fn dir(&self) -> &Path;
    /// The inventory, for `caravan -i`.
    fn inventory(&self) -> PathBuf;
    /// The port of all SSH servers.
    fn port(&self) -> u16;
    /// The values that must turn up nowhere but where they belong.
    fn secrets(&self) -> &Secrets;
    /// Everything that was recorded, in order.
    fn records(&self) -> io::Result<Vec<Record>>;
    /// The rules that were seen broken, in order.
    fn violations(&self) -> io::Result<Vec<Violation>>;
}

/// Builds a fleet in an empty or new directory, and starts it. `real`: of realistic hosts.
pub(crate) fn start(spec: Spec, dir: &Path, real: bool) -> io::Result<Box<dyn Fleet>> {
    if real { Ok(Box::new(RealLab::start(&spec, dir, &std::env::current_exe()?)?)) } else { Ok(Box::new(Lab::start(spec, dir)?)) }
}

impl Fleet for Lab {
    fn layout(&self) -> Layout {
        self.layout().clone()
    }

    fn dir(&self) -> &Path {
        self.dir()
    }

    fn inventory(&self) -> PathBuf {
        self.inventory()
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn secrets(&self) -> &Secrets {
        self.secrets()
    }

    fn records(&self) -> io::Result<Vec<Record>> {
        self.records()
    }

    fn violations(&self) -> io::Result<Vec<Violation>> {
        self.violations()
    }
}

impl Fleet for RealLab {
    fn layout(&self) -> Layout {
        self.layout()
    }

    fn dir(&self) -> &Path {
        self.dir()
    }

    fn inventory(&self) -> PathBuf {
        self.inventory()
    }

    fn port(&self) -> u16 {
        22
    }

    fn secrets(&self) -> &Secrets {
        self.secrets()
    }

    fn records(&self) -> io::Result<Vec<Record>> {
        self.records()
    }

    fn violations(&self) -> io::Result<Vec<Violation>> {
        self.violations()
    }
}
