//! A gzipped tar archive of a directory, with a file beside it that `sha256sum -c` understands.

use super::checksum::write_beside;
use super::gzip::Gzip;
use super::{Context, Done, Result, Trouble};
use crate::{digest, durable};
use flate2::Compression;
use proto::message::Made;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Installations are large and hosts slow: light compression is nearly as small, and several times as fast.
const LEVEL: Compression = Compression::new(3);

pub(crate) fn run(source: &str, dest: &str, context: &mut Context<'_>) -> Result {
    let (source, dest) = (Path::new(source), Path::new(dest));
    if !source.is_dir() {
        return Err(format!("expected a directory {}, seen none", source.display()).into());
    }
    let part = durable::beside(dest, ".part");
    let written = write(source, &part, context);
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    let (digest, entries) = written?;
    let finished = (|| {
        fs::rename(&part, dest)?;
        write_beside(dest, &digest)
    })();
    finished.map_err(|e: io::Error| format!("cannot put {} in place: {e}", dest.display()))?;
    let size = fs::metadata(dest).map(|meta| meta.len()).unwrap_or(0);
    context.note(&format!("archived {entries} entries of {} in {} ({size} bytes)", source.display(), dest.display()));
    Ok(Done { made: vec![Made { file: dest.display().to_string(), size, sha256: digest }], ..Done::default() })
}

/// Where the digest of an archive is.
pub(crate) fn checksum_file(archive: &Path) -> PathBuf {
    durable::beside(archive, ".sha256")
}

/// Writes the archive durably under another name; its digest, and how many entries it has.
fn write(source: &Path, part: &Path, context: &mut Context<'_>) -> std::result::Result<(String, u64), Trouble> {
    let cannot = |e: io::Error| Trouble::from(format!("cannot archive {} to {}: {e}", source.display(), part.display()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part).map_err(cannot)?;
    let mut archive = tar::Builder::new(Gzip::new(Hashing { file, hash: Sha256::new() }, LEVEL).map_err(cannot)?);
    archive.follow_symlinks(false);
    archive.sparse(false);
    let name = source.file_name().unwrap_or_default();
    let mut entries = 0;
    let mut open = vec![(source.to_owned(), PathBuf::from(name))];
    while let Some((path, name)) = open.pop() {
        context.go_on()?;
        let at = |e: io::Error| Trouble::from(format!("cannot archive {}: {e}", path.display()));
        let kind = fs::symlink_metadata(&path).map_err(at)?.file_type();
        if kind.is_socket() {
            context.note(&format!("left out {}: a socket cannot be archived", path.display()));
            continue;
        }
        archive.append_path_with_name(&path, &name).map_err(at)?;
        entries += 1;
        if kind.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(at)?;
            below.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            open.extend(below.into_iter().map(|entry| (entry.path(), name.join(entry.file_name()))));
        }
    }
    let Hashing { file, hash } = archive.into_inner().and_then(Gzip::finish).map_err(cannot)?;
    file.sync_all().map_err(cannot)?;
    Ok((digest::hex(&hash.finalize()), entries))
}

/// Hashes what goes to disk on its way.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
