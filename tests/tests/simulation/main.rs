//! Seeded simulation: the real coordinators and the real workers, with small models, in one simulated network and one
//! simulated time, under crashes, partitions, delays, restarts, cancellations and hostile workers. A seed is a whole history,
//! and the same one every time.
//!
//! `CHORUS_SEEDS=1000` runs so many seeds (from `CHORUS_FIRST_SEED` on), `CHORUS_SEED=17` that one, with a log of what happened.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod calls;
mod faults;
mod network;
mod reference;
mod world;

use std::env;

use world::{Outcome, World};

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, not a number")))
}

/// Every invariant, in each of many histories.
#[test]
fn whatever_happens_no_request_is_lost_and_no_answer_is_wrong() {
    let world = World::new();
    if let Some(seed) = number("CHORUS_SEED") {
        // What the processes have to say is `RUST_LOG`'s to choose.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().init();
        // Line by line, since what follows may be a panic.
        println!("{}", world.told(|line| println!("{line}")).run(seed).summary());
        return;
    }
    let seeds = number("CHORUS_SEEDS").unwrap_or(SEEDS);
    let first = number("CHORUS_FIRST_SEED").unwrap_or(0);
    let mut all = Outcome::default();
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(seed)));
        match outcome {
            Ok(outcome) => all.add(&outcome),
            Err(panic) => {
                eprintln!("seed {seed} failed; `CHORUS_SEED={seed}` replays it");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds: {}", all.summary());
    // Histories in which nothing happens would prove nothing.
    assert!(all.calls > 10 * seeds && all.faults > 2 * seeds, "{}", all.summary());
    assert!(seeds < 50 || (all.takeovers > 0 && all.degraded > 0 && all.cancelled > 0), "{}", all.summary());
}

/// A seed that failed can be looked at again.
#[test]
fn a_seed_is_the_same_history_to_the_byte() {
    let world = World::new();
    for seed in [3, 4] {
        let (first, second) = (world.run(seed), world.run(seed));
        let differs = first.log.iter().zip(&second.log).position(|(one, other)| one != other);
        if let Some(line) = differs {
            panic!("seed {seed}, line {line}:\n{}\n{}", first.log[line], second.log[line]);
        }
        assert_eq!(first.log.len(), second.log.len());
    }
    assert_ne!(world.run(3).log, world.run(4).log);
}
