//! Editing XML files: all edits of a file or none, every other byte kept.

use super::{Context, Done, Result};
use crate::{durable, pattern, xml};
use proto::step::XmlEdit;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(crate) fn run(file: &str, edits: &[XmlEdit], context: &mut Context<'_>) -> Result {
    let files = pattern::files(file).map_err(|e| format!("cannot look for {file}: {e}"))?;
    if files.is_empty() {
        return Err(format!("expected a file {file}, seen none").into());
    }
    // Read and edit everything first: one bad file leaves all of them as they were.
    let mut changed = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let path = fs::canonicalize(&path).map_err(|e| format!("cannot read {name}: {e}"))?;
        let before = Zeroizing::new(fs::read(&path).map_err(|e| format!("cannot read {name}: {e}"))?);
        let mut other = |other: &str| {
            let other = counterpart(other, &path);
            fs::read(&other).map_err(|e| format!("cannot take values from {}: {e}", other.display()))
        };
        let after = Zeroizing::new(xml::edit(&before, edits, &mut other).map_err(|e| format!("{name} {e}"))?);
        if after == before {
            context.note(&format!("{name} is as it should be"));
        } else {
            changed.push((name, path, after));
        }
    }
    for (name, path, after) in changed {
        replace(&path, &after).map_err(|e| format!("cannot write {name}: {e}"))?;
        context.note(&format!("edited {name}"));
    }
    Ok(Done::default())
}

/// The other file of an edit. Where its name is a pattern, it is the one that is called like the file being edited.
pub(crate) fn counterpart(other: &str, path: &Path) -> PathBuf {
    if pattern::is_pattern(other) {
        Path::new(other).with_file_name(path.file_name().unwrap_or_default())
    } else {
        PathBuf::from(other)
    }
}

/// Puts a file in the place of another, whole, with the same mode and owner.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let new = durable::beside(path, ".caravan-new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = (|| {
        file.write_all(bytes)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    durable::sync_dir(durable::parent(path))
}
