//! The plan of `passwords set`: the vendor's interactive command on every Campaign server of a platform, and both proofs behind it.
//!
//! It is a run like any other, so that hosts are locked, nothing is done twice blindly, and a trace stays. The passwords are no part of
//! it: steps name them, and the controller sends them apart from the plan.

use super::expand::run_as;
use super::runbook::Account;
use super::{Phase, PhasePlan, Plan, PlanError, PlanErrors, PlannedStep, PlatformPlan, Reversibility, StagePlan, StepScope, hash};
use inventory::{Fleet, Host, Platform, Role, SourceVersion};
use proto::inspect::LOGON_PASSWORD;
use proto::step::{Answers, Command, Dialog, Limits, Repeat};
use proto::{Action, Query, RunAs, StepId, StepSpec};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the secret that is the password before.
pub const CURRENT: &str = "internal-password/current";
/// The name of the secret that is the password after. The same as for a logon, which proves it.
pub const NEW: &str = LOGON_PASSWORD;
/// The name of the secret that stands for no password: it is empty.
pub const NONE: &str = "internal-password/none";
/// The step that sets the password.
pub const SET: &str = "set.internal-password";

/// What the vendor's command prints when it has changed the password (domain: the internal password).
const CHANGED: &str = "Password successfully changed for account 'internal'";
/// How long the command may take to ask, in seconds.
const PATIENCE: u64 = 60;

/// Whether a plan sets passwords.
pub fn sets_passwords(plan: &Plan) -> bool {
    plan.platforms.iter().flat_map(|platform| &platform.phases).any(|phase| phase.name == Phase::Passwords)
}

/// Plans to set the `internal` password on all Campaign servers of these platforms. `questions`: what the proofs ask of a host.
///
/// # Errors
/// The plan's hash cannot be computed, which is a defect.
pub fn build(fleet: &Fleet, platforms: &BTreeSet<String>, questions: &dyn Fn(&Host) -> Vec<Query>) -> Result<Plan, PlanErrors> {
    let selected = fleet.platforms.iter().filter(|platform| platforms.contains(&platform.name));
    let platforms: Vec<PlatformPlan> = selected.map(|platform| of_platform(platform, questions)).collect();
    let hash = hash::plan_hash(fleet, &platforms)
        .map_err(|error| PlanErrors(vec![PlanError::Runbook { step: "the plan's hash".to_owned(), problem: error.to_string() }]))?;
    Ok(Plan { fleet: fleet.name.clone(), hash, platforms, files: Vec::new(), warnings: Vec::new() })
}

fn of_platform(platform: &Platform, questions: &dyn Fn(&Host) -> Vec<Query>) -> PlatformPlan {
    let hosts: Vec<&Host> = platform.hosts.iter().filter(|host| host.has_campaign()).collect();
    let phase = |name: Phase, stage: &str, steps: Vec<PlannedStep>| {
        let hosts = steps.iter().map(|step| step.host.clone()).collect();
        let mut roles: Vec<Role> =
            platform.hosts.iter().filter(|host| host.has_campaign()).flat_map(|host| host.roles.clone()).collect();
        roles.sort_unstable();
        roles.dedup();
        PhasePlan { name, stages: vec![StagePlan { name: stage.to_owned(), roles, hosts, tolerant: false, steps }] }
    };
    let set = hosts.iter().map(|host| set(platform, host)).collect();
    let asked = hosts.iter().map(|host| (*host, questions(host))).filter(|(_, queries)| !queries.is_empty());
    let prove = asked.map(|(host, queries)| prove(platform, host, queries)).collect();
    PlatformPlan {
        name: platform.name.clone(),
        topology: platform.topology,
        rehearsal: platform.rehearsal,
        source: "the internal password".to_owned(),
        target: "a new one".to_owned(),
        roles: BTreeMap::new(),
        phases: vec![phase(Phase::Passwords, "set", set), phase(Phase::Verify, "passwords", prove)],
    }
}

fn set(platform: &Platform, host: &Host) -> PlannedStep {
    let way =
        |first: &str, means: &str| Answers { secrets: [first, NEW, NEW].map(str::to_owned).to_vec(), means: means.to_owned() };
    let action = if host.is_windows() {
        Action::Gate {
            gate: format!("{}/windows.{SET}.{}", platform.name, host.name),
            ask: format!("{} runs Windows: set the new internal password there by hand, and confirm", host.name),
            commands: vec!["nlserver config -internalpassword".to_owned()],
        }
    } else {
        let (argv, profile) = command(host);
        Action::Command(Command {
            argv,
            profile,
            ok: vec![0],
            dialog: Some(Dialog {
                ways: vec![way(CURRENT, ""), way(NEW, "it had the new password already"), way(NONE, "none was set before")],
                says: CHANGED.to_owned(),
                patience_s: PATIENCE,
            }),
            ..Command::default()
        })
    };
    let account = if host.is_windows() { RunAs::Login } else { run_as(host, Account::Campaign) };
    PlannedStep {
        reversibility: Reversibility::Compensable,
        source: "the internal password: `nlserver config -internalpassword` asks for the current password, the new one, confirmation"
            .to_owned(),
        explain: "The command asks at a terminal, which the agent gives it; the passwords are typed there and kept nowhere. A server that \
                  refuses the current one is tried again with the new one as its current one, and with none: so it may be run again, and \
                  servers on which none was set come along."
            .to_owned(),
        undo: "Set the password before it again in the same way.".to_owned(),
        ..step(platform, host, (Phase::Passwords, "set", SET), account, action)
    }
}

/// The vendor's command. v5 lives in `nl5` and every other version in `nl6`: where the inventory says v5, the host says whether it was
/// migrated since.
fn command(host: &Host) -> (Vec<String>, Option<String>) {
    let home = &host.campaign.home;
    if host.source.version != SourceVersion::V5_11 {
        let tree = format!("{home}/{}", host.source.version.tree());
        let argv = vec![format!("{tree}/bin/nlserver"), "config".to_owned(), "-internalpassword".to_owned()];
        return (argv, Some(format!("{tree}/env.sh")));
    }
    let script = "t=\"$1/nl6\"; [ -x \"$t/bin/nlserver\" ] || t=\"$1/nl5\"; [ ! -f \"$t/env.sh\" ] || . \"$t/env.sh\"; \
                  exec \"$t/bin/nlserver\" config -internalpassword";
    (["/bin/sh", "-c", script, "sh", home].map(str::to_owned).to_vec(), None)
}

fn prove(platform: &Platform, host: &Host, queries: Vec<Query>) -> PlannedStep {
    PlannedStep {
        source: "prerequisites: the internal password must be identical on all tracking servers".to_owned(),
        explain: "By keyed fingerprints of the stored values, and by a logon at each server's own endpoint.".to_owned(),
        ..step(
            platform,
            host,
            (Phase::Verify, "passwords", "prove.internal-password"),
            run_as(host, Account::Campaign),
            Action::Inspect { queries },
        )
    }
}

fn step(platform: &Platform, host: &Host, (phase, stage, name): (Phase, &str, &str), run_as: RunAs, action: Action) -> PlannedStep {
    let id = StepId(format!("{}/{phase}/{stage}/{}/{name}", platform.name, host.name));
    let verb = if phase == Phase::Passwords { "set" } else { "prove" };
    let title = format!("{verb} the internal password of {}", host.name);
    PlannedStep {
        name: name.to_owned(),
        title: title.clone(),
        short: format!("{verb} password"),
        scope: StepScope::Host,
        host: host.name.clone(),
        instance: None,
        run_as: run_as.clone(),
        action: action.kind().to_owned(),
        command: action.argv(),
        reversibility: Reversibility::Reversible,
        source: String::new(),
        wave: 0,
        explain: String::new(),
        undo: String::new(),
        skip: None,
        spec: StepSpec {
            id: id.clone(),
            title,
            run_as,
            action,
            only_if: None,
            // The command tells by itself what is set, so that it may be started again whatever became of an attempt before.
            probe: None,
            repeat: Repeat::Allowed,
            limits: Limits { deadline_s: 4 * PATIENCE, ..Limits::default() },
        },
        id,
    }
}
