//! The bridge alone: handshake, garbage, questions, ad-hoc commands.

use crate::common::{AGENT, Bridge, Host, PATIENCE, argv, wait_until};
use proto::frame::Frame;
use proto::inspect::{Answer, FINGERPRINT_KEY, Fingerprint, PathKind, ReadError};
use proto::{FromAgent, Query, RunAs, Secret, ToAgent};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

fn hello(protocol: u16, oldest: u16) -> ToAgent {
    ToAgent::Hello { protocol, oldest, version: "test".to_owned() }
}

#[test]
fn the_handshake_says_who_is_there() {
    let mut bridge = Bridge::silent();
    bridge.send(&hello(7, 1));
    let FromAgent::Hello { protocol, boot_id, euid, user, .. } = bridge.message() else { panic!("no greeting") };
    assert_eq!(protocol, proto::PROTOCOL, "the newest that both speak");
    assert_eq!(boot_id.len(), 36);
    assert_eq!(euid, rustix::process::geteuid().as_raw());
    assert!(!user.is_empty());
    drop(bridge.stdin.take());
    assert!(bridge.child.wait().unwrap().success(), "it ends with its standard input");
}

#[test]
fn protocols_that_do_not_overlap_are_named_and_end_it() {
    let mut bridge = Bridge::silent();
    bridge.send(&hello(9, 8));
    assert!(matches!(bridge.message(), FromAgent::Incompatible { protocol: proto::PROTOCOL, oldest: proto::PROTOCOL_OLDEST, .. }));
    assert_eq!(bridge.child.wait().unwrap().code(), Some(1));
}

#[test]
fn garbage_is_answered_and_ends_it() {
    for bytes in
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0; 64], Frame::Control(b"{\"type\":\"no-such\"}".to_vec()).encode()]
    {
        let mut bridge = Bridge::silent();
        bridge.raw(&bytes);
        let FromAgent::Fatal { message } = bridge.message() else { panic!("garbage was understood") };
        assert!(!message.is_empty());
        assert_eq!(bridge.child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn nothing_is_done_before_the_greeting() {
    let mut bridge = Bridge::silent();
    bridge.send(&ToAgent::Exec { id: 1, argv: argv(&["true"]) });
    assert!(matches!(bridge.message(), FromAgent::Fatal { .. }));
}

#[test]
fn questions_are_answered_in_order() {
    let host = Host::new();
    let xml = "<serverconf><shared><authentication><xtk internalPassword=\"s&amp;3cret\"/></authentication></shared><redirection databaseId=\"u1\"/></serverconf>";
    std::fs::write(host.path("serverConf.xml"), xml).unwrap();
    std::fs::write(host.path("config-a.xml"), "<serverconf><mta autoStart=\"true\"/></serverconf>").unwrap();
    std::fs::write(host.path("config-b.xml"), "<serverconf><mta/></serverconf>").unwrap();
    std::fs::write(host.path("env.sh"), "GREETING=hello; export GREETING\n").unwrap();
    let attribute = |file: &str, element: &str, attribute: &str| (host.text(file), element.to_owned(), attribute.to_owned());
    let fingerprint = |(file, element, attribute)| Query::Fingerprint { file, element, attribute };
    let (file, element, name) = attribute("config-*.xml", "serverconf/mta", "autoStart");
    let queries = vec![
        Query::System,
        Query::Xml { file, element, attribute: name },
        fingerprint(attribute("serverConf.xml", "serverconf/*/authentication/xtk", "internalPassword")),
        fingerprint(attribute("serverConf.xml", "serverconf/redirection", "trackingPassword")),
        fingerprint(attribute("none.xml", "a", "b")),
        Query::Space { path: host.text("not/there/yet") },
        Query::Path { path: host.text("serverConf.xml") },
        Query::Path { path: host.text("nothing") },
        Query::Output {
            argv: argv(&["/bin/sh", "-c", "echo $GREETING s3cr3t >&2; exit 3"]),
            profile: Some(host.text("env.sh")),
            secret_files: BTreeMap::new(),
        },
        Query::Output {
            argv: argv(&["/bin/sh", "-c", "cat $PGPASSFILE; stat -L -c %a $PGPASSFILE; echo ${#PGPASSFILE}"]),
            profile: None,
            secret_files: BTreeMap::from([("PGPASSFILE".to_owned(), "db:*:{secret:login}:end\n".to_owned())]),
        },
        Query::Output {
            argv: argv(&["true"]),
            profile: None,
            secret_files: BTreeMap::from([("PGPASSFILE".to_owned(), "{secret:absent}".to_owned())]),
        },
        Query::Output { argv: argv(&["no-such-program"]), profile: None, secret_files: BTreeMap::new() },
        Query::Processes { under: host.state() },
    ];
    let count = queries.len();
    let mut bridge = Bridge::open();
    let secrets = [(FINGERPRINT_KEY, "00ff00ff"), ("login", "s3cr3t")];
    let values: BTreeMap<String, Secret> = secrets.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect();
    bridge.send(&ToAgent::Secrets { values });
    bridge.send(&ToAgent::Inspect { id: 9, queries, run_as: RunAs::Login });
    let FromAgent::Inspected { id: 9, readings } = bridge.message() else { panic!("no answers") };
    assert_eq!(readings.len(), count);
    let mut readings = readings.into_iter();
    let mut next = || readings.next().unwrap();

    let Ok(Answer::System(system)) = next() else { panic!() };
    assert!(system.clock_ms > 1_600_000_000_000 && !system.kernel.is_empty());
    let Ok(Answer::Xml(values)) = next() else { panic!() };
    let values: Vec<Option<&str>> = values.iter().map(|value| value.value.as_deref()).collect();
    assert_eq!(values, [Some("true"), None]);
    let Ok(Answer::Fingerprint(Fingerprint::Keyed(seen))) = next() else { panic!() };
    assert_eq!(seen.expose(), expected_hmac("00ff00ff", "s&3cret"));
    assert_eq!(next(), Ok(Answer::Fingerprint(Fingerprint::Unset)));
    assert!(matches!(next(), Err(ReadError::Missing(_))));
    assert!(matches!(next(), Ok(Answer::Space { free, .. }) if free > 0));
    assert_eq!(next(), Ok(Answer::Path(PathKind::File)));
    assert_eq!(next(), Ok(Answer::Path(PathKind::Absent)));
    assert_eq!(next(), Ok(Answer::Output { code: 3, text: "hello ***\n".to_owned() }));
    // The program reads the secret; nobody else can, and what it prints of it is masked.
    let Ok(Answer::Output { code: 0, text }) = next() else { panic!() };
    assert!(text.starts_with("db:*:***:end\n600\n"), "{text}");
    assert_eq!(next(), Err(ReadError::Failed("cannot provide PGPASSFILE: the secret `absent` was not sent".to_owned())));
    assert_eq!(next(), Err(ReadError::Missing("no-such-program".to_owned())));
    assert_eq!(next(), Ok(Answer::Processes(Vec::new())));
}

/// HMAC by its definition (RFC 2104), over `sha256sum` of the host.
fn expected_hmac(key_hex: &str, value: &str) -> String {
    let mut key: Vec<u8> = (0..key_hex.len()).step_by(2).map(|i| u8::from_str_radix(&key_hex[i..i + 2], 16).unwrap()).collect();
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = sha256sum(&[pad(0x36), value.as_bytes().to_vec()].concat());
    let inner: Vec<u8> = (0..64).step_by(2).map(|i| u8::from_str_radix(&inner[i..i + 2], 16).unwrap()).collect();
    sha256sum(&[pad(0x5c), inner].concat())
}

fn sha256sum(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

#[test]
fn a_file_that_must_not_be_read_is_told_apart_from_one_that_is_missing() {
    if !rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        let host = Host::new();
        std::fs::write(host.path("a.xml"), "<a/>").unwrap();
        std::fs::set_permissions(host.path("a.xml"), std::fs::Permissions::from_mode(0o000)).unwrap();
        let mut bridge = Bridge::open();
        let query = Query::Xml { file: host.text("a.xml"), element: "a".to_owned(), attribute: "b".to_owned() };
        bridge.send(&ToAgent::Inspect { id: 1, queries: vec![query], run_as: RunAs::Login });
        let FromAgent::Inspected { readings, .. } = bridge.message() else { panic!("no answer") };
        assert!(matches!(readings.as_slice(), [Err(ReadError::Denied(_))]), "{readings:?}");
    } else {
        eprintln!("skipped: root may read everything");
    }
}

#[test]
fn output_of_a_command_comes_while_it_runs() {
    let host = Host::new();
    let mut bridge = Bridge::open();
    let script = "echo one; while [ ! -e \"$0/go\" ]; do sleep 0.01; done; echo two >&2; exit 4";
    bridge.send(&ToAgent::Exec { id: 3, argv: argv(&["/bin/sh", "-c", script, &host.text("")]) });
    wait_until("the first line", || {
        let _ = bridge.next(std::time::Duration::from_millis(20));
        bridge.output.get(&3).is_some_and(|bytes| bytes == b"one\n")
    });
    std::fs::write(host.path("go"), "").unwrap();
    assert_eq!(bridge.message(), FromAgent::Exited { id: 3, code: Some(4), message: String::new() });
    assert_eq!(bridge.output[&3], b"one\ntwo\n");
    bridge.send(&ToAgent::Exec { id: 4, argv: argv(&["no-such-program"]) });
    let FromAgent::Exited { id: 4, code: None, message } = bridge.message() else { panic!("it was found") };
    assert!(message.contains("no-such-program"));
}

#[test]
fn commands_end_with_the_connection() {
    let host = Host::new();
    let mut bridge = Bridge::open();
    bridge.send(&ToAgent::Exec { id: 1, argv: argv(&["/bin/sh", "-c", "echo > \"$0/began\"; sleep 1000; true", &host.text("")]) });
    host.wait_for("began");
    drop(bridge.stdin.take());
    assert!(bridge.child.wait().unwrap().success());
    wait_until("the end of the command", || host.processes("sleep 1000").is_empty());
}

#[test]
fn a_bridge_whose_output_is_gone_still_ends_in_order() {
    let host = Host::new();
    let mut child = Command::new(AGENT).arg("bridge").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let script = "echo into nothing; echo > \"$0/done\"";
    for message in [hello(1, 1), ToAgent::Exec { id: 1, argv: argv(&["/bin/sh", "-c", script, &host.text("")]) }] {
        stdin.write_all(&Frame::message(&message).unwrap().encode()).unwrap();
    }
    host.wait_for("done");
    assert!(child.try_wait().unwrap().is_none(), "it died of its output");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn steps_without_a_run_are_refused() {
    let mut bridge = Bridge::open();
    bridge.grant(Vec::new());
    assert!(matches!(bridge.next(PATIENCE), Ok(FromAgent::Refused { .. })));
}
