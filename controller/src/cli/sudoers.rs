//! `caravan inventory sudoers`: the smallest sudoers file with which Caravan becomes root.
//!
//! Root runs one command for it, the start script with its arguments to the letter, and the digest of this build's agent stands in
//! the script. So it is pinned for every sudo, also for those from before digests in sudoers (1.8.7). What it grants is said in the
//! file: the agent does as root what it is told.

use super::check::Outcome;
use super::{Context, Exit, Failure, Format, site};
use crate::secrets::Secrets;
use crate::ssh::{SshHosts, SshOptions, root_command};
use crate::view::text::sanitize;
use inventory::{BecomeMethod, Fleet, Host};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hosts with the same lines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    user: String,
    host_state: String,
    /// sudo asks for a password.
    password: bool,
}

/// Prints the file for the hosts that `on` selects, or for all.
///
/// # Errors
/// [`Exit::Usage`]: a wrong selector; a login account or a directory that cannot stand in sudoers.
pub(super) fn print(context: &Context, fleet: &Fleet, on: Option<&str>, options: SshOptions) -> Result<Outcome, Failure> {
    let selected = site::select(fleet, on)?;
    let agents = options.agents;
    let ways = SshHosts::new(fleet, Arc::new(Secrets::unattended(&fleet.base)), options)?;
    let mut grants: BTreeMap<Grant, Vec<&str>> = BTreeMap::new();
    let mut others = Vec::new();
    for host in fleet.platforms.iter().flat_map(|platform| &platform.hosts).filter(|host| selected.contains(&host.name)) {
        let user = login(host, &ways);
        match no_need(host, &user) {
            Some(why) => others.push((host.name.as_str(), why)),
            None => {
                let grant = Grant { user, host_state: host.host_state.clone(), password: host.become_.password.is_some() };
                grants.entry(grant).or_default().push(&host.name);
            }
        }
    }
    let mut texts = Vec::new();
    for (number, (grant, hosts)) in grants.iter().enumerate() {
        let refused = |why: String| Failure::new(Exit::Usage, format!("error: {}: {why}", hosts.join(", ")));
        let command = root_command(agents, &grant.host_state).map_err(refused)?;
        texts.push(lines(grant, &command, number + 1).map_err(refused)?);
    }
    let text = match context.format {
        Format::Json => {
            let files = grants.iter().zip(&texts).map(|((grant, hosts), text)| {
                json!({ "hosts": hosts, "user": grant.user, "host_state": grant.host_state, "password": grant.password, "sudoers": text })
            });
            let others = others.iter().map(|(host, why)| json!({ "host": host, "why": why }));
            format!("{:#}\n", json!({ "files": files.collect::<Vec<Value>>(), "others": others.collect::<Vec<Value>>() }))
        }
        Format::Text => page(&grants, &texts, &others),
    };
    Ok(Outcome { text, exit: Exit::Ok })
}

/// The login account, by the inventory or what was settled without it.
fn login(host: &Host, ways: &SshHosts) -> String {
    let settled =
        || ways.settings(&host.name).iter().find(|setting| setting.key == "ssh.user").map(|setting| setting.value.clone());
    host.ssh.user.clone().or_else(settled).unwrap_or_default()
}

/// Why a host needs no line.
fn no_need(host: &Host, user: &str) -> Option<&'static str> {
    match host.become_.method {
        _ if host.is_windows() => Some("Windows"),
        _ if user == "root" => Some("root logs in"),
        BecomeMethod::Sudo => None,
        BecomeMethod::None => Some("become: none"),
        BecomeMethod::Doas => Some("become: doas"),
        BecomeMethod::Su => Some("become: su"),
    }
}

fn page(grants: &BTreeMap<Grant, Vec<&str>>, texts: &[String], others: &[(&str, &str)]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        "# What caravan {version} needs of sudo. Install it as /etc/sudoers.d/caravan (mode 0440), with: visudo -c -f FILE\n\
         # It allows one command, to the letter: Caravan's start script, which runs the agent of this build alone, by its\n\
         # SHA-256. Another build of caravan needs another file.\n\
         # What it grants: the agent does as root what it is told over this login, so who has the account has root.\n\
         # It keeps everything else that sudo could start away from the account, and shows up in sudo's log as one command.\n"
    );
    for ((_, hosts), text) in grants.iter().zip(texts) {
        out.push_str(&format!("\n# On: {}\n{text}", sanitize(&hosts.join(", "))));
    }
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(|(host, why)| format!("{host} ({why})")).collect();
        out.push_str(&format!("\n# Not needed on: {}\n", sanitize(&others.join(", "))));
    }
    out
}

/// The lines for one kind of hosts.
fn lines(grant: &Grant, command: &[String], number: usize) -> Result<String, String> {
    let user = account(&grant.user)?;
    let (program, arguments) = command.split_first().map(|(program, rest)| (program.as_str(), rest.join(" "))).unwrap_or_default();
    let tag = if grant.password { "" } else { "NOPASSWD: " };
    Ok(format!("Cmnd_Alias CARAVAN{number} = {program} {}\n{user} ALL = (root) {tag}CARAVAN{number}\n", escaped(&arguments)))
}

/// An account's name as sudoers takes it.
fn account(user: &str) -> Result<String, String> {
    if user.is_empty() || user.starts_with(['%', '#', '+', '&']) || user.chars().any(char::is_control) {
        return Err(format!("the account {user:?} cannot stand in sudoers; name another as ssh.user"));
    }
    let plain = |letter: char| letter.is_alphanumeric() || "._-".contains(letter);
    Ok(user.chars().flat_map(|letter| (!plain(letter)).then_some('\\').into_iter().chain([letter])).collect())
}

/// Arguments as sudoers(5) takes them: with its own special characters and those of glob(7) escaped. Blanks too: of several, the parser
/// keeps one.
fn escaped(arguments: &str) -> String {
    let mut out = String::with_capacity(arguments.len() * 2);
    let mut before = ' ';
    for letter in arguments.chars() {
        let special =
            matches!(letter, '\\' | ',' | ':' | '=' | '#' | '*' | '?' | '[' | ']' | '!') || (letter == ' ' && before == ' ');
        if special {
            out.push('\\');
        }
        out.push(letter);
        before = letter;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = r#"
version: 1
defaults:
  ssh: { user: ops }
  become: { method: sudo }
  source: { version: "6.1", packages: [{ os: debian-11, path: ./o.deb, sha256: "0000000000000000000000000000000000000000000000000000000000000000" }] }
  target: { version: "7.4.1", build: 9383, packages: [{ os: debian-11, path: ./n.deb, sha256: "0000000000000000000000000000000000000000000000000000000000000000" }] }
platforms:
  - name: emea
    topology: standard
    database: { engine: postgresql, server: db1, name: campaign, user: campaign, password: "prompt:", backup: { by: dba } }
    instances: [emea_prod]
    hosts:
      - { name: mkt1, os: debian-11, roles: [marketing], become: { password: "prompt:" } }
      - { name: mta1, os: debian-11, roles: [mta], become: { password: "prompt:" } }
      - { name: trk1, os: debian-11, roles: [tracking], host_state: "/srv/state" }
      - { name: trk2, os: debian-11, roles: [tracking], ssh: { user: root } }
      - { name: trk3, os: debian-11, roles: [tracking], become: { method: su } }
"#;

    fn printed(format: Format, on: Option<&str>) -> Result<String, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let inventory = directory.path().join("fleet.yaml");
        std::fs::write(&inventory, FLEET).unwrap();
        let fleet = inventory::load(&inventory).unwrap_or_else(|problems| panic!("{}", problems.render(false))).fleet;
        let context = Context { inventory, state_dir: std::path::PathBuf::new(), format, color: (false, false), verbosity: 0 };
        let options = SshOptions { home: None, program: "/nonexistent/ssh".into(), ..SshOptions::default() };
        print(&context, &fleet, on, options).map(|outcome| outcome.text)
    }

    #[test]
    fn hosts_with_the_same_lines_stand_together_and_those_without_are_named() {
        let text = printed(Format::Text, None).unwrap();
        let grants: Vec<&str> = text.lines().filter(|line| line.starts_with("ops ") || line.starts_with("# ")).skip(5).collect();
        assert_eq!(
            grants,
            [
                "# On: trk1",
                "ops ALL = (root) NOPASSWD: CARAVAN1",
                "# On: mkt1, mta1",
                "ops ALL = (root) CARAVAN2",
                "# Not needed on: trk2 (root logs in), trk3 (become: su)",
            ]
        );
        // Words end anywhere, and a blank is between them.
        let command = |number: u8| {
            text.lines().find(|line| line.starts_with(&format!("Cmnd_Alias CARAVAN{number} ="))).unwrap().replace(' ', "")
        };
        let [ours, other] = [command(1), command(2)];
        assert!(ours.contains("/srv/state/agent") && other.contains("/var/lib/caravan/agent"), "{text}");
        for agent in crate::ssh::AGENTS {
            assert!(ours.contains(agent.sha256) && other.contains(agent.sha256), "{text}");
        }
        // Nothing that sudo would take for a wildcard.
        let bare = |at: usize| other.as_bytes()[at - 1] != b'\\';
        assert!(other.match_indices(['*', '?', '[', '#']).all(|(at, _)| !bare(at)), "{other}");
    }

    #[test]
    fn programs_get_a_file_for_each_kind_of_hosts() {
        let json: Value = serde_json::from_str(&printed(Format::Json, Some("trk*")).unwrap()).unwrap();
        assert_eq!(json["files"][0]["hosts"], json!(["trk1"]));
        assert_eq!(json["others"], json!([{ "host": "trk2", "why": "root logs in" }, { "host": "trk3", "why": "become: su" }]));
        assert!(json["files"][0]["sudoers"].as_str().unwrap().ends_with("ops ALL = (root) NOPASSWD: CARAVAN1\n"));
        assert_eq!(printed(Format::Text, Some("nobody*")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn accounts_and_arguments_are_escaped() {
        assert_eq!(account("ops").as_deref(), Ok("ops"));
        assert_eq!(account("CORP\\anna b").as_deref(), Ok("CORP\\\\anna\\ b"));
        for bad in ["", "%wheel", "#0", "+net", "a\nb"] {
            assert!(account(bad).is_err(), "{bad:?}");
        }
        assert_eq!(escaped("a,b  c [ -f x* ]"), "a\\,b \\ c \\[ -f x\\* \\]");
    }
}
