//! A weights file as a list of named tensors, whatever its format. Knows nothing about what the names mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::element::Element;
use super::error::ImportError;
use super::file::read;
use super::pickle::{Archive, PickleError};

/// More than any LSTM's weights, in bytes; all of them are in memory.
const LARGEST_WEIGHTS: u64 = 32 << 30;

/// An opened weights file.
pub(super) struct Checkpoint {
    path: PathBuf,
    contents: Contents,
    /// Every tensor's type and shape by key.
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// What is known of a tensor before its numbers are read.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
}

enum Contents {
    Pickle(Archive),
    Safetensors(Vec<u8>),
}

impl Checkpoint {
    /// Opens a PyTorch `.pt` or a safetensors file; which of them it is shows in its first bytes.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let file = read(path, LARGEST_WEIGHTS)?;
        if file.starts_with(b"PK") {
            return Self::open_pickle(path, file);
        }
        if file.starts_with(&[0x80]) && file.get(1).is_some_and(|version| (2..=5).contains(version)) {
            let reason = "it is a bare pickle, as PyTorch wrote before 1.6; load it and torch.save it again";
            return Err(ImportError::Format { path: path.to_owned(), reason: reason.to_owned() });
        }
        Self::open_safetensors(path, file)
    }

    /// A tensor's numbers as 32-bit floats, row by row; every one finite.
    pub(super) fn values(&self, key: &str) -> Result<Vec<f32>, ImportError> {
        let unreadable = |reason: String| ImportError::Tensor { key: key.to_owned(), reason };
        let info = self.tensors.get(key).ok_or_else(|| unreadable("it is not in the file".to_owned()))?;
        if let Element::Other(found) = &info.element {
            return Err(ImportError::Type { key: key.to_owned(), found: found.clone() });
        }
        let values = match &self.contents {
            Contents::Pickle(archive) => match archive.tensors.get(key) {
                Some(Ok(view)) => archive.values(view).map_err(unreadable)?,
                _ => return Err(unreadable("it is not in the file".to_owned())),
            },
            Contents::Safetensors(file) => {
                let tensors = SafeTensors::deserialize(file).map_err(|error| damaged(&self.path, error))?;
                let tensor = tensors.tensor(key).map_err(|error| damaged(&self.path, error))?;
                info.element.to_f32(tensor.data()).unwrap_or_default()
            }
        };
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let value = values.get(index).copied().unwrap_or(f32::NAN);
                Err(ImportError::NotFinite { key: key.to_owned(), index, value })
            }
            None => Ok(values),
        }
    }

    fn open_pickle(path: &Path, file: Vec<u8>) -> Result<Self, ImportError> {
        let archive = Archive::open(file).map_err(|error| match error {
            PickleError::NoPickle
            | PickleError::BigEndian
            | PickleError::Protocol(_)
            | PickleError::WholeModule
            | PickleError::NoStateDict => {
                ImportError::Format { path: path.to_owned(), reason: error.to_string() }
            }
            broken => damaged(path, broken),
        })?;
        let info = |(key, view): (&String, &Result<_, String>)| match view {
            Ok(super::pickle::View { element, shape, .. }) => {
                Ok((key.clone(), TensorInfo { element: element.clone(), shape: shape.clone() }))
            }
            Err(reason) => Err(ImportError::Tensor { key: key.clone(), reason: reason.clone() }),
        };
        let tensors = archive.tensors.iter().map(info).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), contents: Contents::Pickle(archive), tensors })
    }

    fn open_safetensors(path: &Path, file: Vec<u8>) -> Result<Self, ImportError> {
        let read = SafeTensors::deserialize(&file).map_err(|error| damaged(path, error))?;
        let info = |(key, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
            (key.to_owned(), TensorInfo { element: element(tensor.dtype()), shape: tensor.shape().to_vec() })
        };
        let tensors: BTreeMap<String, TensorInfo> = read.iter().map(info).collect();
        if tensors.is_empty() {
            let reason = "it holds no tensors".to_owned();
            return Err(ImportError::Format { path: path.to_owned(), reason });
        }
        Ok(Self { path: path.to_owned(), contents: Contents::Safetensors(file), tensors })
    }
}

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        other => Element::Other(format!("{other:?}").to_lowercase()),
    }
}

fn damaged(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> ImportError {
    ImportError::Damaged { path: path.to_owned(), source: Box::new(source) }
}
