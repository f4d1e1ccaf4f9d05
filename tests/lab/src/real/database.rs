//! The database of an instance of a realistic lab: a real one, on a real PostgreSQL server.

use crate::furnish::{DATABASE_USER, SCRATCH_USER, Secrets};
use crate::layout::{Host, Layout, Platform};
use crate::standins::scratch_name;
use crate::state::Database;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What is in a database before anybody touches it. `{build}` is the build of its schema.
const CONTENT: &str = "
CREATE TABLE xtkoption (sname text PRIMARY KEY, sstringvalue text NOT NULL);
INSERT INTO xtkoption VALUES ('XtkDatabaseId', 'uFE80000000000000F1FA913DD7CC7C48004BA419F'), ('XtkDatabaseBuild', '{build}'),
    ('LabCompleted', '0'), ('LabUpgrades', '0');
CREATE TABLE nmsrecipient (irecipientid integer PRIMARY KEY, semail text NOT NULL, slastname text);
INSERT INTO nmsrecipient SELECT n, 'Person.' || n || '@example.com', md5(n::text) FROM generate_series(1, 2000) n;
CREATE INDEX nmsrecipient_email ON nmsrecipient (semail);
CREATE TABLE xtkoperator (ioperatorid integer PRIMARY KEY, sname text NOT NULL, spassword text);
INSERT INTO xtkoperator SELECT n, 'operator' || n, '@' || md5(n::text) || '==' FROM generate_series(1, 7) n;
{open}";

/// What each part of an upgrade does to a database: the kinds of changes that only a restore takes back.
const CHANGES: [&str; 5] = [
    "",
    "ALTER TABLE nmsrecipient ADD COLUMN iformatv7 integer NOT NULL DEFAULT 0;",
    "CREATE TABLE nmsv7only (ikey integer PRIMARY KEY); INSERT INTO nmsv7only SELECT generate_series(1, 50);",
    "UPDATE nmsrecipient SET semail = lower(semail), iformatv7 = 1; DELETE FROM nmsrecipient WHERE irecipientid % 10 = 0;",
    "",
];

/// The host with the database server of a platform: the application server of its first instance.
pub(crate) fn server(platform: &Platform) -> io::Result<&Host> {
    let app = platform.instances.first().map(|instance| instance.app.as_str()).unwrap_or_default();
    platform.host(app).ok_or_else(|| io::Error::other(format!("{} has no host for its databases", platform.name)))
}

/// The commands that make the accounts and databases of a platform, for the administrator of its server.
pub(crate) fn creation(layout: &Layout, platform: &Platform, secrets: &Secrets) -> String {
    let mut sql = format!("CREATE ROLE {DATABASE_USER} LOGIN PASSWORD '{}';\n", secrets.database_password);
    if platform.scratch {
        sql.push_str(&format!("CREATE ROLE {SCRATCH_USER} LOGIN PASSWORD '{}';\n", secrets.scratch_password));
    }
    let open = layout.faults.operators_without_password.iter().enumerate();
    let open: String =
        open.map(|(number, name)| format!("INSERT INTO xtkoperator VALUES ({}, '{name}', '');\n", 100 + number)).collect();
    let encoding = layout.faults.database_encoding.as_deref().unwrap_or("UTF8");
    for instance in &platform.instances {
        let name = &instance.name;
        let content = CONTENT.replace("{build}", &platform.source.build.to_string()).replace("{open}", &open);
        let create = |name: &str, owner: &str| {
            format!(
                "CREATE DATABASE \"{name}\" OWNER {owner} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C';\n"
            )
        };
        if platform.scratch {
            sql.push_str(&create(&scratch_name(name), SCRATCH_USER));
        }
        sql.push_str(&create(name, DATABASE_USER));
        sql.push_str(&format!("\\connect \"{name}\"\nSET ROLE {DATABASE_USER};\n{content}RESET ROLE;\n\\connect postgres\n"));
    }
    sql
}

/// The file that counts the dumps of a database, which the database itself does not know of.
fn dumps_file(layout: &Layout, instance: &str) -> PathBuf {
    layout.dir.join("databases").join(format!("{instance}.dumps"))
}

/// Counts one more dump.
pub(crate) fn count_dump(layout: &Layout, instance: &str) -> io::Result<()> {
    std::fs::write(dumps_file(layout, instance), (dumps(layout, instance) + 1).to_string())
}

fn dumps(layout: &Layout, instance: &str) -> u32 {
    std::fs::read_to_string(dumps_file(layout, instance)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The state of an instance's database.
pub(crate) fn read(layout: &Layout, instance: &str) -> io::Result<Database> {
    let options = ask(layout, instance, "SELECT sname || '=' || sstringvalue FROM xtkoption")?;
    let number = |name: &str| {
        let value = options.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| io::Error::other(format!("{instance}: no option {name}")))
    };
    Ok(Database {
        user: DATABASE_USER.to_owned(),
        password_sha256: String::new(),
        build: number("XtkDatabaseBuild")?,
        completed: number("LabCompleted")?,
        upgrades: number("LabUpgrades")?,
        dumps: dumps(layout, instance),
    })
}

/// Makes the changes of a part of an upgrade, in one transaction with the note that it is completed.
pub(crate) fn write(layout: &Layout, instance: &str, state: &Database) -> io::Result<()> {
    let now = read(layout, instance)?;
    let mut sql = String::from("BEGIN;");
    let parts = (now.completed..state.completed).filter_map(|part| CHANGES.get(part as usize));
    parts.for_each(|change| sql.push_str(change));
    for (name, value) in [("XtkDatabaseBuild", state.build), ("LabCompleted", state.completed), ("LabUpgrades", state.upgrades)] {
        sql.push_str(&format!("UPDATE xtkoption SET sstringvalue = '{value}' WHERE sname = '{name}';"));
    }
    sql.push_str("COMMIT;");
    ask(layout, instance, &sql).map(|_| ())
}

/// The platform whose instance has this scratch database.
pub(crate) fn platform_of_scratch<'a>(layout: &'a Layout, name: &str) -> Option<&'a Platform> {
    let has = |platform: &&Platform| platform.instances.iter().any(|instance| scratch_name(&instance.name) == name);
    layout.platforms.iter().filter(|platform| platform.scratch).find(has)
}

/// Runs SQL in the database of an instance or in a scratch database, as the account that it belongs to, and gives the rows.
pub(crate) fn ask(layout: &Layout, database: &str, sql: &str) -> io::Result<String> {
    let own = layout.platforms.iter().find(|platform| platform.instance(database).is_some());
    let (platform, user, password) = match (own, platform_of_scratch(layout, database)) {
        (Some(platform), _) => (platform, DATABASE_USER, "db.pw"),
        (None, Some(platform)) => (platform, SCRATCH_USER, "scratch.pw"),
        (None, None) => return Err(io::Error::other(format!("the lab has no database {database}"))),
    };
    let password = std::fs::read_to_string(layout.dir.join(password))?;
    let address = server(platform)?.address.to_string();
    let mut psql = Command::new("/usr/bin/psql");
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", user, "-h", &address, "-d", database, "-c", sql]);
    psql.env("PGPASSWORD", password.trim()).env("PGCONNECT_TIMEOUT", "10").stdin(Stdio::null());
    let output = psql.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!("{database}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
