//! `model.gguf`: the weights of a quantised model, from bytes to tensors and blocks, and back.
//!
//! candle reads and writes the format. Nothing that the bytes say is believed before it is held against the config, and
//! what the header claims is bounded first. Knows nothing about directories or networks.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{self, Content, TensorInfo, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::config::Config;
use crate::quantization::{Quantization, QuantizedMatrices, Storage, check_rows, dequantized, storage};
use crate::weights::{Tensors, WeightsError, check_finite, check_names, convert_error};

/// A header is read from so many bytes; that of a model with the most layers has some 20,000.
const HEADER_BYTES: usize = 1 << 16;
/// Tensors begin at multiples of this many bytes.
const ALIGNMENT: u64 = 32;
/// The key under which a file may ask for another one.
const ALIGNMENT_KEY: &[u8] = b"general.alignment";
/// What is quoted of a reader's reason, in characters.
const LONGEST_REASON: usize = 300;

/// The most that a file of this config has, in bytes: padding adds a third to rows at most, and no block type has as many
/// bits as f32.
pub(crate) fn largest_file(config: &Config) -> u64 {
    let alignment = ALIGNMENT * config.tensor_shapes().len() as u64;
    config.parameters().saturating_mul(4).saturating_add(alignment).saturating_add(HEADER_BYTES as u64)
}

/// The bytes of a file with a quantised model's tensors, which are those of the config.
pub(crate) fn encode(
    tensors: &Tensors,
    quantized: &QuantizedMatrices,
    config: &Config,
) -> Result<Vec<u8>, WeightsError> {
    let found = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
    check_names(found, &config.tensor_shapes())?;
    let plain = |name: &str, tensor: &Tensor, stored| {
        QTensor::quantize(tensor, stored).map(Arc::new).map_err(|source| convert_error(name, source))
    };
    let mut stored: Vec<(&str, Arc<QTensor>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = match quantized.matrices.get(name) {
            Some(matrix) => matrix.clone(),
            None => plain(name, tensor, plain_type(storage(config, name)))?,
        };
        stored.push((name, tensor));
    }
    let views: Vec<(&str, &QTensor)> = stored.iter().map(|(name, tensor)| (*name, &**tensor)).collect();
    let (architecture, name) = (Value::String("lstm".to_owned()), Value::String(config.name.clone()));
    let metadata = [("general.architecture", &architecture), ("general.name", &name)];
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &views).map_err(|error| unreadable(&error))?;
    Ok(file.into_inner())
}

/// The tensors of a file's bytes, exactly those of [`Config::tensor_shapes`] and finite, and the blocks that they stand
/// for.
pub(crate) fn decode(bytes: &[u8], config: &Config) -> Result<(Tensors, QuantizedMatrices), WeightsError> {
    let content = read_header(bytes)?;
    let quantization = quantization_of(&content, config)?;
    check_rows(config, quantization).map_err(|error| WeightsError::Rows(Box::new(error)))?;
    let places = places(config, quantization);
    let shapes = places.iter().map(|(name, place)| (name.clone(), place.stored.clone())).collect();
    let infos = content.tensor_infos.iter();
    check_names(infos.map(|(name, info)| (name.as_str(), info.shape.dims())), &shapes)?;
    check_types(&content, &places)?;
    check_sizes(bytes, &content, &places)?;
    let (mut tensors, mut matrices) = (Tensors::new(), BTreeMap::new());
    for (name, place) in places {
        // Names have been compared.
        let Some(info) = content.tensor_infos.get(&name) else { continue };
        let (tensor, stored) = read_tensor(bytes, &content, info, &name, &place)?;
        if place.storage == Storage::Blocks {
            matrices.insert(name.clone(), Arc::new(stored));
        }
        tensors.insert(name, tensor);
    }
    Ok((tensors, QuantizedMatrices { quantization, matrices }))
}

/// A tensor of the config as a file of a quantization has it.
struct Place {
    storage: Storage,
    /// Its type in the file.
    stored_as: GgmlDType,
    /// Its shape in the file, rows in whole blocks.
    stored: Vec<usize>,
    /// Its shape by the config.
    shape: Vec<usize>,
}

impl Place {
    /// Bytes in the file.
    fn size(&self) -> u64 {
        let numbers: u64 = self.stored.iter().map(|&size| size as u64).product();
        numbers / self.stored_as.block_size() as u64 * self.stored_as.type_size() as u64
    }
}

fn places(config: &Config, quantization: Quantization) -> BTreeMap<String, Place> {
    let place = |(name, shape): (String, Vec<usize>)| {
        let storage = storage(config, &name);
        let (stored_as, stored) = match (storage, &shape[..]) {
            (Storage::Blocks, &[rows, length]) => {
                (quantization.ggml_type(), vec![rows, length.next_multiple_of(quantization.block())])
            }
            _ => (plain_type(storage), shape.clone()),
        };
        (name, Place { storage, stored_as, stored, shape })
    };
    config.tensor_shapes().into_iter().map(place).collect()
}

fn plain_type(storage: Storage) -> GgmlDType {
    match storage {
        Storage::Half => GgmlDType::F16,
        Storage::Full | Storage::Blocks => GgmlDType::F32,
    }
}

/// Reads what a header says, from a bounded part of the file: what it claims to hold is at most that long.
fn read_header(bytes: &[u8]) -> Result<Content, WeightsError> {
    let header = &bytes[..bytes.len().min(HEADER_BYTES)];
    // candle divides by it, and no model is written with another one.
    if header.windows(ALIGNMENT_KEY.len()).any(|window| window == ALIGNMENT_KEY) {
        let reason =
            format!("it sets general.alignment, but tensors are read at multiples of {ALIGNMENT} bytes only");
        return Err(WeightsError::Gguf { reason });
    }
    Content::read(&mut Cursor::new(header)).map_err(|error| unreadable(&error))
}

/// The type of the first matrix, which is that of all.
fn quantization_of(content: &Content, config: &Config) -> Result<Quantization, WeightsError> {
    let shapes = config.tensor_shapes();
    let is_matrix = |name: &&String| storage(config, name) == Storage::Blocks;
    let Some((name, info)) =
        shapes.keys().filter(is_matrix).find_map(|name| content.tensor_infos.get_key_value(name))
    else {
        return Err(WeightsError::Gguf { reason: "it has none of the model's matrices".to_owned() });
    };
    let quantization = Quantization::ALL.into_iter().find(|known| known.ggml_type() == info.ggml_dtype);
    quantization.ok_or_else(|| WeightsError::StorageType {
        tensor: name.clone(),
        found: format!("{:?}", info.ggml_dtype),
        allowed: "Q8_0, Q6K or Q4K".to_owned(),
    })
}

fn check_types(content: &Content, places: &BTreeMap<String, Place>) -> Result<(), WeightsError> {
    let wrong = places.iter().find_map(|(name, place)| {
        let found = content.tensor_infos.get(name)?.ggml_dtype;
        (found != place.stored_as).then(|| WeightsError::StorageType {
            tensor: name.clone(),
            found: format!("{found:?}"),
            allowed: format!("{:?}", place.stored_as),
        })
    });
    wrong.map_or(Ok(()), Err)
}

/// Every tensor is in the file, and they do not share bytes: a small file would be a large model.
fn check_sizes(
    bytes: &[u8],
    content: &Content,
    places: &BTreeMap<String, Place>,
) -> Result<(), WeightsError> {
    let found = bytes.len() as u64;
    let needed: u64 = places.values().map(Place::size).sum();
    if found < needed {
        let reason = format!("its tensors alone take {needed} bytes, but it has {found}");
        return Err(WeightsError::Gguf { reason });
    }
    for (name, place) in places {
        let offset = content.tensor_infos.get(name).map_or(0, |info| info.offset);
        let (start, size) = (content.tensor_data_offset.saturating_add(offset), place.size());
        if start.saturating_add(size) > found {
            return Err(WeightsError::BeyondEnd { tensor: name.clone(), start, size, found });
        }
    }
    Ok(())
}

/// A tensor as it is stored, and the finite numbers that it stands for.
fn read_tensor(
    bytes: &[u8],
    content: &Content,
    info: &TensorInfo,
    name: &str,
    place: &Place,
) -> Result<(Tensor, QTensor), WeightsError> {
    let convert = |source| convert_error(name, source);
    let stored = info.read(&mut Cursor::new(bytes), content.tensor_data_offset, &Device::Cpu);
    let stored = stored.map_err(convert)?;
    let tensor = match place.storage {
        Storage::Blocks => dequantized(&stored, &place.shape),
        Storage::Half | Storage::Full => stored.dequantize(&Device::Cpu),
    };
    let tensor = tensor.map_err(convert)?;
    check_finite(name, &tensor.flatten_all().and_then(|all| all.to_vec1()).map_err(convert)?)?;
    Ok((tensor, stored))
}

/// What candle says: it may quote a file's names, and a backtrace may follow.
fn unreadable(error: &candle_core::Error) -> WeightsError {
    let sentence = error.to_string();
    let reason = sentence.lines().next().unwrap_or_default().chars().take(LONGEST_REASON).collect();
    WeightsError::Gguf { reason }
}
