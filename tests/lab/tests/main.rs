//! Every test of the lab, in one program: they wait more than they work, so they run beside one another.

mod back;
mod common;
mod migration;
mod misuse;
mod ssh;
mod standins;
mod versions;
