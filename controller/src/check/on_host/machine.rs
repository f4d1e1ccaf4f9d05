//! The machine below Campaign: its operating system, clock, disks and accounts.

use super::Checked;
use crate::check::compatibility::{Support, family, support};
use crate::check::finding::clean;
use inventory::InitSystem;
use proto::event::{Finding, Status};
use proto::inspect::{PathKind, ReadError, System};

/// Clocks may differ by this much before reports become hard to read.
const SKEW_WARNING_MS: u64 = 30_000;
/// Clocks may differ by this much before tokens and delivery schedules go wrong.
const SKEW_FAILURE_MS: u64 = 300_000;

impl Checked<'_> {
    /// The findings of these checks, which all rest on what the host says of itself.
    pub(super) fn machine(&self, checks: &[&'static str]) -> Vec<Finding> {
        let system = match self.reached.readings.system() {
            Ok(system) => system,
            Err(error) => return checks.iter().map(|check| self.subject.unread(check, "what the host is", &error)).collect(),
        };
        let finding = |check: &&'static str| match *check {
            "clock" => self.clock(system),
            "os-supported" => self.os_supported(system),
            "arch" => self.arch(system),
            _ => self.os_as_declared(system),
        };
        checks.iter().map(finding).collect()
    }

    fn os_as_declared(&self, system: &System) -> Finding {
        let check = "os-as-declared";
        let seen = format!(
            "{}, {}, kernel {}",
            clean(&system.os),
            if system.systemd { "systemd" } else { "no systemd" },
            clean(&system.kernel)
        );
        if system.os.is_empty() {
            return self.subject.finding(
                check,
                Status::Unknown,
                "the operating system cannot be told",
                seen,
                "Look at /etc/os-release on the host.",
            );
        }
        let fix = "Correct the inventory: packages and commands are chosen by it.";
        if let Some(declared) = &self.host.os
            && *declared != system.os
            && family(declared) != family(&system.os)
        {
            let message = format!("the inventory says {declared}, the host is {}", clean(&system.os));
            return self.subject.finding(check, Status::Failure, message, seen, fix);
        }
        match self.host.init {
            Some(InitSystem::Systemd) if !system.systemd => {
                self.subject.finding(check, Status::Failure, "the inventory says systemd, which does not run there", seen, fix)
            }
            Some(InitSystem::Sysv) if self.host.has_campaign() => match self.reached.readings.path(&self.host.init_scripts) {
                Ok(PathKind::Directory) => self.subject.ok(check, "operating system and init system as declared", seen),
                Ok(_) => {
                    let message = format!("there are no init scripts in {}", self.host.init_scripts);
                    self.subject.finding(
                        check,
                        Status::Failure,
                        message,
                        seen,
                        "Correct `init` or `init_scripts` in the inventory.",
                    )
                }
                Err(error) => self.subject.unread(check, &self.host.init_scripts, &error),
            },
            _ => self.subject.ok(check, "operating system and init system as declared", seen),
        }
    }

    fn os_supported(&self, system: &System) -> Finding {
        let check = "os-supported";
        let target = &self.host.target;
        let target = format!("v{} ({})", target.version, target.build);
        let os = clean(&system.os);
        let evidence = format!("{os}; target {target}");
        let remedy = "Move the server to a supported system first, or choose another target build.";
        let look = "Look into the vendor's compatibility matrix.";
        if os.is_empty() {
            let (message, seen) = ("which operating system it is cannot be told", format!("nothing; target {target}"));
            return self.subject.finding(check, Status::Unknown, message, seen, "Look at /etc/os-release on the host.");
        }
        match support(&system.os, &self.host.target.version) {
            Support::Yes => self.subject.ok(check, format!("{target} supports {os}"), evidence),
            Support::Rebuild => {
                let message = format!("{os} is built from RHEL, which {target} supports; the vendor does not name it");
                self.subject.finding(check, Status::Warning, message, evidence, look)
            }
            Support::No(why) => {
                self.subject.finding(check, Status::Failure, format!("{target} does not support {os}: {why}"), evidence, remedy)
            }
            Support::Unstated => self.subject.finding(
                check,
                Status::Warning,
                format!("whether {target} supports {os} is not known here"),
                evidence,
                look,
            ),
        }
    }

    fn arch(&self, system: &System) -> Finding {
        let arch = clean(&system.arch);
        if matches!(arch.as_str(), "x86_64" | "amd64") {
            return self.subject.ok("arch", "64-bit x86, as the vendor's packages need", arch);
        }
        let message = format!("the vendor's packages are for x86_64, the host is {arch}");
        self.subject.finding("arch", Status::Failure, message, "uname -m", "Migrate to a 64-bit x86 server.")
    }

    fn clock(&self, system: &System) -> Finding {
        let (early, late) = (self.reached.asked_ms, self.reached.answered_ms);
        // The host read its clock at some moment between the question and the answer.
        let skew = early.saturating_sub(system.clock_ms).max(system.clock_ms.saturating_sub(late));
        let status = match skew {
            _ if skew > SKEW_FAILURE_MS => Status::Failure,
            _ if skew > SKEW_WARNING_MS => Status::Warning,
            _ => {
                return self.subject.ok(
                    "clock",
                    "the clock agrees with this workstation's",
                    format!("off by {} s at most", skew / 1000),
                );
            }
        };
        let direction = if system.clock_ms < early { "behind" } else { "ahead" };
        let message = format!("the clock is {} {direction} this workstation's", duration(skew));
        self.subject.finding("clock", status, message, "asked over SSH", "Mend time synchronisation (NTP), on the host or here.")
    }

    pub(super) fn campaign_user(&self) -> Finding {
        let check = "campaign-user";
        let euid = self.reached.agent.euid;
        let home = &self.host.campaign.home;
        let user = &self.host.campaign.user;
        let owner = match self.reached.readings.output(&self.layout.owner()) {
            Ok((0, text)) => clean(text),
            Ok((code, text)) => {
                return self.subject.unread(check, home, &ReadError::Failed(format!("stat: exit {code}: {}", clean(text))));
            }
            Err(error) => return self.subject.unread(check, home, &error),
        };
        let (owner_id, owner_name) = owner.split_once(' ').unwrap_or((&owner, ""));
        let evidence = format!("the agent's uid is {euid}; {home} belongs to {owner_name} ({owner_id})");
        let failure = |message: String, remedy: &str| self.subject.finding(check, Status::Failure, message, &*evidence, remedy);
        if !self.host.has_root() {
            if euid == 0 && owner_id != "0" {
                return failure(
                    format!("the login account is root, which the inventory does not say: steps of {owner_name} would run as root"),
                    "Set `ssh.user: root`, or `become: { method: sudo }` with another login account.",
                );
            }
            if owner_id == euid.to_string() && euid != 0 {
                let message =
                    format!("{owner_name} owns the installation, and without `become` it has to remove and install packages too");
                let remedy =
                    "Set `become: { method: sudo }`, unless that account can do it: it would be seen when everything is stopped.";
                return self.subject.finding(check, Status::Warning, message, evidence, remedy);
            }
            if owner_id == euid.to_string() {
                return self.subject.ok(check, "the login account may change the installation", evidence);
            }
            return failure(
                format!("the login account does not own {home}, and `become` is `none`"),
                "Set `become: { method: sudo }`, or log in as the account that owns it.",
            );
        }
        if euid != 0 {
            return failure(
                "the agent did not become root".to_owned(),
                "Check `become` and `ssh.user` in the inventory, and the host's sudoers file.",
            );
        }
        match self.reached.readings.output(&self.layout.account()) {
            Ok((0, _)) if owner_name == user => {
                self.subject.ok(check, format!("root, and the account {user} owns the installation"), evidence)
            }
            Ok((0, _)) => {
                let message = format!("{home} does not belong to {user}");
                self.subject.finding(
                    check,
                    Status::Warning,
                    message,
                    evidence,
                    "Correct `campaign.user` in the inventory, or the directory's owner.",
                )
            }
            Ok((_, text)) => self.subject.finding(
                check,
                Status::Failure,
                format!("there is no account {user}"),
                format!("id -u: {}", clean(text)),
                "Correct `campaign.user` in the inventory.",
            ),
            Err(error) => self.subject.unread(check, &format!("the account {user}"), &error),
        }
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
