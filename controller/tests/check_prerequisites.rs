//! The prerequisites, from the questions to the screens, over simulated hosts.

#[path = "check/agent.rs"]
mod agent;
#[path = "check/always.rs"]
mod always;
#[path = "check/evaluate.rs"]
mod evaluate;
#[path = "check/gather.rs"]
mod gather;
#[path = "check/history.rs"]
mod history;
#[path = "check/logon.rs"]
mod logon;
#[path = "check/passwords.rs"]
mod passwords;
mod plan_fleet;
#[path = "check/saved.rs"]
mod saved;
#[path = "check/screens.rs"]
mod screens;
#[path = "check/sim.rs"]
mod sim;
