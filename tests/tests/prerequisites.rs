//! Every prerequisite, failing and not to be known: the finding, its words, the exit code, and that nothing was touched.

use harness::Site;
use harness::mounts::{self, Mounted};
use lab::{Event, Says};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const STANDARD: &str = "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 1, tracking: 2 }
";

/// One thing that is broken on a fleet that is well otherwise.
struct Broken {
    file: PathBuf,
    before: Vec<u8>,
    mode: u32,
}

impl Broken {
    fn with(file: PathBuf, content: &str, mode: u32) -> Self {
        let (before, was) = (std::fs::read(&file).unwrap(), std::fs::metadata(&file).unwrap().permissions().mode());
        // Programs of the stand-ins are links to one file: it must not be written through.
        write(&file, content.as_bytes(), mode);
        Self { file, before, mode: was }
    }

    fn edit(file: PathBuf, change: impl Fn(&str) -> String) -> Self {
        let text = std::fs::read_to_string(&file).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "nothing was broken in {}", file.display());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        Self::with(file, &changed, mode)
    }
}

/// What a host says of itself, and the truth again afterwards.
struct Told<'s> {
    site: &'s Site,
    host: &'s str,
}

impl<'s> Told<'s> {
    fn by(site: &'s Site, host: &'s str, says: &Says) -> Self {
        site.host(host).say(Some(says)).unwrap();
        Self { site, host }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.site.host(self.host).say(None).unwrap();
    }
}

/// A program in front of the machine's own, for the host alone.
struct InFront(PathBuf);

impl InFront {
    fn of(site: &Site, host: &str, program: &str, text: &str) -> Self {
        let path = site.host(host).dir.join("bin").join(program);
        assert!(!path.exists(), "{program} is a stand-in already");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for InFront {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        write(&self.file, &self.before, self.mode);
    }
}

fn write(file: &Path, content: &[u8], mode: u32) {
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, content).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode & 0o7777)).unwrap();
}

/// What the stand-ins recorded, but for a tree that this test puts where a backup goes.
fn recorded(site: &Site) -> usize {
    site.records("emea")
        .iter()
        .filter(|record| !matches!(record.event, Event::TreeMoved | Event::TreePutBack | Event::Violation(_)))
        .count()
}

/// `check` with what is broken: this finding has this status and says this, and the exit code is this.
#[track_caller]
fn check<B>(site: &Site, broken: B, id: &str, status: &str, says: &str, exit: i32) {
    let before = recorded(site);
    let ran = site.caravan(&["check", "--format", "json"]).expect(exit);
    let found = ran.json();
    let all = found["findings"].as_array().unwrap();
    let finding = all.iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id} in {all:#?}"));
    assert_eq!(finding["status"], status, "{finding:#}");
    assert!(finding["message"].as_str().unwrap().contains(says), "{finding:#}");
    let remedy = finding["remedy"].as_str().unwrap();
    assert!(
        status == "ok" || !remedy.is_empty() || finding["evidence"].as_str().unwrap().starts_with("not reached"),
        "{finding:#}"
    );
    assert_eq!(recorded(site), before, "nothing was touched");
    drop(broken);
}

/// A program that prints this and ends with this code, in the place of another.
fn script(program: PathBuf, prints: &str, code: u8) -> Broken {
    let text = format!("#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {code}\n");
    Broken::with(program, &text, 0o755)
}

/// `psql` that says this of the server, and this of Campaign's tables.
fn psql(site: &Site, server: &str, tables: &str) -> Broken {
    let text =
        format!("#!/bin/sh\ncase \"$*\" in\n*xtkoption*|*xtkoperator*) printf '{tables}' ;;\n*) printf '{server}' ;;\nesac\n");
    Broken::with(site.host("emea-mkt1").dir.join("bin/psql"), &text, 0o755)
}

const SERVER: &str = "version|13.21\\nencoding|UTF8\\nsize|67108864\\n";
const TABLES: &str = "database-id|uFE8\\ncolumns|1\\noperators|9\\n";

#[test]
fn each_of_them_fails_or_is_unknown_by_itself_and_nothing_is_touched() {
    let site = Site::new(STANDARD);
    site.caravan(&["check"]).expect(0);
    let inventory = || site.lab.inventory();
    let nl6 = |host: &str| site.host(host).nl6();
    let server_conf = |host: &str| nl6(host).join("conf/serverConf.xml");
    let instance = || nl6("emea-mkt1").join("conf/config-emea.xml");

    // 1: version and build.
    let newer = Broken::edit(inventory(), |text| text.replace("latest_build: 8989", "latest_build: 9000"));
    check(&site, newer, "version@emea-mkt1", "failure", "build 8989 is not the latest of v6.1 (9000)", 1);
    let garbled = script(nl6("emea-mkt1").join("bin/nlserver"), "what?", 0);
    check(&site, garbled, "version@emea-mkt1", "unknown", "does not say the version", 1);
    let banner = "Application Server for Adobe Campaign Version 6.1 (build 8700) of 01/02/2016";
    let older = script(nl6("emea-trk1").join("bin/nlserver"), banner, 0);
    check(&site, older, "builds-equal@emea", "failure", "different builds", 1);

    // 2: the backup, and what it is made with.
    let large = psql(&site, "version|13.21\\nencoding|UTF8\\nsize|900000000000000\\n", TABLES);
    check(&site, large, "backup@emea", "failure", "MiB free", 1);
    let newer = psql(&site, "version|99.1\\nencoding|UTF8\\nsize|1000000\\n", TABLES);
    check(&site, newer, "backup@emea", "failure", "older than the server", 1);
    let denied = script(site.host("emea-mkt1").dir.join("bin/psql"), "psql: error: FATAL:  no pg_hba.conf entry", 2);
    check(&site, denied, "database@emea/emea", "failure", "cannot be logged on to from emea-mkt1", 1);
    check(&site, psql(&site, "\\n", TABLES), "database@emea/emea", "unknown", "does not say what it is", 1);
    let away = Broken::edit(inventory(), |text| text.replace(&site.host("emea-mkt1").address.to_string(), "127.255.255.1"));
    check(&site, away, "backup@emea", "unknown", "not known", 3);

    // 3: the engine.
    let other = Broken::edit(instance(), |text| text.replace("provider=\"PostgreSQL\"", "provider=\"Oracle\""));
    check(&site, other, "dbms@emea/emea", "failure", "its hosts name different engines: Oracle, PostgreSQL", 1);
    let torn = Broken::edit(instance(), |text| text[..text.len() / 2].to_owned());
    check(&site, torn, "dbms@emea/emea", "unknown", "cannot be read", 1);

    // 4: Unicode.
    let latin = psql(&site, "version|13.21\\nencoding|LATIN1\\nsize|67108864\\n", TABLES);
    check(&site, latin, "unicode@emea/emea", "failure", "contradict", 1);
    let odd = Broken::edit(instance(), |text| text.replace("unicodeData=\"1\"", "unicodeData=\"perhaps\""));
    check(&site, odd, "unicode@emea/emea", "unknown", "perhaps", 1);

    // 5: passwords.
    let open = psql(&site, SERVER, "database-id|uFE8\\ncolumns|1\\noperators|9\\nopen|admin\\nopen|jdoe\\n");
    check(&site, open, "operator-passwords@emea/emea", "failure", "admin, jdoe", 1);
    let elsewhere = psql(&site, SERVER, "database-id|uFE8\\ncolumns|0\\noperators|9\\n");
    check(&site, elsewhere, "operator-passwords@emea/emea", "unknown", "not known", 1);
    let unset = Broken::edit(server_conf("emea-trk2"), |text| {
        text.replace(&format!("internalPassword=\"{}\"", site.lab.secrets().internal_stored), "internalPassword=\"\"")
    });
    check(&site, unset, "internal-password@emea", "failure", "not set on emea-trk2", 1);
    let torn = Broken::edit(server_conf("emea-trk2"), |text| text[..text.len() / 2].to_owned());
    check(&site, torn, "internal-password@emea", "unknown", "cannot be read on emea-trk2", 1);

    let unset = Broken::edit(server_conf("emea-trk1"), |text| {
        text.replace(&format!("trackingPassword=\"{}\"", site.lab.secrets().tracking_password), "trackingPassword=\"\"")
    });
    check(&site, unset, "tracking-password@emea-trk1", "failure", "not set", 1);
    let torn = Broken::edit(server_conf("emea-trk1"), |text| text[..text.len() / 2].to_owned());
    check(&site, torn, "tracking-password@emea-trk1", "unknown", "cannot be read", 1);

    // 6: the rehearsal, as this workstation's runs have it.
    let rehearsal = Broken::edit(inventory(), |text| {
        let dev = text.replace("emea", "dev");
        let dev = dev.split_once("platforms:\n").unwrap().1.replacen("- name: dev\n", "- name: dev\n  rehearsal: true\n", 1);
        format!("{text}{dev}")
    });
    check(&site, rehearsal, "rehearsal@emea", "failure", "dev has not been migrated from v6.1", 1);
    let damaged = site.state().join("runs/2026-11-14-k3");
    std::fs::create_dir_all(&damaged).unwrap();
    std::fs::write(damaged.join("plan.json"), "{").unwrap();
    std::fs::write(damaged.join("journal.jsonl"), "{").unwrap();
    check(&site, (), "rehearsal@emea", "unknown", "whether it was rehearsed is not known", 1);
    std::fs::remove_dir_all(&damaged).unwrap();

    // 8: the operating system, the packages, the room, the clock, the rights.
    let said = |os: &str| Told::by(&site, "emea-mta1", &Says { os: Some(os.to_owned()), ..Says::default() });
    check(&site, said("debian-9"), "os-supported@emea-mta1", "failure", "does not support debian-9", 1);
    check(&site, said("rhel-9"), "os-as-declared@emea-mta1", "failure", "the host is rhel-9", 1);
    check(&site, said(""), "os-supported@emea-mta1", "unknown", "which operating system it is cannot be told", 1);
    check(&site, said(""), "os-as-declared@emea-mta1", "unknown", "cannot be told", 1);
    let skewed = |minutes: i64| Told::by(&site, "emea-trk2", &Says { clock_ms: minutes * 60_000, ..Says::default() });
    check(&site, skewed(10), "clock@emea-trk2", "failure", "ahead this workstation's", 1);
    check(&site, skewed(-10), "clock@emea-trk2", "failure", "behind this workstation's", 1);
    check(&site, skewed(2), "clock@emea-trk2", "warning", "ahead this workstation's", 0);
    for id in ["clock@emea-trk2", "os-supported@emea-trk2", "arch@emea-trk2"] {
        let silent = Says { unread: Some("/proc cannot be read".to_owned()), ..Says::default() };
        check(&site, Told::by(&site, "emea-trk2", &silent), id, "unknown", "what the host is cannot be read", 1);
    }
    let none = script(site.host("emea-trk1").dir.join("bin/dpkg-query"), "no packages found", 1);
    check(&site, none, "packages-old@emea-trk1", "failure", "not installed: nlserver6", 1);
    let broken = Broken::with(site.host("emea-trk1").dir.join("bin/dpkg-query"), "#!/nonexistent\n", 0o755);
    check(&site, broken, "packages-old@emea-trk1", "unknown", "the package manager's list cannot be read", 1);
    let nobody = InFront::of(&site, "emea-mta1", "stat", "#!/bin/sh\necho 65533 somebody\n");
    check(&site, nobody, "campaign-user@emea-mta1", "failure", "", 1);
    let silent = InFront::of(&site, "emea-mta1", "stat", "#!/bin/sh\necho stat: broken\nexit 1\n");
    check(&site, silent, "campaign-user@emea-mta1", "unknown", "cannot be read", 1);
    let home = site.host("emea-mta1").home();
    let away = home.with_extension("away");
    std::fs::rename(&home, &away).unwrap();
    std::os::unix::fs::symlink(&home, &home).unwrap();
    check(&site, (), "disk@emea-mta1", "unknown", "free space at", 1);
    std::fs::remove_file(&home).unwrap();
    std::fs::rename(&away, &home).unwrap();

    let os = site.host("emea-mta1").os.clone();
    let other = Broken::edit(inventory(), |text| {
        text.replacen(&format!("os: {os}\n"), "os: rhel-8\n", text.matches(&format!("os: {os}\n")).count())
    });
    check(&site, other, "os-as-declared@emea-mta1", "failure", "the inventory says rhel-8", 1);
    std::fs::create_dir(site.host("emea-mta1").backup()).unwrap();
    let marker = Broken::edit(inventory(), |text| format!("{text}\n# nothing\n"));
    check(&site, marker, "back-tree-absent@emea-mta1", "failure", "exists already", 1);
    std::fs::remove_dir(site.host("emea-mta1").backup()).unwrap();

    site.caravan(&["check"]).expect(0);
}

#[test]
fn a_disk_without_room_for_what_is_to_come_fails() {
    if !mounts::inside("a_disk_without_room_for_what_is_to_come_fails") {
        return;
    }
    let site = Site::new("platforms: [{ name: emea, topology: standalone, hosts: { marketing: 1 } }]");
    let small = Mounted::small(&site.host("emea-mkt1").host_state(), 100 * 1024);
    let needs = "var/lib/caravan needs at least 256 MiB free";
    check(&site, (), "disk@emea-mkt1", "failure", needs, 1);
    let held = site.caravan(&["migrate", "--yes"]).expect(1);
    assert!(held.stderr.contains(needs), "{}", held.stderr);
    assert_eq!(site.count(Event::ServiceStopped), 0, "nothing was touched");
    small.resize(600 * 1024);
    check(&site, (), "disk@emea-mkt1", "ok", "enough free space", 0);
}

#[test]
fn a_finding_holds_a_platform_up_until_it_is_overridden_with_a_reason() {
    let site = Site::new(&format!("{STANDARD}\nfaults: {{ operators_without_password: [admin] }}"));
    let before = site.records("emea").len();
    let held = site.caravan(&["migrate", "--yes"]).expect(1);
    assert!(held.stderr.contains("operator-passwords") && held.stderr.contains("without a password: admin"), "{}", held.stderr);
    assert_eq!(site.records("emea").len(), before, "nothing was touched");
    let reason = "operator-passwords@emea/emea=ticket 4711: admin is disabled there";
    site.caravan(&["resume", "--override", reason]).expect(0);
    site.assert_no_violations();
    let report = site.caravan(&["report"]).expect(0);
    assert!(report.stdout.contains("ticket 4711: admin is disabled there"), "{}", report.stdout);
    assert!(report.stdout.contains("xtk:form recipient"), "documents in conflict are listed: {}", report.stdout);
    let json = site.caravan(&["report", "--format", "json"]).expect(0).json();
    let findings = json["platforms"][0]["findings"].as_array().or(json["findings"].as_array()).unwrap().clone();
    let said = findings.iter().find(|finding| finding["check"] == "postupgrade").expect("the postupgrade's own words");
    assert!(said["message"].as_str().unwrap().starts_with("1 warning, no error (1 of JST-310040"), "{said:#}");
}

#[test]
fn nothing_is_started_while_v7_would_let_nobody_in() {
    let site = Site::new(STANDARD);
    let file = site.host("emea-mkt1").nl6().join("conf/serverConf.xml");
    let close =
        format!("conf.reload: {{ after: [{{ name: close-zones, command: [sed, -i, /subNetwork/d, \"{}\"] }}] }}", file.display());
    // The others have no such file to close, and need none.
    let close = close.replace("[sed, -i, /subNetwork/d, ", "[sh, -c, 'test ! -f \"$0\" || sed -i /subNetwork/d \"$0\"', ");
    site.override_steps(&close);
    let held = site.caravan(&["migrate", "--yes"]).expect(1);
    assert!(held.stderr.contains("security-zones") && held.stderr.contains("closed to everybody"), "{}", held.stderr);
    assert_eq!(site.count(Event::PostupgradeEnded), 1);
    assert_eq!(site.count(Event::ModuleStarted), 0, "nothing is started");
    let text = std::fs::read_to_string(&file).unwrap();
    // What cannot be known holds up as well.
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let unknown = site.caravan(&["resume"]).expect(1);
    assert!(unknown.stderr.contains("the security zones cannot be read"), "{}", unknown.stderr);
    assert_eq!(site.count(Event::ModuleStarted), 0, "nothing is started");
    std::fs::write(
        &file,
        text.replace("<securityZone name=\"lan\"", "<subNetwork mask=\"10.0.0.0/8\"/><securityZone name=\"lan\""),
    )
    .unwrap();
    site.caravan(&["resume"]).expect(0);
    assert_eq!(site.count(Event::PostupgradeEnded), 1);
    site.assert_no_violations();
}
