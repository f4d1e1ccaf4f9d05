//! What an agent can be told to do.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The identity of a step in a plan: `PLATFORM/PHASE/STAGE/HOST[:INSTANCE]/NAME`. Stable across resume and retry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl StepId {
    /// The step's name, the last part of the id (`postupgrade`, `install.packages`, ...).
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a step runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RunAs {
    /// The account that the SSH session logged in with (written `login`).
    Login,
    /// A named account of the host (`root`, `neolane`).
    User(String),
}

impl From<String> for RunAs {
    fn from(value: String) -> Self {
        if value == "login" { Self::Login } else { Self::User(value) }
    }
}

impl From<RunAs> for String {
    fn from(value: RunAs) -> Self {
        match value {
            RunAs::Login => "login".to_owned(),
            RunAs::User(name) => name,
        }
    }
}

/// Everything an agent needs to carry out one step. The controller resolves every variable before this is made: nothing in it
/// is looked up again on the host, so that what was planned is what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// Which step this is.
    pub id: StepId,
    /// One line for people.
    pub title: String,
    /// The account it runs as.
    pub run_as: RunAs,
    /// What it does.
    pub action: Action,
    /// The step applies only where this holds. Looked at before anything else, whatever the mode and the attempt. Where it does not
    /// hold there is nothing to do: the step ends as skipped with what was seen, and counts as proven. Where nobody can tell, the
    /// outcome is unknown and nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<Probe>,
    /// How to see whether its effect is there. Used as the post-condition right after the action, to decide an unknown outcome,
    /// and instead of the action for hosts outside `--limit`. Without a probe only the action's own result is known, and an
    /// unknown outcome waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whether the action may be started again after an attempt that is provably dead and whose effect is provably not there.
    #[serde(default)]
    pub repeat: Repeat,
    /// How long it may take and how long it may be silent.
    #[serde(default)]
    pub limits: Limits,
}

/// Whether an action may be started again after a dead, incomplete attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeat {
    /// A person decides.
    #[default]
    Ask,
    /// Yes: it starts from the same state, or the vendor documents that it resumes where it stopped (postupgrade).
    Allowed,
}

/// Time limits of a step. Seconds; zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The step must end within this many seconds.
    #[serde(default)]
    pub deadline_s: u64,
    /// The post-condition may take this many seconds to become true after the action (services that start slowly).
    #[serde(default)]
    pub settle_s: u64,
    /// The step may go without output, and without growth of the files that `watch` names, for this many seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub silence_s: u64,
    /// Log files whose growth counts as a sign of life; the last path segment can have `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<String>,
    /// What happens when a limit is reached.
    #[serde(default, skip_serializing_if = "OnLimit::is_stop")]
    pub then: OnLimit,
}

fn is_zero(seconds: &u64) -> bool {
    *seconds == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self { deadline_s: 3600, settle_s: 0, silence_s: 0, watch: Vec::new(), then: OnLimit::Stop }
    }
}

/// What happens to a step that reaches one of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// It is ended, and its probe decides.
    #[default]
    Stop,
    /// It goes on, and people are told.
    Tell,
    /// It goes on, and a person is asked whether it is to be stopped (`retry`, which probes first).
    Ask,
}

impl OnLimit {
    fn is_stop(&self) -> bool {
        *self == Self::Stop
    }
}

/// What a step does: a closed set, so that a plan can be read, checked and explained before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Runs a program.
    Command(Command),
    /// Starts, stops, enables or disables a service.
    Service {
        /// The init system that owns it.
        manager: ServiceManager,
        /// The service's name (`nlserver6`, `apache2`).
        name: String,
        /// What to do with it.
        op: ServiceOp,
    },
    /// Makes sure that no process runs whose executable lies under a directory: waits, then SIGTERM, then SIGKILL. One planned
    /// step, since which of the three is needed is only known on the host (domain: procedure step 1, stop / kill / kill -9).
    StopProcesses {
        /// The directory (`/usr/local/neolane`).
        under: String,
        /// Seconds to wait before SIGTERM.
        term_after_s: u64,
        /// Seconds to wait after SIGTERM before SIGKILL.
        kill_after_s: u64,
    },
    /// Renames a directory. Refused when `to` exists.
    MoveTree {
        /// The directory as it is named now.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Copies files below one directory into another, keeping mode, owner and times. Files that exist are replaced.
    CopyTree {
        /// The directory to copy from.
        from: String,
        /// The directory to copy into.
        to: String,
        /// Patterns relative to `from`: `*` matches within a path segment, a last segment `**` matches everything below.
        /// A pattern that matches nothing is fine unless it stands in `required`.
        include: Vec<String>,
        /// Patterns of `include` that must match at least one file.
        #[serde(default)]
        required: Vec<String>,
    },
    /// Writes a gzipped tar archive of a directory with a `.sha256` file beside it.
    Archive {
        /// The directory to archive.
        source: String,
        /// The archive to write. Written under another name and renamed when it is whole.
        dest: String,
    },
    /// Reads a file, and writes its SHA-256 beside it as `FILE.sha256`, as `sha256sum -c` understands it.
    Checksum {
        /// The file.
        file: String,
    },
    /// Keeps a copy of a file off the host. It is encrypted on the host, to age's format; only that leaves the host. The controller
    /// fetches it in pieces, from where it stopped, and the step ends well once the controller has all of it where it belongs. The
    /// encrypted copy on the host, `SOURCE.age`, is removed then.
    Keep {
        /// The file. Where there is a `.sha256` file beside it, it has to match.
        source: String,
        /// Name of the copy; one of its own for each of the host's files in a run.
        name: String,
        /// Where it goes.
        to: KeepTo,
        /// The public keys that it is encrypted to, `age1...`: any of their owners can read it.
        encrypt_to: Vec<String>,
        /// The most bytes a second that are fetched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Unpacks an archive as [`Action::Archive`] makes it, under another name that is renamed once it is whole and durable. Refused
    /// when `dest` exists, and when the archive has another digest.
    Unpack {
        /// The archive.
        archive: String,
        /// Its SHA-256, lower-case hex.
        sha256: String,
        /// The directory that it becomes.
        dest: String,
    },
    /// Installs package files.
    InstallPackages {
        /// The package manager.
        manager: PackageManager,
        /// Package files on the host.
        files: Vec<String>,
    },
    /// Removes packages with their configuration.
    RemovePackages {
        /// The package manager.
        manager: PackageManager,
        /// Package names.
        names: Vec<String>,
    },
    /// Receives a file from the controller. Nothing is sent when a file with this digest is there already.
    PushFile {
        /// SHA-256 of the content, lower-case hex.
        sha256: String,
        /// Size in bytes.
        size: u64,
        /// Where it goes on the host.
        dest: String,
        /// Permission bits.
        #[serde(default = "default_file_mode")]
        mode: u32,
    },
    /// Downloads a file on the host itself (with `curl` or `wget`) and checks its digest.
    Download {
        /// Where it comes from.
        url: String,
        /// SHA-256 of the content, lower-case hex.
        sha256: String,
        /// Where it goes on the host.
        dest: String,
    },
    /// Edits attributes of an XML file and keeps every other byte.
    XmlEdit {
        /// The file. The last path segment can be a pattern with `*`.
        file: String,
        /// The edits, applied in order.
        edits: Vec<XmlEdit>,
    },
    /// Puts one text in the place of another wherever it stands in these files, and keeps every other byte. Files that do not exist
    /// are passed over. Of a symbolic link that names the text, it is where the link leads to that is changed; what a link leads to is
    /// never written, and a link to a file that has the text is refused. So is a file that has both texts: it could not be turned back
    /// by exchanging the two.
    ReplaceText {
        /// The files. The last path segment can be a pattern with `*`.
        files: Vec<String>,
        /// The text that goes.
        from: String,
        /// The text that comes.
        to: String,
    },
    /// Does nothing but prove its probe: for steps that only verify.
    Verify,
    /// Reads facts from the host (see [`crate::inspect`]). Carried out by the bridge; writes nothing.
    Inspect {
        /// What to read.
        queries: Vec<crate::inspect::Query>,
    },
    /// Waits for a person, who confirms with a note. Carried out by the controller.
    Gate {
        /// The gate's id, `PLATFORM/NAME`, for `--confirm`.
        gate: String,
        /// What the person has to have done.
        ask: String,
        /// The vendor's own commands for it, where there are any (Windows hosts).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        commands: Vec<String>,
    },
}

fn default_file_mode() -> u32 {
    0o644
}

impl Action {
    /// The action's kind as one word, as in plans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Service { .. } => "service",
            Self::StopProcesses { .. } => "stop-processes",
            Self::MoveTree { .. } => "move-tree",
            Self::CopyTree { .. } => "copy-tree",
            Self::Archive { .. } => "archive",
            Self::Checksum { .. } => "checksum",
            Self::Keep { .. } => "keep",
            Self::Unpack { .. } => "unpack",
            Self::InstallPackages { .. } => "install-packages",
            Self::RemovePackages { .. } => "remove-packages",
            Self::PushFile { .. } => "push-file",
            Self::Download { .. } => "download",
            Self::XmlEdit { .. } => "xml-edit",
            Self::ReplaceText { .. } => "replace-text",
            Self::Verify => "verify",
            Self::Inspect { .. } => "inspect",
            Self::Gate { .. } => "gate",
        }
    }

    /// The names of the secrets that it needs ([`crate::ToAgent::Secrets`]).
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let command = match self {
            Self::Command(command) => Some(command),
            _ => None,
        };
        let files = command.map(|command| command.secret_files.values());
        let typed = command.and_then(|command| command.dialog.as_ref()).map(|dialog| dialog.ways.iter());
        let typed = typed.into_iter().flatten().flat_map(|way| way.secrets.iter().map(String::as_str));
        let queries = match self {
            Self::Inspect { queries } => queries.as_slice(),
            _ => &[],
        };
        let of_files = files.into_iter().flatten().flat_map(|content| crate::secret::names(content));
        of_files.chain(typed).chain(queries.iter().flat_map(crate::inspect::Query::secrets))
    }

    /// Whether the action changes nothing on the host outside Caravan's own directories.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Verify | Self::Inspect { .. } | Self::Gate { .. } | Self::PushFile { .. } | Self::Download { .. })
    }

    /// The program and arguments that the agent will run for this action, where it runs one. The agent executes exactly this, and
    /// plans print exactly this.
    pub fn argv(&self) -> Option<Vec<String>> {
        match self {
            Self::Command(command) => Some(command.argv.clone()),
            Self::Service { manager, name, op } => Some(manager.argv(name, *op)),
            Self::InstallPackages { manager, files } => Some(manager.install_argv(files)),
            Self::RemovePackages { manager, names } => Some(manager.remove_argv(names)),
            _ => None,
        }
    }
}

/// How a line of a step's output begins that tells of [`Command::log`]: `[log] 812 lines, 3 warnings, 0 errors; ` and the last line.
pub const LOG_MARK: &str = "[log] ";

/// Where a copy goes that is kept off a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeepTo {
    /// The directory of the run on the workstation.
    Workstation,
    /// Another host of the fleet.
    Host {
        /// Its name.
        host: String,
        /// The file there.
        dest: String,
    },
}

/// A program to run. Arguments are passed as they are; no shell reads them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments. A program without `/` is looked for in `PATH`.
    pub argv: Vec<String>,
    /// Added to the environment. Never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables that name a file with a secret in it (`PGPASSFILE`). The file lives in memory only; the value is
    /// the file's content, in which `{secret:NAME}` stands for a secret that the controller sends apart from the plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_files: BTreeMap<String, String>,
    /// A shell file that is sourced first if it exists (`nl6/env.sh`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Exit codes that mean success.
    #[serde(default = "default_ok", skip_serializing_if = "is_default_ok")]
    pub ok: Vec<i32>,
    /// Lines of output that mean failure whatever the exit code says (`>>>` and `PU-0007` of postupgrade, `Removing:` of yum).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_on: Vec<LineRule>,
    /// A log file that the program writes; the last path segment can be a pattern with `*`, the newest file counts. While the program
    /// itself is silent, the step's output gets a line about it now and then, which begins with [`LOG_MARK`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The command starts a service that outlives the step: its descendants do not count as the step still running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starts_service: bool,
    /// The program asks for passwords at its terminal: it gets a terminal of its own, on which they are typed as it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialog: Option<Dialog>,
}

/// What is typed into a program that asks at its terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialog {
    /// Ways to answer. The second is tried where the program ended by itself after the first, and refused; and so on.
    pub ways: Vec<Answers>,
    /// What the program says when it has done it. Without that, and one of the exit codes of success, it has not.
    pub says: String,
    /// How many seconds the program may take to ask, and to end after the last answer.
    pub patience_s: u64,
}

/// One way to answer a program's questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The names of the secrets that are typed, each when the program asks, in this order.
    pub secrets: Vec<String>,
    /// What it means that this way led to the end; empty where that is what was expected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub means: String,
}

fn default_ok() -> Vec<i32> {
    vec![0]
}

fn is_default_ok(ok: &Vec<i32>) -> bool {
    ok.as_slice() == [0]
}

/// A rule on one line of output. Of `starts_with` and `contains` at least one is not empty; where both are, both must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineRule {
    /// The line begins with this, after white space and a time of day (`11:57:51 > `) as nlserver puts before its lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub starts_with: String,
    /// The line has this somewhere in it, whatever it begins with (`PU-0007` of postupgrade).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contains: String,
    /// What such a line means, for the error text.
    pub means: String,
}

impl LineRule {
    /// Whether nothing is asked of a line. Such a rule would be about every line, so it is about none.
    pub fn is_empty(&self) -> bool {
        self.starts_with.trim().is_empty() && self.contains.trim().is_empty()
    }
}

/// The init system that owns a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceManager {
    /// Init scripts in this directory.
    Sysv(String),
    /// systemd.
    Systemd,
}

impl ServiceManager {
    fn argv(&self, name: &str, op: ServiceOp) -> Vec<String> {
        match self {
            Self::Sysv(dir) => vec![format!("{dir}/{name}"), op.word().to_owned()],
            Self::Systemd => vec!["systemctl".to_owned(), op.word().to_owned(), name.to_owned()],
        }
    }
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceOp {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Print its state.
    Status,
}

impl ServiceOp {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }
}

/// The package manager of an OS family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageManager {
    /// Debian family.
    Dpkg,
    /// RHEL family.
    Rpm,
}

impl PackageManager {
    fn install_argv(self, files: &[String]) -> Vec<String> {
        let verb: &[&str] = match self {
            Self::Dpkg => &["dpkg", "-i"],
            // Otherwise rpm refuses everything as soon as one of the files is installed already: after an attempt that was cut off.
            Self::Rpm => &["rpm", "-Uvh", "--replacepkgs"],
        };
        verb.iter().map(ToString::to_string).chain(files.iter().cloned()).collect()
    }

    fn remove_argv(self, names: &[String]) -> Vec<String> {
        let verb: &[&str] = match self {
            Self::Dpkg => &["dpkg", "--purge"],
            // An upgrade that was cut off leaves two versions of a package, which rpm refuses to remove otherwise.
            Self::Rpm => &["rpm", "-ev", "--allmatches"],
        };
        verb.iter().map(ToString::to_string).chain(names.iter().cloned()).collect()
    }

    /// How to ask for one package. Installed: exit code 0 and `WANT FLAG installed VERSION` on standard output, in dpkg's words
    /// (dpkg-query(1), `Status`: all versions of dpkg print it, while `db:Status-Status` came after Debian 7). Of several versions that
    /// are installed at once, rpm prints a line each.
    pub fn query_argv(self, name: &str) -> Vec<String> {
        let argv: &[&str] = match self {
            Self::Dpkg => &["dpkg-query", "-W", "-f=${Status} ${Version}", name],
            Self::Rpm => &["rpm", "-q", "--qf", "install ok installed %{VERSION}-%{RELEASE}\\n", name],
        };
        argv.iter().map(ToString::to_string).collect()
    }
}

/// One edit of an XML file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XmlEdit {
    /// The element's path from the root, `serverconf/shared/authentication`; a segment `*` matches any element.
    pub element: String,
    /// The attribute.
    pub attribute: String,
    /// What happens to it.
    pub change: XmlChange,
}

/// What happens to an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XmlChange {
    /// Give it this value, adding the attribute if it is missing.
    Set(String),
    /// As `set`; and where the element is missing, add it with this attribute as the last one inside its parent. That has to be there,
    /// once.
    Ensure(String),
    /// Give it this name. Nothing happens where it is missing.
    Rename(String),
    /// Give it the value that it has on the same element of another file of the host. The value is seen by nobody: this is how
    /// `internalPassword` comes along. Nothing happens where the other file has no such attribute.
    CopyFrom(String),
    /// Give it the name that it has on the same element of another file of the host. Nothing happens where that element does not have
    /// an attribute of this name: so a name that was changed for a while is changed back where it was changed, and nowhere else.
    NameAs {
        /// The name.
        name: String,
        /// The other file.
        file: String,
    },
}

/// How to see whether an effect is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Probe {
    /// A file or directory exists.
    Exists(String),
    /// Nothing exists under this name.
    Absent(String),
    /// A program's result is as expected. The program must change nothing.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// A shell file that is sourced first if it exists.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
        /// Exit code that is expected; any when left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// Each of these texts is in the output.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        contains: Vec<String>,
        /// None of these texts is in the output.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacks: Vec<String>,
    },
    /// All these packages are installed, in a version that contains `version`.
    PackagesInstalled {
        /// The package manager.
        manager: PackageManager,
        /// Package names.
        names: Vec<String>,
        /// A part of the version (the build number).
        version: String,
    },
    /// None of these packages is installed in a version that contains `version`.
    PackagesAbsent {
        /// The package manager.
        manager: PackageManager,
        /// Package names.
        names: Vec<String>,
    },
    /// No process runs whose executable lies under this directory.
    NoProcesses {
        /// The directory.
        under: String,
    },
    /// A file has this digest.
    Digest {
        /// The file.
        path: String,
        /// SHA-256, lower-case hex.
        sha256: String,
    },
    /// An archive is whole: it matches the `.sha256` file beside it.
    ArchiveIntact(String),
    /// Every file that the patterns select below `from` is below `to` with the same bytes.
    TreeCopied {
        /// The directory copied from.
        from: String,
        /// The directory copied into.
        to: String,
        /// Patterns as in [`Action::CopyTree`].
        include: Vec<String>,
    },
    /// An attribute of an XML file is as expected on every element that the path selects.
    Xml {
        /// The file. The last path segment can be a pattern with `*`: then it holds for every file that matches.
        file: String,
        /// The element's path.
        element: String,
        /// The attribute.
        attribute: String,
        /// The expected value. Left out: the attribute must be missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        equals: Option<String>,
    },
    /// An attribute has the same value on the same element of two files (both missing counts as the same).
    XmlSame {
        /// The file.
        file: String,
        /// The other file.
        other: String,
        /// The element's path.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// A text stands in none of these files, and in the name of no place that a symbolic link among them leads to. Those that do not
    /// exist are left out. A link to a file that has the text cannot be told about.
    TextReplaced {
        /// The files. The last path segment can be a pattern with `*`.
        files: Vec<String>,
        /// The text that must be gone.
        from: String,
        /// The text that came instead.
        to: String,
    },
    /// The newest file that matches a pattern contains a text.
    NewestFileContains {
        /// A path whose last segment can have `*`.
        file: String,
        /// The text.
        contains: String,
    },
    /// An HTTP GET answers 200 and each of these texts is in the body.
    Http {
        /// `http://HOST[:PORT]/PATH`.
        url: String,
        /// Texts.
        contains: Vec<String>,
    },
    /// All of them hold. An empty list looks at nothing: for steps that leave nothing of their own to see, whose effect a later step
    /// proves. It counts as proof where a step is only proven, and never as a sign that an earlier attempt did the work.
    All(Vec<Probe>),
}

impl Probe {
    /// Whether it looks at nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::All(probes) if probes.iter().all(Self::is_empty))
    }
}
