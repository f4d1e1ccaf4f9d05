//! `nlserver config -internalpassword`: asks for the current password, the new one, and the new one again.

use super::{clock, complain, nlserver, say};
use crate::conf;
use crate::package::sha256;
use crate::records::Event;
use crate::rules::Site;
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use std::io::{self, BufRead};

/// How a password is stored. The vendor's encoding is not documented; what counts is that equal passwords are stored equally, and
/// that the stored value is not the password.
pub(crate) fn stored(password: &str) -> String {
    if password.is_empty() { String::new() } else { format!("@{}==", &sha256(format!("nl {password}").as_bytes())[..40]) }
}

pub(super) fn run(site: &Site) -> io::Result<u8> {
    say(&nlserver::banner(site)?);
    let current = ask("Enter current password")?;
    if stored(&current) != conf::internal_password(&site.host.nl6())? {
        complain(&format!("{} >>> Invalid password for account 'internal'", clock()));
        return Ok(1);
    }
    let new = ask("Enter new password")?;
    if new != ask("Confirm new password")? {
        complain(&format!("{} >>> The two passwords are not the same", clock()));
        return Ok(1);
    }
    conf::set_internal_password(&site.host, &stored(&new))?;
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
