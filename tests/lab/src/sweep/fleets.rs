//! The fleets that are swept: for each topology the smallest that has its order, with stand-ins that wait for nothing.

use lab::{Release, Role, Spec, Topology};
use std::fmt;

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

/// A version to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Source {
    /// v6.1.
    #[value(name = "6.1")]
    V61,
    /// v6.02.
    #[value(name = "6.02")]
    V602,
    /// v5.11.
    #[value(name = "5.11")]
    V511,
    /// An earlier build of v7.
    #[value(name = "7")]
    V7,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::V61 => "6.1",
            Self::V602 => "6.02",
            Self::V511 => "5.11",
            Self::V7 => "7",
        }
    }

    fn release(self) -> Release {
        let of = |version: &str, build| Release { version: version.into(), build };
        match self {
            Self::V61 => Release::source(),
            Self::V602 => of("6.02", 8800),
            Self::V511 => of("5.11", 8000),
            Self::V7 => of("7.3.1", 9349),
        }
    }
}

/// What is behind the SSH servers of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Tier {
    /// Stand-in hosts behind the lab's own servers.
    StandIns,
    /// Stand-in hosts behind OpenSSH's server.
    OpenSsh,
    /// Realistic hosts.
    Real,
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Migration {
    pub(super) topology: Topology,
    pub(super) source: Source,
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.topology.as_str())?;
        match self.source {
            Source::V61 => Ok(()),
            source => write!(f, " from v{}", source.as_str()),
        }
    }
}

impl Migration {
    /// Those that were asked for; without a word every topology from v6.1, and the other procedures (nl5, a build upgrade) once each. On
    /// realistic hosts, which take longer, one.
    pub(super) fn chosen(topologies: &[Topology], sources: &[Source], tier: Tier) -> Vec<Self> {
        let of = |source: Source| move |topology: &Topology| Self { topology: *topology, source };
        match (topologies, sources) {
            ([], []) if tier == Tier::Real => vec![of(Source::V61)(&Topology::Standard)],
            ([], []) => {
                let others = [Source::V511, Source::V7].map(|source| of(source)(&Topology::Standard));
                TOPOLOGIES.iter().map(of(Source::V61)).chain(others).collect()
            }
            ([], sources) => sources.iter().flat_map(|source| TOPOLOGIES.iter().map(of(*source))).collect(),
            (topologies, []) => topologies.iter().map(of(Source::V61)).collect(),
            (topologies, sources) => sources.iter().flat_map(|source| topologies.iter().map(of(*source))).collect(),
        }
    }

    /// The options that choose it.
    pub(super) fn options(self) -> String {
        format!("--topology {} --source {}", self.topology.as_str(), self.source.as_str())
    }

    /// Its fleet.
    pub(super) fn spec(self, tier: Tier) -> Spec {
        let Self { topology, source } = self;
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
            platform.source = Some(source.release());
            platform.openssh = if tier == Tier::OpenSsh { platform.host_names() } else { Vec::new() };
        }
        spec
    }

    /// What `migrate` and `resume` are told beforehand: the gates of the topology.
    pub(super) fn confirmations(self) -> Vec<String> {
        match self.topology {
            Topology::CloudMessaging => {
                vec!["--confirm".into(), format!("{PLATFORM}/vendor-execution-servers=agreed for the sweep")]
            }
            _ => Vec::new(),
        }
    }
}
