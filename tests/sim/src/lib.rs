//! Random histories of the engine: real plans in small, the real engine, and hosts whose supervisors decide with the same fold over
//! their journals as the agent does ([`proto::host::State`]), while connections drop, processes die, machines go down, disks are full
//! and people interfere. Time is virtual; a seed always gives the same history.
//!
//! After each history the invariants are judged from what really happened on the simulated hosts and from their journals.

mod check;
mod disk;
mod faults;
mod fleet;
mod history;
mod host;
mod lock;
mod net;
mod plant;
mod records;
mod rng;
mod seat;
mod storage;
mod supervisor;
mod sweep;
mod truth;
mod watch;
mod world;

pub use history::{Setup, Tally, run};
pub use lock::{Holder, Lock};
pub use plant::Plant;
pub use sweep::{Swept, sweep};
