//! A server: how it is reached, and what is on it.

use super::{Keep, Role, SecretRef, Source, Target};
use crate::legacy::Legacy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Its name; unique in the fleet.
    pub name: String,
    /// Where SSH connects to (name or address). The name, where the inventory gives none.
    pub address: String,
    /// Distribution and major version (`debian-11`, `rhel-8`, `windows`); asked from the host when left out.
    pub os: Option<String>,
    /// What it is for; at least one.
    pub roles: Vec<Role>,
    /// The web server of a tracking server.
    pub web: Web,
    /// Its init system; asked from the host when left out.
    pub init: Option<InitSystem>,
    /// Where init scripts are (`/etc/init.d`).
    pub init_scripts: String,
    /// How SSH reaches it.
    pub ssh: Ssh,
    /// How the agent becomes root.
    #[serde(rename = "become")]
    pub become_: Become,
    /// The Campaign installation.
    pub campaign: Campaign,
    /// Caravan's directory on the host.
    pub host_state: String,
    /// What is installed now.
    pub source: Source,
    /// What shall be installed.
    pub target: Target,
    /// Which of its backups are kept off it; none when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Where values came from: key path (`ssh.user`) to place (`default`, `fleet.yaml:12:5 (defaults)`), for `inventory list -v`.
    #[serde(skip)]
    pub origins: BTreeMap<String, String>,
    /// `line:column` of the host in its file.
    #[serde(skip)]
    pub place: String,
}

impl Host {
    /// Whether it is a Windows host, whose steps are gates.
    pub fn is_windows(&self) -> bool {
        self.os.as_deref().is_some_and(|os| os == "windows" || os.starts_with("windows-"))
    }

    /// Whether root can be had on it: by `become`, or because the inventory says that the login account is root. Without it every step
    /// runs as the login account.
    pub fn has_root(&self) -> bool {
        self.become_.method != BecomeMethod::None || self.ssh.user.as_deref() == Some("root")
    }

    /// Whether it carries a Campaign installation (everything but a pure database server).
    pub fn has_campaign(&self) -> bool {
        self.roles.iter().any(|role| *role != Role::Database)
    }
}

/// The web server of a tracking server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Web {
    /// Which one.
    pub server: WebServer,
    /// Where the host itself reaches it, `HOST:PORT` (`localhost:80`).
    pub address: String,
    /// Its service name (`apache2` on Debian, `httpd` on RHEL), where the inventory gives one.
    pub service: Option<String>,
    /// The directory of its configuration (`/etc/apache2` on Debian, `/etc/httpd` on RHEL), where the inventory gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// A web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebServer {
    /// Apache HTTP Server.
    Apache,
    /// Internet Information Services.
    Iis,
}

/// An init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InitSystem {
    /// Init scripts.
    Sysv,
    /// systemd.
    Systemd,
}

/// How SSH reaches a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ssh {
    /// Login account; what ssh_config says, or the workstation's own account name, when left out.
    pub user: Option<String>,
    /// Port; what ssh_config says, or 22, when left out.
    pub port: Option<u16>,
    /// Private key files, tried in order; `~` stands for the home directory.
    pub identity: Vec<String>,
    /// Where the login password is, for servers that want one.
    pub password: Option<SecretRef>,
    /// Jump host, `[USER@]HOST[:PORT]`.
    pub jump: Option<String>,
    /// The host key that the host must have, `ssh-ed25519 AAAA...`: a pin.
    pub host_key: Option<String>,
    /// known_hosts files; what ssh_config says, or `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`, when empty.
    pub known_hosts: Vec<String>,
    /// Seconds until connecting gives up; what ssh_config says, or 15, when left out.
    pub connect_timeout: Option<u64>,
    /// The ssh_config file that fills in what is not said here: `none`, or a file instead of the operator's own (`ssh -F`).
    pub config: Option<String>,
    /// Which algorithms of OpenSSH 5.3's age it is allowed.
    pub legacy: Legacy,
}

/// How the agent becomes root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Become {
    /// How.
    pub method: BecomeMethod,
    /// Where the password is, if it needs one.
    pub password: Option<SecretRef>,
}

/// How the agent becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BecomeMethod {
    /// It does not: every step runs as the login user (who is root already, or owns all that is touched).
    None,
    /// sudo.
    Sudo,
    /// doas.
    Doas,
    /// su, with root's own password.
    Su,
}

impl BecomeMethod {
    /// As the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sudo => "sudo",
            Self::Doas => "doas",
            Self::Su => "su",
        }
    }
}

/// The Campaign installation on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// The directory that holds `nl6` (`/usr/local/neolane`).
    pub home: String,
    /// The account that owns it (`neolane`).
    pub user: String,
    /// Where the host's own server answers SOAP calls, as seen from the host ([`Campaign::SOAP`]).
    pub soap: String,
}

impl Campaign {
    /// The documented address of a server's own SOAP router.
    pub const SOAP: &str = "http://localhost:8080/nl/jsp/soaprouter.jsp";
}
