//! Model directories: saved and loaded, and every way in which one can be broken or hostile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::error::Error;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use chorus_model::{
    CONFIG_FILE, Config, LanguageModel, ModelParts, SaveError, TOKENIZER_FILE, WEIGHTS_FILE, WeightType,
    WeightsError,
};
use tempfile::TempDir;

use common::{config, difference, parts};

fn saved() -> TempDir {
    let directory = TempDir::new().unwrap();
    parts(config()).save(directory.path(), WeightType::F32).unwrap();
    directory
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// An error with its causes, as people read it.
fn message(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    message
}

/// Loading must fail and the message must hold every one of `parts`.
fn assert_refused(directory: &Path, parts: &[&str]) {
    let error = LanguageModel::load(directory, &Device::Cpu).unwrap_err();
    let message = message(&error);
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn f32_is_saved_exactly_and_f16_nearly() {
    let original = parts(config());
    for (number_type, tolerance) in [(WeightType::F32, 0.0), (WeightType::F16, 5e-4)] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("new/model");
        original.save(&path, number_type).unwrap();
        let loaded = ModelParts::load(&path).unwrap();
        assert_eq!(loaded.config, original.config);
        assert_eq!(loaded.vocabulary.fingerprint(), original.vocabulary.fingerprint());
        for (name, tensor) in &original.tensors {
            assert!(difference(&values(&loaded.tensors[name]), &values(tensor)) <= tolerance, "{name}");
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 3, "temporary files are left behind");
    }
}

#[test]
fn bf16_is_read() {
    let (directory, config) = (saved(), config());
    let tensors = common::tensors(&config);
    let small: std::collections::HashMap<_, _> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_dtype(candle_core::DType::BF16).unwrap()))
        .collect();
    candle_core::safetensors::save(&small, directory.path().join(WEIGHTS_FILE)).unwrap();
    let loaded = ModelParts::load(directory.path()).unwrap();
    for (name, tensor) in &tensors {
        assert!(difference(&values(&loaded.tensors[name]), &values(tensor)) <= 4e-3, "{name}");
    }
}

#[test]
fn a_failed_save_keeps_what_was_there() {
    let directory = saved();
    let before = fs::read(directory.path().join(WEIGHTS_FILE)).unwrap();
    let mut broken = parts(config());
    let bias = Tensor::new(vec![1e6f32; 11], &Device::Cpu).unwrap();
    broken.tensors.insert("linear.bias".to_owned(), bias);
    let error = broken.save(directory.path(), WeightType::F16).unwrap_err();
    assert!(matches!(error, SaveError::Weights(WeightsError::NotFinite { element: 0, .. })), "{error}");
    assert_eq!(fs::read(directory.path().join(WEIGHTS_FILE)).unwrap(), before);
}

#[test]
fn broken_configs_are_refused_by_the_key_at_fault() {
    let cases = [
        ("\"layers\": 2", "\"layers\": 2, \"layrs\": 2", "unknown field `layrs`"),
        ("\"layers\": 2,", "", "missing field `layers`"),
        ("\"layers\": 2", "\"layers\": 65", "layers is 65, allowed is 1 to 64"),
        ("\"layers\": 2", "\"layers\": -1", "line"),
        ("\"hidden_size\": 9", "\"hidden_size\": 0", "hidden_size is 0, allowed is 1 to 65536"),
        ("\"hidden_size\": 9", "\"hidden_size\": 70000", "hidden_size is 70000"),
        ("\"embedding_size\": 5", "\"embedding_size\": 0", "embedding_size is 0"),
        (
            "\"vocab_size\": 11",
            "\"vocab_size\": 99999999",
            "vocab_size is 99999999, allowed is 1 to 16777216",
        ),
        ("\"vocab_size\": 11", "\"vocab_size\": 10", "has 11 tokens, but vocab_size"),
        (
            "\"vocab_size\": 11",
            "\"vocab_size\": 12",
            "tokenizer.json has 11 tokens, but vocab_size in config.json is 12: they must be equal",
        ),
        ("\"tied\": false", "\"tied\": true", "they are 5 and 9"),
        ("\"format\": 1", "\"format\": 2", "format is 2"),
        ("\"token\": 2", "\"token\": 11", "start is token 11, but vocab_size is 11"),
        ("\"end\": null", "\"end\": 12", "end is token 12"),
        ("\"name\": \"small\"", "\"name\": \"\"", "name must have"),
        ("{", "", "config.json"),
    ];
    for (found, replacement, expected) in cases {
        let directory = saved();
        let path = directory.path().join(CONFIG_FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(found), "{text} has no {found}");
        fs::write(&path, text.replacen(found, replacement, 1)).unwrap();
        assert_refused(directory.path(), &["config.json", expected]);
    }
}

#[test]
fn missing_empty_and_huge_files_are_refused() {
    for name in [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE] {
        let directory = saved();
        let path = directory.path().join(name);
        fs::write(&path, "").unwrap();
        assert_refused(directory.path(), &[name]);
        // A sparse file: a terabyte that takes no room. It must be refused by its size alone.
        fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_refused(directory.path(), &[name, "has 1099511627776 bytes, allowed are"]);
        fs::remove_file(&path).unwrap();
        assert_refused(directory.path(), &["can't read", name]);
        fs::create_dir(&path).unwrap();
        assert_refused(directory.path(), &["can't read", name]);
    }
}

/// A safetensors file with this header and so many bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn hostile_weight_files_are_refused() {
    let valid = fs::read(saved().path().join(WEIGHTS_FILE)).unwrap();
    let with_length = |length: u64| [&length.to_le_bytes(), &valid[8..]].concat();
    let one = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"linear.bias":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    let huge = u64::MAX;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no header length", valid[..5].to_vec()),
        ("truncated data", valid[..valid.len() - 1].to_vec()),
        ("data after the end", [&valid[..], b"x"].concat()),
        ("truncated header", valid[..30].to_vec()),
        ("header length 0", with_length(0)),
        ("header length beyond the file", with_length(valid.len() as u64)),
        ("header length huge", with_length(huge)),
        ("header length that overflows with 8", with_length(huge - 7)),
        ("header is no JSON", safetensors("{\"linear.bias\":", 0)),
        ("header is no UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("header is a list", safetensors("[1,2]", 0)),
        ("nested deeply", safetensors(&"[".repeat(100_000), 0)),
        ("offsets beyond the data", safetensors(&one("F32", "[11]", 0, 44), 40)),
        ("offsets backwards", safetensors(&one("F32", "[11]", 44, 0), 44)),
        ("offsets huge", safetensors(&one("F32", "[11]", 0, huge), 44)),
        ("shape overflows", safetensors(&one("F32", "[4294967296,4294967296,4]", 0, 44), 44)),
        ("shape larger than the data", safetensors(&one("F32", "[12]", 0, 44), 44)),
        ("unknown dtype", safetensors(&one("X7", "[11]", 0, 44), 44)),
        ("negative shape", safetensors(&one("F32", "[-11]", 0, 44), 44)),
    ];
    for (name, bytes) in cases {
        let directory = saved();
        fs::write(directory.path().join(WEIGHTS_FILE), bytes).unwrap();
        println!("{name}");
        assert_refused(directory.path(), &[WEIGHTS_FILE, "it is not a whole safetensors file"]);
    }
}

#[test]
fn tensors_that_are_not_the_configs_are_refused_by_name() {
    let replaced = |name: &str, tensor: Option<Tensor>| {
        let directory = saved();
        let mut tensors: std::collections::HashMap<String, Tensor> =
            common::tensors(&config()).into_iter().collect();
        match tensor {
            Some(tensor) => tensors.insert(name.to_owned(), tensor),
            None => tensors.remove(name),
        };
        candle_core::safetensors::save(&tensors, directory.path().join(WEIGHTS_FILE)).unwrap();
        directory
    };
    let bias = |value: f32| {
        let mut values = vec![0.5; 11];
        values[7] = value;
        Some(Tensor::new(values, &Device::Cpu).unwrap())
    };
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).ok();
    let integers = Tensor::new(vec![1i64; 11], &Device::Cpu).ok();
    let cases = [
        (replaced("rnn.weight_hh_l1", None), "tensor \"rnn.weight_hh_l1\" is missing"),
        (
            replaced("rnn.weight_hh_l2", zeros((36, 9))),
            "tensor \"rnn.weight_hh_l2\" with shape [36, 9] has no place",
        ),
        (
            replaced("embed.weight", zeros((5, 11))),
            "\"embed.weight\" has shape [5, 11], but the config asks for [11, 5]",
        ),
        (replaced("linear.bias", bias(f32::NAN)), "tensor \"linear.bias\" has NaN at element 7"),
        (replaced("linear.bias", bias(f32::NEG_INFINITY)), "tensor \"linear.bias\" has -inf at element 7"),
        (replaced("linear.bias", integers), "tensor \"linear.bias\" holds I64 numbers"),
    ];
    for (directory, expected) in cases {
        assert_refused(directory.path(), &[WEIGHTS_FILE, expected]);
    }
}

#[test]
fn parameters_are_counted_once_where_tied() {
    let untied = config();
    let layers = (36 * 5 + 36 * 9 + 72) + (36 * 9 + 36 * 9 + 72);
    assert_eq!(untied.parameters(), (11 * 5 + layers + 11 * 9 + 11) as u64);
    let tied = Config { tied: true, embedding_size: Some(9), ..config() };
    let layers = layers + 36 * 4;
    assert_eq!(tied.parameters(), (11 * 9 + layers + 11) as u64);
}
