//! Backups that are kept off their hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which backups of a host are kept off it, and where. They are encrypted before they leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keep {
    /// Where they go.
    pub to: KeepAt,
    /// What is kept; nothing when empty.
    pub of: Vec<KeepOf>,
    /// The most bytes that it sends in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The public keys of age that they are encrypted to; at least one.
    pub encrypt_to: Vec<String>,
}

/// Where backups are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepAt {
    /// In the directory of the run on the workstation.
    Workstation,
    /// On another host of the fleet.
    Host {
        /// Its name.
        name: String,
        /// The directory there: `kept` in its `host_state`, where the inventory gives none.
        dir: String,
    },
}

/// A backup that can be kept off its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeepOf {
    /// The archive of the installation.
    Installation,
    /// The dumps of the databases that the host backs up.
    Database,
}
