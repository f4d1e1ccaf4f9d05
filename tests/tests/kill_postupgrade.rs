//! kill -9 while postupgrade runs: of those that watch it, and of itself (invariant 3).

use harness::{Site, finish, kill, until};
use lab::Event;
use lab::agent::{programs, supervisor};
use proto::event::{Kind, Outcome};
use rustix::process::Signal;

fn slow(seconds: f32) -> Site {
    Site::new(&format!(
        "
platforms: [{{ name: emea, topology: standard, hosts: {{ marketing: 1, mta: 1, tracking: 1 }} }}]
faults: {{ slow: [{{ host: emea-mkt1, what: postupgrade, seconds: {seconds} }}] }}
"
    ))
}

/// The events of the step `postupgrade`: attempt, and what happened.
fn postupgrade(site: &Site) -> Vec<(u32, Kind)> {
    let own =
        site.events().into_iter().filter(|event| event.scope.step.as_deref().is_some_and(|step| step.ends_with("/postupgrade")));
    own.map(|event| (event.scope.attempt.unwrap_or(0), event.kind)).collect()
}

/// Began once, ended once, and the journal knows of one attempt that ended well.
#[track_caller]
fn assert_invoked_once(site: &Site) {
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (1, 1));
    let ends: Vec<_> = postupgrade(site).into_iter().filter(|(_, kind)| matches!(kind, Kind::StepFinished { .. })).collect();
    assert!(matches!(ends.as_slice(), [(1, Kind::StepFinished { outcome: Outcome::Ok, died: false, .. })]), "{ends:?}");
    site.assert_no_violations();
    // All that it printed is here, whoever was there to read it.
    let file = postupgrade(site).into_iter().find_map(|(_, kind)| match kind {
        Kind::StepOutput { file, length, .. } => Some((file, length)),
        _ => None,
    });
    let (file, length) = file.expect("it printed something");
    let output = std::fs::read_to_string(site.run_dir().join(file)).expect("its output");
    assert_eq!(output.len() as u64, length, "{output}");
    assert!(output.contains("0 error(s) during the update"), "{output}");
}

/// Starts a migration and ends its controller and the supervisor of the marketing host while postupgrade runs there.
fn orphaned(site: &Site) {
    let mut run = site.start(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    let supervisor = supervisor(site.host("emea-mkt1")).expect("a supervisor");
    kill(run);
    assert!(supervisor.signal(Signal::KILL));
    assert_eq!(programs(site.host("emea-mkt1"), "-postupgrade").len(), 1, "postupgrade goes on");
}

#[test]
fn a_running_postupgrade_is_adopted_when_everybody_who_watched_it_was_killed() {
    let site = slow(4.0);
    orphaned(&site);
    site.caravan(&["resume"]).expect(0);
    assert_invoked_once(&site);
}

#[test]
fn a_postupgrade_that_ended_while_nobody_watched_is_known_to_have_ended() {
    let site = slow(1.5);
    orphaned(&site);
    until("the end of postupgrade", || {
        site.count(Event::PostupgradeEnded) == 1 && programs(site.host("emea-mkt1"), "-postupgrade").is_empty()
    });
    site.caravan(&["resume"]).expect(0);
    assert_invoked_once(&site);
}

#[test]
fn a_postupgrade_that_ended_while_the_controller_was_dead_is_heard_to_its_last_line() {
    let site = slow(1.5);
    let mut run = site.start(&["migrate", "--yes"]);
    site.wait_for(Event::PostupgradeBegan, &mut run);
    kill(run);
    until("the end of postupgrade", || {
        site.count(Event::PostupgradeEnded) == 1 && programs(site.host("emea-mkt1"), "-postupgrade").is_empty()
    });
    site.caravan(&["resume"]).expect(0);
    assert_invoked_once(&site);
}

/// Kills the postupgrade that runs, once it is in the middle of its work.
#[track_caller]
fn kill_postupgrade(site: &Site, number: usize) {
    until("postupgrade in its work", || site.count(Event::PostupgradeBegan) >= number);
    let mut process = None;
    until("the process of postupgrade", || {
        process = programs(site.host("emea-mkt1"), "-postupgrade").pop();
        process.is_some()
    });
    assert!(process.is_some_and(|process| process.signal(Signal::KILL)));
}

#[test]
fn a_postupgrade_that_was_killed_is_probed_and_invoked_again_with_the_reason() {
    let site = slow(2.0);
    let run = site.begin(&["migrate", "--yes"]);
    kill_postupgrade(&site, 1);
    finish(run).expect(0);

    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (2, 1));
    let records = site.records("emea");
    let second = records.iter().filter(|record| record.event == Event::PostupgradeBegan).nth(1).unwrap();
    // How far the first one came is a matter of moments.
    assert!(second.detail.is_empty() || second.detail.starts_with("resumes after part"), "{second:?}");
    site.assert_no_violations();

    let events = postupgrade(&site);
    let ends: Vec<_> = events.iter().filter(|(_, kind)| matches!(kind, Kind::StepFinished { .. })).collect();
    assert!(
        matches!(
            ends.as_slice(),
            [
                (1, Kind::StepFinished { outcome: Outcome::Failed, died: true, .. }),
                (2, Kind::StepFinished { outcome: Outcome::Ok, died: false, .. })
            ]
        ),
        "{ends:?}"
    );
    let reasons: Vec<_> = site
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            Kind::Decision { decision, about, reason, .. } if about.ends_with("/postupgrade") => Some((decision, reason)),
            _ => None,
        })
        .collect();
    assert!(matches!(reasons.as_slice(), [(decision, reason)] if decision == "repeat" && !reason.is_empty()), "{reasons:?}");
    let report = site.caravan(&["report", "--format", "markdown"]).expect(0);
    assert!(report.stdout.contains(&reasons[0].1), "the report gives the reason:\n{}", report.stdout);
}

#[test]
fn a_postupgrade_that_is_killed_every_time_waits_for_a_person() {
    let site = slow(2.0);
    let run = site.begin(&["migrate", "--yes"]);
    for number in 1..=3 {
        kill_postupgrade(&site, number);
    }
    finish(run).expect(1);
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (3, 0));
    assert!(!site.records("emea").iter().any(|record| record.host == "emea-mta1" && record.event == Event::PackageInstalled));

    let run = site.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    site.caravan(&["retry", &run, "emea-mkt1:emea/postupgrade", "--reason", "who killed it was found"]).expect(0);
    site.caravan(&["resume"]).expect(0);
    assert_eq!((site.count(Event::PostupgradeBegan), site.count(Event::PostupgradeEnded)), (4, 1));
    site.assert_no_violations();
}
