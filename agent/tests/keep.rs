//! Files that are kept off the host, files that are stored for another one, and what is said of backups.

use crate::common::{Bridge, Host, exists, step, with_probe};
use proto::frame::{FETCHED, Frame};
use proto::inspect::{Answer, FileFacts, ReadError};
use proto::message::{Granted, Happened, Offered};
use proto::step::KeepTo;
use proto::{Action, FromAgent, Outcome, Query, RunAs, ToAgent};
use std::fs;
use std::io::Read;
use std::process::Command;
use std::time::Duration;

const STEP: &str = "a/a/a/a/keep";

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keep(host: &Host, key: &str) -> Granted {
    let (source, encrypt_to) = (host.text("nl6.tar.gz"), vec![key.to_owned()]);
    let action = Action::Keep { source, name: "nl6.age".to_owned(), to: KeepTo::Workstation, encrypt_to, limit: None };
    with_probe(step(STEP, action), exists(&host.run_dir().join("kept/nl6.age.kept")))
}

/// What the step offers, past the events that come before it.
fn offered(bridge: &mut Bridge) -> Offered {
    loop {
        match bridge.message() {
            FromAgent::Offer { attempt, file } => {
                assert_eq!(attempt.step.0, STEP);
                return file;
            }
            FromAgent::Event(event) => bridge.events.push(event),
            other => panic!("{other:?}"),
        }
    }
}

fn fetch(bridge: &mut Bridge, file: &Offered, stream: u32, from: u64, to: u64) -> Vec<u8> {
    bridge.output.remove(&stream);
    let length = u32::try_from(to - from).unwrap();
    bridge.send(&ToAgent::Fetch { sha256: file.sha256.clone(), stream, offset: from, length });
    while bridge.output.get(&stream).is_none_or(|bytes| (bytes.len() as u64) < to - from) {
        match bridge.next(Duration::from_millis(50)) {
            Ok(FromAgent::Event(event)) => bridge.events.push(event),
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    }
    bridge.output.remove(&stream).unwrap()
}

#[test]
fn a_copy_is_encrypted_offered_until_it_is_kept_and_the_same_for_every_attempt() {
    let host = Host::new();
    let plain: Vec<u8> = (0..300_000u32).flat_map(|number| number.to_le_bytes()).collect();
    fs::write(host.path("nl6.tar.gz"), &plain).unwrap();
    let identity = age::x25519::Identity::generate();
    let key = identity.to_public().to_string();
    let mut bridge = Bridge::attach(&host);
    bridge.grant(vec![keep(&host, &key)]);
    let file = offered(&mut bridge);
    assert_eq!((file.plain_sha256.as_str(), file.plain_size), (sha256(&plain).as_str(), plain.len() as u64));
    let first = fetch(&mut bridge, &file, FETCHED | 1, 0, 100_000);
    // Nothing is sent of another file, or on a stream that is one of output.
    bridge.send(&ToAgent::Fetch { sha256: "0".repeat(64), stream: FETCHED | 2, offset: 0, length: 10 });
    bridge.send(&ToAgent::Fetch { sha256: file.sha256.clone(), stream: 2, offset: 0, length: 10 });
    assert!(bridge.next(Duration::from_millis(300)).is_err() && !bridge.output.contains_key(&(FETCHED | 2)));

    // The connection goes; the next one is offered the same, and what is there is not fetched again.
    bridge.child.kill().unwrap();
    let mut bridge = Bridge::attach(&host);
    assert_eq!(offered(&mut bridge), file);
    let (mut copy, mut stream) = (first, FETCHED | 3);
    while (copy.len() as u64) < file.size {
        let from = copy.len() as u64;
        copy.extend(fetch(&mut bridge, &file, stream, from, file.size.min(from + 128 * 1024)));
        stream += 1;
    }
    assert_eq!(sha256(&copy), file.sha256);
    let mut opened = Vec::new();
    let decryptor = age::Decryptor::new(&copy[..]).unwrap();
    decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap().read_to_end(&mut opened).unwrap();
    assert!(opened == plain);
    let stranger = age::x25519::Identity::generate();
    let decryptor = age::Decryptor::new(&copy[..]).unwrap();
    assert!(decryptor.decrypt(std::iter::once(&stranger as &dyn age::Identity)).is_err());
    let mut tampered = copy.clone();
    *tampered.last_mut().unwrap() ^= 1;
    let decryptor = age::Decryptor::new(&tampered[..]).unwrap();
    let mut reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());

    // A copy that cannot be kept fails the step. The next attempt offers the same copy: nothing is encrypted anew.
    bridge.send(&ToAgent::FileRefused { sha256: file.sha256.clone(), reason: "the disk of the workstation is full".to_owned() });
    bridge.until_finished(STEP).expect(Outcome::Failed).says("the disk of the workstation is full");
    assert!(host.path("nl6.tar.gz.age").exists());
    bridge.grant(vec![Granted { attempt: 2, ..keep(&host, &key) }]);
    assert_eq!(offered(&mut bridge), file);
    bridge.send(&ToAgent::FileKept { sha256: "1".repeat(64) });
    assert!(bridge.next(Duration::from_millis(300)).is_err(), "that is another file");
    bridge.send(&ToAgent::FileKept { sha256: file.sha256.clone() });
    loop {
        match bridge.message() {
            FromAgent::Event(event) => {
                let end = matches!(event.what, Happened::Finished { outcome: Outcome::Ok, .. });
                bridge.events.push(event);
                if end {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!host.path("nl6.tar.gz.age").exists() && host.path("nl6.tar.gz").exists());
    bridge.finish();
}

#[test]
fn a_file_that_is_not_what_was_recorded_is_not_kept() {
    let host = Host::new();
    fs::write(host.path("nl6.tar.gz"), "changed").unwrap();
    fs::write(host.path("nl6.tar.gz.sha256"), format!("{}  nl6.tar.gz\n", sha256(b"as it was"))).unwrap();
    let key = age::x25519::Identity::generate().to_public().to_string();
    let mut bridge = Bridge::attach(&host);
    bridge.perform(keep(&host, &key)).expect(Outcome::Failed).says("is not what it was");
    fs::remove_file(host.path("nl6.tar.gz")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.path("nl6.tar.gz")).unwrap();
    let other = Granted { attempt: 2, ..keep(&host, &key) };
    bridge.perform(other).expect(Outcome::Failed);
    assert!(!host.path("nl6.tar.gz.age").exists(), "a link is not followed");
    bridge.finish();
}

#[test]
fn the_digest_of_a_backup_is_told_and_written_down() {
    let host = Host::new();
    fs::write(host.path("x.dump"), "dump").unwrap();
    let mut bridge = Bridge::attach(&host);
    bridge.perform(step("a/a/a/a/sum", Action::Checksum { file: host.text("x.dump") })).expect(Outcome::Ok);
    let made =
        bridge.events.iter().find_map(|event| if let Happened::Made(made) = &event.what { Some(made.clone()) } else { None });
    let made = made.unwrap();
    assert_eq!((made.file, made.size, made.sha256), (host.text("x.dump"), 4, sha256(b"dump")));
    let checked = Command::new("sha256sum").args(["-c", "x.dump.sha256"]).current_dir(host.dir.path()).output().unwrap();
    assert!(checked.status.success());
    bridge.finish();
}

#[test]
fn an_archive_is_unpacked_as_it_was_and_never_onto_something() {
    let host = Host::new();
    let deep = format!("nl6/{}", "long/".repeat(40));
    fs::create_dir_all(host.path(&deep)).unwrap();
    fs::write(host.path(&deep).join("file"), "content").unwrap();
    fs::create_dir(host.path("nl6/closed")).unwrap();
    fs::write(host.path("nl6/closed/x"), "x").unwrap();
    std::os::unix::fs::symlink("closed/x", host.path("nl6/link")).unwrap();
    Command::new("chmod").arg("555").arg(host.path("nl6/closed")).status().unwrap();
    Command::new("touch").args(["-d", "2011-10-04"]).arg(host.path("nl6/closed")).status().unwrap();
    let mut bridge = Bridge::attach(&host);
    let (source, dest) = (host.text("nl6"), host.text("nl6.tar.gz"));
    bridge.perform(step("a/a/a/a/archive", Action::Archive { source, dest })).expect(Outcome::Ok);
    let sum = sha256(&fs::read(host.path("nl6.tar.gz")).unwrap());
    let unpack = |id: &str, sha256: &str, dest: &str| {
        let action = Action::Unpack { archive: host.text("nl6.tar.gz"), sha256: sha256.to_owned(), dest: host.text(dest) };
        step(&format!("a/a/a/a/{id}"), action)
    };
    bridge.perform(unpack("1", &sum, "back")).expect(Outcome::Ok);
    let same = Command::new("diff").args(["-r", "--no-dereference", "nl6", "back"]).current_dir(host.dir.path()).status().unwrap();
    assert!(same.success());
    let times = ["nl6/closed", "back/closed"].map(|dir| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(host.path(dir)).unwrap();
        (meta.mtime(), meta.mode())
    });
    assert_eq!(times[0], times[1]);
    bridge.perform(unpack("2", &sum, "back")).expect(Outcome::Failed).says("exists already");
    bridge.perform(unpack("3", &sha256(b"other"), "other")).expect(Outcome::Failed).says("is not what the run made");
    assert!(!host.path("other").exists());
    Command::new("chmod").arg("755").arg(host.path("nl6/closed")).arg(host.path("back/closed")).status().unwrap();
    bridge.finish();
}

#[test]
fn a_file_is_stored_for_another_host_in_pieces_and_only_whole() {
    let host = Host::new();
    let content: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let (dest, sum, size) = (host.text("state/kept/run/mkt1/nl6.age"), sha256(&content), content.len() as u64);
    let store = |id| ToAgent::Store { id, dest: dest.clone(), size, sha256: sum.clone() };
    let data =
        |id, from: usize, to: usize| Frame::Data { stream: id, offset: from as u64, bytes: content[from..to].to_vec() }.encode();

    let mut bridge = Bridge::open();
    bridge.send(&store(1));
    assert_eq!(bridge.message(), FromAgent::StoreAt { id: 1, offset: 0 });
    bridge.raw(&data(1, 0, 30_000));
    // A hole is not written over.
    bridge.raw(&data(1, 40_000, 50_000));
    assert!(matches!(bridge.message(), FromAgent::NotStored { id: 1, .. }));
    bridge.send(&store(2));
    assert_eq!(bridge.message(), FromAgent::StoreAt { id: 2, offset: 30_000 });
    assert!(!std::path::Path::new(&dest).exists(), "only a whole file has its name");
    bridge.raw(&data(2, 30_000, 200_000));
    assert_eq!(bridge.message(), FromAgent::Stored { id: 2 });
    assert!(fs::read(&dest).unwrap() == content);
    bridge.send(&store(3));
    assert_eq!(bridge.message(), FromAgent::Stored { id: 3 });

    // What is not what was announced leaves nothing behind; nor does what has no place.
    let other = ToAgent::Store { id: 4, dest: host.text("state/kept/x"), size: 4, sha256: sha256(b"good") };
    bridge.send(&other);
    assert_eq!(bridge.message(), FromAgent::StoreAt { id: 4, offset: 0 });
    bridge.raw(&Frame::Data { stream: 4, offset: 0, bytes: b"evil".to_vec() }.encode());
    assert!(matches!(bridge.message(), FromAgent::NotStored { id: 4, .. }));
    assert!(fs::read_dir(host.path("state/kept")).unwrap().flatten().all(|entry| entry.file_name() == "run"));
    bridge.send(&ToAgent::Store { id: 5, dest: host.text("state/kept/y"), size: u64::MAX / 2, sha256: sum.clone() });
    assert!(matches!(bridge.message(), FromAgent::NotStored { id: 5, reason } if reason.contains("bytes free")));
    bridge.send(&ToAgent::Store { id: 6, dest: "relative".to_owned(), size: 1, sha256: sum });
    assert!(matches!(bridge.message(), FromAgent::NotStored { id: 6, .. }));
}

#[test]
fn what_a_backup_is_can_be_asked() {
    let host = Host::new();
    fs::write(host.path("last.dump"), "dump").unwrap();
    fs::write(host.path("last.dump.sha256"), "abc  last.dump\n").unwrap();
    std::os::unix::fs::symlink("last.dump", host.path("link")).unwrap();
    let mut bridge = Bridge::open();
    let queries = ["last.dump", "none", "link"].map(|name| Query::File { path: host.text(name) }).to_vec();
    bridge.send(&ToAgent::Inspect { id: 1, queries, run_as: RunAs::Login });
    let FromAgent::Inspected { readings, .. } = bridge.message() else { panic!("no answer") };
    let facts = readings[0].clone().unwrap();
    let Answer::File(FileFacts { size: 4, modified_ms, sha256: Some(seen), recorded: Some(recorded) }) = facts else {
        panic!("{facts:?}")
    };
    assert_eq!((seen, recorded.as_str()), (sha256(b"dump"), "abc"));
    assert!(modified_ms > 1_600_000_000_000);
    assert!(matches!(readings[1], Err(ReadError::Missing(_))) && matches!(readings[2], Err(ReadError::Failed(_))));
}
