//! `status`, `runs` and `report` on a state directory.

use crate::view_tests::fleet::{self, Faults};
use controller::cli::args::OutputFormat;
use controller::cli::report::ReportArgs;
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

async fn report(state_dir: &Path, run: &str, format: OutputFormat) -> Result<String, (Exit, String)> {
    let output = state_dir.join("report");
    // There is no inventory: nobody can be asked.
    let args = ReportArgs { run: Some(run.to_owned()), output: Some(output.clone()), offline: false };
    let context = Context { inventory: state_dir.join("none.yaml"), ..context(state_dir) };
    match cli::report::run(&context, &args, Some(format)).await {
        Ok(Exit::Ok) => Ok(std::fs::read_to_string(output).unwrap()),
        Ok(exit) => Err((exit, std::fs::read_to_string(output).unwrap())),
        Err(failure) => Err((failure.exit, failure.message)),
    }
}

#[tokio::test]
async fn a_recorded_run_is_reported_in_both_forms() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    let markdown = report(state.path(), &run.id, OutputFormat::Markdown).await.unwrap();
    assert!(markdown.contains(&format!("# Report of run {}", run.id)), "{markdown}");
    assert!(markdown.contains("chain intact") && markdown.contains("simple edits only") && markdown.contains("dpkg: broken"));
    let json: serde_json::Value = serde_json::from_str(&report(state.path(), &run.id, OutputFormat::Json).await.unwrap()).unwrap();
    assert_eq!((&json["run"], &json["journal"]["chain"]["intact"]), (&run.id.as_str().into(), &true.into()));
}

#[tokio::test]
async fn an_edited_journal_is_told() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    let journal = run.path.join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("eva@ops7", "kim@ops7", 1)).unwrap();
    let (exit, text) = report(state.path(), &run.id, OutputFormat::Markdown).await.unwrap_err();
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("THE CHAIN IS BROKEN: line 1 is not as it was written"), "{text}");
    assert!(text.contains("none.yaml): this alone detects simple edits only"), "{text}");
}

#[tokio::test]
async fn wrong_use_is_told() {
    let state = tempfile::tempdir().unwrap();
    let run = recorded(state.path()).await;
    for format in [OutputFormat::Html, OutputFormat::Junit] {
        let (exit, message) = report(state.path(), &run.id, format).await.unwrap_err();
        assert_eq!(exit, Exit::Usage);
        assert!(message.contains("markdown"), "{message}");
    }
    let (exit, message) = report(state.path(), "1999-01-01-zz", OutputFormat::Markdown).await.unwrap_err();
    assert_eq!(exit, Exit::Usage);
    assert!(message.contains("1999-01-01-zz") && message.contains("caravan runs"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let failure = cli::status::page(&context(empty.path()), &StatusArgs::default()).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}

#[tokio::test]
async fn status_and_runs_read_every_state() {
    let state = tempfile::tempdir().unwrap();
    let context = context(state.path());
    assert!(cli::runs::page(&context).unwrap().starts_with("No runs in "));
    let run = recorded(state.path()).await;
    let damaged = recorded(state.path()).await;
    std::fs::write(damaged.path.join("plan.json"), "{").unwrap();
    let runs = cli::runs::page(&context).unwrap();
    assert!(runs.contains(&run.id) && runs.contains("unreadable") && runs.lines().count() == 3, "{runs}");
    let named = |run: &RunDir| StatusArgs { run: Some(run.id.clone()) };
    let status = cli::status::page(&context, &named(&run)).unwrap();
    assert!(status.contains("✗ trk02  install.packages  dpkg: broken"), "{status}");
    assert_eq!(cli::status::page(&context, &named(&damaged)).unwrap_err().exit, Exit::Internal);

    let context = Context { format: Format::Json, ..context };
    let runs: serde_json::Value = serde_json::from_str(&cli::runs::page(&context).unwrap()).unwrap();
    let mut outcomes: Vec<_> = runs["runs"].as_array().unwrap().iter().map(|run| run["outcome"].as_str()).collect();
    outcomes.sort();
    assert_eq!(outcomes, [None, Some("stopped")]);
    let status: serde_json::Value = serde_json::from_str(&cli::status::page(&context, &named(&run)).unwrap()).unwrap();
    assert_eq!(status["run"], run.id.as_str());
}
