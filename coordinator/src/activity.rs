//! [`Activity`]: how much was generated and scored since the start, and how soon tokens came in the last minute.
//!
//! Knows nothing about how tokens come about, or who is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chorus_proto::v1;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The last minute, in slices that are forgotten as a whole.
const SLICES: u64 = 6;
const SLICE: Duration = Duration::from_secs(10);
/// Microseconds; what is longer counts as this long.
const LONGEST: u64 = 600_000_000;

/// What is counted of all requests.
#[derive(Debug)]
pub(crate) struct Activity {
    generated: AtomicU64,
    scored: AtomicU64,
    first_token: Mutex<Recent>,
    next_token: Mutex<Recent>,
}

/// The tokens of one generation, as they come.
pub(crate) struct Pulse {
    activity: Arc<Activity>,
    /// When the last token came; the request, before there was one.
    last: Instant,
    is_first: bool,
    /// Whether every token is handed on as soon as it is chosen.
    one_by_one: bool,
}

/// Durations of the last minute.
#[derive(Debug)]
struct Recent {
    since: Instant,
    /// Which slice of time is filled, counted from then; it lies at its number modulo [`SLICES`].
    current: u64,
    slices: [Histogram<u32>; SLICES as usize],
}

impl Activity {
    pub(crate) fn new() -> Self {
        let recent = || Mutex::new(Recent::new(Instant::now()));
        let (generated, scored) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { generated, scored, first_token: recent(), next_token: recent() }
    }

    /// A generation whose request came then. `one_by_one` is false where its tokens come together at its end.
    pub(crate) fn begin(self: &Arc<Self>, arrived: Instant, one_by_one: bool) -> Pulse {
        Pulse { activity: Arc::clone(self), last: arrived, is_first: true, one_by_one }
    }

    /// So many tokens of a text were scored.
    pub(crate) fn scored(&self, tokens: usize) {
        self.scored.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// All of it, as clients see it.
    pub(crate) fn told(&self) -> v1::Activity {
        let now = Instant::now();
        let latency =
            |recent: &Mutex<Recent>| Some(recent.lock().unwrap_or_else(PoisonError::into_inner).latency(now));
        v1::Activity {
            generated_tokens: self.generated.load(Ordering::Relaxed),
            scored_tokens: self.scored.load(Ordering::Relaxed),
            first_token: latency(&self.first_token),
            next_token: latency(&self.next_token),
        }
    }
}

impl Pulse {
    /// One more token is handed on.
    pub(crate) fn token(&mut self) {
        let activity = &self.activity;
        activity.generated.fetch_add(1, Ordering::Relaxed);
        if !self.is_first && !self.one_by_one {
            return;
        }
        let now = Instant::now();
        let recent = if self.is_first { &activity.first_token } else { &activity.next_token };
        recent.lock().unwrap_or_else(PoisonError::into_inner).record(now, now - self.last);
        (self.last, self.is_first) = (now, false);
    }
}

impl Recent {
    fn new(now: Instant) -> Self {
        Self { since: now, current: 0, slices: std::array::from_fn(|_| histogram()) }
    }

    fn record(&mut self, now: Instant, took: Duration) {
        self.forget(now);
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
        if let Some(slice) = self.slices.get_mut((self.current % SLICES) as usize) {
            slice.saturating_record(micros);
        }
    }

    /// Goes over to the slice of now.
    fn forget(&mut self, now: Instant) {
        let slice = now.saturating_duration_since(self.since).as_secs() / SLICE.as_secs();
        let passed = slice.saturating_sub(self.current).min(SLICES);
        self.current = slice.max(self.current);
        for ago in 0..passed {
            if let Some(slice) = self.slices.get_mut(((self.current - ago) % SLICES) as usize) {
                slice.reset();
            }
        }
    }

    fn latency(&mut self, now: Instant) -> v1::Latency {
        self.forget(now);
        let mut all = histogram();
        for slice in &self.slices {
            // They have the same bounds.
            let _added = all.add(slice);
        }
        let milliseconds = |quantile: f64| match all.is_empty() {
            true => 0.0,
            false => all.value_at_quantile(quantile) as f64 / 1000.0,
        };
        v1::Latency {
            count: all.len(),
            p50_ms: milliseconds(0.5),
            p95_ms: milliseconds(0.95),
            p99_ms: milliseconds(0.99),
        }
    }
}

fn histogram() -> Histogram<u32> {
    // Two digits are enough to look at. The bounds are constants that the constructor takes.
    Histogram::new_with_max(LONGEST, 2).unwrap_or_else(|_| unreachable!("the bounds are sound"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(recent: &mut Recent, now: Instant) -> (u64, f64) {
        let latency = recent.latency(now);
        (latency.count, latency.p95_ms.round())
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten_slice_by_slice() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut recent = Recent::new(start);
        assert_eq!(of(&mut recent, start), (0, 0.0));
        recent.record(at(1), Duration::from_millis(100));
        recent.record(at(35), Duration::from_millis(20));
        assert_eq!(of(&mut recent, at(59)), (2, 100.0));
        assert_eq!(of(&mut recent, at(60)), (1, 20.0));
        assert_eq!(of(&mut recent, at(89)), (1, 20.0));
        assert_eq!(of(&mut recent, at(90)), (0, 0.0));
        recent.record(at(95), Duration::from_secs(10_000));
        assert_eq!(of(&mut recent, at(1_000_000)), (0, 0.0), "however long nobody looked");
        recent.record(at(1_000_001), Duration::ZERO);
        assert_eq!(recent.latency(at(1_000_001)).count, 1);
        recent.record(at(7), Duration::from_millis(3));
        assert_eq!(recent.latency(at(1_000_001)).count, 2, "a clock of another thread may be behind");
    }

    #[test]
    fn percentiles_are_those_of_all_slices() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        for number in 1..=100 {
            recent.record(start + Duration::from_millis(number * 500), Duration::from_millis(number));
        }
        let latency = recent.latency(start + Duration::from_secs(50));
        let near = |found: f64, expected: f64| (found - expected).abs() <= expected / 50.0;
        assert!(latency.count == 100 && near(latency.p50_ms, 50.0), "{latency:?}");
        assert!(near(latency.p95_ms, 95.0) && near(latency.p99_ms, 99.0), "{latency:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_counts_its_tokens_and_their_times() {
        let activity = Arc::new(Activity::new());
        for one_by_one in [true, false] {
            let mut pulse = activity.begin(Instant::now(), one_by_one);
            tokio::time::advance(Duration::from_millis(50)).await;
            pulse.token();
            tokio::time::advance(Duration::from_millis(4)).await;
            pulse.token();
            pulse.token();
        }
        activity.scored(7);
        let told = activity.told();
        assert_eq!((told.generated_tokens, told.scored_tokens), (6, 7));
        let (first, next) = (told.first_token.unwrap(), told.next_token.unwrap());
        assert_eq!((first.count, first.p50_ms.round()), (2, 50.0));
        assert_eq!((next.count, next.p99_ms.round()), (2, 4.0), "only what came one by one");
    }
}
