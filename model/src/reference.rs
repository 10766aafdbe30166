//! What a model predicts, computed as training runs it: the network's plain operations on the CPU, in f32. Slow, and
//! independent of the engine and of other devices, which are held against it.
//!
//! Knows nothing about devices, precisions or states.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::config::Start;
use crate::directory::ModelParts;
use crate::network::Network;
use crate::packing::Packing;

impl ModelParts {
    /// The logits before each of the tokens and after the last one, from the model's start: `[tokens + 1, vocab_size]`,
    /// row-major.
    ///
    /// ```
    /// use chorus_model::ModelParts;
    ///
    /// let parts = ModelParts::load("../deploy/demo/alto".as_ref())?;
    /// assert_eq!(parts.reference_logits(&[40, 41])?.len(), 3 * 512);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A token is not in the vocabulary, or there is no memory.
    pub fn reference_logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let cpu = &Device::Cpu;
        let tensors = self.tensors.clone().into_iter().collect();
        let network = Network::new(&self.config, &VarBuilder::from_tensors(tensors, DType::F32, cpu))?;
        let mut rows = Vec::with_capacity(2);
        let mut read = Vec::with_capacity(tokens.len() + 1);
        match self.config.start {
            // The first distribution is that of a state that has read nothing.
            Start::ZeroState => rows.push(Tensor::zeros((1, self.config.hidden_size), DType::F32, cpu)?),
            Start::Token(start) => read.push(start),
        }
        read.extend_from_slice(tokens);
        if !read.is_empty() {
            let packing = Packing::rectangle(read.len(), 1);
            let state = network.zero_state(1)?;
            rows.push(network.hidden(&Tensor::new(read, cpu)?, &packing, &state, None)?.0);
        }
        network.logits(&Tensor::cat(&rows, 0)?)?.flatten_all()?.to_vec1()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::language_model::LanguageModel;
    use crate::precision::Precision;
    use crate::row::{Row, Want};

    /// What the engine answers about the same positions.
    fn engine_logits(parts: &ModelParts, tokens: &[u32]) -> Vec<f32> {
        let model = LanguageModel::from_parts(parts.clone(), &Device::Cpu, Precision::F32).unwrap();
        let (mut before, mut after) = (model.fresh_state().unwrap(), model.fresh_state().unwrap());
        let outputs = model.forward(&mut [
            Row { state: &mut before, tokens, want: Want::Each },
            Row { state: &mut after, tokens, want: Want::Next },
        ]);
        outputs.unwrap().into_iter().flat_map(|output| output.logits).collect()
    }

    #[test]
    fn it_is_what_the_engine_answers_from_either_start() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/alto");
        let demo = ModelParts::load(&directory).unwrap();
        for start in [Start::ZeroState, Start::Token(7)] {
            let parts = ModelParts { config: Config { start, ..demo.config.clone() }, ..demo.clone() };
            for tokens in [&[40, 41, 42][..], &[]] {
                let (reference, engine) =
                    (parts.reference_logits(tokens).unwrap(), engine_logits(&parts, tokens));
                assert_eq!(reference.len(), (tokens.len() + 1) * 512);
                let close = reference.iter().zip(&engine).all(|(one, other)| (one - other).abs() < 1e-4);
                assert!(close && reference.len() == engine.len(), "{start:?} {tokens:?}");
            }
        }
        assert!(demo.reference_logits(&[512]).is_err(), "a token beyond the vocabulary");
    }
}
