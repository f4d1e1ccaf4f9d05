//! Any bytes as an inventory: a fleet or errors that can be shown, and every error stands in the file.

use inventory::Options;
use std::path::Path;

/// Tries one input.
pub fn run(bytes: &[u8]) {
    match inventory::parse_bytes(bytes, "fleet.yaml", Path::new("/nowhere"), Options::default()) {
        Ok(loaded) => {
            let hosts = loaded.fleet.platforms.iter().map(|platform| platform.hosts.len()).sum::<usize>();
            assert!(hosts > 0, "a fleet without hosts was accepted");
            let _ = loaded.warnings.render(false);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let _ = problems.render(true);
        }
    }
}
