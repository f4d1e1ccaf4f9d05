//! A standard platform on realistic hosts, there and back: real OpenSSH with `sudo`, packages, Apache, PostgreSQL, accounts, service
//! scripts. What is asserted is read from the hosts themselves.

use harness::{Ran, program};
use lab::real::{RealHost, RealLab, can_run, can_run_systemd, diagnose};
use lab::{Event, Platform, Release, Role, Spec, Topology, redirect_build};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A fleet of realistic hosts and a workstation to work from.
struct RealSite {
    lab: RealLab,
    root: tempfile::TempDir,
}

/// What is compared before, between and after: files of an installation by path, packages, what runs, what the web server answers with,
/// and what the database holds.
#[derive(Debug, PartialEq)]
struct Seen {
    files: BTreeMap<String, String>,
    packages: BTreeMap<String, String>,
    running: BTreeMap<String, Vec<String>>,
    redirect: String,
    database: String,
}

impl RealSite {
    /// `None` where such hosts cannot run; it is said aloud.
    fn new(spec: &Spec) -> Option<Self> {
        let found = diagnose();
        let systemd = spec.platforms.iter().any(|platform| !platform.systemd.is_empty());
        if !(if systemd { can_run_systemd(&found) } else { can_run(&found) }) {
            let missing = found.iter().find(|found| !found.well && (found.needed || systemd));
            eprintln!("skipped: {} (`lab doctor` says more)", missing.map(ToString::to_string).unwrap_or_default());
            return None;
        }
        let root = tempfile::Builder::new().prefix("caravan-test-").tempdir().expect("a temporary directory");
        let lab = RealLab::start(spec, &root.path().join("lab"), &program("standin")).expect("the lab starts");
        Some(Self { lab, root })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("caravan"));
        command.arg("-i").arg(self.lab.inventory()).arg("--state-dir").arg(self.root.path().join("state")).args(args);
        command.env_clear().env("HOME", self.root.path()).env("USER", "tester").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    fn caravan(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("caravan runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    fn assert_no_violations(&self) {
        let broken: Vec<String> = self.lab.violations().expect("records").iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    /// The first platform of the fleet: the one that is looked at closely.
    fn platform(&self) -> Platform {
        self.lab.layout().platforms.first().expect("a platform").clone()
    }

    /// What was recorded on that platform: host and subject.
    fn records(&self, event: Event) -> Vec<(String, String)> {
        let name = self.platform().name;
        let records = self.lab.records().expect("records").into_iter();
        let records = records.filter(|record| record.event == event && record.platform == name);
        records.map(|record| (record.host, record.subject)).collect()
    }

    fn see(&self) -> Seen {
        let (mut files, mut packages, mut running) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut redirect = String::new();
        for host in &self.platform().hosts {
            let real = self.lab.host(&host.name);
            let sums = run(
                real,
                "cd /usr/local/neolane/nl6 && find . -type f ! -path './log/*' -exec stat -c '%n %a %U:%G' {} + -exec sha256sum {} + | sort",
            );
            files.insert(host.name.clone(), sums);
            let installed =
                run(real, "dpkg-query -W -f='${db:Status-Abbrev} ${Package} ${Version}\\n' 'nl*' 2>/dev/null | grep ^ii");
            packages.insert(host.name.clone(), installed);
            let entries = lab::running(host).expect("what runs");
            running.insert(host.name.clone(), entries.iter().map(|entry| format!("{} {}", entry.name, entry.build)).collect());
            if host.is(Role::Tracking) {
                redirect = redirect_build(host).expect("an answer to /r/test");
            }
        }
        let content = "SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (SELECT t::text AS line FROM xtkoption t UNION ALL SELECT t::text FROM nmsrecipient t) u";
        Seen { files, packages, running, redirect, database: self.lab.sql("emea", content).expect("the database answers") }
    }
}

/// Runs a shell command on a host.
#[track_caller]
fn run(host: &RealHost, script: &str) -> String {
    host.run("sh", &["-c", script]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_standard_platform_there_and_back() {
    let mut spec = Spec::one("emea", Topology::Standard, &[(Role::Marketing, 1), (Role::Mta, 1), (Role::Tracking, 1)]);
    // Long enough to pull the cable in the middle of it.
    spec.faults.slow.push(lab::Slow { host: "emea-mkt1".into(), what: "postupgrade".into(), seconds: lab::seconds::Seconds(2500) });
    // Its users get the console of the new build; the account that offers it is not the one that received it.
    spec.platforms.iter_mut().for_each(|platform| platform.client = true);
    // Beside it one that comes from v5: another tree, other packages, a web server that is led elsewhere.
    let mut old = Spec::one("old", Topology::Standalone, &[(Role::Marketing, 1)]).platforms.remove(0);
    old.also.insert("old-mkt1".into(), vec![Role::Tracking]);
    old.source = Some(Release { version: "5.11".into(), build: 8999 });
    spec.platforms.push(old);
    let Some(site) = RealSite::new(&spec) else { return };
    let before = site.see();
    assert_eq!(old_server(&site), ("8999".to_owned(), "nlserver5 5.11-8999, nlthirdparty5 5.11-8999".to_owned()));
    assert_eq!(before.redirect, "8989");
    assert!(
        before.packages.values().all(|text| text.contains("nlserver6 6.1-8989") && text.contains("nlthirdparty6 6.1-8989")),
        "{before:?}"
    );
    site.caravan(&["check"]).expect(0);

    // The marketing server is cut off in the middle of its postupgrade: no packet comes through, and its sessions are gone.
    let mut migration = site.command(&["migrate", "--yes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caravan");
    let marketing = site.lab.host("emea-mkt1");
    harness::until("postupgrade begins", || {
        assert!(migration.try_wait().expect("a child").is_none(), "caravan ended before the postupgrade");
        !site.records(Event::PostupgradeBegan).is_empty()
    });
    marketing.cut().expect("the cable");
    marketing.end_sessions();
    // And the mail server, which comes next, runs out of room.
    let mail = site.lab.host("emea-mta1");
    mail.fill_disk().expect("a full disk");
    std::thread::sleep(Duration::from_secs(1));
    assert!(site.records(Event::PostupgradeEnded).is_empty(), "it was to be cut off before the end");
    harness::until("postupgrade ends without a connection", || !site.records(Event::PostupgradeEnded).is_empty());
    marketing.heal().expect("the cable");
    let ran = harness::finish(migration).expect(1);
    for expected in ["emea-mkt1 is back", "old is done", "No space left on device", "Nothing of `4.3 tracking` was started"] {
        assert!(ran.stderr.contains(expected), "{expected}\n{}", ran.stderr);
    }
    mail.heal().expect("room");
    site.caravan(&["resume"]).expect(0);

    site.assert_no_violations();
    let migrated = site.see();
    assert_migrated(&site, &before, &migrated);
    let console = "stat -c '%U %a' /usr/local/neolane/nl6/datakit/nl/eng/jsp/setup-client-7.0.9383.exe";
    assert_eq!(run(marketing, console).trim(), "neolane 644");
    assert_eq!(old_server(&site), ("9383".to_owned(), "nlserver6-v7 7.4.1-9383".to_owned()));
    assert_no_password_left(&site);

    site.caravan(&["rollback", &newest(&site), "--yes"]).expect(0);
    site.assert_no_violations();
    let back = site.see();
    assert_eq!(before, back, "after the rollback");
    assert_eq!(old_server(&site), ("8999".to_owned(), "nlserver5 5.11-8999, nlthirdparty5 5.11-8999".to_owned()));
    assert_eq!(site.records(Event::DumpRestored).len(), 1);
    a_web_server_that_was_not_restarted_is_seen(&site);
}

/// What `/r/test` of the platform from v5 answers with, and its packages.
fn old_server(site: &RealSite) -> (String, String) {
    let layout = site.lab.layout();
    let (_, host) = layout.host("old-mkt1").expect("a host");
    let packages = "dpkg-query -W -f='${db:Status-Abbrev} ${Package} ${Version}\\n' 'nl*' 2>/dev/null | sed -n 's/^ii *//p'";
    let packages = run(site.lab.host(&host.name), packages);
    (redirect_build(host).expect("an answer to /r/test"), packages.lines().map(str::trim).collect::<Vec<_>>().join(", "))
}

fn newest(site: &RealSite) -> String {
    controller::run::store::Store::new(&site.root.path().join("state")).find(None).expect("a run").id
}

fn assert_migrated(site: &RealSite, before: &Seen, after: &Seen) {
    assert_eq!(after.redirect, "9383");
    for (host, packages) in &after.packages {
        assert_eq!(packages.trim(), "ii  nlserver6-v7 7.4.1-9383", "{host}");
        let names = |lines: &[String], build: &str| -> Vec<String> { lines.iter().map(|line| line.replace(build, "")).collect() };
        assert_eq!(names(&before.running[host], " 8989"), names(&after.running[host], " 9383"), "what runs on {host}");
        // What must not change: the configuration of instances, the customers' files, what the instances keep.
        for kept in ["./conf/config-emea.xml", "./customer.sh", "./customers/site.js", "./var/emea/redir/log/0.log"] {
            let of =
                |seen: &Seen| seen.files[host].lines().filter(|line| line.contains(kept)).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(of(before), of(after), "{kept} of {host}");
            assert!(of(after).len() == 2, "{kept} of {host}: {:?}", of(after));
        }
        let real = site.lab.host(host);
        let password = "grep -o 'internalPassword=\"[^\"]*\"' /usr/local/neolane/$0/conf/serverConf.xml";
        let stored = |tree: &str| real.run("sh", &["-c", password, tree]).expect("a password");
        assert_eq!(stored("nl6"), stored("nl6.back"), "{host}");
        // Nothing of Campaign belongs to root, and services have the umask of services.
        assert_eq!(run(real, "find /usr/local/neolane/nl6 ! -user neolane | head -3"), "", "{host}");
        let masks = run(real, "for p in $(pgrep -u neolane nlserver); do grep Umask /proc/$p/status; done | sort -u");
        assert_eq!(masks.trim(), "Umask:\t0022", "{host}");
    }
    let installed: Vec<String> = site.records(Event::PackageInstalled).into_iter().map(|(host, _)| host).collect();
    assert_eq!(installed, ["emea-mkt1", "emea-mta1", "emea-trk1"]);
    let mut started = site.records(Event::WebStarted);
    started.extend(site.records(Event::ModuleStarted));
    assert_eq!(started.first().map(|(host, what)| (host.as_str(), what.as_str())), Some(("emea-trk1", "apache2")));
    assert_eq!(site.records(Event::PostupgradeBegan).len(), 1);
    assert_eq!(site.records(Event::PostupgradeEnded), [("emea-mkt1".to_owned(), "emea".to_owned())]);
    assert_eq!(site.records(Event::DumpWritten).len(), 1);
    assert_eq!(
        site.lab
            .sql("emea", "SELECT sstringvalue FROM xtkoption WHERE sname IN ('XtkDatabaseBuild', 'LabUpgrades') ORDER BY 1")
            .expect("rows")
            .trim(),
        "1\n9383"
    );
    assert_ne!(before.database, after.database, "postupgrade has to change the database, or its restore proves nothing");
}

/// No password is in a file that Caravan wrote, here or on a host.
fn assert_no_password_left(site: &RealSite) {
    let secrets = site.lab.secrets();
    let sudo = std::fs::read_to_string(site.lab.dir().join("ops.pw")).expect("the password");
    for secret in
        [&secrets.internal_password, &secrets.internal_stored, &secrets.database_password, &secrets.tracking_password, &sudo]
    {
        let here = Command::new("grep").args(["-rlF", "--", secret]).arg(site.root.path().join("state")).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&here.stdout), "");
        for host in site.lab.hosts() {
            let found = host.output("grep", &["-rlF", "--", secret, "/var/lib/caravan", "/home/ops"]).expect("grep");
            assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", host.name);
        }
    }
    assert!(
        site.lab.hosts().iter().all(|host| Path::new(&host.root().join("var/lib/caravan")).exists()),
        "where Caravan wrote was not looked at"
    );
}

/// `/r/test` tells the library that is loaded from the one that is installed.
fn a_web_server_that_was_not_restarted_is_seen(site: &RealSite) {
    let layout = site.lab.layout();
    let tracking = layout.hosts().find(|host| host.is(Role::Tracking)).expect("a tracking server");
    let real = site.lab.host(&tracking.name);
    run(
        real,
        "dpkg-deb -x /run/lab/packages/nlserver6-v7-9383-amd64.deb /tmp/new && cd /usr/local/neolane/nl6/lib && \
         cp /tmp/new/usr/local/neolane/nl6/lib/libnlsrvmod.so new.so && mv new.so libnlsrvmod.so",
    );
    assert_eq!(redirect_build(tracking).expect("an answer"), "8989", "the old library is still loaded");
    run(real, "/etc/init.d/apache2 stop && /etc/init.d/apache2 start");
    assert_eq!(redirect_build(tracking).expect("an answer"), "9383");
}

/// Where logind ends what a session leaves behind, the steps of a host go on all the same when its session ends.
#[test]
fn steps_outlive_a_session_whose_processes_are_killed() {
    let mut spec = Spec::one("solo", Topology::Standalone, &[(Role::Marketing, 1)]);
    if let Some(platform) = spec.platforms.first_mut() {
        platform.also.insert("solo-mkt1".into(), vec![Role::Mta, Role::Tracking]);
        platform.systemd.push("solo-mkt1".into());
    }
    spec.faults.slow.push(lab::Slow { host: "solo-mkt1".into(), what: "postupgrade".into(), seconds: lab::seconds::Seconds(4000) });
    let Some(site) = RealSite::new(&spec) else { return };
    let host = site.lab.host("solo-mkt1");
    let nobody_is_on = || harness::until("the session ends", || run(host, "loginctl list-sessions --no-legend").is_empty());

    // The host does what is said of it: not even a daemon of its own session survives there.
    let mut ssh = Command::new("ssh");
    ssh.arg("-i").arg(site.lab.dir().join("id_ed25519")).arg("-o");
    ssh.arg(format!("UserKnownHostsFile={}", site.lab.dir().join("known_hosts").display()));
    ssh.arg(format!("{}@{}", site.lab.login(), host.address)).arg("setsid sleep 4711 </dev/null >/dev/null 2>&1 & echo begun");
    let said = ssh.stdin(Stdio::null()).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "begun\n", "{}", String::from_utf8_lossy(&said.stderr));
    nobody_is_on();
    harness::until("logind kills the daemon", || run(host, "pgrep -x sleep || true").is_empty());

    let mut migration = site.command(&["migrate", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("caravan");
    harness::until("postupgrade begins", || {
        assert!(migration.try_wait().expect("a child").is_none(), "caravan ended before the postupgrade");
        !site.records(Event::PostupgradeBegan).is_empty()
    });
    harness::kill(migration);
    nobody_is_on();
    assert!(site.records(Event::PostupgradeEnded).is_empty(), "the session was to end before the postupgrade does");
    harness::until("postupgrade ends without a session", || !site.records(Event::PostupgradeEnded).is_empty());
    site.caravan(&["resume"]).expect(0);

    assert_eq!(site.records(Event::PostupgradeBegan).len(), 1);
    site.assert_no_violations();
    // What the steps have started lives on, too.
    nobody_is_on();
    assert_eq!(run(host, "systemctl is-active nlserver apache2"), "active\nactive");
    let layout = site.lab.layout();
    let entries = lab::running(layout.hosts().next().expect("a host")).expect("what runs");
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let expected = [
        "apache2",
        "inMail@solo",
        "mta@solo",
        "stat@solo",
        "syslogd@default",
        "trackinglogd@default",
        "watchdog@default",
        "web@default",
        "wfserver@solo",
    ];
    assert_eq!(names, expected);
    assert!(entries.iter().all(|entry| entry.build == 9383), "{entries:?}");

    // Another process ends the lab: nothing of it depends on the one that started it.
    let lab = |args: &[&str]| Command::new(program("lab")).args(args).stdin(Stdio::null()).output().expect("lab runs");
    let dir = site.lab.dir().to_str().expect("a path in UTF-8");
    assert!(lab(&["doctor"]).status.success(), "the doctor says that these hosts cannot run");
    let refused = lab(&["fault", "--dir", dir, "nobody", "cut"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no host nobody; there are: solo-mkt1"), "{refused:?}");
    assert!(lab(&["down", "--dir", dir]).status.success(), "down");
    assert!(!host.is_up(), "process 1 is gone");
    assert!(lab(&["down", "--dir", dir]).status.success(), "down again");
}
