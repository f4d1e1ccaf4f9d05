//! When the platforms of a run could be touched, for the head of a report.

use crate::plan::words;
use crate::view::View;
use crate::view::text::time_of_day;
use proto::event::Conditions;
use std::time::Duration;

/// When platforms could be touched, for each controller that was told something else about it than the one before.
pub(super) fn conditions(view: &View) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let mut before = Conditions::default();
    for (number, life) in view.lives.iter().enumerate() {
        let known = &life.conditions;
        if *known != before {
            let text = when_touched(known);
            rows.push(match number {
                0 => ("Platforms are touched", text),
                _ => ("Changed", format!("from {} on: {text}", time_of_day(life.from))),
            });
            before.clone_from(known);
        }
    }
    rows
}

fn when_touched(conditions: &Conditions) -> String {
    let Conditions { canaries, failures, window, expected_s, fresh_s } = conditions;
    let seconds = |seconds: &u64| words(Duration::from_secs(*seconds));
    let mut parts = Vec::new();
    if !canaries.is_empty() {
        parts.push(format!("others than {} only once it is through (--canary)", canaries.join(", ")));
    }
    parts.extend(failures.map(|n| format!("while not more than {n} ended badly (--max-failures)")));
    parts.extend(window.as_ref().map(|window| format!("in the window {window} of the workstation's time (--window)")));
    parts.extend(expected_s.as_ref().map(|s| format!("expected to take {} (--expect)", seconds(s))));
    parts.extend(fresh_s.as_ref().map(|s| format!("on checks that are not older than {} (--fresh)", seconds(s))));
    if parts.is_empty() { "at any time".to_owned() } else { parts.join("; ") }
}
