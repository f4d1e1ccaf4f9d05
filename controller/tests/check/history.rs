//! What earlier runs say about how long something takes.

use crate::plan_fleet;
use controller::check::{History, Migrated};
use inventory::Topology;
use std::collections::BTreeMap;
use std::time::Duration;

fn migrated(run: &str, platform: &str, rehearsal: bool, postupgrades: &[(&str, u64)]) -> Migrated {
    Migrated {
        run: run.to_owned(),
        platform: platform.to_owned(),
        rehearsal,
        topology: Topology::Standard,
        source: "v6.1 (8989)".to_owned(),
        target: "v7.4.1 (9383)".to_owned(),
        took: Duration::from_secs(7200),
        postupgrades: postupgrades
            .iter()
            .map(|(name, s)| ((*name).to_owned(), Duration::from_secs(*s)))
            .collect::<BTreeMap<_, _>>(),
    }
}

#[test]
fn a_postupgrade_is_expected_to_take_what_its_own_last_one_took_or_else_that_of_a_platform_that_is_like_it() {
    let platform = plan_fleet::standard();
    let instance = platform.instances[0].name.clone();
    let plan = plan_fleet::plan(&plan_fleet::fleet(vec![platform.clone()])).unwrap();
    let expected = |migrated: Vec<Migrated>| {
        let history = History { migrated, ..History::default() };
        let all = history.expected_steps(&plan);
        let of = all.iter().find(|(id, _)| id.contains(&format!(":{instance}/postupgrade")));
        of.map(|(_, (took, from))| (took.as_secs(), from.clone()))
    };
    assert_eq!(expected(vec![]), None, "nobody knows");
    let dev = || migrated("r1", "dev", true, &[("dev", 600), ("other", 900)]);
    assert_eq!(expected(vec![dev()]), Some((900, "rehearsal r1".to_owned())), "the longest one");
    let own = migrated("r2", &platform.name, false, &[(instance.as_str(), 1200)]);
    assert_eq!(expected(vec![own.clone(), dev()]), Some((1200, "run r2".to_owned())), "its own, although it is older");
    // Another way than tonight's says nothing.
    let other = Migrated { source: "v5.11 (8000)".to_owned(), ..own };
    assert_eq!(expected(vec![other]), None);
}
