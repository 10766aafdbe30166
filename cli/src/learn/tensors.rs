//! Named lists of numbers in the safetensors format. Knows nothing about what the numbers say.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Named lists of numbers, little-endian.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    by_name: BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>,
}

/// A kind of number that is stored.
pub(crate) trait Stored: Sized {
    const DTYPE: Dtype;
    /// From as many bytes as it has.
    fn read(bytes: &[u8]) -> Option<Self>;
    fn write(&self, bytes: &mut Vec<u8>);
}

macro_rules! stored {
    ($type:ty, $dtype:expr) => {
        impl Stored for $type {
            const DTYPE: Dtype = $dtype;

            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }

            fn write(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    };
}

stored!(u32, Dtype::U32);
stored!(f32, Dtype::F32);
stored!(f64, Dtype::F64);

impl Tensors {
    /// Adds a list of this shape.
    pub(crate) fn with<T: Stored>(mut self, name: &'static str, shape: &[usize], values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.write(&mut bytes));
        self.by_name.insert(name, (T::DTYPE, shape.to_vec(), bytes));
        self
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// A list has another length than its shape says.
    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let mut views = Vec::with_capacity(self.by_name.len());
        for (name, (dtype, shape, bytes)) in &self.by_name {
            views.push((*name, TensorView::new(*dtype, shape.clone(), bytes)?));
        }
        Ok(safetensors::serialize(views, None)?)
    }
}

/// A list of a file and its shape.
///
/// # Errors
/// It is not there, or of other numbers.
pub(crate) fn list<T: Stored>(file: &SafeTensors<'_>, name: &str) -> anyhow::Result<(Vec<usize>, Vec<T>)> {
    let view = file.tensor(name).with_context(|| format!("it has no tensor {name}"))?;
    if view.dtype() != T::DTYPE {
        bail!("its tensor {name} is of {:?}; expected is {:?}", view.dtype(), T::DTYPE);
    }
    let values: Option<Vec<T>> = view.data().chunks_exact(size_of::<T>()).map(T::read).collect();
    Ok((view.shape().to_vec(), values.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let tensors =
            Tensors::default().with("ids", &[3], &[1_u32, 2, 3]).with("values", &[1, 2], &[0.5_f64, -1.0]);
        let bytes = tensors.encode().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(list::<u32>(&file, "ids").unwrap(), (vec![3], vec![1, 2, 3]));
        assert_eq!(list::<f64>(&file, "values").unwrap(), (vec![1, 2], vec![0.5, -1.0]));
        assert!(list::<f32>(&file, "values").unwrap_err().to_string().contains("expected is F32"));
        assert!(list::<f32>(&file, "other").unwrap_err().to_string().contains("no tensor other"));
        assert!(Tensors::default().with("ids", &[4], &[1_u32]).encode().is_err());
    }
}
