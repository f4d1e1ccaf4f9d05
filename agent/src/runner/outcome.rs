//! From a granted step to its outcome: when to look, when to act, and what the two together prove.

use super::act::Job;
use super::files::StepFiles;
use super::note;
use crate::action::{self, Context, Trouble};
use crate::probe::{self, Seen};
use proto::host::Record;
use proto::message::Mode;
use proto::{Outcome, Probe};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How a step ended, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, exit_code: None, message: message.into() }
    }
}

/// Carries a step out as the account that this process has.
pub(crate) fn reach(job: &Job, files: Option<&StepFiles>, sink: &mut dyn FnMut(&[u8])) -> Verdict {
    let Record::Step(granted) = &job.step else { return Verdict::new(Outcome::Failed, "the runner was told no step") };
    let spec = &granted.spec;
    match spec.only_if.as_ref().map(probe::look) {
        None | Some(Seen::There) => {}
        Some(Seen::NotThere(why)) => return Verdict::new(Outcome::Skipped, format!("it does not apply here: {why}")),
        Some(Seen::CannotTell(why)) => {
            return Verdict::new(Outcome::Unknown, format!("nothing was done: cannot tell whether it applies here: {why}"));
        }
    }
    // A probe that looks at nothing leaves the proof to other steps: it never says that an action was done already.
    let to_see = spec.probe.as_ref().filter(|probe| !probe.is_empty());
    let look = || to_see.map(probe::look);
    match granted.mode {
        Mode::Prove if spec.probe.is_some() && to_see.is_none() => {
            return Verdict::new(Outcome::Skipped, "it leaves no effect of its own to look at");
        }
        Mode::Prove => return proven(look()),
        Mode::Act if job.after_death => return after_death(look()),
        Mode::Act => {}
    }
    if granted.attempt > 1
        && let Some(Seen::There) = look()
    {
        return Verdict::new(Outcome::Ok, "nothing was done: the effect is there already, from an attempt before this one");
    }
    let deadline = (spec.limits.deadline_s > 0).then(|| Instant::now() + Duration::from_secs(spec.limits.deadline_s));
    let mut context = Context { secrets: &job.secrets, deadline, deadline_s: spec.limits.deadline_s, files, sink };
    match action::perform(&spec.action, &mut context) {
        Ok(done) => {
            let (outcome, message) = post_condition(spec.probe.as_ref(), spec.limits.settle_s, done.message, sink);
            Verdict { outcome, exit_code: done.exit_code, message }
        }
        Err(trouble) => {
            let (outcome, message) = weigh(&trouble, look);
            Verdict { outcome, exit_code: trouble.exit_code, message }
        }
    }
}

/// Only the probe counts: for hosts outside `--limit`.
fn proven(seen: Option<Seen>) -> Verdict {
    match seen {
        Some(Seen::There) => Verdict::new(Outcome::Skipped, ""),
        Some(Seen::NotThere(why)) => Verdict::new(Outcome::Failed, format!("its effect is not there: {why}")),
        Some(Seen::CannotTell(why)) => Verdict::new(Outcome::Unknown, format!("cannot tell whether its effect is there: {why}")),
        None => Verdict::new(Outcome::Unknown, "it has no probe, so nobody but a person can tell whether its effect is there"),
    }
}

fn after_death(seen: Option<Seen>) -> Verdict {
    let died = "its runner died before it could say how the step ended";
    match seen {
        Some(Seen::There) => Verdict::new(Outcome::Ok, format!("{died}; the effect is there")),
        Some(Seen::NotThere(why)) => Verdict::new(Outcome::Failed, format!("{died}; the effect is not there: {why}")),
        Some(Seen::CannotTell(why)) => {
            Verdict::new(Outcome::Unknown, format!("{died}; cannot tell whether the effect is there: {why}"))
        }
        None => Verdict::new(Outcome::Unknown, format!("{died}; the step has no probe, so a person has to look")),
    }
}

/// The action ended well; now its effect has to be seen, within the time that it may take to settle.
fn post_condition(probe: Option<&Probe>, settle_s: u64, message: String, sink: &mut dyn FnMut(&[u8])) -> (Outcome, String) {
    let Some(probe) = probe else { return (Outcome::Ok, message) };
    let until = Instant::now() + Duration::from_secs(settle_s);
    let mut pause = Duration::from_millis(50);
    loop {
        let seen = probe::look(probe);
        if seen == Seen::There {
            return (Outcome::Ok, message);
        }
        if Instant::now() >= until {
            let waited = if settle_s > 0 { format!(" within {settle_s} s") } else { String::new() };
            return match seen {
                Seen::There => (Outcome::Ok, message),
                Seen::NotThere(why) => {
                    note(sink, &format!("the post-condition does not hold: {why}"));
                    (Outcome::Failed, format!("the action ended well, but its effect was not seen{waited}: {why}"))
                }
                Seen::CannotTell(why) => {
                    (Outcome::Unknown, format!("the action ended well, but nobody can tell whether its effect is there: {why}"))
                }
            };
        }
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The action did not end well. Where it was cut off, the probe decides between "not done" and "nobody knows".
fn weigh(trouble: &Trouble, look: impl Fn() -> Option<Seen>) -> (Outcome, String) {
    let message = &trouble.message;
    if !trouble.cut_off {
        return (Outcome::Failed, message.clone());
    }
    match look() {
        Some(Seen::There) => (Outcome::Failed, format!("{message}; its effect is there all the same: a retry will find it done")),
        Some(Seen::NotThere(why)) => (Outcome::Failed, format!("{message}; its effect is not there: {why}")),
        Some(Seen::CannotTell(why)) => (Outcome::Unknown, format!("{message}; cannot tell whether it took effect: {why}")),
        None => (Outcome::Unknown, format!("{message}; it has no probe, so a person has to look whether it took effect")),
    }
}
