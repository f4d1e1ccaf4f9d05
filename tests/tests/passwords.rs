//! `caravan passwords` against servers that answer as the vendor's do.

use harness::{Ran, Site};
use lab::Event;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

const SALTED: &str = "
platforms:
  - { name: emea, topology: standard, salted: true, web: true, hosts: { marketing: 1, mta: 1, tracking: 3 } }
";

/// The operator's file with the right password, and the option that names it.
fn reference(site: &Site, password: &str) -> String {
    let path = site.root().join("internal.pw");
    std::fs::write(&path, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("file:{}", path.display())
}

fn right(site: &Site) -> String {
    reference(site, &site.lab.secrets().internal_password)
}

fn check(site: &Site, args: &[&str]) -> (Ran, Value) {
    let mut all = vec!["--format", "json", "passwords", "check"];
    all.extend(args);
    let ran = site.caravan(&all);
    let json = ran.json()["platforms"][0].clone();
    for secret in [&site.lab.secrets().internal_password, &lab::session_token()] {
        assert!(!ran.stdout.contains(secret.as_str()) && !ran.stderr.contains(secret.as_str()));
    }
    (ran, json)
}

#[test]
fn salted_passwords_are_proven_identical_by_one_logon_each() {
    let site = Site::new(SALTED);
    // Stored values say nothing here.
    let (ran, json) = check(&site, &[]);
    ran.expect(1);
    assert_eq!((&json["identical"], &json["proof"]), (&Value::Null, &Value::Null));
    assert_eq!(json["groups"].as_array().unwrap().len(), 3);
    assert_eq!(site.count(Event::Logon), 0);

    let (ran, json) = check(&site, &["--proof", "logon", "--password", &right(&site)]);
    ran.expect(0);
    assert_eq!((&json["identical"], &json["proof"]), (&json!(true), &json!("logon")));
    assert_eq!(json["groups"], json!([["emea-trk1", "emea-trk2", "emea-trk3"]]));
    assert_eq!(json["others"], json!([["emea-mkt1", "emea-mta1"]]));
    assert_eq!(site.count(Event::Logon), 5, "one attempt a server: more could lock the account");

    // The same from standard input, as the second proof of a script.
    let mut child = site
        .command(&["passwords", "check", "--password", "stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", site.lab.secrets().internal_password).unwrap();
    let ran = harness::finish(child).expect(0);
    assert!(ran.stdout.contains("identical on all 3 tracking servers: each accepts the password that was tried"), "{}", ran.stdout);
    assert_eq!(site.count(Event::Logon), 10);
}

#[test]
fn a_different_password_a_wrong_one_and_a_dead_endpoint_are_told_apart() {
    let faults = "faults: { different_password: [emea-trk2], fail: [{ host: emea-mta1, step: logon }] }";
    let site = Site::new(&format!("{SALTED}{faults}"));
    let (ran, json) = check(&site, &["--proof", "logon", "--password", &right(&site)]);
    ran.expect(1);
    assert_eq!((&json["identical"], &json["proof"]), (&json!(false), &json!("logon")));
    assert_eq!(json["groups"], json!([["emea-trk1", "emea-trk3"], ["emea-trk2"]]));
    assert_eq!(json["unreadable"], json!(["emea-mta1"]), "it answers 503");

    let text = site.caravan(&["passwords", "check", "--proof", "logon", "--password", &right(&site)]).expect(1).stdout;
    assert!(text.contains("not identical: emea-trk2 refuses the password that 2 accept"), "{text}");
    assert!(text.contains("XSV-350031 Invalid login or password"), "{text}");
    assert!(text.contains("expected a SOAP answer"), "{text}");

    let (ran, json) = check(&site, &["--proof", "logon", "--password", &reference(&site, "not it <&>'\"")]);
    ran.expect(1);
    assert_eq!((&json["identical"], &json["proof"]), (&Value::Null, &Value::Null));
    assert_eq!(json["groups"], json!([["emea-trk1", "emea-trk2", "emea-trk3"]]));

    // Without `web` on the tracking servers nobody listens there.
    let site = Site::new(&SALTED.replace("web: true, ", ""));
    let (ran, json) = check(&site, &["--proof", "logon", "--password", &right(&site)]);
    ran.expect(1);
    assert_eq!(json["identical"], Value::Null);
    assert_eq!(json["unreadable"], json!(["emea-mta1", "emea-trk1", "emea-trk2", "emea-trk3"]));
    assert_eq!(json["others"], json!([["emea-mkt1"]]));
}

#[test]
fn nothing_is_asked_at_a_terminal_that_is_not_there() {
    let site = Site::new("platforms: [{ name: solo, topology: standalone, hosts: { marketing: 1 } }]");
    let ran = site.caravan(&["passwords", "check", "--proof", "logon"]).expect(2);
    assert!(ran.stderr.contains("the internal password of solo: there is no terminal to ask at"), "{}", ran.stderr);
    let ran = site.caravan(&["passwords", "check", "--proof", "logon", "--password", "plain-canary"]).expect(2);
    assert!(ran.stderr.contains("never the secret itself") && !ran.stderr.contains("canary"), "{}", ran.stderr);
    assert_eq!(site.count(Event::Logon), 0);
}

#[test]
fn a_tracking_server_without_a_tracking_password_holds_its_platform_up() {
    let site = Site::new(&format!("{SALTED}faults: {{ empty_tracking_password: [emea-trk2] }}").replace("salted: true, ", ""));
    let ran = site.caravan(&["--format", "json", "check"]).expect(1);
    let json = ran.json();
    let of = |id: &str| json["findings"].as_array().unwrap().iter().find(|f| f["id"] == id).cloned().unwrap_or(Value::Null);
    assert_eq!(of("tracking-password@emea-trk2")["status"], "failure");
    assert_eq!(of("tracking-password@emea-trk1")["status"], "ok");
    assert!(!ran.stdout.contains(&site.lab.secrets().tracking_password));
    site.migrate(&[]).expect(1);
    assert_eq!(site.count(Event::ServiceStopped) + site.count(Event::WebStopped), 0, "nothing was touched");
}
