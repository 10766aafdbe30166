//! The rows of a call as a packed block: which sequence stands where, in which order tokens are fed, and from which hidden
//! vector every wanted distribution comes. Knows nothing about states, arithmetic or devices.

use crate::packing::Packing;
use crate::row::Want;

/// The rows of a call as a packed block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) packing: Packing,
    /// For each sequence of the packed batch the row of the call that it is.
    pub(crate) order: Vec<usize>,
    /// The tokens in packed order.
    pub(crate) tokens: Vec<u32>,
    /// Every distribution that is wanted, row by row.
    pub(crate) wanted: Vec<Wanted>,
    lengths: Vec<usize>,
    /// For each row of the call its sequence in the packed batch.
    places: Vec<Option<usize>>,
}

/// A wanted distribution and the hidden vector that it is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) row: usize,
    /// Which of the row's distributions.
    pub(crate) offset: usize,
    pub(crate) source: Source,
}

/// A hidden vector of the top layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the state that the row came with.
    Before,
    /// After a step of a sequence of the packed batch.
    After {
        /// Which step.
        step: usize,
        /// Which sequence.
        place: usize,
    },
}

impl Block {
    /// Takes in the rows of a call: what each feeds and wants.
    pub(crate) fn fill<'a>(&mut self, rows: impl Iterator<Item = (&'a [u32], Want)> + Clone) {
        self.lengths.clear();
        self.lengths.extend(rows.clone().map(|(tokens, _)| tokens.len()));
        self.packing.refill(&self.lengths, &mut self.order);
        self.places.clear();
        self.places.resize(self.lengths.len(), None);
        for (place, &row) in self.order.iter().enumerate() {
            self.places[row] = Some(place);
        }
        self.tokens.clear();
        self.tokens.resize(self.packing.rows(), 0);
        for ((tokens, _), place) in rows.clone().zip(&self.places) {
            let Some(place) = *place else { continue };
            tokens.iter().enumerate().for_each(|(step, &token)| {
                self.tokens[self.packing.row(step, place)] = token;
            });
        }
        self.wanted.clear();
        for (index, ((tokens, want_of_row), place)) in rows.zip(&self.places).enumerate() {
            let after = |step| place.map_or(Source::Before, |place| Source::After { step, place });
            let before = std::iter::once(Source::Before);
            let tokens = tokens.len();
            let mut want = |sources: &mut dyn Iterator<Item = Source>| {
                let wanted =
                    sources.enumerate().map(|(offset, source)| Wanted { row: index, offset, source });
                self.wanted.extend(wanted);
            };
            match want_of_row {
                Want::Nothing => {}
                Want::Next if tokens == 0 => want(&mut before.take(1)),
                Want::Next => want(&mut std::iter::once(after(tokens - 1))),
                // The distribution before each token.
                Want::Each => want(&mut before.chain((1..tokens).map(|token| after(token - 1))).take(tokens)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wanted_distribution_finds_its_hidden_vector() {
        let wants = [Want::Each, Want::Next, Want::Nothing, Want::Next, Want::Each];
        let tokens: [&[u32]; 5] = [&[7, 8], &[], &[9], &[4, 5, 6], &[]];
        let rows = tokens.into_iter().zip(wants);
        let mut block = Block::default();
        for _ in 0..2 {
            block.fill(rows.clone());
            assert_eq!(block.order, [3, 0, 2]);
            assert_eq!(block.tokens, [4, 7, 9, 5, 8, 6]);
            let wanted = |row, offset, source| Wanted { row, offset, source };
            let expected = [
                wanted(0, 0, Source::Before),
                wanted(0, 1, Source::After { step: 0, place: 1 }),
                wanted(1, 0, Source::Before),
                wanted(3, 0, Source::After { step: 2, place: 0 }),
            ];
            assert_eq!(block.wanted, expected);
        }
    }
}
