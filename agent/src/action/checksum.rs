//! The digest of a file that the run keeps as a backup, beside it.

use super::archive::checksum_file;
use super::{Context, Done, Result};
use crate::{digest, durable};
use proto::message::Made;
use std::io;
use std::path::Path;

pub(crate) fn run(file: &str, context: &mut Context<'_>) -> Result {
    let path = Path::new(file);
    let cannot = |what: &str, e: io::Error| format!("cannot {what} {file}: {e}");
    let (sha256, size) = digest::of_open(&mut digest::open(path).map_err(|e| cannot("read", e))?, &mut |_| context.go_on())?
        .map_err(|e| cannot("read", e))?;
    write_beside(path, &sha256).map_err(|e| cannot("write the digest of", e))?;
    context.note(&format!("{file}: {size} bytes, SHA-256 {sha256}"));
    Ok(Done { made: vec![Made { file: file.to_owned(), size, sha256 }], ..Done::default() })
}

/// Writes a line that `sha256sum -c` understands beside a file.
pub(super) fn write_beside(file: &Path, sha256: &str) -> io::Result<()> {
    let line = format!("{sha256}  {}\n", file.file_name().unwrap_or_default().to_string_lossy());
    durable::write(&checksum_file(file), line.as_bytes(), 0o600)
}
