//! The mandated order holds for random fleets. The rules are written down here a second time, from the vendor's tables, and not from
//! the planner's code.

use crate::plan_fleet::*;
use crate::plan_random::*;
use controller::plan::{Phase, Plan};
use inventory::{BecomeMethod, Host, InstanceKind, Platform, Role, SourceVersion, Topology};
use proptest::prelude::*;
use proto::{Action, RunAs};
use std::collections::{BTreeMap, BTreeSet};

struct Check<'a> {
    platform: &'a Platform,
    steps: Vec<Placed<'a>>,
}

impl Check<'_> {
    fn named<'s>(&'s self, names: &'s [&'s str]) -> impl Iterator<Item = &'s Placed<'s>> {
        self.steps.iter().filter(move |placed| names.contains(&placed.step.name.as_str()))
    }

    fn on<'s>(&'s self, host: &'s str, names: &'s [&'s str]) -> Vec<&'s Placed<'s>> {
        self.named(names).filter(|placed| placed.step.host == host).collect()
    }

    /// When a host gets its new version.
    fn install(&self, host: &Host) -> Place {
        let found = self.on(&host.name, &["install.packages", "windows.migrate"]);
        assert_eq!(found.len(), 1, "{} is installed {} times", host.name, found.len());
        found[0].place
    }

    fn first_rank(&self, host: &Host) -> Option<usize> {
        host.roles.iter().filter_map(|role| migrate_rank(self.platform, *role)).min()
    }

    fn campaign_hosts(&self) -> impl Iterator<Item = &Host> {
        self.platform.hosts.iter().filter(|host| host.roles.iter().any(|role| *role != Role::Database))
    }

    /// Every host goes through the whole procedure, each part once.
    fn everything_on_every_host(&self) {
        for host in &self.platform.hosts {
            for phase in [Phase::Stop, Phase::Verify] {
                assert!(
                    self.steps.iter().any(|placed| placed.phase == phase && placed.step.host == host.name),
                    "{} is not in {phase}",
                    host.name
                );
            }
        }
        for host in self.platform.hosts.iter().filter(|host| !host.is_windows()) {
            // Facts and fingerprints are read before anything is touched, and again when all is done.
            let read = |name: &str| self.on(&host.name, &[name]).iter().map(|placed| placed.phase).collect::<Vec<_>>();
            let twice = vec![Phase::Preflight, Phase::Verify];
            assert_eq!(read("facts"), twice, "{}", host.name);
            let campaign = host.roles.iter().any(|role| *role != Role::Database);
            assert_eq!(read("fingerprint.internal-password"), if campaign { twice } else { Vec::new() }, "{}", host.name);
        }
        for host in self.campaign_hosts() {
            let once = if host.is_windows() {
                vec!["windows.preflight", "windows.stop", "windows.backup", "windows.migrate", "windows.service", "windows.verify"]
            } else {
                [
                    &["stop.nlserver", "stop.processes", "backup.move-tree", "backup.archive"],
                    self.of_version(),
                    &["conf.reload", "start.service", "verify.build", "verify.modules"],
                ]
                .concat()
            };
            let mut before: Option<&Placed<'_>> = None;
            for name in once {
                let wanted = [name];
                let found = self.on(&host.name, &wanted);
                assert_eq!(found.len(), 1, "{name} on {}", host.name);
                if let Some(before) = before {
                    assert!((before.place, before.at) < (found[0].place, found[0].at), "{name} on {}", host.name);
                }
                before = self.steps.iter().find(|placed| placed.step.id == found[0].step.id);
            }
            if host.is_windows() {
                assert!(
                    self.steps
                        .iter()
                        .filter(|placed| placed.step.host == host.name)
                        .all(|placed| matches!(placed.step.spec.action, Action::Gate { .. }))
                );
            }
            if host.roles.contains(&Role::Tracking) && !host.is_windows() {
                for name in ["stop.web-server", "start.web-server", "start.trackinglogd", "verify.redirection"] {
                    assert_eq!(self.on(&host.name, &[name]).len(), 1, "{name} on {}", host.name);
                }
                let version = version_of(self.platform);
                for name in ["carry.redirection", "conf.trackinglogd"] {
                    let times = usize::from(version != SourceVersion::V7);
                    assert_eq!(self.on(&host.name, &[name]).len(), times, "{name} on {}", host.name);
                }
                let times = usize::from(version == SourceVersion::V5_11);
                assert_eq!(self.on(&host.name, &["conf.apache"]).len(), times, "conf.apache on {}", host.name);
            }
        }
    }

    /// What happens on a host between the backup of its installation and the reload of its configuration, by the version that it had.
    fn of_version(&self) -> &'static [&'static str] {
        match version_of(self.platform) {
            SourceVersion::V5_11 => &[
                "remove.packages",
                "install.packages",
                "install.first-start",
                "install.first-stop",
                "install.first-down",
                "conf.bashrc",
                "restore.customers",
                "restore.var",
                "carry.internal-password",
            ],
            SourceVersion::V6_02 | SourceVersion::V6_1 => &[
                "remove.packages",
                "install.packages",
                "restore.conf",
                "restore.customers",
                "restore.var",
                "carry.internal-password",
            ],
            SourceVersion::V7 => &["restore.tree", "install.packages"],
        }
    }

    /// Modules of instances are set aside on every host before anything else is done there with the new version, and come back when
    /// everything is migrated and before anything starts: from v5.11 and v6.02 alone.
    fn modules_held(&self) {
        let holds = matches!(version_of(self.platform), SourceVersion::V5_11 | SourceVersion::V6_02);
        let wanted = |host: &Host| if holds && !host.is_windows() { self.platform.instances.len() } else { 0 };
        for host in self.campaign_hosts() {
            let (held, back) = (self.on(&host.name, &["conf.hold-modules"]), self.on(&host.name, &["conf.release-modules"]));
            assert_eq!((held.len(), back.len()), (wanted(host), wanted(host)), "{}", host.name);
            let reload = self.on(&host.name, &["conf.reload"]);
            for one in &held {
                assert!((one.place, one.at) < (reload[0].place, reload[0].at), "{}", one.step.id);
            }
            for one in &back {
                assert_eq!(one.phase, Phase::Restart);
                let first = self.steps.iter().filter(|placed| placed.step.name.starts_with("start.")).map(|placed| placed.place);
                assert!(first.min().is_none_or(|first| one.place < first), "{}", one.step.id);
            }
        }
        // From v5, config-default.xml never comes along.
        for placed in self.named(&["restore.conf"]) {
            let text = serde_json::to_string(&placed.step.spec.action).unwrap();
            assert_eq!(text.contains("config*.xml"), version_of(self.platform) != SourceVersion::V5_11, "{text}");
        }
    }

    /// Servers of an earlier stage are installed before a server of a later one is touched; those of one stage go together.
    fn migration_order(&self, warnings: &[String]) {
        for one in self.campaign_hosts() {
            for other in self.campaign_hosts() {
                let (first, later) = (self.first_rank(one), self.first_rank(other));
                let (a, b) = (self.install(one), self.install(other));
                assert_eq!(first.cmp(&later), a.cmp(&b), "{} and {}", one.name, other.name);
                // A later role of `one` that came with its first stage, ahead of `other`: said aloud.
                let overtakes = |role: &Role| {
                    migrate_rank(self.platform, *role).is_some_and(|rank| later.is_some_and(|later| rank > later) && first < later)
                };
                if one.roles.iter().any(overtakes) {
                    assert!(
                        warnings.iter().any(|warning| warning.contains("ahead of hosts") && names_in(warning).contains(&one.name)),
                        "{}: {warnings:?}",
                        one.name
                    );
                }
            }
            // What a tracking server alone needs happens in the tracking stage.
            for placed in self.on(&one.name, &["conf.trackinglogd", "carry.redirection"]) {
                for other in self.campaign_hosts() {
                    if self.first_rank(other) < migrate_rank(self.platform, Role::Tracking) {
                        assert!(self.install(other) < placed.place, "{}", placed.step.id);
                    }
                }
            }
        }
    }

    /// Once per instance, on its application server, in its stage, after the packages of every host of that stage.
    fn postupgrade(&self) {
        for instance in &self.platform.instances {
            let all = self.named(&["postupgrade", "windows.postupgrade"]);
            let found: Vec<_> = all.filter(|placed| placed.step.instance.as_deref() == Some(instance.name.as_str())).collect();
            assert_eq!(found.len(), 1, "{}", instance.name);
            let upgrade = found[0];
            assert_eq!(upgrade.step.host, instance.app);
            let rank = migrate_rank(self.platform, role_of(instance.kind, self.platform.topology));
            for host in self.campaign_hosts() {
                let install = self.install(host);
                if self.first_rank(host) <= rank {
                    assert!(install < upgrade.place, "{} before {}", host.name, instance.name);
                } else {
                    assert!(upgrade.place < install, "{} after {}", host.name, instance.name);
                }
            }
            if upgrade.step.name == "postupgrade" {
                let checks = self.on(&instance.app, &["postupgrade.check"]);
                let check = checks.iter().find(|placed| placed.step.instance == upgrade.step.instance).unwrap();
                assert!((check.place, check.at) < (upgrade.place, upgrade.at));
                let mut argv = vec!["config".to_owned(), "-postupgrade".to_owned(), format!("-instance:{}", instance.name)];
                if version_of(self.platform) == SourceVersion::V5_11 {
                    argv.push("-timezone:Europe/Paris".to_owned());
                }
                assert_eq!(upgrade.step.command.as_ref().unwrap()[1..], argv);
            }
            let backups =
                self.named(&["backup.database", "backup-by-dba"]).filter(|placed| placed.step.instance == upgrade.step.instance);
            assert_eq!(backups.count(), 1, "backup of {}", instance.name);
        }
        let upgrades = self.steps.iter().filter(|placed| {
            placed
                .step
                .command
                .as_ref()
                .is_some_and(|argv| argv.iter().any(|a| a == "-postupgrade") && !argv.iter().any(|a| a == "-check"))
        });
        let windows = self.named(&["windows.postupgrade"]).count();
        assert_eq!(upgrades.count() + windows, self.platform.instances.len());
    }

    /// Nothing is started before restart, but for the bare new installation from v5; there it goes by the documented order, and the
    /// whole service last, in the same order.
    fn restart_order(&self) {
        let starts = |placed: &&Placed<'_>| {
            if placed.step.name == "install.first-start" {
                return false;
            }
            placed.step.command.as_ref().is_some_and(|argv| argv.iter().any(|argument| argument == "start"))
                || placed.step.name.starts_with("windows.start")
                || placed.step.name == "windows.service"
        };
        assert!(self.steps.iter().filter(starts).all(|placed| placed.phase == Phase::Restart));
        let mut modules: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for placed in self.steps.iter().filter(starts) {
            let kind =
                |name: &str| self.platform.instances.iter().find(|instance| instance.name == name).map(|instance| instance.kind);
            let role = match placed.step.name.as_str() {
                "start.web-server" | "start.trackinglogd" => Role::Tracking,
                "start.mta" | "start.stat" | "start.inMail" => Role::Mta,
                "start.wfserver" if placed.step.instance.as_deref().and_then(kind) == Some(InstanceKind::Marketing) => {
                    Role::Marketing
                }
                "start.wfserver" => Role::MidSourcing,
                _ => continue,
            };
            let rank = restart_rank(self.platform, role).unwrap();
            modules.entry(rank).or_default().push(placed.place);
        }
        let ordered: Vec<Vec<Place>> = modules.into_values().collect();
        for pair in ordered.windows(2) {
            assert!(pair[0].iter().max() < pair[1].iter().min());
        }
        let whole = ["start.service", "windows.service"];
        let last = self
            .steps
            .iter()
            .filter(starts)
            .filter(|placed| !whole.contains(&placed.step.name.as_str()))
            .map(|placed| placed.place)
            .max();
        let rank =
            |name: &str| self.platform.host(name).unwrap().roles.iter().filter_map(|role| restart_rank(self.platform, *role)).max();
        for one in self.named(&whole) {
            assert!(last.is_none_or(|last| last < one.place), "{}", one.step.id);
            for other in self.named(&whole) {
                assert_eq!(
                    rank(&one.step.host).cmp(&rank(&other.step.host)),
                    one.place.cmp(&other.place),
                    "{} {}",
                    one.step.id,
                    other.step.id
                );
            }
        }
        // Every application server gets the modules of its instance.
        for instance in &self.platform.instances {
            let app = self.platform.host(&instance.app).unwrap();
            if !app.is_windows() {
                let found = self.on(&instance.app, &["start.wfserver"]);
                assert!(
                    found.iter().any(|placed| placed.step.instance.as_deref() == Some(instance.name.as_str())),
                    "{}",
                    instance.name
                );
            }
        }
    }

    fn stop_order(&self) {
        let web = self.named(&["stop.web-server", "windows.stop-web"]).map(|placed| placed.place).max();
        for placed in self.named(&["stop.nlserver", "windows.stop", "stop.processes"]) {
            assert!(web.is_none_or(|web| web < placed.place), "{}", placed.step.id);
        }
    }

    fn gates(&self) {
        let gates: Vec<(&str, Phase)> = self
            .steps
            .iter()
            .filter_map(|placed| match &placed.step.spec.action {
                Action::Gate { gate, .. } => Some((gate.as_str(), placed.phase)),
                _ => None,
            })
            .collect();
        let unique: BTreeSet<&str> = gates.iter().map(|(gate, _)| *gate).collect();
        assert_eq!(unique.len(), gates.len(), "{gates:?}");
        assert!(gates.iter().all(|(gate, _)| gate.strip_prefix(&self.platform.name).is_some_and(|rest| rest.starts_with('/'))));
        let vendor: Vec<Phase> =
            gates.iter().filter(|(gate, _)| gate.ends_with("/vendor-execution-servers")).map(|(_, phase)| *phase).collect();
        let wanted = if self.platform.topology == Topology::CloudMessaging { vec![Phase::Preflight] } else { Vec::new() };
        assert_eq!(vendor, wanted);
    }
}

/// The names in a warning `PLATFORM: NAMES is ROLES: ...`, unfolded.
fn names_in(warning: &str) -> Vec<String> {
    let names = warning.split(": ").nth(1).and_then(|rest| rest.split(" is ").next()).unwrap_or_default();
    names.split(", ").flat_map(|folded| inventory::expand(folded).unwrap()).collect()
}

fn shape(plan: &Plan, platforms: &[Platform]) {
    let phases = ["preflight", "stop", "backup", "migrate", "restart", "verify"];
    let mut ids = BTreeSet::new();
    for (planned, platform) in plan.platforms.iter().zip(platforms) {
        assert_eq!(planned.phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(), phases);
        for phase in &planned.phases {
            assert!(!phase.stages.is_empty(), "{} is empty", phase.name);
            let mut stages = BTreeSet::new();
            for stage in &phase.stages {
                assert!(stages.insert(&stage.name));
                let hosts: BTreeSet<&String> = stage.steps.iter().map(|step| &step.host).collect();
                assert_eq!(hosts, stage.hosts.iter().collect());
                assert!(!stage.roles.is_empty(), "{}", stage.name);
                for step in &stage.steps {
                    let whose = step.instance.as_ref().map(|instance| format!(":{instance}")).unwrap_or_default();
                    let id = format!("{}/{}/{}/{}{whose}/{}", planned.name, phase.name, stage.name, step.host, step.name);
                    assert_eq!((&step.id.0, &step.spec.id.0), (&id, &id));
                    assert!(ids.insert(id), "{} twice", step.id);
                    let host = platform.host(&step.host).unwrap();
                    assert!(host.become_.method != BecomeMethod::None || step.run_as == RunAs::Login, "{}", step.id);
                }
            }
        }
    }
    let steps = serde_json::to_string(&plan.platforms).unwrap();
    assert!(!steps.contains(CANARY));
    assert!(!controller::plan::render(plan, true, 100).contains(CANARY));
    for rest in steps.split('{').skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-')).collect();
        assert!(name.is_empty() || name == "run" || !rest[name.len()..].starts_with('}'), "{{{name}}}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_mandated_order_holds(platforms in fleets()) {
        let plan = plan(&fleet(platforms.clone())).unwrap();
        shape(&plan, &platforms);
        for (planned, platform) in plan.platforms.iter().zip(&platforms) {
            let check = Check { platform, steps: placed(planned) };
            check.everything_on_every_host();
            check.migration_order(&plan.warnings);
            check.postupgrade();
            check.modules_held();
            check.restart_order();
            check.stop_order();
            check.gates();
        }
    }
}
