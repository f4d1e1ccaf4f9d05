//! From the format to the fleet: defaults applied, names checked, references followed, the vendor's rules held against it.
//!
//! Everything here goes on after an error: what cannot be resolved gets a filler, which nobody sees because the fleet is given out
//! only when there was no error.

mod host;
mod instance;
mod keep;
mod overrides;
mod scratch;
mod topology;
mod value;

use crate::model::{Fleet, Host, Parallel, Platform, Role, SourceVersion, Topology};
use crate::problem::{Kind, Report, Span, quote};
use crate::range::MAX_HOSTS;
use crate::raw;
use crate::read::Spanned;
use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

/// A platform while it is resolved, with what it inherits.
struct Site<'a> {
    name: &'a str,
    span: Span,
    topology: Option<Topology>,
    raw: &'a raw::Platform,
    /// Where the platform's map stands.
    map: &'a Span,
    defaults: Option<&'a Spanned<raw::Defaults>>,
    /// Hosts of the platforms before this one.
    before: &'a Cell<usize>,
}

/// The hosts of a platform, and whether those are all of them.
#[derive(Clone, Copy)]
struct Hosts<'a> {
    placed: &'a [host::Placed],
    complete: bool,
}

impl<'a> Hosts<'a> {
    fn names(self) -> impl Iterator<Item = &'a str> {
        self.placed.iter().map(|placed| placed.host.name.as_str())
    }

    fn find(self, name: &str) -> Option<&'a host::Placed> {
        self.placed.iter().find(|placed| placed.host.name == name)
    }
}

/// The two blocks that every host needs from some layer.
#[derive(Debug, Clone, Copy)]
enum Block {
    Source,
    Target,
}

impl Block {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    fn place<'a>(self, blocks: &raw::Blocks<'a>) -> Option<&'a Span> {
        match self {
            Self::Source => blocks.source.map(|block| &block.span),
            Self::Target => blocks.target.map(|block| &block.span),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Source => "for example `source: { version: \"6.1\", latest_build: 8989 }`",
            Self::Target => {
                "for example `target: { version: \"7.4.1\", build: 9383, packages: [{ os: debian-11, path: ..., sha256: ... }] }`"
            }
        }
    }
}

impl Site<'_> {
    /// Whether a step is replaced or left out by the site.
    fn overrides(&self, step: &str) -> bool {
        self.raw
            .overrides
            .iter()
            .flat_map(|all| &all.value.0)
            .any(|(name, change)| name.value == step && (change.command.is_some() || change.skip.is_some()))
    }

    /// Reports a key of `source` or `target` that no layer has: at the nearest of these blocks, or at the platform's name.
    fn lacks(&self, host: &Spanned<raw::Host>, block: Block, key: &str, report: &mut Report) {
        let defaults = self.defaults.map(|layer| (&layer.span, layer.value.blocks()));
        let layers = [(&host.span, host.value.blocks()), (self.map, self.raw.blocks())].into_iter().chain(defaults);
        let places: Vec<_> = layers.map(|(map, blocks)| (map, block.place(&blocks))).collect();
        // What is there and was found unusable is not missing.
        let word = block.word();
        let given_up =
            |(map, own): &(&Span, Option<&Span>)| report.gave_up(map, word) || own.is_some_and(|own| report.gave_up(own, key));
        if places.iter().any(given_up) {
            return;
        }
        let nearest = places.into_iter().find_map(|(_, own)| own).map(|own| report.head(own));
        let label = if nearest.is_some() { format!("add `{key}:`") } else { format!("add `{word}:` here or to `defaults:`") };
        report
            .error(
                Kind::MissingKey,
                nearest.as_ref().unwrap_or(&self.span),
                format!("`{word}.{key}` is missing for platform {}", quote(self.name)),
            )
            .label(label)
            .help(block.example());
    }

    /// Whether the fleet cannot take another host.
    fn full(&self, here: usize, span: &Span, report: &mut Report) -> bool {
        let full = self.before.get() + here >= MAX_HOSTS;
        if full {
            report
                .error(Kind::TooManyHosts, span, format!("a fleet has at most {MAX_HOSTS} hosts"))
                .label("from here on there are more")
                .help("split the inventory");
        }
        full
    }
}

/// Resolves a whole inventory.
pub(crate) fn fleet(raw: &raw::Inventory, name: &str, base: &Path, steps: Option<&[&str]>, report: &mut Report) -> Fleet {
    if let Some(version) = raw.version.as_ref().filter(|version| version.value != 1) {
        report
            .error(
                Kind::FormatVersion,
                &version.span,
                format!("this Caravan does not read version {} of the format", version.value),
            )
            .label("`version: 1` is expected here")
            .help("a newer Caravan may read it");
    }
    if let Some(list) = raw.platforms.as_ref().filter(|list| list.value.is_empty()) {
        report.error(Kind::EmptyList, &list.span, "the inventory has no platform").label("at least one platform is expected here");
    }
    let hosts_so_far = Cell::new(0);
    let mut platforms: Vec<Platform> = Vec::new();
    let mut names: HashMap<&str, &Span> = HashMap::new();
    let mut known = Known::default();
    for entry in raw.platforms.iter().flat_map(|list| &list.value) {
        let Some(name) = &entry.value.name else { continue };
        value::name(&name.value, "a platform", &name.span, report);
        match names.get(&*name.value) {
            Some(first) => {
                report
                    .error(Kind::DuplicatePlatform, &name.span, format!("platform {} is given twice", quote(&name.value)))
                    .label("given again here")
                    .also(first, "given first here");
            }
            None => drop(names.insert(&name.value, &name.span)),
        }
        let site = Site {
            name: &name.value,
            span: name.span.clone(),
            topology: entry.value.topology.as_ref().map(|topology| topology.value),
            raw: &entry.value,
            map: &entry.span,
            defaults: raw.defaults.as_ref(),
            before: &hosts_so_far,
        };
        let platform = platform(&site, &mut known, steps, report);
        hosts_so_far.set(hosts_so_far.get() + platform.hosts.len());
        platforms.push(platform);
    }
    known.databases.check(report);
    known.keeping.check(&platforms, report);
    keep::settle(&mut platforms);
    let parallel = raw.parallel.as_ref().map(|block| &block.value);
    let limit = |value: Option<&Spanned<u64>>, what: &str, default: usize, most: u64, report: &mut Report| {
        value.map_or(default, |value| usize::try_from(value::number(value, what, 1, most, report)).unwrap_or(default))
    };
    let parallel = Parallel {
        platforms: limit(parallel.and_then(|block| block.platforms.as_ref()), "`parallel.platforms`", 4, 1000, report),
        hosts: limit(parallel.and_then(|block| block.hosts.as_ref()), "`parallel.hosts`", 50, MAX_HOSTS as u64, report),
    };
    Fleet { name: name.to_owned(), base: base.to_owned(), parallel, platforms }
}

fn platform(site: &Site<'_>, known: &mut Known, steps: Option<&[&str]>, report: &mut Report) -> Platform {
    let (placed, complete) = host::hosts(site, report);
    for placed in &placed {
        known.add(site.name, placed, report);
    }
    host::package_coverage(site, &placed, report);
    if let Some(topology) = site.raw.topology.as_ref().filter(|_| complete) {
        let count = |role| placed.iter().filter(|placed| placed.host.roles.contains(&role)).count();
        topology::servers(topology.value, &topology.span, count, placed.len(), report);
    }
    let instances = instance::instances(site, Hosts { placed: &placed, complete }, report);
    known.databases.add(site, &instances);
    let database = instance::platform_database(site, Hosts { placed: &placed, complete }, report);
    let overrides = overrides::overrides(site, steps, report);
    let mut present: Vec<Role> = placed.iter().flat_map(|placed| placed.host.roles.iter().copied()).collect();
    present.sort();
    present.dedup();
    let build_upgrade = placed.iter().any(|placed| placed.host.has_campaign() && placed.host.source.version == SourceVersion::V7);
    let mut order =
        |which, words: Option<&_>| words.map(|words| topology::order(which, words, site.topology, &present, build_upgrade, report));
    Platform {
        name: site.name.to_owned(),
        topology: site.topology.unwrap_or(Topology::Standard),
        rehearsal: site.raw.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.value),
        order: order(topology::Order::Migrate, site.raw.order.as_ref()),
        restart_order: order(topology::Order::Restart, site.raw.restart_order.as_ref()),
        runbook: {
            let of_defaults = || site.defaults.and_then(|defaults| defaults.value.runbook.as_ref());
            site.raw.runbook.as_ref().or_else(of_defaults).map(|file| file.value.0.clone())
        },
        database,
        instances,
        hosts: placed.into_iter().map(|placed| placed.host).collect(),
        overrides,
    }
}

/// The hosts of the whole fleet so far.
#[derive(Default)]
struct Known {
    /// Name in lower case, as DNS compares it, to platform and place.
    names: HashMap<String, (String, Span)>,
    /// Address and port to host, its state directory and its place.
    addresses: HashMap<(String, u16), (String, String, Span)>,
    databases: scratch::Databases,
    keeping: keep::Keeping,
}

impl Known {
    fn add(&mut self, platform: &str, placed: &host::Placed, report: &mut Report) {
        self.keeping.add(placed);
        let Host { name, address, ssh, host_state, .. } = &placed.host;
        if let Some((other, first)) = self.names.get(&name.to_ascii_lowercase()) {
            if other == platform {
                report
                    .error(Kind::DuplicateHost, &placed.span, format!("host {} is given twice", quote(name)))
                    .label("given again here")
                    .also(first, "given first here")
                    .help("a host with several roles is one entry: `roles: [mta, tracking]`");
            } else {
                report
                    .error(
                        Kind::HostInTwoPlatforms,
                        &placed.span,
                        format!("host {} is in two platforms: {} and {}", quote(name), quote(other), quote(platform)),
                    )
                    .label(format!("given again here, in {}", quote(platform)))
                    .also(first, format!("given first here, in {}", quote(other)))
                    .help("a host is migrated once, with one platform");
            }
            return;
        }
        self.names.insert(name.to_ascii_lowercase(), (platform.to_owned(), placed.span.clone()));
        let place = (address.to_ascii_lowercase(), ssh.port.unwrap_or(22));
        match self.addresses.get(&place) {
            // Hosts that keep their state apart share a machine on purpose: labs do.
            Some((other, state, first)) if state == host_state => {
                report
                    .warning(
                        Kind::SameAddress,
                        &placed.span,
                        format!("hosts {} and {} have one address and port: {}:{}", quote(other), quote(name), place.0, place.1),
                    )
                    .label("one machine is one host, with several roles")
                    .also(first, "the other host")
                    .help("hosts that share a machine on purpose need `{host}` in `host_state` and `campaign.home`");
            }
            Some(_) => {}
            None => drop(self.addresses.insert(place, (name.clone(), host_state.clone(), placed.span.clone()))),
        }
    }
}
