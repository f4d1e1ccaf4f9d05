//! The mandated order: which roles migrate and restart together, and which before which (domain: the mandated order).

use super::error::PlanError;
use inventory::{Host, Platform, Role, SourceVersion, Topology};

/// The stages of a phase that goes by roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stages {
    /// Name and roles of each stage, in order.
    pub(super) list: Vec<(String, Vec<Role>)>,
}

impl Stages {
    /// The stage of a role.
    pub(super) fn of_role(&self, role: Role) -> Option<usize> {
        self.list.iter().position(|(_, roles)| roles.contains(&role))
    }

    /// The stages of a host, in order, each once.
    pub(super) fn of_host(&self, host: &Host) -> Vec<usize> {
        let mut stages: Vec<usize> = host.roles.iter().filter_map(|role| self.of_role(*role)).collect();
        stages.sort_unstable();
        stages.dedup();
        stages
    }

    /// The same stages from the last to the first.
    pub(super) fn reversed(&self) -> Self {
        Self { list: self.list.iter().rev().cloned().collect() }
    }

    /// One stage for each group of roles, without the roles that no host of the platform has. Named after its roles.
    fn grouped(platform: &Platform, groups: &[Vec<Role>]) -> Self {
        let present = groups
            .iter()
            .map(|group| group.iter().copied().filter(|role| platform.with_role(*role).next().is_some()).collect::<Vec<_>>());
        let list = present.filter(|roles| !roles.is_empty()).map(|roles| (name(&roles), roles)).collect();
        Self { list }
    }
}

fn name(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join("+")
}

/// A role and one that has to come after it.
type Rule = (Role, Role);

/// The order of `migrate`. Marketing, mail and tracking for the standard topologies; tracking, execution servers and marketing for
/// Power Booster and Power Cluster. Where the vendor does not place mid-sourcing and mta, our reading does, and a site's `order` can.
///
/// A build upgrade migrates redirection and tracking first, then Power Booster and Power Cluster, then marketing, whatever the topology
/// is; mid-sourcing and mail servers, which are not named, go with the execution servers here too.
pub(super) fn migrate(platform: &Platform) -> Result<Stages, PlanError> {
    use Role::{Marketing, MidSourcing, Mta, PowerBooster, PowerCluster, Tracking};
    let execution = if platform.topology == Topology::PowerCluster { PowerCluster } else { PowerBooster };
    let (groups, rules): (Vec<Vec<Role>>, Vec<Rule>) = match platform.topology {
        Topology::Standalone => {
            let roles = platform.topology.roles().iter().copied();
            let roles = roles.filter(|role| *role != Role::Database && platform.with_role(*role).next().is_some()).collect();
            return Ok(Stages { list: vec![("machine".to_owned(), roles)] });
        }
        Topology::Standard | Topology::CloudMessaging if is_build_upgrade(platform) => {
            (vec![vec![Tracking], vec![MidSourcing, Mta], vec![Marketing]], vec![(Tracking, Marketing)])
        }
        Topology::Standard | Topology::CloudMessaging => (
            vec![vec![Marketing], vec![MidSourcing], vec![Mta], vec![Tracking]],
            vec![(Marketing, Mta), (Mta, Tracking), (Marketing, Tracking)],
        ),
        Topology::PowerBooster | Topology::PowerCluster => (
            vec![vec![Tracking], vec![execution, MidSourcing, Mta], vec![Marketing]],
            vec![(Tracking, execution), (execution, Marketing), (Tracking, Marketing)],
        ),
    };
    match &platform.order {
        Some(order) => site(platform, "order", order, &rules),
        None => Ok(Stages::grouped(platform, &groups)),
    }
}

/// The order of `restart`: redirection and tracking, mid-sourcing, marketing. Mail and execution servers are not named by the vendor;
/// as delivery servers they restart with the mid-sourcing ones, and a site's `restart_order` can place them elsewhere.
///
/// After a build upgrade: application server, redirection, delivery.
pub(super) fn restart(platform: &Platform) -> Result<Stages, PlanError> {
    use Role::{Marketing, MidSourcing, Mta, PowerBooster, PowerCluster, Tracking};
    let delivery = vec![MidSourcing, Mta, PowerBooster, PowerCluster];
    match &platform.restart_order {
        Some(order) if is_build_upgrade(platform) => {
            site(platform, "restart_order", order, &[(Marketing, Tracking), (Tracking, Mta), (Marketing, Mta)])
        }
        None if is_build_upgrade(platform) => Ok(Stages::grouped(platform, &[vec![Marketing], vec![Tracking], delivery])),
        Some(order) => {
            site(platform, "restart_order", order, &[(Tracking, MidSourcing), (MidSourcing, Marketing), (Tracking, Marketing)])
        }
        None => Ok(Stages::grouped(platform, &[vec![Tracking], delivery, vec![Marketing]])),
    }
}

/// Whether a platform runs v7 already and gets a later build of it.
fn is_build_upgrade(platform: &Platform) -> bool {
    platform.hosts.iter().any(|host| host.has_campaign() && host.source.version == SourceVersion::V7)
}

/// A site's own order: one stage a role, within the vendor's rules.
fn site(platform: &Platform, key: &'static str, order: &[Role], rules: &[Rule]) -> Result<Stages, PlanError> {
    let place = |role: Role| order.iter().position(|other| *other == role);
    let present: Vec<Role> = platform.topology.roles().iter().copied().filter(|role| *role != Role::Database).collect();
    let present: Vec<Role> = present.into_iter().filter(|role| platform.with_role(*role).next().is_some()).collect();
    let wrong = |seen: String| PlanError::OrderRoles {
        platform: platform.name.clone(),
        key,
        seen,
        expected: present.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", "),
    };
    if let Some(missing) = present.iter().find(|role| place(**role).is_none()) {
        return Err(wrong(format!("lacks {missing}, which hosts of the platform have")));
    }
    for (index, role) in order.iter().enumerate() {
        if *role == Role::Database {
            return Err(wrong("names database, which is only backed up".to_owned()));
        }
        if place(*role) != Some(index) {
            return Err(wrong(format!("names {role} twice")));
        }
    }
    for (before, after) in rules {
        if let (Some(before_at), Some(after_at)) = (place(*before), place(*after))
            && after_at < before_at
        {
            return Err(PlanError::OrderRule {
                platform: platform.name.clone(),
                key,
                first: *after,
                second: *before,
                rule: format!("{before}, then {after}"),
            });
        }
    }
    let groups: Vec<Vec<Role>> = order.iter().map(|role| vec![*role]).collect();
    Ok(Stages::grouped(platform, &groups))
}

/// Hosts whose several roles put a required order upside down: their packages come with their first role, ahead of other hosts that a
/// later role of theirs has to wait for.
pub(super) fn upside_down<'a>(platform: &'a Platform, stages: &'a Stages) -> Vec<(&'a Host, Role)> {
    let first = |host: &Host| stages.of_host(host).first().copied();
    let mut found = Vec::new();
    for host in &platform.hosts {
        let Some(start) = first(host) else { continue };
        let late = host.roles.iter().copied().filter_map(|role| Some((stages.of_role(role)?, role))).max();
        let Some((end, role)) = late else { continue };
        // Hosts with the same roles are one kind of server (the front servers of the documented standard deployment are both mail
        // and tracking servers), and go together.
        let overtakes = |other: &Host| {
            first(other).is_some_and(|at| (start..end).contains(&at)) && stages.of_host(other) != stages.of_host(host)
        };
        if platform.hosts.iter().any(overtakes) {
            found.push((host, role));
        }
    }
    found
}
