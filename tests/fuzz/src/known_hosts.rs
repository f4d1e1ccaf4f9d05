//! Any bytes as a known_hosts file: each bad line is a warning with its number, and no line is about two names that is about neither.

use controller::ssh::known_hosts::{KnownHosts, written};
use std::collections::BTreeSet;
use std::path::Path;

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let file = KnownHosts::parse(Path::new("known"), bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let mut before = 0;
    for warning in file.warnings() {
        let number = warning.strip_prefix("known:").and_then(|rest| rest.split_once(':')?.0.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| panic!("a warning without a line: {warning}"));
        assert!(before < number && number <= lines, "line {number} of {lines}, after {before}: {warning}");
        before = number;
    }
    let about = |names: &[String]| file.matching(names).map(|line| line.number).collect::<BTreeSet<usize>>();
    let (name, address) = (written("H1.example.net", 22), written("127.0.0.1", 2222));
    let (one, other) = (about(std::slice::from_ref(&name)), about(std::slice::from_ref(&address)));
    let both = about(&[name, address]);
    assert!(both.iter().all(|line| one.contains(line) || other.contains(line)), "{both:?}, {one:?}, {other:?}");
    assert!(one.iter().chain(&other).all(|line| (1..=lines).contains(line)));
}
