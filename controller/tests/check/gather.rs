//! Asking the hosts: one link and one question each, bounded, none forgotten.

use crate::check::sim::*;
use controller::check::passwords::ProofKey;
use controller::check::{HostState, Limits, Point, Unreached, gather};
use inventory::{Platform, Role, Topology};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn many() -> Platform {
    let names: Vec<String> = (1..=40).map(|number| format!("h{number:02}")).collect();
    let hosts: Vec<(&str, &[Role])> =
        names.iter().map(|name| (name.as_str(), [Role::Marketing, Role::Tracking].as_slice())).collect();
    platform("emea", Topology::Standard, &hosts)
}

#[tokio::test]
async fn each_host_is_asked_once_in_one_round_and_its_link_is_closed() {
    let platforms = vec![many()];
    let fleet = fleet(platforms.clone());
    let sim = Arc::new(Sim::new(&platforms));
    let limits = Limits { open: Duration::from_secs(20), answer: Duration::from_secs(20), hosts: 7 };
    let states =
        gather(&sim, &fleet, &names(&fleet), Point::Preflight, (&ProofKey::new().unwrap(), &BTreeMap::new()), limits).await;
    assert_eq!(states.len(), 40);
    assert!(states.values().all(|state| state.reached().is_some()));
    let mut opened = sim.opened.lock().unwrap().clone();
    opened.sort();
    assert_eq!(opened.len(), 40, "each host is opened once");
    assert!(opened.iter().all(|(_, root)| *root), "serverConf.xml can be read by root and the Campaign account alone");
    let received = sim.received.lock().unwrap().clone();
    assert_eq!(received.iter().filter(|kind| *kind == "Inspect").count(), 40, "one question a host");
    assert_eq!(received.len(), 80, "the key and the question, nothing else");
    for _ in 0..100 {
        if sim.open.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sim.open.load(Ordering::SeqCst), 0, "every link was closed");
    let most = sim.most_open.load(Ordering::SeqCst);
    // A link counts as open until its agent saw the end, so one more round can overlap.
    assert!((2..=14).contains(&most), "{most} links were open at once, the limit is 7");
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_told_apart_and_nobody_is_forgotten() {
    let platforms = vec![many()];
    let fleet = fleet(platforms.clone());
    let mut sim = Sim::new(&platforms);
    let cases = [
        ("h01", Manner::Refuses(OpenErrorKind::Unreachable), Unreached::Network),
        ("h02", Manner::Refuses(OpenErrorKind::HostKey), Unreached::HostKey),
        ("h03", Manner::Refuses(OpenErrorKind::Authentication), Unreached::Authentication),
        ("h04", Manner::Refuses(OpenErrorKind::Become), Unreached::Become),
        ("h05", Manner::Refuses(OpenErrorKind::Agent), Unreached::Agent),
        ("h06", Manner::HangsUp, Unreached::Lost),
        ("h07", Manner::Silent, Unreached::TimedOut),
        ("h08", Manner::Fatal, Unreached::Agent),
        ("h09", Manner::Short, Unreached::Agent),
        ("h10", Manner::Hangs, Unreached::TimedOut),
    ];
    for (host, manner, _) in &cases {
        sim.at(host).manner = manner.clone();
    }
    let limits = Limits { open: Duration::from_secs(60), answer: Duration::from_secs(60), hosts: 3 };
    let states =
        gather(&Arc::new(sim), &fleet, &names(&fleet), Point::Preflight, (&ProofKey::new().unwrap(), &BTreeMap::new()), limits)
            .await;
    assert_eq!(states.len(), 40);
    assert_eq!(states.values().filter(|state| state.reached().is_some()).count(), 40 - cases.len());
    for (host, _, expected) in cases {
        let HostState::Unreachable { reason, kind } = &states[host] else { panic!("{host} counts as reached") };
        assert_eq!(*kind, expected, "{host}: {reason}");
        assert!(reason.starts_with(host), "the reason names the host: {reason}");
    }
}

#[tokio::test]
async fn windows_hosts_and_hosts_that_are_not_selected_are_not_asked() {
    let mut platform = emea();
    platform.hosts[1].os = Some("windows".to_owned());
    let fleet = fleet(vec![platform.clone()]);
    let sim = Arc::new(Sim::new(&[platform]));
    let selected = ["mkt1", "mta1", "trk01"].map(str::to_owned).into();
    let states =
        gather(&sim, &fleet, &selected, Point::Preflight, (&ProofKey::new().unwrap(), &BTreeMap::new()), Limits::of(&fleet)).await;
    assert_eq!(states.keys().collect::<Vec<_>>(), ["mkt1", "trk01"]);
    assert_eq!(sim.opened.lock().unwrap().len(), 2);
}
