//! How well a model predicts a text: the chain rule over the whole text with the state carried through, or over parts
//! of it side by side.
//!
//! Knows nothing about files or how a text became tokens.

use std::num::NonZeroUsize;

use crate::forward_error::ForwardError;
use crate::language_model::LanguageModel;
use crate::line::Line;
use crate::row::{Row, Want};

/// Tokens fed at a time; it bounds memory and changes nothing in the result.
const BLOCK_TOKENS: usize = 256;

/// Lines that are read side by side.
const BLOCK_LINES: usize = 16;

/// The result of [`evaluate`], [`evaluate_in_lanes`] and [`evaluate_lines`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// How many tokens were predicted; by [`evaluate`] all of the text, the first one from the model's start.
    pub tokens: u64,
    /// -log P of the predicted tokens, in nats.
    pub nats: f64,
}

impl Evaluation {
    /// The cross entropy in nats for each token; none where nothing was predicted.
    pub fn nats_per_token(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nats / self.tokens as f64)
    }

    /// exp of [`Self::nats_per_token`].
    pub fn perplexity(&self) -> Option<f64> {
        self.nats_per_token().map(f64::exp)
    }
}

/// Scores a text: log P(w_1..w_n) = Σ log P(w_i | w_<i), with the state carried from its first token to its last.
/// `progress` hears how many tokens are done.
///
/// ```
/// # use candle_core::Device;
/// use chorus_model::{LanguageModel, evaluate};
///
/// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
/// let tokens = model.vocabulary().encode("My lord, the king is come.\n")?;
/// let evaluation = evaluate(&model, &tokens, |_| {})?;
/// // It knows much more than nothing: a uniform guess has a perplexity of V = 512.
/// assert!(evaluation.perplexity().is_some_and(|perplexity| perplexity < 100.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A token that is not in the vocabulary, or a device that fails.
pub fn evaluate(
    model: &LanguageModel,
    tokens: &[u32],
    progress: impl FnMut(u64),
) -> Result<Evaluation, ForwardError> {
    read(model, &[tokens], 0, progress)
}

/// Scores a text as batched evaluations do: cut into `lanes` parts of the same length that are read side by side.
///
/// Every lane begins with a fresh state, its first token is read and not scored, and the fewer than `lanes` tokens that
/// are left over at the end are not read: the arrangement of PyTorch's word language model example (`batchify`).
/// Where the parts begin the model knows less than in [`evaluate`], so the figure is higher the more lanes there are.
/// A text of fewer than two tokens a lane has nothing to score.
///
/// ```
/// # use candle_core::Device;
/// use chorus_model::{LanguageModel, evaluate_in_lanes};
///
/// let model = LanguageModel::load("../deploy/demo/alto".as_ref(), &Device::Cpu)?;
/// let evaluation = evaluate_in_lanes(&model, &[40; 21], 4.try_into()?, |_| {})?;
/// // Four lanes of five tokens, of which four are scored; one token is left over.
/// assert_eq!(evaluation.tokens, 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_in_lanes(
    model: &LanguageModel,
    tokens: &[u32],
    lanes: NonZeroUsize,
    progress: impl FnMut(u64),
) -> Result<Evaluation, ForwardError> {
    let length = tokens.len() / lanes;
    let lanes: Vec<&[u32]> = tokens.chunks_exact(length.max(1)).take(lanes.get()).collect();
    read(model, &lanes, 1, progress)
}

/// Scores lines, each a sequence of its own: from the model's start to its `end` token, which is scored like the others.
/// A line's context is read and not scored. `progress` hears how many lines are done.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_lines(
    model: &LanguageModel,
    lines: &[Line],
    end: u32,
    mut progress: impl FnMut(u64),
) -> Result<Evaluation, ForwardError> {
    let fresh = model.fresh_state()?;
    let mut evaluation = Evaluation { tokens: 0, nats: 0.0 };
    let mut done = 0;
    for lines in lines.chunks(BLOCK_LINES) {
        let tokens: Vec<Vec<u32>> =
            lines.iter().map(|line| line.tokens.iter().copied().chain([end]).collect()).collect();
        let mut states = vec![fresh.clone(); lines.len()];
        let rows = states.iter_mut().zip(&tokens);
        let mut rows: Vec<Row<'_>> =
            rows.map(|(state, tokens)| Row { state, tokens, want: Want::Each }).collect();
        model.predict(&mut rows, &mut |prediction| {
            if prediction.offset >= lines[prediction.row].context {
                let token = tokens[prediction.row][prediction.offset];
                evaluation.nats -= prediction.norm.log_prob(prediction.logits[token as usize]);
                evaluation.tokens += 1;
            }
        })?;
        done += lines.len() as u64;
        progress(done);
    }
    Ok(evaluation)
}

/// Reads lanes of one length side by side, each from a fresh state, and scores all but the first `context` tokens of each.
fn read(
    model: &LanguageModel,
    lanes: &[&[u32]],
    context: usize,
    mut progress: impl FnMut(u64),
) -> Result<Evaluation, ForwardError> {
    let length = lanes.first().map_or(0, |lane| lane.len());
    let time = (BLOCK_TOKENS / lanes.len().max(1)).max(1);
    let mut states = vec![model.fresh_state()?; lanes.len()];
    let mut evaluation = Evaluation { tokens: 0, nats: 0.0 };
    for begin in (0..length).step_by(time) {
        let block = begin..length.min(begin + time);
        let rows = states.iter_mut().zip(lanes);
        let mut rows: Vec<Row<'_>> =
            rows.map(|(state, lane)| Row { state, tokens: &lane[block.clone()], want: Want::Each }).collect();
        let skipped = context.saturating_sub(begin);
        model.predict(&mut rows, &mut |prediction| {
            if prediction.offset >= skipped {
                let token = lanes[prediction.row][block.start + prediction.offset];
                evaluation.nats -= prediction.norm.log_prob(prediction.logits[token as usize]);
                evaluation.tokens += 1;
            }
        })?;
        progress((block.end * lanes.len()) as u64);
    }
    Ok(evaluation)
}
