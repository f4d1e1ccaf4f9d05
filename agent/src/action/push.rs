//! Receiving a file from the controller. The runner asks, the supervisor has the controller asked, the bridge writes what comes.

use super::{Context, Done, Result};
use crate::runner::files::{Need, StepFiles};
use crate::runner::{notify, publish};
use crate::{digest, durable};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::time::Duration;

/// How often the supervisor's answer is looked for.
const PAUSE: Duration = Duration::from_millis(20);

/// The file that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) sha256: &'a str,
    pub(crate) size: u64,
    pub(crate) dest: &'a str,
    pub(crate) mode: u32,
}

pub(crate) fn run(wanted: &Wanted<'_>, context: &mut Context<'_>) -> Result {
    let Wanted { sha256, size, dest, mode } = *wanted;
    let dest = Path::new(dest);
    let name = dest.display().to_string();
    let cannot = |what: &str, e: io::Error| format!("cannot {what} {name}: {e}");
    if fs::metadata(dest).is_ok_and(|meta| meta.is_file() && meta.len() == size)
        && digest::of_file(dest).map_err(|e| cannot("read", e))? == sha256
    {
        context.note(&format!("{name} is there already"));
        return Ok(Done::default());
    }
    let Some(files) = context.files else {
        return Err("files of the controller can only be received by the agent's own account".to_owned().into());
    };
    make_directory(dest, Some(files)).map_err(|e| cannot("create the directory of", e))?;
    let part = durable::beside(dest, ".part");
    let have = fs::metadata(&part).map(|meta| meta.len()).unwrap_or(0);
    if have > size {
        fs::remove_file(&part).map_err(|e| cannot("write", e))?;
    }
    if size == 0 || have != size {
        let _ = fs::remove_file(files.answer());
        let need = Need { sha256: sha256.to_owned(), size, part: part.clone() };
        let json = serde_json::to_vec(&need).map_err(|e| e.to_string())?;
        publish(&files.need(), &json).map_err(|e| cannot("ask for", e))?;
        context.note(&format!("waiting for {name} ({size} bytes, {} there)", have.min(size)));
        notify();
        while !files.answer().exists() {
            context.pause(PAUSE)?;
        }
        let refused = fs::read_to_string(files.answer()).map_err(|e| cannot("receive", e))?;
        let _ = fs::remove_file(files.need());
        if !refused.is_empty() {
            return Err(format!("{name} was not received: {refused}").into());
        }
    }
    let mut file = digest::open_own(&part).map_err(|e| cannot("receive", e))?;
    let got = file.metadata().map_err(|e| cannot("receive", e))?.len();
    if got < size {
        return Err(format!("{name}: expected {size} bytes, received {got}; a retry goes on from there").into());
    }
    let seen = digest::of_rest(&mut file).map_err(|e| cannot("read", e))?;
    if seen != sha256 {
        let _ = fs::remove_file(&part);
        return Err(format!("{name}: expected content with SHA-256 {sha256}, received {seen}; does the file on the workstation still match the inventory?").into());
    }
    finish(&file, &part, dest, mode).map_err(|e| cannot("put in place", e))?;
    context.note(&format!("received {name}"));
    Ok(Done::default())
}

/// Makes the directory that a file is received in. Others can pass through those for packages: a step that runs as the Campaign account
/// reads the setup of the client console there. Any other directory is as closed as the session's umask makes it.
pub(super) fn make_directory(dest: &Path, files: Option<&StepFiles>) -> io::Result<()> {
    let dir = durable::parent(dest);
    fs::create_dir_all(dir)?;
    let packages = files.and_then(StepFiles::packages).filter(|_| !dir.components().any(|part| part == Component::ParentDir));
    let Some(packages) = packages else { return Ok(()) };
    dir.ancestors().take_while(|dir| dir.starts_with(&packages)).try_for_each(durable::let_others_pass)
}

/// Gives a complete and checked file its mode and its name, durably.
pub(super) fn finish(file: &File, part: &Path, dest: &Path, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()?;
    fs::rename(part, dest)?;
    durable::sync_dir(durable::parent(dest))
}
