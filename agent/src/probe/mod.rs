//! Looking whether an effect is there. Changes nothing.

use crate::action::{Place, archive_checksum_file, counterpart, places, select};
use crate::inspect::installed_versions;
use crate::program::{Program, capture};
use crate::{digest, http, pattern, processes, xml};
use proto::Probe;
use proto::inspect::ReadError;
use proto::step::PackageManager;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// How long a program may take to show its result.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// How much of its output is looked at.
const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The effect is there.
    There,
    /// It is not: what was expected, and what was seen.
    NotThere(String),
    /// It could not be found out.
    CannotTell(String),
}

use Seen::{CannotTell, NotThere, There};

impl Seen {
    fn when(there: bool, otherwise: impl FnOnce() -> String) -> Self {
        if there { There } else { NotThere(otherwise()) }
    }
}

/// Looks.
pub(crate) fn look(probe: &Probe) -> Seen {
    match probe {
        Probe::Exists(path) => match fs::symlink_metadata(path) {
            Ok(_) => There,
            Err(e) if is_absent(&e) => NotThere(format!("expected {path}, which does not exist")),
            Err(e) => CannotTell(format!("{path}: {e}")),
        },
        Probe::Absent(path) => match fs::symlink_metadata(path) {
            Ok(_) => NotThere(format!("expected nothing under {path}, but it exists")),
            Err(e) if is_absent(&e) => There,
            Err(e) => CannotTell(format!("{path}: {e}")),
        },
        Probe::Command { argv, profile, code, contains, lacks } => command(argv, profile.as_deref(), *code, contains, lacks),
        Probe::PackagesInstalled { manager, names, version } => installed(*manager, names, version),
        Probe::PackagesAbsent { manager, names } => absent(*manager, names),
        Probe::NoProcesses { under } => match processes::under(under) {
            Ok(found) => {
                Seen::when(found.is_empty(), || format!("expected no process under {under}, seen {}", processes::describe(&found)))
            }
            Err(e) => CannotTell(format!("processes cannot be listed: {e}")),
        },
        Probe::Digest { path, sha256 } => match digest::of_file(Path::new(path)) {
            Ok(seen) => Seen::when(seen == *sha256, || format!("expected {path} with SHA-256 {sha256}, seen {seen}")),
            Err(e) => unreadable(path, &e),
        },
        Probe::ArchiveIntact(path) => archive(Path::new(path)),
        Probe::TreeCopied { from, to, include } => tree_copied(Path::new(from), Path::new(to), include),
        Probe::Xml { file, element, attribute, equals } => xml_attribute(file, element, attribute, equals.as_deref()),
        Probe::XmlSame { file, other, element, attribute } => xml_same(file, other, element, attribute),
        Probe::TextReplaced { files, from, to } => text_replaced(files, from, to),
        Probe::NewestFileContains { file, contains } => newest(file, contains),
        Probe::Http { url, contains } => match http::get(url) {
            Ok((200, body)) => missing_text(contains, &body, url),
            Ok((status, _)) => NotThere(format!("expected status 200 from {url}, seen {status}")),
            Err(e) => NotThere(format!("{url} does not answer: {e}")),
        },
        Probe::All(probes) => all(probes),
    }
}

fn all(probes: &[Probe]) -> Seen {
    let mut doubt = None;
    for probe in probes {
        match look(probe) {
            There => {}
            NotThere(why) => return NotThere(why),
            CannotTell(why) => doubt = doubt.or(Some(why)),
        }
    }
    doubt.map_or(There, CannotTell)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A file that is not there lacks the effect; one that cannot be read says nothing.
fn unreadable(path: &str, error: &io::Error) -> Seen {
    if is_absent(error) {
        NotThere(format!("expected {path}, which does not exist"))
    } else {
        CannotTell(format!("{path} cannot be read: {error}"))
    }
}

fn missing_text(contains: &[String], text: &str, whose: &str) -> Seen {
    match contains.iter().find(|wanted| !text.contains(wanted.as_str())) {
        None => There,
        Some(wanted) => NotThere(format!("expected `{wanted}` from {whose}, seen: {}", excerpt(text))),
    }
}

/// The end of a text, on one line.
fn excerpt(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join(" | ");
    if last.is_empty() { "nothing".to_owned() } else { last.chars().take(300).collect() }
}

fn command(argv: &[String], profile: Option<&str>, code: Option<i32>, contains: &[String], lacks: &[String]) -> Seen {
    let captured = match capture(&Program { argv, profile, ..Program::default() }, OUTPUT_LIMIT, TIME_LIMIT) {
        Ok(captured) => captured,
        Err(why) => return CannotTell(why),
    };
    let name = argv.join(" ");
    if !captured.ended.in_time {
        return CannotTell(format!("`{name}` did not end within {} s", TIME_LIMIT.as_secs()));
    }
    let text = String::from_utf8_lossy(&captured.text);
    if code.is_some() && code != captured.ended.code() {
        let expected = code.unwrap_or_default();
        return NotThere(format!(
            "expected exit code {expected} from `{name}`, seen {}: {}",
            captured.ended.describe(),
            excerpt(&text)
        ));
    }
    if let Some(unwanted) = lacks.iter().find(|unwanted| text.contains(unwanted.as_str())) {
        return NotThere(format!("expected no `{unwanted}` from `{name}`, seen: {}", excerpt(&text)));
    }
    missing_text(contains, &text, &format!("`{name}`"))
}

fn installed(manager: PackageManager, names: &[String], version: &str) -> Seen {
    for name in names {
        let versions = match installed_versions(manager, name, None) {
            Ok(versions) => versions,
            Err(e) => return cannot_ask(&e),
        };
        match versions.as_slice() {
            [seen] if seen.contains(version) => {}
            [] => return NotThere(format!("expected package {name}, which is not installed")),
            // Of two versions at once, neither is installed whole.
            seen => {
                let seen = seen.join(" and ");
                return NotThere(format!("expected package {name} in a version with `{version}`, seen {seen}"));
            }
        }
    }
    There
}

fn absent(manager: PackageManager, names: &[String]) -> Seen {
    for name in names {
        match installed_versions(manager, name, None) {
            Ok(seen) if seen.is_empty() => {}
            Ok(seen) => return NotThere(format!("expected no package {name}, but {} is installed", seen.join(" and "))),
            Err(e) => return cannot_ask(&e),
        }
    }
    There
}

fn cannot_ask(error: &ReadError) -> Seen {
    CannotTell(format!("the package manager cannot be asked: {error}"))
}

fn archive(path: &Path) -> Seen {
    let list = archive_checksum_file(path);
    let expected = match fs::read_to_string(&list) {
        Ok(text) => text.split_whitespace().next().unwrap_or_default().to_owned(),
        Err(e) => return unreadable(&list.to_string_lossy(), &e),
    };
    match digest::of_file(path) {
        Ok(seen) => Seen::when(seen == expected, || {
            format!("{} does not match its .sha256 file: expected {expected}, seen {seen}", path.display())
        }),
        Err(e) => unreadable(&path.to_string_lossy(), &e),
    }
}

fn tree_copied(from: &Path, to: &Path, include: &[String]) -> Seen {
    let paths = match select(from, include) {
        Ok(paths) => paths,
        Err(e) => return CannotTell(format!("{} cannot be read: {e}", from.display())),
    };
    for path in paths {
        let (original, copy) = (from.join(&path), to.join(&path));
        match same(&original, &copy) {
            Ok(true) => {}
            Ok(false) => return NotThere(format!("{} differs from {}", copy.display(), original.display())),
            Err(e) => return unreadable(&copy.to_string_lossy(), &e),
        }
    }
    There
}

/// Whether two files have the same bytes; links lead to the same place; directories are both there.
fn same(original: &Path, copy: &Path) -> io::Result<bool> {
    let (one, other) = (fs::symlink_metadata(original)?, fs::symlink_metadata(copy)?);
    if one.is_symlink() {
        return Ok(other.is_symlink() && fs::read_link(original)? == fs::read_link(copy)?);
    }
    if !one.is_file() {
        // Sockets and the like are not copied; directories have nothing of their own.
        return Ok(!one.is_dir() || other.is_dir());
    }
    if !other.is_file() || one.len() != other.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(original)?, File::open(copy)?);
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        let Some(part) = right.get_mut(..read) else { return Ok(false) };
        if other.read_exact(part).is_err() || left.get(..read) != Some(part) {
            return Ok(false);
        }
    }
}

/// The values of an attribute in every file that a pattern selects, or what was seen instead.
fn xml_values(path: &Path, element: &str, attribute: &str) -> Result<Vec<Option<String>>, Seen> {
    let name = path.to_string_lossy();
    let bytes = fs::read(path).map_err(|e| unreadable(&name, &e))?;
    xml::values(&bytes, element, attribute).map_err(|e| CannotTell(format!("{name} {e}")))
}

fn xml_files(file: &str) -> Result<Vec<std::path::PathBuf>, Seen> {
    match pattern::files(file) {
        Ok(files) if files.is_empty() => Err(NotThere(format!("expected a file {file}, seen none"))),
        Ok(files) => Ok(files),
        Err(e) => Err(CannotTell(format!("{file} cannot be looked for: {e}"))),
    }
}

fn xml_attribute(file: &str, element: &str, attribute: &str, equals: Option<&str>) -> Seen {
    let check = || -> Result<(), Seen> {
        for path in xml_files(file)? {
            let values = xml_values(&path, element, attribute)?;
            let place = format!("{attribute} of {element} in {}", path.display());
            if values.is_empty() && equals.is_some() {
                return Err(NotThere(format!("expected {place}, seen no such element")));
            }
            if let Some(value) = values.iter().find(|value| value.as_deref() != equals) {
                let (expected, seen) = (shown(attribute, equals), shown(attribute, value.as_deref()));
                return Err(NotThere(format!("expected {expected} as {place}, seen {seen}")));
            }
        }
        Ok(())
    };
    check().err().unwrap_or(There)
}

/// A value for people; never that of a password.
fn shown(attribute: &str, value: Option<&str>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(_) if attribute.to_lowercase().contains("password") => "a value (not shown)".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

fn xml_same(file: &str, other: &str, element: &str, attribute: &str) -> Seen {
    let check = || -> Result<(), Seen> {
        for path in xml_files(file)? {
            let other = counterpart(other, &path);
            let (here, there) = (xml_values(&path, element, attribute)?, xml_values(&other, element, attribute)?);
            let count = here.len().max(there.len());
            let value = |values: &[Option<String>], index| values.get(index).cloned().flatten();
            if (0..count).any(|index| value(&here, index) != value(&there, index)) {
                let place = format!("{attribute} of {element}");
                return Err(NotThere(format!("{place} differs between {} and {}", path.display(), other.display())));
            }
        }
        Ok(())
    };
    check().err().unwrap_or(There)
}

fn text_replaced(files: &[String], from: &str, to: &str) -> Seen {
    let found = match places(files, from, to) {
        Ok(found) => found,
        Err(why) => return CannotTell(why),
    };
    for (path, place) in found {
        match place {
            Place::Done => {}
            Place::File(_) | Place::Link(_) => {
                return NotThere(format!("expected no `{from}` in {}, but it is there", path.display()));
            }
            Place::Both => return NotThere(format!("{} has both `{from}` and `{to}`", path.display())),
            Place::Elsewhere(link) => return CannotTell(format!("{} is a link to {link}, which is not looked at", path.display())),
        }
    }
    There
}

fn newest(file: &str, contains: &str) -> Seen {
    let files = match xml_files(file) {
        Ok(files) => files,
        Err(seen) => return seen,
    };
    let newest = files.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    let Some((_, path)) = newest else { return NotThere(format!("expected a file {file}, seen none")) };
    match fs::read(&path) {
        Ok(bytes) => missing_text(&[contains.to_owned()], &String::from_utf8_lossy(&bytes), &path.to_string_lossy()),
        Err(e) => unreadable(&path.to_string_lossy(), &e),
    }
}
