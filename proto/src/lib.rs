//! What the Caravan controller and its agents both must know, and nothing else: steps, events, frames.
//!
//! This crate does no I/O and decides no policy. It has three parts:
//!
//! - [`step`]: what an agent can be told to do. A closed set of typed [`Action`]s and [`Probe`]s.
//! - [`event`]: what happened. One type of event for the journal, the progress display and every report.
//! - [`message`] and [`frame`]: how the two talk over one SSH channel.
//!
//! Paths are opaque strings throughout: nothing here assumes that the host is Unix.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod event;
pub mod frame;
pub mod host;
pub mod inspect;
pub mod lines;
pub mod message;
pub mod secret;
pub mod step;

pub use event::{Event, Kind, Outcome, Scope};
pub use frame::{Decoder, Frame, FrameError};
pub use inspect::{Answer, Query, Reading};
pub use message::{FromAgent, ToAgent};
pub use secret::Secret;
pub use step::{Action, Probe, RunAs, StepId, StepSpec};

/// The newest protocol this build speaks. It also speaks [`PROTOCOL_OLDEST`] and everything between.
pub const PROTOCOL: u16 = 2;
/// The oldest protocol this build still speaks.
pub const PROTOCOL_OLDEST: u16 = 1;
