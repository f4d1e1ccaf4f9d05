//! Databases, and how they are backed up.

use super::SecretRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A database and how it is backed up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Database {
    /// The engine.
    pub engine: Engine,
    /// The database server's address.
    pub server: String,
    /// The database's name.
    pub name: String,
    /// The account.
    pub user: String,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// Whether it is a Unicode database, where the inventory says so.
    pub unicode: Option<bool>,
    /// How it is backed up.
    pub backup: Backup,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// Oracle.
    Oracle,
    /// Microsoft SQL Server.
    Mssql,
    /// MySQL.
    Mysql,
}

impl Engine {
    /// Whether it has a type for points in time with their time zone. With another one `-usetimestamptz:1` corrupts the database.
    pub fn keeps_time_zones(self) -> bool {
        !matches!(self, Self::Mysql)
    }
}

/// How a database is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backup {
    /// Caravan runs `pg_dump` on this host of the platform, into this directory.
    On {
        /// Host name.
        on: String,
        /// Directory on that host (`{host}` and `{platform}` resolved).
        dir: String,
        /// Where it is shown that the dump can be restored; only its table of contents is read when left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        scratch: Option<Scratch>,
    },
    /// The DBA does it: the plan has a gate for it.
    ByDba,
    /// The DBA does it, and this file is the backup: preflight looks at it, and the plan has a gate for it.
    Given(BackupFile),
}

/// A file that is a backup, made by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupFile {
    /// The host of the platform that has it.
    pub on: String,
    /// The file (`{host}` and `{platform}` resolved).
    pub path: String,
    /// Its SHA-256, lower-case hex; that of the `.sha256` file beside it when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The most seconds since it was written.
    pub max_age: u64,
    /// The least bytes that it has; at least one.
    pub min_size: u64,
}

/// A PostgreSQL database that a dump is restored into, to show that it can be. What was in it before is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scratch {
    /// Address of its server.
    pub server: String,
    /// Its name; no database of the fleet has it.
    pub name: String,
    /// Account that owns it: that of the instance's database, where the inventory gives none.
    pub user: String,
    /// Where the password is; that of the instance's database when left out.
    pub password: Option<SecretRef>,
}
