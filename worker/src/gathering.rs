//! An answer as it comes together: each distribution is reduced to what the ask needs of it as soon as it is there, and
//! nothing else is kept. Knows nothing about sessions, steps or forwards.

use bytes::Bytes;
use chorus_proto::{
    put_values, rounded,
    v1::{self, RowFormat, answer::Answer},
};
use chorus_simd::{Norm, Reduced};

use crate::{
    operation::{Ask, Feed, Rows},
    predictor::Prediction,
};

/// What is kept of the distributions so far.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    distributions: usize,
    norms: v1::Norms,
    /// Logits: of whole rows, of the likeliest tokens, or of those that were asked for.
    logits: Vec<u8>,
    log_probs: Vec<f64>,
    /// How many tokens each row has in the answer.
    counts: Vec<u32>,
    ids: Vec<u32>,
    target_logits: Vec<u8>,
    drawn: u32,
}

impl Gathering {
    /// How many distributions were taken in.
    pub(crate) fn distributions(&self) -> usize {
        self.distributions
    }

    /// Takes in what is known of a distribution whose norm is finite: the ask's own reduction of it.
    pub(crate) fn receive(&mut self, ask: &Ask, prediction: &Prediction<'_>) {
        let Prediction { norm, target, found, .. } = *prediction;
        self.distributions += 1;
        match (ask, found) {
            (Ask::Logits { format, .. }, Reduced::Row(logits)) => self.keep_row(logits, norm, *format),
            (Ask::Targets, _) => self.log_probs.extend(target.map(|logit| norm.log_prob(logit))),
            (Ask::Top { rows, .. }, Reduced::Top { ids, logits }) => {
                self.counts.push(u32::try_from(ids.len()).unwrap_or(u32::MAX));
                self.ids.extend(ids);
                put_values(&mut self.logits, logits.iter().copied(), RowFormat::F32);
                if let (Rows::Each, Some(target)) = (rows, target) {
                    put_values(&mut self.target_logits, [target].into_iter(), RowFormat::F32);
                }
                self.norms.push(norm.largest, norm.log_sum);
            }
            (Ask::Ids(_), Reduced::Ids(logits)) => {
                put_values(&mut self.logits, logits.iter().copied(), RowFormat::F32);
                self.norms.push(norm.largest, norm.log_sum);
            }
            (Ask::Draw { .. }, Reduced::Drawn(token)) => self.drawn = token,
            // Nothing is asked, or the predictor answers something else: then the answer is found to be too short.
            _ => {}
        }
    }

    /// The answer to the feed from whose distributions this was gathered.
    pub(crate) fn finish(self, feed: &Feed) -> Answer {
        let (logits, norms) = (Bytes::from(self.logits), Some(self.norms));
        match feed.ask {
            Ask::Nothing => Answer::Advanced(v1::Advanced {}),
            Ask::Logits { .. } => Answer::Logits(v1::Logits { values: logits, norms }),
            Ask::Targets => Answer::Targets(v1::Targets { log_probs: self.log_probs }),
            Ask::Top { .. } => Answer::Top(v1::TopTokens {
                counts: self.counts,
                ids: self.ids,
                logits,
                norms,
                target_logits: Bytes::from(self.target_logits),
            }),
            Ask::Ids(_) => Answer::Ids(v1::IdLogits { logits, norms }),
            Ask::Draw { .. } => Answer::Drawn(v1::Drawn { id: self.drawn }),
        }
    }

    fn keep_row(&mut self, logits: &[f32], norm: Norm, format: RowFormat) {
        if format == RowFormat::F32 {
            put_values(&mut self.logits, logits.iter().copied(), format);
            self.norms.push(norm.largest, norm.log_sum);
            return;
        }
        // The norm has to be that of what arrives, or probabilities would not sum to one there.
        let distances = logits.iter().map(|logit| rounded(logit - norm.largest, format));
        let distances: Vec<f32> = distances.collect();
        let norm = chorus_simd::norm(&distances);
        put_values(&mut self.logits, distances.into_iter(), format);
        self.norms.push(norm.largest, norm.log_sum);
    }
}
