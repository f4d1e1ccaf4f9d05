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

const NEW: &str = "a new one <&\"'$`\\ käse";

/// `passwords set` with the right current password and a new one.
fn set(site: &Site, current: &str, more: &[&str]) -> Ran {
    let (current, new) = (reference(site, current), site.root().join("new.pw"));
    std::fs::write(&new, format!("{NEW}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    let new = format!("file:{}", new.display());
    let mut args = vec!["--format", "json", "passwords", "set", "--yes", "--current", &current, "--new", &new];
    args.extend(more);
    let ran = site.caravan(&args);
    for secret in [NEW, &site.lab.secrets().internal_password, &lab::session_token()] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran:?}");
    }
    ran
}

/// Whether this is the password of each server now, as its own endpoint has it.
fn has_new(site: &Site) -> Value {
    let (_, json) = check(site, &["--proof", "logon", "--password", &reference(site, NEW)]);
    json
}

#[test]
fn a_password_is_set_on_all_servers_and_proven() {
    for salted in ["salted: true, ", ""] {
        let site = Site::new(&SALTED.replace("salted: true, ", salted));
        let ran = set(&site, &site.lab.secrets().internal_password, &[]).expect(0);
        let json = ran.json()["platforms"][0].clone();
        assert_eq!(json["new"], json!(["emea-mkt1", "emea-mta1", "emea-trk1", "emea-trk2", "emea-trk3"]));
        assert_eq!((&json["old"], &json["unknown"]), (&json!([]), &json!([])));
        assert_eq!(site.count(Event::PasswordChanged), 5);
        assert_eq!(has_new(&site)["identical"], true);
        // It left a trace: who did what on which host, and what was proven.
        let record = site.caravan(&["report", "--format", "json"]).expect(0).stdout;
        assert!(record.contains("set.internal-password") && record.contains("identical on all 3 tracking servers"), "{record}");
        assert!(!record.contains(NEW));
        // The hosts are free again: the next run may come.
        set(&site, NEW, &[]).expect(0);
        let refused = site.caravan(&["rollback", &site.run_dir().file_name().unwrap().to_string_lossy()]).expect(2);
        assert!(refused.stderr.contains("which no backup brings back"), "{}", refused.stderr);
    }
}

#[test]
fn a_wrong_current_password_changes_nothing() {
    let site = Site::new(SALTED);
    let ran = set(&site, "not the one", &[]).expect(1);
    let json = ran.json()["platforms"][0].clone();
    assert_eq!(json["old"].as_array().unwrap().len(), 5, "{json}");
    assert_eq!(site.count(Event::PasswordChanged), 0);
    assert!(ran.stderr.contains("Invalid password for account 'internal'"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("rollback"), "{}", ran.stderr);
    // The run still has its hosts; ended, it leaves them free for the right one.
    let other = set(&site, &site.lab.secrets().internal_password, &[]);
    assert_eq!(other.code, 4, "{}", other.stderr);
    let run = ran.json()["run"].as_str().unwrap().to_owned();
    site.caravan(&["abort", &run, "--reason", "another password", "--yes"]).expect(0);
    set(&site, &site.lab.secrets().internal_password, &[]).expect(0);
    assert_eq!(has_new(&site)["identical"], true);
}

#[test]
fn servers_without_a_password_and_with_another_one_come_along() {
    let faults = "faults: { empty_password: [emea-trk1], different_password: [emea-trk2] }";
    let site = Site::new(&format!("{SALTED}{faults}"));
    let ran = set(&site, &site.lab.secrets().internal_password, &[]).expect(1);
    let json = ran.json()["platforms"][0].clone();
    assert_eq!(json["new"], json!(["emea-mkt1", "emea-mta1", "emea-trk1", "emea-trk3"]));
    assert_eq!(json["old"], json!(["emea-trk2"]), "it has another one");
    site.caravan(&["abort", ran.json()["run"].as_str().unwrap(), "--reason", "its own password", "--yes"]).expect(0);
    let own = format!("{} of emea-trk2", site.lab.secrets().internal_password);
    set(&site, &own, &[]).expect(0);
    assert_eq!(has_new(&site)["identical"], true);
}

#[test]
fn a_server_that_fails_is_named_and_the_next_attempt_goes_on_from_there() {
    let faults = "faults: { fail: [{ host: emea-trk2, step: password, times: 2 }] }";
    let site = Site::new(&format!("{SALTED}{faults}"));
    let ran = set(&site, &site.lab.secrets().internal_password, &[]).expect(1);
    let json = ran.json();
    let run = json["run"].as_str().unwrap().to_owned();
    let json = json["platforms"][0].clone();
    assert_eq!(json["new"], json!(["emea-mkt1", "emea-mta1", "emea-trk1", "emea-trk3"]));
    assert_eq!(json["old"], json!(["emea-trk2"]));
    assert_eq!(json["unknown"], json!([]));
    assert!(ran.stderr.contains("serverConf.xml cannot be written"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("resume {run}")), "{}", ran.stderr);
    // In a new run, those that have it already say so.
    site.caravan(&["abort", &run, "--reason", "mended", "--yes"]).expect(0);
    let ran = set(&site, &site.lab.secrets().internal_password, &[]).expect(0);
    assert_eq!(ran.json()["platforms"][0]["new"].as_array().unwrap().len(), 5);
    assert_eq!(has_new(&site)["identical"], true);
}

#[test]
fn what_cannot_be_set_contacts_nobody() {
    let site = Site::new("platforms: [{ name: solo, topology: standalone, hosts: { marketing: 1 } }]");
    let current = right(&site);
    for (new, expected) in [
        ("command:printf 'a\\tb'", "control character"),
        ("env:NOT_SET", "NOT_SET is not set"),
        ("plain-canary", "never the secret itself"),
    ] {
        let ran = site.caravan(&["passwords", "set", "--yes", "--current", &current, "--new", new]).expect(2);
        assert!(ran.stderr.contains(expected) && !ran.stderr.contains("canary"), "{}", ran.stderr);
    }
    let ran = site.caravan(&["passwords", "set", "--current", &current, "--new", &current]).expect(2);
    assert!(ran.stderr.contains("no terminal to ask at"), "{}", ran.stderr);
    assert!(!site.state().join("runs").exists(), "no run was begun");
}
