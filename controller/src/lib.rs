//! The controller: plans a migration, carries it out over SSH, proves what it did.
//!
//! Arrows point downward only: `cli` -> `run`, `check`, `report`, `progress` -> `plan`, `ssh` -> the `inventory` and `proto` crates.
//! The engine in `run` sees hosts through [`hosts::Hosts`] alone, so that it runs the same over SSH and in a simulation.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Says a line on standard error. Whoever reads it may have gone: that is no reason to end.
macro_rules! say {
    ($($text:tt)*) => { crate::say_line(format_args!($($text)*)) };
}

pub mod check;
pub mod cli;
pub mod exit;
pub mod hosts;
pub mod plan;
pub mod progress;
mod release;
pub mod report;
pub mod run;
pub mod secrets;
pub mod ssh;
pub mod view;

fn say_line(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
