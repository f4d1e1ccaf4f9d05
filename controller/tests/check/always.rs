//! When checks have to be well: the table for people, and those that are made again in the middle of a migration.

use crate::check::sim::{SimHost, now_ms};
use crate::plan_fleet;
use controller::check::{HostState, PackageFiles, Reached, Readings, catalogue, evaluate_again, queries_again};
use controller::plan::{Phase, Plan, PlannedStep};
use inventory::{Platform, SourceVersion};
use proto::event::{Finding, Status, When};
use proto::inspect::{Answer, Query, ReadError, Reading, System};
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../../CHECKS.md");

#[test]
fn the_table_for_people_is_that_of_the_program() {
    let rows = TABLE.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let table: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(table.iter().all(|row| row.len() == 5 && row.iter().all(|cell| !cell.is_empty())), "{table:#?}");
    let told: BTreeSet<[&str; 3]> = table.iter().map(|row| [row[0].trim_matches('`'), &row[1], &row[2]]).collect();
    assert_eq!(told.len(), table.len(), "a check stands there twice");
    let known: BTreeSet<[&str; 3]> =
        catalogue().map(|(name, about, when)| [name, about, when.map_or("record", When::as_str)]).collect();
    let differ: Vec<_> = known.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "CHECKS.md and the program differ: {differ:?}");
    let always: Vec<&str> = catalogue().filter(|(.., when)| *when == Some(When::Always)).map(|(name, ..)| name).collect();
    assert_eq!(always, ["reachable", "os-as-declared", "package-files", "disk", "campaign-user", "clock"]);
}

/// The host of which something is not well.
const HOST: &str = "mkt1";

/// A platform of which everything through a phase is proven.
struct Middle {
    platform: Platform,
    plan: Plan,
    through: Phase,
}

impl Middle {
    fn of(version: SourceVersion, through: Phase) -> Self {
        let platform = plan_fleet::coming_from(version, plan_fleet::standard());
        let plan = plan_fleet::plan(&plan_fleet::fleet(vec![platform.clone()])).unwrap();
        Self { platform, plan, through }
    }

    fn left(&self) -> Vec<&PlannedStep> {
        let phases = self.plan.platforms[0].phases.iter().filter(|phase| phase.name > self.through);
        phases.flat_map(|phase| &phase.stages).flat_map(|stage| &stage.steps).collect()
    }

    fn queries(&self) -> BTreeMap<String, Vec<Query>> {
        queries_again(&self.platform, &self.left(), &PackageFiles::of(&self.plan))
    }

    /// The findings, with the answers of hosts that are well but for what `change` says of [`HOST`].
    fn findings(&self, change: impl Fn(&Query) -> Option<Reading>) -> Vec<Finding> {
        let files = PackageFiles::of(&self.plan);
        let mut states = BTreeMap::new();
        for (host, queries) in self.queries() {
            let os = self.platform.host(&host).and_then(|known| known.os.clone()).unwrap();
            let changed = |query: &Query| change(query).filter(|_| host == HOST);
            let readings = queries.iter().map(|query| changed(query).unwrap_or_else(|| Ok(well(query, &os)))).collect();
            let reached = Reached {
                readings: Readings::new(queries, readings).unwrap(),
                asked_ms: now_ms(),
                answered_ms: now_ms(),
                agent: Default::default(),
            };
            states.insert(host, HostState::Reached(Box::new(reached)));
        }
        evaluate_again(&self.platform, &states, &self.left(), &files)
    }
}

fn well(query: &Query, os: &str) -> Answer {
    match query {
        Query::System => Answer::System(System { clock_ms: now_ms(), os: os.to_owned(), ..SimHost::healthy("x").system }),
        Query::Space { .. } => Answer::Space { free: 50 << 30, inodes: 1_000_000 },
        Query::Path { .. } => Answer::Path(proto::inspect::PathKind::Directory),
        Query::File { path } => {
            let known = [("nlserver6_8989", plan_fleet::OLD_SHA), (".deb", plan_fleet::DEB_SHA), (".rpm", plan_fleet::RPM_SHA)];
            file(known.iter().find(|(part, _)| path.contains(part)).unwrap().1)
        }
        Query::Output { argv, .. } => {
            let text = match argv[0].as_str() {
                "stat" => "0 root\n".to_owned(),
                "id" => "1001\n".to_owned(),
                "du" => format!("2097152\t{}\n", argv[2]),
                other => panic!("{other} is not asked in the middle"),
            };
            Answer::Output { code: 0, text }
        }
        other => panic!("{other:?} is not asked in the middle"),
    }
}

#[track_caller]
fn one(findings: &[Finding], id: &str, status: Status, says: &str) {
    let found = findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id} in {findings:#?}"));
    assert_eq!(found.status, status, "{found:#?}");
    assert!(found.message.contains(says), "{found:#?}");
    assert_eq!(found.when, Some(When::Always), "{found:#?}");
}

fn file(sha256: &str) -> Answer {
    Answer::File(proto::inspect::FileFacts { size: 1, modified_ms: 0, sha256: Some(sha256.to_owned()), recorded: None })
}

fn digest_of<'a>(query: &'a Query, part: &str) -> Option<&'a str> {
    match query {
        Query::File { path } if path.contains(part) => Some(path),
        _ => None,
    }
}

#[test]
fn in_the_middle_only_what_is_always_true_is_looked_at() {
    let always: BTreeSet<&str> = catalogue().filter(|(.., when)| *when == Some(When::Always)).map(|(name, ..)| name).collect();
    for (version, through) in
        [(SourceVersion::V6_1, Phase::Preflight), (SourceVersion::V5_11, Phase::Backup), (SourceVersion::V7, Phase::Migrate)]
    {
        let middle = Middle::of(version, through);
        let findings = middle.findings(|_| None);
        let bad: Vec<_> = findings.iter().filter(|f| matches!(f.status, Status::Failure | Status::Unknown)).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let seen: BTreeSet<&str> = findings.iter().map(|finding| finding.check.as_str()).collect();
        assert!(seen.is_subset(&always) && seen.len() >= 5, "{seen:?}");
        let hosts: BTreeSet<_> = findings.iter().filter_map(|finding| finding.host.clone()).collect();
        assert_eq!(hosts, middle.queries().into_keys().collect());
    }
    // Hosts on which nothing is left are left alone.
    let over = Middle::of(SourceVersion::V6_1, Phase::Verify);
    assert!(over.queries().is_empty() && over.findings(|_| None).is_empty());
}

#[test]
fn package_files_that_are_gone_or_changed_are_found_as_long_as_something_needs_them() {
    let before = Middle::of(SourceVersion::V6_1, Phase::Backup);
    let id = format!("package-files@{}", HOST);
    let gone = |query: &Query| {
        let dest = digest_of(query, "v7-9383")?;
        Some(Err(ReadError::Missing(dest.to_owned())))
    };
    let found = before.findings(gone);
    one(&found, &id, Status::Failure, "a package file that was sent is gone or was changed");
    assert!(found.iter().find(|f| f.id == id).unwrap().evidence.contains("does not exist"), "{found:#?}");
    let other = |query: &Query| {
        digest_of(query, "v7-9383")?;
        Some(Ok(file(&"e".repeat(64))))
    };
    one(&before.findings(other), &id, Status::Failure, "gone or was changed");
    let closed = |query: &Query| digest_of(query, "").map(|path| Err(ReadError::Denied(path.to_owned())));
    one(&before.findings(closed), &id, Status::Unknown, "cannot be read");
    // Installed, it is no longer needed; the old packages are, for the way back.
    let after = Middle::of(SourceVersion::V6_1, Phase::Migrate);
    one(&after.findings(gone), &id, Status::Ok, "as they were");
    let old = |query: &Query| {
        let dest = digest_of(query, "nlserver6_8989")?;
        Some(Err(ReadError::Missing(dest.to_owned())))
    };
    one(&after.findings(old), &id, Status::Failure, "gone or was changed");
}

#[test]
fn the_room_that_is_asked_for_is_what_is_still_to_come() {
    let free = |mib: u64| {
        move |query: &Query| match query {
            Query::Space { path } if path == "/usr/local/neolane" => Some(Ok(Answer::Space { free: mib << 20, inodes: 0 })),
            _ => None,
        }
    };
    let before = Middle::of(SourceVersion::V6_1, Phase::Backup);
    let id = format!("disk@{}", HOST);
    one(&before.findings(free(1023)), &id, Status::Failure, "needs at least 1024 MiB");
    let after = Middle::of(SourceVersion::V6_1, Phase::Migrate);
    one(&after.findings(free(1023)), &id, Status::Ok, "enough");
    one(&after.findings(free(63)), &id, Status::Failure, "needs at least 64 MiB");
    // The copy of a build upgrade is counted where it is not made yet; its archive is there by then.
    let upgrade = Middle::of(SourceVersion::V7, Phase::Backup);
    one(&upgrade.findings(free(3071)), &id, Status::Failure, "needs at least 3072 MiB");
    let asked = |middle: &Middle| {
        let all: Vec<Query> = middle.queries().remove(HOST).unwrap();
        all.iter().find_map(|q| match q {
            Query::Output { argv, .. } if argv[0] == "du" => Some(argv[2].clone()),
            _ => None,
        })
    };
    assert_eq!(asked(&upgrade).as_deref(), Some("/usr/local/neolane/nl6.back"));
    assert_eq!(asked(&Middle::of(SourceVersion::V7, Phase::Preflight)).as_deref(), Some("/usr/local/neolane/nl6"));
    assert_eq!(asked(&Middle::of(SourceVersion::V7, Phase::Migrate)), None);
    let gone = |query: &Query| matches!(query, Query::Space { .. }).then(|| Err(ReadError::Denied("/".to_owned())));
    one(&after.findings(gone), &id, Status::Unknown, "cannot be read");
}

#[test]
fn a_host_that_is_another_one_or_late_or_without_root_holds_up() {
    let middle = Middle::of(SourceVersion::V6_1, Phase::Backup);
    let system = |change: fn(&mut System)| {
        move |query: &Query| {
            let (Query::System, Answer::System(mut system)) = (query, well(&Query::System, "debian-11")) else { return None };
            change(&mut system);
            Some(Ok(Answer::System(system)))
        }
    };
    let findings = middle.findings(system(|system| system.os = "rhel-8".to_owned()));
    one(&findings, &format!("os-as-declared@{HOST}"), Status::Failure, "the host is rhel-8");
    let findings = middle.findings(system(|system| system.clock_ms += 3_600_000));
    one(&findings, &format!("clock@{HOST}"), Status::Failure, "ahead");
    let unread = |query: &Query| matches!(query, Query::System).then(|| Err(ReadError::Failed("no".to_owned())));
    let findings = middle.findings(unread);
    one(&findings, &format!("clock@{HOST}"), Status::Unknown, "cannot be read");
    one(&findings, &format!("os-as-declared@{HOST}"), Status::Unknown, "cannot be read");
}

#[test]
fn a_host_that_cannot_be_reached_in_the_middle_is_told_as_such() {
    let middle = Middle::of(SourceVersion::V6_1, Phase::Backup);
    let findings = evaluate_again(&middle.platform, &BTreeMap::new(), &middle.left(), &PackageFiles::default());
    assert_eq!(findings.len(), middle.queries().len());
    one(&findings, &format!("reachable@{}", HOST), Status::Failure, "was not asked");
}
