//! Lines side by side, as the network reads them: packed, without padding. Knows nothing about tensors.

use crate::line::Line;
use crate::packing::Packing;

/// Whole lines, each from the start token to its end. Row r reads `inputs[r]` and predicts `targets[r]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineBatch {
    pub(crate) packing: Packing,
    pub(crate) inputs: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    /// The rows whose targets are learned: what stands after a line's context, and its end. Never none.
    pub(crate) learned: Vec<u32>,
    /// The rows whose targets belong to the context.
    pub(crate) context: Vec<u32>,
}

impl LineBatch {
    pub(crate) fn new(lines: &[&Line], start: u32, end: u32) -> Self {
        let lengths: Vec<usize> = lines.iter().map(|line| line.tokens.len() + 1).collect();
        let (packing, order) = Packing::from_lengths(&lengths);
        let rows = packing.rows();
        let (mut inputs, mut targets) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let (mut learned, mut context) = (Vec::new(), Vec::new());
        for (step, &reached) in packing.batch_sizes().iter().enumerate() {
            for &line in &order[..reached] {
                let Line { tokens, context: read_only } = lines[line];
                let rows = if step < *read_only { &mut context } else { &mut learned };
                rows.push(inputs.len() as u32);
                inputs.push(step.checked_sub(1).map_or(start, |before| tokens[before]));
                targets.push(tokens.get(step).copied().unwrap_or(end));
            }
        }
        Self { packing, inputs, targets, learned, context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_the_start_and_end_with_the_end() {
        let long = Line { tokens: vec![5, 6, 7], context: 2 };
        let short = Line { tokens: vec![8], context: 0 };
        let batch = LineBatch::new(&[&short, &long], 1, 2);
        assert_eq!(batch.packing.batch_sizes(), [2, 2, 1, 1]);
        assert_eq!(batch.inputs, [1, 1, 5, 8, 6, 7]);
        assert_eq!(batch.targets, [5, 8, 6, 2, 7, 2]);
        assert_eq!(batch.context, [0, 2]);
        assert_eq!(batch.learned, [1, 3, 4, 5]);
    }

    #[test]
    fn of_a_line_that_is_all_context_the_end_is_learned() {
        let line = Line { tokens: vec![5], context: 1 };
        let batch = LineBatch::new(&[&line], 1, 2);
        assert_eq!((batch.learned, batch.context), (vec![1], vec![0]));
    }
}
