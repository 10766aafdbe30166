//! What is wanted to be known of one distribution, and what is then known: pure functions of a row of logits and of its
//! norm.
//!
//! Whoever computes a row reduces it where it stands, so that no more than the answer travels: from a device to the host,
//! and from there over the wire. Knows nothing about sessions, feeds or how an answer travels.

use std::cmp::Ordering;

use crate::{Norm, draw, for_each_within, largest};

/// Parts of a row whose maxima are compared, for each of the likeliest tokens that are wanted: the more, the fewer others are
/// as large as the bound that follows.
const PARTS: usize = 4;
/// Logits of a part at least.
const PART: usize = 16;

/// What is wanted to be known of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reduction<'a> {
    /// Nothing but its norm.
    Norm,
    /// All logits.
    Row,
    /// The logit of the token that was drawn from it.
    Target,
    /// The `k` likeliest tokens and all whose log-probability is above a threshold.
    Top {
        /// How many at least.
        k: usize,
        /// ln p.
        log_threshold: Option<f64>,
    },
    /// The logits of these tokens.
    Ids(&'a [u32]),
    /// The token at this place, in [0, 1), of the cumulative distribution in the order of ids.
    Draw {
        /// The place.
        uniform: f64,
    },
}

/// What is known of a distribution, lent by whoever computed it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reduced<'a> {
    /// Of [`Reduction::Norm`] and [`Reduction::Target`], whose logit comes beside it, and of a row that is not finite.
    Norm,
    /// `[vocabulary]` logits.
    Row(&'a [f32]),
    /// Tokens ascending, each with its logit.
    Top {
        /// Tokens.
        ids: &'a [u32],
        /// Their logits.
        logits: &'a [f32],
    },
    /// Logits in the order of the tokens that were asked for.
    Ids(&'a [f32]),
    /// A token.
    Drawn(u32),
}

/// Room for what is found, so that a row after the other allocates nothing.
#[derive(Debug, Default)]
pub struct Room {
    maxima: Vec<f32>,
    tokens: Vec<Token>,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

impl Reduction<'_> {
    /// Reduces a row whose norm this is; of one that is not finite nothing else is known. Tokens outside the vocabulary are left
    /// out.
    ///
    /// ```
    /// use chorus_simd::{Reduced, Reduction, Room, norm};
    ///
    /// let row = [0.5, 2.0, 2.0, -1.0];
    /// let top = Reduction::Top { k: 1, log_threshold: None };
    /// // Of equally likely tokens the one with the lower id.
    /// let expected = Reduced::Top { ids: &[1], logits: &[2.0] };
    /// assert_eq!(top.of(&row, norm(&row), &mut Room::default()), expected);
    /// ```
    #[must_use]
    pub fn of<'a>(self, logits: &'a [f32], norm: Norm, room: &'a mut Room) -> Reduced<'a> {
        match self {
            _ if !norm.is_finite() => Reduced::Norm,
            Self::Norm | Self::Target => Reduced::Norm,
            Self::Row => Reduced::Row(logits),
            Self::Top { k, log_threshold } => room.top(logits, norm, k, log_threshold),
            Self::Ids(ids) => {
                room.logits.clear();
                room.logits.extend(ids.iter().filter_map(|id| logits.get(*id as usize)));
                Reduced::Ids(&room.logits)
            }
            Self::Draw { uniform } => {
                Reduced::Drawn(u32::try_from(draw(logits, norm, uniform)).unwrap_or(u32::MAX))
            }
        }
    }
}

/// A token with its logit, ordered by how little the row needs it: the least likely is the greatest, and of equally likely
/// ones the one with the higher id.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    logit: f32,
}

impl Ord for Token {
    fn cmp(&self, other: &Self) -> Ordering {
        // Finite logits: only the two zeros compare otherwise than their bits.
        let likelier = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        likelier.then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Token {}

impl Room {
    fn top(&mut self, logits: &[f32], norm: Norm, k: usize, log_threshold: Option<f64>) -> Reduced<'_> {
        self.tokens.clear();
        if let Some(threshold) = log_threshold {
            let tokens = (0..).zip(logits.iter().copied());
            let above = tokens.filter(|(_, logit)| norm.log_prob(*logit) > threshold);
            self.tokens.extend(above.map(|(id, logit)| Token { id, logit }));
        }
        // Both are leading parts of the row in one order, so the longer one holds the other.
        if self.tokens.len() < k {
            self.select(logits, k);
        }
        self.ids.clear();
        self.ids.extend(self.tokens.iter().map(|token| token.id));
        self.logits.clear();
        self.logits.extend(self.tokens.iter().map(|token| token.logit));
        Reduced::Top { ids: &self.ids, logits: &self.logits }
    }

    /// Selection among the tokens that are as likely as a bound which `k` of them are known to reach.
    fn select(&mut self, logits: &[f32], k: usize) {
        let bound = self.reached_by(logits, k);
        let tokens = &mut self.tokens;
        tokens.clear();
        for_each_within(logits, bound, f32::INFINITY, |place, logit| {
            tokens.push(Token { id: u32::try_from(place).unwrap_or(u32::MAX), logit });
        });
        if k < tokens.len() {
            tokens.select_nth_unstable(k);
            tokens.truncate(k);
        }
        tokens.sort_unstable_by_key(|token| token.id);
    }

    /// The `k`-th largest of the maxima of the row's parts, which at least `k` logits reach; minus infinity where the parts are
    /// fewer.
    fn reached_by(&mut self, logits: &[f32], k: usize) -> f32 {
        let part = logits.len().div_ceil(k.max(1).saturating_mul(PARTS)).max(PART);
        self.maxima.clear();
        self.maxima.extend(logits.chunks(part).map(largest));
        match k.checked_sub(1).filter(|last| *last < self.maxima.len()) {
            Some(last) => *self.maxima.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1,
            None => f32::NEG_INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::norm;

    /// Few different values, so that many are equal; in rows of one part and of many.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        let value = || (-8_i8..8).prop_map(|value| f32::from(value) / 2.0);
        let many = (-20_000_i16..20_000).prop_map(|value| f32::from(value) / 1024.0);
        prop_oneof![
            prop::collection::vec(value(), 1..60),
            prop::collection::vec(value(), 500..2000),
            prop::collection::vec(many, 500..2000),
        ]
    }

    /// By sorting the whole row.
    fn naive_top(logits: &[f32], norm: Norm, k: usize, log_threshold: Option<f64>) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        // A stable sort keeps the lower id in front.
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let above = |logit: f32| {
            let log_prob = f64::from(logit) - f64::from(norm.largest) - norm.log_sum;
            log_threshold.is_some_and(|threshold| log_prob > threshold)
        };
        let mut kept: Vec<(u32, f32)> = all
            .into_iter()
            .enumerate()
            .filter(|(rank, (_, l))| *rank < k || above(*l))
            .map(|(_, t)| t)
            .collect();
        kept.sort_by_key(|(id, _)| *id);
        kept
    }

    fn top(logits: &[f32], k: usize, log_threshold: Option<f64>, room: &mut Room) -> Vec<(u32, f32)> {
        match (Reduction::Top { k, log_threshold }).of(logits, norm(logits), room) {
            Reduced::Top { ids, logits } => ids.iter().copied().zip(logits.iter().copied()).collect(),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn the_top_is_that_of_the_sorted_row(
            rows in prop::collection::vec((logits(), 0_usize..70, prop::option::of(0.001_f64..0.999)), 1..4),
        ) {
            let mut room = Room::default();
            for (logits, k, threshold) in rows {
                let log_threshold = threshold.map(f64::ln);
                let expected = naive_top(&logits, norm(&logits), k, log_threshold);
                prop_assert_eq!(top(&logits, k, log_threshold, &mut room), expected);
            }
        }
    }

    #[test]
    fn the_two_zeros_are_equally_likely() {
        let logits = [-0.0, 0.0, -0.0];
        assert_eq!(top(&logits, 2, None, &mut Room::default()), [(0, -0.0), (1, 0.0)]);
        // In several parts, of which each has both.
        let logits: Vec<f32> = (0..400).map(|id| if id % 3 == 0 { 0.0 } else { -0.0 }).collect();
        let ids = top(&logits, 20, None, &mut Room::default()).into_iter().map(|(id, _)| id);
        assert!(ids.eq(0..20));
        assert_eq!(top(&logits, usize::MAX, None, &mut Room::default()).len(), 400);
    }

    #[test]
    fn what_was_asked_for_is_what_is_known() {
        let row = [0.2f32.ln(), 0.7f32.ln(), 0.1f32.ln()];
        let mut room = Room::default();
        let mut reduced =
            |reduction: Reduction<'_>| format!("{:?}", reduction.of(&row, norm(&row), &mut room));
        assert_eq!(reduced(Reduction::Norm), "Norm");
        assert_eq!(reduced(Reduction::Target), "Norm");
        assert_eq!(reduced(Reduction::Row), format!("Row({row:?})"));
        assert_eq!(reduced(Reduction::Ids(&[2, 0, 9])), format!("Ids({:?})", [row[2], row[0]]));
        assert_eq!(reduced(Reduction::Draw { uniform: 0.95 }), "Drawn(2)");
        let broken = [0.0, f32::NAN];
        let top = Reduction::Top { k: 1, log_threshold: None };
        assert_eq!(top.of(&broken, norm(&broken), &mut Room::default()), Reduced::Norm);
    }
}
