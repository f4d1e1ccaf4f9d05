//! The order of the way back holds for random fleets, whatever a run had been granted. The rules are written down here from the
//! issue and the vendor's tables, and not from the planner's code.

use crate::plan_fleet::*;
use crate::plan_random::*;
use controller::plan::rollback::{Done, Forward, build};
use controller::plan::{Phase, Plan, PlanError, PlannedStep, PlatformPlan, StagePlan};
use inventory::{Host, Location, Package, Platform};
use proptest::prelude::*;
use proto::{Action, StepId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

const RUN: &str = "2026-11-22-x7k";
/// The steps of the way back on one host, in the order in which they have to stand.
const ON_A_HOST: [&str; 14] = [
    "back.packages-there",
    "back.remove-packages",
    "back.set-aside",
    "back.install-packages",
    "back.daemon-reload",
    "back.set-aside-unpacked",
    "back.tree",
    "back.remove-unpacked",
    "back.verify",
    "back.bashrc",
    "back.apache",
    "start.web-server",
    "back.start-service",
    "back.verify-build",
];

/// How far a run got: all steps up to a place in the plan, and some more or less on both sides of it, by a die.
#[derive(Debug, Clone)]
struct Progress {
    permille: usize,
    /// Of ten steps, how many do not follow `permille`.
    noise: u64,
    seed: u64,
}

fn progress() -> impl Strategy<Value = Progress> {
    (0..=1000_usize, prop_oneof![3 => Just(0), 1 => 1..=10_u64], any::<u64>()).prop_map(|(permille, noise, seed)| Progress {
        permille,
        noise,
        seed,
    })
}

fn granted(plan: &Plan, progress: &Progress) -> BTreeSet<StepId> {
    let mut granted = BTreeSet::new();
    for platform in &plan.platforms {
        let all: Vec<&PlannedStep> = platform.steps().collect();
        let end = all.len() * progress.permille / 1000;
        for (index, step) in all.iter().enumerate() {
            let mut hasher = DefaultHasher::new();
            (progress.seed, &step.id.0).hash(&mut hasher);
            let die = hasher.finish();
            let follows = die % 10 >= progress.noise;
            if if follows { index < end } else { die & 16 == 0 } {
                granted.insert(step.id.clone());
            }
        }
    }
    granted
}

struct Way<'a> {
    platform: &'a Platform,
    forward: Vec<&'a PlannedStep>,
    touched: BTreeSet<&'a str>,
    plan: Option<&'a PlatformPlan>,
    steps: Vec<Placed<'a>>,
}

impl<'a> Way<'a> {
    fn granted(&self, name: &str, host: &str) -> bool {
        self.forward.iter().any(|step| step.name == name && step.host == host)
    }

    fn upgraded(&self) -> BTreeSet<&'a str> {
        let upgrades = self.forward.iter().filter(|step| step.name.ends_with("postupgrade"));
        upgrades.filter_map(|step| step.instance.as_deref()).collect()
    }

    fn named<'s>(&'s self, names: &'s [&'s str]) -> impl Iterator<Item = &'s Placed<'a>> {
        self.steps.iter().filter(move |placed| names.contains(&placed.step.name.as_str()))
    }

    fn on<'s>(&'s self, name: &'s str, host: &'s str) -> Option<&'s Placed<'a>> {
        self.steps.iter().find(|placed| placed.step.name == name && placed.step.host == host)
    }

    fn stages(&self) -> impl Iterator<Item = &'a StagePlan> {
        self.plan.into_iter().flat_map(|plan| &plan.phases).flat_map(|phase| &phase.stages)
    }

    /// Nothing happens where nothing was done, but that everything has to be down where a database is restored.
    fn untouched(&self) {
        for placed in &self.steps {
            assert!(
                self.touched.contains(placed.step.host.as_str()) || !self.upgraded().is_empty(),
                "{} on an untouched host",
                placed.step.id
            );
            let stops = placed.step.name.contains("stop");
            let database = placed.step.name.contains("database") || placed.step.name == "restore-by-dba";
            assert!(self.touched.contains(placed.step.host.as_str()) || stops || database, "{}", placed.step.id);
        }
        if self.touched.is_empty() {
            assert!(self.plan.is_none());
        }
    }

    /// What is stopped on a host that the run changed something on runs again in the end, and nothing else is started.
    fn starts_again(&self) {
        let pairs = [
            ("stop.web-server", "start.web-server"),
            ("stop.processes", "back.start-service"),
            ("windows.stop-web", "windows.start-web"),
            ("windows.stop", "windows.start-service"),
        ];
        for host in &self.platform.hosts {
            let there = |step: &str| self.on(step, &host.name).is_some();
            for (stop, start) in pairs {
                let stopped = there(stop) && self.touched.contains(host.name.as_str());
                assert_eq!(there(start), stopped, "{start} on {}", host.name);
            }
        }
    }

    /// What is down is proven down before a database is restored, and everything is; the databases are restored before a tree is put
    /// back or anything is started.
    fn barriers(&self) {
        let restores: Vec<&Placed<'_>> = self.named(&["restore.database", "restore-by-dba"]).collect();
        let instances: BTreeSet<&str> = restores.iter().filter_map(|placed| placed.step.instance.as_deref()).collect();
        assert_eq!(instances, self.upgraded());
        assert_eq!(restores.len(), instances.len());
        let down = ["stop.processes", "windows.stop", "stop.none-running", "windows.stop-database"];
        for restore in &restores {
            for host in &self.platform.hosts {
                let stopped =
                    self.steps.iter().find(|placed| placed.step.host == host.name && down.contains(&placed.step.name.as_str()));
                let stopped = stopped.unwrap_or_else(|| panic!("{} is not proven down", host.name));
                assert!(stopped.place < restore.place, "{} before {}", stopped.step.id, restore.step.id);
            }
            for later in self.steps.iter().filter(|placed| {
                placed.step.name.starts_with("back.") || placed.step.name.contains("start") || placed.step.name == "windows.back"
            }) {
                assert!(restore.place < later.place, "{} before {}", restore.step.id, later.step.id);
            }
        }
        let web = self.named(&["stop.web-server", "windows.stop-web"]).map(|placed| placed.place).max();
        assert!(self.named(&down).all(|placed| web.is_none_or(|web| web < placed.place)));
        // Strict as long as a database may be restored, tolerant from then on.
        let tolerant: Vec<bool> = self.stages().map(|stage| stage.tolerant).collect();
        assert!(tolerant.is_sorted(), "{tolerant:?}");
        for stage in self.stages() {
            let strict = ["backups", "web-servers", "nlserver", "database"].contains(&stage.name.as_str());
            assert_eq!(stage.tolerant, !strict, "{}", stage.name);
        }
    }

    /// Each effect of the run has its undoing, and nothing else has.
    fn one_for_one(&self) {
        for host in &self.platform.hosts {
            let name = host.name.as_str();
            let there = |step: &str| self.on(step, name).is_some();
            let (moved, removed, installed) = (
                self.granted("backup.move-tree", name),
                self.granted("remove.packages", name) || self.granted("restore.tree", name),
                self.granted("install.packages", name),
            );
            assert_eq!(there("back.tree"), moved, "{name}");
            for step in ["back.set-aside", "back.set-aside-unpacked", "back.install-packages", "back.packages-there"] {
                assert_eq!(there(step), moved && removed, "{step} {name}");
            }
            assert_eq!(there("back.by-hand"), removed && !moved, "{name}");
            assert_eq!(there("back.remove-packages"), moved && installed, "{name}");
            assert_eq!(there("back.bashrc"), self.granted("conf.bashrc", name), "{name}");
            assert_eq!(there("back.apache"), self.granted("conf.apache", name), "{name}");
            let by_hand = self.granted("windows.backup", name) || self.granted("windows.migrate", name);
            assert_eq!(there("windows.back"), by_hand, "{name}");
            if host.is_windows() {
                assert!(
                    self.steps.iter().filter(|p| p.step.host == name).all(|p| matches!(p.step.spec.action, Action::Gate { .. }))
                );
            }
        }
    }

    /// Host by host in reverse: who was migrated last goes back first; on a host, the tree comes after the packages.
    fn reverse(&self) {
        let rank = |host: &Host| host.roles.iter().filter_map(|role| migrate_rank(self.platform, *role)).min();
        let back =
            |host: &Host| self.on("back.tree", &host.name).or(self.on("windows.back", &host.name)).map(|placed| placed.place);
        for one in &self.platform.hosts {
            for other in &self.platform.hosts {
                if let (Some(a), Some(b)) = (back(one), back(other)) {
                    assert_eq!(rank(other).cmp(&rank(one)), a.cmp(&b), "{} and {}", one.name, other.name);
                }
            }
            let order: Vec<_> =
                ON_A_HOST.iter().filter_map(|name| self.on(name, &one.name)).map(|placed| (placed.place, placed.at)).collect();
            assert!(order.is_sorted(), "{}", one.name);
        }
        let starts: Vec<_> =
            self.named(&["start.web-server", "windows.start-web", "back.start-service", "windows.start-service"]).collect();
        let trees = self.named(&["back.tree", "windows.back"]).map(|placed| placed.place).max();
        assert!(starts.iter().all(|start| trees.is_none_or(|tree| tree < start.place)));
        let services: Vec<_> = self.named(&["back.start-service", "windows.start-service"]).collect();
        let last = |step: &PlannedStep| {
            let roles = &self.platform.host(&step.host).unwrap().roles;
            roles.iter().filter_map(|role| restart_rank(self.platform, *role)).max()
        };
        for one in &services {
            for other in &services {
                assert_eq!(last(one.step).cmp(&last(other.step)), one.place.cmp(&other.place), "{} {}", one.step.id, other.step.id);
            }
        }
    }

    /// Only with proof that the old tree is not in its place is anything done to what is called `nl6` (or `nl5`).
    fn guarded(&self) {
        let home = "/usr/local/neolane";
        let tree = if version_of(self.platform) == inventory::SourceVersion::V5_11 { "nl5" } else { "nl6" };
        let (old, kept) = (format!("{home}/{tree}"), format!("{home}/{tree}.back"));
        for placed in self.steps.iter().filter(|placed| placed.step.name.starts_with("back.")) {
            let step = placed.step;
            if ["back.remove-packages", "back.set-aside", "back.install-packages", "back.set-aside-unpacked"]
                .contains(&step.name.as_str())
            {
                let guard = serde_json::to_string(&step.spec.only_if).unwrap();
                assert!(guard.contains(&format!(r#"{{"exists":"{kept}"}}"#)), "{}: {guard}", step.id);
            }
            if let Action::MoveTree { from, to } = &step.spec.action {
                let back = *from == kept && *to == old;
                let aside = [&old, &format!("{home}/nl6")].contains(&from) && to.ends_with("-{run}");
                assert!(back || aside, "{from} {to}");
            }
        }
    }
}

fn shape(plan: &Plan) {
    let (mut ids, mut gates) = (BTreeSet::new(), BTreeSet::new());
    for platform in &plan.platforms {
        assert_eq!(platform.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), [Phase::Rollback]);
        for step in platform.steps() {
            assert!(ids.insert(&step.id), "{} twice", step.id);
            assert!(step.id.0.starts_with(&format!("{}/rollback/", platform.name)));
            if let Action::Gate { gate, .. } = &step.spec.action {
                assert!(gates.insert(gate), "{gate} twice");
            }
        }
    }
    let text = serde_json::to_string(&plan.platforms).unwrap();
    assert!(!text.contains(CANARY));
    for rest in text.split('{').skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '-')).collect();
        assert!(name.is_empty() || name == "run" || !rest[name.len()..].starts_with('}'), "{{{name}}}");
    }
}

/// Old packages for every family, as a fleet has them that wants a way back.
fn with_old_packages(mut platforms: Vec<Platform>) -> Vec<Platform> {
    for host in platforms.iter_mut().flat_map(|platform| &mut platform.hosts) {
        host.source.packages.push(Package {
            os: "rhel-8".into(),
            location: Location::Path("old/nlserver6-8989-0.x86_64.rpm".into()),
            sha256: OLD_SHA.into(),
            names: vec![],
        });
    }
    platforms
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_way_back_holds(platforms in fleets(), progress in progress()) {
        let fleet = fleet(with_old_packages(platforms));
        let text = serde_json::to_string(&plan(&fleet).unwrap()).unwrap().replace("{run}", RUN);
        let forward: Plan = serde_json::from_str(&text).unwrap();
        let done = Done { granted: granted(&forward, &progress), ..Done::default() };
        let built = build(&fleet, &Forward { run: RUN, plan: &forward, done: &done });
        let touches = |step: &&PlannedStep| {
            !step.id.0.contains("/preflight/") && !matches!(step.spec.action, Action::Verify | Action::Inspect { .. })
        };
        let steps_of = |plan: &PlatformPlan| plan.steps().filter(|step| done.granted.contains(&step.id)).map(|s| s.id.clone()).collect::<BTreeSet<_>>();
        let by_platform: BTreeMap<&str, BTreeSet<StepId>> = forward.platforms.iter().map(|plan| (plan.name.as_str(), steps_of(plan))).collect();
        if let Err(errors) = &built {
            let nothing = forward.platforms.iter().all(|plan| !plan.steps().filter(|s| done.granted.contains(&s.id)).any(|s| touches(&s)));
            prop_assert!(nothing, "{errors}");
            prop_assert!(matches!(errors.0.as_slice(), [PlanError::NothingToRollBack { .. }]), "{errors}");
        } else if let Ok(rollback) = &built {
            shape(&rollback.plan);
            for (platform, planned) in fleet.platforms.iter().zip(&forward.platforms) {
                let granted = &by_platform[platform.name.as_str()];
                let forward: Vec<&PlannedStep> = planned.steps().filter(|step| granted.contains(&step.id)).collect();
                let back = rollback.plan.platforms.iter().find(|plan| plan.name == platform.name);
                let way = Way {
                    touched: forward.iter().copied().filter(touches).map(|step| step.host.as_str()).collect(),
                    platform,
                    forward,
                    plan: back,
                    steps: back.map(placed).unwrap_or_default(),
                };
                way.untouched();
                way.starts_again();
                way.barriers();
                way.one_for_one();
                way.reverse();
                way.guarded();
            }
            // Notes speak of each platform of the plan, and of each instance that was upgraded.
            let named: Vec<&str> = rollback.notes.platforms.iter().map(|notes| notes.platform.as_str()).collect();
            prop_assert_eq!(named, rollback.plan.platforms.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>());
        }
    }
}
