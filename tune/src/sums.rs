//! Sums over many tokens on all threads, with the same bits however many threads there are. Knows nothing about what is
//! summed.

use std::ops::Range;

use rayon::prelude::*;

/// Tokens that one thread takes at once: enough that handing them out costs nothing beside the work, and few enough that
/// their numbers stay in the first caches.
pub(crate) const BLOCK: usize = 2048;

/// The blocks of so many tokens, in order.
pub(crate) fn blocks(tokens: usize) -> impl IndexedParallelIterator<Item = Range<usize>> {
    (0..tokens.div_ceil(BLOCK)).into_par_iter().map(move |block| range(block, tokens))
}

/// The tokens of a block.
pub(crate) fn range(block: usize, tokens: usize) -> Range<usize> {
    block * BLOCK..tokens.min((block + 1) * BLOCK)
}

/// The sum of what each block gives. Blocks are cut and added in one order, so threads don't change the bits.
pub(crate) fn sum_in_blocks(tokens: usize, of_block: impl Fn(Range<usize>) -> f64 + Send + Sync) -> f64 {
    let parts: Vec<f64> = blocks(tokens).map(of_block).collect();
    parts.iter().sum()
}
