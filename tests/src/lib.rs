//! The harness of the end-to-end tests: a lab fleet, the real `caravan` program, and questions about what happened.

use lab::{Event, Host, Lab, Spec};
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub mod canary;
pub mod mounts;
pub mod real;
pub mod sshd;
pub mod terminal;

/// A program of this workspace, built once in the profile of the tests.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        // target/PROFILE/deps/TEST -> target/PROFILE
        let test = std::env::current_exe().expect("the test's own path");
        let dir = test.ancestors().nth(2).expect("target/PROFILE").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        // Cargo tells a test about its own package in the environment; there, build scripts that look at the same names would run again.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH").env_remove("CARGO_MANIFEST_LINKS");
        // Built beside tests of their packages, as where the whole workspace is tested: for other features everything would be built again.
        cargo.args(["test", "--quiet", "--workspace", "--no-run", "--test", "whole", "--test", "fleet"]);
        if dir.file_name().is_some_and(|name| name == "release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(dir.parent().expect("target")).current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = cargo.stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("cargo runs");
        assert!(built.status.success(), "the programs under test do not build:\n{}", String::from_utf8_lossy(&built.stderr));
        dir
    });
    dir.join(name)
}

/// A fleet of stand-in hosts and a workstation to work from.
pub struct Site {
    /// The fleet.
    pub lab: Lab,
    root: tempfile::TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Asserts the exit code, with everything that was printed where it is another.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr))
    }
}

impl Site {
    /// Starts a fleet.
    pub fn new(spec: &str) -> Self {
        Self::of(Spec::parse(spec).expect("a right spec"))
    }

    /// Starts a fleet.
    pub fn of(spec: Spec) -> Self {
        let root = tempfile::Builder::new().prefix("caravan-test-").tempdir().expect("a temporary directory");
        let lab = Lab::start_with(spec, &root.path().join("lab"), &program("standin")).expect("the lab starts");
        std::fs::create_dir(root.path().join("home")).expect("a home directory");
        Self { lab, root }
    }

    /// Where runs are kept.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// The directory that everything of this site is in.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where another workstation keeps its runs.
    pub fn other_state(&self) -> PathBuf {
        self.root.path().join("other-state")
    }

    /// `caravan`, ready to run with the site's inventory and an empty home.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.state(), args)
    }

    /// As [`Site::command`], with a state directory of its own: another workstation.
    pub fn command_at(&self, state: &Path, args: &[&str]) -> Command {
        self.prepared(Command::new(program("caravan")), state, args)
    }

    /// Caravan, which ends by SIGKILL at the first event `at` of its journal, before or after that is durable (`lab victim`).
    pub fn victim(&self, at: &str, when: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(program("lab"));
        command.args(["victim", "--at", at, "--when", when, "--note"]).arg(self.root.path().join("note")).arg("--");
        ran(self.prepared(command, &self.state(), args))
    }

    fn prepared(&self, mut command: Command, state: &Path, args: &[&str]) -> Command {
        command.arg("-i").arg(self.lab.inventory()).arg("--state-dir").arg(state).args(args);
        command.env_clear().env("HOME", self.root.path().join("home")).env("USER", "tester").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `caravan` to its end.
    pub fn caravan(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    /// As [`Site::caravan`], from another workstation.
    pub fn elsewhere(&self, args: &[&str]) -> Ran {
        ran(self.command_at(&self.other_state(), args))
    }

    /// Starts `caravan` and leaves it running; what it prints is thrown away.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("caravan starts")
    }

    /// Starts `caravan` and leaves it running; [`finish`] gives what it printed.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caravan starts")
    }

    /// Adds `overrides` (YAML, a step's name with what is changed about it on each line) to the last platform of the inventory.
    pub fn override_steps(&self, overrides: &str) {
        let path = self.lab.inventory();
        let mut text = std::fs::read_to_string(&path).expect("the inventory");
        // The last platform is the last thing in the file, and its entries are two columns in.
        text.push_str("  overrides:\n");
        overrides.trim().lines().for_each(|line| text.push_str(&format!("    {line}\n")));
        std::fs::write(&path, text).expect("the inventory");
    }

    /// A host of the fleet.
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name).host
    }

    /// How often the stand-ins recorded an event, on all hosts.
    pub fn count(&self, event: Event) -> usize {
        self.lab.records().expect("records").iter().filter(|record| record.event == event).count()
    }

    /// Waits until the stand-ins recorded an event while `caravan` runs.
    #[track_caller]
    pub fn wait_for(&self, event: Event, running: &mut Child) {
        until(&format!("{event:?}"), || {
            assert!(running.try_wait().expect("a child").is_none(), "caravan ended before {event:?}");
            self.count(event) > 0
        });
    }

    /// The directory of the newest run.
    pub fn run_dir(&self) -> PathBuf {
        controller::run::store::Store::new(&self.state()).find(None).expect("a run").path
    }

    /// `caravan migrate --yes` with every gate of the plan confirmed.
    pub fn migrate(&self, more: &[&str]) -> Ran {
        let gates = self.gates();
        let mut args = vec!["migrate", "--yes"];
        gates.iter().for_each(|gate| args.extend(["--confirm", gate]));
        args.extend(more);
        self.caravan(&args)
    }

    /// `GATE=note` for every gate of the plan.
    pub fn gates(&self) -> Vec<String> {
        let plan = self.caravan(&["plan", "--format", "json"]).expect(0).json();
        let mut gates = Vec::new();
        for_each_step(&plan, |step| {
            if let Some(gate) = step["spec"]["action"]["gate"]["gate"].as_str() {
                gates.push(format!("{gate}=agreed in ticket 4711"));
            }
        });
        gates
    }

    /// Asserts that no stand-in saw a rule broken.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations: Vec<String> = self.lab.violations().expect("records").iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    /// What the stand-ins of a platform recorded after the fleet was set up.
    pub fn records(&self, platform: &str) -> Vec<lab::Record> {
        let records = self.lab.records().expect("records");
        records.into_iter().filter(|record| record.platform == platform).collect()
    }

    /// The events of the newest run.
    pub fn events(&self) -> Vec<proto::Event> {
        let store = controller::run::store::Store::new(&self.state());
        store.find(None).expect("a run").events().expect("a journal")
    }
}

fn ran(mut command: Command) -> Ran {
    ended(command.output().expect("caravan runs"))
}

fn ended(output: std::process::Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits for what [`Site::begin`] started.
pub fn finish(child: Child) -> Ran {
    ended(child.wait_with_output().expect("caravan ends"))
}

/// Ends a child by SIGKILL, and waits until it is gone.
pub fn kill(mut child: Child) {
    child.kill().expect("a child");
    child.wait().expect("a child");
}

/// Sends a child a signal.
pub fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).expect("a running child");
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < end, "this did not come: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Calls `f` with every step of a plan in JSON.
pub fn for_each_step(plan: &serde_json::Value, mut f: impl FnMut(&serde_json::Value)) {
    let list = |value: &serde_json::Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for platform in list(plan, "platforms") {
        for phase in list(&platform, "phases") {
            for stage in list(&phase, "stages") {
                list(&stage, "steps").iter().for_each(&mut f);
            }
        }
    }
}
