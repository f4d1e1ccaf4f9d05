//! Fetching a file with the host's own `curl` or `wget`, and checking it.

use super::{Context, Done, Result, command, push};
use crate::program::find;
use crate::{digest, durable};
use proto::step::Command;
use std::fs;
use std::path::Path;

pub(crate) fn run(url: &str, sha256: &str, dest: &str, context: &mut Context<'_>) -> Result {
    if !["http://", "https://", "ftp://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(format!("expected an http, https or ftp address, got {url}").into());
    }
    let path = Path::new(dest);
    if path.is_file() && digest::of_file(path).is_ok_and(|seen| seen == sha256) {
        context.note(&format!("{dest} is there already"));
        return Ok(Done::default());
    }
    push::make_directory(path, context.files).map_err(|e| format!("cannot create the directory of {dest}: {e}"))?;
    let part = durable::beside(path, ".part");
    let target = part.to_string_lossy().into_owned();
    let argv = if find("curl").is_some() {
        vec!["curl", "--fail", "--silent", "--show-error", "--location", "--output", &target, "--url", url]
    } else if find("wget").is_some() {
        vec!["wget", "--no-verbose", "--output-document", &target, "--", url]
    } else {
        return Err(
            "expected curl or wget on this host, found neither; let Caravan push the file instead (path: in the inventory)"
                .to_owned()
                .into(),
        );
    };
    let spec = Command { argv: argv.into_iter().map(str::to_owned).collect(), ok: vec![0], ..Command::default() };
    command::run(&spec, command::Descendants::Count, context)?;
    let mut file = digest::open_own(&part).map_err(|e| format!("cannot read {target}: {e}"))?;
    let seen = digest::of_rest(&mut file).map_err(|e| format!("cannot read {target}: {e}"))?;
    if seen != sha256 {
        let _ = fs::remove_file(&part);
        return Err(format!("{url}: expected content with SHA-256 {sha256}, received {seen}").into());
    }
    push::finish(&file, &part, path, 0o644).map_err(|e| format!("cannot put {dest} in place: {e}"))?;
    context.note(&format!("downloaded {dest}"));
    Ok(Done::default())
}
