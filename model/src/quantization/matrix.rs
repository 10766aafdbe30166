//! A model's matrices in blocks, made by candle from its tensors or read from a file, and what they stand for.
//!
//! A row is filled up with zeros to whole blocks. That is exact: what it is multiplied with is zero there, too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{Device, Result as TensorResult, Tensor};

use super::{Quantization, QuantizeError, Storage, check_rows, storage};
use crate::config::Config;
use crate::weights::{Tensors, WeightType, check_finite, rounded};

/// The matrices of a quantised model by name, `[out, in in whole blocks]` each.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedMatrices {
    pub(crate) quantization: Quantization,
    pub(crate) matrices: BTreeMap<String, Arc<QTensor>>,
}

impl QuantizedMatrices {
    /// Quantises a model's tensors, and replaces each of them by what it has become: the numbers that its blocks stand
    /// for, or those of 16 bits.
    pub(crate) fn quantize(
        tensors: &mut Tensors,
        config: &Config,
        quantization: Quantization,
    ) -> Result<Self, QuantizeError> {
        check_rows(config, quantization)?;
        let mut matrices = BTreeMap::new();
        for (name, tensor) in tensors {
            match storage(config, name) {
                Storage::Full => {}
                Storage::Half => *tensor = rounded(name, tensor, WeightType::F16)?,
                Storage::Blocks => {
                    let convert = |source| QuantizeError::Convert { tensor: name.clone(), source };
                    let matrix = quantized(tensor, quantization).map_err(convert)?;
                    *tensor = dequantized(&matrix, tensor.dims()).map_err(convert)?;
                    if check_finite(
                        name,
                        &tensor.flatten_all().and_then(|all| all.to_vec1()).map_err(convert)?,
                    )
                    .is_err()
                    {
                        return Err(QuantizeError::TooLarge { tensor: name.clone(), quantization });
                    }
                    matrices.insert(name.clone(), Arc::new(matrix));
                }
            }
        }
        Ok(Self { quantization, matrices })
    }

    /// A matrix's blocks as ggml lays them out, row by row.
    pub(crate) fn blocks(&self, name: &str) -> Option<TensorResult<Cow<'_, [u8]>>> {
        self.matrices.get(name).map(|matrix| matrix.data())
    }
}

/// A tensor `[out, in]` in blocks.
fn quantized(tensor: &Tensor, quantization: Quantization) -> TensorResult<QTensor> {
    let (_, length) = tensor.dims2()?;
    let missing = length.next_multiple_of(quantization.block()) - length;
    QTensor::quantize(&tensor.pad_with_zeros(1, 0, missing)?, quantization.ggml_type())
}

/// The numbers that blocks stand for, as a tensor of this shape, without what fills their rows up.
pub(crate) fn dequantized(matrix: &QTensor, shape: &[usize]) -> TensorResult<Tensor> {
    let all = matrix.dequantize(&Device::Cpu)?;
    match *shape {
        [_, length] => all.narrow(1, 0, length)?.contiguous(),
        _ => candle_core::bail!("a tensor of shape {shape:?} is no matrix"),
    }
}
