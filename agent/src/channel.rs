//! Frames over file descriptors. A reader that is gone is a fact to be noticed, never a reason to die.

use proto::frame::{DATA_CHUNK, Decoder, Frame, FrameError};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much is read at once: a file comes in long runs of frames, and each reading wakes a process.
const READ: usize = 128 * 1024;

/// The writing end of a conversation, shared by threads. Each frame is written whole.
#[derive(Debug)]
pub(crate) struct Output<W> {
    writer: Mutex<W>,
    gone: AtomicBool,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer: Mutex::new(writer), gone: AtomicBool::new(false) }
    }

    /// Writes bytes as they are. False when nobody reads any more.
    pub(crate) fn raw(&self, bytes: &[u8]) -> bool {
        if self.gone.load(Ordering::Relaxed) {
            return false;
        }
        let Ok(mut writer) = self.writer.lock() else { return false };
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        if written.is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
        written.is_ok()
    }

    pub(crate) fn frame(&self, frame: &Frame) -> bool {
        self.raw(&frame.encode())
    }

    /// Sends a message. One that is too large for a frame becomes an error for the caller to put in other words.
    pub(crate) fn message<T: Serialize>(&self, message: &T) -> Result<bool, FrameError> {
        Ok(self.frame(&Frame::message(message)?))
    }

    /// Sends bytes of a stream, in pieces of a sensible size.
    pub(crate) fn data(&self, stream: u32, mut offset: u64, bytes: &[u8]) -> bool {
        bytes.chunks(DATA_CHUNK).all(|piece| {
            let frame = Frame::Data { stream, offset, bytes: piece.to_vec() };
            offset += piece.len() as u64;
            self.frame(&frame)
        })
    }
}

/// The reading end of a conversation.
#[derive(Debug)]
pub(crate) struct Input<R> {
    reader: R,
    decoder: Decoder,
}

/// Why there is no further frame.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The other side ended.
    End,
    /// What came is not this protocol; nothing after it can be trusted.
    Garbage(FrameError),
}

impl<R: Read> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, decoder: Decoder::new() }
    }

    /// The next frames: waits for one, and adds those that are there already.
    pub(crate) fn next_ones(&mut self) -> Result<Vec<Frame>, Stopped> {
        let mut frames = vec![self.next()?];
        // Garbage behind good frames is met again at the next call.
        while let Ok(Some(frame)) = self.decoder.next_frame() {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The next frame; waits for it.
    pub(crate) fn next(&mut self) -> Result<Frame, Stopped> {
        loop {
            if let Some(frame) = self.there()? {
                return Ok(frame.to_owned());
            }
            self.read()?;
        }
    }

    /// The next frame that is there already.
    pub(crate) fn there(&mut self) -> Result<Option<Frame<&[u8]>>, Stopped> {
        self.decoder.next_borrowed().map_err(Stopped::Garbage)
    }

    /// Waits for more bytes.
    pub(crate) fn read(&mut self) -> Result<(), Stopped> {
        loop {
            match self.reader.read(self.decoder.room(READ)) {
                Ok(0) => return Err(Stopped::End),
                Ok(read) => {
                    self.decoder.arrived(read);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A connection that breaks is over, however it broke.
                Err(_) => return Err(Stopped::End),
            }
        }
    }
}
