//! How plans read.

use crate::plan_fleet::*;
use controller::plan::{self, Plan};

fn made(platform: inventory::Platform) -> Plan {
    plan(&fleet(vec![platform])).unwrap()
}

/// The text without what differs from release to release: the hash, the package files that these tests do not have.
fn text(platform: inventory::Platform) -> String {
    let mut plan = made(platform);
    plan.hash = "0".repeat(64);
    plan.warnings.retain(|warning| !warning.starts_with("package file"));
    plan::render(&plan, false, 120)
}

#[test]
fn standalone_reads() {
    insta::assert_snapshot!("plan_standalone", text(standalone()));
}

#[test]
fn standard_reads() {
    insta::assert_snapshot!("plan_standard", text(standard()));
}

#[test]
fn cloud_messaging_reads() {
    insta::assert_snapshot!("plan_cloud_messaging", text(cloud_messaging()));
}

#[test]
fn power_booster_reads() {
    insta::assert_snapshot!("plan_power_booster", text(power_booster()));
}

#[test]
fn power_cluster_reads() {
    insta::assert_snapshot!("plan_power_cluster", text(power_cluster()));
}

#[test]
fn windows_reads() {
    insta::assert_snapshot!("plan_windows", text(with_windows()));
}

#[test]
fn several_roles_read() {
    insta::assert_snapshot!("plan_several_roles", text(several_roles()));
}

#[test]
fn overrides_read() {
    insta::assert_snapshot!("plan_overrides", text(overridden()));
}

#[test]
fn steps_are_explained_by_name_number_and_id() {
    let plan = made(standard());
    let explained = |asked: &str| plan::explain(&plan, asked, false, 100).unwrap();
    insta::assert_snapshot!("explain_postupgrade", explained("postupgrade"));
    insta::assert_snapshot!("explain_stop_web_server", explained("stop.web-server"));
    insta::assert_snapshot!("explain_carry", explained("carry.redirection"));
    assert_eq!(explained("postupgrade"), explained("emea/migrate/marketing/mkt1:emea_prod/postupgrade"));
    assert_eq!(explained("postupgrade"), explained("4.1.10"));
    insta::assert_snapshot!("explain_start_mta", explained("start.mta"));
    insta::assert_snapshot!("explain_stage", explained("4.1"));
    // One id is one host; the name is all of them.
    assert!(!explained("emea/stop/web-servers/trk01/stop.web-server").contains("httpd"));
}

#[test]
fn an_unknown_step_has_a_suggestion() {
    let plan = made(standard());
    let error = plan::explain(&plan, "postupgrad", false, 100).unwrap_err();
    assert_eq!(error.similar.as_deref(), Some("postupgrade"));
    assert!(error.to_string().contains("did you mean `postupgrade`?"), "{error}");
}

#[test]
fn every_step_can_be_explained() {
    for platform in [standalone(), standard(), cloud_messaging(), power_booster(), power_cluster(), with_windows(), overridden()] {
        let plan = made(platform);
        for step in plan.platforms.iter().flat_map(plan::PlatformPlan::steps) {
            let text = plan::explain(&plan, &step.id.0, false, 100).unwrap();
            assert!(text.contains(&step.name) && text.contains("does") && text.contains("proof"), "{text}");
        }
    }
}

#[test]
fn lines_keep_to_the_width_and_colour_is_only_added() {
    for platform in [standard(), cloud_messaging(), power_cluster(), with_windows(), overridden()] {
        let mut plan = made(platform);
        plan.warnings.clear();
        let narrow = plan::render(&plan, false, 80);
        for line in narrow.lines() {
            let one_word = line.split_whitespace().count() <= 1;
            assert!(line.chars().count() <= 80 || one_word, "{} columns: {line}", line.chars().count());
        }
        assert!(!narrow.contains('\x1b'));
        let mut plain = String::new();
        let mut rest = plan::render(&plan, true, 80);
        while let Some(start) = rest.find('\x1b') {
            plain.push_str(&rest[..start]);
            let end = start + rest[start..].find('m').unwrap() + 1;
            rest = rest[end..].to_owned();
        }
        plain.push_str(&rest);
        assert_eq!(plain, narrow);
    }
}
