//! Where everything of a lab is, and who is who. Written once to `DIR/lab.json`; every stand-in reads it.

use crate::spec::{Faults, Release, Role, Topology};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The environment variable by which the processes of a host are found when the lab ends.
pub const HOST_VARIABLE: &str = "CARAVAN_LAB_HOST";

/// Who is who in a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// The lab's directory.
    pub dir: PathBuf,
    /// What is installed at first.
    pub source: Release,
    /// What the migration installs.
    pub target: Release,
    /// The platforms.
    pub platforms: Vec<Platform>,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether its hosts are realistic ones: with files, processes and a network of their own.
    #[serde(default)]
    pub real: bool,
}

/// One platform of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// Its name.
    pub name: String,
    /// How its servers are arranged.
    pub topology: Topology,
    /// Its hosts.
    pub hosts: Vec<Host>,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// What is installed on its hosts at first.
    pub source: Release,
    /// Whether the target has a setup of the client console.
    pub client: bool,
    /// Whether equal passwords are stored in different ways.
    #[serde(default)]
    pub salted: bool,
    /// Whether every server runs the `web` module.
    #[serde(default)]
    pub web: bool,
    /// Whether each instance has a scratch database.
    #[serde(default)]
    pub scratch: bool,
}

/// One host of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub roles: Vec<Role>,
    /// The OS that its packages are for (`debian-12`).
    pub os: String,
    /// Its own loopback address.
    pub address: Ipv4Addr,
    /// The port of its web server.
    pub web_port: u16,
    /// The port of its own server's SOAP router.
    pub soap_port: u16,
    /// The instances that it carries.
    pub instances: Vec<String>,
    /// Modules that the configuration of these instances keeps from starting.
    pub disabled: Vec<String>,
    /// What is installed on it at first.
    pub source: Release,
    /// Whether a real OpenSSH server answers its connections.
    pub openssh: bool,
    /// Whether systemd runs on it.
    #[serde(default)]
    pub systemd: bool,
    /// Its directory.
    pub dir: PathBuf,
}

/// One instance of a platform, with a database of the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The role of the servers that it belongs to: marketing, mid-sourcing, power-booster or power-cluster.
    pub of: Role,
    /// The host that runs its postupgrade.
    pub app: String,
}

/// The family of an OS, which decides package manager and service names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// dpkg, apache2.
    Debian,
    /// rpm, httpd.
    Rhel,
}

impl Family {
    /// The family of an OS (`debian-12`, `rhel-9`).
    pub fn of(os: &str) -> Self {
        let rhel = ["rhel", "centos", "rocky", "almalinux", "ol", "fedora"];
        if rhel.contains(&os.split('-').next().unwrap_or_default()) { Self::Rhel } else { Self::Debian }
    }

    /// The web server's service name.
    pub fn web_service(self) -> &'static str {
        match self {
            Self::Debian => "apache2",
            Self::Rhel => "httpd",
        }
    }
}

impl Layout {
    /// The file that holds the layout of the lab in `dir`.
    pub(crate) fn file(dir: &Path) -> PathBuf {
        dir.join("lab.json")
    }

    /// Reads the layout of a lab.
    ///
    /// # Errors
    /// When there is no lab in `dir`.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let text = std::fs::read(Self::file(dir))
            .map_err(|error| io::Error::new(error.kind(), format!("{} holds no lab: {error}", dir.display())))?;
        let mut layout: Self = serde_json::from_slice(&text)?;
        if layout.real {
            // Realistic hosts see it at another place than the lab does.
            layout.dir = dir.to_owned();
            for host in layout.platforms.iter_mut().flat_map(|platform| &mut platform.hosts) {
                host.dir = dir.join("hosts").join(&host.name);
            }
        }
        Ok(layout)
    }

    /// The same with another directory for one host.
    pub(crate) fn with_host_at(mut self, name: &str, dir: &Path) -> Self {
        for host in self.platforms.iter_mut().flat_map(|platform| &mut platform.hosts).filter(|host| host.name == name) {
            host.dir = dir.to_owned();
        }
        self
    }

    /// A host and its platform.
    pub fn host(&self, name: &str) -> Option<(&Platform, &Host)> {
        self.platforms.iter().find_map(|platform| Some((platform, platform.host(name)?)))
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.platforms.iter().flat_map(|platform| &platform.hosts)
    }
}

impl Platform {
    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// An instance by its name.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }
}

impl Host {
    /// Whether it has a role.
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the calling process runs on this realistic host: its directory is the root of the file system.
    pub(crate) fn is_here(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// The process 1 of a realistic host, as the lab sees it: through it the lab reaches the host's files.
    pub(crate) fn process_one(&self) -> Option<u32> {
        let rest = self.dir.strip_prefix("/proc").ok()?;
        rest.parent().filter(|_| rest.ends_with("root"))?.to_str()?.parse().ok()
    }

    /// A path of it as its own processes see it: the other tier's hosts see what the lab sees.
    pub(crate) fn seen_there(&self, path: &Path) -> PathBuf {
        let inside = self.process_one().and_then(|_| path.strip_prefix(&self.dir).ok());
        inside.map_or_else(|| path.to_owned(), |inside| Path::new("/").join(inside))
    }

    /// Its OS family.
    pub fn family(&self) -> Family {
        Family::of(&self.os)
    }

    /// `campaign.home`.
    pub fn home(&self) -> PathBuf {
        self.dir.join("usr/local/neolane")
    }

    /// The installation: `nl6`, or `nl5` on a host of v5 that is not migrated.
    pub fn nl6(&self) -> PathBuf {
        let nl6 = self.home().join("nl6");
        if self.source.is_v5() && !nl6.exists() { self.old_tree() } else { nl6 }
    }

    /// Where the installation is that the host had at first.
    pub fn old_tree(&self) -> PathBuf {
        self.home().join(self.source.tree())
    }

    /// The backup tree.
    pub fn backup(&self) -> PathBuf {
        self.home().join(format!("{}.back", self.source.tree()))
    }

    /// The directory of the web server's configuration.
    pub fn web_config(&self) -> PathBuf {
        self.dir.join(match self.family() {
            Family::Debian => "etc/apache2",
            Family::Rhel => "etc/httpd",
        })
    }

    /// Where init scripts are.
    pub fn init_scripts(&self) -> PathBuf {
        self.dir.join("etc/init.d")
    }

    /// Caravan's directory.
    pub fn host_state(&self) -> PathBuf {
        self.dir.join("var/lib/caravan")
    }

    /// What the stand-ins keep.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("var/lib/lab")
    }

    /// The web server's program: outside `campaign.home`, as Apache is.
    pub(crate) fn web_program(&self) -> PathBuf {
        self.dir.join("usr/sbin").join(self.family().web_service())
    }
}

/// The OS of this machine as the inventory writes it, where the lab knows its family.
pub(crate) fn this_machine() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']).to_owned())
    };
    let major = value("VERSION_ID")?.split('.').next()?.to_owned();
    Some(format!("{}-{major}", value("ID")?))
}
