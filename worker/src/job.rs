//! A job: one feed on its way through as many forwards as it needs, gathering its answer. Knows nothing about other
//! sessions, nor about the model.

use std::time::Duration;

use chorus_proto::v1::{self, Failure};
use chorus_simd::Reduction;
use tokio::time::Instant;

use crate::{
    credit::Credit,
    failure,
    gathering::Gathering,
    operation::Feed,
    predictor::{Prediction, Want},
    traced::Traced,
};

/// A feed that is being computed.
#[derive(Debug)]
pub(crate) struct Job {
    feed: Feed,
    credit: Credit,
    /// When the feed was taken in.
    since: Instant,
    consumed: usize,
    /// The answer as far as it is computed.
    gathering: Gathering,
}

/// What a job's next forward needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Tokens that are left to feed.
    pub(crate) tokens: usize,
    /// What the forward that feeds the last of them wants; [`Want::Each`] is wanted of every one.
    pub(crate) want: Want,
}

/// A job's part of one forward: what is fed, and what takes in the distributions that come of it.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) want: Want,
    pub(crate) reduction: Reduction<'a>,
    pub(crate) intake: Intake<'a>,
}

/// Takes in the distributions of one forward, one after the other; only what the ask needs of them is kept.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    feed: &'a Feed,
    gathering: &'a mut Gathering,
    received: usize,
    failure: Option<Failure>,
}

/// A feed that was computed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) feed: Feed,
    pub(crate) answer: v1::answer::Answer,
    pub(crate) credit: Credit,
}

impl Job {
    pub(crate) fn new(feed: Feed, credit: Credit, since: Instant) -> Self {
        Self { feed, credit, since, consumed: 0, gathering: Gathering::default() }
    }

    /// The time that it had, where that is over and nobody waits any more.
    pub(crate) fn expired(&self, now: Instant) -> Option<Duration> {
        self.feed.timeout.filter(|timeout| now.saturating_duration_since(self.since) > *timeout)
    }

    /// How long the feed has waited, where nothing of it was computed yet.
    pub(crate) fn waited(&self, now: Instant) -> Option<Duration> {
        (self.consumed == 0).then(|| now.saturating_duration_since(self.since))
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The feed, not computed.
    pub(crate) fn give_back(self) -> (Feed, Credit) {
        (self.feed, self.credit)
    }

    pub(crate) fn step(&self) -> u64 {
        self.feed.step
    }

    pub(crate) fn demand(&self) -> Demand {
        Demand { tokens: self.feed.tokens.len() - self.consumed, want: self.feed.ask.want() }
    }

    /// Whether there is nothing left to ask the model.
    pub(crate) fn is_complete(&self) -> bool {
        let Demand { tokens, want } = self.demand();
        tokens == 0 && (want != Want::Next || self.gathering.distributions() > 0)
    }

    /// The next `tokens` tokens, what is wanted of them, and what takes it in.
    pub(crate) fn chunk(&mut self, tokens: usize) -> Chunk<'_> {
        let Self { feed, consumed, gathering, .. } = self;
        let rest = feed.tokens.get(*consumed..).unwrap_or_default();
        let tokens = rest.get(..tokens).unwrap_or(rest);
        let want = match feed.ask.want() {
            Want::Next if tokens.len() < rest.len() => Want::Nothing,
            want => want,
        };
        let intake = Intake { feed, gathering, received: 0, failure: None };
        Chunk { tokens, want, reduction: feed.ask.reduction(), intake }
    }

    /// The spans of its feed.
    pub(crate) fn traced(&mut self) -> &mut Traced {
        &mut self.feed.traced
    }

    /// Counts `tokens` tokens as fed.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.consumed += tokens;
    }

    /// The gathered answer.
    pub(crate) fn finish(self) -> Finished {
        Finished { answer: self.gathering.finish(&self.feed), feed: self.feed, credit: self.credit }
    }

    /// Gives the job up.
    pub(crate) fn abandon(self) -> Credit {
        self.credit
    }
}

impl Intake<'_> {
    /// Takes one distribution in. `position` is the number of tokens that the session had consumed before the forward,
    /// `tokens` how many are fed in it.
    pub(crate) fn receive(&mut self, prediction: &Prediction<'_>, position: u64, tokens: usize) {
        self.received += 1;
        if !prediction.norm.is_finite() {
            let offset = if self.feed.ask.want() == Want::Next { tokens } else { prediction.offset };
            self.failure.get_or_insert_with(|| failure::not_finite(position + offset as u64));
            return;
        }
        self.gathering.receive(&self.feed.ask, prediction);
    }

    /// What was taken in, once the forward is over.
    ///
    /// # Errors
    /// Another number of distributions than `wanted`, or one that is not finite.
    pub(crate) fn finish(self, wanted: usize) -> Result<(), Failure> {
        let received = self.received;
        match self.failure {
            Some(failure) => Err(failure),
            None if received == wanted => Ok(()),
            None => {
                let message = format!("the model answered {received} distributions instead of {wanted}");
                Err(failure::internal(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chorus_simd::{Room, norm};
    use proptest::prelude::*;

    use super::*;
    use crate::operation::{Ask, Real, Rows};

    fn job(tokens: &[u32], ask: Ask) -> Job {
        Job::new(Feed::new(1, tokens.to_vec(), ask), Credit::default(), Instant::now())
    }

    fn logits(rows: Rows) -> Ask {
        Ask::Logits { rows, format: v1::RowFormat::F32 }
    }

    /// Every ask about the tokens of a feed.
    fn asks() -> Vec<Ask> {
        let log_threshold = Real::new(-1.5);
        let top = |log_threshold| Ask::Top { rows: Rows::Each, k: 1, log_threshold };
        vec![Ask::Targets, logits(Rows::Each), top(None), top(log_threshold)]
    }

    /// A forward of the next `tokens` tokens whose rows are these.
    fn forward(job: &mut Job, tokens: usize, rows: &[&[f32]], position: u64) -> Result<(), Failure> {
        let Chunk { tokens: fed, want, reduction, mut intake } = job.chunk(tokens);
        let (count, wanted) = (fed.len(), want.rows(fed.len()));
        let mut room = Room::default();
        for (offset, logits) in rows.iter().enumerate() {
            let (logits, asked) = ((*logits, norm(logits)), (want, fed, reduction));
            let prediction = Prediction::reduced((0, offset), logits, asked, &mut room);
            intake.receive(&prediction, position, count);
        }
        intake.finish(wanted)?;
        job.advance(count);
        Ok(())
    }

    #[test]
    fn only_the_last_chunk_of_a_feed_wants_the_next_distribution() {
        let mut job = job(&[0, 1, 1], logits(Rows::Next));
        let chunk = job.chunk(2);
        assert_eq!((chunk.tokens, chunk.want), (&[0, 1][..], Want::Nothing));
        forward(&mut job, 2, &[], 0).unwrap();
        assert!(!job.is_complete());
        let chunk = job.chunk(2);
        assert_eq!((chunk.tokens, chunk.want), (&[1][..], Want::Next));
        forward(&mut job, 1, &[&[0.0, 0.0]], 2).unwrap();
        assert!(job.is_complete());
    }

    #[test]
    fn an_empty_feed_needs_the_model_only_for_the_next_distribution() {
        assert!(job(&[], Ask::Nothing).is_complete());
        assert!(job(&[], logits(Rows::Each)).is_complete());
        assert!(job(&[], Ask::Targets).is_complete());
        assert!(!job(&[], logits(Rows::Next)).is_complete());
    }

    #[test]
    fn another_number_of_distributions_than_was_wanted_is_a_failure() {
        for rows in [vec![&[0.0; 2][..]; 1], vec![&[0.0; 2]; 3]] {
            let failure = forward(&mut job(&[0, 1], logits(Rows::Each)), 2, &rows, 0).unwrap_err();
            assert_eq!(failure.code(), v1::ErrorCode::Internal);
            let message = format!("the model answered {} distributions instead of 2", rows.len());
            assert_eq!(failure.message, message);
        }
    }

    #[test]
    fn a_distribution_that_is_not_finite_is_named_by_its_position() {
        let rows: [&[f32]; 2] = [&[0.0, 0.0], &[f32::NAN, 0.0]];
        let failure = forward(&mut job(&[0, 1], logits(Rows::Each)), 2, &rows, 10).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::NotFinite);
        assert!(failure.message.contains("after 11 tokens"), "{}", failure.message);
        let failure =
            forward(&mut job(&[0, 1], logits(Rows::Next)), 2, &[&[0.0, f32::INFINITY]], 10).unwrap_err();
        assert!(failure.message.contains("after 12 tokens"), "{}", failure.message);
    }

    proptest! {
        #[test]
        fn an_answer_does_not_depend_on_how_the_feed_was_cut(
            rows in prop::collection::vec((0_u32..3, prop::array::uniform3(-9.0_f32..9.0)), 1..12),
            chunk in 1_usize..5,
            ask in prop::sample::select(asks()),
        ) {
            let tokens: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let values: Vec<&[f32]> = rows.iter().map(|row| row.1.as_slice()).collect();
            let mut whole = job(&tokens, ask.clone());
            forward(&mut whole, tokens.len(), &values, 0).unwrap();
            let mut cut = job(&tokens, ask);
            for piece in values.chunks(chunk) {
                forward(&mut cut, piece.len(), piece, 0).unwrap();
            }
            prop_assert!(cut.is_complete());
            prop_assert_eq!(whole.finish().answer, cut.finish().answer);
        }
    }
}
