//! Unpacking an archive as [`super::archive`] makes it.

use super::{Context, Done, Result, Trouble};
use crate::{digest, durable};
use flate2::bufread::DeflateDecoder;
use std::fs::{self, File, FileTimes};
use std::io::{self, BufRead, BufReader, Seek};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The length of the head of a gzip file without a name (RFC 1952, 2.3), as [`super::gzip`] writes it.
const HEAD: usize = 10;

pub(crate) fn run(archive: &str, sha256: &str, dest: &str, context: &mut Context<'_>) -> Result {
    let dest = Path::new(dest);
    if fs::symlink_metadata(dest).is_ok() {
        return Err(format!("cannot unpack {archive} as {}: it exists already and is not replaced", dest.display()).into());
    }
    let cannot = |e: &dyn std::fmt::Display| Trouble::from(format!("cannot unpack {archive} as {}: {e}", dest.display()));
    let mut file = digest::open(Path::new(archive)).map_err(|e| cannot(&e))?;
    let (seen, _) = digest::of_open(&mut file, &mut |_| context.go_on())?.map_err(|e| cannot(&e))?;
    if seen != sha256 {
        return Err(
            format!("{archive} is not what the run made: expected SHA-256 {sha256}, seen {seen}; nothing was unpacked").into()
        );
    }
    file.rewind().map_err(|e| cannot(&e))?;
    let part = durable::beside(dest, ".unpacking");
    match fs::remove_dir_all(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(&e)),
        _ => {}
    }
    durable::private_dir(&part).map_err(|e| cannot(&e))?;
    let entries = unpack(BufReader::new(file), &part, dest, context)?;
    // The archive's one directory takes its place when all of it is durable.
    let tree = fs::read_dir(&part).map_err(|e| cannot(&e))?.next().transpose().map_err(|e| cannot(&e))?;
    let tree = tree.ok_or_else(|| cannot(&"the archive is empty"))?;
    File::open(&part).and_then(|dir| Ok(rustix::fs::syncfs(dir)?)).map_err(|e| cannot(&e))?;
    fs::rename(tree.path(), dest).map_err(|e| cannot(&e))?;
    fs::remove_dir(&part).and_then(|()| durable::sync_dir(durable::parent(dest))).map_err(|e| cannot(&e))?;
    context.note(&format!("unpacked {entries} entries of {archive} as {}", dest.display()));
    Ok(Done::default())
}

/// Unpacks everything below `part`. Directories get their modes and times last: one that is closed or has its time could not be filled.
fn unpack(mut file: impl BufRead, part: &Path, dest: &Path, context: &mut Context<'_>) -> std::result::Result<u64, Trouble> {
    let cannot = |e: &dyn std::fmt::Display| Trouble::from(format!("cannot unpack to {}: {e}", dest.display()));
    let mut head = [0; HEAD];
    file.read_exact(&mut head).map_err(|e| cannot(&e))?;
    if !head.starts_with(&[0x1f, 0x8b, 8, 0]) {
        return Err(cannot(&"it is no archive of Caravan's"));
    }
    let mut archive = tar::Archive::new(DeflateDecoder::new(file));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let (mut dirs, mut entries, mut root) = (Vec::new(), 0, None::<PathBuf>);
    for entry in archive.entries().map_err(|e| cannot(&e))? {
        context.go_on()?;
        let mut entry = entry.map_err(|e| cannot(&e))?;
        let path = entry.path().map_err(|e| cannot(&e))?.into_owned();
        let first = path.components().next().map(|part| PathBuf::from(part.as_os_str())).unwrap_or_default();
        if !path.components().all(|part| matches!(part, Component::Normal(_))) || *root.get_or_insert(first.clone()) != first {
            return Err(cannot(&format!("{} lies outside the archive's own directory", path.display())));
        }
        entries += 1;
        if entry.header().entry_type().is_dir() {
            fs::create_dir(part.join(&path)).map_err(|e| cannot(&e))?;
            dirs.push(entry);
        } else if !entry.unpack_in(part).map_err(|e| cannot(&e))? {
            return Err(cannot(&format!("{} cannot be unpacked", path.display())));
        }
    }
    for mut dir in dirs.into_iter().rev() {
        dir.unpack_in(part).map_err(|e| cannot(&e))?;
        // The library leaves the times of directories alone.
        let path = dir.path().map(|path| part.join(path)).map_err(|e| cannot(&e))?;
        // One from before 1970 is stored as a time that no clock will show; a directory that cannot be opened keeps its new one as well.
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(dir.header().mtime().map_err(|e| cannot(&e))?));
        if let (Some(time), Ok(dir)) = (time, File::open(path)) {
            dir.set_times(FileTimes::new().set_modified(time)).map_err(|e| cannot(&e))?;
        }
    }
    Ok(entries)
}
