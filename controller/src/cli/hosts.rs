//! `caravan hosts trust`: the host keys of a whole fleet, on one screen, enrolled after one confirmation.

use super::{Context, Exit, Failure, Format};
use crate::hosts::OpenError;
use crate::ssh::{ScannedKey, SshHosts, Verdict};
use inventory::Fleet;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Host keys.
#[derive(Debug, Clone, clap::Args)]
pub struct HostsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: HostsCommand,
}

/// What can be done with host keys.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum HostsCommand {
    /// Shows new and changed host keys of the fleet on one screen, and enrols the new ones after one confirmation.
    ///
    /// Keys are taken without logging in. A changed key is never enrolled here: find out why it changed, and remove the old one.
    Trust(TrustArgs),
}

/// How new keys are confirmed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// Only these hosts: names, globs, `platform:NAME`, `role:NAME`, joined by commas, `!` for not.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// Lines `HOST SHA256:...` from a source that you trust: new keys that match are enrolled without a question, and those that
    /// differ from their line never.
    #[arg(long, value_name = "FILE")]
    pub fingerprints: Option<PathBuf>,
    /// Enrol the new keys without a question.
    #[arg(long)]
    pub yes: bool,
}

/// What is to be thought of a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Changed,
    Revoked,
    /// New, and not what the fingerprints file says.
    Mismatch,
    New,
    Unreachable,
    Known,
}

/// One host, or one bastion.
#[derive(Debug, Serialize)]
struct Row {
    host: String,
    state: State,
    /// Type and fingerprint of the key that the server proved to have.
    key: Option<String>,
    /// What it should have had, and where that is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expected: Vec<String>,
    /// Why it was not reached.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    /// Whether the key was added in this call.
    enrolled: bool,
    /// Whether the key is as the fingerprints file says.
    matched: bool,
    #[serde(skip)]
    line: String,
    #[serde(skip)]
    file: PathBuf,
}

/// Takes the keys of the selected hosts and of the bastions on the way to them.
///
/// # Errors
/// [`Exit::Usage`] for a fingerprints file that cannot be read, [`Exit::Internal`] when known_hosts cannot be written.
pub async fn trust(
    context: &Context,
    args: &TrustArgs,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    ssh: &Arc<SshHosts>,
    out: &mut (dyn Write + Send),
) -> Result<Exit, Failure> {
    let wanted = match &args.fingerprints {
        Some(path) => read_fingerprints(path)?,
        None => BTreeMap::new(),
    };
    let names: Vec<&str> = fleet
        .platforms
        .iter()
        .flat_map(|platform| &platform.hosts)
        .filter(|host| selected.contains(&host.name) && !host.is_windows())
        .map(|host| host.name.as_str())
        .collect();
    let mut rows = Vec::new();
    // Bastions first: what is behind an unknown one is not contacted.
    for group in [ssh.bastions(names.iter().copied()), names.iter().map(ToString::to_string).collect()] {
        rows.extend(scan(ssh, group, &wanted, fleet.parallel.hosts).await);
    }
    rows.sort_by(|a, b| (a.state, &a.host).cmp(&(b.state, &b.host)));
    let written = |error: std::io::Error| Failure::new(Exit::Internal, format!("error: the result cannot be written: {error}"));
    if context.format == Format::Text {
        out.write_all(page(&rows).as_bytes()).and_then(|()| out.flush()).map_err(written)?;
    }
    let fresh = rows.iter().filter(|row| row.state == State::New).count();
    let to_ask = rows.iter().filter(|row| row.state == State::New && !row.matched).count();
    let agreed = to_ask > 0 && (args.yes || ask(context, to_ask).await);
    let added = enrol(&mut rows, agreed)?;
    match context.format {
        Format::Json => {
            #[derive(Serialize)]
            struct Report<'a> {
                hosts: &'a [Row],
                enrolled: usize,
            }
            serde_json::to_writer_pretty(&mut *out, &Report { hosts: &rows, enrolled: added }).map_err(|e| written(e.into()))?;
            out.write_all(b"\n").map_err(written)?;
        }
        Format::Text => {
            let end = match (fresh, added) {
                (0, _) => "No new keys.".to_owned(),
                (fresh, added) if fresh == added => format!("{added} enrolled."),
                (fresh, added) => format!(
                    "{added} enrolled, {} left out. To enrol them: caravan hosts trust, at a terminal; or --yes",
                    fresh - added
                ),
            };
            writeln!(out, "{end}").map_err(written)?;
        }
    }
    Ok(exit(&rows))
}

/// The contract's precedence: a changed key is a failed check, then hosts that were not reached, then keys that wait for a person.
fn exit(rows: &[Row]) -> Exit {
    let any = |states: &[State]| rows.iter().any(|row| states.contains(&row.state));
    if any(&[State::Changed, State::Revoked, State::Mismatch]) {
        Exit::Failed
    } else if any(&[State::Unreachable]) {
        Exit::Unreachable
    } else if rows.iter().any(|row| row.state == State::New && !row.enrolled) {
        Exit::Waiting
    } else {
        Exit::Ok
    }
}

async fn scan(ssh: &Arc<SshHosts>, names: Vec<String>, wanted: &BTreeMap<String, Vec<String>>, at_once: usize) -> Vec<Row> {
    let slots = Arc::new(Semaphore::new(at_once.max(1)));
    let mut scanning = JoinSet::new();
    for name in names {
        let (ssh, slots) = (Arc::clone(ssh), Arc::clone(&slots));
        scanning.spawn(async move {
            let _slot = slots.acquire().await;
            let result = ssh.scan(&name).await;
            (name, result)
        });
    }
    let mut rows = Vec::new();
    while let Some(done) = scanning.join_next().await {
        if let Ok((name, result)) = done {
            let expected = wanted.get(&name.to_lowercase());
            rows.push(Row::new(name, result, expected.map(Vec::as_slice)));
        }
    }
    rows
}

impl Row {
    fn new(host: String, result: Result<ScannedKey, OpenError>, wanted: Option<&[String]>) -> Self {
        let mut row = Self {
            host,
            state: State::Unreachable,
            key: None,
            expected: Vec::new(),
            message: String::new(),
            enrolled: false,
            matched: false,
            line: String::new(),
            file: PathBuf::new(),
        };
        let scanned = match result {
            Ok(scanned) => scanned,
            Err(error) => {
                row.message = error.to_string();
                return row;
            }
        };
        let fingerprint = scanned.fingerprint.rsplit(' ').next().unwrap_or_default();
        row.matched = wanted.is_some_and(|wanted| wanted.iter().any(|one| one == fingerprint));
        if let Verdict::Certificate(why) = &scanned.verdict {
            row.expected = vec![format!("a certificate that counts: {why}")];
        }
        row.state = match &scanned.verdict {
            Verdict::Known => State::Known,
            Verdict::Changed(expected) => {
                row.expected = expected.iter().map(|key| format!("{} ({})", key.fingerprint, key.place)).collect();
                State::Changed
            }
            Verdict::Revoked(place) => {
                row.expected = vec![format!("not this one: it is revoked ({place})")];
                State::Revoked
            }
            // Nothing is enrolled that may be revoked.
            Verdict::Uncertain(why) => {
                row.expected = vec![format!("one that is not revoked, which cannot be known: {why}")];
                State::Revoked
            }
            Verdict::Unknown | Verdict::OnlyAuthority(_) | Verdict::Certificate(_) => match wanted {
                Some(wanted) if !row.matched => {
                    row.expected = wanted.iter().map(|one| format!("{one} (fingerprints file)")).collect();
                    State::Mismatch
                }
                _ => State::New,
            },
        };
        row.key = Some(scanned.fingerprint);
        row.line = scanned.line;
        row.file = scanned.file;
        row
    }
}

fn page(rows: &[Row]) -> String {
    let mut page = format!("host keys · {}\n", count(rows.len(), "server"));
    let width = rows.iter().map(|row| row.host.chars().count()).max().unwrap_or_default();
    for (state, title) in [
        (State::Changed, "CHANGED: somebody may be listening in, or the host was installed anew"),
        (State::Revoked, "REVOKED"),
        (State::Mismatch, "NOT AS THE FINGERPRINTS FILE SAYS"),
        (State::New, "new"),
        (State::Unreachable, "not reached"),
        (State::Known, "known"),
    ] {
        let of: Vec<&Row> = rows.iter().filter(|row| row.state == state).collect();
        if of.is_empty() {
            continue;
        }
        page.push_str(&format!("\n  {title} · {}\n", of.len()));
        for row in of {
            match (&row.key, state) {
                (_, State::Known) => continue,
                (Some(key), _) => {
                    let matched = if row.matched { "  as the fingerprints file says" } else { "" };
                    page.push_str(&format!("    {:width$}  {key}{matched}\n", row.host));
                }
                (None, _) => page.push_str(&format!("    {}\n", row.message)),
            }
            for expected in &row.expected {
                page.push_str(&format!("    {:width$}  expected {expected}\n", ""));
            }
        }
        if state == State::Changed {
            page.push_str("    When you know why: remove the old key from its place, and run this again.\n");
        }
    }
    page.push('\n');
    page
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One question for all. Without a terminal nobody can answer it.
async fn ask(context: &Context, number: usize) -> bool {
    if context.format == Format::Json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    eprint!(
        "Do these {} belong to your hosts? Compare with ssh-keygen -lf on their consoles. Enrol them? [y/N] ",
        count(number, "key")
    );
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        line
    });
    matches!(answer.await.unwrap_or_default().trim().to_lowercase().as_str(), "y" | "yes")
}

/// Adds the new keys that a person or the fingerprints file confirmed; says how many.
fn enrol(rows: &mut [Row], agreed: bool) -> Result<usize, Failure> {
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut added = 0;
    for row in rows.iter_mut().filter(|row| row.state == State::New && (row.matched || agreed)) {
        let lines = files.entry(row.file.clone()).or_default();
        if !lines.lines().any(|line| line == row.line) {
            lines.push_str(&row.line);
            lines.push('\n');
        }
        row.enrolled = true;
        added += 1;
    }
    for (file, lines) in files {
        append(&file, &lines)
            .map_err(|error| Failure::new(Exit::Internal, format!("error: {} cannot be written: {error}", file.display())))?;
    }
    Ok(added)
}

/// Appends whole lines in one write, after the last line end, while nobody else of us does.
fn append(path: &Path, lines: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.lock()?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{lines}").as_bytes())?;
    file.sync_all()
}

/// Lines `HOST SHA256:...`; more fields may follow. A host can have several keys.
fn read_fingerprints(path: &Path) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let shown = path.display();
    let wrong = |why: String| Failure::new(Exit::Usage, format!("error: {shown}{why}"));
    let text = fs::read_to_string(path).map_err(|error| wrong(format!(" cannot be read: {error}")))?;
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next()) {
            (None, _) => {}
            (Some(host), _) if host.starts_with('#') => {}
            (Some(host), Some(key)) if key.starts_with("SHA256:") => {
                wanted.entry(host.to_lowercase()).or_default().push(key.trim_end_matches('=').to_owned());
            }
            _ => return Err(wrong(format!(":{}: expected HOST SHA256:..., as ssh-keygen -lf prints the fingerprint", index + 1))),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/.ssh/known_hosts");
        append(&path, "a key\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(&path, "b key").unwrap();
        append(&path, "c key\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b key\nc key\n");
    }

    #[test]
    fn fingerprints_are_read_or_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fingerprints");
        fs::write(&path, "# from the console\n\nMkt1 SHA256:abc\nmkt1\tSHA256:def= comment\n").unwrap();
        let wanted = read_fingerprints(&path).unwrap();
        assert_eq!(wanted.get("mkt1").unwrap(), &["SHA256:abc", "SHA256:def"]);
        fs::write(&path, "mkt1 SHA256:abc\nmkt2 MD5:00:11\n").unwrap();
        let failure = read_fingerprints(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(":2:"), "{failure}");
    }

    #[test]
    fn a_bad_key_counts_before_an_unreachable_host_before_a_question() {
        let row = |state| {
            let error = OpenError::Unreachable { host: "a".to_owned(), seen: String::new(), next: String::new() };
            Row { state, ..Row::new("a".to_owned(), Err(error), None) }
        };
        assert_eq!(exit(&[row(State::Known)]), Exit::Ok);
        assert_eq!(exit(&[row(State::New), row(State::Known)]), Exit::Waiting);
        assert_eq!(exit(&[row(State::New), row(State::Unreachable)]), Exit::Unreachable);
        assert_eq!(exit(&[row(State::Mismatch), row(State::Unreachable)]), Exit::Failed);
    }
}
