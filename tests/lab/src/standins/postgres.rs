//! `pg_dump` and `pg_restore`, with libpq's rules for password files.

use super::{complain, say};
use crate::package::sha256;
use crate::records::Event;
use crate::rules::Site;
use crate::state;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const MAGIC: &[u8] = b"PGDMP\x01\x0e\x00";

const NO_ARCHIVE: &str = "input file does not appear to be a valid archive";

/// The value of `--name=VALUE`.
pub(super) fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().find_map(|argument| argument.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
}

pub(super) fn dump(site: &Site, arguments: &[String]) -> io::Result<u8> {
    if arguments.iter().any(|argument| argument == "--version") {
        say("pg_dump (PostgreSQL) 13.21");
        return Ok(0);
    }
    let name = option(arguments, "dbname").or(arguments.iter().map(String::as_str).find(|argument| !argument.starts_with('-')));
    let server = option(arguments, "host").unwrap_or("localhost");
    let (Some(name), Some(file), Some(user)) = (name, option(arguments, "file"), option(arguments, "username")) else {
        complain("pg_dump: error: the lab's stand-in needs --file=, --username= and a database");
        return Ok(1);
    };
    if let Err(what) = connect(site, server, name, user)? {
        complain(&format!("pg_dump: error: connection to server at \"{server}\", port 5432 failed: {what}"));
        site.record(Event::DumpFailed, name, &what)?;
        return Ok(1);
    }
    let fails = site.meet("dump")?;
    let state = state::database(&site.layout, name)?;
    let mut content = MAGIC.to_vec();
    content.extend(serde_json::to_vec(&(name, &state.build, &state.completed, &state.upgrades))?);
    content.resize(content.len() + 48 * 1024, b'.');
    let digest = sha256(&content);
    if fails {
        content.truncate(content.len() / 2);
    } else {
        content.extend(digest.as_bytes());
    }
    if let Err(error) = fs::write(file, &content) {
        complain(&format!("pg_dump: error: could not open output file \"{file}\": {error}"));
        site.record(Event::DumpFailed, name, "no output file")?;
        return Ok(1);
    }
    if fails {
        complain("pg_dump: error: query failed: server closed the connection unexpectedly");
        site.record(Event::DumpFailed, name, "connection lost")?;
        return Ok(1);
    }
    let mut writer = site.writer()?;
    let state = state::database(&site.layout, name)?;
    state::set_database(&site.layout, name, &state::Database { dumps: state.dumps + 1, ..state })?;
    writer.append(Event::DumpWritten, name, file)?;
    Ok(0)
}

/// Logs in as libpq does; the inner error is what the server or the library says.
pub(super) fn connect(site: &Site, server: &str, name: &str, user: &str) -> io::Result<Result<(), String>> {
    let exists = match server {
        _ if server == database_server(&site.platform.name) => site.platform.instance(name).is_some(),
        _ if site.platform.scratch && server == scratch_server(&site.platform.name) => is_scratch(site, name),
        _ => return Ok(Err(format!("could not translate host name \"{server}\" to address: Name or service not known"))),
    };
    let known = exists.then(|| state::database(&site.layout, name)).transpose()?;
    let password = match std::env::var_os("PGPASSFILE").map(|file| password_from(Path::new(&file), server, name, user)) {
        Some(Ok(Some(password))) => password,
        Some(Ok(None)) | None => return Ok(Err("fe_sendauth: no password supplied".into())),
        Some(Err(warning)) => {
            complain(&warning);
            return Ok(Err("fe_sendauth: no password supplied".into()));
        }
    };
    Ok(match known {
        Some(database) if database.user != user || database.password_sha256 != sha256(password.as_bytes()) => {
            Err(format!("FATAL:  password authentication failed for user \"{user}\""))
        }
        None => Err(format!("FATAL:  database \"{name}\" does not exist")),
        Some(_) => Ok(()),
    })
}

/// The database server of a platform, as the inventory names it.
pub(crate) fn database_server(platform: &str) -> String {
    format!("db.{platform}.lab")
}

/// The scratch server of a platform, as the inventory names it.
pub(crate) fn scratch_server(platform: &str) -> String {
    format!("scratch.{platform}.lab")
}

/// The name of an instance's scratch database.
pub(crate) fn scratch_name(instance: &str) -> String {
    format!("{instance}_tried")
}

/// Whether a database is one of the platform's scratch databases.
pub(super) fn is_scratch(site: &Site, name: &str) -> bool {
    site.platform.scratch && site.platform.instances.iter().any(|instance| scratch_name(&instance.name) == name)
}

/// Looks a password up as libpq does: a plain file that nobody else can read, `host:port:database:user:password`, `*` for any, a
/// backslash before `:` and itself (PostgreSQL manual, "The Password File").
fn password_from(file: &Path, server: &str, name: &str, user: &str) -> Result<Option<String>, String> {
    let Ok(metadata) = fs::metadata(file) else { return Ok(None) };
    if !metadata.is_file() {
        return Err(format!("WARNING: password file \"{}\" is not a plain file", file.display()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "WARNING: password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
            file.display()
        ));
    }
    let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
    let wanted = [server, "5432", name, user];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = split_escaped(line);
        let Some((password, keys)) = fields.split_last().filter(|(_, keys)| keys.len() == wanted.len()) else { continue };
        if keys.iter().zip(wanted).all(|(key, wanted)| key == "*" || key == wanted) {
            return Ok(Some(password.clone()));
        }
    }
    Ok(None)
}

fn split_escaped(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, fields.len(), fields.last_mut()) {
            // The fifth field is the rest of the line, though escapes hold there too.
            (':', ..5, _) => fields.push(String::new()),
            ('\\', _, Some(field)) => field.extend(characters.next()),
            (other, _, Some(field)) => field.push(other),
            (_, _, None) => {}
        }
    }
    fields
}

/// `pg_restore --list FILE`, and `pg_restore --clean --if-exists --dbname=NAME .. FILE`.
pub(super) fn restore(site: &Site, arguments: &[String]) -> io::Result<u8> {
    if arguments.iter().any(|argument| argument == "--version") {
        say("pg_restore (PostgreSQL) 13.21");
        return Ok(0);
    }
    let plain = |argument: &&String| !argument.starts_with('-');
    let Some(file) = arguments.iter().find(plain) else {
        complain("pg_restore: error: one of -d/--dbname and -f/--file must be specified");
        return Ok(1);
    };
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let dump = match read_dump(file) {
        Ok(dump) => dump,
        Err(what) => {
            complain(&format!("pg_restore: error: {what}"));
            return Ok(1);
        }
    };
    if has("--list") || has("-l") {
        return list(site, file);
    }
    let known = ["--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-owner", "--no-password"];
    let values = ["--dbname=", "--host=", "--username="];
    let unknown = |argument: &&String| {
        argument.starts_with('-') && !known.contains(&argument.as_str()) && !values.iter().any(|value| argument.starts_with(value))
    };
    if let Some(unknown) = arguments.iter().find(unknown) {
        complain(&format!("pg_restore: unrecognized option '{unknown}'"));
        return Ok(1);
    }
    let server = option(arguments, "host").unwrap_or("localhost");
    let (Some(name), Some(user)) = (option(arguments, "dbname"), option(arguments, "username")) else {
        complain("pg_restore: error: the lab's stand-in needs --dbname= and --username=");
        return Ok(1);
    };
    if let Err(what) = connect(site, server, name, user)? {
        complain(&format!("pg_restore: error: connection to server at \"{server}\", port 5432 failed: {what}"));
        site.record(Event::RestoreFailed, name, &what)?;
        return Ok(1);
    }
    if is_scratch(site, name) {
        return try_out(site, name, &dump);
    }
    if !has("--clean") {
        complain("pg_restore: error: could not execute query: ERROR:  relation \"xtkoption\" already exists");
        site.record(Event::RestoreFailed, name, "not cleaned first")?;
        return Ok(1);
    }
    put_back(site, name, &dump, has("--single-transaction"))
}

/// What is in a dump: of which database, and its state.
type Dump = (String, u32, u32, u32);

fn read_dump(file: &str) -> Result<Dump, String> {
    let content = fs::read(file).map_err(|error| format!("could not open input file \"{file}\": {error}"))?;
    let cut_off = || {
        let what = if content.starts_with(MAGIC) { "could not read from input file: end of file" } else { NO_ARCHIVE };
        what.to_owned()
    };
    let (body, digest) = content.len().checked_sub(64).and_then(|at| content.split_at_checked(at)).ok_or_else(cut_off)?;
    let state = body.strip_prefix(MAGIC).filter(|_| sha256(body).as_bytes() == digest).ok_or_else(cut_off)?;
    let state = state.split(|byte| *byte == b'.').next().unwrap_or_default();
    serde_json::from_slice(state).map_err(|_| NO_ARCHIVE.to_owned())
}

fn list(site: &Site, file: &str) -> io::Result<u8> {
    site.record(Event::DumpListed, file, "")?;
    say(";\n; Archive created by the lab\n;     Format: CUSTOM\n;\n; Selected TOC Entries:\n;");
    for (number, table) in ["xtkoption", "xtkoperator", "nmsrecipient", "nmsdelivery"].iter().enumerate() {
        say(&format!("{}; 0 {} TABLE DATA public {table} neolane", 3200 + number, 16400 + number));
    }
    Ok(0)
}

/// Gives a database the state that it had when it was dumped. `whole`: in one transaction, so that a failure leaves it as it is.
fn put_back(site: &Site, name: &str, dump: &Dump, whole: bool) -> io::Result<u8> {
    let (from, build, completed, upgrades) = dump;
    let lock = state::lock_database(&site.layout, name)?;
    site.judge_restore(&mut site.writer()?, name, from, lock.is_none())?;
    let fails = site.meet("restore")?;
    let mut writer = site.writer()?;
    let now = state::database(&site.layout, name)?;
    if fails {
        if !whole {
            // Half the tables are gone: neither version can work with it.
            state::set_database(&site.layout, name, &state::Database { completed: 1, build: 0, ..now })?;
        }
        complain("pg_restore: error: could not execute query: server closed the connection unexpectedly");
        writer.append(Event::RestoreFailed, name, "connection lost")?;
        return Ok(1);
    }
    let restored = state::Database { build: *build, completed: *completed, upgrades: *upgrades, ..now };
    state::set_database(&site.layout, name, &restored)?;
    writer.append(Event::DumpRestored, name, &format!("build {build}"))?;
    Ok(0)
}

/// Restores a dump into a scratch database. No rule is about it: nothing of the platform uses that.
fn try_out(site: &Site, name: &str, dump: &Dump) -> io::Result<u8> {
    let (from, build, completed, upgrades) = dump;
    if site.meet("restore.scratch")? {
        complain("pg_restore: error: could not execute query: ERROR:  could not extend file: No space left on device");
        site.record(Event::RestoreFailed, name, "no space left")?;
        return Ok(1);
    }
    let now = state::database(&site.layout, name)?;
    let restored = state::Database { build: *build, completed: *completed, upgrades: *upgrades, ..now };
    state::set_database(&site.layout, name, &restored)?;
    site.record(Event::DumpTried, name, &format!("{from}, build {build}"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(content: &str, mode: u32) -> Result<Option<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        password_from(file.path(), "db", "demo", "neolane")
    }

    #[test]
    fn password_files_are_read_as_libpq_reads_them() {
        assert_eq!(lookup("# x\nother:*:demo:neolane:no\ndb:*:demo:neolane:pa\\:ss\n", 0o600), Ok(Some("pa:ss".into())));
        assert_eq!(lookup("*:*:*:*:a:b", 0o400), Ok(Some("a:b".into())));
        assert_eq!(lookup("db:5433:demo:neolane:x", 0o600), Ok(None));
        assert!(lookup("*:*:*:*:x", 0o640).unwrap_err().contains("group or world access"));
        assert_eq!(password_from(Path::new("/nowhere"), "db", "demo", "neolane"), Ok(None));
    }
}
