//! Seeded simulation: the real coordinators and the real workers, with small models, in one simulated network and one
//! simulated time, under crashes, partitions, delays, restarts, cancellations and hostile workers. A seed is a whole history,
//! and the same one every time, to the byte of every packet.
//!
//! `CHORUS_SEEDS=1000` runs so many seeds (from `CHORUS_FIRST_SEED` on), `CHORUS_SEED=17` that one, with a log of what
//! happened: `RUST_LOG` chooses what the processes say of it, and `CHORUS_PACKETS=FILE` has all packets.
//!
//! The clock of this process stands still outside of a history, so a harness that waits for a time would not wait.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod calls;
mod chance;
mod child;
mod faults;
mod network;
mod reference;
mod world;

use std::{
    env,
    fs::File,
    io::BufWriter,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use libtest_mimic::{Arguments, Trial};
use tracing::subscriber::with_default;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, layer::SubscriberExt as _};
use world::{HISTORY, Outcome, World};

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 200;

fn main() -> ExitCode {
    if let Some(seed) = number(child::SEED) {
        play(seed);
        return ExitCode::SUCCESS;
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("whatever_happens_no_request_is_lost_and_no_answer_is_wrong", every_invariant_holds),
        trial("a_seed_is_the_same_history_to_the_byte", a_seed_is_the_same_history),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}, not a number")))
}

/// Every invariant, in each of many histories.
fn every_invariant_holds() {
    let (seeds, first) = (number("CHORUS_SEEDS").unwrap_or(SEEDS), number("CHORUS_FIRST_SEED").unwrap_or(0));
    let all = play_all(first, seeds).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{seeds} seeds: {}", all.summary());
    // Histories in which nothing happens would prove nothing.
    assert!(all.calls > 10 * seeds && all.faults > 2 * seeds, "{}", all.summary());
    assert!(seeds < 50 || (all.takeovers > 0 && all.degraded > 0 && all.cancelled > 0), "{}", all.summary());
}

/// The histories of so many seeds, as many at a time as there are processors, up to the first that fails.
fn play_all(first: u64, seeds: u64) -> Result<Outcome, String> {
    let (next, all) = (AtomicU64::new(first), Mutex::new(Ok(Outcome::default())));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || all.lock().unwrap().is_err() {
                        return;
                    }
                    let played = child::play(seed, None);
                    let mut all = all.lock().unwrap();
                    match (&mut *all, played) {
                        (Ok(all), Ok(outcome)) => all.add(&outcome),
                        (Ok(_), Err(failure)) => *all = Err(failure),
                        // One is enough.
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// One history in this process.
fn play(seed: u64) {
    let history = fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(std::io::stdout)
        // What the processes have to say is `RUST_LOG`'s to choose.
        .with_filter(EnvFilter::from_default_env().add_directive(format!("{HISTORY}=info").parse().unwrap()));
    let packets = env::var_os(child::PACKETS).map(|path| {
        let file = File::create(path).unwrap();
        let filter = EnvFilter::new(format!("off,turmoil=trace,{HISTORY}=info"));
        fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_writer(Mutex::new(BufWriter::new(file)))
            .with_filter(filter)
    });
    let subscriber = tracing_subscriber::registry().with(history).with(packets);
    let world = World::new();
    // What is written of it is whole once the subscriber is gone.
    let outcome = chance::with_seed(seed, || with_default(subscriber, || world.run(seed)));
    println!("{}\n{}", outcome.summary(), outcome.line());
}

/// A seed that failed can be looked at again: the same lines, and the same packets with the same bytes in the same order.
fn a_seed_is_the_same_history() {
    let directory = tempfile::TempDir::new().unwrap();
    let record = |seed: u64, name: &str| -> Vec<String> {
        let path = directory.path().join(name);
        child::play(seed, Some(&path)).unwrap_or_else(|failure| panic!("{failure}"));
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    };
    let (mut last, mut bytes) = (Vec::new(), 0);
    for seed in [3, 4, 10] {
        let (once, again) = (record(seed, "once"), record(seed, "again"));
        let differs = once.iter().zip(&again).position(|(one, other)| one != other);
        if let Some(line) = differs {
            panic!("seed {seed}, line {line}:\n{}\n{}", once[line], again[line]);
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
        assert!(once.iter().filter(|line| line.contains("TCP [")).count() > 1000, "packets are recorded");
        assert!(once.iter().any(|line| line.contains("caller-0 call 0")), "and what happened is");
        assert_ne!(once, last, "another seed is another history");
        bytes += once.iter().map(String::len).sum::<usize>();
        last = once;
    }
    println!("{} MB of packets were the same", bytes / 1_000_000);
}
