//! `nlserver config -internalpassword`: asks for the current password, the new one, and the new one again.

use super::{clock, complain, nlserver, say};
use crate::conf;
use crate::package::sha256;
use crate::records::Event;
use crate::rules::Site;
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use std::io::{self, BufRead};
use std::time::Duration;

/// How a password is stored. The vendor's encoding is not documented; what counts is that the stored value is not the password and
/// that equal passwords are stored equally, unless a salt is mixed in.
pub(crate) fn stored(password: &str, salt: &str) -> String {
    match (password, salt) {
        ("", _) => String::new(),
        (_, "") => format!("@{}==", digest(password, "")),
        _ => format!("@{salt}.{}==", digest(password, salt)),
    }
}

fn digest(password: &str, salt: &str) -> String {
    sha256(format!("nl {salt}{password}").as_bytes())[..40].to_owned()
}

/// A salt of its own for each stored value, where a platform salts.
pub(crate) fn salt(salted: bool) -> io::Result<String> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(if salted { format!("{:08x}", u32::from_be_bytes(bytes)) } else { String::new() })
}

/// Whether a password is the one that was stored.
pub(crate) fn fits(password: &str, value: &str) -> bool {
    let salt = value.strip_prefix('@').and_then(|rest| rest.split_once('.')).map_or("", |(salt, _)| salt);
    stored(password, salt) == value
}

pub(super) fn run(site: &Site) -> io::Result<u8> {
    say(&nlserver::banner(site)?);
    if site.meet("password.prompt")? {
        // Never asks, as one does that waits for a lock or for the database.
        std::thread::sleep(Duration::from_secs(3600));
    }
    let fails = site.meet("password")?;
    let current = ask("Enter current password")?;
    if !fits(&current, &conf::internal_password(&site.host.nl6())?) {
        complain(&format!("{} >>> Invalid password for account 'internal'", clock()));
        return Ok(1);
    }
    let new = ask("Enter new password")?;
    if new != ask("Confirm new password")? {
        complain(&format!("{} >>> The two passwords are not the same", clock()));
        return Ok(1);
    }
    if fails {
        complain(&format!("{} >>> The file serverConf.xml cannot be written", clock()));
        return Ok(1);
    }
    conf::set_internal_password(&site.host, &stored(&new, &salt(site.platform.salted)?))?;
    site.record(Event::PasswordChanged, "internal", "")?;
    say(&format!("{} >   Password successfully changed for account 'internal' (authentication mode 'nl')", clock()));
    Ok(0)
}

/// Asks for one line, on a terminal without showing it.
fn ask(prompt: &str) -> io::Result<String> {
    say(&format!("{prompt}: "));
    let stdin = io::stdin();
    let before = if isatty(&stdin) { Some(tcgetattr(&stdin)?) } else { None };
    if let Some(before) = &before {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Now, before)?;
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
