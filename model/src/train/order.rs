//! The order in which a training run reads its text: as it stands, or by passages in a seeded order.
//! Knows nothing about lanes or tensors.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::random::{Purpose, generator, shuffle};

/// The order of the training text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataOrder {
    /// As the text stands, in every epoch.
    #[default]
    Text,
    /// The text is cut into passages after every run of two or more start tokens (blank lines, where the start
    /// token is a line's end), and each epoch reads them in an order of its own that follows from the seed.
    Passages,
}

/// Where the passages of `tokens` lie: each ends after a run of at least two `separator` tokens.
/// Together they are the whole text.
pub(crate) fn passages(tokens: &[u32], separator: u32) -> Vec<Range<usize>> {
    let mut passages = Vec::new();
    let mut begin = 0;
    for at in 2..tokens.len() {
        if tokens[at] != separator && tokens[at - 1] == separator && tokens[at - 2] == separator {
            passages.push(begin..at);
            begin = at;
        }
    }
    passages.push(begin..tokens.len());
    passages
}

/// The order of one epoch: where in the text its tokens stand, with the passages in the order of (`seed`, `epoch`).
pub(crate) fn reordered(passages: &[Range<usize>], seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<&Range<usize>> = passages.iter().collect();
    shuffle(&mut order, &mut generator(seed, Purpose::Order, epoch as u64));
    order.into_iter().flat_map(Range::clone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: [u32; 11] = [5, 0, 6, 0, 0, 7, 0, 0, 0, 8, 0];

    #[test]
    fn passages_end_after_blank_lines() {
        assert_eq!(passages(&TEXT, 0), [0..5, 5..9, 9..11]);
        assert_eq!(passages(&[1, 0, 2], 0).as_slice(), std::slice::from_ref(&(0..3)));
    }

    #[test]
    fn an_epoch_reads_every_passage_once_in_an_order_of_its_own() {
        let tokens: Vec<u32> = (1..200).flat_map(|word| [word, 0, 0]).collect();
        let passages = passages(&tokens, 0);
        let first = reordered(&passages, 7, 0);
        assert_eq!(first, reordered(&passages, 7, 0));
        assert_ne!(first, reordered(&passages, 7, 1));
        assert_ne!(first, reordered(&passages, 8, 0));
        // Within a passage the text goes on as it stands.
        assert!(first.chunks(3).all(|place| place[0] % 3 == 0 && place[2] == place[0] + 2));
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..tokens.len()).collect::<Vec<_>>());
    }
}
