//! A text in parts that are asked about one by one. Knows nothing about what is asked.

use std::ops::Range;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// The tokens that are asked about.
    pub(crate) tokens: Range<usize>,
    /// Where reading begins, so that the first ones of these have something before them.
    pub(crate) begin: usize,
}

impl Part {
    /// What is read, of all tokens.
    pub(crate) fn read<'a>(&self, all: &'a [u32]) -> &'a [u32] {
        all.get(self.begin..self.tokens.end).unwrap_or_default()
    }

    /// How many tokens are read before those that are asked about.
    pub(crate) fn context(&self) -> usize {
        self.tokens.start - self.begin
    }
}

/// Parts of `length` tokens (at least 1), each read with `context` tokens before it.
pub(crate) fn parts(tokens: usize, length: usize, context: usize) -> Vec<Part> {
    let length = length.max(1);
    let part = |index: usize| {
        let start = index * length;
        Part { index, tokens: start..tokens.min(start + length), begin: start.saturating_sub(context) }
    };
    (0..tokens.div_ceil(length)).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_text_once_and_know_what_came_before() {
        let all: Vec<u32> = (0..10).collect();
        let parts = parts(all.len(), 4, 3);
        let read: Vec<&[u32]> = parts.iter().map(|part| part.read(&all)).collect();
        assert_eq!(read, [&[0, 1, 2, 3][..], &[1, 2, 3, 4, 5, 6, 7], &[5, 6, 7, 8, 9]]);
        assert_eq!(parts.iter().map(Part::context).collect::<Vec<_>>(), [0, 3, 3]);
        assert_eq!(parts.last().map(|part| part.tokens.clone()), Some(8..10));
        assert!(super::parts(0, 4, 3).is_empty());
    }
}
