//! The realistic tier of the lab, for root: hosts with a network address, processes, users and files of their own, behind real OpenSSH
//! servers; real packages, `sudo`, Apache and PostgreSQL. What stands in is Campaign itself.
//!
//! A host is a set of namespaces with an overlay over the machine's own file system, and [`boot`] as process 1. Its programs keep the same
//! records, judged by the same rules, as the stand-ins of the other tier: [`witness`] does it for the programs that are real.

pub(crate) mod boot;
pub(crate) mod database;
mod doctor;
mod furnish;
mod host;
mod net;
mod packages;
pub(crate) mod witness;

pub use doctor::{Diagnosis, can_run, diagnose, missing};
pub use host::RealHost;

use crate::back::Snapshot;
use crate::furnish::{LOGIN, Place, Secrets, lay_out, private_file, random, write_client};
use crate::layout::{Family, Layout, Platform};

use crate::records::{self, Record, Violation};
use crate::rules::Site;
use crate::spec::{PlatformSpec, Spec};
use net::Network;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The name of a host's process 1.
pub(crate) const INIT: &str = "lab-init";

/// The name of the program that watches what is real.
pub(crate) const WITNESS: &str = "lab-witness";

pub(crate) use boot::{OWN_FILES, SHARED as SHARED_DIR};

/// The file in a host's state that holds its name.
const NAME_FILE: &str = "name";

/// The host that the calling stand-in runs on, where that is a realistic one. `found` is the root that its program was found under.
pub(crate) fn site(found: Option<&Path>) -> Option<io::Result<Site>> {
    let root = Path::new("/");
    if found != Some(root) {
        return None;
    }
    let site = || {
        let name = fs::read_to_string(root.join("var/lib/lab").join(NAME_FILE))?;
        let layout = Layout::read(&root.join(SHARED_DIR))?;
        Site::new(layout.with_host_at(&name, root), &name)
    };
    Some(site())
}

/// What is kept of a lab, so that another process can end it or do something to its hosts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    network: Network,
    hosts: Vec<RealHost>,
}

impl State {
    fn file(dir: &Path) -> PathBuf {
        dir.join("real.json")
    }

    fn read(dir: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(Self::file(dir))?).map_err(io::Error::from)
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        crate::processes::write_atomically(&Self::file(dir), &serde_json::to_vec_pretty(self)?)
    }

    fn end(&self) {
        self.hosts.iter().for_each(RealHost::end);
        self.network.remove();
    }
}

/// A realistic fleet that can be logged in to. Ends everything of it when it is dropped; the directory stays.
#[derive(Debug)]
pub struct RealLab {
    dir: PathBuf,
    layout: Layout,
    secrets: Secrets,
    state: State,
}

impl RealLab {
    /// Builds a fleet in `dir`, which must be empty or absent, and starts it. `binary` is a program of this crate (`lab`, `standin`).
    ///
    /// # Errors
    /// A wrong spec, a machine that cannot run realistic hosts (with what is missing), a host that does not come up.
    pub fn start(spec: &Spec, dir: &Path, binary: &Path) -> io::Result<Self> {
        spec.validate().map_err(io::Error::other)?;
        let found = diagnose();
        let missing: Vec<String> = missing(spec, &found).iter().map(ToString::to_string).collect();
        if !missing.is_empty() {
            return Err(io::Error::other(format!("realistic hosts cannot run here:\n{}", missing.join("\n"))));
        }
        refuse(spec)?;
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::other(format!("{} is not empty: a lab is built in a directory of its own", dir.display())));
        }
        let dir = fs::canonicalize(dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let network = Network::make()?;
        let mut number = 0;
        let layout = lay_out(spec, &dir.join("fleet"), || {
            number += 1;
            Ok(Place { address: network.address(number - 1), web_port: 80, soap_port: 8080 })
        });
        let state = State { network, hosts: Vec::new() };
        // From here on a failure drops the lab, and with it what runs.
        let mut lab = Self { dir, layout: layout?, secrets: Secrets::draw()?, state };
        lab.layout.real = true;
        lab.build(binary)?;
        Ok(lab)
    }

    fn build(&mut self, binary: &Path) -> io::Result<()> {
        self.state.write(&self.dir)?;
        let password = random(9)?;
        private_file(&self.dir.join("ops.pw"), &password)?;
        private_file(&self.dir.join("db.pw"), &self.secrets.database_password)?;
        private_file(&self.dir.join("scratch.pw"), &self.secrets.scratch_password)?;
        let keys = furnish::Keys::make(&self.dir, &self.layout)?;
        furnish::shared(&self.layout, binary, &self.secrets)?;
        packages::build(&self.layout, binary)?;
        self.layout.platforms.iter().try_for_each(|platform| write_client(&self.layout, platform))?;
        crate::fleet::write(&self.layout, &self.dir, 22)?;
        let seed = furnish::Seed {
            layout: &self.layout,
            secrets: &self.secrets,
            network: &self.state.network,
            keys: &keys,
            password: &password,
        };
        let hosts: Vec<(&Platform, &crate::layout::Host)> =
            self.layout.platforms.iter().flat_map(|platform| platform.hosts.iter().map(move |host| (platform, host))).collect();
        let mut started = Vec::new();
        for (platform, host) in &hosts {
            seed.plant(platform, host)?;
            started.push(RealHost::start(&self.state.network, Path::new("/"), &self.layout.dir, host)?);
            // Noted at once, so that `lab down` finds it whatever happens next.
            self.state.hosts = started.clone();
            self.state.write(&self.dir)?;
        }
        let pairs: Vec<_> = hosts.iter().zip(&started).map(|((platform, host), real)| (*platform, *host, real)).collect();
        furnish::in_parallel(&pairs, |(_, _, real)| furnish::install(real))?;
        for (platform, host, real) in &pairs {
            furnish::configure(&self.layout, platform, host, real, &self.secrets)?;
        }
        furnish::in_parallel(&pairs, |(_, host, real)| furnish::start(host, real))?;
        // The story begins here.
        fs::write(self.layout.dir.join("records.jsonl"), b"")?;
        for (_, host, real) in &pairs {
            fs::remove_file(host.state().join(crate::faults::FURNISHING))?;
            let faults = &self.layout.faults;
            for loss in faults.loss.iter().filter(|loss| loss.host == host.name) {
                real.lose(loss.percent)?;
            }
            for link in faults.slow_links.iter().filter(|link| link.host == host.name) {
                real.slow(&link.rate)?;
            }
            if faults.unreachable.contains(&host.name) {
                real.cut()?;
            }
            if faults.silent.contains(&host.name) {
                real.freeze();
            }
        }
        Ok(())
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who is who; the directory of each host is the root of its file system, as seen from here.
    pub fn layout(&self) -> Layout {
        self.state.hosts.iter().fold(self.layout.clone(), |layout, host| layout.with_host_at(&host.name, &host.root()))
    }

    /// The inventory, for `caravan -i`.
    pub fn inventory(&self) -> PathBuf {
        self.dir.join("fleet.yaml")
    }

    /// The values that must turn up nowhere but where they belong.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The account that can log in.
    pub fn login(&self) -> &'static str {
        LOGIN
    }

    /// Its hosts.
    pub fn hosts(&self) -> &[RealHost] {
        &self.state.hosts
    }

    /// A host by its name.
    ///
    /// # Panics
    /// When the lab has no such host: that is a mistake in the test that asks.
    pub fn host(&self, name: &str) -> &RealHost {
        let host = self.state.hosts.iter().find(|host| host.name == name);
        host.unwrap_or_else(|| panic!("the lab has no host {name}"))
    }

    /// Everything that was recorded on the hosts, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self) -> io::Result<Vec<Record>> {
        records::records(&self.layout.dir)
    }

    /// The rules that were seen broken, in order.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn violations(&self) -> io::Result<Vec<Violation>> {
        records::violations(&self.layout.dir)
    }

    /// What is on all hosts and in all databases now, to compare with later.
    ///
    /// # Errors
    /// When a host or a database cannot be read.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        Snapshot::take(&self.layout())
    }

    /// Runs SQL in the database of an instance, or in a scratch database, and gives the rows, fields parted by `|`.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses.
    pub fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        database::ask(&self.layout, database, sql)
    }
}

impl Drop for RealLab {
    fn drop(&mut self) {
        self.state.end();
    }
}

/// Refuses what a spec can ask of the other tier alone.
fn refuse(spec: &Spec) -> io::Result<()> {
    let faults = &spec.faults;
    let rhel = |platform: &&PlatformSpec| platform.os.as_deref().is_some_and(|os| Family::of(os) == Family::Rhel);
    let both = spec.platforms.iter().find(|platform| rhel(platform) && !platform.systemd.is_empty());
    let problem = match () {
        () if !faults.cut.is_empty() => "`cut` by a stand-in: use `lab fault`".to_owned(),
        () if faults.fail.iter().any(|fault| fault.step == "restore.empty") => {
            "`restore.empty`: what is restored is what was dumped".to_owned()
        }
        () if faults.fail.iter().any(|fault| fault.step == "apache.library") => {
            "`apache.library`: the web server is a real one".to_owned()
        }
        () => match both {
            Some(platform) => {
                format!("systemd on `{}`: {} has service scripts only", platform.os.as_deref().unwrap_or_default(), platform.name)
            }
            None => return Ok(()),
        },
    };
    Err(io::Error::other(format!("realistic hosts cannot have {problem}")))
}

/// The hosts of the realistic lab in `dir`; `None` where there is none.
///
/// # Errors
/// What the lab keeps of itself cannot be read.
pub fn hosts_in(dir: &Path) -> io::Result<Option<Vec<RealHost>>> {
    if !State::file(dir).exists() {
        return Ok(None);
    }
    Ok(Some(State::read(dir)?.hosts))
}

/// Ends the realistic lab in `dir`, whoever started it. `false` where there is none.
///
/// # Errors
/// What the lab keeps of itself cannot be read, or a host does not end.
pub fn end_lab(dir: &Path) -> io::Result<bool> {
    if !State::file(dir).exists() {
        return Ok(false);
    }
    let state = State::read(dir)?;
    state.end();
    match state.hosts.iter().find(|host| host.is_up()) {
        Some(host) => Err(io::Error::other(format!("{} does not end", host.name))),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Role, Topology};

    #[test]
    fn what_only_the_other_tier_has_is_refused_by_name() {
        let spec = |change: fn(&mut Spec)| {
            let mut spec = Spec::one("a", Topology::Standalone, &[(Role::Marketing, 1)]);
            change(&mut spec);
            refuse(&spec).map_err(|error| error.to_string())
        };
        assert_eq!(spec(|_| ()), Ok(()));
        let cut = spec(|spec| spec.faults.cut.push(crate::Cut { host: "a-mkt1".into(), after: "install".into(), times: None }));
        assert!(cut.unwrap_err().contains("use `lab fault`"));
        let rhel = |spec: &mut Spec| spec.platforms.iter_mut().for_each(|platform| platform.os = Some("rhel-8".into()));
        assert_eq!(spec(rhel), Ok(()));
        let systemd = spec(|spec| {
            spec.platforms.iter_mut().for_each(|platform| {
                platform.os = Some("rhel-8".into());
                platform.systemd.push("a-mkt1".into());
            });
        });
        assert!(systemd.unwrap_err().contains("systemd on `rhel-8`"));
        for step in ["apache.library", "restore.empty"] {
            let mut with = Spec::one("a", Topology::Standalone, &[(Role::Marketing, 1)]);
            with.faults.fail.push(crate::Failing { host: "a-mkt1".into(), step: step.into(), times: None });
            assert!(refuse(&with).unwrap_err().to_string().contains(step));
        }
    }
}
