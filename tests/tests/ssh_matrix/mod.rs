//! Server × algorithms × login × root × login shell: each cell of the table in controller/SSH.md is a real connection to a real server.

mod cells;
mod servers;
mod table;
mod world;

use cells::{ACCOUNT, CELLS, Cell, ROOT};
use harness::{mounts, program, terminal};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use world::{PASSPHRASE, World, account};

/// Why a cell cannot be looked at on this machine.
fn missing(world: &World, cell: &Cell) -> Option<String> {
    let needs = |path: String| (!Path::new(&path).exists()).then(|| format!("{path} is not there"));
    let root = match cell.root.split(',').next() {
        Some("doas") => needs("/usr/bin/doas".to_owned()),
        Some("sudo") => needs("/usr/bin/sudo".to_owned()),
        _ => None,
    };
    servers::missing(cell.server).or(root).or_else(|| needs(world.shell(cell)))
}

/// The inventory of all cells that can be looked at.
fn inventory(world: &World, numbers: &[usize]) -> String {
    let digest = "0".repeat(64);
    let packages = |name: &str| format!("packages: [{{ os: debian-12, path: {name}.deb, sha256: \"{digest}\" }}]");
    let mut text = format!(
        "version: 1\nparallel: {{ hosts: 100 }}\ndefaults:\n  ssh: {{ known_hosts: known_hosts, config: none, connect_timeout: 60 }}\n  \
         source: {{ version: \"6.1\", latest_build: 8989, {} }}\n  target: {{ version: \"7.4.1\", build: 9383, {} }}\nplatforms:\n  \
         - name: matrix\n    topology: standard\n    instances: [i]\n    database: {{ engine: postgresql, server: db, name: c, user: c, backup: \
         {{ by: dba }} }}\n    hosts:\n",
        packages("old"),
        packages("new")
    );
    for (place, number) in numbers.iter().enumerate() {
        let (cell, name) = (&CELLS[*number], account(*number));
        let port = servers::port(cell.server);
        let role = ["marketing", "tracking", "mta"][place.min(2)];
        let key = |name: &str| format!(", identity: {}", world.path("keys").join(name).display());
        let password = |name: &str| format!("password: \"file:{}\"", world.path("keys").join(name).display());
        let login = match cell.login {
            "ed25519 key" => key("ed25519"),
            "rsa key" => key("rsa"),
            "ecdsa key" => key("ecdsa"),
            "encrypted key" => key("encrypted"),
            "certificate" => key("certified"),
            "wrong key" => key("wrong"),
            "ssh-agent" => String::new(),
            "password" | "questions" => format!(", {}", password("password")),
            "wrong password" => format!(", {}", password("wrong-password")),
            "key and password" | "key and questions" => format!("{}, {}", key("ed25519"), password("password")),
            other => panic!("no login is called {other}"),
        };
        let become_ = match cell.root {
            "none" => "method: none".to_owned(),
            root => {
                let (method, more) = root.split_once(", ").unwrap_or((root, ""));
                match (method, more) {
                    (_, "wrong password") => format!("method: {method}, {}", password("wrong-password")),
                    ("su", _) | (_, "password" | "terminal, password" | "not in sudoers") => {
                        format!("method: {method}, {}", password("password"))
                    }
                    _ => format!("method: {method}"),
                }
            }
        };
        let (address, jump) = match cell.host {
            "at ::1" => ("::1", None),
            "at fe80::1%lo" => ("fe80::1%lo", None),
            "behind [::1]:PORT" => ("127.0.0.1", Some("[::1]")),
            "behind [fe80::1%lo]:PORT" => ("127.0.0.1", Some("[fe80::1%lo]")),
            "a name whose first address refuses" => ("refuses.test", None),
            "a name whose first address is silent" => ("silent.test", None),
            _ => ("127.0.0.1", None),
        };
        let jump = jump.map(|jump| format!(", jump: \"{name}@{jump}:{port}\"")).unwrap_or_default();
        let legacy = if cell.legacy.is_empty() { String::new() } else { format!(", legacy: {}", cell.legacy) };
        let state = if cell.host == "host_state without exec" { "state-noexec" } else { "state" };
        writeln!(
            text,
            "      - {{ name: {name}, address: \"{address}\", roles: [{role}], host_state: {}, become: {{ {become_} }}, ssh: {{ user: \
             {name}, port: {port}{login}{jump}{legacy} }} }}",
            world.path(state).display()
        )
        .unwrap();
    }
    text
}

/// The operator's workstation.
struct Workstation<'a> {
    world: &'a World,
    agent: Child,
}

impl<'a> Workstation<'a> {
    /// With an ssh-agent that holds one key.
    fn new(world: &'a World) -> Self {
        let socket = world.path("agent.sock");
        let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        harness::sshd::agent_listens(&socket);
        let mut add = Command::new("ssh-add");
        servers::run(add.arg("-q").arg(world.path("keys/in-agent")).env("SSH_AUTH_SOCK", &socket));
        Self { world, agent }
    }

    /// Runs `caravan`, with its output in a file, and answers the question for the passphrase where it comes. What is in the file.
    fn caravan(&self, args: &[&str], talk: &[(&str, &str)]) -> String {
        let output = self.world.path("workstation/output");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" >\"$0\""]).arg(&output).arg(program("caravan"));
        command.arg("-i").arg(self.inventory()).arg("--state-dir").arg(self.world.path("workstation/caravan")).args(args);
        command.env("HOME", self.world.path("workstation")).env("USER", "tester").env("PATH", "/usr/bin:/bin");
        command.env("SSH_AUTH_SOCK", self.world.path("agent.sock"));
        let ran = terminal::at_terminal(&command, talk);
        let text = std::fs::read_to_string(&output).unwrap();
        assert!([0, 1, 3].contains(&ran.code), "{args:?}: {} {}", ran.stdout, text);
        text
    }

    fn inventory(&self) -> PathBuf {
        self.world.path("workstation/fleet.yaml")
    }
}

impl Drop for Workstation<'_> {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

#[test]
fn every_cell_is_as_the_table_says() {
    if !mounts::inside_machine("ssh_matrix::every_cell_is_as_the_table_says") {
        return;
    }
    let mut world = World::new();
    let for_sshd = world.accounts(CELLS);
    let _servers = servers::start(&world, &for_sshd);
    let mut numbers = Vec::new();
    for (number, cell) in CELLS.iter().enumerate() {
        match missing(&world, cell) {
            Some(why) => eprintln!("skipped: {} / {} / {} / {}: {why}", cell.server, cell.login, cell.root, cell.shell),
            None => numbers.push(number),
        }
    }
    let workstation = Workstation::new(&world);
    std::fs::write(workstation.inventory(), inventory(&world, &numbers)).unwrap();
    // What the cells about names are about.
    for name in ["refuses.test", "silent.test"] {
        let first = (name, 22).to_socket_addrs().unwrap().next().unwrap();
        assert_ne!(first.ip().to_string(), "127.0.0.1", "{name}");
    }

    // One host of each server and address, whose key then counts for all; those behind bastions when the bastions are known.
    let mut places = BTreeMap::new();
    for number in numbers.iter().filter(|number| [ACCOUNT, ROOT].contains(&CELLS[**number].result)) {
        let way = if CELLS[*number].host.contains(['%', ':', '.']) || CELLS[*number].host.contains("name") {
            CELLS[*number].host
        } else {
            ""
        };
        places.entry((CELLS[*number].server, way)).or_insert_with(|| account(*number));
    }
    let (behind, direct): (Vec<_>, Vec<_>) = places.iter().partition(|((_, way), _)| way.starts_with("behind"));
    for names in [direct, behind] {
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        let said = workstation.caravan(&["hosts", "trust", "--yes", "--format", "json", "--on", &names.join(",")], &[]);
        assert!(!said.contains("\"unreachable\"") && !said.contains("\"changed\""), "{said}");
    }

    let exec = ["exec", "--become", "--format", "json", "--", "id", "-un"];
    let passphrase = world.path("keys/encrypted").display().to_string();
    let said = workstation.caravan(&exec, &[(&passphrase, PASSPHRASE)]);
    let said: BTreeMap<String, serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .map(|line| (line["host"].as_str().unwrap().to_owned(), line))
        .collect();
    let mut wrong = String::new();
    for number in &numbers {
        let (cell, name) = (&CELLS[*number], account(*number));
        let line = &said[&name];
        let text = |key: &str| line[key].as_str().unwrap_or_default().trim().to_owned();
        let well = match cell.result {
            ROOT => text("outcome") == "ok" && text("output") == "root",
            ACCOUNT => text("outcome") == "ok" && text("output") == name,
            refusal => text("outcome") != "ok" && text("message").contains(refusal),
        };
        if !well {
            writeln!(wrong, "{cell:?}: {line}").unwrap();
        }
        assert!(!line.to_string().contains("horse") && !line.to_string().contains('\x1b'), "{line}");
        let kept = |places: &[&str]| {
            let uid = world.uid(*number);
            let expected: Vec<PathBuf> = places.iter().map(|dir| PathBuf::from(format!("{dir}/caravan-{uid}"))).collect();
            assert_eq!(world.kept(*number), expected, "{}", cell.host);
        };
        match cell.host {
            "home without exec" | "home full" => kept(&["/var/tmp"]),
            "home and /var/tmp without exec" => kept(&["/tmp"]),
            "home, /var/tmp and /tmp without exec" => kept(&["/dev/shm"]),
            "no hash tool, home without exec" | "nothing with exec" | "everything full" | "old kernel" | "another machine" => {
                kept(&[])
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");

    // Preflight says so where outdated algorithms are in use, and why a host cannot be used at all.
    let find =
        |cell: &dyn Fn(&Cell) -> bool| numbers.iter().find(|number| cell(&CELLS[**number])).map(|number| account(*number)).unwrap();
    let old = find(&|cell| cell.server == "OpenSSH as on RHEL 6" && cell.result == ROOT);
    let (kernel, modern) = (find(&|cell| cell.host == "old kernel"), find(&|cell| cell.result == ACCOUNT));
    let findings = workstation.caravan(&["check", "--format", "json", "--on", &format!("{old},{kernel},{modern}")], &[]);
    let findings: serde_json::Value = serde_json::from_str(&findings).unwrap();
    let finding = |id: &str| findings["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).cloned();
    let outdated = finding(&format!("ssh-legacy@{old}")).expect("a finding");
    assert_eq!(outdated["status"], "warning");
    assert_eq!(outdated["evidence"], "diffie-hellman-group14-sha1, ssh-rsa, aes128-cbc, hmac-sha1");
    assert_eq!(finding(&format!("ssh-legacy@{modern}")), None);
    let too_old = finding(&format!("reachable@{kernel}")).expect("a finding");
    assert_eq!(too_old["status"], "failure");
    assert!(too_old["evidence"].as_str().unwrap().contains("the kernel is Linux 2.6.32"), "{too_old}");

    table::compare(&numbers);
}
