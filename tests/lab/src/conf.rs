//! The configuration files of an installation: written by packages and by the lab, read by stand-ins.

use crate::layout::Host;
use crate::spec::{Release, Role};
use quick_xml::Reader;
use quick_xml::events::Event;
use std::io;
use std::path::Path;

/// The modules that run once per server; all others run once per instance (domain, section 1).
pub(crate) const SERVER_MODULES: &[&str] = &["web", "syslogd", "trackinglogd"];

/// The modules of an instance.
pub(crate) const INSTANCE_MODULES: &[&str] = &["mta", "wfserver", "inMail", "sms", "stat"];

/// Every attribute of a file's elements, as (path of the element, attribute, value).
///
/// # Errors
/// When the file cannot be read or is not well-formed.
pub(crate) fn attributes(file: &Path) -> io::Result<Vec<(String, String, String)>> {
    let text = std::fs::read_to_string(file)?;
    let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", file.display()));
    let mut reader = Reader::from_str(&text);
    let mut path: Vec<String> = Vec::new();
    let mut found = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| broken(error.to_string()))?;
        match &event {
            Event::Start(element) | Event::Empty(element) => {
                path.push(element.name().as_ref().to_owned());
                for attribute in element.attributes() {
                    let attribute = attribute.map_err(|error| broken(error.to_string()))?;
                    // Values of the lab's files need no unescaping.
                    let name = attribute.key.as_ref().to_owned();
                    found.push((path.join("/"), name, attribute.value.into_owned()));
                }
                if matches!(event, Event::Empty(_)) {
                    path.pop();
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof if path.is_empty() => return Ok(found),
            Event::Eof => return Err(broken(format!("it ends inside <{}>", path.join("><")))),
            _ => {}
        }
    }
}

/// The value of one attribute; empty when it is missing.
fn attribute(file: &Path, element: &str, name: &str) -> io::Result<String> {
    let all = attributes(file)?;
    Ok(all
        .into_iter()
        .find(|(path, attribute, _)| path == element && attribute == name)
        .map(|(_, _, value)| value)
        .unwrap_or_default())
}

/// The stored `internal` password of an installation (`nl6`, `nl6.back`).
///
/// # Errors
/// When `serverConf.xml` cannot be read.
pub(crate) fn internal_password(nl6: &Path) -> io::Result<String> {
    attribute(&nl6.join("conf/serverConf.xml"), "serverconf/shared/authentication/xtk", "internalPassword")
}

/// Replaces the stored `internal` password of a host.
pub(crate) fn set_internal_password(host: &Host, stored: &str) -> io::Result<()> {
    let file = host.nl6().join("conf/serverConf.xml");
    let text = std::fs::read_to_string(&file)?;
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "serverConf.xml has no internalPassword");
    let (before, rest) = text.split_once("internalPassword=\"").ok_or_else(missing)?;
    let (_, after) = rest.split_once('"').ok_or_else(missing)?;
    crate::processes::write_atomically(&file, format!("{before}internalPassword=\"{stored}\"{after}").as_bytes())
}

/// The modules that shall run on a host: `autoStart="true"` in `config-default.xml` and in each `config-<instance>.xml`.
pub(crate) fn auto_start(host: &Host) -> io::Result<Vec<String>> {
    let mut modules = Vec::new();
    if !host.nl6().join("conf").exists() {
        return Ok(modules);
    }
    let mut files: Vec<_> = std::fs::read_dir(host.nl6().join("conf"))?.collect::<io::Result<Vec<_>>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(instance) = name.strip_prefix("config-").and_then(|name| name.strip_suffix(".xml")) else { continue };
        let known = if instance == "default" { SERVER_MODULES } else { INSTANCE_MODULES };
        for (element, attribute, value) in attributes(&file.path())? {
            let module = element.strip_prefix("serverconf/").unwrap_or_default();
            if attribute == "autoStart" && value == "true" && known.contains(&module) {
                modules.push(format!("{module}@{instance}"));
            }
        }
    }
    Ok(modules)
}

/// `serverConf.xml` as a version delivers it, with these values.
pub(crate) fn server_conf(release: &Release, internal_password: &str, tracking_password: &str, database_id: &str) -> String {
    let build = release.build;
    format!(
        r#"<?xml version='1.0'?>
<serverconf>
  <!-- Delivered with build {build}. Local changes are listed in serverConf.xml.diff. -->
  <shared>
    <authentication>
      <xtk internalPassword="{internal_password}"/>
    </authentication>
    <dnsConfig localDomain="lab.example" nameServers=""/>
  </shared>
  <securityZone name="public" label="Public Network" allowHTTP="false">
    <subNetwork name="all" label="All addresses" mask="*"/>
    <securityZone name="lan" label="Private Network (LAN)" allowHTTP="true" allowEmptyPassword="false">
      <subNetwork name="lan3" label="Lan 3" mask="10.0.0.0/8"/>
      <subNetwork name="localhost" label="Localhost" mask="127.0.0.0/8"/>
    </securityZone>
  </securityZone>
  <redirection databaseId="{database_id}" trackingPassword="{tracking_password}" defaultCharset="UTF-8"/>
</serverconf>
"#
    )
}

/// What `config-default.xml` of v5 has in it, and no later one.
pub(crate) const DEFAULT_OF_V5: &str = "<shared schema=\"nl5\"/>";

/// `config-default.xml`.
pub(crate) fn config_default(release: &Release, web: bool, tracking: bool) -> String {
    let shared = if release.is_v5() { DEFAULT_OF_V5 } else { "<shared/>" };
    format!(
        r#"<?xml version='1.0'?>
<serverconf>
  {shared}
  <web autoStart="{web}"/>
  <syslogd autoStart="true"/>
  <trackinglogd autoStart="{tracking}"/>
</serverconf>
"#
    )
}

/// `config-<instance>.xml` of an instance on a host with these roles, on which the site keeps `disabled` modules from starting.
pub(crate) fn config_instance(platform: &str, instance: &str, user: &str, roles: &[Role], disabled: &[String]) -> String {
    let delivers = roles.iter().any(|role| matches!(role, Role::Mta | Role::MidSourcing | Role::PowerBooster | Role::PowerCluster));
    let works = roles.iter().any(|role| !matches!(role, Role::Mta | Role::Tracking));
    let starts = |module: &str, wanted: bool| wanted && !disabled.iter().any(|other| other == module);
    let [mta, inmail, stat] = ["mta", "inMail", "stat"].map(|module| starts(module, delivers));
    let wfserver = starts("wfserver", works);
    format!(
        r#"<?xml version='1.0'?>
<serverconf>
  <shared>
    <!-- add lang="eng" to dataStore to force English for the instance -->
    <dataStore hosts="{instance}*" lang="eng">
      <dataSource name="default">
        <dbcnx NChar="0" provider="PostgreSQL" server="db.{platform}.lab" login="{user}" unicodeData="1"/>
      </dataSource>
    </dataStore>
  </shared>
  <mta autoStart="{mta}" statServerAddress="localhost"/>
  <wfserver autoStart="{wfserver}"/>
  <inMail autoStart="{inmail}"/>
  <stat autoStart="{stat}"/>
  <sms autoStart="false"/>
</serverconf>
"#
    )
}
