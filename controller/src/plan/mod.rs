//! The plan: runbook x fleet, everything that will happen, in order.

pub mod model;

pub use model::*;
