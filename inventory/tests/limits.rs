//! Files that nobody writes on purpose: nothing makes the reader panic, hang or swell.

use inventory::{Kind, Options, Problems, load, parse, parse_bytes};
use proptest::prelude::*;
use std::path::Path;

const LARGE: &str = include_str!("valid/large.yaml");

fn problems(text: &str) -> Problems {
    parse(text, "fleet.yaml", Path::new("")).unwrap_err()
}

fn has(problems: &Problems, kind: Kind) -> bool {
    problems.iter().any(|problem| problem.kind == kind)
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let problems = load(Path::new("/nonexistent/fleet.yaml")).unwrap_err();
    assert!(has(&problems, Kind::Unreadable));
    assert!(problems.render(false).contains("caravan init"), "{problems}");
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let problems = load(Path::new("/dev/zero")).unwrap_err();
    assert!(has(&problems, Kind::TooLarge), "{problems}");
}

#[test]
fn thousands_of_problems_are_listed_up_to_a_limit() {
    let keys: String = (0..5000).map(|index| format!("key{index}: x\n")).collect();
    let problems = problems(&keys);
    assert!(has(&problems, Kind::TooManyProblems));
    assert_eq!(problems.errors(), 1001);
    assert!(problems.render(true).len() < 1_000_000);
}

#[test]
fn a_long_line_is_not_shown() {
    let keys: Vec<_> = (0..2000).map(|index| format!("\"key{index}\": \"é\"")).collect();
    let problems = problems(&format!("{{{}}}", keys.join(", ")));
    let shown = problems.render(false);
    assert!(shown.contains("--> fleet.yaml:1:2\n"), "{}", &shown[..500]);
    assert!(shown.len() < 500_000, "{}", shown.len());
}

#[test]
fn many_hosts_take_little_time() {
    let platforms: String = (0..10)
        .map(|index| {
            format!(
                "  - name: p{index}
    topology: standard
    database: {{ engine: postgresql, server: db{index}, name: c, user: c, backup: {{ by: dba }} }}
    instances: [i]
    hosts:
      - {{ name: mkt.p{index}, roles: [marketing] }}
      - {{ name: \"mta[1-400].p{index}\", roles: [mta] }}
      - {{ name: \"trk[1-599].p{index}\", roles: [tracking] }}
"
            )
        })
        .collect();
    let head = LARGE.split("platforms:\n").next().unwrap();
    let loaded = parse(&format!("{head}platforms:\n{platforms}"), "fleet.yaml", Path::new(""))
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.fleet.platforms.iter().map(|platform| platform.hosts.len()).sum::<usize>(), 10_000);
}

#[test]
fn aliases_of_aliases_do_not_nest_without_end() {
    let chain: String = (1..5000).map(|index| format!("k{index}: &k{index} [*k{}]\n", index - 1)).collect();
    assert!(has(&problems(&format!("k0: &k0 [x]\n{chain}")), Kind::TooDeep));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let shown = problems("version: 1\nplatforms:\n  - { name: \"a\\e[31mb\", topology: \"\\a\" }\n").render(false);
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    // Raw ones are not YAML at all.
    assert!(!problems("version: 1\nplatforms: \"\u{1b}[31m\"\n").render(false).contains('\u{1b}'));
}

/// Whatever comes in: a fleet or problems, and both can be shown.
fn reads(bytes: &[u8]) {
    match parse_bytes(bytes, "fleet.yaml", Path::new(""), Options { steps: Some(&["postupgrade"]) }) {
        Ok(loaded) => {
            assert_eq!(loaded.warnings.errors(), 0);
            drop(loaded.warnings.render(true));
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            assert!(problems.render(false).ends_with("nothing was contacted.\n"));
            drop(problems.to_json());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        reads(&bytes);
    }

    #[test]
    fn anything_that_looks_like_yaml(text in "([\\[\\]{}:,&*!|>'\"%@`#?~<=-]|[ \n\t\r]|- |: |<<: |version|platforms|é|\u{feff}|\u{85}|a|1){0,60}") {
        reads(text.as_bytes());
    }

    #[test]
    fn a_valid_inventory_with_bytes_changed(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = LARGE.as_bytes().to_vec();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        reads(&bytes);
    }

    #[test]
    fn a_valid_inventory_with_words_moved(moves in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8), 1..6)) {
        let mut words: Vec<&str> = LARGE.split_inclusive([' ', '\n', ',', ':', '{', '}', '[', ']']).collect();
        for (from, to, how) in &moves {
            let (from, to) = (from.index(words.len()), to.index(words.len()));
            match how {
                0 => drop(words.remove(from)),
                1 => words.swap(from, to),
                _ => words.insert(to, words[from]),
            }
        }
        reads(words.concat().as_bytes());
    }

    #[test]
    fn a_valid_inventory_cut_short(at in any::<prop::sample::Index>()) {
        reads(&LARGE.as_bytes()[..at.index(LARGE.len())]);
    }
}
