//! `model.safetensors`: from bytes to the tensors that a config asks for, and back.
//!
//! Nothing that the bytes say is believed before it is checked. Knows nothing about directories or networks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use thiserror::Error;

use crate::config::Config;
use crate::quantization::QuantizeError;

/// What is quoted of a tensor's name that no model has, in characters.
const LONGEST_NAME: usize = 100;

/// A model's tensors by name, f32 in memory.
pub type Tensors = BTreeMap<String, Tensor>;

/// How numbers are stored in a file; in memory they are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes: 11 significant bits, magnitudes up to 65,504.
    F16,
    /// 2 bytes: 8 significant bits, the magnitudes of 32-bit numbers.
    Bf16,
}

/// Why weights are not those of a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is truncated or damaged, or its header lies.
    #[error("it is not a whole safetensors file")]
    Format(#[source] SafeTensorError),
    /// A tensor that the config asks for is not there.
    #[error("tensor {tensor:?} is missing; the config asks for it with shape {expected:?}")]
    Missing {
        /// Its name.
        tensor: String,
        /// Its shape by the config.
        expected: Vec<usize>,
    },
    /// There is a tensor that the config does not know.
    #[error("tensor {tensor:?} with shape {found:?} has no place in a model of this config")]
    Unexpected {
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor's shape is not what the config says.
    #[error("tensor {tensor:?} has shape {found:?}, but the config asks for {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape by the config.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor's numbers are of a type that is not read.
    #[error("tensor {tensor:?} holds {found} numbers, allowed are F32, F16 and BF16")]
    NumberType {
        /// Its name.
        tensor: String,
        /// What it holds.
        found: String,
    },
    /// A number is NaN or infinite (or becomes so in the smaller type that was asked for).
    #[error("tensor {tensor:?} has {value} at element {element}, but only finite numbers are allowed")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Which element, counted in row-major order.
        element: usize,
        /// What stands there.
        value: f32,
    },
    /// The file is no GGUF file, its header is damaged or longer than a model's is, or the file ends too early.
    #[error("it is not a whole GGUF file of a model: {reason}")]
    Gguf {
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of a quantised model is stored in another type than its place asks for.
    #[error("tensor {tensor:?} is stored as {found}, but {allowed} is asked for")]
    StorageType {
        /// Its name.
        tensor: String,
        /// The type in the file.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// A tensor's numbers are not all in the file.
    #[error("tensor {tensor:?} takes {size} bytes from byte {start} on, but the file has {found}")]
    BeyondEnd {
        /// Its name.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// Its bytes.
        size: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A quantised matrix has rows that are stored in no file.
    #[error(transparent)]
    Rows(Box<QuantizeError>),
    /// A tensor can't be made or read.
    #[error("tensor {tensor:?} can't be converted")]
    Convert {
        /// Its name.
        tensor: String,
        /// What candle says.
        source: candle_core::Error,
    },
}

/// The tensors of a file's bytes: exactly those of [`Config::tensor_shapes`], in f32, finite.
pub(crate) fn decode(bytes: &[u8], config: &Config) -> Result<Tensors, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(WeightsError::Format)?;
    let views: BTreeMap<&str, TensorView<'_>> = file.iter().collect();
    let shapes = config.tensor_shapes();
    check_names(views.iter().map(|(&name, view)| (name, view.shape())), &shapes)?;
    let decode_one = |(name, view): (&str, TensorView<'_>)| {
        let values = decode_values(name, &view)?;
        check_finite(name, &values)?;
        let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu);
        Ok((name.to_owned(), tensor.map_err(|source| convert_error(name, source))?))
    };
    views.into_iter().map(decode_one).collect()
}

/// The bytes of a file with these tensors, which must be those of the config.
pub(crate) fn encode(
    tensors: &Tensors,
    config: &Config,
    number_type: WeightType,
) -> Result<Vec<u8>, WeightsError> {
    let found = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
    check_names(found, &config.tensor_shapes())?;
    let mut encoded = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        encoded.push((name, encode_values(name, tensor, number_type)?, tensor.dims().to_vec()));
    }
    let stored = match number_type {
        WeightType::F32 => Dtype::F32,
        WeightType::F16 => Dtype::F16,
        WeightType::Bf16 => Dtype::BF16,
    };
    let mut views = Vec::with_capacity(encoded.len());
    for (name, bytes, shape) in &encoded {
        let view = TensorView::new(stored, shape.clone(), bytes).map_err(WeightsError::Format)?;
        views.push((name.as_str(), view));
    }
    // PyTorch's tools ask for this key.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(WeightsError::Format)
}

/// Holds names and shapes against the config's.
pub(crate) fn check_names<'a>(
    found: impl Iterator<Item = (&'a str, &'a [usize])>,
    expected: &BTreeMap<String, Vec<usize>>,
) -> Result<(), WeightsError> {
    let mut missing: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    let mut unexpected = None;
    for (name, shape) in found {
        match expected.get(name) {
            Some(expected) if expected == shape => missing.remove(name),
            Some(expected) => {
                let (tensor, expected, found) = (name.to_owned(), expected.clone(), shape.to_vec());
                return Err(WeightsError::Shape { tensor, expected, found });
            }
            None => unexpected.replace((name, shape)).is_none(),
        };
    }
    // A missing tensor says more than an unexpected one, which is often the same under another name.
    if let Some(tensor) = missing.first() {
        let (tensor, expected) = (String::from(*tensor), expected[*tensor].clone());
        return Err(WeightsError::Missing { tensor, expected });
    }
    match unexpected {
        Some((name, shape)) => {
            // Whatever the file says: a sentence for people.
            let tensor = name.chars().take(LONGEST_NAME).collect();
            Err(WeightsError::Unexpected { tensor, found: shape.to_vec() })
        }
        None => Ok(()),
    }
}

fn decode_values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, WeightsError> {
    let bytes = view.data();
    let halves = || bytes.as_chunks::<2>().0.iter();
    match view.dtype() {
        Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        Dtype::F16 => Ok(halves().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()),
        Dtype::BF16 => Ok(halves().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()),
        other => Err(WeightsError::NumberType { tensor: name.to_owned(), found: other.to_string() }),
    }
}

/// A tensor's numbers, little-endian, row-major.
pub(crate) fn encode_values(
    name: &str,
    tensor: &Tensor,
    number_type: WeightType,
) -> Result<Vec<u8>, WeightsError> {
    let values = in_type(name, tensor, number_type)?;
    Ok(match number_type {
        WeightType::F32 => values.into_iter().flat_map(f32::to_le_bytes).collect(),
        WeightType::F16 => values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        WeightType::Bf16 => {
            values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect()
        }
    })
}

/// A tensor with the numbers that a type makes of its own.
pub(crate) fn rounded(name: &str, tensor: &Tensor, number_type: WeightType) -> Result<Tensor, WeightsError> {
    let values = in_type(name, tensor, number_type)?;
    Tensor::from_vec(values, tensor.dims(), &Device::Cpu).map_err(|source| convert_error(name, source))
}

/// A tensor's numbers, row-major, as a type holds them: finite there, too.
fn in_type(name: &str, tensor: &Tensor, number_type: WeightType) -> Result<Vec<f32>, WeightsError> {
    let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    let mut values = values.map_err(|source| convert_error(name, source))?;
    check_finite(name, &values)?;
    match number_type {
        WeightType::F32 => return Ok(values),
        WeightType::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
        WeightType::Bf16 => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
    }
    check_finite(name, &values)?;
    Ok(values)
}

pub(crate) fn check_finite(name: &str, values: &[f32]) -> Result<(), WeightsError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(element) => {
            Err(WeightsError::NotFinite { tensor: name.to_owned(), element, value: values[element] })
        }
        None => Ok(()),
    }
}

pub(crate) fn convert_error(name: &str, source: candle_core::Error) -> WeightsError {
    WeightsError::Convert { tensor: name.to_owned(), source }
}
