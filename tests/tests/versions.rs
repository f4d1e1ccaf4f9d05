//! Migrations from every version, end to end: the stand-ins see nothing wrong, and the way back leads to what was there, to the byte.

use controller::run::store::Store;
use harness::Site;
use lab::{Event, Host, Progress, Role};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Migrates a fleet, looks at its hosts, and brings it back.
fn there_and_back(spec: &str, look: impl Fn(&Host)) {
    let site = Site::new(spec);
    let before = site.lab.snapshot().unwrap();
    site.migrate(&[]).expect(0);
    site.assert_no_violations();
    let target = site.lab.layout().target.build.to_string();
    for host in site.lab.layout().hosts() {
        assert_eq!(lab::progress(site.lab.layout(), host).unwrap(), Progress::New, "{}", host.name);
        let running = lab::running(host).unwrap();
        assert!(running.iter().any(|entry| entry.name == "watchdog@default"), "{}", host.name);
        assert!(running.iter().all(|entry| entry.build.to_string() == target), "{}: {running:?}", host.name);
        if host.is(Role::Tracking) {
            assert_eq!(lab::redirect_build(host).unwrap(), target, "{}", host.name);
        }
        look(host);
    }
    let instances: usize = site.lab.layout().platforms.iter().map(|platform| platform.instances.len()).sum();
    assert_eq!(site.count(Event::PostupgradeEnded), instances);
    let run = Store::new(&site.state()).find(None).unwrap().id;
    site.caravan(&["rollback", &run, "--yes"]).expect(0);
    site.assert_no_violations();
    assert_eq!(before.differences(&site.lab.snapshot().unwrap()), Vec::<String>::new());
}

/// The configuration of a host's instances is that of the backup, byte for byte: what was set aside is back.
fn configuration_is_back(host: &Host) {
    for instance in &host.instances {
        let file = format!("conf/config-{instance}.xml");
        assert_eq!(fs::read(host.nl6().join(&file)).unwrap(), fs::read(host.backup().join(&file)).unwrap(), "{} {file}", host.name);
    }
}

#[test]
fn from_v5_11() {
    let spec = "
platforms:
  - name: emea
    topology: standard
    source: { version: '5.11', build: 8000 }
    client: true
    instances: 2
    hosts: { marketing: 1, mta: 1, tracking: 2 }
    disabled: { emea-mta1: [inMail] }
";
    there_and_back(spec, |host| {
        configuration_is_back(host);
        assert!(host.backup().ends_with("nl5.back") && host.nl6().ends_with("nl6") && !host.home().join("nl5").exists());
        let default = fs::read_to_string(host.nl6().join("conf/config-default.xml")).unwrap();
        assert!(!default.contains("nl5"), "config-default.xml of v5 stays where it was: {default}");
        assert_eq!(default.contains("<trackinglogd autoStart=\"true\"/>"), host.is(Role::Tracking));
        let bashrc = fs::read_to_string(host.home().join(".bashrc")).unwrap();
        assert!(bashrc.contains("nl6/env.sh") && !bashrc.contains("nl5") && bashrc.starts_with("# ~/.bashrc"), "{bashrc}");
        let console = host.nl6().join("datakit/nl/eng/jsp/setup-client-7.0.9383.exe");
        assert_eq!(console.exists(), host.is(Role::Marketing), "{}", host.name);
    });
}

#[test]
fn from_v5_11_with_a_power_booster() {
    let spec = "
platforms:
  - name: amer
    topology: power-booster
    source: { version: '5.11', build: 8000 }
    hosts: { marketing: 1, power-booster: 1, tracking: 1 }
";
    there_and_back(spec, configuration_is_back);
}

#[test]
fn from_v6_02() {
    let spec = "
platforms:
  - name: emea
    topology: standard
    source: { version: '6.02', build: 8500 }
    hosts: { marketing: 1, mta: 1, tracking: 1 }
    also: { emea-mta1: [tracking] }
    disabled: { emea-mta1: [stat] }
";
    there_and_back(spec, configuration_is_back);
}

#[test]
fn to_a_later_build_of_v7() {
    let spec = "
platforms:
  - name: emea
    topology: standard
    source: { version: 7.3.5, build: 9368 }
    hosts: { marketing: 1, mta: 1, tracking: 1 }
  - name: latam
    topology: power-cluster
    source: { version: 7.3.5, build: 9368 }
    hosts: { marketing: 1, power-cluster: 2, mid-sourcing: 1, tracking: 1 }
";
    there_and_back(spec, |host| {
        configuration_is_back(host);
        assert!(host.backup().ends_with("nl6.back"));
    });
}

/// One fleet, one `migrate`, one `rollback`: a platform of each version.
#[test]
fn all_versions_at_once() {
    let platform = |name: &str, version: &str, build: u32| {
        format!(
            "  - {{ name: {name}, topology: standalone, source: {{ version: '{version}', build: {build} }}, hosts: {{ marketing: 1 }}, \
             also: {{ {name}-mkt1: [mta, tracking] }} }}\n"
        )
    };
    let versions = [("five", "5.11", 8000), ("six", "6.02", 8500), ("sixone", "6.1", 8989), ("seven", "7.3.5", 9368)];
    let platforms: String = versions.iter().map(|(name, version, build)| platform(name, version, *build)).collect();
    there_and_back(&format!("platforms:\n{platforms}"), configuration_is_back);
}

/// A migration from v5 that fails half-way goes back all the same, wherever it failed.
#[test]
fn a_failure_on_the_way_from_v5() {
    for step in ["install.first-start", "conf.apache", "conf.release-modules"] {
        let site = Site::new(
            "platforms: [{ name: emea, topology: standard, source: { version: '5.11', build: 8000 }, hosts: { marketing: 1, tracking: 1 } }]",
        );
        let before = site.lab.snapshot().unwrap();
        let inventory = fs::read_to_string(site.lab.inventory()).unwrap();
        let failing = format!("{inventory}  overrides:\n    {step}: {{ after: [{{ name: site.fails, command: ['false'] }}] }}\n");
        fs::write(site.lab.inventory(), failing).unwrap();
        site.migrate(&[]).expect(1);
        fs::write(site.lab.inventory(), inventory).unwrap();
        let run = Store::new(&site.state()).find(None).unwrap().id;
        site.caravan(&["rollback", &run, "--yes"]).expect(0);
        site.assert_no_violations();
        assert_eq!(before.differences(&site.lab.snapshot().unwrap()), Vec::<String>::new(), "{step}");
    }
}

/// What is kept to go back is removed only when it is asked for, under whatever name it is kept.
#[test]
fn the_tree_of_v5_is_cleaned_up() {
    let site = Site::new(
        "platforms: [{ name: solo, topology: standalone, source: { version: '5.11', build: 8000 }, hosts: { marketing: 1 } }]",
    );
    site.migrate(&[]).expect(0);
    let host = site.lab.host("solo-mkt1").host;
    let run = Store::new(&site.state()).find(None).unwrap().id;
    assert!(host.home().join("nl5.back").exists());
    site.caravan(&["cleanup", &run, "--yes", "--remove-backups"]).expect(0);
    assert!(!host.home().join("nl5.back").exists() && !host.host_state().exists());
    assert!(host.home().join("nl6/bin/nlserver").exists());
    // The inventory still says v5: the host says where the password is by now.
    let proof = |ran: harness::Ran| ran.json()["platforms"][0]["identical"].clone();
    assert_eq!(proof(site.caravan(&["passwords", "check", "--format", "json"]).expect(0)), true);
    let written = |name: &str, value: &str| {
        let path = site.root().join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        format!("file:{}", path.display())
    };
    let (current, new) = (written("current", &site.lab.secrets().internal_password), written("new", "Another-5-pw"));
    site.caravan(&["passwords", "set", "--yes", "--current", &current, "--new", &new]).expect(0);
    assert_eq!(proof(site.caravan(&["passwords", "check", "--format", "json"]).expect(0)), true);
}

/// A runbook of the site's own is what is carried out, there and back.
#[test]
fn by_a_runbook_of_the_sites_own() {
    let embedded = include_str!("../../controller/src/plan/runbooks/to-v7.yaml");
    let at = embedded.find("  - name: backup.archive\n").unwrap();
    let own = "  - name: site.mark
    title: \"{host}: mark {source.tree}.back\"
    short: mark
    phase: backup
    stage: trees
    scope: host
    when: { campaign: true }
    run_as: campaign
    action: { command: { argv: [mkdir, -p, \"{home}/marked-{run}\"] } }
    probe: { exists: \"{home}/marked-{run}\" }
    reversibility: reversible
    source: the site
    explain: It is seen afterwards.
    undo: Remove the mark.

";
    let site = Site::new(
        "platforms: [{ name: solo, topology: standalone, hosts: { marketing: 1 }, also: { solo-mkt1: [mta, tracking] } }]",
    );
    let before = site.lab.snapshot().unwrap();
    fs::write(site.lab.dir().join("ours.yaml"), format!("{}{own}{}", &embedded[..at], &embedded[at..])).unwrap();
    let inventory = fs::read_to_string(site.lab.inventory()).unwrap();
    fs::write(site.lab.inventory(), inventory.replacen("defaults:\n", "defaults:\n  runbook: ./ours.yaml\n", 1)).unwrap();
    site.migrate(&[]).expect(0);
    site.assert_no_violations();
    let run = Store::new(&site.state()).find(None).unwrap().id;
    let mark = site.lab.host("solo-mkt1").host.home().join(format!("marked-{run}"));
    assert!(mark.exists());
    site.caravan(&["rollback", &run, "--yes"]).expect(0);
    site.assert_no_violations();
    // Only the site knows how its own step is undone.
    fs::remove_dir(mark).unwrap();
    assert_eq!(before.differences(&site.lab.snapshot().unwrap()), Vec::<String>::new());
}
