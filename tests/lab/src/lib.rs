//! A fleet of stand-in Campaign hosts behind real SSH servers, without root.
//!
//! Each host is a directory with an old installation in it, a loopback address with an SSH server, and real processes. The
//! programs of a host (`nlserver`, `dpkg`, `apache2`, ...) are links to the `lab` binary. They keep real state on disk, fail as the
//! real ones do, and record what they see, misuse above all: tests hold Caravan's word against the hosts' own [`records`].

pub mod agent;
mod back;
mod conf;
mod faults;
mod fleet;
mod furnish;
mod lab;
mod layout;
mod openssh;
mod package;
mod processes;
pub mod real;
mod records;
mod rules;
mod says;
mod server;
mod spec;
mod standins;
mod state;

pub use back::{Snapshot, redirect_build};
pub use faults::Order;
pub use furnish::Secrets;
pub use lab::{Lab, LabHost};
pub use layout::{Family, HOST_VARIABLE, Host, Instance, Layout, Platform};
pub use openssh::is_installed as openssh_is_installed;
pub use processes::{Running, end_all, running};
pub use records::{Event, Record, Rule, Violation, Writer, records, violations};
pub use says::Says;
pub use server::LabServer;
pub use spec::{
    Cut, Failing, Faults, HostsSpec, Loss, PlatformSpec, Release, Role, STEPS, Slow, SlowLink, Spec, Topology, seconds,
};
pub use standins::{run as run_standin, session_token};
pub use state::{Database, Progress, database, migration_rank, packages, progress};
