//! The name of a copy that a host offers, where it would be written: it leads to no other file of the workstation.

use crate::rebuild_tests::world::{plan, step};
use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use controller::plan::{Phase, PlatformPlan};
use controller::run::journal::Journal;
use controller::run::options::HostOptions;
use controller::run::state::Bounds;
use controller::run::{Engine, Observer, Options, Signal};
use proto::event::Event;
use proto::message::{Attempt, Offered};
use proto::step::{Action, KeepTo, RunAs, StepId};
use proto::{FromAgent, ToAgent};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A host whose only step offers a file at once. Says what it was answered.
struct Offering(mpsc::UnboundedSender<ToAgent>);

fn digest() -> String {
    "a".repeat(64)
}

impl Hosts for Offering {
    async fn open(&self, _: &str, _: bool) -> Result<Link, OpenError> {
        let (to, mut orders) = mpsc::channel::<Outgoing>(16);
        let (tell, from) = mpsc::channel(16);
        let answered = self.0.clone();
        tokio::spawn(async move {
            while let Some(Outgoing::Message(order)) = orders.recv().await {
                let said = match order {
                    ToAgent::Attach { .. } => FromAgent::Attached { host_seq: 0, open: Vec::new(), token: 1 },
                    ToAgent::Grant { steps, .. } => FromAgent::Offer {
                        attempt: Attempt { step: steps[0].spec.id.clone(), attempt: steps[0].attempt },
                        file: Offered { sha256: digest(), size: 3, plain_sha256: digest(), plain_size: 3 },
                    },
                    answer @ (ToAgent::FileRefused { .. } | ToAgent::FileKept { .. } | ToAgent::Fetch { .. }) => {
                        let _ = answered.send(answer);
                        continue;
                    }
                    _ => continue,
                };
                let _ = tell.send(Incoming::Message(said)).await;
            }
        });
        Ok(Link { agent: AgentHello::default(), to, from })
    }
}

struct Blind;

impl Observer for Blind {
    fn event(&mut self, _: &Event) {}
    fn line(&mut self, _: &str, _: &StepId, _: &str) {}
}

/// What a host is answered that offers a copy of this name.
async fn answer(name: &str, dir: &Path) -> ToAgent {
    let mut plan = plan(&[(1, 1, 1, 1)]);
    let action =
        Action::Keep { source: "/tmp/x".into(), name: name.into(), to: KeepTo::Workstation, encrypt_to: Vec::new(), limit: None };
    let platform: &mut PlatformPlan = &mut plan.platforms[0];
    platform.phases.truncate(1);
    platform.phases[0].stages.truncate(1);
    platform.phases[0].stages[0].steps = vec![step("p0", Phase::Preflight, "facts", "p0-h0", 0, 0, action)];
    let option = HostOptions { host_state: "/s".into(), root: false, run_as: RunAs::Login, secrets: BTreeMap::new() };
    let options = Options {
        command: "migrate".into(),
        run: "r1".into(),
        claim: Default::default(),
        bounds: Bounds {
            platforms: [String::from("p0")].into(),
            limit: None,
            parallel_platforms: 1,
            parallel_hosts: 1,
            conditions: Default::default(),
        },
        limit_text: None,
        hosts: BTreeMap::from([("p0-h0".into(), option)]),
        files: HashMap::new(),
        dir: dir.to_owned(),
        confirmed: BTreeMap::new(),
        accepted: BTreeMap::new(),
        abort: None,
        patience: Duration::from_secs(2),
        judge: Box::new(|_, _, _| Vec::new()),
        again: Box::new(|_, _| BTreeMap::new()),
        reader: Box::new(|_, _, _| Vec::new()),
        clock: controller::run::touch::Clock::default(),
        asker: None,
    };
    let (tell, mut answers) = mpsc::unbounded_channel();
    let journal = Journal::create(&dir.join("journal.jsonl"), "r1").unwrap();
    let (say, commands) = mpsc::channel(1);
    let mut blind = Blind;
    let engine = Engine::new(Arc::new(plan), Arc::new(Offering(tell)), options, journal, &mut blind).unwrap();
    let first = async {
        let answer = answers.recv().await.unwrap();
        say.send(Signal::Detach.into()).await.unwrap();
        answer
    };
    let (_, answer) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(engine.run(commands), first) }).await.unwrap();
    answer
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_where_it_is_used() {
    for name in ["../../x", "/etc/passwd", "a/b", "..", ".", "", ".bashrc", "a/", "x\n"] {
        let dir = tempfile::tempdir().unwrap();
        let answer = answer(name, dir.path()).await;
        let ToAgent::FileRefused { reason, .. } = &answer else { panic!("{name}: {answer:?}") };
        assert!(reason.contains("is no name of a copy"), "{reason}");
    }
    let dir = tempfile::tempdir().unwrap();
    let answer = answer("nl6.back.tar.gz.age", dir.path()).await;
    assert!(matches!(answer, ToAgent::Fetch { .. }), "{answer:?}");
}
