//! One broken inventory a kind of problem: `broken/KIND[.DETAIL].yaml`, and beside it exactly what an operator sees.

use inventory::{Kind, Options, Problems, parse_bytes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Steps as a runbook could have them.
const STEPS: [&str; 5] = ["stop.nlserver", "install.packages", "postupgrade", "backup.database", "verify.redirection"];

/// Kinds that take a file which nobody wants to read, or none; `limits.rs` has them. Those of runbooks are the planner's.
const ELSEWHERE: [Kind; 4] = [Kind::Unreadable, Kind::TooLarge, Kind::TooManyProblems, Kind::Runbook];

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn problems(path: &Path) -> Problems {
    let bytes = std::fs::read(path).unwrap();
    match parse_bytes(&bytes, "fleet.yaml", Path::new(""), Options { steps: Some(&STEPS) }) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    }
}

#[test]
fn every_problem_is_shown_at_its_place_with_a_way_out() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("broken");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files() {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            insta::assert_snapshot!(stem, problems(&path).render(false));
        }
    });
}

#[test]
fn every_kind_has_its_example() {
    let mut seen: BTreeSet<Kind> = ELSEWHERE.into_iter().collect();
    for path in files() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let word = stem.split('.').next().unwrap();
        let kind = Kind::ALL.iter().find(|kind| kind.as_str() == word).unwrap_or_else(|| panic!("{stem} names no kind"));
        assert!(problems(&path).iter().any(|problem| problem.kind == *kind), "{stem} does not show its kind");
        seen.insert(*kind);
    }
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "kinds without an example: {missing:?}");
    assert!(Kind::ALL.len() >= 40);
}

#[test]
fn places_exist_in_the_file_and_json_says_the_same() {
    for path in files() {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let problems = problems(&path);
        let json = problems.to_json();
        assert_eq!(json["errors"], problems.errors(), "{}", path.display());
        for (problem, entry) in problems.iter().zip(json["problems"].as_array().unwrap()) {
            assert_eq!(entry["kind"], problem.kind.as_str());
            let Some((line, column)) = problems.position(problem) else { continue };
            assert_eq!((entry["line"].as_u64(), entry["column"].as_u64()), (Some(line as u64), Some(column as u64)));
            let length = text.lines().nth(line - 1).unwrap_or_default().chars().count();
            assert!(column <= length + 1, "{}:{line}:{column}", path.display());
        }
    }
}

#[test]
fn no_secret_is_shown() {
    for path in files().iter().filter(|path| path.to_string_lossy().contains("secret")) {
        let problems = problems(path);
        for shown in
            [problems.render(false), problems.render(true), problems.to_json().to_string(), format!("{problems} {problems:?}")]
        {
            for secret in ["hunter", "wörd", "PASSWORD"] {
                assert!(!shown.contains(secret), "{}: {shown}", path.display());
            }
        }
    }
}
