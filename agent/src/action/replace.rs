//! Putting one text in the place of another, in all of some files or in none of them.

use super::edit::replace;
use super::{Context, Done, Result};
use crate::{durable, pattern};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// The largest file: shell and web server configuration is a few KiB.
const MAX_BYTES: u64 = 4 << 20;

/// What there is to do about one file.
#[derive(Debug)]
pub(crate) enum Place {
    /// Nothing.
    Done,
    /// A file gets this content.
    File(Vec<u8>),
    /// A link gets this place to lead to.
    Link(Vec<u8>),
    /// The file has both texts.
    Both,
    /// A link that names neither text and leads to a file that has the first, with the place that it leads to.
    Elsewhere(String),
}

/// The files that exist, and what there is to do about each of them.
///
/// # Errors
/// One of them cannot be read, or is neither a file nor a link; the text names it.
pub(crate) fn places(files: &[String], from: &str, to: &str) -> std::result::Result<Vec<(PathBuf, Place)>, String> {
    if from.is_empty() || from == to {
        return Err("a text can be replaced only by another one".to_owned());
    }
    let mut found = Vec::new();
    for file in files {
        for path in pattern::files(file).map_err(|e| format!("cannot look for {file}: {e}"))? {
            match place(&path, from.as_bytes(), to.as_bytes()) {
                Ok(Some(place)) => found.push((path, place)),
                Ok(None) => {}
                Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
            }
        }
    }
    Ok(found)
}

/// Carries the replacement out.
pub(crate) fn run(files: &[String], from: &str, to: &str, context: &mut Context<'_>) -> Result {
    let found = places(files, from, to)?;
    if found.is_empty() {
        return Err(format!("expected at least one of {}, seen none", files.join(", ")).into());
    }
    // All of them are looked at first: one that is refused leaves the others as they were.
    for (path, place) in &found {
        let name = path.display();
        match place {
            Place::Both => {
                return Err(
                    format!("{name} has both `{from}` and `{to}`: change it by hand, for it could not be turned back").into()
                );
            }
            Place::Elsewhere(link) => {
                return Err(format!("{name} is a link to {link}: change that by hand, links are not followed").into());
            }
            Place::Done | Place::File(_) | Place::Link(_) => {}
        }
    }
    for (path, place) in found {
        let name = path.display().to_string();
        let written = match place {
            Place::File(bytes) => replace(&path, &bytes),
            Place::Link(target) => relink(&path, &target),
            _ => {
                context.note(&format!("{name} is as it should be"));
                continue;
            }
        };
        written.map_err(|e| format!("cannot write {name}: {e}"))?;
        context.note(&format!("replaced `{from}` by `{to}` in {name}"));
    }
    Ok(Done::default())
}

fn place(path: &Path, from: &[u8], to: &[u8]) -> io::Result<Option<Place>> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        meta => meta?,
    };
    if meta.is_symlink() {
        let link = fs::read_link(path)?;
        let bytes = link.as_os_str().as_bytes();
        return Ok(Some(match (contains(bytes, from), contains(bytes, to)) {
            (true, true) => Place::Both,
            (true, false) => Place::Link(exchange(bytes, from, to)),
            (false, true) => Place::Done,
            (false, false) if behind(path, from)? => Place::Elsewhere(link.display().to_string()),
            (false, false) => Place::Done,
        }));
    }
    if !meta.is_file() {
        return Err(io::Error::other("neither a file nor a link"));
    }
    if meta.len() > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    let bytes = fs::read(path)?;
    Ok(Some(match (contains(&bytes, from), contains(&bytes, to)) {
        (true, true) => Place::Both,
        (true, false) => Place::File(exchange(&bytes, from, to)),
        (false, _) => Place::Done,
    }))
}

/// Whether the file that a link leads to has a text. A link that leads nowhere has none.
fn behind(path: &Path, text: &[u8]) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
        Ok(meta) if meta.is_file() && meta.len() <= MAX_BYTES => Ok(contains(&fs::read(path)?, text)),
        Ok(_) => Ok(false),
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn exchange(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        match rest.strip_prefix(from) {
            Some(after) => {
                out.extend_from_slice(to);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    out
}

/// Puts a link in the place of another, with the same owner.
fn relink(path: &Path, target: &[u8]) -> io::Result<()> {
    let old = fs::symlink_metadata(path)?;
    let new = durable::beside(path, ".caravan-new");
    let _ = fs::remove_file(&new);
    symlink(std::ffi::OsStr::from_bytes(target), &new)?;
    let placed = (|| {
        let own = fs::symlink_metadata(&new)?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            lchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        fs::rename(&new, path)
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed?;
    durable::sync_dir(durable::parent(path))
}
