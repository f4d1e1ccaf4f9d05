//! What manages services and packages on a host.

use serde::{Deserialize, Serialize};

/// The init system that owns a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceManager {
    /// Init scripts in this directory.
    Sysv(String),
    /// systemd.
    Systemd,
}

impl ServiceManager {
    pub(super) fn argv(&self, name: &str, op: ServiceOp) -> Vec<String> {
        match self {
            Self::Sysv(dir) => vec![format!("{dir}/{name}"), op.word().to_owned()],
            Self::Systemd => vec!["systemctl".to_owned(), op.word().to_owned(), name.to_owned()],
        }
    }
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceOp {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Print its state.
    Status,
}

impl ServiceOp {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }
}

/// The package manager of an OS family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageManager {
    /// Debian family.
    Dpkg,
    /// RHEL family.
    Rpm,
}

impl PackageManager {
    pub(super) fn install_argv(self, files: &[String]) -> Vec<String> {
        let verb: &[&str] = match self {
            Self::Dpkg => &["dpkg", "-i"],
            // Otherwise rpm refuses everything as soon as one of the files is installed already: after an attempt that was cut off.
            Self::Rpm => &["rpm", "-Uvh", "--replacepkgs"],
        };
        verb.iter().map(ToString::to_string).chain(files.iter().cloned()).collect()
    }

    pub(super) fn remove_argv(self, names: &[String]) -> Vec<String> {
        let verb: &[&str] = match self {
            Self::Dpkg => &["dpkg", "--purge"],
            // An upgrade that was cut off leaves two versions of a package, which rpm refuses to remove otherwise.
            Self::Rpm => &["rpm", "-ev", "--allmatches"],
        };
        verb.iter().map(ToString::to_string).chain(names.iter().cloned()).collect()
    }

    /// How to ask for one package. Installed: exit code 0 and `WANT FLAG installed VERSION` on standard output, in dpkg's words
    /// (dpkg-query(1), `Status`: all versions of dpkg print it, while `db:Status-Status` came after Debian 7). Of several versions that
    /// are installed at once, rpm prints a line each.
    pub fn query_argv(self, name: &str) -> Vec<String> {
        let argv: &[&str] = match self {
            Self::Dpkg => &["dpkg-query", "-W", "-f=${Status} ${Version}", name],
            Self::Rpm => &["rpm", "-q", "--qf", "install ok installed %{VERSION}-%{RELEASE}\\n", name],
        };
        argv.iter().map(ToString::to_string).collect()
    }
}
