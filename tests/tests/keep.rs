//! Backups that are kept off their hosts: encrypted there, fetched in pieces that survive cuts and deaths, and used on the way back.

use age::secrecy::ExposeSecret;
use harness::{Site, finish, kill, until};
use proto::event::{Event, Kind};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in an installation and must be in no file of the workstation.
const CANARY: &str = "canary-5f0c-of-the-installation";
/// Bytes of the file that makes the archive large enough to be cut in the middle: nothing makes them smaller.
const BULK: usize = 2 << 20;

fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first file of a directory and those below it whose name has this in it.
fn find(dir: &Path, part: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    entries.flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, part),
        path => path.file_name()?.to_str()?.contains(part).then_some(path),
    })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn open(copy: &Path, identity: &age::x25519::Identity) -> Vec<u8> {
    let decryptor = age::Decryptor::new(fs::File::open(copy).unwrap()).unwrap();
    let mut plain = Vec::new();
    decryptor.decrypt(std::iter::once(identity as &dyn age::Identity)).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

/// The events of the step of one host that keeps a copy of its archive.
fn of_keep<'a>(events: &'a [Event], host: &str) -> Vec<&'a Kind> {
    let own = format!("/{host}/backup.keep");
    let is_own = |event: &&Event| event.scope.step.as_deref().is_some_and(|step| step.ends_with(&own));
    events.iter().filter(is_own).map(|event| &event.kind).collect()
}

#[test]
fn copies_are_encrypted_fetched_once_over_cuts_and_deaths_and_bring_a_host_back() {
    let site = Site::new("platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 1 } }]");
    let identity = age::x25519::Identity::generate();
    let key = identity.to_public().to_string();
    let inventory = site.lab.inventory();
    let text = fs::read_to_string(&inventory).unwrap();
    let text = text
        .replacen("defaults:\n", &format!("defaults:\n  keep: {{ to: workstation, limit: 512KiB, encrypt_to: {key} }}\n"), 1)
        .replacen("  - name: emea-trk1\n", "  - name: emea-trk1\n    keep: { to: emea-mta1 }\n", 1);
    assert!(text.contains("keep: { to: emea-mta1 }"), "{text}");
    fs::write(&inventory, text).unwrap();
    let mut noise = vec![0u8; BULK];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    for host in site.lab.layout().hosts() {
        fs::write(host.old_tree().join("conf/canary.txt"), CANARY).unwrap();
        fs::write(host.old_tree().join("var/noise.dat"), &noise).unwrap();
    }
    let plan = site.caravan(&["plan", "--explain", "backup.keep"]).expect(0).stdout;
    assert!(plan.contains(&key) && plan.contains("emea-mta1") && plan.contains("524288 bytes a second"), "{plan}");

    // Cut by the network, then the controller dies, both in the middle of the copy.
    let run = site.begin(&["migrate", "--yes"]);
    let arrived = || {
        let run = fs::read_dir(site.state().join("runs")).ok().and_then(|mut runs| Some(runs.next()?.ok()?.path()));
        let part = run.and_then(|run| find(&run.join("backups/emea-mkt1"), "nl6.back.tar.gz.age."));
        part.and_then(|part| fs::metadata(part).ok()).map_or(0, |meta| meta.len())
    };
    until("a part of the copy", || arrived() > 300_000);
    let host = site.lab.host("emea-mkt1");
    let before = host.server.accepted();
    host.cut();
    until("another connection", || host.server.accepted() > before);
    let so_far = arrived();
    until("more of the copy", || arrived() > so_far + 300_000);
    kill(run);
    let cut_at = arrived();
    finish(site.begin(&["resume"])).expect(0);
    site.assert_no_violations();

    // What had arrived was not sent again.
    let events = site.events();
    let keep = of_keep(&events, "emea-mkt1");
    let offsets: Vec<u64> =
        keep.iter().filter_map(|kind| if let Kind::KeepBegun { offset, .. } = kind { Some(*offset) } else { None }).collect();
    let kept = keep.iter().find_map(|kind| match kind {
        Kind::BackupKept { plain_sha256, to, file, size, sha256, received, encrypt_to, .. } => {
            Some((plain_sha256.clone(), to.clone(), file.clone(), *size, sha256.clone(), *received, encrypt_to.clone()))
        }
        _ => None,
    });
    let (plain, to, file, size, sealed, received, encrypt_to) = kept.unwrap();
    assert!(offsets.len() >= 3 && offsets[0] == 0 && offsets.is_sorted(), "{offsets:?}");
    assert_eq!(offsets.last(), Some(&cut_at), "{offsets:?}");
    assert!(cut_at < size, "the copy was whole before the controller died");
    assert_eq!(cut_at + received, size);
    assert_eq!((to.as_str(), encrypt_to), ("workstation", vec![key.clone()]));

    // It is what the host archived, and nothing of it is on the workstation in plain.
    let copy = site.run_dir().join(&file);
    assert_eq!(digest(&copy), sealed);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let archive = site.root().join("opened.tar.gz");
    fs::write(&archive, open(&copy, &identity)).unwrap();
    assert_eq!(digest(&archive), plain);
    let told = events.iter().any(|event| matches!(&event.kind, Kind::BackupMade { sha256, .. } if *sha256 == plain));
    assert!(told, "the archive's digest is on record as its host told it");
    let mkt = site.host("emea-mkt1");
    let out = site.root().join("opened");
    fs::create_dir(&out).unwrap();
    assert!(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&out).status().unwrap().success());
    let back = mkt.home().join("nl6.back");
    assert!(Command::new("diff").arg("-r").arg(&back).arg(out.join("nl6.back")).status().unwrap().success());
    let plain_digests: Vec<&str> = events
        .iter()
        .filter_map(|event| if let Kind::BackupMade { sha256, .. } = &event.kind { Some(sha256.as_str()) } else { None })
        .collect();
    for path in files(&site.state()) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "{}", path.display());
        assert!(!plain_digests.contains(&digest(&path).as_str()), "{} is a backup in plain", path.display());
    }

    // On a named host, and the dump as well; the encrypted copies on the hosts are gone.
    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    let elsewhere = site.host("emea-mta1").host_state().join("kept").join(&run).join("emea-trk1/nl6.back.tar.gz.age");
    assert!(!open(&elsewhere, &identity).is_empty());
    let dump = site.run_dir().join("backups/emea-mkt1/emea.dump.age");
    let made = site.root().join("lab/hosts/emea-mkt1/backup").join(&run).join("emea.dump");
    assert_eq!(open(&dump, &identity), fs::read(&made).unwrap());
    for host in site.lab.layout().hosts() {
        assert_eq!(find(&host.home(), ".age"), None);
    }
    if let Ok(opened) = Command::new("age").arg("--version").output()
        && opened.status.success()
    {
        let file = site.root().join("identity");
        fs::write(&file, identity.to_string().expose_secret()).unwrap();
        let opened = Command::new("age").args(["-d", "-i"]).arg(&file).arg(&copy).output().unwrap();
        assert!(opened.status.success() && opened.stdout == fs::read(&archive).unwrap());
    }

    // Nothing was replaced before every copy was where it belongs.
    let last = events.iter().rposition(|event| matches!(event.kind, Kind::BackupKept { .. })).unwrap();
    let migrate =
        events.iter().position(|event| matches!(event.kind, Kind::PhaseStarted) && event.scope.phase.as_deref() == Some("migrate"));
    assert!(migrate.is_some_and(|migrate| last < migrate), "{last} {migrate:?}");
    let report = site.caravan(&["report", &run, "--format", "markdown"]).expect(0).stdout;
    assert!(report.contains(&sealed) && report.contains(&plain), "{report}");

    // On the way back: a dump that is not the one that was made is found before anything is stopped. An installation that is gone comes
    // back from its archive.
    let good = fs::read(&made).unwrap();
    fs::write(&made, [&good[..], b"x"].concat()).unwrap();
    let held = site.caravan(&["rollback", &run, "--yes"]).expect(1);
    assert!(held.stderr.contains("backup.database-verify") && held.stderr.contains("SHA-256"), "{}", held.stderr);
    assert_eq!(site.count(lab::Event::DumpRestored), 0);
    fs::write(&made, good).unwrap();
    fs::remove_dir_all(&back).unwrap();
    let rollback = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    site.caravan(&["resume", &rollback]).expect(0);
    assert!(
        Command::new("diff").arg("-r").arg(mkt.home().join("nl6/conf")).arg(out.join("nl6.back/conf")).status().unwrap().success()
    );

    // What an end in the middle of encrypting would leave goes with the run; the archive and the copies stay.
    let archive = site.host("emea-mta1").home().join(format!("nl6.back-{run}.tar.gz"));
    let unfinished = PathBuf::from(format!("{}.age.part", archive.display()));
    fs::write(&unfinished, "half of it").unwrap();
    site.caravan(&["cleanup", &run, "--yes"]).expect(0);
    assert!(!unfinished.exists() && archive.exists() && copy.exists() && elsewhere.exists());
}
