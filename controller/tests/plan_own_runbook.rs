//! A site's own runbook: read from a file, with the same shape and the same checks as the ones that this binary carries.

use crate::plan_fleet::*;
use controller::plan::runbook::Runbook;
use controller::plan::{Plan, PlanErrors, PlatformPlan};
use inventory::{Platform, SourceVersion};
use std::path::Path;

const EMBEDDED: &str = include_str!("../src/plan/runbooks/to-v7.yaml");

/// Plans a platform by a runbook of its own.
fn planned(text: &str, platform: Platform) -> Result<Plan, PlanErrors> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("my-runbook.yaml"), text).unwrap();
    let platform = Platform { runbook: Some("./my-runbook.yaml".to_owned()), ..platform };
    plan(&inventory::Fleet { base: dir.path().to_owned(), ..fleet(vec![platform]) })
}

fn refused(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my-runbook.yaml");
    std::fs::write(&file, text).unwrap();
    Runbook::load(&file).unwrap_err().render(false)
}

/// The embedded runbook with one step changed: the first that has this name.
fn changed(name: &str, from: &str, to: &str) -> String {
    let at = EMBEDDED.find(&format!("  - name: {name}\n")).unwrap();
    let (before, after) = EMBEDDED.split_at(at);
    assert!(after.contains(from), "{from}");
    format!("{before}{}", after.replacen(from, to, 1))
}

fn names(plan: &PlatformPlan) -> Vec<&str> {
    plan.steps().map(|step| step.name.as_str()).collect()
}

#[test]
fn the_same_runbook_from_a_file_makes_the_same_plan() {
    for version in [SourceVersion::V5_11, SourceVersion::V6_1] {
        let platform = from_version(version, standard());
        let own = planned(EMBEDDED, platform.clone()).unwrap();
        assert_eq!(own.platforms, plan(&fleet(vec![platform])).unwrap().platforms);
        assert!(
            own.warnings.iter().any(|warning| warning.contains("the site's own runbook ./my-runbook.yaml")),
            "{:?}",
            own.warnings
        );
    }
}

#[test]
fn a_step_of_the_sites_own_is_planned_and_can_be_overridden() {
    let step = "  - name: site.freeze
    title: \"{host}: freeze the queue of {source.tree}\"
    short: freeze
    phase: stop
    stage: nlserver
    scope: host
    when: { role: [mta], source: [\"6.1\"] }
    run_as: root
    action: { command: { argv: [/opt/site/freeze, \"{host}\"] } }
    probe: { exists: /var/run/frozen }
    reversibility: compensable
    source: the site
    explain: Nothing new is queued.
    undo: Thaw it.

";
    let at = EMBEDDED.find("  - name: stop.nlserver\n").unwrap();
    let text = format!("{}{step}{}", &EMBEDDED[..at], &EMBEDDED[at..]);
    let mut platform = standard();
    platform.overrides.insert(
        "site.freeze".to_owned(),
        inventory::Override { command: Some(command(&["/opt/site/other"])), ..inventory::Override::default() },
    );
    let plan = planned(&text, platform).unwrap().platforms.remove(0);
    let frozen: Vec<_> = plan.steps().filter(|step| step.name == "site.freeze").collect();
    assert_eq!(frozen.len(), 3, "{:?}", names(&plan));
    assert_eq!(frozen[0].title, "mta1: freeze the queue of nl6 (the site's own command)");
    assert_eq!(frozen[0].command.as_ref().unwrap(), &["/opt/site/other"]);
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    let text = "name: mine
source_versions: [\"6.1\", \"4.0\"]
colour: red
steps:
  - name: facts
    title: read the facts
    phase: preflite
    scope: host
    run_as: root
    when: { rolle: [mta], init: [upstart] }
    action: verify
    limits: { deadline_s: soon }
    reversibility: reversible
    source: s
    explane: e
  - 17
";
    insta::assert_snapshot!("own_runbook", refused(text));
}

/// Each rule is told with the place of the step that breaks it.
#[test]
fn rules_are_those_of_every_runbook() {
    for (text, expected) in [
        (changed("stop.verify", "name: stop.verify", "name: Stop/verify"), "this is no name of a step"),
        (changed("stop.verify", "    stage: nlserver\n", ""), "either `stage` or `at`"),
        (changed("stop.verify", "    stage: nlserver\n", "    stage: a:b\n"), "this is no name of a stage"),
        (
            changed("stop.verify", "run_as: campaign", "run_as: root"),
            "root must not run or read what the Campaign account can write",
        ),
        (
            changed("postupgrade.check", "- { contains: PU-0007, means", "- { contains: '', means"),
            "must say what the line begins with or has in it",
        ),
        (changed("stop.verify", "name: stop.verify", "name: stop.processes"), "two steps of this name can be for the same host"),
        (changed("stop.verify", "    run_as", "    undoes: [facts]\n    run_as"), "this belongs to a way back"),
        (changed("stop.verify", "    run_as", "    tolerant: true\n    run_as"), "the same of `tolerant`"),
        (changed("stop.none-running", "    probe: ", "    only_if: "), "needs a `probe`"),
        (changed("postupgrade.old-logs", "test ! -d \"$1\"", "test ! -d {home}"), "a shell must not read a value"),
        (
            changed("postupgrade.old-logs", "[/bin/sh, -c, 'test", "[env, X=1, bash, -e, -o, pipefail, -lc, '{home}; test"),
            "a shell must not read a value",
        ),
        (changed("postupgrade.old-logs", "[/bin/sh, -c, ", "[nice, /bin/sh, '-c{home}', "), "a shell must not read a value"),
        (changed("backup.keep", "name: \"{keep.tree}\"", "name: \"../{keep.tree}\""), "this is no name of a copy"),
        (changed("backup.keep", "name: \"{keep.tree}\"", "name: \"/{instance}\""), "this is no name of a copy"),
        (changed("backup.database-keep", "name: \"{keep.dump}\"", "name: .."), "this is no name of a copy"),
        (EMBEDDED.replace("name: postupgrade\n", "name: upgrade\n"), "there is no step `postupgrade` in migrate"),
    ] {
        let said = refused(&text);
        assert!(said.contains(expected), "{expected}\n{said}");
        assert!(said.contains("my-runbook.yaml:"), "{said}");
    }
}

#[test]
fn what_a_step_tells_an_agent_is_checked_when_it_is_planned() {
    let wrong = changed("backup.archive", "dest: \"{home}", "dest: \"{homme}").replace("copy-tree: {", "copi-tree: {");
    let errors = planned(&wrong, standard()).unwrap_err().to_string();
    assert!(errors.contains("step `backup.archive` of the runbook: unknown placeholder `{homme}`"), "{errors}");
    assert!(errors.contains("step `restore.conf` of the runbook: unknown variant `copi-tree`"), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.contains("backup.archive")).collect();
    assert_eq!(lines.len(), 1, "the same mistake on every host is said once: {errors}");
    let line = EMBEDDED[..EMBEDDED.find("  - name: backup.archive\n").unwrap()].lines().count() + 1;
    assert!(lines[0].contains(&format!("my-runbook.yaml:{line}:5")), "{} is not at line {line}", lines[0]);
    assert!(!errors.contains("defect of caravan"), "{errors}");
}

/// A copy's name leads to no other file of the workstation, whether the runbook has the way there or a value.
#[test]
fn names_of_copies_are_names_of_one_file() {
    let wrong = changed("backup.keep", "name: \"{keep.tree}\"", "name: \"../{keep.tree}\"");
    let lines: Vec<&str> = wrong.lines().collect();
    let line = 1 + lines.iter().position(|line| line.contains("name: \"../{keep.tree}\"")).unwrap();
    let column = 1 + lines[line - 1].find("\"../{keep.tree}\"").unwrap();
    let said = refused(&wrong);
    assert!(said.contains(&format!("my-runbook.yaml:{line}:{column}")), "{line}:{column}\n{said}");
    let by_value = changed("backup.keep", "name: \"{keep.tree}\"", "name: \"{home}\"");
    let errors = planned(&by_value, keeping(inventory::KeepAt::Workstation, standard())).unwrap_err().to_string();
    assert!(errors.contains("`/usr/local/neolane` is no name of a copy") && errors.contains("my-runbook.yaml:"), "{errors}");
}

#[test]
fn a_runbook_that_is_not_for_the_platform_is_refused() {
    let only_old = EMBEDDED.replace("source_versions: [\"5.11\", \"6.02\", \"6.1\", \"7\"]", "source_versions: [\"6.02\"]");
    let errors = planned(&only_old, standard()).unwrap_err().to_string();
    assert!(
        errors.contains("the runbook of `emea` cannot be used: to-v7 (./my-runbook.yaml) does not start from v6.1"),
        "{errors}"
    );
    let missing = Platform { runbook: Some("none.yaml".to_owned()), ..standard() };
    let errors = plan(&fleet(vec![missing])).unwrap_err().to_string();
    assert!(errors.contains("cannot read /nonexistent/none.yaml"), "{errors}");
    assert!(Runbook::load(Path::new("/nonexistent")).is_err());
}
