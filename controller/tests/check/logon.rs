//! The proof by logon: what the answers of the servers prove, what people see of it, and the exit codes.

use crate::check::sim::*;
use clap::Parser;
use controller::check::passwords::logon::{LogonReading, prove};
use controller::check::passwords::{PasswordReading, Proof, findings};
use controller::check::{Verdict, verdict};
use controller::cli::check::Outcome;
use controller::cli::passwords::{self, PasswordsArgs, PasswordsCheckArgs, PasswordsCommand};
use controller::cli::{Context, Exit, Failure, Format};
use inventory::{Platform, Role, Topology};
use proptest::prelude::*;
use proto::Secret;
use proto::event::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn context(format: Format) -> Context {
    Context { inventory: "fleet.yaml".into(), state_dir: "state".into(), format, color: (false, false), verbosity: 0 }
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: PasswordsArgs,
}

fn args(words: &[&str]) -> PasswordsCheckArgs {
    let line = Line::try_parse_from(["passwords", "check"].iter().chain(words)).unwrap();
    let PasswordsCommand::Check(args) = line.args.command else { panic!() };
    args
}

async fn run(platforms: &[Platform], sim: &Arc<Sim>, words: &[&str], format: Format) -> Result<Outcome, Failure> {
    let selected = sim.hosts.keys().cloned().collect();
    passwords::check(&context(format), &args(words), &fleet(platforms.to_vec()), &selected, sim).await
}

/// What people and programs see of `--proof logon`, with the exit code. Whatever it is, no password is in it.
async fn logon(platform: &Platform, sim: impl Fn(&mut Sim), words: &[&str]) -> (Exit, String, serde_json::Value) {
    let platforms = [platform.clone()];
    let mut all = vec!["--password", "command:printf typed-canary"];
    all.extend(words);
    let mut seen = Vec::new();
    for format in [Format::Text, Format::Json] {
        let mut hosts = Sim::new(&platforms);
        sim(&mut hosts);
        let outcome = run(&platforms, &Arc::new(hosts), &all, format).await.unwrap();
        assert!(!outcome.text.contains("canary"), "{}", outcome.text);
        seen.push(outcome);
    }
    assert_eq!(seen[0].exit, seen[1].exit);
    for line in seen[0].text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let json: serde_json::Value = serde_json::from_str(&seen[1].text).unwrap();
    (seen[0].exit, seen[0].text.clone(), json["platforms"][0].clone())
}

/// Every stored value is another, as salted ones are.
fn salt(sim: &mut Sim) {
    for (name, host) in &mut sim.hosts {
        host.password = format!("stored-canary-{name}");
    }
}

#[tokio::test]
async fn salted_values_of_one_password_are_proven_identical() {
    let (exit, text, json) = logon(&emea(), salt, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Ok);
    insta::assert_snapshot!(text);
    assert_eq!((&json["identical"], &json["proof"]), (&true.into(), &"logon".into()));
    assert_eq!(json["groups"], serde_json::json!([["trk01", "trk02", "trk03"]]));
    assert_eq!(json["others"], serde_json::json!([["mkt1", "mta1", "mta2"]]));
}

#[tokio::test]
async fn a_server_that_refuses_what_others_accept_is_proven_to_differ() {
    let odd = |sim: &mut Sim| {
        salt(sim);
        sim.at("trk02").accepts = Some("another".to_owned());
        sim.at("mta1").accepts = Some("another".to_owned());
    };
    let (exit, text, json) = logon(&emea(), odd, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Failed);
    insta::assert_snapshot!(text);
    assert_eq!((&json["identical"], &json["proof"]), (&false.into(), &"logon".into()));
    assert_eq!(json["groups"], serde_json::json!([["trk01", "trk03"], ["trk02"]]));
    assert_eq!(json["others"], serde_json::json!([["mkt1", "mta2"], ["mta1"]]));
}

#[tokio::test]
async fn a_password_that_all_refuse_proves_nothing() {
    let wrong = |sim: &mut Sim| sim.hosts.values_mut().for_each(|host| host.accepts = Some("the right one".to_owned()));
    let (exit, text, json) = logon(&emea(), wrong, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Failed);
    insta::assert_snapshot!(text);
    assert_eq!((&json["identical"], &json["proof"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(json["groups"], serde_json::json!([["trk01", "trk02", "trk03"]]));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_asked_leaves_it_unknown() {
    let dead = |sim: &mut Sim| {
        salt(sim);
        sim.at("trk03").accepts = None;
        sim.at("mta2").protocol = 1;
    };
    let (exit, text, json) = logon(&emea(), dead, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Failed);
    insta::assert_snapshot!(text);
    assert_eq!((&json["identical"], &json["proof"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(json["groups"], serde_json::json!([["trk01", "trk02"]]));
    assert_eq!(json["unreadable"], serde_json::json!(["mta2", "trk03"]));
}

#[tokio::test]
async fn a_server_with_the_stored_value_of_another_need_not_be_asked() {
    let dead = |sim: &mut Sim| sim.at("trk03").accepts = None;
    let (exit, text, json) = logon(&emea(), dead, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Ok, "{text}");
    assert_eq!((&json["identical"], &json["proof"]), (&true.into(), &"logon".into()));
    assert!(text.contains("trk03 was not asked: its stored value is the one of"), "{text}");
}

#[tokio::test]
async fn a_host_that_is_away_is_not_proven() {
    let away = |sim: &mut Sim| sim.at("trk01").manner = Manner::Refuses(OpenErrorKind::Unreachable);
    let (exit, text, json) = logon(&emea(), away, &["--proof", "logon"]).await;
    assert_eq!(exit, Exit::Unreachable, "{text}");
    assert_eq!(json["identical"], serde_json::Value::Null);
    assert_eq!(json["unreachable"], serde_json::json!(["trk01"]));
}

#[tokio::test]
async fn with_a_password_at_hand_a_logon_decides_where_stored_values_differ_and_only_there() {
    let platforms = [emea(), platform("apac", Topology::Standalone, &[("apac1", &[Role::Marketing])])];
    let mut sim = Sim::new(&platforms);
    for (name, host) in sim.hosts.iter_mut().filter(|(name, _)| name.starts_with("trk")) {
        host.password = format!("stored-canary-{name}");
    }
    let sim = Arc::new(sim);
    let outcome = run(&platforms, &sim, &["--password", "command:printf typed-canary"], Format::Json).await.unwrap();
    assert_eq!(outcome.exit, Exit::Ok);
    let json: serde_json::Value = serde_json::from_str(&outcome.text).unwrap();
    let of = |at: usize| (json["platforms"][at]["identical"].clone(), json["platforms"][at]["proof"].clone());
    assert_eq!(of(0), (true.into(), "logon".into()));
    assert_eq!(of(1), (true.into(), "stored-value".into()));
    let opened = sim.opened.lock().unwrap().iter().filter(|(host, _)| host == "apac1").count();
    assert_eq!(opened, 1, "no password went to a platform that needs no logon");
    // Without one nobody is asked for it: there is no terminal here.
    let outcome = run(&platforms, &sim, &[], Format::Json).await.unwrap();
    assert_eq!(outcome.exit, Exit::Failed);
}

#[tokio::test]
async fn an_empty_password_or_none_contacts_nobody() {
    let platforms = [emea()];
    let sim = Arc::new(Sim::new(&platforms));
    // Of the test's own account alone, as such files are made.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = format!("file:{}", empty.path().display());
    for (reference, expected) in [
        (empty.as_str(), "it is empty"),
        ("env:CARAVAN_TEST_NOT_SET", "CARAVAN_TEST_NOT_SET is not set"),
        ("typed-canary", "a reference to a secret is expected"),
    ] {
        let failure = run(&platforms, &sim, &["--proof", "logon", "--password", reference], Format::Text).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(expected) && !failure.message.contains("canary"), "{failure}");
    }
    assert!(sim.opened.lock().unwrap().is_empty());
}

/// What a server has: its stored value (two servers with the same number have the same one), and what it says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Accepts,
    Refuses,
    Nothing,
    Away,
}

proptest! {
    /// A model decides: one password in two classes, accepted or refused, and a server's class is known by its own word or by that of
    /// servers with its stored value.
    #[test]
    fn only_what_all_tracking_servers_say_proves_anything(
        servers in proptest::collection::vec(
            (prop::option::weighted(0.9, 0u8..4), prop_oneof![
                4 => Just(Says::Accepts), 2 => Just(Says::Refuses), 2 => Just(Says::Nothing), 1 => Just(Says::Away)
            ]),
            1..8,
        ),
        tracking in 1usize..8,
    ) {
        let tracking = tracking.min(servers.len());
        let names: Vec<String> = (0..servers.len()).map(|number| format!("h{number}")).collect();
        let role = |at: usize| if at < tracking { [Role::Tracking].as_slice() } else { [Role::Mta].as_slice() };
        let hosts: Vec<(&str, &[Role])> = names.iter().enumerate().map(|(at, name)| (name.as_str(), role(at))).collect();
        let platform = platform("emea", Topology::Standard, &hosts);
        let (mut stored, mut logons) = (BTreeMap::new(), BTreeMap::new());
        for (name, (value, says)) in names.iter().zip(&servers) {
            let value = match value {
                Some(value) => PasswordReading::stored(Secret::new(format!("{value}").repeat(64))),
                None => PasswordReading::Unset,
            };
            stored.insert(name.clone(), if *says == Says::Away { PasswordReading::Unreachable } else { value });
            logons.insert(name.clone(), match says {
                Says::Accepts => LogonReading::Accepted,
                Says::Refuses => LogonReading::Refused("no".to_owned()),
                Says::Nothing => LogonReading::NotAsked("refused".to_owned()),
                Says::Away => LogonReading::Unreachable,
            });
        }
        let proof = prove(&platform, &stored, &logons);

        let known = |at: usize| -> Option<bool> {
            let (value, says) = servers[at];
            let value = value?;
            match says {
                Says::Accepts => Some(true),
                Says::Refuses => Some(false),
                Says::Away => None,
                Says::Nothing => {
                    let said: BTreeSet<bool> = servers.iter().filter(|(other, _)| *other == Some(value)).filter_map(|(_, says)| match says {
                        Says::Accepts => Some(true),
                        Says::Refuses => Some(false),
                        _ => None,
                    }).collect();
                    if said.len() == 1 { said.first().copied() } else { None }
                }
            }
        };
        let all: Vec<Option<bool>> = (0..tracking).map(known).collect();
        let expected = if all.iter().all(|one| *one == Some(true)) {
            Some(true)
        } else if all.contains(&Some(true)) && all.contains(&Some(false)) {
            Some(false)
        } else {
            None
        };
        prop_assert_eq!(proof.identical, expected);
        prop_assert_eq!(proof.proof, expected.map(|_| Proof::Logon));

        // Each server is in one place.
        let places = proof.groups.iter().chain(&proof.others).flatten().chain(&proof.unset).chain(&proof.unreadable);
        let mut places: Vec<&String> = places.chain(&proof.unreachable).collect();
        places.sort();
        prop_assert_eq!(places, names.iter().collect::<Vec<_>>());

        // Green exactly when proven; and what speaks against it is never taken for a missing connection.
        let told = findings(&platform, &proof);
        prop_assert_eq!(told[0].status == Status::Ok, expected == Some(true));
        let away_alone = (0..tracking).all(|at| known(at) == Some(true) || servers[at].1 == Says::Away);
        let verdict = verdict(&told[..1]);
        prop_assert_eq!(verdict == Verdict::Clear, expected == Some(true));
        prop_assert_eq!(verdict == Verdict::Unreachable, expected != Some(true) && away_alone);
    }
}
