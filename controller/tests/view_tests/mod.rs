//! Views, screens and reports, from hand-made plans and events.

mod chain;
mod commands;
mod control;
mod driver;
mod fleet;
mod fold;
mod people;
mod pick;
mod reports;
mod resumed;
mod screens;
