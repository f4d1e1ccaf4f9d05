//! A machine of its own for the test: accounts, sudoers, mounts, addresses; nobody else sees them.

use super::cells::Cell;
use super::servers::run;
use harness::mounts::Mounted;
use harness::sshd::key_pair;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The password of every account, and root's.
pub(super) const PASSWORD: &str = "correct-horse";
/// The passphrase of the encrypted key.
pub(super) const PASSPHRASE: &str = "open sesame";
/// An address that swallows everything.
const SILENT: &str = "2001:db8::9";

/// Where the accounts' homes are.
const HOMES: &str = "/media";

/// The machine. What it mounted goes with it.
pub(super) struct World {
    mounts: Vec<Mounted>,
    /// Directories that had to be made where others see them.
    outside: Vec<PathBuf>,
    first_uid: u32,
    root: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        while self.mounts.pop().is_some() {}
        self.outside.iter().for_each(|dir| drop(fs::remove_dir_all(dir)));
    }
}

impl World {
    /// A machine without accounts.
    pub(super) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("caravan-matrix-").tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Directories below /tmp carry the number: another run of this test must have others.
        let first_uid = 200_000 + u32::try_from(root.path().metadata().unwrap().ino() % 10_000).unwrap() * 200;
        let mut world = Self { mounts: Vec::new(), outside: Vec::new(), first_uid, root };
        for dir in ["keys", "homes", "shells", "state", "workstation"] {
            fs::create_dir(world.base().join(dir)).unwrap();
        }
        let changes = world.base().join("changes");
        world.mounts.push(Mounted::small(&changes, 16 * 1024));
        world.mounts.push(Mounted::changeable(Path::new("/etc"), &changes));
        for (dir, mode) in [("/run", 0o755), ("/var/log", 0o755), ("/var/lib/sudo", 0o700), ("/dev/shm", 0o1777)] {
            world.mounts.push(Mounted::small(Path::new(dir), 16 * 1024));
            fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
        }
        // A path on which others can write nowhere, as tinysshd wants it.
        world.mounts.push(Mounted::bind(&world.path("homes"), Path::new(HOMES)));
        fs::create_dir("/run/sshd").unwrap();
        fs::write(world.base().join("banner"), "Authorised use only.\n\x1b]0;not your terminal\x07 All is logged.\n".repeat(20))
            .unwrap();
        let simple = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        fs::write("/etc/pam.d/sshd", simple).unwrap();
        for arguments in [
            "link set lo up",
            "address add fe80::1/64 dev lo nodad",
            "link add nowhere type veth peer name nobody",
            "link set nobody up",
            "link set nowhere up",
            "address add 2001:db8::1/64 dev nowhere nodad",
            // Nobody has this address, and nobody says so.
            "neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev nowhere nud permanent",
        ] {
            run(Command::new("ip").args(arguments.split(' ')));
        }
        let names = format!(
            "2001:db8::1 refuses.test\n127.0.0.1 refuses.test\n{SILENT} silent.test\n127.0.0.1 silent.test\n127.0.0.1 matrix\n"
        );
        fs::write("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n{names}")).unwrap();
        run(Command::new("hostname").arg("matrix"));
        world.keys();
        world.shells();
        world
    }

    /// The directory of everything.
    pub(super) fn base(&self) -> &Path {
        self.root.path()
    }

    /// A file of the test.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.base().join(path)
    }

    fn keys(&self) {
        let keys = self.path("keys");
        for (name, kind, passphrase) in [
            ("ca", "ed25519", ""),
            ("ed25519", "ed25519", ""),
            ("rsa", "rsa", ""),
            ("ecdsa", "ecdsa", ""),
            ("encrypted", "ed25519", PASSPHRASE),
            ("in-agent", "ed25519", ""),
            ("certified", "ed25519", ""),
            ("wrong", "ed25519", ""),
        ] {
            key_pair(&keys, name, &["-t", kind], passphrase);
        }
        for kind in super::servers::ALL_KEYS {
            key_pair(&keys, &format!("host-{kind}"), &["-t", kind], "");
        }
        let names: Vec<String> = (0..super::cells::CELLS.len()).map(account).collect();
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-I", "matrix", "-n", &names.join(","), "-s"]).arg(keys.join("ca")).arg(keys.join("certified.pub"));
        run(&mut sign);
        for (name, text) in [("password", PASSWORD), ("wrong-password", "wrong-horse")] {
            fs::write(keys.join(name), text).unwrap();
            fs::set_permissions(keys.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        if super::servers::missing("lsh").is_none() {
            let home = self.path("lsh");
            fs::create_dir(&home).unwrap();
            let convert = "ssh-conv <\"$0\" >converted && lsh-authorize converted";
            run(Command::new("sh").args(["-c", convert]).arg(keys.join("rsa.pub")).env("HOME", &home).current_dir(&home));
        }
    }

    /// Login shells that make a host look poor.
    fn shells(&self) {
        const BASIC: [&str; 11] = ["cat", "chmod", "cp", "env", "head", "id", "ls", "mkdir", "mv", "rm", "uname"];
        let dir = self.path("shells");
        for (name, more) in [("no-sha256sum", &["openssl", "gzip"][..]), ("no-hash", &["gzip"])] {
            let bin = dir.join(format!("bin-{name}"));
            fs::create_dir(&bin).unwrap();
            for program in BASIC.iter().chain(more) {
                std::os::unix::fs::symlink(format!("/usr/bin/{program}"), bin.join(program)).unwrap();
            }
            script(&dir.join(name), &format!("PATH={} exec /bin/sh \"$@\"", bin.display()));
        }
        for (name, said) in [("old-kernel", "Linux 2.6.32-754.el6.x86_64 x86_64"), ("other-machine", "SunOS 5.10 sun4v")] {
            let bin = dir.join(format!("bin-{name}"));
            fs::create_dir(&bin).unwrap();
            script(&bin.join("uname"), &format!("echo {said}"));
            script(&dir.join(name), &format!("PATH={}:$PATH exec /bin/sh \"$@\"", bin.display()));
        }
    }

    /// The uid of a cell's account.
    pub(super) fn uid(&self, number: usize) -> u32 {
        self.first_uid + u32::try_from(number).unwrap()
    }

    /// The home directory of a cell's account.
    pub(super) fn home(&self, number: usize) -> PathBuf {
        Path::new(HOMES).join(account(number))
    }

    /// Makes the accounts of all cells. Gives the further lines that OpenSSH's configuration needs for them.
    pub(super) fn accounts(&mut self, cells: &[Cell]) -> String {
        let hash = Command::new("openssl").args(["passwd", "-5", PASSWORD]).output().expect("openssl");
        let hash = String::from_utf8(hash.stdout).unwrap().trim().to_owned();
        let (mut passwd, mut group, mut sudoers, mut doas, mut sshd) = Default::default();
        let mut shadow = format!("root:{hash}:19000:0:99999:7:::\n");
        let mut shells = fs::read_to_string("/etc/shells").unwrap();
        for (number, cell) in cells.iter().enumerate() {
            let (name, uid, home) = (account(number), self.uid(number), self.home(number));
            let shell = self.shell(cell);
            line(&mut passwd, &format!("{name}:x:{uid}:{uid}::{}:{shell}", home.display()));
            line(&mut group, &format!("{name}:x:{uid}:"));
            line(&mut shadow, &format!("{name}:{hash}:19000:0:99999:7:::"));
            line(&mut shells, &shell);
            if cell.root.starts_with("sudo, terminal") {
                line(&mut sudoers, &format!("Defaults:{name} requiretty"));
            }
            match cell.root {
                "sudo" | "sudo, terminal" => line(&mut sudoers, &format!("{name} ALL=(ALL) NOPASSWD: ALL")),
                "sudo, not in sudoers" => {}
                root if root.starts_with("sudo") => line(&mut sudoers, &format!("{name} ALL=(ALL) ALL")),
                "doas" => line(&mut doas, &format!("permit nopass {name}")),
                "doas, password" => line(&mut doas, &format!("permit {name}")),
                "none" | "su" | "su, wrong password" | "doas, not allowed" => {}
                root => panic!("no way to root is called {root}"),
            }
            match cell.login {
                "key and password" => line(&mut sshd, &format!("Match User {name}\n  AuthenticationMethods publickey,password")),
                "key and questions" => {
                    line(&mut sshd, &format!("Match User {name}\n  AuthenticationMethods publickey,keyboard-interactive"));
                }
                _ => {}
            }
            self.furnish(number, cell);
        }
        // The machine's own accounts stay as they are.
        for (file, more, mode) in [("/etc/passwd", passwd, 0o644), ("/etc/group", group, 0o644)] {
            rewrite(file, &(fs::read_to_string(file).unwrap() + &more), mode);
        }
        let others = fs::read_to_string("/etc/shadow").unwrap();
        let others: String = others.split_inclusive('\n').filter(|line| !line.starts_with("root:")).collect();
        rewrite("/etc/shadow", &(shadow + &others), 0o600);
        rewrite("/etc/shells", &shells, 0o644);
        rewrite("/etc/sudoers", &format!("Defaults lecture=always\nroot ALL=(ALL) ALL\n{sudoers}"), 0o440);
        rewrite("/etc/doas.conf", &doas, 0o400);
        sshd
    }

    /// The login shell of a cell's account.
    pub(super) fn shell(&self, cell: &Cell) -> String {
        let odd = match cell.host {
            "no sha256sum, no mktemp" => Some("no-sha256sum"),
            "no hash tool, home without exec" => Some("no-hash"),
            "old kernel" => Some("old-kernel"),
            "another machine" => Some("other-machine"),
            _ => None,
        };
        if let Some(odd) = odd {
            return self.path("shells").join(odd).display().to_string();
        }
        match cell.shell {
            "sh" | "bash" | "dash" | "rbash" | "false" => format!("/bin/{}", cell.shell),
            "tcsh" | "fish" | "zsh" => format!("/usr/bin/{}", cell.shell),
            "noisy bash" => "/bin/bash".to_owned(),
            "rbash without sh" => "/bin/rbash".to_owned(),
            "nologin" => "/usr/sbin/nologin".to_owned(),
            other => panic!("no login shell is called {other}"),
        }
    }

    /// Home, keys and mounts of a cell's account.
    fn furnish(&mut self, number: usize, cell: &Cell) {
        let (uid, home) = (self.uid(number), self.home(number));
        fs::create_dir(&home).unwrap();
        let elsewhere = ["/var/tmp", "/tmp", "/dev/shm"].map(|dir| PathBuf::from(format!("{dir}/caravan-{uid}")));
        self.outside.extend(elsewhere.iter().cloned());
        let places: Vec<&PathBuf> = std::iter::once(&home).chain(&elsewhere).collect();
        // 64 KiB: room for keys, and not for an agent.
        let (noexec, full) = match cell.host {
            "home without exec" | "no hash tool, home without exec" => (1, 0),
            "home and /var/tmp without exec" => (2, 0),
            "home, /var/tmp and /tmp without exec" => (3, 0),
            "nothing with exec" => (4, 0),
            "home full" => (0, 1),
            "everything full" => (0, 4),
            _ => (0, 0),
        };
        self.mounts.extend(places.iter().take(noexec).map(|place| Mounted::noexec(place, 8 * 1024)));
        self.mounts.extend(places.iter().take(full).map(|place| Mounted::small(place, 64)));
        places.iter().take(noexec.max(full)).for_each(|place| chown(place, Some(uid), Some(uid)).unwrap());
        if cell.host == "host_state without exec" {
            self.mounts.push(Mounted::noexec(&self.path("state-noexec"), 8 * 1024));
        }
        let ssh = home.join(".ssh");
        fs::create_dir(&ssh).unwrap();
        let let_in = match cell.login {
            "ed25519 key" | "key and password" | "key and questions" | "wrong key" => "ed25519",
            "rsa key" => "rsa",
            "ecdsa key" => "ecdsa",
            "encrypted key" => "encrypted",
            "ssh-agent" => "in-agent",
            _ => "",
        };
        let key = self.path("keys").join(let_in).with_extension("pub");
        let key = if let_in.is_empty() { String::new() } else { fs::read_to_string(key).unwrap() };
        fs::write(ssh.join("authorized_keys"), key).unwrap();
        match cell.shell {
            "noisy bash" => {
                let noise =
                    "for i in 1 2 3 4 5 6 7 8 9; do echo \"Welcome to $HOSTNAME\"; echo motd >&2; done; printf unfinished\n";
                fs::write(home.join(".bashrc"), noise).unwrap();
            }
            "rbash without sh" => fs::write(home.join(".bashrc"), "PATH=$HOME/bin\n").unwrap(),
            _ => {}
        }
        if cell.server == "lsh" {
            run(Command::new("cp").arg("-r").arg(self.path("lsh/.lsh")).arg(&home));
        }
        run(Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(&home));
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Where the agent of a cell's account is kept.
    pub(super) fn kept(&self, number: usize) -> Vec<PathBuf> {
        let uid = self.uid(number);
        let places = [self.home(number).join(".cache/caravan")].into_iter();
        let places = places.chain(["/var/tmp", "/tmp", "/dev/shm"].map(|dir| PathBuf::from(format!("{dir}/caravan-{uid}"))));
        let agent = |place: &PathBuf| place.join("agent").join(controller::ssh::AGENTS[0].sha256).join("caravan-agent").exists();
        places.filter(agent).collect()
    }
}

/// The name of a cell's account.
pub(super) fn account(number: usize) -> String {
    format!("m{number:02}")
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").unwrap();
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// As `passwd` and its like do it: another file in place of the old one.
fn rewrite(file: &str, text: &str, mode: u32) {
    let new = format!("{file}.new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&new, file).unwrap();
}
