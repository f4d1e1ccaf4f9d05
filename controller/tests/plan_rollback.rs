//! The way back from single situations, and how it reads.

mod plan_fleet;

use controller::plan::rollback::{Done, Forward, Rollback, build};
use controller::plan::{Plan, PlannedStep, PlatformPlan, explain, render};
use inventory::{Fleet, Platform};
use plan_fleet::*;

const RUN: &str = "2026-11-22-x7k";

/// The plan of a run, as its directory keeps it.
fn plan_of_run(fleet: &Fleet) -> Plan {
    serde_json::from_str(&serde_json::to_string(&plan(fleet).unwrap()).unwrap().replace("{run}", RUN)).unwrap()
}

fn steps(plan: &Plan) -> impl Iterator<Item = &PlannedStep> {
    plan.platforms.iter().flat_map(PlatformPlan::steps)
}

/// The run got as far as to the steps of this name, each of them included.
fn until(plan: &Plan, last: &str) -> Done {
    let end = steps(plan).enumerate().filter(|(_, step)| step.name == last).map(|(index, _)| index).max().unwrap();
    Done { granted: steps(plan).take(end + 1).map(|step| step.id.clone()).collect(), ..Done::default() }
}

fn back(platform: &Platform, last: &str) -> Rollback {
    let fleet = fleet(vec![platform.clone()]);
    let plan = plan_of_run(&fleet);
    build(&fleet, &Forward { run: RUN, plan: &plan, done: &until(&plan, last) }).unwrap()
}

fn text(rollback: &Rollback) -> String {
    format!("{}{}", rollback.notes.render(false, 120), render(&rollback.plan, false, 120))
}

#[test]
fn a_rollback_reads_in_order() {
    insta::assert_snapshot!("rollback_standard", text(&back(&standard(), "verify.build")));
    insta::assert_snapshot!("rollback_before_postupgrade", text(&back(&standard(), "backup.archive")));
    insta::assert_snapshot!("rollback_windows", text(&back(&with_windows(), "start.service")));
    insta::assert_snapshot!("rollback_power_booster", text(&back(&power_booster(), "postupgrade")));
}

#[test]
fn a_step_of_the_way_back_is_explained() {
    let rollback = back(&standard(), "verify.build");
    for step in ["restore.database", "back.tree"] {
        insta::assert_snapshot!(format!("rollback_explain_{step}"), explain(&rollback.plan, step, false, 120).unwrap());
    }
}
