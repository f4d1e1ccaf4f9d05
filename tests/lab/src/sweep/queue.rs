//! Which cases are played, in which order.

use super::case::{Case, Clean, Kind, inspects};
use super::fleets::{Migration, TOPOLOGIES, Tier};
use crate::point::Point;
use crate::victim::When;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

/// Cases that wait. A controller that is killed at one event of a write is killed at all of that write: those are played once.
pub(super) struct Queue {
    waiting: VecDeque<Case>,
    covered: HashSet<(Migration, When, Point)>,
    deadline: Option<Instant>,
    taken: usize,
}

impl Queue {
    pub(super) fn new(cases: Vec<Case>, deadline: Option<Instant>) -> Self {
        Self { waiting: cases.into(), covered: HashSet::new(), deadline, taken: 0 }
    }

    /// The next case.
    pub(super) fn next(&mut self) -> Option<Case> {
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return None;
        }
        let case = self.waiting.pop_front()?;
        self.taken += 1;
        Some(case)
    }

    /// Takes out what was played with a case.
    pub(super) fn covered(&mut self, case: &Case, points: &[Point]) {
        self.covered.extend(points.iter().map(|point| (case.migration, case.when, point.clone())));
        let covered = &self.covered;
        self.waiting.retain(|case| case.kind != Kind::Kill || !covered.contains(&(case.migration, case.when, case.point.clone())));
    }

    /// How many were taken so far.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many wait.
    pub(super) fn left(&self) -> usize {
        self.waiting.len()
    }
}

/// Every moment of the journal, before and after it is durable: first one event of each write, then the others, which most likely
/// are covered by then.
pub(super) fn kills(migration: Migration, clean: &Clean, when: Option<When>) -> Vec<Case> {
    let mut of_write: BTreeMap<u64, usize> = BTreeMap::new();
    let mut ranked = Vec::new();
    for (write, point) in &clean.moments {
        let rank = of_write.entry(*write).or_default();
        ranked.push((*rank, *write, point.clone()));
        *rank += 1;
    }
    ranked.sort();
    let whens = when.map_or(vec![When::Before, When::After], |when| vec![when]);
    let case = |point: Point, when: When| Case { migration, kind: Kind::Kill, point, when, tier: Tier::StandIns };
    ranked.into_iter().flat_map(|(_, _, point)| whens.iter().map(|when| case(point.clone(), *when)).collect::<Vec<_>>()).collect()
}

/// Every write of more than one line.
pub(super) fn torn(migration: Migration, clean: &Clean) -> Vec<Case> {
    let mut of_write: BTreeMap<u64, Vec<&Point>> = BTreeMap::new();
    clean.moments.iter().for_each(|(write, point)| of_write.entry(*write).or_default().push(point));
    let several = of_write.into_values().filter(|points| points.len() > 1);
    let case = |point: &Point| Case { migration, kind: Kind::Torn, point: point.clone(), when: When::After, tier: Tier::StandIns };
    several.filter_map(|points| points.first().map(|point| case(point))).collect()
}

/// Every step that runs on a host. Every second one has real OpenSSH servers, another half for each topology.
pub(super) fn strikes(migration: Migration, clean: &Clean, kind: Kind) -> Vec<Case> {
    let asked = clean.moments.iter().map(|(_, point)| &point.subject).filter(|subject| inspects(subject));
    let mut steps: Vec<String> = clean.steps.iter().cloned().collect();
    if matches!(kind, Kind::Cut | Kind::Silent) {
        steps.extend(asked.cloned());
        steps.sort();
        steps.dedup();
    }
    let odd = TOPOLOGIES.iter().position(|other| *other == migration.topology).unwrap_or(0);
    let case = |(number, step): (usize, String)| {
        let point = Point { kind: "step_started".to_owned(), subject: step };
        let openssh = kind == Kind::Cut && (number + odd) % 2 == 0;
        Case { migration, kind, point, when: When::After, tier: if openssh { Tier::OpenSsh } else { Tier::StandIns } }
    };
    steps.into_iter().enumerate().map(case).collect()
}

/// So many of them, drawn by the seed: as many of each disturbance of each migration, whichever has more places.
pub(super) fn sample(cases: Vec<Case>, count: usize, seed: &str) -> Vec<Case> {
    let mut groups: BTreeMap<(Kind, Migration), Vec<_>> = BTreeMap::new();
    for case in cases {
        let rank = Sha256::digest(format!("{seed} {case}"));
        groups.entry((case.kind, case.migration)).or_default().push((rank, case));
    }
    let mut drawn = Vec::new();
    for mut group in groups.into_values() {
        group.sort();
        drawn.extend(group.into_iter().enumerate().map(|(round, (rank, case))| (round, rank, case)));
    }
    drawn.sort();
    drawn.into_iter().take(count).map(|(_, _, case)| case).collect()
}
