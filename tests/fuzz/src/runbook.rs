//! Any text as a runbook: a procedure or an error.

use controller::plan::runbook::Runbook;

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(runbook) = Runbook::parse(text) {
        assert!(runbook.names().len() <= runbook.steps.len());
    }
}
