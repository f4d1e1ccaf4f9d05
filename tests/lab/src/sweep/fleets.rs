//! The fleets that are swept: for each topology the smallest that has its order, with stand-ins that wait for nothing.

use lab::{Role, Spec, Topology};

/// All topologies.
pub(super) const TOPOLOGIES: [Topology; 5] =
    [Topology::Standalone, Topology::Standard, Topology::CloudMessaging, Topology::PowerBooster, Topology::PowerCluster];

/// The name of the one platform.
pub(super) const PLATFORM: &str = "sea";

/// Reads a topology as the inventory writes it.
pub(super) fn topology(text: &str) -> Result<Topology, String> {
    let known = || TOPOLOGIES.map(Topology::as_str).join(", ");
    TOPOLOGIES.into_iter().find(|topology| topology.as_str() == text).ok_or_else(|| format!("one of {}", known()))
}

/// The fleet of a topology. With `openssh` real servers answer on all its hosts.
pub(super) fn spec(topology: Topology, openssh: bool) -> Spec {
    let hosts: &[(Role, usize)] = match topology {
        Topology::Standalone => &[(Role::Marketing, 1)],
        Topology::Standard => &[(Role::Marketing, 1), (Role::Mta, 1), (Role::Tracking, 1)],
        Topology::CloudMessaging => &[(Role::Marketing, 1), (Role::Tracking, 1)],
        Topology::PowerBooster => &[(Role::Marketing, 1), (Role::PowerBooster, 1), (Role::Tracking, 1)],
        Topology::PowerCluster => &[(Role::Marketing, 1), (Role::PowerCluster, 2), (Role::Tracking, 1)],
    };
    let mut spec = Spec::one(PLATFORM, topology, hosts);
    for platform in &mut spec.platforms {
        if topology == Topology::Standalone {
            platform.also.insert(format!("{PLATFORM}-mkt1"), vec![Role::Mta, Role::Tracking]);
        }
        platform.openssh = if openssh { platform.host_names() } else { Vec::new() };
    }
    spec
}

/// What `migrate` and `resume` are told beforehand: the gates of the topology.
pub(super) fn confirmations(topology: Topology) -> Vec<String> {
    match topology {
        Topology::CloudMessaging => vec!["--confirm".into(), format!("{PLATFORM}/vendor-execution-servers=agreed for the sweep")],
        _ => Vec::new(),
    }
}
