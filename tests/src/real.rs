//! A fleet of realistic hosts, for tests: as [`crate::Site`], with hosts that have a network address, processes, users and files of their
//! own. What is asserted is read from the hosts themselves.

use crate::{Ran, program};
use lab::real::{RealHost, RealLab, diagnose, missing};
use lab::{Event, Family, Host, Record, Snapshot, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A fleet of realistic hosts and a workstation to work from.
pub struct RealSite {
    /// The fleet.
    pub lab: RealLab,
    root: tempfile::TempDir,
}

/// What is on the hosts of a fleet, by their own word.
#[derive(Debug)]
pub struct Seen {
    /// Files of each host by path, what runs, what `/r/test` answers with.
    pub snapshot: Snapshot,
    /// By host: what its package manager says.
    pub packages: BTreeMap<String, String>,
    /// By host: modules and web servers, each with its build.
    pub running: BTreeMap<String, Vec<String>>,
    /// By database: a digest of its rows.
    pub rows: BTreeMap<String, String>,
}

/// What of a database must be as it was after the way back. (Tables that only v7 knows are not in a dump, and stay.)
pub const ROWS: &str = "SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (SELECT t::text AS line FROM xtkoption t UNION ALL \
                    SELECT t::text FROM nmsrecipient t UNION ALL SELECT t::text FROM xtkoperator t) u";

impl RealSite {
    /// `None` where such hosts cannot run; it is said aloud.
    pub fn new(spec: &Spec) -> Option<Self> {
        let found = diagnose();
        if let Some(missing) = missing(spec, &found).first() {
            eprintln!("skipped: {missing} (`lab doctor` says more)");
            return None;
        }
        let root = tempfile::Builder::new().prefix("caravan-test-").tempdir().expect("a temporary directory");
        let lab = RealLab::start(spec, &root.path().join("lab"), &program("standin")).expect("the lab starts");
        Some(Self { lab, root })
    }

    /// Where runs are kept.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("caravan"));
        command.arg("-i").arg(self.lab.inventory()).arg("--state-dir").arg(self.state()).args(args);
        command.env_clear().env("HOME", self.root.path()).env("USER", "tester").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `caravan` to its end.
    pub fn caravan(&self, args: &[&str]) -> Ran {
        crate::ran(self.command(args))
    }

    /// Starts `caravan` and leaves it running; [`crate::finish`] gives what it printed.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caravan starts")
    }

    /// Waits until a host recorded an event while `caravan` runs.
    #[track_caller]
    pub fn wait_for(&self, event: Event, host: &str, running: &mut Child) {
        crate::until(&format!("{event:?} on {host}"), || {
            assert!(running.try_wait().expect("a child").is_none(), "caravan ended before {event:?} on {host}");
            self.count(event, host) > 0
        });
    }

    /// The id of the newest run.
    pub fn newest(&self) -> String {
        controller::run::store::Store::new(&self.state()).find(None).expect("a run").id
    }

    /// What was recorded of this kind, in order: host and subject.
    pub fn records(&self, event: Event) -> Vec<(String, String)> {
        let records = self.lab.records().expect("records").into_iter().filter(|record| record.event == event);
        records.map(|Record { host, subject, .. }| (host, subject)).collect()
    }

    /// How often a host recorded an event.
    pub fn count(&self, event: Event, host: &str) -> usize {
        self.records(event).iter().filter(|(recorded, _)| recorded == host).count()
    }

    /// Asserts that nobody saw a rule broken.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let broken: Vec<String> = self.lab.violations().expect("records").iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    /// Asserts that no password is in a file that Caravan wrote, here or on a host.
    #[track_caller]
    pub fn assert_no_password_left(&self) {
        let secrets = self.lab.secrets();
        let sudo = std::fs::read_to_string(self.lab.dir().join("ops.pw")).expect("the password");
        let all = [
            &secrets.internal_password,
            &secrets.internal_stored,
            &secrets.database_password,
            &secrets.scratch_password,
            &secrets.tracking_password,
            &sudo,
        ];
        let patterns: Vec<String> = all.iter().map(|secret| format!("-e{secret}")).collect();
        let here = Command::new("grep").arg("-rlF").args(&patterns).arg(self.state()).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&here.stdout), "");
        for host in self.lab.hosts() {
            let places = ["/var/lib/caravan", "/home/ops"];
            let arguments: Vec<&str> = ["-rlF"].into_iter().chain(patterns.iter().map(String::as_str)).chain(places).collect();
            let found = host.output("grep", &arguments).expect("grep");
            // 1: it looked at everything, and found nothing.
            assert_eq!((found.status.code(), String::from_utf8_lossy(&found.stdout)), (Some(1), "".into()), "{}", host.name);
        }
    }

    /// Looks at everything.
    pub fn see(&self) -> Seen {
        let layout = self.lab.layout();
        let snapshot = self.lab.snapshot().expect("the hosts can be read");
        let packages = layout.hosts().map(|host| (host.name.clone(), packages(self.lab.host(&host.name), host))).collect();
        let entries = |host: &Host| lab::running(host).expect("what runs").into_iter();
        let running = |host: &Host| entries(host).map(|entry| format!("{} {}", entry.name, entry.build)).collect();
        let running = layout.hosts().map(|host| (host.name.clone(), running(host))).collect();
        let instances = layout.platforms.iter().flat_map(|platform| &platform.instances).map(|instance| instance.name.clone());
        let rows = instances.map(|name| (name.clone(), self.lab.sql(&name, ROWS).expect("the database answers"))).collect();
        Seen { snapshot, packages, running, rows }
    }
}

/// What a host's own package manager says of Campaign's packages, a name with its version after the other.
fn packages(real: &RealHost, host: &Host) -> String {
    let ask = match host.family() {
        Family::Debian => "dpkg-query -W -f='${db:Status-Abbrev}${Package} ${Version}\\n' 'nl*' 2>/dev/null | sed -n 's/^ii *//p'",
        Family::Rhel => "rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\\n' 'nl*' | sort",
    };
    run(real, ask).lines().collect::<Vec<_>>().join(", ")
}

/// Runs a shell command on a host, as root.
#[track_caller]
pub fn run(host: &RealHost, script: &str) -> String {
    host.run("sh", &["-c", script]).unwrap_or_else(|error| panic!("{error}"))
}

/// The text of a file of a host.
#[track_caller]
pub fn read(host: &RealHost, file: &str) -> String {
    let path = host.root().join(Path::new(file).strip_prefix("/").expect("an absolute path"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{} {file}: {error}", host.name))
}
