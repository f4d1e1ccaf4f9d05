//! Files that are whole or not there, also after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Another name beside `path`, for a file that is renamed once it is whole.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Writes a file with exactly these permission bits under another name, makes it durable, renames it, and makes the name durable.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let whole = beside(path, ".tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&whole)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&whole, path)?;
    sync_dir(parent(path))
}

/// Creates a directory (and those above it) that only its owner can look into. Fine when it exists.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Lets others pass through a directory of ours that the umask of a bootstrap's session closed to them: they reach what they know the
/// name of, and cannot list it.
pub(crate) fn let_others_pass(dir: &Path) -> io::Result<()> {
    let meta = fs::metadata(dir)?;
    if meta.mode() & 0o077 == 0 && meta.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(dir, Permissions::from_mode(0o711))?;
    }
    Ok(())
}
