//! The report for programs: the same content as the Markdown one. Versioned by `v`; fields are only ever added.

use super::chain::{ChainCheck, Damage};
use super::{Record, log};
use crate::view::{Attempt, FindingView, Life, PlatformView, StageView, StepView, View};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The version of the report's schema.
const VERSION: u32 = 1;

/// The record of a run as JSON.
pub fn json(view: &View, record: &Record) -> Value {
    let run = &view.run;
    let chain = record.chain.as_ref().map(chain);
    json!({
        "v": VERSION,
        "run": run.id,
        "fleet": view.fleet,
        "command": run.command,
        "operator": run.operator,
        "caravan": run.version,
        "plan_hash": run.plan,
        "limit": run.limit,
        "undoes": run.undoes,
        "driven": record.driven,
        "started": time(run.started),
        "finished": time(run.ended),
        "outcome": run.outcome,
        "exit_code": run.exit_code,
        "worked_ms": view.worked(run.started, run.ended.or(run.last)).map(|worked| i64::try_from(worked.as_millis()).unwrap_or(i64::MAX)),
        "controllers": view.lives.iter().map(life).collect::<Vec<_>>(),
        "order": {
            "kept": view.breaches.is_empty(),
            "breaches": view.breaches.iter().map(|breach| json!({ "step": breach.step, "time": time(breach.time), "before": breach.before })).collect::<Vec<_>>(),
        },
        "platforms": view.platforms.iter().map(|known| platform(view, record, known)).collect::<Vec<_>>(),
        "findings": view.findings.iter().map(finding).collect::<Vec<_>>(),
        "gates": view.gates.iter().map(|gate| json!({
            "id": gate.id,
            "ask": gate.ask,
            "waiting_since": time(gate.since),
            "confirmed": gate.confirmed.as_ref().map(|known| json!({ "time": time(known.time), "operator": known.operator, "note": known.note })),
        })).collect::<Vec<_>>(),
        "decisions": view.decisions.iter().map(|known| json!({
            "time": time(known.time),
            "decision": known.decision,
            "about": known.about,
            "operator": known.operator,
            "reason": known.reason,
        })).collect::<Vec<_>>(),
        "interruptions": view.interruptions.iter().map(|known| json!({
            "host": known.host,
            "from": time(known.from),
            "until": time(known.until),
            "reason": known.reason,
            "locked": known.locked,
        })).collect::<Vec<_>>(),
        "claims": view.claims.iter().map(|known| json!({ "host": known.host, "time": time(known.time), "token": known.token })).collect::<Vec<_>>(),
        "alerts": view.alerts.iter().map(|(at, message)| json!({ "time": time(*at), "message": message })).collect::<Vec<_>>(),
        "backups": view.backups.iter().map(|known| json!({
            "host": known.host,
            "file": known.file,
            "size": known.size,
            "sha256": known.sha256,
            "made": time(known.made),
            "kept": known.kept.as_ref().map(|kept| json!({
                "to": kept.to,
                "file": kept.file,
                "size": kept.size,
                "sha256": kept.sha256,
                "encrypt_to": kept.encrypt_to,
                "time": time(kept.time),
            })),
        })).collect::<Vec<_>>(),
        "pauses": view.pauses.iter().map(|(at, reason)| json!({ "time": time(*at), "reason": reason })).collect::<Vec<_>>(),
        "journal": { "events": run.events, "chain": chain },
    })
}

fn chain(chain: &ChainCheck) -> Value {
    let (edited, gap) = match chain.damage {
        Some(Damage::Edited { line }) => (Some(line), None),
        Some(Damage::Removed { before }) => (None, Some(before)),
        None => (None, None),
    };
    let heads = &chain.hosts;
    json!({
        "intact": chain.damage.is_none() && chain.torn == 0,
        "sound": chain.is_sound(),
        "head": chain.head,
        "torn_bytes": chain.torn,
        "broken_at_line": chain.broken_at,
        "edited_line": edited,
        "removed_before_line": gap,
        "hosts": {
            "unasked": heads.unasked,
            "simple_edits_only": heads.agree.values().all(|heads| *heads == 0) && heads.against.is_empty(),
            "proven_lines": heads.proven,
            "accusation": heads.accusation(),
            "agree": heads.agree.iter().map(|(host, heads)| json!({ "host": host, "heads": heads })).collect::<Vec<_>>(),
            "against": heads.against.iter().map(|known| json!({
                "host": known.host,
                "head": known.head,
                "step": known.step,
                "attempt": known.attempt,
                "up_to_line": known.line,
            })).collect::<Vec<_>>(),
            "away": heads.away.iter().map(|(host, reason)| json!({ "host": host, "reason": reason })).collect::<Vec<_>>(),
            "elsewhere": heads.elsewhere,
        },
    })
}

fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

fn life(life: &Life) -> Value {
    json!({
        "command": life.command,
        "operator": life.operator,
        "caravan": life.version,
        "from": time(life.from),
        "until": time(life.until),
        "ended_by_itself": life.ended,
        "cut_bytes": life.cut_bytes,
        "from_hosts": life.from_hosts,
        "conditions": life.conditions,
    })
}

fn platform(view: &View, record: &Record, platform: &PlatformView) -> Value {
    let phases = platform.phases.iter().map(|phase| {
        let stages = view.stages.get(phase.stages.clone()).unwrap_or_default();
        json!({
            "name": phase.name,
            "state": phase.state.as_str(),
            "started": time(phase.started),
            "finished": time(phase.ended),
            "stages": stages.iter().map(|known| stage(view, record, known)).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": platform.name,
        "topology": platform.topology,
        "source": platform.source,
        "target": platform.target,
        "selected": platform.selected,
        "outcome": platform.outcome,
        "message": platform.message,
        "left_behind": platform.dropped,
        "started": time(platform.started),
        "finished": time(platform.ended),
        "phases": phases.collect::<Vec<_>>(),
    })
}

fn stage(view: &View, record: &Record, stage: &StageView) -> Value {
    let counts = stage.counts;
    json!({
        "name": stage.name,
        "label": stage.label,
        "roles": stage.roles,
        "state": stage.state.as_str(),
        "proven": stage.settled(),
        "tolerant": stage.tolerant,
        "started": time(stage.started),
        "barrier_opened": time(stage.barrier),
        "finished": time(stage.ended),
        "counts": { "done": counts.done, "running": counts.running, "failed": counts.failed, "unreachable": counts.unreachable, "left_behind": counts.dropped, "waiting": counts.waiting },
        "hosts": stage.hosts.iter().map(|host| json!({ "name": host.name, "state": host.state.as_str() })).collect::<Vec<_>>(),
        "steps": view.steps_of(stage).iter().map(|known| step(record, known)).collect::<Vec<_>>(),
    })
}

fn step(record: &Record, step: &StepView) -> Value {
    json!({
        "id": step.id,
        "name": step.name,
        "title": step.title,
        "host": step.host,
        "instance": step.instance,
        "action": step.action,
        "reversibility": step.reversibility,
        "source": step.source,
        "state": step.state.as_str(),
        "attempt": step.attempt,
        "proof_only": step.prove,
        "started": time(step.started),
        "finished": time(step.ended),
        "duration_ms": step.duration_ms,
        "exit_code": step.exit_code,
        "message": step.message,
        "died": step.died,
        "assumed": step.assumed,
        "repeat": step.repeat,
        "alerts": step.alerts.iter().map(|alert| json!({
            "time": time(alert.time),
            "attempt": alert.attempt,
            "message": alert.message,
            "ask": alert.ask,
        })).collect::<Vec<_>>(),
        "accepted": step.accepted,
        "skipped": step.skipped,
        "skip": step.skip,
        "output": log(record, step),
        "said": record.said.get(&step.id),
        "earlier_attempts": step.earlier.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn attempt(known: &Attempt) -> Value {
    json!({
        "attempt": known.number,
        "state": known.outcome(),
        "started": time(known.started),
        "finished": time(known.ended),
        "duration_ms": known.duration_ms,
        "exit_code": known.exit_code,
        "message": known.message,
        "died": known.died,
    })
}

fn finding(known: &FindingView) -> Value {
    let finding = &known.finding;
    json!({
        "phase": known.phase,
        "time": time(known.time),
        "id": finding.id,
        "check": finding.check,
        "when": finding.when,
        "platform": finding.platform,
        "host": finding.host,
        "instance": finding.instance,
        "status": finding.status,
        "message": finding.message,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "overridden": finding.overridden,
    })
}
