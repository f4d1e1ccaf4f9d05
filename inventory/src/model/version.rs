//! What is installed before, and what shall be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version that is installed before the migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// `5.11`, `6.02`, `6.1`; `7` for an upgrade to a later build of v7.
    pub version: SourceVersion,
    /// The latest build of that version, which must be installed before migrating (prerequisite 1).
    pub latest_build: Option<u32>,
    /// Its packages, needed to go back.
    pub packages: Vec<Package>,
}

/// A version that Caravan migrates from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceVersion {
    /// v5.11.
    #[serde(rename = "5.11")]
    V5_11,
    /// v6.02.
    #[serde(rename = "6.02")]
    V6_02,
    /// v6.1.
    #[serde(rename = "6.1")]
    V6_1,
    /// v7: an upgrade to a later build of it.
    #[serde(rename = "7")]
    V7,
}

impl SourceVersion {
    /// The version as the inventory writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V5_11 => "5.11",
            Self::V6_02 => "6.02",
            Self::V6_1 => "6.1",
            Self::V7 => "7",
        }
    }

    /// The directory of an installation below `campaign.home`: v5 lives in `nl5`, every other version in `nl6`.
    pub fn tree(self) -> &'static str {
        if self == Self::V5_11 { "nl5" } else { "nl6" }
    }
}

/// The version that shall be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Version (`7.4.1`).
    pub version: String,
    /// Build number (`9383`).
    pub build: u32,
    /// Its packages, one or more for each OS of the fleet.
    pub packages: Vec<Package>,
    /// The setup program of the client console, which application servers offer to their users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Package>,
}

/// A package file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// The OS it is for (`debian-11`).
    pub os: String,
    /// Where it is.
    pub location: Location,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Names of the packages that the file installs (`nlserver6-v7`), where the inventory gives them.
    pub names: Vec<String>,
}

/// Where a package file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// On the workstation; relative paths start at the inventory's directory.
    Path(String),
    /// Downloaded by each host.
    Url(String),
}

impl Location {
    /// The file's own name.
    pub fn file_name(&self) -> &str {
        let (Self::Path(text) | Self::Url(text)) = self;
        text.rsplit(['/', '\\']).next().unwrap_or(text)
    }
}
