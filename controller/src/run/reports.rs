//! From what hosts report to entries of the record.

use super::decide::Decided;
use super::engine::{BACKUPS, Effect, Engine, First, Inspection, host_scope, now_ms, output_file};
use super::host::Report;
use super::journal::{Draft, Origin};
use super::options::{EngineError, HostReading, Read};
use crate::hosts::{AgentHello, Hosts, OpenError};
use crate::plan::{PlannedStep, Reversibility};
use proto::event::{Kind, Outcome, Scope};
use proto::message::{Attempt, Happened, HostEvent, Made, Offered};
use proto::step::{KeepTo, Repeat};
use proto::{Action, Probe, Reading};

/// How often a step that is killed is started, all in all, before a person has to look.
const ATTEMPTS: u32 = 3;

/// What is said of a copy that its host alone says to be kept.
pub(super) const UNKNOWN_COPY: &str = "the host says that a copy is kept elsewhere, and this record has none of it";

impl<H: Hosts> Engine<'_, H> {
    /// Takes in what hosts reported: one write for all of it.
    pub(super) async fn take_reports(&mut self, batch: Vec<(String, Report)>) -> Result<(), EngineError> {
        let (mut drafts, mut effects) = (Vec::new(), Vec::new());
        for (host, report) in batch {
            if report.is_about_open_steps() {
                // What was said of them before counts.
                self.commit(std::mem::take(&mut drafts)).await?;
            }
            match report {
                Report::Claimed { token } => drafts.push(Draft::new(self.claim_scope(&host), Kind::HostClaimed { token })),
                Report::Event(event) => self.take_event(host, event, &mut drafts, &mut effects)?,
                Report::Inspected { id, readings, agent } => self.take_readings(&host, id, readings, agent, &mut drafts),
                Report::KeepBegun { whose, file, offset } => drafts.extend(self.keep_begun(&host, &whose, file, offset)),
                Report::Kept { whose, file, received } => {
                    if let Some(draft) = self.backup_kept(&host, &whose, &file, received) {
                        drafts.push(draft);
                        effects.push(Effect::Kept { host, whose, sha256: file.sha256 });
                    }
                }
                Report::Line { step, text } => self.observer.line(&host, &step, &text),
                Report::Revoked(steps) => {
                    // The last one first. A write that is cut off leaves its beginning behind, and no step may then be open whose
                    // predecessor is not: told alone of it, a host that never had either would begin it.
                    for revoked in steps.iter().rev().filter(|r| self.state.awaits(&r.step, &host, Some(r.attempt))) {
                        drafts.extend(self.draft_for(&revoked.step, Kind::StepRevoked));
                    }
                }
                Report::Unreachable(error) => self.take_unreachable(&host, error, &mut drafts),
                Report::Lost(reason) => drafts.push(Draft::new(host_scope(&host), Kind::HostUnreachable { reason })),
                Report::Reattached => drafts.push(Draft::new(host_scope(&host), Kind::HostReattached)),
                Report::GaveUp(reason) => {
                    self.state.not_claimed(&host);
                    let message = format!(
                        "the connection was lost and {reason}; what the step did is not known. Look at the host, then decide"
                    );
                    for step in self.open_steps(&host) {
                        drafts.extend(self.draft_for(&step, not_known(message.clone())));
                    }
                }
                Report::Refused(reason) => {
                    // What was granted may have begun before, while the connection was away.
                    for step in self.open_steps(&host) {
                        let message = format!("the host is no longer this run's: {reason}; what the step did is not known");
                        drafts.extend(self.draft_for(&step, not_known(message)));
                    }
                    // It is not asked any more, either.
                    let next = "Look at who holds it".to_owned();
                    let away = OpenError::Unreachable { host: host.clone(), seen: reason.clone(), next };
                    if let Some(platform) = self.state.platform_of(&host) {
                        self.looked_again(platform, &host, HostReading::Away(away));
                    }
                    drafts.push(Draft::new(host_scope(&host), Kind::HostLocked { reason }));
                }
                Report::Broken(error) => return Err(EngineError::Output { host, error }),
                Report::Finished | Report::StillLocked(_) => {}
            }
        }
        self.judge_again(&mut drafts);
        self.commit(drafts).await?;
        effects.into_iter().for_each(|effect| self.act(effect));
        Ok(())
    }

    fn take_event(
        &mut self,
        host: String,
        event: HostEvent,
        drafts: &mut Vec<Draft>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), EngineError> {
        let origin = Origin { time_ms: event.host_time_ms, boot_id: event.boot_id, seq: event.host_seq };
        // A host speaks for its own open steps and for nothing else.
        if !self.state.awaits(&event.step, &host, Some(event.attempt)) {
            // A record that was taken up again may be an older copy of itself: then nothing in it says what may happen next.
            if matches!(self.first, First::Resumed { .. }) && self.state.never_granted(&event.step, &host, event.attempt) {
                return Err(EngineError::Behind { host, step: event.step.0, attempt: event.attempt });
            }
            tracing::warn!("{host} reports on {}, which it was not granted or which is over; ignored", event.step);
            return Ok(());
        }
        let Some((platform, index)) = self.state.find(&event.step) else { return Ok(()) };
        let Some(step) = self.state.step(platform, index) else { return Ok(()) };
        let (mut follow_up, attempt) = (None, Attempt { step: event.step.clone(), attempt: event.attempt });
        let over = matches!(event.what, Happened::Finished { .. });
        let ack = Effect::Ack { host, host_seq: event.host_seq };
        let scope = self.step_scope(platform, step, event.attempt);
        let kinds = match event.what {
            Happened::Started { .. } => vec![Kind::StepStarted],
            Happened::Alert { message, ask } => vec![Kind::StepAlert { message, ask }],
            Happened::Made(Made { file, size, sha256 }) => vec![Kind::BackupMade { file, size, sha256 }],
            Happened::Finished { mut outcome, exit_code, duration_ms, mut message, output_len, died } => {
                // That a copy is kept is for the one to say who keeps it.
                if outcome.is_proof() && matches!(step.spec.action, Action::Keep { .. }) && !self.state.is_kept(&step.id) {
                    outcome = Outcome::Failed;
                    UNKNOWN_COPY.clone_into(&mut message);
                }
                let file = output_file(step, index, event.attempt);
                let finished = Kind::StepFinished { outcome, exit_code, duration_ms, message, died };
                // Only what ended is acknowledged: one acknowledgement covers everything before it.
                effects.push(ack);
                follow_up = self.follow_up(step, event.attempt, outcome, died);
                let mut kinds = Vec::new();
                if output_len > 0 {
                    // It is on the disk before the end is told. A record that ends in here gets the end, and with it the rest, again.
                    let found = (self.options.reader)(self.state.platform_name(platform), step, &self.options.dir.join(&file));
                    kinds.push(Kind::StepOutput { file, offset: 0, length: output_len });
                    // The host did not say this: what it says next is not heard before the end is in the record.
                    drafts.extend(found.into_iter().map(|finding| Draft::new(scope.clone(), Kind::Finding { finding })));
                }
                kinds.push(finished);
                kinds
            }
        };
        drafts.extend(kinds.into_iter().map(|kind| Draft::of_host(scope.clone(), kind, origin.clone())));
        drafts.extend(follow_up.map(|(decision, operator, reason)| {
            Decided { decision, about: &step.id.0, operator: &operator, reason: &reason }.draft(scope)
        }));
        if over {
            self.retrying.remove(&attempt);
        }
        Ok(())
    }

    fn keep_begun(&self, host: &str, whose: &Attempt, file: Offered, offset: u64) -> Option<Draft> {
        let step = self.open_keep(host, whose)?;
        let Action::Keep { name, .. } = &step.spec.action else { return None };
        let kind = Kind::KeepBegun { name: name.clone(), sha256: file.sha256, size: file.size, offset };
        self.draft_for(&whose.step, kind)
    }

    fn backup_kept(&self, host: &str, whose: &Attempt, file: &Offered, received: u64) -> Option<Draft> {
        let step = self.open_keep(host, whose)?;
        let Action::Keep { source, name, to, encrypt_to, .. } = &step.spec.action else { return None };
        let (to, place) = match to {
            KeepTo::Workstation => ("workstation".to_owned(), format!("{BACKUPS}/{host}/{name}")),
            KeepTo::Host { host, dest } => (host.clone(), dest.clone()),
        };
        let kind = Kind::BackupKept {
            source: source.clone(),
            plain_size: file.plain_size,
            plain_sha256: file.plain_sha256.clone(),
            to,
            file: place,
            size: file.size,
            sha256: file.sha256.clone(),
            encrypt_to: encrypt_to.clone(),
            received,
        };
        self.draft_for(&whose.step, kind)
    }

    /// The step that an attempt is at, while it is open on this host.
    fn open_keep(&self, host: &str, whose: &Attempt) -> Option<&PlannedStep> {
        let open = self.state.awaits(&whose.step, host, Some(whose.attempt));
        let (platform, index) = self.state.find(&whose.step).filter(|_| open)?;
        self.state.step(platform, index)
    }

    /// What follows from the end of a step that did not end in proof: decided by the runbook, or by a person beforehand. Decision, who,
    /// why.
    fn follow_up(&self, step: &PlannedStep, attempt: u32, outcome: Outcome, died: bool) -> Option<(&'static str, String, String)> {
        if outcome.is_proof() {
            return None;
        }
        let own = || self.options.claim.operator.clone();
        if let Some((operator, reason)) = self.retrying.get(&Attempt { step: step.id.clone(), attempt }) {
            return Some(("retry", operator.clone(), reason.clone()));
        }
        if self.state.is_skipped(step) {
            let reason = self.options.accepted.get(&step.id.0)?;
            return Some(("acceptance", own(), reason.clone()));
        }
        // Not for ever: what is killed again and again wants a person.
        let may_repeat = died && step.spec.repeat == Repeat::Allowed && attempt < ATTEMPTS;
        // Steps without an effect of their own to look at (a reload, a stop that another step proves): twice harms nothing.
        let unseen = step.spec.probe.as_ref().is_none_or(Probe::is_empty) && step.reversibility != Reversibility::OneWay;
        let seen = match outcome {
            Outcome::Failed => "provably did not reach its end",
            Outcome::Unknown if unseen => "has no effect of its own to look at",
            _ => return None,
        };
        may_repeat.then(|| {
            let reason = format!(
                "attempt {attempt} was killed and {seen}; the runbook allows this step to be started again ({})",
                step.source
            );
            ("repeat", "caravan".to_owned(), reason)
        })
    }

    fn claim_scope(&self, host: &str) -> Scope {
        let platform = self.state.platform_of(host).map(|platform| self.state.platform_name(platform).to_owned());
        Scope { platform, ..host_scope(host) }
    }

    fn take_readings(&mut self, host: &str, id: u32, readings: Vec<Reading>, agent: AgentHello, drafts: &mut Vec<Draft>) {
        if self.inspections.get(&id).is_none_or(|inspection| inspection.host != host) {
            return;
        }
        let Some(inspection) = self.inspections.remove(&id) else { return };
        let answered = readings.len() == inspection.queries.len();
        let duration_ms = inspection.began.elapsed().as_millis() as u64;
        for index in &inspection.steps {
            let Some(step) = self.state.step(inspection.platform, *index) else { continue };
            let scope = self.step_scope(inspection.platform, step, self.state.next_attempt(inspection.platform, *index) - 1);
            let (outcome, message) = match answered {
                true => (Outcome::Ok, String::new()),
                false => (Outcome::Failed, "the agent answered another number of questions than was asked".to_owned()),
            };
            drafts.push(Draft::new(scope.clone(), Kind::StepStarted));
            drafts.push(Draft::new(scope, Kind::StepFinished { outcome, exit_code: None, duration_ms, message, died: false }));
        }
        let Inspection { platform, queries, asked_ms, again, .. } = inspection;
        let read = Read { queries, readings, asked_ms, answered_ms: now_ms(), agent };
        if again {
            return self.looked_again(platform, host, HostReading::Read(read));
        }
        self.readings.entry(platform).or_default().insert(host.to_owned(), HostReading::Read(read));
    }

    fn take_unreachable(&mut self, host: &str, error: OpenError, drafts: &mut Vec<Draft>) {
        drafts.push(Draft::new(host_scope(host), Kind::HostUnreachable { reason: error.to_string() }));
        self.state.not_claimed(host);
        // It was not even asked: whoever judges the platform has to know why.
        if let Some(platform) = self.state.platform_of(host) {
            self.readings.entry(platform).or_default().insert(host.to_owned(), HostReading::Away(error.clone()));
        }
        // The last one first, as for everything that is taken back.
        for step in self.open_steps(host).into_iter().rev() {
            // What this controller granted was not sent: it is taken back before it began. One before it may have sent it.
            let kind = match self.state.may_have_begun(&step) {
                false => Kind::StepRevoked,
                true => {
                    not_known(format!("{error}; what the step did is not known. The host says so once it is back: resume then"))
                }
            };
            drafts.extend(self.draft_for(&step, kind));
        }
        let gone: Vec<u32> = self.inspections.iter().filter(|(_, i)| i.host == host).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(inspection) = self.inspections.remove(&id) {
                if inspection.again {
                    self.looked_again(inspection.platform, host, HostReading::Away(error.clone()));
                    continue;
                }
                let readings = self.readings.entry(inspection.platform).or_default();
                readings.insert(host.to_owned(), HostReading::Away(error.clone()));
            }
        }
    }
}

/// The end of a step that its host did not tell: nobody knows what it did.
fn not_known(message: String) -> Kind {
    Kind::StepFinished { outcome: Outcome::Unknown, exit_code: None, duration_ms: 0, message, died: false }
}
