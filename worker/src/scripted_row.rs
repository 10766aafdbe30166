//! Rows of a forward as scripted predictors read them, at once or later, when they are collected. Knows nothing about what they
//! compute.

use chorus_simd::Reduction;

use crate::predictor::{Row, Want};

/// All of a row, its state as it was.
#[derive(Debug)]
pub(crate) struct KeptRow<S> {
    state: S,
    tokens: Vec<u32>,
    want: Want,
    ids: Vec<u32>,
    reduction: Reduction<'static>,
}

impl<S: Clone> KeptRow<S> {
    pub(crate) fn of(row: &Row<'_, S>) -> Self {
        let (ids, reduction) = match row.reduction {
            Reduction::Norm => (vec![], Reduction::Norm),
            Reduction::Target => (vec![], Reduction::Target),
            Reduction::Row => (vec![], Reduction::Row),
            Reduction::Top { k, log_threshold } => (vec![], Reduction::Top { k, log_threshold }),
            Reduction::Ids(ids) => (ids.to_vec(), Reduction::Ids(&[])),
            Reduction::Draw { uniform } => (vec![], Reduction::Draw { uniform }),
        };
        Self { state: row.state.clone(), tokens: row.tokens.to_vec(), want: row.want, ids, reduction }
    }

    pub(crate) fn row(&mut self) -> Row<'_, S> {
        let Self { state, tokens, want, ids, reduction } = self;
        let reduction = match reduction {
            Reduction::Ids(_) => Reduction::Ids(ids),
            other => *other,
        };
        Row { state, tokens, want: *want, reduction }
    }
}

/// Reads a row whose state is the tokens themselves. Of each wanted distribution `predict` is told which of the row's it is, and
/// the tokens before it.
pub(crate) fn read_tokens(row: &mut Row<'_, Vec<u32>>, mut predict: impl FnMut(usize, &[u32])) {
    for (offset, &token) in row.tokens.iter().enumerate() {
        if row.want == Want::Each {
            predict(offset, row.state);
        }
        row.state.push(token);
    }
    if row.want == Want::Next {
        predict(0, row.state);
    }
}
