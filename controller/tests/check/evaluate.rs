//! Each check, both ways: a healthy fleet is green, and each thing that is wrong shows as the finding that stands for it.

use crate::check::sim::*;
use controller::check::{
    History, HostState, Point, Reached, Readings, Verdict, apply_overrides, evaluate, holds_up, overridable, queries, verdict,
};
use inventory::*;
use proto::event::{Finding, Status};
use proto::inspect::{Answer, FileFacts, PathKind, Query, ReadError, Reading, XmlValue};
use proto::step::PackageManager;
use std::collections::{BTreeMap, BTreeSet};

fn findings(platform: &Platform, sim: Sim, when: Point) -> Vec<Finding> {
    evaluate(platform, &sim.gather(when), when, &rehearsed())
}

/// The findings of emea with one thing changed.
fn with(change: impl FnOnce(&mut Platform, &mut Sim)) -> Vec<Finding> {
    let mut platform = emea();
    let mut sim = Sim::new(std::slice::from_ref(&platform));
    change(&mut platform, &mut sim);
    // What is asked depends on the inventory, so the changed one is the one that is asked by.
    let mut asked = Sim::new(std::slice::from_ref(&platform));
    asked.hosts = sim.hosts;
    findings(&platform, asked, Point::Preflight)
}

fn find<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let ids: Vec<&str> = findings.iter().map(|finding| finding.id.as_str()).collect();
    findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("{id} is not among {ids:?}"))
}

/// That this finding and no other is not well.
#[track_caller]
fn alone(findings: &[Finding], id: &str, status: Status, part: &str) {
    let other: Vec<_> = findings.iter().filter(|finding| finding.status != Status::Ok && finding.id != id).collect();
    assert!(other.is_empty(), "also not well: {other:#?}");
    one(findings, id, status, part);
}

#[track_caller]
fn one(findings: &[Finding], id: &str, status: Status, part: &str) {
    let found = find(findings, id);
    assert_eq!(found.status, status, "{found:#?}");
    assert!(found.message.contains(part), "`{}` does not say `{part}`", found.message);
    assert!(!found.evidence.is_empty(), "{id} has no evidence");
    if status != Status::Ok {
        assert!(!found.remedy.is_empty(), "{id} does not say what to do: {found:#?}");
    }
}

fn path(path: &str) -> Query {
    Query::Path { path: path.to_owned() }
}

fn space(path: &str) -> Query {
    Query::Space { path: path.to_owned() }
}

fn conf(attribute: &str) -> Query {
    let element = if attribute == "name" { "serverconf" } else { "serverconf/shared/dataStore/dataSource/dbcnx" };
    Query::Xml { file: format!("{HOME}/nl6/conf/config-*.xml"), element: element.to_owned(), attribute: attribute.to_owned() }
}

fn pdump() -> Query {
    Query::Output {
        argv: vec![format!("{HOME}/nl6/bin/nlserver"), "pdump".to_owned()],
        profile: Some(format!("{HOME}/nl6/env.sh")),
        secret_files: BTreeMap::new(),
    }
}

fn program(argv: &[&str]) -> Query {
    Query::Output { argv: argv.iter().map(ToString::to_string).collect(), profile: None, secret_files: BTreeMap::new() }
}

fn packages() -> Query {
    let names = ["nlserver6", "nlthirdparty6", "nlserver6-v7"].map(str::to_owned).to_vec();
    Query::Packages { manager: PackageManager::Dpkg, names }
}

fn installed(names: &[&str]) -> Answer {
    Answer::Packages(names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect())
}

fn in_conf(instance: &str, value: Option<&str>) -> XmlValue {
    XmlValue { file: format!("{HOME}/nl6/conf/config-{instance}.xml"), value: value.map(str::to_owned) }
}

fn denied() -> ReadError {
    ReadError::Denied("the file".to_owned())
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_healthy_platform_is_green() {
    let all = with(|_, _| {});
    assert!(all.iter().all(|finding| finding.status == Status::Ok), "{all:#?}");
    assert!(!holds_up(&all));
    assert_eq!(verdict(&all), Verdict::Clear);
    let ids: BTreeSet<&str> = all.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "ids are unique");
    for host in ["mkt1", "mta1", "mta2", "trk01", "trk02", "trk03"] {
        for check in ["reachable", "os-as-declared", "os-supported", "arch", "version", "packages-old", "instance-config"] {
            assert!(ids.contains(format!("{check}@{host}").as_str()), "{check}@{host}");
        }
        for check in ["back-tree-absent", "disk", "campaign-user", "clock"] {
            assert!(ids.contains(format!("{check}@{host}").as_str()), "{check}@{host}");
        }
    }
    for id in
        ["running@mkt1", "dbms@emea/emea_prod", "unicode@emea/emea_prod", "builds-equal@emea", "same-machine@emea", "backup@emea"]
    {
        assert!(ids.contains(id), "{id}");
    }
    assert!(ids.contains("internal-password@emea"));
}

#[test]
fn the_operating_system_is_compared_and_looked_up() {
    let all = with(|_, sim| sim.at("mta1").system.os = "debian-12".to_owned());
    alone(&all, "os-as-declared@mta1", Status::Failure, "debian-12");
    let all = with(|platform, sim| {
        platform.hosts[1].os = None;
        sim.at("mta1").system.os = "debian-9".to_owned();
    });
    alone(&all, "os-supported@mta1", Status::Failure, "does not support debian-9");
    let all = with(|platform, sim| {
        platform.hosts[1].os = Some("rhel-8".to_owned());
        sim.at("mta1").system.os = "rocky-8".to_owned();
    });
    alone(&all, "os-supported@mta1", Status::Warning, "the vendor does not name it");
    let all = with(|_, sim| sim.at("mta1").system.os = String::new());
    one(&all, "os-as-declared@mta1", Status::Unknown, "cannot be told");
    let all = with(|_, sim| sim.at("mta1").answer(Query::System, Err(denied())));
    one(&all, "os-as-declared@mta1", Status::Unknown, "cannot be read");
    let all = with(|platform, sim| {
        platform.hosts[1].init = Some(InitSystem::Systemd);
        sim.at("mta1").system.systemd = false;
    });
    alone(&all, "os-as-declared@mta1", Status::Failure, "systemd");
    let all = with(|_, sim| sim.at("mta1").answer(path("/etc/init.d"), Ok(Answer::Path(PathKind::Absent))));
    alone(&all, "os-as-declared@mta1", Status::Failure, "no init scripts");
    let all = with(|_, sim| sim.at("mta1").system.arch = "aarch64".to_owned());
    alone(&all, "arch@mta1", Status::Failure, "aarch64");
}

#[test]
fn the_version_in_use_must_be_the_latest_build_of_what_was_declared() {
    let all = with(|_, sim| sim.at("mta1").build = 8700);
    one(&all, "version@mta1", Status::Failure, "8700 is not the latest");
    one(&all, "builds-equal@emea", Status::Failure, "different builds");
    assert!(find(&all, "builds-equal@emea").evidence.contains("8700: mta1"));
    let all = with(|platform, _| platform.hosts[1].source.latest_build = None);
    alone(&all, "version@mta1", Status::Warning, "does not say the latest build");
    let all = with(|platform, _| platform.hosts[1].source.latest_build = Some(8000));
    alone(&all, "version@mta1", Status::Warning, "newer than");
    let all = with(|_, sim| (sim.at("mta1").build, sim.at("mta1").version) = (NEW, "7.4.1".to_owned()));
    one(&all, "version@mta1", Status::Failure, "target build 9383 already");
    let all = with(|_, sim| sim.at("mta1").version = "6.11".to_owned());
    alone(&all, "version@mta1", Status::Failure, "the inventory says v6.1, installed is 6.11");
    let all = with(|_, sim| sim.at("mta1").answer(pdump(), Err(ReadError::Missing("nlserver".to_owned()))));
    alone(&all, "version@mta1", Status::Failure, "no Campaign installation");
    let all = with(|_, sim| sim.at("mta1").answer(pdump(), Err(denied())));
    alone(&all, "version@mta1", Status::Unknown, "cannot be read");
    let broken = Answer::Output { code: 127, text: "\u{1b}[31mlibnl.so: not found".to_owned() };
    let all = with(|_, sim| sim.at("mta1").answer(pdump(), Ok(broken)));
    alone(&all, "version@mta1", Status::Unknown, "does not say the version");
    let evidence = &find(&all, "version@mta1").evidence;
    assert!(evidence.contains("exit 127") && !evidence.contains('\u{1b}'), "{evidence:?}");
}

#[test]
fn a_build_upgrade_leads_to_a_later_build() {
    let of_v7 = |build: u32, latest: Option<u32>| {
        with(|platform, sim| {
            for host in &mut platform.hosts {
                (host.source.version, host.source.latest_build) = (SourceVersion::V7, latest);
                if host.has_campaign() {
                    (sim.at(&host.name).build, sim.at(&host.name).version) = (build, "7.3.5".to_owned());
                }
            }
        })
    };
    one(&of_v7(9300, None), "version@mta1", Status::Ok, "v7, build 9300");
    one(&of_v7(9300, Some(9300)), "version@mta1", Status::Ok, "latest build 9300");
    one(&of_v7(9300, Some(9343)), "version@mta1", Status::Failure, "9300 is not the latest");
    one(&of_v7(9400, None), "version@mta1", Status::Failure, "build 9400 is later than the target build 9383");
    one(&of_v7(NEW, None), "version@mta1", Status::Failure, "target build 9383 already");
}

#[test]
fn the_packages_to_replace_must_be_there() {
    let all = with(|_, sim| sim.at("mta1").answer(packages(), Ok(installed(&[]))));
    alone(&all, "packages-old@mta1", Status::Failure, "nlserver6, nlthirdparty6");
    let all = with(|_, sim| sim.at("mta1").answer(packages(), Ok(installed(&["nlserver6"]))));
    alone(&all, "packages-old@mta1", Status::Warning, "nlthirdparty6");
    let all = with(|_, sim| sim.at("mta1").answer(packages(), Ok(installed(&["nlserver6", "nlthirdparty6", "nlserver6-v7"]))));
    alone(&all, "packages-old@mta1", Status::Failure, "installed already");
    let all = with(|_, sim| sim.at("mta1").answer(packages(), Err(ReadError::Missing("dpkg-query".to_owned()))));
    alone(&all, "packages-old@mta1", Status::Unknown, "cannot be read");
    let all = with(|platform, sim| {
        // Without a declared OS both package managers are asked, and one of them is not there.
        platform.hosts[1].os = None;
        let names = ["nlserver6", "nlthirdparty6", "nlserver6-v7"].map(str::to_owned).to_vec();
        let rpm = Query::Packages { manager: PackageManager::Rpm, names };
        sim.at("mta1").answer(rpm, Err(ReadError::Missing("rpm".to_owned())));
    });
    alone(&all, "packages-old@mta1", Status::Ok, "installed");
}

#[test]
fn instances_must_be_configured_where_they_are_needed() {
    let nothing = || Ok(Answer::Xml(vec![in_conf("default", None)]));
    let all = with(|_, sim| sim.at("mkt1").answer(conf("name"), nothing()));
    alone(&all, "instance-config@mkt1", Status::Failure, "emea_prod");
    let all = with(|_, sim| sim.at("mta1").answer(conf("name"), nothing()));
    alone(&all, "instance-config@mta1", Status::Failure, "mail server");
    // A redirection server needs no database.
    let all = with(|_, sim| sim.at("trk01").answer(conf("name"), nothing()));
    alone(&all, "instance-config@trk01", Status::Ok, "");
    let more = Ok(Answer::Xml(vec![in_conf("emea_prod", None), in_conf("forgotten", None)]));
    let all = with(|_, sim| sim.at("mkt1").answer(conf("name"), more));
    alone(&all, "instance-config@mkt1", Status::Warning, "forgotten");
    let all = with(|_, sim| sim.at("mkt1").answer(conf("name"), Err(denied())));
    alone(&all, "instance-config@mkt1", Status::Unknown, "cannot be read");
}

#[test]
fn the_backup_tree_must_be_absent_and_the_disks_not_full() {
    let back = || path(&format!("{HOME}/nl6.back"));
    let all = with(|_, sim| sim.at("trk01").answer(back(), Ok(Answer::Path(PathKind::Directory))));
    alone(&all, "back-tree-absent@trk01", Status::Failure, "exists already");
    let all = with(|_, sim| sim.at("trk01").answer(back(), Err(denied())));
    alone(&all, "back-tree-absent@trk01", Status::Unknown, "cannot be read");
    let free = |mib: u64| Ok(Answer::Space { free: mib * MIB, inodes: 0 });
    let all = with(|_, sim| sim.at("trk01").answer(space(HOME), free(1023)));
    alone(&all, "disk@trk01", Status::Failure, "1024 MiB");
    let all = with(|_, sim| sim.at("trk01").answer(space(HOME), free(1024)));
    alone(&all, "disk@trk01", Status::Warning, "1024 MiB");
    let all = with(|_, sim| sim.at("trk01").answer(space("/var/lib/caravan"), free(100)));
    alone(&all, "disk@trk01", Status::Failure, "/var/lib/caravan");
    let all = with(|_, sim| sim.at("trk01").answer(space(HOME), Ok(Answer::Space { free: 1 << 40, inodes: 12 })));
    alone(&all, "disk@trk01", Status::Failure, "inodes");
    let all = with(|_, sim| sim.at("trk01").answer(space(HOME), Err(denied())));
    alone(&all, "disk@trk01", Status::Unknown, "free space");
}

/// A build upgrade is laid over a copy, and the old tree and its archive stay beside it: the disk must hold all three.
#[test]
fn a_build_upgrade_needs_room_for_a_copy_of_the_installation() {
    let upgrade = |change: &dyn Fn(&mut SimHost)| {
        with(|platform, sim| {
            for host in &mut platform.hosts {
                (host.source.version, host.source.latest_build) = (SourceVersion::V7, None);
                let sim = sim.at(&host.name);
                (sim.version, sim.build) = ("7.0".to_owned(), OLD);
                sim.answer(
                    Query::Packages { manager: PackageManager::Dpkg, names: vec!["nlserver6-v7".to_owned(); 2] },
                    Ok(Answer::Packages(vec![("nlserver6-v7".to_owned(), OLD.to_string())])),
                );
            }
            change(sim.at("trk01"));
        })
    };
    // 3072 for the copy, 1536 for the archive, 1024 for the rest.
    let free = |mib: u64| Ok(Answer::Space { free: mib * MIB, inodes: 0 });
    let status = |mib: u64| find(&upgrade(&|host| host.answer(space(HOME), free(mib))), "disk@trk01").clone();
    let short = status(5631);
    assert_eq!((short.status, short.message.as_str()), (Status::Failure, "/usr/local/neolane needs at least 5632 MiB free"));
    let counted = "needed: 3072 MiB for a copy of /usr/local/neolane/nl6, 1536 MiB for its archive, 1024 MiB for packages and the rest: 5632 MiB";
    assert!(short.evidence.ends_with(counted), "{}", short.evidence);
    assert_eq!(status(5632).status, Status::Warning);
    assert_eq!(status(6656).status, Status::Ok);
    let du = || program(&["du", "-skx", &format!("{HOME}/nl6")]);
    // Files that come and go while it counts are no reason to know nothing.
    let text = format!("du: cannot access 'x': No such file or directory\n2048\t{HOME}/nl6\n");
    let partly = upgrade(&|host| host.answer(du(), Ok(Answer::Output { code: 1, text: text.clone() })));
    let partly = find(&partly, "disk@trk01");
    assert!(partly.status == Status::Ok && partly.evidence.contains("needed: 2 MiB"), "{partly:#?}");
    for answer in
        [Err(ReadError::Failed("du did not answer within 60 s".to_owned())), Ok(Answer::Output { code: 1, text: String::new() })]
    {
        let unknown = upgrade(&|host| host.answer(du(), answer.clone()));
        one(&unknown, "disk@trk01", Status::Unknown, "how large /usr/local/neolane/nl6 is cannot be read");
    }
}

/// What a host does not say of itself is unknown for each check that rests on it.
#[test]
fn a_host_that_does_not_say_what_it_is_leaves_every_check_of_it_unknown() {
    let all = with(|_, sim| sim.at("mta2").answer(Query::System, Err(ReadError::Failed("/proc cannot be read".to_owned()))));
    for check in ["os-as-declared", "os-supported", "arch", "clock"] {
        one(&all, &format!("{check}@mta2"), Status::Unknown, "what the host is cannot be read");
    }
    let all = with(|_, sim| sim.at("mta2").system.os = String::new());
    one(&all, "os-supported@mta2", Status::Unknown, "cannot be told");
    one(&all, "os-as-declared@mta2", Status::Unknown, "cannot be told");
}

#[test]
fn the_account_must_be_able_to_change_the_installation() {
    let none = |platform: &mut Platform| platform.hosts[1].become_.method = BecomeMethod::None;
    let all = with(|platform, sim| {
        none(platform);
        sim.at("mta1").euid = 1001;
    });
    alone(&all, "campaign-user@mta1", Status::Warning, "has to remove and install packages too");
    let all = with(|platform, sim| {
        none(platform);
        sim.at("mta1").euid = 1002;
    });
    alone(&all, "campaign-user@mta1", Status::Failure, "does not own");
    let all = with(|platform, _| none(platform));
    alone(&all, "campaign-user@mta1", Status::Failure, "would run as root");
    let all = with(|platform, _| {
        none(platform);
        platform.hosts[1].ssh.user = Some("root".to_owned());
    });
    alone(&all, "campaign-user@mta1", Status::Ok, "root, and the account neolane");
    let all = with(|_, sim| sim.at("mta1").euid = 1002);
    alone(&all, "campaign-user@mta1", Status::Failure, "did not become root");
    let missing = Answer::Output { code: 1, text: "id: 'neolane': no such user".to_owned() };
    let all = with(|_, sim| sim.at("mta1").answer(program(&["id", "-u", "neolane"]), Ok(missing)));
    alone(&all, "campaign-user@mta1", Status::Failure, "no account neolane");
    let root = Answer::Output { code: 0, text: "0 root\n".to_owned() };
    let all = with(|_, sim| sim.at("mta1").answer(program(&["stat", "-c", "%u %U", HOME]), Ok(root)));
    alone(&all, "campaign-user@mta1", Status::Warning, "does not belong to neolane");
}

#[test]
fn clocks_are_compared() {
    let skewed = |ms: i64| with(|_, sim| sim.at("mta2").skew_ms = ms);
    alone(&skewed(20_000), "clock@mta2", Status::Ok, "agrees");
    alone(&skewed(45_000), "clock@mta2", Status::Warning, "ahead");
    alone(&skewed(-45_000), "clock@mta2", Status::Warning, "behind");
    alone(&skewed(3_600_000), "clock@mta2", Status::Failure, "min ahead");
    alone(&skewed(-3_600_000), "clock@mta2", Status::Failure, "min behind");
}

fn providers(value: &str) -> Result<Answer, ReadError> {
    Ok(Answer::Xml(vec![in_conf("emea_prod", Some(value)), in_conf("other", Some("Oracle"))]))
}

#[test]
fn the_engine_cannot_change() {
    let everywhere = |sim: &mut Sim, value: &str| {
        for host in sim.hosts.values_mut() {
            host.answer(conf("provider"), providers(value));
        }
    };
    let all = with(|_, sim| everywhere(sim, "POSTGRESQL"));
    alone(&all, "dbms@emea/emea_prod", Status::Ok, "PostgreSQL");
    let all = with(|_, sim| everywhere(sim, "Oracle"));
    alone(&all, "dbms@emea/emea_prod", Status::Failure, "the inventory says PostgreSQL, the instance uses Oracle");
    let all = with(|_, sim| everywhere(sim, "Sybase"));
    alone(&all, "dbms@emea/emea_prod", Status::Failure, "Sybase");
    let all = with(|_, sim| sim.at("mta1").answer(conf("provider"), providers("Oracle")));
    alone(&all, "dbms@emea/emea_prod", Status::Failure, "different engines");
    assert!(find(&all, "dbms@emea/emea_prod").evidence.contains("mta1: config-emea_prod.xml provider=Oracle"));
    let all = with(|_, sim| sim.at("mkt1").answer(conf("provider"), Err(denied())));
    alone(&all, "dbms@emea/emea_prod", Status::Unknown, "cannot be read");
    let mysql = |platform: &mut Platform, version: SourceVersion| {
        let database = platform.instances[0].database.as_mut().unwrap();
        (database.engine, database.backup) = (Engine::Mysql, Backup::ByDba);
        platform.hosts.iter_mut().for_each(|host| host.source.version = version);
    };
    let all = with(|platform, sim| {
        mysql(platform, SourceVersion::V6_1);
        everywhere(sim, "MySQL");
    });
    one(&all, "dbms@emea/emea_prod", Status::Failure, "only from v5.11 and v6.02");
    let all = with(|platform, sim| {
        mysql(platform, SourceVersion::V6_02);
        everywhere(sim, "MySQL");
        sim.hosts.values_mut().for_each(|host| host.version = "6.02".to_owned());
    });
    one(&all, "dbms@emea/emea_prod", Status::Ok, "MySQL");
    alone(&all, "operator-passwords@emea/emea_prod", Status::Warning, "not looked at from here");
}

#[test]
fn the_signs_of_unicode_must_agree() {
    let declared = |platform: &mut Platform, unicode| platform.instances[0].database.as_mut().unwrap().unicode = unicode;
    let all = with(|platform, _| declared(platform, Some(false)));
    alone(&all, "unicode@emea/emea_prod", Status::Failure, "contradict");
    let evidence = &find(&all, "unicode@emea/emea_prod").evidence;
    assert!(evidence.contains("inventory: unicode=false") && evidence.contains("unicodeData=1"), "{evidence}");
    let all = with(|platform, _| declared(platform, None));
    alone(&all, "unicode@emea/emea_prod", Status::Warning, "Unicode; the inventory does not say it");
    let id = Query::Xml {
        file: format!("{HOME}/nl6/conf/serverConf.xml"),
        element: "serverconf/redirection".to_owned(),
        attribute: "databaseId".to_owned(),
    };
    let other = Answer::Xml(vec![XmlValue { file: "serverConf.xml".to_owned(), value: Some("d6F2A".to_owned()) }]);
    let all = with(|_, sim| sim.at("trk02").answer(id, Ok(other)));
    alone(&all, "unicode@emea/emea_prod", Status::Failure, "contradict");
    assert!(find(&all, "unicode@emea/emea_prod").evidence.contains("trk02: serverConf.xml databaseId=d6F2A"));
    let none = |sim: &mut Sim| {
        for host in sim.hosts.values_mut() {
            host.answer(conf("unicodeData"), Ok(Answer::Xml(vec![in_conf("emea_prod", None)])));
        }
    };
    let all = with(|platform, sim| {
        none(sim);
        for word in [SERVER, OPTIONS, OPERATORS] {
            sim.at("mkt1").answer(psql(platform, word), Err(ReadError::Missing("psql".to_owned())));
        }
        platform.hosts.truncate(3);
    });
    one(&all, "unicode@emea/emea_prod", Status::Unknown, "no host shows");
    let odd = || Ok(Answer::Xml(vec![in_conf("emea_prod", Some("perhaps"))]));
    let all = with(|_, sim| sim.at("mkt1").answer(conf("unicodeData"), odd()));
    alone(&all, "unicode@emea/emea_prod", Status::Unknown, "perhaps");
}

#[test]
fn one_machine_under_two_names_is_a_warning_once_a_platform() {
    let all = with(|_, sim| {
        for host in sim.hosts.values_mut() {
            (host.system.machine_id, host.host_key) = ("same".to_owned(), "SHA256:same".to_owned());
        }
    });
    alone(&all, "same-machine@emea", Status::Warning, "mkt1");
    // Cloned images share the id, not the key.
    let all = with(|_, sim| sim.hosts.values_mut().for_each(|host| host.system.machine_id = "same".to_owned()));
    alone(&all, "same-machine@emea", Status::Ok, "");
}

#[test]
fn outdated_algorithms_of_a_connection_are_a_warning() {
    let old = vec!["ssh-rsa".to_owned(), "aes128-cbc (bastion gate)".to_owned()];
    let all = with(|_, sim| sim.at("mta1").outdated = old);
    alone(&all, "ssh-legacy@mta1", Status::Warning, "outdated");
    assert_eq!(find(&all, "ssh-legacy@mta1").evidence, "ssh-rsa, aes128-cbc (bastion gate)");
}

#[test]
fn every_database_must_have_a_backup_that_works() {
    let database = |platform: &mut Platform| platform.instances[0].database.clone().unwrap();
    let all = with(|platform, _| {
        platform.instances[0].database = Some(Database { backup: Backup::ByDba, ..database(platform) });
        platform.database = platform.instances[0].database.clone();
    });
    one(&all, "backup@emea", Status::Ok, "");
    alone(&all, "operator-passwords@emea/emea_prod", Status::Warning, "not looked at from here");
    let all = with(|_, sim| {
        sim.at("mkt1").answer(program(&["pg_dump", "--version"]), Err(ReadError::Missing("pg_dump".to_owned())));
    });
    alone(&all, "backup@emea", Status::Failure, "pg_dump does not run on mkt1");
    let all = with(|platform, _| (platform.database, platform.instances[0].database) = (None, None));
    one(&all, "backup@emea", Status::Failure, "does not say how");
    one(&all, "dbms@emea/emea_prod", Status::Warning, "does not name the engine");
    let all = with(|platform, _| platform.instances[0].database = Some(Database { engine: Engine::Oracle, ..database(platform) }));
    one(&all, "backup@emea", Status::Failure, "not PostgreSQL");
}

#[test]
fn a_backup_that_somebody_else_made_is_looked_at() {
    const FILE: &str = "/backup/last.dump";
    let seen = |file: Result<Answer, ReadError>, sha256: Option<&str>| {
        with(|platform, sim| {
            let (on, path, sha256) = ("mkt1".to_owned(), FILE.to_owned(), sha256.map(str::to_owned));
            let given = BackupFile { on, path, sha256, max_age: 86_400, min_size: 1000 };
            platform.instances[0].database.as_mut().unwrap().backup = Backup::Given(given);
            platform.database = platform.instances[0].database.clone();
            sim.at("mkt1").answer(Query::File { path: FILE.to_owned() }, file);
        })
    };
    let facts = |size: u64, hours: u64, sha256: Option<&str>, recorded: Option<&str>| {
        let modified_ms = now_ms() - hours * 3_600_000;
        let [sha256, recorded] = [sha256, recorded].map(|digest| digest.map(str::to_owned));
        Ok(Answer::File(FileFacts { size, modified_ms, sha256, recorded }))
    };
    let all = seen(facts(5000, 3, Some("aa"), Some("aa")), None);
    one(&all, "backup@emea", Status::Ok, "");
    let evidence = &find(&all, "backup@emea").evidence;
    for part in ["by the DBA, /backup/last.dump on mkt1: 5000 bytes, 3 h old", "SHA-256 aa as its .sha256 file says"] {
        assert!(evidence.contains(part), "{evidence}");
    }
    one(&seen(facts(5000, 3, Some("aa"), None), Some("AA")), "backup@emea", Status::Ok, "");
    one(&seen(Err(ReadError::Missing(FILE.to_owned())), None), "backup@emea", Status::Failure, "is not there");
    one(&seen(Err(ReadError::Denied(FILE.to_owned())), None), "backup@emea", Status::Unknown, "cannot be read");
    one(&seen(facts(5000, 25, Some("aa"), None), None), "backup@emea", Status::Failure, "is 25 h old, and may be 24 h old");
    one(&seen(facts(0, 3, Some("aa"), None), None), "backup@emea", Status::Failure, "is empty");
    one(&seen(facts(999, 3, Some("aa"), None), None), "backup@emea", Status::Failure, "has 999 bytes, and at least 1000");
    one(&seen(facts(5000, 3, Some("aa"), Some("bb")), None), "backup@emea", Status::Failure, "its .sha256 file says bb");
    // What the inventory says comes before what lies beside the file.
    one(&seen(facts(5000, 3, Some("aa"), Some("aa")), Some("cc")), "backup@emea", Status::Failure, "the inventory says cc");
    one(&seen(facts(5000, 3, None, Some("aa")), None), "backup@emea", Status::Unknown, "too large for its SHA-256");
}

#[test]
fn what_shows_that_a_backup_can_be_restored_is_said_and_has_to_answer() {
    let answered = |scratch: bool, answer: Option<Result<Answer, ReadError>>| {
        with(|platform, sim| {
            let (server, name, user) = ("scratch1".to_owned(), "tried".to_owned(), "campaign".to_owned());
            let scratch = scratch.then_some(Scratch { server, name, user, password: Some(SecretRef::Prompt) });
            let backup = Backup::On { on: "mkt1".to_owned(), dir: "/backup".to_owned(), scratch };
            platform.instances[0].database.as_mut().unwrap().backup = backup;
            let asks = |query: &Query| format!("{query:?}").contains("scratch1");
            let query = queries(platform, &platform.hosts[0], Point::Preflight).into_iter().find(asks);
            if let (Some(query), Some(answer)) = (query, answer) {
                assert!(query.secrets().eq(["scratch/emea_prod"]));
                sim.at("mkt1").answer(query, answer);
            }
        })
    };
    let evidence = |all: &[Finding]| find(all, "backup@emea").evidence.clone();
    let all = answered(false, None);
    one(&all, "backup@emea", Status::Ok, "");
    assert!(evidence(&all).contains("pg_dump on mkt1 into /backup, of which the table of contents is read alone"), "{all:#?}");
    let all = answered(true, None);
    one(&all, "backup@emea", Status::Ok, "");
    assert!(evidence(&all).contains("pg_dump on mkt1 into /backup, its restore tried on scratch1"), "{all:#?}");
    let refused = Answer::Output { code: 2, text: "psql: error: FATAL:  database \"tried\" does not exist\n".to_owned() };
    let all = answered(true, Some(Ok(refused)));
    alone(&all, "backup@emea", Status::Failure, "the scratch database of emea_prod cannot be logged on to from mkt1 (psql: exit 2");
    let all = answered(true, Some(Err(ReadError::Failed("the secret `scratch/emea_prod` was not sent".to_owned()))));
    alone(&all, "backup@emea", Status::Unknown, "whether the scratch database of emea_prod answers is not known");
}

/// A question to the database of emea, by a word of its statement.
fn psql(platform: &Platform, word: &str) -> Query {
    let asks =
        |query: &Query| matches!(query, Query::Output { argv, .. } if argv[0] == "psql" && argv.last().unwrap().contains(word));
    queries(platform, &platform.hosts[0], Point::Preflight).into_iter().find(asks).unwrap()
}

const SERVER: &str = "server_version";
const OPTIONS: &str = "xtkoption";
const OPERATORS: &str = "xtkoperator";

/// The findings of emea whose database answers this.
fn where_database_says(word: &str, reading: Reading) -> Vec<Finding> {
    with(|platform, sim| {
        let query = psql(platform, word);
        sim.at("mkt1").answer(query, reading);
    })
}

fn prints(code: i32, text: &str) -> Reading {
    Ok(Answer::Output { code, text: text.to_owned() })
}

#[test]
fn a_database_that_cannot_be_logged_on_to_is_found_before_its_backup_would_fail() {
    let refused = "psql: error: FATAL:  password authentication failed for user \"campaign\"\n";
    let all = where_database_says(SERVER, prints(2, refused));
    alone(&all, "database@emea/emea_prod", Status::Failure, "cannot be logged on to from mkt1");
    assert!(find(&all, "database@emea/emea_prod").evidence.contains("password authentication failed"));
    let all = where_database_says(SERVER, Err(ReadError::Missing("psql".to_owned())));
    alone(&all, "database@emea/emea_prod", Status::Unknown, "psql is not on mkt1");
    let all = where_database_says(SERVER, prints(0, "\n"));
    one(&all, "database@emea/emea_prod", Status::Unknown, "does not say what it is");
    // The password itself is nowhere in what is asked.
    assert!(format!("{:?}", psql(&emea(), SERVER)).contains("{secret:database/emea_prod}"));
}

#[test]
fn what_the_database_itself_says_is_a_sign_of_unicode() {
    let all = where_database_says(SERVER, prints(0, "version|13.4\nencoding|LATIN1\nsize|1000\n"));
    alone(&all, "unicode@emea/emea_prod", Status::Failure, "contradict");
    assert!(find(&all, "unicode@emea/emea_prod").evidence.contains("database: server_encoding=LATIN1"));
    let all = where_database_says(OPTIONS, prints(0, "database-id|6F2A\n"));
    alone(&all, "unicode@emea/emea_prod", Status::Failure, "contradict");
}

#[test]
fn operators_without_a_password_are_named() {
    let said = |open: &str| prints(0, &format!("columns|1\noperators|9\n{open}"));
    let all = where_database_says(OPERATORS, said("open|admin\nopen|jdoe\n"));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Failure, "without a password: admin, jdoe");
    let many: String = (1..=8).map(|n| format!("open|op{n}\n")).collect();
    let all = where_database_says(OPERATORS, said(&many));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Warning, "op1, op2, op3, op4, op5, 3 more");
    let all = where_database_says(OPERATORS, prints(0, "columns|0\noperators|9\nopen|admin\n"));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Unknown, "is not known");
    let all = where_database_says(OPERATORS, prints(1, "ERROR:  permission denied for table xtkoperator\n"));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Unknown, "cannot be read with the account");
    // What one statement cannot say, the other one still does.
    assert!(find(&all, "unicode@emea/emea_prod").evidence.contains("XtkDatabaseId=u6F2A"), "{all:#?}");
    let all = where_database_says(OPTIONS, prints(1, "ERROR:  permission denied for table xtkoption\n"));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Ok, "every operator has a password");
    let all = where_database_says(OPERATORS, Err(denied()));
    alone(&all, "operator-passwords@emea/emea_prod", Status::Unknown, "cannot be read");
    // Where the database cannot be asked, a person has to look, and is told so.
    let all = with(|platform, _| {
        let database = platform.instances[0].database.clone().map(|database| Database { password: None, ..database });
        (platform.database, platform.instances[0].database) = (database.clone(), database);
    });
    alone(&all, "operator-passwords@emea/emea_prod", Status::Warning, "not looked at from here");
}

#[test]
fn a_backup_that_does_not_fit_or_cannot_be_read_back_is_found_beforehand() {
    let size = |bytes: u64| prints(0, &format!("version|13.4\nencoding|UTF8\nsize|{bytes}\n"));
    // The simulated directory has 50 GiB.
    alone(&where_database_says(SERVER, size(100 << 30)), "backup@emea", Status::Warning, "has 102400 MiB");
    alone(&where_database_says(SERVER, size(300 << 30)), "backup@emea", Status::Failure, "51200 MiB free");
    let newer = prints(0, "version|15.18 (Debian 15.18-0)\nencoding|UTF8\nsize|1000\n");
    alone(&where_database_says(SERVER, newer), "backup@emea", Status::Failure, "older than the server");
    let minor = prints(0, "version|13.21\nencoding|UTF8\nsize|1000\n");
    alone(&where_database_says(SERVER, minor), "backup@emea", Status::Ok, "");
}

#[test]
fn a_tracking_server_that_differs_is_named() {
    let all = with(|_, sim| sim.at("trk02").password = "stored-canary-other".to_owned());
    alone(&all, "internal-password@emea", Status::Failure, "trk02 differs from the 2 of group A");
    let found = find(&all, "internal-password@emea");
    assert!(
        found.evidence.contains("group A 2 hosts trk[01,03]") && found.evidence.contains("group B 1 host trk02"),
        "{}",
        found.evidence
    );
    assert_eq!(verdict(&all), Verdict::Failed);
    assert!(!format!("{all:?}").contains("canary"));
    let all = with(|_, sim| sim.at("trk02").password = String::new());
    alone(&all, "internal-password@emea", Status::Failure, "not set on trk02");
    let unreadable = Query::Fingerprint {
        file: format!("{HOME}/nl6/conf/serverConf.xml"),
        element: "serverconf/shared/authentication/xtk".to_owned(),
        attribute: "internalPassword".to_owned(),
    };
    let all = with(|_, sim| sim.at("trk02").answer(unreadable, Err(denied())));
    alone(&all, "internal-password@emea", Status::Unknown, "cannot be read on trk02");
}

#[test]
fn an_unreachable_host_is_the_only_thing_that_is_wrong_with_it() {
    for (host, more) in [("trk02", 1), ("mkt1", 5), ("mta1", 0)] {
        let all = with(|_, sim| sim.at(host).manner = Manner::Refuses(OpenErrorKind::Unreachable));
        one(&all, &format!("reachable@{host}"), Status::Failure, "cannot be reached");
        assert!(find(&all, &format!("reachable@{host}")).evidence.contains("connection refused"));
        let about: Vec<_> =
            all.iter().filter(|finding| finding.host.as_deref() == Some(host) && finding.instance.is_none()).collect();
        assert_eq!(about.len(), 1, "{about:#?}");
        let unknown = all.iter().filter(|finding| finding.status == Status::Unknown).count();
        assert_eq!(unknown, more, "{all:#?}");
        assert_eq!(verdict(&all), Verdict::Unreachable, "{host}");
        assert!(holds_up(&all));
    }
    let all = with(|_, sim| {
        sim.at("trk02").manner = Manner::Refuses(OpenErrorKind::Unreachable);
        sim.at("mta1").build = 8700;
    });
    assert_eq!(verdict(&all), Verdict::Failed);
    // Nothing is known of a host that was not asked: it never counts as well.
    let all = evaluate(&emea(), &BTreeMap::<String, HostState>::new(), Point::Preflight, &rehearsed());
    assert!(all.iter().filter(|finding| finding.check == "reachable").all(|finding| finding.status == Status::Failure));
    assert_eq!(verdict(&all), Verdict::Unreachable);
}

#[test]
fn a_windows_host_is_looked_at_by_a_person() {
    let all = with(|platform, _| platform.hosts[1].os = Some("windows".to_owned()));
    one(&all, "windows@mta1", Status::Warning, "nothing is checked");
    assert_eq!(verdict(&all), Verdict::Clear);
    let all = with(|platform, _| platform.hosts[4].os = Some("windows".to_owned()));
    // A gate of the plan holds up until a person has compared the password there.
    one(&all, "internal-password@emea", Status::Warning, "trk02 (Windows): for a person");
    assert_eq!(verdict(&all), Verdict::Clear);
    let all = with(|platform, sim| {
        platform.hosts[4].os = Some("windows".to_owned());
        sim.at("trk03").password = "stored-canary-other".to_owned();
    });
    one(&all, "internal-password@emea", Status::Failure, "trk01 differs from trk03");
}

#[test]
fn a_database_server_is_asked_only_for_what_it_is_for() {
    let mut platform = emea();
    platform.hosts.push(host("db1", &[Role::Database]));
    let backup = Backup::On { on: "db1".to_owned(), dir: "/backup".to_owned(), scratch: None };
    platform.instances[0].database.as_mut().unwrap().backup = backup.clone();
    platform.database.as_mut().unwrap().backup = backup;
    let sim = Sim::new(std::slice::from_ref(&platform));
    let all = findings(&platform, sim, Point::Preflight);
    assert!(all.iter().all(|finding| finding.status == Status::Ok), "{all:#?}");
    let checks: Vec<&str> = all.iter().filter(|f| f.host.as_deref() == Some("db1")).map(|f| f.check.as_str()).collect();
    assert_eq!(checks, ["reachable", "os-as-declared", "clock", "disk"]);
}

#[test]
fn after_the_migration_the_new_build_and_the_password_are_proven_again() {
    let platform = emea();
    let migrated = || {
        let mut sim = Sim::new(std::slice::from_ref(&platform));
        for host in sim.hosts.values_mut() {
            (host.build, host.version) = (NEW, "7.4.1".to_owned());
        }
        sim
    };
    let all = findings(&platform, migrated(), Point::Verify);
    assert!(all.iter().all(|finding| finding.status == Status::Ok), "{all:#?}");
    let checks: BTreeSet<&str> = all.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(Vec::from_iter(checks), ["builds-equal", "internal-password", "internal-password-others", "reachable", "version"]);
    let mut sim = migrated();
    (sim.at("mta1").build, sim.at("mta1").version) = (OLD, "6.1".to_owned());
    let all = findings(&platform, sim, Point::Verify);
    one(&all, "version@mta1", Status::Failure, "build 8989 is installed, 9383 was to be");
    one(&all, "builds-equal@emea", Status::Failure, "different");
    let mut sim = migrated();
    sim.at("trk03").password = String::new();
    one(&findings(&platform, sim, Point::Verify), "internal-password@emea", Status::Failure, "not set on trk03");
}

#[test]
fn only_what_was_asked_after_the_migration_is_judged() {
    let mut platform = emea();
    platform.hosts.push(host("db1", &[Role::Database]));
    let states: BTreeMap<String, HostState> = Sim::new(std::slice::from_ref(&platform)).gather(Point::Preflight);
    // A plan's last phase asks Campaign servers for the fingerprint and for nothing else.
    let password = |state: &HostState| {
        let reached = state.reached().unwrap();
        let query = controller::check::passwords::query(&platform.hosts[0], Point::Verify).unwrap();
        let reading = reached.readings.get(&query).cloned();
        let readings = Readings::new(vec![query], vec![reading]).unwrap();
        HostState::Reached(Box::new(Reached { readings, ..reached.clone() }))
    };
    let states = states.iter().filter(|(name, _)| *name != "db1").map(|(name, state)| (name.clone(), password(state))).collect();
    let all = evaluate(&platform, &states, Point::Verify, &rehearsed());
    assert!(all.iter().all(|finding| finding.status == Status::Ok), "{all:#?}");
    let checks: BTreeSet<&str> = all.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(Vec::from_iter(checks), ["internal-password", "internal-password-others", "reachable"]);
}

#[test]
fn ids_are_known_before_anything_starts() {
    let fleet = fleet(vec![emea()]);
    for id in ["disk@trk01", "dbms@emea/emea_prod", "internal-password@emea"] {
        assert_eq!(overridable(&fleet, id), Ok(()), "{id}");
    }
    let refused = ["reachable@trk01", "disc@trk01", "disk@trk1", "dbms@emea_prod", "x", ""];
    let texts: Vec<String> = refused.iter().map(|id| overridable(&fleet, id).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(id, reason)| ((*id).to_owned(), (*reason).to_owned())).collect()
}

#[test]
fn findings_are_set_aside_by_id_with_a_reason() {
    let all = || with(|_, sim| sim.at("trk01").answer(space(HOME), Ok(Answer::Space { free: 0, inodes: 0 })));
    assert!(holds_up(&all()));
    let applied = apply_overrides(all(), &overrides(&[("disk@trk01", " grown tonight ")])).unwrap();
    assert_eq!(find(&applied, "disk@trk01").overridden.as_deref(), Some("grown tonight"));
    assert_eq!(find(&applied, "disk@trk01").status, Status::Failure, "what was found stays");
    assert!(!holds_up(&applied));
    assert_eq!(verdict(&applied), Verdict::Clear);
    // What is well needs no reason, and gets none.
    let applied = apply_overrides(all(), &overrides(&[("disk@trk02", "anything")])).unwrap();
    assert_eq!(find(&applied, "disk@trk02").overridden, None);
}

#[test]
fn overrides_that_cannot_be_accepted_are_all_named() {
    let all = with(|_, sim| sim.at("trk02").manner = Manner::Refuses(OpenErrorKind::Unreachable));
    let refused = [("reachable@trk02", "we know"), ("disk@trk1", "typo"), ("disk@trk01", " "), ("nonsense", "x")];
    let errors = apply_overrides(all.clone(), &overrides(&refused)).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"));
    // The host was not reached, so that nothing is known of its disk: no reason to refuse the override of tonight's command.
    assert!(apply_overrides(all, &overrides(&[("disk@trk02", "grown tonight")])).is_ok());
}

#[test]
fn a_migration_that_was_not_rehearsed_is_told_apart_from_one_of_which_nobody_knows() {
    let judged = |history: History| {
        let states = Sim::new(&[emea()]).gather(Point::Preflight);
        evaluate(&emea(), &states, Point::Preflight, &history)
    };
    alone(&judged(rehearsed()), "rehearsal@emea", Status::Ok, "rehearsed on a test platform");
    alone(&judged(History::default()), "rehearsal@emea", Status::Warning, "no rehearsal of v6.1 to v7.4.1 (9383)");
    let waiting = History { rehearsals: vec!["dev".to_owned()], ..History::default() };
    alone(&judged(waiting), "rehearsal@emea", Status::Failure, "dev has not been migrated");
    let damaged = History { unreadable: vec!["2026-11-14-k3".to_owned()], ..History::default() };
    alone(&judged(damaged), "rehearsal@emea", Status::Unknown, "is not known");
    // Another version's rehearsal, another build's and a production platform's run prove nothing.
    let mut other = rehearsed();
    other.migrated.retain(|known| known.source == "v6.02");
    alone(&judged(other), "rehearsal@emea", Status::Warning, "no rehearsal");
    let mut older = rehearsed();
    older.migrated.iter_mut().for_each(|known| known.target = "v7.4.1 (9300)".to_owned());
    alone(&judged(older), "rehearsal@emea", Status::Warning, "no rehearsal");
    let mut real = rehearsed();
    real.migrated.iter_mut().for_each(|known| known.rehearsal = false);
    alone(&judged(real), "rehearsal@emea", Status::Warning, "no rehearsal");
}

#[test]
fn nobody_is_let_in_by_a_file_without_security_zones() {
    let zones = |masks: &[&str], open: &str| {
        let platform = emea();
        let mut sim = Sim::new(std::slice::from_ref(&platform));
        for query in queries(&platform, &platform.hosts[0], Point::BeforeRestart) {
            let Query::Xml { file, attribute, element } = &query else { panic!("{query:?}") };
            let deepest = element.matches("/*").count() == 1;
            let values: &[&str] = if attribute == "mask" { masks } else { &[open] };
            let value = |value: &&str| XmlValue { file: file.clone(), value: Some((*value).to_owned()) };
            let found = if deepest { values.iter().map(value).collect() } else { Vec::new() };
            sim.at("mkt1").answer(query.clone(), Ok(Answer::Xml(found)));
        }
        findings(&platform, sim, Point::BeforeRestart)
    };
    let id = "security-zones@mkt1";
    alone(&zones(&["*", "10.0.0.0/8"], "false"), id, Status::Ok, "are defined");
    alone(&zones(&[], "false"), id, Status::Failure, "closed to everybody");
    alone(&zones(&["127.0.0.1/16", "::1/128"], "false"), id, Status::Failure, "closed to everybody");
    alone(&zones(&["*"], "true"), id, Status::Warning, "without a password");
    let all = |change: &dyn Fn(&mut Sim)| {
        let platform = emea();
        let mut sim = Sim::new(std::slice::from_ref(&platform));
        change(&mut sim);
        findings(&platform, sim, Point::BeforeRestart)
    };
    let unreadable = all(&|sim| {
        let platform = emea();
        for query in queries(&platform, &platform.hosts[0], Point::BeforeRestart) {
            sim.at("mkt1").answer(query, Err(denied()));
        }
    });
    alone(&unreadable, id, Status::Unknown, "cannot be read");
    let away = all(&|sim| sim.at("mkt1").manner = Manner::Refuses(OpenErrorKind::Unreachable));
    alone(&away, id, Status::Unknown, "not known");
    // Nobody logs on to the others.
    assert_eq!(away.len(), 1, "{away:#?}");
}

#[test]
fn a_tracking_server_needs_a_tracking_password() {
    let password = || Query::Fingerprint {
        file: format!("{HOME}/nl6/conf/serverConf.xml"),
        element: "serverconf/redirection".to_owned(),
        attribute: "trackingPassword".to_owned(),
    };
    let all = with(|_, _| {});
    one(&all, "tracking-password@trk01", Status::Ok, "is set");
    assert!(!all.iter().any(|finding| finding.id == "tracking-password@mkt1"), "it does no tracking");
    let all = with(|_, sim| sim.at("trk02").answer(password(), Ok(Answer::Fingerprint(proto::inspect::Fingerprint::Unset))));
    alone(&all, "tracking-password@trk02", Status::Failure, "is not set");
    for wrong in [Err(denied()), Ok(Answer::Path(PathKind::File))] {
        let all = with(|_, sim| sim.at("trk02").answer(password(), wrong));
        alone(&all, "tracking-password@trk02", Status::Unknown, "cannot be read");
    }
}
