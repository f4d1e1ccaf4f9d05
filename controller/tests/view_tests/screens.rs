//! What the display of a run looks like.

use crate::view_tests::fleet::{self, Faults};
use controller::plan::{Phase, Plan};
use controller::progress::{Options, Progress};
use indicatif::InMemoryTerm;
use inventory::Topology;
use jiff::{SignedDuration, Timestamp};
use proto::{Event, Kind, Outcome};
use std::io::Write;
use std::sync::{Arc, Mutex};

const NORMAL: Options = Options { color: false, verbosity: 0, terminal: true };

/// A display on a terminal in memory, whose clock is that of the events.
struct Screen {
    terminal: InMemoryTerm,
    progress: Progress,
    now: Arc<Mutex<Timestamp>>,
}

impl Screen {
    fn new(plan: &Plan, rows: u16, columns: u16, options: Options) -> Self {
        let terminal = InMemoryTerm::new(rows, columns);
        let now = Arc::new(Mutex::new(fleet::START.parse().unwrap()));
        let clock = Arc::clone(&now);
        let progress = Progress::on_terminal(plan, options, terminal.clone(), move || *clock.lock().unwrap());
        Self { terminal, progress, now }
    }

    fn show(&self, events: &[Event]) {
        for event in events {
            *self.now.lock().unwrap() = event.time.parse().unwrap();
            self.progress.event(event);
        }
        self.progress.refresh();
    }

    /// Lets time pass, and shows what a step printed at its end.
    fn output(&self, seconds: i64, step: &str, text: &str) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        drop(now);
        self.progress.output(step, text);
        self.progress.refresh();
    }

    fn contents(&self) -> String {
        self.terminal.contents()
    }
}

/// The events up to (not with) the first one after this one of this stage was seen `count` times.
fn until(events: &[Event], wanted: impl Fn(&Event) -> bool, count: usize) -> &[Event] {
    let at = events.iter().enumerate().filter(|(_, event)| wanted(event)).nth(count - 1).unwrap().0;
    &events[..=at]
}

fn finished<'a>(stage: &'a str, name: &'a str) -> impl Fn(&Event) -> bool + 'a {
    move |event| {
        let step = event.scope.step.as_deref().unwrap_or("");
        matches!(event.kind, Kind::StepFinished { .. }) && step.contains(&format!("migrate/{stage}/")) && step.ends_with(name)
    }
}

fn two() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 3, 12), fleet::platform("apac", Topology::CloudMessaging, 1, 2)])
}

fn many() -> Plan {
    fleet::plan(vec![fleet::platform("emea", Topology::Standard, 20, 180)])
}

const SAME: &str = "dpkg: dependency problems: libxalan-c112 is not installed";

fn half_fail(hosts: std::ops::Range<usize>) -> Faults {
    let step = |n| (format!("trk{n:03}.emea.example.net/install.packages"), Outcome::Failed, SAME.to_owned());
    let mut steps: Vec<_> = hosts.map(step).collect();
    steps.push(("trk150.emea.example.net/restore.conf".to_owned(), Outcome::Failed, "nl6.back/conf is missing".to_owned()));
    Faults { steps, confirmed: true, ..Faults::default() }
}

#[test]
fn two_platforms_run() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", SAME));
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    screen.show(until(&events, finished("tracking", "emea.example.net/install.packages"), 8));
    screen.output(
        3,
        "emea/migrate/tracking/trk11.emea.example.net/install.packages",
        "(Reading database)\nUnpacking nlserver6-v7 ...\n",
    );
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn a_gate_waits_beside_a_running_platform() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::default());
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    screen.show(until(
        &events,
        |event| event.kind == Kind::StepStarted && event.scope.step.as_deref().is_some_and(|id| id.ends_with("/postupgrade")),
        1,
    ));
    let step = "emea/migrate/marketing/mkt1.emea.example.net:emea_prod/postupgrade";
    screen.output(30, step, "2011-10-04 \u{1b}[1mBuilding\u{1b}[0m table NmsRecipient\r\n");
    screen.output(90, "another", "");
    screen.output(0, "another", "x");
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn two_hundred_hosts_fit_a_small_terminal() {
    let plan = many();
    let events = fleet::run(&plan, &half_fail(20..67));
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    screen.show(until(&events, finished("tracking", "/install.packages"), 140));
    let contents = screen.contents();
    assert!(contents.lines().count() <= 23);
    assert!(contents.contains("hosts: same error"), "{contents}");
    insta::assert_snapshot!(contents);
}

#[test]
fn two_hundred_hosts_that_are_out_of_reach_are_one_line() {
    let plan = many();
    let away = (1..=180).map(|n| (format!("trk{n:03}.emea.example.net"), Phase::Stop)).collect();
    let events = fleet::run(&plan, &Faults { away, ..Faults::default() });
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    screen.show(until(&events, |event| matches!(event.kind, Kind::HostUnreachable { .. }), 180));
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn the_board_never_exceeds_the_terminal() {
    let some =
        |count| fleet::plan((1..=count).map(|n| fleet::platform(&format!("platform{n}"), Topology::Standard, 1, 4)).collect());
    let faults = Faults::step("trk03.platform7.example.net/install.packages", SAME);
    let plan = some(12);
    let events = fleet::run(&plan, &faults);
    for (rows, columns) in [(24, 80), (10, 40), (5, 30), (3, 20), (2, 12), (60, 200)] {
        let screen = Screen::new(&plan, rows, columns, NORMAL);
        for part in until(&events, finished("tracking", "platform7.example.net/install.packages"), 3).chunks(500) {
            screen.show(part);
            let contents = screen.contents();
            let tall = contents.lines().count();
            assert!(tall <= usize::from(rows), "{tall} lines on {rows} rows");
        }
    }
    let plan = some(30);
    let events = fleet::run(&plan, &faults);
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    screen.show(until(&events, finished("tracking", "platform7.example.net/install.packages"), 3));
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn a_narrow_terminal() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", SAME));
    let screen = Screen::new(&plan, 12, 44, NORMAL);
    screen.show(until(&events, finished("tracking", "emea.example.net/install.packages"), 8));
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn a_finished_run_leaves_its_lines() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", SAME));
    let screen = Screen::new(&plan, 40, 100, NORMAL);
    screen.show(&events);
    screen.progress.finish();
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn a_prompt_has_the_terminal_for_itself() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::default());
    let screen = Screen::new(&plan, 24, 80, NORMAL);
    let (before, after) = events.split_at(60);
    screen.show(before);
    screen.progress.suspend(|| {
        assert!(!screen.contents().contains("running"), "the board is away");
        screen.show(&after[..400]);
        screen.progress.println("a log line");
        assert!(!screen.contents().contains("running") && !screen.contents().contains("a log line"));
    });
    assert!(screen.contents().contains("a log line") && screen.contents().contains("migrate 2026-11-22-q7"));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let plan = two();
    let events = fleet::run(&plan, &Faults::step("trk09.emea.example.net/install.packages", SAME));
    let shown = |color| {
        let screen = Screen::new(&plan, 24, 80, Options { color, ..NORMAL });
        screen.show(until(&events, finished("tracking", "emea.example.net/install.packages"), 9));
        let moves = screen.terminal.moves_since_last_check();
        (screen.contents(), moves.contains("[31m"))
    };
    let (plain, coloured) = (shown(false), shown(true));
    assert_eq!(plain.0, coloured.0, "colour changes nothing but colour");
    assert_eq!((plain.1, coloured.1), (false, true));
}

/// A place for plain lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn plain(plan: &Plan, faults: &Faults, verbosity: i8) -> String {
    plain_of(plan, &fleet::run(plan, faults), verbosity)
}

fn plain_of(plan: &Plan, events: &[Event], verbosity: i8) -> String {
    let lines = Lines::default();
    let progress = Progress::to_lines(plan, Options { color: false, verbosity, terminal: false }, lines.clone());
    for event in events {
        progress.event(event);
    }
    progress.finish();
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn plain_lines_of_a_failing_run() {
    insta::assert_snapshot!(plain(&two(), &Faults::step("trk09.emea.example.net/install.packages", SAME), 0));
}

#[test]
fn plain_lines_of_a_waiting_run() {
    let plan = fleet::plan(vec![fleet::platform("apac", Topology::CloudMessaging, 1, 2)]);
    insta::assert_snapshot!(plain(&plan, &Faults::default(), 0));
}

#[test]
fn quiet_tells_errors_only_and_equal_ones_once() {
    insta::assert_snapshot!(plain(&many(), &half_fail(20..67), -1));
    assert_eq!(plain(&two(), &Faults { confirmed: true, ..Faults::default() }, -1), "");
}

#[test]
fn verbose_tells_every_step() {
    let plan = fleet::plan(vec![fleet::platform("apac", Topology::Standard, 1, 1)]);
    let verbose = plain(&plan, &Faults::default(), 1);
    assert_eq!(verbose.lines().filter(|line| line.contains(" ok, ")).count(), 3 + 3 + 4 + 10 + 3 + 3);
    assert!(!plain(&plan, &Faults::default(), 0).contains(" ok, "));
}

#[test]
fn a_red_preflight_is_told() {
    let faults = Faults { findings: vec![fleet::red_password("emea")], confirmed: true, ..Faults::default() };
    insta::assert_snapshot!(plain(&two(), &faults, 0));
}

#[test]
fn a_watchdogs_word_is_shown_at_once() {
    let plan = crate::view_tests::resumed::emea();
    let events = crate::view_tests::resumed::eventful(&plan);
    let screen = Screen::new(&plan, 24, 100, NORMAL);
    let asks = events.iter().position(|event| matches!(event.kind, Kind::StepAlert { ask: true, .. })).unwrap();
    screen.show(&events[..=asks]);
    insta::assert_snapshot!(screen.contents());
    screen.show(&events[asks + 1..]);
    insta::assert_snapshot!(screen.contents());
}

#[test]
fn plain_lines_of_a_run_that_went_on() {
    let plan = crate::view_tests::resumed::emea();
    let events = crate::view_tests::resumed::eventful(&plan);
    insta::assert_snapshot!(plain_of(&plan, &events, 0));
    let quiet = plain_of(&plan, &events, -1);
    assert!(quiet.contains("a person decides whether it is stopped") && !quiet.contains("60 min"), "{quiet}");
    assert!(plain_of(&plan, &events, 1).contains("mkt1.emea.example.net is this run's, token 2"));
}

#[test]
fn many_equal_decisions_are_told_a_few_times() {
    let plan = many();
    let mut events = fleet::run(&plan, &half_fail(20..67));
    let failed: Vec<String> = events
        .iter()
        .filter(|event| matches!(event.kind, Kind::StepFinished { outcome: Outcome::Failed, .. }))
        .filter_map(|event| event.scope.step.clone())
        .collect();
    events.push(fleet::event(90_000, 9_000_000, proto::Scope::default(), fleet::resumed(0, false)));
    for step in &failed {
        let [decision, operator, reason] = ["resume", "kim@ops2", "it may be started again"].map(str::to_owned);
        let kind = Kind::Decision { decision, about: step.clone(), operator, reason };
        events.push(fleet::event(90_001, 9_000_001, proto::Scope::default(), kind));
    }
    let text = plain_of(&plan, &events, 0);
    let told = text.lines().filter(|line| line.contains("resume of")).count();
    assert!(failed.len() > 40 && told <= 8, "{told} of {}", failed.len());
    assert!(text.contains("… more of resume install.packages are in the record"), "{text}");
}
