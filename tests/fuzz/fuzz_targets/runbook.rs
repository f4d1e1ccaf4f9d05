//! Any text as a runbook: a procedure or an error.
#![no_main]

use controller::plan::runbook::Runbook;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(runbook) = Runbook::parse(text) {
        assert!(runbook.names().len() <= runbook.steps.len());
    }
});
