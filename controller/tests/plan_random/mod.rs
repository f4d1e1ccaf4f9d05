//! Random fleets, the vendor's tables a second time, and where the steps of a plan stand: for the tests of the planner's rules.

use crate::plan_fleet::*;
use controller::plan::{Phase, PlannedStep, PlatformPlan};
use inventory::{Backup, BecomeMethod, Host, InitSystem, InstanceKind, Platform, Role, SecretRef, SourceVersion, Topology};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Stands in every place of the inventory that leads to a secret.
pub(crate) const CANARY: &str = "canary-7f3a";

pub(crate) fn topologies() -> impl Strategy<Value = Topology> {
    select(vec![Topology::Standalone, Topology::Standard, Topology::CloudMessaging, Topology::PowerBooster, Topology::PowerCluster])
}

/// The roles of each host.
pub(crate) fn role_sets(topology: Topology) -> BoxedStrategy<Vec<Vec<Role>>> {
    use Role::*;
    let any_of = |roles: Vec<Role>, most: usize| {
        let size = roles.len();
        prop::collection::vec(subsequence(roles, 1..=size.min(3)), 0..most)
    };
    match topology {
        Topology::Standalone => subsequence(vec![MidSourcing, Mta, Tracking, Database], 0..=4)
            .prop_map(|more| vec![[vec![Marketing], more].concat()])
            .boxed(),
        Topology::Standard | Topology::CloudMessaging => any_of(vec![Marketing, MidSourcing, Mta, Tracking, Database], 9)
            .prop_map(|sets| [vec![vec![Marketing]], sets].concat())
            .boxed(),
        Topology::PowerBooster => any_of(vec![Marketing, MidSourcing, Mta, Tracking, Database], 7)
            .prop_map(|sets| [vec![vec![Marketing], vec![PowerBooster]], sets].concat())
            .boxed(),
        Topology::PowerCluster => any_of(vec![Marketing, MidSourcing, Mta, Tracking, Database, PowerCluster], 7)
            .prop_map(|sets| [vec![vec![PowerCluster], vec![Marketing], vec![PowerCluster]], sets].concat())
            .boxed(),
    }
}

#[derive(Debug, Clone)]
pub(crate) struct HostDice {
    pub(crate) os: &'static str,
    pub(crate) init: Option<InitSystem>,
    pub(crate) root: bool,
    pub(crate) backup: u8,
    pub(crate) instance: bool,
}

pub(crate) fn host_dice() -> impl Strategy<Value = HostDice> {
    let os = prop_oneof![4 => Just("debian-11"), 4 => Just("rhel-8"), 1 => Just("windows")];
    let init = select(vec![None, Some(InitSystem::Sysv), Some(InitSystem::Systemd)]);
    (os, init, any::<bool>(), 0..3_u8, any::<bool>()).prop_map(|(os, init, root, backup, instance)| HostDice {
        os,
        init,
        root,
        backup,
        instance,
    })
}

pub(crate) fn platforms(index: usize) -> impl Strategy<Value = Platform> {
    topologies()
        .prop_flat_map(|topology| {
            role_sets(topology)
                .prop_flat_map(move |sets| (Just(topology), prop::collection::vec(host_dice(), sets.len()), Just(sets)))
        })
        .prop_flat_map(move |(topology, dice, sets)| {
            let hosts: Vec<Host> =
                sets.iter().zip(&dice).enumerate().map(|(at, (roles, dice))| make_host(index, at, roles, dice)).collect();
            (Just((topology, dice)), Just(hosts.clone()).prop_shuffle(), Just(hosts))
        })
        .prop_map(move |((topology, dice), shuffled, hosts)| {
            let instances = make_instances(index, topology, &hosts, &dice);
            platform(&format!("p{index}"), topology, shuffled, instances)
        })
        .prop_flat_map(|platform| versions().prop_map(move |version| from_version(version, platform.clone())))
}

pub(crate) fn versions() -> impl Strategy<Value = SourceVersion> {
    use SourceVersion::{V5_11, V6_1, V6_02, V7};
    prop_oneof![3 => Just(V6_1), 1 => Just(V6_02), 2 => Just(V5_11), 2 => Just(V7)]
}

pub(crate) fn version_of(platform: &Platform) -> SourceVersion {
    platform.hosts.iter().find(|host| host.has_campaign()).unwrap().source.version
}

pub(crate) fn make_host(index: usize, at: usize, roles: &[Role], dice: &HostDice) -> Host {
    let mut made = host(&format!("p{index}h{at}"), roles);
    made.os = Some(dice.os.into());
    made.init = dice.init;
    made.become_.password = Some(SecretRef::Command(format!("pass {CANARY}")));
    if !dice.root {
        made.become_.method = BecomeMethod::None;
    }
    made
}

/// An instance for each host that can be an application server; the first of each kind always, so that there is one.
pub(crate) fn make_instances(index: usize, topology: Topology, hosts: &[Host], dice: &[HostDice]) -> Vec<inventory::Instance> {
    let kinds = [
        (InstanceKind::Marketing, Role::Marketing),
        (InstanceKind::MidSourcing, Role::MidSourcing),
        (InstanceKind::Execution, if topology == Topology::PowerCluster { Role::PowerCluster } else { Role::PowerBooster }),
    ];
    let mut instances = Vec::new();
    for (kind, role) in kinds {
        let mut first = true;
        for (host, dice) in hosts.iter().zip(dice).filter(|(host, _)| host.roles.contains(&role)) {
            if !first && !dice.instance && kind != InstanceKind::Execution {
                continue;
            }
            first = false;
            let backup = if dice.backup == 0 { Backup::ByDba } else { on(&hosts[usize::from(dice.backup) % hosts.len()].name) };
            let mut made = instance(&format!("i{index}n{}", instances.len()), kind, &host.name, backup);
            if let Some(database) = &mut made.database {
                database.password = Some(SecretRef::Env(CANARY.into()));
            }
            if dice.backup % 2 == 1 {
                add_scratch(&mut made, Some(SecretRef::Env(CANARY.into())));
            }
            instances.push(made);
        }
    }
    instances
}

pub(crate) fn fleets() -> impl Strategy<Value = Vec<Platform>> {
    (platforms(0), prop::option::of(platforms(1))).prop_map(|(first, second)| [Some(first), second].into_iter().flatten().collect())
}

/// Where a step stands: a barrier or a wave is between any two different places.
pub(crate) type Place = (usize, usize, u32);

pub(crate) struct Placed<'a> {
    pub(crate) place: Place,
    /// Its position among the steps of its stage.
    pub(crate) at: usize,
    pub(crate) phase: Phase,
    pub(crate) step: &'a PlannedStep,
}

pub(crate) fn placed(plan: &PlatformPlan) -> Vec<Placed<'_>> {
    let mut all = Vec::new();
    for (phase_index, phase) in plan.phases.iter().enumerate() {
        for (stage_index, stage) in phase.stages.iter().enumerate() {
            for (at, step) in stage.steps.iter().enumerate() {
                all.push(Placed { place: (phase_index, stage_index, step.wave), at, phase: phase.name, step });
            }
        }
    }
    all
}

/// The table "order of stages" of the vendor, with our reading of what it does not place. A build upgrade has tracking, execution
/// servers, marketing everywhere.
pub(crate) fn migrate_rank(platform: &Platform, role: Role) -> Option<usize> {
    use Role::*;
    match (platform.topology, role) {
        (_, Database) => None,
        (Topology::Standalone, _) => Some(0),
        (Topology::Standard | Topology::CloudMessaging, _) if version_of(platform) == SourceVersion::V7 => match role {
            Tracking => Some(1),
            Marketing => Some(3),
            _ => Some(2),
        },
        (Topology::Standard | Topology::CloudMessaging, Marketing) => Some(1),
        (Topology::Standard | Topology::CloudMessaging, MidSourcing) => Some(2),
        (Topology::Standard | Topology::CloudMessaging, Mta) => Some(3),
        (Topology::Standard | Topology::CloudMessaging, _) => Some(4),
        (_, Tracking) => Some(1),
        (_, PowerBooster | PowerCluster | MidSourcing | Mta) => Some(2),
        (_, Marketing) => Some(3),
    }
}

/// The documented restart order: tracking, mid-sourcing (and the other delivery servers), marketing. After a build upgrade: marketing,
/// tracking, delivery.
pub(crate) fn restart_rank(platform: &Platform, role: Role) -> Option<usize> {
    let order = if version_of(platform) == SourceVersion::V7 { [1, 2, 0] } else { [0, 1, 2] };
    match role {
        Role::Tracking => Some(order[0]),
        Role::MidSourcing | Role::Mta | Role::PowerBooster | Role::PowerCluster => Some(order[1]),
        Role::Marketing => Some(order[2]),
        Role::Database => None,
    }
}

pub(crate) fn role_of(kind: InstanceKind, topology: Topology) -> Role {
    match kind {
        InstanceKind::Marketing => Role::Marketing,
        InstanceKind::MidSourcing => Role::MidSourcing,
        InstanceKind::Execution if topology == Topology::PowerCluster => Role::PowerCluster,
        InstanceKind::Execution => Role::PowerBooster,
    }
}
