//! Frames: length-prefixed, typed, bounded.
//!
//! ```text
//! u32 length (big endian) of what follows | u8 kind | payload
//! ```
//!
//! Kind 1 is a control frame: one JSON message. Kind 2 is a data frame: `u32` stream, `u64` offset (both big endian), bytes.
//! An agent begins its output with [`MAGIC`], so that the controller can skip what login shells print before it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an agent writes before its first frame.
pub const MAGIC: &[u8] = b"\x01caravan-agent\x01\n";
/// How much a login shell may print before [`MAGIC`].
pub const NOISE_LIMIT: usize = 64 * 1024;
/// The largest length a frame may claim. A plan's grant is the largest message; it stays far below.
pub const FRAME_LIMIT: usize = 8 * 1024 * 1024;
/// The most bytes that one data frame should carry: with what stands before them, one packet of OpenSSH (32 KiB). Some bytes more would
/// be a packet of their own each time, which costs the server as much as a full one.
pub const DATA_CHUNK: usize = 32 * 1024 - FRAME_HEADER - DATA_HEADER;

/// The bit that the streams of steps' output have, so that they never meet the numbers that a controller chooses.
pub const OUTPUT: u32 = 1 << 31;
/// The bit that the numbers have which a controller gives to pieces of a file that it fetches.
pub const FETCHED: u32 = 1 << 30;

/// Whether a stream is of pieces of a file that is fetched.
pub fn is_fetched(stream: u32) -> bool {
    stream & (OUTPUT | FETCHED) == FETCHED
}

/// The longest piece of a file that can be fetched at once.
pub const FETCH_LIMIT: u32 = 128 * 1024;

const CONTROL: u8 = 1;
const DATA: u8 = 2;
/// Stream and offset.
const DATA_HEADER: usize = 12;
/// Length and kind.
const FRAME_HEADER: usize = 5;

/// One frame, with bytes of its own, or with those of whoever has them. Its `Debug` form says how long it is and shows no content, which
/// may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame<B = Vec<u8>> {
    /// A JSON message.
    Control(B),
    /// A piece of a stream.
    Data {
        /// Which stream.
        stream: u32,
        /// Where in the stream it stands.
        offset: u64,
        /// The bytes.
        bytes: B,
    },
}

/// The bytes are not frames of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame claims to be larger than [`FRAME_LIMIT`].
    #[error("a frame claims {0} bytes, more than the limit of {FRAME_LIMIT}")]
    TooLarge(u64),
    /// A frame's kind is not known.
    #[error("a frame has the unknown kind {0}")]
    UnknownKind(u8),
    /// A frame is shorter than its kind needs.
    #[error("a frame of {0} bytes is too short")]
    TooShort(usize),
    /// A message is not what the protocol says.
    #[error("a message cannot be understood: {0}")]
    BadMessage(String),
}

impl<B: AsRef<[u8]>> std::fmt::Debug for Frame<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control(bytes) => write!(f, "Control({} bytes)", bytes.as_ref().len()),
            Self::Data { stream, offset, bytes } => {
                write!(f, "Data({} bytes of stream {stream} at {offset})", bytes.as_ref().len())
            }
        }
    }
}

impl Frame {
    /// Encodes a message as a control frame.
    ///
    /// # Errors
    /// [`FrameError::BadMessage`] when it cannot be written as JSON, [`FrameError::TooLarge`] when it is over [`FRAME_LIMIT`].
    pub fn message<T: Serialize>(message: &T) -> Result<Self, FrameError> {
        let bytes = serde_json::to_vec(message).map_err(|e| FrameError::BadMessage(e.to_string()))?;
        if bytes.len() >= FRAME_LIMIT {
            return Err(FrameError::TooLarge(bytes.len() as u64));
        }
        Ok(Self::Control(bytes))
    }
}

impl Frame<&[u8]> {
    /// The same with bytes of its own.
    pub fn to_owned(&self) -> Frame {
        match *self {
            Self::Control(bytes) => Frame::Control(bytes.to_vec()),
            Self::Data { stream, offset, bytes } => Frame::Data { stream, offset, bytes: bytes.to_vec() },
        }
    }
}

impl<B: AsRef<[u8]>> Frame<B> {
    /// Appends the frame's bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(bytes) => {
                let bytes = bytes.as_ref();
                out.reserve(FRAME_HEADER + bytes.len());
                out.extend_from_slice(&(bytes.len() as u32 + 1).to_be_bytes());
                out.push(CONTROL);
                out.extend_from_slice(bytes);
            }
            Self::Data { stream, offset, bytes } => {
                let bytes = bytes.as_ref();
                out.reserve(FRAME_HEADER + DATA_HEADER + bytes.len());
                out.extend_from_slice(&((bytes.len() + DATA_HEADER) as u32 + 1).to_be_bytes());
                out.push(DATA);
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }
}

/// Reads a message out of a control frame's payload.
///
/// # Errors
/// [`FrameError::BadMessage`] when it is not a `T`.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|e| FrameError::BadMessage(e.to_string()))
}

/// Turns bytes, in whatever pieces they arrive, into frames. Pure: it reads nothing itself.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were already handed out.
    used: usize,
    /// Bytes of `buffer` that arrived; what is behind them is room.
    arrived: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.arrived(bytes.len());
    }

    /// Room to read into, for at least so many bytes. [`Decoder::arrived`] says how many of them came.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        if self.used > 0 && self.buffer.len() - self.arrived < least {
            self.buffer.copy_within(self.used..self.arrived, 0);
            self.arrived -= self.used;
            self.used = 0;
        }
        if self.buffer.len() - self.arrived < least {
            self.buffer.resize(self.arrived + least, 0);
        }
        self.buffer.get_mut(self.arrived..).unwrap_or_default()
    }

    /// So many bytes were put at the start of [`Decoder::room`].
    pub fn arrived(&mut self, bytes: usize) {
        self.arrived = (self.arrived + bytes).min(self.buffer.len());
    }

    /// The next whole frame, if one has arrived.
    ///
    /// # Errors
    /// The stream is not this protocol; nothing after an error can be trusted.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        Ok(self.next_borrowed()?.map(|frame| frame.to_owned()))
    }

    /// As [`Decoder::next_frame`], with bytes that stay here.
    ///
    /// # Errors
    /// As there.
    pub fn next_borrowed(&mut self) -> Result<Option<Frame<&[u8]>>, FrameError> {
        let rest = self.buffer.get(self.used..self.arrived).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_LIMIT {
            return Err(FrameError::TooLarge(length as u64));
        }
        if length == 0 {
            return Err(FrameError::TooShort(0));
        }
        let Some((kind, _)) = rest.split_first() else { return Ok(None) };
        if *kind != CONTROL && *kind != DATA {
            return Err(FrameError::UnknownKind(*kind));
        }
        let Some(body) = rest.get(1..length) else { return Ok(None) };
        let frame = if *kind == CONTROL {
            Frame::Control(body)
        } else {
            let Some((stream, body)) = body.split_first_chunk::<4>() else { return Err(FrameError::TooShort(length)) };
            let Some((offset, bytes)) = body.split_first_chunk::<8>() else { return Err(FrameError::TooShort(length)) };
            Frame::Data { stream: u32::from_be_bytes(*stream), offset: u64::from_be_bytes(*offset), bytes }
        };
        // Only now: what is wrong is met again at every call.
        self.used += 4 + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        let frame = prop_oneof![
            bytes.clone().prop_map(Frame::Control),
            (any::<u32>(), any::<u64>(), bytes).prop_map(|(stream, offset, bytes)| Frame::Data { stream, offset, bytes }),
        ];
        proptest::collection::vec(frame, 0..8)
    }

    #[test]
    fn a_data_frame_fills_a_packet() {
        let frame = Frame::Data { stream: 1, offset: 0, bytes: vec![0; DATA_CHUNK] };
        assert_eq!(frame.encode().len(), 32 * 1024);
    }

    proptest! {
        #[test]
        fn frames_survive_any_fragmentation(frames in frames(), cut in 1usize..50) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|f| f.encode_into(&mut bytes));
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn garbage_is_an_error_or_incomplete_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                if let Frame::Control(payload) = frame {
                    let _ = parse::<crate::ToAgent>(&payload);
                    let _ = parse::<crate::FromAgent>(&payload);
                }
            }
        }
    }

    #[test]
    fn nothing_comes_after_an_error() {
        let short = [0, 0, 0, 5, DATA, 0, 0, 0, 1];
        let mut decoder = Decoder::new();
        decoder.push(&[&short[..], &Frame::Control(b"{}".to_vec()).encode()].concat());
        for _ in 0..2 {
            assert_eq!(decoder.next_frame(), Err(FrameError::TooShort(5)));
        }
    }

    #[test]
    fn a_huge_claim_is_refused_before_anything_is_kept() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge(u64::from(u32::MAX))));
    }
}
