//! Where things are on a host with a Campaign installation, before and after the migration.

use super::Point;
use inventory::{Host, SourceVersion};
use proto::inspect::Query;
use proto::step::PackageManager;
use std::collections::BTreeMap;

/// Element of `serverConf.xml` that holds the `internal` password (domain: the internal password).
pub(super) const INTERNAL_ELEMENT: &str = "serverconf/shared/authentication/xtk";
/// Its attribute.
pub(super) const INTERNAL_ATTRIBUTE: &str = "internalPassword";
/// Element of `serverConf.xml` that ties a redirection server to its database.
pub(super) const REDIRECTION: &str = "serverconf/redirection";
/// Element of `config-<instance>.xml` that describes the database connection.
pub(super) const DBCNX: &str = "serverconf/shared/dataStore/dataSource/dbcnx";
/// What the v7 packages install, where the inventory does not say it.
const NEW_PACKAGE: &str = "nlserver6-v7";

/// The paths of one host at one point of the migration. v5 lives in `nl5`; every other version, v7 included, in `nl6`.
pub(super) struct Layout<'a> {
    host: &'a Host,
    tree: &'static str,
}

impl<'a> Layout<'a> {
    pub(super) fn new(host: &'a Host, when: Point) -> Self {
        let version = if when == Point::Preflight { host.source.version } else { SourceVersion::V7 };
        let tree = version.tree();
        Self { host, tree }
    }

    /// The installation.
    pub(super) fn tree(&self) -> String {
        format!("{}/{}", self.host.campaign.home, self.tree)
    }

    /// Where the backup step moves the installation to.
    pub(super) fn back(&self) -> String {
        format!("{}.back", self.tree())
    }

    pub(super) fn server_conf(&self) -> String {
        format!("{}/conf/serverConf.xml", self.tree())
    }

    /// A pattern: the configuration of every instance, and `config-default.xml`.
    pub(super) fn instance_confs(&self) -> String {
        format!("{}/conf/config-*.xml", self.tree())
    }

    pub(super) fn program(&self) -> String {
        format!("{}/bin/nlserver", self.tree())
    }

    /// The questions, each made in one place so that asking and looking up cannot differ.
    pub(super) fn pdump(&self) -> Query {
        Query::Output {
            argv: vec![self.program(), "pdump".to_owned()],
            profile: Some(format!("{}/env.sh", self.tree())),
            secret_files: BTreeMap::new(),
        }
    }

    /// One entry for each `config-*.xml`: the root element is selected, whatever its attributes are.
    pub(super) fn instance_list(&self) -> Query {
        Query::Xml { file: self.instance_confs(), element: "serverconf".to_owned(), attribute: "name".to_owned() }
    }

    pub(super) fn connection(&self, attribute: &str) -> Query {
        Query::Xml { file: self.instance_confs(), element: DBCNX.to_owned(), attribute: attribute.to_owned() }
    }

    pub(super) fn database_id(&self) -> Query {
        Query::Xml { file: self.server_conf(), element: REDIRECTION.to_owned(), attribute: "databaseId".to_owned() }
    }

    pub(super) fn internal_password(&self) -> Query {
        Query::Fingerprint {
            file: self.server_conf(),
            element: INTERNAL_ELEMENT.to_owned(),
            attribute: INTERNAL_ATTRIBUTE.to_owned(),
        }
    }

    /// Who owns `campaign.home`: number and name.
    pub(super) fn owner(&self) -> Query {
        output(&["stat", "-c", "%u %U", &self.host.campaign.home])
    }

    /// The number of the account that the installation belongs to.
    pub(super) fn account(&self) -> Query {
        output(&["id", "-u", &self.host.campaign.user])
    }

    /// One question for each package manager that the host can have: both, where the inventory does not say the OS.
    pub(super) fn packages(&self) -> Vec<Query> {
        let managers = match self.host.os.as_deref().and_then(package_manager) {
            Some(manager) => vec![manager],
            None => vec![PackageManager::Dpkg, PackageManager::Rpm],
        };
        let names: Vec<String> = self.old_packages().into_iter().chain(self.new_packages()).collect();
        managers.into_iter().map(|manager| Query::Packages { manager, names: names.clone() }).collect()
    }

    /// The packages that the procedure removes (domain: procedure step 3), the server first.
    pub(super) fn old_packages(&self) -> Vec<String> {
        let named = self.named(&self.host.source.packages);
        if !named.is_empty() {
            return named;
        }
        let names: &[&str] = match self.host.source.version {
            SourceVersion::V5_11 => &["nlserver5", "nlthirdparty5"],
            SourceVersion::V6_02 | SourceVersion::V6_1 => &["nlserver6", "nlthirdparty6"],
            SourceVersion::V7 => &[NEW_PACKAGE],
        };
        names.iter().map(ToString::to_string).collect()
    }

    /// The packages that the procedure installs (domain: procedure step 4).
    pub(super) fn new_packages(&self) -> Vec<String> {
        let named = self.named(&self.host.target.packages);
        if named.is_empty() { vec![NEW_PACKAGE.to_owned()] } else { named }
    }

    fn named(&self, packages: &[inventory::Package]) -> Vec<String> {
        let os = self.host.os.as_deref();
        let mut names: Vec<String> = Vec::new();
        for name in packages.iter().filter(|package| os == Some(package.os.as_str())).flat_map(|package| &package.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

pub(super) fn output(argv: &[&str]) -> Query {
    Query::Output { argv: argv.iter().map(ToString::to_string).collect(), profile: None, secret_files: BTreeMap::new() }
}

/// The instance whose configuration a file is: `config-demo.xml` belongs to `demo`. `None` for `config-default.xml`, which
/// belongs to the server, and for other files.
pub(super) fn instance_of(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next()?.strip_prefix("config-")?.strip_suffix(".xml")?;
    (name != "default" && !name.is_empty()).then_some(name)
}

/// The package manager of an OS as the inventory or `/etc/os-release` names it (`debian-11`).
pub(super) fn package_manager(os: &str) -> Option<PackageManager> {
    match os.split('-').next().unwrap_or(os) {
        "debian" | "ubuntu" => Some(PackageManager::Dpkg),
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "oracle" | "fedora" => Some(PackageManager::Rpm),
        _ => None,
    }
}
