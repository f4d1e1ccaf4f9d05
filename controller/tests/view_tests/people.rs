//! `pause`, `abort`, `retry`, `skip`, `attach` and `status`, as they are typed: with a controller that drives the run, and without.

use crate::view_tests::driver::{Driver, caravan, ended, recorded, run};
use crate::view_tests::fleet::{self, Faults};
use controller::plan::Plan;
use controller::run::Signal;
use controller::run::store::RunDir;
use inventory::Topology;
use proto::event::RunOutcome;
use proto::{Event, Kind, Outcome, Scope};
use tokio::io::{AsyncBufReadExt, BufReader};

const TRK: &str = "emea/migrate/tracking/trk02.emea.example.net/install.packages";

fn plan() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)])
}

/// The events of a run in which a package does not install.
fn stopped() -> Vec<Event> {
    fleet::run(&plan(), &Faults::step("trk02.emea.example.net/install.packages", "dpkg: broken"))
}

/// The events of a run up to the start of that step.
fn at_work() -> Vec<Event> {
    let mut events = fleet::run(&plan(), &Faults::default());
    let started = |event: &Event| event.kind == Kind::StepStarted && event.scope.step.as_deref() == Some(TRK);
    events.truncate(events.iter().position(started).unwrap() + 1);
    events
}

fn of_step(kind: Kind) -> (Scope, Kind) {
    let scope = at_work().pop().unwrap().scope;
    (scope, kind)
}

fn finished(outcome: Outcome) -> (Scope, Kind) {
    of_step(Kind::StepFinished { outcome, exit_code: Some(1), duration_ms: 900, message: String::new(), died: false })
}

fn over(outcome: RunOutcome, exit_code: u8) -> Kind {
    Kind::RunFinished { outcome, exit_code }
}

fn events(dir: &RunDir) -> Vec<Kind> {
    let chain = dir.chain().unwrap();
    assert_eq!((chain.broken_at, chain.torn), (None, 0));
    chain.events.into_iter().map(|event| event.kind).collect()
}

fn decisions(dir: &RunDir) -> Vec<(String, String, String)> {
    let decision = |kind| match kind {
        Kind::Decision { decision, about, operator, reason } => {
            assert!(operator.starts_with("kim@"), "{operator}");
            Some((decision, about, reason))
        }
        _ => None,
    };
    events(dir).into_iter().filter_map(decision).collect()
}

#[tokio::test]
async fn a_decision_without_a_controller_goes_into_the_record() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &stopped()).await;
    // Of all steps of that name one waits for a person.
    let said = run(state.path(), &["retry", &dir.id, "install.packages", "--reason", "mended"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains(&format!("{TRK} will be started again")), "{}", said.err);
    let resume = format!("caravan --state-dir {} resume {}", state.path().display(), dir.id);
    assert!(said.err.contains(&resume), "{}", said.err);
    assert_eq!(decisions(&dir), [("retry".to_owned(), TRK.to_owned(), "mended".to_owned())]);
    // It is planned again: there is nothing more to decide.
    let said = run(state.path(), &["skip", &dir.id, TRK, "--reason", "never mind"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(decisions(&dir).len(), 1);
    let page = run(state.path(), &["status", &dir.id]).await;
    assert!(!page.out.contains("waits for a person: failed"), "{}", page.out);

    let dir = recorded(state.path(), &stopped()).await;
    let said = run(state.path(), &["skip", &dir.id, "trk02/install.packages", "--reason", "installed by hand"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(decisions(&dir), [("skip".to_owned(), TRK.to_owned(), "installed by hand".to_owned())]);
}

#[tokio::test]
async fn a_wrong_step_is_answered_with_those_that_could_be_meant() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &stopped()).await;
    let wrong = async |step: &str| {
        let said = run(state.path(), &["retry", &dir.id, step]).await;
        assert_eq!(said.code, Some(2), "{said:?}");
        said.err
    };
    let said = wrong("trk09/install.packages").await;
    assert!(said.contains("has no step `trk09/install.packages`") && said.contains(&format!("{TRK} (failed)")), "{said}");
    let said = wrong("restore.conf").await;
    assert!(said.contains("give more of the id") && said.contains("trk01.emea.example.net/restore.conf (ok)"), "{said}");
    assert!(wrong("trk01/install.packages").await.contains("ended well"));
    assert!(wrong("verify/all/trk01/verify.build").await.contains("was not started yet"));
    assert_eq!(decisions(&dir), []);
    let said = run(state.path(), &["skip", &dir.id, TRK]).await;
    assert!(said.code == Some(2) && said.err.contains("--reason"), "{said:?}");
    let said = run(state.path(), &["retry", "1999-01-01-zz", TRK]).await;
    assert!(said.code == Some(2) && said.err.contains("1999-01-01-zz"), "{said:?}");
}

#[tokio::test]
async fn a_step_of_which_nobody_has_heard_is_asked_first() {
    let state = tempfile::tempdir().unwrap();
    let mut so_far = at_work();
    let (scope, kind) = finished(Outcome::Unknown);
    // Without a place in the host's own journal it is the controller's word.
    so_far.push(Event { host_seq: None, ..fleet::event(999, 9_000_000, scope, kind) });
    let dir = recorded(state.path(), &so_far).await;
    for command in [&["retry", &dir.id, TRK][..], &["skip", &dir.id, TRK, "--reason", "x"]] {
        let said = run(state.path(), command).await;
        assert!(said.code == Some(2) && said.err.contains("nobody has heard yet"), "{said:?}");
    }
    assert_eq!(decisions(&dir), []);
}

#[tokio::test]
async fn nothing_is_decided_in_a_run_that_is_over() {
    let state = tempfile::tempdir().unwrap();
    let mut so_far = stopped();
    so_far.push(fleet::event(999, 9_000_000, Scope::default(), over(RunOutcome::Aborted, 0)));
    let dir = recorded(state.path(), &so_far).await;
    let said = run(state.path(), &["retry", &dir.id, TRK]).await;
    assert!(said.code == Some(2) && said.err.contains("was aborted"), "{said:?}");
    let said = run(state.path(), &["abort", &dir.id, "--yes"]).await;
    assert!(said.code == Some(2) && said.err.contains("nothing to abort"), "{said:?}");
    assert_eq!(decisions(&dir), []);
}

#[tokio::test]
async fn a_decision_goes_to_the_controller_that_drives_the_run() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let mut driver = Driver::start(&dir);
    let (scope, kind) = finished(Outcome::Failed);
    driver.write(scope, kind).await;
    let before = events(&dir).len();
    let retry = ["retry", &dir.id, "trk02/install.packages"];
    let (said, signal) = tokio::join!(run(state.path(), &retry), driver.answer(Ok("it is being stopped")));
    assert!(said.code == Some(0) && said.err.contains("it is being stopped"), "{said:?}");
    let Signal::Retry { step, operator, .. } = signal else { panic!("{signal:?}") };
    assert!(step == TRK && operator.starts_with("kim@"), "{step} {operator}");
    let skip = ["skip", &dir.id, TRK, "--reason", "x"];
    let (said, signal) = tokio::join!(run(state.path(), &skip), driver.answer(Err("it has not ended yet")));
    assert!(said.code == Some(2) && said.err.contains("it has not ended yet"), "{said:?}");
    assert!(matches!(signal, Signal::Skip { .. }));
    assert_eq!(events(&dir).len(), before, "the controller alone writes while it drives");
}

#[tokio::test]
async fn pause_waits_until_the_run_has_come_to_rest() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let mut driver = Driver::start(&dir);
    let mut process = caravan(state.path(), &["pause", &dir.id]).spawn().unwrap();
    let signal = driver.answer(Ok("what has not begun is taken back")).await;
    assert!(matches!(&signal, Signal::Pause { operator } if operator.starts_with("kim@")), "{signal:?}");
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let next = async |lines: &mut tokio::io::Lines<_>| lines.next_line().await.unwrap().unwrap();
    assert!(next(&mut lines).await.starts_with(&format!("pausing {}: what has not", dir.id)));
    assert_eq!(next(&mut lines).await, "still running: trk01 install.packages, trk02 install.packages");
    assert!(process.try_wait().unwrap().is_none(), "a step still runs");
    let (scope, kind) = finished(Outcome::Ok);
    driver.write(scope, kind).await;
    driver.write(Scope::default(), Kind::RunPaused { reason: "paused by the operator".to_owned() }).await;
    driver.write(Scope::default(), over(RunOutcome::Waiting, 5)).await;
    driver.end();
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push_str(&line);
        rest.push('\n');
    }
    assert_eq!(process.wait().await.unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains(&format!("resume {}", dir.id)), "{rest}");
}

#[tokio::test]
async fn pause_without_a_controller_says_how_things_are() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let said = run(state.path(), &["pause"]).await;
    assert_eq!(said.code, Some(0));
    assert!(said.out.contains("No controller drives run") && said.out.contains("trk02 install.packages"), "{}", said.out);
    assert!(said.out.contains(&format!("resume {}", dir.id)), "{}", said.out);
    let dir = recorded(state.path(), &fleet::run(&plan(), &Faults::default())).await;
    let said = run(state.path(), &["pause", &dir.id]).await;
    assert!(said.code == Some(0) && said.out.contains("finished well: there is nothing to pause"), "{said:?}");
}

#[tokio::test]
async fn abort_ends_as_the_run_does() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let mut driver = Driver::start(&dir);
    let said = run(state.path(), &["abort", &dir.id]).await;
    assert!(said.code == Some(2) && said.err.contains("--yes"), "nobody can be asked: {said:?}");
    let process = caravan(state.path(), &["abort", &dir.id, "--yes", "--reason", "wrong night"]).spawn().unwrap();
    let signal = driver.answer(Ok("the run ends when nothing runs any more")).await;
    assert!(matches!(signal, Signal::Abort { reason, .. } if reason == "wrong night"));
    driver.write(Scope::default(), over(RunOutcome::Aborted, 0)).await;
    driver.end();
    let said = ended(process).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("rollback") && !said.err.contains("resume"), "{}", said.err);
}

#[tokio::test]
async fn attach_shows_a_run_until_its_end_and_ends_as_it_did() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let driver = Driver::start(&dir);
    let mut process = caravan(state.path(), &["attach", &dir.id]).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.contains("attached to run"), "{first}");
    let (scope, kind) = finished(Outcome::Failed);
    driver.write(scope, kind).await;
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("✗ emea 4.3 tracking: trk02 install.packages failed"), "{line}");
    driver.write(Scope::default(), over(RunOutcome::Stopped, 1)).await;
    driver.end();
    assert_eq!(process.wait().await.unwrap().code(), Some(1));

    // A run that goes on has ended once before: what counts is who drives it now.
    let driver = Driver::start(&dir);
    driver.write(Scope::default(), fleet::resumed(0, false)).await;
    let process = caravan(state.path(), &["--format", "json", "attach", &dir.id]).spawn().unwrap();
    let mut child = process;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut kinds = Vec::new();
    while kinds.last().map(String::as_str) != Some("run_resumed") {
        let event: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        kinds.push(event["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds[0], "run_started");
    driver.end();
    assert_eq!(child.wait().await.unwrap().code(), Some(5), "it was left unfinished");
}

#[tokio::test]
async fn leaving_an_attached_run_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let driver = Driver::start(&dir);
    let mut process = caravan(state.path(), &["attach", &dir.id]).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("Ctrl-C leaves"));
    let pid = rustix::process::Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(0));
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("left; run"));
    assert_eq!(events(&dir).len(), at_work().len());
    drop(driver);
}

#[tokio::test]
async fn attach_without_a_controller_says_where_the_run_stands() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let said = run(state.path(), &["attach", &dir.id]).await;
    assert_eq!(said.code, Some(5));
    assert!(said.out.contains("cut off") && said.out.contains(&format!("resume {}", dir.id)), "{}", said.out);
    assert!(said.err.contains("No controller drives run"), "{}", said.err);
    let dir = recorded(state.path(), &stopped()).await;
    assert_eq!(run(state.path(), &["attach", &dir.id]).await.code, Some(1));
    let said = run(state.path(), &["attach", &dir.id, "--confirm", "emea/gate=done"]).await;
    assert!(said.code == Some(2) && said.err.contains("--confirm emea/gate=NOTE"), "{said:?}");
}

#[tokio::test]
async fn a_gate_is_confirmed_from_another_terminal() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let mut driver = Driver::start(&dir);
    let attach = ["attach", &dir.id, "--confirm", "emea/gate=ticket 4711"];
    let (said, signal) = tokio::join!(run(state.path(), &attach), driver.answer(Err("no gate `emea/gate` waits")));
    assert!(said.code == Some(2) && said.err.contains("no gate `emea/gate` waits"), "{said:?}");
    let Signal::Confirm { gate, note, operator } = signal else { panic!("{signal:?}") };
    assert_eq!((gate.as_str(), note.as_str()), ("emea/gate", "ticket 4711"));
    assert!(operator.starts_with("kim@"));
}

#[tokio::test]
async fn status_says_who_drives_the_run() {
    let state = tempfile::tempdir().unwrap();
    let dir = recorded(state.path(), &at_work()).await;
    let status = async |format: &str| run(state.path(), &["--format", format, "status"]).await.out;
    assert!(status("text").await.contains("no controller drives it: the last one ended unexpectedly"));
    let driver = Driver::start(&dir);
    let text = status("text").await;
    assert!(text.contains("driven by eva@ops7 since") && text.contains(&format!("attach {}", dir.id)), "{text}");
    let json: serde_json::Value = serde_json::from_str(&status("json").await).unwrap();
    assert_eq!(json["driven"], true);
    assert!(json["next"][0]["command"].as_str().unwrap().starts_with("caravan --state-dir"), "{json}");
    let runs = run(state.path(), &["runs"]).await.out;
    assert!(runs.contains("running"), "{runs}");
    driver.end();
    assert!(run(state.path(), &["runs"]).await.out.contains("cut off"));
}

#[tokio::test]
async fn the_default_places_are_not_repeated_in_hints() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("caravan");
    let dir = recorded(&state, &stopped()).await;
    let mut bare = tokio::process::Command::new(env!("CARGO_BIN_EXE_caravan"));
    bare.args(["status"]).env("XDG_STATE_HOME", home.path()).env_remove("CARAVAN_INVENTORY");
    let out = String::from_utf8(bare.output().await.unwrap().stdout).unwrap();
    assert!(out.contains(&format!("   caravan resume {}\n", dir.id)), "{out}");
    assert!(out.contains(&format!("   caravan retry {} {TRK}\n", dir.id)), "{out}");
}
