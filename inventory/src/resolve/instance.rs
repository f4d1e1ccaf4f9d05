//! Instances: their application servers, their databases, how those are backed up.

use super::host::Placed;
use super::{Hosts, Site, scratch, value};
use crate::model::{Backup, BackupFile, Database, Engine, Instance, InstanceKind, Role, SourceVersion};
use crate::problem::{Kind, Report, Span, did_you_mean, listing, quote};
use crate::raw;
use crate::read::{Layer, Origins, Overlay, Spanned, Text};

/// How old a backup may be that somebody else made, in seconds, where the inventory does not say: a day.
const MAX_AGE: u64 = 86_400;

/// The instances of a platform.
pub(super) fn instances(site: &Site<'_>, hosts: Hosts<'_>, report: &mut Report) -> Vec<Instance> {
    let Some(list) = &site.raw.instances else { return Vec::new() };
    if list.value.is_empty() {
        report
            .error(Kind::EmptyList, &list.span, format!("platform {} has no instance", quote(site.name)))
            .label("postupgrade runs once per instance")
            .help("`nlserver pdump` and the files `conf/config-<instance>.xml` show the instances");
    }
    let mut instances = Vec::new();
    let mut names: Vec<(&str, &Span)> = Vec::new();
    for entry in &list.value {
        let raw = &entry.value.0;
        let Some(name) = &raw.name else { continue };
        check_name(&name.value, &name.span, report);
        if let Some((_, first)) = names.iter().find(|(other, _)| **other == *name.value) {
            report
                .error(Kind::DuplicateInstance, &name.span, format!("instance {} is given twice", quote(&name.value)))
                .label("given again here")
                .also(first, "given first here")
                .help("postupgrade runs once per instance: remove one of them");
            continue;
        }
        names.push((&name.value, &name.span));
        instances.push(instance(site, raw, &name.value, &name.span, hosts, report));
    }
    shared(&instances, &names, report);
    idle(site, hosts, &instances, report);
    instances
}

/// Instance names become parts of file names (`config-<instance>.xml`) and arguments (`mta@<instance>`).
fn check_name(name: &str, span: &Span, report: &mut Report) {
    let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.');
    if name == "default" {
        report
            .error(Kind::ReservedName, span, "`default` is no instance")
            .label("Campaign uses it for what runs once per server, such as `web@default`");
    } else if !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') || !name.chars().all(allowed) {
        report
            .error(Kind::BadName, span, format!("{} cannot be the name of an instance", quote(name)))
            .label("an instance's name has letters, digits, `_`, `-` and `.`");
    }
}

/// Which hosts could run the postupgrade of an instance of this kind.
fn app_roles(kind: InstanceKind) -> &'static [Role] {
    match kind {
        InstanceKind::Marketing => &[Role::Marketing],
        InstanceKind::MidSourcing => &[Role::MidSourcing],
        InstanceKind::Execution => &[Role::PowerBooster, Role::PowerCluster],
    }
}

fn kind_word(kind: InstanceKind) -> &'static str {
    match kind {
        InstanceKind::Marketing => "marketing",
        InstanceKind::MidSourcing => "mid-sourcing",
        InstanceKind::Execution => "execution",
    }
}

fn instance(site: &Site<'_>, raw: &raw::Instance, name: &str, span: &Span, hosts: Hosts<'_>, report: &mut Report) -> Instance {
    let kind = raw.kind.as_ref().map_or(InstanceKind::Marketing, |kind| kind.value);
    let app = app(raw, kind, name, span, hosts, report).unwrap_or_default();
    if let Some(zone) = &raw.timezone {
        value::timezone(zone, report);
    }
    let server = hosts.find(&app);
    let version = server.map(|placed| placed.host.source.version);
    if version == Some(SourceVersion::V5_11) && raw.timezone.is_none() {
        report
            .error(Kind::MissingTimezone, span, format!("instance {} comes from v5.11 and needs its time zone", quote(name)))
            .label("postupgrade from v5 runs with `-timezone:<zone>`")
            .help(format!("write `{{ name: {name}, timezone: Europe/Paris }}`"));
    }
    let database = database(site, raw, name, span, version, hosts, report);
    let timestamptz = raw.timestamptz.as_ref().filter(|wanted| wanted.value);
    if let Some(wanted) = timestamptz
        && !database.as_ref().is_some_and(|database| database.engine.keeps_time_zones())
    {
        report
            .error(Kind::TimestamptzEngine, &wanted.span, format!("the database of {} cannot keep several time zones", quote(name)))
            .label("with an engine that does not support it, this corrupts the database")
            .help("`timestamptz: true` goes with postgresql, oracle and mssql only, and the inventory has to name the engine");
    }
    let timezone = raw.timezone.as_ref().map(|zone| zone.value.0.clone());
    Instance { name: name.to_owned(), kind, app, database, timezone, timestamptz: timestamptz.is_some() }
}

fn app(raw: &raw::Instance, kind: InstanceKind, name: &str, span: &Span, hosts: Hosts<'_>, report: &mut Report) -> Option<String> {
    let roles = app_roles(kind);
    let fits = |placed: &&Placed| placed.host.roles.iter().any(|role| roles.contains(role));
    let words: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    let candidates: Vec<_> = hosts.placed.iter().filter(fits).map(|placed| placed.host.name.as_str()).collect();
    if let Some(app) = &raw.app {
        let Some(placed) = hosts.find(&app.value) else {
            if !hosts.complete {
                return None;
            }
            report
                .error(
                    Kind::UnknownApp,
                    &app.span,
                    format!("the application server {} of instance {} is no host of this platform", quote(&app.value), quote(name)),
                )
                .label(format!("hosts that could be: {}", crate::range::fold_names(&candidates)))
                .help_if(did_you_mean(&app.value, hosts.names()));
            return None;
        };
        if !fits(&placed) {
            report
                .error(
                    Kind::WrongApp,
                    &app.span,
                    format!("{} cannot run the {} instance {}", quote(&app.value), kind_word(kind), quote(name)),
                )
                .label(format!("a host with the role {} is expected here", words.join(" or ")))
                .help_if(
                    (!candidates.is_empty()).then(|| format!("hosts that could be: {}", crate::range::fold_names(&candidates))),
                );
        }
        return Some(app.value.0.clone());
    }
    match candidates.as_slice() {
        [only] => Some((*only).to_owned()),
        [] if !hosts.complete => None,
        [] => {
            report
                .error(Kind::NoApp, span, format!("no host can run the {} instance {}", kind_word(kind), quote(name)))
                .label("postupgrade runs on the instance's application server")
                .help(format!("add a host with the role {}", words.join(" or ")));
            None
        }
        several => {
            report
                .error(
                    Kind::SeveralApps,
                    span,
                    format!("instance {} has {} possible application servers", quote(name), several.len()),
                )
                .label(format!("one of {}", crate::range::fold_names(several)))
                .help(format!(
                    "say which one runs postupgrade: `{{ name: {name}, kind: {}, app: {} }}`",
                    kind_word(kind),
                    several[0]
                ));
            None
        }
    }
}

/// The platform's own database.
pub(super) fn platform_database(site: &Site<'_>, hosts: Hosts<'_>, report: &mut Report) -> Option<Database> {
    let block = site.raw.database.as_ref()?;
    resolve(site, &block.value, &block.span, hosts, report)
}

fn database(
    site: &Site<'_>,
    raw: &raw::Instance,
    name: &str,
    span: &Span,
    version: Option<SourceVersion>,
    hosts: Hosts<'_>,
    report: &mut Report,
) -> Option<Database> {
    let own = raw.database.as_ref().map(|block| ("instance", block));
    let platform = site.raw.database.as_ref().map(|block| ("platform", block));
    let layers: Vec<_> = [own, platform].into_iter().flatten().map(|(name, block)| Layer { name, map: &block.value }).collect();
    let Some((_, nearest)) = own.or(platform) else {
        report
            .warning(Kind::NoDatabase, span, format!("instance {} has no database in the inventory", quote(name)))
            .label("Caravan can neither check its engine nor back it up")
            .help("add `database: { ... }` to the platform or to the instance");
        return None;
    };
    let merged = raw::Database::overlay(&layers, "database", &mut Origins::new());
    if let (Some(engine), Some(SourceVersion::V6_1)) =
        (merged.engine.as_ref().filter(|engine| engine.value == Engine::Mysql), version)
    {
        report
            .error(Kind::EngineNotSupported, &engine.span, "a MySQL database cannot come from v6.1")
            .label("MySQL is supported from v5.11 and v6.02 only")
            .help("ask the vendor's support: a migration cannot change the engine");
    }
    resolve(site, &merged, &nearest.span, hosts, report)
}

fn resolve(site: &Site<'_>, raw: &raw::Database, span: &Span, hosts: Hosts<'_>, report: &mut Report) -> Option<Database> {
    let given = [
        ("engine", raw.engine.is_some()),
        ("server", raw.server.is_some()),
        ("name", raw.name.is_some()),
        ("user", raw.user.is_some()),
        ("backup", raw.backup.is_some()),
    ];
    let blocks = [Some(span), site.raw.database.as_ref().map(|block| &block.span)];
    let gave_up = |key: &str| blocks.iter().flatten().any(|block| report.gave_up(block, key));
    let missing: Vec<_> = given.into_iter().filter(|(key, given)| !given && !gave_up(key)).map(|(key, _)| key).collect();
    if !missing.is_empty() {
        let at = report.head(span);
        report
            .error(Kind::MissingKey, &at, format!("`database` lacks {}", listing(&missing)))
            .label(format!("add {}", missing.iter().map(|key| format!("`{key}:`")).collect::<Vec<_>>().join(", ")))
            .help_if(
                missing
                    .contains(&"backup")
                    .then(|| "a backup is mandatory: `backup: { on: HOST, dir: DIRECTORY }` or `backup: { by: dba }`".to_owned()),
            );
    }
    if let Some(server) = &raw.server {
        value::address(&server.value, &server.span, report);
    }
    if let Some(name) = &raw.name {
        value::of_database(name, "the name of a database", report);
    }
    if let Some(user) = &raw.user {
        value::of_database(user, "an account of a database", report);
    }
    let backup = raw.backup.as_ref().and_then(|block| backup(site, block, raw, hosts, report));
    Some(Database {
        engine: raw.engine.as_ref()?.value,
        server: raw.server.as_ref()?.value.0.clone(),
        name: raw.name.as_ref()?.value.0.clone(),
        user: raw.user.as_ref()?.value.0.clone(),
        password: raw.password.as_ref().map(|secret| secret.value.0.clone()),
        unicode: raw.unicode.as_ref().map(|unicode| unicode.value),
        backup: backup?,
    })
}

fn backup(
    site: &Site<'_>,
    block: &Spanned<raw::Backup>,
    database: &raw::Database,
    hosts: Hosts<'_>,
    report: &mut Report,
) -> Option<Backup> {
    let help = "either `{ on: HOST, dir: DIRECTORY }`, where Caravan runs pg_dump, or `{ by: dba }`";
    let raw = &block.value;
    if let Some(by) = &raw.by {
        if raw.dir.is_some() || raw.scratch.is_some() || (raw.on.is_some() && raw.path.is_none()) {
            report
                .error(Kind::BackupForm, &by.span, "a backup is made by Caravan or by somebody else")
                .label("`by` excludes `on`, `dir` and `scratch`")
                .help(help);
        }
        return given(site, block, hosts, report);
    }
    if let Some(path) = &raw.path {
        report
            .error(Kind::BackupForm, &path.span, "`path` is a backup that somebody else made")
            .label("`by: dba` belongs to it")
            .help(help);
    }
    let (Some(on), Some(dir)) = (&raw.on, &raw.dir) else {
        if ["on", "dir"].iter().any(|key| report.gave_up(&block.span, key)) {
            return None;
        }
        let at = report.head(&block.span);
        report
            .error(Kind::BackupForm, &at, "it is not said how the database is backed up")
            .label("`on` and `dir` are expected here")
            .help(help);
        return None;
    };
    if let Some(engine) =
        database.engine.as_ref().filter(|engine| engine.value != Engine::Postgresql && !site.overrides("backup.database"))
    {
        report
            .error(Kind::BackupEngine, &on.span, "Caravan makes backups of PostgreSQL databases only")
            .label("`{ by: dba }` is expected here")
            .also(&engine.span, "the engine")
            .help("with `backup: { by: dba }` the plan waits until a person confirms the backup");
    }
    is_of_platform(on, "Caravan runs pg_dump on a host of the platform", hosts, report);
    value::path(&dir.value, false, &dir.span, report);
    let dir = value::substitute(&dir.value, &on.value, site.name, &dir.span, report);
    let scratch = raw.scratch.as_ref().and_then(|block| scratch::scratch(site, &block.value, database, report));
    Some(Backup::On { on: on.value.0.clone(), dir: dir.trim_end_matches('/').to_owned(), scratch })
}

/// A backup that somebody else makes, and the file that it is where the inventory names one.
fn given(site: &Site<'_>, block: &Spanned<raw::Backup>, hosts: Hosts<'_>, report: &mut Report) -> Option<Backup> {
    let raw = &block.value;
    let of_file = [("sha256", &raw.sha256), ("max_age", &raw.max_age), ("min_size", &raw.min_size)];
    let Some(path) = &raw.path else {
        for (key, text) in of_file.iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
            report
                .error(Kind::BackupForm, &text.span, format!("`{key}` is about a file, and no `path` is given"))
                .label("add `on: HOST, path: FILE`");
        }
        return Some(Backup::ByDba);
    };
    let Some(on) = &raw.on else {
        report
            .error(Kind::BackupForm, &path.span, "it is not said on which host the backup is")
            .label("add `on:` with a host of the platform");
        return None;
    };
    is_of_platform(on, "the file is looked at on a host of the platform", hosts, report);
    value::path(&path.value, false, &path.span, report);
    let min_size = raw.min_size.as_ref().map_or(Some(1), |text| {
        value::bytes(&text.value).or_else(|| {
            report
                .error(Kind::BadBytes, &text.span, format!("{} is no number of bytes", quote(&text.value)))
                .label("for example `200MiB`, `3GiB`");
            None
        })
    });
    Some(Backup::Given(BackupFile {
        on: on.value.0.clone(),
        path: value::substitute(&path.value, &on.value, site.name, &path.span, report),
        sha256: raw.sha256.as_ref().map(|digest| value::sha256(digest, report)),
        max_age: raw.max_age.as_ref().map_or(Some(MAX_AGE), |age| value::duration(age, report))?,
        min_size: min_size?,
    }))
}

/// Reports a host for backups that the platform does not have.
fn is_of_platform(on: &Spanned<Text>, why: &str, hosts: Hosts<'_>, report: &mut Report) {
    if hosts.complete && hosts.find(&on.value).is_none() {
        report
            .error(Kind::UnknownBackupHost, &on.span, format!("the backup host {} is no host of this platform", quote(&on.value)))
            .label(why)
            .help(missing_host(&on.value.0, hosts.names()));
    }
}

/// The way out where a backup host is no host of the platform. Servers are called alike, so only a slip of one letter counts as meant.
fn missing_host<'a>(name: &str, mut hosts: impl Iterator<Item = &'a str>) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let slip = |host: &&str| strsim::damerau_levenshtein(name, host) == 1 && digits(name) == digits(host);
    let meant = hosts.find(slip).map(|host| format!("; did you mean {}?", quote(host))).unwrap_or_default();
    format!("add `{{ name: {name}, roles: [database] }}` to `hosts`, or `backup: {{ by: dba }}`{meant}")
}

/// Each instance has a database of its own: two in one is most likely a forgotten `database:`.
fn shared(instances: &[Instance], names: &[(&str, &Span)], report: &mut Report) {
    let key = |instance: &Instance| instance.database.as_ref().map(|database| (database.server.clone(), database.name.clone()));
    for (index, instance) in instances.iter().enumerate() {
        let Some(own) = key(instance) else { continue };
        let (Some(first), Some((_, span))) =
            (instances[..index].iter().find(|other| key(other).as_ref() == Some(&own)), names.get(index))
        else {
            continue;
        };
        report
            .warning(
                Kind::SharedDatabase,
                span,
                format!("instances {} and {} are in one database", quote(&first.name), quote(&instance.name)),
            )
            .label(format!("both are in {} on {}", quote(&own.1), quote(&own.0)))
            .help("an instance has a database of its own: add `database: { name: ... }` to the instance");
    }
}

/// Servers that have a database of their own but run no instance: their postupgrade would be forgotten.
fn idle(site: &Site<'_>, hosts: Hosts<'_>, instances: &[Instance], report: &mut Report) {
    for placed in hosts.placed {
        for role in [Role::MidSourcing, Role::PowerBooster, Role::PowerCluster] {
            let kind = if role == Role::MidSourcing { InstanceKind::MidSourcing } else { InstanceKind::Execution };
            let runs = |instance: &Instance| instance.kind == kind && instance.app == placed.host.name;
            // Mid-sourcing servers can share an instance; each execution server has one of its own.
            let kept = |instance: &Instance| {
                runs(instance) || (instance.kind == kind && (role == Role::MidSourcing || instance.app.is_empty()))
            };
            let possible = site.topology.is_none_or(|topology| topology.roles().contains(&role));
            if possible && placed.host.roles.contains(&role) && site.raw.instances.is_some() && !instances.iter().any(kept) {
                report
                    .warning(
                        Kind::NoInstanceOnHost,
                        &placed.span,
                        format!("no {} instance runs on {}", kind_word(kind), quote(&placed.host.name)),
                    )
                    .label(format!("a `{role}` server has an instance of its own, which needs a postupgrade"))
                    .help(format!("add `{{ name: ..., kind: {}, app: {} }}` to `instances:`", kind_word(kind), placed.host.name));
            }
        }
    }
}
