//! What a run did, read from its events.

use proto::StepId;
use proto::event::{Event, Kind, Status};
use std::collections::{BTreeMap, BTreeSet};

/// What a run did, as far as a rollback has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Steps that were granted to be carried out, and not taken back before they began; gates that were shown to a person. How they
    /// ended does not matter: what may have been done has to be undone.
    pub granted: BTreeSet<StepId>,
    /// Steps that a person let through without proof.
    pub accepted: BTreeSet<StepId>,
    /// The digests of the files that it made as backups, by host and file, as their hosts told them.
    pub made: BTreeMap<(String, String), String>,
    /// Where encrypted copies of them are kept, by host and file: `workstation` or a host, and the file there.
    pub kept: BTreeMap<(String, String), (String, String)>,
    /// Hosts of which preflight saw that they had the latest build of the version in use: the inventory says which one that is.
    pub latest: BTreeSet<String>,
}

impl Done {
    /// Folds a run's events.
    pub fn of(events: &[Event]) -> Self {
        let mut done = Self::default();
        let mut began = BTreeSet::new();
        for event in events {
            let step = event.scope.step.as_ref().map(|step| StepId(step.clone()));
            match (&event.kind, step) {
                (Kind::StepGranted { prove: false, .. } | Kind::GateWaiting { .. }, Some(step)) => {
                    done.granted.insert(step);
                }
                (Kind::StepStarted, Some(step)) => {
                    began.insert(step);
                }
                // An attempt before this one may have done something all the same.
                (Kind::StepRevoked, Some(step)) if !began.contains(&step) => {
                    done.granted.remove(&step);
                }
                (Kind::Decision { decision, about, .. }, _) if decision == "acceptance" => {
                    done.accepted.insert(StepId(about.clone()));
                }
                (Kind::BackupMade { file, sha256, .. }, _) => {
                    done.made.insert((event.scope.host.clone().unwrap_or_default(), file.clone()), sha256.clone());
                }
                (Kind::BackupKept { source, to, file, .. }, _) => {
                    let whose = (event.scope.host.clone().unwrap_or_default(), source.clone());
                    done.kept.insert(whose, (to.clone(), file.clone()));
                }
                // Only preflight asks for the old version; verify asks for the new one, when nothing is left to be seen of the old.
                (Kind::Finding { finding }, _)
                    if finding.check == "version"
                        && finding.status == Status::Ok
                        && event.scope.phase.as_deref() == Some("preflight") =>
                {
                    done.latest.extend(finding.host.clone());
                }
                _ => {}
            }
        }
        done
    }
}
