//! Planted secrets are found nowhere but where they belong. (Those of logins and of becoming root: `realistic/logins`.)

use controller::secrets::Secrets;
use harness::Site;
use harness::canary::Canaries;
use inventory::SecretRef;
use proto::{Frame, ToAgent};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// What a vendor's tool prints that knows the database's password: at once, on standard error, in two pieces, in a URL and in JSON, cut
/// between two writes with nothing behind it for a while, and over and over around the end of a file of kept output (4 MiB).
const TOOL: &str = r#"p=$(cat "$2")
[ "$1" = emea-mkt1 ] || exit 0
echo "connecting as neolane with $p"
echo "cannot log in with $p" >&2
printf %s "${p%??????????}"; sleep 0.2; printf '%s\n' "${p#"${p%??????????}"}"
echo "postgresql://neolane:$p@db/demo {\"password\":\"$p\"} <dbcnx password=\"$p\"/>"
head -c 4194000 /dev/zero | tr '\0' x
n=0; while [ $n -lt 40 ]; do printf '%s' "$p"; n=$((n+1)); done
printf 'the end%s' "${p%?}"; sleep 0.2; echo
test -e "$3" || { echo "error: the password $p is refused" >&2; exit 3; }
"#;

fn private(path: PathBuf, text: &str) -> (PathBuf, String) {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let reference = format!("file:{}", path.display());
    (path, reference)
}

#[test]
fn planted_passwords_stay_in_their_place() {
    let began = SystemTime::now();
    let site = Site::new(
        "
platforms:
  - { name: emea, topology: standard, web: true, scratch: true, hosts: { marketing: 1, mta: 1, tracking: 2 } }
",
    );
    let secrets = site.lab.secrets().clone();
    let mut canaries = Canaries::default();
    canaries.add("the internal password", &secrets.internal_password);
    canaries.add("the internal password as it is stored", &secrets.internal_stored);
    canaries.add("the tracking password", &secrets.tracking_password);
    canaries.add("the database's password, which the vendor's tools print in many ways", &secrets.database_password);
    canaries.add("the scratch database's password", &secrets.scratch_password);
    canaries.add("the token of a session", &lab::session_token());
    let next = canaries.plant("the new internal password");
    let wrong = canaries.plant("an internal password that is wrong");
    let admin = canaries.plant("the admin password");
    let helper = canaries.plant("what a password manager says on standard error");
    let from_environment = canaries.plant("a password in the operator's environment");
    // The operator's own files.
    let (own, reference) = private(site.root().join("internal.pw"), &secrets.internal_password);
    let (next_file, next_reference) = private(site.root().join("next.pw"), &next);
    let (wrong_file, _) = private(site.root().join("wrong.pw"), &wrong);
    let manager = site.root().join("manager");
    fs::write(&manager, format!("#!/bin/sh\necho {helper} >&2\ncat {}\n", wrong_file.display())).unwrap();
    fs::set_permissions(&manager, PermissionsExt::from_mode(0o700)).unwrap();
    let broken = site.root().join("broken-manager");
    fs::write(&broken, format!("#!/bin/sh\necho {helper} >&2\ncat {}\nexit 3\n", wrong_file.display())).unwrap();
    fs::set_permissions(&broken, PermissionsExt::from_mode(0o700)).unwrap();
    // What administrators keep in an installation.
    for host in site.lab.layout().hosts() {
        fs::write(host.old_tree().join("conf/admin.txt"), &admin).unwrap();
    }
    let (tool, mended, database) = (site.root().join("tool.sh"), site.root().join("mended"), site.lab.dir().join("db.pw"));
    fs::write(&tool, TOOL).unwrap();
    let [shown_tool, shown_database, shown_mended] = [&tool, &database, &mended].map(|path| path.display().to_string());
    site.override_steps(&format!(
        "stop.nlserver: {{ before: [{{ name: site.tool, command: [sh, {shown_tool}, \"{{host}}\", {shown_database}, {shown_mended}] }}] }}"
    ));

    let caravan = harness::program("caravan");
    let watch = canaries.watch(Some(("a password in the operator's environment", &caravan)));
    let mut printed = String::new();
    let mut run = |args: &[&str], code: i32| {
        let mut command = site.command(args);
        if args.contains(&"env:CARAVAN_TEST_PASSWORD") {
            command.env("CARAVAN_TEST_PASSWORD", &from_environment);
        }
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&all).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{all}");
        printed += &all;
    };
    let by_command = format!("command:{}", manager.display());
    let by_broken = format!("command:{}", broken.display());
    run(&["passwords", "check", "-vvv", "--proof", "logon", "--password", "env:CARAVAN_TEST_PASSWORD"], 1);
    run(&["passwords", "check", "-vvv", "--proof", "logon", "--password", &by_command], 1);
    run(&["passwords", "check", "-vvv", "--proof", "logon", "--password", &by_broken], 2);
    run(&["passwords", "check", "-vvv", "--proof", "logon", "--password", &reference], 0);
    run(&["passwords", "check", "-vvv"], 0);
    run(&["check", "-vvv"], 0);
    // The tool fails, and says why with the password in it.
    run(&["migrate", "--yes", "-vvv"], 1);
    let migration = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    for report in [&["report"][..], &["report", "--format", "json"], &["status"], &["--format", "json", "status"]] {
        run(report, 0);
    }
    fs::write(&mended, "").unwrap();
    run(&["retry", "-vvv", &migration, "emea/stop/nlserver/emea-mkt1/site.tool"], 0);
    run(&["resume", "-vvv"], 0);
    for report in [&["report"][..], &["report", "--format", "json"], &["status"], &["runs"]] {
        run(report, 0);
    }
    run(&["passwords", "set", "-vvv", "--yes", "--current", &reference, "--new", &next_reference], 0);
    run(&["report", "--format", "json"], 0);
    run(&["rollback", &migration, "--yes", "-vvv"], 0);
    run(&["report"], 0);
    let (seen, samples) = watch.end();
    assert!(samples > 1000, "next to nothing was looked at: {samples}");
    assert_eq!(seen, Vec::<String>::new());
    canaries.assert_not_in("what was printed", &printed);
    // It was said, and masked: in output that is kept, and in the error.
    assert!(printed.contains("the password *** is refused"), "{printed}");
    let kept = fs::read_dir(site.state().join("runs").join(&migration).join("output/emea-mkt1")).unwrap();
    let told =
        kept.flatten().map(|entry| fs::read_to_string(entry.path()).unwrap_or_default()).find(|text| text.contains("the end"));
    let told = told.expect("the tool's output");
    for expected in
        ["connecting as neolane with ***\n", "cannot log in with ***\n", "\n***\n", "neolane:***@db", "{\"password\":\"***\"}"]
    {
        assert!(told.contains(expected), "{expected:?}");
    }
    assert!(told.contains(&"***".repeat(40)) && told.len() > 4 << 20);

    // On disk: the Campaign trees, their backups and the databases are where the secrets live; the operator's files are theirs, and the
    // lab's own description of itself is not Caravan's.
    let lab_dir = site.lab.dir().to_owned();
    let operators = [own, next_file, wrong_file, manager, broken];
    let skip = |path: &Path| {
        operators.iter().any(|own| own == path)
            || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"nl6"))
            || path.ends_with("var/lib/lab")
            || (path.parent() == Some(&lab_dir) && !path.ends_with("hosts") && !path.ends_with("fleet.yaml"))
    };
    let (found, read) = canaries.in_files(site.root(), &skip);
    assert!(read > 100, "{read} files were read only");
    assert_eq!(found, Vec::<String>::new());
    // And everything else that was written in this machine's common places meanwhile.
    for common in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
        let elsewhere = |path: &Path| path == site.root() || path.starts_with("/run/systemd") || is_build(path);
        let (found, _) = canaries.since(Path::new(common), began, &elsewhere);
        assert_eq!(found, Vec::<String>::new());
    }
}

/// A directory that something is built in: nothing of Caravan's runs writes there, and it is large.
fn is_build(path: &Path) -> bool {
    path.join("CACHEDIR.TAG").exists() || path.join(".git").exists()
}

/// The search above would find what it looks for: in a file, a name, arguments, an environment.
#[test]
fn the_search_finds_what_is_planted() {
    let dir = tempfile::tempdir().unwrap();
    let mut canaries = Canaries::default();
    let [file, name, argument, variable] = ["file", "name", "argument", "variable"].map(|what| canaries.plant(what));
    let own = canaries.plant("own");
    assert_eq!(canaries.kinds(), 5);
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(dir.path().join("deep/a"), [b"\xff\0".as_slice(), file.as_bytes(), b"\xfe"].concat()).unwrap();
    fs::write(dir.path().join(format!("{name}.log")), "").unwrap();
    let (found, read) = canaries.in_files(dir.path(), &|_| false);
    assert_eq!((found.len(), read), (2, 2), "{found:?}");
    assert_eq!(canaries.in_files(dir.path(), &|path| path.ends_with("deep")).0.len(), 1);

    let shell = fs::canonicalize("/bin/sh").unwrap();
    let watch = canaries.watch(Some(("own", &shell)));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line", &argument]).env("A", &variable).env("OWN", &own).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    drop(child.stdin.take());
    child.wait().unwrap();
    let (seen, _) = watch.end();
    for (what, expected) in [("argument: in cmdline", true), ("variable: in environ", true), ("own: in environ", false)] {
        assert_eq!(seen.iter().any(|seen| seen.starts_with(what)), expected, "{what}: {seen:?}");
    }
}

/// Whatever is printed of what holds a secret, and be it in the message of a panic, the secret is not in it.
#[tokio::test]
async fn what_holds_a_secret_cannot_be_printed() {
    let mut canaries = Canaries::default();
    let value = canaries.plant("a password");
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = private(dir.path().join("pw"), &value);
    let secrets = Secrets::new(dir.path());
    let secret = secrets.resolve(&SecretRef::File(path.display().to_string()), "it").await.unwrap();
    let values = BTreeMap::from([("database/x".to_owned(), secret.clone())]);
    let message = ToAgent::Secrets { values: values.clone() };
    let frame = Frame::message(&message).unwrap();
    assert!(!canaries.in_bytes(&frame.encode()).is_empty(), "the frame is what carries it");
    let options = controller::run::options::HostOptions {
        host_state: "/var/lib/caravan".to_owned(),
        root: true,
        run_as: proto::RunAs::Login,
        secrets: values,
    };
    let outgoing = controller::hosts::Outgoing::Message(message.clone());
    let all = format!("{secret:?} {secrets:?} {message:?} {frame:?} {options:?} {outgoing:?}");
    canaries.assert_not_in("a debug form", &all);
    let bytes = format!("{:?}", value.as_bytes());
    assert!(!all.contains(bytes.trim_matches(['[', ']'])), "as numbers: {all}");
    let panic = std::panic::catch_unwind(|| panic!("a mistake with {message:?}, {frame:?}")).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("***"), "{text}");
    canaries.assert_not_in("the message of a panic", text);
}

/// A controller that crashes leaves no core dump, and nobody else of its account can look into it; what it starts leaves none either.
#[test]
fn a_crash_leaves_no_core() {
    let site = Site::new("platforms: [{ name: emea, topology: standalone, hosts: { marketing: 1 } }]");
    let dir = site.root().join("here");
    fs::create_dir(&dir).unwrap();
    let unlimited = |command: &Command| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "ulimit -c unlimited || exit 9; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.spawn().unwrap()
    };
    // This is what it looks like where nothing is done about it.
    let mut other = Command::new("/bin/sleep");
    other.arg("60");
    let mut other = unlimited(&other);
    harness::until("sleep", || fs::read_link(format!("/proc/{}/exe", other.id())).is_ok_and(|exe| !exe.ends_with("dash")));
    harness::signal(&other, rustix::process::Signal::ABORT);
    let status = other.wait().unwrap();
    if !status.core_dumped() {
        eprintln!("skipped: no process leaves a core dump here ({status})");
        return;
    }
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    let mut child = unlimited(&site.command(&["exec", "--", "sleep", "60"]));
    let own = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
    harness::until("the command on the host", || {
        let limits = own("limits");
        limits.lines().any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0"))
    });
    harness::signal(&child, rustix::process::Signal::ABORT);
    let status = child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
