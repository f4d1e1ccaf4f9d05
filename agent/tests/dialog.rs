//! Programs that ask at their terminal, as `nlserver config -internalpassword` does.

use crate::common::*;
use proto::step::{Answers, Command, Dialog};
use proto::{Action, Outcome, Secret, ToAgent};
use std::collections::BTreeMap;

const CURRENT: &str = "old-canary";
const NEW: &str = "new canary $HOME \"'\\";
const SAYS: &str = "Password successfully changed";

/// What the stand-in does, as shell; `ask NAME TEXT` asks at the terminal as getpass(3) does, throwing away what was typed before.
const ASK: &str = r#"
ask() {
    printf '%s' "$2" >/dev/tty
    before=$(stty -g </dev/tty)
    sleep 0.05
    stty -echo </dev/tty
    while IFS= read -r -t 0.01 thrown 2>/dev/null </dev/tty; do :; done
    IFS= read -r "$1" </dev/tty
    stty "$before" </dev/tty
    printf '\n' >/dev/tty
}
stored() { cat stored 2>/dev/null; }
"#;
const WELL: &str = r#"
echo '10:00:00 >   Application server for Adobe Campaign Classic (7.4.1 build 9383@5f9e1c2) of 03/11/2026'
ask current 'Enter current password: '
[ "$current" = "$(stored)" ] || { echo "10:00:01 >>> Invalid password for account 'internal'" >&2; exit 1; }
ask new 'Enter new password: '
ask again 'Confirm new password: '
[ "$new" = "$again" ] || { echo '10:00:02 >>> The two passwords are not the same'; exit 1; }
printf '%s' "$new" >stored
echo "10:00:03 >   Password successfully changed for account 'internal' (authentication mode 'nl')"
"#;

fn step(host: &Host, script: &str) -> proto::message::Granted {
    let way =
        |first: &str, means: &str| Answers { secrets: [first, "new", "new"].map(str::to_owned).to_vec(), means: means.to_owned() };
    let dialog = Dialog {
        ways: vec![way("current", ""), way("new", "it had the new password already")],
        says: SAYS.to_owned(),
        patience_s: 5,
    };
    // `read -t` is no part of POSIX.
    let argv = argv(&["/bin/bash", "-c", &format!("{ASK}{script}"), &host.text("")]);
    let command = Command { argv, dir: Some(host.text("")), ok: vec![0], dialog: Some(dialog), ..Command::default() };
    crate::common::step("a/a/a/a/set.internal-password", Action::Command(command))
}

fn typed(current: &str, new: &str) -> ToAgent {
    ToAgent::Secrets { values: BTreeMap::from([("current", current), ("new", new)].map(|(k, v)| (k.to_owned(), Secret::new(v)))) }
}

/// Runs a script with these passwords. Whatever becomes of it, they are nowhere but where the script puts them.
fn run(script: &str, stored: &str, current: &str, new: &str) -> (Ended, String) {
    let host = Host::new();
    std::fs::write(host.path("stored"), stored).unwrap();
    let mut bridge = Bridge::attach(&host);
    bridge.send(&typed(current, new));
    let ended = bridge.perform(step(&host, script));
    bridge.finish();
    let shown = format!("{ended:?}");
    assert!(!shown.contains("canary"), "{shown}");
    let found = std::process::Command::new("grep").args(["-r", "canary", &host.state()]).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
    let now = host.read("stored");
    (ended, now)
}

#[test]
fn the_password_is_set_and_shown_by_nobody() {
    let (ended, now) = run(WELL, CURRENT, CURRENT, NEW);
    let ended = ended.expect(Outcome::Ok);
    assert_eq!(now, NEW);
    assert!(ended.output.contains("Enter current password: \nEnter new password: \nConfirm new password: \n"), "{ended:?}");
    let (ended, now) = run(WELL, "", "", NEW);
    ended.expect(Outcome::Ok);
    assert_eq!(now, NEW, "nothing was set at first");
}

#[test]
fn one_that_is_there_already_is_found_and_a_wrong_one_is_refused() {
    let (ended, now) = run(WELL, NEW, CURRENT, NEW);
    ended.expect(Outcome::Ok).says("it had the new password already");
    assert_eq!(now, NEW);
    let (ended, now) = run(WELL, "a third one", CURRENT, NEW);
    ended
        .expect(Outcome::Failed)
        .says("refused after 1 of 3 answers (exit code 1)")
        .says("Invalid password for account 'internal'");
    assert_eq!(now, "a third one");
}

#[test]
fn what_the_program_shows_itself_is_masked() {
    let echoing = WELL.replace("[ \"$new\" =", "echo \"you typed $new, and before $current\"; [ \"$new\" =");
    let (ended, _) = run(&echoing, CURRENT, CURRENT, NEW);
    let ended = ended.expect(Outcome::Ok);
    assert!(ended.output.contains("you typed ***, and before ***"), "{ended:?}");
}

#[test]
fn a_program_that_refuses_the_new_one_has_changed_nothing() {
    let weak = WELL.replace("[ \"$new\" = \"$again\" ]", "false");
    let (ended, now) = run(&weak, CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Failed).says("after 3 of 3 answers").says("The two passwords are not the same");
    assert_eq!(now, CURRENT);
}

#[test]
fn a_heading_is_no_question() {
    let slow = format!("echo 'Connecting to database:'; sleep 1; {WELL}");
    let (ended, now) = run(&slow, CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Ok);
    assert_eq!(now, NEW);
    // A question may be a line of its own, though.
    let asked = format!("{}{WELL}", ASK.replace("printf '%s' ", "printf '%s\\n' "));
    let (ended, now) = run(&asked, CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Ok);
    assert_eq!(now, NEW);
}

#[test]
fn a_program_that_never_asks_is_ended_and_has_changed_nothing() {
    let (ended, now) = run("echo 'Waiting for the lock of another process'; sleep 1000; true", CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Failed).says("it did not ask within 5 s; 3 of 3 answers were not typed").says("nothing was changed");
    assert_eq!(now, CURRENT);
}

#[test]
fn a_program_that_ends_early_has_changed_nothing() {
    let (ended, _) = run("ask current 'Enter current password: '; kill -9 $$", CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Failed).says("ended by signal 9").says("nothing was changed");
    let (ended, _) = run("echo 'bin/nlserver: error while loading shared libraries'; exit 127", CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Failed).says("refused after 0 of 3 answers (exit code 127)").says("shared libraries");
    // It said that all is well, and asked nothing.
    let (ended, _) = run("exit 0", CURRENT, CURRENT, NEW);
    ended.expect(Outcome::Failed).says("it did not say that").says("nothing was changed");
}

#[test]
fn after_the_last_answer_nobody_can_tell_unless_the_program_says_it() {
    let asks = "ask a 'Current: '; ask b 'New: '; ask c 'Again: ';";
    for (end, text) in [
        ("exit 0", "it did not say that, and ended with exit code 0"),
        ("echo 'Password successfully changed'; exit 3", "it said that, and ended with exit code 3"),
        ("kill -9 $$", "ended by signal 9"),
        ("sleep 1000; true", "it did not end within 5 s after the last answer"),
    ] {
        let (ended, _) = run(&format!("{asks} {end}"), CURRENT, CURRENT, NEW);
        ended.expect(Outcome::Unknown).says(text);
    }
}

#[test]
fn nothing_is_on_the_command_line_or_in_the_environment_while_it_runs() {
    let host = Host::new();
    std::fs::write(host.path("stored"), CURRENT).unwrap();
    let mut bridge = Bridge::attach(&host);
    bridge.send(&typed(CURRENT, NEW));
    let waits = WELL.replace("ask again", "echo > asked; while [ ! -e go ]; do sleep 0.01; done; ask again");
    bridge.grant(vec![step(&host, &waits)]);
    host.wait_for("asked");
    let pids = host.processes("asked");
    assert!(!pids.is_empty());
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "in {file}");
        }
    }
    std::fs::write(host.path("go"), "").unwrap();
    bridge.until_finished("a/a/a/a/set.internal-password").expect(Outcome::Ok);
    bridge.finish();
}

#[test]
fn what_cannot_be_typed_is_not_begun() {
    let (ended, now) = run(WELL, CURRENT, CURRENT, "a\u{3}canary");
    ended.expect(Outcome::Failed).says("control character");
    assert_eq!(now, CURRENT);
}
