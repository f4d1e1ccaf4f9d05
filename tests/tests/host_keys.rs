//! `hosts trust` as a person meets it at a terminal.

use harness::Site;
use std::fs;

#[test]
fn one_answer_enrols_what_is_unknown_and_never_what_has_changed() {
    let site = Site::new("platforms: [{ name: emea, topology: standard, hosts: { marketing: 1, mta: 1, tracking: 2 } }]");
    let known_hosts = site.lab.dir().join("known_hosts");
    let all = fs::read_to_string(&known_hosts).unwrap();
    let lines: Vec<(&str, &str)> = all.lines().filter_map(|line| line.split_once(' ')).collect();
    let (changed, others) = lines.split_first().unwrap();
    // The first host's key is said to be another one's; the others are not known.
    let wrong = format!("{} {}\n", changed.0, others[0].1);
    fs::write(&known_hosts, &wrong).unwrap();

    let ran = site.at_terminal(&["hosts", "trust"], &[("Enrol them?", "n")]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(fs::read_to_string(&known_hosts).unwrap(), wrong);

    let ran = site.at_terminal(&["hosts", "trust"], &[("Enrol them?", "y")]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 1, "{said}");
    assert!(said.contains("installed anew · 1") && said.contains("new · 3") && said.contains("3 enrolled"), "{said}");
    let after = fs::read_to_string(&known_hosts).unwrap();
    assert!(after.starts_with(&wrong) && !after.contains(changed.1), "{after}");
    assert!(others.iter().all(|(_, key)| after.contains(key)), "{after}");

    // Nor by a file that confirms it: somebody has to remove the old line, and to know why.
    let shown = said.lines().find(|line| line.contains("SHA256:") && line.contains("emea-mkt1")).expect("the changed key");
    let print = shown.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    let file = site.root().join("fingerprints");
    fs::write(&file, format!("emea-mkt1 {print}\n")).unwrap();
    let ran = site.caravan(&["hosts", "trust", "--yes", "--fingerprints", file.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("installed anew · 1"), "{ran:?}");
    assert_eq!(fs::read_to_string(&known_hosts).unwrap(), after);
}
