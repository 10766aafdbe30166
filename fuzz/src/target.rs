//! The loop: cases are made and tried until their number or the time is over, one that fails is made small, and one line
//! says what was tried.
//!
//! `PROPTEST_CASES` says how many cases, as for every property test. `CHORUS_FUZZ_SECONDS` says for how long instead. Without
//! either it is 256 cases or a second, whichever comes first.

use std::cell::Cell;
use std::env;
use std::fmt::Debug;
use std::panic;
use std::sync::Once;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

/// What a decoder said of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It took it, or a part of it.
    Accepted,
    /// It took nothing.
    Refused,
}

impl Verdict {
    /// Accepted where something was.
    pub fn of(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}

/// A case that takes longer than this hangs. Machines are slow at times, and nothing here takes a tenth of it.
const LONGEST: Duration = Duration::from_secs(10);
/// Of so many cases not all can be of one kind: the target would say nothing.
const TELLING: u32 = 200;
/// For one target in an ordinary run of the tests.
const SHORT: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether this thread tries cases.
    static TRYING: Cell<bool> = const { Cell::new(false) };
    /// Where it panicked last.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

enum Effort {
    Cases(u32),
    Short(u32),
    Time(Duration),
}

impl Effort {
    fn of_environment(cases: u32) -> Self {
        let seconds = env::var("CHORUS_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        match seconds {
            Some(seconds) => Self::Time(Duration::from_secs(seconds)),
            None if env::var_os("PROPTEST_CASES").is_some() => Self::Cases(cases),
            None => Self::Short(cases),
        }
    }

    fn is_left(&self, cases: u32, since: Instant) -> bool {
        match self {
            Self::Cases(most) => cases < *most,
            Self::Short(most) => cases < *most && since.elapsed() < SHORT,
            Self::Time(time) => since.elapsed() < *time,
        }
    }
}

/// Tries a property on cases of a strategy.
///
/// # Panics
/// A case fails: the smallest like it is in the message, and where it failed. A case takes very long. All of many cases are
/// accepted, or all are refused.
pub fn fuzz<S>(target: &str, strategy: S, property: impl Fn(S::Value) -> Verdict)
where
    S: Strategy,
    S::Value: Debug,
{
    keep_places();
    let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let effort = Effort::of_environment(config.cases);
    let mut runner = TestRunner::new(config);
    let (start, mut cases) = (Instant::now(), 0);
    let (accepted, slowest) = (Cell::new(0_u32), Cell::new(Duration::ZERO));
    let mut failed = None;
    TRYING.set(true);
    while failed.is_none() && effort.is_left(cases, start) {
        #[expect(clippy::expect_used, reason = "no strategy here filters so much that none is left")]
        let case = strategy.new_tree(&mut runner).expect("a case");
        let verdict = Cell::new(Verdict::Refused);
        let tried = runner.run_one(case, |value| {
            let began = Instant::now();
            verdict.set(property(value));
            slowest.set(slowest.get().max(began.elapsed()));
            assert!(began.elapsed() < LONGEST, "it took {:?}", began.elapsed());
            Ok(())
        });
        cases += 1;
        accepted.set(accepted.get() + u32::from(verdict.get() == Verdict::Accepted));
        failed = tried.err();
    }
    TRYING.set(false);
    let (seconds, slowest, accepted) = (start.elapsed().as_secs_f64(), slowest.get(), accepted.get());
    let failures = u32::from(failed.is_some());
    println!(
        "fuzz\t{target}\t{cases} cases\t{seconds:.1} s\t{accepted} accepted\tslowest {slowest:.0?}\t{failures} failures"
    );
    if let Some(failure) = failed {
        panic!("{target}, case {cases}: {failure}\nat {}", PLACE.take().unwrap_or_default());
    }
    assert!(cases < TELLING || (1..cases).contains(&accepted), "{accepted} of {cases} cases were accepted");
}

/// Decoders that catch panics of their libraries would write a page for each, and so would every attempt at a smaller case:
/// where a thread panicked last is kept instead while it tries cases.
fn keep_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_trying = TRYING.try_with(Cell::get).unwrap_or(false);
            if is_trying {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;

    use super::*;

    #[test]
    #[should_panic(expected = "minimal failing input: 100")]
    fn a_case_that_fails_is_made_small() {
        fuzz("a number below 100", any::<u8>(), |number| {
            assert!(number < 100);
            Verdict::of(number < 50)
        });
    }

    #[test]
    #[should_panic(expected = "0 of")]
    fn a_target_that_accepts_nothing_says_nothing() {
        fuzz("nothing", any::<u8>(), |_| Verdict::Refused);
    }
}
