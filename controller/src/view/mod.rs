//! Where a run stands: a pure fold of its plan and its events.
//!
//! Progress, `status`, `runs`, the end screen and every report read a [`View`] and nothing else, so that they cannot tell
//! different stories. It does no I/O and looks at no clock: the same plan and the same events always give the same view.

mod build;
mod counts;
mod fold;
mod model;
mod paint;
mod record;
mod resume;
mod steps;
pub mod text;
mod trouble;

pub use model::*;
pub use paint::Paint;
pub use record::*;
pub use trouble::{Trouble, TroubleKind, signature};
