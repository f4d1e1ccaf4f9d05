//! Every test of the agent as a program, in one program: they wait more than they work, so they run beside one another.

mod actions;
mod attack;
mod bridge;
mod commands;
mod common;
mod deaths;
mod dialog;
mod full_disk;
mod grants;
mod keep;
mod locks;
mod logon;
mod packages;
mod survival;
mod watchdogs;
mod xml;
