//! The fuzz targets (`tests/fuzz`) for some seconds each, without libFuzzer: over everything that was ever kept of them, and over inputs
//! made of that. Which ones are made depends on the commit: each looks at others.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

// It is a library of its own for libFuzzer, where these are public.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// How long inputs are made for each target.
const TIME: Duration = Duration::from_secs(3);
/// How many are made at the least, however slow the machine is.
const FEWEST: u64 = 100;
/// The longest input that is made, in bytes.
const LONGEST: usize = 8 * 1024;
/// At most so many changes make one input of another.
const CHANGES: usize = 6;
/// Words that parsers look at.
const WORDS: &[&str] = &[
    "\n",
    "\0",
    "\u{7f}",
    "\u{ffff}",
    "{",
    "}",
    "\"",
    "'",
    ":",
    ",",
    "*",
    "!",
    "|1|",
    "@",
    "[",
    "]",
    "<",
    "&",
    ">>>",
    ">>",
    "0",
    "-1",
    "18446744073709551616",
];

#[test]
fn frames() {
    fuzz("frames", targets::frames::run);
}

#[test]
fn inventory() {
    fuzz("inventory", targets::inventory::run);
}

#[test]
fn journal() {
    fuzz("journal", targets::journal::run);
}

#[test]
fn known_hosts() {
    fuzz("known_hosts", targets::known_hosts::run);
}

#[test]
fn mask() {
    fuzz("mask", targets::mask::run);
}

#[test]
fn message() {
    fuzz("message", targets::message::run);
}

#[test]
fn runbook() {
    fuzz("runbook", targets::runbook::run);
}

#[test]
fn vendor() {
    fuzz("vendor", targets::vendor::run);
}

#[test]
fn xml() {
    fuzz("xml", targets::xml::run);
}

/// Every target has a test here and a program for libFuzzer.
#[test]
fn no_target_is_forgotten() {
    let dir = home();
    let named = |dir: &Path, end: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect();
        names.retain(|name| name != "lib");
        names.sort();
        names
    };
    let modules = named(&dir.join("src"), ".rs");
    assert_eq!(named(&dir.join("fuzz_targets"), ".rs"), modules);
    assert_eq!(named(&dir.join("seeds"), ""), modules);
    for reached in ["frames", "inventory", "journal", "known_hosts", "runbook", "vendor"] {
        assert!(fs::read_dir(dir.join("kept").join(reached)).unwrap().count() > 10, "what {reached} reached is not kept");
    }
    let (manifest, tests) = (fs::read_to_string(dir.join("Cargo.toml")).unwrap(), include_str!("fuzz.rs"));
    for name in modules {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "Cargo.toml has no program {name}");
        assert!(tests.contains(&format!("targets::{name}::run")), "no test here is of {name}");
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What was kept of a target, in the order of the names.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in ["seeds", "kept"].map(|dir| home().join(dir).join(target)) {
        files.extend(fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn fuzz(target: &str, run: fn(&[u8])) {
    let corpus = kept(target);
    assert!(!corpus.is_empty(), "nothing is kept of {target}");
    corpus.iter().for_each(|input| tried(target, run, input));
    let commit = std::env::var("CARAVAN_SIM_COMMIT").unwrap_or_default();
    let seed = commit.bytes().chain(target.bytes());
    let mut draw = Draw(seed.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) | 1);
    let (until, mut made) = (Instant::now() + TIME, 0_u64);
    while made < FEWEST || Instant::now() < until {
        tried(target, run, &draw.input(&corpus));
        made += 1;
    }
    eprintln!("{target}: {} kept, {made} made", corpus.len());
}

/// Tries an input. One that shows a mistake is kept in a file, to be moved to the seeds with the repair.
fn tried(target: &str, run: fn(&[u8]), input: &[u8]) {
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let found = std::env::temp_dir().join(format!("caravan-fuzz-{target}-{}", std::process::id()));
        fs::write(&found, input).unwrap();
        eprintln!("{target} fails on {} (put it into tests/fuzz/seeds/{target})", found.display());
        std::panic::resume_unwind(why);
    }
}

/// xorshift64*: the same inputs for the same commit.
struct Draw(u64);

impl Draw {
    /// A number from 0 and below `end`; 0 where there is none.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }

    /// An input that is made of those that are kept.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(CHANGES) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 => drop(bytes.drain(at..end)),
                // A part of itself once more.
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                4 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].bytes())),
                // The end of another one behind its own beginning.
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
                6 => bytes.truncate(at),
                _ => bytes.insert(at, self.below(256) as u8),
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}
