//! The report for a change board: what was done, when, by whom, in which order, with what result.

mod backups;
mod conditions;
mod steps;

use super::chain::HostHeads;
use super::{Record, accepted, fared, gone, halted, log, untouched};
use crate::view::text::{count, date_time, duration, fold_hosts, time_of_day};
use crate::view::{HostState, HostView, PlatformView, StageView, StepView, View};
use backups::backups;
use conditions::conditions;
use jiff::{SignedDuration, Timestamp};
use proto::event::{RunOutcome, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use steps::{alerts, steps, timeline, timings, took};

/// The record of a run as Markdown.
pub fn markdown(view: &View, record: &Record) -> String {
    let mut out = String::new();
    let run = &view.run;
    heading(&mut out, 1, &format!("Report of run {}", run.id));
    facts(&mut out, view, record);
    heading(&mut out, 2, "Result");
    results(&mut out, view);
    heading(&mut out, 2, "Decisions");
    persons(&mut out, view);
    if view.lives.len() > 1 {
        heading(&mut out, 2, "Controllers");
        controllers(&mut out, view);
    }
    for platform in view.platforms.iter().filter(|platform| platform.selected) {
        heading(&mut out, 2, &format!("Platform {}", platform.name));
        order(&mut out, view, platform);
        hosts(&mut out, view, platform);
        failures(&mut out, view, record, platform);
        alerts(&mut out, view, platform);
        checks(&mut out, view, platform);
        backups(&mut out, view, platform);
        steps(&mut out, view, platform);
        timings(&mut out, view, platform);
    }
    heading(&mut out, 2, "Timeline");
    timeline(&mut out, view);
    out
}

/// Text that Markdown and HTML renderers show as it is.
fn md(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '[' | ']' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

fn heading(out: &mut String, level: usize, text: &str) {
    let gap = if out.is_empty() || out.ends_with("\n\n") { "" } else { "\n" };
    let _ = writeln!(out, "{gap}{} {}\n", "#".repeat(level), md(text));
}

fn table(out: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", head.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| md(cell)).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn facts(out: &mut String, view: &View, record: &Record) {
    let run = &view.run;
    let outcome = match run.outcome {
        Some(outcome) => {
            verdict(Some(outcome)).to_owned() + &run.exit_code.map_or_else(String::new, |code| format!(" (exit code {code})"))
        }
        None => "not ended".to_owned(),
    };
    let mut rows = vec![
        ("What", format!("{} of fleet {}", run.command, view.fleet)),
        ("By", run.operator.clone()),
        ("Began", format!("{} UTC", date_time(run.started))),
        ("Ended", run.ended.map_or_else(|| "not ended".to_owned(), |ended| format!("{} UTC", date_time(Some(ended))))),
        ("Took", took_whole(view)),
        ("Outcome", outcome),
        ("Plan and inventory (SHA-256)", run.plan.clone()),
        ("Caravan", run.version.clone()),
    ];
    if let Some(undone) = &run.undoes {
        rows.insert(1, ("Takes back", format!("run {undone}")));
    }
    if let Some(limit) = &run.limit {
        rows.push(("Limited to", format!("{limit}; other hosts were proven, not touched")));
    }
    rows.extend(conditions(view));
    if !view.alerts.is_empty() {
        let alerts = view.alerts.iter().map(|(time, message)| format!("{}: {message}", time_of_day(*time)));
        rows.push(("Noticed", alerts.collect::<Vec<_>>().join("; ")));
    }
    rows.push(("Journal", journal(view, record)));
    let rows = rows.into_iter().map(|(what, text)| vec![what.to_owned(), text]);
    table(out, &["", ""], rows);
    if !run.plan.is_empty() && run.plan != view.plan_hash {
        let _ = writeln!(
            out,
            "\n**The plan in the run's directory has another hash ({}) than the run recorded.**",
            md(&view.plan_hash)
        );
    }
}

/// How long the run took, and how much of the time between its beginning and its end nobody drove it.
fn took_whole(view: &View) -> String {
    let worked = view.took(view.run.started, view.run.ended);
    let gone = view.gaps().fold(SignedDuration::ZERO, |sum, (left, back)| sum.saturating_add(back.duration_since(left)));
    match view.run.ended {
        Some(_) if !gone.is_zero() => format!("{worked}, and {} in which no controller drove it", duration(gone)),
        _ => worked,
    }
}

/// Each controller that drove the run.
fn controllers(out: &mut String, view: &View) {
    let rows = view.lives.iter().map(|life| {
        let mut notes = Vec::new();
        if life.from_hosts {
            notes.push("plan and journal were rebuilt from the hosts".to_owned());
        }
        if life.cut_bytes > 0 {
            notes.push(format!("a torn last line of {} was cut off the journal", count(size(life.cut_bytes), "byte")));
        }
        notes.push(match (life.ended, life.until) {
            (true, _) => "ended by itself".to_owned(),
            (false, Some(_)) if !std::ptr::eq(life, view.lives.last().unwrap_or(life)) => "ENDED UNEXPECTEDLY".to_owned(),
            _ => "has not ended".to_owned(),
        });
        vec![
            date_time(life.from),
            date_time(life.until),
            life.command.clone(),
            life.operator.clone(),
            life.version.clone(),
            notes.join("; "),
        ]
    });
    table(out, &["From (UTC)", "Last event (UTC)", "Command", "Who", "Caravan", "Notes"], rows);
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn journal(view: &View, record: &Record) -> String {
    let events = count(size(view.run.events), "event");
    let Some(chain) = &record.chain else { return format!("{events}; its chain was not checked") };
    let torn = if chain.torn > 0 { format!("; a write of {} bytes at its end was cut off", chain.torn) } else { String::new() };
    let own = chain.damage.map_or_else(|| format!("chain intact, head {}{torn}", chain.head), |damage| damage.to_string());
    format!("{events}; {own}. {}", by_hosts(&chain.hosts))
}

/// What the hosts' heads come to, in a few sentences.
fn by_hosts(heads: &HostHeads) -> String {
    let mut said = Vec::new();
    if let Some(accusation) = heads.accusation() {
        let hosts: BTreeSet<&str> = heads.against.iter().map(|known| known.host.as_str()).collect();
        said.push(format!("THE HOSTS SPEAK AGAINST IT ({}): {accusation}", fold_hosts(hosts)));
    }
    let held: usize = heads.agree.values().sum();
    match (&heads.unasked, held) {
        (Some(why), _) => said.push(format!("No host was asked ({why}): this alone detects simple edits only")),
        (None, 0) if heads.against.is_empty() => {
            said.push("No host holds a head of it: this alone detects simple edits only".to_owned());
        }
        (None, 0) => {}
        (None, held) => {
            let hosts = count(heads.agree.len(), "host");
            said.push(format!(
                "{} of {hosts} are in it: lines 1 to {} are as they were written",
                count(held, "head"),
                heads.proven
            ));
        }
    }
    if !heads.away.is_empty() {
        said.push(format!("Not asked: {}", fold_hosts(heads.away.keys().map(String::as_str))));
    }
    if !heads.elsewhere.is_empty() {
        let hosts = fold_hosts(heads.elsewhere.iter().map(String::as_str));
        said.push(format!("On {hosts} the run went on from another workstation, whose journal says the rest"));
    }
    said.join(". ")
}

fn verdict(outcome: Option<RunOutcome>) -> &'static str {
    match outcome {
        Some(RunOutcome::Ok) => "done",
        Some(RunOutcome::Stopped) => "stopped",
        Some(RunOutcome::Waiting) => "waits for a person",
        Some(RunOutcome::Aborted) => "aborted",
        None => "not over",
    }
}

fn results(out: &mut String, view: &View) {
    let rows = view.platforms.iter().filter(|platform| platform.selected).map(|platform| {
        let halted = halted(view, platform).filter(|_| platform.outcome != Some(RunOutcome::Ok));
        let place = halted.map_or_else(String::new, |stage| format!(", in {}: {}", stage.label, fared(view, stage)));
        let lost = match platform.dropped.len() {
            0 => String::new(),
            n => {
                format!("; {} LEFT BEHIND: {}", count(n, "host"), fold_hosts(platform.dropped.iter().map(|host| view.short(host))))
            }
        };
        let unproven = match accepted(view, platform).count() {
            0 => String::new(),
            n => format!("; {} accepted WITHOUT PROOF", count(n, "step")),
        };
        vec![
            platform.name.clone(),
            platform.topology.to_string(),
            format!("{} → {}", platform.source, platform.target),
            format!("{}{place}{lost}{unproven}", verdict(platform.outcome)),
            date_time(platform.started),
            date_time(platform.ended),
            view.took(platform.started, platform.ended),
        ]
    });
    table(out, &["Platform", "Topology", "Versions", "Outcome", "Began (UTC)", "Ended (UTC)", "Took"], rows);
    if !view.breaches.is_empty() {
        let _ = writeln!(out, "\n**The order was not kept:**\n");
        for breach in &view.breaches {
            let (step, before) = (md(&breach.step), md(&breach.before));
            let _ = writeln!(out, "- {step} began at {} before {before} was wholly proven", time_of_day(breach.time));
        }
    }
}

fn persons(out: &mut String, view: &View) {
    let mut rows: Vec<(Option<Timestamp>, Vec<String>)> = Vec::new();
    for known in &view.decisions {
        let row = [known.decision.clone(), known.about.clone(), known.operator.clone(), known.reason.clone()];
        rows.push((known.time, row.into()));
    }
    for gate in &view.gates {
        let about = format!("{} ({})", gate.id, gate.ask);
        match &gate.confirmed {
            Some(known) => {
                rows.push((known.time, vec!["gate confirmed".to_owned(), about, known.operator.clone(), known.note.clone()]))
            }
            None => rows.push((gate.since, vec!["gate WAITS".to_owned(), about, String::new(), String::new()])),
        }
    }
    for (time, message) in &view.alerts {
        rows.push((*time, vec!["noticed".to_owned(), "the run".to_owned(), "caravan".to_owned(), message.clone()]));
    }
    for (time, reason) in &view.pauses {
        let drove = view.lives.iter().rev().find(|life| life.from <= *time).map_or("", |life| life.operator.as_str());
        rows.push((*time, vec!["pause".to_owned(), "the run".to_owned(), drove.to_owned(), reason.clone()]));
    }
    rows.sort_by_key(|(time, _)| *time);
    if rows.is_empty() {
        out.push_str("None: no override, acceptance, skip, retry, takeover, gate, pause or abort.\n");
        return;
    }
    let rows = rows.into_iter().map(|(time, mut row)| {
        row.insert(0, date_time(time));
        row
    });
    table(out, &["When (UTC)", "What", "About", "Who", "Why"], rows);
}

/// The stages in their order with their times: the proof that the order was kept.
fn order(out: &mut String, view: &View, platform: &PlatformView) {
    heading(out, 3, "Order");
    let rows = view.stages_of(platform).iter().map(|stage| {
        let roles: Vec<&str> = stage.roles.iter().map(|role| role.as_str()).collect();
        vec![
            stage.label.clone(),
            roles.join(", "),
            format!("{}/{}", stage.counts.done, stage.counts.total()),
            stage.state.as_str().to_owned(),
            date_time(stage.started),
            date_time(stage.barrier),
            view.took(stage.started, stage.ended),
        ]
    });
    table(out, &["Stage", "Roles", "Hosts done", "State", "Began (UTC)", "Barrier opened (UTC)", "Took"], rows);
    let mine = |id: &str| id.split('/').next() == Some(platform.name.as_str());
    let verdict = match view.breaches.iter().filter(|breach| mine(&breach.step)).count() {
        0 if !platform.dropped.is_empty() => format!(
            "No step of it began before every step of every earlier stage was proven, on all hosts but those left behind ({}): worked out from the events, step by step.",
            fold_hosts(platform.dropped.iter().map(|host| view.short(host)))
        ),
        0 => "No step of it began before every step of every earlier stage was proven: worked out from the events, step by step."
            .to_owned(),
        n => format!("**{} began too early: see Result.**", count(n, "step")),
    };
    let _ = writeln!(out, "\n{verdict}");
}

fn hosts(out: &mut String, view: &View, platform: &PlatformView) {
    heading(out, 3, "Hosts");
    let mut rows: BTreeMap<usize, (&str, Vec<Vec<&HostView>>)> = BTreeMap::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (column, phase) in platform.phases.iter().enumerate() {
        for host in view.stages.get(phase.stages.clone()).unwrap_or_default().iter().flat_map(|stage| &stage.hosts) {
            let next = places.len();
            let place = *places.entry(host.name.as_str()).or_insert(next);
            let (_, cells) = rows.entry(place).or_insert_with(|| (host.name.as_str(), vec![Vec::new(); platform.phases.len()]));
            if let Some(cell) = cells.get_mut(column) {
                cell.push(host);
            }
        }
    }
    let phases: Vec<&str> = std::iter::once("Host").chain(platform.phases.iter().map(|phase| phase.name.as_str())).collect();
    let rows = rows.into_values().map(|(host, cells)| {
        let cells = cells.iter().map(|stages| in_phase(stages).to_owned());
        std::iter::once(host.to_owned()).chain(cells).collect()
    });
    table(out, &phases, rows);
    let mine: Vec<_> = view.interruptions.iter().filter(|known| places.contains_key(known.host.as_str())).collect();
    if !mine.is_empty() {
        out.push('\n');
    }
    for known in mine {
        let until = known.until.map_or_else(|| "the end".to_owned(), |until| time_of_day(Some(until)));
        let what = format!("{} was {} from {} until {until}: {}", known.host, gone(known), time_of_day(known.from), known.reason);
        let _ = writeln!(out, "- {}", md(&what));
    }
}

/// The state of a host in a phase, from what it is in the stages of that phase.
fn in_phase(stages: &[&HostView]) -> &'static str {
    let any = |wanted| stages.iter().any(|host| host.state == wanted);
    let all = |wanted| stages.iter().all(|host| host.state == wanted);
    match () {
        () if stages.is_empty() => "–",
        () if any(HostState::Failed) => "✗ failed",
        () if any(HostState::Unreachable) => "✗ unreachable",
        () if any(HostState::Dropped) => "✗ left behind",
        () if all(HostState::Done) && stages.iter().any(|host| host.accepted > 0) => "! accepted without proof",
        () if all(HostState::Done) => "✓",
        () if all(HostState::Waiting) => "not begun",
        () => "unfinished",
    }
}

fn failures(out: &mut String, view: &View, record: &Record, platform: &PlatformView) {
    let stages: Vec<&StageView> = view.stages_of(platform).iter().filter(|stage| !view.troubles(stage).is_empty()).collect();
    let accepted: Vec<&StepView> = accepted(view, platform).collect();
    if stages.is_empty() && accepted.is_empty() {
        return;
    }
    heading(out, 3, "What went wrong");
    for stage in stages {
        for trouble in view.troubles(stage) {
            let hosts = fold_hosts(trouble.hosts.iter().map(|host| view.short(host)));
            let what: Vec<String> = [&stage.label, &hosts, &trouble.what, &trouble.message]
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| md(part))
                .collect();
            let _ = writeln!(out, "- {}", what.join(" · "));
            let step = trouble.step.and_then(|at| view.steps.get(at));
            if let Some(step) = step {
                let code = step.exit_code.map_or_else(|| step.state.as_str().to_owned(), |code| format!("exit code {code}"));
                let died = if step.died { ", ended from outside" } else { "" };
                let _ = writeln!(out, "  - {code}{died}, after {}, attempt {}", took(step), step.attempt);
            }
            if let Some(log) = step.and_then(|step| log(record, step)) {
                let _ = writeln!(out, "  - output: {}", md(&log));
            }
            for id in &trouble.findings {
                let _ = writeln!(out, "  - finding {}", md(id));
            }
            let remedy = match (trouble.remedy.as_str(), step) {
                ("", Some(_)) => "read the output, mend the cause on the host, then go on with the run",
                ("", None) => "make the host reachable, then go on with the run",
                (remedy, _) => remedy,
            };
            let _ = writeln!(out, "  - to do: {}", md(remedy));
        }
        if let Some(next) = untouched(view, stage) {
            let _ = writeln!(out, "- Nothing of {} or anything after it was started on this platform.", md(&next));
        }
    }
    for step in accepted {
        let reason = step.accepted.as_deref().unwrap_or("");
        let _ = writeln!(out, "- **accepted without proof**: {} ({}): {}", md(&step.id), step.state.as_str(), md(reason));
    }
}

fn checks(out: &mut String, view: &View, platform: &PlatformView) {
    let mine: Vec<_> = view.findings.iter().filter(|known| known.finding.platform == platform.name).collect();
    if mine.is_empty() {
        return;
    }
    let is_password = |check: &str| check.contains("password");
    for (title, password) in [("Password proof", true), ("Prerequisites and checks", false)] {
        let rows: Vec<Vec<String>> = mine
            .iter()
            .filter(|known| is_password(&known.finding.check) == password)
            .map(|known| {
                let finding = &known.finding;
                let status = match finding.status {
                    Status::Ok => "✓ ok",
                    Status::Warning => "! warning",
                    Status::Unknown => "? unknown",
                    Status::Failure => "✗ failure",
                };
                let overridden = finding.overridden.as_ref().map_or_else(String::new, |reason| format!(" OVERRIDDEN: {reason}"));
                vec![
                    known.phase.clone(),
                    finding.id.clone(),
                    finding.when.map_or_else(String::new, |when| when.as_str().to_owned()),
                    format!("{status}{overridden}"),
                    finding.message.clone(),
                    finding.evidence.clone(),
                    finding.remedy.clone(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            heading(out, 3, title);
            table(out, &["Phase", "Finding", "Has to be well", "Status", "What was found", "Evidence", "What to do"], rows);
        }
    }
}
