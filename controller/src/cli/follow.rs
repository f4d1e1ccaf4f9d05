//! Reading a run's journal while a controller writes it.

use super::control;
use super::next::next;
use super::status::failure;
use super::{Context, Exit, Failure};
use crate::plan::Plan;
use crate::report::{Record, summary};
use crate::run::journal;
use crate::run::store::{RunDir, StoreError};
use crate::view::text::count;
use crate::view::{StepState, View};
use proto::Event;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// How often the journal is looked at.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// A run that is watched.
pub(super) struct Follower {
    pub(super) dir: RunDir,
    pub(super) plan: Plan,
    path: PathBuf,
    /// The end of the last whole line that was read.
    offset: u64,
}

/// What a look at the journal came to.
pub(super) struct Seen {
    /// New events, in order.
    pub(super) events: Vec<Event>,
    /// Whether a controller drives the run.
    pub(super) driven: bool,
}

impl Follower {
    pub(super) fn new(dir: RunDir) -> Result<Self, Failure> {
        let plan = dir.plan().map_err(failure)?;
        let path = dir.path.join("journal.jsonl");
        Ok(Self { dir, plan, path, offset: 0 })
    }

    /// What was written since the last look. When no controller drives the run and there is nothing new, nothing more will come.
    ///
    /// A line that is not whole yet is left for the next look: it is being written, or the next controller cuts it off.
    pub(super) fn look(&mut self) -> Result<Seen, Failure> {
        // Asked first: what a controller wrote before it ended is then read below.
        let driven = control::is_driven(&self.dir.path);
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Internal, format!("error: the journal {} cannot be read: {error}", self.path.display()))
        };
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.offset)).map_err(cannot)?;
                file.read_to_end(&mut bytes).map_err(cannot)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        let events = journal::parse(&bytes, &self.path).map_err(|error| failure(StoreError::Journal(error)))?.events;
        self.offset += bytes.len() as u64;
        Ok(Seen { events, driven })
    }

    /// Waits until no controller drives the run any more; says on standard error what it still waits for.
    pub(super) async fn until_rest(&mut self, context: &Context) -> Result<View, Failure> {
        let mut view = View::new(&self.plan);
        view.run.id.clone_from(&self.dir.id);
        let mut said = String::new();
        loop {
            let seen = self.look()?;
            seen.events.iter().for_each(|event| view.apply(event));
            if !seen.driven && seen.events.is_empty() {
                return Ok(view);
            }
            let waits = runs_still(&view);
            if context.verbosity >= 0 && waits != said && !waits.is_empty() {
                say!("{waits}");
            }
            said = waits;
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The steps that hosts still work on: `still runs: mkt1 postupgrade, trk[01-02] install.packages`; nothing when none does.
pub(super) fn runs_still(view: &View) -> String {
    let running: Vec<_> = view.steps.iter().filter(|step| step.state == StepState::Running).collect();
    let named: Vec<String> = running.iter().take(4).map(|step| format!("{} {}", view.short(&step.host), step.name)).collect();
    match running.len() {
        0 => String::new(),
        n if n > named.len() => format!("still running: {}, and {} more", named.join(", "), count(n - named.len(), "step")),
        _ => format!("still running: {}", named.join(", ")),
    }
}

/// Prints the end screen of a run on standard error.
pub(super) fn say_end(context: &Context, dir: &RunDir, view: &View) {
    if context.verbosity >= 0 {
        let record = Record { dir: dir.path.display().to_string(), ..Record::default() };
        say!("{}", summary(view, &record, &next(context, view, false), context.color.1).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::journal::{Draft, Journal};
    use proto::event::{Kind, Scope};
    use std::fs;

    async fn written(dir: &std::path::Path) -> Vec<u8> {
        let journal = Journal::create(&dir.join("whole.jsonl"), "r1").unwrap();
        for host in ["a", "b", "c"] {
            let scope = Scope { host: Some(host.to_owned()), ..Scope::default() };
            journal.append(vec![Draft::new(scope, Kind::HostReattached)]).await.unwrap();
        }
        fs::read(dir.join("whole.jsonl")).unwrap()
    }

    fn follower(dir: &std::path::Path) -> Follower {
        let path = dir.join("journal.jsonl");
        let _ = fs::remove_file(&path);
        let plan = Plan { fleet: "f".to_owned(), hash: String::new(), platforms: vec![], files: vec![], warnings: vec![] };
        Follower { dir: RunDir { id: "r1".to_owned(), path: dir.to_owned() }, plan, path, offset: 0 }
    }

    #[tokio::test]
    async fn a_line_is_read_once_and_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = written(dir.path()).await;
        for cut in 0..=bytes.len() {
            let mut follower = follower(dir.path());
            assert_eq!(follower.look().unwrap().events.len(), 0, "there is no journal yet");
            fs::write(&follower.path, &bytes[..cut]).unwrap();
            let before = follower.look().unwrap().events.len();
            assert_eq!(before, bytes[..cut].iter().filter(|byte| **byte == b'\n').count());
            assert_eq!(follower.look().unwrap().events.len(), 0);
            fs::write(&follower.path, &bytes).unwrap();
            let seqs: Vec<u64> = follower.look().unwrap().events.iter().map(|event| event.seq).collect();
            assert_eq!(seqs, (before as u64 + 1..=3).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_torn_line_that_the_next_controller_cut_off_is_never_seen() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = written(dir.path()).await;
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut follower = follower(dir.path());
        fs::write(&follower.path, [&bytes[..second], b"{\"v\":1,\"seq\":2,\"ti"].concat()).unwrap();
        assert_eq!(follower.look().unwrap().events.len(), 1);
        let (journal, chain) = Journal::reopen(&follower.path, "r1").unwrap();
        assert!(chain.torn > 0);
        journal.append(vec![Draft::new(Scope::default(), Kind::PhaseStarted)]).await.unwrap();
        let seen = follower.look().unwrap();
        assert_eq!((seen.events.len(), seen.driven), (1, true));
        assert_eq!(seen.events[0].kind, Kind::PhaseStarted);
    }

    #[test]
    fn a_damaged_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = follower(dir.path());
        fs::write(&follower.path, b"{\"v\":1,\"seq\"\n").unwrap();
        assert_eq!(follower.look().err().unwrap().exit, Exit::Internal);
    }
}
