//! Actions and probes on files.

use crate::common::{Bridge, Ended, Host, PATIENCE, argv, step, with_probe};
use proto::frame::Frame;
use proto::message::Granted;
use proto::step::{XmlChange, XmlEdit};
use proto::{Action, FromAgent, Outcome, Probe, RunAs, ToAgent};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

fn sha256(host: &Host, name: &str) -> String {
    let output = Command::new("sha256sum").arg(host.path(name)).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// An installation with the things that make copying hard.
fn installation(host: &Host) {
    for dir in ["nl6/conf", "nl6/var/emea/redir", "nl6/var/emea/empty", "nl6/customers/x"] {
        fs::create_dir_all(host.path(dir)).unwrap();
    }
    fs::write(host.path("nl6/conf/config-emea.xml"), "<serverconf/>").unwrap();
    fs::write(host.path("nl6/conf/config-default.xml"), "<serverconf><web/></serverconf>").unwrap();
    fs::write(host.path("nl6/conf/other.txt"), "other").unwrap();
    fs::write(host.path("nl6/var/emea/redir/log.dat"), vec![7u8; 200_000]).unwrap();
    fs::write(host.path("nl6/customer.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(host.path("nl6/customer.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("../conf/other.txt", host.path("nl6/customers/link")).unwrap();
    let old = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000));
    fs::File::options().write(true).open(host.path("nl6/customer.sh")).unwrap().set_times(old).unwrap();
}

fn check(bridge: &mut Bridge, id: &str, probe: Probe) -> Ended {
    bridge.perform(with_probe(step(&format!("a/a/a/a/{id}"), Action::Verify), probe))
}

#[test]
fn trees_are_moved_but_never_onto_others() {
    let host = Host::new();
    installation(&host);
    let mut bridge = Bridge::attach(&host);
    let moving = |id: &str, from: &str, to: &str| step(id, Action::MoveTree { from: host.text(from), to: host.text(to) });
    let there = Probe::All(vec![Probe::Exists(host.text("nl6.back/conf")), Probe::Absent(host.text("nl6"))]);
    bridge.perform(with_probe(moving("a/a/a/a/1", "nl6", "nl6.back"), there)).expect(Outcome::Ok);
    bridge.perform(moving("a/a/a/a/2", "nl6", "nl6.back")).expect(Outcome::Failed).says("was it moved before?");
    fs::create_dir(host.path("nl6")).unwrap();
    bridge.perform(moving("a/a/a/a/3", "nl6.back", "nl6")).expect(Outcome::Failed).says("exists already");
    assert!(host.path("nl6.back/conf/config-emea.xml").exists());
    if std::path::Path::new("/dev/shm").is_dir()
        && fs::metadata("/dev/shm").unwrap().dev() != fs::metadata(host.dir.path()).unwrap().dev()
    {
        let away = format!("/dev/shm/caravan-test-{}", std::process::id());
        let action = Action::MoveTree { from: host.text("nl6"), to: away };
        bridge.perform(step("a/a/a/a/4", action)).expect(Outcome::Failed).says("different file systems");
    }
    bridge.finish();
}

#[test]
fn trees_are_copied_as_they_are() {
    let host = Host::new();
    installation(&host);
    let mut bridge = Bridge::attach(&host);
    let include = argv(&["conf/config*.xml", "customer.sh", "customers/**", "var/**", "none/*"]);
    let (from, to) = (host.text("nl6"), host.text("new"));
    let copied = Probe::TreeCopied { from: from.clone(), to: to.clone(), include: include.clone() };
    check(&mut bridge, "before", copied.clone()).expect(Outcome::Failed);
    let action = Action::CopyTree { from, to, include, required: argv(&["conf/config-*.xml"]) };
    bridge.perform(with_probe(step("a/a/a/a/copy", action.clone()), copied.clone())).expect(Outcome::Ok);
    assert!(!host.path("new/conf/other.txt").exists());
    assert!(host.path("new/var/emea/empty").is_dir());
    assert_eq!(fs::read_link(host.path("new/customers/link")).unwrap().to_str(), Some("../conf/other.txt"));
    let (old, new) = (fs::metadata(host.path("nl6/customer.sh")).unwrap(), fs::metadata(host.path("new/customer.sh")).unwrap());
    assert_eq!((new.mode(), new.mtime(), new.uid()), (old.mode(), old.mtime(), old.uid()));
    fs::write(host.path("new/var/emea/redir/log.dat"), vec![8u8; 200_000]).unwrap();
    check(&mut bridge, "differs", copied).expect(Outcome::Failed).says("log.dat differs");
    let Action::CopyTree { from, to, include, .. } = action else { unreachable!() };
    let needy = Action::CopyTree { from, to, include, required: argv(&["conf/serverConf.xml"]) };
    bridge.perform(step("a/a/a/a/needy", needy)).expect(Outcome::Failed).says("conf/serverConf.xml");
    bridge.finish();
}

#[test]
fn archives_can_be_checked_and_unpacked() {
    let host = Host::new();
    installation(&host);
    let long = "long/".repeat(40);
    fs::create_dir_all(host.path("nl6/var").join(&long)).unwrap();
    fs::write(host.path("nl6/var").join(&long).join("deep"), "deep").unwrap();
    let mut bridge = Bridge::attach(&host);
    let dest = host.text("nl6-run.tar.gz");
    let action = Action::Archive { source: host.text("nl6"), dest: dest.clone() };
    bridge.perform(with_probe(step("a/a/a/a/x", action), Probe::ArchiveIntact(dest.clone()))).expect(Outcome::Ok);
    let run = |program: &str, args: &[&str]| {
        let status =
            Command::new(program).args(args).current_dir(host.dir.path()).stdout(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    run("sha256sum", &["-c", "nl6-run.tar.gz.sha256"]);
    fs::create_dir(host.path("out")).unwrap();
    run("tar", &["-xzf", "nl6-run.tar.gz", "-C", "out"]);
    run("diff", &["-r", "--no-dereference", "nl6", "out/nl6"]);
    assert!(!host.path("nl6-run.tar.gz.part").exists());
    fs::write(host.path("nl6-run.tar.gz"), "x").unwrap();
    check(&mut bridge, "damaged", Probe::ArchiveIntact(dest)).expect(Outcome::Failed).says("does not match");
    let missing = Action::Archive { source: host.text("none"), dest: host.text("none.tar.gz") };
    bridge.perform(step("a/a/a/a/y", missing)).expect(Outcome::Failed).says("seen none");
    bridge.finish();
}

fn push(host: &Host, id: &str, sha256: &str, size: usize) -> Granted {
    let dest = host.text("state/packages/x.deb");
    let probe = Probe::Digest { path: dest.clone(), sha256: sha256.to_owned() };
    with_probe(step(id, Action::PushFile { sha256: sha256.to_owned(), size: size as u64, dest, mode: 0o640 }), probe)
}

/// What the agent asks for, past the events that come before it.
fn needed(bridge: &mut Bridge) -> (String, u64) {
    loop {
        match bridge.message() {
            FromAgent::NeedFile { sha256, offset } => return (sha256, offset),
            FromAgent::Event(event) => bridge.events.push(event),
            other => panic!("{other:?}"),
        }
    }
}

fn send_file(bridge: &mut Bridge, sha256: &str, content: &[u8], from: u64, to: usize) {
    bridge.send(&ToAgent::FileBegin { sha256: sha256.to_owned(), stream: 5 });
    for (index, piece) in content[from as usize..to].chunks(30_000).enumerate() {
        let offset = from + index as u64 * 30_000;
        bridge.raw(&Frame::Data { stream: 5, offset, bytes: piece.to_vec() }.encode());
    }
}

#[test]
fn a_pushed_file_goes_on_where_it_stopped() {
    let host = Host::new();
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(host.path("original"), &content).unwrap();
    let digest = sha256(&host, "original");
    let mut first = Bridge::attach(&host);
    first.grant(vec![push(&host, "a/a/a/a/push", &digest, content.len())]);
    assert_eq!(needed(&mut first), (digest.clone(), 0));
    send_file(&mut first, &digest, &content, 0, 400_000);
    let part = host.path("state/packages/x.deb.part");
    crate::common::wait_until("a part of the file", || fs::metadata(&part).is_ok_and(|meta| meta.len() == 400_000));
    first.child.kill().unwrap();
    let mut second = Bridge::attach(&host);
    assert_eq!(needed(&mut second), (digest.clone(), 400_000));
    send_file(&mut second, &digest, &content, 400_000, content.len());
    second.send(&ToAgent::FileEnd { stream: 5 });
    second.until_finished("a/a/a/a/push").expect(Outcome::Ok);
    assert!(fs::read(host.path("state/packages/x.deb")).unwrap() == content && !part.exists());
    assert_eq!(fs::metadata(host.path("state/packages/x.deb")).unwrap().mode() & 0o7777, 0o640);
    // It is there: nobody is asked again.
    let ended = second.perform(push(&host, "a/a/a/a/again", &digest, content.len())).expect(Outcome::Ok);
    assert!(ended.output.contains("is there already"));
    second.finish();
}

/// The connection that was lost may live on at the host's end, and hold what it had not written yet.
#[test]
fn a_file_has_one_writer() {
    let host = Host::new();
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(host.path("original"), &content).unwrap();
    let digest = sha256(&host, "original");
    let part = host.path("state/packages/x.deb.part");
    let arrived =
        |size| crate::common::wait_until("a part of the file", || fs::metadata(&part).is_ok_and(|meta| meta.len() == size));
    let mut first = Bridge::attach(&host);
    first.grant(vec![push(&host, "a/a/a/a/push", &digest, content.len())]);
    assert_eq!(needed(&mut first), (digest.clone(), 0));
    send_file(&mut first, &digest, &content, 0, 300_000);
    arrived(300_000);
    let mut second = Bridge::attach(&host);
    assert_eq!(needed(&mut second), (digest.clone(), 300_000));
    send_file(&mut second, &digest, &content, 300_000, 600_000);
    // The first one let go of the file, or the second could not have written.
    arrived(600_000);
    let wrong = Frame::Data { stream: 5, offset: 300_000, bytes: vec![255; 600_000] };
    first.raw(&wrong.encode());
    // Its answer comes after what was sent before.
    first.send(&ToAgent::Inspect { id: 1, queries: vec![], run_as: RunAs::Login });
    while !matches!(first.message(), FromAgent::Inspected { .. }) {}
    send_file(&mut second, &digest, &content, 600_000, content.len());
    second.send(&ToAgent::FileEnd { stream: 5 });
    second.until_finished("a/a/a/a/push").expect(Outcome::Ok);
    assert!(fs::read(host.path("state/packages/x.deb")).unwrap() == content && !part.exists());
    second.finish();
}

#[test]
fn another_writer_is_waited_for_and_not_for_ever() {
    let host = Host::new();
    fs::write(host.path("original"), "right").unwrap();
    let digest = sha256(&host, "original");
    fs::create_dir_all(host.path("state/packages")).unwrap();
    let part = fs::File::create(host.path("state/packages/x.deb.part")).unwrap();
    part.lock().unwrap();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![push(&host, "a/a/a/a/1", &digest, 5)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"right", 0, 5);
    bridge.send(&ToAgent::FileEnd { stream: 5 });
    bridge.until_finished("a/a/a/a/1").expect(Outcome::Failed).says("x.deb.part: another connection to this host still writes it");
    assert_eq!(part.metadata().unwrap().len(), 0);
    bridge.grant(vec![push(&host, "a/a/a/a/2", &digest, 5)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"right", 0, 5);
    bridge.send(&ToAgent::FileEnd { stream: 5 });
    part.unlock().unwrap();
    bridge.until_finished("a/a/a/a/2").expect(Outcome::Ok);
    bridge.finish();
}

/// Somebody may have stopped it because the disk fills up.
#[test]
fn nothing_is_written_for_a_push_that_was_stopped() {
    let host = Host::new();
    let content = vec![7; 600_000];
    fs::write(host.path("original"), &content).unwrap();
    let digest = sha256(&host, "original");
    let part = host.path("state/packages/x.deb.part");
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![push(&host, "a/a/a/a/push", &digest, content.len())]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, &content, 0, 300_000);
    crate::common::wait_until("a part of the file", || fs::metadata(&part).is_ok_and(|meta| meta.len() == 300_000));
    bridge.stop("a/a/a/a/push", 1);
    bridge.until_finished("a/a/a/a/push").expect(Outcome::Failed);
    // Others may have it now.
    fs::File::open(&part).unwrap().try_lock().unwrap();
    bridge.raw(&Frame::Data { stream: 5, offset: 300_000, bytes: content[300_000..].to_vec() }.encode());
    // Nor for one that comes too late.
    send_file(&mut bridge, &digest, &content, 300_000, content.len());
    bridge.send(&ToAgent::Inspect { id: 1, queries: vec![], run_as: RunAs::Login });
    while !matches!(bridge.message(), FromAgent::Inspected { .. }) {}
    assert_eq!(fs::metadata(&part).unwrap().len(), 300_000);
    bridge.finish();
}

/// The directory may be another account's.
#[test]
fn what_is_not_ours_is_not_added_to() {
    let host = Host::new();
    fs::write(host.path("original"), "right").unwrap();
    let digest = sha256(&host, "original");
    fs::create_dir_all(host.path("state/packages")).unwrap();
    fs::write(host.path("other"), "").unwrap();
    let part = host.path("state/packages/x.deb.part");
    let mut bridge = Bridge::attach(&host);
    let plant: [(&str, &dyn Fn()); 4] = [
        ("link", &|| symlink(host.path("other"), &part).unwrap()),
        ("dangling", &|| symlink(host.path("made"), &part).unwrap()),
        ("name", &|| fs::hard_link(host.path("other"), &part).unwrap()),
        ("fifo", &|| assert!(Command::new("mkfifo").arg(&part).status().unwrap().success())),
    ];
    for (name, plant) in plant {
        plant();
        let id = format!("a/a/a/a/{name}");
        bridge.grant(vec![push(&host, &id, &digest, 5)]);
        bridge.until_finished(&id).expect(Outcome::Failed).says("x.deb.part cannot be written");
        fs::remove_file(&part).unwrap();
    }
    assert!(fs::read(host.path("other")).unwrap().is_empty() && !host.path("made").exists());
    bridge.grant(vec![push(&host, "a/a/a/a/more", &digest, 5)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"right and more", 0, 14);
    bridge.until_finished("a/a/a/a/more").expect(Outcome::Failed).says("more than the expected 5 bytes came");
    bridge.finish();
}

/// The Campaign account copies the setup of the client console from where it was received. Nothing else is opened for that.
#[test]
fn others_can_pass_to_what_was_received() {
    let host = Host::new();
    fs::write(host.path("original"), "setup").unwrap();
    let digest = sha256(&host, "original");
    let mut bridge =
        Bridge::by(Command::new("/bin/sh").args(["-c", "umask 077; exec \"$0\" bridge", crate::common::AGENT])).greet();
    bridge.send_attach(&host, 0, Default::default());
    assert!(matches!(bridge.message(), FromAgent::Attached { .. }));
    for (id, dest) in [("1", "state/packages/sha/setup.exe"), ("2", "state/other/x"), ("3", "state/packages/../beside/x")] {
        let dest = host.text(dest);
        let action = Action::PushFile { sha256: digest.clone(), size: 5, dest, mode: 0o644 };
        let id = format!("a/a/a/a/{id}");
        bridge.grant(vec![step(&id, action)]);
        assert_eq!(needed(&mut bridge).0, digest);
        send_file(&mut bridge, &digest, b"setup", 0, 5);
        bridge.send(&ToAgent::FileEnd { stream: 5 });
        bridge.until_finished(&id).expect(Outcome::Ok);
    }
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().mode() & 0o7777;
    let modes = [
        "state",
        "state/packages",
        "state/packages/sha",
        "state/packages/sha/setup.exe",
        "state/other",
        "state/beside",
        "state/runs",
    ];
    assert_eq!(modes.map(mode), [0o711, 0o711, 0o711, 0o644, 0o700, 0o700, 0o700]);
    bridge.finish();
}

#[test]
fn a_pushed_file_must_be_the_right_one() {
    let host = Host::new();
    fs::write(host.path("original"), "right").unwrap();
    let digest = sha256(&host, "original");
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![push(&host, "a/a/a/a/1", &digest, 5)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"wrong", 0, 5);
    bridge.send(&ToAgent::FileEnd { stream: 5 });
    bridge.until_finished("a/a/a/a/1").expect(Outcome::Failed).says(&digest);
    assert!(!host.path("state/packages/x.deb").exists() && !host.path("state/packages/x.deb.part").exists());
    bridge.grant(vec![push(&host, "a/a/a/a/2", &digest, 5)]);
    needed(&mut bridge);
    bridge.send(&ToAgent::FileRefused { sha256: digest.clone(), reason: "no such file on the workstation".to_owned() });
    bridge.until_finished("a/a/a/a/2").expect(Outcome::Failed).says("no such file on the workstation");
    bridge.grant(vec![push(&host, "a/a/a/a/3", &digest, 5)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"right", 0, 3);
    bridge.send(&ToAgent::FileEnd { stream: 5 });
    bridge.until_finished("a/a/a/a/3").expect(Outcome::Failed).says("expected 5 bytes, received 3");
    bridge.finish();
}

#[test]
fn an_empty_file_can_be_pushed() {
    let host = Host::new();
    fs::write(host.path("original"), "").unwrap();
    let digest = sha256(&host, "original");
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![push(&host, "a/a/a/a/1", &digest, 0)]);
    needed(&mut bridge);
    send_file(&mut bridge, &digest, b"", 0, 0);
    bridge.send(&ToAgent::FileEnd { stream: 5 });
    bridge.until_finished("a/a/a/a/1").expect(Outcome::Ok);
    bridge.finish();
}

#[test]
fn xml_is_edited_in_place() {
    let host = Host::new();
    let before = "<?xml version='1.0'?>\n<serverconf>\n  <!-- by hand -->\n  <mta autoStart=\"true\"/><wfserver   autoStart='true' />\n  <shared><authentication><xtk/></authentication></shared>\n</serverconf>\n";
    for name in ["config-a.xml", "config-b.xml"] {
        fs::write(host.path(name), before).unwrap();
        fs::set_permissions(host.path(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::write(
        host.path("old.xml"),
        "<serverconf><shared><authentication><xtk internalPassword='a\"&lt;b'/></authentication></shared></serverconf>",
    )
    .unwrap();
    let edit =
        |element: &str, attribute: &str, change| XmlEdit { element: element.to_owned(), attribute: attribute.to_owned(), change };
    let xtk = "serverconf/shared/authentication/xtk";
    let edits = vec![
        edit("serverconf/*", "autoStart", XmlChange::Rename("_autoStart".to_owned())),
        edit("serverconf/mta", "args", XmlChange::Set("a<b & \"c\"".to_owned())),
        edit(xtk, "internalPassword", XmlChange::CopyFrom(host.text("old.xml"))),
        edit(xtk, "nothing", XmlChange::CopyFrom(host.text("old.xml"))),
    ];
    let mut bridge = Bridge::attach(&host);
    let file = host.text("config-*.xml");
    let same = Probe::XmlSame {
        file: file.clone(),
        other: host.text("old.xml"),
        element: xtk.to_owned(),
        attribute: "internalPassword".to_owned(),
    };
    let is = |attribute: &str, equals: Option<&str>| Probe::Xml {
        file: file.clone(),
        element: "serverconf/mta".to_owned(),
        attribute: attribute.to_owned(),
        equals: equals.map(str::to_owned),
    };
    check(&mut bridge, "before", same.clone())
        .expect(Outcome::Failed)
        .says("internalPassword of serverconf/shared/authentication/xtk differs");
    let probe = Probe::All(vec![is("_autoStart", Some("true")), is("autoStart", None), is("args", Some("a<b & \"c\"")), same]);
    bridge.perform(with_probe(step("a/a/a/a/x", Action::XmlEdit { file, edits }), probe)).expect(Outcome::Ok);
    let after = before
        .replace("autoStart", "_autoStart")
        .replace("<mta _autoStart=\"true\"/>", "<mta _autoStart=\"true\" args=\"a&lt;b &amp; &quot;c&quot;\"/>")
        .replace("<xtk/>", "<xtk internalPassword='a\"&lt;b'/>");
    assert_eq!(host.read("config-a.xml"), after);
    assert_eq!(host.read("config-b.xml"), after);
    assert_eq!(fs::metadata(host.path("config-a.xml")).unwrap().mode() & 0o7777, 0o640);
    // Which files are there now: no leftovers.
    assert_eq!(fs::read_dir(host.dir.path()).unwrap().count(), 4);
    let nowhere = Action::XmlEdit {
        file: host.text("config-a.xml"),
        edits: vec![edit("serverconf/none", "a", XmlChange::Set(String::new()))],
    };
    bridge.perform(step("a/a/a/a/y", nowhere)).expect(Outcome::Failed).says("has no element serverconf/none");
    bridge.finish();
}

#[test]
fn web_servers_are_asked() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for answer in ["200 OK\r\nContent-Length: 36", "200 OK\r\nContent-Length: 36", "503 No\r\nContent-Length: 36"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /r/test HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {answer}\r\n\r\n<redir status='OK' build='9383'/>\r\n\r\n").unwrap();
        }
    });
    let mut bridge = Bridge::attach(&host);
    let ask =
        |contains: &str| Probe::Http { url: format!("http://localhost:{port}/r/test"), contains: argv(&["status='OK'", contains]) };
    check(&mut bridge, "right", ask("build='9383'")).expect(Outcome::Ok);
    check(&mut bridge, "wrong", ask("build='8989'")).expect(Outcome::Failed).says("build='9383'");
    check(&mut bridge, "down", ask("x")).expect(Outcome::Failed).says("seen 503");
    server.join().unwrap();
    check(&mut bridge, "gone", ask("x")).expect(Outcome::Failed).says("does not answer");
    bridge.finish();
}

#[test]
fn the_newest_file_counts() {
    let host = Host::new();
    fs::write(host.path("postupgrade_1.log"), "12 error(s)").unwrap();
    let newer = fs::FileTimes::new().set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60));
    let file = fs::File::create(host.path("postupgrade_0.log")).unwrap();
    (&file).write_all(b"0 error(s) during the update.").unwrap();
    file.set_times(newer).unwrap();
    let mut bridge = Bridge::attach(&host);
    let look = |file: &str, text: &str| Probe::NewestFileContains { file: host.text(file), contains: text.to_owned() };
    check(&mut bridge, "1", look("postupgrade_*.log", "0 error(s) during")).expect(Outcome::Ok);
    check(&mut bridge, "2", look("postupgrade_*.log", "12 error")).expect(Outcome::Failed);
    check(&mut bridge, "3", look("none_*.log", "")).expect(Outcome::Failed).says("seen none");
    bridge.finish();
}

#[test]
fn downloads_are_checked() {
    let host = Host::new();
    if ["curl", "wget"].iter().all(|tool| Command::new(tool).arg("--version").output().is_err()) {
        eprintln!("skipped: neither curl nor wget is installed");
        return;
    }
    fs::write(host.path("original"), "package").unwrap();
    let digest = sha256(&host, "original");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.deb", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for body in ["package", "another"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let mut bridge = Bridge::attach(&host);
    let fetch =
        |id: &str, dest: &str| step(id, Action::Download { url: url.clone(), sha256: digest.clone(), dest: host.text(dest) });
    bridge.perform(fetch("a/a/a/a/1", "in/x.deb")).expect(Outcome::Ok);
    assert_eq!(host.read("in/x.deb"), "package");
    bridge.perform(fetch("a/a/a/a/2", "in/y.deb")).expect(Outcome::Failed).says("expected content with SHA-256");
    server.join().unwrap();
    assert!(bridge.next(PATIENCE / 300).is_err());
    bridge.finish();
}

#[test]
fn packages_are_asked_for() {
    let host = Host::new();
    if Command::new("dpkg-query").arg("--version").output().is_err() {
        eprintln!("skipped: no dpkg on this host");
        return;
    }
    let mut bridge = Bridge::attach(&host);
    let manager = proto::step::PackageManager::Dpkg;
    let installed = |version: &str| Probe::PackagesInstalled { manager, names: argv(&["dpkg"]), version: version.to_owned() };
    check(&mut bridge, "1", installed("1.")).expect(Outcome::Ok);
    check(&mut bridge, "2", installed("no-such-build")).expect(Outcome::Failed).says("no-such-build");
    check(&mut bridge, "3", Probe::PackagesAbsent { manager, names: argv(&["nlserver6"]) }).expect(Outcome::Ok);
    check(&mut bridge, "4", Probe::PackagesAbsent { manager, names: argv(&["dpkg"]) }).expect(Outcome::Failed).says("is installed");
    bridge.finish();
}

#[test]
fn a_text_takes_the_place_of_another() {
    let host = Host::new();
    fs::create_dir_all(host.path("etc/conf.d")).unwrap();
    let write = |name: &str, text: &[u8]| fs::write(host.path(name), text).unwrap();
    let read = |name: &str| fs::read(host.path(name)).unwrap();
    write("etc/envvars", b"# \xe9t\xe9\r\n. /opt/nl5/env.sh; . /opt/nl5/a/nl5/env.sh");
    write("etc/other", b"nothing of it\n");
    write("etc/conf.d/a.conf", b"Alias /opt/nl5/web\n");
    fs::set_permissions(host.path("etc/envvars"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("/opt/nl5/conf/apache.conf", host.path("etc/nlsrv.conf")).unwrap();
    symlink("other", host.path("etc/harmless")).unwrap();
    let files: Vec<String> = ["etc/envvars", "etc/other", "etc/nlsrv.conf", "etc/harmless", "etc/none", "etc/conf.d/*.conf"]
        .map(|name| host.text(name))
        .into();
    let step_of = |id: &str, files: &[String], from: &str, to: &str| {
        let (files, from, to) = (files.to_vec(), from.to_owned(), to.to_owned());
        let probe = Probe::TextReplaced { files: files.clone(), from: from.clone(), to: to.clone() };
        with_probe(step(&format!("a/a/a/a/{id}"), Action::ReplaceText { files, from, to }), probe)
    };
    let mut bridge = Bridge::attach(&host);
    let gone = Probe::TextReplaced { files: files.clone(), from: "/nl5/".into(), to: "/nl6/".into() };
    check(&mut bridge, "before", gone).expect(Outcome::Failed).says("expected no `/nl5/` in");
    let before = (read("etc/envvars"), read("etc/conf.d/a.conf"));
    bridge.perform(step_of("there", &files, "/nl5/", "/nl6/")).expect(Outcome::Ok);
    assert_eq!(read("etc/envvars"), b"# \xe9t\xe9\r\n. /opt/nl6/env.sh; . /opt/nl6/a/nl6/env.sh".as_slice());
    assert_eq!(fs::metadata(host.path("etc/envvars")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(host.path("etc/nlsrv.conf")).unwrap().to_str(), Some("/opt/nl6/conf/apache.conf"));
    assert_eq!(fs::read_link(host.path("etc/harmless")).unwrap().to_str(), Some("other"));
    bridge.perform(step_of("again", &files, "/nl5/", "/nl6/")).expect(Outcome::Ok).says("");
    bridge.perform(step_of("back", &files, "/nl6/", "/nl5/")).expect(Outcome::Ok);
    assert_eq!((read("etc/envvars"), read("etc/conf.d/a.conf")), before);

    // What cannot be turned back, or leads elsewhere, is refused, and nothing else is written.
    write("etc/both", b"/nl5/ /nl6/");
    let with_both = [files.clone(), vec![host.text("etc/both")]].concat();
    bridge.perform(step_of("both", &with_both, "/nl5/", "/nl6/")).expect(Outcome::Failed).says("could not be turned back");
    symlink(host.path("etc/envvars"), host.path("etc/link")).unwrap();
    let with_link = [files.clone(), vec![host.text("etc/link")]].concat();
    bridge.perform(step_of("link", &with_link, "/nl5/", "/nl6/")).expect(Outcome::Failed).says("links are not followed");
    assert_eq!((read("etc/envvars"), read("etc/conf.d/a.conf")), before);
    bridge.perform(step_of("none", &[host.text("etc/none")], "/nl5/", "/nl6/")).expect(Outcome::Failed).says("seen none");
    bridge.finish();
}
