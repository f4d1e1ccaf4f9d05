//! Any output with any secrets in it, in any pieces: the same masked bytes however it is cut, and no secret in them.
//! The first byte says how the output is cut, the second how many secrets there are, a line each; the rest is the output. Each secret is
//! also put behind it, in the middle of itself and of its own beginning.

use agent::mask::Mask;
use proto::Secret;

fn masked(secrets: &[Secret], output: &[u8], piece: usize) -> Vec<u8> {
    let mut mask = Mask::new(secrets);
    let mut shown = Vec::new();
    for piece in output.chunks(piece.max(1)) {
        mask.push(piece, &mut shown);
    }
    mask.finish(&mut shown);
    shown
}

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let [cut, count, rest @ ..] = bytes else { return };
    let mut lines: Vec<&[u8]> = rest.splitn(usize::from(count % 5) + 1, |byte| *byte == b'\n').collect();
    let output = lines.pop().unwrap_or_default();
    // A mask is made of asterisks: what it makes cannot be told from such a secret.
    let secrets: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).replace('*', "")).collect();
    let mut output = output.to_vec();
    for secret in secrets.iter().map(String::as_bytes) {
        output.extend_from_slice(&[secret, &secret[..secret.len() / 2], secret].concat());
    }
    let known: Vec<Secret> = secrets.iter().map(Secret::new).collect();
    let whole = masked(&known, &output, output.len());
    assert_eq!(whole, masked(&known, &output, usize::from(*cut) + 1), "cuts make a difference");
    assert_eq!(whole, masked(&known, &output, 1), "cuts make a difference");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(!whole.windows(secret.len()).any(|part| part == secret.as_bytes()), "a secret is shown");
    }
    if secrets.iter().all(String::is_empty) {
        assert_eq!(whole, output, "something was hidden that is no secret");
    }
}
