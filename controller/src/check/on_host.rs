//! The prerequisites of one host.

use super::Point;
use super::banner::{Banner, modules};
use super::compatibility::{Support, family, support};
use super::finding::{Subject, clean};
use super::layout::{Layout, instance_of};
use super::readings::{HostState, Reached, Unreached};
use inventory::{BecomeMethod, Host, InitSystem, InstanceKind, Platform, Role};
use proto::event::{Finding, Status};
use proto::inspect::{PathKind, ReadError, System};
use std::collections::BTreeSet;

const MIB: u64 = 1024 * 1024;
/// Free space wanted at `campaign.home`: the new packages unpacked, copies of `var` and `customers`, and a compressed archive of the
/// old tree. How large the old tree is is not asked, since counting it takes minutes on a busy disk; twice this is comfortable.
const HOME_MIB: u64 = 1024;
/// Free space wanted at `host_state`: the agent, package files of about 63 MB (domain: procedure step 4), kept output.
const STATE_MIB: u64 = 256;
/// Free inodes wanted at both.
const INODES: u64 = 10_000;
/// Clocks may differ by this much before reports become hard to read.
const SKEW_WARNING_MS: u64 = 30_000;
/// Clocks may differ by this much before tokens and delivery schedules go wrong.
const SKEW_FAILURE_MS: u64 = 300_000;

pub(super) fn evaluate(platform: &Platform, host: &Host, state: Option<&HostState>, when: Point) -> Vec<Finding> {
    let subject = Subject::host(platform, host);
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
        Unreached::Agent => ("the agent does not work there", "Look at the host's free space, and at mounts without exec."),
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
    fn all(&self, when: Point) -> Vec<Finding> {
        let agent = &self.reached.agent;
        let mut findings =
            vec![self.subject.ok("reachable", "reached", format!("agent {} as {}", agent.version, clean(&agent.user)))];
        match when {
            Point::Preflight => {
                match self.reached.readings.system() {
                    Ok(system) => findings.extend(self.system(system)),
                    Err(error) => findings.push(self.subject.unread("os-as-declared", "the operating system", &error)),
                }
                if self.host.has_campaign() {
                    findings.push(self.version());
                    findings.extend(self.running());
                    findings.push(self.packages_old());
                    findings.push(self.instance_config());
                    findings.push(self.back_tree_absent());
                    findings.push(self.campaign_user());
                }
                findings.push(self.disk());
            }
            Point::Verify if self.host.has_campaign() => findings.push(self.new_version()),
            Point::Verify => {}
        }
        findings
    }

    fn system(&self, system: &System) -> Vec<Finding> {
        let mut findings = vec![self.os_as_declared(system), self.clock(system)];
        if self.host.has_campaign() {
            findings.extend([self.os_supported(system), self.arch(system)]);
        }
        findings
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

    /// What `nlserver pdump` says of itself; otherwise the finding that says why it is not known.
    fn banner(&self) -> Result<(Banner, &str), Finding> {
        let check = "version";
        let (code, text) = match self.reached.readings.output(&self.layout.pdump()) {
            Ok(output) => output,
            Err(ReadError::Missing(_)) => {
                let message = format!("no Campaign installation in {}", self.layout.tree());
                let remedy = "Correct `campaign.home` or `source.version` in the inventory, or the host's roles.";
                return Err(self.subject.finding(
                    check,
                    Status::Failure,
                    message,
                    format!("{} is not there", self.layout.program()),
                    remedy,
                ));
            }
            Err(error) => return Err(self.subject.unread(check, "the version", &error)),
        };
        match Banner::parse(text) {
            Some(banner) => Ok((banner, text)),
            None => {
                let seen = format!("exit {code}: {}", clean(text.lines().next().unwrap_or("no output")));
                let remedy = "Run `nlserver pdump` there as the Campaign account and look at what it says.";
                Err(self.subject.finding(check, Status::Unknown, "`nlserver pdump` does not say the version", seen, remedy))
            }
        }
    }

    fn version(&self) -> Finding {
        let check = "version";
        let (banner, _) = match self.banner() {
            Ok(found) => found,
            Err(finding) => return finding,
        };
        let (source, target) = (&self.host.source, &self.host.target);
        let Banner { version, build } = &banner;
        let evidence = format!("nlserver pdump: {version} (build {build})");
        let failure = |message: String, remedy: &str| self.subject.finding(check, Status::Failure, message, &*evidence, remedy);
        let warning = |message: String, remedy: &str| self.subject.finding(check, Status::Warning, message, &*evidence, remedy);
        if *build == target.build {
            let remedy =
                "Nothing is left to migrate there. Take the host out of the inventory, or finish the run that migrated it.";
            return failure(format!("it is at the target build {build} already"), remedy);
        }
        if !is_version(version, source.version.as_str()) {
            let message = format!("the inventory says v{}, installed is {version} ({build})", source.version.as_str());
            return failure(message, "Correct `source.version` in the inventory: the procedure depends on it.");
        }
        match source.latest_build {
            None => warning(
                format!("build {build}; the inventory does not say the latest build of v{}", source.version.as_str()),
                "Look up the latest build, set `source.latest_build`: it must be installed before migrating.",
            ),
            Some(latest) if *build < latest => failure(
                format!("build {build} is not the latest of v{} ({latest})", source.version.as_str()),
                "Install the latest build of the version in use first, on every server of the platform.",
            ),
            Some(latest) if *build > latest => warning(
                format!("build {build} is newer than the inventory's latest build {latest}"),
                "Correct `source.latest_build` in the inventory.",
            ),
            Some(_) => self.subject.ok(check, format!("v{}, latest build {build}", source.version.as_str()), evidence),
        }
    }

    fn new_version(&self) -> Finding {
        let (Banner { version, build }, _) = match self.banner() {
            Ok(found) => found,
            Err(finding) => return finding,
        };
        let evidence = format!("nlserver pdump: {version} (build {build})");
        let target = &self.host.target;
        if build == target.build {
            return self.subject.ok("version", format!("v{}, build {build}", target.version), evidence);
        }
        let message = format!("build {build} is installed, {} was to be", target.build);
        self.subject.finding(
            "version",
            Status::Failure,
            message,
            evidence,
            "Look at the output of `install.packages` of this host.",
        )
    }

    /// For the reader only: what the application server runs before it is stopped.
    fn running(&self) -> Option<Finding> {
        let application = [Role::Marketing, Role::MidSourcing, Role::PowerBooster, Role::PowerCluster];
        if !self.host.roles.iter().any(|role| application.contains(role)) {
            return None;
        }
        let (_, text) = self.banner().ok()?;
        let modules = modules(text);
        let message = if modules.is_empty() { "no module is running" } else { "modules are running; they will be stopped" };
        let names: BTreeSet<String> = modules.into_iter().map(clean).collect();
        Some(self.subject.ok("running", message, format!("nlserver pdump: {}", join(&names, "No tasks"))))
    }

    fn packages_old(&self) -> Finding {
        let check = "packages-old";
        // Where the OS is not declared both managers were asked, and one of them is not there.
        let mut answers: Vec<_> = self.layout.packages().iter().map(|query| self.reached.readings.packages(query)).collect();
        answers.sort_by_key(|answer| answer.as_ref().map_or(1, |packages| usize::from(packages.is_empty())));
        let installed = match answers.into_iter().next() {
            Some(Ok(installed)) => installed,
            Some(Err(error)) => return self.subject.unread(check, "the package manager's list", &error),
            None => {
                return self.subject.unread(
                    check,
                    "the package manager's list",
                    &ReadError::Failed("nothing was asked".to_owned()),
                );
            }
        };
        let list = installed.iter().map(|(name, version)| clean(&format!("{name} {version}"))).collect();
        let evidence = format!("installed: {}", join(&list, "none of them"));
        let is_installed = |name: &String| installed.iter().any(|(found, _)| found == name);
        let (old, new) = (self.layout.old_packages(), self.layout.new_packages());
        if let Some(name) = new.iter().find(|name| !old.contains(name) && is_installed(name)) {
            let message = format!("the v7 package {name} is installed already");
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Look at what was begun there, and remove it or finish it.",
            );
        }
        let missing: BTreeSet<String> = old.iter().filter(|name| !is_installed(name)).cloned().collect();
        let remedy =
            "Say in `source.packages[].names` what is installed there: it has to be removed, and put back when going back.";
        if missing.is_empty() {
            self.subject.ok(check, "the packages to replace are installed", evidence)
        } else {
            let status = if missing.len() == old.len() { Status::Failure } else { Status::Warning };
            self.subject.finding(check, status, format!("not installed: {}", join(&missing, "")), evidence, remedy)
        }
    }

    fn instance_config(&self) -> Finding {
        let check = "instance-config";
        let files = match self.reached.readings.xml(&self.layout.instance_list()) {
            Ok(values) => values,
            Err(ReadError::Missing(_)) => &[],
            Err(error) => return self.subject.unread(check, "conf/config-*.xml", &error),
        };
        let present: BTreeSet<String> = files.iter().filter_map(|value| instance_of(&value.file)).map(clean).collect();
        let known: BTreeSet<String> = self.platform.instances.iter().map(|instance| instance.name.clone()).collect();
        let evidence = format!("instances configured there: {}", join(&present, "none"));
        let missing: BTreeSet<String> = self.expected_instances().difference(&present).cloned().collect();
        if !missing.is_empty() {
            let message = format!("no config-<instance>.xml for {}", join(&missing, ""));
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Correct `instances` in the inventory, or the host's configuration.",
            );
        }
        // A mail server carries the instances it delivers for; which ones, the inventory does not say.
        if self.host.roles.contains(&Role::Mta) && present.is_disjoint(&known) {
            let message = "a mail server without the configuration of any instance";
            return self.subject.finding(
                check,
                Status::Failure,
                message,
                evidence,
                "Correct `instances` or the host's roles in the inventory.",
            );
        }
        let strange: BTreeSet<String> = present.difference(&known).cloned().collect();
        if !strange.is_empty() {
            let message = format!("instances that the inventory does not name: {}", join(&strange, ""));
            let remedy = "Add them to `instances`: nobody runs their postupgrade otherwise. Or remove what is no longer used.";
            return self.subject.finding(check, Status::Warning, message, evidence, remedy);
        }
        self.subject.ok(check, "instances as declared", evidence)
    }

    /// Instances that must be configured here: those whose application server it is, and on every marketing server the marketing ones.
    fn expected_instances(&self) -> BTreeSet<String> {
        let marketing = self.host.roles.contains(&Role::Marketing);
        let here = |instance: &&inventory::Instance| {
            instance.app == self.host.name || (marketing && instance.kind == InstanceKind::Marketing)
        };
        self.platform.instances.iter().filter(here).map(|instance| instance.name.clone()).collect()
    }

    fn back_tree_absent(&self) -> Finding {
        let check = "back-tree-absent";
        let back = self.layout.back();
        match self.reached.readings.path(&back) {
            Ok(PathKind::Absent) | Err(ReadError::Missing(_)) => {
                self.subject.ok(check, "the name of the backup tree is free", back)
            }
            Ok(_) => {
                let remedy = "It is left from an earlier migration. Make sure that nobody needs it, then move it away.";
                self.subject.finding(
                    check,
                    Status::Failure,
                    format!("{back} exists already"),
                    "the backup step moves the installation there",
                    remedy,
                )
            }
            Err(error) => self.subject.unread(check, &back, &error),
        }
    }

    fn disk(&self) -> Finding {
        let check = "disk";
        let mut wanted = vec![(&self.host.host_state, STATE_MIB)];
        if self.host.has_campaign() {
            wanted.insert(0, (&self.host.campaign.home, HOME_MIB));
        }
        let (mut worst, mut problems, mut seen) = (Status::Ok, Vec::new(), Vec::new());
        for (path, mib) in wanted {
            let (free, inodes) = match self.reached.readings.space(path) {
                Ok(space) => space,
                Err(error) => return self.subject.unread(check, &format!("free space at {path}"), &error),
            };
            let free = free / MIB;
            seen.push(format!("{path}: {free} MiB"));
            let status = match free {
                _ if free < mib || (inodes > 0 && inodes < INODES) => Status::Failure,
                _ if free < 2 * mib => Status::Warning,
                _ => continue,
            };
            worst = worst.max(status);
            let what = if free < 2 * mib { format!("{mib} MiB") } else { format!("{INODES} inodes") };
            problems.push(format!("{path} needs at least {what} free"));
        }
        if problems.is_empty() {
            return self.subject.ok(check, "enough free space", seen.join("; "));
        }
        let remedy = "Free space there, or move it: a migration that fills a disk stops half-way.";
        self.subject.finding(check, worst, problems.join("; "), format!("free: {}", seen.join("; ")), remedy)
    }

    fn campaign_user(&self) -> Finding {
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
        if self.host.become_.method == BecomeMethod::None {
            if euid == 0 || owner_id == euid.to_string() {
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
                "Check `become` in the inventory, and the host's sudoers file.",
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

/// Whether a banner's version is of a release line: `6.1` and `6.1.1` are of `6.1`, `6.11` is not.
fn is_version(found: &str, line: &str) -> bool {
    found.strip_prefix(line).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn join(names: &BTreeSet<String>, none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.iter().map(String::as_str).collect::<Vec<_>>().join(", ") }
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
