//! Hostile model directories: what is accepted is a model of its config, with finite numbers, that predicts; what is not is
//! refused with a bounded sentence, without memory for what a header only claims.

use std::cell::RefCell;
use std::error::Error;

use candle_core::{Device, Tensor};
use chorus_fuzz::{Encoded, Verdict, assert_bounded, fuzz, mutated, sentence, within};
use chorus_text::Vocabulary;
use proptest::prelude::*;

use crate::gguf;
use crate::weights::{self, Tensors, WeightType};
use crate::{
    CONFIG_FILE, Config, FORMAT, LanguageModel, ModelParts, Precision, QUANTIZED_WEIGHTS_FILE, Quantization,
    Row, Start, TOKENIZER_FILE, WEIGHTS_FILE, Want,
};

/// Of what is said of a file, in characters; a path stands in it, and what is quoted of the file.
const LONGEST_SENTENCE: usize = 4000;

pub(crate) fn config() -> Config {
    Config {
        format: FORMAT,
        name: "small".to_owned(),
        vocab_size: 4,
        embedding_size: Some(3),
        hidden_size: 2,
        layers: 1,
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::Token(2),
        end: None,
    }
}

fn parts() -> ModelParts {
    parts_of(config())
}

/// A small model whose rows fit the blocks of q8_0.
fn quantizable() -> ModelParts {
    let sizes = Config { embedding_size: Some(32), hidden_size: 32, ..config() };
    parts_of(Config { tied: true, ..sizes })
}

pub(crate) fn parts_of(config: Config) -> ModelParts {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|place| (7 * place % 13) as f32 / 8.0 - 0.75).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = config.tensor_shapes().into_iter().map(tensor).collect();
    ModelParts::new(config, Vocabulary::train_characters("abcd").unwrap(), tensors)
}

/// All of the tensors, none other, all finite.
pub(crate) fn check_tensors(config: &Config, tensors: &Tensors) {
    let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
    assert!(shapes.eq(config.tensor_shapes()));
    for tensor in tensors.values() {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|value| value.is_finite()));
    }
}

pub(crate) fn check_sentence(error: &dyn Error) {
    assert_bounded(&sentence(error), LONGEST_SENTENCE);
}

/// It predicts, and where numbers are so large that what is computed from them is none, the norm says so.
fn check_predictions(model: &LanguageModel) {
    let mut state = model.fresh_state().unwrap();
    let last = model.config().vocab_size as u32 - 1;
    let mut received = 0;
    let tokens = [0, last];
    let row = Row { state: &mut state, tokens: &tokens, want: Want::Each };
    model
        .predict(&mut [row], &mut |prediction| {
            received += 1;
            let finite = prediction.logits.iter().all(|logit| logit.is_finite());
            assert!(finite || !prediction.norm.is_finite());
        })
        .unwrap();
    assert_eq!(received, 2);
}

#[test]
fn a_config_that_is_accepted_is_one_when_it_is_written_down() {
    let one_hot = Config { embedding_size: None, start: Start::ZeroState, end: Some(1), ..config() };
    let texts = [config().to_json().into_bytes(), one_hot.to_json().into_bytes()];
    let words =
        ["null", "true", "\"\"", "{}", "[]", "{\"token\":0}", "\"zero_state\"", "16777216", "65536", "64"];
    fuzz("model: configs", mutated(prop::sample::select(texts.to_vec()), &words), |Encoded(bytes)| {
        let read = within(64 * bytes.len() + 4096, || serde_json::from_slice::<Config>(&bytes));
        let config = match read {
            Ok(config) => config,
            Err(error) => {
                check_sentence(&error);
                return Verdict::Refused;
            }
        };
        match config.validate() {
            Ok(()) => {
                assert_eq!(serde_json::from_str::<Config>(&config.to_json()).unwrap(), config);
                let shapes = within(1 << 20, || config.tensor_shapes());
                let largest = shapes.values().map(|shape| shape.iter().product::<usize>()).max();
                assert!(largest.unwrap() as u64 <= config.parameters() && config.state_size() > 0);
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        }
    });
}

#[test]
fn weights_that_are_accepted_are_those_of_the_config_and_predict() {
    let ModelParts { config, vocabulary, tensors, .. } = parts();
    let types = [WeightType::F32, WeightType::F16];
    let files = types.map(|number| weights::encode(&tensors, &config, number).unwrap());
    let words = ["\"F64\"", "\"BF16\"", "\"I32\"", "\"shape\"", "[]", "{}", "linear.bias", "rnn.bias_hh_l0"];
    fuzz("model: weights", mutated(prop::sample::select(files.to_vec()), &words), |Encoded(bytes)| {
        match within(64 * bytes.len() + 16 * 1024, || weights::decode(&bytes, &config)) {
            Ok(tensors) => {
                check_tensors(&config, &tensors);
                let parts = ModelParts::new(config.clone(), vocabulary.clone(), tensors);
                let precision = if bytes.len() % 2 == 0 { Precision::F32 } else { Precision::Int8 };
                check_predictions(&LanguageModel::from_parts(parts, &Device::Cpu, precision).unwrap());
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        }
    });
}

#[test]
fn quantised_weights_that_are_accepted_are_those_of_the_config_and_predict() {
    let small = quantizable();
    let sizes = Config { embedding_size: Some(192), hidden_size: 192, vocab_size: 4, ..config() };
    let configs = [small.config.clone(), sizes.clone(), Config { embedding_size: None, ..sizes }];
    let all = configs.into_iter().zip([Quantization::Q8_0, Quantization::Q6K, Quantization::Q4K]);
    let files: Vec<(Config, Vec<u8>)> = all
        .map(|(config, quantization)| {
            let parts = parts_of(config.clone()).quantize(quantization).unwrap();
            let quantized = parts.quantized.as_ref().unwrap();
            (config.clone(), gguf::encode(&parts.tensors, quantized, &config).unwrap())
        })
        .collect();
    const WORDS: [&str; 5] =
        ["linear.bias", "rnn.bias_hh_l0", "embed.weight", "general.alignment", "general.name"];
    let cases = prop::sample::select(files)
        .prop_flat_map(|(config, file)| (Just(config), mutated(Just(file), &WORDS)));
    fuzz("model: quantised weights", cases, |(config, Encoded(bytes))| {
        // A value of the header's lists is 32 bytes, and they grow by doubling.
        match within(128 * bytes.len() + 64 * 1024, || gguf::decode(&bytes, &config)) {
            Ok((tensors, quantized)) => {
                check_tensors(&config, &tensors);
                let vocabulary = small.vocabulary.clone();
                // What was read is written, and read again.
                let again = gguf::encode(&tensors, &quantized, &config).unwrap();
                assert_eq!(
                    gguf::encode(&tensors, &gguf::decode(&again, &config).unwrap().1, &config).unwrap(),
                    again
                );
                let parts =
                    ModelParts { quantized: Some(quantized), ..ModelParts::new(config, vocabulary, tensors) };
                check_predictions(&LanguageModel::from_parts(parts, &Device::Cpu, Precision::F32).unwrap());
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        }
    });
}

#[test]
fn a_directory_that_is_accepted_is_a_model_that_predicts() {
    fuzz_directory("model: directories", &parts(), WEIGHTS_FILE);
}

#[test]
fn a_quantised_directory_that_is_accepted_is_a_model_that_predicts() {
    let parts = quantizable().quantize(Quantization::Q8_0).unwrap();
    fuzz_directory("model: quantised directories", &parts, QUANTIZED_WEIGHTS_FILE);
}

fn fuzz_directory(target: &'static str, parts: &ModelParts, weights: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    parts.save(directory.path(), WeightType::F32).unwrap();
    let original = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let files = [CONFIG_FILE, TOKENIZER_FILE, weights].map(|name| (name, original(name)));
    let last = RefCell::new(CONFIG_FILE);
    let cases = prop::sample::select(files.to_vec())
        .prop_flat_map(|(name, content)| (Just(name), mutated(Just(content), &["null", "\"c\"", "0"])));
    fuzz(target, cases, |(name, Encoded(bytes))| {
        let before = last.replace(name);
        let (_, restored) = files.iter().find(|(name, _)| *name == before).unwrap();
        std::fs::write(directory.path().join(before), restored).unwrap();
        std::fs::write(directory.path().join(name), &bytes).unwrap();
        match LanguageModel::load(directory.path(), &Device::Cpu) {
            Ok(model) => {
                check_predictions(&model);
                Verdict::Accepted
            }
            Err(error) => {
                check_sentence(&error);
                Verdict::Refused
            }
        }
    });
}
