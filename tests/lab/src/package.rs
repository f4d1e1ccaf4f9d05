//! Package files: real files with a manifest, a payload and a digest over it, so that a file that was cut short on its way is
//! noticed on the host as a real package manager does.

use crate::layout::Family;
use crate::spec::Release;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

const MAGIC: &[u8] = b"lab-package 1\n";

/// Payload of a package in bytes: enough for several frames of a transfer.
const PAYLOAD: usize = 96 * 1024;

/// What is in a package file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The family it is for.
    pub(crate) family: Family,
    /// The packages that it installs.
    pub(crate) names: Vec<String>,
    /// Version and build.
    pub(crate) release: Release,
    /// SHA-256 of the payload, lower-case hex.
    payload_sha256: String,
}

/// Lower-case hex of a SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a package file.
pub(crate) fn content(family: Family, names: &[&str], release: &Release) -> io::Result<Vec<u8>> {
    let mut payload = Vec::with_capacity(PAYLOAD + 32);
    let mut block = Sha256::digest(format!("{family:?} {names:?} {release:?}"));
    while payload.len() < PAYLOAD {
        payload.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    let names = names.iter().map(ToString::to_string).collect();
    let manifest = Manifest { family, names, release: release.clone(), payload_sha256: sha256(&payload) };
    let mut content = MAGIC.to_vec();
    serde_json::to_writer(&mut content, &manifest)?;
    content.push(b'\n');
    content.extend_from_slice(&payload);
    Ok(content)
}

/// Reads and checks a package file.
///
/// # Errors
/// A text as a package manager would print it, without the file's name.
pub(crate) fn read(path: &Path) -> Result<Manifest, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot access archive: {error}"))?;
    let not_one = || "is not a package".to_owned();
    let rest = content.strip_prefix(MAGIC).ok_or_else(not_one)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(not_one)?;
    let (manifest, payload) = rest.split_at(end);
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|_| not_one())?;
    if sha256(payload.get(1..).unwrap_or_default()) != manifest.payload_sha256 {
        return Err("unexpected end of file in archive member data.tar.xz".into());
    }
    Ok(manifest)
}

/// The names of the packages of a version (domain, procedure steps 3 and 4).
pub(crate) fn names(release: &Release) -> &'static [&'static str] {
    match () {
        () if release.is_v7() => &["nlserver6-v7"],
        () if release.is_v5() => &["nlserver5", "nlthirdparty5"],
        () => &["nlserver6", "nlthirdparty6"],
    }
}

/// The file name of a package, as the vendor names them.
pub(crate) fn file_name(family: Family, name: &str, build: u32) -> String {
    match family {
        Family::Debian => format!("{name}-{build}-amd64.deb"),
        Family::Rhel => format!("{name}-{build}-0.x86_64.rpm"),
    }
}
