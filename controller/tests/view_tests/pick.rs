//! Which run is meant where none is named, what others see of a pause, and what is said of a run that was undone.

use crate::view_tests::driver::{Driver, run};
use crate::view_tests::fleet::{self, Faults};
use controller::run::store::RunDir;
use inventory::Topology;
use proto::event::RunOutcome;
use proto::{Event, Kind, Scope};
use std::path::Path;
use std::time::Duration;

/// A run that is newer than all before it: file systems tell times apart that are some milliseconds apart.
async fn recorded(state_dir: &Path, events: &[Event]) -> RunDir {
    tokio::time::sleep(Duration::from_millis(20)).await;
    crate::view_tests::driver::recorded(state_dir, events).await
}

fn eventful(faults: &Faults) -> Vec<Event> {
    fleet::run(&fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)]), faults)
}

/// A run that found its hosts held by another one.
fn turned_away() -> Vec<Event> {
    let mut events = eventful(&Faults::default());
    events.truncate(1);
    let over = Kind::RunFinished { outcome: RunOutcome::Stopped, exit_code: 4 };
    events.push(fleet::event(2, 2, Scope::default(), over));
    events
}

#[tokio::test]
async fn without_a_name_the_driven_run_is_shown_and_one_that_was_turned_away_is_not() {
    let state = tempfile::tempdir().unwrap();
    let shown = async || run(state.path(), &["status"]).await.out.lines().next().unwrap_or_default().to_owned();
    let first = recorded(state.path(), &eventful(&Faults::default())).await;
    let second = recorded(state.path(), &eventful(&Faults::default())).await;
    recorded(state.path(), &turned_away()).await;
    recorded(state.path(), &[]).await;
    assert!(shown().await.starts_with(&second.id), "{}", shown().await);
    let driver = Driver::start(&first);
    assert!(shown().await.starts_with(&first.id), "{}", shown().await);
    driver.end();
    // `resume` goes by the same rule: that one is over.
    let said = run(state.path(), &["-i", "/nonexistent.yaml", "resume"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[tokio::test]
async fn a_pause_is_seen_before_the_run_has_come_to_rest() {
    let state = tempfile::tempdir().unwrap();
    let mut events = eventful(&Faults::default());
    events.truncate(events.len() / 2);
    let dir = recorded(state.path(), &events).await;
    let driver = Driver::start(&dir);
    let (decision, about, operator, reason) = ("pause", "run", "eva@ops1", "what runs may end");
    let [decision, about, operator, reason] = [decision, about, operator, reason].map(str::to_owned);
    driver.write(Scope::default(), Kind::Decision { decision, about, operator, reason }).await;
    let page = run(state.path(), &["status"]).await.out;
    assert!(page.contains("· pausing ·") && page.contains("eva@ops1 paused it at"), "{page}");
    assert!(!page.contains(" pause "), "what was asked for is not offered again: {page}");
    driver.end();
}

#[tokio::test]
async fn a_run_that_was_undone_says_so() {
    let state = tempfile::tempdir().unwrap();
    let forward = recorded(state.path(), &eventful(&Faults::step("trk02.emea.example.net/install.packages", "broken"))).await;
    let mut back = eventful(&Faults::default());
    let Kind::RunStarted { command, undoes, .. } = &mut back[0].kind else { panic!("a run begins with its start") };
    (*command, *undoes) = ("rollback".to_owned(), Some(forward.id.clone()));
    // One that only looked, and stopped before it changed anything, undoes nothing.
    recorded(state.path(), &back).await;
    let page = run(state.path(), &["status", &forward.id]).await.out;
    assert!(page.contains(&format!("resume {}", forward.id)) && !page.contains("undone"), "{page}");
    let granted = back.iter_mut().rev().find_map(|event| match &mut event.kind {
        Kind::StepGranted { action, .. } => Some(action),
        _ => None,
    });
    "move".clone_into(granted.unwrap());
    let rollback = recorded(state.path(), &back).await;
    let page = run(state.path(), &["status", &forward.id]).await.out;
    assert!(page.contains(&format!("emea was undone by the rollback {}", rollback.id)), "{page}");
    assert!(!page.contains(&format!("resume {}", forward.id)) && page.contains(&format!("status {}", rollback.id)), "{page}");
    let runs = run(state.path(), &["runs"]).await.out;
    let line = runs.lines().find(|line| line.starts_with(&forward.id)).unwrap();
    assert!(line.contains(" undone "), "{runs}");
    let json: serde_json::Value = serde_json::from_str(&run(state.path(), &["--format", "json", "runs"]).await.out).unwrap();
    assert_eq!(json["runs"][0]["undone"]["emea"], rollback.id.as_str(), "{json:#}");
}
