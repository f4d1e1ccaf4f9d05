//! A planted secret is found nowhere but where it belongs.

use harness::Site;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn holds_any(bytes: &[u8], needles: &[String]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    needles.iter().any(|needle| text.contains(needle.as_str()))
}

/// Files below `dir` that contain one of the needles, without those `skip` names.
fn files_with(dir: &Path, needles: &[String], skip: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>, looked_at: &mut usize) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if skip(&path) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files_with(&path, needles, skip, found, looked_at);
        } else if let Ok(bytes) = std::fs::read(&path) {
            *looked_at += 1;
            if holds_any(&bytes, needles) {
                found.push(path);
            }
        }
    }
}

#[test]
fn planted_passwords_stay_in_their_place() {
    let site = Site::new(
        "
platforms:
  - { name: emea, topology: standard, web: true, hosts: { marketing: 1, mta: 1, tracking: 2 } }
",
    );
    let secrets = site.lab.secrets().clone();
    let session = lab::session_token();
    let values =
        [&secrets.internal_password, &secrets.internal_stored, &secrets.tracking_password, &secrets.database_password, &session];
    // The operator's own file, for the logon.
    let own = site.root().join("internal.pw");
    std::fs::write(&own, &secrets.internal_password).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600)).unwrap();
    let reference = format!("file:{}", own.display());
    // The new password, which the operator has in another file.
    let next = "canary-of-the-next-password".to_owned();
    let next_file = site.root().join("next.pw");
    std::fs::write(&next_file, &next).unwrap();
    std::fs::set_permissions(&next_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let next_reference = format!("file:{}", next_file.display());
    let needles: Vec<String> = values.iter().map(ToString::to_string).chain([next.clone()]).collect();

    // Arguments and environments of all processes, sampled for as long as the run lasts.
    let stop = Arc::new(AtomicBool::new(false));
    let sampler = {
        let stop = stop.clone();
        let needles = needles.clone();
        std::thread::spawn(move || {
            let (mut seen, mut samples) = (Vec::new(), 0usize);
            while !stop.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    for file in ["cmdline", "environ"] {
                        let Ok(bytes) = std::fs::read(entry.path().join(file)) else { continue };
                        samples += 1;
                        if holds_any(&bytes, &needles) {
                            seen.push(format!("{}: {}", file, String::from_utf8_lossy(&bytes)));
                        }
                    }
                }
                // Not as fast as it can: it would take the processors from what it watches.
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            (seen, samples)
        })
    };
    let mut printed = String::new();
    for args in [
        &["check", "-vvv"] as &[&str],
        &["passwords", "check", "-vvv"],
        &["passwords", "check", "-vvv", "--proof", "logon", "--password", &reference],
        &["migrate", "--yes", "-vvv"],
        &["report", "--format", "markdown"],
        &["passwords", "set", "-vvv", "--yes", "--current", &reference, "--new", &next_reference],
        &["report", "--format", "json"],
    ] {
        let ran = site.caravan(args).expect(0);
        printed += &ran.stdout;
        printed += &ran.stderr;
    }
    stop.store(true, Ordering::Relaxed);
    let (seen, samples) = sampler.join().unwrap();
    assert!(samples > 1000, "the sampler looked at next to nothing: {samples}");
    assert_eq!(seen, Vec::<String>::new());
    for value in values.into_iter().chain([&next]) {
        assert!(!printed.contains(value.as_str()), "printed");
    }

    // On disk: the Campaign trees, their backups and the database are where the secrets live; db.pw is the operator's own file, and the
    // lab's own description of itself is not Caravan's.
    let lab_dir = site.lab.dir().to_owned();
    let skip = move |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path == lab_dir.join("db.pw")
            || path == own
            || path == next_file
            || name.starts_with("nl6")
            || path.ends_with("var/lib/lab")
            || (path.parent() == Some(&lab_dir) && name != "hosts" && name != "fleet.yaml")
    };
    let (mut found, mut looked_at) = (Vec::new(), 0);
    files_with(site.root(), &needles, &skip, &mut found, &mut looked_at);
    assert!(looked_at > 50, "looked at {looked_at} files only");
    assert_eq!(found, Vec::<PathBuf>::new());
}
