//! What watches the real programs of a realistic host: scripts of packages, the module of the web server and wrappers of PostgreSQL's
//! tools call it, so that what they do is judged and recorded as the stand-ins' own doings are.

use super::database;
use crate::layout::Family;
use crate::processes;
use crate::records::Event;
use crate::rules::Site;
use crate::spec::Release;
use crate::standins::{complain, say};
use crate::state::{self, Package};
use std::io;
use std::process::{Command, Stdio};

/// Runs as the witness: `lab-witness WHAT ARGUMENT..`. The exit code says whether what asks may go on.
pub(crate) fn run(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["package-unpacks" | "web-starts", ..] if site.is_furnished() => Ok(0),
        ["package-unpacks", name, version, build] => {
            let release = release(version, build)?;
            site.judge_packages(&mut site.writer()?, name, release == site.layout.target)?;
            // A script that rpm runs after a package only makes it warn: here is where an installation fails.
            if site.host.family() == Family::Rhel && site.meet("install")? {
                site.record(Event::PackageFailed, name, "installation")?;
                complain("the witness fails as its lab's spec says");
                return Ok(1);
            }
            Ok(0)
        }
        ["package-installed", name, version, build] => installed(site, name, release(version, build)?),
        ["package-leaves", name] => {
            if site.meet("remove")? {
                site.record(Event::PackageFailed, name, "removal")?;
                complain("the witness fails as its lab's spec says");
                return Ok(1);
            }
            // Of a build upgrade the new packages have the old ones' names.
            let installed = state::packages(&site.host)?;
            let old = installed.iter().any(|package| package.name == *name && package.release == site.host.source);
            site.judge_packages(&mut site.writer()?, name, old)?;
            Ok(0)
        }
        ["package-removed", name] => {
            let mut packages = state::packages(&site.host).unwrap_or_default();
            packages.retain(|package| package.name != *name);
            state::set_packages(&site.host, &packages)?;
            site.record(Event::PackageRemoved, name, "")?;
            Ok(0)
        }
        ["web-starts", _] => {
            let fails = site.meet("apache")?;
            site.judge_start(&mut site.writer()?, site.host.family().web_service())?;
            Ok(u8::from(fails))
        }
        ["web-started", build] => web_started(site, build),
        ["web-stopped", build] => {
            site.record(Event::WebStopped, site.host.family().web_service(), &format!("build {build}"))?;
            Ok(0)
        }
        _ => {
            complain("lab-witness: it does not know what to do with these arguments");
            Ok(2)
        }
    }
}

fn release(version: &str, build: &str) -> io::Result<Release> {
    let build = build.parse().map_err(|_| io::Error::other(format!("`{build}` is no build")))?;
    Ok(Release { version: version.to_owned(), build })
}

fn installed(site: &Site, name: &str, release: Release) -> io::Result<u8> {
    let fails = site.host.family() == Family::Debian && site.meet("install")?;
    let mut packages = state::packages(&site.host).unwrap_or_default();
    packages.retain(|package| package.name != name);
    let version = release.package_version();
    packages.push(Package { name: name.to_owned(), release, whole: !fails });
    state::set_packages(&site.host, &packages)?;
    site.record(if fails { Event::PackageFailed } else { Event::PackageInstalled }, name, &version)?;
    Ok(u8::from(fails))
}

/// Called by the web server's own process, which holds the lock that says that it lives.
fn web_started(site: &Site, build: &str) -> io::Result<u8> {
    let number = build.parse().map_err(|_| io::Error::other(format!("`{build}` is no build")))?;
    let parent = rustix::process::getppid().ok_or_else(|| io::Error::other("the web server is gone"))?;
    let name = site.host.family().web_service();
    processes::enter(&site.host, name, parent.as_raw_nonzero().get().unsigned_abs(), number)?;
    site.record(Event::WebStarted, name, &format!("build {build}"))?;
    Ok(0)
}

/// Runs the real `pg_dump` or `pg_restore` and records what it did.
pub(crate) fn postgres(site: &Site, name: &str, arguments: &[String]) -> io::Result<u8> {
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let plain = arguments.iter().rfind(|argument| !argument.starts_with('-')).map_or("", String::as_str);
    let real = |arguments: &[String]| Command::new(format!("/usr/bin/{name}")).args(arguments).stdin(Stdio::null()).status();
    let code = |status: std::process::ExitStatus| status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    if has("--version") {
        return Ok(code(real(arguments)?));
    }
    if name == "pg_dump" {
        let database = option("--dbname=").unwrap_or(plain);
        let fails = site.meet("dump")?;
        let status = real(arguments)?;
        if fails {
            complain("pg_dump: error: query failed: server closed the connection unexpectedly");
        }
        if fails || !status.success() {
            site.record(Event::DumpFailed, database, "")?;
            return Ok(code(status).max(1));
        }
        let mut writer = site.writer()?;
        database::count_dump(&site.layout, database)?;
        writer.append(Event::DumpWritten, database, option("--file=").unwrap_or_default())?;
        return Ok(0);
    }
    let Some(database) = option("--dbname=") else {
        let status = real(arguments)?;
        if status.success() {
            site.record(Event::DumpListed, plain, "")?;
        }
        return Ok(code(status));
    };
    if database::platform_of_scratch(&site.layout, database).is_some() {
        return try_out(site, database, &dumped_from(plain)?, || real(arguments).map(code));
    }
    let lock = state::lock_database(&site.layout, database)?;
    site.judge_restore(&mut site.writer()?, database, &dumped_from(plain)?, lock.is_none())?;
    let fails = site.meet("restore")?;
    let status = if fails { None } else { Some(real(arguments)?) };
    if status.is_some_and(|status| status.success()) {
        let build = state::database(&site.layout, database)?.build;
        site.record(Event::DumpRestored, database, &format!("build {build}"))?;
        return Ok(0);
    }
    if fails {
        say("");
        complain("pg_restore: error: could not execute query: server closed the connection unexpectedly");
    }
    site.record(Event::RestoreFailed, database, "")?;
    Ok(status.map_or(1, code).max(1))
}

/// Restores a dump of `from` into a scratch database. No rule is about it: nothing of the platform uses that.
fn try_out(site: &Site, database: &str, from: &str, real: impl FnOnce() -> io::Result<u8>) -> io::Result<u8> {
    let code = if site.meet("restore.scratch")? {
        complain("pg_restore: error: could not execute query: ERROR:  could not extend file: No space left on device");
        1
    } else {
        real()?
    };
    if code != 0 {
        site.record(Event::RestoreFailed, database, "")?;
        return Ok(code);
    }
    let build = database::ask(&site.layout, database, "SELECT sstringvalue FROM xtkoption WHERE sname = 'XtkDatabaseBuild'")?;
    site.record(Event::DumpTried, database, &format!("{from}, build {}", build.trim()))?;
    Ok(0)
}

/// The database that a dump was taken of, by its own table of contents.
fn dumped_from(file: &str) -> io::Result<String> {
    let output = Command::new("/usr/bin/pg_restore").args(["--list", file]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let name = text.lines().find_map(|line| line.strip_prefix(";     dbname: "));
    Ok(name.unwrap_or_default().trim().to_owned())
}
