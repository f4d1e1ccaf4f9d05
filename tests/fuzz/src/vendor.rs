//! Any bytes as the output of the vendor's programs: of `nlserver config -postupgrade` and of `nlserver pdump`. What is shown of it is
//! fit for a line of a terminal, it does not depend on the pieces in which it is read, and no line that is an error is lost.

use controller::check::banner::{Banner, modules};
use controller::check::postupgrade::findings;
use controller::plan::{PlannedStep, Reversibility, StepScope};
use proto::event::{Finding, Status};
use proto::step::{Command, LOG_MARK, Limits, Repeat};
use proto::{Action, RunAs, StepId, StepSpec};
use std::io::BufReader;

/// The longest line that is surely looked at whole, in bytes.
const LINE: usize = 4096;
/// The longest text that a finding may be shown with, in bytes: twenty quotes and some words.
const SHOWN: usize = 16 * 1024;

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let step = step();
    let at_once = findings("emea", &step, bytes);
    let in_pieces = findings("emea", &step, BufReader::with_capacity(7, bytes));
    assert_eq!(at_once, in_pieces, "pieces make a difference");
    at_once.iter().for_each(fit_to_be_shown);
    if bytes.split(|byte| *byte == b'\n').any(is_error) {
        assert_eq!(at_once.first().map(|finding| finding.status), Some(Status::Failure), "an error was lost: {at_once:?}");
    }
    let text = String::from_utf8_lossy(bytes);
    if let Some(banner) = Banner::parse(&text) {
        assert!(banner.version.starts_with(|c: char| c.is_ascii_digit()), "{banner:?}");
        assert!(text.contains(&banner.build.to_string()) || text.contains("build 0") || text.contains("build0"), "{banner:?}");
    }
    for module in modules(&text) {
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && c != '@');
        assert!(module.split_once('@').is_some_and(|(name, instance)| word(name) && word(instance)), "{module:?}");
    }
}

/// A line that is an error whatever else there is: not one of the log's, not the last line, nothing about what can be ignored.
fn is_error(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let other = ["JST-310040", "error(s) during the update"];
    line.len() < LINE && line.contains(">>>") && !line.starts_with(LOG_MARK) && !other.iter().any(|text| line.contains(text))
}

fn fit_to_be_shown(finding: &Finding) {
    for text in [&finding.message, &finding.evidence] {
        assert!(!text.chars().any(char::is_control), "{text:?} has control characters");
        assert!(text.len() <= SHOWN, "{} bytes are shown", text.len());
    }
}

fn step() -> PlannedStep {
    let id = StepId("emea/migrate/marketing/mkt1:prod/postupgrade".to_owned());
    PlannedStep {
        id: id.clone(),
        name: "postupgrade".to_owned(),
        title: String::new(),
        short: String::new(),
        scope: StepScope::Instance,
        host: "mkt1".to_owned(),
        instance: Some("prod".to_owned()),
        run_as: RunAs::Login,
        action: "command".to_owned(),
        command: None,
        reversibility: Reversibility::OneWay,
        source: String::new(),
        wave: 0,
        explain: String::new(),
        undo: String::new(),
        skip: None,
        spec: StepSpec {
            id,
            title: String::new(),
            run_as: RunAs::Login,
            action: Action::Command(Command::default()),
            only_if: None,
            probe: None,
            repeat: Repeat::Ask,
            limits: Limits::default(),
        },
    }
}
