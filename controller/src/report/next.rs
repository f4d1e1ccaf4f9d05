//! The commands that make sense now. One place for all of them: the end of a run, `status`, and everything that refuses to go on.

use super::Next;
use crate::plan::Phase;
use crate::view::{PlatformView, Progressed, StepState, StepView, View};
use proto::Outcome;
use proto::event::RunOutcome;
use proto::step::Repeat;

/// So many steps that wait for a person are named with their commands; `status` has the others.
const NAMED: usize = 3;

/// How commands are typed at this workstation, so that a line can be copied as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    /// Options that name the inventory: empty, or ` -i emea.yaml`.
    pub inventory: String,
    /// Options that name the state directory: empty, or ` --state-dir runs`.
    pub state: String,
}

impl Typed {
    /// A command about a run that is in the state directory.
    pub fn here(&self, command: &str) -> String {
        format!("caravan{} {command}", self.state)
    }

    /// A command that talks to hosts.
    pub fn fleet(&self, command: &str) -> String {
        format!("caravan{}{} {command}", self.inventory, self.state)
    }
}

/// What can be done about a run now. `driven`: a controller drives it at this moment.
pub fn next(view: &View, driven: bool, typed: &Typed) -> Vec<Next> {
    let run = view.run.id.as_str();
    let mut next = Vec::new();
    if view.lives.is_empty() {
        // Its controller ended before the first line of its record was durable: nothing was done, and nothing is to be taken up.
        return next;
    }
    let mut say = |when: &str, command: String| next.push(Next { when: when.to_owned(), command });
    let over = matches!(view.run.outcome, Some(RunOutcome::Ok | RunOutcome::Aborted));
    if driven {
        let gates: String = view.waiting_gates().map(|gate| format!(" --confirm {}=NOTE", word(&gate.id))).collect();
        if !gates.is_empty() {
            say("When that is done", typed.here(&format!("attach {run}{gates}")));
        }
        say("To look on", typed.here(&format!("attach {run}")));
        steps_of_a_person(view, typed, &mut say);
        if view.lives.last().is_none_or(|life| life.paused.is_none()) {
            say("To halt it", typed.here(&format!("pause {run}")));
        }
        return next;
    }
    if !over {
        steps_of_a_person(view, typed, &mut say);
        go_on(view, typed, &mut say);
    }
    // A password is not taken back from a backup; it is set again.
    let passwords = view.stages.iter().any(|stage| stage.phase_name == Phase::Passwords);
    if view.run.outcome != Some(RunOutcome::Ok) && view.run.undoes.is_none() && !passwords {
        // What ended well stays: a platform in production is not taken back because another one stopped.
        let well = |platform: &&PlatformView| platform.outcome == Some(RunOutcome::Ok);
        let open: Vec<String> =
            view.platforms.iter().filter(|p| !well(p) && is_touched(view, p)).map(|p| format!("platform:{}", p.name)).collect();
        let limit =
            if view.platforms.iter().any(|p| well(&p)) { format!(" --limit {}", word(&open.join(","))) } else { String::new() };
        if !open.is_empty() {
            say("To go back instead", typed.fleet(&format!("rollback {run}{limit}")));
        }
    }
    if view.run.outcome == Some(RunOutcome::Ok) {
        say("When it is to stay", typed.fleet(&format!("cleanup {run}")));
    }
    say("The record", typed.here(&format!("report {run}")));
    next
}

/// Steps of which a person has to say what becomes of them.
pub(super) fn undecided(view: &View) -> impl Iterator<Item = &StepView> {
    // What the controller only assumed is asked of the host when the run goes on.
    view.steps.iter().filter(|step| step.is_bad() && !step.assumed).filter(|step| {
        let asks = step.repeat == Repeat::Ask && !step.prove && step.action != "inspect";
        step.skipped || asks || step.state == StepState::Ended(Outcome::Unknown)
    })
}

/// Running steps of which a watchdog asks whether they are to be stopped.
pub(super) fn questioned(view: &View) -> impl Iterator<Item = &StepView> {
    view.steps.iter().filter(|step| step.warnings().any(|alert| alert.ask))
}

fn steps_of_a_person(view: &View, typed: &Typed, say: &mut impl FnMut(&str, String)) {
    let run = view.run.id.as_str();
    for step in questioned(view).take(NAMED) {
        say("To stop that step and start it again", typed.here(&format!("retry {run} {}", word(&step.id))));
    }
    let open: Vec<&StepView> = undecided(view).collect();
    for step in open.iter().take(NAMED) {
        let again = match step.state {
            _ if step.skipped => "If it is to act after all",
            StepState::Ended(Outcome::Unknown) => "If it may start again",
            _ => "When it is mended",
        };
        say(again, typed.here(&format!("retry {run} {}", word(&step.id))));
    }
    if let Some(step) = open.iter().find(|step| !step.skipped) {
        say("If its effect is there", typed.here(&format!("skip {run} {} --reason REASON", word(&step.id))));
    }
    if open.len() > NAMED {
        say("The other steps", typed.here(&format!("status {run}")));
    }
}

fn go_on(view: &View, typed: &Typed, say: &mut impl FnMut(&str, String)) {
    let run = view.run.id.as_str();
    if let Some(step) = undecided(view).find(|step| step.skipped) {
        // Its probe had the first word, and did not see the effect.
        let accept = format!("resume {run} --accept-unproven {}=REASON", word(&step.id));
        say("If it counts all the same", typed.fleet(&accept));
    }
    let gates: String = view.waiting_gates().map(|gate| format!(" --confirm {}=NOTE", word(&gate.id))).collect();
    let held = view.findings.iter().any(|known| known.blocks());
    // A host that was not reached is never set aside.
    let mut aside = view.findings.iter().filter(|known| known.blocks() && known.finding.check != "reachable");
    let (aside, others) = (aside.next(), aside.next().is_some());
    let away = || view.interruptions.iter().filter(|known| known.until.is_none());
    let failed = view.steps.iter().any(StepView::is_bad);
    let when = match () {
        () if undecided(view).next().is_some() => "Then",
        () if !gates.is_empty() => "When that is done",
        () if held || failed => "When it is mended",
        () if away().any(|known| !known.locked) => "When they can be reached",
        () if away().next().is_some() => "When they are free",
        () => "To go on",
    };
    say(when, typed.fleet(&format!("resume {run}{gates}")));
    if let Some(known) = aside {
        let one = if others { "To set one aside" } else { "To set it aside" };
        say(one, typed.fleet(&format!("resume {run} --override {}=REASON", word(&known.finding.id))));
    }
    if away().any(|known| known.locked) {
        say("If that run is given up", typed.fleet(&format!("resume {run} --take-over REASON")));
    }
}

/// Whether anything was done to a host of a platform that preflight alone does not do.
fn is_touched(view: &View, platform: &PlatformView) -> bool {
    let stages = view.stages_of(platform);
    stages.iter().any(|stage| stage.phase_name != Phase::Preflight && stage.state != Progressed::Waiting)
}

/// One word of a command line, quoted where a shell would take it apart.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '=' | ',' | '+' | '%');
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
