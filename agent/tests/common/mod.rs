//! A host in a temporary directory, and a controller that talks to its agent over pipes.

use proto::frame::{Decoder, Frame, MAGIC, parse};
use proto::message::{Attempt, Claim, Granted, Happened, HostEvent, Mode};
use proto::step::{Command as Program, Limits, Repeat};
use proto::{Action, FromAgent, Outcome, Probe, RunAs, StepId, StepSpec, ToAgent};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_caravan-agent");
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const RUN: &str = "2026-11-22-k3";

/// A host whose whole state is in a directory of its own. What still runs for it ends with it.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub(crate) fn state(&self) -> String {
        self.text("state")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("state").join("runs").join(RUN)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(name, || self.path(name).exists());
    }

    pub(crate) fn supervisor(&self) -> Pid {
        let text = std::fs::read_to_string(self.run_dir().join("supervisor.lock")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// What the host's lock says.
    pub(crate) fn lock(&self) -> serde_json::Value {
        serde_json::from_str(&self.read("state/lock")).unwrap()
    }

    /// The runner of the step that runs.
    pub(crate) fn runner(&self) -> Pid {
        let runners = self.processes("runner");
        assert_eq!(runners.len(), 1);
        runners[0]
    }

    /// Processes of this host: those that have its directory in their arguments.
    pub(crate) fn processes(&self, word: &str) -> Vec<Pid> {
        let mark = self.dir.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&mark) && line.contains(word) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for _ in 0..100 {
            let left = self.processes("");
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|pid| {
                let _ = kill_process(*pid, Signal::KILL);
            });
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The children of a process.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let own = parent.as_raw_nonzero().get();
    let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

pub(crate) fn kill(pid: Pid) {
    // A shell's child bears its name until it has become something else: it may be gone by now.
    let _ = kill_process(pid, Signal::KILL);
    wait_until("an end", || rustix::process::test_kill_process(pid).is_err());
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A controller of a seat, as the locks of hosts know it.
pub(crate) fn claim(seat: &str, controller: &str) -> Claim {
    Claim {
        seat: seat.to_owned(),
        controller: controller.to_owned(),
        operator: format!("operator@{seat}"),
        take_over: None,
        succeeds: None,
    }
}

/// A bridge, and the controller's end of it.
pub(crate) struct Bridge {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    /// Who attaches. Each bridge is another controller of the same seat, unless a test says something else.
    pub(crate) claim: Claim,
    /// The token that the host gave.
    pub(crate) token: u64,
    frames: Receiver<Frame>,
    /// Output so far, by stream.
    pub(crate) output: BTreeMap<u32, Vec<u8>>,
    /// For each stream where the first byte stood that was seen.
    pub(crate) begins: BTreeMap<u32, u64>,
    pub(crate) events: Vec<HostEvent>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bridge {
    /// Starts a bridge, without a word said.
    pub(crate) fn silent() -> Self {
        Self::by(Command::new(AGENT).arg("bridge"))
    }

    /// Starts a bridge by a command of its own.
    pub(crate) fn by(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, frames) = channel();
        std::thread::spawn(move || {
            let mut magic = vec![0; MAGIC.len()];
            stdout.read_exact(&mut magic).unwrap();
            assert_eq!(magic, MAGIC);
            let mut decoder = Decoder::new();
            let mut piece = vec![0; 64 * 1024];
            while let Ok(read) = stdout.read(&mut piece)
                && read > 0
            {
                decoder.push(&piece[..read]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    if sender.send(frame).is_err() {
                        return;
                    }
                }
            }
        });
        let claim = claim("seat", &child.id().to_string());
        Self { child, stdin, claim, token: 0, frames, output: BTreeMap::new(), begins: BTreeMap::new(), events: Vec::new() }
    }

    /// Starts a bridge and shakes hands.
    pub(crate) fn open() -> Self {
        Self::silent().greet()
    }

    pub(crate) fn greet(mut self) -> Self {
        let bridge = &mut self;
        bridge.send(&ToAgent::Hello { protocol: proto::PROTOCOL, oldest: proto::PROTOCOL_OLDEST, version: "test".to_owned() });
        assert!(matches!(bridge.message(), FromAgent::Hello { protocol: proto::PROTOCOL, .. }));
        self
    }

    /// Starts a bridge and attaches to the run.
    pub(crate) fn attach(host: &Host) -> Self {
        let mut bridge = Self::open();
        bridge.send_attach(host, 0, BTreeMap::new());
        let answer = bridge.message();
        assert!(matches!(answer, FromAgent::Attached { .. }), "{answer:?}");
        bridge
    }

    pub(crate) fn send_attach(&mut self, host: &Host, acked: u64, output: BTreeMap<StepId, u64>) {
        let (run, host_state, claim) = (RUN.to_owned(), host.state(), self.claim.clone());
        self.send(&ToAgent::Attach { run, host_state, claim, acked, output, keep: Vec::new() });
    }

    /// Attaches to some run, and returns the answer.
    pub(crate) fn try_attach(&mut self, host: &Host, run: &str, claim: Claim) -> FromAgent {
        self.claim = claim.clone();
        let (run, host_state) = (run.to_owned(), host.state());
        self.send(&ToAgent::Attach { run, host_state, claim, acked: 0, output: BTreeMap::new(), keep: Vec::new() });
        self.message()
    }

    pub(crate) fn send(&mut self, message: &ToAgent) {
        self.raw(&Frame::message(message).unwrap().encode());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn grant(&mut self, steps: Vec<Granted>) {
        let token = self.token;
        self.send(&ToAgent::Grant { steps, head: "0".repeat(64), token, keep: Vec::new() });
    }

    /// The next message. Output is taken in on the way, and has to have no gaps.
    pub(crate) fn next(&mut self, within: Duration) -> Result<FromAgent, RecvTimeoutError> {
        let until = Instant::now() + within;
        loop {
            match self.frames.recv_timeout(until.saturating_duration_since(Instant::now()))? {
                Frame::Control(payload) => {
                    let message = parse(&payload).unwrap();
                    if let FromAgent::Attached { token, .. } = message {
                        self.token = token;
                    }
                    return Ok(message);
                }
                Frame::Data { stream, offset, bytes } => {
                    let begin = *self.begins.entry(stream).or_insert(offset);
                    let so_far = self.output.entry(stream).or_default();
                    assert_eq!(offset, begin + so_far.len() as u64, "a gap in stream {stream}");
                    so_far.extend(bytes);
                }
            }
        }
    }

    /// The next message, or how many bytes of output came. Parts of the output may be missing.
    pub(crate) fn next_with_gaps(&mut self) -> Result<FromAgent, u64> {
        match self.frames.recv_timeout(PATIENCE).expect("a frame of the agent") {
            Frame::Control(payload) => Ok(parse(&payload).unwrap()),
            Frame::Data { bytes, .. } => Err(bytes.len() as u64),
        }
    }

    pub(crate) fn message(&mut self) -> FromAgent {
        self.next(PATIENCE).expect("a message of the agent")
    }

    /// Takes events until a step ended.
    pub(crate) fn until_finished(&mut self, id: &str) -> Ended {
        loop {
            match self.message() {
                FromAgent::Event(event) => {
                    self.events.push(event.clone());
                    if let (true, Happened::Finished { .. }) = (event.step.0 == id, &event.what) {
                        return self.ended(id, event.attempt);
                    }
                }
                FromAgent::Revoked { .. } => {}
                other => panic!("expected the end of {id}, got {other:?}"),
            }
        }
    }

    /// Takes events until a watchdog speaks: what it says, and whether it asks.
    pub(crate) fn until_alert(&mut self) -> (String, bool) {
        loop {
            match self.message() {
                FromAgent::Event(event) => {
                    self.events.push(event.clone());
                    if let Happened::Alert { message, ask } = event.what {
                        return (message, ask);
                    }
                }
                other => panic!("expected an alert, got {other:?}"),
            }
        }
    }

    pub(crate) fn stop(&mut self, id: &str, number: u32) {
        self.send(&ToAgent::Stop { attempt: attempt(id, number) });
    }

    /// What is known of a step that ended.
    pub(crate) fn ended(&self, id: &str, attempt: u32) -> Ended {
        let of_step = || self.events.iter().filter(|e| e.step.0 == id && e.attempt == attempt).map(|e| &e.what);
        let stream = of_step().find_map(|what| if let Happened::Started { stream } = what { Some(*stream) } else { None });
        let output = stream.and_then(|stream| self.output.get(&stream)).cloned().unwrap_or_default();
        of_step()
            .find_map(|what| match what {
                Happened::Finished { outcome, exit_code, message, output_len, died, .. } => Some(Ended {
                    outcome: *outcome,
                    died: *died,
                    exit_code: *exit_code,
                    message: message.clone(),
                    output_len: *output_len,
                    output: String::from_utf8_lossy(&output).into_owned(),
                }),
                Happened::Started { .. } | Happened::Made(_) | Happened::Alert { .. } => None,
            })
            .unwrap()
    }

    /// Carries one step out on a fresh or known run, and waits for its end.
    pub(crate) fn perform(&mut self, step: Granted) -> Ended {
        let id = step.spec.id.0.clone();
        self.grant(vec![step]);
        self.until_finished(&id)
    }

    /// Ends the run on the host, which is free then.
    pub(crate) fn finish(self) {
        self.end(true);
    }

    pub(crate) fn end(mut self, release: bool) {
        self.send(&ToAgent::Finish { release });
        loop {
            match self.message() {
                FromAgent::Finished => return,
                FromAgent::Event(_) | FromAgent::Revoked { .. } => {}
                other => panic!("expected the end of the run, got {other:?}"),
            }
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) died: bool,
    pub(crate) exit_code: Option<i32>,
    pub(crate) message: String,
    pub(crate) output_len: u64,
    pub(crate) output: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn expect(self, outcome: Outcome) -> Self {
        assert_eq!(self.outcome, outcome, "{self:?}");
        self
    }

    /// Whether it was ended from outside.
    #[track_caller]
    pub(crate) fn died(self, died: bool) -> Self {
        assert_eq!(self.died, died, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.message.contains(text), "expected `{text}` in: {}", self.message);
        self
    }
}

pub(crate) fn step(id: &str, action: Action) -> Granted {
    let spec = StepSpec {
        id: StepId(id.to_owned()),
        title: id.to_owned(),
        run_as: RunAs::Login,
        action,
        only_if: None,
        probe: None,
        repeat: Repeat::Ask,
        limits: Limits { deadline_s: 60, ..Limits::default() },
    };
    Granted { spec, attempt: 1, mode: Mode::Act }
}

pub(crate) fn attempt(id: &str, attempt: u32) -> Attempt {
    Attempt { step: StepId(id.to_owned()), attempt }
}

pub(crate) fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A shell script with the host's directory as its working directory.
pub(crate) fn script(host: &Host, text: &str) -> Program {
    // The directory is an argument, so that the process can be found by it.
    let dir = host.dir.path().to_string_lossy().into_owned();
    Program { argv: argv(&["/bin/sh", "-c", text, &dir]), dir: Some(dir), ok: vec![0], ..Program::default() }
}

pub(crate) fn shell(host: &Host, id: &str, text: &str) -> Granted {
    step(id, Action::Command(script(host, text)))
}

pub(crate) fn with_probe(mut step: Granted, probe: Probe) -> Granted {
    step.spec.probe = Some(probe);
    step
}

pub(crate) fn exists(path: &Path) -> Probe {
    Probe::Exists(path.to_string_lossy().into_owned())
}
