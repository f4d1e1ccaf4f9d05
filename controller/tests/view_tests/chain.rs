//! Journals that were edited, cut and made anew, and what the hosts' heads say of them.

use crate::view_tests::fleet::{self, Faults};
use controller::report::chain::{self, Damage, Held, HostHeads};
use inventory::Topology;
use proto::event::{Event, Kind};
use proto::message::Attempt;
use proto::{Scope, StepId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes events as a journal does, with positions and chain made anew.
fn chained(events: &[Event]) -> (Vec<u8>, Vec<Event>) {
    let (mut bytes, mut written, mut prev) = (Vec::new(), Vec::new(), "0".repeat(64));
    for (event, seq) in events.iter().zip(1..) {
        let event = Event { seq, prev, ..event.clone() };
        let line = serde_json::to_vec(&event).unwrap();
        prev = sha256(&line);
        bytes.extend(line);
        bytes.push(b'\n');
        written.push(event);
    }
    (bytes, written)
}

fn parsed(bytes: &[u8]) -> Vec<Event> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// A good run, and the grants that its hosts hold of it: one for each host and wave, sent when the last of its lines was written.
fn run() -> (Vec<Event>, BTreeMap<String, Vec<Held>>) {
    let plan = fleet::plan(vec![fleet::platform("emea", Topology::Standard, 2, 3)]);
    let (bytes, events) = chained(&fleet::run(&plan, &Faults::default()));
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut grants: BTreeMap<(String, String), (usize, Vec<Attempt>)> = BTreeMap::new();
    for (event, index) in events.iter().zip(0..) {
        if let (Kind::StepGranted { .. }, Scope { host: Some(host), step: Some(step), .. }) = (&event.kind, &event.scope) {
            // Those of one grant are written at the same time.
            let (last, steps) = grants.entry((host.clone(), event.time.clone())).or_default();
            *last = index;
            steps.push(Attempt { step: StepId(step.clone()), attempt: 1 });
        }
    }
    let mut held: BTreeMap<String, Vec<Held>> = BTreeMap::new();
    for ((host, _), (last, steps)) in grants {
        held.entry(host).or_default().push(Held { head: sha256(lines[last]), steps });
    }
    assert!(held.len() == 6 && held.values().all(|grants| grants.len() > 3), "{held:?}");
    (events, held)
}

#[test]
fn every_line_that_is_edited_alone_is_named() {
    let (events, _) = run();
    let (bytes, _) = chained(&events);
    let lines: Vec<String> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    // Every seventh, with those at both ends: each is a journal that is read as a whole.
    for line in (1..=lines.len()).filter(|line| line % 7 == 0 || *line < 4 || lines.len() - line < 4) {
        let mut edited = lines.clone();
        edited[line - 1] = edited[line - 1].replacen("2026-", "2025-", 1);
        assert_ne!(edited, lines);
        let bytes = edited.join("\n") + "\n";
        let check = chain::look(bytes.as_bytes(), &parsed(bytes.as_bytes()));
        // Nothing follows the last line that could speak for it.
        let expected = (line < lines.len()).then_some(Damage::Edited { line });
        assert_eq!((check.damage, check.is_sound()), (expected, expected.is_none()), "line {line}");

        let mut edited = lines.clone();
        let (before, prev) = edited[line - 1].split_once("\"prev\":\"").unwrap();
        edited[line - 1] = format!("{before}\"prev\":\"{}{}", if prev.starts_with('0') { '1' } else { '0' }, &prev[1..]);
        let bytes = edited.join("\n") + "\n";
        let named = chain::look(bytes.as_bytes(), &parsed(bytes.as_bytes())).damage;
        // Between the last two lines nobody can tell which of them was edited.
        assert_eq!(named, Some(Damage::Edited { line: if line == lines.len() { line - 1 } else { line } }), "prev of line {line}");

        let mut edited = lines.clone();
        edited.remove(line - 1);
        let bytes = edited.join("\n") + "\n";
        let expected = (line < lines.len()).then_some(Damage::Removed { before: line });
        assert_eq!(chain::look(bytes.as_bytes(), &parsed(bytes.as_bytes())).damage, expected, "without line {line}");
    }
}

#[test]
fn a_journal_as_it_was_written_is_proven_by_the_hosts() {
    let (events, held) = run();
    let (bytes, _) = chained(&events);
    let check = chain::look(&bytes, &events);
    assert!(check.is_sound() && check.torn == 0);
    let heads = chain::compare(&bytes, &events, &held);
    assert_eq!(heads.against, []);
    assert_eq!(heads.accusation(), None);
    assert_eq!(heads.agree.values().sum::<usize>(), held.values().map(Vec::len).sum::<usize>());
    assert!(heads.proven > events.len() / 2 && heads.proven < events.len(), "{} of {}", heads.proven, events.len());
}

/// The lines that an accusation is about.
fn accused(heads: &HostHeads) -> (usize, usize) {
    let line = heads.against.iter().filter_map(|known| known.line).min().unwrap_or(usize::MAX);
    (heads.proven + 1, line.max(heads.proven + 1))
}

#[test]
fn a_line_that_was_edited_is_found_although_the_chain_was_made_anew() {
    let (events, held) = run();
    let (bytes, _) = chained(&events);
    let proven = chain::compare(&bytes, &events, &held).proven;
    for line in (1..=proven).step_by(5) {
        let mut edited = events.clone();
        edited[line - 1].time = edited[line - 1].time.replacen("2026-", "2025-", 1);
        let (bytes, edited) = chained(&edited);
        let check = chain::look(&bytes, &edited);
        assert!(check.is_sound(), "the chain alone says nothing");
        let heads = chain::compare(&bytes, &edited, &held);
        let (from, to) = accused(&heads);
        assert!((from..=to).contains(&line), "line {line} is not in {from}..={to}: {:?}", heads.accusation());
        let said = heads.accusation().unwrap();
        assert!(said.contains("the chain was made anew"), "{said}");
    }
}

#[test]
fn a_tail_that_was_cut_is_found_although_the_chain_was_made_anew() {
    let (events, held) = run();
    let (bytes, _) = chained(&events);
    let proven = chain::compare(&bytes, &events, &held).proven;
    let end = events.last().unwrap().clone();
    for kept in (1..proven).step_by(7) {
        let mut cut = events[..kept].to_vec();
        cut.push(end.clone());
        let (bytes, cut) = chained(&cut);
        assert!(chain::look(&bytes, &cut).is_sound());
        let heads = chain::compare(&bytes, &cut, &held);
        assert!(!heads.against.is_empty() && heads.proven <= kept, "cut behind line {kept}");
        let said = heads.accusation().unwrap();
        let known =
            ["cut off or replaced", "removed, and the chain was made anew", "it is not the journal that the hosts were told of"];
        assert!(known.iter().any(|words| said.contains(words)), "{said}");
    }
}

#[test]
fn what_the_hosts_say_is_in_words() {
    let (events, held) = run();
    let cut = chained(&events[..events.len() / 2]);
    let heads = chain::compare(&cut.0, &cut.1, &held);
    insta::assert_snapshot!(heads.accusation().unwrap());
    let other = chained(&events[1..2]);
    insta::assert_snapshot!(chain::compare(&other.0, &other.1, &held).accusation().unwrap());
}
