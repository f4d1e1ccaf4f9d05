//! Carrying a plan out: the run's record ([`store`], [`journal`]), what may happen next ([`state`], pure), the conversation with
//! each host (`host`) and the loop that ties them together ([`engine`]).
//!
//! The order of things is always: decide (pure) -> write the decision durably -> act. The journal is the single source of truth:
//! [`state::RunState`] is a fold over its events, and so is everything that is ever shown.

mod again;
pub mod decide;
pub mod engine;
mod fold;
mod host;
pub mod journal;
mod keep;
pub mod kept;
mod merge;
mod next;
pub mod options;
mod output;
mod prepare;
pub mod rebuild;
mod reports;
mod stage;
pub mod state;
pub mod store;
pub mod touch;

pub use engine::Engine;
pub use options::{Command, Ended, EngineError, HostReading, Observer, Options, Signal};
