//! One call, from its intended start to its end. Knows nothing about how it is made.

use std::{cell::RefCell, time::Duration};

use super::{Answer, Failure, Measurements};
use crate::workload::Kind;

/// Watches a call. All moments are times since the start of the load.
#[derive(Debug)]
pub struct Watch<'a> {
    measurements: &'a RefCell<Measurements>,
    kind: Kind,
    intended: Duration,
    last_token: Option<Duration>,
    measured: bool,
}

impl<'a> Watch<'a> {
    /// A call that should have started at `intended` and is made `now`.
    pub fn new(
        measurements: &'a RefCell<Measurements>,
        kind: Kind,
        intended: Duration,
        now: Duration,
    ) -> Self {
        let mut counted = measurements.borrow_mut();
        let measured = counted.window.contains(intended);
        if measured {
            counted.sent(now.saturating_sub(intended));
        }
        drop(counted);
        Self { measurements, kind, intended, last_token: None, measured }
    }

    /// A generated token came.
    pub fn token(&mut self, now: Duration) {
        let mut counted = self.measurements.borrow_mut();
        counted.token(now);
        if self.measured {
            match self.last_token {
                None => counted.first_token.record(now.saturating_sub(self.intended)),
                Some(last) => counted.inter_token.record(now.saturating_sub(last)),
            }
        }
        self.last_token = Some(now);
    }

    /// The call is over.
    pub fn end(self, now: Duration, result: Result<Answer, Failure>) {
        let mut counted = self.measurements.borrow_mut();
        counted.ended(now, &result);
        if !self.measured {
            return;
        }
        match result {
            Ok(answer) => counted.answered(self.kind, now.saturating_sub(self.intended), answer),
            Err(failure) => counted.failed(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::measure::{CallCounts, Errors, Volume, Window};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn measurements() -> RefCell<Measurements> {
        RefCell::new(Measurements::new(Window { from: seconds(10), until: seconds(20) }))
    }

    #[test]
    fn latencies_begin_at_the_intended_start_and_every_gap_is_a_value() {
        let measured = measurements();
        let mut watch = Watch::new(&measured, Kind::Generate, seconds(12), seconds(13));
        for moment in [14, 15, 18] {
            watch.token(seconds(moment));
        }
        watch.end(seconds(19), Ok(Answer { prompt_tokens: 5, degraded: true, ..Answer::default() }));
        let measured = measured.into_inner();
        let near = |latency: Duration, expected: u64| {
            (latency.as_secs_f64() / seconds(expected).as_secs_f64() - 1.0).abs() < 1e-3
        };
        assert!(near(measured.first_token.max(), 2) && near(measured.generate.max(), 7));
        assert!(near(measured.inter_token.min(), 1) && near(measured.inter_token.max(), 3));
        assert!(near(measured.sent_late.max(), 1) && measured.score.is_empty());
        assert_eq!(measured.calls, CallCounts { sent: 1, answered: 1, degraded: 1, ..Default::default() });
        let volume = Volume { answers: 1, generated_tokens: 3, prompt_tokens: 5, ..Volume::default() };
        assert_eq!(measured.volume, volume);
    }

    #[test]
    fn a_call_of_the_warm_up_counts_for_the_throughput_of_what_comes_later_and_for_nothing_else() {
        let measured = measurements();
        let mut watch = Watch::new(&measured, Kind::Generate, seconds(9), seconds(9));
        watch.token(seconds(9));
        watch.token(seconds(10));
        watch.end(seconds(11), Ok(Answer::default()));
        let measured = measured.into_inner();
        assert_eq!(measured.calls, CallCounts::default());
        assert!(measured.inter_token.is_empty() && measured.generate.is_empty());
        assert_eq!((measured.volume.answers, measured.volume.generated_tokens), (1, 1));
    }

    #[test]
    fn what_comes_after_the_window_is_no_throughput_but_its_call_has_its_latency() {
        let measured = measurements();
        let mut watch = Watch::new(&measured, Kind::Generate, seconds(19), seconds(19));
        watch.token(seconds(25));
        watch.end(seconds(26), Ok(Answer::default()));
        let scoring = Watch::new(&measured, Kind::Score, seconds(20), seconds(20));
        scoring.end(seconds(21), Ok(Answer { scored_tokens: 4, ..Answer::default() }));
        let measured = measured.into_inner();
        assert_eq!(measured.volume, Volume::default());
        assert_eq!((measured.calls.sent, measured.generate.len(), measured.first_token.len()), (1, 1, 1));
        assert_eq!(measured.score.len(), 0, "it should have started when the window was over");
    }

    #[test]
    fn failures_are_counted_by_code_and_unfinished_calls_are_what_is_left() {
        let failure = |code, message: &str| Err(Failure { code, message: message.to_owned() });
        let (one, other) = (measurements(), measurements());
        for (measured, code, message) in [
            (&one, Code::Unavailable, "alto is gone"),
            (&one, Code::Unavailable, "still"),
            (&other, Code::Unavailable, "other"),
            (&other, Code::InvalidArgument, "no"),
        ] {
            Watch::new(measured, Kind::Score, seconds(10), seconds(10))
                .end(seconds(11), failure(code, message));
        }
        let _unfinished = Watch::new(&other, Kind::Score, seconds(11), seconds(11));
        other.borrow_mut().not_sent(seconds(12));
        other.borrow_mut().not_sent(seconds(9));
        let mut all = one.into_inner();
        all.merge(&other.borrow());
        let by_code = |code: Code| all.errors.get(&i32::from(code)).cloned().unwrap();
        assert_eq!(by_code(Code::Unavailable), Errors { count: 3, example: "alto is gone".to_owned() });
        assert_eq!(by_code(Code::InvalidArgument).count, 1);
        assert_eq!(all.calls, CallCounts { sent: 5, failed: 4, not_sent: 1, ..CallCounts::default() });
        assert_eq!(all.calls.unfinished(), 1);
        assert_eq!(all.timeline.slices().iter().map(|slice| slice.errors).sum::<u64>(), 4);
    }
}
