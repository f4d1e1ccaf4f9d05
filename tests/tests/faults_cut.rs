//! Connections that are cut while a step runs: SSH is not the lifeline (invariant 4).

use harness::{Site, finish, until};
use proto::event::{Kind, Outcome};
use std::fs;

const STEP: &str = "site.chatty";

/// A step that writes a line every so often is cut off from its controller three times. Every line arrives, once and in order.
fn loses_no_line(openssh: bool, lines: usize, pause: &str) {
    let openssh = if openssh { "[emea-mkt1]" } else { "[]" };
    let site = Site::new(&format!(
        "platforms: [{{ name: emea, topology: standard, hosts: {{ marketing: 1, mta: 1, tracking: 1 }}, openssh: {openssh} }}]"
    ));
    // What other hosts print is told apart by the host's name.
    let text = format!("n=0; while [ $n -lt {lines} ]; do echo \\\"$0 line $n\\\"; n=$((n+1)); sleep {pause}; done");
    site.override_steps(&format!("stop.nlserver: {{ before: [{{ name: {STEP}, command: [sh, -c, \"{text}\", \"{{host}}\"] }}] }}"));
    let expected: Vec<String> = (0..lines).map(|n| format!("emea-mkt1 line {n}")).collect();

    let run = site.begin(&["migrate", "--yes"]);
    let output = || -> String {
        let dir = site.state().join("runs");
        let runs = fs::read_dir(dir).into_iter().flatten().flatten();
        let files = runs.flat_map(|run| fs::read_dir(run.path().join("output/emea-mkt1")).into_iter().flatten().flatten());
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.filter(|text| text.contains(" line ")).collect()
    };
    let host = site.lab.host("emea-mkt1");
    for share in [1, 2, 3] {
        until("more lines", || output().lines().count() >= lines * share / 5);
        let before = host.server.accepted();
        host.cut();
        until("another connection", || host.server.accepted() > before);
    }
    finish(run).expect(0);

    let events = site.events();
    let own = |event: &&proto::Event| {
        event.scope.step.as_deref().is_some_and(|step| step.contains("/emea-mkt1/") && step.ends_with(STEP))
    };
    let ends: Vec<&Kind> = events.iter().filter(own).map(|event| &event.kind).collect();
    let started = ends.iter().filter(|kind| matches!(kind, Kind::StepStarted)).count();
    let ok = ends.iter().filter(|kind| matches!(kind, Kind::StepFinished { outcome: Outcome::Ok, .. })).count();
    assert_eq!((started, ok), (1, 1), "{ends:?}");
    let back = events.iter().filter(|event| matches!(event.kind, Kind::HostReattached)).count();
    assert!(back >= 3, "it came back {back} times");
    let kept = output();
    assert_eq!(kept.lines().collect::<Vec<_>>(), expected);

    // What the journal says about the output is what is in the file: without a hole, and nothing twice.
    let mut end = 0;
    for event in events.iter().filter(own) {
        if let Kind::StepOutput { offset, length, .. } = &event.kind {
            assert_eq!(*offset, end, "{ends:?}");
            end += length;
        }
    }
    assert_eq!(end, kept.len() as u64);
    site.assert_no_violations();
}

#[test]
fn a_step_that_is_cut_off_three_times_loses_no_line() {
    loses_no_line(false, 60, "0.1");
}

#[test]
fn a_step_behind_openssh_that_is_cut_off_three_times_loses_no_line() {
    if lab::openssh_is_installed() {
        loses_no_line(true, 60, "0.1");
    } else {
        eprintln!("skipped: OpenSSH's server is not installed (apt install openssh-server)");
    }
}

#[test]
#[ignore = "the acceptance run: takes more than a minute"]
fn a_step_of_a_minute_that_is_cut_off_three_times_loses_no_line() {
    loses_no_line(lab::openssh_is_installed(), 60, "1");
}
