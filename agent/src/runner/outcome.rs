//! From a granted step to its outcome: when to look, when to act, and what the two together prove.

use super::act::{Death, Job};
use super::files::StepFiles;
use super::halt::Halt;
use super::note;
use crate::action::{self, Cause, Context, Trouble};
use crate::probe::{self, Seen};
use proto::host::Record;
use proto::message::{Made, Mode};
use proto::{Outcome, Probe};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How a step ended, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) message: String,
    /// It was ended from outside.
    pub(crate) died: bool,
    /// Files that count as backups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) made: Vec<Made>,
}

impl Verdict {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, exit_code: None, message: message.into(), died: false, made: Vec::new() }
    }
}

/// What the thread that acts has to do with the rest of the runner.
pub(crate) struct Work<'a> {
    /// The step's files, where the runner itself acts.
    pub(crate) files: Option<&'a StepFiles>,
    pub(crate) halt: &'a Halt,
    /// Told when the action begins and when it has ended.
    pub(crate) acting: &'a dyn Fn(bool),
}

/// Carries a step out as the account that this process has.
pub(crate) fn reach(job: &Job, work: &Work<'_>, sink: &mut dyn FnMut(&[u8])) -> Verdict {
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
        Mode::Act => {}
    }
    match job.after_death {
        Some(Death::OfRunner) => return after_death(look()),
        Some(Death::BeforeItBegan) => return never_begun(look()),
        None => {}
    }
    // That a copy is kept elsewhere is for the controller to say: it is offered again, and taken at once where it is there.
    if granted.attempt > 1
        && !matches!(spec.action, proto::Action::Keep { .. })
        && let Some(Seen::There) = look()
    {
        return Verdict::new(Outcome::Ok, "nothing was done: the effect is there already, from an attempt before this one");
    }
    let mut context = Context { secrets: &job.secrets, halt: work.halt, files: work.files, sink };
    (work.acting)(true);
    let done = context.go_on().and_then(|()| action::perform(&spec.action, &mut context));
    (work.acting)(false);
    match done {
        Ok(done) => {
            let (outcome, message) = post_condition(spec.probe.as_ref(), spec.limits.settle_s, done.message, work.halt, sink);
            Verdict { exit_code: done.exit_code, made: done.made, ..Verdict::new(outcome, message) }
        }
        Err(trouble) => Verdict { exit_code: trouble.exit_code, ..weigh(&trouble, look) },
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
    ended_from_outside("its runner died before it could say how the step ended", seen)
}

/// Nothing was done: it may be that there is nothing to do, else the step is as one that was killed and provably did nothing.
fn never_begun(seen: Option<Seen>) -> Verdict {
    let how = "its supervisor was killed before it had handed over what the step needs, so nothing was begun";
    match seen {
        Some(Seen::There) => Verdict::new(Outcome::Ok, format!("{how}; the effect is there")),
        _ => Verdict { died: true, ..Verdict::new(Outcome::Failed, how) },
    }
}

/// Something killed the step. The probe decides: the effect is there, or it is not and the step may be repeated, or nobody knows.
fn ended_from_outside(how: &str, seen: Option<Seen>) -> Verdict {
    let (outcome, message) = match seen {
        Some(Seen::There) => return Verdict::new(Outcome::Ok, format!("{how}; the effect is there")),
        Some(Seen::NotThere(why)) => (Outcome::Failed, format!("{how}; the effect is not there: {why}")),
        Some(Seen::CannotTell(why)) => (Outcome::Unknown, format!("{how}; cannot tell whether the effect is there: {why}")),
        None => (Outcome::Unknown, format!("{how}; the step has no probe, so a person has to look")),
    };
    Verdict { died: true, ..Verdict::new(outcome, message) }
}

/// The action ended well; now its effect has to be seen, within the time that it may take to settle.
fn post_condition(
    probe: Option<&Probe>,
    settle_s: u64,
    message: String,
    halt: &Halt,
    sink: &mut dyn FnMut(&[u8]),
) -> (Outcome, String) {
    let Some(probe) = probe else { return (Outcome::Ok, message) };
    let until = Instant::now() + Duration::from_secs(settle_s);
    let mut pause = Duration::from_millis(50);
    loop {
        let seen = probe::look(probe);
        if seen == Seen::There {
            return (Outcome::Ok, message);
        }
        if Instant::now() >= until || halt.ordered().is_some() {
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

/// The action did not end well. Where it did not come to its own end, the probe decides between "not done" and "nobody knows".
fn weigh(trouble: &Trouble, look: impl Fn() -> Option<Seen>) -> Verdict {
    let message = &trouble.message;
    let seen = match trouble.cause {
        Cause::Itself => return Verdict::new(Outcome::Failed, message.clone()),
        Cause::Killed => return ended_from_outside(message, look()),
        Cause::Halted => look(),
    };
    let (outcome, message) = match seen {
        Some(Seen::There) => (Outcome::Failed, format!("{message}; its effect is there all the same: a retry will find it done")),
        Some(Seen::NotThere(why)) => (Outcome::Failed, format!("{message}; its effect is not there: {why}")),
        Some(Seen::CannotTell(why)) => (Outcome::Unknown, format!("{message}; cannot tell whether it took effect: {why}")),
        None => (Outcome::Unknown, format!("{message}; it has no probe, so a person has to look whether it took effect")),
    };
    Verdict::new(outcome, message)
}
