//! The report for a change board: what was done, when, by whom, in which order, with what result.

use super::chain::HostHeads;
use super::{Record, accepted, fared, gone, halted, log, untouched};
use crate::plan::Phase;
use crate::view::text::{between, count, date_time, duration, fold_hosts, pad, time_of_day, width};
use crate::view::{HostState, HostView, PlatformView, Progressed, StageView, StepState, StepView, View};
use jiff::{SignedDuration, Timestamp};
use proto::event::{RunOutcome, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// How many columns the bars of the timeline take.
const TIMELINE: usize = 60;
/// How many of the longest steps are listed.
const LONGEST: usize = 5;

/// The record of a run as Markdown.
pub fn markdown(view: &View, record: &Record) -> String {
    let mut out = String::new();
    let run = &view.run;
    heading(&mut out, 1, &format!("Report of run {}", run.id));
    facts(&mut out, view, record);
    heading(&mut out, 2, "Result");
    results(&mut out, view);
    heading(&mut out, 2, "Decisions of persons");
    persons(&mut out, view);
    for platform in &view.platforms {
        heading(&mut out, 2, &format!("Platform {}", platform.name));
        order(&mut out, view, platform);
        hosts(&mut out, view, platform);
        failures(&mut out, view, record, platform);
        checks(&mut out, view, platform);
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
        ("Took", between(run.started, run.ended)),
        ("Outcome", outcome),
        ("Plan and inventory (SHA-256)", run.plan.clone()),
        ("Caravan", run.version.clone()),
    ];
    if let Some(limit) = &run.limit {
        rows.push(("Limited to", format!("{limit}; other hosts were proven, not touched")));
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

fn journal(view: &View, record: &Record) -> String {
    let events = count(usize::try_from(view.run.events).unwrap_or(usize::MAX), "event");
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
    let rows = view.platforms.iter().map(|platform| {
        let halted = halted(view, platform).filter(|_| platform.outcome != Some(RunOutcome::Ok));
        let place = halted.map_or_else(String::new, |stage| format!(", in {}: {}", stage.label, fared(view, stage)));
        let unproven = match accepted(view, platform).count() {
            0 => String::new(),
            n => format!("; {} accepted WITHOUT PROOF", count(n, "step")),
        };
        vec![
            platform.name.clone(),
            platform.topology.to_string(),
            format!("{} → {}", platform.source, platform.target),
            format!("{}{place}{unproven}", verdict(platform.outcome)),
            date_time(platform.started),
            date_time(platform.ended),
            between(platform.started, platform.ended),
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
    for (time, reason) in &view.pauses {
        rows.push((*time, vec!["pause".to_owned(), "the run".to_owned(), view.run.operator.clone(), reason.clone()]));
    }
    rows.sort_by_key(|(time, _)| *time);
    if rows.is_empty() {
        out.push_str("None: no override, acceptance, skip, retry, takeover, gate or pause.\n");
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
            between(stage.started, stage.ended),
        ]
    });
    table(out, &["Stage", "Roles", "Hosts done", "State", "Began (UTC)", "Barrier opened (UTC)", "Took"], rows);
    let mine = |id: &str| id.split('/').next() == Some(platform.name.as_str());
    let verdict = match view.breaches.iter().filter(|breach| mine(&breach.step)).count() {
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
                let _ = writeln!(out, "  - {code}, after {}, attempt {}", took(step), step.attempt);
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
                    format!("{status}{overridden}"),
                    finding.message.clone(),
                    finding.evidence.clone(),
                    finding.remedy.clone(),
                ]
            })
            .collect();
        if !rows.is_empty() {
            heading(out, 3, title);
            table(out, &["Phase", "Finding", "Status", "What was found", "Evidence", "What to do"], rows);
        }
    }
}

fn steps(out: &mut String, view: &View, platform: &PlatformView) {
    heading(out, 3, "Steps");
    let begun = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage).iter().map(move |step| (stage, step)));
    let rows = begun.filter(|(_, step)| step.attempt > 0 || step.settled()).map(|(stage, step)| {
        let mut outcome = step.state.as_str().to_owned();
        if step.prove {
            outcome.push_str(" (proof only)");
        }
        if step.accepted.is_some() {
            outcome.push_str(" (accepted)");
        }
        let host =
            step.instance.as_ref().map_or_else(|| view.short(&step.host).to_owned(), |i| format!("{}:{i}", view.short(&step.host)));
        let code = step.exit_code.map_or_else(String::new, |code| code.to_string());
        let earlier: Vec<String> = step
            .earlier
            .iter()
            .map(|known| format!("attempt {} {}: {}", known.number, known.state.as_str(), known.message))
            .collect();
        let message = std::iter::once(step.message.clone()).chain(earlier).filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let name =
            if step.reversibility == crate::plan::Reversibility::OneWay { format!("{} ◆", step.name) } else { step.name.clone() };
        vec![stage.label.clone(), host, name, outcome, date_time(step.started), took(step), code, message.join("; ")]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        out.push_str("None was begun.\n");
        return;
    }
    table(out, &["Stage", "Host", "Step", "Outcome", "Began (UTC)", "Took", "Exit", "Message"], rows);
    out.push_str("\n◆ one-way: only a backup brings the state before it back.\n");
}

fn took(step: &StepView) -> String {
    match step.state {
        StepState::Ended(_) => duration(SignedDuration::from_millis(i64::try_from(step.duration_ms).unwrap_or(i64::MAX))),
        _ => "–".to_owned(),
    }
}

fn timings(out: &mut String, view: &View, platform: &PlatformView) {
    let mut steps: Vec<&StepView> = view.stages_of(platform).iter().flat_map(|stage| view.steps_of(stage)).collect();
    steps.retain(|step| step.duration_ms > 0);
    steps.sort_by_key(|step| std::cmp::Reverse(step.duration_ms));
    if steps.is_empty() {
        return;
    }
    heading(out, 3, "Timings");
    let phases = platform.phases.iter().filter(|phase| phase.started.is_some());
    let phases: Vec<String> = phases.map(|phase| format!("{} {}", phase.name, between(phase.started, phase.ended))).collect();
    let _ = writeln!(out, "Phases: {}.\n\nLongest steps:\n", phases.join(" · "));
    for step in steps.iter().take(LONGEST) {
        let _ = writeln!(out, "- {} {} {}", took(step), md(view.short(&step.host)), md(&step.name));
    }
}

/// A bar for each stage that began, over the time of the run.
fn timeline(out: &mut String, view: &View) {
    let (Some(start), Some(end)) = (view.run.started, view.run.ended.or(view.run.last)) else {
        out.push_str("Nothing was begun.\n");
        return;
    };
    let whole = end.duration_since(start).as_millis().max(1);
    let column = |time: Timestamp| {
        let at = time.duration_since(start).as_millis().clamp(0, whole) * TIMELINE as i128 / whole;
        usize::try_from(at).unwrap_or(0)
    };
    let begun: Vec<&StageView> = view.stages.iter().filter(|stage| stage.started.is_some()).collect();
    let name = |stage: &StageView| view.platforms.get(stage.platform).map_or("", |platform| platform.name.as_str());
    let names = begun.iter().map(|stage| width(name(stage))).max().unwrap_or(0);
    let labels = begun.iter().map(|stage| width(&stage.label)).max().unwrap_or(0);
    out.push_str("```text\n");
    for stage in begun {
        let from = column(stage.started.unwrap_or(start));
        let until = column(stage.ended.unwrap_or(end)).max(from + 1);
        let mark = match (stage.state, stage.phase_name) {
            (Progressed::Stopped, _) => "✗",
            (_, Phase::Preflight | Phase::Verify) => "░",
            _ => "█",
        };
        let bar = format!("{}{}", " ".repeat(from), mark.repeat(until - from));
        let times = format!("{} {}", time_of_day(stage.started), between(stage.started, stage.ended));
        let _ = writeln!(out, "{} {} |{}| {times}", pad(name(stage), names), pad(&stage.label, labels), pad(&bar, TIMELINE + 1));
    }
    out.push_str("```\n");
    let _ = writeln!(out, "\nFrom {} to {} UTC.", date_time(Some(start)), date_time(Some(end)));
}
