//! Every test of the controller below its command line on a fleet, in one program: it links once, and long tests run beside one another.

mod check;
mod engine;
mod kept_names;
mod plan_build;
mod plan_command;
mod plan_errors;
mod plan_fleet;
mod plan_own_runbook;
mod plan_passwords;
mod plan_random;
mod plan_rollback;
mod plan_rollback_rules;
mod plan_rules;
mod plan_runbook;
mod plan_text;
mod plan_versions;
mod procedure;
mod rebuild_tests;
mod view_tests;
