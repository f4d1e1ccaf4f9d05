//! The simulated world as one thing: its hosts and what lies between them and the controllers. Moved on by one task, in virtual time.

use crate::faults::{Faults, Luck};
use crate::host::Host;
use crate::net::{Due, Net, WINDOW};
use crate::plant::Plant;
use crate::rng::Rng;
use controller::hosts::{AgentHello, Hosts, Incoming, Link, OpenError, Outgoing};
use proto::FromAgent;
use proto::event::Outcome;
use proto::message::Happened;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
    began: Instant,
}

/// What is behind the world's lock.
pub(crate) struct Inner {
    pub(crate) net: Net,
    pub(crate) hosts: BTreeMap<String, Host>,
}

impl World {
    pub(crate) fn new<'a>(
        rng: &Rng,
        faults: Faults,
        plant: Option<Plant>,
        trace: bool,
        hosts: impl Iterator<Item = &'a str>,
    ) -> Self {
        let net = Net::new(Luck::new(rng.fork("luck"), faults), plant, trace);
        let hosts = hosts.map(|name| (name.to_owned(), Host::new(name))).collect();
        Self(Arc::new(Shared { inner: Mutex::new(Inner { net, hosts }), changed: Notify::new(), began: Instant::now() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.net.now = self.0.began.elapsed().as_millis() as u64;
        inner
    }

    /// Does something with the world at this moment.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let (before, answer, after) = {
            let mut inner = self.lock();
            let before = inner.net.next_at();
            let answer = act(&mut inner);
            (before, answer, inner.net.next_at())
        };
        if before != after {
            self.0.changed.notify_one();
        }
        answer
    }

    /// Nothing goes wrong from here on.
    pub(crate) fn calm(&self) {
        self.with(|world| {
            world.net.luck.faults.calm();
            world.net.open_ways();
            world.hosts.values_mut().for_each(|host| host.disk.full = false);
        });
    }

    /// Moves the world on until it is dropped.
    pub(crate) async fn go_on(self) {
        loop {
            let next = {
                let mut inner = self.lock();
                while let Some(due) = inner.net.pop() {
                    inner.handle(due);
                }
                inner.net.next_at()
            };
            let changed = self.0.changed.notified();
            match next {
                Some(at) => {
                    let at = self.0.began + Duration::from_millis(at);
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }
}

impl Inner {
    fn handle(&mut self, due: Due) {
        let Self { net, hosts } = self;
        match due {
            Due::ToHost(link, message) => {
                if !net.arrives(link) {
                    return;
                }
                let host = net.host_of(link).and_then(|name| hosts.get_mut(name));
                if let Some(host) = host {
                    net.trace(|| format!("to {} on {link}: {message:?}", host.disk.host));
                    host.message(net, link, *message);
                }
            }
            Due::ToController(link, incoming) => {
                let mut incoming = *incoming;
                net.trace(|| format!("to the controller on {link}: {incoming:?}"));
                if net.plant == Some(Plant::UnknownIsDone) {
                    unknown_is_done(&mut incoming);
                }
                net.deliver(link, incoming);
            }
            Due::Gone(link) => {
                if let Some(host) = net.gone(link).and_then(|name| hosts.get_mut(&name)) {
                    host.gone(link);
                }
            }
            Due::Process(name, pid, moment) => {
                if let Some(host) = hosts.get_mut(&name) {
                    host.process(net, pid, moment);
                }
            }
            Due::Crash(name) => {
                if let Some(host) = hosts.get_mut(&name) {
                    host.crash(net);
                }
            }
            Due::Down(name) => {
                if let Some(host) = hosts.get_mut(&name) {
                    host.go_down(net);
                }
            }
            Due::Room(name) => {
                if let Some(host) = hosts.get_mut(&name) {
                    host.disk.full = false;
                }
            }
        }
    }
}

fn unknown_is_done(incoming: &mut Incoming) {
    if let Incoming::Message(FromAgent::Event(event)) = incoming
        && let Happened::Finished { outcome, .. } = &mut event.what
        && *outcome == Outcome::Unknown
    {
        *outcome = Outcome::Ok;
    }
}

/// The way of one life of a controller to the hosts.
pub(crate) struct Way {
    pub(crate) world: World,
    pub(crate) life: u64,
}

impl Hosts for Way {
    fn open(&self, host: &str, _root: bool) -> impl Future<Output = Result<Link, OpenError>> + Send {
        let (world, life, host) = (self.world.clone(), self.life, host.to_owned());
        async move {
            let (wait, reached) = world.with(|w| w.net.reach(&host));
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if !reached || world.with(|w| w.net.is_away(&host)) {
                return Err(OpenError::Unreachable { host, seen: "no route".into(), next: "Mend it".into() });
            }
            let (to, mut orders) = mpsc::channel::<Outgoing>(64);
            let (to_controller, from) = mpsc::channel(WINDOW);
            let link = world.with(|w| w.net.open_line(&host, life, to_controller));
            tokio::spawn(async move {
                while let Some(outgoing) = orders.recv().await {
                    if let Outgoing::Message(message) = outgoing {
                        world.with(|w| w.net.send_to_host(link, message));
                    }
                }
                world.with(|w| w.net.close_here(link));
            });
            Ok(Link { agent: AgentHello::default(), to, from })
        }
    }

    fn jitter(&self) -> u8 {
        self.world.with(|w| w.net.luck.rng().below(256) as u8)
    }
}
