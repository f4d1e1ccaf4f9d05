//! Asks the hosts: one link, one question and one answer each, side by side.

use super::readings::{HostState, Reached, Readings, Unreached};
use super::{Point, facts, passwords, queries};
use crate::hosts::{Hosts, Incoming, Link, Outgoing};
use inventory::{BecomeMethod, Fleet, Host, Platform};
use passwords::ProofKey;
use proto::inspect::{FINGERPRINT_KEY, LOGON_PASSWORD, LOGON_SINCE, Query, ReadError, Reading};
use proto::{FromAgent, RunAs, Secret, ToAgent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The only question of a link, so its number is fixed.
const INSPECT_ID: u32 = 1;

/// How long and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long opening one host may take. A transport has closer limits of its own; this one lets hosts wait for their turn at a
    /// bastion, and a person type a password.
    pub open: Duration,
    /// How long an open host may take to answer.
    pub answer: Duration,
    /// How many hosts are asked at the same time; at least one is.
    pub hosts: usize,
}

impl Limits {
    /// The fleet's own `parallel.hosts`; ten minutes to open a host, and two to answer, which an `nlserver pdump` and a package
    /// manager on a busy server fit in.
    pub fn of(fleet: &Fleet) -> Self {
        Self { open: Duration::from_secs(600), answer: Duration::from_secs(120), hosts: fleet.parallel.hosts }
    }
}

/// Asks every selected host of the fleet what the prerequisites need to know, and closes the links. Windows hosts are not asked.
/// Each selected host that can be asked is in the result, reached or not.
///
/// `databases` has the passwords of the databases that are asked ([`super::database_passwords`]). One that is not there makes its
/// findings unknown.
pub async fn gather<H: Hosts>(
    hosts: &Arc<H>,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    when: Point,
    (key, databases): (&ProofKey, &DatabasePasswords),
    limits: Limits,
) -> BTreeMap<String, HostState> {
    let questions = |platform: &Platform, host: &Host| {
        let mut queries = queries(platform, host, when);
        queries.extend(passwords::query(host, when));
        Asked { secrets: databases_of(platform, &queries, databases), queries }
    };
    ask_all(hosts, fleet, selected, questions, key, limits).await
}

/// Passwords of databases, by platform and the name that questions have for them.
pub type DatabasePasswords = BTreeMap<(String, String), Secret>;

/// The passwords that these questions need, by the name that they have in them.
fn databases_of(platform: &Platform, queries: &[Query], known: &DatabasePasswords) -> BTreeMap<String, Secret> {
    let known = |name: &str| known.get(&(platform.name.clone(), name.to_owned()));
    let wanted = queries.iter().flat_map(Query::secrets);
    wanted.filter_map(|name| Some((name.to_owned(), known(name)?.clone()))).collect()
}

/// What one host is asked, and the secrets that go with it.
struct Asked {
    queries: Vec<Query>,
    secrets: BTreeMap<String, Secret>,
}

impl From<Vec<Query>> for Asked {
    fn from(queries: Vec<Query>) -> Self {
        Self { queries, secrets: BTreeMap::new() }
    }
}

/// Asks every selected Campaign host for the fingerprint of its `internal` password and, on the platforms of `logons`, to try a logon
/// with the platform's password; for nothing else. Otherwise as [`gather`].
pub async fn gather_passwords<H: Hosts>(
    hosts: &Arc<H>,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    (key, logons): (&ProofKey, &BTreeMap<String, Secret>),
    limits: Limits,
) -> BTreeMap<String, HostState> {
    let questions = |platform: &Platform, host: &Host| {
        let mut asked = Asked::from(passwords::queries(host));
        if let (Some(password), Some(query)) = (logons.get(&platform.name), passwords::logon::query(host)) {
            asked.queries.push(query);
            asked.secrets.insert(LOGON_PASSWORD.to_owned(), password.clone());
        }
        asked
    };
    ask_all(hosts, fleet, selected, questions, key, limits).await
}

/// Asks every selected host for the facts that a saved plan rests on, and for nothing else. Otherwise as [`gather`].
pub async fn gather_facts<H: Hosts>(
    hosts: &Arc<H>,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    key: &ProofKey,
    limits: Limits,
) -> BTreeMap<String, HostState> {
    ask_all(hosts, fleet, selected, |_, host| facts::questions(host).into(), key, limits).await
}

async fn ask_all<H: Hosts>(
    hosts: &Arc<H>,
    fleet: &Fleet,
    selected: &BTreeSet<String>,
    questions: impl Fn(&Platform, &Host) -> Asked,
    key: &ProofKey,
    limits: Limits,
) -> BTreeMap<String, HostState> {
    let turns = Arc::new(Semaphore::new(limits.hosts.max(1)));
    let mut tasks = JoinSet::new();
    let mut states = BTreeMap::new();
    let all = fleet.platforms.iter().flat_map(|platform| platform.hosts.iter().map(move |host| (platform, host)));
    for (platform, host) in all.filter(|(_, host)| selected.contains(&host.name)) {
        let Asked { queries, mut secrets } = questions(platform, host);
        if queries.is_empty() {
            continue;
        }
        // A task that dies leaves this behind: never a host that is silently missing.
        let died = HostState::Unreachable { reason: format!("{}: asking it was given up", host.name), kind: Unreached::Agent };
        states.insert(host.name.clone(), died);
        secrets.insert(FINGERPRINT_KEY.to_owned(), key.secret());
        let (hosts, turns) = (Arc::clone(hosts), Arc::clone(&turns));
        let question = Question { host: host.name.clone(), root: wants_root(host), run_as: run_as(host), queries, secrets };
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            (question.host.clone(), ask(&*hosts, question, limits).await)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Ok((name, state)) = ended {
            states.insert(name, state);
        }
    }
    states
}

fn too_late(host: &str, what: &str, limit: Duration) -> HostState {
    let reason =
        format!("{host}: no {what} within {} s. Look at the host's load and at the line to it, then try again.", limit.as_secs());
    HostState::Unreachable { reason, kind: Unreached::TimedOut }
}

/// What is asked of one host.
struct Question {
    host: String,
    root: bool,
    run_as: RunAs,
    queries: Vec<Query>,
    secrets: BTreeMap<String, Secret>,
}

/// `serverConf.xml` can be read by the Campaign account alone, so wherever the agent can become root it does.
fn wants_root(host: &Host) -> bool {
    host.become_.method != BecomeMethod::None
}

/// The procedure runs `nlserver` as the Campaign account, so it is asked as that account, too.
fn run_as(host: &Host) -> RunAs {
    if host.has_root() && host.has_campaign() { RunAs::User(host.campaign.user.clone()) } else { RunAs::Login }
}

async fn ask<H: Hosts>(hosts: &H, question: Question, limits: Limits) -> HostState {
    let name = question.host.clone();
    match timeout(limits.open, hosts.open(&name, question.root)).await {
        Ok(Ok(link)) => {
            let answer = timeout(limits.answer, inspect(link, question)).await;
            answer.unwrap_or_else(|_| too_late(&name, "answer", limits.answer))
        }
        Ok(Err(error)) => HostState::from_error(&error),
        Err(_) => too_late(&name, "connection", limits.open),
    }
}

/// Dropping the link at the end closes it.
async fn inspect(mut link: Link, question: Question) -> HostState {
    let Question { host, run_as, queries, secrets: mut values, .. } = question;
    let asked_ms = now_ms();
    // An older agent ends over a question that it does not know, and nothing of the host would be known.
    let old = link.agent.protocol < LOGON_SINCE;
    let unknown = |query: &Query| old && matches!(query, Query::Logon { .. });
    if old {
        values.remove(LOGON_PASSWORD);
    }
    let inspect = ToAgent::Inspect { id: INSPECT_ID, queries: queries.iter().filter(|q| !unknown(q)).cloned().collect(), run_as };
    let secrets = ToAgent::Secrets { values };
    for message in [secrets, inspect] {
        // A link that takes nothing any more says why in what it still delivers.
        if link.to.send(Outgoing::Message(message)).await.is_err() {
            break;
        }
    }
    match answer(&mut link).await {
        Ok(answers) => {
            let answered_ms = now_ms();
            let (asked, answered) = (queries.iter().filter(|query| !unknown(query)).count(), answers.len());
            let too_old = || ReadError::Failed(format!("the agent {} there cannot try a logon yet", link.agent.version));
            let mut answers = answers.into_iter();
            let mut readings: Vec<Reading> =
                queries.iter().map_while(|query| if unknown(query) { Some(Err(too_old())) } else { answers.next() }).collect();
            readings.extend(answers);
            match Readings::new(queries, readings) {
                Some(readings) => HostState::Reached(Box::new(Reached { readings, asked_ms, answered_ms, agent: link.agent })),
                None => agent_fault(&host, &format!("it answered {answered} of {asked} questions")),
            }
        }
        Err(Unanswered::Fatal(message)) => agent_fault(&host, &message),
        Err(Unanswered::Closed(reason)) => HostState::Unreachable {
            reason: format!("{host}: the connection ended before the answer was there: {reason}. Try again."),
            kind: Unreached::Lost,
        },
    }
}

fn agent_fault(host: &str, seen: &str) -> HostState {
    HostState::Unreachable {
        reason: format!("{host}: the agent does not answer as it should: {seen}. Try again with -v."),
        kind: Unreached::Agent,
    }
}

enum Unanswered {
    Fatal(String),
    Closed(String),
}

async fn answer(link: &mut Link) -> Result<Vec<Reading>, Unanswered> {
    while let Some(incoming) = link.from.recv().await {
        match incoming {
            Incoming::Message(FromAgent::Inspected { id: INSPECT_ID, readings }) => return Ok(readings),
            Incoming::Message(FromAgent::Fatal { message }) => return Err(Unanswered::Fatal(message)),
            Incoming::Closed { reason } => return Err(Unanswered::Closed(reason)),
            Incoming::Message(_) | Incoming::Data { .. } => {}
        }
    }
    Err(Unanswered::Closed("no reason was given".to_owned()))
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
