//! The prerequisites of one host.

mod campaign;
mod machine;
mod room;

pub(super) use room::queries as space_queries;

use super::Point;
use super::finding::{Subject, clean};
use super::layout::Layout;
use super::readings::{HostState, Reached, Unreached};
use super::tracking;
use crate::plan::PlannedStep;
use inventory::{Host, Platform};
use proto::Query;
use proto::event::{Finding, Status};

pub(super) fn evaluate(platform: &Platform, host: &Host, state: Option<&HostState>, when: Point) -> Vec<Finding> {
    let subject = Subject::host(platform, host);
    if when == Point::Verify && !host.has_campaign() {
        return Vec::new();
    }
    if host.is_windows() {
        return vec![subject.finding(
            "windows",
            Status::Warning,
            "a Windows host: nothing is checked from here",
            "`os` in the inventory",
            "Look at the prerequisites by hand. Its steps are gates with the vendor's commands.",
        )];
    }
    match state {
        Some(HostState::Reached(reached)) => {
            Checked { subject, platform, host, reached, layout: Layout::new(host, when) }.all(when)
        }
        Some(HostState::Unreachable { reason, kind }) => vec![unreachable(subject, *kind, reason)],
        None => vec![unreachable(subject, Unreached::NotAsked, "nothing is known of it")],
    }
}

/// What is asked of a host in the middle of a migration, see [`super::again`].
pub(super) fn queries_again(host: &Host, left: &[&PlannedStep]) -> Vec<Query> {
    let layout = Layout::new(host, Point::Preflight);
    let mut queries = vec![Query::System];
    if host.has_campaign() {
        queries.extend([Query::Path { path: host.init_scripts.clone() }, layout.owner()]);
        if host.has_root() {
            queries.push(layout.account());
        }
    }
    queries.extend(room::Room::left(host, left).queries());
    queries
}

/// The findings about a host in the middle of a migration, see [`super::again`].
pub(super) fn evaluate_again(platform: &Platform, host: &Host, state: Option<&HostState>, left: &[&PlannedStep]) -> Vec<Finding> {
    let subject = Subject::host(platform, host);
    let reached = match state {
        Some(HostState::Reached(reached)) => reached,
        Some(HostState::Unreachable { reason, kind }) => return vec![unreachable(subject, *kind, reason)],
        None => return vec![unreachable(subject, Unreached::NotAsked, "nothing is known of it")],
    };
    let checked = Checked { subject, platform, host, reached, layout: Layout::new(host, Point::Preflight) };
    let mut findings = vec![checked.reachable()];
    findings.extend(checked.machine(&["os-as-declared", "clock"]));
    if host.has_campaign() {
        findings.push(checked.campaign_user());
    }
    findings.push(checked.disk(&room::Room::left(host, left)));
    findings
}

fn unreachable(subject: Subject<'_>, kind: Unreached, reason: &str) -> Finding {
    let (message, remedy) = match kind {
        Unreached::Network => {
            ("cannot be reached", "Check `address`, `ssh.port` and `ssh.jump` in the inventory, and the line to it.")
        }
        Unreached::HostKey => {
            ("its host key is not trusted", "Compare it with a key from a source you trust, then `caravan hosts trust`.")
        }
        Unreached::Authentication => {
            ("refuses the login", "Check `ssh.user` and `ssh.identity` in the inventory, and the ssh-agent.")
        }
        Unreached::Become => ("root cannot be had", "Check `become` in the inventory, and the host's sudoers file."),
        Unreached::Agent => ("the agent does not work there", "Do what the evidence says, then run `caravan check` again."),
        Unreached::Lost => ("the connection was lost", "Check the line to it, then try again."),
        Unreached::TimedOut => ("did not answer in time", "Look at its load and at the line to it, then try again."),
        Unreached::NotAsked => ("was not asked", "Run the check on the whole platform."),
    };
    subject.finding("reachable", Status::Failure, message, reason, remedy)
}

/// A host that answered.
struct Checked<'a> {
    subject: Subject<'a>,
    platform: &'a Platform,
    host: &'a Host,
    reached: &'a Reached,
    layout: Layout<'a>,
}

impl Checked<'_> {
    fn reachable(&self) -> Finding {
        let agent = &self.reached.agent;
        self.subject.ok("reachable", "reached", format!("agent {} as {}", agent.version, clean(&agent.user)))
    }

    /// A warning where the connection is one that somebody could read or change some day: what is sent over it are passwords.
    fn outdated(&self) -> Option<Finding> {
        let outdated = &self.reached.agent.outdated;
        (!outdated.is_empty()).then(|| {
            self.subject.finding(
                "ssh-legacy",
                Status::Warning,
                "the SSH connection uses outdated algorithms",
                clean(&outdated.join(", ")),
                "Bring its SSH server up to date, or use a network that nobody else is in. Then take `ssh.legacy` out of the inventory.",
            )
        })
    }

    fn all(&self, when: Point) -> Vec<Finding> {
        let mut findings = vec![self.reachable()];
        match when {
            Point::Preflight => {
                findings.extend(self.outdated());
                let of_campaign: &[&str] = if self.host.has_campaign() { &["os-supported", "arch"] } else { &[] };
                findings.extend(self.machine(&["os-as-declared", "clock"]));
                findings.extend(self.machine(of_campaign));
                if self.host.has_campaign() {
                    findings.push(self.version());
                    findings.extend(self.running());
                    findings.push(self.packages_old());
                    findings.push(self.instance_config());
                    findings.push(self.back_tree_absent());
                    findings.push(self.campaign_user());
                    findings.extend(tracking::evaluate(self.platform, self.host, self.reached));
                }
                findings.push(self.disk(&room::Room::preflight(self.host)));
            }
            // A plan proves the build by a step of its own, and asks only for the password again.
            Point::Verify if self.reached.readings.asked(&self.layout.pdump()) => findings.push(self.new_version()),
            Point::Verify | Point::BeforeRestart => {}
        }
        findings
    }
}
