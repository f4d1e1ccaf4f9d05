//! Becoming root on a realistic host, in every way: the real sudo, doas and su.

use harness::program;
use lab::real::{RealHost, RealLab, can_run, diagnose};
use lab::{Role, Spec, Topology};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A host, and a workstation to reach it from.
struct World {
    lab: RealLab,
    root: tempfile::TempDir,
}

impl World {
    fn host(&self) -> &RealHost {
        self.lab.host("emea-mkt1")
    }

    #[track_caller]
    fn on_host(&self, script: &str) {
        self.host().run("sh", &["-c", script]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Caravan with the lab's inventory, but for this block `become` (what else is set with it stands behind it).
    fn caravan(&self, become_: &str, arguments: &[&str]) -> Output {
        let text = fs::read_to_string(self.lab.inventory()).unwrap();
        let (at, mut end) = text.find("  become:").map(|at| (at + 2, at + 2)).expect("a block");
        for line in text[at..].split_inclusive('\n').take_while(|line| line.starts_with("become:") || line.starts_with("    ")) {
            end += line.len();
        }
        let inventory = self.lab.dir().join("become.yaml");
        fs::write(&inventory, format!("{}become: {become_}\n{}", &text[..at], &text[end..])).unwrap();
        let mut command = Command::new(program("caravan"));
        command.arg("-i").arg(&inventory).arg("--state-dir").arg(self.root.path()).args(arguments);
        command.env_clear().env("HOME", self.root.path()).env("USER", "tester").env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Asks through the agent who it is. The exit code, and everything that was printed.
    fn who(&self, become_: &str) -> (i32, String) {
        let output = self.caravan(become_, &["exec", "--become", "--", "id", "-un"]);
        let all = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&all).into_owned())
    }

    /// Gives the host the sudoers file that Caravan asks for, and nothing more to the login account.
    fn smallest(&self, become_: &str) {
        let output = self.caravan(become_, &["inventory", "sudoers"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = [b"root ALL=(ALL) ALL\n", &output.stdout[..]].concat();
        fs::write(self.host().root().join("etc/sudoers"), file).unwrap();
        self.on_host("chown 0:0 /etc/sudoers && chmod 440 /etc/sudoers && visudo -cq");
        self.on_host("su ops -s /bin/sh -c '! sudo -n /bin/sh -c id && ! sudo -n /bin/sh && ! sudo -n id' 2>/dev/null");
    }

    #[track_caller]
    fn is_root(&self, become_: &str) {
        let (code, said) = self.who(become_);
        assert!(code == 0 && said.contains("root"), "{become_}: {code} {said}");
    }

    #[track_caller]
    fn is_refused(&self, become_: &str, expected: &[&str]) {
        let (code, said) = self.who(become_);
        assert_eq!(code, 1, "{become_}: {said}");
        expected.iter().for_each(|text| assert!(said.contains(text), "{become_}: `{text}` is missing in {said}"));
        assert!(!said.contains("wrong-secret"), "{said}");
    }
}

fn secret(path: &Path, value: &str) -> String {
    fs::write(path, value).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    format!("\"file:{}\"", path.display())
}

#[test]
fn root_is_had_by_sudo_doas_and_su() {
    let found = diagnose();
    if !can_run(&found) {
        let missing = found.iter().find(|found| !found.well && found.needed);
        eprintln!("skipped: {} (`lab doctor` says more)", missing.map(ToString::to_string).unwrap_or_default());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let spec = Spec::one("emea", Topology::Standalone, &[(Role::Marketing, 1)]);
    let lab = RealLab::start(&spec, &root.path().join("lab"), &program("standin")).expect("the lab starts");
    let world = World { lab, root };
    let own = fs::read_to_string(world.lab.dir().join("ops.pw")).unwrap();
    let own = secret(&world.root.path().join("own"), own.trim());
    let wrong = secret(&world.root.path().join("wrong"), "wrong-secret");
    let of_root = secret(&world.root.path().join("root"), "root-secret");
    let sudoers =
        |text: &str| world.on_host(&format!("printf '%b' '{text}' >/etc/sudoers && chmod 440 /etc/sudoers && visudo -cq"));

    // sudo: with a password on a pipe, with a lecture and a question of its own, without a password, on a terminal.
    world.is_root(&format!("{{ method: sudo, password: {own} }}"));
    world.is_refused("{ method: sudo }", &["asks ops for a password", "become.password"]);
    world.is_refused(&format!("{{ method: sudo, password: {wrong} }}"), &["does not accept the password"]);
    sudoers(
        "Defaults lecture=always\\nDefaults passprompt=\"Secret words, please\"\\nDefaults timestamp_timeout=0\\nops ALL=(ALL) ALL\\n",
    );
    world.is_root(&format!("{{ method: sudo, password: {own} }}"));
    sudoers("ops ALL=(ALL) NOPASSWD: ALL\\n");
    world.is_root("{ method: sudo }");
    world.is_root(&format!("{{ method: sudo, password: {own} }}"));
    for pty in ["use_pty", "!use_pty"] {
        sudoers(&format!("Defaults requiretty,{pty}\\nDefaults timestamp_timeout=0\\nops ALL=(ALL) ALL\\n"));
        world.is_root(&format!("{{ method: sudo, password: {own} }}"));
        world.is_refused(&format!("{{ method: sudo, password: {wrong} }}"), &["does not accept the password"]);
        sudoers(&format!("Defaults requiretty,{pty}\\nops ALL=(ALL) NOPASSWD: ALL\\n"));
        world.is_root("{ method: sudo }");
    }
    sudoers("root ALL=(ALL) ALL\\n");
    world.is_refused(
        &format!("{{ method: sudo, password: {own} }}"),
        &["ops may not use sudo: it is not in the sudoers file", "inventory sudoers"],
    );
    // For another command sudo says that it is not allowed only to those who gave their password.
    let again = "print it again with caravan inventory sudoers";
    sudoers("ops ALL=(ALL) NOPASSWD: /usr/bin/uptime\\n");
    world.is_refused("{ method: sudo }", &["asks ops for a password", "it may not allow this command", again]);
    sudoers("ops ALL=(ALL) /usr/bin/uptime\\n");
    world.is_refused(&format!("{{ method: sudo, password: {own} }}"), &["may use sudo, but not for this command", again]);

    // The smallest file allows one command, wherever Caravan's directory is (the script is cut into words at other places).
    for host_state in ["/var/lib/caravan", "/srv/ops, [old] = a#1:b*?", "/x"] {
        world.on_host(&format!("mkdir -p '{host_state}'"));
        let block = format!("{{ method: sudo }}\n  host_state: \"{host_state}\"");
        world.smallest(&block);
        world.is_root(&block);
    }
    world.smallest(&format!("{{ method: sudo, password: {own} }}"));
    world.is_root(&format!("{{ method: sudo, password: {own} }}"));
    world.is_refused("{ method: sudo }", &["asks ops for a password"]);
    // Made for another directory, it is of no use.
    world.is_refused(&format!("{{ method: sudo, password: {own} }}\n  host_state: /x"), &["not for this command", again]);

    // su asks for root's own password, on a terminal.
    world.on_host("echo root:root-secret | chpasswd");
    world.is_root(&format!("{{ method: su, password: {of_root} }}"));
    world.is_refused(&format!("{{ method: su, password: {wrong} }}"), &["su does not accept the password"]);

    // doas.
    if !Path::new("/usr/bin/doas").exists() {
        eprintln!("skipped: doas is not installed (apt install opendoas)");
        return;
    }
    let doas = |text: &str| world.on_host(&format!("echo '{text}' >/etc/doas.conf && chmod 400 /etc/doas.conf"));
    doas("permit nopass ops");
    world.is_root("{ method: doas }");
    doas("permit ops");
    world.is_root(&format!("{{ method: doas, password: {own} }}"));
    world.is_refused("{ method: doas }", &["asks ops for a password", "nopass"]);
    world.is_refused(&format!("{{ method: doas, password: {wrong} }}"), &["doas does not accept the password"]);
    doas("deny ops");
    world.is_refused("{ method: doas }", &["may not use doas", "doas.conf"]);
}
