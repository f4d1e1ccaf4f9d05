//! The proof: what is grouped, what is proven, and that nothing secret shows.

use crate::check::sim::*;
use controller::check::passwords::{PasswordReading, PlatformProof, Proof, ProofKey, findings, prove};
use controller::check::{Verdict, verdict};
use inventory::{Platform, Role, Topology};
use proptest::prelude::*;
use proto::Secret;
use proto::event::Status;
use std::collections::{BTreeMap, BTreeSet};

/// What a host has: one of a few passwords, or a reason for none.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Has {
    Value(u8),
    Unset,
    Unreadable,
    Unreachable,
    /// There is no reading at all.
    Nothing,
}

fn has() -> impl Strategy<Value = Has> {
    prop_oneof![
        6 => (0u8..3).prop_map(Has::Value),
        1 => Just(Has::Unset),
        1 => Just(Has::Unreadable),
        1 => Just(Has::Unreachable),
        1 => Just(Has::Nothing),
    ]
}

fn print_of(value: u8, key: &ProofKey) -> String {
    fingerprint(key.secret().expose(), &format!("canary-value-{value}"))
}

fn reading(has: Has, key: &ProofKey) -> Option<PasswordReading> {
    Some(match has {
        Has::Value(value) => PasswordReading::stored(Secret::new(print_of(value, key))),
        Has::Unset => PasswordReading::Unset,
        Has::Unreadable => PasswordReading::Unreadable("denied".to_owned()),
        Has::Unreachable => PasswordReading::Unreachable,
        Has::Nothing => return None,
    })
}

/// The first `tracking` hosts are tracking servers, the others mail servers; `order` moves them around in the inventory.
fn setup(all: &[Has], tracking: usize, order: &[usize], key: &ProofKey) -> (Platform, BTreeMap<String, PasswordReading>) {
    let names: Vec<String> = (0..all.len()).map(|number| format!("h{number:02}")).collect();
    let role = |at: usize| if at < tracking { [Role::Tracking].as_slice() } else { [Role::Mta].as_slice() };
    let hosts: Vec<(&str, &[Role])> = order.iter().map(|at| (names[*at].as_str(), role(*at))).collect();
    let readings = names.iter().zip(all).filter_map(|(name, has)| Some((name.clone(), reading(*has, key)?))).collect();
    (platform("emea", Topology::Standard, &hosts), readings)
}

fn partition(groups: &[Vec<String>]) -> BTreeSet<BTreeSet<String>> {
    groups.iter().map(|group| group.iter().cloned().collect()).collect()
}

proptest! {
    #[test]
    fn the_grouping_is_right_and_shows_no_secret(
        (all, tracking, order) in proptest::collection::vec(has(), 1..12).prop_flat_map(|all| {
            let (count, order) = (all.len(), (0..all.len()).collect::<Vec<_>>());
            (Just(all), 1..=count, Just(order).prop_shuffle())
        })
    ) {
        let key = ProofKey::new().unwrap();
        let (platform, readings) = setup(&all, tracking, &order, &key);
        let proof = prove(&platform, &readings);

        // The same, computed from what was put in.
        let expected = |range: std::ops::Range<usize>| {
            let mut groups: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
            for at in range {
                if let Has::Value(value) = all[at] {
                    groups.entry(value).or_default().insert(format!("h{at:02}"));
                }
            }
            groups.into_values().collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(partition(&proof.groups), expected(0..tracking));
        prop_assert_eq!(partition(&proof.others), expected(tracking..all.len()));
        let count = |wanted: &[Has]| all.iter().filter(|has| wanted.contains(has)).count();
        prop_assert_eq!(proof.unset.len(), count(&[Has::Unset]));
        prop_assert_eq!(proof.unreadable.len(), count(&[Has::Unreadable]));
        prop_assert_eq!(proof.unreachable.len(), count(&[Has::Unreachable, Has::Nothing]));

        let equal = all[..tracking].iter().all(|has| matches!(has, Has::Value(_)) && *has == all[0]);
        prop_assert_eq!(proof.identical, equal.then_some(true));
        prop_assert_eq!(proof.proof, equal.then_some(Proof::StoredValue));

        // The order of the inventory makes no difference.
        let sorted: Vec<usize> = (0..all.len()).collect();
        let (in_order, _) = setup(&all, tracking, &sorted, &key);
        prop_assert_eq!(&prove(&in_order, &readings), &proof);

        // Findings: green exactly when proven, and nothing that can be printed holds a value, a fingerprint or the key.
        let findings = findings(&platform, &proof);
        prop_assert_eq!(findings[0].status == Status::Ok, equal);
        let shown = format!("{proof:?}\n{}\n{findings:?}\n{readings:?}\n{key:?}", serde_json::to_string(&proof).unwrap());
        prop_assert!(!shown.contains("canary"), "{}", shown);
        prop_assert!(!shown.contains(key.secret().expose()));
        for value in 0..3 {
            let print = print_of(value, &key);
            prop_assert!(!shown.contains(&print[..16]), "{}", shown);
        }
        // Only a missing connection is no failure of its own.
        let tracking_only = |wanted: &[Has]| all[..tracking].iter().any(|has| wanted.contains(has));
        let told = tracking_only(&[Has::Unset, Has::Unreadable]) || proof.groups.len() > 1;
        let expected = match (equal, told) {
            (true, _) => Verdict::Clear,
            (false, true) => Verdict::Failed,
            (false, false) => Verdict::Unreachable,
        };
        prop_assert_eq!(verdict(&findings[..1]), expected);
    }

    #[test]
    fn what_is_no_fingerprint_proves_nothing(text in "[0-9a-fA-F]{0,70}|\\PC{0,70}") {
        let is_one = text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        let stored = matches!(PasswordReading::stored(Secret::new(text)), PasswordReading::Stored(_));
        prop_assert_eq!(stored, is_one);
    }
}

fn proof_of(topology: Topology, hosts: &[(&str, &[Role])], values: &[Has]) -> (Platform, PlatformProof) {
    let key = ProofKey::new().unwrap();
    let platform = platform("emea", topology, hosts);
    let readings =
        hosts.iter().zip(values).filter_map(|((name, _), has)| Some(((*name).to_owned(), reading(*has, &key)?))).collect();
    let proof = prove(&platform, &readings);
    (platform, proof)
}

#[test]
fn keys_are_random_and_have_256_bits() {
    let keys: BTreeSet<String> = (0..64).map(|_| ProofKey::new().unwrap().secret().expose().to_owned()).collect();
    assert_eq!(keys.len(), 64);
    assert!(keys.iter().all(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())));
}

#[test]
fn a_standalone_machine_counts_as_the_tracking_server() {
    let hosts: &[(&str, &[Role])] = &[("solo", &[Role::Marketing])];
    assert_eq!(proof_of(Topology::Standalone, hosts, &[Has::Value(0)]).1.identical, Some(true));
    assert_eq!(proof_of(Topology::Standalone, hosts, &[Has::Unset]).1.identical, None);
}

#[test]
fn without_tracking_servers_the_marketing_servers_stand_in() {
    let hosts: &[(&str, &[Role])] = &[("mkt1", &[Role::Marketing]), ("mkt2", &[Role::Marketing]), ("mta1", &[Role::Mta])];
    let (_, proof) = proof_of(Topology::Standard, hosts, &[Has::Value(0), Has::Value(1), Has::Value(0)]);
    assert_eq!((proof.identical, proof.groups.len(), proof.others.len()), (None, 2, 1));
}

#[test]
fn a_difference_on_another_server_is_a_warning_and_a_missing_one_on_the_application_server_a_failure() {
    let hosts: &[(&str, &[Role])] = &[("mkt1", &[Role::Marketing]), ("trk1", &[Role::Tracking]), ("mta1", &[Role::Mta])];
    let (platform, proof) = proof_of(Topology::Standard, hosts, &[Has::Value(0), Has::Value(0), Has::Value(1)]);
    let told = findings(&platform, &proof);
    assert_eq!((told[0].status, told[1].status), (Status::Ok, Status::Warning));
    assert!(told[1].message.contains("mta1"), "{}", told[1].message);
    assert_eq!(verdict(&told), Verdict::Clear);
    let (platform, proof) = proof_of(Topology::Standard, hosts, &[Has::Unset, Has::Value(0), Has::Value(0)]);
    let told = findings(&platform, &proof);
    assert_eq!((told[0].status, told[1].status), (Status::Ok, Status::Failure));
    let (platform, proof) = proof_of(Topology::Standard, hosts, &[Has::Value(0), Has::Value(0), Has::Unset]);
    assert_eq!(findings(&platform, &proof)[1].status, Status::Warning);
}

#[test]
fn a_database_server_has_no_internal_password() {
    let hosts: &[(&str, &[Role])] = &[("mkt1", &[Role::Marketing]), ("trk1", &[Role::Tracking]), ("db1", &[Role::Database])];
    let (_, proof) = proof_of(Topology::Standard, hosts, &[Has::Value(0), Has::Value(0), Has::Nothing]);
    assert_eq!(proof.identical, Some(true));
    assert!(proof.unreachable.is_empty());
}
