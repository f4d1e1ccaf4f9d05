//! Done in the right order by hand, a migration breaks no rule: otherwise a violation would prove nothing.

use crate::common::{Bench, get};
use lab::{Event, Progress, Role, Spec, Topology, progress};

fn whole(spec: Spec) {
    let bench = Bench::new(spec);
    let layout = bench.lab.layout();
    assert!(bench.platform().hosts.iter().all(|host| progress(layout, host).unwrap() == Progress::Old));
    bench.stop_all();
    bench.back_up();
    assert!(bench.platform().hosts.iter().all(|host| progress(layout, host).unwrap() == Progress::Between));
    bench.migrate_in_order();
    assert!(bench.platform().hosts.iter().all(|host| progress(layout, host).unwrap() == Progress::New));
    bench.restart_in_order();
    assert_eq!(bench.explain(), "");

    let records = bench.lab.records().unwrap();
    let ended =
        |name: &str| records.iter().filter(|record| record.event == Event::PostupgradeEnded && record.subject == name).count();
    assert!(bench.platform().instances.iter().all(|instance| ended(&instance.name) == 1));
    for host in &bench.platform().hosts {
        assert!(bench.ok(&host.name, "nlserver", &["pdump"]).contains("(7.4.1 build 9383@"));
        assert_eq!(bench.ok(&host.name, "nlserver", &["monitor", "-missing"]).lines().count(), 1, "only the banner");
        assert_eq!(records.iter().filter(|record| record.host == host.name && record.event == Event::TreeMoved).count(), 1);
        if host.is(Role::Tracking) {
            assert!(get(host, "/r/test").unwrap().contains("build='9383'"));
        }
    }
}

#[test]
fn standalone() {
    let mut spec = Spec::one("solo", Topology::Standalone, &[(Role::Marketing, 1)]);
    spec.platforms[0].also.insert("solo-mkt1".into(), vec![Role::Mta, Role::Tracking]);
    whole(spec);
}

#[test]
fn standard_with_a_front_server_and_two_instances() {
    let mut spec =
        Spec::one("emea", Topology::Standard, &[(Role::Marketing, 1), (Role::MidSourcing, 1), (Role::Mta, 2), (Role::Tracking, 2)]);
    spec.platforms[0].also.insert("emea-mta2".into(), vec![Role::Tracking]);
    spec.platforms[0].instances = 2;
    whole(spec);
}

#[test]
fn cloud_messaging_on_rhel() {
    let mut spec = Spec::one("apac", Topology::CloudMessaging, &[(Role::Marketing, 1), (Role::Tracking, 2)]);
    spec.platforms[0].os = Some("rhel-9".into());
    whole(spec);
}

#[test]
fn power_booster() {
    whole(Spec::one("amer", Topology::PowerBooster, &[(Role::Marketing, 1), (Role::PowerBooster, 1), (Role::Tracking, 2)]));
}

#[test]
fn power_cluster_with_mid_sourcing() {
    whole(Spec::one(
        "latam",
        Topology::PowerCluster,
        &[(Role::Marketing, 1), (Role::PowerCluster, 2), (Role::MidSourcing, 1), (Role::Tracking, 2)],
    ));
}
