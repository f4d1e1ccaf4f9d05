//! The histories that every test run goes through: a fixed set, others that each commit has for itself, and those that have to show that
//! a planted bug is found.

use sim::{Plant, Setup};

/// How many histories the fixed set has, and how many each commit.
const FIXED: u64 = 2000;
const OF_COMMIT: u64 = 1000;
/// Within how many a planted bug has to be found.
const ENOUGH: u64 = 10_000;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn must_hold(first: u64, histories: u64) {
    let swept = sim::sweep(first, histories, threads(), Setup::default(), true);
    for (seed, why) in &swept.violations {
        println!("seed {seed}: {why}\n    again, told in full: cargo run --release -p sim -- --seed {seed} --trace");
    }
    assert_eq!(swept.violations.len(), 0, "of {histories} histories from seed {first} on");
    println!("{:?}", swept.tally);
}

/// The first seed for a commit id. What is no such id stands for no commit at all.
fn first_seed(commit: &str) -> u64 {
    let digits = commit.trim().get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or(FIXED + 1)
}

#[test]
fn the_fixed_histories_hold() {
    must_hold(1, FIXED);
}

/// `tests/run` says which commit it is.
#[test]
fn the_histories_of_the_commit_hold() {
    let commit = std::env::var("CARAVAN_SIM_COMMIT").unwrap_or_default();
    must_hold(first_seed(&commit), OF_COMMIT);
}

#[test]
fn a_commit_has_seeds_of_its_own() {
    assert_eq!(first_seed("00000000000000ff5e3b7ab5d1c2f6a9b0c4d7e1"), 255);
    assert_eq!(first_seed("no commit"), FIXED + 1);
}

#[test]
fn planted_bugs_are_found() {
    for (name, plant) in Plant::ALL {
        let setup = Setup { plant: Some(plant), ..Setup::default() };
        let swept = sim::sweep(1, ENOUGH, threads(), setup, false);
        let (seed, why) = swept.violations.first().unwrap_or_else(|| panic!("{name} is not found in {ENOUGH} histories"));
        println!("{name}: after {} histories, seed {seed}: {why}", swept.tally.histories);
        sim::run(*seed, Setup::default()).expect("without the bug the history is a good one");
    }
}
