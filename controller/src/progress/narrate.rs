//! What is said about each event in plain lines. Without a board: one line for each start and end of a stage, each failure, gate
//! and host out of reach. With a board above whose lines these scroll: only what is over, since the board shows the rest.

use crate::progress::board::trouble_line;
use crate::view::text::{count, duration, sanitize, time_of_day};
use crate::view::{Paint, PlatformView, Progressed, StageView, StepState, StepView, View, signature};
use jiff::{SignedDuration, Timestamp};
use proto::event::{RunOutcome, Status};
use proto::{Event, Kind, Outcome};
use std::collections::BTreeMap;

/// Of equal errors in one stage so many are told in full; the others are counted.
const EQUAL: usize = 3;

pub(super) struct Narrator {
    board: bool,
    verbosity: i8,
    paint: Paint,
    /// How often an error was seen: stage, step or check, what makes it the same.
    seen: BTreeMap<(usize, String, String), usize>,
    /// How often a decision was made about a step of this name.
    decided: BTreeMap<(String, String), usize>,
}

/// How much a line matters.
enum Say {
    /// Always told.
    Error(String),
    /// Told unless quiet.
    Note(String),
    /// Told when verbose.
    Detail(String),
}

impl Narrator {
    pub(super) fn new(board: bool, verbosity: i8, paint: Paint) -> Self {
        Self { board, verbosity, paint, seen: BTreeMap::new(), decided: BTreeMap::new() }
    }

    /// The lines to print for an event, which the view holds already.
    pub(super) fn tell(&mut self, view: &View, event: &Event) -> Vec<String> {
        let said = self.say(view, event);
        self.lines(said, event.time.parse().ok())
    }

    /// What is left to say when the display ends: errors that were counted only.
    pub(super) fn rest(&mut self, view: &View) -> Vec<String> {
        let said = self.counted(view, |_| true);
        self.lines(said, view.run.last)
    }

    fn lines(&self, said: Vec<Say>, time: Option<Timestamp>) -> Vec<String> {
        let told = said.into_iter().filter_map(|say| match say {
            Say::Error(text) => Some(self.paint.red(&text)),
            Say::Note(text) if self.verbosity >= 0 => Some(text),
            Say::Detail(text) if self.verbosity > 0 => Some(self.paint.dim(&text)),
            Say::Note(_) | Say::Detail(_) => None,
        });
        let time = self.paint.dim(&time_of_day(time));
        told.map(|text| format!("{time} {text}")).collect()
    }

    fn say(&mut self, view: &View, event: &Event) -> Vec<Say> {
        let scope = &event.scope;
        let platform = scope.platform.as_deref().and_then(|name| view.platforms.iter().find(|platform| platform.name == name));
        let stage = || {
            let stages = view.stages_of(platform?);
            stages.iter().find(|stage| {
                Some(stage.name.as_str()) == scope.stage.as_deref() && Some(stage.phase_name.as_str()) == scope.phase.as_deref()
            })
        };
        let step = || view.step(scope.step.as_deref()?);
        match &event.kind {
            Kind::RunStarted { command, operator, .. } => {
                let platforms = count(view.platforms.iter().filter(|platform| platform.selected).count(), "platform");
                let command =
                    view.run.undoes.as_ref().map_or_else(|| sanitize(command).into_owned(), |run| format!("{command} of {run}"));
                vec![Say::Note(format!("run {}: {command}, {platforms}, by {operator} (times are UTC)", view.run.id))]
            }
            Kind::RunResumed { cut_bytes, from_hosts, .. } => vec![Say::Note(resumed(view, *cut_bytes, *from_hosts))],
            Kind::HostClaimed { token } => {
                let host = scope.host.as_deref().map(|host| format!("{} is this run's, token {token}", sanitize(host)));
                host.map(Say::Detail).into_iter().collect()
            }
            Kind::StepAlert { .. } => step().map_or_else(Vec::new, |step| self.alert(view, step)),
            Kind::StageStarted if !self.board => stage().map(|stage| Say::Note(started(view, stage))).into_iter().collect(),
            Kind::StageFinished => stage().map(|stage| Say::Note(self.finished(view, stage))).into_iter().collect(),
            Kind::StepFinished { outcome, .. } => step().map_or_else(Vec::new, |step| self.step(view, step, *outcome)),
            Kind::Finding { finding } => {
                let Some(known) = view.findings.iter().rev().find(|known| known.finding.id == finding.id) else { return vec![] };
                let host = finding.host.as_deref().unwrap_or("");
                let place = platform.map_or(usize::MAX, |platform| platform.stages.start);
                let text = format!("{} {}: {}", known.finding.platform, known.finding.id, known.finding.message);
                match known.finding.status {
                    _ if known.blocks() => self.error(view, place, &finding.check, &known.finding.message, host, text),
                    Status::Ok => vec![Say::Detail(text)],
                    _ => vec![Say::Note(format!("{text} (warning)"))],
                }
            }
            Kind::GateWaiting { gate, .. } => {
                let ask = view.gates.iter().find(|known| known.id == *gate).map_or("", |known| known.ask.as_str());
                vec![Say::Note(self.paint.yellow(&format!("gate {gate} waits for a person: {ask}")))]
            }
            Kind::GateConfirmed { gate, .. } => {
                let known = view.gates.iter().find(|known| known.id == *gate).and_then(|known| known.confirmed.as_ref());
                let text = known.map(|known| format!("gate {gate} confirmed by {}: {}", known.operator, known.note));
                text.map(Say::Note).into_iter().collect()
            }
            Kind::HostUnreachable { .. } | Kind::HostLocked { .. } => {
                scope.host.as_deref().map_or_else(Vec::new, |host| self.away(view, host))
            }
            Kind::HostReattached => scope.host.as_deref().map(|host| Say::Note(format!("{host} is back"))).into_iter().collect(),
            Kind::RunAlert { .. } => view.alerts.last().map(|(_, message)| Say::Error(message.clone())).into_iter().collect(),
            Kind::RunPaused { .. } => {
                view.pauses.last().map(|(_, reason)| Say::Note(format!("run paused: {reason}"))).into_iter().collect()
            }
            Kind::Decision { about, .. } => self.decision(view, view.step(about)),
            Kind::PlatformFinished { outcome, .. } => {
                platform.map_or_else(Vec::new, |platform| self.platform_over(view, platform, *outcome))
            }
            Kind::RunFinished { exit_code, .. } => {
                let how = if view.run.outcome == Some(RunOutcome::Aborted) { "was aborted" } else { "is over" };
                let took = view.took(view.run.started, view.run.ended);
                vec![Say::Note(format!("run {} {how} after {took}, exit code {exit_code}", view.run.id))]
            }
            _ => vec![],
        }
    }

    fn finished(&self, view: &View, stage: &StageView) -> String {
        let counts = stage.counts;
        let accepted: usize = stage.hosts.iter().map(|host| host.accepted).sum();
        let accepted = if accepted > 0 { format!(", {} accepted without proof", count(accepted, "step")) } else { String::new() };
        let hosts = match counts.done == counts.total() {
            true => count(counts.done, "host"),
            false => format!("{} of {}", counts.done, count(counts.total(), "host")),
        };
        let whole = accepted.is_empty() && counts.done == counts.total();
        let mark = match (whole, stage.tolerant && counts.done < counts.total()) {
            (true, _) => self.paint.green("✓"),
            (false, false) => self.paint.yellow("✓"),
            (false, true) => self.paint.red("!"),
        };
        let without = if stage.tolerant && counts.done < counts.total() { "; it goes on without the others" } else { "" };
        format!("{mark} {}: {hosts} proven{accepted}{without}, {}", place(view, stage), view.took(stage.started, stage.ended))
    }

    fn step(&mut self, view: &View, step: &StepView, outcome: Outcome) -> Vec<Say> {
        let Some(stage) = view.stages.get(step.stage) else { return vec![] };
        let host = view.short(&step.host);
        let took = duration(SignedDuration::from_millis(i64::try_from(step.duration_ms).unwrap_or(i64::MAX)));
        let text = format!("{}: {host} {}{}", place(view, stage), step.name, step.nth());
        match (outcome, step.state) {
            (Outcome::Ok, _) => vec![Say::Detail(format!("{text} ok, {took}"))],
            (Outcome::Skipped, _) => {
                let why = if step.message.is_empty() { "its effect is there" } else { &step.message };
                vec![Say::Detail(format!("{text} skipped: {why}"))]
            }
            // An event about an attempt that was followed by another one.
            (_, StepState::Granted | StepState::Running) => vec![],
            (outcome, _) => {
                let word = match (step.died, outcome) {
                    (true, Outcome::Failed) => "was ended from outside and is not done,",
                    (true, _) => "was ended from outside, and nobody can tell what it did,",
                    (false, Outcome::Failed) => "failed",
                    (false, _) => "ended in a way that nobody can tell",
                };
                let code = step.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
                let why = if step.message.is_empty() { String::new() } else { format!(": {}", step.message) };
                let text = format!("✗ {text} {word} after {took}{code}{why}");
                self.error(view, step.stage, &step.name, &step.message, &step.host, text)
            }
        }
    }

    /// A watchdog's word is told with a board, too: it must not be missed.
    fn alert(&self, view: &View, step: &StepView) -> Vec<Say> {
        let (Some(stage), Some(alert)) = (view.stages.get(step.stage), step.alerts.last()) else { return vec![] };
        let text = format!("! {}: {} {}{}: {}", place(view, stage), view.short(&step.host), step.name, step.nth(), alert.message);
        match alert.ask {
            true => vec![Say::Error(format!("{text}; a person decides whether it is stopped (`retry`)"))],
            false => vec![Say::Note(self.paint.yellow(&text))],
        }
    }

    /// Decisions about many steps of one name are told a few times, and then counted by the reports alone.
    fn decision(&mut self, view: &View, step: Option<&StepView>) -> Vec<Say> {
        let Some(known) = view.decisions.last() else { return vec![] };
        let text = format!("{} of {} by {}: {}", known.decision, known.about, known.operator, known.reason);
        let Some(step) = step else { return vec![Say::Note(text)] };
        let seen = self.decided.entry((known.decision.clone(), step.name.clone())).or_default();
        *seen += 1;
        match *seen {
            ..=EQUAL => vec![Say::Note(text)],
            next if next == EQUAL + 1 => {
                vec![Say::Note(format!("… more of {} {} are in the record, not listed", known.decision, step.name))]
            }
            _ => vec![],
        }
    }

    fn away(&mut self, view: &View, host: &str) -> Vec<Say> {
        let known = view.interruptions.iter().rev().find(|gone| gone.host == host);
        let reason = known.map_or("", |gone| gone.reason.as_str());
        self.error(
            view,
            usize::MAX,
            "",
            reason,
            host,
            format!("✗ {host} {}", reason.strip_prefix(host).map_or(reason, str::trim_start)),
        )
    }

    /// Tells an error, or only counts it when enough equal ones were told.
    fn error(&mut self, view: &View, stage: usize, what: &str, message: &str, host: &str, text: String) -> Vec<Say> {
        let same = signature(message, host, view.short(host));
        let seen = self.seen.entry((stage, what.to_owned(), same)).or_default();
        *seen += 1;
        match *seen {
            // The board shows it.
            _ if self.board => vec![],
            ..=EQUAL => vec![Say::Error(text)],
            next if next == EQUAL + 1 => {
                vec![Say::Error(format!("… more hosts with the same error as the {EQUAL} before are counted, not listed"))]
            }
            _ => vec![],
        }
    }

    /// The numbers of the errors that were only counted, for the stages that `which` selects.
    fn counted(&mut self, view: &View, which: impl Fn(usize) -> bool) -> Vec<Say> {
        let mut told = Vec::new();
        self.seen.retain(|(stage, what, same), seen| {
            if !which(*stage) {
                return true;
            }
            if *seen > EQUAL && !self.board {
                let stage = view.stages.get(*stage).map_or_else(String::new, |stage| format!("{}: ", place(view, stage)));
                let what = if what.is_empty() { "out of reach".to_owned() } else { what.clone() };
                told.push(Say::Error(format!("✗ {stage}{}: same error in {what}: {same}", count(*seen, "host"))));
            }
            false
        });
        told
    }

    fn platform_over(&mut self, view: &View, platform: &PlatformView, outcome: RunOutcome) -> Vec<Say> {
        let mut said = self.counted(view, |stage| platform.stages.contains(&stage));
        let took = view.took(platform.started, platform.ended);
        let name = &platform.name;
        let stages = view.stages_of(platform);
        let stopped: Vec<&StageView> = stages.iter().filter(|stage| stage.state == Progressed::Stopped).collect();
        let whereabouts = stopped.first().map_or_else(String::new, |stage| format!(" in {}", stage.label));
        match outcome {
            RunOutcome::Ok => said.push(Say::Note(format!("{} {name} is done, {took}", self.paint.green("✓")))),
            // It was not begun: why, is all there is to say.
            RunOutcome::Waiting if stopped.is_empty() && !platform.message.is_empty() => {
                said.push(Say::Note(self.paint.yellow(&format!("? {name} waits: {}", platform.message))));
            }
            RunOutcome::Stopped if stopped.is_empty() && !platform.message.is_empty() => {
                said.push(Say::Error(format!("✗ {name} stopped: {}", platform.message)));
            }
            RunOutcome::Waiting => said.push(Say::Note(self.paint.yellow(&format!("? {name} waits for a person{whereabouts}")))),
            RunOutcome::Aborted => said.push(Say::Error(format!("✗ {name} was aborted{whereabouts}, after {took}"))),
            RunOutcome::Stopped => {
                let counts = stopped.first().map_or_else(String::new, |stage| format!(": {}", numbers(view, stage)));
                said.push(Say::Error(format!("✗ {name} stopped{whereabouts}{counts}, after {took}")));
            }
        }
        if self.board {
            let troubles = stopped.iter().flat_map(|stage| view.troubles(stage));
            said.extend(troubles.take(EQUAL).map(|trouble| Say::Error(format!("    {}", trouble_line(view, &trouble)))));
        }
        said
    }
}

/// `run 2026-11-22-q7 was taken up again by eva@ops7`, and what had to be mended for that.
fn resumed(view: &View, cut_bytes: u64, from_hosts: bool) -> String {
    let who = view.lives.last().map_or("", |life| life.operator.as_str());
    let hosts = if from_hosts { "; plan and journal were rebuilt from its hosts" } else { "" };
    let cut = match cut_bytes {
        0 => String::new(),
        n => format!("; a torn last line of {n} bytes was cut off its journal, nothing had been done for it"),
    };
    format!("run {} was taken up again by {who} (times are UTC){hosts}{cut}", view.run.id)
}

fn place(view: &View, stage: &StageView) -> String {
    let platform = view.platforms.get(stage.platform).map_or("", |platform| platform.name.as_str());
    format!("{platform} {}", stage.label)
}

fn started(view: &View, stage: &StageView) -> String {
    format!("{}: started, {}", place(view, stage), count(stage.hosts.len(), "host"))
}

/// `11 of 12 hosts done, 1 failed`.
fn numbers(view: &View, stage: &StageView) -> String {
    let counts = stage.counts;
    let mut text = format!("{} of {} done", counts.done, count(counts.total(), "host"));
    let findings: usize = view.troubles(stage).iter().map(|trouble| trouble.findings.len()).sum();
    for (number, word) in [
        (counts.failed, "failed"),
        (counts.unreachable, "out of reach"),
        (counts.dropped, "left behind before"),
        (findings, if findings == 1 { "check failed" } else { "checks failed" }),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text
}
