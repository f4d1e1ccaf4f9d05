//! One history out of several: the lines that controllers left with the hosts, and what the hosts say themselves. Pure.

use super::journal::{Draft, Origin, rfc3339};
use super::kept::{Kept, Line, Part, is_kept};
use super::rebuild::{Ground, RebuildError, fold};
use super::reports::UNKNOWN_COPY;
use super::stage::{Executor, executor};
use crate::plan::{Plan, PlatformPlan};
use proto::event::{Event, Kind, Scope};
use proto::host::{Record, Standing, State};
use proto::message::{Attempt, Granted, Happened, HostEvent, Made, Mode};
use proto::{Action, Outcome, StepId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Something in a host's journal.
enum Item {
    /// An event of the controller's own.
    Line(Box<Line>),
    /// A controller had the host's lock.
    Claimed { token: u64 },
    /// A step was granted, for the first time in this attempt.
    Granted(Box<Granted>),
    /// Something happened to a step.
    Event(HostEvent),
    /// A step that had not begun was taken back.
    Revoked(Attempt),
}

/// A host's journal, as far as it matters.
pub(super) struct Journal {
    pub(super) parts: Vec<Part>,
    items: Vec<Item>,
}

impl Journal {
    pub(super) fn read(host: &str, records: &[Record]) -> Result<Self, RebuildError> {
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        let (mut items, mut state, mut lines) = (Vec::new(), State::default(), 0);
        for record in records {
            match record {
                Record::Kept { lines: kept } => {
                    for line in kept {
                        lines += 1;
                        let error = |error: serde_json::Error| RebuildError::Kept {
                            host: host.to_owned(),
                            line: lines,
                            error: error.to_string(),
                        };
                        match Kept::from_line(line).map_err(error)? {
                            Kept::Part(part) => drop(parts.insert(part.platform.name.clone(), *part)),
                            Kept::Line(line) => items.push(Item::Line(line)),
                        }
                    }
                }
                Record::Token { token } => items.push(Item::Claimed { token: *token }),
                Record::Grant { steps, .. } => {
                    let mut new: Vec<&Granted> =
                        steps.iter().filter(|step| state.find(&step.spec.id, step.attempt).is_none()).collect();
                    new.dedup_by(|a, b| a.spec.id == b.spec.id && a.attempt == b.attempt);
                    items.extend(new.into_iter().map(|step| Item::Granted(Box::new(step.clone()))));
                }
                Record::Event(event) => items.push(Item::Event(event.clone())),
                Record::Revoked { steps } => {
                    let waiting = |known: &&Attempt| {
                        let entry = state.find(&known.step, known.attempt).and_then(|index| state.entry(index));
                        entry.is_some_and(|entry| entry.standing == Standing::Waiting)
                    };
                    items.extend(steps.iter().filter(waiting).cloned().map(Item::Revoked));
                }
                // For runners; never in a journal.
                Record::Step(_) => {}
            }
            state.apply(record);
        }
        Ok(Self { parts: parts.into_values().collect(), items })
    }

    /// Whether the host was granted a step.
    pub(super) fn was_granted(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Granted(_)))
    }
}

/// Where a line stands in the whole: which controller's record it is of, and its position there.
type Position = (usize, u64);

/// Where a step stands in its platform: its stage and its wave. No line of the controller's stands between two waves of a stage, so what
/// hosts say behind the same line is put in the order in which a controller lets it happen.
type Turn = (usize, u32);

/// Puts everything in order. A line stands where its controller wrote it; what a host says stands right behind the newest line that the
/// host had then, which is the earliest that it can have happened. A host is believed for its own steps alone, and for what controllers
/// decided about its own platform; anything else is left out, and a notice names the host.
pub(super) fn merge(
    plan: &Plan,
    journals: &BTreeMap<&str, Journal>,
    ground: &Ground,
    notices: &mut Vec<String>,
) -> Result<Vec<Draft>, RebuildError> {
    let ranks = ranks(journals);
    let scopes = scopes(plan);
    let platforms = scopes.iter().filter_map(|(id, scope)| Some((*id, scope.platform.as_deref()?))).collect();
    let of_agents: HashSet<&str> = plan
        .platforms
        .iter()
        .flat_map(PlatformPlan::steps)
        .filter(|step| executor(step) == Executor::Agent)
        .map(|step| step.id.0.as_str())
        .collect();
    let is_of_controller = |line: &Line| {
        let begins = matches!(line.event.kind, Kind::RunStarted { .. });
        let first = line.event.seq == 1 && line.record.is_empty();
        is_kept(&line.event, |step| of_agents.contains(step)) && (first || !begins)
    };
    let mut lines: BTreeMap<Position, (&Line, &str)> = BTreeMap::new();
    let turns = turns(plan);
    let mut own = Vec::new();
    let mut granted: HashSet<Attempt> = HashSet::new();
    for (host, journal) in journals {
        // A run begins with its first line.
        let mut at: Position = (0, 1);
        let mut turn = Turn::default();
        let mut foreign: BTreeSet<&str> = BTreeSet::new();
        for item in &journal.items {
            let about = match item {
                Item::Granted(step) => Some(&step.spec.id),
                Item::Revoked(known) => Some(&known.step),
                Item::Event(event) => Some(&event.step),
                Item::Line(_) | Item::Claimed { .. } => None,
            };
            if let Some((id, _)) =
                about.and_then(|id| Some((id, scopes.get(id).filter(|scope| scope.host.as_deref() != Some(*host))?)))
            {
                foreign.insert(&id.0);
                continue;
            }
            let draft = match item {
                Item::Line(line) if !is_of_controller(line) || ground.is_of_others(host, &line.event, &platforms) => {
                    let Scope { step, host, platform, .. } = &line.event.scope;
                    foreign.insert(step.as_deref().or(host.as_deref()).or(platform.as_deref()).unwrap_or("a decision"));
                    continue;
                }
                Item::Line(line) => {
                    let position = (ranks.get(&line.record).copied().unwrap_or_default(), line.event.seq);
                    if position > at {
                        (at, turn) = (position, Turn::default());
                    }
                    let (first, holder) = lines.entry(position).or_insert((line, host));
                    if *first != line.as_ref() {
                        let platform = line.event.scope.platform.clone().unwrap_or_default();
                        let what = format!("an event (number {})", line.event.seq);
                        return Err(RebuildError::Disagree { platform, what, hosts: fold([*holder, *host].into_iter()) });
                    }
                    continue;
                }
                Item::Claimed { token } => scopes.values().find(|scope| scope.host.as_deref() == Some(*host)).map(|scope| {
                    let scope = Scope { platform: scope.platform.clone(), host: Some((*host).to_owned()), ..Scope::default() };
                    Draft::new(scope, Kind::HostClaimed { token: *token })
                }),
                Item::Granted(step) => {
                    granted.insert(Attempt { step: step.spec.id.clone(), attempt: step.attempt });
                    scopes.get(&step.spec.id).map(|scope| {
                        let kind =
                            Kind::StepGranted { action: step.spec.action.kind().to_owned(), prove: step.mode == Mode::Prove };
                        Draft::new(attempt(scope, step.attempt), kind)
                    })
                }
                Item::Revoked(known) => {
                    scopes.get(&known.step).map(|scope| Draft::new(attempt(scope, known.attempt), Kind::StepRevoked))
                }
                Item::Event(event) => scopes.get(&event.step).map(|scope| of_host(scope, event.clone())),
            };
            // What one host says stays in its order.
            let of_step = draft.as_ref().and_then(|draft| turns.get(draft.scope.step.as_deref()?));
            turn = turn.max(of_step.copied().unwrap_or_default());
            own.extend(draft.map(|draft| ((at, turn), draft)));
        }
        if let Some(one) = foreign.first() {
            let more = if foreign.len() > 1 { format!(" and {} more", foreign.len() - 1) } else { String::new() };
            notices.push(format!("{host} says what happened to {one}{more}, which is not its own to say: that is not believed"));
        }
    }
    let takes_part = |line: &Line| {
        let platform = line.event.scope.platform.as_ref();
        platform.is_none_or(|name| plan.platforms.iter().any(|platform| platform.name == *name))
    };
    let decided = Decided::of(&lines);
    let stands = |position: Position, event: &Event| match (&event.kind, &event.scope.step, event.scope.attempt) {
        (Kind::StepFinished { .. }, Some(step), Some(attempt)) if of_agents.contains(step.as_str()) => {
            granted.contains(&Attempt { step: StepId(step.clone()), attempt }) && decided.on(step, position)
        }
        _ => true,
    };
    let mut sequence: Vec<((Position, Turn), Draft)> = lines
        .iter()
        .filter(|(position, (line, _))| takes_part(line) && stands(**position, &line.event))
        .map(|(position, (line, _))| {
            let Event { scope, kind, time, .. } = line.event.clone();
            ((*position, Turn::default()), Draft::new(scope, kind).at(time))
        })
        .collect();
    // What a host does not give a time for came with the newest line that it had.
    let time = |at: &Position| lines.get(at).map(|(line, _)| line.event.time.clone());
    sequence.extend(own.into_iter().map(|(at, draft)| (at, Draft { time: draft.time.clone().or_else(|| time(&at.0)), ..draft })));
    // Stable: a line stays before what follows it, and what one host says stays in its order.
    sequence.sort_by_key(|(position, _)| *position);
    let mut drafts: Vec<Draft> = sequence.into_iter().map(|(_, draft)| draft).collect();
    doubt_copies(plan, &mut drafts);
    Ok(drafts)
}

/// That a copy is kept elsewhere is for the controller to say: a host that says so, of a copy that no line of a controller has, has not
/// proven it.
fn doubt_copies(plan: &Plan, drafts: &mut [Draft]) {
    let keeps = |step: &&crate::plan::PlannedStep| matches!(step.spec.action, Action::Keep { .. });
    let steps = plan.platforms.iter().flat_map(PlatformPlan::steps).filter(keeps).map(|step| step.id.0.as_str());
    let kept: HashSet<String> = drafts
        .iter()
        .filter(|draft| matches!(draft.kind, Kind::BackupKept { .. }))
        .filter_map(|draft| draft.scope.step.clone())
        .collect();
    let doubted: HashSet<&str> = steps.filter(|step| !kept.contains(*step)).collect();
    for draft in drafts.iter_mut().filter(|draft| draft.scope.step.as_deref().is_some_and(|step| doubted.contains(step))) {
        if let Kind::StepFinished { outcome, message, .. } = &mut draft.kind
            && outcome.is_proof()
        {
            *outcome = Outcome::Failed;
            UNKNOWN_COPY.clone_into(message);
        }
    }
}

/// What people decided on steps, and when controllers took the run up again.
///
/// What a controller assumes of a step while its host is away holds until it is taken up again: then the host is asked. So it gives way
/// to what the host says itself, unless somebody decided on it before.
struct Decided<'a> {
    decisions: HashMap<&'a str, Vec<Position>>,
    resumed: Vec<Position>,
}

impl<'a> Decided<'a> {
    fn of(lines: &BTreeMap<Position, (&'a Line, &str)>) -> Self {
        let mut decided = Self { decisions: HashMap::new(), resumed: Vec::new() };
        for (position, (line, _)) in lines {
            match (&line.event.kind, &line.event.scope.step) {
                (Kind::RunResumed { .. }, _) => decided.resumed.push(*position),
                (Kind::Decision { .. }, Some(step)) => decided.decisions.entry(step).or_default().push(*position),
                _ => {}
            }
        }
        decided
    }

    /// Whether there is a decision on a step after a position and before the run was taken up again.
    fn on(&self, step: &str, after: Position) -> bool {
        let end = self.resumed.iter().find(|resumed| **resumed > after);
        let within = |at: &Position| *at > after && end.is_none_or(|end| at < end);
        self.decisions.get(step).is_some_and(|decisions| decisions.iter().any(within))
    }
}

fn attempt(scope: &Scope, attempt: u32) -> Scope {
    Scope { attempt: Some(attempt), ..scope.clone() }
}

fn of_host(scope: &Scope, event: HostEvent) -> Draft {
    let origin = Origin { time_ms: event.host_time_ms, boot_id: event.boot_id, seq: event.host_seq };
    let kind = match event.what {
        Happened::Started { .. } => Kind::StepStarted,
        Happened::Alert { message, ask } => Kind::StepAlert { message, ask },
        Happened::Made(Made { file, size, sha256 }) => Kind::BackupMade { file, size, sha256 },
        Happened::Finished { outcome, exit_code, duration_ms, message, died, .. } => {
            Kind::StepFinished { outcome, exit_code, duration_ms, message, died }
        }
    };
    let time = i64::try_from(origin.time_ms).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok()).map(rfc3339);
    Draft { time, ..Draft::of_host(attempt(scope, event.attempt), kind, origin) }
}

/// The turn of every step of a plan.
fn turns(plan: &Plan) -> HashMap<&str, Turn> {
    let mut turns = HashMap::new();
    for platform in &plan.platforms {
        for (number, stage) in platform.phases.iter().flat_map(|phase| &phase.stages).enumerate() {
            turns.extend(stage.steps.iter().map(|step| (step.id.0.as_str(), (number, step.wave))));
        }
    }
    turns
}

/// The scope of every step of a plan.
fn scopes(plan: &Plan) -> HashMap<&StepId, Scope> {
    let mut scopes = HashMap::new();
    for platform in &plan.platforms {
        for phase in &platform.phases {
            for (stage, step) in phase.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| (stage, step))) {
                let scope = Scope {
                    platform: Some(platform.name.clone()),
                    phase: Some(phase.name.as_str().to_owned()),
                    stage: Some(stage.name.clone()),
                    host: Some(step.host.clone()),
                    instance: step.instance.clone(),
                    step: Some(step.id.0.clone()),
                    attempt: None,
                };
                scopes.insert(&step.id, scope);
            }
        }
    }
    scopes
}

/// The order of the controllers' records: each host saw them one after the other.
fn ranks(journals: &BTreeMap<&str, Journal>) -> HashMap<String, usize> {
    let mut depth: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for journal in journals.values() {
        let mut seen: Vec<&str> = Vec::new();
        for item in &journal.items {
            let Item::Line(line) = item else { continue };
            let Line { record, event } = line.as_ref();
            if !seen.contains(&record.as_str()) {
                seen.push(record);
                let known = depth.entry(record).or_insert((0, &event.time));
                *known = (known.0.max(seen.len()), known.1.min(&event.time));
            }
        }
    }
    let mut records: Vec<(bool, usize, &str, &str)> =
        depth.into_iter().map(|(record, (depth, time))| (!record.is_empty(), depth, time, record)).collect();
    records.sort_unstable();
    records.into_iter().enumerate().map(|(rank, (.., record))| (record.to_owned(), rank)).collect()
}
