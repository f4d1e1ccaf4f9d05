//! The prerequisites, from the questions to the screens, over simulated hosts.

mod agent;
mod always;
mod evaluate;
mod gather;
mod history;
mod logon;
mod passwords;
mod saved;
mod screens;
mod sim;
