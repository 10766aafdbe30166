//! What requests are checked against in tests: two members that know four characters, with small limits.

#![allow(clippy::unwrap_used)]

use chorus_text::Vocabulary;

use crate::config::Limits;
use crate::fusion::Fusion;
use crate::request::Terms;
use crate::weights::Weights;

/// An ensemble of two members that know the letters a, b, c and the space.
pub(crate) struct SmallEnsemble {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) limits: Limits,
    pub(crate) fusion: Fusion,
    pub(crate) members: Vec<String>,
    pub(crate) weights: Weights,
}

impl SmallEnsemble {
    pub(crate) fn new() -> Self {
        Self {
            vocabulary: Vocabulary::train_characters("ab c").unwrap(),
            limits: Limits {
                max_input_tokens: 8,
                max_input_bytes: 12,
                max_generated_tokens: 100,
                max_top_n: 20,
                max_beam_size: 4,
                ..Limits::default()
            },
            fusion: Fusion::default(),
            members: ["alto", "bass"].map(str::to_owned).to_vec(),
            weights: Weights::new([("alto", 1.0), ("bass", 2.0)]).unwrap(),
        }
    }

    pub(crate) fn terms(&self) -> Terms<'_> {
        let Self { vocabulary, limits, fusion, members, weights } = self;
        Terms { vocabulary, limits, fusion, members, weights, learned: None }
    }
}
