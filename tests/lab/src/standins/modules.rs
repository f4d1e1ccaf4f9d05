//! Modules as real background processes.

use super::{clock, complain, soap, tree};
use crate::layout::{HOST_VARIABLE, Host};
use crate::processes;
use crate::records::Event;
use crate::rules::Site;
use crate::state;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a module may take to come up, and how long to end when asked: on a machine that does much else at once, too.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Spawns a module's process. `stubborn`: it ignores the request to end.
pub(crate) fn launch(host: &Host, module: &str, stubborn: bool) -> io::Result<()> {
    let program = host.nl6().join("bin/nlserver");
    let (name, instance) = module.split_once('@').unwrap_or((module, "default"));
    let mut command = if stubborn {
        // A signal that is ignored stays ignored in the program that takes the shell's place.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "trap '' TERM; exec \"$0\" \"$@\""]).arg(program);
        shell
    } else {
        Command::new(program)
    };
    command.arg(name).arg(format!("-instance:{instance}")).env(HOST_VARIABLE, &host.dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // Not waited for: it outlives this process, and whoever adopts orphans reaps it.
    let mut child = command.spawn()?;
    let _ = child.try_wait();
    Ok(())
}

/// Waits until a module has entered itself into the list of what runs.
pub(crate) fn wait_for(host: &Host, module: &str) -> io::Result<bool> {
    let mut failed = Ok(());
    let up = processes::wait_until(PATIENCE, || match processes::find(host, module) {
        Ok(entry) => entry.is_some(),
        Err(error) => {
            failed = Err(error);
            true
        }
    });
    failed.map(|()| up)
}

/// A module's own process: enters itself into the list and stays.
pub(super) fn live(site: &Site, name: &str) -> io::Result<u8> {
    // Its own session, as a daemon's: what ends the session that started it does not end it.
    let _ = rustix::process::setsid();
    let router = (name == "web@default").then(|| soap::listen(site)).transpose()?;
    processes::register(&site.host, name, tree::unpacked(&site.host)?.build)?;
    if let Some(router) = router {
        return soap::serve(site, &router);
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Starts a module unless it runs. `false` when it did not come up.
pub(super) fn start(site: &Site, module: &str) -> io::Result<bool> {
    if processes::find(&site.host, module)?.is_some() {
        return Ok(true);
    }
    let fails = site.meet(&format!("module:{module}"))?;
    site.judge_start(&mut site.writer()?, module)?;
    if let Some(refused) = refused_database(site, module)? {
        complain(&format!("{} >>> {refused}", clock()));
        site.record(Event::ModuleFailed, module, &refused)?;
        return Ok(false);
    }
    if fails {
        site.record(Event::ModuleFailed, module, "it did not come up")?;
        return Ok(false);
    }
    let stubborn = site.layout.faults.fail.iter().any(|fault| fault.host == site.host.name && fault.step == "stop");
    launch(&site.host, module, stubborn)?;
    let up = wait_for(&site.host, module)?;
    site.record(if up { Event::ModuleStarted } else { Event::ModuleFailed }, module, "")?;
    Ok(up)
}

/// Why a module of the old version does not come up: a database that it works with belongs to a later build.
fn refused_database(site: &Site, module: &str) -> io::Result<Option<String>> {
    if tree::unpacked(&site.host)? != site.host.source {
        return Ok(None);
    }
    for instance in &site.host.instances {
        let works = module.ends_with(&format!("@{instance}")) || module == "web@default";
        let database = state::database(&site.layout, instance)?;
        if works && database.is_upgraded(&site.platform) {
            return Ok(Some(format!("The database of instance '{instance}' belongs to a later build ({})", database.build)));
        }
    }
    Ok(None)
}

/// Stops a module. `false` when it is still there.
pub(super) fn stop(site: &Site, entry: &processes::Running) -> io::Result<bool> {
    let patience = if site.meet("stop")? { Duration::from_millis(300) } else { PATIENCE };
    let gone = processes::stop(entry, patience);
    if gone {
        site.record(Event::ModuleStopped, &entry.name, "")?;
    }
    Ok(gone)
}
