//! The frame that makes a deflated stream a gzip file (RFC 1952).
//!
//! `flate2` has one as well, but with it come 16 KiB of CRC tables, which no compression makes smaller on the way to a host.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::{self, Write};

/// Magic, deflate, no flags, no time, no hint on the level, made on Unix (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// Compresses what is written to it.
pub(super) struct Gzip<W: Write> {
    deflate: DeflateEncoder<W>,
    table: [u32; 256],
    crc: u32,
    /// Of the content, modulo 2^32.
    length: u32,
}

impl<W: Write> Gzip<W> {
    /// Begins a file.
    pub(super) fn new(mut writer: W, level: Compression) -> io::Result<Self> {
        writer.write_all(&HEADER)?;
        Ok(Self { deflate: DeflateEncoder::new(writer, level), table: table(), crc: u32::MAX, length: 0 })
    }

    /// Ends the file.
    pub(super) fn finish(self) -> io::Result<W> {
        let mut writer = self.deflate.finish()?;
        writer.write_all(&(!self.crc).to_le_bytes())?;
        writer.write_all(&self.length.to_le_bytes())?;
        Ok(writer)
    }
}

/// The remainders of all bytes (RFC 1952, 8).
fn table() -> [u32; 256] {
    let mut table = [0; 256];
    for (entry, byte) in table.iter_mut().zip(0u32..) {
        *entry = (0..8).fold(byte, |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 });
    }
    table
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.deflate.write(bytes)?;
        for byte in bytes.iter().take(written) {
            let index = usize::from((self.crc as u8) ^ byte);
            self.crc = self.table.get(index).copied().unwrap_or_default() ^ (self.crc >> 8);
        }
        self.length = self.length.wrapping_add(written as u32);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.deflate.flush()
    }
}
