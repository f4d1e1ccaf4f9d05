//! The end screen, reports, `status` and `runs`.

use crate::view_tests::fleet::{self, Faults};
use controller::plan::{Phase, Plan};
use controller::report::chain::{Contradiction, Damage, HostHeads};
use controller::report::{self, ChainCheck, Listed, Next, Record};
use controller::view::View;
use inventory::Topology;
use proto::{Kind, Outcome, Scope};
use std::collections::BTreeMap;

const SAME: &str = "dpkg: dependency problems: libxalan-c112 is not installed";

fn two() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 3, 12), fleet::platform("apac", Topology::Standard, 1, 2)])
}

fn record() -> Record {
    let hosts = HostHeads { unasked: Some("--offline".to_owned()), ..HostHeads::default() };
    let chain = ChainCheck { head: "c0ffee".repeat(10) + "c0ff", hosts, ..ChainCheck::default() };
    Record { dir: "~/.local/state/caravan/runs/2026-11-22-q7".to_owned(), chain: Some(chain), ..Record::default() }
}

fn view(plan: &Plan, faults: &Faults) -> View {
    View::of(plan, &fleet::run(plan, faults))
}

fn next() -> Vec<Next> {
    vec![Next { when: "The record".to_owned(), command: "caravan report 2026-11-22-q7".to_owned() }]
}

fn summary(plan: &Plan, faults: &Faults) -> String {
    report::summary(&view(plan, faults), &record(), &next(), false)
}

#[test]
fn the_end_when_all_is_well() {
    insta::assert_snapshot!(summary(&two(), &Faults::default()));
}

#[test]
fn the_end_when_one_host_failed() {
    insta::assert_snapshot!(summary(&two(), &Faults::step("trk09.emea.example.net/install.packages", SAME)));
}

#[test]
fn the_end_when_many_hosts_failed_alike() {
    let step = |n: usize| (format!("trk{n:02}.emea.example.net/install.packages"), Outcome::Failed, SAME.to_owned());
    insta::assert_snapshot!(summary(&two(), &Faults { steps: (2..9).map(step).collect(), ..Faults::default() }));
}

#[test]
fn the_end_when_one_host_is_out_of_reach() {
    let faults = Faults { away: vec![("mta2.emea.example.net".to_owned(), Phase::Stop)], ..Faults::default() };
    insta::assert_snapshot!(summary(&two(), &faults));
}

#[test]
fn the_end_when_a_gate_waits() {
    let plan = fleet::plan(vec![fleet::platform("apac", Topology::CloudMessaging, 1, 2)]);
    insta::assert_snapshot!(summary(&plan, &Faults::default()));
}

#[test]
fn the_end_when_preflight_is_red() {
    let faults = Faults { findings: vec![fleet::red_password("emea")], ..Faults::default() };
    insta::assert_snapshot!(summary(&two(), &faults));
}

#[test]
fn the_end_when_a_host_is_held_by_another_run() {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 1)]);
    let events = fleet::run(&plan, &Faults::default());
    let stop = events.iter().position(|event| event.scope.phase.as_deref() == Some("stop")).unwrap();
    let mut view = View::of(&plan, &events[..=stop + 1]);
    let scope = Scope { host: Some("mta1.emea.example.net".to_owned()), ..Scope::default() };
    let reason = "mta1.emea.example.net is held by run 2026-11-21-a1 of kim@ops2 since 21:40".to_owned();
    view.apply(&fleet::event(900, 9_000, scope, Kind::HostLocked { reason }));
    let scope = Scope { platform: Some("emea".to_owned()), ..Scope::default() };
    let over = Kind::PlatformFinished { outcome: proto::event::RunOutcome::Stopped, message: String::new() };
    view.apply(&fleet::event(901, 9_001, scope, over));
    insta::assert_snapshot!(report::summary(&view, &record(), &[], false));
}

fn eventful() -> (Plan, View) {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::CloudMessaging, 1, 2)]);
    let mut faults = Faults::step("trk02.emea.example.net/restore.conf", "expected `a|b` in <conf>, seen *nothing*");
    let mut finding = fleet::red_password("emea");
    finding.overridden = Some("set by hand, see ticket 4712".to_owned());
    faults.findings = vec![finding];
    let mut view = view(&plan, &faults);
    let decide = |decision: &str, about: &str| Kind::Decision {
        decision: decision.to_owned(),
        about: about.to_owned(),
        operator: "eva@ops7".to_owned(),
        reason: "compared by hand".to_owned(),
    };
    view.apply(&fleet::event(900, 5_000_000, Scope::default(), decide("override", "passwords@emea")));
    let step = "emea/migrate/tracking/trk02.emea.example.net/restore.conf";
    let retry = Scope { step: Some(step.to_owned()), attempt: Some(2), ..Scope::default() };
    view.apply(&fleet::event(901, 5_100_000, Scope::default(), decide("retry", step)));
    view.apply(&fleet::event(902, 5_100_001, retry.clone(), Kind::StepGranted { action: "verify".to_owned(), prove: false }));
    view.apply(&fleet::event(903, 5_100_002, retry.clone(), Kind::StepStarted));
    let unknown = Kind::StepFinished {
        outcome: Outcome::Unknown,
        exit_code: None,
        duration_ms: 900,
        message: "lost".to_owned(),
        died: false,
    };
    view.apply(&fleet::event(904, 5_101_000, retry, unknown));
    view.apply(&fleet::event(905, 5_200_000, Scope::default(), decide("acceptance", step)));
    (plan, view)
}

/// A step that takes hours is told about while it runs: how long an earlier one took, and what its log says.
#[test]
fn a_running_step_is_told_with_an_estimate_and_what_it_printed_last() {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)]);
    let events = fleet::run(&plan, &Faults::default());
    let began = events.iter().position(|event| event.kind == Kind::StepStarted && event.scope.phase.as_deref() == Some("migrate"));
    let began = began.unwrap();
    let (id, at) = (events[began].scope.step.clone().unwrap(), events[began].time.parse::<jiff::Timestamp>().unwrap());
    let mut view = View::of(&plan, &events[..=began]);
    let mut record = record();
    record.driven = Some(true);
    let line = |view: &View, record: &Record, minutes: i64| {
        let text = report::status(view, record, &[], at + jiff::SignedDuration::from_mins(minutes), false);
        text.lines()
            .find(|line| line.contains("▸ mkt1") || line.contains("  ▸ ") && line.contains('·'))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    assert_eq!(report::status(&view, &record, &[], at, false).matches("estimate").count(), 0, "where nobody knows nothing is said");
    view.expected.insert(id.clone(), (std::time::Duration::from_secs(2400), "rehearsal 2026-11-14-k3".to_owned()));
    record.said.insert(id, "[log] 812 lines, 3 warnings, 0 errors; Updating tables".to_owned());
    let early = line(&view, &record, 10);
    let said = "about 25 % of 40:00 (estimate: rehearsal 2026-11-14-k3) · [log] 812 lines, 3 warnings, 0 errors; Updating tables";
    assert!(early.ends_with(said), "{early}");
    let late = line(&view, &record, 60);
    assert!(late.contains("longer than the 40:00 of rehearsal 2026-11-14-k3"), "{late}");
}

#[test]
fn the_report_of_a_good_run() {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 1, 2)]);
    insta::assert_snapshot!(report::markdown(&view(&plan, &Faults::default()), &record()));
}

#[test]
fn the_report_of_an_eventful_run() {
    insta::assert_snapshot!(report::markdown(&eventful().1, &record()));
}

#[test]
fn the_header_of_a_report_says_when_platforms_could_be_touched() {
    let mut plan = two();
    plan.platforms.truncate(2);
    let mut events = fleet::run(&plan, &Faults::default());
    let Kind::RunStarted { conditions, .. } = &mut events[0].kind else { panic!("a run begins with its start") };
    conditions.canaries = vec!["apac".to_owned()];
    conditions.failures = Some(1);
    conditions.window = Some("22:00-04:00".to_owned());
    conditions.fresh_s = Some(4 * 3600);
    let mut later = conditions.clone();
    (later.window, later.expected_s) = (Some("22:00-06:00".to_owned()), Some(5400));
    let mut view = View::of(&plan, &events);
    let resumed = Kind::RunResumed {
        command: "resume".to_owned(),
        operator: "eva@ops7".to_owned(),
        version: "0.1.0".to_owned(),
        cut_bytes: 0,
        from_hosts: false,
        conditions: later.clone(),
    };
    view.apply(&fleet::event(900, 5_000_000, Scope::default(), resumed.clone()));
    // The same once more is nothing new.
    view.apply(&fleet::event(901, 5_100_000, Scope::default(), resumed));
    let message = "the maintenance window is over, and platforms are not through: the run goes on".to_owned();
    view.apply(&fleet::event(902, 5_200_000, Scope::default(), Kind::RunAlert { message }));
    let text = report::markdown(&view, &record());
    insta::assert_snapshot!(text.split("\n## ").next().unwrap());
    let json = report::json(&view, &record());
    assert_eq!(json["controllers"][1]["conditions"]["window"], "22:00-06:00", "{json:#}");
}

#[test]
fn a_broken_chain_and_a_broken_order_are_shouted() {
    let plan = two();
    let mut events = fleet::run(&plan, &Faults::default());
    let id = "emea/migrate/mta/mta1.emea.example.net/install.packages";
    let at = events.iter().position(|event| event.kind == Kind::StepStarted && event.scope.step.as_deref() == Some(id)).unwrap();
    let early = events.remove(at);
    events.insert(40, early);
    let view = View::of(&plan, &events);
    let damage = Some(Damage::Edited { line: 16 });
    let against = Contradiction {
        host: "trk07".to_owned(),
        head: "feed".repeat(16),
        step: "emea/stop/nlserver/trk07/stop.nlserver".to_owned(),
        attempt: 1,
        line: Some(23),
    };
    let away = BTreeMap::from([("mta1".to_owned(), "mta1: no answer within 10 s".to_owned())]);
    let agree = BTreeMap::from([("mkt1".to_owned(), 4)]);
    let hosts = HostHeads { against: vec![against], away, agree, proven: 12, ..HostHeads::default() };
    let chain = ChainCheck { broken_at: Some(17), damage, hosts, ..ChainCheck::default() };
    let text = report::markdown(&view, &Record { chain: Some(chain.clone()), ..record() });
    assert!(text.contains("THE CHAIN IS BROKEN: line 16 is not as it was written"), "{text}");
    assert!(text.contains("THE HOSTS SPEAK AGAINST IT (trk07): one of the lines 13 to 23 was edited"), "{text}");
    assert!(text.contains("4 heads of 1 host are in it: lines 1 to 12 are as they were written. Not asked: mta1"), "{text}");
    let screen = report::summary(&view, &Record { chain: Some(chain.clone()), ..record() }, &[], false);
    assert!(screen.contains("‼ the journal: THE CHAIN IS BROKEN: line 16") && screen.contains("one of the lines 13 to 23"));
    assert!(text.contains("**The order was not kept:**") && text.contains(id));
    let json = report::json(&view, &Record { chain: Some(chain), ..record() });
    let told = &json["journal"]["chain"];
    assert_eq!((&told["intact"], &told["sound"], &told["edited_line"]), (&false.into(), &false.into(), &16.into()));
    assert_eq!((&told["hosts"]["against"][0]["host"], &told["hosts"]["proven_lines"]), (&"trk07".into(), &12.into()));
    assert_eq!((&json["order"]["kept"], &json["order"]["breaches"][0]["step"]), (&false.into(), &id.into()));
    assert!(report::summary(&view, &record(), &[], false).contains("began before"));
}

#[test]
fn the_json_report_has_what_the_markdown_has() {
    let (plan, view) = eventful();
    let json = report::json(&view, &record());
    assert_eq!(json["v"], 1);
    assert_eq!(json["operator"], "eva@ops7");
    assert_eq!(json["plan_hash"], plan.hash.as_str());
    assert_eq!(json["gates"][0]["confirmed"]["note"], "ticket 4711");
    assert_eq!(json["decisions"].as_array().unwrap().len(), 3);
    assert_eq!(json["findings"][1]["overridden"], "set by hand, see ticket 4712");
    let stages = json["platforms"][0]["phases"][3]["stages"].as_array().unwrap();
    let steps = stages.iter().flat_map(|stage| stage["steps"].as_array().unwrap());
    let step = steps.clone().find(|step| step["accepted"] == "compared by hand").unwrap();
    assert_eq!(
        (&step["state"], &step["attempt"], &step["earlier_attempts"][0]["state"]),
        (&"unknown".into(), &2.into(), &"failed".into())
    );
    let planned: usize = plan.platforms[0].phases[3].stages.iter().map(|stage| stage.steps.len()).sum();
    assert_eq!(steps.count(), planned);
}

#[test]
fn status_of_a_running_run() {
    let plan = two();
    let mut faults = Faults::step("trk09.emea.example.net/install.packages", SAME);
    faults.away = vec![("mta1.apac.example.net".to_owned(), Phase::Backup)];
    let events = fleet::run(&plan, &faults);
    let failed = events.iter().position(|event| matches!(event.kind, Kind::StepFinished { outcome: Outcome::Failed, .. })).unwrap();
    let view = View::of(&plan, &events[..=failed]);
    let now = view.run.last.unwrap().checked_add(jiff::SignedDuration::from_secs(8)).unwrap();
    insta::assert_snapshot!(report::status(&view, &record(), &next(), now, false));
}

#[test]
fn runs_of_all_kinds() {
    let plan = two();
    let gate = fleet::plan(vec![fleet::platform("apac", Topology::CloudMessaging, 1, 2)]);
    let events = fleet::run(&plan, &Faults::default());
    let listed = [
        view(&plan, &Faults::default()),
        view(&plan, &Faults::step("trk09.emea.example.net/install.packages", SAME)),
        view(&gate, &Faults::default()),
        View::of(&plan, &events[..100]),
        View::new(&plan),
    ];
    let mut listed: Vec<Listed> = listed
        .into_iter()
        .map(|view| Listed::Run(Box::new(view), Box::new(Record { driven: Some(false), ..Record::default() })))
        .collect();
    listed.push(Listed::Unreadable("2026-11-20-aa".to_owned(), "plan.json cannot be understood".to_owned()));
    insta::assert_snapshot!(report::runs(&listed, false));
}

#[test]
fn reports_of_half_runs_never_panic() {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::CloudMessaging, 1, 2)]);
    let events = fleet::run(&plan, &Faults { confirmed: true, ..Faults::default() });
    let mut view = View::new(&plan);
    for event in &events {
        view.apply(event);
        let text = report::markdown(&view, &record());
        assert!(text.contains("## Platform emea"));
        report::summary(&view, &record(), &[], true);
        report::status(&view, &record(), &next(), fleet::START.parse().unwrap(), true);
    }
}
