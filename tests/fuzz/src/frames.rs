//! Any bytes as a stream of frames, in any pieces: the same frames or the same error, however the bytes arrive.

use proto::{Decoder, Frame, FrameError};

fn decode(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                // Nothing after an error can be trusted: nothing after it is read.
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let whole = decode(rest, rest.len().max(1));
    assert_eq!(whole, decode(rest, usize::from(*first) + 1));
    let mut again = Vec::new();
    whole.0.iter().for_each(|frame| frame.encode_into(&mut again));
    assert!(rest.starts_with(&again), "what was decoded is not what was sent");
}
