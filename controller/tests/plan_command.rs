//! `caravan plan` as a user meets it.

use crate::plan_fleet::*;
use controller::cli::plan::{PlanArgs, show};
use controller::cli::{Context, Exit, Failure, Format};

fn shown(format: Format, explain: Option<&str>) -> Result<String, Failure> {
    let context =
        Context { inventory: "fleet.yaml".into(), state_dir: "/nonexistent".into(), format, color: (false, false), verbosity: 0 };
    let args = PlanArgs { explain: explain.map(ToOwned::to_owned), output: None };
    show(&context, &args, &fleet(vec![standard(), cloud_messaging()]), 100).map(|outcome| outcome.text)
}

#[test]
fn text_shows_every_platform_and_what_is_missing() {
    let text = shown(Format::Text, None).unwrap();
    assert!(text.starts_with("emea · standard") && text.contains("\ncloud · cloud-messaging"), "{text}");
    assert!(text.contains("warning: package file nlserver6-v7-9383-amd64_deb11.deb: does not exist"), "{text}");
}

#[test]
fn json_keeps_to_the_contract() {
    let plan: serde_json::Value = serde_json::from_str(&shown(Format::Json, None).unwrap()).unwrap();
    assert!(plan["fleet"].is_string() && plan["hash"].is_string());
    for platform in plan["platforms"].as_array().unwrap() {
        assert!(platform["name"].is_string() && platform["topology"].is_string());
        for phase in platform["phases"].as_array().unwrap() {
            for stage in phase["stages"].as_array().unwrap() {
                assert!(stage["name"].is_string() && stage["roles"].is_array() && stage["hosts"].is_array());
                for step in stage["steps"].as_array().unwrap() {
                    for key in ["id", "name", "title", "scope", "host", "run_as", "action", "reversibility", "source"] {
                        assert!(step[key].is_string(), "{key} of {step}");
                    }
                    assert!(["host", "instance", "platform"].contains(&step["scope"].as_str().unwrap()));
                    assert!(["reversible", "compensable", "one-way"].contains(&step["reversibility"].as_str().unwrap()));
                }
            }
        }
    }
}

#[test]
fn one_step_is_explained_as_text_and_as_json() {
    assert!(shown(Format::Text, Some("postupgrade")).unwrap().contains("nlserver config -postupgrade -instance:emea_prod"));
    let steps: serde_json::Value = serde_json::from_str(&shown(Format::Json, Some("postupgrade")).unwrap()).unwrap();
    let ids: Vec<&str> = steps.as_array().unwrap().iter().map(|step| step["id"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "emea/migrate/marketing/mkt1:emea_prod/postupgrade",
            "cloud/migrate/marketing/cm-mkt:cm_prod/postupgrade",
            "cloud/migrate/mid-sourcing/cm-mid:cm_mid/postupgrade"
        ]
    );
}

#[test]
fn a_step_that_is_not_there_is_wrong_usage() {
    for format in [Format::Text, Format::Json] {
        let failure = shown(format, Some("postupgrad")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("did you mean `postupgrade`?"), "{}", failure.message);
    }
}
