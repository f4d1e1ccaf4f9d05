//! The bridge: what sshd started. Carries frames between the SSH channel and the supervisor of a run; answers questions, runs ad-hoc
//! commands and writes files that are sent to this host itself. Ends when its standard input ends; lives on when only its standard output
//! is gone.

mod attach;
mod exec;
mod receive;
mod store;

pub(crate) use attach::SOCKET;

use crate::channel::{Input, Output, Stopped};
use crate::inspect;
use exec::Commands;
use proto::frame::{Frame, MAGIC, parse};
use proto::inspect::ReadError;
use proto::{FromAgent, PROTOCOL, PROTOCOL_OLDEST, Query, RunAs, Secret, ToAgent};
use receive::Receiving;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Storing;

/// How long questions that are being answered may hold up the end of the bridge.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How much of standard input may wait: the most that Linux allows accounts other than root (`/proc/sys/fs/pipe-max-size`).
const PIPE: usize = 1024 * 1024;

/// What goes to the controller.
type ToController = Output<File>;
/// Secrets by name. Each value is wiped when it is dropped.
type Secrets = BTreeMap<String, Secret>;

/// Speaks frames on standard input and output until standard input ends.
pub(crate) fn run() -> ExitCode {
    let (Ok(input), Ok(output)) = (own(std::io::stdin()), own(std::io::stdout())) else {
        crate::complain("caravan-agent bridge: standard input or output is closed\n");
        return ExitCode::from(1);
    };
    // sshd keeps what a full pipe does not take, in a buffer that costs it more than everything else there. Where it is no pipe, or no
    // larger one is allowed, it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE);
    let output = Arc::new(Output::new(output));
    output.raw(MAGIC);
    let mut bridge = Bridge {
        commands: Arc::new(Commands::new(Arc::clone(&output))),
        output,
        secrets: Arc::default(),
        supervisor: None,
        answering: Vec::new(),
        storing: None,
        greeted: false,
    };
    let code = bridge.serve(&mut Input::new(input));
    bridge.end();
    code
}

/// A standard stream as a plain file: no buffer and no lock of the library's own in between.
fn own(stream: impl AsFd) -> std::io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// A connection to a supervisor.
struct Supervisor {
    output: Output<UnixStream>,
    stream: UnixStream,
    /// The controller attached anew on this bridge: the end of this connection means nothing.
    replaced: Arc<AtomicBool>,
    receiving: Arc<Receiving>,
}

struct Bridge {
    output: Arc<ToController>,
    commands: Arc<Commands>,
    secrets: Arc<Mutex<Secrets>>,
    /// The connection to the supervisor, once attached.
    supervisor: Option<Supervisor>,
    answering: Vec<JoinHandle<()>>,
    /// A file that is being stored for another host.
    storing: Option<Storing>,
    greeted: bool,
}

impl Bridge {
    fn serve(&mut self, input: &mut Input<File>) -> ExitCode {
        loop {
            match input.there() {
                Ok(Some(Frame::Control(payload))) => {
                    if let Some(code) = self.message(payload) {
                        return code;
                    }
                }
                Ok(Some(Frame::Data { stream, offset, bytes })) => match self.storing.take_if(|storing| storing.id() == stream) {
                    Some(storing) => {
                        let (storing, answer) = storing.data(offset, bytes);
                        self.storing = storing;
                        answer.iter().for_each(|answer| self.say(answer));
                    }
                    None => self.received(|receiving| receiving.data(stream, offset, bytes)),
                },
                Ok(None) => {
                    if input.read().is_err() {
                        return ExitCode::SUCCESS;
                    }
                }
                Err(Stopped::End) => return ExitCode::SUCCESS,
                Err(Stopped::Garbage(e)) => return self.give_up(&format!("what the controller sent is not the protocol: {e}")),
            }
        }
    }

    /// Takes in one message. Some exit code when the bridge has to end.
    fn message(&mut self, payload: &[u8]) -> Option<ExitCode> {
        let frame = &Frame::Control(payload);
        match parse::<ToAgent>(payload) {
            Err(e) => Some(self.give_up(&e.to_string())),
            Ok(message) if !self.greeted && !matches!(message, ToAgent::Hello { .. }) => {
                Some(self.give_up("expected Hello as the first message"))
            }
            Ok(message) => self.handle(message, frame),
        }
    }

    /// Carries out one message. Some exit code when the bridge has to end.
    fn handle(&mut self, message: ToAgent, frame: &Frame<&[u8]>) -> Option<ExitCode> {
        match message {
            ToAgent::Hello { protocol, oldest, .. } => return self.greet(protocol, oldest),
            ToAgent::Secrets { values } => {
                self.secrets.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
                self.pass_on(frame);
            }
            ToAgent::Inspect { id, queries, run_as } => self.inspect(id, queries, run_as),
            ToAgent::Store { id, dest, size, sha256 } => {
                let (storing, answer) = Storing::begin(id, &dest, size, &sha256);
                self.storing = storing;
                self.say(&answer);
            }
            ToAgent::Exec { id, argv } => self.commands.start(id, argv, &self.secrets()),
            ToAgent::Attach { ref run, ref host_state, ref claim, .. } => {
                self.part();
                match attach::connect(host_state, run, claim) {
                    Ok((stream, dir)) => return self.attached(stream, &dir, frame),
                    Err(attach::Failure::Refused(reason)) => self.say(&FromAgent::Refused { reason }),
                    Err(attach::Failure::Busy(reason)) => self.say(&FromAgent::Busy { reason }),
                    Err(attach::Failure::Fatal(message)) => return Some(self.give_up(&message)),
                }
            }
            ToAgent::Grant { .. } | ToAgent::Revoke | ToAgent::Stop { .. } | ToAgent::Finish { .. }
                if self.supervisor.is_none() =>
            {
                self.say(&FromAgent::Refused { reason: "no run is attached on this connection; send Attach first".to_owned() });
            }
            ToAgent::FileBegin { sha256, stream } => {
                self.pass_on(frame);
                self.received(|receiving| receiving.begin(&sha256, stream));
            }
            ToAgent::FileEnd { stream } => {
                self.received(|receiving| {
                    receiving.end(stream);
                    None
                });
                self.pass_on(frame);
            }
            ToAgent::Grant { .. }
            | ToAgent::Revoke
            | ToAgent::Stop { .. }
            | ToAgent::Finish { .. }
            | ToAgent::Ack { .. }
            | ToAgent::Fetch { .. }
            | ToAgent::FileKept { .. }
            | ToAgent::FileRefused { .. } => self.pass_on(frame),
        }
        None
    }

    fn greet(&mut self, protocol: u16, oldest: u16) -> Option<ExitCode> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let spoken = protocol.min(PROTOCOL);
        if spoken < oldest.max(PROTOCOL_OLDEST) {
            self.say(&FromAgent::Incompatible { protocol: PROTOCOL, oldest: PROTOCOL_OLDEST, version });
            return Some(ExitCode::from(1));
        }
        self.greeted = true;
        self.say(&FromAgent::Hello {
            protocol: spoken,
            version,
            boot_id: inspect::boot_id(),
            euid: rustix::process::geteuid().as_raw(),
            user: crate::account::current_name(),
        });
        None
    }

    fn inspect(&mut self, id: u32, queries: Vec<Query>, run_as: RunAs) {
        let (output, secrets) = (Arc::clone(&self.output), self.secrets());
        self.answering.retain(|thread| !thread.is_finished());
        self.answering.push(std::thread::spawn(move || {
            let readings = inspect::answer(&queries, &run_as, &secrets);
            if output.message(&FromAgent::Inspected { id, readings }).is_err() {
                let why = ReadError::Failed("the answers are too large for one message; ask fewer questions at once".to_owned());
                let readings = queries.iter().map(|_| Err(why.clone())).collect();
                let _ = output.message(&FromAgent::Inspected { id, readings });
            }
        }));
    }

    /// From here on the supervisor's frames go to the controller, and the controller's to the supervisor.
    fn attached(&mut self, stream: UnixStream, run: &Path, attach: &Frame<&[u8]>) -> Option<ExitCode> {
        let (reader, writer) = match (stream.try_clone(), stream.try_clone()) {
            (Ok(reader), Ok(writer)) => (reader, writer),
            (Err(e), _) | (_, Err(e)) => return Some(self.give_up(&format!("cannot talk to the supervisor: {e}"))),
        };
        let receiving = Arc::new(Receiving::new(run));
        let supervisor =
            Supervisor { output: Output::new(writer), stream, replaced: Arc::default(), receiving: Arc::clone(&receiving) };
        let secrets = self.secrets();
        if !secrets.is_empty() {
            let _ = supervisor.output.message(&ToAgent::Secrets { values: secrets });
        }
        supervisor.output.raw(&attach.encode());
        let replaced = Arc::clone(&supervisor.replaced);
        self.supervisor = Some(supervisor);
        let (output, commands) = (Arc::clone(&self.output), Arc::clone(&self.commands));
        std::thread::spawn(move || {
            let parted = attach::relay(reader, &output, &receiving);
            receiving.over();
            if parted == attach::Parted::Lost && !replaced.load(Ordering::Relaxed) {
                let message = "the supervisor of the run ended unexpectedly; steps that run go on; attach again to go on with them";
                let _ = output.message(&FromAgent::Fatal { message: message.to_owned() });
                commands.end_all();
                std::process::exit(1);
            }
        });
        None
    }

    /// Ends the connection to a supervisor, where there is one.
    fn part(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.replaced.store(true, Ordering::Relaxed);
            supervisor.receiving.over();
            let _ = supervisor.stream.shutdown(Shutdown::Both);
        }
    }

    /// Passes a frame on to the supervisor, where there is one.
    fn pass_on(&self, frame: &Frame<&[u8]>) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.output.raw(&frame.encode());
        }
    }

    /// Does something with the file that the supervisor's step needs, and tells the supervisor what comes of it.
    fn received(&self, act: impl FnOnce(&Receiving) -> Option<ToAgent>) {
        if let Some(supervisor) = &self.supervisor
            && let Some(problem) = act(&supervisor.receiving)
        {
            let _ = supervisor.output.message(&problem);
        }
    }

    fn secrets(&self) -> Secrets {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn say(&self, message: &FromAgent) {
        // Nothing that is said here comes near the limit of a frame.
        let _ = self.output.message(message);
    }

    fn give_up(&self, message: &str) -> ExitCode {
        self.say(&FromAgent::Fatal { message: message.to_owned() });
        ExitCode::from(1)
    }

    fn end(&mut self) {
        let until = Instant::now() + LAST_ANSWERS;
        while self.answering.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.commands.end_all();
    }
}
