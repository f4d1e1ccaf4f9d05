//! `caravan passwords` with somebody at the terminal who types.

use harness::{Ran, Site, until};
use lab::Event;
use proto::event::Kind;
use rustix::process::{Pid, Signal};
use std::path::Path;

const SALTED: &str = "
platforms:
  - { name: emea, topology: standard, salted: true, web: true, hosts: { marketing: 1, tracking: 2 } }
";
const NEW: &str = "typed-canary";
const CURRENT: &str = "the current internal password of emea (empty if none is set): ";
const FIRST: &str = "the new internal password of emea: ";
const AGAIN: &str = "the new internal password of emea, once more: ";

/// Nothing that was typed is shown.
fn unseen(site: &Site, ran: Ran) -> Ran {
    for secret in [NEW, &site.lab.secrets().internal_password] {
        assert!(!ran.stdout.contains(secret), "{}", ran.stdout);
    }
    ran
}

#[test]
fn a_logon_is_offered_where_stored_values_differ_and_the_password_is_not_shown() {
    let site = Site::new(SALTED);
    let password = site.lab.secrets().internal_password.clone();
    let offer = "Try it? Type yes: ";
    let ran = unseen(&site, site.at_terminal(&["passwords", "check"], &[(offer, "no")])).expect(1);
    assert!(ran.stdout.contains("not proven identical"), "{}", ran.stdout);
    assert_eq!(site.count(Event::Logon), 0);
    let talk = [(offer, "yes"), ("the internal password of emea: ", password.as_str())];
    let ran = unseen(&site, site.at_terminal(&["passwords", "check"], &talk)).expect(0);
    assert!(ran.stdout.contains("identical on all 2 tracking servers: each accepts the password that was tried"), "{}", ran.stdout);
}

#[test]
fn a_new_password_is_typed_twice_and_never_shown() {
    let site = Site::new(SALTED);
    let password = site.lab.secrets().internal_password.clone();
    let start = ("Set the internal password on all servers of emea (emea-mkt1, emea-trk[1-2])? Type yes: ", "yes");
    let talk = [start, (CURRENT, password.as_str()), (FIRST, NEW), (AGAIN, "tipped-canary")];
    let ran = unseen(&site, site.at_terminal(&["passwords", "set"], &talk)).expect(2);
    assert!(ran.stdout.contains("the two are not the same. Nothing was contacted."), "{}", ran.stdout);
    assert_eq!(site.count(Event::PasswordChanged), 0);
    let talk = [start, (CURRENT, password.as_str()), (FIRST, NEW), (AGAIN, NEW)];
    let ran = unseen(&site, site.at_terminal(&["passwords", "set"], &talk)).expect(0);
    assert!(ran.stdout.contains("✓ new      3 hosts"), "{}", ran.stdout);
    assert_eq!(site.count(Event::PasswordChanged), 3);
}

/// Processes that have this directory and this word in their arguments.
fn processes(dir: &Path, word: &str) -> Vec<Pid> {
    let mark = dir.to_string_lossy().into_owned();
    let of = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let line = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        (words.iter().any(|one| one.contains(&mark)) && words.contains(&word)).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

#[test]
fn a_conversation_that_was_cut_in_half_is_held_again() {
    let slow = "faults: { slow: [{ host: emea-trk2, what: password, seconds: 4 }] }";
    let site = Site::new(&format!("{SALTED}{slow}"));
    let password = site.lab.secrets().internal_password.clone();
    let dir = site.host("emea-trk2").dir.clone();
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The agent's own process of the step: with it the terminal is gone.
            until("the command runs on emea-trk2", || !processes(&dir, "-internalpassword").is_empty());
            let runners = processes(&dir, "runner");
            assert!(!runners.is_empty());
            runners.iter().for_each(|pid| rustix::process::kill_process(*pid, Signal::KILL).unwrap());
        });
        let talk = [("Type yes: ", "yes"), (CURRENT, password.as_str()), (FIRST, NEW), (AGAIN, NEW)];
        unseen(&site, site.at_terminal(&["passwords", "set"], &talk))
    });
    ran.expect(0);
    let repeated = |event: &proto::Event| matches!(&event.kind, Kind::Decision { decision, .. } if decision == "repeat");
    assert_eq!(site.events().iter().filter(|event| repeated(event)).count(), 1);
    assert_eq!(site.count(Event::PasswordChanged), 3);
}

#[test]
fn what_failed_is_taken_up_again_with_both_passwords_typed_once_more() {
    let faults = "faults: { fail: [{ host: emea-trk2, step: password, times: 2 }] }";
    let site = Site::new(&format!("{SALTED}{faults}"));
    let password = site.lab.secrets().internal_password.clone();
    let passwords = [(CURRENT, password.as_str()), (FIRST, NEW), (AGAIN, NEW)];
    let talk: Vec<(&str, &str)> = [("Type yes: ", "yes")].into_iter().chain(passwords).collect();
    let ran = unseen(&site, site.at_terminal(&["passwords", "set"], &talk)).expect(1);
    assert!(ran.stdout.contains("✓ new      2 hosts   emea-mkt1, emea-trk1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("✗ old      1 host    emea-trk2"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Go on with the servers that are left"), "{}", ran.stdout);
    assert_eq!(site.count(Event::PasswordChanged), 2);
    unseen(&site, site.at_terminal(&["resume"], &passwords)).expect(0);
    assert_eq!(site.count(Event::PasswordChanged), 3, "what has it is left alone");
    let ran = site.at_terminal(&["passwords", "check", "--proof", "logon"], &[("the internal password of emea: ", NEW)]);
    unseen(&site, ran).expect(0);
}
