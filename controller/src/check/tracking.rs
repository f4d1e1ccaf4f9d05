//! The tracking password of a tracking server: with an empty one tracking stops working in v7 (domain: prerequisite 5).
//! Looked at before anything is touched; the migration then carries it over as it is, and proves that.

use super::Point;
use super::finding::Subject;
use super::layout::{Layout, REDIRECTION};
use super::passwords::PasswordReading;
use super::readings::Reached;
use inventory::{Host, Platform, Role};
use proto::event::{Finding, Status};
use proto::inspect::{Query, ReadError};

/// The attribute of [`REDIRECTION`] that holds it.
const ATTRIBUTE: &str = "trackingPassword";

/// Asks whether one is set, by a keyed fingerprint: the value stays on its host. Nothing for a server that does no tracking.
pub(super) fn query(host: &Host) -> Option<Query> {
    host.roles.contains(&Role::Tracking).then(|| Query::Fingerprint {
        file: Layout::new(host, Point::Preflight).server_conf(),
        element: REDIRECTION.to_owned(),
        attribute: ATTRIBUTE.to_owned(),
    })
}

pub(super) fn evaluate(platform: &Platform, host: &Host, reached: &Reached) -> Option<Finding> {
    let check = "tracking-password";
    let query = query(host)?;
    let subject = Subject::host(platform, host);
    let evidence = format!("{ATTRIBUTE} of <{REDIRECTION}> in serverConf.xml");
    Some(match reached.readings.password(&query) {
        PasswordReading::Stored(_) => subject.ok(check, "the tracking password is set", evidence),
        PasswordReading::Unset => subject.finding(
            check,
            Status::Failure,
            "the tracking password is not set",
            format!("{evidence} is empty or missing"),
            "Set the same one on the tracking servers and on the marketing server: tracking stops working with an empty one.",
        ),
        PasswordReading::Unreadable(_) | PasswordReading::Unreachable => {
            let error = reached.readings.get(&query).err();
            let error = error.unwrap_or_else(|| ReadError::Failed("the agent's answer is no fingerprint".to_owned()));
            subject.unread(check, "the tracking password", &error)
        }
    })
}
