//! Reading facts from a host: questions and answers, all in one round trip.
//!
//! What a fact *means* is decided by the controller; the agent only reads. A new check therefore needs no new agent.

use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One question to a host. Answering it writes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Query {
    /// Operating system, kernel, architecture, init system, clock, machine id.
    System,
    /// Versions of packages.
    Packages {
        /// The package manager to ask.
        manager: crate::step::PackageManager,
        /// Package names.
        names: Vec<String>,
    },
    /// An attribute of an XML file.
    Xml {
        /// The file. The last path segment can be a pattern with `*`.
        file: String,
        /// The element's path from the root; a segment `*` matches any element.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// A keyed fingerprint of an attribute of an XML file: HMAC-SHA-256 with the key that [`crate::ToAgent::Secrets`] brought
    /// under the name [`FINGERPRINT_KEY`]. The value itself never leaves the host.
    Fingerprint {
        /// The file.
        file: String,
        /// The element's path from the root.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// Free space where a path is or would be.
    Space {
        /// The path.
        path: String,
    },
    /// Whether something exists, and what.
    Path {
        /// The path.
        path: String,
    },
    /// A file that is a backup: how large and how old it is, and its SHA-256 beside the one that was written down for it.
    File {
        /// The file. A link is not followed.
        path: String,
    },
    /// What a read-only program prints (`nlserver pdump`).
    Output {
        /// Program and arguments.
        argv: Vec<String>,
        /// A shell file that is sourced first if it exists.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
        /// As [`crate::step::Command::secret_files`]: environment variables that name a file in memory with a secret in it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        secret_files: BTreeMap<String, String>,
    },
    /// Processes whose executable lies under a directory.
    Processes {
        /// The directory.
        under: String,
    },
    /// Whether the host's own Campaign server accepts the password that [`crate::ToAgent::Secrets`] brought under the name
    /// [`LOGON_PASSWORD`]: one `xtk:session#Logon` over SOAP. It is sent to an address of the host itself and to no other; what a
    /// session needs of the answer stays on the host. Only agents that speak [`LOGON_SINCE`] know this question: to an older one the
    /// whole `Inspect` is a message that it cannot understand, and it ends.
    Logon {
        /// `http://HOST[:PORT]/PATH` of the host's own SOAP router.
        url: String,
        /// The account (`internal`).
        account: String,
    },
}

impl Query {
    /// The names of the secrets that it needs ([`crate::ToAgent::Secrets`]), besides the key of the fingerprints.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let files = match self {
            Self::Output { secret_files, .. } => Some(secret_files.values()),
            _ => None,
        };
        let password = matches!(self, Self::Logon { .. }).then_some(LOGON_PASSWORD);
        files.into_iter().flatten().flat_map(|content| crate::secret::names(content)).chain(password)
    }
}

/// The name under which the key of the fingerprints is sent.
pub const FINGERPRINT_KEY: &str = "fingerprint-key";
/// The name under which the password for [`Query::Logon`] is sent.
pub const LOGON_PASSWORD: &str = "logon-password";
/// The first protocol with [`Query::Logon`].
pub const LOGON_SINCE: u16 = 2;

/// The answer to one [`Query`], or why there is none. In the order of the questions.
pub type Reading = Result<Answer, ReadError>;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum ReadError {
    /// The file or program does not exist.
    #[error("{0} does not exist")]
    Missing(String),
    /// The account has no right to read it.
    #[error("no permission to read {0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Query::System`].
    System(System),
    /// To [`Query::Packages`]: name and version of those that are installed.
    Packages(Vec<(String, String)>),
    /// To [`Query::Xml`]: one entry for each element that the path selects.
    Xml(Vec<XmlValue>),
    /// To [`Query::Fingerprint`].
    Fingerprint(Fingerprint),
    /// To [`Query::Space`], in bytes and inodes.
    Space {
        /// Bytes that an unprivileged process can use.
        free: u64,
        /// Free inodes; zero where the file system does not count them.
        inodes: u64,
    },
    /// To [`Query::Path`].
    Path(PathKind),
    /// To [`Query::File`].
    File(FileFacts),
    /// To [`Query::Output`].
    Output {
        /// Exit code; -1 when a signal ended it.
        code: i32,
        /// Standard output and standard error, at most 64 KiB.
        text: String,
    },
    /// To [`Query::Processes`]: process id and executable.
    Processes(Vec<(u32, String)>),
    /// To [`Query::Logon`]. An endpoint that could not be asked is a [`ReadError`].
    Logon(Logon),
}

/// What a Campaign server said to a logon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logon {
    /// It opened a session.
    Accepted,
    /// It answered with a SOAP fault; this is its text, without control characters, at most [`FAULT_LIMIT`] characters.
    Refused(String),
}

/// The most characters of a fault's text.
pub const FAULT_LIMIT: usize = 300;

/// What a host is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// `ID` of `/etc/os-release` and the major version: `debian-11`, `rhel-8`; empty when unknown.
    pub os: String,
    /// `ID_LIKE` families and `ID`, space separated.
    pub os_like: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine name as `uname -m` prints it.
    pub arch: String,
    /// Whether systemd runs (`/run/systemd/system` exists).
    pub systemd: bool,
    /// The host's clock, milliseconds since 1970 UTC.
    pub clock_ms: u64,
    /// `/etc/machine-id`; empty when there is none.
    pub machine_id: String,
    /// The host's own name.
    pub hostname: String,
    /// Effective user id of the agent.
    pub euid: u32,
}

/// One attribute that was found, or found missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XmlValue {
    /// The file it is in.
    pub file: String,
    /// The value; `None` when the element has no such attribute.
    pub value: Option<String>,
}

/// A stored secret, seen from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fingerprint {
    /// The attribute is missing or empty: no secret is set.
    Unset,
    /// HMAC-SHA-256 of the stored value, lower-case hex. Typed as a secret, so that it reaches no log.
    Keyed(Secret),
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its size in bytes.
    pub size: u64,
    /// When it was written last, milliseconds since 1970 UTC, by the host's clock.
    pub modified_ms: u64,
    /// Its SHA-256, lower-case hex; nothing where it is too large to be read in the time that an answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the `.sha256` file beside it says, where there is one; at most 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Nothing.
    Absent,
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}
