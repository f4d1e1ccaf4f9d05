//! What a site keeps from starting stays down: the configuration of a server says what it runs.

use harness::Site;
use proto::event::{Kind, Outcome};

/// How a step ended on each of its subjects, and what was said of it.
fn ends(site: &Site, name: &str) -> Vec<(String, Outcome, String)> {
    let mut ends = Vec::new();
    for event in site.events() {
        if let (Some(step), Kind::StepFinished { outcome, message, .. }) = (event.scope.step, event.kind)
            && step.ends_with(&format!("/{name}"))
        {
            ends.push((step, outcome, message));
        }
    }
    ends
}

#[test]
fn modules_that_the_configuration_does_not_name_stay_down_and_the_run_is_ok() {
    let site = Site::new(
        "
platforms:
  - name: emea
    topology: standard
    hosts: { marketing: 1, mta: 2, tracking: 1 }
    disabled: { emea-mta1: [inMail] }
    without: { emea-mta2: [emea_2] }
    instances: 2
",
    );
    site.migrate(&[]).expect(0);

    site.assert_no_violations();
    let running = |name: &str| -> Vec<String> {
        let (_, host) = site.lab.layout().host(name).expect("a host of the lab");
        let running = lab::running(host).expect("a list of what runs");
        running.into_iter().map(|entry| entry.name).collect()
    };
    let (first, second) = (running("emea-mta1"), running("emea-mta2"));
    assert!(first.contains(&"mta@emea".to_owned()) && first.contains(&"mta@emea_2".to_owned()), "{first:?}");
    assert!(!first.iter().any(|name| name.starts_with("inMail@")), "{first:?}");
    assert!(second.contains(&"inMail@emea".to_owned()), "{second:?}");
    assert!(!second.iter().any(|name| name.ends_with("@emea_2")), "{second:?}");

    let inmail = ends(&site, "start.inMail");
    assert_eq!(inmail.len(), 4, "{inmail:?}");
    for (step, outcome, message) in inmail {
        let skipped = step.contains("emea-mta1:") || step.contains("emea-mta2:emea_2");
        assert_eq!(outcome, if skipped { Outcome::Skipped } else { Outcome::Ok }, "{step}: {message}");
        assert_eq!(message.contains("does not apply") && message.contains("config-emea"), skipped, "{step}: {message}");
    }
}
