//! Quantised model directories: saved and loaded, and every way in which one can be broken, hostile or refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use chorus_model::{
    Config, LanguageModel, ModelParts, Precision, QUANTIZED_WEIGHTS_FILE, Quantization, QuantizeError, Row,
    WEIGHTS_FILE, Want, WeightType,
};
use tempfile::TempDir;

use common::{parts, tokens};

/// Long enough for all blocks, untied, with an embedding of its own.
fn config() -> Config {
    Config { hidden_size: 200, embedding_size: Some(192), layers: 1, ..common::config() }
}

fn tied() -> Config {
    Config { embedding_size: Some(200), tied: true, ..config() }
}

fn saved(config: Config, quantization: Quantization) -> TempDir {
    let directory = TempDir::new().unwrap();
    parts(config).quantize(quantization).unwrap().save(directory.path(), WeightType::F32).unwrap();
    directory
}

fn logits(parts: ModelParts) -> Vec<f32> {
    let model = LanguageModel::from_parts(parts, &Device::Cpu, Precision::F32).unwrap();
    let mut state = model.fresh_state().unwrap();
    let text = tokens(1, 20, model.config().vocab_size);
    let outputs = model.forward(&mut [Row { state: &mut state, tokens: &text, want: Want::Each }]).unwrap();
    outputs[0].logits.clone()
}

/// An error with its causes, as people read it.
fn message(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn assert_refused(directory: &Path, parts: &[&str]) {
    let message = message(&ModelParts::load(directory).unwrap_err());
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn what_is_loaded_is_what_was_saved_to_the_bit() {
    let one_hot = Config { embedding_size: None, layers: 2, ..config() };
    for config in [config(), tied(), one_hot] {
        for quantization in Quantization::ALL {
            let original = parts(config.clone()).quantize(quantization).unwrap();
            let directory = saved(config.clone(), quantization);
            let mut names: Vec<_> =
                fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["config.json", "model.gguf", "tokenizer.json"]);
            let loaded = ModelParts::load(directory.path()).unwrap();
            assert_eq!(loaded.quantization(), Some(quantization));
            assert_eq!(loaded.fingerprint().unwrap(), original.fingerprint().unwrap());
            assert_ne!(loaded.fingerprint().unwrap(), parts(config.clone()).fingerprint().unwrap());
            assert!(logits(loaded) == logits(original), "{quantization}");
        }
    }
}

/// Whether a worker quantises while it loads or somebody did before makes no other model.
#[test]
fn what_is_quantised_on_the_way_is_what_was_quantised_before() {
    let directory = TempDir::new().unwrap();
    parts(config()).save(directory.path(), WeightType::F32).unwrap();
    let on_the_way = ModelParts::load_as(directory.path(), Some(Quantization::Q6K)).unwrap();
    let before = ModelParts::load(saved(config(), Quantization::Q6K).path()).unwrap();
    assert_eq!(on_the_way.fingerprint().unwrap(), before.fingerprint().unwrap());
    let error =
        ModelParts::load_as(saved(config(), Quantization::Q6K).path(), Some(Quantization::Q4K)).unwrap_err();
    let message = message(&error);
    assert!(
        message
            .ends_with("can't be quantised: the model is quantised already, as q6k: quantise the original"),
        "{message}"
    );
}

#[test]
fn files_and_memory_shrink_as_the_bits_say() {
    let config = Config { hidden_size: 512, embedding_size: Some(512), tied: true, layers: 2, ..config() };
    let weights = config.parameters() as f64;
    let mut largest = f64::INFINITY;
    for quantization in Quantization::ALL {
        let directory = saved(config.clone(), quantization);
        let file = fs::metadata(directory.path().join(QUANTIZED_WEIGHTS_FILE)).unwrap().len() as f64;
        let bits = 8.0 * file / weights;
        // Biases are f32, and the header takes its part.
        assert!((0.0..0.3).contains(&(bits - quantization.bits_per_weight())), "{quantization}: {bits}");
        let model = LanguageModel::load(directory.path(), &Device::Cpu).unwrap();
        let bits = 8.0 * model.weight_bytes() as f64 / weights;
        // A panel has columns of which a vocabulary of eleven fills few. Where it is narrow, the two biases of a gate, which are
        // one in memory, are more than that.
        assert!((-0.05..0.3).contains(&(bits - quantization.bits_per_weight())), "{quantization}: {bits}");
        assert!(bits < largest);
        largest = bits;
    }
}

#[test]
fn numbers_of_16_bits_lose_what_their_bits_lose() {
    for (number_type, tolerance) in [(WeightType::F16, 5e-4), (WeightType::Bf16, 4e-3)] {
        let directory = TempDir::new().unwrap();
        parts(common::config()).save(directory.path(), number_type).unwrap();
        let loaded = ModelParts::load(directory.path()).unwrap();
        let mut largest = 0f32;
        for (name, tensor) in common::tensors(&common::config()) {
            let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            largest = largest.max(common::difference(&numbers(&loaded.tensors[&name]), &numbers(&tensor)));
        }
        assert!(largest > 0.0 && largest <= tolerance, "{number_type:?}: {largest}");
    }
    // What f16 can't hold, bf16 can.
    let mut large = parts(common::config());
    large.tensors.insert("linear.bias".to_owned(), Tensor::new(vec![1e6f32; 11], &Device::Cpu).unwrap());
    assert!(large.save(TempDir::new().unwrap().path(), WeightType::F16).is_err());
    large.save(TempDir::new().unwrap().path(), WeightType::Bf16).unwrap();
}

#[test]
fn what_can_not_be_quantised_is_refused_with_the_reason() {
    let error = parts(common::config()).quantize(Quantization::Q8_0).unwrap_err();
    assert!(matches!(error, QuantizeError::RowLength { block: 32, .. }), "{error}");
    let quantised = parts(config()).quantize(Quantization::Q8_0).unwrap();
    let error = quantised.quantize(Quantization::Q8_0).unwrap_err();
    assert!(matches!(error, QuantizeError::Already { found: Quantization::Q8_0 }), "{error}");
    let replaced = |name: &str, value: f32| {
        let mut parts = parts(config());
        let tensor = (parts.tensors[name].ones_like().unwrap() * f64::from(value)).unwrap();
        parts.tensors.insert(name.to_owned(), tensor);
        parts.quantize(Quantization::Q4K).unwrap_err().to_string()
    };
    assert_eq!(
        replaced("linear.weight", 1e20),
        "tensor \"linear.weight\" has numbers that are too large for the scales of q4k"
    );
    let message = replaced("embed.weight", 1e6);
    assert!(message.contains("tensor \"embed.weight\" has inf at element 0"), "{message}");
}

#[test]
fn a_precision_of_its_own_is_not_made_of_quantised_weights() {
    let parts = parts(config()).quantize(Quantization::Q4K).unwrap();
    let error = LanguageModel::from_parts(parts, &Device::Cpu, Precision::Int8).unwrap_err().to_string();
    assert!(error.starts_with("its weights are quantised as q4k, so precision int8 has none"), "{error}");
}

#[test]
fn a_directory_with_two_files_of_weights_is_refused_and_one_that_is_saved_into_has_one() {
    let directory = saved(config(), Quantization::Q8_0);
    let other = TempDir::new().unwrap();
    parts(config()).save(other.path(), WeightType::F32).unwrap();
    fs::copy(other.path().join(WEIGHTS_FILE), directory.path().join(WEIGHTS_FILE)).unwrap();
    assert_refused(directory.path(), &["has both model.safetensors and model.gguf"]);
    parts(config()).save(directory.path(), WeightType::F16).unwrap();
    assert_eq!(ModelParts::load(directory.path()).unwrap().quantization(), None);
    let quantised = parts(config()).quantize(Quantization::Q6K).unwrap();
    quantised.save(directory.path(), WeightType::F16).unwrap();
    assert_eq!(ModelParts::load(directory.path()).unwrap().quantization(), Some(Quantization::Q6K));
}

/// The tensors of a quantised file, to be changed.
fn stored(directory: &Path) -> BTreeMap<String, QTensor> {
    let bytes = fs::read(directory.join(QUANTIZED_WEIGHTS_FILE)).unwrap();
    let content = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap();
    let read = |name: &String| content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu).unwrap();
    content.tensor_infos.keys().map(|name| (name.clone(), read(name))).collect()
}

fn write(directory: &Path, tensors: &BTreeMap<String, QTensor>, metadata: &[(&str, &Value)]) {
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, metadata, &tensors).unwrap();
    fs::write(directory.join(QUANTIZED_WEIGHTS_FILE), file.into_inner()).unwrap();
}

fn zeros(shape: &[usize], stored_as: GgmlDType) -> QTensor {
    QTensor::quantize(&Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap(), stored_as).unwrap()
}

#[test]
fn tensors_that_do_not_fit_the_config_are_refused_by_name() {
    let not_finite = |at: usize| {
        let tensor = zeros(&[800, 256], GgmlDType::Q4K);
        let mut bytes = tensor.data().unwrap().into_owned();
        // An f16 that is no number, as a factor or a least value.
        bytes[at..at + 2].copy_from_slice(&[0x00, 0x7e]);
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, GgmlDType::Q4K).unwrap();
        Some(QTensor::new(storage, (800, 256)).unwrap())
    };
    let cases = [
        (
            "rnn.weight_hh_l0",
            None,
            "tensor \"rnn.weight_hh_l0\" is missing; the config asks for it with shape [800, 256]",
        ),
        (
            "rnn.weight_hh_l1",
            Some(zeros(&[800, 256], GgmlDType::Q4K)),
            "\"rnn.weight_hh_l1\" with shape [800, 256] has no place",
        ),
        (
            "linear.weight",
            Some(zeros(&[11, 512], GgmlDType::Q4K)),
            "\"linear.weight\" has shape [11, 512], but the config asks for [11, 256]",
        ),
        (
            "rnn.weight_hh_l0",
            Some(zeros(&[800, 256], GgmlDType::Q6K)),
            "tensor \"rnn.weight_hh_l0\" is stored as Q6K, but Q4K is asked for",
        ),
        (
            "linear.weight",
            Some(zeros(&[11, 256], GgmlDType::Q2K)),
            "tensor \"linear.weight\" is stored as Q2K, but Q8_0, Q6K or Q4K is asked for",
        ),
        (
            "embed.weight",
            Some(zeros(&[11, 192], GgmlDType::F32)),
            "tensor \"embed.weight\" is stored as F32, but F16 is asked for",
        ),
        (
            "linear.bias",
            Some(zeros(&[11], GgmlDType::F16)),
            "tensor \"linear.bias\" is stored as F16, but F32 is asked for",
        ),
        ("rnn.weight_hh_l0", not_finite(144), "tensor \"rnn.weight_hh_l0\" has NaN at element 200"),
        ("rnn.weight_hh_l0", not_finite(146), "tensor \"rnn.weight_hh_l0\" has NaN at element 200"),
    ];
    for (name, tensor, expected) in cases {
        let directory = saved(config(), Quantization::Q4K);
        let mut tensors = stored(directory.path());
        match tensor {
            Some(tensor) => tensors.insert(name.to_owned(), tensor),
            None => tensors.remove(name),
        };
        write(directory.path(), &tensors, &[]);
        assert_refused(directory.path(), &["model.gguf", expected]);
    }
    let directory = saved(config(), Quantization::Q4K);
    write(directory.path(), &BTreeMap::new(), &[]);
    assert_refused(directory.path(), &["model.gguf", "it has none of the model's matrices"]);
}

#[test]
fn a_config_whose_rows_no_block_fits_has_no_quantised_file() {
    let directory = saved(config(), Quantization::Q4K);
    let path = directory.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"hidden_size\": 200", "\"hidden_size\": 100")).unwrap();
    let long = "has rows of 100 numbers; q4k has blocks of 256";
    assert_refused(directory.path(), &["model.gguf", "linear.weight", long]);
}

#[test]
fn hostile_headers_are_refused() {
    let directory = saved(config(), Quantization::Q8_0);
    let path = directory.path().join(QUANTIZED_WEIGHTS_FILE);
    let valid = fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = valid.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let place = |text: &str| valid.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let name = "rnn.weight_hh_l0";
    let dimensions = place(name) + name.len();
    let huge = &u64::MAX.to_le_bytes();
    let not_whole = "it is not a whole GGUF file of a model";
    let cases = [
        ("empty", vec![], not_whole),
        ("another format", with(0, b"GGML"), not_whole),
        ("another version", with(4, &[9]), not_whole),
        ("tensors without end", with(8, huge), not_whole),
        ("metadata without end", with(16, huge), not_whole),
        ("a key without end", with(24, huge), not_whole),
        ("many dimensions", with(dimensions, &[200]), not_whole),
        ("a size without end", with(dimensions + 4, huge), "has shape [800, 18446744073709551615]"),
        ("sizes that overflow", with(dimensions + 4, &[huge.as_slice(), huge].concat()), "has shape"),
        ("a type that is none", with(dimensions + 20, &[99]), not_whole),
        ("an offset without end", with(dimensions + 24, huge), "tensor \"rnn.weight_hh_l0\" takes"),
        (
            "an offset at the end",
            with(dimensions + 24, &(valid.len() as u64 - 100).to_le_bytes()),
            "bytes from byte",
        ),
        ("no data", valid[..1000].to_vec(), "its tensors alone take"),
        ("truncated", valid[..valid.len() - 64].to_vec(), "bytes from byte"),
        ("a name that is no text", with(place(name), &[0xff, 0xfe]), "is missing"),
    ];
    for (case, bytes, expected) in cases {
        println!("{case}");
        fs::write(&path, bytes).unwrap();
        assert_refused(directory.path(), &["model.gguf", expected]);
    }
    let tensors = {
        fs::write(&path, &valid).unwrap();
        stored(directory.path())
    };
    write(directory.path(), &tensors, &[("general.alignment", &Value::U8(0))]);
    assert_refused(directory.path(), &["model.gguf", "it sets general.alignment"]);
    let long = Value::String("x".repeat(1 << 17));
    write(directory.path(), &tensors, &[("long", &long)]);
    assert_refused(directory.path(), &["model.gguf", not_whole]);
    let list = Value::Array(vec![Value::U8(1); 1 << 17]);
    write(directory.path(), &tensors, &[("list", &list)]);
    assert_refused(directory.path(), &["model.gguf", not_whole]);
    // Other people's metadata does no harm.
    write(directory.path(), &tensors, &[("author", &Value::String("somebody".to_owned()))]);
    ModelParts::load(directory.path()).unwrap();
    // A sparse file: a terabyte that takes no room. It must be refused by its size alone.
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_refused(directory.path(), &["model.gguf", "has 1099511627776 bytes, allowed are"]);
}
