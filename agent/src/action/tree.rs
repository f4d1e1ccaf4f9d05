//! Moving and copying directories.

use super::{Context, Done, Result, Trouble};
use crate::{durable, pattern};
use rustix::fs::{CWD, RenameFlags};
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Renames a directory; never onto something that is there.
pub(crate) fn move_tree(from: &str, to: &str, context: &mut Context<'_>) -> Result {
    let exists = |path: &str| fs::symlink_metadata(path).is_ok();
    if !exists(from) {
        let hint = if exists(to) { format!("; {to} exists: was it moved before?") } else { String::new() };
        return Err(format!("expected {from}, which does not exist{hint}").into());
    }
    if exists(to) {
        return Err(format!("cannot move {from} to {to}: {to} exists already and is not replaced").into());
    }
    let moved = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Before Linux 3.15, and on file systems without it: it was looked at just now.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => rustix::fs::rename(from, to),
        result => result,
    };
    moved.map_err(|e| match e {
        rustix::io::Errno::XDEV => {
            format!("cannot move {from} to {to}: they are on different file systems; give a place on the same one")
        }
        rustix::io::Errno::EXIST => format!("cannot move {from} to {to}: {to} exists already and is not replaced"),
        e => format!("cannot move {from} to {to}: {e}"),
    })?;
    for dir in [durable::parent(Path::new(from)), durable::parent(Path::new(to))] {
        durable::sync_dir(dir).map_err(|e| format!("moved {from} to {to}, but cannot make it durable: {e}"))?;
    }
    context.note(&format!("moved {from} to {to}"));
    Ok(Done::default())
}

/// Copies what patterns select.
pub(crate) fn copy_tree(from: &str, to: &str, include: &[String], required: &[String], context: &mut Context<'_>) -> Result {
    let (from, to) = (Path::new(from), Path::new(to));
    if !from.is_dir() {
        return Err(format!("expected a directory {}, seen none", from.display()).into());
    }
    let failed = |path: &Path, e: io::Error| Trouble::from(format!("cannot copy {} to {}: {e}", path.display(), to.display()));
    for pattern in required {
        let found = select(from, std::slice::from_ref(pattern)).map_err(|e| failed(from, e))?;
        if !found.iter().any(|path| fs::symlink_metadata(from.join(path)).is_ok_and(|meta| !meta.is_dir())) {
            return Err(format!("expected at least one file {} below {}, seen none", pattern, from.display()).into());
        }
    }
    let mut copied = 0u64;
    let mut owners_lost = 0u64;
    let mut dirs = Vec::new();
    for path in select(from, include).map_err(|e| failed(from, e))? {
        context.go_on()?;
        make_dirs(from, to, durable::parent(&path), &mut dirs).map_err(|e| failed(&path, e))?;
        let meta = fs::symlink_metadata(from.join(&path)).map_err(|e| failed(&path, e))?;
        if meta.is_dir() {
            make_dirs(from, to, &path, &mut dirs).map_err(|e| failed(&path, e))?;
        } else if meta.is_file() || meta.is_symlink() {
            let kept = copy_one(&from.join(&path), &to.join(&path), &meta).map_err(|e| failed(&path, e))?;
            copied += 1;
            owners_lost += u64::from(!kept);
        } else {
            context.note(&format!("left out {}: neither file nor link", path.display()));
        }
    }
    // Directories last, and the deepest first: what was put into them has changed their times.
    for dir in dirs.iter().rev() {
        let meta = fs::metadata(from.join(dir)).map_err(|e| failed(dir, e))?;
        let target = to.join(dir);
        owners_lost += u64::from(!keep_owner(&target, &meta).map_err(|e| failed(dir, e))?);
        fs::set_permissions(&target, fs::Permissions::from_mode(meta.mode() & 0o7777)).map_err(|e| failed(dir, e))?;
        File::open(&target).and_then(|file| file.set_times(times(&meta))).map_err(|e| failed(dir, e))?;
    }
    if to.exists() {
        File::open(to).and_then(|dir| Ok(rustix::fs::syncfs(dir)?)).map_err(|e| failed(to, e))?;
    }
    context.note(&format!("copied {copied} files from {} to {}", from.display(), to.display()));
    if owners_lost > 0 {
        context.note(&format!("{owners_lost} of them belong to another account now: only root can give files away"));
    }
    Ok(Done::default())
}

/// What patterns select below a directory, as relative paths in order. A directory is selected by `**` only.
pub(crate) fn select(from: &Path, patterns: &[String]) -> io::Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let segments: Vec<&str> = pattern.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.contains(&"..") {
            return Err(io::Error::other(format!("the pattern {pattern} leads out of the directory")));
        }
        walk(from, Path::new(""), &segments, &mut found)?;
    }
    Ok(found.into_iter().collect())
}

fn walk(from: &Path, at: &Path, segments: &[&str], found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let Some((segment, rest)) = segments.split_first() else { return Ok(()) };
    let everything = *segment == "**" && rest.is_empty();
    let entries = match fs::read_dir(from.join(at)) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if !everything && !pattern::matches(segment.as_bytes(), entry.file_name().as_encoded_bytes()) {
            continue;
        }
        let path = at.join(entry.file_name());
        let is_dir = entry.file_type()?.is_dir();
        if is_dir {
            walk(from, &path, if everything { segments } else { rest }, found)?;
        }
        if everything || (rest.is_empty() && !is_dir) {
            found.insert(path);
        }
    }
    Ok(())
}

/// Makes the directories that lead to a file, and remembers those that it made, the ones above first.
fn make_dirs(from: &Path, to: &Path, relative: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    if !to.is_dir() {
        fs::create_dir_all(to)?;
    }
    let mut dir = PathBuf::new();
    for segment in relative {
        dir.push(segment);
        if !to.join(&dir).is_dir() {
            fs::create_dir(to.join(&dir))?;
            if from.join(&dir).is_dir() {
                made.push(dir.clone());
            }
        }
    }
    Ok(())
}

/// Copies a file or link under another name and renames it. False when its owner could not be kept.
fn copy_one(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<bool> {
    let new = durable::beside(to, ".caravan-new");
    let _ = fs::remove_file(&new);
    let copied = (|| {
        if meta.is_symlink() {
            symlink(fs::read_link(from)?, &new)?;
            let kept = keep_owner(&new, meta)?;
            fs::rename(&new, to)?;
            return Ok(kept);
        }
        let mut source = File::open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        io::copy(&mut source, &mut target)?;
        let kept = keep_owner(&new, meta)?;
        // After the owner: giving a file away clears bits of its mode.
        target.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        target.set_times(times(meta))?;
        fs::rename(&new, to)?;
        Ok(kept)
    })();
    if copied.is_err() {
        let _ = fs::remove_file(&new);
    }
    copied
}

/// Gives something the owner that it had. Only root can do that; for others it stays with them, and that is said.
fn keep_owner(path: &Path, meta: &fs::Metadata) -> io::Result<bool> {
    let own = fs::symlink_metadata(path)?;
    if (own.uid(), own.gid()) == (meta.uid(), meta.gid()) {
        return Ok(true);
    }
    match lchown(path, Some(meta.uid()), Some(meta.gid())) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(e) => Err(e),
    }
}

fn times(meta: &fs::Metadata) -> FileTimes {
    let mut times = FileTimes::new();
    if let Ok(accessed) = meta.accessed() {
        times = times.set_accessed(accessed);
    }
    if let Ok(modified) = meta.modified() {
        times = times.set_modified(modified);
    }
    times
}
