//! The harness of the end-to-end tests: a lab fleet, the real `caravan` program, and questions about what happened.

use lab::{Lab, Spec};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

pub mod sshd;

/// A program of this workspace, built once in the profile of the tests.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        // target/PROFILE/deps/TEST -> target/PROFILE
        let test = std::env::current_exe().expect("the test's own path");
        let dir = test.ancestors().nth(2).expect("target/PROFILE").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "caravan", "-p", "lab", "--bins"]);
        if dir.file_name().is_some_and(|name| name == "release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(dir.parent().expect("target")).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo runs").success(), "the programs under test do not build");
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
        let lab = Lab::start_with(spec, &root.path().join("lab"), &program("lab")).expect("the lab starts");
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

    /// `caravan`, ready to run with the site's inventory and an empty home.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("caravan"));
        command.arg("-i").arg(self.lab.inventory()).arg("--state-dir").arg(self.state()).args(args);
        command.env_clear().env("HOME", self.root.path().join("home")).env("USER", "tester").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `caravan` to its end.
    pub fn caravan(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("caravan runs");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `caravan` and leaves it running; what it prints is thrown away.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("caravan starts")
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
