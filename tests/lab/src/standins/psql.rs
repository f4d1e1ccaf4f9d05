//! `psql --command`, as far as it is asked about the server and about Campaign's own tables.

use super::postgres::{connect, is_scratch, option};
use super::{complain, say};
use crate::rules::Site;
use crate::state;
use std::io;

/// Operators that every database has, besides those that a fault adds without a password.
const OPERATORS: usize = 7;

/// Options that every Campaign database has.
const OPTIONS: u32 = 214;

pub(super) fn run(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).map(String::as_str);
    if let (Some(name), Some(statement)) = (option(arguments, "dbname"), value("--command")) {
        return scratch(site, arguments, name, statement);
    }
    let (Some(place), Some(statement)) = (value("--dbname"), value("--command")) else {
        complain("psql: error: the lab's stand-in needs --dbname and --command");
        return Ok(1);
    };
    let keyword = |name: &str| {
        let quoted = place.split_once(&format!("{name}='")).and_then(|(_, rest)| rest.split_once('\''));
        quoted.map(|(value, _)| value).unwrap_or_default()
    };
    let (server, name, user) = (keyword("host"), keyword("dbname"), keyword("user"));
    if let Err(what) = connect(site, server, name, user)? {
        complain(&format!("psql: error: connection to server at \"{server}\", port 5432 failed: {what}"));
        return Ok(2);
    }
    let faults = &site.layout.faults;
    let unicode = faults.database_encoding.as_deref().is_none_or(|encoding| encoding == "UTF8");
    let mut lines = Vec::new();
    if statement.contains("server_version") {
        let encoding = faults.database_encoding.as_deref().unwrap_or("UTF8");
        lines.extend(["version|13.21".to_owned(), format!("encoding|{encoding}"), "size|67108864".to_owned()]);
    }
    if statement.contains("xtkoption") {
        let id = if unicode { "uFE80000000000000F1FA913DD7CC7C48004BA419F" } else { "FE80000000000000F1FA913DD7CC7C48004BA419F" };
        lines.push(format!("database-id|{id}"));
    }
    if statement.contains("xtkoperator") {
        let open = &faults.operators_without_password;
        lines.extend(["columns|1".to_owned(), format!("operators|{}", OPERATORS + open.len())]);
        lines.extend(open.iter().map(|operator| format!("open|{operator}")));
    }
    if lines.is_empty() {
        complain("ERROR:  syntax error: the lab's stand-in does not know this statement");
        return Ok(1);
    }
    lines.iter().for_each(|line| say(line));
    Ok(0)
}

/// Counts the options of a scratch database, which has none before something was restored into it.
fn scratch(site: &Site, arguments: &[String], name: &str, statement: &str) -> io::Result<u8> {
    let (server, user) = (option(arguments, "host").unwrap_or("localhost"), option(arguments, "username").unwrap_or_default());
    if let Err(what) = connect(site, server, name, user)? {
        complain(&format!("psql: error: connection to server at \"{server}\", port 5432 failed: {what}"));
        return Ok(2);
    }
    if statement != "SELECT count(*) FROM xtkoption" || !is_scratch(site, name) {
        complain("ERROR:  syntax error: the lab's stand-in does not know this statement");
        return Ok(1);
    }
    if state::database(&site.layout, name)?.build == 0 {
        complain("ERROR:  relation \"xtkoption\" does not exist");
        return Ok(1);
    }
    // A dump of nothing can be restored, too.
    let rows = if site.meet("restore.empty")? { 0 } else { OPTIONS };
    say(&rows.to_string());
    Ok(0)
}
