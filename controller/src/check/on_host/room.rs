//! How much room a host needs on its disks for what is to come, and whether it has it.

use super::Checked;
use crate::check::Point;
use crate::check::finding::clean;
use crate::check::layout::{Layout, output};
use crate::plan::PlannedStep;
use inventory::{Host, KeepOf, SourceVersion};
use proto::event::{Finding, Status};
use proto::inspect::ReadError;
use proto::{Action, Query};

const MIB: u64 = 1024 * 1024;
/// Free space wanted at `campaign.home`: the new packages unpacked, copies of `var` and `customers`, and a compressed archive of the
/// old tree. How large the old tree is is asked only where all of it is copied, since counting it can take minutes on a busy disk; twice
/// this is comfortable.
const HOME_MIB: u64 = 1024;
/// Free space wanted there besides, where an encrypted copy of the archive is made to be kept off the host.
const COPY_MIB: u64 = 512;
/// Free space wanted at `host_state`: the agent, package files of about 63 MB (domain: procedure step 4), kept output.
const STATE_MIB: u64 = 256;
/// Free space wanted where nothing large is to come any more: logs, kept output.
const LITTLE_MIB: u64 = 64;
/// Free inodes wanted at both.
const INODES: u64 = 10_000;
/// How much smaller than a tree its compressed archive is at least, as a rule.
const COMPRESSION: u64 = 2;

/// What a host needs.
pub(super) struct Room<'a> {
    host: &'a Host,
    /// MiB at `campaign.home`, besides a copy; nothing on a host without Campaign.
    home: Option<u64>,
    /// MiB at `host_state`.
    state: u64,
    /// The installation, where all of it will be copied at `campaign.home`, and whether an archive of it will be made there.
    copied: Option<(String, bool)>,
}

impl<'a> Room<'a> {
    /// Before anything is touched.
    pub(super) fn preflight(host: &'a Host) -> Self {
        let tree = Layout::new(host, Point::Preflight).tree();
        // A build upgrade is laid over a copy (runbook: restore.tree), the old tree and its archive stay beside it.
        let copied = (host.has_campaign() && host.source.version == SourceVersion::V7).then_some((tree, true));
        let kept = host.keep.as_ref().is_some_and(|keep| keep.of.contains(&KeepOf::Installation));
        let home = HOME_MIB + if kept { COPY_MIB } else { 0 };
        Self { host, home: host.has_campaign().then_some(home), state: STATE_MIB, copied }
    }

    /// In the middle of a migration, for these steps of the platform.
    pub(super) fn left(host: &'a Host, left: &[&PlannedStep]) -> Self {
        let actions = || left.iter().filter(|step| step.host == host.name).map(|step| &step.spec.action);
        let is_large =
            |action: &Action| matches!(action, Action::CopyTree { .. } | Action::Archive { .. } | Action::InstallPackages { .. });
        let is_sent = |action: &Action| matches!(action, Action::PushFile { .. } | Action::Download { .. });
        let needs = |some: bool, mib: u64| if some { mib } else { LITTLE_MIB };
        let back = Layout::new(host, Point::Preflight).back();
        let copy = actions().find_map(|action| match action {
            Action::CopyTree { from, include, .. } if *from == back && include.iter().any(|all| all == "**") => Some(from.clone()),
            _ => None,
        });
        let copied = copy.map(|back| {
            // It may not have been moved to where it is copied from.
            let moved = actions().find_map(|action| match action {
                Action::MoveTree { from, to } if *to == back => Some(from.clone()),
                _ => None,
            });
            (moved.unwrap_or(back), actions().any(|action| matches!(action, Action::Archive { .. })))
        });
        let kept = actions().any(|action| matches!(action, Action::Keep { .. }));
        let copies = if kept { COPY_MIB } else { 0 };
        Self {
            host,
            home: host.has_campaign().then(|| needs(actions().any(is_large), HOME_MIB) + copies),
            state: needs(actions().any(is_sent), STATE_MIB),
            copied,
        }
    }

    /// What is asked to know it.
    pub(super) fn queries(&self) -> Vec<Query> {
        let home = self.home.map(|_| self.host.campaign.home.clone());
        let spaces = home.into_iter().chain([self.host.host_state.clone()]).map(|path| Query::Space { path });
        spaces.chain(self.copied.as_ref().map(|(tree, _)| size(tree))).collect()
    }
}

/// What is asked in preflight.
pub(in crate::check) fn queries(host: &Host) -> Vec<Query> {
    Room::preflight(host).queries()
}

/// How large a tree is, in KiB, on its own file system.
fn size(tree: &str) -> Query {
    output(&["du", "-skx", tree])
}

impl Checked<'_> {
    pub(super) fn disk(&self, room: &Room<'_>) -> Finding {
        let check = "disk";
        let (mut copy, mut counted) = (0, String::new());
        if let Some((tree, archive)) = &room.copied {
            let mib = match self.size(tree) {
                Ok(mib) => mib,
                Err(error) => return self.subject.unread(check, &format!("how large {tree} is"), &error),
            };
            let archived = if *archive { mib.div_ceil(COMPRESSION) } else { 0 };
            copy = mib + archived;
            let archive = if *archive { format!(", {archived} MiB for its archive") } else { String::new() };
            let rest = room.home.unwrap_or_default();
            counted = format!(
                "needed: {mib} MiB for a copy of {tree}{archive}, {rest} MiB for packages and the rest: {} MiB",
                copy + rest
            );
        }
        let mut wanted = vec![(&self.host.host_state, room.state, 0)];
        wanted.extend(room.home.map(|mib| (&self.host.campaign.home, mib, copy)));
        wanted.reverse();
        let (mut worst, mut problems, mut seen) = (Status::Ok, Vec::new(), Vec::new());
        for (path, mib, copy) in wanted {
            let (free, inodes) = match self.reached.readings.space(path) {
                Ok(space) => space,
                Err(error) => return self.subject.unread(check, &format!("free space at {path}"), &error),
            };
            let free = free / MIB;
            seen.push(format!("{path}: {free} MiB"));
            let few = inodes > 0 && inodes < INODES;
            let status = match free {
                _ if free < copy + mib || few => Status::Failure,
                _ if free < copy + 2 * mib => Status::Warning,
                _ => continue,
            };
            worst = worst.max(status);
            let what = if free < copy + 2 * mib { format!("{} MiB", copy + mib) } else { format!("{INODES} inodes") };
            problems.push(format!("{path} needs at least {what} free"));
        }
        let mut seen = seen.join("; ");
        if !counted.is_empty() {
            seen = format!("{seen}; {counted}");
        }
        if problems.is_empty() {
            return self.subject.ok(check, "enough free space", seen);
        }
        let remedy = "Free space there, or move it: a migration that fills a disk stops half-way.";
        self.subject.finding(check, worst, problems.join("; "), format!("free: {seen}"), remedy)
    }

    /// MiB of a tree.
    fn size(&self, tree: &str) -> Result<u64, ReadError> {
        let (_, text) = self.reached.readings.output(&size(tree))?;
        // `du` prints the size of what it could read even where it could not read all of it, and then its exit code is not 0: files that
        // come and go while it counts are no reason to know nothing.
        let kib = text.lines().rev().find_map(|line| {
            let (size, path) = line.split_once('\t')?;
            (path == tree).then(|| size.trim().parse::<u64>().ok()).flatten()
        });
        kib.map(|kib| kib.div_ceil(1024)).ok_or_else(|| ReadError::Failed(format!("du: {}", clean(text))))
    }
}
