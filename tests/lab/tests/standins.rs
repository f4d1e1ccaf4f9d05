//! Each stand-in behaves as what it stands for, as far as a migration sees it.

use crate::common::{Bench, get, standard};
use lab::{Event, Failing, Role, Rule, Spec, Topology, Writer};
use proto::step::PackageManager;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn programs_lie_where_processes_are_looked_for() {
    let bench = Bench::standard();
    let host = bench.host("demo-mta1");
    let running = lab::running(host).unwrap();
    let names: Vec<&str> = running.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["inMail@demo", "mta@demo", "stat@demo", "syslogd@default", "watchdog@default"]);
    for entry in &running {
        assert_eq!(fs::read_link(format!("/proc/{}/exe", entry.pid)).unwrap(), host.nl6().join("bin/nlserver"));
    }
    let tracking = bench.host("demo-trk1");
    let web = lab::running(tracking).unwrap().into_iter().find(|entry| entry.name == "apache2").unwrap();
    assert_eq!(
        fs::read_link(format!("/proc/{}/exe", web.pid)).unwrap(),
        tracking.dir.join("usr/sbin/apache2"),
        "Apache is no part of Campaign"
    );
}

#[test]
fn nlserver_tells_what_runs_and_what_is_missing() {
    let bench = Bench::standard();
    let pdump = bench.ok("demo-mta1", "nlserver", &["pdump"]);
    assert!(pdump.lines().next().unwrap().contains("Application Server for Adobe Campaign Version 6.1 (build 8989) of"), "{pdump}");
    assert!(pdump.lines().any(|line| line.starts_with("mta@demo (") && line.ends_with(" MB")), "{pdump}");
    bench.ok("demo-mta1", "nlserver", &["stop", "mta@demo"]);
    bench.ok("demo-mta1", "nlserver", &["stop", "mta@demo"]);
    assert_eq!(bench.ok("demo-mta1", "nlserver", &["monitor", "-missing"]).lines().skip(1).collect::<Vec<_>>(), ["mta@demo"]);
    bench.ok("demo-mta1", "nlserver", &["start", "mta@demo"]);
    bench.ok("demo-mta1", "nlserver", &["start", "mta@demo"]);
    assert_eq!(bench.ok("demo-mta1", "nlserver", &["monitor", "-missing"]).lines().count(), 1);
    assert_eq!(bench.run("demo-mta1", "nlserver", &["start", "mta@nowhere"]).status.code(), Some(1));
    bench.ok("demo-mta1", "nlserver", &["shutdown"]);
    assert_eq!(bench.ok("demo-mta1", "nlserver", &["pdump"]).lines().last(), Some("No tasks"));
    let events: Vec<_> =
        bench.lab.records().unwrap().into_iter().filter(|record| record.subject == "mta@demo").map(|record| record.event).collect();
    assert_eq!(events, [Event::ModuleStopped, Event::ModuleStarted, Event::ModuleStopped]);
}

#[test]
fn modules_that_are_renamed_away_do_not_start() {
    let bench = Bench::standard();
    bench.ok("demo-mta1", "nlserver6", &["stop"]);
    let file = bench.host("demo-mta1").nl6().join("conf/config-demo.xml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("autoStart", "_autoStart")).unwrap();
    bench.ok("demo-mta1", "nlserver6", &["start"]);
    let names: Vec<_> = lab::running(bench.host("demo-mta1")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["syslogd@default", "watchdog@default"]);
    assert_eq!(bench.run("demo-mta1", "nlserver6", &["status"]).status.code(), Some(0));
    bench.ok("demo-mta1", "nlserver6", &["stop"]);
    assert_eq!(bench.run("demo-mta1", "nlserver6", &["status"]).status.code(), Some(3));
}

#[test]
fn a_module_can_fail_to_come_up_and_refuse_to_end() {
    let mut spec = standard();
    spec.faults.fail.push(Failing { host: "demo-mta1".into(), step: "module:mta@demo".into(), times: Some(1) });
    spec.faults.fail.push(Failing { host: "demo-mkt1".into(), step: "stop".into(), times: None });
    let bench = Bench::new(spec);
    bench.ok("demo-mta1", "nlserver", &["stop", "mta@demo"]);
    bench.ok("demo-mta1", "nlserver", &["start", "mta@demo"]);
    assert!(bench.ok("demo-mta1", "nlserver", &["monitor", "-missing"]).contains("\nmta@demo"));
    bench.ok("demo-mta1", "nlserver", &["start", "mta@demo"]);
    assert!(!bench.ok("demo-mta1", "nlserver", &["monitor", "-missing"]).contains("\nmta@demo"));

    assert_eq!(bench.run("demo-mkt1", "nlserver6", &["stop"]).status.code(), Some(1));
    let stubborn = lab::running(bench.host("demo-mkt1")).unwrap();
    assert!(stubborn.iter().any(|entry| entry.name == "wfserver@demo"));
    // What remains, as the vendor says: killall -9.
    for entry in &stubborn {
        assert!(std::process::Command::new("/bin/sh").args(["-c", &format!("kill -9 {}", entry.pid)]).status().unwrap().success());
    }
    while !lab::running(bench.host("demo-mkt1")).unwrap().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn packages_are_asked_for_exactly_as_the_agent_asks() {
    for (os, manager) in [("debian-11", PackageManager::Dpkg), ("rhel-8", PackageManager::Rpm)] {
        let mut spec = standard();
        spec.platforms[0].os = Some(os.into());
        let bench = Bench::new(spec);
        let query = |name: &str| {
            let argv = manager.query_argv(name);
            let arguments: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
            let output = bench.run("demo-mkt1", &argv[0], &arguments);
            (output.status.code(), text(&output.stdout).trim_end().to_owned())
        };
        assert_eq!(query("nlserver6"), (Some(0), "install ok installed 6.1-8989".into()));
        assert_eq!(query("nlserver6-v7").0, Some(1));
        bench.stop_all();
        bench.back_up();
        bench.replace_packages("demo-mkt1");
        assert_eq!(query("nlserver6").0, Some(1));
        assert_eq!(query("nlserver6-v7"), (Some(0), "install ok installed 7.4.1-9383".into()));
        let nl6 = bench.host("demo-mkt1").nl6();
        assert!(fs::read_to_string(nl6.join("conf/serverConf.xml")).unwrap().contains("internalPassword=\"\""));
        assert!(!nl6.join("conf/config-demo.xml").exists());
        assert_eq!(bench.explain(), "");
    }
}

#[test]
fn packages_fail_as_they_do() {
    let bench = Bench::standard();
    bench.stop_all();
    bench.back_up();
    let new = bench.new_package();
    let conflict = bench.run("demo-mkt1", "dpkg", &["-i", &new]);
    assert!(!conflict.status.success() && text(&conflict.stderr).contains("conflicts with nlserver6"));
    let cut = bench.dir().join("cut.deb");
    let content = fs::read(&new).unwrap();
    fs::write(&cut, &content[..content.len() - 1]).unwrap();
    let output = bench.run("demo-mkt1", "dpkg", &["-i", cut.to_str().unwrap()]);
    assert!(!output.status.success() && text(&output.stderr).contains("unexpected end of file"));
    assert!(!bench.run("demo-mkt1", "dpkg", &["-i", "/nowhere.deb"]).status.success());
    let again = bench.run("demo-mkt1", "dpkg", &["--purge", "nlserver6", "nothing"]);
    assert!(again.status.success() && text(&again.stderr).contains("ignoring request to remove nothing"));
    assert!(!bench.host("demo-mkt1").init_scripts().join("nlserver6").exists());
    assert_eq!(bench.lab.records().unwrap().iter().filter(|record| record.event == Event::PackageFailed).count(), 3);
}

#[test]
fn the_web_server_answers_with_the_library_it_loaded() {
    let bench = Bench::standard();
    let host = bench.host("demo-trk1");
    let answer = get(host, "/r/test").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n")
            && answer.contains("<redir status='OK' date='20")
            && answer.contains("build='8989'"),
        "{answer}"
    );
    assert!(get(host, "/other").unwrap().starts_with("HTTP/1.1 404"));
    fs::write(host.nl6().join("lib/libnlsrvmod.so"), "webmdl 9383\n").unwrap();
    assert!(get(host, "/r/test").unwrap().contains("build='8989'"), "the old library stays loaded until the server stops");
    bench.ok("demo-trk1", "apache2", &["restart"]);
    assert!(get(host, "/r/test").unwrap().contains("build='9383'"));
    bench.ok("demo-trk1", "apache2", &["stop"]);
    bench.ok("demo-trk1", "apache2", &["stop"]);
    assert!(get(host, "/r/test").is_err());
    fs::remove_file(host.nl6().join("lib/libnlsrvmod.so")).unwrap();
    assert_eq!(bench.run("demo-trk1", "apache2", &["start"]).status.code(), Some(1));
}

#[test]
fn the_web_server_can_fail_or_keep_its_library() {
    let mut spec = standard();
    spec.faults.fail.push(Failing { host: "demo-trk1".into(), step: "apache".into(), times: Some(1) });
    spec.faults.fail.push(Failing { host: "demo-trk2".into(), step: "apache.library".into(), times: None });
    let bench = Bench::new(spec);
    bench.ok("demo-trk1", "apache2", &["stop"]);
    assert_eq!(bench.run("demo-trk1", "apache2", &["start"]).status.code(), Some(1));
    bench.ok("demo-trk1", "apache2", &["start"]);
    let host = bench.host("demo-trk2");
    fs::write(host.nl6().join("lib/libnlsrvmod.so"), "webmdl 9383\n").unwrap();
    bench.ok("demo-trk2", "apache2", &["restart"]);
    assert!(get(host, "/r/test").unwrap().contains("build='8989'"));
}

#[test]
fn dumps_need_the_password_and_can_be_read_back() {
    let bench = Bench::standard();
    let instance = bench.platform().instances[0].clone();
    let (_, wrong) = bench.dump(&instance, "wrong");
    assert!(text(&wrong.stderr).contains("password authentication failed for user \"neolane\""));
    let (file, right) = bench.dump(&instance, &bench.lab.secrets().database_password);
    assert!(right.status.success(), "{right:?}");
    assert!(bench.ok("demo-mkt1", "pg_restore", &["--list", file.to_str().unwrap()]).contains("TABLE DATA public nmsrecipient"));
    let content = fs::read(&file).unwrap();
    fs::write(&file, &content[..content.len() - 9]).unwrap();
    assert!(text(&bench.run("demo-mkt1", "pg_restore", &["--list", file.to_str().unwrap()]).stderr).contains("end of file"));
    fs::write(&file, "no dump").unwrap();
    assert!(!bench.run("demo-mkt1", "pg_restore", &["--list", file.to_str().unwrap()]).status.success());

    let arguments = ["--format=custom", "--file=/nowhere/x", "--host=db.demo.lab", "--username=neolane", "--no-password", "demo"];
    let without = bench.run("demo-mkt1", "pg_dump", &arguments);
    assert!(text(&without.stderr).contains("no password supplied"));
    let passwords = bench.dir().join("pgpass");
    fs::write(&passwords, format!("*:*:*:*:{}", bench.lab.secrets().database_password)).unwrap();
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o644)).unwrap();
    let dump =
        || text(&bench.command("demo-mkt1", "pg_dump").args(arguments).env("PGPASSFILE", &passwords).output().unwrap().stderr);
    assert!(dump().contains("group or world access"));
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(dump().contains("could not open output file"));
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap().dumps, 1);
}

#[test]
fn the_internal_password_is_asked_for() {
    let mut spec = standard();
    spec.faults.empty_password.push("demo-trk1".into());
    let bench = Bench::new(spec);
    let set = |answers: &str| {
        let mut command = bench.command("demo-trk1", "nlserver");
        let command =
            command.args(["config", "-internalpassword"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let password = bench.lab.secrets().internal_password.clone();
    assert!(!set("guess\na\na\n").status.success());
    assert!(!set("\na\nb\n").status.success());
    let done = set(&format!("\n{password}\n{password}\n"));
    assert!(
        text(&done.stdout).contains("Password successfully changed for account 'internal' (authentication mode 'nl')"),
        "{done:?}"
    );
    let stored = fs::read_to_string(bench.host("demo-trk1").nl6().join("conf/serverConf.xml")).unwrap();
    assert!(stored.contains(&bench.lab.secrets().internal_stored), "stored as on the other servers");
    assert!(!stored.contains(&password));
}

#[test]
fn passwords_of_a_spec() {
    let mut spec = Spec::one("demo", Topology::Standard, &[(Role::Marketing, 1), (Role::Tracking, 4)]);
    spec.faults.different_password.push("demo-trk2".into());
    spec.faults.empty_password.push("demo-trk3".into());
    spec.faults.unreadable_conf.push("demo-trk4".into());
    let bench = Bench::new(spec);
    let text = |host: &str| fs::read_to_string(bench.host(host).nl6().join("conf/serverConf.xml"));
    let stored = &bench.lab.secrets().internal_stored;
    assert!(text("demo-trk1").unwrap().contains(stored) && text("demo-mkt1").unwrap().contains(stored));
    assert!(!text("demo-trk2").unwrap().contains(stored) && !text("demo-trk2").unwrap().contains("internalPassword=\"\""));
    assert!(text("demo-trk3").unwrap().contains("internalPassword=\"\""));
    // Another account cannot open it at all; root can, and finds it cut off.
    assert!(!text("demo-trk4").is_ok_and(|text| text.contains("</serverconf>")));
}

#[test]
fn postupgrade_checks_without_a_trace() {
    let mut spec = standard();
    spec.faults.fail.push(Failing { host: "demo-mkt1".into(), step: "postupgrade.check".into(), times: Some(1) });
    let bench = Bench::new(spec);
    let check = |instance: &str| {
        bench.run("demo-mkt1", "nlserver", &["config", "-postupgrade", &format!("-instance:{instance}"), "-check"])
    };
    assert!(text(&check("demo").stdout).contains(">>> PU-0005"));
    assert!(text(&check("demo").stdout).contains("demo instance, 0 warning(s) and 0 error(s) during the update."));
    assert!(!check("nowhere").status.success());
    assert!(!bench.host("demo-mkt1").nl6().join("var/demo/postupgrade").exists());
    assert_eq!(lab::database(bench.lab.layout(), "demo").unwrap().completed, 0);
    assert_eq!(bench.explain(), "", "it may be run while the platform works");
}

#[test]
fn postupgrade_leaves_a_log() {
    let bench = Bench::standard();
    bench.stop_all();
    bench.back_up();
    bench.migrate_host("demo-mkt1");
    bench.postupgrade(&bench.platform().instances[0]);
    let logs: Vec<_> = fs::read_dir(bench.host("demo-mkt1").nl6().join("var/demo/postupgrade"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(logs.len(), 1);
    assert!(logs[0].file_name().unwrap().to_str().unwrap().starts_with("postupgrade_7.4.1_"));
    let log = fs::read_to_string(&logs[0]).unwrap();
    assert!(log.lines().last().unwrap().ends_with("demo instance, 2 warning(s) and 0 error(s) during the update."), "{log}");
}

#[test]
fn records_are_whole_and_in_order_however_many_write() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let dir = dir.path();
            scope.spawn(move || {
                for number in 0..50 {
                    let mut writer = Writer::open(dir, "p", &format!("h{thread}")).unwrap();
                    writer.append(Event::ModuleStarted, &number.to_string(), &"x".repeat(number * 100)).unwrap();
                    writer.append(Event::Violation(Rule::StartedEarly), &number.to_string(), "").unwrap();
                }
            });
        }
    });
    let records = lab::records(dir.path()).unwrap();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), (1..=800).collect::<Vec<_>>());
    assert!(records.chunks(2).all(|pair| pair[0].host == pair[1].host && pair[0].subject == pair[1].subject));
    assert_eq!(lab::violations(dir.path()).unwrap().len(), 400);
}

#[test]
fn records_of_processes_are_in_order() {
    let bench = Bench::standard();
    let mut children: Vec<_> = (0..24)
        .map(|_| bench.command("demo-mkt1", "nlserver").args(["config", "-reload"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let records = bench.lab.records().unwrap();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
}

#[test]
fn many_hosts_come_up() {
    let bench = Bench::new(Spec::one("big", Topology::Standard, &[(Role::Marketing, 1), (Role::Mta, 10), (Role::Tracking, 45)]));
    let addresses: std::collections::BTreeSet<_> = bench.platform().hosts.iter().map(|host| host.address).collect();
    assert_eq!(addresses.len(), 56);
    assert!(bench.platform().hosts.iter().all(|host| lab::running(host).unwrap().len() >= 2));
}

#[test]
fn a_lab_is_built_in_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "").unwrap();
    let error = lab::Lab::start_with(standard(), dir.path(), crate::common::PROGRAM.as_ref()).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
}

#[test]
fn the_inventory_is_valid_and_overrides_nothing() {
    let bench = Bench::new(Spec::every_topology());
    let loaded = inventory::load(&bench.lab.inventory()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let fleet = loaded.fleet;
    assert_eq!(fleet.platforms.len(), 5);
    for platform in &fleet.platforms {
        assert!(platform.overrides.is_empty() && platform.order.is_none() && platform.restart_order.is_none());
        let (mine, _) = bench.lab.layout().host(&platform.hosts[0].name).unwrap();
        assert_eq!(
            platform.instances.iter().map(|i| &i.name).collect::<Vec<_>>(),
            mine.instances.iter().map(|i| &i.name).collect::<Vec<_>>()
        );
        for host in &platform.hosts {
            assert_eq!(host.campaign.home, bench.host(&host.name).home().to_str().unwrap());
        }
    }
    let text = fs::read_to_string(bench.lab.inventory()).unwrap();
    assert!(!text.contains(&bench.lab.secrets().database_password));
    assert_eq!(fs::metadata(bench.lab.dir().join("db.pw")).unwrap().permissions().mode() & 0o777, 0o600);
}
