//! Any bytes as a journal: events, or an error that names the line; a torn tail is cut off and changes nothing before it.

use controller::run::journal::parse;
use std::path::Path;

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let Ok(chain) = parse(bytes, Path::new("journal.jsonl")) else { return };
    assert!(chain.torn <= bytes.len());
    let whole = &bytes[..bytes.len() - chain.torn];
    let again = parse(whole, Path::new("journal.jsonl")).expect("whole lines stay readable");
    assert_eq!((again.torn, &again.events, &again.head), (0, &chain.events, &chain.head));
}
