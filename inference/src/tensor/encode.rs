//! Tensors onto the wire: raw, in the widest type of their kind.
//!
//! Knows nothing about what they mean.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Elements, Tensor};
use crate::pb::ModelInferResponse;
use crate::pb::model_infer_response::InferOutputTensor;

/// Adds a tensor to a response.
pub fn encode(tensor: &Tensor, response: &mut ModelInferResponse) {
    response.outputs.push(InferOutputTensor {
        name: tensor.name.clone(),
        datatype: tensor.elements.datatype().to_owned(),
        shape: tensor.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
        ..InferOutputTensor::default()
    });
    response.raw_output_contents.push(raw(&tensor.elements));
}

/// Little-endian, one after the other; an element of BYTES after its length in four bytes.
fn raw(elements: &Elements) -> Bytes {
    let mut raw = BytesMut::new();
    match elements {
        Elements::Bools(values) => values.iter().for_each(|value| raw.put_u8(u8::from(*value))),
        Elements::Signed(values) => values.iter().for_each(|value| raw.put_i64_le(*value)),
        Elements::Unsigned(values) => values.iter().for_each(|value| raw.put_u64_le(*value)),
        Elements::Floats(values) => values.iter().for_each(|value| raw.put_f64_le(*value)),
        Elements::Bytes(values) => {
            for value in values {
                // Nothing here is as long as that: messages are not.
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                raw.put_u32_le(length);
                raw.put_slice(&value[..length as usize]);
            }
        }
    }
    raw.freeze()
}
