//! Many histories, on several threads.

use crate::history::{Setup, Tally, run};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What there was in many histories.
#[derive(Debug, Default)]
pub struct Swept {
    /// Of those without a violation.
    pub tally: Tally,
    /// The seeds of the others, in their order, with what must not have happened.
    pub violations: Vec<(u64, String)>,
}

/// Runs the histories of the seeds from `first` on. After a violation it goes on where `goes_on` says so.
///
/// Without that, the violation is one of the first: histories of several seeds run at once.
pub fn sweep(first: u64, histories: u64, threads: usize, setup: Setup, goes_on: bool) -> Swept {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let swept = Mutex::new(Swept::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Swept::default();
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= histories {
                        break;
                    }
                    let seed = first.wrapping_add(number);
                    match run(seed, setup) {
                        Ok(one) => own.tally.add(one),
                        Err(why) => {
                            own.violations.push((seed, why));
                            over.store(!goes_on, Ordering::Relaxed);
                        }
                    }
                }
                let mut all = swept.lock().unwrap_or_else(PoisonError::into_inner);
                all.tally.add(own.tally);
                all.violations.extend(own.violations);
            });
        }
    });
    let mut swept = swept.into_inner().unwrap_or_else(PoisonError::into_inner);
    swept.violations.sort();
    swept
}
