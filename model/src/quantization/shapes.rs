//! Which tensors of a model are quantised, and whether their rows are long enough for it.
//!
//! What is multiplied is quantised; what is only looked up (the embedding, and the first layer's matrix where the input is
//! one-hot) is f16, and biases are f32. Knows nothing about numbers.

use crate::config::{Config, names};

use super::{Quantization, QuantizeError};

/// How a tensor stands in a quantised model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In blocks, row by row.
    Blocks,
    /// Numbers of 16 bits.
    Half,
    /// Numbers of 32 bits.
    Full,
}

/// How the tensor of this name is stored.
pub(crate) fn storage(config: &Config, name: &str) -> Storage {
    let is_one_hot_input = config.embedding_size.is_none() && name == names::weight_ih(0);
    match name {
        // A tied embedding is the output layer's matrix.
        names::EMBED if !config.tied => Storage::Half,
        _ if is_one_hot_input => Storage::Half,
        _ if is_matrix(config, name) => Storage::Blocks,
        _ => Storage::Full,
    }
}

/// Whether the tensors of a model that are matrices have rows that fit these blocks.
pub(crate) fn check_rows(config: &Config, quantization: Quantization) -> Result<(), QuantizeError> {
    let Some((tensor, length)) = first_misfit(config, quantization) else { return Ok(()) };
    let block = quantization.block();
    let others = Quantization::ALL.into_iter().filter(|other| first_misfit(config, *other).is_none());
    let possible: Vec<&str> = others.map(Quantization::name).chain(["f16", "bf16"]).collect();
    Err(QuantizeError::RowLength {
        tensor,
        length,
        quantization,
        block,
        padded: length.next_multiple_of(block),
        possible: possible.join(", "),
    })
}

fn is_matrix(config: &Config, name: &str) -> bool {
    config.tensor_shapes().get(name).is_some_and(|shape| shape.len() == 2)
}

/// The first matrix whose rows would grow by more than a third, and their length.
fn first_misfit(config: &Config, quantization: Quantization) -> Option<(String, usize)> {
    let is_misfit = |length: usize| 3 * length.next_multiple_of(quantization.block()) > 4 * length;
    config.tensor_shapes().into_iter().find_map(|(name, shape)| match shape[..] {
        [_, length] if storage(config, &name) == Storage::Blocks && is_misfit(length) => Some((name, length)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FORMAT, Start};

    fn config(embedding_size: Option<usize>, hidden_size: usize, tied: bool) -> Config {
        Config {
            format: FORMAT,
            name: "test".to_owned(),
            vocab_size: 10,
            embedding_size,
            hidden_size,
            layers: 1,
            tied,
            lstm_bias: true,
            output_bias: true,
            start: Start::ZeroState,
            end: None,
        }
    }

    #[test]
    fn what_is_multiplied_is_in_blocks_and_what_is_looked_up_is_not() {
        use Storage::{Blocks, Full, Half};
        let untied = config(Some(5), 6, false);
        let tied = config(Some(6), 6, true);
        let one_hot = config(None, 6, false);
        for (config, name, expected) in [
            (&untied, "embed.weight", Half),
            (&tied, "embed.weight", Blocks),
            (&untied, "linear.weight", Blocks),
            (&untied, "rnn.weight_ih_l0", Blocks),
            (&one_hot, "rnn.weight_ih_l0", Half),
            (&one_hot, "rnn.weight_hh_l0", Blocks),
            (&untied, "rnn.bias_ih_l0", Full),
            (&untied, "linear.bias", Full),
        ] {
            assert_eq!(storage(config, name), expected, "{name}");
        }
    }

    #[test]
    fn rows_are_filled_up_by_a_third_at_most() {
        use Quantization::{Q4K, Q6K, Q8_0};
        let fits = |hidden_size, quantization| {
            check_rows(&config(Some(hidden_size), hidden_size, true), quantization).is_ok()
        };
        for (hidden_size, q8_0, q4k) in [
            (23, false, false),
            (24, true, false),
            (33, false, false),
            (48, true, false),
            (191, true, false),
            (192, true, true),
            (256, true, true),
            (257, true, false),
            (384, true, true),
            (650, true, true),
        ] {
            assert_eq!(fits(hidden_size, Q8_0), q8_0, "{hidden_size}");
            assert_eq!((fits(hidden_size, Q4K), fits(hidden_size, Q6K)), (q4k, q4k), "{hidden_size}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_possible_instead() {
        let error = check_rows(&config(Some(300), 256, false), Quantization::Q4K).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor \"rnn.weight_ih_l0\" has rows of 300 numbers; q4k has blocks of 256, and filling its rows up to 512 \
             would add more than a third. Possible for this model: q8_0, f16, bf16"
        );
        let error = check_rows(&config(Some(9), 9, true), Quantization::Q8_0).unwrap_err();
        assert!(error.to_string().ends_with("model: f16, bf16"), "{error}");
    }
}
