//! What valid inventories mean.

use inventory::{
    Backup, BecomeMethod, Fleet, InstanceKind, Legacy, Location, Role, SecretRef, SourceVersion, Topology, WebServer,
    init_template, load, parse,
};
use std::path::{Path, PathBuf};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid/large.yaml")
}

fn large() -> Fleet {
    let loaded = load(&path()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.fleet
}

/// The smallest inventory, with more keys of the one platform (4 blanks) and of the one host.
fn small(platform: &str, host: &str) -> String {
    let digest = "0".repeat(64);
    format!(
        "version: 1
defaults:
  source: {{ version: 6.1, packages: [{{ os: debian-11, path: old.deb, sha256: {digest} }}] }}
  target: {{ version: 7.4.1, build: 9383, packages: [{{ os: debian-11, path: new.deb, sha256: {digest} }}] }}
platforms:
  - name: p
    topology: standalone
    instances: [i]
    database: {{ engine: postgresql, server: db, name: c, user: c, backup: {{ by: dba }} }}
{platform}    hosts:
      - {{ name: h1, roles: [marketing, mta, tracking]{host} }}
"
    )
}

fn parsed(text: &str) -> Fleet {
    parse(text, "fleet.yaml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}")).fleet
}

#[test]
fn defaults_hold_where_nothing_is_said() {
    let fleet = parsed(&small("", ""));
    assert_eq!((fleet.parallel.platforms, fleet.parallel.hosts), (4, 50));
    let host = &fleet.platforms[0].hosts[0];
    assert_eq!(host.address, "h1");
    assert_eq!((host.ssh.port, host.ssh.connect_timeout, &host.ssh.legacy), (None, None, &Legacy::none()));
    assert_eq!(host.become_.method, BecomeMethod::Sudo);
    assert_eq!((host.campaign.home.as_str(), host.campaign.user.as_str()), ("/usr/local/neolane", "neolane"));
    assert_eq!((host.host_state.as_str(), host.init_scripts.as_str()), ("/var/lib/caravan", "/etc/init.d"));
    assert_eq!((host.web.server, host.web.address.as_str()), (WebServer::Apache, "localhost:80"));
    assert_eq!(host.source.version, SourceVersion::V6_1);
    assert_eq!(host.place, "11:17");
    let instance = &fleet.platforms[0].instances[0];
    assert_eq!((instance.kind, instance.app.as_str()), (InstanceKind::Marketing, "h1"));
    assert_eq!(instance.database, fleet.platforms[0].database);
}

#[test]
fn a_scratch_database_has_the_account_of_the_database_unless_another_is_given() {
    let scratch = |keys: &str| {
        let backup = format!("backup: {{ on: h1, dir: /b, scratch: {{ server: s, name: tried{keys} }} }}");
        let fleet = parsed(&small("", "").replace("backup: { by: dba }", &backup));
        match &fleet.platforms[0].instances[0].database.as_ref().unwrap().backup {
            Backup::On { scratch: Some(scratch), .. } => (scratch.server.clone(), scratch.user.clone(), scratch.password.clone()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scratch(""), ("s".into(), "c".into(), None));
    let own = Some(SecretRef::Env("PASSWORD".into()));
    assert_eq!(scratch(", user: u, password: \"env:PASSWORD\""), ("s".into(), "u".into(), own));
}

#[test]
fn the_nearer_block_wins_key_by_key() {
    let text = small(
        "    ssh: { user: platform, port: 2201 }\n    host_state: \"/state/{platform}/{host}\"\n",
        ", ssh: { port: 2202 }, campaign: { home: \"/opt/{host}/\" }",
    )
    .replace(
        "defaults:\n",
        "defaults:\n  ssh: { user: default, port: 2200, jump: bastion, identity: one }\n  campaign: { user: campaign }\n",
    );
    let fleet = parsed(&text);
    let host = &fleet.platforms[0].hosts[0];
    assert_eq!(host.ssh.user.as_deref(), Some("platform"));
    assert_eq!(host.ssh.port, Some(2202));
    assert_eq!(host.ssh.jump.as_deref(), Some("bastion"));
    assert_eq!(host.ssh.identity, ["one"]);
    assert_eq!((host.campaign.home.as_str(), host.campaign.user.as_str()), ("/opt/h1", "campaign"));
    assert_eq!(host.host_state, "/state/p/h1");
    assert_eq!(host.origins["ssh.user"], "fleet.yaml:12:18 (platform)");
    assert_eq!(host.origins["ssh.port"], "fleet.yaml:15:69 (host)");
    assert_eq!(host.origins["ssh.jump"], "fleet.yaml:3:43 (defaults)");
    assert_eq!(host.origins.get("ssh.connect_timeout"), None, "ssh_config may say it");
}

#[test]
fn ranges_go_in_step_with_addresses() {
    let fleet = large();
    let emea = &fleet.platforms[1];
    let tracking: Vec<_> = emea.with_role(Role::Tracking).map(|host| (host.name.as_str(), host.address.as_str())).collect();
    assert_eq!(tracking.len(), 12);
    assert_eq!(tracking[0], ("trk01.emea.example.net", "10.1.2.101"));
    assert_eq!(tracking[11], ("trk12.emea.example.net", "10.1.2.112"));
    assert_eq!(emea.hosts.iter().map(|host| &host.place).filter(|place| *place == &emea.hosts[6].place).count(), 12);
}

#[test]
fn a_large_fleet_is_understood() {
    let fleet = large();
    assert_eq!(fleet.name, "large");
    assert_eq!(fleet.base, path().parent().unwrap());
    let names: Vec<_> = fleet.platforms.iter().map(|platform| (platform.name.as_str(), platform.topology)).collect();
    assert_eq!(
        names,
        [
            ("emea-test", Topology::Standalone),
            ("emea", Topology::Standard),
            ("apac", Topology::PowerCluster),
            ("retail", Topology::CloudMessaging)
        ]
    );
    let [test, emea, apac, retail] = &fleet.platforms[..] else { panic!() };

    assert!(test.rehearsal);
    let backup = &test.database.as_ref().unwrap().backup;
    assert_eq!(
        *backup,
        Backup::On {
            on: "camp-test.emea.example.net".into(),
            dir: "/backup/emea-test/camp-test.emea.example.net".into(),
            scratch: None
        }
    );

    let mid = &emea.instances[1];
    assert_eq!((mid.kind, mid.app.as_str()), (InstanceKind::MidSourcing, "mid1.emea.example.net"));
    let database = mid.database.as_ref().unwrap();
    assert_eq!((database.server.as_str(), database.name.as_str()), ("db1.emea.example.net", "campaign_mid"));
    assert_eq!(database.password, Some(SecretRef::Env("EMEA_MID_PASSWORD".into())));
    assert_eq!(emea.order.as_ref().unwrap(), &[Role::Marketing, Role::MidSourcing, Role::Mta, Role::Tracking]);
    let stop = emea.overrides["stop.nlserver"].command.as_ref().unwrap();
    assert_eq!((stop.argv.join(" ").as_str(), stop.deadline_s), ("systemctl stop nlserver", Some(600)));
    let unlock = &emea.overrides["install.packages"].before[0];
    assert_eq!(unlock.command.argv, ["/bin/sh", "-c", "yum versionlock clear && yum makecache"]);
    assert_eq!(unlock.command.run_as.as_deref(), Some("root"));
    assert!(emea.overrides["verify.redirection"].skip.as_ref().unwrap().contains("public"));
    let packages = &emea.hosts[0].target.packages;
    assert_eq!(packages[1].sha256, "b".repeat(64));
    assert!(matches!(&packages[1].location, Location::Url(url) if url.starts_with("https://")));

    assert_eq!(
        apac.instances.iter().map(|instance| instance.app.as_str()).collect::<Vec<_>>(),
        ["mkt1.apac.example.net", "pc1.apac.example.net", "pc2.apac.example.net"]
    );
    assert_eq!(apac.instances[1].database.as_ref().unwrap().name, "EXEC1");
    assert_eq!(apac.hosts[0].ssh.jump.as_deref(), Some("bastion.apac.example.net"));
    assert_eq!(apac.database.as_ref().unwrap().password, Some(SecretRef::Command("pass show campaign/apac".into())));
    let iis = apac.host("iis1.apac.example.net").unwrap();
    assert!(iis.is_windows() && iis.web.server == WebServer::Iis);

    assert_eq!(retail.hosts[0].source.version, SourceVersion::V5_11);
    assert_eq!(retail.hosts[0].source.packages.len(), 1, "the packages of `defaults` stay");
    assert_eq!(retail.instances[0].timezone.as_deref(), Some("Europe/Paris"));
}

#[test]
fn a_resolved_fleet_names_secrets_but_knows_none() {
    let json = serde_json::to_string(&large()).unwrap();
    assert!(json.contains("EMEA_MID_PASSWORD"), "the reference is part of the plan's hash");
    assert!(!json.contains("origins"), "where a value stands changes nothing about the plan");
}

#[test]
fn scalars_keep_their_text() {
    let text = small("", "").replace("name: c,", "name: 007,").replace("build: 9383", "build: 0x24A7");
    let fleet = parsed(&text);
    assert_eq!(fleet.platforms[0].database.as_ref().unwrap().name, "007");
    assert_eq!(fleet.platforms[0].hosts[0].target.build, 9383);
}

#[test]
fn byte_order_mark_and_other_line_ends_change_nothing() {
    let text = small("", "");
    let marked = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(parsed(&marked), parsed(&text));
}

#[test]
fn aliases_and_merge_keys_stand_for_what_they_name() {
    let text = small("    ssh: &ssh { user: ops, port: 2201 }\n", ", ssh: { <<: *ssh, port: 2202 }");
    let host = parsed(&text).platforms[0].hosts[0].clone();
    assert_eq!((host.ssh.user.as_deref(), host.ssh.port), (Some("ops"), Some(2202)));
}

#[test]
fn keys_with_nothing_behind_them_count_as_left_out() {
    let resolved = |text: &str| serde_json::to_value(parsed(text)).unwrap();
    assert_eq!(resolved(&small("    overrides:\n    order: ~\n", ", address: null")), resolved(&small("", "")));
}

#[test]
fn each_topology_has_an_inventory_to_start_from() {
    for topology in
        [Topology::Standalone, Topology::Standard, Topology::CloudMessaging, Topology::PowerBooster, Topology::PowerCluster]
    {
        let text = init_template(topology);
        let loaded = parse(&text, "fleet.yaml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.fleet.platforms[0].topology, topology);
        let kinds: Vec<_> = loaded.warnings.iter().map(|problem| problem.kind.as_str()).collect();
        let expected: &[&str] = &[];
        assert_eq!(kinds, expected, "{topology}");
        // What is commented out must be right too when somebody takes the `#` away.
        let tail = text.split("    # overrides:").nth(1).unwrap();
        let uncommented = format!(
            "{}    overrides:{}",
            text.split("    # overrides:").next().unwrap(),
            tail.replace("    #   ", "      ").replace("\n# parallel", "\nparallel")
        );
        let fleet = parse(&uncommented, "fleet.yaml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}")).fleet;
        assert_eq!(fleet.platforms[0].overrides.len(), 3);
    }
}

/// What only some versions need: a runbook of the site's own, the console's setup, several time zones, the web server's directory.
#[test]
fn what_versions_need_is_read() {
    let digest = "0".repeat(64);
    let text = format!(
        "version: 1
defaults:
  runbook: ./ours.yaml
  source: {{ version: 7, latest_build: 9343, packages: [{{ os: debian-11, path: old.deb, sha256: {digest} }}] }}
  target:
    version: \"7.4.1\"
    build: 9383
    packages: [{{ os: debian-11, path: new.deb, sha256: {digest} }}]
    client: {{ path: setup-client-7.0.9383.exe, sha256: {digest} }}
platforms:
  - name: emea
    topology: standard
    database: {{ engine: oracle, server: db1, name: c, user: c, backup: {{ by: dba }} }}
    instances: [{{ name: emea_prod, timestamptz: true }}]
    order: [tracking, mta, marketing]
    restart_order: [marketing, tracking, mta]
    hosts:
      - {{ name: mkt1, roles: [marketing] }}
      - {{ name: mta1, roles: [mta] }}
      - {{ name: trk1, roles: [tracking], web_config: \"/opt/{{host}}/apache\" }}
  - name: apac
    topology: standalone
    runbook: theirs.yaml
    source: {{ version: \"5.11\" }}
    database: {{ engine: oracle, server: db2, name: c, user: c, backup: {{ by: dba }} }}
    instances: [{{ name: apac_prod, timezone: UTC }}]
    hosts: [{{ name: solo, roles: [marketing] }}]
"
    );
    let fleet = inventory::parse(&text, "fleet.yaml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}")).fleet;
    let [emea, apac] = fleet.platforms.as_slice() else { panic!() };
    assert_eq!((emea.runbook.as_deref(), apac.runbook.as_deref()), (Some("./ours.yaml"), Some("theirs.yaml")));
    assert_eq!((emea.hosts[0].source.version, apac.hosts[0].source.version), (SourceVersion::V7, SourceVersion::V5_11));
    assert_eq!((emea.hosts[0].source.version.tree(), apac.hosts[0].source.version.tree()), ("nl6", "nl5"));
    assert!(emea.instances[0].timestamptz && !apac.instances[0].timestamptz);
    assert_eq!(emea.hosts[2].web.config.as_deref(), Some("/opt/trk1/apache"));
    let client = emea.hosts[0].target.client.as_ref().unwrap();
    assert_eq!((client.location.file_name(), client.os.as_str()), ("setup-client-7.0.9383.exe", "windows"));
}

#[test]
fn outdated_algorithms_are_allowed_all_or_one_by_one() {
    let legacy =
        |value: &str| parsed(&small("", &format!(", ssh: {{ legacy: {value} }}"))).platforms[0].hosts[0].ssh.legacy.clone();
    assert_eq!(legacy("true"), Legacy::all());
    assert_eq!(legacy("false"), Legacy::none());
    let some = legacy("[hmac-sha1, ssh-rsa]");
    assert!(some.allows("ssh-rsa") && some.allows("hmac-sha1") && !some.allows("aes128-cbc"));
    assert_eq!(
        serde_json::to_value([Legacy::all(), Legacy::none(), some]).unwrap(),
        serde_json::json!([true, false, ["ssh-rsa", "hmac-sha1"]])
    );
}

#[test]
fn ipv6_addresses_may_have_zones_and_jumps_ports() {
    let text = ", address: \"fe80::1%eth0\", ssh: { jump: \"ops@[fe80::2%eth0]:2222, ::1, [2001:db8::1]\" }";
    let host = parsed(&small("", text)).platforms[0].hosts[0].clone();
    assert_eq!(host.address, "fe80::1%eth0");
    assert_eq!(host.ssh.jump.as_deref(), Some("ops@[fe80::2%eth0]:2222, ::1, [2001:db8::1]"));
    for wrong in ["\"fe80::1%\"", "\"fe80::1%e h\"", "10.0.0.1%eth0", "\"[::1]:22\""] {
        let text = small("", &format!(", address: {wrong}"));
        assert!(parse(&text, "fleet.yaml", Path::new("")).is_err(), "{wrong}");
    }
}
