//! How well a model predicts a text: the chain rule over the whole text, with the state carried through.
//!
//! Knows nothing about files or how a text became tokens.

use crate::language_model::{ForwardError, LanguageModel};
use crate::log_sum_exp;
use crate::row::{Row, Want};

/// Tokens fed at a time; it bounds memory and changes nothing in the result.
const BLOCK_TOKENS: usize = 256;

/// The result of [`evaluate`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// How many tokens were predicted: all of the text, the first one from the model's start.
    pub tokens: u64,
    /// -log P(text), in nats.
    pub nats: f64,
}

impl Evaluation {
    /// The cross entropy in nats for each token; none for an empty text.
    pub fn nats_per_token(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }

    /// exp of [`Self::nats_per_token`].
    pub fn perplexity(&self) -> Option<f64> {
        self.nats_per_token().map(f64::exp)
    }
}

/// Scores a text: log P(w_1..w_n) = Σ log P(w_i | w_<i). `progress` hears how many tokens are done.
pub fn evaluate(
    model: &LanguageModel,
    tokens: &[u32],
    mut progress: impl FnMut(u64),
) -> Result<Evaluation, ForwardError> {
    let mut state = model.fresh_state()?;
    let mut evaluation = Evaluation { tokens: 0, nats: 0.0 };
    for block in tokens.chunks(BLOCK_TOKENS) {
        let row = Row { state: &mut state, tokens: block, want: Want::Each };
        for output in model.forward(&mut [row])? {
            let rows = output.logits.chunks_exact(model.config().vocab_size);
            for (logits, &token) in rows.zip(block) {
                evaluation.nats += log_sum_exp(logits) - f64::from(logits[token as usize]);
            }
        }
        evaluation.tokens += block.len() as u64;
        progress(evaluation.tokens);
    }
    Ok(evaluation)
}
