//! A running lab.

use crate::back::Snapshot;
use crate::furnish::{self, Secrets};
use crate::layout::{Host, Layout};
use crate::processes;
use crate::records::{self, Record, Violation};
use crate::server::LabServer;
use crate::spec::Spec;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// A fleet of stand-in hosts that can be logged in to. Ends everything of it when it is dropped; the directory stays.
#[derive(Debug)]
pub struct Lab {
    layout: Layout,
    secrets: Secrets,
    port: u16,
    servers: BTreeMap<String, LabServer>,
    runtime: Option<Runtime>,
}

/// One host of a running lab.
#[derive(Debug, Clone, Copy)]
pub struct LabHost<'a> {
    /// Who and where it is.
    pub host: &'a Host,
    /// Its SSH server.
    pub server: &'a LabServer,
}

impl LabHost<'_> {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.host.dir
    }

    /// Cuts all connections. What they ran goes on.
    pub fn cut(&self) {
        self.server.cut();
    }

    /// Cuts all connections and refuses new ones.
    pub fn down(&self) {
        self.server.down();
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// When another program has taken the port meanwhile.
    pub fn up(&self) -> io::Result<()> {
        self.server.up()
    }
}

impl Lab {
    /// Builds a fleet in `dir`, which must be empty or absent, and starts it. Stand-ins are links to the running program when
    /// that is `lab`; tests give the program with [`Lab::start_with`].
    ///
    /// # Errors
    /// A wrong spec, a directory that cannot be written, a host that does not come up.
    pub fn start(spec: Spec, dir: &Path) -> io::Result<Self> {
        Self::start_with(spec, dir, &binary()?)
    }

    /// As [`Lab::start`], with the path of the `lab` program.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_with(spec: Spec, dir: &Path, binary: &Path) -> io::Result<Self> {
        spec.validate().map_err(io::Error::other)?;
        let furnished = furnish::furnish(&spec, dir, binary)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("lab").enable_all().build()?;
        // From here on a failure drops the lab, and with it what runs.
        let mut lab = Self {
            layout: furnished.layout,
            secrets: furnished.secrets,
            port: furnished.port,
            servers: BTreeMap::new(),
            runtime: Some(runtime),
        };
        lab.start_hosts()?;
        lab.start_servers(furnished.doors, &furnished.login)?;
        Ok(lab)
    }

    fn start_hosts(&self) -> io::Result<()> {
        let hosts: Vec<&Host> = self.layout.hosts().collect();
        // A few at a time: all at once, they would only wait for each other.
        for some in hosts.chunks(8) {
            std::thread::scope(|scope| {
                let starting: Vec<_> = some.iter().map(|host| scope.spawn(|| furnish::start_host(&self.layout, host))).collect();
                let started = starting
                    .into_iter()
                    .map(|host| host.join().unwrap_or_else(|_| Err(io::Error::other("starting a host panicked"))));
                started.collect::<io::Result<()>>()
            })?;
        }
        Ok(())
    }

    fn start_servers(
        &mut self,
        doors: Vec<(std::net::TcpListener, russh::keys::PrivateKey)>,
        login: &russh::keys::PublicKey,
    ) -> io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        for (host, (listener, key)) in self.layout.hosts().zip(doors) {
            let server = LabServer::start(runtime.handle(), listener, host, key, login.clone())?;
            if self.layout.faults.unreachable.contains(&host.name) {
                server.down();
            }
            if self.layout.faults.silent.contains(&host.name) {
                server.silence();
            }
            self.servers.insert(host.name.clone(), server);
        }
        Ok(())
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        &self.layout.dir
    }

    /// Who is who.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The inventory, for `caravan -i`.
    pub fn inventory(&self) -> PathBuf {
        self.layout.dir.join("fleet.yaml")
    }

    /// The port of all SSH servers.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The values that must turn up nowhere but where they belong.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A host by its name.
    ///
    /// # Panics
    /// When the lab has no such host: that is a mistake in the test that asks.
    pub fn host(&self, name: &str) -> LabHost<'_> {
        let host = self.layout.host(name).map(|(_, host)| host);
        match (host, self.servers.get(name)) {
            (Some(host), Some(server)) => LabHost { host, server },
            _ => panic!("the lab has no host {name}"),
        }
    }

    /// Everything the stand-ins recorded, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self) -> io::Result<Vec<Record>> {
        records::records(self.dir())
    }

    /// What is on all hosts and in all databases now, to compare with later.
    ///
    /// # Errors
    /// When a host cannot be read.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        Snapshot::take(&self.layout)
    }

    /// The rules that the stand-ins saw broken, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn violations(&self) -> io::Result<Vec<Violation>> {
        records::violations(self.dir())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.servers.clear();
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: a lab can be dropped inside another runtime, which must not block.
            runtime.shutdown_background();
        }
        processes::end_all(self.dir());
    }
}

/// The `lab` program: the running one, or the one beside a running test.
fn binary() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests of any crate lie in `target/PROFILE/deps`, `lab` in `target/PROFILE`.
    let candidates = own.ancestors().skip(1).take(2).map(|dir| dir.join("lab"));
    let found = std::iter::once(own.clone()).filter(|own| own.ends_with("lab")).chain(candidates).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::other(format!("no `lab` program beside {}: build it with `cargo build -p lab`", own.display())))
}
