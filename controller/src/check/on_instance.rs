//! The prerequisites of one instance: its database's engine and character set, as every host that carries it has them configured.

use super::Point;
use super::database::{self, Server};
use super::finding::{NOT_REACHED, Subject, clean, fold};
use super::layout::{Layout, instance_of};
use super::readings::{HostState, Reached};
use inventory::{Engine, Host, Instance, InstanceKind, Platform, Role, SourceVersion};
use proto::event::{Finding, Status};
use proto::inspect::{ReadError, XmlValue};
use std::collections::{BTreeMap, BTreeSet};

/// What is said of the database in configuration files, with the place that says it.
struct Sign {
    /// What it comes to (an engine, a yes or no), or the text where it comes to nothing known.
    means: Result<&'static str, String>,
    /// The host, or `inventory`.
    place: String,
    /// `config-demo.xml provider=PostgreSQL`.
    said: String,
}

pub(super) fn evaluate(platform: &Platform, instance: &Instance, hosts: &BTreeMap<String, HostState>) -> Vec<Finding> {
    let subject = Subject::instance(platform, instance);
    let Some(app) = platform.host(&instance.app).filter(|app| !app.is_windows()) else { return Vec::new() };
    let Some(HostState::Reached(_)) = hosts.get(&app.name) else {
        let evidence = format!("{NOT_REACHED}{}", app.name);
        return ["dbms", "unicode"]
            .map(|check| subject.finding(check, Status::Unknown, "its application server was not reached", &*evidence, ""))
            .to_vec();
    };
    let reached: Vec<(&Host, &Reached)> = platform
        .hosts
        .iter()
        .filter(|host| host.has_campaign() && !host.is_windows())
        .filter_map(|host| Some((host, hosts.get(&host.name)?.reached()?)))
        .collect();
    let said = Said {
        server: database::server(platform, instance, hosts).and_then(Result::ok),
        id: database::database_id(platform, instance, hosts).and_then(Result::ok).flatten(),
    };
    vec![dbms(subject, platform, instance, &reached), unicode(subject, platform, instance, &reached, &said)]
}

/// What the database itself said, as far as it was asked and answered.
struct Said {
    server: Option<Server>,
    /// The option `XtkDatabaseId`.
    id: Option<String>,
}

/// An attribute of the instance's `dbcnx` on one host. A host without a configuration of the instance has none.
fn connection(host: &Host, reached: &Reached, instance: &str, attribute: &str) -> Result<Vec<XmlValue>, ReadError> {
    match reached.readings.xml(&Layout::new(host, Point::Preflight).connection(attribute)) {
        Ok(values) => Ok(values.iter().filter(|value| instance_of(&value.file) == Some(instance)).cloned().collect()),
        Err(ReadError::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn signs(
    hosts: &[(&Host, &Reached)],
    instance: &str,
    attribute: &str,
    read: impl Fn(&str) -> Option<Result<&'static str, String>>,
) -> Result<Vec<Sign>, ReadError> {
    let mut signs = Vec::new();
    for (host, reached) in hosts {
        for value in connection(host, reached, instance, attribute)?.into_iter().filter_map(|found| found.value) {
            let Some(means) = read(&value) else { continue };
            let said = format!("config-{instance}.xml {attribute}={}", clean(&value));
            signs.push(Sign { means, place: host.name.clone(), said });
        }
    }
    Ok(signs)
}

fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgresql => "PostgreSQL",
        Engine::Oracle => "Oracle",
        Engine::Mssql => "MSSQL",
        Engine::Mysql => "MySQL",
    }
}

/// The engine that a `provider` names. Its case varies (domain: prerequisite 3).
fn provider(value: &str) -> Result<&'static str, String> {
    [Engine::Postgresql, Engine::Oracle, Engine::Mssql, Engine::Mysql]
        .map(engine_name)
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(value.trim()))
        .ok_or_else(|| clean(value))
}

fn dbms(subject: Subject<'_>, platform: &Platform, instance: &Instance, hosts: &[(&Host, &Reached)]) -> Finding {
    let check = "dbms";
    let signs = match signs(hosts, &instance.name, "provider", |value| Some(provider(value))) {
        Ok(signs) => signs,
        Err(error) => return subject.unread(check, "the database connection", &error),
    };
    let evidence = places(&signs);
    let seen: BTreeSet<String> = signs.iter().map(|sign| sign.means.clone().map_or_else(|text| text, str::to_owned)).collect();
    let failure = |message: String, remedy: &str| subject.finding(check, Status::Failure, message, &*evidence, remedy);
    let mut engines = seen.iter();
    let (Some(engine), None) = (engines.next(), engines.next()) else {
        if seen.is_empty() {
            let remedy = "Look at dataStore/dataSource/dbcnx of config-<instance>.xml on the application server.";
            return subject.finding(
                check,
                Status::Unknown,
                "no host says which engine the instance uses",
                "no `provider` was found",
                remedy,
            );
        }
        let list: Vec<&str> = seen.iter().map(String::as_str).collect();
        return failure(
            format!("its hosts name different engines: {}", list.join(", ")),
            "Make the hosts' configurations agree first.",
        );
    };
    if engine == engine_name(Engine::Mysql) && source_version(platform, instance) == Some(SourceVersion::V6_1) {
        return failure(
            "v7 takes over MySQL only from v5.11 and v6.02".to_owned(),
            "The engine cannot change by migrating. Talk to the vendor's support.",
        );
    }
    match database::of(platform, instance).map(|database| engine_name(database.engine)) {
        Some(declared) if declared == engine => subject.ok(check, format!("{engine}, as declared"), evidence),
        Some(declared) => failure(
            format!("the inventory says {declared}, the instance uses {engine}"),
            "The engine cannot change by migrating. Correct `database.engine` in the inventory.",
        ),
        None => subject.finding(
            check,
            Status::Warning,
            format!("{engine}; the inventory does not name the engine"),
            evidence,
            "Set `database` in the inventory: the backup depends on it.",
        ),
    }
}

/// A boolean attribute of the Campaign configuration.
fn boolean(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Some(true),
        "0" | "false" | "no" | "" => Some(false),
        _ => None,
    }
}

const UNICODE: &str = "Unicode";
const NOT_UNICODE: &str = "not Unicode";

/// All documented signs (domain: prerequisite 4). The option `XtkDatabaseId` and the engine's own encoding take a logon to the database.
fn unicode_signs(instance: &Instance, hosts: &[(&Host, &Reached)], database: &Said) -> Result<Vec<Sign>, ReadError> {
    let told = |yes: bool| Ok(if yes { UNICODE } else { NOT_UNICODE });
    let mut found =
        signs(hosts, &instance.name, "unicodeData", |value| Some(boolean(value).map_or_else(|| Err(clean(value)), told)))?;
    // Without `NChar` a database can be Unicode by its own character set, so only its presence is a sign.
    found.extend(signs(hosts, &instance.name, "NChar", |value| (boolean(value) == Some(true)).then(|| told(true)))?);
    let in_database = |yes: bool, said: String| Sign { means: told(yes), place: "database".to_owned(), said };
    if let Some(Server { encoding, .. }) = database.server.as_ref().filter(|server| !server.encoding.is_empty()) {
        found.push(in_database(encoding.eq_ignore_ascii_case("UTF8"), format!("server_encoding={}", clean(encoding))));
    }
    if let Some(id) = &database.id {
        found.push(in_database(id.starts_with(['u', 'U']), format!("XtkDatabaseId={}", clean(id))));
    }
    if instance.kind == InstanceKind::Marketing {
        for (host, reached) in hosts.iter().filter(|(host, _)| host.roles.contains(&Role::Tracking)) {
            let values = match reached.readings.xml(&Layout::new(host, Point::Preflight).database_id()) {
                Ok(values) => values,
                Err(ReadError::Missing(_)) => &[],
                Err(error) => return Err(error),
            };
            for id in values.iter().filter_map(|value| value.value.as_deref()).filter(|id| !id.is_empty()) {
                let said = format!("serverConf.xml databaseId={}", clean(id));
                found.push(Sign { means: told(id.starts_with(['u', 'U'])), place: host.name.clone(), said });
            }
        }
    }
    Ok(found)
}

fn unicode(subject: Subject<'_>, platform: &Platform, instance: &Instance, hosts: &[(&Host, &Reached)], said: &Said) -> Finding {
    let check = "unicode";
    let mut signs = match unicode_signs(instance, hosts, said) {
        Ok(signs) => signs,
        Err(error) => return subject.unread(check, "the signs of Unicode", &error),
    };
    let declared = database::of(platform, instance).and_then(|database| database.unicode);
    let looked_at = !signs.is_empty();
    if let Some(yes) = declared {
        let means = Ok(if yes { UNICODE } else { NOT_UNICODE });
        signs.push(Sign { means, place: "inventory".to_owned(), said: format!("unicode={yes}") });
    }
    let evidence = places(&signs);
    let with_logon = "Look at the option XtkDatabaseId (it begins with `u` on Unicode) and at the database's own encoding.";
    if let Some(Sign { means: Err(value), .. }) = signs.iter().find(|sign| sign.means.is_err()) {
        return subject.finding(
            check,
            Status::Unknown,
            format!("a sign of Unicode cannot be understood: {value}"),
            evidence,
            with_logon,
        );
    }
    let meanings: BTreeSet<&str> = signs.iter().filter_map(|sign| sign.means.as_ref().ok().copied()).collect();
    if meanings.len() > 1 {
        let remedy = format!("A database cannot become Unicode by migrating. {with_logon} Then correct what is wrong.");
        return subject.finding(check, Status::Failure, "the signs of Unicode contradict each other", evidence, remedy);
    }
    if !looked_at {
        return subject.finding(check, Status::Unknown, "no host shows whether the database is Unicode", evidence, with_logon);
    }
    let meaning = meanings.into_iter().next().unwrap_or(NOT_UNICODE);
    if declared.is_none() {
        let message = format!("{meaning}; the inventory does not say it");
        return subject.finding(
            check,
            Status::Warning,
            message,
            evidence,
            "Set `database.unicode` in the inventory, so that it can be compared.",
        );
    }
    subject.ok(check, format!("{meaning}, as declared"), evidence)
}

/// Where signs are, equal ones of several hosts together.
fn places(signs: &[Sign]) -> String {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for sign in signs {
        hosts.entry(&sign.said).or_default().push(&sign.place);
    }
    let lines: Vec<String> = hosts.iter().map(|(said, hosts)| format!("{}: {said}", fold(hosts))).collect();
    if lines.is_empty() { "nothing was found".to_owned() } else { lines.join("; ") }
}

fn source_version(platform: &Platform, instance: &Instance) -> Option<SourceVersion> {
    platform.host(&instance.app).map(|app| app.source.version)
}
