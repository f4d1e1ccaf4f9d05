//! The scripts in `etc/init.d`.

use super::modules::PATIENCE;
use super::{complain, modules, nlserver, say, tree, web};
use crate::layout::HOST_VARIABLE;
use crate::processes;
use crate::records::Event;
use crate::rules::Site;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// `nlserver6 start|stop|restart|status`; of v5 it is `nlserver5`.
pub(super) fn nlserver(site: &Site, script: &str, arguments: &[String]) -> io::Result<u8> {
    match arguments.first().map(String::as_str) {
        Some("start") => start(site, script),
        Some("stop") => {
            let code = nlserver::shutdown(site)?;
            site.record(Event::ServiceStopped, script, "")?;
            Ok(code)
        }
        Some("restart") => {
            nlserver::shutdown(site)?;
            start(site, script)
        }
        Some("status") => {
            let running = processes::find(&site.host, nlserver::WATCHDOG)?.is_some();
            say(if running { "nlserver is running" } else { "nlserver is stopped" });
            // LSB: 3 is `not running`.
            Ok(if running { 0 } else { 3 })
        }
        _ => {
            complain(&format!("Usage: {script} {{start|stop|restart|status}}"));
            Ok(2)
        }
    }
}

fn start(site: &Site, script: &str) -> io::Result<u8> {
    let tree = if script == "nlserver5" { "nl5" } else { "nl6" };
    let program = site.host.home().join(tree).join("bin/nlserver");
    if !program.exists() {
        complain(&format!("{script}: {}: not found", program.display()));
        return Ok(1);
    }
    if processes::find(&site.host, nlserver::WATCHDOG)?.is_some() {
        say("nlserver is already running");
        return Ok(0);
    }
    {
        let mut writer = site.writer()?;
        site.judge_start(&mut writer, script)?;
        writer.append(Event::ServiceStarted, script, "")?;
    }
    // The first start of a bare installation makes what is missing.
    tree::make_conf(&site.host, &tree::unpacked(&site.host)?)?;
    let mut command = Command::new(program);
    command.arg("watchdog").env(HOST_VARIABLE, &site.host.dir).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let _ = child.try_wait();
    let up = modules::wait_for(&site.host, nlserver::WATCHDOG)?;
    say(if up { "Starting nlserver: done" } else { "Starting nlserver: failed" });
    Ok(u8::from(!up))
}

/// `apache2 start|stop|restart|status`.
pub(super) fn web(site: &Site, program: &Path, arguments: &[String]) -> io::Result<u8> {
    let name = site.host.family().web_service();
    match arguments.first().map(String::as_str) {
        Some("start") => web::start(site, name),
        Some("stop") => stop_web(site, name),
        Some("restart") => {
            stop_web(site, name)?;
            web::start(site, name)
        }
        Some("status") => {
            let running = processes::find(&site.host, name)?.is_some();
            say(&format!("{name} is {}", if running { "running" } else { "not running" }));
            Ok(if running { 0 } else { 3 })
        }
        _ => {
            complain(&format!("Usage: {} {{start|stop|restart|status}}", program.display()));
            Ok(2)
        }
    }
}

fn stop_web(site: &Site, name: &str) -> io::Result<u8> {
    let Some(entry) = processes::find(&site.host, name)? else {
        say(&format!("Stopping web server: {name} (not running)"));
        return Ok(0);
    };
    if !processes::stop(&entry, PATIENCE) {
        complain(&format!("Stopping web server: {name}: pid {} does not end", entry.pid));
        return Ok(1);
    }
    site.record(Event::WebStopped, name, &format!("build {}", entry.build))?;
    say(&format!("Stopping web server: {name}"));
    Ok(0)
}
