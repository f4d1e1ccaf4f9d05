//! A controller made by hand: it has a run's journal, listens on the run's socket, and does what a test tells it to.

use controller::cli::control::{self, Control};
use controller::run::journal::{Draft, Journal, Origin};
use controller::run::store::{RunDir, Store};
use controller::run::{Command, Signal};
use inventory::Topology;
use proto::{Event, Kind, Scope};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command as Process};
use tokio::sync::mpsc;

use crate::view_tests::fleet;

/// A test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run in a state directory, with the events so far.
pub(crate) async fn recorded(state_dir: &Path, events: &[Event]) -> RunDir {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)]);
    let (dir, _) = Store::new(state_dir).create(&plan).unwrap();
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id).unwrap();
    let drafts: Vec<Draft> = events.iter().map(draft).collect();
    if !drafts.is_empty() {
        journal.append(drafts).await.unwrap();
    }
    dir
}

fn draft(event: &Event) -> Draft {
    // What a host said has a place in the host's own journal.
    let origin = event.host_seq.map(|seq| Origin { time_ms: 0, boot_id: "b".to_owned(), seq });
    Draft { scope: event.scope.clone(), kind: event.kind.clone(), origin, time: None }
}

/// The controller.
pub(crate) struct Driver {
    journal: Journal,
    control: Control,
    commands: mpsc::Receiver<Command>,
}

impl Driver {
    pub(crate) fn start(dir: &RunDir) -> Self {
        let (journal, _) = Journal::reopen(&dir.path.join("journal.jsonl"), &dir.id).unwrap();
        let (to, commands) = mpsc::channel(8);
        let control = control::serve(&dir.path, to).unwrap();
        Self { journal, control, commands }
    }

    /// Waits for what somebody wants, and answers it.
    pub(crate) async fn answer(&mut self, answer: Result<&str, &str>) -> Signal {
        let asked = tokio::time::timeout(PATIENCE, self.commands.recv()).await;
        let command = asked.expect("somebody asks in time").expect("somebody asks");
        let answer = answer.map(str::to_owned).map_err(str::to_owned);
        command.reply.expect("an answer is wanted").send(answer).unwrap();
        command.what
    }

    pub(crate) async fn write(&self, scope: Scope, kind: Kind) {
        self.journal.append(vec![draft(&fleet::event(1000, 0, scope, kind))]).await.unwrap();
    }

    /// Ends as a controller does whose process ends.
    pub(crate) fn end(self) {
        drop(self.control);
        drop(self.journal);
    }
}

/// The program itself, on this state directory.
pub(crate) fn caravan(state_dir: &Path, args: &[&str]) -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_caravan"));
    process.arg("--state-dir").arg(state_dir).args(args).env("USER", "kim").env_remove("CARAVAN_INVENTORY");
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    process
}

/// What the program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub(crate) async fn run(state_dir: &Path, args: &[&str]) -> Said {
    caravan(state_dir, args).output().await.unwrap().into()
}

pub(crate) async fn ended(child: Child) -> Said {
    child.wait_with_output().await.unwrap().into()
}
