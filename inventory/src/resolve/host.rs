//! Hosts: ranges expanded, blocks laid over each other, values checked.

use super::{Block, Site, keep, topology, value};
use crate::model::{
    Become, BecomeMethod, Campaign, Host, Location, Package, Role, Source, SourceVersion, Ssh, Target, Web, WebServer,
};
use crate::problem::{Kind, Report, Span, listing, quote};
use crate::range::{RangeError, expand};
use crate::raw;
use crate::read::{Layer, Origins, Overlay, Spanned, Text};
use std::collections::BTreeMap;

/// A host and where its name stands.
pub(super) struct Placed {
    pub(super) host: Host,
    pub(super) span: Span,
    /// Where its OS stands, if it is given.
    pub(super) os: Option<Span>,
    /// Whether it has a source without packages.
    pub(super) no_way_back: bool,
    /// Where it stands what keeps its backups, if something does.
    pub(super) keep: Option<Span>,
}

/// The hosts of a platform, and whether that is all of them: where a host or its roles cannot be used, nothing can be said about
/// hosts that seem to be missing.
pub(super) fn hosts(site: &Site<'_>, report: &mut Report) -> (Vec<Placed>, bool) {
    let mut placed = Vec::new();
    let mut complete = site.raw.hosts.is_some();
    if let Some(list) = site.raw.hosts.as_ref().filter(|hosts| hosts.value.0.is_empty() && !hosts.value.1) {
        report
            .error(Kind::EmptyList, &list.span, format!("platform {} has no host", quote(site.name)))
            .label("at least one host is expected here");
    }
    complete &= site.raw.hosts.as_ref().is_some_and(|hosts| !hosts.value.0.is_empty() && !hosts.value.1);
    for entry in site.raw.hosts.iter().flat_map(|hosts| &hosts.value.0) {
        if let Some(old) = &entry.value.replaces {
            report
                .error(
                    Kind::ReservedKey,
                    &old.span,
                    "`replaces` is reserved for moving to new machines, which this version cannot do",
                )
                .label("remove this key")
                .help("migrate the host in place, or install the new machine and move it in afterwards");
        }
        let Some(name) = &entry.value.name else {
            complete = false;
            continue;
        };
        let roles = roles(site, name, &entry.value, report);
        let os = entry.value.os.as_ref().filter(|os| value::os(os, report));
        complete &= entry.value.roles.as_ref().is_some_and(|words| !words.value.is_empty() && words.value.len() == roles.len());
        let Some(names) = ranges(&name.value, &name.span, "the name", report) else {
            complete = false;
            continue;
        };
        let addresses = addresses(&entry.value, names.len(), report);
        for (index, host_name) in names.into_iter().enumerate() {
            if !value::name(&host_name, "a host", &name.span, report) || site.full(placed.len(), &name.span, report) {
                complete = false;
                break;
            }
            let address = addresses.as_ref().and_then(|all| all.get(index)).cloned().unwrap_or_else(|| host_name.clone());
            let (host, no_way_back, keep) = host(site, entry, name, host_name, address, roles.clone(), report);
            placed.push(Placed { host, span: name.span.clone(), os: os.map(|os| os.span.clone()), no_way_back, keep });
        }
    }
    (placed, complete)
}

/// Expands ranges; reports what is wrong with them.
fn ranges(text: &str, span: &Span, what: &str, report: &mut Report) -> Option<Vec<String>> {
    let error = match expand(text) {
        Ok(names) => return Some(names),
        Err(error) => error,
    };
    let kind = match &error {
        RangeError::Syntax { .. } => Kind::RangeSyntax,
        RangeError::Reversed { .. } => Kind::RangeReversed,
        RangeError::Nested => Kind::RangeNested,
        RangeError::TooMany => Kind::TooManyHosts,
    };
    report
        .error(kind, span, format!("{what} {} is no usable range", quote(text)))
        .label(error.to_string())
        .help("`[1-3]` stands for 1, 2, 3 and `[01-12]` for 01 to 12");
    None
}

fn addresses(raw: &raw::Host, names: usize, report: &mut Report) -> Option<Vec<String>> {
    let address = raw.address.as_ref()?;
    // The colons of an IPv6 address have nothing to do with ranges.
    let all = match value::is_ip(&address.value) {
        true => vec![address.value.0.clone()],
        false => ranges(&address.value, &address.span, "the address", report)?,
    };
    if all.len() != names {
        let stands = |count: usize| if count == 1 { "one host".to_owned() } else { format!("{count} hosts") };
        report
            .error(
                Kind::RangeMismatch,
                &address.span,
                format!("the address stands for {}, the name for {}", stands(all.len()), stands(names)),
            )
            .label("name and address go in step")
            .help("give both a range of the same length, for example `trk[1-3]` with `10.0.0.[11-13]`");
        return None;
    }
    all.iter().all(|one| value::address(one, &address.span, report)).then_some(all)
}

fn roles(site: &Site<'_>, name: &Spanned<Text>, raw: &raw::Host, report: &mut Report) -> Vec<Role> {
    let mut roles = Vec::new();
    let Some(words) = &raw.roles else { return roles };
    if words.value.is_empty() {
        report
            .error(Kind::EmptyList, &words.span, format!("host {} has no role", quote(&name.value)))
            .label(topology::has(site.topology));
    }
    for word in &words.value {
        let Some(role) = topology::role(word, site.topology, &format!("for host {}", quote(&name.value)), report) else { continue };
        if roles.contains(&role) {
            report
                .error(Kind::ListedTwice, &word.span, format!("`{role}` is listed twice for host {}", quote(&name.value)))
                .label("given again here");
        } else {
            roles.push(role);
        }
    }
    roles
}

/// The same block of each layer, nearest first.
fn layers<'a, T>(
    host: Option<&'a Spanned<T>>,
    platform: Option<&'a Spanned<T>>,
    defaults: Option<&'a Spanned<T>>,
) -> Vec<Layer<'a, T>> {
    [("host", host), ("platform", platform), ("defaults", defaults)]
        .into_iter()
        .filter_map(|(name, map)| map.map(|map| Layer { name, map: &map.value }))
        .collect()
}

#[allow(clippy::too_many_arguments)]
fn host(
    site: &Site<'_>,
    entry: &Spanned<raw::Host>,
    at: &Spanned<Text>,
    name: String,
    address: String,
    roles: Vec<Role>,
    report: &mut Report,
) -> (Host, bool, Option<Span>) {
    let raw = &entry.value;
    let (own, platform, defaults) = (raw.blocks(), site.raw.blocks(), site.defaults.map(|layer| layer.value.blocks()));
    let mut origins = Origins::new();
    macro_rules! block {
        ($field:ident, $path:literal) => {
            Overlay::overlay(&layers(own.$field, platform.$field, defaults.and_then(|blocks| blocks.$field)), $path, &mut origins)
        };
    }
    let (ssh, become_, campaign): (raw::Ssh, raw::Become, raw::Campaign) =
        (block!(ssh, "ssh"), block!(become_, "become"), block!(campaign, "campaign"));
    let (source, target): (raw::Source, raw::Target) = (block!(source, "source"), block!(target, "target"));
    let keep: raw::Keep = block!(keep, "keep");
    let keep_at =
        [own.keep, platform.keep, defaults.and_then(|blocks| blocks.keep)].into_iter().flatten().next().map(|at| &at.span);
    let mut single = |key: &str, layers: [(&'static str, Option<&Spanned<Text>>); 3]| {
        let (layer, value) = layers.into_iter().find_map(|(layer, value)| value.map(|value| (layer, value.clone())))?;
        origins.push((key.to_owned(), value.span.start, layer));
        Some(value)
    };
    let host_state = single(
        "host_state",
        [("host", own.host_state), ("platform", platform.host_state), ("defaults", defaults.and_then(|blocks| blocks.host_state))],
    );
    let init_scripts = single(
        "init_scripts",
        [
            ("host", own.init_scripts),
            ("platform", platform.init_scripts),
            ("defaults", defaults.and_then(|blocks| blocks.init_scripts)),
        ],
    );

    let os = raw.os.as_ref().map(|os| os.value.0.clone());
    let windows = os.as_deref().is_some_and(|os| os.starts_with("windows"));
    let mut directory = |text: Option<&Spanned<Text>>, default: &str| match text {
        Some(text) => {
            let resolved = value::substitute(&text.value, &name, site.name, &text.span, report);
            value::path(&text.value, windows, &text.span, report);
            resolved.trim_end_matches('/').to_owned()
        }
        None => default.to_owned(),
    };
    let home = directory(campaign.home.as_ref(), "/usr/local/neolane");
    let state = directory(host_state.as_ref(), "/var/lib/caravan");
    let scripts = directory(init_scripts.as_ref(), "/etc/init.d");
    let web_config = raw.web_config.as_ref().map(|config| directory(Some(config), ""));
    if [6, 5].iter().any(|major| format!("{state}/").starts_with(&format!("{home}/nl{major}"))) {
        let span = host_state.as_ref().map_or(&at.span, |text| &text.span);
        report
            .error(Kind::PathsOverlap, span, "`host_state` lies in the installation that is moved away")
            .label(format!("this is below {}", quote(&home)))
            .help("give Caravan a directory of its own, for example `/var/lib/caravan`");
    }

    // A pure database server installs nothing.
    if roles.iter().any(|role| *role != Role::Database) {
        for (block, key, missing) in [
            (Block::Source, "version", source.version.is_none()),
            (Block::Target, "version", target.version.is_none()),
            (Block::Target, "build", target.build.is_none()),
            (Block::Target, "packages", target.packages.is_none() && !windows && !site.overrides("install.packages")),
        ] {
            if missing {
                site.lacks(entry, block, key, report);
            }
        }
    }
    let host = Host {
        address,
        web: Web { config: web_config, ..web(raw, windows, report) },
        init: raw.init.as_ref().map(|init| init.value),
        init_scripts: scripts,
        ssh: self::ssh(&ssh, report),
        become_: self::become_(&become_, report),
        campaign: Campaign { home, user: campaign_user(&campaign, report), soap: value::soap(campaign.soap.as_ref(), report) },
        host_state: state,
        source: self::source(&source, report),
        target: self::target(&target, report),
        keep: keep_at.and_then(|at| keep::keep(&keep, at, &name, site.name, report)),
        origins: named(origins, report),
        place: {
            let (line, column) = report.source().position(at.span.start);
            format!("{line}:{column}")
        },
        name,
        os,
        roles,
    };
    if windows && let Some(init) = &raw.init {
        report.error(Kind::NotOnThisOs, &init.span, "a Windows host has no init system of this kind").label("remove this key");
    }
    let keep = keep.to.map(|to| to.span).filter(|_| host.keep.is_some());
    (host, source.version.is_some() && source.packages.is_none(), keep)
}

/// Values that hold when no layer gives them.
const DEFAULTS: [&str; 6] = ["become.method", "campaign.home", "campaign.user", "campaign.soap", "host_state", "init_scripts"];

/// Origins as people read them.
fn named(origins: Origins, report: &Report) -> BTreeMap<String, String> {
    let mut named: BTreeMap<_, _> = DEFAULTS.iter().map(|key| ((*key).to_owned(), "default".to_owned())).collect();
    named.extend(origins.into_iter().map(|(key, at, layer)| (key, format!("{} ({layer})", report.source().place(at)))));
    named
}

fn web(raw: &raw::Host, windows: bool, report: &mut Report) -> Web {
    if let Some(address) = &raw.web_address {
        value::host_port(address, report);
    }
    let server = raw.web_server.as_ref().map(|server| server.value);
    if let (Some(WebServer::Iis), Some(os), Some(at), false) = (server, &raw.os, &raw.web_server, windows) {
        report
            .error(Kind::NotOnThisOs, &at.span, format!("IIS does not run on {}", quote(&os.value)))
            .label("`apache` is expected here")
            .also(&os.span, "the host's operating system");
    }
    Web {
        server: server.unwrap_or(if windows { WebServer::Iis } else { WebServer::Apache }),
        address: raw.web_address.as_ref().map_or_else(|| "localhost:80".to_owned(), |text| text.value.0.clone()),
        service: raw.web_service.as_ref().map(|text| text.value.0.clone()),
        config: None,
    }
}

fn ssh(raw: &raw::Ssh, report: &mut Report) -> Ssh {
    if let Some(user) = &raw.user {
        value::account(user, report);
    }
    if let Some(jump) = &raw.jump {
        value::jump(jump, report);
    }
    if let Some(key) = &raw.host_key {
        value::host_key(key, report);
    }
    let text = |value: &Option<Spanned<Text>>| value.as_ref().map(|text| text.value.0.clone());
    let many = |value: &Option<Spanned<crate::read::OneOrMany<Spanned<Text>>>>| {
        value.iter().flat_map(|many| many.value.0.iter().map(|text| text.value.0.clone())).collect()
    };
    let port = raw.port.as_ref().map(|port| value::number(port, "a port", 1, u64::from(u16::MAX), report));
    Ssh {
        user: text(&raw.user),
        port: port.and_then(|port| u16::try_from(port).ok()),
        identity: many(&raw.identity),
        password: raw.password.as_ref().map(|secret| secret.value.0.clone()),
        jump: text(&raw.jump),
        host_key: text(&raw.host_key),
        known_hosts: many(&raw.known_hosts),
        connect_timeout: raw.connect_timeout.as_ref().map(|value| value::number(value, "`connect_timeout`", 1, 600, report)),
        config: text(&raw.config),
        legacy: raw.legacy.as_ref().map(|legacy| legacy.value.clone()).unwrap_or_default(),
    }
}

fn become_(raw: &raw::Become, report: &mut Report) -> Become {
    let method = raw.method.as_ref().map_or(BecomeMethod::Sudo, |method| method.value);
    if let (BecomeMethod::None, Some(password)) = (method, &raw.password) {
        report
            .warning(Kind::WithoutEffect, &password.span, "with `method: none` no password is asked for")
            .label("this has no effect");
    }
    Become { method, password: raw.password.as_ref().map(|secret| secret.value.0.clone()) }
}

fn campaign_user(raw: &raw::Campaign, report: &mut Report) -> String {
    match &raw.user {
        Some(user) => {
            value::account(user, report);
            user.value.0.clone()
        }
        None => "neolane".to_owned(),
    }
}

fn source(raw: &raw::Source, report: &mut Report) -> Source {
    Source {
        version: raw.version.as_ref().map_or(SourceVersion::V6_1, |version| version.value),
        latest_build: raw.latest_build.as_ref().map(|build| self::build(build, "`latest_build`", report)),
        packages: packages(raw.packages.as_ref(), report),
    }
}

fn target(raw: &raw::Target, report: &mut Report) -> Target {
    if let Some(version) = &raw.version {
        let mut parts = version.value.split('.');
        let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if parts.next() != Some("7") || !parts.all(number) || !version.value.contains('.') {
            report
                .error(Kind::TargetVersion, &version.span, format!("Caravan does not migrate to version {}", quote(&version.value)))
                .label("a version 7 is expected here, for example \"7.4.1\"");
        }
    }
    Target {
        version: raw.version.as_ref().map_or_else(String::new, |version| version.value.0.clone()),
        build: raw.build.as_ref().map_or(0, |build| self::build(build, "`build`", report)),
        packages: packages(raw.packages.as_ref(), report),
        client: raw.client.as_ref().and_then(|client| self::client(client, report)),
    }
}

/// The setup program of the client console runs on Windows, whatever the servers run on.
fn client(raw: &Spanned<raw::ClientSetup>, report: &mut Report) -> Option<Package> {
    let raw::ClientSetup { sha256, path, url } = &raw.value;
    let sha256 = sha256.as_ref().map(|digest| value::sha256(digest, report)).unwrap_or_default();
    let location = location(path.as_ref(), url.as_ref(), &raw.span, report)?;
    Some(Package { os: "windows".to_owned(), location, sha256, names: Vec::new() })
}

fn build(number: &Spanned<u64>, what: &str, report: &mut Report) -> u32 {
    u32::try_from(value::number(number, what, 1, 999_999, report)).unwrap_or(u32::MAX)
}

fn packages(raw: Option<&Spanned<Vec<Spanned<raw::Package>>>>, report: &mut Report) -> Vec<Package> {
    let mut packages = Vec::new();
    for package in raw.iter().flat_map(|list| &list.value) {
        let at = &package.span;
        let package = &package.value;
        if let Some(os) = &package.os {
            value::os(os, report);
        }
        let sha256 = package.sha256.as_ref().map(|digest| value::sha256(digest, report)).unwrap_or_default();
        let Some(location) = location(package.path.as_ref(), package.url.as_ref(), at, report) else { continue };
        packages.push(Package {
            os: package.os.as_ref().map_or_else(String::new, |os| os.value.0.clone()),
            location,
            sha256,
            names: package.names.iter().flat_map(|names| names.value.iter().map(|name| name.value.0.clone())).collect(),
        });
    }
    packages
}

/// Where a file is: at exactly one place.
fn location(path: Option<&Spanned<Text>>, url: Option<&Spanned<Text>>, at: &Span, report: &mut Report) -> Option<Location> {
    match (path, url) {
        (Some(path), None) => Some(Location::Path(path.value.0.clone())),
        (None, Some(url)) => {
            value::url(url, report);
            Some(Location::Url(url.value.0.clone()))
        }
        (Some(path), Some(url)) => {
            report
                .error(Kind::PackagePlace, &url.span, "a package has both `path` and `url`")
                .label("remove one of them")
                .also(&path.span, "its path");
            None
        }
        (None, None) => {
            let at = report.head(at);
            report
                .error(Kind::PackagePlace, &at, "a package has neither `path` nor `url`")
                .label("where is the file?")
                .help("`path:` is a file of the workstation that Caravan pushes, `url:` is downloaded by each host");
            None
        }
    }
}

/// Checks that there is something to install on each host, and something to go back to.
pub(super) fn package_coverage(site: &Site<'_>, placed: &[Placed], report: &mut Report) {
    let replaced = site.overrides("install.packages");
    for placed in placed.iter().filter(|placed| placed.host.has_campaign() && !placed.host.is_windows()) {
        let packages = &placed.host.target.packages;
        if let (Some(os), Some(span)) = (&placed.host.os, &placed.os)
            && !replaced
            && !packages.is_empty()
            && !packages.iter().any(|package| package.os == *os)
        {
            let given: Vec<_> = packages.iter().map(|package| package.os.as_str()).collect();
            report
                .error(Kind::NoPackage, span, format!("there is no target package for {}", quote(os)))
                .label(format!("packages are given for {}", listing(&given)))
                .help(format!(
                    "add `{{ os: {os}, path: ..., sha256: ... }}` to `target.packages`, or replace the step `install.packages`"
                ));
        }
        if placed.no_way_back {
            report
                .warning(
                    Kind::NoPackage,
                    &site.span,
                    format!("platform {} gives no packages of the version in use", quote(site.name)),
                )
                .label("a rollback could not install the old version again")
                .help("add `packages: [...]` to `source:`");
        }
    }
}
