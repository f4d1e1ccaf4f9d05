//! An inventory by somebody who wishes harm: no value of it becomes an option of a program or a command of a shell.

use proptest::prelude::*;
use std::path::Path;

/// An inventory with these values, each quoted as YAML has it.
fn inventory(values: &[(&str, String)]) -> String {
    let value = |name: &str, otherwise: &str| {
        let given = values.iter().find(|(known, _)| *known == name).map_or(otherwise, |(_, value)| value);
        serde_json::to_string(given).unwrap()
    };
    format!(
        "version: 1\ndefaults:\n  ssh: {{ user: {}, jump: {} }}\n  campaign: {{ home: {}, user: {} }}\n  host_state: {}\n  \
         source: {{ version: \"6.1\" }}\n  target: {{ version: \"7.4.1\", build: 9383, packages: [{{ os: debian-12, url: \
         \"https://x/p.deb\", sha256: {} }}] }}\nplatforms:\n  - name: {}\n    topology: standalone\n    instances: [{}]\n    database: {{ \
         engine: oracle, server: db, name: c, user: {}, backup: {{ by: dba }} }}\n    hosts: [{{ name: {}, address: {}, os: debian-12, \
         roles: [marketing, tracking] }}]\n",
        value("user", "ops"),
        value("jump", "ops@bastion"),
        value("home", "/usr/local/neolane"),
        value("account", "neolane"),
        value("state", "/var/lib/caravan"),
        "0".repeat(64),
        value("platform", "emea"),
        value("instance", "emea"),
        value("database", "campaign"),
        value("name", "mkt1"),
        value("address", "10.0.0.1")
    )
}

fn load(values: &[(&str, String)]) -> Option<inventory::Fleet> {
    inventory::parse(&inventory(values), "fleet.yaml", Path::new("/")).ok().map(|loaded| loaded.fleet)
}

/// A word that `ssh`, a shell and a path take as one, and none as an option.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control() || ";&|<>()'\"`*?!#{}".contains(letter))
        && !text.contains("${")
        && !text.contains("$(")
}

/// What has to be a plain word.
const NAMES: [&str; 6] = ["user", "jump", "account", "platform", "name", "address"];
/// Everything that is tried.
const FIELDS: [&str; 9] = ["user", "jump", "account", "platform", "name", "address", "instance", "database", "home"];

const HOSTILE: [&str; 14] = [
    "-oProxyCommand=touch /tmp/owned",
    "--",
    "-F/tmp/evil",
    "ops -oProxyCommand=x",
    "ops\nProxyCommand x",
    "a;touch owned",
    "$(touch owned)",
    "`touch owned`",
    "a|sh",
    "a'b",
    "\u{1b}]0;owned\u{7}",
    "../../etc",
    "${HOME}",
    "%h",
];

fn value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![proptest::sample::select(HOSTILE.to_vec()).prop_map(str::to_owned), "[ -~]{0,8}", "[a-z]{1,4}"];
    proptest::collection::vec(piece, 1..3).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_accepted_is_harmless(
        field in proptest::sample::select(FIELDS.to_vec()), value in value()
    ) {
        let Some(fleet) = load(&[(field, value.clone())]) else { return Ok(()) };
        let platform = &fleet.platforms[0];
        let host = &platform.hosts[0];
        let hops: Vec<&str> = host.ssh.jump.iter().flat_map(|jump| jump.split(',')).map(str::trim).collect();
        let instance = &platform.instances[0];
        let database = instance.database.as_ref().unwrap();
        let words = [host.name.as_str(), &host.address, host.ssh.user.as_deref().unwrap_or("x"), &host.campaign.user, &platform.name];
        // An account of a database goes behind `--username=` alone.
        for word in [&instance.name, &database.user, &host.campaign.home] {
            prop_assert!(!word.contains(char::is_control), "{field}: {value:?} was accepted: {word:?}");
        }
        prop_assert!(is_plain(&instance.name), "{field}: {value:?} was accepted");
        prop_assert!(!instance.name.contains('/') && host.campaign.home.starts_with('/') && !host.campaign.home.contains("/.."));
        for word in words.into_iter().chain(hops) {
            prop_assert!(is_plain(word), "{field}: {value:?} was accepted: {word:?}");
        }
        prop_assert!(!host.name.contains('/') && !platform.name.contains('/'));
    }
}

/// The ones that were thought of, each refused in each place; and what is right is not.
#[test]
fn options_and_commands_are_refused_as_names() {
    assert!(load(&[]).is_some());
    for field in NAMES {
        for hostile in HOSTILE {
            assert!(load(&[(field, hostile.to_owned())]).is_none(), "{field}: {hostile:?} was accepted");
        }
        assert!(load(&[("jump", "-oProxyCommand=x@bastion".to_owned())]).is_none());
    }
    for state in ["relative", "/var/../etc", "/a\nb", "/"] {
        assert!(load(&[("state", state.to_owned())]).is_none(), "{state:?}");
    }
}
