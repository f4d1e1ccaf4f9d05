//! What a database says of itself: its version, its encoding, its size, and what Campaign keeps in it (domain: prerequisites 2 to 5).
//!
//! Asked with `psql` on the host that makes the backup, with the inventory's password in a file in memory. So a logon that would fail in
//! the window fails before anything is touched. Databases that somebody else backs up cannot be asked from here.

use super::finding::{NOT_REACHED, Subject, clean};
use super::readings::{HostState, Readings};
use crate::plan::{pgpass, scratch, scratch_secrets};
use inventory::{Backup, Database, Engine, Host, Instance, Platform};
use proto::event::{Finding, Status};
use proto::inspect::{Query, ReadError};
use std::collections::{BTreeMap, BTreeSet};

/// Operators named in a finding before the rest is only counted.
const NAMED: usize = 5;
/// The accounts that need a password in v7 (domain: prerequisite 5). `internal` is kept in serverConf.xml and not in the database.
const ADMIN: &str = "admin";

/// What the server says; any account may ask it.
const SERVER: &str = "SELECT 'version|' || current_setting('server_version') \
     UNION ALL SELECT 'encoding|' || current_setting('server_encoding') \
     UNION ALL SELECT 'size|' || pg_database_size(current_database())";

/// The options of Campaign that are looked at. Apart from the operators: what one of the two cannot say, the other one still does.
const OPTIONS: &str = "SELECT 'database-id|' || coalesce(sstringvalue, '') FROM xtkoption WHERE sname = 'XtkDatabaseId'";

/// The operators, and those without a password. Where it is kept is not documented: a column of its own and the record's XML are both
/// looked at, whichever exists, and only whether something is there leaves the database.
///
/// Old fleets run PostgreSQL 8.4, which can make no JSON of a row of unknown columns. A name that the innermost FROM does not know is
/// looked up in the one around it: so a column that is missing is the empty one of `absent`.
const OPERATORS: &str = "SELECT 'columns|' || count(*) FROM information_schema.columns \
     WHERE lower(table_name) = 'xtkoperator' AND lower(column_name) IN ('spassword', 'mdata') \
     UNION ALL SELECT 'operators|' || count(*) FROM xtkoperator \
     UNION ALL SELECT 'open|' || unnest(ARRAY(SELECT o.sname::text FROM xtkoperator o WHERE coalesce(spassword::text, '') = '' \
     AND coalesce(mdata::text, '') !~* '(^|[^a-z])password(hash)?=\"[^\"]+\"')) \
     FROM (SELECT ''::text AS spassword, ''::text AS mdata) absent";

/// Why a database was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// The inventory does not describe it, or it is not PostgreSQL, or somebody else backs it up.
    NotOurs,
    /// The inventory has no password for it.
    NoPassword,
}

/// The database of an instance and the host that asks it.
pub(super) fn asked_by<'a>(platform: &'a Platform, instance: &'a Instance) -> Result<(&'a Host, &'a Database), NotAsked> {
    let database = of(platform, instance).ok_or(NotAsked::NotOurs)?;
    let Backup::On { on, .. } = &database.backup else { return Err(NotAsked::NotOurs) };
    let host = platform.host(on).filter(|host| !host.is_windows()).ok_or(NotAsked::NotOurs)?;
    match (database.engine, &database.password) {
        (Engine::Postgresql, Some(_)) => Ok((host, database)),
        (Engine::Postgresql, None) => Err(NotAsked::NoPassword),
        _ => Err(NotAsked::NotOurs),
    }
}

/// An instance's database: its own, or its platform's.
pub(super) fn of<'a>(platform: &'a Platform, instance: &'a Instance) -> Option<&'a Database> {
    instance.database.as_ref().or(platform.database.as_ref())
}

/// What is asked on a host of the databases that are backed up from it.
pub(super) fn queries(platform: &Platform, host: &Host) -> Vec<Query> {
    let asked = |instance: &Instance| {
        let (_, database) = asked_by(platform, instance).ok().filter(|(on, _)| on.name == host.name)?;
        Some([SERVER, OPTIONS, OPERATORS].map(|statement| query(database, &instance.name, statement)))
    };
    let scratch =
        |instance: &Instance| scratch_query(platform, instance).filter(|(on, _)| *on == host.name).map(|(_, query)| query);
    let instances = || platform.instances.iter();
    instances().filter_map(asked).flatten().chain(instances().filter_map(scratch)).collect()
}

/// The names of the passwords that it takes to ask the databases of a platform.
pub fn passwords(platform: &Platform) -> BTreeSet<String> {
    let asked: Vec<Query> = platform.hosts.iter().flat_map(|host| queries(platform, host)).collect();
    asked.iter().flat_map(Query::secrets).map(str::to_owned).collect()
}

fn query(database: &Database, instance: &str, statement: &str) -> Query {
    let secret_files = BTreeMap::from([("PGPASSFILE".to_owned(), pgpass(database, instance))]);
    psql([&database.server, &database.name, &database.user], secret_files, statement)
}

/// What the scratch database of an instance is asked, and on which host. The restore is tried when everything is stopped, so that a logon
/// which would fail then has to be found before.
fn scratch_query<'a>(platform: &Platform, instance: &'a Instance) -> Option<(&'a str, Query)> {
    let (scratch, database) = (scratch(platform, instance)?, instance.database.as_ref()?);
    let Backup::On { on, .. } = &database.backup else { return None };
    let secret_files = scratch_secrets(scratch, database, &instance.name);
    Some((on, psql([&scratch.server, &scratch.name, &scratch.user], secret_files, SERVER)))
}

fn psql([server, name, user]: [&str; 3], secret_files: BTreeMap<String, String>, statement: &str) -> Query {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    // A server that does not answer must not use up the time that the host has for all questions.
    let place = format!("host={} dbname={} user={} connect_timeout=10", quoted(server), quoted(name), quoted(user));
    let words = [
        "psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--quiet",
        "--no-password",
        "--dbname",
        &place,
        "--command",
        statement,
    ];
    Query::Output { argv: words.map(str::to_owned).to_vec(), profile: None, secret_files }
}

/// What a database server said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// `13.21`.
    pub(super) version: String,
    /// `UTF8`.
    pub(super) encoding: String,
    /// Bytes on its disk.
    pub(super) size: u64,
}

/// What Campaign's operators came to.
#[derive(Debug)]
struct Operators {
    /// How many there are.
    count: u64,
    /// Those without a password; nothing where it cannot be told.
    open: Option<BTreeSet<String>>,
}

/// Why the database has not said it.
pub(super) enum Silent {
    /// `psql` answered with an error.
    Refused(String),
    /// It could not be asked.
    Unread(ReadError),
}

/// What the server of an instance's database said, where it was asked and the host that asks was reached.
pub(super) fn server(
    platform: &Platform,
    instance: &Instance,
    hosts: &BTreeMap<String, HostState>,
) -> Option<Result<Server, Silent>> {
    let said = said(platform, instance, hosts, SERVER)?;
    Some(said.map(|said| {
        let one = |key: &str| said.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap_or_default();
        Server { version: one("version"), encoding: one("encoding"), size: one("size").parse().unwrap_or_default() }
    }))
}

/// The option `XtkDatabaseId`, as [`server`]; nothing where it is not set.
pub(super) fn database_id(
    platform: &Platform,
    instance: &Instance,
    hosts: &BTreeMap<String, HostState>,
) -> Option<Result<Option<String>, Silent>> {
    let said = said(platform, instance, hosts, OPTIONS)?;
    let id = |said: Said| said.into_iter().find(|(name, id)| name == "database-id" && !id.is_empty()).map(|(_, id)| id);
    Some(said.map(id))
}

/// What is said of the operators, as [`server`].
fn operators(platform: &Platform, instance: &Instance, hosts: &BTreeMap<String, HostState>) -> Option<Result<Operators, Silent>> {
    let said = said(platform, instance, hosts, OPERATORS)?;
    Some(said.map(|said| {
        let all = |key: &str| said.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.clone()).collect::<Vec<_>>();
        let number = |key: &str| all(key).first().and_then(|value| value.parse().ok()).unwrap_or(0);
        let open = (number("columns") > 0).then(|| all("open").into_iter().collect());
        Operators { count: number("operators"), open }
    }))
}

type Said = Vec<(String, String)>;

fn said(
    platform: &Platform,
    instance: &Instance,
    hosts: &BTreeMap<String, HostState>,
    statement: &str,
) -> Option<Result<Said, Silent>> {
    let (host, database) = asked_by(platform, instance).ok()?;
    answered(hosts, &host.name, &query(database, &instance.name, statement))
}

/// Whether the scratch database of an instance answers; nothing where there is none, or the host that asks was not reached.
pub(super) fn scratch_answers(
    platform: &Platform,
    instance: &Instance,
    hosts: &BTreeMap<String, HostState>,
) -> Option<Result<(), Silent>> {
    let (host, query) = scratch_query(platform, instance)?;
    answered(hosts, host, &query).map(|said| said.map(|_| ()))
}

fn answered(hosts: &BTreeMap<String, HostState>, host: &str, query: &Query) -> Option<Result<Said, Silent>> {
    let readings: &Readings = &hosts.get(host)?.reached()?.readings;
    let pair = |line: &str| line.split_once('|').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    Some(match readings.output(query) {
        Ok((0, text)) => Ok(text.lines().filter_map(pair).collect()),
        Ok((code, text)) => {
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output");
            Err(Silent::Refused(format!("psql: exit {code}: {}", clean(line))))
        }
        Err(error) => Err(Silent::Unread(error)),
    })
}

/// Whether the database can be logged on to, and whether its operators have passwords.
pub(super) fn evaluate(platform: &Platform, instance: &Instance, hosts: &BTreeMap<String, HostState>) -> Vec<Finding> {
    let subject = Subject::instance(platform, instance);
    let (host, database) = match asked_by(platform, instance) {
        Ok(asked) => asked,
        Err(why) => return vec![by_hand(subject, why)],
    };
    if hosts.get(&host.name).and_then(HostState::reached).is_none() {
        let evidence = format!("{NOT_REACHED}{}", host.name);
        let unknown =
            |check| subject.finding(check, Status::Unknown, "the host that asks the database was not reached", &*evidence, "");
        return vec![unknown("database"), unknown("operator-passwords")];
    }
    let mut findings = Vec::new();
    match server(platform, instance, hosts) {
        Some(Ok(server)) => findings.push(answers(subject, host, database, &server)),
        Some(Err(silent)) => {
            // What its tables say follows from it: one finding is enough.
            return vec![no_answer(subject, "database", host, silent)];
        }
        None => {}
    }
    match operators(platform, instance, hosts) {
        Some(Ok(operators)) => findings.push(with_passwords(subject, &operators)),
        Some(Err(silent)) => findings.push(no_operators(subject, silent)),
        None => {}
    }
    findings
}

fn by_hand(subject: Subject<'_>, why: NotAsked) -> Finding {
    let (seen, remedy) = match why {
        NotAsked::NotOurs => (
            "Caravan has no access to this database",
            "See to it that `admin` and all operators have passwords: v7 lets nobody log on without one.",
        ),
        NotAsked::NoPassword => (
            "`database.password` is not in the inventory",
            "Set `database.password` in the inventory, or see to it by hand that `admin` and all operators have passwords.",
        ),
    };
    subject.finding(
        "operator-passwords",
        Status::Warning,
        "whether operators have passwords is not looked at from here",
        seen,
        remedy,
    )
}

fn answers(subject: Subject<'_>, host: &Host, database: &Database, server: &Server) -> Finding {
    let Server { version, encoding, size } = server;
    let evidence = format!("psql on {}: {version}, {encoding}, {} MiB", host.name, size / (1024 * 1024));
    if version.is_empty() || *size == 0 {
        let remedy = "Run the same psql there by hand and look at what it says.";
        return subject.finding("database", Status::Unknown, "the database does not say what it is", clean(&evidence), remedy);
    }
    subject.ok(
        "database",
        format!("`{}` on {} answers: PostgreSQL {}", database.name, database.server, clean(version)),
        clean(&evidence),
    )
}

fn no_answer(subject: Subject<'_>, check: &'static str, host: &Host, silent: Silent) -> Finding {
    match silent {
        Silent::Refused(seen) => {
            let message = format!("the database cannot be logged on to from {}: its backup would fail", host.name);
            let remedy =
                "Correct `database` in the inventory (server, name, user, password), or let that host in (pg_hba.conf, firewall).";
            subject.finding(check, Status::Failure, message, seen, remedy)
        }
        Silent::Unread(ReadError::Missing(_)) => {
            let message = format!("the database cannot be asked: psql is not on {}", host.name);
            subject.finding(
                check,
                Status::Unknown,
                message,
                "psql is not in PATH",
                "Install the PostgreSQL client there; pg_dump needs it too.",
            )
        }
        Silent::Unread(error) => subject.unread(check, "what the database says", &error),
    }
}

fn no_operators(subject: Subject<'_>, silent: Silent) -> Finding {
    let check = "operator-passwords";
    let remedy = "See to it by hand that `admin` and all operators have passwords, then override this with what was seen.";
    match silent {
        Silent::Refused(seen) => subject.finding(
            check,
            Status::Unknown,
            "Campaign's operators cannot be read with the account of the inventory",
            seen,
            remedy,
        ),
        Silent::Unread(error) => subject.unread(check, "Campaign's operators", &error),
    }
}

fn with_passwords(subject: Subject<'_>, operators: &Operators) -> Finding {
    let check = "operator-passwords";
    let evidence = format!("xtkoperator: {} operators", operators.count);
    let Some(open) = &operators.open else {
        let remedy = "See to it by hand that `admin` and all operators have passwords, then override this with what was seen.";
        return subject.finding(
            check,
            Status::Unknown,
            "where this version keeps operators' passwords is not known",
            evidence,
            remedy,
        );
    };
    if open.is_empty() {
        return subject.ok(check, "every operator has a password", evidence);
    }
    let mut named: Vec<String> = open.iter().take(NAMED).map(|name| clean(name)).collect();
    if open.len() > NAMED {
        named.push(format!("{} more", open.len() - NAMED));
    }
    let (status, remedy) = match open.contains(ADMIN) {
        true => (
            Status::Failure,
            "Give `admin` a password in the client console (Administration > Access management > Operators): v7 lets nobody log on without one.",
        ),
        false => (Status::Warning, "Give them passwords in the client console before the migration, or disable the accounts."),
    };
    subject.finding(check, status, format!("without a password: {}", named.join(", ")), evidence, remedy)
}
