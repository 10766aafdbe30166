//! A job: one feed on its way through as many forwards as it needs, gathering its answer. Knows nothing about other
//! sessions, nor about the model.

use chorus_proto::{
    logits_from_rows,
    v1::{self, Failure},
};

use crate::{
    credit::Credit,
    failure,
    operation::{Ask, Feed},
    predictor::Want,
};

/// A feed that is being computed.
#[derive(Debug)]
pub(crate) struct Job {
    feed: Feed,
    credit: Credit,
    consumed: usize,
    /// Rows gathered so far, row after row; their log-sum-exps.
    logits: Vec<f32>,
    log_sum_exp: Vec<f32>,
    log_probs: Vec<f64>,
}

/// What a job's next forward needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Tokens that are left to feed.
    pub(crate) tokens: usize,
    /// What the forward that feeds the last of them wants; [`Want::Each`] is wanted of every one.
    pub(crate) want: Want,
}

/// A feed that was computed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) feed: Feed,
    pub(crate) answer: v1::answer::Answer,
    pub(crate) credit: Credit,
}

impl Job {
    pub(crate) fn new(feed: Feed, credit: Credit) -> Self {
        Self { feed, credit, consumed: 0, logits: Vec::new(), log_sum_exp: Vec::new(), log_probs: Vec::new() }
    }

    pub(crate) fn step(&self) -> u64 {
        self.feed.step
    }

    pub(crate) fn demand(&self) -> Demand {
        Demand { tokens: self.feed.tokens.len() - self.consumed, want: self.want() }
    }

    /// Whether there is nothing left to ask the model.
    pub(crate) fn is_complete(&self) -> bool {
        self.demand().tokens == 0 && (self.feed.ask != Ask::Next || !self.log_sum_exp.is_empty())
    }

    /// The next `tokens` tokens and what is wanted of them.
    pub(crate) fn chunk(&self, tokens: usize) -> (&[u32], Want) {
        let rest = self.feed.tokens.get(self.consumed..).unwrap_or_default();
        let chunk = rest.get(..tokens).unwrap_or(rest);
        let want =
            if self.want() == Want::Next && chunk.len() < rest.len() { Want::Nothing } else { self.want() };
        (chunk, want)
    }

    /// Takes the logits that the model answered for the chunk of `tokens` tokens. `position` is the number of tokens
    /// that the session had consumed before the chunk.
    ///
    /// # Errors
    /// The model answered another number of values than was wanted, or values that are not finite.
    pub(crate) fn absorb(
        &mut self,
        tokens: usize,
        logits: Vec<f32>,
        vocabulary_size: usize,
        position: u64,
    ) -> Result<(), Failure> {
        let (chunk, want) = self.chunk(tokens);
        let (rows, targets) = (want.rows(chunk.len()), chunk.to_vec());
        if logits.len() != rows * vocabulary_size {
            let (wanted, found) = (rows * vocabulary_size, logits.len());
            return Err(failure::internal(format!("the model answered {found} logits instead of {wanted}")));
        }
        let before_first = if want == Want::Next { position + targets.len() as u64 } else { position };
        let mut log_sum_exps = Vec::with_capacity(rows);
        for (row, position) in logits.chunks_exact(vocabulary_size).zip(before_first..) {
            log_sum_exps.push(log_sum_exp(row).ok_or_else(|| failure::not_finite(position))?);
        }
        self.consumed += targets.len();
        if self.feed.ask == Ask::Targets {
            let rows = logits.chunks_exact(vocabulary_size).zip(&targets).zip(&log_sum_exps);
            let log_prob = |((row, &target), log_sum_exp): ((&[f32], &u32), &f64)| {
                row.get(target as usize).map(|&logit| f64::from(logit) - log_sum_exp)
            };
            self.log_probs.extend(rows.filter_map(log_prob));
            return Ok(());
        }
        self.log_sum_exp.extend(log_sum_exps.iter().map(|&value| value as f32));
        if self.logits.is_empty() {
            self.logits = logits;
        } else {
            self.logits.extend_from_slice(&logits);
        }
        Ok(())
    }

    /// The gathered answer.
    pub(crate) fn finish(self) -> Finished {
        let answer = match self.feed.ask {
            Ask::Nothing => v1::answer::Answer::Advanced(v1::Advanced {}),
            Ask::Next | Ask::Each => {
                v1::answer::Answer::Logits(logits_from_rows(&self.logits, self.log_sum_exp))
            }
            Ask::Targets => v1::answer::Answer::Targets(v1::Targets { log_probs: self.log_probs }),
        };
        Finished { feed: self.feed, answer, credit: self.credit }
    }

    /// Gives the job up.
    pub(crate) fn abandon(self) -> Credit {
        self.credit
    }

    fn want(&self) -> Want {
        match self.feed.ask {
            Ask::Nothing => Want::Nothing,
            Ask::Next => Want::Next,
            Ask::Each | Ask::Targets => Want::Each,
        }
    }
}

/// log Σ exp(row) in f64; none where a value is not finite.
pub(crate) fn log_sum_exp(row: &[f32]) -> Option<f64> {
    // All exponent bits are set in NaN and infinities, and in nothing else: a maximum over integers is fast.
    let largest = row.iter().map(|value| value.to_bits() & !(1 << 31)).max()?;
    (largest < f32::INFINITY.to_bits()).then(|| chorus_model::log_sum_exp(row))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(tokens: &[u32], ask: Ask) -> Job {
        Job::new(Feed { step: 1, tokens: tokens.to_vec(), ask }, Credit::default())
    }

    #[test]
    fn the_largest_value_does_not_overflow() {
        assert_eq!(log_sum_exp(&[1e38, 0.0]), Some(f64::from(1e38_f32)));
        assert!((log_sum_exp(&[0.0, 0.0]).unwrap() - 2.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_value_that_is_not_finite_is_found_wherever_it_is() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..3 {
                let mut row = [1.0, 2.0, 3.0];
                row[place] = value;
                assert_eq!(log_sum_exp(&row), None, "{row:?}");
            }
        }
        assert_eq!(log_sum_exp(&[f32::MAX, f32::MAX, f32::MIN]).map(f64::is_finite), Some(true));
    }

    #[test]
    fn only_the_last_chunk_of_a_feed_wants_the_next_distribution() {
        let mut job = job(&[0, 1, 1], Ask::Next);
        assert_eq!(job.chunk(2), (&[0, 1][..], Want::Nothing));
        job.absorb(2, vec![], 2, 0).unwrap();
        assert!(!job.is_complete());
        assert_eq!(job.chunk(2), (&[1][..], Want::Next));
        job.absorb(1, vec![0.0, 0.0], 2, 2).unwrap();
        assert!(job.is_complete());
    }

    #[test]
    fn an_empty_feed_needs_the_model_only_for_the_next_distribution() {
        assert!(job(&[], Ask::Nothing).is_complete());
        assert!(job(&[], Ask::Each).is_complete());
        assert!(job(&[], Ask::Targets).is_complete());
        assert!(!job(&[], Ask::Next).is_complete());
    }

    #[test]
    fn an_answer_of_another_size_is_a_failure() {
        let failure = job(&[0, 1], Ask::Each).absorb(2, vec![0.0; 3], 2, 0).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::Internal);
        assert_eq!(failure.message, "the model answered 3 logits instead of 4");
    }

    #[test]
    fn a_row_that_is_not_finite_is_named_by_its_position() {
        let failure = job(&[0, 1], Ask::Each).absorb(2, vec![0.0, 0.0, f32::NAN, 0.0], 2, 10).unwrap_err();
        assert_eq!(failure.code(), v1::ErrorCode::NotFinite);
        assert!(failure.message.contains("after 11 tokens"), "{}", failure.message);
        let failure = job(&[0, 1], Ask::Next).absorb(2, vec![0.0, f32::INFINITY], 2, 10).unwrap_err();
        assert!(failure.message.contains("after 12 tokens"), "{}", failure.message);
    }

    proptest! {
        #[test]
        fn log_sum_exp_makes_probabilities_that_sum_to_one(row in prop::collection::vec(-60.0_f32..60.0, 1..50)) {
            let log_sum_exp = log_sum_exp(&row).unwrap();
            let sum: f64 = row.iter().map(|&value| (f64::from(value) - log_sum_exp).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-6);
        }

        #[test]
        fn an_answer_does_not_depend_on_how_the_feed_was_cut(
            rows in prop::collection::vec((0_u32..3, prop::array::uniform3(-9.0_f32..9.0)), 1..12),
            chunk in 1_usize..5,
            targets in any::<bool>(),
        ) {
            let ask = if targets { Ask::Targets } else { Ask::Each };
            let tokens: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let values: Vec<f32> = rows.iter().flat_map(|row| row.1).collect();
            let mut whole = job(&tokens, ask);
            whole.absorb(tokens.len(), values.clone(), 3, 0).unwrap();
            let mut cut = job(&tokens, ask);
            for piece in values.chunks(3 * chunk) {
                cut.absorb(piece.len() / 3, piece.to_vec(), 3, 0).unwrap();
            }
            prop_assert!(cut.is_complete());
            prop_assert_eq!(whole.finish().answer, cut.finish().answer);
        }
    }
}
