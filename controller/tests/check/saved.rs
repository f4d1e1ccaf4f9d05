//! Saved plans: what is written, and what is refused with which words.

use crate::check::sim::*;
use crate::plan_fleet;
use controller::cli::{Exit, Failure, saved};
use controller::plan::Plan;
use inventory::{Fleet, Location, Role};
use proto::inspect::{Answer, Query, ReadError, XmlValue};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A fleet with its package files, and a place for plans.
struct Desk {
    dir: tempfile::TempDir,
    fleet: Fleet,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = plan_fleet::fleet(vec![plan_fleet::standard(), plan_fleet::power_booster()]);
        fleet.base = dir.path().to_owned();
        for host in fleet.platforms.iter().flat_map(|platform| &platform.hosts) {
            for package in host.target.packages.iter().chain(&host.source.packages) {
                if let Location::Path(path) = &package.location {
                    let path = dir.path().join(path);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, "package").unwrap();
                }
            }
        }
        Self { dir, fleet }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("emea.plan")
    }

    fn sim(&self) -> Sim {
        Sim::new(&self.fleet.platforms)
    }

    async fn write(&self) -> Plan {
        saved::write(&self.path(), &self.fleet, &Arc::new(self.sim())).await.unwrap()
    }

    /// Opens the plan for these platforms; all where none is named.
    async fn read(&self, sim: Sim, platforms: &[&str]) -> Result<Plan, Failure> {
        let all = self.fleet.platforms.iter().map(|platform| platform.name.clone());
        let platforms: BTreeSet<String> =
            if platforms.is_empty() { all.collect() } else { platforms.iter().map(ToString::to_string).collect() };
        saved::read(&self.path(), &self.fleet, &Arc::new(sim), &platforms).await
    }

    /// Why the plan is refused now, without what is other in every run of the test.
    async fn refused(&self, sim: Sim, exit: Exit) -> String {
        let failure = self.read(sim, &[]).await.unwrap_err();
        assert_eq!(failure.exit, exit, "{failure}");
        let (differences, last) = failure.message.split_once("error: ").unwrap();
        assert!(last.contains("emea.plan (saved 20") && last.contains("Nothing was touched."), "{last}");
        differences.to_owned()
    }
}

#[tokio::test]
async fn a_plan_is_saved_with_its_facts_and_opened_again() {
    let desk = Desk::new();
    let plan = desk.write().await;
    let mode = std::fs::metadata(desk.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(desk.read(desk.sim(), &[]).await.unwrap(), plan);

    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(desk.path()).unwrap()).unwrap();
    assert_eq!(file["plan"]["hash"], plan.hash);
    let facts = serde_json::json!({
        "os": "debian-11",
        "arch": "x86_64",
        "packages": "nlserver6 6.1-8989, nlthirdparty6 6.1-8989",
        "build": "6.1 (8989)",
        "roles": "marketing",
        "instances": "emea_prod",
        "engine": "emea_prod postgresql",
        "host-key": "SHA256:mkt1",
    });
    assert_eq!(file["facts"]["mkt1"], facts);
    // The hash covers the facts: the same plan over another fleet has another one.
    let mut other = desk.sim();
    other.at("trk01").build = 8990;
    let moved = saved::write(&desk.path(), &desk.fleet, &Arc::new(other)).await.unwrap();
    assert_eq!(moved.platforms, plan.platforms);
    assert_ne!(moved.hash, plan.hash);
    let left: Vec<_> = std::fs::read_dir(desk.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".caravan")), "{left:?}");
}

#[tokio::test]
async fn a_fleet_that_moved_is_refused_with_every_difference() {
    let mut desk = Desk::new();
    desk.write().await;
    let mut sim = desk.sim();
    let names = desk.fleet.platforms[0].hosts.clone();
    for host in names.iter().filter(|host| host.roles.contains(&Role::Tracking)) {
        sim.at(&host.name).build = 8990;
    }
    sim.at("mkt1").system.os = "debian-12".to_owned();
    sim.at("mkt1").host_key = "SHA256:another".to_owned();
    let pdump = Query::Output {
        argv: vec![format!("{HOME}/nl6/bin/nlserver"), "pdump".to_owned()],
        profile: Some(format!("{HOME}/nl6/env.sh")),
        secret_files: BTreeMap::new(),
    };
    sim.at("mta1").answer(pdump, Err(ReadError::Failed("exit 137, pid 4711".to_owned())));
    let engines = Query::Xml {
        file: format!("{HOME}/nl6/conf/config-*.xml"),
        element: "serverconf/shared/dataStore/dataSource/dbcnx".to_owned(),
        attribute: "provider".to_owned(),
    };
    let value = XmlValue { file: format!("{HOME}/nl6/conf/config-emea_prod.xml"), value: Some("Oracle\u{1b}[31m".to_owned()) };
    sim.at("mta1").answer(engines, Ok(Answer::Xml(vec![value])));

    let platform = &mut desk.fleet.platforms[0];
    platform.rehearsal = true;
    platform.hosts.iter_mut().for_each(|host| host.ssh.port = Some(2222));
    let gone = platform.hosts.iter().rposition(|host| host.roles.contains(&Role::Tracking)).unwrap();
    let mut new = platform.hosts.remove(gone);
    new.name = "trk9".to_owned();
    new.address = "trk9".to_owned();
    sim.hosts.insert("trk9".to_owned(), SimHost::healthy("trk9"));
    platform.hosts.push(new);
    platform.hosts[0].campaign.user = "campaign".to_owned();
    let sim = sim.of(&desk.fleet.platforms);
    insta::assert_snapshot!(desk.refused(sim, Exit::Moved).await);
}

#[tokio::test]
async fn facts_of_platforms_that_take_no_part_may_move() {
    let desk = Desk::new();
    desk.write().await;
    let (taking_part, other) = (&desk.fleet.platforms[0], &desk.fleet.platforms[1]);
    let mut sim = desk.sim();
    sim.at(&other.hosts[0].name).build = 9383;
    sim.at(&other.hosts[1].name).manner = Manner::Refuses(OpenErrorKind::Unreachable);
    desk.read(sim, &[&taking_part.name]).await.unwrap();
    let mut sim = desk.sim();
    sim.at(&other.hosts[0].name).build = 9383;
    assert_eq!(desk.read(sim, &[&other.name]).await.unwrap_err().exit, Exit::Moved);
}

#[tokio::test]
async fn a_host_out_of_reach_is_exit_3_and_leaves_no_file() {
    let desk = Desk::new();
    let mut sim = desk.sim();
    sim.at("mta1").manner = Manner::Refuses(OpenErrorKind::Unreachable);
    let failure = saved::write(&desk.path(), &desk.fleet, &Arc::new(sim)).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains("mta1 cannot be reached: connection refused"), "{failure}");
    assert!(!desk.path().exists());

    desk.write().await;
    let mut sim = desk.sim();
    sim.at("mta1").manner = Manner::Refuses(OpenErrorKind::Authentication);
    let seen = desk.refused(sim, Exit::Unreachable).await;
    assert!(seen.contains("mta1 refuses the login"), "{seen}");
    // What moved comes first, and the host that could not be asked is named beside it.
    let mut sim = desk.sim();
    sim.at("mta1").manner = Manner::Refuses(OpenErrorKind::Authentication);
    sim.at("mkt1").build = 8990;
    let seen = desk.refused(sim, Exit::Moved).await;
    assert!(seen.contains("mta1 refuses the login") && seen.contains("mkt1  build: was 6.1 (8989); is 6.1 (8990)"), "{seen}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_found_out_before_anybody_is_asked() {
    let desk = Desk::new();
    let sim = Arc::new(desk.sim());
    let failure = saved::write(&desk.dir.path().join("no/emea.plan"), &desk.fleet, &sim).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Internal);
    assert!(failure.message.contains("no/emea.plan cannot be written"), "{failure}");
    assert!(sim.opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn files_that_are_no_saved_plans_are_told_from_those_that_were_edited() {
    let desk = Desk::new();
    let plan = desk.write().await;
    let whole = std::fs::read_to_string(desk.path()).unwrap();
    let offline = serde_json::to_string(&plan).unwrap();
    let cases = [
        (String::new(), "is no plan that `caravan plan -o` saved"),
        ("platforms: []".to_owned(), "is no plan that `caravan plan -o` saved"),
        ("[1, 2]".to_owned(), "is no plan that `caravan plan -o` saved"),
        (offline, "is no plan that `caravan plan -o` saved"),
        (whole.replace("\"caravan_plan\": 1", "\"caravan_plan\": 2"), "has form 2, saved by Caravan 0."),
        (whole.replace("8989", "8990"), "was edited or damaged after it was saved"),
        (whole.replace("\"operator\": \"", "\"operator\": \"not-"), "was edited or damaged after it was saved"),
        (whole.replace("\"sha256\": \"", "\"sha\": \""), "was edited or damaged after it was saved"),
        (whole[..whole.len() / 2].to_owned(), "is no plan that `caravan plan -o` saved: EOF"),
    ];
    for (text, expected) in cases {
        assert_ne!(text, whole);
        std::fs::write(desk.path(), &text).unwrap();
        let failure = desk.read(desk.sim(), &[]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{failure}");
        assert!(failure.message.contains(expected) && failure.message.contains("caravan plan -o"), "{failure}");
    }
    std::fs::remove_file(desk.path()).unwrap();
    let failure = desk.read(desk.sim(), &[]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("emea.plan cannot be read"), "{failure}");
}

#[tokio::test]
async fn a_file_that_is_another_at_any_byte_is_refused_before_anybody_is_asked() {
    let desk = Desk::new();
    desk.write().await;
    let whole = std::fs::read(desk.path()).unwrap();
    let step = whole.len() / 97;
    for at in (0..whole.len() - 1).step_by(step) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(desk.path(), &bytes).unwrap();
        let failure = desk.read(desk.sim(), &[]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "byte {at}: {failure}");
    }
}
