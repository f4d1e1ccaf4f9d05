//! The stand-ins: what the programs of a Campaign host do, as far as a migration sees it.
//!
//! All are this one binary under different names. They write with error handling: a stand-in whose reader has gone away goes on,
//! as the real programs do that ignore a closed pipe.

mod modules;
mod nlserver;
mod packages;
mod password;
mod postgres;
mod postupgrade;
mod psql;
mod services;
pub(crate) mod soap;
pub(crate) mod tree;
mod web;

pub(crate) use modules::{launch, wait_for};
pub(crate) use password::{salt, stored};
pub(crate) use postgres::{database_server, scratch_name, scratch_server};
pub use soap::session_token;
pub(crate) use tree::{Unpack, make_conf, place, script, unpack};
pub(crate) use web::launch as launch_web;

use crate::layout::{HOST_VARIABLE, Layout};
use crate::real;
use crate::rules::Site;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The names that this binary answers to as a stand-in.
const NAMES: &[&str] = &[
    "nlserver",
    "nlserver5",
    "nlserver6",
    "apache2",
    "httpd",
    "dpkg",
    "dpkg-query",
    "rpm",
    "pg_dump",
    "pg_restore",
    "psql",
    real::INIT,
    real::WITNESS,
];

/// Runs as the stand-in that `argv[0]` names; `None` when it names none.
pub fn run() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = PathBuf::from(arguments.next()?);
    let name = program.file_name().and_then(OsStr::to_str)?;
    if !NAMES.contains(&name) {
        return None;
    }
    if name == real::INIT {
        return Some(real::boot::run(arguments));
    }
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let code = match site().and_then(|site| dispatch(&site, name, &program, &arguments)) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{name}: {error}"));
            70
        }
    };
    Some(ExitCode::from(code))
}

fn dispatch(site: &Site, name: &str, program: &Path, arguments: &[String]) -> io::Result<u8> {
    if !is_daemon(arguments) {
        site.notice_move()?;
    }
    match name {
        "nlserver" => nlserver::run(site, arguments),
        "nlserver5" | "nlserver6" => services::nlserver(site, name, arguments),
        // The same name is the service script in `etc/init.d` and the server's program in `usr/sbin`.
        "apache2" | "httpd" if is_daemon(arguments) => web::serve(site, arguments),
        "apache2" | "httpd" => services::web(site, program, arguments),
        "dpkg" => packages::dpkg(site, arguments),
        "dpkg-query" => packages::dpkg_query(site, arguments),
        "rpm" => packages::rpm(site, arguments),
        real::WITNESS => real::witness::run(site, arguments),
        "pg_dump" | "pg_restore" if site.layout.real => real::witness::postgres(site, name, arguments),
        "pg_dump" => postgres::dump(site, arguments),
        "psql" => psql::run(site, arguments),
        _ => postgres::restore(site, arguments),
    }
}

/// Whether this is a module's or the web server's own process. Those record nothing: who launched them does, and waits for them.
fn is_daemon(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|first| first == web::FOREGROUND)
        || arguments.get(1).is_some_and(|second| second.starts_with("-instance:"))
}

/// Finds the host: from where the program lies, which survives a cleaned environment, else from the environment.
fn site() -> io::Result<Site> {
    let program = std::env::current_exe()?;
    let from_path = program.ancestors().find(|dir| dir.join("var/lib/lab").is_dir()).map(Path::to_owned);
    if let Some(site) = real::site(from_path.as_deref()) {
        return site;
    }
    let host = from_path.or_else(|| std::env::var_os(HOST_VARIABLE).map(PathBuf::from));
    let host = host.ok_or_else(|| io::Error::other(format!("not in a lab: {HOST_VARIABLE} is not set")))?;
    let (Some(name), Some(dir)) = (host.file_name(), host.parent().and_then(Path::parent)) else {
        return Err(io::Error::other(format!("{} is no host of a lab", host.display())));
    };
    Site::new(Layout::read(dir)?, &name.to_string_lossy())
}

/// Prints a line. A closed pipe is nobody's problem here.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Prints a line to standard error.
pub(crate) fn complain(line: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n"));
}

/// The time as Campaign prints it.
fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}
