//! Views, screens and reports, from hand-made plans and events.

mod chain;
mod commands;
mod fleet;
mod fold;
mod reports;
mod screens;
