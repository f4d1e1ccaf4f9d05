//! The vendor's procedure on realistic hosts: real OpenSSH with `sudo`, packages of both families, Apache, PostgreSQL, accounts, service
//! scripts, systemd. What is asserted is read from the hosts themselves.

mod become_root;
mod logins;

use harness::program;
use harness::real::{RealSite, Seen, read, run};
use lab::{Event, Family, Host, Platform, Release, Role, Rule, Spec, Topology, redirect_build};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One platform of each topology and of each version to come from. On two of them hosts are of the RHEL family.
const FLEET: &str = r#"
platforms:
  - { name: solo, topology: standalone, os: rhel-8, source: { version: "5.11", build: 8999 }, hosts: { marketing: 1 }, also: { solo-mkt1: [mta, tracking] } }
  - { name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 }, client: true, scratch: true }
  - { name: apac, topology: cloud-messaging, source: { version: "6.02", build: 8795 }, hosts: { marketing: 1, mid-sourcing: 1 }, also: { apac-mid1: [tracking] } }
  - { name: amer, topology: power-booster, os: rhel-8, source: { version: "7.2.1", build: 9182 }, hosts: { marketing: 1, power-booster: 1 }, also: { amer-pb1: [tracking] } }
  - { name: latam, topology: power-cluster, hosts: { marketing: 1, power-cluster: 2, tracking: 1 } }
faults:
  slow: [{ host: emea-mkt1, what: postupgrade, seconds: 2.5 }]     # long enough to pull the cable in the middle of it
  loss: [{ host: apac-mid1, percent: 3 }]
  slow_links: [{ host: latam-trk1, rate: 20mbit }]
"#;

#[test]
fn a_fleet_of_every_topology_and_version_there_and_back() {
    let spec = Spec::parse(FLEET).expect("a right spec");
    let Some(site) = RealSite::new(&spec) else { return };
    let before = site.see();
    assert_as_it_was_installed(&site, &before);

    let mut migration = site.begin(&["migrate", "--yes", "--confirm", "apac/vendor-execution-servers=agreed in ticket 4711"]);
    // A marketing server is cut off in the middle of its postupgrade: no packet comes through, and its sessions are gone.
    site.wait_for(Event::PostupgradeBegan, "emea-mkt1", &mut migration);
    let marketing = site.lab.host("emea-mkt1");
    marketing.cut().expect("the cable");
    marketing.end_sessions();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(site.count(Event::PostupgradeEnded, "emea-mkt1"), 0, "it was to be cut off before the end");
    site.wait_for(Event::PostupgradeEnded, "emea-mkt1", &mut migration);
    marketing.heal().expect("the cable");
    let ran = harness::finish(migration).expect(0);
    assert!(ran.stderr.contains("emea-mkt1 is back"), "{}", ran.stderr);
    assert!(site.lab.host("apac-mid1").lost().expect("a count") > 0, "no packet was lost");
    assert!(site.lab.host("latam-trk1").held_up().expect("a count") > 0, "no packet had to wait");

    site.assert_no_violations();
    let migrated = site.see();
    let layout = site.lab.layout();
    for platform in &layout.platforms {
        assert_order(&site, platform);
        platform.hosts.iter().for_each(|host| assert_migrated(&site, platform, host, &before, &migrated));
    }
    assert_databases(&site, &before, &migrated);
    site.assert_no_password_left();

    site.caravan(&["rollback", &site.newest(), "--yes"]).expect(0);
    site.assert_no_violations();
    let after = site.see();
    assert_eq!(before.snapshot.differences(&after.snapshot), Vec::<String>::new(), "after the rollback");
    assert_eq!((&before.packages, &before.running), (&after.packages, &after.running), "after the rollback");
    assert_eq!(before.rows, after.rows, "what databases hold after the rollback");
    let mut restored = site.records(Event::DumpRestored);
    restored.sort();
    assert_eq!(restored, instances(&site), "each database is restored once, from its own application server");

    a_web_server_that_was_not_restarted_is_seen(&site);
    a_package_by_hand_is_seen(&site, "emea-mta1", "dpkg -i nlserver6-8989-amd64.deb");
    a_package_by_hand_is_seen(&site, "solo-mkt1", "rpm -ev nlserver5");
}

/// The instances of a fleet: application server and name, sorted.
fn instances(site: &RealSite) -> Vec<(String, String)> {
    let layout = site.lab.layout();
    let all = layout.platforms.iter().flat_map(|platform| &platform.instances);
    let mut all: Vec<_> = all.map(|instance| (instance.app.clone(), instance.name.clone())).collect();
    all.sort();
    all
}

/// The packages of a version as a host's package manager lists them.
fn listed(host: &Host, release: &Release) -> String {
    let names: &[&str] = match () {
        () if release.version.starts_with('7') => &["nlserver6-v7"],
        () if release.version == "5.11" => &["nlserver5", "nlthirdparty5"],
        () => &["nlserver6", "nlthirdparty6"],
    };
    let version = match host.family() {
        Family::Debian => release.package_version(),
        Family::Rhel => format!("{}-0", release.build),
    };
    names.iter().map(|name| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
}

/// The lab is what the test takes it for.
fn assert_as_it_was_installed(site: &RealSite, before: &Seen) {
    for host in site.lab.layout().hosts() {
        assert_eq!(before.packages[&host.name], listed(host, &host.source), "{}", host.name);
        let build = format!(" {}", host.source.build);
        assert!(before.running[&host.name].iter().all(|entry| entry.ends_with(&build)), "{}: {before:?}", host.name);
        assert!(before.running[&host.name].iter().any(|entry| entry.starts_with("watchdog@")), "{}: {before:?}", host.name);
        // Of the other family nothing is there to be asked.
        let (there, not) = match host.family() {
            Family::Debian => ("dpkg-query", "rpm"),
            Family::Rhel => ("rpm", "dpkg-query"),
        };
        let found = run(site.lab.host(&host.name), &format!("command -v {there}; command -v {not} || true"));
        assert_eq!(found, format!("/usr/bin/{there}"), "{}", host.name);
    }
}

/// What happened on a platform, in the order in which its hosts saw it.
fn assert_order(site: &RealSite, platform: &Platform) {
    let records = site.lab.records().expect("records");
    let of = |wanted: &[Event]| {
        let records = records.iter().filter(|record| record.platform == platform.name && wanted.contains(&record.event));
        records.map(|record| (record.event, record.host.as_str(), record.subject.as_str())).collect::<Vec<_>>()
    };
    let (install, upgrade) = (Event::PackageInstalled, Event::PostupgradeEnded);
    // The hosts of a stage have no order among themselves.
    let mut stages = of(&[install, upgrade]);
    if platform.name == "latam" {
        stages[1..5].sort_by_key(|(event, host, _)| (*event == upgrade, *host));
    }
    let new = "nlserver6-v7";
    let expected: &[(Event, &str, &str)] = match platform.name.as_str() {
        "solo" => &[(install, "solo-mkt1", new), (upgrade, "solo-mkt1", "solo")],
        "emea" => {
            &[(install, "emea-mkt1", new), (upgrade, "emea-mkt1", "emea"), (install, "emea-mta1", new), (install, "emea-trk1", new)]
        }
        "apac" => &[
            (install, "apac-mkt1", new),
            (upgrade, "apac-mkt1", "apac"),
            (install, "apac-mid1", new),
            (upgrade, "apac-mid1", "apac_mid"),
        ],
        "amer" => &[
            (install, "amer-pb1", new),
            (upgrade, "amer-pb1", "amer_exec1"),
            (install, "amer-mkt1", new),
            (upgrade, "amer-mkt1", "amer"),
        ],
        _ => &[
            (install, "latam-trk1", new),
            (install, "latam-pc1", new),
            (install, "latam-pc2", new),
            (upgrade, "latam-pc1", "latam_exec1"),
            (upgrade, "latam-pc2", "latam_exec2"),
            (install, "latam-mkt1", new),
            (upgrade, "latam-mkt1", "latam"),
        ],
    };
    assert_eq!(stages, expected, "{}", platform.name);
    assert_eq!(of(&[Event::PostupgradeBegan]).len(), platform.instances.len(), "{}", platform.name);
    // First the web servers, then what delivers, then marketing; after a build upgrade the application server first.
    let starts = of(&[Event::WebStarted, Event::ModuleStarted]);
    let first = starts.iter().find(|(_, _, what)| !is_bare(platform, what)).map(|(event, host, what)| (*event, *host, *what));
    let tracking = platform.hosts.iter().find(|host| host.is(Role::Tracking)).expect("a tracking server");
    let expected = match platform.name.as_str() {
        "amer" => (Event::ModuleStarted, "amer-mkt1", "web@default"),
        _ => (Event::WebStarted, tracking.name.as_str(), tracking.family().web_service()),
    };
    assert_eq!(first, Some(expected), "{}: {starts:?}", platform.name);
}

/// Whether this is what the one start of a bare new installation brings on a host of v5.
fn is_bare(platform: &Platform, what: &str) -> bool {
    platform.source.is_v5() && ["web@default", "syslogd@default"].contains(&what)
}

/// A host is migrated, and kept what it has to keep.
fn assert_migrated(site: &RealSite, platform: &Platform, host: &Host, before: &Seen, after: &Seen) {
    let (name, real) = (&host.name, site.lab.host(&host.name));
    let target = Release::target();
    assert_eq!(after.packages[name], listed(host, &target), "{name}");
    let renamed = |entries: &[String], build: u32| -> Vec<String> {
        entries.iter().map(|entry| entry.strip_suffix(&format!(" {build}")).unwrap_or(entry).to_owned()).collect()
    };
    assert_eq!(
        renamed(&before.running[name], host.source.build),
        renamed(&after.running[name], target.build),
        "what runs on {name}"
    );
    if host.is(Role::Tracking) {
        assert_eq!(redirect_build(host).expect("an answer to /r/test"), "9383", "{name}");
    }
    // What must not change by a byte: the configuration of instances, the site's own files, what the instances keep.
    let back = format!("{}.back", host.source.tree());
    let kept = |tree: &str| {
        let parts = if host.source.is_v5() { "conf/config-[!d]*.xml" } else { "conf/config-*.xml" };
        let files = format!("find {parts} customer.sh customers var -type f ! -path '*/postupgrade/*'");
        run(
            real,
            &format!("cd /usr/local/neolane/{tree} && for f in $({files} | sort); do stat -c '%n %a %U:%G' $f; sha256sum $f; done"),
        )
    };
    assert_eq!(kept(&back), kept("nl6"), "{name}");
    let expected = host.instances.iter().map(|instance| format!("conf/config-{instance}.xml"));
    let expected = expected.chain(["customer.sh", "customers/site.js"].map(str::to_owned));
    for file in expected.chain(host.instances.iter().map(|instance| format!("var/{instance}/redir/log/0.log"))) {
        assert!(kept("nl6").contains(&format!("{file} 6")), "{file} of {name}: {}", kept("nl6"));
    }
    assert_server_conf(platform, host, real);
    // Nothing of Campaign belongs to root, and services have the umask of services.
    assert_eq!(run(real, "find /usr/local/neolane/nl6 ! -user neolane | head -3"), "", "{name}");
    let masks = run(real, "for p in $(pgrep -u neolane nlserver); do grep Umask /proc/$p/status; done | sort -u");
    assert_eq!(masks.trim(), "Umask:\t0022", "{name}");
    if platform.client && host.is(Role::Marketing) {
        // The account that offers the console of the new build is not the one that received it.
        let console = "stat -c '%U %a' /usr/local/neolane/nl6/datakit/nl/eng/jsp/setup-client-7.0.9383.exe";
        assert_eq!(run(real, console), "neolane 644", "{name}");
    }
}

/// The new version's own `serverConf.xml`, with what of the old one has to come along and nothing else of it. A build upgrade keeps the file.
fn assert_server_conf(platform: &Platform, host: &Host, real: &lab::real::RealHost) {
    let home = "/usr/local/neolane";
    let text = |tree: &str| read(real, &format!("{home}/{tree}/conf/serverConf.xml"));
    let (is, was) = (text("nl6"), text(&format!("{}.back", host.source.tree())));
    if platform.source.version.starts_with('7') {
        assert_eq!(is, was, "{}", host.name);
        return;
    }
    let value = |name: &str| {
        let value = was.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"')).map(|(value, _)| value);
        value.filter(|value| !value.is_empty()).unwrap_or_else(|| panic!("no {name} on {}", host.name))
    };
    let mut expected = read(real, &format!("{home}/nl6/conf/serverConf.xml.default"));
    assert!(expected.contains("build 9383") && was.contains(&format!("build {}", host.source.build)), "{}", host.name);
    let carried: &[&str] =
        if host.is(Role::Tracking) { &["internalPassword", "databaseId", "trackingPassword"] } else { &["internalPassword"] };
    for name in carried {
        expected = expected.replace(&format!(" {name}=\"\""), &format!(" {name}=\"{}\"", value(name)));
    }
    assert_eq!(is, expected, "{}", host.name);
}

/// Databases were dumped, tried where the inventory says so, and upgraded once.
fn assert_databases(site: &RealSite, before: &Seen, after: &Seen) {
    let sorted = |event| {
        let mut all = site.records(event);
        all.sort();
        all
    };
    let all = instances(site);
    for event in [Event::DumpWritten, Event::PostupgradeBegan, Event::PostupgradeEnded] {
        assert_eq!(sorted(event), all, "{event:?}");
    }
    for (_, name) in &all {
        let options = "SELECT sstringvalue FROM xtkoption WHERE sname IN ('XtkDatabaseBuild', 'LabUpgrades') ORDER BY 1";
        assert_eq!(site.lab.sql(name, options).expect("rows").trim(), "1\n9383", "{name}");
        assert_ne!(before.rows[name], after.rows[name], "postupgrade has to change {name}, or its restore proves nothing");
    }
    // The dump of emea was restored into a database of its own before anything was replaced.
    assert_eq!(site.records(Event::DumpTried), [("emea-mkt1".to_owned(), "emea_tried".to_owned())]);
    assert_eq!(site.lab.sql("emea_tried", harness::real::ROWS).expect("rows"), before.rows["emea"]);
    let records = site.lab.records().expect("records");
    let first = |event| records.iter().find(|record| record.platform == "emea" && record.event == event).map(|record| record.seq);
    assert!(first(Event::DumpWritten) < first(Event::DumpTried) && first(Event::DumpTried) < first(Event::TreeMoved));
}

/// `/r/test` tells the library that is loaded from the one that is installed.
fn a_web_server_that_was_not_restarted_is_seen(site: &RealSite) {
    let layout = site.lab.layout();
    let (_, tracking) = layout.host("emea-trk1").expect("a tracking server");
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

/// What is done by hand while everything runs is judged as well: the scripts of both families' packages tell the witness.
fn a_package_by_hand_is_seen(site: &RealSite, host: &str, command: &str) {
    let _ = site.lab.host(host).output("sh", &["-c", &format!("cd /run/lab/packages && {command}")]).expect("it runs");
    let broken = site.lab.violations().expect("records");
    let seen = |rule| broken.iter().any(|violation| violation.rule == rule && violation.record.host == host);
    assert!(seen(Rule::PackagesWhileRunning), "{host}: {broken:?}");
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

    // It runs out of room while it is being stopped: the next step cannot be noted, so it does not begin, and nothing after it. A step of
    // the site's own is under way meanwhile, and ends once that has happened.
    let inventory = site.lab.inventory();
    let wait = "  overrides:\n    stop.web-server: { after: [{ name: site.wait, command: [sh, -c, \"touch /run/waits; until [ -e \
                /run/full ]; do sleep 0.1; done\"] }] }\n";
    std::fs::write(&inventory, std::fs::read_to_string(&inventory).expect("the inventory") + wait).expect("the inventory");
    let mut migration = site.begin(&["migrate", "--yes"]);
    site.wait_for(Event::WebStopped, "solo-mkt1", &mut migration);
    harness::until("site.wait is under way", || !run(host, "ls /run/waits || true").is_empty());
    host.fill_disk().expect("a full disk");
    run(host, "touch /run/full");
    let full = harness::finish(migration).expect(1);
    for expected in ["No space left on device", "Nothing of `backup` was started"] {
        assert!(full.stderr.contains(expected), "{expected}\n{}", full.stderr);
    }
    for event in [Event::ServiceStopped, Event::DumpWritten, Event::TreeMoved] {
        assert_eq!(site.count(event, "solo-mkt1"), 0, "{event:?}");
    }
    host.heal().expect("room");

    let mut migration = site.begin(&["resume"]);
    site.wait_for(Event::PostupgradeBegan, "solo-mkt1", &mut migration);
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
