//! How to see whether the effect of a step is there.

use super::PackageManager;
use serde::{Deserialize, Serialize};

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
