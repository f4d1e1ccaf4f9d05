//! What a server offered before anything was agreed on: its first bytes, which come in the clear, are kept until they were understood.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept: a server's own lists are two kilobytes, its lines before them are some more.
const KEPT: usize = 16 * 1024;
/// The message that says what a server has (RFC 4253, section 12).
const KEXINIT: u8 = 20;

/// The first bytes of a server.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(Mutex<Vec<u8>>);

/// Shared with the stream that they come from.
pub(super) type Heard = Arc<FirstBytes>;

impl FirstBytes {
    /// What came so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps more; false when it is enough.
    fn keep(&self, bytes: &[u8]) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        kept.len() < KEPT
    }
}

/// A stream whose first bytes are kept.
pub(super) struct Overheard<S> {
    stream: S,
    heard: Option<Heard>,
}

impl<S> Overheard<S> {
    pub(super) fn new(stream: S, heard: Heard) -> Self {
        Self { stream, heard: Some(heard) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(heard) = &self.heard
            && !heard.keep(buffer.filled().get(before..).unwrap_or_default())
        {
            self.heard = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The algorithms that a server has, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) kex: Vec<String>,
    pub(super) host_keys: Vec<String>,
    pub(super) ciphers: Vec<String>,
    pub(super) macs: Vec<String>,
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kex, host_keys, ciphers, macs } = self;
        let lists = [("key exchange", kex), ("host keys", host_keys), ("ciphers", ciphers), ("MACs", macs)];
        let text: Vec<String> = lists.iter().map(|(name, list)| format!("{name} {}", list.join(", "))).collect();
        f.write_str(&text.join("; "))
    }
}

/// Reads it from the first bytes of a server: lines, one of which begins with `SSH-`, and a packet. `None` where they are something else.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Offered> {
    loop {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = bytes.split_at_checked(end + 1)?;
        bytes = rest;
        if line.starts_with(b"SSH-") {
            break;
        }
    }
    // Length, padding length, type, cookie.
    let (_, payload) = bytes.split_at_checked(4)?;
    let (head, mut lists) = payload.split_at_checked(18)?;
    if head.get(1) != Some(&KEXINIT) {
        return None;
    }
    let mut list = || -> Option<Vec<String>> {
        let (length, rest) = lists.split_first_chunk::<4>()?;
        let (names, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        lists = rest;
        let names = std::str::from_utf8(names).ok()?.split(',').filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    };
    let (kex, host_keys, ciphers, _, macs) = (list()?, list()?, list()?, list()?, list()?);
    let kex = kex.into_iter().filter(|name| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-")).collect();
    Some(Offered { kex, host_keys, ciphers, macs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(lists: [&str; 10]) -> Vec<u8> {
        let mut bytes = [&[0, 0, 1, 0, 4, KEXINIT][..], &[7; 16]].concat();
        for list in lists {
            bytes.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
            bytes.extend(list.as_bytes());
        }
        bytes
    }

    #[test]
    fn lists_are_read_behind_a_banner() {
        let packet =
            packet(["a-sha1,kex-strict-s-v00@openssh.com", "ssh-rsa", "x-cbc,y", "x-cbc", "hmac", "hmac", "none", "none", "", ""]);
        let bytes = [b"Keep out!\r\nSSH-2.0-Old_5.3\r\n", &packet[..]].concat();
        let offered = parse(&bytes).unwrap();
        assert_eq!(offered.to_string(), "key exchange a-sha1; host keys ssh-rsa; ciphers x-cbc, y; MACs hmac");
        for end in 0..bytes.len() - 40 {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let _ = parse(&bytes);
            let _ = parse(&[b"SSH-2.0-x\n", &bytes[..]].concat());
            let mut packet = packet(["a", "b", "c", "d", "e", "f", "g", "h", "", ""]);
            if let Some(byte) = packet.get_mut(cut) { *byte = bytes.first().copied().unwrap_or(0xff) }
            let _ = parse(&[b"SSH-2.0-x\n", &packet[..]].concat());
        }
    }
}
