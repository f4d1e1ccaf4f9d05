//! What goes wrong in a history, and how often. Each history has its own mixture, so that every kind of fault also comes alone.

use crate::rng::Rng;

/// How often each kind of fault strikes, in parts of 10,000 of the moments at which it could.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// A connection drops, for each message on it.
    pub(crate) cut: u32,
    /// A connection that drops takes the way to the host with it for a while.
    pub(crate) partition: u32,
    /// The supervisor dies, for each durable write and for each step.
    pub(crate) supervisor: u32,
    /// A runner dies, for each step.
    pub(crate) runner: u32,
    /// The host goes down and comes up again, for each durable write and for each step.
    pub(crate) reboot: u32,
    /// The host's disk is full, for each durable write.
    pub(crate) host_full: u32,
    /// The host's clock jumps, for each step.
    pub(crate) clock: u32,
    /// A step fails, with or without its effect, for each attempt.
    pub(crate) failure: u32,
    /// A probe cannot tell, for each look.
    pub(crate) blind: u32,
    /// The controller dies, for each append to its journal.
    pub(crate) kill: u32,
    /// The controller's disk is full, for each append to its journal.
    pub(crate) full: u32,
    /// The operator pauses or leaves, for each life of a controller.
    pub(crate) signal: u32,
    /// Somebody else works on the same fleet, for each history.
    pub(crate) rival: u32,
    /// A platform's findings hold it up at first, for each platform.
    pub(crate) red: u32,
    /// The longest time in milliseconds that a message needs.
    pub(crate) latency: u64,
    /// How many faults there may be in all. After the last one everything works, so that the run has to come to its end.
    pub(crate) budget: u32,
}

impl Faults {
    /// A mixture for the stream of numbers.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // Half of the kinds are left out of a history; the others are rare or frequent.
        let mut often = |rare: u32, frequent: u32| rng.weighted(&[(5, 0), (3, rare), (2, frequent)]);
        Self {
            cut: often(100, 600),
            partition: often(1000, 5000),
            supervisor: often(100, 800),
            runner: often(300, 1500),
            reboot: often(50, 400),
            host_full: often(50, 300),
            clock: often(500, 5000),
            failure: often(300, 1500),
            blind: often(500, 5000),
            kill: often(100, 500),
            full: often(50, 200),
            signal: often(1000, 4000),
            rival: often(2000, 10_000),
            red: often(500, 2000),
            latency: rng.weighted(&[(6, 20), (3, 200), (1, 5000)]),
            budget: rng.between(1, 24) as u32,
        }
    }

    /// Nothing more goes wrong.
    pub(crate) fn calm(&mut self) {
        *self = Self { latency: self.latency.min(20), ..Self::default() };
    }
}

/// What strikes, and what is left of it.
#[derive(Debug)]
pub(crate) struct Luck {
    rng: Rng,
    /// How often.
    pub(crate) faults: Faults,
    /// How many faults there were.
    pub(crate) struck: u32,
}

impl Luck {
    pub(crate) fn new(rng: Rng, faults: Faults) -> Self {
        Self { rng, faults, struck: 0 }
    }

    /// Whether a fault strikes now.
    pub(crate) fn strikes(&mut self, kind: impl Fn(&Faults) -> u32) -> bool {
        let parts = kind(&self.faults);
        // Nothing is drawn for a kind that cannot come: so a history keeps its course when a kind is taken out of it.
        if parts == 0 || !self.rng.chance(parts) {
            return false;
        }
        self.struck += 1;
        self.faults.budget = self.faults.budget.saturating_sub(1);
        if self.faults.budget == 0 {
            self.faults.calm();
        }
        true
    }

    /// Numbers for how a fault strikes.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}
