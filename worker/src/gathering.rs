//! An answer as it comes together: each distribution is reduced to what the ask needs of it as soon as it is there, and
//! nothing else is kept. Knows nothing about sessions, steps or forwards.

use bytes::Bytes;
use chorus_proto::v1;
use chorus_simd::Norm;

use crate::operation::{Ask, Feed};

/// What is kept of the distributions so far.
#[derive(Debug)]
pub(crate) struct Gathering {
    distributions: usize,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Nothing,
    /// Logits as little-endian bytes, row after row, and each row's log-sum-exp.
    Logits {
        bytes: Vec<u8>,
        log_sum_exp: Vec<f32>,
    },
    Targets {
        log_probs: Vec<f64>,
    },
}

impl Gathering {
    /// Nothing yet of the answer to this feed.
    pub(crate) fn new(feed: &Feed) -> Self {
        let kept = match feed.ask {
            Ask::Nothing => Kept::Nothing,
            Ask::Next | Ask::Each => Kept::Logits { bytes: Vec::new(), log_sum_exp: Vec::new() },
            Ask::Targets => Kept::Targets { log_probs: Vec::with_capacity(feed.tokens.len()) },
        };
        Self { distributions: 0, kept }
    }

    /// How many distributions were taken in.
    pub(crate) fn distributions(&self) -> usize {
        self.distributions
    }

    /// Takes in a distribution with finite logits; `target` is the token of the feed that is drawn from it.
    pub(crate) fn receive(&mut self, logits: &[f32], norm: Norm, target: Option<u32>) {
        self.distributions += 1;
        match &mut self.kept {
            Kept::Nothing => {}
            Kept::Logits { bytes, log_sum_exp } => {
                bytes.reserve(size_of_val(logits));
                logits.iter().for_each(|logit| bytes.extend_from_slice(&logit.to_le_bytes()));
                log_sum_exp.push(norm.log_sum_exp() as f32);
            }
            Kept::Targets { log_probs } => {
                let logit = target.and_then(|target| logits.get(target as usize));
                log_probs.extend(logit.map(|logit| norm.log_prob(*logit)));
            }
        }
    }

    /// The answer.
    pub(crate) fn finish(self) -> v1::answer::Answer {
        match self.kept {
            Kept::Nothing => v1::answer::Answer::Advanced(v1::Advanced {}),
            Kept::Logits { bytes, log_sum_exp } => {
                v1::answer::Answer::Logits(v1::Logits { values: Bytes::from(bytes), log_sum_exp })
            }
            Kept::Targets { log_probs } => v1::answer::Answer::Targets(v1::Targets { log_probs }),
        }
    }
}
