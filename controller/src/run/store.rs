//! Where runs are kept: `STATE/runs/<id>/` with `plan.json`, `journal.jsonl` and output files.

use super::journal::{self, Chain};
use crate::plan::Plan;
use proto::Event;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory cannot be read or written.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others can write to the state directory.
    #[error("{path} can be written by others (mode {mode:o}); a run's record must be its owner's alone. Mend it: chmod 700 {path}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else's directory.
    #[error(
        "{path} belongs to uid {owner}, who could change a run's record; expected root or uid {own}. Use your own: --state-dir DIR"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// There are no runs at all.
    #[error("error: there are no runs in {0} yet")]
    NoRuns(PathBuf),
    /// No such run.
    #[error("error: there is no run `{wanted}` in {path}; `caravan runs` lists them")]
    NoRun {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The name fits several runs.
    #[error("error: `{wanted}` could be {candidates}; give more of the id")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it fits.
        candidates: String,
    },
    /// The plan of a run cannot be understood.
    #[error("{path} cannot be understood: {error}. It was written by another version of Caravan or damaged")]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The journal of a run cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| StoreError::Io { what, path: path.to_owned(), error }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Store {
    runs: PathBuf,
}

/// One run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    /// The run's id.
    pub id: String,
    /// The directory.
    pub path: PathBuf,
}

/// The directory of a run that was put together from its hosts, before it counts.
#[derive(Debug)]
pub struct Adopted {
    runs: PathBuf,
    dir: RunDir,
}

impl Adopted {
    /// Where its files go.
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// The run is here already, or the directory cannot be written.
    pub fn keep(self) -> Result<RunDir, StoreError> {
        let path = self.runs.join(&self.dir.id);
        sync_dir(&self.dir.path)?;
        fs::rename(&self.dir.path, &path).map_err(io_error("rename", &self.dir.path))?;
        sync_dir(&self.runs)?;
        Ok(RunDir { id: self.dir.id, path })
    }
}

impl Store {
    /// The store under a state directory. Nothing is created yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { runs: state_dir.join("runs") }
    }

    /// Makes the directory of a new run, durably, with its plan. `{run}` in the plan becomes the run's id: from here on the plan is
    /// exactly what happens.
    ///
    /// # Errors
    /// The state directory cannot be written, or others can write to it.
    pub fn create(&self, plan: &Plan) -> Result<(RunDir, Plan), StoreError> {
        self.prepare()?;
        let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        loop {
            let id = format!("{day}-{}", suffix());
            let path = self.runs.join(&id);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(io_error("create", &path)(error)),
            }
            let bad_plan = |e: serde_json::Error| StoreError::Plan { path: path.join("plan.json"), error: e.to_string() };
            let text = serde_json::to_string_pretty(plan).map_err(bad_plan)?.replace("{run}", &id);
            let plan: Plan = serde_json::from_str(&text).map_err(bad_plan)?;
            write_durably(&path.join("plan.json"), text.as_bytes())?;
            sync_dir(&path)?;
            sync_dir(&self.runs)?;
            return Ok((RunDir { id, path }, plan));
        }
    }

    /// Begins the directory of a run that was put together from its hosts. It has its name only once [`Adopted::keep`] is called, so
    /// that a run is here wholly or not at all.
    ///
    /// # Errors
    /// The state directory cannot be written, or others can write to it.
    pub fn adopt(&self, id: &str, plan: &Plan) -> Result<Adopted, StoreError> {
        self.prepare()?;
        let path = self.runs.join(format!(".{id}-{}", random_id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io_error("create", &path))?;
        let bad_plan = |e: serde_json::Error| StoreError::Plan { path: path.join("plan.json"), error: e.to_string() };
        let text = serde_json::to_string_pretty(plan).map_err(bad_plan)?;
        write_durably(&path.join("plan.json"), text.as_bytes())?;
        Ok(Adopted { runs: self.runs.clone(), dir: RunDir { id: id.to_owned(), path } })
    }

    /// Sets the directory of a run aside whose record cannot be used any more, and answers where it is.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self, run: &RunDir) -> Result<PathBuf, StoreError> {
        let aside = self.runs.join(format!(".{}-damaged-{}", run.id, &random_id()[..8]));
        fs::rename(&run.path, &aside).map_err(io_error("rename", &run.path))?;
        sync_dir(&self.runs)?;
        Ok(aside)
    }

    /// The id of this state directory, made where it is missing: hosts know by it whose runs may be gone on with from here.
    ///
    /// # Errors
    /// The state directory cannot be read or written.
    pub fn seat(&self) -> Result<String, StoreError> {
        self.prepare()?;
        let path = self.runs.parent().unwrap_or(&self.runs).join("seat");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Written beside and linked under its name: of two controllers that begin at once, one gives the id.
                let own = path.with_extension(random_id());
                write_durably(&own, random_id().as_bytes())?;
                let _ = fs::hard_link(&own, &path);
                let _ = fs::remove_file(&own);
                fs::read_to_string(&path).map_err(io_error("read", &path))?
            }
            other => other.map_err(io_error("read", &path))?,
        };
        Ok(text.trim().to_owned())
    }

    /// Makes the directories where they are missing, as their owner's alone.
    fn prepare(&self) -> Result<(), StoreError> {
        // First, so that nothing is made in a directory that is refused.
        self.is_private()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.runs).map_err(io_error("create", &self.runs))?;
        // Ours alone, also where somebody made it by hand.
        let closed = fs::set_permissions(&self.runs, fs::Permissions::from_mode(0o700));
        closed.map_err(io_error("protect", &self.runs))
    }

    /// Refuses directories in which somebody else could change what is on record. What is not there yet is fine.
    fn is_private(&self) -> Result<(), StoreError> {
        let state = self.runs.parent().unwrap_or(&self.runs);
        for path in [state, &self.runs] {
            let meta = match fs::metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(io_error("read", path))?,
            };
            let (mode, owner, own) = (meta.permissions().mode() & 0o777, meta.uid(), rustix::process::geteuid().as_raw());
            if mode & 0o022 != 0 {
                return Err(StoreError::Open { path: path.to_owned(), mode });
            }
            if owner != own && owner != 0 {
                return Err(StoreError::Foreign { path: path.to_owned(), owner, own });
            }
        }
        Ok(())
    }

    /// All runs, oldest first.
    ///
    /// # Errors
    /// The state directory cannot be read. A directory that is not there yet holds no runs.
    pub fn runs(&self) -> Result<Vec<RunDir>, StoreError> {
        self.is_private()?;
        let entries = match fs::read_dir(&self.runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &self.runs)(error)),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let path = entry.map_err(io_error("read", &self.runs))?.path();
            let journal = path.join("journal.jsonl");
            // What begins with a dot is not whole yet, or was set aside.
            let id = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
            if let (Some(id), Ok(meta)) = (id, fs::metadata(&journal)) {
                let created = meta.created().or_else(|_| meta.modified()).ok();
                runs.push((created, RunDir { id: id.to_owned(), path: path.clone() }));
            }
        }
        runs.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }

    /// One run: by its id, by the unique beginning or end of its id, or the newest.
    ///
    /// # Errors
    /// There is none, or the name fits several.
    pub fn find(&self, wanted: Option<&str>) -> Result<RunDir, StoreError> {
        let runs = self.runs()?;
        let Some(name) = wanted else { return runs.last().cloned().ok_or_else(|| StoreError::NoRuns(self.runs.clone())) };
        let no_run = || StoreError::NoRun { wanted: name.to_owned(), path: self.runs.clone() };
        if let Some(run) = runs.iter().find(|run| run.id == name) {
            return Ok(run.clone());
        }
        let fitting: Vec<_> = runs.iter().filter(|run| run.id.starts_with(name) || run.id.ends_with(name)).collect();
        match fitting.as_slice() {
            [] => Err(no_run()),
            [run] => Ok((*run).clone()),
            several => Err(StoreError::Ambiguous {
                wanted: name.to_owned(),
                candidates: several.iter().map(|run| run.id.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl RunDir {
    /// The run's plan.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        let path = self.path.join("plan.json");
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::Plan { path, error: e.to_string() })
    }

    /// The run's events, in order. A torn last line is left out.
    ///
    /// # Errors
    /// The journal cannot be read, or a line before the last cannot be understood.
    pub fn events(&self) -> Result<Vec<Event>, StoreError> {
        Ok(self.chain()?.events)
    }

    /// The run's journal with the state of its chain.
    ///
    /// # Errors
    /// As [`RunDir::events`].
    pub fn chain(&self) -> Result<Chain, StoreError> {
        Ok(journal::read(&self.path.join("journal.jsonl"))?)
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io_error("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

/// Six letters or digits, since hosts keep runs of several workstations side by side, that nobody mistakes for one another.
fn suffix() -> String {
    const ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";
    let mut bytes = [0u8; 6];
    if getrandom::fill(&mut bytes).is_err() {
        // Without a random source the process id has to do: ids need to be distinct, not secret.
        let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        bytes.iter_mut().zip(now.iter().zip(std::process::id().to_le_bytes().iter().cycle())).for_each(|(b, (n, id))| *b = n ^ id);
    }
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()
}

/// 128 random bits in lower-case hex.
pub fn random_id() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        let now = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        bytes.copy_from_slice(&now);
        bytes.iter_mut().zip(std::process::id().to_le_bytes()).for_each(|(byte, id)| *byte ^= id);
    }
    journal::hex(&bytes)
}
