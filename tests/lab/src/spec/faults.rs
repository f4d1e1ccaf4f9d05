//! What goes wrong in a lab.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What goes wrong, on which hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// These tracking servers have another `internal` password than the rest of their platform.
    #[serde(default)]
    pub different_password: Vec<String>,
    /// On these the `internal` password is not set.
    #[serde(default)]
    pub empty_password: Vec<String>,
    /// On these tracking servers the tracking password is not set.
    #[serde(default)]
    pub empty_tracking_password: Vec<String>,
    /// On these `serverConf.xml` cannot be read: it ends in the middle, and other accounts have no right to read it.
    #[serde(default)]
    pub unreadable_conf: Vec<String>,
    /// Operators without a password in every database, besides those with one.
    #[serde(default)]
    pub operators_without_password: Vec<String>,
    /// The encoding that every database names; `UTF8` when left out.
    #[serde(default)]
    pub database_encoding: Option<String>,
    /// Stand-ins that fail.
    #[serde(default)]
    pub fail: Vec<Failing>,
    /// Stand-ins that take longer.
    #[serde(default)]
    pub slow: Vec<Slow>,
    /// Hosts that refuse connections.
    #[serde(default)]
    pub unreachable: Vec<String>,
    /// Hosts that accept connections and then say nothing.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Hosts whose connections are cut when a stand-in begins something.
    #[serde(default)]
    pub cut: Vec<Cut>,
    /// Hosts whose links lose packets (realistic hosts only).
    #[serde(default)]
    pub loss: Vec<Loss>,
    /// Hosts whose links are slow (realistic hosts only).
    #[serde(default)]
    pub slow_links: Vec<SlowLink>,
}

/// A stand-in that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// On which host.
    pub host: String,
    /// What fails: see [`STEPS`], or `module:NAME@INSTANCE`.
    pub step: String,
    /// How many times; always when left out.
    #[serde(default)]
    pub times: Option<u32>,
}

/// A stand-in that takes longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// On which host.
    pub host: String,
    /// What is slow: see [`STEPS`].
    pub what: String,
    /// By how many seconds.
    pub seconds: seconds::Seconds,
}

/// A connection that is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// On which host.
    pub host: String,
    /// When this begins: see [`STEPS`].
    pub after: String,
    /// How many times; once when left out.
    #[serde(default)]
    pub times: Option<u32>,
}

/// A link that loses packets, in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// The host's.
    pub host: String,
    /// How many of a hundred.
    pub percent: u8,
}

/// A link that lets no more through than this, in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowLink {
    /// The host's.
    pub host: String,
    /// As `tc` writes it: `256kbit`.
    pub rate: String,
}

/// Seconds with a fraction, kept as whole milliseconds so that specs can be compared.
pub mod seconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A duration, written as seconds (`1.5`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Seconds(
        /// Milliseconds.
        pub u64,
    );

    impl Serialize for Seconds {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_f64(self.0 as f64 / 1000.0)
        }
    }

    impl<'de> Deserialize<'de> for Seconds {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let seconds = f64::deserialize(deserializer)?;
            if !(0.0..=3600.0).contains(&seconds) {
                return Err(serde::de::Error::custom(format!("`{seconds}` is not between 0 and 3600 seconds")));
            }
            Ok(Self((seconds * 1000.0) as u64))
        }
    }
}

/// What stand-ins can be told to fail at, to be slow at, or to cut the connection at.
///
/// - `stop`: a module ignores the request to end (fail), or ends late (slow)
/// - `dump`: `pg_dump`
/// - `restore`: `pg_restore` into a database
/// - `remove`, `install`: the package manager
/// - `postupgrade.check`, `postupgrade`: a `>>>` line, and nothing was migrated
/// - `apache`: the web server does not start
/// - `apache.library`: it starts and goes on with the library of the version before
/// - `password`: `nlserver config -internalpassword` fails after the last answer, and nothing was changed (fail), or asks late (slow)
/// - `password.prompt` (fail only): it never asks
/// - `logon`: the SOAP router is out of service
/// - `module:NAME@INSTANCE` (fail only): the module does not come up
pub const STEPS: &[&str] = &[
    "stop",
    "dump",
    "restore",
    "restore.scratch",
    "restore.empty",
    "remove",
    "install",
    "postupgrade.check",
    "postupgrade",
    "apache",
    "apache.library",
    "password",
    "password.prompt",
    "logon",
];

impl Faults {
    /// Checks what the types cannot say. `known`: the hosts that there are.
    pub(super) fn validate(&self, known: &BTreeSet<String>) -> Result<(), String> {
        let named = [
            &self.different_password,
            &self.empty_password,
            &self.empty_tracking_password,
            &self.unreadable_conf,
            &self.unreachable,
            &self.silent,
        ];
        let hosts = named.into_iter().flatten();
        let hosts = hosts.chain(self.fail.iter().map(|f| &f.host)).chain(self.slow.iter().map(|f| &f.host));
        let links = self.loss.iter().map(|f| &f.host).chain(self.slow_links.iter().map(|f| &f.host));
        for host in hosts.chain(self.cut.iter().map(|f| &f.host)).chain(links) {
            if !known.contains(host) {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(format!("faults name the host `{host}`, which does not exist; there are: {}", names.join(", ")));
            }
        }
        if let Some(loss) = self.loss.iter().find(|loss| loss.percent > 100) {
            return Err(format!("{} loses {} of a hundred packets: 100 is all of them", loss.host, loss.percent));
        }
        let is_rate = |text: &str| {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            unit.len() < text.len() && ["bit", "kbit", "mbit", "gbit"].contains(&unit)
        };
        if let Some(link) = self.slow_links.iter().find(|link| !is_rate(&link.rate)) {
            return Err(format!("the link of {} has the rate `{}`: write it as `256kbit` or `10mbit`", link.host, link.rate));
        }
        let steps = self.fail.iter().map(|f| (&f.step, true));
        let steps = steps.chain(self.slow.iter().map(|f| (&f.what, false)));
        for (step, failing) in steps.chain(self.cut.iter().map(|f| (&f.after, false))) {
            let module = failing && step.strip_prefix("module:").is_some_and(|name| name.contains('@'));
            if !module && !STEPS.contains(&step.as_str()) {
                return Err(format!("faults name `{step}`; there are: {}, and for `fail` module:NAME@INSTANCE", STEPS.join(", ")));
            }
        }
        Ok(())
    }
}
