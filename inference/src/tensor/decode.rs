//! Tensors from the wire: shapes against elements, elements against datatypes.
//!
//! Knows nothing about which tensors there are or what they mean.

use std::collections::HashSet;

use bytes::{Buf as _, Bytes};

use super::{DATATYPES, Elements, Tensor};
use crate::error::Refusal;
use crate::pb::InferTensorContents;
use crate::pb::model_infer_request::InferInputTensor;

/// The tensors of a request. `raw` has one entry for each of them, or none at all.
///
/// # Errors
/// The first tensor that is wrong, what was wrong with it, and what is allowed.
pub fn decode(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, Refusal> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let message =
            format!("there are {} for {} inputs; allowed: one for each, or none", raw.len(), inputs.len());
        return Err(Refusal::new("raw_input_contents", message));
    }
    let mut names = HashSet::new();
    if let Some(twice) = inputs.iter().find(|input| !names.insert(input.name.as_str())) {
        return Err(Refusal::new(&twice.name, "the tensor is there twice; allowed: once"));
    }
    let mut raw = raw.into_iter();
    inputs.into_iter().map(|input| tensor(input, raw.next())).collect()
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, Refusal> {
    let InferInputTensor { name, datatype, shape, parameters, contents } = input;
    let refuse = |message: String| Refusal::new(&name, message);
    if let Some(parameter) = parameters.keys().min() {
        let message = if parameter.starts_with("shared_memory") {
            "shared memory is not supported; allowed: elements in the message".to_owned()
        } else {
            format!("the tensor has an unknown parameter '{parameter}'; allowed: none")
        };
        return Err(refuse(message));
    }
    let sizes = shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>();
    let count = sizes
        .as_ref()
        .and_then(|sizes| sizes.iter().try_fold(1, |product: usize, size| product.checked_mul(*size)));
    let (Some(sizes), Some(count)) = (sizes, count) else {
        return Err(refuse(format!("its shape is {shape:?}; allowed: sizes of at least 0")));
    };
    let elements = match (raw, contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            Err("its elements are in contents and in raw_input_contents; allowed: one of them".to_owned())
        }
        (Some(raw), _) => from_raw(&datatype, &raw, count),
        (None, contents) => from_contents(&datatype, contents.unwrap_or_default()),
    };
    let elements = elements.map_err(refuse)?;
    if elements.len() != count {
        let message = format!("it has {} elements; allowed: {count}, by its shape {shape:?}", elements.len());
        return Err(refuse(message));
    }
    Ok(Tensor { name, shape: sizes, elements })
}

fn from_raw(datatype: &str, raw: &[u8], count: usize) -> Result<Elements, String> {
    macro_rules! numbers {
        ($kind:ident, $number:ty) => {{
            let size = size_of::<$number>();
            // Compared before anything is made of it, so that a large shape costs nothing.
            if count.checked_mul(size) != Some(raw.len()) {
                let needed = count as u128 * size as u128;
                return Err(format!(
                    "it has {} bytes; allowed: {needed}, {count} elements of {datatype}",
                    raw.len()
                ));
            }
            let numbers = raw.as_chunks().0.iter().map(|bytes| <$number>::from_le_bytes(*bytes).into());
            Elements::$kind(numbers.collect())
        }};
    }
    Ok(match datatype {
        "BOOL" if raw.len() == count => Elements::Bools(raw.iter().map(|byte| *byte != 0).collect()),
        "BOOL" => return Err(format!("it has {} bytes; allowed: {count}, one for each element", raw.len())),
        "INT8" => numbers!(Signed, i8),
        "INT16" => numbers!(Signed, i16),
        "INT32" => numbers!(Signed, i32),
        "INT64" => numbers!(Signed, i64),
        "UINT8" => numbers!(Unsigned, u8),
        "UINT16" => numbers!(Unsigned, u16),
        "UINT32" => numbers!(Unsigned, u32),
        "UINT64" => numbers!(Unsigned, u64),
        "FP32" => numbers!(Floats, f32),
        "FP64" => numbers!(Floats, f64),
        "BYTES" => Elements::Bytes(strings(raw)?),
        other => return Err(unknown(other)),
    })
}

/// Each after its length in four bytes. Copies, so that no element keeps a whole message.
fn strings(mut raw: &[u8]) -> Result<Vec<Bytes>, String> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        let left = raw.len();
        let length = raw.try_get_u32_le().ok().map(|length| length as usize);
        let Some((string, rest)) = length.and_then(|length| raw.split_at_checked(length)) else {
            return Err(format!(
                "its element {} does not fit into the {left} bytes that are left; allowed: its length in four bytes \
                 (little-endian), and so many bytes",
                strings.len()
            ));
        };
        strings.push(Bytes::copy_from_slice(string));
        raw = rest;
    }
    Ok(strings)
}

fn from_contents(datatype: &str, contents: InferTensorContents) -> Result<Elements, String> {
    let InferTensorContents { bool_contents, int_contents, int64_contents, uint_contents, .. } = &contents;
    let fits = |least: i64, most: i64| match int_contents
        .iter()
        .find(|value| !(least..=most).contains(&i64::from(**value)))
    {
        None => Ok(Elements::Signed(int_contents.iter().map(|value| i64::from(*value)).collect())),
        Some(value) => Err(format!("{value} is no {datatype}; allowed: {least} to {most}")),
    };
    let fits_unsigned = |most: u64| match uint_contents.iter().find(|value| u64::from(**value) > most) {
        None => Ok(Elements::Unsigned(uint_contents.iter().map(|value| u64::from(*value)).collect())),
        Some(value) => Err(format!("{value} is no {datatype}; allowed: 0 to {most}")),
    };
    Ok(match datatype {
        "BOOL" => Elements::Bools(bool_contents.clone()),
        "INT8" => fits(i8::MIN.into(), i8::MAX.into())?,
        "INT16" => fits(i16::MIN.into(), i16::MAX.into())?,
        "INT32" => fits(i32::MIN.into(), i32::MAX.into())?,
        "INT64" => Elements::Signed(int64_contents.clone()),
        "UINT8" => fits_unsigned(u8::MAX.into())?,
        "UINT16" => fits_unsigned(u16::MAX.into())?,
        "UINT32" => fits_unsigned(u32::MAX.into())?,
        "UINT64" => Elements::Unsigned(contents.uint64_contents),
        "FP32" => Elements::Floats(contents.fp32_contents.into_iter().map(f64::from).collect()),
        "FP64" => Elements::Floats(contents.fp64_contents),
        "BYTES" => Elements::Bytes(contents.bytes_contents),
        other => return Err(unknown(other)),
    })
}

fn unknown(datatype: &str) -> String {
    format!("its datatype is '{datatype}'; allowed: {}", DATATYPES.join(", "))
}
