//! When platforms may be touched: canaries, a failure budget, a maintenance window, how old checks may be.

use super::{Context, Exit, Failure, history};
use crate::plan::Plan;
use crate::run::touch::{Clock, Window};
use proto::event::Conditions;
use std::collections::BTreeSet;
use std::time::Duration;

/// How old checks may be where nobody says otherwise (design: command line).
const FRESH: Duration = Duration::from_secs(4 * 3600);
/// The least that makes sense for it.
const LEAST_FRESH: Duration = Duration::from_secs(1);

/// What a person says about when platforms may be touched.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ConditionArgs {
    /// The other platforms wait until this one is through its verify, and are not touched if it ends otherwise. Can be given several
    /// times.
    #[arg(long = "canary", value_name = "PLATFORM")]
    canaries: Vec<String>,
    /// No further platform is touched once more than this many ended badly. What is under way goes on.
    #[arg(long, value_name = "NUMBER")]
    max_failures: Option<u32>,
    /// The maintenance window, FROM-TO in this workstation's time (22:00-04:00). A platform is touched only if it is expected to be
    /// through before its end: expectations come from earlier runs, or from --expect.
    #[arg(long, value_name = "FROM-TO")]
    window: Option<String>,
    /// How long a platform takes from stop through verify (1h30m), where no earlier run says it, or says it wrong.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expect: Option<Duration>,
    /// How old the checks of preflight may be when a platform is touched (4h). Older ones are made again.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    fresh: Option<Duration>,
}

/// Reads `4h`, `90m`, `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration: write it as 4h, 90m or 1h30m");
    let parsed: jiff::SignedDuration = text.trim().parse().map_err(|_| expected())?;
    Duration::try_from(parsed).map_err(|_| expected())
}

impl ConditionArgs {
    /// What holds from here on: what the run was started with, where it was, and what is said now.
    ///
    /// # Errors
    /// A window that cannot be read, or canaries that take no part.
    pub(super) fn over(&self, recorded: Conditions, platforms: &BTreeSet<String>) -> Result<Conditions, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, format!("error: {text}"));
        let canaries = if self.canaries.is_empty() { recorded.canaries } else { self.canaries.clone() };
        let strange: Vec<&str> = canaries.iter().filter(|name| !platforms.contains(*name)).map(String::as_str).collect();
        if !strange.is_empty() {
            let known = platforms.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let (strange, rolled_back) = (strange.join(", "), if self.canaries.is_empty() { " any more" } else { "" });
            return Err(usage(format!("--canary: {strange} takes no part in this run{rolled_back}; its platforms are {known}")));
        }
        if self.fresh.is_some_and(|fresh| fresh < LEAST_FRESH) {
            return Err(usage("--fresh: checks take a moment themselves; give at least 1s".to_owned()));
        }
        if let Some(window) = &self.window {
            Window::parse(window).map_err(|why| usage(format!("--window: {why}")))?;
        }
        let seconds = |given: Option<Duration>, before: Option<u64>| given.map(|given| given.as_secs()).or(before);
        Ok(Conditions {
            canaries,
            failures: self.max_failures.or(recorded.failures),
            window: self.window.clone().or(recorded.window),
            expected_s: seconds(self.expect, recorded.expected_s),
            fresh_s: Some(seconds(self.fresh, recorded.fresh_s).unwrap_or(FRESH.as_secs())),
        })
    }
}

/// What the clock has to say about the platforms of a plan.
///
/// # Errors
/// A window that cannot be read, in the record of a run.
pub(super) fn clock(context: &Context, plan: &Plan, conditions: &Conditions) -> Result<Clock, Failure> {
    let names: Vec<String> = plan.platforms.iter().map(|platform| platform.name.clone()).collect();
    // Reading what was is only worth it where something depends on it.
    let expected = match conditions.window.is_some() {
        true => history::read(context).expected(plan),
        false => Default::default(),
    };
    Clock::new(conditions, expected, &names).map_err(|why| Failure::new(Exit::Usage, format!("error: {why}")))
}
