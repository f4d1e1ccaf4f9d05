//! Files of the workstation: packages that a plan sends to hosts, copies that are kept.

use super::error::PlanError;
use super::model::PlannedFile;
use inventory::{Fleet, Location, Package};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// What is done about package files of the workstation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCheck {
    /// Each must be there: for a plan that is carried out.
    Required,
    /// A missing one is a warning: for a plan that is only shown.
    Optional,
}

/// The files with their sizes.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<String, PlannedFile>);

impl Files {
    /// Looks at every package file that a host of the fleet may be sent.
    pub(super) fn look(fleet: &Fleet, check: FileCheck, errors: &mut Vec<PlanError>, warnings: &mut Vec<String>) -> Self {
        let mut files = BTreeMap::new();
        let hosts =
            fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| host.has_campaign() && !host.is_windows());
        for package in hosts.flat_map(|host| host.target.packages.iter().chain(&host.source.packages).chain(&host.target.client)) {
            let Location::Path(path) = &package.location else { continue };
            if files.contains_key(path) {
                continue;
            }
            let size = match size(&fleet.base.join(path)) {
                Ok(size) => size,
                Err(seen) => {
                    match check {
                        FileCheck::Required => errors.push(PlanError::PackageFile { path: path.clone(), seen }),
                        FileCheck::Optional => warnings.push(format!("package file {path}: {seen}. `migrate` needs it.")),
                    }
                    0
                }
            };
            files.insert(path.clone(), PlannedFile { sha256: package.sha256.clone(), path: path.clone(), size });
        }
        Self(files)
    }

    /// The size of a package file; zero for one that is downloaded or missing.
    pub(super) fn size(&self, package: &Package) -> u64 {
        match &package.location {
            Location::Path(path) => self.0.get(path).map_or(0, |file| file.size),
            Location::Url(_) => 0,
        }
    }

    /// The files that were really planned, by digest.
    pub(super) fn planned(self, digests: &[&str]) -> Vec<PlannedFile> {
        let mut files: Vec<PlannedFile> = self.0.into_values().filter(|file| digests.contains(&file.sha256.as_str())).collect();
        files.sort_by(|a, b| a.sha256.cmp(&b.sha256));
        files.dedup_by(|a, b| a.sha256 == b.sha256);
        files
    }
}

/// Whether a text can be the name of a copy that is kept: that of one file, so that it leads to no other place.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    one && !name.starts_with('.') && !name.contains(char::is_control)
}

/// The size of a file, or why it cannot be had.
fn size(path: &Path) -> Result<u64, String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        Ok(_) => Err("is not a file".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("does not exist".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
