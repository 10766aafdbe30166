//! Which ask goes to the members, and in which pieces. A plan follows from the request alone, never from load. Knows
//! nothing about members, sessions or frames.

use std::ops::Range;

use crate::fusion::Rule;

/// What the coordinator wants from a member at a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Only to advance.
    Nothing,
    /// One dense row: the distribution that follows the last token of the feed.
    LogitsNext,
    /// One dense row for each token of the feed: the distribution from which that token is drawn.
    LogitsEach,
    /// For each token of the feed its log-probability.
    Targets,
}

/// The asks of one request. Every plan answers what [`Plan::reference`] answers and asks for no more: to the bit, but for
/// [`Ask::Targets`], which a member answers in f64 where its rows travel in f32 (within 1e-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The ask of a piece that others follow.
    pub passing: Ask,
    /// The ask of the last piece of the input, and of every token that is generated after it.
    pub last: Ask,
}

/// A piece of the input that travels in one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which tokens.
    pub tokens: Range<usize>,
    /// What is asked about them.
    pub ask: Ask,
}

/// The most bytes that a dense answer to one feed should have: it passes quickly, so that on a link with many sessions
/// the answer to one token never waits for long behind others' rows.
const DENSE_ANSWER_BYTES: usize = 1024 * 1024;
/// The most bytes that the log-probabilities in the answer to one feed should have.
const TARGETS_ANSWER_BYTES: usize = 4 * 1024 * 1024;

impl Plan {
    /// Every new token needs one fused row, whatever the rule, the sampling and the log-probabilities that are wanted.
    pub fn for_generate() -> Self {
        Self { passing: Ask::Nothing, last: Ask::LogitsNext }
    }

    /// The arithmetic mixture of a token needs nothing but each member's probability of it; the other rules need rows.
    pub fn for_score(rule: Rule) -> Self {
        match rule {
            Rule::WeightedAverage => Self { passing: Ask::Targets, last: Ask::Targets },
            Rule::ThresholdVote | Rule::LogLinear | Rule::LogitMean | Rule::LogitMax => {
                Self { passing: Ask::LogitsEach, last: Ask::LogitsEach }
            }
        }
    }

    /// One fused row after the prefix.
    pub fn for_predict() -> Self {
        Self::for_generate()
    }

    /// The dense plan of the same request: rows wherever anything is asked. What other plans are held against.
    pub fn reference(self) -> Self {
        let dense = |ask| match ask {
            Ask::Targets | Ask::LogitsEach => Ask::LogitsEach,
            Ask::LogitsNext => Ask::LogitsNext,
            Ask::Nothing => Ask::Nothing,
        };
        Self { passing: dense(self.passing), last: dense(self.last) }
    }

    /// Cuts an input of this many tokens into pieces, each within `max_feed_tokens` and with an answer of a bounded size.
    /// An empty input is one empty piece, so that its ask is answered.
    pub fn pieces(
        self,
        tokens: usize,
        vocabulary_size: usize,
        max_feed_tokens: usize,
    ) -> impl Iterator<Item = Piece> {
        let length = feed_length(self.passing, vocabulary_size, max_feed_tokens).min(feed_length(
            self.last,
            vocabulary_size,
            max_feed_tokens,
        ));
        let pieces = tokens.div_ceil(length).max(1);
        (0..pieces).map(move |piece| Piece {
            tokens: piece * length..tokens.min((piece + 1) * length),
            ask: if piece + 1 == pieces { self.last } else { self.passing },
        })
    }
}

/// How many tokens one feed may hold so that the answer stays within its bytes: 1 MiB of rows, 4 MiB of
/// log-probabilities. At least 1: a row that is larger alone still has to travel.
pub fn feed_length(ask: Ask, vocabulary_size: usize, max_feed_tokens: usize) -> usize {
    let fit = match ask {
        Ask::Nothing | Ask::LogitsNext => max_feed_tokens,
        Ask::LogitsEach => DENSE_ANSWER_BYTES / (vocabulary_size.max(1) * size_of::<f32>()),
        Ask::Targets => TARGETS_ANSWER_BYTES / size_of::<f64>(),
    };
    fit.min(max_feed_tokens).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_weighted_average_scores_by_targets() {
        for rule in Rule::ALL {
            let plan = Plan::for_score(rule);
            let expected = if rule == Rule::WeightedAverage { Ask::Targets } else { Ask::LogitsEach };
            assert_eq!((plan.passing, plan.last), (expected, expected));
            assert_eq!(plan.reference(), Plan::for_score(Rule::LogLinear));
        }
    }

    #[test]
    fn a_feed_s_answer_stays_within_its_budget() {
        assert_eq!(feed_length(Ask::LogitsEach, 65, 1 << 20), DENSE_ANSWER_BYTES / 260);
        assert_eq!(feed_length(Ask::LogitsEach, 10_000_000, 512), 1);
        assert_eq!(feed_length(Ask::LogitsNext, 10_000_000, 512), 512);
        assert_eq!(feed_length(Ask::Nothing, 65, 0), 1);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_input_once_and_only_the_last_asks_the_last_ask(
            tokens in 0..5000_usize, vocabulary_size in 1..100_000_usize, max in 1..700_usize,
        ) {
            let plan = Plan::for_generate();
            for plan in [plan, Plan::for_score(Rule::WeightedAverage), Plan::for_score(Rule::LogitMax)] {
                let pieces: Vec<Piece> = plan.pieces(tokens, vocabulary_size, max).collect();
                let mut next = 0;
                for (index, piece) in pieces.iter().enumerate() {
                    prop_assert_eq!(piece.tokens.start, next);
                    next = piece.tokens.end;
                    let last = index + 1 == pieces.len();
                    prop_assert_eq!(piece.ask, if last { plan.last } else { plan.passing });
                    prop_assert!(piece.tokens.len() <= feed_length(piece.ask, vocabulary_size, max));
                    prop_assert!(!piece.tokens.is_empty() || tokens == 0);
                }
                prop_assert_eq!(next, tokens);
            }
        }
    }
}
