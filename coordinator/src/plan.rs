//! What is asked of the members for a request, and in which pieces. A plan follows from the request alone, never from load.
//! Knows nothing about members, sessions or frames.

use std::{fmt, ops::Range, sync::Arc};

use chorus_proto::{v1::RowFormat, value_bytes};

use crate::fusion::{Fusion, Rule};
use crate::sampling::Sampling;

/// What the coordinator wants from a member at a feed.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Only to advance.
    Nothing,
    /// Dense rows.
    Logits {
        /// About which positions.
        positions: Positions,
        /// How a logit travels.
        format: RowFormat,
    },
    /// For each token of the feed its log-probability.
    Targets,
    /// The likeliest tokens of each row, at least `k`, and all whose log-probability is above the threshold.
    Top {
        /// About which positions; for each token of the feed it is asked about that token, too.
        positions: Positions,
        /// How many.
        k: u32,
        /// Natural logarithm.
        log_threshold: Option<f64>,
    },
    /// The logits of these tokens (ascending) in the distribution that follows the last token of the feed.
    Ids(Arc<[u32]>),
    /// The token at `uniform`, in [0, 1), of the distribution that follows the last token of the feed.
    Draw {
        /// The place in the cumulative distribution.
        uniform: f64,
    },
}

/// The positions that an ask is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Positions {
    /// The one that follows the last token of the feed.
    Next,
    /// That of each token of the feed: the distribution from which the token is drawn.
    Each,
}

/// How a request is answered. Every plan answers what [`Plan::reference`] answers and asks for no more than that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// Whole rows are fused.
    Dense(RowFormat),
    /// Each member says the log-probability of the tokens that come.
    Targets,
    /// Who leads is proved from each member's likeliest tokens: `k`, or all above the threshold where those are more. What
    /// they leave open is asked for, at last whole rows.
    Certified {
        /// How many.
        k: u32,
        /// The logarithm of the vote's threshold; none without a vote.
        log_threshold: Option<f64>,
    },
    /// One member, drawn by its weight, draws the token; the others only advance.
    Drawn,
}

/// How whole rows are to be used for a request, where it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowOptions {
    /// Even where less makes the same answer.
    pub whole: bool,
    /// How a logit travels.
    pub format: RowFormat,
}

/// The most bytes that an answer of rows to one feed should have: it passes quickly, so that on a link with many sessions
/// the answer to one token never waits for long behind others' rows.
const ROWS_ANSWER_BYTES: usize = 1024 * 1024;
/// The most bytes that the log-probabilities in the answer to one feed should have.
const TARGETS_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Likeliest tokens for a greedy choice: enough that the winner is proved by them alone at nearly every step.
const GREEDY_K: u32 = 16;
/// Likeliest tokens where a vote decides: few, for the steps where nobody has a vote or where votes are equal.
const VOTE_K: u32 = 8;
/// Where a generation's next token may turn out to need more than lists of likeliest ones, a row of at most so many bytes is
/// asked for at once: it costs less than a second question would.
const SMALL_ROW_BYTES: usize = 4 * 1024;
/// Bytes of a token in an answer of likeliest tokens, at most: its id and its logit.
const TOP_TOKEN_BYTES: usize = 5 + 4;
/// Bytes of a row beside them: its norm, its count, the logit of its target.
const TOP_ROW_BYTES: usize = 12 + 5 + 4;

impl Ask {
    /// One dense row.
    pub fn next_row(format: RowFormat) -> Self {
        Self::Logits { positions: Positions::Next, format }
    }

    /// Whether it is about each token of the feed, so that the answer grows with it.
    pub fn is_about_each(&self) -> bool {
        match self {
            Self::Logits { positions, .. } | Self::Top { positions, .. } => *positions == Positions::Each,
            Self::Targets => true,
            Self::Nothing | Self::Ids(_) | Self::Draw { .. } => false,
        }
    }

    /// Rows of the output layer that a member computes for a feed of so many tokens.
    pub fn rows(&self, tokens: usize) -> usize {
        match self {
            Self::Nothing => 0,
            _ if self.is_about_each() => tokens,
            _ => 1,
        }
    }

    /// Bytes of the answer about so many tokens, at most, but for its framing.
    pub fn answer_bytes(&self, tokens: usize, vocabulary_size: usize) -> usize {
        let rows = self.rows(tokens);
        match self {
            Self::Nothing => 0,
            Self::Logits { format, .. } => {
                rows.saturating_mul(vocabulary_size).saturating_mul(value_bytes(*format))
            }
            Self::Targets => rows.saturating_mul(size_of::<f64>()),
            Self::Top { k, log_threshold, .. } => {
                // Fewer than 1 / p tokens have a probability above p.
                let above = log_threshold.map_or(0, |threshold| (-threshold).exp().ceil() as usize);
                let of_row = (*k as usize).max(above).min(vocabulary_size);
                rows.saturating_mul(of_row * TOP_TOKEN_BYTES + TOP_ROW_BYTES)
            }
            Self::Ids(ids) => ids.len() * size_of::<f32>(),
            Self::Draw { .. } => size_of::<u32>(),
        }
    }
}

impl Plan {
    /// For a generation. With log-probabilities wanted, everything that is not a vote needs whole rows.
    pub fn for_generate(
        fusion: &Fusion,
        sampling: &Sampling,
        log_probs: bool,
        rows: RowOptions,
        vocabulary_size: usize,
    ) -> Self {
        let dense = Self::Dense(rows.format);
        match fusion.rule {
            _ if rows.whole || log_probs => dense,
            Rule::ThresholdVote => {
                Self::certified_next(VOTE_K, Some(fusion.threshold), rows, vocabulary_size)
            }
            Rule::WeightedAverage if sampling.is_greedy() => {
                Self::certified_next(GREEDY_K, None, rows, vocabulary_size)
            }
            Rule::WeightedAverage if sampling.is_plain() => Self::Drawn,
            Rule::WeightedAverage | Rule::LogLinear | Rule::LogitMean | Rule::LogitMax => dense,
        }
    }

    /// For the step of a search that needs so many of the likeliest tokens with their probabilities.
    pub fn for_beam(
        fusion: &Fusion,
        leaders: u32,
        needs_rows: bool,
        rows: RowOptions,
        vocabulary_size: usize,
    ) -> Self {
        if needs_rows {
            Self::Dense(rows.format)
        } else {
            Self::for_predict(fusion, leaders, rows, vocabulary_size)
        }
    }

    /// For a scoring. The arithmetic mixture of a token needs nothing but each member's probability of it.
    pub fn for_score(fusion: &Fusion, rows: RowOptions, vocabulary_size: usize) -> Self {
        match fusion.rule {
            _ if rows.whole => Self::Dense(rows.format),
            Rule::WeightedAverage => Self::Targets,
            Rule::ThresholdVote => Self::certified(VOTE_K, Some(fusion.threshold), rows, vocabulary_size),
            Rule::LogLinear | Rule::LogitMean | Rule::LogitMax => Self::Dense(rows.format),
        }
    }

    /// For a prediction of `top_n` tokens, fused and of each member.
    pub fn for_predict(fusion: &Fusion, top_n: u32, rows: RowOptions, vocabulary_size: usize) -> Self {
        // Who leads together stands among the first of nearly everybody, but not in the same order.
        let k = top_n.saturating_mul(2).max(GREEDY_K);
        match fusion.rule {
            _ if rows.whole => Self::Dense(rows.format),
            Rule::WeightedAverage => Self::certified(k, None, rows, vocabulary_size),
            Rule::ThresholdVote => Self::certified(k, Some(fusion.threshold), rows, vocabulary_size),
            Rule::LogLinear | Rule::LogitMean | Rule::LogitMax => Self::Dense(rows.format),
        }
    }

    /// The plan that answers every request: whole rows, as the members computed them. What the others are held against.
    pub fn reference() -> Self {
        Self::Dense(RowFormat::F32)
    }

    /// Whole rows where they are small, so that a step is one question and one answer.
    fn certified_next(k: u32, threshold: Option<f64>, rows: RowOptions, vocabulary_size: usize) -> Self {
        if Ask::next_row(rows.format).answer_bytes(1, vocabulary_size) <= SMALL_ROW_BYTES {
            return Self::Dense(rows.format);
        }
        Self::certified(k, threshold, rows, vocabulary_size)
    }

    /// Whole rows where the likeliest tokens could be more bytes than those.
    fn certified(k: u32, threshold: Option<f64>, rows: RowOptions, vocabulary_size: usize) -> Self {
        let log_threshold = threshold.map(f64::ln);
        let top = Ask::Top { positions: Positions::Next, k, log_threshold };
        let row = Ask::next_row(RowFormat::F32);
        if top.answer_bytes(1, vocabulary_size) < row.answer_bytes(1, vocabulary_size) {
            Self::Certified { k, log_threshold }
        } else {
            Self::Dense(rows.format)
        }
    }

    /// What is asked about every token of an input; nothing for plans that are about what follows it.
    pub fn each(self) -> Ask {
        let positions = Positions::Each;
        match self {
            Self::Dense(format) => Ask::Logits { positions, format },
            Self::Targets => Ask::Targets,
            Self::Certified { k, log_threshold } => Ask::Top { positions, k, log_threshold },
            Self::Drawn => Ask::Nothing,
        }
    }

    /// The plan's name in counts and metrics.
    pub fn kind(self) -> PlanKind {
        match self {
            Self::Dense(_) => PlanKind::Dense,
            Self::Targets => PlanKind::Targets,
            Self::Certified { .. } => PlanKind::Certified,
            Self::Drawn => PlanKind::Drawn,
        }
    }
}

/// A plan without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// [`Plan::Dense`].
    Dense,
    /// [`Plan::Targets`].
    Targets,
    /// [`Plan::Certified`].
    Certified,
    /// [`Plan::Drawn`].
    Drawn,
}

impl PlanKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dense, Self::Targets, Self::Certified, Self::Drawn];

    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Targets => "targets",
            Self::Certified => "certified",
            Self::Drawn => "drawn",
        }
    }
}

impl fmt::Display for PlanKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Cuts an input of this many tokens into pieces, each within `max_feed_tokens` and with an answer of a bounded size. An
/// empty input is one empty piece, so that its ask is answered.
pub fn pieces(
    ask: &Ask,
    tokens: usize,
    vocabulary_size: usize,
    max_feed_tokens: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let length = feed_length(ask, vocabulary_size, max_feed_tokens);
    let pieces = tokens.div_ceil(length).max(1);
    (0..pieces).map(move |piece| piece * length..tokens.min((piece + 1) * length))
}

/// How many tokens one feed may hold so that the answer stays within its bytes: 1 MiB of rows, 4 MiB of
/// log-probabilities. At least 1: a row that is larger alone still has to travel.
pub fn feed_length(ask: &Ask, vocabulary_size: usize, max_feed_tokens: usize) -> usize {
    let bytes = match ask {
        Ask::Targets => TARGETS_ANSWER_BYTES,
        _ => ROWS_ANSWER_BYTES,
    };
    let fit = match ask {
        _ if !ask.is_about_each() => max_feed_tokens,
        _ => bytes / ask.answer_bytes(1, vocabulary_size).max(1),
    };
    fit.min(max_feed_tokens).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 33_278;

    fn fusion(rule: Rule, threshold: f64) -> Fusion {
        Fusion { rule, threshold }
    }

    fn generate(rule: Rule, sampling: Sampling, log_probs: bool) -> Plan {
        Plan::for_generate(&fusion(rule, 0.1), &sampling, log_probs, RowOptions::default(), SIZE)
    }

    #[test]
    fn every_request_has_its_plan() {
        let plain = Sampling::default();
        let greedy = Sampling { temperature: 0.0, ..plain };
        let dense = Plan::Dense(RowFormat::F32);
        let vote = Plan::Certified { k: VOTE_K, log_threshold: Some(0.1_f64.ln()) };
        for (sampling, of_average) in [
            (plain, Plan::Drawn),
            (greedy, Plan::Certified { k: GREEDY_K, log_threshold: None }),
            (Sampling { temperature: 0.9, ..plain }, dense),
            (Sampling { top_k: 5, ..plain }, dense),
            (Sampling { top_p: 0.9, ..plain }, dense),
        ] {
            for rule in Rule::ALL {
                let expected = match rule {
                    Rule::WeightedAverage => of_average,
                    Rule::ThresholdVote => vote,
                    _ => dense,
                };
                assert_eq!(generate(rule, sampling, false), expected, "{rule} {sampling:?}");
                assert_eq!(generate(rule, sampling, true), dense);
            }
        }
        let rows = RowOptions::default();
        for rule in Rule::ALL {
            let (score, predict) = match rule {
                Rule::WeightedAverage => (Plan::Targets, Plan::Certified { k: 40, log_threshold: None }),
                Rule::ThresholdVote => (vote, Plan::Certified { k: 40, log_threshold: Some(0.1_f64.ln()) }),
                _ => (dense, dense),
            };
            assert_eq!(Plan::for_score(&fusion(rule, 0.1), rows, SIZE), score);
            assert_eq!(Plan::for_predict(&fusion(rule, 0.1), 20, rows, SIZE), predict);
        }
    }

    #[test]
    fn a_request_can_have_whole_rows_in_its_own_format() {
        let rows = RowOptions { whole: true, format: RowFormat::F16 };
        for rule in Rule::ALL {
            let fusion = fusion(rule, 0.1);
            let plans = [
                Plan::for_generate(&fusion, &Sampling::default(), false, rows, SIZE),
                Plan::for_score(&fusion, rows, SIZE),
                Plan::for_predict(&fusion, 10, rows, SIZE),
            ];
            assert_eq!(plans, [Plan::Dense(RowFormat::F16); 3]);
        }
    }

    #[test]
    fn no_plan_asks_for_more_bytes_than_whole_rows_have() {
        let plan = |threshold, size| {
            let rows = RowOptions::default();
            Plan::for_score(&fusion(Rule::ThresholdVote, threshold), rows, size).kind()
        };
        assert_eq!(plan(0.1, SIZE), PlanKind::Certified);
        assert_eq!(plan(0.001, SIZE), PlanKind::Certified);
        for (threshold, size) in [(0.0, SIZE), (1e-300, SIZE), (0.00005, SIZE), (0.1, 20)] {
            assert_eq!(plan(threshold, size), PlanKind::Dense, "{threshold} of {size}");
        }
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        for (top_n, size) in [(10_000, SIZE), (1, 40)] {
            let plan =
                Plan::for_predict(&fusion(Rule::WeightedAverage, 0.1), top_n, RowOptions::default(), size);
            assert_eq!(plan.kind(), PlanKind::Dense);
        }
        let fusion = fusion(Rule::WeightedAverage, 0.1);
        for (size, kind) in [
            (40, PlanKind::Dense),
            (1024, PlanKind::Dense),
            (1025, PlanKind::Certified),
            (SIZE, PlanKind::Certified),
        ] {
            let plan = Plan::for_generate(&fusion, &greedy, false, RowOptions::default(), size);
            assert_eq!(plan.kind(), kind, "of {size}");
        }
    }

    #[test]
    fn a_feed_s_answer_stays_within_its_budget() {
        let each = Plan::Dense(RowFormat::F32).each();
        assert_eq!(feed_length(&each, 65, 1 << 20), ROWS_ANSWER_BYTES / 260);
        assert_eq!(feed_length(&Plan::Dense(RowFormat::Bf16).each(), 65, 1 << 20), ROWS_ANSWER_BYTES / 130);
        assert_eq!(feed_length(&each, 10_000_000, 512), 1);
        assert_eq!(feed_length(&Ask::next_row(RowFormat::F32), 10_000_000, 512), 512);
        assert_eq!(feed_length(&Ask::Nothing, 65, 0), 1);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_input_once(
            tokens in 0..5000_usize, vocabulary_size in 1..100_000_usize, max in 1..700_usize,
        ) {
            let top = Plan::Certified { k: 4, log_threshold: Some(-2.0) };
            for plan in [Plan::Dense(RowFormat::F32), Plan::Targets, top, Plan::Drawn] {
                let ask = plan.each();
                let mut next = 0;
                for piece in pieces(&ask, tokens, vocabulary_size, max) {
                    prop_assert_eq!(piece.start, next);
                    next = piece.end;
                    prop_assert!(piece.len() <= feed_length(&ask, vocabulary_size, max));
                    prop_assert!(!piece.is_empty() || tokens == 0);
                }
                prop_assert_eq!(next, tokens);
            }
        }
    }
}
