//! The socket of a running controller.

use controller::cli::control::{self, Control, Request};
use controller::run::{Command, Signal};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

fn served() -> (TempDir, Control, mpsc::Receiver<Command>) {
    let dir = tempfile::tempdir().unwrap();
    let (to, commands) = mpsc::channel(8);
    let control = control::serve(dir.path(), to).unwrap();
    (dir, control, commands)
}

fn retry(step: &str) -> Request {
    Request::Retry { step: step.to_owned(), operator: "kim@ops2".to_owned(), reason: "mended".to_owned() }
}

/// Answers each request with the step it is about.
fn engine(mut commands: mpsc::Receiver<Command>) {
    tokio::spawn(async move {
        while let Some(Command { what, reply }) = commands.recv().await {
            let answer = match what {
                Signal::Retry { step, .. } => Ok(format!("again: {step}")),
                Signal::Pause { .. } => Err("not now".to_owned()),
                other => Ok(format!("{other:?}")),
            };
            reply.unwrap().send(answer).unwrap();
        }
    });
}

async fn raw(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join("control.sock")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    // A server that closes before all was read may reset the connection.
    let _ = stream.read_to_string(&mut said).await;
    said
}

/// Even where permissions would let it through: the kernel says who it is.
#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_not_heard_by_a_controller() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can act as another account");
        return;
    }
    let (dir, _control, commands) = served();
    engine(commands);
    let socket = dir.path().join("control.sock");
    for (path, mode) in [(dir.path(), 0o777), (&socket, 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let request = [serde_json::to_vec(&retry("a/b")).unwrap(), b"\n".to_vec()].concat();
    let ask = move || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(&request);
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    let by_us = ask.clone();
    // Ids are a thread's own.
    let heard = std::thread::spawn(move || {
        let nobody = 65534;
        let (uid, gid) = (rustix::process::Uid::from_raw(nobody), rustix::process::Gid::from_raw(nobody));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        ask()
    });
    assert_eq!(tokio::task::spawn_blocking(move || heard.join().unwrap()).await.unwrap(), "", "another account is answered");
    assert!(tokio::task::spawn_blocking(by_us).await.unwrap().contains("again: a/b"));
}

#[tokio::test]
async fn what_is_asked_reaches_the_engine_and_its_answer_comes_back() {
    let (dir, _control, commands) = served();
    engine(commands);
    assert_eq!(control::ask(dir.path(), &retry("a/b")).await, Some(Ok("again: a/b".to_owned())));
    assert_eq!(control::ask(dir.path(), &Request::Pause { operator: "x".to_owned() }).await, Some(Err("not now".to_owned())));
    let [gate, note, operator, step, reason] = ["g", "n", "o", "s", "r"].map(str::to_owned);
    for (request, signal) in [
        (
            Request::Abort { operator: operator.clone(), reason: reason.clone() },
            Signal::Abort { operator: operator.clone(), reason: reason.clone() },
        ),
        (
            Request::Skip { step: step.clone(), operator: operator.clone(), reason: reason.clone() },
            Signal::Skip { step: step.clone(), operator: operator.clone(), reason: reason.clone() },
        ),
        (
            Request::Accept { step: step.clone(), operator: operator.clone(), reason: reason.clone() },
            Signal::Accept { step, operator: operator.clone(), reason },
        ),
        (
            Request::Confirm { gate: gate.clone(), note: note.clone(), operator: operator.clone() },
            Signal::Confirm { gate, note, operator },
        ),
    ] {
        assert_eq!(control::ask(dir.path(), &request).await, Some(Ok(format!("{signal:?}"))));
    }
}

#[tokio::test]
async fn two_who_ask_at_once_each_get_their_own_answer() {
    let (dir, _control, commands) = served();
    engine(commands);
    let (one, two) = (retry("one"), retry("two"));
    let both = tokio::join!(control::ask(dir.path(), &one), control::ask(dir.path(), &two));
    assert_eq!(both, (Some(Ok("again: one".to_owned())), Some(Ok("again: two".to_owned()))));
}

#[tokio::test]
async fn garbage_is_answered_or_hung_up_on_and_the_next_one_is_heard() {
    let (dir, _control, commands) = served();
    engine(commands);
    for garbage in
        [&b"\n"[..], b"{}\n", b"{\"request\":\"rm\"}\n", b"\xff\xfe\x00\n", b"{\"request\":\"retry\"}\n", b"{\"request\""]
    {
        let said = raw(dir.path(), garbage).await;
        assert!(said.starts_with("{\"refused\":") && said.ends_with('\n'), "{said:?} to {garbage:?}");
    }
    assert_eq!(raw(dir.path(), b"").await, "", "whoever says nothing gets no answer");
    // More than any request has.
    let said = raw(dir.path(), &vec![b'x'; 200_000]).await;
    assert!(said.is_empty() || said.starts_with("{\"refused\":"), "{said:?}");
    assert_eq!(control::ask(dir.path(), &retry("a")).await, Some(Ok("again: a".to_owned())));
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_holds_nobody_up() {
    let (dir, _control, commands) = served();
    engine(commands);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(UnixStream::connect(dir.path().join("control.sock")).await.unwrap());
    }
    assert_eq!(control::ask(dir.path(), &retry("a")).await, Some(Ok("again: a".to_owned())));
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_no_controller_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(control::ask(dir.path(), &retry("a")).await, None, "there is nothing");
    // What kill -9 leaves: a listener's file without the listener.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap());
    assert!(dir.path().join("control.sock").exists());
    assert_eq!(control::ask(dir.path(), &retry("a")).await, None);
    let (to, commands) = mpsc::channel(8);
    let control = control::serve(dir.path(), to).unwrap();
    engine(commands);
    assert_eq!(control::ask(dir.path(), &retry("a")).await, Some(Ok("again: a".to_owned())));
    drop(control);
    assert!(!dir.path().join("control.sock").exists());
    assert_eq!(control::ask(dir.path(), &retry("a")).await, None);
}

#[tokio::test]
async fn a_run_that_is_just_ending_says_so() {
    let (dir, _control, mut commands) = served();
    let request = retry("a");
    // The engine ends with the request before it.
    let (answer, _) = tokio::join!(control::ask(dir.path(), &request), async { drop(commands.recv().await) });
    let text = answer.unwrap().unwrap_err();
    assert!(text.contains("coming to its end"), "{text}");
    drop(commands);
    assert_eq!(control::ask(dir.path(), &request).await, Some(Err(text)));
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_its_path_may_be_long() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(200));
    std::fs::create_dir(&long).unwrap();
    let (to, commands) = mpsc::channel(8);
    let _control = control::serve(&long, to).unwrap();
    engine(commands);
    assert_eq!(control::ask(&long, &retry("a")).await, Some(Ok("again: a".to_owned())));
    let mode = std::fs::metadata(long.join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
