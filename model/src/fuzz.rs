//! Hostile model directories: what is accepted is a model of its config, with finite numbers, that predicts; what is not is
//! refused with a bounded sentence, without memory for what a header only claims.

use std::cell::RefCell;
use std::error::Error;

use candle_core::{Device, Tensor};
use chorus_fuzz::{Encoded, Verdict, assert_bounded, fuzz, mutated, sentence, within};
use chorus_text::Vocabulary;
use proptest::prelude::*;

use crate::weights::{self, Tensors, WeightType};
use crate::{
    CONFIG_FILE, Config, FORMAT, LanguageModel, ModelParts, Precision, Row, Start, TOKENIZER_FILE,
    WEIGHTS_FILE, Want,
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
    let config = config();
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|place| (7 * place % 13) as f32 / 8.0 - 0.75).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = config.tensor_shapes().into_iter().map(tensor).collect();
    ModelParts { config, vocabulary: Vocabulary::train_characters("abcd").unwrap(), tensors }
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
    let ModelParts { config, vocabulary, tensors } = parts();
    let types = [WeightType::F32, WeightType::F16];
    let files = types.map(|number| weights::encode(&tensors, &config, number).unwrap());
    let words = ["\"F64\"", "\"BF16\"", "\"I32\"", "\"shape\"", "[]", "{}", "linear.bias", "rnn.bias_hh_l0"];
    fuzz("model: weights", mutated(prop::sample::select(files.to_vec()), &words), |Encoded(bytes)| {
        match within(64 * bytes.len() + 16 * 1024, || weights::decode(&bytes, &config)) {
            Ok(tensors) => {
                check_tensors(&config, &tensors);
                let parts = ModelParts { config: config.clone(), vocabulary: vocabulary.clone(), tensors };
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
fn a_directory_that_is_accepted_is_a_model_that_predicts() {
    let directory = tempfile::tempdir().unwrap();
    parts().save(directory.path(), WeightType::F32).unwrap();
    let original = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let files = [CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE].map(|name| (name, original(name)));
    let last = RefCell::new(CONFIG_FILE);
    let cases = prop::sample::select(files.to_vec())
        .prop_flat_map(|(name, content)| (Just(name), mutated(Just(content), &["null", "\"c\"", "0"])));
    fuzz("model: directories", cases, |(name, Encoded(bytes))| {
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
