//! Inventories to start from: one for each topology, commented, ready to edit.

use crate::model::Topology;

/// What is the same for all topologies: which versions, how to log in.
const HEAD: &str = include_str!("template/head.yaml");
const STANDALONE: &str = include_str!("template/standalone.yaml");
const STANDARD: &str = include_str!("template/standard.yaml");
const CLOUD_MESSAGING: &str = include_str!("template/cloud-messaging.yaml");
const POWER_BOOSTER: &str = include_str!("template/power-booster.yaml");
const POWER_CLUSTER: &str = include_str!("template/power-cluster.yaml");
/// What can be left out, as comments.
const TAIL: &str = include_str!("template/tail.yaml");

/// A commented inventory for a topology. It reads without errors as it is; its digests and names are placeholders.
pub fn init_template(topology: Topology) -> String {
    let platform = match topology {
        Topology::Standalone => STANDALONE,
        Topology::Standard => STANDARD,
        Topology::CloudMessaging => CLOUD_MESSAGING,
        Topology::PowerBooster => POWER_BOOSTER,
        Topology::PowerCluster => POWER_CLUSTER,
    };
    format!("{HEAD}{platform}{TAIL}")
}
