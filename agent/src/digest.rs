//! SHA-256 and keyed fingerprints, as lower-case hex.

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Lower-case hex, as `sha256sum` prints it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// The digest of a whole file, read in pieces.
pub(crate) fn of_file(path: &Path) -> io::Result<String> {
    of_rest(&mut File::open(path)?)
}

/// The digest of what is left of a file.
pub(crate) fn of_rest(file: &mut File) -> io::Result<String> {
    match of_open(file, &mut |_| Ok::<(), std::convert::Infallible>(())) {
        Ok(read) => read.map(|(digest, _)| digest),
        Err(never) => match never {},
    }
}

/// Digest and length of what is left of a file. `each` sees every piece, and can end the reading.
pub(crate) fn of_open<E>(
    file: &mut impl Read,
    each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<io::Result<(String, u64)>, E> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => return Ok(Ok((hex(&hash.finalize()), length))),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(Err(e)),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        hash.update(bytes);
        length += read as u64;
        each(bytes)?;
    }
}

/// Opens a file that root reads in a directory that belongs to others: a link that somebody put in its place is not followed, and what
/// is no file is not read.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

/// As [`open`], of a file of our own: nobody else's under this name, and under no other name either.
pub(crate) fn open_own(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    own(&file)?;
    Ok(file)
}

/// Opens a file to add to it, which has to be ours alone: it may be in a directory of others. With `create` it is made where it is missing.
pub(crate) fn open_part(path: &Path, create: bool) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().write(true).create(create).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    own(&file)?;
    Ok(file)
}

/// Fails where a file is not ours alone.
fn own(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    let ours = meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.nlink() == 1;
    if ours { Ok(()) } else { Err(io::Error::other("it is somebody else's by now")) }
}

/// The digest that the `.sha256` file beside another one says; `None` where there is none.
pub(crate) fn recorded(checksum_file: &Path) -> io::Result<Option<String>> {
    let file = match open(checksum_file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text)?;
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(Some(word.to_owned())) } else { Err(io::Error::other("it holds no SHA-256")) }
}

/// HMAC-SHA-256 (RFC 2104) of a value under a key given as hex. `None` when the key is not hex.
pub(crate) fn keyed(key_hex: &str, value: &[u8]) -> Option<String> {
    let key = Zeroizing::new(unhex(key_hex)?);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(value);
    Some(hex(&mac.finalize().into_bytes()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    Some(digits?.chunks_exact(2).map(|pair| pair.iter().fold(0u8, |byte, digit| (byte << 4) | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn fingerprints_are_hmac_sha_256() {
        assert_eq!(
            keyed(&hex(b"Jefe"), b"what do ya want for nothing?").as_deref(),
            Some("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(keyed("xyz", b""), None);
        assert_eq!(keyed("", b""), None);
    }
}
