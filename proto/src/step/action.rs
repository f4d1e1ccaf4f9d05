//! What a step does.

use super::{Command, PackageManager, ServiceManager, ServiceOp};
use serde::{Deserialize, Serialize};

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
