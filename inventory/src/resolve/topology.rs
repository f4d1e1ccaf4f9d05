//! The vendor's rules on topologies: which roles there must be, and in which order they go (domain notes, section 2).

use crate::model::{Role, Topology};
use crate::problem::{Kind, Report, Span, did_you_mean, quote};
use crate::raw::RoleWord;
use crate::read::Spanned;

/// Every role there is.
const ROLES: [Role; 7] =
    [Role::Marketing, Role::MidSourcing, Role::Mta, Role::Tracking, Role::PowerBooster, Role::PowerCluster, Role::Database];

/// `a standard platform has: marketing, ...`, for labels.
pub(super) fn has(topology: Option<Topology>) -> String {
    let words = |roles: &[Role]| roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
    match topology {
        Some(topology) => format!("a `{topology}` platform has: {}", words(topology.roles())),
        None => format!("the roles are: {}", words(&ROLES)),
    }
}

/// A role by its word. `whom` says in messages what it is for.
pub(super) fn role(word: &Spanned<RoleWord>, topology: Option<Topology>, whom: &str, report: &mut Report) -> Option<Role> {
    let text = word.value.0.as_str();
    let allowed = topology.map_or(&ROLES[..], Topology::roles);
    let Some(role) = ROLES.into_iter().find(|role| role.as_str() == text) else {
        report
            .error(Kind::UnknownRole, &word.span, format!("unknown role {} {whom}", quote(text)))
            .label(has(topology))
            .help_if(did_you_mean(text, allowed.iter().map(|role| role.as_str())));
        return None;
    };
    if let Some(topology) = topology.filter(|_| !allowed.contains(&role)) {
        report
            .error(Kind::RoleNotInTopology, &word.span, format!("a `{topology}` platform has no role `{role}`"))
            .label(has(Some(topology)))
            .help(format!("`{role}` belongs to `topology: {role}`"));
    }
    Some(role)
}

/// Checks that a platform has the servers that its topology must have.
pub(super) fn servers(topology: Topology, at: &Span, count: impl Fn(Role) -> usize, hosts: usize, report: &mut Report) {
    let mut lacks = |role: Role, label: &str| {
        report
            .error(Kind::MissingRole, at, format!("a `{topology}` platform needs a host with the role `{role}`"))
            .label(label)
            .help(format!("add a host with `roles: [{role}]`"));
    };
    if count(Role::Marketing) == 0 {
        lacks(Role::Marketing, "no host of this platform is a marketing server");
    }
    if topology == Topology::PowerBooster && count(Role::PowerBooster) == 0 {
        lacks(Role::PowerBooster, "no host of this platform is a Power Booster server");
    }
    if topology == Topology::PowerCluster && count(Role::PowerCluster) == 0 {
        lacks(Role::PowerCluster, "no host of this platform is a Power Cluster server");
    }
    match topology {
        Topology::Standalone if hosts != 1 => {
            report
                .error(Kind::HostCount, at, format!("a `standalone` platform is one machine, this one has {hosts}"))
                .label("exactly one host is expected")
                .help("several machines are `topology: standard`");
        }
        Topology::PowerBooster if count(Role::PowerBooster) > 1 => {
            report
                .error(
                    Kind::HostCount,
                    at,
                    format!("a `power-booster` platform has one Power Booster server, this one has {}", count(Role::PowerBooster)),
                )
                .label("exactly one host with the role `power-booster` is expected")
                .help("several execution servers are `topology: power-cluster`");
        }
        Topology::PowerCluster if count(Role::PowerCluster) == 1 => {
            report
                .error(Kind::HostCount, at, "a `power-cluster` platform has two or more Power Cluster servers, this one has 1")
                .label("two or more hosts with the role `power-cluster` are expected")
                .help("one execution server is `topology: power-booster`");
        }
        Topology::Standard | Topology::CloudMessaging => {
            for role in [Role::Mta, Role::Tracking].into_iter().filter(|role| count(*role) == 0) {
                report
                    .warning(Kind::NoDeliveryServers, at, format!("no host of this `{topology}` platform has the role `{role}`"))
                    .label("all servers of a platform must be migrated")
                    .help(format!("add the missing hosts, or the role `{role}` to the host that does this work too"));
            }
        }
        _ => {}
    }
}

/// The documented order of `migrate`: each role before the next one. Roles that are not named are not placed by the vendor.
/// An upgrade of the build begins with redirection and tracking whatever the topology is.
fn migrate_rule(topology: Topology, build_upgrade: bool) -> &'static [Role] {
    match topology {
        Topology::Standalone => &[],
        Topology::Standard | Topology::CloudMessaging if build_upgrade => &[Role::Tracking, Role::Marketing],
        Topology::Standard | Topology::CloudMessaging => &[Role::Marketing, Role::Mta, Role::Tracking],
        Topology::PowerBooster => &[Role::Tracking, Role::PowerBooster, Role::Marketing],
        Topology::PowerCluster => &[Role::Tracking, Role::PowerCluster, Role::Marketing],
    }
}

/// The documented order of restarting services.
const RESTART_RULE: [Role; 3] = [Role::Tracking, Role::MidSourcing, Role::Marketing];
/// The same after an upgrade of the build: application server, redirection, delivery.
const BUILD_UPGRADE_RESTART_RULE: [Role; 3] = [Role::Marketing, Role::Tracking, Role::Mta];

/// Which of the two orders of a platform.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Migrate,
    Restart,
}

/// Checks a site's own order against the vendor's. `present` are the roles of the platform's hosts; `build_upgrade` says whether they run
/// v7 already.
pub(super) fn order(
    which: Order,
    words: &Spanned<Vec<Spanned<RoleWord>>>,
    topology: Option<Topology>,
    present: &[Role],
    build_upgrade: bool,
    report: &mut Report,
) -> Vec<Role> {
    let key = match which {
        Order::Migrate => "order",
        Order::Restart => "restart_order",
    };
    let mut placed: Vec<(Role, &Span)> = Vec::new();
    for word in &words.value {
        let Some(role) = role(word, topology, &format!("in `{key}`"), report) else { continue };
        if role == Role::Database {
            report
                .error(Kind::OrderRule, &word.span, format!("`database` has no place in `{key}`"))
                .label("database servers are backed up, not migrated");
        } else if let Some((_, first)) = placed.iter().find(|(other, _)| *other == role) {
            report
                .error(Kind::ListedTwice, &word.span, format!("`{role}` is listed twice"))
                .label("given again here")
                .also(first, "given first here");
        } else {
            placed.push((role, &word.span));
        }
    }
    let roles: Vec<_> = placed.iter().map(|(role, _)| *role).collect();
    let Some(topology) = topology else { return roles };
    if topology == Topology::Standalone {
        report
            .error(Kind::OrderWithoutStages, &words.span, format!("`{key}` has no meaning on a `standalone` platform"))
            .label("its one machine is one stage");
        return roles;
    }
    let rule = match which {
        Order::Migrate => migrate_rule(topology, build_upgrade),
        Order::Restart if build_upgrade => &BUILD_UPGRADE_RESTART_RULE,
        Order::Restart => &RESTART_RULE,
    };
    let verb = match which {
        Order::Migrate => "migrated",
        Order::Restart => "restarted",
    };
    for (index, (role, span)) in placed.iter().enumerate() {
        let rank = |role: &Role| rule.iter().position(|other| other == role);
        let before =
            placed[..index].iter().find(|(earlier, _)| rank(earlier).zip(rank(role)).is_some_and(|(earlier, own)| own < earlier));
        if let Some((earlier, _)) = before {
            let order = rule.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
            report
                .error(Kind::OrderRule, span, format!("`{role}` must be {verb} before `{earlier}`"))
                .label(format!("the vendor's order is: {order}"))
                .help("roles that the vendor does not place can stand anywhere; the others keep its order");
        }
    }
    let missing: Vec<_> =
        present.iter().filter(|role| **role != Role::Database && !roles.contains(role)).map(|role| role.as_str()).collect();
    if !missing.is_empty() {
        report
            .error(Kind::OrderIncomplete, &words.span, format!("`{key}` leaves out {}", crate::problem::listing(&missing)))
            .label("every role of the platform has its place")
            .help(format!("leave `{key}:` out to use the documented order"));
    }
    roles
}
