//! What goes wrong when, from a seed. Knows nothing about what it does to whom.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};

/// Something that goes wrong with one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its process is gone, and back after this long.
    Crash(Duration),
    /// It is asked to stop, and is started again after this long.
    Restart(Duration),
    /// Nothing gets to it or from it for this long, and nobody is told.
    Partition(Duration),
    /// What is sent stays under way for this long.
    Delay(Duration),
}

/// A fault at a time, at the worker, the coordinator or the caller of this number.
pub(crate) type Planned = (Duration, usize, Fault);

/// So much of a history has faults.
pub(crate) const TROUBLE: Duration = Duration::from_millis(2500);

/// The faults of a history, in order. The worker `spared` has none.
pub(crate) fn plan(random: &mut StdRng, workers: usize, spared: Option<usize>) -> Vec<Planned> {
    let count = random.random_range(6..30);
    let mut faults: Vec<Planned> = (0..count)
        .map(|_| {
            let at = millis(random, 50..TROUBLE.as_millis() as u64);
            let lasts = millis(random, 5..900);
            let fault = match random.random_range(0..4) {
                0 => Fault::Crash(lasts),
                1 => Fault::Restart(lasts / 4),
                2 => Fault::Partition(lasts),
                _ => Fault::Delay(lasts),
            };
            (at, random.random_range(0..workers), fault)
        })
        .filter(|(_, worker, _)| Some(*worker) != spared)
        .collect();
    faults.sort_by_key(|(at, ..)| *at);
    faults
}

/// What goes wrong on the way between callers and coordinators, in order.
pub(crate) fn plan_of_callers(random: &mut StdRng, callers: usize) -> Vec<Planned> {
    let mut faults = Vec::new();
    for caller in 0..callers {
        for _ in 0..random.random_range(0..3) {
            let at = millis(random, 50..TROUBLE.as_millis() as u64);
            let lasts = millis(random, 5..900);
            let is_cut = random.random_bool(0.2);
            faults.push((at, caller, if is_cut { Fault::Partition(lasts) } else { Fault::Delay(lasts) }));
        }
    }
    faults.sort_by_key(|(at, ..)| *at);
    faults
}

/// Crashes of coordinators, in order.
pub(crate) fn plan_of_coordinators(random: &mut StdRng, coordinators: usize) -> Vec<Planned> {
    let mut faults = Vec::new();
    for coordinator in 0..coordinators {
        if random.random_bool(0.3) {
            let at = millis(random, 50..TROUBLE.as_millis() as u64);
            faults.push((at, coordinator, Fault::Crash(millis(random, 5..900))));
        }
    }
    faults
}

/// Those of one host.
pub(crate) fn of(host: usize, plan: &[Planned]) -> Vec<Fault> {
    plan.iter().filter(|(_, other, _)| *other == host).map(|(.., fault)| *fault).collect()
}

fn millis(random: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}
