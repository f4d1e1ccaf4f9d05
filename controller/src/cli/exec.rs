//! `caravan exec`: one ad-hoc command on many hosts, through the agent.

use super::{Context, Exit, Failure, Format};
use crate::hosts::{Hosts, Incoming, OpenError, Outgoing};
use crate::ssh::text::{printable, printable_line};
use inventory::{Fleet, fold_names};
use proto::{FromAgent, ToAgent};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// The number of the one command on each link.
const ID: u32 = 1;
/// A line longer than this is printed in pieces.
const LONGEST_LINE: usize = 16 * 1024;
/// How much output of a host one JSON line carries; the first part is kept.
const JSON_OUTPUT: usize = 1024 * 1024;
/// How many lines may wait to be printed: a slow terminal slows the hosts down, not our memory up.
const WAITING_LINES: usize = 256;

/// Runs one command on hosts, through the agent. No shell reads it, unless you name one: `-- sh -c '...'`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ExecArgs {
    /// Only these hosts: names, globs, `platform:NAME`, `role:NAME`, joined by commas, `!` for not.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// Run it as root, the way the inventory says (`become`).
    #[arg(long)]
    pub r#become: bool,
    /// Give a host up when the command has not ended after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// How it went on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    /// The command ended.
    Exited { code: Option<i32>, message: String },
    /// It may still be running, or not.
    Unknown(String),
    /// The host was not reached, or did not let us in.
    Unreachable(String),
    /// Logged in, but no agent, or no root.
    NotStarted(String),
}

impl Ended {
    fn exit(&self) -> Exit {
        match self {
            Self::Exited { code: Some(0), .. } => Exit::Ok,
            Self::Unreachable(_) => Exit::Unreachable,
            _ => Exit::Failed,
        }
    }

    /// One word, as in JSON.
    fn word(&self) -> &'static str {
        match self {
            Self::Exited { code: Some(0), .. } => "ok",
            Self::Exited { .. } => "failed",
            Self::Unknown(_) => "unknown",
            Self::Unreachable(_) => "unreachable",
            Self::NotStarted(_) => "not-started",
        }
    }

    fn code(&self) -> Option<i32> {
        if let Self::Exited { code, .. } = self { *code } else { None }
    }

    fn message(&self) -> &str {
        match self {
            Self::Exited { message, .. } | Self::Unknown(message) | Self::Unreachable(message) | Self::NotStarted(message) => {
                message
            }
        }
    }
}

impl From<OpenError> for Ended {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unreachable { .. } | OpenError::HostKey { .. } | OpenError::Authentication { .. } => {
                Self::Unreachable(error.to_string())
            }
            OpenError::Become { .. } | OpenError::Agent { .. } => Self::NotStarted(error.to_string()),
        }
    }
}

/// What hosts say to the printer.
enum Said {
    Output { host: String, bytes: Vec<u8> },
    Ended { host: String, ended: Ended },
}

/// Runs the command on the selected hosts over any transport; prints to `out` as it comes, and the summary to `err`.
///
/// # Errors
/// [`Exit::Internal`] when the output cannot be written.
pub async fn exec<H: Hosts>(
    context: &Context,
    args: &ExecArgs,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    hosts: &Arc<H>,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> Result<Exit, Failure> {
    let (say, mut said) = mpsc::channel(WAITING_LINES);
    let slots = Arc::new(Semaphore::new(fleet.parallel.hosts.max(1)));
    let mut running = JoinSet::new();
    for host in selected {
        let (host, hosts, slots, say, args) = (host.clone(), Arc::clone(hosts), Arc::clone(&slots), say.clone(), args.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await;
            let ended = on_host(&*hosts, &host, &args, &say).await;
            let _ = say.send(Said::Ended { host, ended }).await;
        });
    }
    drop(say);
    let mut printer = Printer::new(context, selected, out);
    let mut results = BTreeMap::new();
    while let Some(said) = said.recv().await {
        let printed = match said {
            Said::Output { host, bytes } => printer.output(&host, &bytes),
            Said::Ended { host, ended } => {
                let printed = printer.ended(&host, &ended);
                results.insert(host, ended);
                printed
            }
        };
        // Ends the commands too: they live as long as their connections.
        printed.map_err(|error| Failure::new(Exit::Internal, format!("error: the output cannot be written: {error}")))?;
    }
    if context.format == Format::Text && context.verbosity >= 0 {
        let _ = summarize(err, &results);
    }
    Ok(overall(results.values()))
}

/// The exit code of the whole: a failed command counts before a host that was not reached.
fn overall<'a>(results: impl Iterator<Item = &'a Ended>) -> Exit {
    results.map(Ended::exit).fold(Exit::Ok, |worst, exit| match (worst, exit) {
        (Exit::Failed, _) | (_, Exit::Failed) => Exit::Failed,
        (Exit::Unreachable, _) | (_, Exit::Unreachable) => Exit::Unreachable,
        _ => Exit::Ok,
    })
}

async fn on_host<H: Hosts>(hosts: &H, host: &str, args: &ExecArgs, say: &mpsc::Sender<Said>) -> Ended {
    let mut link = match hosts.open(host, args.r#become).await {
        Ok(link) => link,
        Err(error) => return error.into(),
    };
    // Time counts from here: what connecting may take is the inventory's to say.
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let command = ToAgent::Exec { id: ID, argv: args.command.clone() };
    if link.to.send(Outgoing::Message(command)).await.is_err() {
        return Ended::Unknown(closed_reason(&mut link.from).await);
    }
    loop {
        let incoming = match deadline {
            Some(deadline) => match timeout_at(deadline, link.from.recv()).await {
                Ok(incoming) => incoming,
                Err(_) => {
                    let seconds = args.timeout.unwrap_or_default();
                    return Ended::Unknown(format!("no end after {seconds} s; it was told to stop"));
                }
            },
            None => link.from.recv().await,
        };
        match incoming {
            Some(Incoming::Data { stream: ID, bytes, .. }) => {
                if say.send(Said::Output { host: host.to_owned(), bytes }).await.is_err() {
                    return Ended::Unknown("nobody reads the output any more".to_owned());
                }
            }
            Some(Incoming::Message(FromAgent::Exited { id: ID, code, message })) => {
                return Ended::Exited { code, message: printable(&message) };
            }
            Some(Incoming::Message(FromAgent::Fatal { message })) => return Ended::NotStarted(printable(&message)),
            Some(Incoming::Closed { reason }) => return Ended::Unknown(reason),
            None => return Ended::Unknown("the connection ended".to_owned()),
            Some(Incoming::Data { .. } | Incoming::Message(_)) => {}
        }
    }
}

pub(super) async fn closed_reason(from: &mut mpsc::Receiver<Incoming>) -> String {
    while let Some(incoming) = from.recv().await {
        if let Incoming::Closed { reason } = incoming {
            return reason;
        }
    }
    "the connection ended".to_owned()
}

/// Prints what comes: lines with the host's name before them, or one JSON object a host.
struct Printer<'a> {
    out: &'a mut (dyn Write + Send),
    json: bool,
    /// The width of the longest name; 0 for a single host, whose lines need no name.
    width: usize,
    pending: BTreeMap<String, Vec<u8>>,
    /// Hosts whose output is longer than what is kept for JSON.
    cut: BTreeSet<String>,
}

/// One line of `--format json`.
#[derive(Serialize)]
struct Line<'a> {
    host: &'a str,
    outcome: &'a str,
    exit_code: Option<i32>,
    message: &'a str,
    /// Standard output and standard error; what is not UTF-8 is replaced.
    output: &'a str,
    /// Only the beginning of the output is here.
    truncated: bool,
}

impl<'a> Printer<'a> {
    fn new(context: &Context, selected: &BTreeSet<String>, out: &'a mut (dyn Write + Send)) -> Self {
        let width = if selected.len() > 1 { selected.iter().map(|host| host.len()).max().unwrap_or_default() } else { 0 };
        Self { out, json: context.format == Format::Json, width, pending: BTreeMap::new(), cut: BTreeSet::new() }
    }

    fn output(&mut self, host: &str, bytes: &[u8]) -> std::io::Result<()> {
        let mut pending = self.pending.remove(host).unwrap_or_default();
        if self.json {
            let room = JSON_OUTPUT.saturating_sub(pending.len());
            if bytes.len() > room {
                self.cut.insert(host.to_owned());
            }
            pending.extend(bytes.iter().take(room));
        } else {
            pending.extend_from_slice(bytes);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                pending.truncate(end);
                self.line(host, &pending)?;
                pending = rest;
            }
            if pending.len() > LONGEST_LINE {
                self.line(host, &pending)?;
                pending.clear();
            }
            self.out.flush()?;
        }
        self.pending.insert(host.to_owned(), pending);
        Ok(())
    }

    fn ended(&mut self, host: &str, ended: &Ended) -> std::io::Result<()> {
        let pending = self.pending.remove(host).unwrap_or_default();
        if self.json {
            let line = Line {
                host,
                outcome: ended.word(),
                exit_code: ended.code(),
                message: ended.message(),
                output: &String::from_utf8_lossy(&pending),
                truncated: self.cut.contains(host),
            };
            serde_json::to_writer(&mut *self.out, &line)?;
            self.out.write_all(b"\n")?;
        } else if !pending.is_empty() {
            self.line(host, &pending)?;
        }
        self.out.flush()
    }

    fn line(&mut self, host: &str, bytes: &[u8]) -> std::io::Result<()> {
        let text = printable_line(bytes);
        match self.width {
            0 => writeln!(self.out, "{text}"),
            width => writeln!(self.out, "{host:width$}  {text}"),
        }
    }
}

/// One line for all hosts on which it went the same way: the bad ones first.
fn summarize(err: &mut (dyn Write + Send), results: &BTreeMap<String, Ended>) -> std::io::Result<()> {
    let mut groups: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for (host, ended) in results {
        let text = match ended {
            Ended::Exited { code: Some(code), message } if message.is_empty() => format!("exit code {code}"),
            Ended::Exited { code: Some(code), message } => format!("exit code {code}: {message}"),
            Ended::Exited { code: None, message } => format!("no exit code: {message}"),
            Ended::Unknown(message) => format!("unknown: {message}"),
            // The message begins with the host's own name, which would keep equal ones apart.
            Ended::Unreachable(message) | Ended::NotStarted(message) => {
                message.strip_prefix(host.as_str()).unwrap_or(message).trim_start_matches([':', ' ']).to_owned()
            }
        };
        groups.entry((ended.exit() == Exit::Ok, text)).or_default().push(host);
    }
    for ((well, text), hosts) in &groups {
        let mark = if *well { '✓' } else { '✗' };
        let count = if hosts.len() == 1 { "1 host".to_owned() } else { format!("{} hosts", hosts.len()) };
        writeln!(err, "{mark} {count}  {}  {text}", fold_names(hosts))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{AgentHello, Link};

    /// Hosts whose behaviour follows from their names.
    struct Fakes;

    impl Hosts for Fakes {
        async fn open(&self, host: &str, root: bool) -> Result<Link, OpenError> {
            if host.starts_with("gone") {
                return Err(OpenError::Unreachable { host: host.to_owned(), seen: "refused".to_owned(), next: "Look.".to_owned() });
            }
            if host.starts_with("rootless") && root {
                return Err(OpenError::Become { host: host.to_owned(), seen: "no sudo".to_owned(), next: "Look.".to_owned() });
            }
            let (to, mut commands) = mpsc::channel(4);
            let (events, from) = mpsc::channel(4);
            let host = host.to_owned();
            tokio::spawn(async move {
                let Some(Outgoing::Message(ToAgent::Exec { id, argv })) = commands.recv().await else { return };
                if host.starts_with("slow") {
                    let _ = commands.recv().await;
                    return;
                }
                if host.starts_with("lost") {
                    let _ = events.send(Incoming::Closed { reason: "the connection was lost".to_owned() }).await;
                    return;
                }
                // In pieces that do not end where lines end.
                for (index, bytes) in [&b"says \x1b[31mhel"[..], b"lo\nand ", argv.join(" ").as_bytes()].into_iter().enumerate() {
                    let _ = events.send(Incoming::Data { stream: id, offset: index as u64, bytes: bytes.to_vec() }).await;
                }
                let code = Some(i32::from(host.starts_with("bad")));
                let _ = events.send(Incoming::Message(FromAgent::Exited { id, code, message: String::new() })).await;
                let _ = commands.recv().await;
            });
            Ok(Link { agent: AgentHello::default(), to, from })
        }
    }

    async fn run(names: &[&str], format: Format, root: bool) -> (Exit, String, String) {
        let context = Context {
            inventory: "fleet.yaml".into(),
            state_dir: "/nonexistent".into(),
            format,
            color: (false, false),
            verbosity: 0,
        };
        let fleet = Fleet {
            name: "fleet".to_owned(),
            base: "/".into(),
            parallel: inventory::Parallel { platforms: 1, hosts: 3 },
            platforms: Vec::new(),
        };
        let args = ExecArgs { on: None, r#become: root, timeout: Some(1), command: vec!["uptime".to_owned(), "-p".to_owned()] };
        let selected = names.iter().map(ToString::to_string).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = exec(&context, &args, &fleet, &selected, &Arc::new(Fakes), &mut out, &mut err).await.unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn lines_carry_the_name_and_nothing_that_controls_the_terminal() {
        let (exit, out, err) = run(&["mkt1", "trk01"], Format::Text, false).await;
        assert_eq!(exit, Exit::Ok);
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["mkt1   and uptime -p", "mkt1   says \\x1b[31mhello", "trk01  and uptime -p", "trk01  says \\x1b[31mhello"]
        );
        assert_eq!(err, "✓ 2 hosts  mkt1, trk01  exit code 0\n");
        // A single host's output can go on through a pipe as it is.
        assert_eq!(run(&["mkt1"], Format::Text, false).await.1, "says \\x1b[31mhello\nand uptime -p\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_command_counts_before_an_unreachable_host() {
        assert_eq!(run(&["a", "gone1"], Format::Text, false).await.0, Exit::Unreachable);
        assert_eq!(run(&["a", "gone1", "bad1"], Format::Text, false).await.0, Exit::Failed);
        assert_eq!(run(&["rootless"], Format::Text, false).await.0, Exit::Ok);
        assert_eq!(run(&["rootless"], Format::Text, true).await.0, Exit::Failed);
        assert_eq!(run(&["lost"], Format::Text, false).await.0, Exit::Failed);
        let (exit, _, err) = run(&["a", "gone01", "gone02", "slow1"], Format::Text, false).await;
        assert_eq!(exit, Exit::Failed);
        assert_eq!(
            err,
            "✗ 2 hosts  gone[01-02]  cannot be reached: refused. Look.\n✗ 1 host  slow1  unknown: no end after 1 s; it was told to stop\n✓ 1 host  a  exit code 0\n"
        );
    }

    #[tokio::test]
    async fn json_is_one_object_a_host() {
        let (_, out, err) = run(&["bad1", "gone1"], Format::Json, false).await;
        let mut lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|line| line["host"].as_str().unwrap().to_owned());
        assert_eq!(lines[0]["outcome"], "failed");
        assert_eq!(lines[0]["exit_code"], 1);
        assert_eq!(lines[0]["output"], "says \u{1b}[31mhello\nand uptime -p");
        assert_eq!(lines[0]["truncated"], false);
        assert_eq!(lines[1]["outcome"], "unreachable");
        assert!(lines[1]["exit_code"].is_null());
        assert_eq!(err, "");
    }
}
