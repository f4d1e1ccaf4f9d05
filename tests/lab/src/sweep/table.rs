//! What came out, migration by migration.

use super::case::{Case, Kind, Result};
use super::fleets::Migration;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// All results.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<(Kind, Migration), Row>,
    wrong: Vec<(Case, Vec<String>, Option<PathBuf>)>,
    missed: Vec<Case>,
}

#[derive(Debug, Default)]
struct Row {
    runs: usize,
    hit: usize,
    places: usize,
    resumes: u32,
    wrong: usize,
    seconds: f32,
}

impl Row {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str, migration: &str) -> fmt::Result {
        let Self { runs, hit, places, resumes, wrong, seconds } = self;
        let each = seconds / (*runs).max(1) as f32;
        writeln!(f, "{kind:<12}{migration:<20}{runs:>6}{hit:>8}{places:>8}{resumes:>9}{wrong:>7}{each:>10.1}")
    }
}

impl Table {
    /// Enters a result.
    pub(super) fn enter(&mut self, case: Case, result: Result) {
        let row = self.rows.entry((case.kind, case.migration)).or_default();
        row.runs += 1;
        row.hit += usize::from(result.hit);
        row.places += if case.kind == Kind::Kill { result.covered.len() } else { usize::from(result.hit) };
        row.resumes += result.resumes;
        row.seconds += result.took.as_secs_f32();
        if !result.wrong.is_empty() {
            row.wrong += 1;
            self.wrong.push((case, result.wrong, result.kept));
        } else if !result.hit {
            self.missed.push(case);
        }
    }

    /// The cases whose moment did not come.
    pub(super) fn missed(&self) -> &[Case] {
        &self.missed
    }

    /// The cases in which something was not as it should be: what, and where the fleet was left.
    pub(super) fn wrong(&self) -> &[(Case, Vec<String>, Option<PathBuf>)] {
        &self.wrong
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12}{:<20}{:>6}{:>8}{:>8}{:>9}{:>7}{:>10}",
            "disturbed", "migration", "runs", "struck", "places", "resumes", "wrong", "s per run"
        )?;
        let mut all = Row::default();
        for ((kind, migration), row) in &self.rows {
            row.write(f, kind.as_str(), &migration.to_string())?;
            all.runs += row.runs;
            all.hit += row.hit;
            all.places += row.places;
            all.resumes += row.resumes;
            all.wrong += row.wrong;
            all.seconds += row.seconds;
        }
        all.write(f, "all", "")
    }
}
