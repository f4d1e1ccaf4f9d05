//! `status`, `runs` and `report` on a state directory.

use crate::fleet::{self, Faults};
use controller::cli::report::{ReportArgs, ReportFormat};
use controller::cli::runs::RunsArgs;
use controller::cli::status::StatusArgs;
use controller::cli::{self, Context, Exit, Format};
use controller::run::journal::{Draft, Journal};
use controller::run::store::{RunDir, Store};
use inventory::Topology;
use std::path::Path;

fn context(state_dir: &Path) -> Context {
    Context {
        inventory: "fleet.yaml".into(),
        state_dir: state_dir.to_owned(),
        format: Format::Text,
        color: (false, false),
        verbosity: 0,
    }
}

/// A state directory with one run in it.
async fn recorded(state_dir: &Path) -> RunDir {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)]);
    let (dir, plan) = Store::new(state_dir).create(&plan).unwrap();
    let journal = Journal::create(&dir.path.join("journal.jsonl"), &dir.id).unwrap();
    let events = fleet::run(&plan, &Faults::step("trk02.emea.example.net/install.packages", "dpkg: broken"));
    let drafts = events.into_iter().map(|event| Draft::new(event.scope, event.kind)).collect();
    journal.append(drafts).await.unwrap();
    dir
}

async fn report(state_dir: &Path, run: &str, format: ReportFormat) -> Result<String, (Exit, String)> {
    let output = state_dir.join("report");
    let args = ReportArgs { run: run.to_owned(), format, output: Some(output.clone()) };
    match cli::report::run(&context(state_dir), &args).await {
        Ok(exit) => {
            assert_eq!(exit, Exit::Ok);
            Ok(std::fs::read_to_string(output).unwrap())
        }
        Err(failure) => Err((failure.exit, failure.message)),
    }
}

#[tokio::test]
async fn a_recorded_run_is_reported_in_both_forms() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    let markdown = report(state.path(), &run.id, ReportFormat::Markdown).await.unwrap();
    assert!(markdown.contains(&format!("# Report of run {}", run.id)), "{markdown}");
    assert!(markdown.contains("chain intact") && markdown.contains("dpkg: broken"));
    let json: serde_json::Value = serde_json::from_str(&report(state.path(), &run.id, ReportFormat::Json).await.unwrap()).unwrap();
    assert_eq!((&json["run"], &json["journal"]["chain"]["intact"]), (&run.id.as_str().into(), &true.into()));
}

#[tokio::test]
async fn an_edited_journal_is_told() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    let journal = run.path.join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("eva@ops7", "kim@ops7", 1)).unwrap();
    assert!(report(state.path(), &run.id, ReportFormat::Markdown).await.unwrap().contains("THE CHAIN IS BROKEN at line 2"));
}

#[tokio::test]
async fn wrong_use_is_told() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    for format in [ReportFormat::Html, ReportFormat::Junit] {
        let (exit, message) = report(state.path(), &run.id, format).await.unwrap_err();
        assert_eq!(exit, Exit::Usage);
        assert!(message.contains("markdown"), "{message}");
    }
    let (exit, message) = report(state.path(), "1999-01-01-zz", ReportFormat::Markdown).await.unwrap_err();
    assert_eq!(exit, Exit::Usage);
    assert!(message.contains("1999-01-01-zz") && message.contains("caravan runs"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let failure = cli::status::run(&context(empty.path()), &StatusArgs::default()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}

#[tokio::test]
async fn status_and_runs_read_every_state() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(cli::runs::run(&context(state.path()), &RunsArgs {}).await.unwrap(), Exit::Ok);
    let run = recorded(state.path()).await;
    let damaged = recorded(state.path()).await;
    std::fs::write(damaged.path.join("plan.json"), "{").unwrap();
    for format in [Format::Text, Format::Json] {
        let context = Context { format, ..context(state.path()) };
        assert_eq!(cli::runs::run(&context, &RunsArgs {}).await.unwrap(), Exit::Ok);
        assert_eq!(cli::status::run(&context, &StatusArgs { run: Some(run.id.clone()) }).await.unwrap(), Exit::Ok);
        let failure = cli::status::run(&context, &StatusArgs { run: Some(damaged.id.clone()) }).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Internal);
    }
}
