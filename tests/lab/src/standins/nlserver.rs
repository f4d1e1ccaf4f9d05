//! `nlserver`.

use super::{clock, complain, modules, password, postupgrade, say, tree};
use crate::conf;
use crate::processes;
use crate::records::Event;
use crate::rules::Site;
use std::io;

/// The module that keeps the others running.
pub(super) const WATCHDOG: &str = "watchdog@default";

/// The banner of the version whose files are installed.
pub(super) fn banner(site: &Site) -> io::Result<String> {
    let release = tree::unpacked(&site.host)?;
    let (version, build) = (&release.version, release.build);
    Ok(if version.starts_with('7') {
        format!("{} >   Application server for Adobe Campaign Classic ({version} build {build}@5f9e1c2) of 03/11/2026", clock())
    } else {
        format!("{} >   Application Server for Adobe Campaign Version {version} (build {build}) of 14/03/2019", clock())
    })
}

pub(super) fn run(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        // A module's own process, as `start` and the watchdog launch it.
        [module, instance, ..] if instance.starts_with("-instance:") && *module != "config" => {
            modules::live(site, &format!("{module}@{}", instance.trim_start_matches("-instance:")))
        }
        ["pdump", ..] => pdump(site),
        ["monitor", "-missing"] => missing(site),
        ["start", rest @ ..] => each(site, rest, start),
        ["stop", rest @ ..] => each(site, rest, stop),
        ["watchdog", ..] => watchdog(site),
        ["shutdown"] => shutdown(site),
        ["config", "-reload"] => {
            say(&banner(site)?);
            conf::auto_start(&site.host)?;
            site.judge_held(&mut site.writer()?, "nl6/conf")?;
            site.record(Event::ConfigReloaded, "nl6/conf", "")?;
            say(&format!("{} >   Configuration successfully reloaded", clock()));
            Ok(0)
        }
        ["config", "-internalpassword"] => password::run(site),
        ["config", options @ ..] if options.contains(&"-postupgrade") => postupgrade::run(site, options),
        _ => {
            complain(
                "usage: nlserver pdump | monitor -missing | start MODULE@INSTANCE | stop MODULE@INSTANCE | watchdog | shutdown",
            );
            complain("       nlserver config -reload | -internalpassword | -postupgrade -instance:INSTANCE [-check] [-force]");
            Ok(1)
        }
    }
}

fn pdump(site: &Site) -> io::Result<u8> {
    say(&banner(site)?);
    let running = processes::running(&site.host)?;
    let modules: Vec<_> = running.iter().filter(|entry| entry.name.contains('@')).collect();
    if modules.is_empty() {
        say("No tasks");
    }
    for entry in modules {
        // The size has no meaning here; it only has to look as it does.
        say(&format!("{} ({}) - {}.{} MB", entry.name, entry.pid, 8 + entry.name.len(), entry.pid % 10));
    }
    Ok(0)
}

/// The modules that should run and do not.
fn missing_modules(site: &Site) -> io::Result<Vec<String>> {
    let running = processes::running(&site.host)?;
    let mut modules = conf::auto_start(&site.host)?;
    modules.retain(|module| !running.iter().any(|entry| entry.name == *module));
    Ok(modules)
}

fn missing(site: &Site) -> io::Result<u8> {
    say(&banner(site)?);
    for module in missing_modules(site)? {
        say(&module);
    }
    Ok(0)
}

fn each(site: &Site, names: &[&str], act: fn(&Site, &str) -> io::Result<u8>) -> io::Result<u8> {
    let mut worst = 0;
    for name in names.iter().filter(|name| !name.starts_with('-')) {
        worst = worst.max(act(site, name)?);
    }
    Ok(worst)
}

/// The full name of a module: `web` stands for `web@default`.
fn full_name(name: &str) -> String {
    if name.contains('@') { name.to_owned() } else { format!("{name}@default") }
}

fn start(site: &Site, name: &str) -> io::Result<u8> {
    let module = full_name(name);
    let (kind, instance) = module.split_once('@').unwrap_or_default();
    let known = if instance == "default" { conf::SERVER_MODULES } else { conf::INSTANCE_MODULES };
    if !known.contains(&kind) || !site.host.nl6().join(format!("conf/config-{instance}.xml")).exists() {
        complain(&format!("{} >>> Unknown task '{kind}' or instance '{instance}' (config-{instance}.xml)", clock()));
        return Ok(1);
    }
    say(&banner(site)?);
    say(&format!("{} >   Launching task '{kind}' ('{module}') in a new process", clock()));
    // As the real one does, this reports that it launched, not that the module stays up: `monitor -missing` tells.
    modules::start(site, &module)?;
    Ok(0)
}

fn stop(site: &Site, name: &str) -> io::Result<u8> {
    let module = full_name(name);
    say(&banner(site)?);
    let Some(entry) = processes::find(&site.host, &module)? else {
        say(&format!("{} >   Task '{module}' is not running", clock()));
        return Ok(0);
    };
    say(&format!("{} >   Stop requested for task '{module}' with pid {}", clock(), entry.pid));
    if modules::stop(site, &entry)? {
        return Ok(0);
    }
    complain(&format!("{} >>  Task '{module}' with pid {} does not stop", clock(), entry.pid));
    Ok(1)
}

/// The service's process: starts what is missing and stays.
fn watchdog(site: &Site) -> io::Result<u8> {
    if processes::find(&site.host, WATCHDOG)?.is_some() {
        complain(&format!("{} >>  The server is already running", clock()));
        return Ok(1);
    }
    let _ = rustix::process::setsid();
    for module in missing_modules(site)? {
        modules::start(site, &module)?;
    }
    modules::live(site, WATCHDOG)
}

/// Stops everything of this host: the watchdog first.
pub(super) fn shutdown(site: &Site) -> io::Result<u8> {
    let mut running = processes::running(&site.host)?;
    running.retain(|entry| entry.name.contains('@'));
    running.sort_by_key(|entry| entry.name != WATCHDOG);
    let mut code = 0;
    for entry in &running {
        say(&format!("{} >   Stop requested for task '{}' with pid {}", clock(), entry.name, entry.pid));
        if !modules::stop(site, entry)? {
            complain(&format!("{} >>  Task '{}' with pid {} does not stop", clock(), entry.name, entry.pid));
            code = 1;
        }
    }
    Ok(code)
}
