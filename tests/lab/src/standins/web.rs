//! The web server of a tracking server: answers `/r/test` with the build of the library that it loaded when it started.

use super::{complain, modules, say, tree};
use crate::layout::{Family, HOST_VARIABLE, Host};
use crate::processes;
use crate::records::Event;
use crate::rules::Site;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How the service script launches the server's own process; the build of its library follows.
pub(super) const FOREGROUND: &str = "-DFOREGROUND";

/// The file that keeps the build of the library that was loaded last.
fn loaded_file(host: &Host) -> std::path::PathBuf {
    host.state().join("library-loaded")
}

/// The library that the configuration loads.
fn library(host: &Host) -> io::Result<std::path::PathBuf> {
    let file = match host.family() {
        Family::Debian => "mods-available/nlsrv.load",
        Family::Rhel => "conf.d/nlsrv.conf",
    };
    let text = std::fs::read_to_string(host.web_config().join(file))?;
    let path = text.lines().find_map(|line| line.strip_prefix("LoadModule ")?.split(' ').nth(1));
    path.map(Into::into).ok_or_else(|| io::Error::other(format!("{file} loads no module")))
}

/// Spawns the server's process with a library of this build.
pub(crate) fn launch(host: &Host, build: u32) -> io::Result<()> {
    std::fs::write(loaded_file(host), build.to_string())?;
    let mut command = Command::new(host.web_program());
    command.arg(FOREGROUND).arg(build.to_string()).env(HOST_VARIABLE, &host.dir).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let _ = child.try_wait();
    Ok(())
}

/// `apache2 start`.
pub(super) fn start(site: &Site, name: &str) -> io::Result<u8> {
    if processes::find(&site.host, name)?.is_some() {
        say(&format!("Starting web server: {name} (already running)"));
        return Ok(0);
    }
    let fails = site.meet("apache")?;
    let stale = site.meet("apache.library")?;
    site.judge_start(&mut site.writer()?, name)?;
    let library = library(&site.host)?;
    let found = tree::library_build(&library);
    let build = match (stale, found) {
        (true, found) => {
            let last = std::fs::read_to_string(loaded_file(&site.host)).ok().and_then(|text| text.parse().ok());
            last.or(found.ok()).unwrap_or(0)
        }
        (false, Ok(build)) => build,
        (false, Err(_)) => {
            complain(&format!("{name}: Syntax error on line 1 of nlsrv.load: Cannot load {} into server", library.display()));
            complain("Action 'start' failed.");
            return Ok(1);
        }
    };
    if fails {
        complain(&format!("{name}: (98)Address already in use: could not bind to address {}", site.host.address));
        complain("Action 'start' failed.");
        return Ok(1);
    }
    launch(&site.host, build)?;
    if !modules::wait_for(&site.host, name)? {
        complain("Action 'start' failed.");
        return Ok(1);
    }
    site.record(Event::WebStarted, name, &format!("build {build}"))?;
    say(&format!("Starting web server: {name}"));
    Ok(0)
}

/// The server's own process.
pub(super) fn serve(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let _ = rustix::process::setsid();
    let build = arguments.get(1).and_then(|build| build.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind((site.host.address, site.host.web_port))?;
    processes::register(&site.host, site.host.family().web_service(), build)?;
    loop {
        // One client after the other is enough here; a client that says nothing is given up on.
        let (stream, _) = listener.accept()?;
        let _ = answer(stream, build, &site.host.name);
    }
}

fn answer(mut stream: TcpStream, build: u32, host: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let mut reader = BufReader::new(io::Read::take(stream.try_clone()?, 16 * 1024));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = if path == "/r/test" {
        let date = jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S");
        ("200 OK", format!("<redir status='OK' date='{date}' build='{build}' host='' localHost='{host}'/>\n"))
    } else {
        ("404 Not Found", "<html><body>Not Found</body></html>\n".to_owned())
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: Apache\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
