//! What is done with one input of random bytes: one module a target, with one function. libFuzzer calls them (`fuzz_targets/`), and so does
//! an ordinary test (`tests/tests/fuzz.rs`), which includes this file and needs neither a sanitizer nor a nightly toolchain.

pub mod frames;
pub mod inventory;
pub mod journal;
pub mod known_hosts;
pub mod mask;
pub mod message;
pub mod runbook;
pub mod vendor;
pub mod xml;
