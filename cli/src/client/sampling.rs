//! Options that say how a token is chosen, or how sequences are searched for. Knows nothing about what they do.

use chorus_proto::v1::{BeamOptions, SamplingOptions, TokenIds};

use crate::values::{number as any_number, seed};

/// How a token is chosen from the fused distribution.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// The same seed gives the same text (default: the ensemble chooses one; see `end` of --json)
    #[arg(long, value_name = "S", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// 0 is greedy (default: 1)
    #[arg(long, value_name = "T", value_parser = any_number, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Only the K likeliest tokens (default: all)
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Only the likeliest tokens that together reach the probability P (default: 1, all)
    #[arg(long, value_name = "P", value_parser = any_number, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Multiply the log-probability of tokens that are in the text already: above 1 they come less often (default: 1)
    #[arg(long, value_name = "R", value_parser = any_number, allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,
    /// Only these tokens, by id; can be repeated
    #[arg(long = "allow-token", value_name = "ID", allow_negative_numbers = true)]
    allowed: Vec<i64>,
    /// Not these tokens, by id; can be repeated
    #[arg(long = "forbid-token", value_name = "ID", allow_negative_numbers = true)]
    forbidden: Vec<i64>,
}

/// How the likeliest sequences are searched for, instead of sampling.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Beam search")]
pub(super) struct BeamArgs {
    /// Search for the likeliest sequences, of which N are kept at every step
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    beam: Option<u32>,
    /// Prefer longer sequences: log P / ((5 + tokens) / 6)^A is compared (default: 0)
    #[arg(long, value_name = "A", value_parser = any_number, allow_negative_numbers = true, requires = "beam")]
    length_penalty: Option<f64>,
    /// Show the N best sequences, one a line, with their scores
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "beam")]
    n_best: Option<u32>,
}

impl SamplingArgs {
    /// Nothing where nothing was given, since a vote refuses sampling options.
    pub(super) fn options(&self) -> Option<SamplingOptions> {
        let ids = |ids: &[i64]| (!ids.is_empty()).then(|| TokenIds { ids: ids.to_vec() });
        let options = SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            repetition_penalty: self.repetition_penalty,
            allowed: ids(&self.allowed),
            forbidden: ids(&self.forbidden),
        };
        (options != SamplingOptions::default()).then_some(options)
    }
}

impl BeamArgs {
    /// Nothing where no search is wanted.
    pub(super) fn options(&self) -> Option<BeamOptions> {
        let Self { length_penalty, n_best, .. } = *self;
        self.beam.map(|size| BeamOptions { size, length_penalty, n_best })
    }

    /// Whether all sequences are shown, not only the best one's text.
    pub(super) fn shows_all(&self) -> bool {
        self.n_best.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sent_only_where_one_was_given() {
        assert!(SamplingArgs::default().options().is_none());
        let arguments = SamplingArgs { seed: Some(7), ..SamplingArgs::default() };
        assert_eq!(arguments.options().and_then(|options| options.seed), Some(7));
        let arguments = SamplingArgs { forbidden: vec![3, 4], ..SamplingArgs::default() };
        let options = arguments.options().unwrap();
        assert_eq!((options.forbidden.unwrap().ids, options.allowed), (vec![3, 4], None));
        assert!(BeamArgs::default().options().is_none());
    }
}
