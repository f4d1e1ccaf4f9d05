//! Answers questions about the host. Reads, and writes nothing.

mod logon;
mod system;

pub(crate) use system::{boot_id, now_ms};

use crate::account::Account;
use crate::action::provide;
use crate::mask::Mask;
use crate::program::{Program, capture};
use crate::{account, digest, durable, pattern, processes, program, xml};
use proto::inspect::{Answer, FINGERPRINT_KEY, FileFacts, Fingerprint, LOGON_PASSWORD, PathKind, ReadError, XmlValue};
use proto::step::PackageManager;
use proto::{Query, Reading, RunAs, Secret};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The most that is kept of a program's output.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// How long a program may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long the reading of a backup may take: an answer has to come while its question is still waited for.
const READ_LIMIT: Duration = Duration::from_secs(240);
/// Configuration files are small; one that is larger is not read into memory.
const FILE_LIMIT: u64 = 32 * 1024 * 1024;

/// Answers all questions, in order. Programs run as `run_as`, files are read as ourselves.
pub(crate) fn answer(queries: &[Query], run_as: &RunAs, secrets: &BTreeMap<String, Secret>) -> Vec<Reading> {
    let account = account::resolve(run_as);
    let mask = Mask::of(secrets);
    queries.iter().map(|query| answer_one(query, &account, secrets, &mask)).collect()
}

fn answer_one(
    query: &Query,
    account: &Result<Option<Account>, String>,
    secrets: &BTreeMap<String, Secret>,
    mask: &Mask,
) -> Reading {
    let account = || account.as_ref().map(Option::as_ref).map_err(|e| ReadError::Failed(e.clone()));
    match query {
        Query::System => Ok(Answer::System(system::read())),
        Query::Packages { manager, names } => packages(*manager, names, account()?).map(Answer::Packages),
        Query::Xml { file, element, attribute } => xml_values(file, element, attribute).map(Answer::Xml),
        Query::Fingerprint { file, element, attribute } => {
            fingerprint(file, element, attribute, secrets.get(FINGERPRINT_KEY)).map(Answer::Fingerprint)
        }
        Query::Space { path } => space(path),
        Query::Path { path } => path_kind(path).map(Answer::Path),
        Query::File { path } => file(Path::new(path)).map(Answer::File),
        Query::Output { argv, profile, secret_files } => {
            let account = account()?;
            let files = provide(secret_files, secrets, account).map_err(ReadError::Failed)?;
            let profile = profile.as_deref();
            output(&Program { argv, profile, account, secret_files: &files, ..Program::default() }, mask)
        }
        Query::Processes { under } => {
            let found = processes::under(under).map_err(|e| unreadable("/proc", &e))?;
            Ok(Answer::Processes(found.into_iter().map(|p| (p.pid, p.executable)).collect()))
        }
        Query::Logon { url, account } => logon::attempt(url, account, secrets.get(LOGON_PASSWORD), mask).map(Answer::Logon),
    }
}

/// Why something could not be read, in the words of the protocol.
fn unreadable(what: &str, error: &io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Missing(what.to_owned()),
        io::ErrorKind::PermissionDenied => ReadError::Denied(what.to_owned()),
        _ => ReadError::Failed(format!("{what} cannot be read: {error}")),
    }
}

fn packages(manager: PackageManager, names: &[String], account: Option<&Account>) -> Result<Vec<(String, String)>, ReadError> {
    let mut installed = Vec::new();
    for name in names {
        let versions = installed_versions(manager, name, account)?;
        if !versions.is_empty() {
            installed.push((name.clone(), versions.join(" and ")));
        }
    }
    Ok(installed)
}

/// The version of a package; none when it is not installed, and several after an upgrade by rpm that was cut off.
///
/// # Errors
/// The package manager cannot be asked.
pub(crate) fn installed_versions(manager: PackageManager, name: &str, account: Option<&Account>) -> Result<Vec<String>, ReadError> {
    let argv = manager.query_argv(name);
    let tool = argv.first().map(String::as_str).unwrap_or_default();
    if program::find(tool).is_none() {
        return Err(ReadError::Missing(tool.to_owned()));
    }
    let captured =
        capture(&Program { argv: &argv, account, ..Program::default() }, OUTPUT_LIMIT, TIME_LIMIT).map_err(ReadError::Failed)?;
    if !captured.ended.in_time {
        return Err(ReadError::Failed(format!("{tool} did not answer within {} s", TIME_LIMIT.as_secs())));
    }
    if captured.ended.code() != Some(0) {
        return Ok(Vec::new());
    }
    let version = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        (words.next() == Some("installed")).then(|| words.collect::<Vec<_>>().join(" "))
    };
    Ok(String::from_utf8_lossy(&captured.text).lines().filter_map(version).collect())
}

/// A file's bytes, when it is of a size that a configuration has.
fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let name = path.to_string_lossy();
    let meta = std::fs::metadata(path).map_err(|e| unreadable(&name, &e))?;
    if !meta.is_file() || meta.len() > FILE_LIMIT {
        return Err(ReadError::Failed(format!("{name} is not a configuration file")));
    }
    std::fs::read(path).map_err(|e| unreadable(&name, &e))
}

fn xml_values(file: &str, element: &str, attribute: &str) -> Result<Vec<XmlValue>, ReadError> {
    let files = pattern::files(file).map_err(|e| unreadable(file, &e))?;
    if files.is_empty() {
        return Err(ReadError::Missing(file.to_owned()));
    }
    let mut found = Vec::new();
    for path in files {
        let name = path.to_string_lossy().into_owned();
        let values = xml::values(&read_file(&path)?, element, attribute).map_err(|e| ReadError::Failed(format!("{name} {e}")))?;
        found.extend(values.into_iter().map(|value| XmlValue { file: name.clone(), value }));
    }
    Ok(found)
}

fn fingerprint(file: &str, element: &str, attribute: &str, key: Option<&Secret>) -> Result<Fingerprint, ReadError> {
    let Some(key) = key else { return Err(ReadError::Failed("no key for fingerprints was sent".to_owned())) };
    let bytes = zeroize::Zeroizing::new(read_file(Path::new(file))?);
    let values = xml::values(&bytes, element, attribute).map_err(|e| ReadError::Failed(format!("{file} {e}")))?;
    let Some(value) = values.into_iter().flatten().map(zeroize::Zeroizing::new).find(|value| !value.is_empty()) else {
        return Ok(Fingerprint::Unset);
    };
    let keyed = digest::keyed(key.expose(), value.as_bytes());
    keyed
        .map(|hex| Fingerprint::Keyed(Secret::new(hex)))
        .ok_or_else(|| ReadError::Failed("the key for fingerprints is not hex".to_owned()))
}

fn space(path: &str) -> Reading {
    let mut nearest = PathBuf::from(path);
    loop {
        match rustix::fs::statvfs(&nearest) {
            Ok(stat) => return Ok(Answer::Space { free: stat.f_bavail.saturating_mul(stat.f_frsize), inodes: stat.f_favail }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) if nearest.pop() => {
                if nearest.as_os_str().is_empty() {
                    nearest.push(".");
                }
            }
            Err(e) => return Err(unreadable(path, &e.into())),
        }
    }
}

/// A file's facts. Reading all of it ends when it takes too long.
fn file(path: &Path) -> Result<FileFacts, ReadError> {
    let name = path.to_string_lossy();
    let mut open = digest::open(path).map_err(|e| unreadable(&name, &e))?;
    let meta = open.metadata().map_err(|e| unreadable(&name, &e))?;
    let until = Instant::now() + READ_LIMIT;
    let sha256 = match digest::of_open(&mut open, &mut |_| if Instant::now() < until { Ok(()) } else { Err(()) }) {
        Ok(Ok((sha256, _))) => Some(sha256),
        Ok(Err(e)) => return Err(unreadable(&name, &e)),
        Err(()) => None,
    };
    let recorded = digest::open(&durable::beside(path, ".sha256")).and_then(|file| {
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text)?;
        Ok(text)
    });
    let recorded = recorded.ok().and_then(|text| Some(text.split_whitespace().next()?.chars().take(64).collect()));
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ms = modified.and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or_default();
    Ok(FileFacts { size: meta.len(), modified_ms, sha256, recorded })
}

fn path_kind(path: &str) -> Result<PathKind, ReadError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(PathKind::File),
        Ok(meta) if meta.is_dir() => Ok(PathKind::Directory),
        Ok(_) => Ok(PathKind::Other),
        // A link that leads nowhere is something, too.
        Err(e) if e.kind() == io::ErrorKind::NotFound && std::fs::symlink_metadata(path).is_ok() => Ok(PathKind::Other),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(PathKind::Absent),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn output(program: &Program<'_>, mask: &Mask) -> Reading {
    let Some(name) = program.argv.first() else { return Err(ReadError::Failed("no program was given".to_owned())) };
    let sourced = program.profile.is_some_and(|profile| Path::new(profile).exists());
    if !sourced && program::find(name).is_none() {
        return Err(ReadError::Missing(name.clone()));
    }
    let captured = capture(program, OUTPUT_LIMIT, TIME_LIMIT).map_err(ReadError::Failed)?;
    if !captured.ended.in_time {
        return Err(ReadError::Failed(format!("{name} did not answer within {} s", TIME_LIMIT.as_secs())));
    }
    let text = mask.text(&String::from_utf8_lossy(&captured.text));
    Ok(Answer::Output { code: captured.ended.code().unwrap_or(-1), text })
}
