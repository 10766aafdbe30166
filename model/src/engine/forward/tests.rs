//! The engine on every instruction set, in every form of weights, against the tensor operations that training runs.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};

use super::*;
use crate::config::{Config, FORMAT, Start};
use crate::directory::ModelParts;
use crate::packing::Packing;
use crate::quantization::Quantization;
use crate::row::{State, Want};

/// Of 70 tokens, untied.
pub(super) fn config(embedding_size: Option<usize>, hidden_size: usize, layers: usize) -> Config {
    Config {
        format: FORMAT,
        name: "test".to_owned(),
        vocab_size: 70,
        embedding_size,
        hidden_size,
        layers,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::ZeroState,
        end: None,
    }
}

pub(super) fn network(config: &Config) -> Result<Network> {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = Network::new(config, &builder)?;
    for (seed, variable) in variables.all_vars().into_iter().enumerate() {
        let count = variable.elem_count() as u32;
        let values = (Tensor::arange(0, count, &Device::Cpu)?.to_dtype(DType::F32)? + seed as f64)?.sin()?;
        variable.set(&values.reshape(variable.shape())?)?;
    }
    Ok(network)
}

/// The tensor path is what training runs; it knows nothing of panels.
#[test]
fn every_instruction_set_computes_what_the_tensor_operations_compute() -> Result<()> {
    for (embedding_size, hidden_size, layers) in [(Some(5), 21, 3), (None, 33, 2), (Some(17), 16, 1)] {
        let config = config(embedding_size, hidden_size, layers);
        let network = network(&config)?;
        let text: Vec<u32> = (0..9).map(|index| index * 13 % 70).collect();
        let tokens = Tensor::new(text.as_slice(), &Device::Cpu)?;
        let packing = Packing::rectangle(9, 1);
        let (hidden, _) = network.hidden(&tokens, &packing, &network.zero_state(1)?, None)?;
        let expected: Vec<f32> = network.logits(&hidden.narrow(0, 8, 1)?)?.flatten_all()?.to_vec1()?;
        for instructions in chorus_simd::all_instructions() {
            for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Int8, 0.3)] {
                let numbers = Numbers::Tensors(precision);
                let mut engine = Engine::for_instructions(&network, numbers, instructions)?;
                let mut state = State::on_host(vec![0.0; config.state_size()]);
                let mut off = 0.0f32;
                let rows = &mut [Row { state: &mut state, tokens: &text, want: Want::Next }];
                engine.forward(rows, &mut |prediction| {
                    for (found, expected) in prediction.logits.iter().zip(&expected) {
                        off = off.max((found - expected).abs());
                    }
                })?;
                assert!(off <= tolerance, "{instructions:?} {precision}: off by {off}");
            }
        }
    }
    Ok(())
}

/// Weights as they are initialised, so that nothing saturates.
pub(super) fn parts(config: Config) -> ModelParts {
    let scale = (config.hidden_size as f32).sqrt().recip();
    let tensor = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
        let value = |index: usize| ((index * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        let values: Vec<f32> = (0..shape.iter().product()).map(|index| value(index) * scale).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = config.tensor_shapes().into_iter().enumerate().map(tensor).collect();
    let letters: String = ('a'..).take(config.vocab_size).collect();
    ModelParts::new(config, chorus_text::Vocabulary::train_characters(&letters).unwrap(), tensors)
}

/// The reference multiplies what the blocks stand for, in f32: what is left is what activations lose in 8 bits.
#[test]
fn quantised_weights_compute_what_the_numbers_compute_that_they_stand_for() -> Result<()> {
    let shapes = [(Some(192), 256, 1, false), (Some(650), 650, 2, true), (None, 240, 2, false)];
    for (embedding_size, hidden_size, layers, tied) in shapes {
        for quantization in Quantization::ALL {
            let config = Config { tied, ..config(embedding_size, hidden_size, layers) };
            let state_size = config.state_size();
            let parts = parts(config).quantize(quantization).unwrap();
            let text: Vec<u32> = (0..9).map(|index| index * 13 % 70).collect();
            let logits = parts.reference_logits(&text)?;
            let (expected, largest) =
                (&logits[9 * 70..], logits.iter().fold(0f32, |most, x| most.max(x.abs())));
            let builder =
                VarBuilder::from_tensors(parts.tensors.into_iter().collect(), DType::F32, &Device::Cpu);
            let network = Network::new(&parts.config, &builder)?;
            let Some(matrices) = &parts.quantized else { candle_core::bail!("it has no blocks") };
            let mut first: Option<Vec<f32>> = None;
            for instructions in chorus_simd::all_instructions() {
                let mut engine = Engine::for_instructions(&network, Numbers::Blocks(matrices), instructions)?;
                let mut state = State::on_host(vec![0.0; state_size]);
                let rows = &mut [Row { state: &mut state, tokens: &text, want: Want::Next }];
                let mut found = Vec::new();
                engine.forward(rows, &mut |prediction| found.extend_from_slice(prediction.logits))?;
                let off =
                    found.iter().zip(expected).fold(0f32, |off, (one, other)| off.max((one - other).abs()));
                assert!(off <= 0.005 * largest, "{quantization} {hidden_size}: off by {off} of {largest}");
                let first = first.get_or_insert_with(|| found.clone());
                let apart =
                    found.iter().zip(&*first).fold(0f32, |off, (one, other)| off.max((one - other).abs()));
                // The gates' exponentials are not the same on every instruction set.
                assert!(apart <= 1e-3 * largest, "{instructions:?}: {apart} of {largest}");
            }
        }
    }
    Ok(())
}

#[test]
fn rows_are_computed_in_as_few_and_as_equal_parts_as_can_be() {
    let parts = |count: usize, most| -> Vec<usize> {
        let rows = vec![(); count];
        rows.chunks(part(count, most)).map(<[()]>::len).collect()
    };
    assert_eq!(parts(64, 63), [32, 32]);
    assert_eq!(parts(96, 96), [96]);
    assert_eq!(parts(512, 96), [86, 86, 86, 86, 86, 82]);
    assert!(parts(0, 96).is_empty());
    for count in 1..300 {
        let parts = parts(count, 63);
        assert_eq!(parts.len(), count.div_ceil(63));
        assert!(parts.iter().all(|rows| *rows <= 63));
    }
}
