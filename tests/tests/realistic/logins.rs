//! Everything that lets in or makes root on a realistic host, each with a password of its own, and none of them found anywhere afterwards.

use harness::canary::Canaries;
use harness::{Ran, program, sshd, terminal};
use lab::real::{RealHost, RealLab, can_run, diagnose};
use lab::{Role, Spec, Topology};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct World {
    lab: RealLab,
    root: tempfile::TempDir,
    printed: String,
}

impl World {
    fn host(&self) -> &RealHost {
        self.lab.host("emea-mkt1")
    }

    #[track_caller]
    fn on_host(&self, script: &str) {
        self.host().run("sh", &["-c", script]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Sets a password, which goes through a pipe here as well.
    fn set_password(&self, account: &str, password: &str) {
        let mut child = self.host().command("chpasswd", &[]).stdin(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{account}:{password}").unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// The operator's file with a password, as a reference.
    fn file(&self, name: &str, password: &str) -> String {
        private(&self.root.path().join(name), password, 0o600);
        format!("\"file:{}\"", self.root.path().join(name).display())
    }

    /// `caravan exec --become -- id -un -vvv` with these blocks of the inventory.
    fn command(&self, ssh: &str, become_: &str) -> Command {
        self.caravan(ssh, become_, &["exec", "--become", "--", "id", "-un"])
    }

    fn caravan(&self, ssh: &str, become_: &str, args: &[&str]) -> Command {
        let text = fs::read_to_string(self.lab.inventory()).unwrap();
        let text = replaced(&replaced(&text, "become", become_), "ssh", ssh);
        let inventory = self.lab.dir().join("logins.yaml");
        fs::write(&inventory, text).unwrap();
        let mut command = Command::new(program("caravan"));
        command.arg("-i").arg(&inventory).arg("--state-dir").arg(self.root.path().join("state"));
        command.arg("-vvv").args(args);
        command.env_clear().env("HOME", self.root.path()).env("USER", "tester").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn is_root(&mut self, ran: Ran) {
        assert!(ran.code == 0 && ran.stdout.contains("root"), "{ran:?}");
        self.printed += &(ran.stdout + &ran.stderr);
    }

    fn run(mut command: Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// An inventory with another block of that name in its `defaults`.
fn replaced(text: &str, name: &str, block: &str) -> String {
    let at = text.find(&format!("  {name}:")).expect("a block") + 2;
    let own = |line: &&str| line.starts_with(&format!("{name}:")) || line.starts_with("    ");
    let end = at + text[at..].split_inclusive('\n').take_while(own).map(str::len).sum::<usize>();
    format!("{}{name}: {block}\n{}", &text[..at], &text[end..])
}

fn private(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn passwords_of_logins_and_of_root_stay_in_their_place() {
    let found = diagnose();
    if !can_run(&found) {
        let missing = found.iter().find(|found| !found.well && found.needed);
        eprintln!("skipped: {} (`lab doctor` says more)", missing.map(ToString::to_string).unwrap_or_default());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let spec = Spec::one("emea", Topology::Standalone, &[(Role::Marketing, 1)]);
    let lab = RealLab::start(&spec, &root.path().join("lab"), &program("standin")).expect("the lab starts");
    let mut world = World { lab, root, printed: String::new() };
    let mut canaries = Canaries::default();
    let login = canaries.plant("the SSH login password");
    let answer = canaries.plant("the answer to a question of keyboard-interactive");
    let sudo = canaries.plant("the sudo password");
    let of_root = canaries.plant("root's password, for su");
    let doas = canaries.plant("the doas password");
    let passphrase = canaries.plant("the passphrase of a key");
    let wrong = canaries.plant("a sudo password that is wrong");
    let helper = canaries.plant("what a password manager says on standard error");
    let sealed = sshd::key_pair(world.root.path(), "sealed", &["-t", "ed25519", "-a", "4"], "");
    // The passphrase is typed here as well.
    let change = format!("ssh-keygen -q -p -a 4 -f {}", sealed.display());
    let mut typing = Command::new("sh");
    typing.args(["-c", &change]).env_clear().env("PATH", "/usr/bin:/bin");
    let typed = terminal::at_terminal(&typing, &[("passphrase", &passphrase), ("again", &passphrase)]);
    assert_eq!(typed.code, 0, "{typed:?}");
    let public = fs::read_to_string(sealed.with_extension("pub")).unwrap();
    world.on_host(&format!("printf '\\n%s\\n' '{}' >>/home/ops/.ssh/authorized_keys", public.trim()));
    let manager = world.root.path().join("manager");
    private(&manager, &format!("#!/bin/sh\necho {helper} >&2\nprintf '%s\\n' {of_root}\n"), 0o700);
    let sshd = |world: &World, options: &str| {
        world.on_host(&format!(
            "printf 'PasswordAuthentication no\\nKbdInteractiveAuthentication no\\n{options}\\n' >/etc/ssh/first; \
             cat /etc/ssh/sshd_config.own /etc/ssh/first 2>/dev/null | awk '{{v[tolower($1)]=$0}} END {{for (k in v) print v[k]}}' \
             >/etc/ssh/sshd_config; kill $(cat /run/sshd.pid); while [ -e /run/sshd.pid ]; do sleep 0.02; done; /usr/sbin/sshd"
        ));
    };
    world.on_host("cp /etc/ssh/sshd_config /etc/ssh/sshd_config.own");
    let dir = world.lab.dir().display().to_string();
    let (port, known) = (22, format!("{dir}/known_hosts"));
    let ssh = |more: &str| format!("{{ user: ops, port: {port}, known_hosts: \"{known}\", config: none, {more} }}");
    let by_key = ssh(&format!("identity: \"{dir}/id_ed25519\""));

    let caravan = program("caravan");
    let watch = canaries.watch(Some(("the sudo password", &caravan)));

    // The password of the account lets in, and makes root: asked for once, from a file.
    sshd(&world, "PasswordAuthentication yes");
    world.set_password("ops", &login);
    let from_file = world.file("login.pw", &login);
    let by_password = format!("{{ method: sudo, password: {from_file} }}");
    let ran = World::run(world.command(&ssh(&format!("identity: [], password: {from_file}")), &by_password));
    world.is_root(ran);
    // A question of the server's own, which a person answers.
    sshd(&world, "KbdInteractiveAuthentication yes");
    world.set_password("ops", &answer);
    let from_file = world.file("answer.pw", &answer);
    let command = world.command(&ssh("identity: [], password: \"prompt:\""), &format!("{{ method: sudo, password: {from_file} }}"));
    let ran = terminal::at_terminal(&command, &[("SSH password of ops", &answer)]);
    world.is_root(ran);
    // sudo, from the environment; no program that is started gets that variable.
    sshd(&world, "");
    world.set_password("ops", &sudo);
    let mut command = world.command(&by_key, "{ method: sudo, password: \"env:CARAVAN_TEST_SUDO\" }");
    command.env("CARAVAN_TEST_SUDO", &sudo);
    let ran = World::run(command);
    world.is_root(ran);
    // A whole run with it, which leaves a journal, reports and output behind.
    for args in [&["check"][..], &["migrate", "--yes"], &["report"], &["report", "--format", "json"], &["status"]] {
        let mut command = world.caravan(&by_key, "{ method: sudo, password: \"env:CARAVAN_TEST_SUDO\" }", args);
        command.env("CARAVAN_TEST_SUDO", &sudo);
        let ran = World::run(command);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        world.printed += &(ran.stdout + &ran.stderr);
    }
    let from_file = world.file("wrong.pw", &wrong);
    let ran = World::run(world.command(&by_key, &format!("{{ method: sudo, password: {from_file} }}")));
    assert_eq!(ran.code, 1, "{ran:?}");
    world.printed += &(ran.stdout + &ran.stderr);
    // su, from a password manager that talks.
    world.set_password("root", &of_root);
    let ran = World::run(world.command(&by_key, &format!("{{ method: su, password: \"command:{}\" }}", manager.display())));
    world.is_root(ran);
    // doas, and a key with a passphrase.
    let mut more = "{ method: sudo, password: \"env:CARAVAN_TEST_SUDO\" }".to_owned();
    if Path::new("/usr/bin/doas").exists() {
        world.on_host("echo 'permit ops' >/etc/doas.conf && chmod 400 /etc/doas.conf");
        world.set_password("ops", &doas);
        more = format!("{{ method: doas, password: {} }}", world.file("doas.pw", &doas));
    }
    let mut command = world.command(&ssh(&format!("identity: \"{}\"", sealed.display())), &more);
    command.env("CARAVAN_TEST_SUDO", if more.contains("doas") { "" } else { &sudo });
    let ran = terminal::at_terminal(&command, &[("passphrase of", &passphrase)]);
    world.is_root(ran);

    let (seen, samples) = watch.end();
    assert!(samples > 1000, "next to nothing was looked at: {samples}");
    assert_eq!(seen, Vec::<String>::new());
    canaries.assert_not_in("what was printed", &world.printed);
    // Here: everything but the operator's own files. There: everything that was written since the host came up.
    let operators: Vec<PathBuf> =
        ["login.pw", "answer.pw", "wrong.pw", "doas.pw", "manager"].iter().map(|name| world.root.path().join(name)).collect();
    let (found, read) = canaries.in_files(world.root.path(), &|path| operators.iter().any(|own| own == path));
    assert!(read > 10, "{read} files were read only");
    assert_eq!(found, Vec::<String>::new());
    for place in ["tmp", "var", "home", "root", "run", "dev/shm", "etc"] {
        let (found, _) = canaries.in_files(&world.host().root().join(place), &|_| false);
        assert_eq!(found, Vec::<String>::new());
    }
}
