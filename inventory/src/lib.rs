//! The fleet as operators describe it.
//!
//! [`load`] reads a YAML inventory, reports **all** of its errors at once with line and column, and resolves it into a [`Fleet`]:
//! defaults applied, ranges expanded, names checked, secrets left as references. This crate knows no SSH and no plan, and
//! resolves no secret.

pub mod model;

pub use model::*;
