//! What people and programs see, and the exit codes. No colour, 100 columns.

use crate::check::sim::*;
use clap::Parser;
use controller::cli::check::{CheckArgs, Outcome, check};
use controller::cli::passwords::{PasswordsArgs, PasswordsCheckArgs, PasswordsCommand, ProofBy};
use controller::cli::{Context, Exit, Failure, Format, passwords};
use inventory::{Platform, Role, Topology};
use proto::inspect::{Answer, Query};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn context(format: Format) -> Context {
    Context { inventory: "fleet.yaml".into(), state_dir: "state".into(), format, color: (false, false), verbosity: 0 }
}

fn on(sim: &Sim, hosts: &[&str]) -> BTreeSet<String> {
    if hosts.is_empty() { sim.hosts.keys().cloned().collect() } else { hosts.iter().map(ToString::to_string).collect() }
}

async fn run_check(
    platforms: &[Platform],
    sim: Sim,
    hosts: &[&str],
    args: CheckArgs,
    context: Context,
) -> Result<Outcome, Failure> {
    let selected = on(&sim, hosts);
    check(&context, &args, &fleet(platforms.to_vec()), &selected, &Arc::new(sim), &BTreeMap::new()).await
}

async fn run_passwords(platforms: &[Platform], sim: Sim, hosts: &[&str], format: Format) -> Outcome {
    let selected = on(&sim, hosts);
    let fleet = fleet(platforms.to_vec());
    passwords::check(&context(format), &PasswordsCheckArgs::default(), &fleet, &selected, &Arc::new(sim)).await.unwrap()
}

fn narrow(outcome: &Outcome) {
    for line in outcome.text.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
}

/// emea with twelve tracking servers, and apac.
fn large() -> Vec<Platform> {
    let names: Vec<String> = (1..=12).map(|number| format!("trk{number:02}")).collect();
    let mut hosts: Vec<(&str, &[Role])> = vec![("mkt1", &[Role::Marketing]), ("mta1", &[Role::Mta]), ("mta2", &[Role::Mta])];
    hosts.extend(names.iter().map(|name| (name.as_str(), [Role::Tracking].as_slice())));
    vec![platform("emea", Topology::Standard, &hosts), platform("apac", Topology::Standalone, &[("apac1", &[Role::Marketing])])]
}

fn troubled() -> (Vec<Platform>, Sim) {
    let platforms = large();
    let mut sim = Sim::new(&platforms);
    for host in ["trk01", "trk02", "trk03", "trk07"] {
        sim.at(host).build = 8700;
    }
    sim.at("trk09").password = "stored-canary-other".to_owned();
    sim.at("mta2").manner = Manner::Refuses(OpenErrorKind::Unreachable);
    sim.at("mta1").answer(Query::Space { path: HOME.to_owned() }, Ok(Answer::Space { free: 300 << 20, inodes: 0 }));
    (platforms, sim)
}

#[tokio::test]
async fn check_of_a_healthy_fleet() {
    let platforms = large();
    let outcome = run_check(&platforms, Sim::new(&platforms), &[], CheckArgs::default(), context(Format::Text)).await.unwrap();
    assert_eq!(outcome.exit, Exit::Ok);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn check_of_a_fleet_in_trouble() {
    let (platforms, sim) = troubled();
    let outcome = run_check(&platforms, sim, &[], CheckArgs::default(), context(Format::Text)).await.unwrap();
    assert_eq!(outcome.exit, Exit::Failed);
    narrow(&outcome);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn check_with_findings_set_aside() {
    let (platforms, sim) = troubled();
    let args = CheckArgs { on: None, overrides: vec![("disk@mta1".to_owned(), "grown tonight, ticket 4711".to_owned())] };
    let outcome = run_check(&platforms, sim, &["mta1", "mta2"], args, context(Format::Text)).await.unwrap();
    assert_eq!(outcome.exit, Exit::Unreachable, "{}", outcome.text);
    narrow(&outcome);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn check_of_one_host_in_full() {
    let platforms = large();
    let all = Context { verbosity: 1, ..context(Format::Text) };
    let outcome = run_check(&platforms, Sim::new(&platforms), &["apac1"], CheckArgs::default(), all).await.unwrap();
    assert_eq!(outcome.exit, Exit::Ok);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn check_as_json() {
    let platforms = vec![platform("apac", Topology::Standalone, &[("apac1", &[Role::Marketing])])];
    let mut sim = Sim::new(&platforms);
    sim.at("apac1").system.arch = "i686".to_owned();
    let outcome = run_check(&platforms, sim, &[], CheckArgs::default(), context(Format::Json)).await.unwrap();
    assert_eq!(outcome.exit, Exit::Failed);
    let json: serde_json::Value = serde_json::from_str(&outcome.text).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let arch = findings.iter().find(|finding| finding["check"] == "arch").unwrap();
    insta::assert_json_snapshot!(serde_json::json!({ "one finding": arch, "summary": json["summary"] }));
}

#[tokio::test]
async fn an_override_without_a_finding_is_wrong_usage() {
    let platforms = large();
    let args = CheckArgs { on: None, overrides: vec![("disc@trk01".to_owned(), "typo".to_owned())] };
    let failure = run_check(&platforms, Sim::new(&platforms), &[], args, context(Format::Text)).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    insta::assert_snapshot!(failure.message);
}

#[tokio::test]
async fn passwords_that_are_identical() {
    let platforms = large();
    let outcome = run_passwords(&platforms, Sim::new(&platforms), &[], Format::Text).await;
    assert_eq!(outcome.exit, Exit::Ok);
    insta::assert_snapshot!(outcome.text);
    let outcome = run_passwords(&platforms, Sim::new(&platforms), &[], Format::Json).await;
    assert_eq!(outcome.exit, Exit::Ok);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn passwords_that_differ() {
    let (platforms, sim) = troubled();
    let outcome = run_passwords(&platforms, sim, &[], Format::Text).await;
    assert_eq!(outcome.exit, Exit::Failed);
    narrow(&outcome);
    insta::assert_snapshot!(outcome.text);
    let (platforms, sim) = troubled();
    let outcome = run_passwords(&platforms, sim, &[], Format::Json).await;
    assert_eq!(outcome.exit, Exit::Failed);
    insta::assert_snapshot!(outcome.text);
    assert!(!outcome.text.contains("canary"));
}

#[tokio::test]
async fn passwords_that_are_missing() {
    let platforms = large();
    let mut sim = Sim::new(&platforms);
    sim.at("trk04").password = String::new();
    sim.at("mkt1").password = String::new();
    sim.at("trk05").answer(
        Query::Fingerprint {
            file: format!("{HOME}/nl6/conf/serverConf.xml"),
            element: "serverconf/shared/authentication/xtk".to_owned(),
            attribute: "internalPassword".to_owned(),
        },
        Err(proto::inspect::ReadError::Denied(format!("{HOME}/nl6/conf/serverConf.xml"))),
    );
    let outcome = run_passwords(&platforms, sim, &[], Format::Text).await;
    assert_eq!(outcome.exit, Exit::Failed);
    narrow(&outcome);
    insta::assert_snapshot!(outcome.text);
}

#[tokio::test]
async fn passwords_of_a_host_that_is_away() {
    for (away, exit) in [("trk02", Exit::Unreachable), ("mta1", Exit::Unreachable)] {
        let platforms = large();
        let mut sim = Sim::new(&platforms);
        sim.at(away).manner = Manner::Refuses(OpenErrorKind::Unreachable);
        let outcome = run_passwords(&platforms, sim, &[], Format::Json).await;
        assert_eq!(outcome.exit, exit, "{away}: {}", outcome.text);
        let json: serde_json::Value = serde_json::from_str(&outcome.text).unwrap();
        let expected = if away == "trk02" { serde_json::Value::Null } else { true.into() };
        assert_eq!(json["platforms"][0]["identical"], expected);
        assert_eq!(json["platforms"][0]["unreachable"], serde_json::json!([away]));
        let mut sim = Sim::new(&platforms);
        sim.at(away).manner = Manner::Refuses(OpenErrorKind::Unreachable);
        let outcome = run_passwords(&platforms, sim, &[], Format::Text).await;
        insta::assert_snapshot!(format!("passwords_away_{away}"), outcome.text);
    }
}

#[tokio::test]
async fn a_platform_is_proven_as_a_whole_whatever_is_selected() {
    let (platforms, sim) = troubled();
    let outcome = run_passwords(&platforms, sim, &["trk01"], Format::Json).await;
    assert_eq!(outcome.exit, Exit::Failed);
    let json: serde_json::Value = serde_json::from_str(&outcome.text).unwrap();
    assert_eq!(json["platforms"].as_array().unwrap().len(), 1, "apac has no selected host");
    assert_eq!(json["platforms"][0]["groups"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn passwords_of_a_windows_server_are_not_proven() {
    let mut platforms = large();
    platforms[0].hosts[5].os = Some("windows".to_owned());
    let outcome = run_passwords(&platforms, Sim::new(&platforms), &[], Format::Text).await;
    assert_eq!(outcome.exit, Exit::Failed);
    narrow(&outcome);
    insta::assert_snapshot!(outcome.text);
}

#[derive(Debug, clap::Parser)]
struct Line<T: clap::Args> {
    #[command(flatten)]
    args: T,
}

#[test]
fn overrides_are_taken_apart_at_the_first_equals_sign() {
    let line: Line<CheckArgs> = Line::try_parse_from(["check", "--on", "role:mta", "--override", "disk@trk01=a = b"]).unwrap();
    assert_eq!(line.args.on.as_deref(), Some("role:mta"));
    assert_eq!(line.args.overrides, [("disk@trk01".to_owned(), "a = b".to_owned())]);
    let error = Line::<CheckArgs>::try_parse_from(["check", "--override", "disk@trk01"]).unwrap_err();
    assert!(error.to_string().contains("FINDING=REASON"), "{error}");
}

#[test]
fn the_proof_is_by_stored_value_unless_it_is_said() {
    let line = |arguments: &[&str]| Line::<PasswordsArgs>::try_parse_from(arguments).unwrap().args.command;
    let PasswordsCommand::Check(args) = line(&["passwords", "check"]) else { panic!() };
    assert_eq!(args.proof, ProofBy::StoredValue);
    let PasswordsCommand::Check(args) = line(&["passwords", "check", "--proof", "logon"]) else { panic!() };
    assert_eq!(args.proof, ProofBy::Logon);
    assert!(matches!(line(&["passwords", "set", "--on", "platform:emea"]), PasswordsCommand::Set(_)));
}
