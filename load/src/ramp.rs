//! The search for the highest rate that still meets a goal. Knows nothing about how a rate is tried.

use std::{fmt, str::FromStr, time::Duration};

use crate::measure::{Latencies, Measurements};

/// Which latency a goal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// From the intended start to the first token.
    FirstToken,
    /// Between two tokens.
    InterToken,
    /// A whole generation.
    Generate,
    /// A whole scoring.
    Score,
}

/// A percentile of a latency that must not be above a limit.
///
/// ```
/// use chorus_load::ramp::Goal;
///
/// let goal: Goal = "first-token:p99:50ms".parse()?;
/// assert_eq!(goal.to_string(), "first-token:p99:50ms");
/// # Ok::<(), chorus_load::ramp::GoalError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    latency: Latency,
    percentile: f64,
    limit: Duration,
}

/// No goal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no goal; allowed: LATENCY:pPERCENTILE:LIMIT with first-token, inter-token, generate or score, such as \
     first-token:p99:50ms"
)]
pub struct GoalError(String);

/// Whether a rate meets a goal.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It does; with the latency at the goal's percentile.
    Met(Duration),
    /// It doesn't; why.
    Missed(String),
}

/// The largest share of calls that may fail or stay unfinished.
const MOST_FAILURES: f64 = 0.01;

impl Goal {
    /// Holds what was measured at a rate against the goal. A rate at which calls could not be sent, or more than one in a
    /// hundred got no answer, meets none: the latencies of the others would flatter it.
    #[must_use]
    pub fn judge(&self, measured: &Measurements) -> Verdict {
        let calls = measured.calls;
        if calls.not_sent > 0 {
            return Verdict::Missed(format!("{} calls could not be sent", calls.not_sent));
        }
        let without = calls.failed + calls.unfinished();
        if without as f64 > MOST_FAILURES * calls.sent as f64 {
            return Verdict::Missed(format!("{without} of {} calls got no answer", calls.sent));
        }
        let latencies = self.latencies(measured);
        if latencies.is_empty() {
            return Verdict::Missed("nothing was measured".to_owned());
        }
        let found = latencies.at(self.percentile / 100.0);
        if found <= self.limit {
            return Verdict::Met(found);
        }
        Verdict::Missed(format!("p{} is {:.1} ms", self.percentile, found.as_secs_f64() * 1e3))
    }

    fn latencies<'a>(&self, measured: &'a Measurements) -> &'a Latencies {
        match self.latency {
            Latency::FirstToken => &measured.first_token,
            Latency::InterToken => &measured.inter_token,
            Latency::Generate => &measured.generate,
            Latency::Score => &measured.score,
        }
    }
}

impl FromStr for Goal {
    type Err = GoalError;

    fn from_str(text: &str) -> Result<Self, GoalError> {
        let wrong = || GoalError(text.to_owned());
        let mut parts = text.split(':');
        let (Some(latency), Some(percentile), Some(limit), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let latency = match latency {
            "first-token" => Latency::FirstToken,
            "inter-token" => Latency::InterToken,
            "generate" => Latency::Generate,
            "score" => Latency::Score,
            _ => return Err(wrong()),
        };
        let percentile = percentile.strip_prefix('p').and_then(|number| number.parse().ok());
        let percentile =
            percentile.filter(|number: &f64| (0.0..=100.0).contains(number)).ok_or_else(wrong)?;
        let limit = humantime::parse_duration(limit).map_err(|_| wrong())?;
        Ok(Self { latency, percentile, limit })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = match self.latency {
            Latency::FirstToken => "first-token",
            Latency::InterToken => "inter-token",
            Latency::Generate => "generate",
            Latency::Score => "score",
        };
        let limit = humantime::format_duration(self.limit).to_string().replace(' ', "");
        write!(f, "{latency}:p{}:{limit}", self.percentile)
    }
}

/// Doubles the rate while the goal is met, halves it while it is missed, then closes in between the two.
///
/// ```
/// use chorus_load::ramp::Search;
///
/// let mut search = Search::new(1.0);
/// while let Some(rate) = search.next_rate() {
///     search.record(rate <= 130.0);
/// }
/// let found = search.highest_met().unwrap();
/// assert!(found <= 130.0 && found > 130.0 / 1.05);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    first: f64,
    met: Option<f64>,
    missed: Option<f64>,
}

/// The search ends when the two rates differ by less than this factor: noise is not much smaller.
const PRECISION: f64 = 1.05;
/// Rates beyond these are not tried, in calls a second.
const LOWEST: f64 = 0.01;
const HIGHEST: f64 = 1e6;

impl Search {
    /// Begins at a rate, in calls a second, which has to be positive.
    #[must_use]
    pub fn new(first: f64) -> Self {
        Self { first: first.clamp(LOWEST, HIGHEST), met: None, missed: None }
    }

    /// The rate to try; none when the search is over.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        match (self.met, self.missed) {
            (None, None) => Some(self.first),
            (Some(met), None) => Some(met * 2.0).filter(|rate| *rate <= HIGHEST),
            (None, Some(missed)) => Some(missed / 2.0).filter(|rate| *rate >= LOWEST),
            (Some(met), Some(missed)) => (missed / met > PRECISION).then(|| (met * missed).sqrt()),
        }
    }

    /// Whether [`Search::next_rate`] met the goal.
    pub fn record(&mut self, met: bool) {
        let Some(rate) = self.next_rate() else {
            return;
        };
        *if met { &mut self.met } else { &mut self.missed } = Some(rate);
    }

    /// The highest rate that met the goal so far.
    #[must_use]
    pub fn highest_met(&self) -> Option<f64> {
        self.met
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;
    use tonic::Code;

    use super::*;
    use crate::{
        measure::{Answer, Failure, Watch, Window},
        workload::Kind,
    };

    const WINDOW: Window = Window { from: Duration::ZERO, until: Duration::from_secs(100) };

    /// The latency of an M/M/1 queue that serves 80 calls a second, at its 99th percentile, in seconds.
    fn queue(rate: f64) -> f64 {
        if rate < 80.0 { -0.01_f64.ln() / (80.0 - rate) } else { f64::INFINITY }
    }

    #[test]
    fn the_search_finds_the_rate_at_which_a_queue_passes_its_limit() {
        // 80 - ln(100) / 0.2 calls a second wait 200 ms at the 99th percentile.
        let expected = 80.0 - 100.0_f64.ln() / 0.2;
        for first in [0.5, 40.0, 10_000.0] {
            let mut search = Search::new(first);
            let mut tried = 0;
            while let Some(rate) = search.next_rate() {
                search.record(queue(rate) <= 0.2);
                tried += 1;
            }
            let found = search.highest_met().unwrap();
            assert!(found <= expected && found > expected / PRECISION, "{found} instead of {expected}");
            assert!(tried <= 16, "{tried} rates were tried");
        }
    }

    #[test]
    fn what_is_never_or_always_met_ends_too() {
        for met in [true, false] {
            let mut search = Search::new(1.0);
            let tried = std::iter::from_fn(|| {
                search.next_rate()?;
                search.record(met);
                Some(())
            });
            assert!(tried.count() < 40);
            assert_eq!(search.highest_met().is_some(), met);
        }
    }

    proptest! {
        #[test]
        fn no_rate_above_a_missed_one_or_below_a_met_one_is_tried(
            first in 0.01_f64..1e5, limit in 0.01_f64..1e5,
        ) {
            let mut search = Search::new(first);
            let (mut met, mut missed) = (0.0_f64, f64::INFINITY);
            while let Some(rate) = search.next_rate() {
                prop_assert!(met < rate && rate < missed);
                if rate <= limit { met = rate } else { missed = rate }
                search.record(rate <= limit);
            }
        }
    }

    fn measured(latencies: &[u64], failures: usize) -> Measurements {
        let all = RefCell::new(Measurements::new(WINDOW));
        let watch = || Watch::new(&all, Kind::Score, Duration::ZERO, Duration::ZERO);
        for milliseconds in latencies {
            watch().end(Duration::from_millis(*milliseconds), Ok(Answer::default()));
        }
        for _ in 0..failures {
            let failure = Failure { code: Code::Unavailable, message: String::new() };
            watch().end(Duration::ZERO, Err(failure));
        }
        all.into_inner()
    }

    #[test]
    fn a_goal_is_judged_by_its_percentile_and_by_what_got_no_answer() {
        let goal: Goal = "score:p50:20ms".parse().unwrap();
        assert!(matches!(goal.judge(&measured(&[10, 10, 900], 0)), Verdict::Met(_)));
        let missed = |measured: &Measurements| match goal.judge(measured) {
            Verdict::Missed(why) => why,
            met @ Verdict::Met(_) => panic!("{met:?}"),
        };
        assert_eq!(missed(&measured(&[10, 30, 30], 0)), "p50 is 30.0 ms");
        assert_eq!(missed(&measured(&[10; 98], 2)), "2 of 100 calls got no answer");
        assert!(matches!(goal.judge(&measured(&[10; 99], 1)), Verdict::Met(_)));
        assert_eq!(missed(&measured(&[], 0)), "nothing was measured");
        let mut unsent = measured(&[10], 0);
        unsent.not_sent(Duration::ZERO);
        assert_eq!(missed(&unsent), "1 calls could not be sent");
    }

    #[test]
    fn what_is_no_goal_is_refused_with_the_form() {
        for text in [
            "",
            "ttft:p99:1s",
            "score:99:1s",
            "score:p101:1s",
            "score:p99:1",
            "score:p99:1s:x",
            "score:pNaN:1s",
        ] {
            let error = text.parse::<Goal>().unwrap_err().to_string();
            assert!(error.contains("first-token:p99:50ms"), "{error}");
        }
        let goal: Goal = "inter-token:p99.9:1s 500ms".parse().unwrap();
        assert_eq!(goal.to_string(), "inter-token:p99.9:1s500ms");
    }
}
